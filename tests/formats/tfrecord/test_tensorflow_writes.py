"""TensorFlow and protobuf as oracles."""

import os
import struct
from contextlib import closing

import pytest
from hypothesis import example as given_example
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import DataError
from converters.formats.tfrecord.compression import DecompressedStream, StoredFile
from converters.formats.tfrecord.encoder import encode_example
from converters.formats.tfrecord.foreign import look_at
from converters.formats.tfrecord.framing import read_frames
from converters.formats.tfrecord.index import IndexChecker
from converters.formats.tfrecord.reader import RangeReader, SourceRange
from converters.formats.tfrecord.strict_parser import ExampleError, parse_example
from converters.formats.tfrecord.writer import TFRecordWriter

RECORDS = [b"", b"one", bytes(range(256)) * 20, b"\0" * 1000, os.urandom(5000)]


def read(path, compression="none", chunk_bytes=4096) -> list[bytes]:
    found = []
    with StoredFile(path) as file:
        stream = file if compression == "none" else DecompressedStream(file, compression, file.path)
        for frames in read_frames(stream, file.path, chunk_bytes=chunk_bytes):
            for start, size in zip(frames.starts.tolist(), frames.sizes.tolist(), strict=True):
                found.append(bytes(frames.buffer[start : start + size]))
    return found


def write(tf, path, records, compression=""):
    with tf.io.TFRecordWriter(str(path), options=compression) as writer:
        for data in records:
            writer.write(data)


@pytest.mark.parametrize("compression", ["none", "gzip", "zlib"])
def test_what_tensorflow_wrote_is_read(tf, tmp_path, compression):
    path = tmp_path / "file"
    write(tf, path, RECORDS, "" if compression == "none" else compression.upper())
    assert look_at(path).compression == compression
    for chunk_bytes in (1, 100, 1 << 20):
        assert read(path, compression, chunk_bytes) == RECORDS


@pytest.mark.parametrize("compression", ["gzip", "zlib"])
def test_every_truncation_of_what_tensorflow_compressed_is_an_error(tf, tmp_path, compression):
    path, cut = tmp_path / "file", tmp_path / "cut"
    write(tf, path, [b"one", b"two" * 5, b""], compression.upper())
    stored = path.read_bytes()
    for end in range(1, len(stored)):
        cut.write_bytes(stored[:end])
        with pytest.raises(DataError) as caught:
            read(cut, compression)
        assert caught.value.at.path == str(cut)
    for tail in (bytes(1), bytes(4096), b"tail"):
        cut.write_bytes(stored + tail)
        with pytest.raises(DataError):
            read(cut, compression)


def test_cut_gzip_that_tensorflow_reads_in_silence_is_an_error_here(tf, tmp_path):
    """The promise that this reader is stricter than TensorFlow, with TensorFlow beside it."""
    path, cut = tmp_path / "file", tmp_path / "cut"
    records = [os.urandom(20_000) for _ in range(20)]
    write(tf, path, records, "GZIP")
    cut.write_bytes(path.read_bytes()[:-8])
    silent = [item.numpy() for item in tf.data.TFRecordDataset(str(cut), "GZIP")]
    assert silent == records  # its trailer is gone, and TensorFlow says nothing
    with pytest.raises(DataError, match="cut short"):
        read(cut, "gzip")


def test_the_range_reader_reads_what_tensorflow_wrote(tf, tmp_path):
    path = tmp_path / "file"
    for compression in ("none", "gzip", "zlib"):
        write(tf, path, RECORDS, "" if compression == "none" else compression.upper())
        reader = RangeReader(SourceRange(path, 0, path.stat().st_size, 0, compression))
        with closing(reader.frames()) as frames:
            assert sum(len(part.starts) for part in frames) == len(RECORDS)
        assert reader.records == len(RECORDS)


# ---- Example, against protobuf ------------------------------------------------------------------------


def as_dict(tf, data: bytes) -> dict:
    """What protobuf reads; NaNs compare by bits."""
    found = {}
    for name, feature in tf.train.Example.FromString(data).features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        if kind == "float_list":
            values = [struct.pack("<f", value) if value == value else "nan" for value in values]
        found[name] = (kind, values)
    return found


