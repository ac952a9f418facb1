"""Stored bytes and compressed streams: complete, or an error. Nothing hangs."""

import gc
import gzip
import hashlib
import io
import os
import random
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import CallError, DataError
from converters.formats.tfrecord import compression as streams
from converters.formats.tfrecord.compression import DecompressedStream, StoredFile
from converters.formats.tfrecord.foreign import Look, look_at
from converters.formats.tfrecord.framing import frame

PATH = "some/file.tfrecords"
DATA = b"".join(frame(bytes([number]) * 9) for number in range(8)) + random.Random(1).randbytes(30)


def pack(data: bytes, compression: str) -> bytes:
    return gzip.compress(data, mtime=0) if compression == "gzip" else zlib.compress(data)


def unpack(data: bytes, compression: str, size: int = 4096) -> bytes:
    stream = DecompressedStream(io.BytesIO(data), compression, PATH)
    found = []
    while part := stream.read(size):
        assert len(part) <= max(size, streams._PIECE_BYTES)
        found.append(part)
    return b"".join(found)


both = pytest.mark.parametrize("compression", ["gzip", "zlib"])


@both
def test_any_read_size_gives_the_same_bytes(compression):
    packed = pack(DATA, compression)
    for size in [*range(1, 80), len(DATA) - 1, len(DATA), len(DATA) + 1]:
        assert unpack(packed, compression, size) == DATA, size


@both
@pytest.mark.parametrize("compressed_chunk", [1, 2, 3, 17])
def test_any_chunk_of_compressed_bytes_gives_the_same_bytes(compression, compressed_chunk, monkeypatch):
    monkeypatch.setattr(streams, "_PIECE_BYTES", compressed_chunk)
    packed = pack(DATA, compression)
    for size in (1, 5, 4096):
        assert unpack(packed, compression, size) == DATA
    if compression == "gzip":
        assert unpack(packed * 3, compression) == DATA * 3
        for tail in (b"\x1f", b"\0", b"\0" * 9, b"\x1f\x8a"):
            with pytest.raises(DataError):
                unpack(packed + tail, compression)


@both
@pytest.mark.parametrize("size", [1, 10, 4096])
def test_every_truncation_is_an_error(compression, size):
    packed = pack(DATA, compression)
    for end in range(1, len(packed)):
        with pytest.raises(DataError) as caught:
            unpack(packed[:end], compression, size)
        assert caught.value.at.path == PATH


@both
def test_an_empty_stream_is_an_error(compression):
    with pytest.raises(DataError):
        unpack(b"", compression)


@both
@pytest.mark.parametrize(
    "data",
    [b"", b"x", bytes(70_000), random.Random(2).randbytes(70_000)],
    ids=["none", "one", "zeros", "noise"],
)
def test_other_data(compression, data):
    packed = pack(data, compression)
    for size in (999, 1 << 20):
        assert unpack(packed, compression, size) == data
    with pytest.raises(DataError):
        unpack(packed[:-1], compression)


@both
def test_a_missing_trailer_is_an_error(compression):
    packed = pack(DATA, compression)
    with pytest.raises(DataError, match="cut short"):
        unpack(packed[: -8 if compression == "gzip" else -4], compression)


@both
def test_a_wrong_checksum_is_an_error(compression):
    packed = bytearray(pack(DATA, compression))
    packed[-6 if compression == "gzip" else -1] ^= 1
    with pytest.raises(DataError, match="damaged"):
        unpack(bytes(packed), compression)


@both
@pytest.mark.parametrize(
    "tail", [b"x", b"\0", bytes(512), b"\x1f", b"\x1f\x8b", b"garbage" * 9, b"\x1f\x8b\x08" + bytes(40)]
)
def test_trailing_bytes_are_an_error(compression, tail):
    with pytest.raises(DataError) as caught:
        unpack(pack(DATA, compression) + tail, compression)
    assert caught.value.at.path == PATH


def test_gzip_members_follow_each_other_and_zlib_streams_do_not():
    assert unpack(pack(DATA, "gzip") + pack(b"more", "gzip"), "gzip") == DATA + b"more"
    assert unpack(pack(b"", "gzip") + pack(b"more", "gzip"), "gzip") == b"more"
    with pytest.raises(DataError):
        unpack(pack(DATA, "zlib") + pack(b"more", "zlib"), "zlib")
    second = pack(b"more", "gzip")
    for end in range(1, len(second)):
        with pytest.raises(DataError):
            unpack(pack(DATA, "gzip") + second[:end], "gzip")


