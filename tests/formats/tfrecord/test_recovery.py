"""Recovery: what is found again in a damaged file is what was written, and every byte is accounted for."""

import gzip
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from converters.dataset.damage import first_lost, records_lost
from converters.errors import DataError, Location
from converters.formats.tfrecord.foreign import look_at
from converters.formats.tfrecord.damage import lost_bytes
from converters.formats.tfrecord.framing import frame, is_header, masked_crc, valid_headers
from converters.formats.tfrecord.reader import RangeReader, SourceRange
from converters.formats.tfrecord.recovery import Examination, examine

CHUNK = 512  # so that the small files of these tests are several chunks


def example(payload: bytes) -> bytes:
    """Bytes of the outline of an Example: one field that holds all."""
    length, encoded = len(payload), b""
    while length > 0x7F:
        encoded += bytes([length & 0x7F | 0x80])
        length >>= 7
    return b"\x0a" + encoded + bytes([length]) + payload


def some_records(count: int, seed: int = 0, least: int = 20, most: int = 300) -> list[bytes]:
    generator = random.Random(seed)
    return [example(generator.randbytes(generator.randint(least, most))) for _ in range(count)]


def offsets(records: list[bytes]) -> list[int]:
    """Where each record starts, and where the last one ends."""
    starts = [0]
    for data in records:
        starts.append(starts[-1] + len(data) + 16)
    return starts


def index_text(records: list[bytes]) -> str:
    return "".join(
        f"{start} {len(data) + 16}\n" for start, data in zip(offsets(records), records, strict=False)
    )


def anything(_frames: object) -> None:
    """A check that every record passes: what is found depends on the framing alone."""


def examined(path: Path, index: Path | None = None, check=anything) -> tuple[Examination, list[bytes]]:
    """What examining a file finds, and the records that a strict reading between the damage gives.

    Checks that sound records and lost ranges tile the file, and that the lost bytes are the file's.
    """
    compression = look_at(path).compression
    stored = path.read_bytes()
    found = examine(path, compression, index, check, chunk_bytes=CHUNK)
    used = index if found.index_problem is None else None
    reader = RangeReader(SourceRange(path, 0, len(stored), 0, compression, used, found.lost))
    records: list[bytes] = []
    pieces: list[tuple[int, bytes]] = []
    for frames in reader.frames():
        for offset, start, size in zip(frames.offsets(), frames.starts, frames.sizes, strict=True):
            data = frames.buffer[start : start + size]
            records.append(data)
            pieces.append((int(offset), frame(data)))
    assert len(records) == found.records == reader.records
    assert sum(len(data) + 16 for data in records) == reader.record_bytes
    tail = len(stored)
    for lost, stream in lost_bytes(path, compression, found.lost):
        data = b"".join(iter(lambda stream=stream: stream.read(100), b""))
        assert len(data) == lost.end - lost.start
        if lost.inflated is None:
            pieces.append((lost.start, data))
        else:
            assert (lost.end, lost.inflated) == (len(stored), found.stream_bytes)
            assert data == stored[lost.start :]
            tail = lost.start
    end = 0
    for offset, data in sorted(pieces, key=lambda piece: (piece[0], len(piece[1]))):
        assert offset == end
        end += len(data)
    assert end == found.stream_bytes
    whole = b"".join(data for _, data in sorted(pieces, key=lambda piece: (piece[0], len(piece[1]))))
    if compression == "none":
        assert whole == stored
    else:
        inflater = zlib.decompressobj(31 if compression == "gzip" else 15)
        if tail == len(stored) and not found.lost:
            assert whole == (gzip.decompress(stored) if compression == "gzip" else zlib.decompress(stored))
        else:
            assert whole.startswith(inflater.decompress(stored[:tail]))
    return found, records


def examined_unless_nothing_is_sound(
    path: Path, index: Path | None
) -> tuple[Examination, list[bytes]] | None:
    try:
        return examined(path, index)
    except DataError as error:
        if "nothing in this file is sound" in error.message or "file is empty" in error.message:
            return None
        raise


def is_part_of(found: list[bytes], original: list[bytes]) -> bool:
    """Whether all of ``found`` stand in ``original``, in this order."""
    left = iter(original)
    return all(any(data == other for other in left) for data in found)


