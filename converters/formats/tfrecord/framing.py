"""The framing of TFRecord: where records begin and end, and whether their checksums hold.

A record is: length (u64 little-endian), masked CRC32C of the length (u32), data, masked CRC32C of the data
(u32). There is no magic number, no footer and no count. See the format's description in
``tensorflow/core/lib/io/record_writer.h``.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt

from converters.dataset.source import MAX_RECORD_BYTES
from converters.errors import DataError, Location

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HEADER_BYTES = 12
FOOTER_BYTES = 4
OVERHEAD_BYTES = HEADER_BYTES + FOOTER_BYTES

# How much of a file is read at once; a batch is the records that end in one such chunk. A longer record is a
# batch of its own. Every batch costs a millisecond beside what its bytes cost, and larger ones take memory.
CHUNK_BYTES = 5 << 20

# Records of one writer have few different lengths; a header that was found sound once need not be checked again.
MAX_SIZES_SEEN = 1 << 16

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8

_CUT_OR_EXTENDED = "The file is cut short or has something appended: copy it again from where you got it."
_COPY_AGAIN = "The file is damaged: copy it again from where you got it."


class ByteStream(Protocol):
    """What the framing reads from: a raw stream; where it gives no bytes is its end."""

    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes or fewer; none at the end."""
        ...

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Put the next bytes into a buffer, and say how many; none at the end."""
        ...


@dataclass(frozen=True)
class Frames:
    """Consecutive records of one file, checksums verified.

    Attributes:
        buffer: the bytes that hold the records; a record longer than a chunk has a buffer of its own.
        starts: int64, where in ``buffer`` each record's data begins.
        sizes: int64, length of each record's data in bytes.
        first_record: index in the file of the first record here.
        first_offset: byte offset in the file (decompressed) of the first record's header.
    """

    buffer: memoryview | bytes
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    first_record: int
    first_offset: int

    def offsets(self) -> npt.NDArray[np.int64]:
        """int64, byte offset in the file of each record's header."""
        return self.starts - self.starts[0] + self.first_offset

    def data(self, row: int) -> bytes | memoryview:
        """A record's data; not copied where it is long."""
        start, size = int(self.starts[row]), int(self.sizes[row])
        if size > CHUNK_BYTES:
            return memoryview(self.buffer)[start : start + size]
        return bytes(self.buffer[start : start + size])