@both
def test_what_expands_a_thousand_times_is_read_in_little_memory(compression):
    """Masks and volumes are mostly zeros."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31 if compression == "gzip" else 15)
    packed = b"".join([*(compressor.compress(bytes(1 << 20)) for _ in range(200)), compressor.flush()])
    stream = DecompressedStream(io.BytesIO(packed), compression, PATH)
    produced = 0
    tracemalloc.start()
    while part := stream.read(1 << 20):
        produced += len(part)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert produced == 200 << 20
    assert peak < 80 << 20


@settings(deadline=None, max_examples=200)
@given(
    compression=st.sampled_from(["gzip", "zlib"]),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3),
    size=st.sampled_from([1, 2, 13, 4096]),
)
def test_damage_is_a_data_error_and_nothing_else(compression, flips, size):
    packed = bytearray(pack(DATA, compression))
    for position, flip in flips:
        packed[position % len(packed)] ^= flip
    try:
        found = unpack(bytes(packed), compression, size)
    except DataError:
        return
    assert found == DATA  # only a gzip header's time or system can change without harm


# Streams that zlib finds damaged only when asked for what it held back, with all input taken in.
DAMAGED_LATE = [
    (
        "zlib",
        "789ce3648000f39f85960c30b028e95431279204230cbcd4ea3442966082819a7fcb1390259861209cfff9426409161878b7926d"
        "13b2042b0c2c2d76fd882cc1060301c752989125d861a0fabaf291cca76ec7d4e677763f6e697261aa9be7b1f48a098b6928a9d0"
        "af5eabf75976000f81405b",
    ),
    (
        "zlib",
        "789ce3648000f39f85960c30b028e95431279204230cbcd4ea3442966082819a7fcb1390259861209cfff9426409161878b7926d"
        "13b2042b0c2c2d76fd882cc1060301c752989125d861a0fabaf253dd7d8f03cec57172f0fc5a3e69b6566f8e7173de2761af0937"
        "d65cf9e4156c07f20ca42f66",
    ),
    (
        "gzip",
        "1f8b0800000000000203e3648000f39f85960c30b028e95431279204230cbcd4ea3442966082819a7fcb1390259861209cfff942"
        "6409161878b7926d13b2042b0c2c2d76fd882cc1060301c752989125d861a0fabaf291858bf3f3167e4e7b68f44b2fed71392bab"
        "bfe5945cdbc499bb161e7371b5b31e00dc7496f6e6009300",
    ),
]


@pytest.mark.parametrize(("compression", "stored"), DAMAGED_LATE)
@pytest.mark.parametrize("size", [1, 2, 13, 4096])
def test_damage_that_shows_only_at_the_end_of_the_input_is_a_data_error(compression, stored, size):
    with pytest.raises(DataError) as caught:
        unpack(bytes.fromhex(stored), compression, size)
    assert caught.value.at.path == PATH


def test_compression_is_told_from_the_first_bytes(tmp_path):
    path = tmp_path / "file"
    for data, expected in [
        (DATA, "none"),
        (pack(DATA, "gzip"), "gzip"),
        *((zlib.compress(DATA, level), "zlib") for level in range(10)),
        (b"anything else", "none"),
        (b"x", "none"),
        # A record whose length makes its first two bytes look like zlib's or gzip's.
        (frame(bytes(0x9C78)), "none"),
        (frame(bytes(0x8B1F)), "none"),
        # A record's length damaged like that.
        (b"\x78\x9c" + frame(bytes(9))[2:], "none"),
    ]:
        path.write_bytes(data)
        assert look_at(path).compression == expected


def test_an_empty_file_is_told_as_that(tmp_path):
    """Whether that is an error is for whoever expected something in it to say."""
    path = tmp_path / "empty"
    path.touch()
    assert look_at(path) == Look("empty")
    for compress in (gzip.compress, zlib.compress):
        path.write_bytes(compress(b""))
        assert look_at(path).kind == "empty"


def test_a_missing_file_is_the_calls_error(tmp_path):
    for use in (StoredFile, look_at):
        with pytest.raises(CallError, match="absent"):
            use(tmp_path / "absent")


def test_a_directory_is_refused(tmp_path):
    for use in (StoredFile, look_at):
        with pytest.raises(DataError) as caught:
            use(tmp_path)
        assert caught.value.at.path == str(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_is_refused_without_waiting(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    for use in (StoredFile, look_at):
        with pytest.raises(DataError, match="no regular file"):
            use(path)


def test_a_device_is_refused():
    with pytest.raises(DataError, match="no regular file"):
        StoredFile("/dev/zero")


@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="open descriptors can be counted on Linux only"
)
def test_refusing_leaves_no_descriptor_open(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    gc.collect()  # what other tests have left open
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for path in (tmp_path, tmp_path / "fifo"):
        for _ in range(5):
            with pytest.raises((DataError, OSError)):
                StoredFile(path)
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_a_range_is_read_and_hashed_as_stored(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DATA)
    for start, end in [(0, None), (0, len(DATA)), (10, 50), (10, None), (7, 7)]:
        with StoredFile(path, start, end) as file:
            assert file.size == len(DATA)
            found = b""
            while part := file.read(13):
                found += part
            assert found == DATA[start:end]
            assert file.sha256() == hashlib.sha256(found).hexdigest()


def test_a_file_that_shrinks_is_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with StoredFile(path) as file:
        file.read(10)
        os.truncate(path, 10)
        with pytest.raises(DataError, match="shrank"):
            file.read(10)