@pytest.fixture
def write(tmp_path):
    """Writes a file, and the index of its records where these are given."""

    def write(data: bytes, records: list[bytes] | None = None) -> tuple[Path, Path | None]:
        path = tmp_path / "a.tfrecords"
        path.write_bytes(data)
        if records is None:
            return path, None
        index = tmp_path / "a.idx"
        index.write_text(index_text(records))
        return path, index

    return write


def framed(records: list[bytes]) -> bytearray:
    return bytearray(b"".join(map(frame, records)))


# --- What is lost, exactly -----------------------------------------------------------------------------


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("place", ["length", "length's checksum", "first byte", "data", "data's checksum"])
@pytest.mark.parametrize("number", [0, 1, 20, 39])
def test_a_damaged_record_is_lost_and_no_other(write, place, number, indexed):
    records = some_records(40)
    starts = offsets(records)
    data = framed(records)
    at = {"length": 1, "length's checksum": 9, "first byte": 12, "data": 15, "data's checksum": -3}[place]
    data[starts[number + (at < 0)] + at] ^= 0x40
    found, sound = examined(*write(data, records if indexed else None))
    assert sound == records[:number] + records[number + 1 :]
    (lost,) = found.lost
    assert (lost.start, lost.end, lost.records) == (starts[number], starts[number + 1], 1)
    assert first_lost(found.lost) == [number]
    assert found.index_problem is None


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("damaged", [(0, 1, 2), (7, 8), (37, 38, 39), (3, 5, 7, 9)])
@pytest.mark.parametrize("place", [2, 14, 9])
def test_neighbours_that_are_damaged(write, damaged, place, indexed):
    """All headers, or all data: the Example of each says how long it is, or its header does."""
    records = some_records(40)
    starts = offsets(records)
    data = framed(records)
    for number in damaged:
        data[starts[number] + place] ^= 0x10
    found, sound = examined(*write(data, records if indexed else None))
    assert sound == [data for number, data in enumerate(records) if number not in damaged]
    assert first_lost(found.lost) == list(damaged)
    assert records_lost(found.lost) == len(damaged)


@pytest.mark.parametrize("indexed", [False, True])
def test_header_and_data_of_neighbours_damaged(write, indexed):
    records = some_records(40)
    starts = offsets(records)
    data = framed(records)
    for number in (10, 11, 20):
        data[starts[number]] ^= 0x10
        data[starts[number] + 25] ^= 0x10
    found, sound = examined(*write(data, records if indexed else None))
    assert sound == [data for number, data in enumerate(records) if number not in (10, 11, 20)]
    assert records_lost(found.lost) == 3


@pytest.mark.parametrize("indexed", [False, True])
def test_a_block_of_zeros_over_several_records(write, indexed):
    records = some_records(60)
    starts = offsets(records)
    data = framed(records)
    data[starts[10] + 5 : starts[14] - 2] = bytes(starts[14] - starts[10] - 7)
    found, sound = examined(*write(data, records if indexed else None))
    assert sound == records[:10] + records[14:]
    (lost,) = found.lost
    assert (lost.start, lost.end) == (starts[10], starts[14])
    assert lost.records == (4 if indexed else None)


def test_bytes_that_are_gone_shift_the_rest(write):
    """The header's length and the Example's agree on an end in the midst of the next record."""
    records = some_records(40)
    starts = offsets(records)
    data = framed(records)
    del data[starts[5] + 30 : starts[5] + 35]
    found, sound = examined(*write(data))
    assert sound == records[:5] + records[6:]
    assert [(lost.start, lost.end) for lost in found.lost] == [(starts[5], starts[6] - 5)]


def test_bytes_that_are_gone_up_to_where_a_record_inside_begins(write):
    """The damaged record's length leads to a sound header, which is inside the next record."""
    records = some_records(20)
    inner = frame(some_records(1, 1)[0])
    records[6] = example(b"comment" + inner + b"more")
    starts = offsets(records)
    data = framed(records)
    gone = data.index(inner) - starts[6]
    del data[starts[5] + 15 : starts[5] + 15 + gone]
    assert data[starts[6] :].startswith(inner)
    found, sound = examined(*write(data))
    assert sound == records[:5] + records[6:]
    assert [(lost.start, lost.end) for lost in found.lost] == [(starts[5], starts[6] - gone)]