def ours(data: bytes) -> dict:
    found = {}
    for name, feature in parse_example(data).items():
        if feature.kind == "bytes_list":
            spans = zip(feature.starts.tolist(), feature.sizes.tolist(), strict=True)
            values = [data[start : start + size] for start, size in spans]
        elif feature.kind == "int64_list":
            values = feature.integers.tolist()
        else:
            values = [value.tobytes() if value == value else "nan" for value in feature.floats]
        assert len(values) == feature.count
        found[name] = (feature.kind, values)
    return found


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
int64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, -1, 127, 128, 2**31, -(2**63)]))
features = st.dictionaries(
    names,
    st.one_of(
        st.tuples(st.just("bytes_list"), st.lists(st.binary(max_size=30), max_size=3)),
        st.tuples(st.just("int64_list"), st.lists(int64, max_size=8)),
        st.tuples(st.just("float_list"), st.lists(st.floats(width=32), max_size=4)),
        st.just((None, [])),
    ),
    min_size=1,
    max_size=5,
)


def build(tf, parts: dict) -> bytes:
    message = tf.train.Example()
    for name, (kind, values) in parts.items():
        feature = message.features.feature[name]
        if kind is None:
            feature.SetInParent()
        else:
            getattr(feature, kind).SetInParent()
            getattr(feature, kind).value.extend(values)
    return message.SerializeToString()


@settings(deadline=None, max_examples=200)
@given(parts=features)
def test_what_protobuf_serialised_is_parsed_alike(tf, parts):
    data = build(tf, parts)
    assert ours(data) == as_dict(tf, data)


@settings(deadline=None, max_examples=200)
@given(
    parts=features,
    edits=st.lists(
        st.tuples(
            st.sampled_from(["flip", "set", "insert", "delete", "cut", "repeat"]),
            st.integers(0, 300),
            st.one_of(
                st.integers(0, 255),
                st.sampled_from([0, 1, 2, 8, 9, 0x0A, 0x0D, 0x12, 0x1A, 0x22, 0x7F, 0x80, 0xFF]),
            ),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_mutated_bytes_are_an_error_or_what_protobuf_gives(tf, parts, edits):
    data = bytearray(build(tf, parts))
    for how, spot, value in edits:
        if not data:
            break
        spot %= len(data)
        if how == "flip":
            data[spot] ^= 1 << value % 8
        elif how == "set":
            data[spot] = value
        elif how == "insert":
            data.insert(spot, value)
        elif how == "delete":
            del data[spot]
        elif how == "cut":
            del data[spot:]
        else:
            data += data[spot:]
    refused_or_alike(tf, bytes(data))


def refused_or_alike(tf, data: bytes) -> bool:
    """Whether parse_example accepted; if so, protobuf must give the same."""
    try:
        mine = ours(data)
    except ExampleError as error:
        assert 0 <= error.position <= len(data)  # noqa: PT017
        return False
    assert mine == as_dict(tf, data), data.hex()
    return True


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=40))
@given_example(data=b"\x0a\x00")
@given_example(data=b"")
def test_arbitrary_bytes_are_an_error_or_what_protobuf_gives(tf, data):
    refused_or_alike(tf, data)
    refused_or_alike(tf, b"\x0a" + bytes([len(data)]) + data)


def test_every_single_byte_change_is_an_error_or_what_protobuf_gives(tf):
    data = build(
        tf,
        {
            "a": ("bytes_list", [b"xy", b""]),
            "b": ("int64_list", [1, -1, 300]),
            "c": ("float_list", [1.5]),
        },
    )
    accepted = 0
    for position in range(len(data)):
        for value in range(256):
            accepted += refused_or_alike(tf, data[:position] + bytes([value]) + data[position + 1 :])
    assert accepted > len(data)  # the values themselves may change


def test_unpacked_numbers_are_read_as_both_other_readers_read_them(tf):
    for body, dtype, expected in [
        (b"\x1a\x04\x08\x01\x08\x05", tf.int64, [1, 5]),
        (b"\x12\x05\x0d\x00\x00\x80\x3f", tf.float32, [1.0]),
    ]:
        entry = b"\x0a\x01a\x12" + bytes([len(body)]) + body
        inner = b"\x0a" + bytes([len(entry)]) + entry
        data = b"\x0a" + bytes([len(inner)]) + inner
        assert ours(data) == as_dict(tf, data)
        parsed = tf.io.parse_single_example(data, {"a": tf.io.VarLenFeature(dtype)})["a"]
        assert parsed.values.numpy().tolist() == expected


@settings(deadline=None, max_examples=60)
@given(parts=features, edits=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=2))
def test_what_is_accepted_tensorflows_own_parser_reads_alike(tf, parts, edits):
    """TensorFlow's graph op has a parser of its own, not protobuf's."""
    data = bytearray(build(tf, parts))
    for spot, value in edits:
        data[spot % len(data)] = value
    data = bytes(data)
    try:
        mine = parse_example(data)
    except ExampleError:
        return
    dtypes = {"bytes_list": tf.string, "int64_list": tf.int64, "float_list": tf.float32}
    # No feature at all, or one called "", is nothing the op can be asked for. A feature without a kind has no values.
    wanted = {
        name: tf.io.VarLenFeature(dtypes[feature.kind or "int64_list"])
        for name, feature in mine.items()
        if name
    }
    if not wanted:
        return
    parsed = tf.io.parse_single_example(data, wanted)
    for name in wanted:
        feature, values = mine[name], parsed[name].values.numpy().tolist()
        assert len(values) == feature.count
        if feature.kind == "bytes_list":
            spans = zip(feature.starts.tolist(), feature.sizes.tolist(), strict=True)
            assert values == [data[start : start + size] for start, size in spans]
        elif feature.kind == "int64_list":
            assert values == feature.integers.tolist()