def masked_crc(data: bytes) -> int:
    """The masked CRC32C of ``data``, as TFRecord stores it."""
    crc: int = google_crc32c.value(data)
    return _masked(crc)


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _masked_all(crcs: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    return (crcs >> np.uint32(15) | crcs << np.uint32(17)) + np.uint32(_MASK_DELTA)


def masked_crc_of_long(data: memoryview) -> int:
    """The same of data that may be long; google_crc32c takes an array without a copy."""
    return _masked(google_crc32c.value(np.frombuffer(data, np.uint8)))


def frame(data: bytes) -> bytes:
    """``data`` as one record: header, data, footer."""
    return b"".join((header(len(data)), data, footer(data)))


@lru_cache(MAX_SIZES_SEEN)
def header(size: int) -> bytes:
    """What stands before a record's data of so many bytes: its length, and the length's checksum."""
    length = struct.pack("<Q", size)
    return length + _FOOTER.pack(masked_crc(length))


def footer(data: bytes) -> bytes:
    """What stands behind a record's data: its checksum."""
    return _FOOTER.pack(masked_crc(data))


def is_header(data: bytes) -> bool:
    """Whether ``data`` begins with a length whose checksum holds."""
    return len(data) >= HEADER_BYTES and masked_crc(data[:8]) == _HEADER.unpack_from(data)[1]


def record_size(
    header: bytes, path: str, record: int, offset: int, max_record_bytes: int = MAX_RECORD_BYTES
) -> int:
    """The size of a record's data, from its header; the other arguments say where that stands, for errors.

    Raises:
        DataError: the header is cut short, its checksum does not hold, or the size is over the cap.
    """
    if len(header) < HEADER_BYTES:
        raise DataError(
            f"{len(header)} stray bytes follow the last record.",
            Location(path, record, offset),
            _CUT_OR_EXTENDED,
        )
    size, stored = _HEADER.unpack(header)
    computed = masked_crc(header[:8])
    if computed != stored:
        raise DataError(
            f"the record's length fails its checksum (stored {stored:#010x}, computed {computed:#010x}): no "
            "record starts here.",
            Location(path, record, offset),
            _COPY_AGAIN,
        )
    if size > max_record_bytes:
        raise DataError(
            f"the record's length is {size} bytes; at most {max_record_bytes} are accepted.",
            Location(path, record, offset),
            "If such records are real, raise --max-record-size.",
        )
    return int(size)


def valid_headers(data: bytes, max_record_bytes: int) -> npt.NDArray[np.int64]:
    """Every offset in ``data`` at which a record's length stands, and its checksum holds.

    Lengths of 0 are left out, as an Example is never empty.

    Returns:
        int64, ascending.
    """
    count = len(data) - HEADER_BYTES + 1
    if count <= 0:
        return np.empty(0, np.int64)
    # Views of the eight and four bytes at every offset; NumPy reads unaligned numbers.
    lengths = np.ndarray(count, "<u8", data, 0, (1,))
    checksums = np.ndarray(count, "<u4", data, 8, (1,))
    # A length of 0 wraps around to the largest number.
    found = np.flatnonzero(lengths - np.uint64(1) < np.uint64(min(max_record_bytes, (1 << 63) - 1)))
    table = _length_checksums()
    crc = np.full(len(found), table[0, 0], np.uint32)
    octets = np.frombuffer(data, np.uint8)
    for position in range(8):
        crc ^= table[1 + position, octets[found + position]]
    return found[_masked_all(crc) == checksums[found]]


@cache
def _length_checksums() -> npt.NDArray[np.uint32]:
    """CRC32C of eight bytes, in parts: that of zeros in row 0, and what each byte at position n adds in row n + 1."""
    zeros = google_crc32c.value(bytes(8))
    table = np.full((9, 256), zeros, np.uint32)
    for position, value in np.ndindex(8, 256):
        message = bytes(position) + bytes([value]) + bytes(7 - position)
        table[1 + position, value] = google_crc32c.value(message) ^ zeros
    return table


def read_frames(
    stream: ByteStream,
    path: str,
    *,
    first_record: int = 0,
    first_offset: int = 0,
    end: int | None = None,
    max_record_bytes: int = MAX_RECORD_BYTES,
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[Frames]:
    """Find the records in a stream, and check both checksums of each.

    The length's checksum is checked before the length is believed, and nothing is allocated for a length
    over ``max_record_bytes`` or beyond ``end``. Memory is bounded by ``chunk_bytes`` and one copy of the
    largest record; it grows with what is really there, never with what a length claims.

    Args:
        stream: where the bytes come from; it must end where a record ends.
        path: names the file in errors.
        first_record: index in the file of the first record in the stream.
        first_offset: byte offset in the file at which the stream starts.
        end: byte offset in the file at which the stream ends, where that is known beforehand.
        max_record_bytes: the longest record that is accepted.
        chunk_bytes: how much is read at once.

    Raises:
        DataError: a checksum does not hold, a length is over the cap, or the stream ends inside a record.
    """
    rest: memoryview | bytes = b""
    needed = 0
    record, offset = first_record, first_offset
    sizes_seen: dict[int, int] = {}
    while True:
        # What is left of one chunk stands before the next, which is read to its place and not copied there.
        buffer = memoryview(np.empty(len(rest) + chunk_bytes, np.uint8).data)
        buffer[: len(rest)] = rest
        count = stream.readinto(buffer[len(rest) :])
        if not count:
            break
        buffer = buffer[: len(rest) + count]
        if len(buffer) < needed:
            rest = buffer
            continue
        starts: list[int] = []
        sizes: list[int] = []
        position, needed = 0, HEADER_BYTES
        damaged: DataError | None = None
        while position + HEADER_BYTES <= len(buffer):
            size, checksum = _HEADER.unpack_from(buffer, position)
            data = position + HEADER_BYTES
            if sizes_seen.get(size) != checksum:
                try:
                    record_size(
                        bytes(buffer[position:data]),
                        path,
                        record + len(starts),
                        offset + position,
                        max_record_bytes,
                    )
                except DataError as error:
                    damaged = error
                    break
                if len(sizes_seen) == MAX_SIZES_SEEN:
                    sizes_seen.clear()
                sizes_seen[size] = checksum
            data_end = data + size
            if data_end + FOOTER_BYTES > len(buffer):
                needed = data_end + FOOTER_BYTES - position
                if end is not None and offset + position + needed > end:
                    location = Location(path, record + len(starts), offset + position)
                    damaged = _cut_inside(end - offset - position, needed, location)
                break
            starts.append(data)
            sizes.append(size)
            position = data_end + FOOTER_BYTES
        if starts:
            frames = _frames(buffer, starts, sizes, record, offset)
            _check_data(frames, path)
            if damaged is None:
                yield frames
            del frames
        if damaged is not None:
            raise damaged
        record += len(starts)
        offset += position
        rest = bytes(buffer[position:])
        del buffer  # or it would be held while the next one, or a long record, is
        if needed > max(chunk_bytes, HEADER_BYTES):
            long = _read_long(stream, rest, needed, chunk_bytes, Location(path, record, offset))
            yield _frames(long, [HEADER_BYTES], [needed - OVERHEAD_BYTES], record, offset)
            del long
            record += 1
            offset += needed
            rest, needed = b"", HEADER_BYTES
    if rest:
        location = Location(path, record, offset)
        if needed > HEADER_BYTES:
            raise _cut_inside(len(rest), needed, location)
        raise DataError(f"{len(rest)} stray bytes follow the last record.", location, _CUT_OR_EXTENDED)


def _check_data(frames: Frames, path: str) -> None:
    """Check the checksum of each record's data.

    Raises:
        DataError: of the first record whose checksum does not hold.
    """
    octets, ends = np.frombuffer(frames.buffer, np.uint8), frames.starts + frames.sizes
    spans = zip(frames.starts.tolist(), ends.tolist(), strict=True)
    # google_crc32c takes a part of an array without a copy.
    crcs = np.fromiter((google_crc32c.value(octets[start:end]) for start, end in spans), np.uint32, len(ends))
    computed = _masked_all(crcs)
    footers = octets[ends[:, None] + np.arange(FOOTER_BYTES)]
    stored = footers.view("<u4")[:, 0]
    wrong = np.flatnonzero(computed != stored)
    if len(wrong):
        row = int(wrong[0])
        location = Location(path, frames.first_record + row, int(frames.offsets()[row]))
        raise _damaged(int(stored[row]), int(computed[row]), location)


def _frames(buffer: memoryview, starts: list[int], sizes: list[int], record: int, offset: int) -> Frames:
    return Frames(buffer, np.array(starts, np.int64), np.array(sizes, np.int64), record, offset)


def _read_long(
    stream: ByteStream, begun: bytes, needed: int, chunk_bytes: int, location: Location
) -> memoryview:
    """A whole record longer than a chunk, of which ``begun`` is there already; its checksum is checked."""
    # Memory of its own, which is given back as a whole; no page of it is there before it is written to.
    buffer = memoryview(mmap.mmap(-1, needed))
    filled = len(begun)
    buffer[:filled] = begun
    while filled < needed:
        count = stream.readinto(buffer[filled : filled + chunk_bytes])
        if not count:
            raise _cut_inside(filled, needed, location)
        filled += count
    computed = masked_crc_of_long(buffer[HEADER_BYTES:-FOOTER_BYTES])
    stored = _FOOTER.unpack_from(buffer, needed - FOOTER_BYTES)[0]
    if computed != stored:
        raise _damaged(stored, computed, location)
    return buffer


def _cut_inside(there: int, needed: int, location: Location) -> DataError:
    return DataError(
        f"the file ends inside a record: {there} bytes are there, {needed} were expected.",
        location,
        _CUT_OR_EXTENDED,
    )


def _damaged(stored: int, computed: int, location: Location) -> DataError:
    return DataError(
        f"the record's data fails its checksum (stored {stored:#010x}, computed {computed:#010x}).",
        location,
        _COPY_AGAIN,
    )