def test_an_index_that_does_not_fit_is_not_used(write):
    records = some_records(40)
    starts = offsets(records)
    data = framed(records)
    del data[starts[5] + 30 : starts[5] + 35]
    found, sound = examined(*write(data, records))
    assert sound == records[:5] + records[6:]
    assert found.index_problem is not None


@pytest.mark.parametrize(
    "text", ["", "nonsense\n", "0 10\n", "0 9223372036854775807\n", "5 36\n", f"{'9' * 30} 1\n", "0 1\n" * 50]
)
def test_a_broken_index_is_not_used(write, text):
    records = some_records(5)
    path, index = write(framed(records), records)
    index.write_text(text)
    found, sound = examined(path, index)
    assert sound == records
    assert found.lost == ()
    assert found.index_problem


@pytest.mark.parametrize("cut", [1, 4, 5, 20])
@pytest.mark.parametrize("indexed", [False, True])
def test_a_file_cut_short(write, cut, indexed):
    records = some_records(30)
    data = framed(records)[:-cut]
    found, sound = examined(*write(data, records if indexed else None))
    assert sound == records[:-1]
    (lost,) = found.lost
    assert (lost.start, lost.end) == (offsets(records)[-2], len(data))
    assert lost.records == (1 if indexed else None)


def test_records_that_only_the_index_knows_of(write):
    records = some_records(30)
    found, sound = examined(*write(framed(records[:27]), records))
    assert sound == records[:27]
    (lost,) = found.lost
    assert (lost.end - lost.start, lost.records) == (0, 3)


@pytest.mark.parametrize("extra", [b"\0", bytes(4096), b"something else" * 50, frame(b"x" * 30)[:-1]])
def test_something_appended(write, extra):
    records = some_records(20)
    for index in (None, records):
        found, sound = examined(*write(bytes(framed(records)) + extra, index))
        assert sound == records
        (lost,) = found.lost
        assert lost.end - lost.start == len(extra)
        assert lost.records == (None if index is None else 0)


def test_a_record_that_fails_a_check_is_lost(write):
    records = some_records(40)

    def check(frames):
        for start, size in zip(frames.starts, frames.sizes, strict=True):
            if frames.buffer[start : start + size] in (records[3], records[4], records[39]):
                raise DataError("not this one.", Location("x", 1))

    path, index = write(framed(records), records)
    found = examine(path, "none", index, check, chunk_bytes=CHUNK)
    assert found.records == 37
    assert [lost.reason for lost in found.lost] == ["not this one."] * 3
    assert first_lost(found.lost) == [3, 4, 39]


def test_a_record_longer_than_allowed_is_lost(write):
    records = some_records(20)
    records[7] = example(bytes(5000))
    path, _ = write(framed(records))
    found = examine(path, "none", None, anything, 1000, chunk_bytes=CHUNK)
    assert found.records == 19
    assert "at most 1000" in found.lost[0].reason


@pytest.mark.parametrize("length", [2**33, 2**62, 2**64 - 1, 2**27])
def test_a_length_beyond_reason_is_not_believed(write, length):
    records = some_records(20)
    starts = offsets(records)
    data = framed(records)
    header = struct.pack("<Q", length)
    data[starts[5] : starts[5] + 12] = header + struct.pack("<I", masked_crc(header))
    _, sound = examined(*write(data))
    assert sound == records[:5] + records[6:]


@pytest.mark.parametrize("data", [b"\0" * 100, b"x" * 1000, frame(b"abc" * 9)[:-1], b"\x1f\x8bnot at all"])
def test_a_file_in_which_nothing_is_sound_is_an_error(write, data):
    path, _ = write(data)
    with pytest.raises(DataError, match="nothing in this file is sound"):
        examine(path, look_at(path).compression, None, anything)


# --- Records inside records ----------------------------------------------------------------------------


INSIDE = {
    "header": frame(bytes(40))[:12],
    "record": frame(some_records(1, 1)[0]),
    "ten records": b"".join(map(frame, some_records(10, 2))),
    "a long record": frame(some_records(1, 3, 2000, 2000)[0]),
}
# Bytes of the length, its checksum, the Example's beginning, its data.
PLACES = [(1,), (9,), (12,), (1, 15), (1, 12, 15)]