# ---- The writer -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(
    parts=st.dictionaries(names, st.one_of(st.binary(max_size=300), st.lists(int64, max_size=30)), min_size=1)
)
def test_protobuf_parses_what_the_writer_encoded(tf, parts):
    data = encode_example(parts)
    expected = {
        name: ("bytes_list", [value]) if isinstance(value, bytes) else ("int64_list", value)
        for name, value in parts.items()
    }
    assert as_dict(tf, data) == expected
    assert ours(data) == expected


def test_tensorflow_reads_and_parses_what_the_writer_wrote(tf, tmp_path):
    path, index = tmp_path / "file", tmp_path / "file.idx"
    wanted = [
        (bytes([number]) * (number * 50), [number % 2, 1, 0], 64 + number, -number) for number in range(8)
    ]
    with TFRecordWriter(path, index) as writer:
        for image, label, height, width in wanted:
            writer.write(
                encode_example({"image_raw": image, "label": label, "height": [height], "width": [width]})
            )
    spec = {
        "image_raw": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([3], tf.int64),
        "height": tf.io.FixedLenFeature([], tf.int64),
        "width": tf.io.FixedLenFeature([], tf.int64),
    }
    found = []
    for data in tf.data.TFRecordDataset(str(path)):
        parsed = {name: value.numpy() for name, value in tf.io.parse_single_example(data, spec).items()}
        found.append(
            (parsed["image_raw"], parsed["label"].tolist(), int(parsed["height"]), int(parsed["width"]))
        )
    assert found == wanted
    with StoredFile(path) as file, IndexChecker(index, str(path)) as checker:
        for frames in read_frames(file, str(path), chunk_bytes=100):
            checker.check(frames)
        checker.finish(len(wanted))
    for line, start in zip(index.read_text("ascii").splitlines(), (0,), strict=False):
        assert line.split()[0] == str(start)
    assert sum(int(line.split()[1]) for line in index.read_text("ascii").splitlines()) == path.stat().st_size


def test_the_writer_writes_the_file_that_tensorflow_writes(tf, tmp_path):
    write(tf, tmp_path / "theirs", RECORDS)
    with TFRecordWriter(tmp_path / "ours") as writer:
        for data in RECORDS:
            writer.write(data)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_the_writer_replaces_nothing(tmp_path):
    path, index = tmp_path / "file", tmp_path / "index"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        TFRecordWriter(path)
    assert path.read_bytes() == b"precious"
    index.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        TFRecordWriter(tmp_path / "new", index)
    assert index.read_bytes() == b"precious"
