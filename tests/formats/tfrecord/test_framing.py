"""Framing: what is a record, and what is damage. The bytes are made here by hand, CRC and all."""

import io
import struct

import pytest

from converters.errors import DataError
from converters.formats.tfrecord.framing import frame, is_header, masked_crc, read_frames, record_size

PATH = "some/file.tfrecords"


def crc32c(data: bytes) -> int:
    """CRC32C bit by bit (Castagnoli, reflected), so that no library is its own oracle."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def header(size: int) -> bytes:
    length = struct.pack("<Q", size)
    return length + struct.pack("<I", masked(length))


def record(data: bytes) -> bytes:
    return header(len(data)) + data + struct.pack("<I", masked(data))


def read(data: bytes, **options) -> list[tuple[bytes, int, int]]:
    """Each record's data, index and offset."""
    found = []
    for frames in read_frames(io.BytesIO(data), PATH, **options):
        assert len(frames.starts) == len(frames.sizes) == len(frames.offsets()) > 0
        for row, (start, size, offset) in enumerate(
            zip(frames.starts.tolist(), frames.sizes.tolist(), frames.offsets().tolist(), strict=True)
        ):
            found.append((bytes(frames.buffer[start : start + size]), frames.first_record + row, offset))
    return found


THREE = [b"first", b"", bytes(range(40))]
FILE = b"".join(map(record, THREE))
EDGES = [0, 21, 37, 93]


def test_the_oracle_knows_the_published_check_value():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720's CRC32C of the usual nine digits
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_records_made_by_hand_are_read():
    assert len(FILE) == EDGES[-1]
    assert read(FILE) == list(zip(THREE, range(3), EDGES[:3], strict=True))
    assert read(b"") == []


@pytest.mark.parametrize("data", [b"", b"x", b"123456789", bytes(1000), b"\xff" * 257])
def test_frame_writes_what_was_made_by_hand(data):
    assert frame(data) == record(data)
    assert masked_crc(data) == masked(data)


def test_every_byte_flip_is_an_error_that_says_where():
    for position in range(len(FILE)):
        row = sum(position >= edge for edge in EDGES[1:])
        for bit in (0x01, 0x80, 0xFF):
            damaged = bytearray(FILE)
            damaged[position] ^= bit
            with pytest.raises(DataError) as caught:
                read(bytes(damaged))
            at = caught.value.at
            assert (at.path, at.record, at.offset) == (PATH, row, EDGES[row]), (position, bit)


def test_every_truncation_but_between_records_is_an_error_that_says_where():
    for end in range(len(FILE)):
        if end in EDGES:
            assert [data for data, _, _ in read(FILE[:end])] == THREE[: EDGES.index(end)]
            continue
        row = sum(end > edge for edge in EDGES[1:])
        for chunk_bytes in (1, 7, 4096):
            with pytest.raises(DataError) as caught:
                read(FILE[:end], chunk_bytes=chunk_bytes)
            at = caught.value.at
            assert (at.path, at.record, at.offset) == (PATH, row, EDGES[row]), end


@pytest.mark.parametrize(
    "stray", [bytes(size) for size in (1, 11, 12, 16, 4096)] + [b"\n", b"x" * 11, b"x" * 50]
)
def test_whatever_is_appended_is_an_error(stray):
    with pytest.raises(DataError) as caught:
        read(FILE + stray)
    assert (caught.value.at.record, caught.value.at.offset) == (3, len(FILE))


@pytest.mark.parametrize("lost", range(3))
def test_records_survive_only_whole(lost):
    """A record that lost its first byte takes the file with it; none is skipped in silence."""
    with pytest.raises(DataError):
        read(FILE[: EDGES[lost]] + FILE[EDGES[lost] + 1 :])


def test_any_chunk_size_gives_the_same_records():
    expected = read(FILE)
    for chunk_bytes in range(1, len(FILE) + 2):
        assert read(FILE, chunk_bytes=chunk_bytes) == expected


def test_a_stream_may_give_less_than_was_asked_for():
    class Slow(io.BytesIO):
        def readinto(self, buffer, /) -> int:
            return super().readinto(memoryview(buffer)[:3])

    frames = list(read_frames(Slow(FILE), PATH))
    assert sum(len(part.starts) for part in frames) == 3


@pytest.mark.parametrize("size", [2**62, 2**63, 2**64 - 1, (256 << 20) + 1, 2**36])
def test_a_huge_length_with_a_valid_checksum_is_an_error_and_not_an_allocation(size):
    with pytest.raises(DataError, match=str(size)) as caught:
        read(FILE + header(size) + b"some data")
    assert (caught.value.at.path, caught.value.at.record, caught.value.at.offset) == (PATH, 3, len(FILE))


def test_the_cap_counts_the_data():
    assert len(read(FILE, max_record_bytes=40)) == 3
    with pytest.raises(DataError, match="40"):
        read(FILE, max_record_bytes=39)


def test_a_large_length_within_the_cap_asks_for_no_more_than_is_there():
    asked = []

    class Watched(io.BytesIO):
        def readinto(self, buffer, /) -> int:
            asked.append(len(buffer))
            return super().readinto(buffer)

    with pytest.raises(DataError, match="ends inside a record"):
        list(read_frames(Watched(header(200 << 20) + b"little"), PATH))
    assert max(asked) <= (200 << 20) + 16


def test_first_record_and_first_offset_are_honoured():
    assert read(FILE[EDGES[1] :], first_record=1, first_offset=EDGES[1]) == read(FILE)[1:]
    for chunk_bytes in (1, 20, 4096):
        assert [
            (index, offset)
            for _, index, offset in read(FILE, first_record=7, first_offset=1000, chunk_bytes=chunk_bytes)
        ] == [(7 + row, 1000 + EDGES[row]) for row in range(3)]
    damaged = bytearray(FILE)
    damaged[-1] ^= 1
    with pytest.raises(DataError) as caught:
        read(bytes(damaged), first_record=7, first_offset=1000)
    assert (caught.value.at.record, caught.value.at.offset) == (9, 1000 + EDGES[2])


def test_is_header_and_record_size():
    assert is_header(header(5))
    assert is_header(header(2**62))  # its checksum holds; the size is another matter
    assert not is_header(header(5)[:11])
    assert not is_header(bytes(12))
    assert record_size(header(5), PATH, 0, 0) == 5
    for bad in (b"", header(5)[:11], bytes(12), header(2**62)):
        with pytest.raises(DataError) as caught:
            record_size(bad, PATH, 4, 99)
        assert (caught.value.at.path, caught.value.at.record, caught.value.at.offset) == (PATH, 4, 99)