@pytest.mark.parametrize(
    ("inner", "place", "indexed"),
    [
        (inner, place, indexed)
        for inner in INSIDE
        for place in PLACES
        for indexed in (False, True)
        # Where header and beginning of a record are gone and no index tells, a run inside it that is longer than
        # twice any record known is taken for the file's.
        if (inner, place[:2], indexed) != ("ten records", (1, 12), False)
    ],
)
@pytest.mark.parametrize("number", [0, 10, 19])
def test_a_record_inside_a_damaged_one_is_not_taken_for_one(write, inner, number, place, indexed):
    records = some_records(20)
    records[number] = example(b"\xff\xd8 a comment: " + INSIDE[inner] + b" and so on" * 20)
    starts = offsets(records)
    data = framed(records)
    for at in place:
        data[starts[number] + at] ^= 0x10
    found, sound = examined(*write(data, records if indexed else None))
    assert sound == records[:number] + records[number + 1 :]
    assert sum(lost.end - lost.start for lost in found.lost) == len(records[number]) + 16


@pytest.mark.parametrize("header_damaged", [False, True])
def test_a_record_inside_the_last_one_which_is_cut_behind_it(write, header_damaged):
    """Also where damage from which nothing leads on came before."""
    records = some_records(20)
    inner = frame(some_records(1, 1)[0])
    records[-1] = example(b"comment" + inner + b"more")
    data = framed(records)[: -4 - len(b"more")]
    assert data.endswith(inner)
    data[offsets(records)[-2]] ^= header_damaged
    for index in (None, records):
        found, sound = examined(*write(data, index))
        assert sound == records[:-1]
        assert len(found.lost) == 1
    start, end = offsets(records)[17:19]
    data[start:end] = bytes(end - start)
    _, sound = examined(*write(data))
    assert sound == records[:17]


# --- Random damage -------------------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn) -> tuple[list[bytes], bytes, bool]:
    """Records, the bytes of their file after damage, and whether an index is there."""
    seed = draw(st.integers(0, 2**32))
    records = some_records(draw(st.integers(1, 25)), seed, 1, draw(st.sampled_from([30, 300, 2000])))
    for number in draw(st.lists(st.integers(0, len(records) - 1), max_size=3, unique=True)):
        # A record with a record inside; the latter must never come out.
        records[number] = example(
            records[number][:5] + frame(example(b"inside" + records[number][5:])) + b"after"
        )
    data = framed(records)
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(data)))
        size = draw(st.one_of(st.integers(0, 20), st.integers(0, 700)))
        kind = draw(st.sampled_from(["flip", "zeros", "noise", "gone", "more", "cut"]))
        if kind == "flip" and start < len(data):
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "zeros":
            data[start : start + size] = bytes(len(data[start : start + size]))
        elif kind == "noise":
            data[start : start + size] = random.Random(seed + 1).randbytes(len(data[start : start + size]))
        elif kind == "gone":
            # What is cut out up to the very beginning of a record inside leaves a file that nobody can tell apart.
            inside = b"inside" in data[start + size + 12 : start + size + 24]
            del data[start : start + size + inside]
        elif kind == "more":
            data[start:start] = random.Random(seed + 2).randbytes(size)
        elif kind == "cut" and start > len(data) // 2:
            del data[start:]
    # Nor one that two of these together leave.
    assume(all(record in records for record in strictly_read(bytes(data))))
    return records, bytes(data), draw(st.booleans())


def strictly_read(data: bytes) -> Iterator[bytes]:
    """The records from the beginning of a file on, as far as all checksums hold."""
    while is_header(data) and len(data) >= 16 + (size := int.from_bytes(data[:8], "little")):
        record = data[12 : 12 + size]
        if frame(record) != data[: 16 + size]:
            return
        yield record
        data = data[16 + size :]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=damaged(), compression=st.sampled_from(["none", "none", "gzip", "zlib"]))
def test_random_damage_never_yields_what_was_not_written(tmp_path, case, compression):
    records, data, indexed = case
    pack = {"none": bytes, "gzip": gzip.compress, "zlib": zlib.compress}[compression]
    path, index = tmp_path / "a.tfrecords", tmp_path / "a.idx"
    path.write_bytes(pack(data))
    index.write_text(index_text(records))
    found = examined_unless_nothing_is_sound(path, index if indexed else None)
    assert found is None or is_part_of(found[1], records)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["gzip", "zlib", "members"]),
    where=st.floats(0, 1),
    how=st.sampled_from(["flip", "cut", "more", "zeros"]),
)
def test_random_damage_of_compressed_bytes(tmp_path, seed, kind, where, how):
    records = some_records(30, seed)
    plain = bytes(framed(records))
    middle = len(plain) // 2
    stored = bytearray(
        {
            "gzip": lambda: gzip.compress(plain),
            "zlib": lambda: zlib.compress(plain),
            "members": lambda: gzip.compress(plain[:middle]) + gzip.compress(plain[middle:]),
        }[kind]()
    )
    at = int(where * (len(stored) - 1))
    if how == "flip":
        stored[at] ^= 0x08
    elif how == "cut":
        del stored[at:]
    elif how == "more":
        stored += b"more"
    else:
        stored[at : at + 30] = bytes(len(stored[at : at + 30]))
    path = tmp_path / "a.tfrecords"
    path.write_bytes(stored)
    found = examined_unless_nothing_is_sound(path, None)
    assert found is None or is_part_of(found[1], records)
    if how == "more":
        assert found is not None
        assert found[1] == records
        assert [(lost.start, lost.end) for lost in found[0].lost] == [(len(stored) - 4, len(stored))]


def test_what_inflates_before_the_damage_is_used(tmp_path):
    records = some_records(400)
    stored = gzip.compress(bytes(framed(records)), 0)  # stored blocks: the damage hits what it hits
    path, index = tmp_path / "a.tfrecords", tmp_path / "a.idx"
    index.write_text(index_text(records))
    path.write_bytes(stored[: len(stored) // 2])
    found, sound = examined(path, index)
    assert sound == records[: len(sound)]
    assert len(sound) > 180
    assert found.lost[-1].inflated == found.stream_bytes
    assert records_lost(found.lost) == 400 - len(sound)


# --- Bounds --------------------------------------------------------------------------------------------


def test_valid_headers_agrees_with_trying_each_offset():
    generator = random.Random(5)
    data = bytearray(generator.randbytes(5000))
    for at in (0, 17, 900, 4988):
        data[at : at + 12] = frame(bytes(at + 1))[:12]
    data[300:1000] = bytes(700)
    data[600:612] = frame(b"")[:12]  # no Example is empty
    expected = []
    for at in range(len(data) - 11):
        length = int.from_bytes(data[at : at + 8], "little")
        crc = int.from_bytes(data[at + 8 : at + 12], "little")
        if 0 < length <= 1 << 28 and masked_crc(bytes(data[at : at + 8])) == crc:
            expected.append(at)
    assert expected == [0, 17, 4988]
    assert valid_headers(bytes(data), 1 << 28).tolist() == expected
    assert valid_headers(b"", 1 << 28).tolist() == valid_headers(bytes(11), 1 << 28).tolist() == []


def test_a_file_of_false_headers_is_refused_in_bounded_time(write):
    """Each claims all bytes up to the end of the file, so telling whether it is true costs as much."""
    size, count = 60 << 20, 2000
    headers = b"".join(
        struct.pack("<QI", length, masked_crc(struct.pack("<Q", length)))
        for length in range(size + 12 * (count - 1) - 16 + 12, size - 16, -12)
    )
    data = bytes(framed(some_records(3))) + b"\x55" + headers[: 12 * count] + bytes(size)
    path, _ = write(data)
    with pytest.raises(DataError, match="made to mislead"):
        examine(path, "none", None, anything)


def test_a_file_of_records_that_all_fail_is_refused_in_bounded_time(write):
    """Empty records: sixteen bytes are a record, each of which would be a range of its own."""

    def check(frames):
        if not frames.sizes.all():
            raise DataError("an empty record.", Location(""))

    path, _ = write(frame(some_records(1)[0]) + frame(b"") * 1_000_000)
    start = time.process_time()
    with pytest.raises(DataError, match="made to mislead"):
        examine(path, "none", None, check)
    assert time.process_time() - start < 30


def test_a_large_damaged_range_takes_no_memory(write):
    records = some_records(20)
    path, _ = write(bytes(framed(records)) + bytes(1000))
    with path.open("r+b") as file:
        file.truncate(200 << 20)
    tracemalloc.start()
    try:
        found = examine(path, "none", None, anything)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.records == 20
    assert found.lost[0].end == 200 << 20
    assert peak < 100 << 20
