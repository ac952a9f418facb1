"""Finds what is sound in a damaged TFRecord file, and what is lost.

Where a damaged record ends, it mostly tells itself: by its header, if that is sound and a record begins there or the
file ends there; or by the Example in it, which begins with its own length, if the checksum of the data holds for that.
Next, the index is asked. If nothing tells, it goes on at the next byte where a length and its data have the checksums
that follow them (64 bits of evidence). A record that lies whole inside a damaged one may be found in that way, and come
out. An index that lacks what is found is not used at all.

Memory is bounded by a chunk and a few times the longest record that is accepted. Time is bounded by a budget that
grows with the file; a file that exceeds it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from converters.dataset.damage import FoundAgain, LostRange
from converters.dataset.source import MAX_RECORD_BYTES
from converters.dataset.source_facts import Compression
from converters.errors import DataError, Location
from converters.formats.tfrecord.compression import DecompressedStream, StoredFile
from converters.formats.tfrecord.framing import (
    CHUNK_BYTES,
    FOOTER_BYTES,
    HEADER_BYTES,
    OVERHEAD_BYTES,
    ByteStream,
    Frames,
    is_header,
    masked_crc_of_long,
    record_size,
    valid_headers,
)
from converters.formats.tfrecord.index import IndexChecker, IndexDisagreesError
from converters.storage.object_store import Place

Check = Callable[[Frames], object]
"""Raises a DataError if a record of the frames is not what it must be."""

# The budget: how many bytes may be held against a checksum. A damaged range counts as many as that takes time;
# KFER's records are longer, so all of a split may be damaged.
_FREE_EFFORT, _EFFORT_PER_BYTE, _RANGE_EFFORT = 1 << 30, 16, 50_000

_EXAMPLE_TAG, _MAX_VARINT_BYTES = 0x0A, 10


@dataclass(frozen=True)
class Examination:
    """What examining a file found.

    Attributes:
        records: number of sound records.
        stream_bytes: size of the file, decompressed; where the compression is damaged, of what inflates.
        lost: the damaged ranges, in order.
        index_problem: why the index was not used, where it contradicts the file; None otherwise.
    """

    records: int
    stream_bytes: int
    lost: tuple[LostRange, ...]
    index_problem: str | None


def examine(
    path: Place,
    compression: Compression,
    index: Place | None,
    check: Check,
    max_record_bytes: int = MAX_RECORD_BYTES,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> Examination:
    """Read a file through, and tell its sound records from its damaged ranges.

    Args:
        path: the file.
        compression: how it is compressed.
        index: its index, where there is one. It tells how many records a damaged range held, and where the next
            one begins, as long as it agrees with every sound record; if it does not, it is not used at all.
        check: what a sound record must pass besides its checksums.
        max_record_bytes: the longest record that is accepted.
        chunk_bytes: how much is read at once.

    Raises:
        DataError: nothing in the file is sound, it cannot be read, or so much in it is
            damaged or looks like a record that examining it would take too long.
    """
    attempt = partial(_examine, path, compression, check, max_record_bytes, chunk_bytes)
    if index is None:
        return attempt(None)
    try:
        with IndexChecker(index, str(path)) as lines:
            return attempt(lines)
    except IndexDisagreesError as error:
        return replace(attempt(None), index_problem=error.message)


def _examine(
    path: Place,
    compression: Compression,
    check: Check,
    cap: int,
    chunk_bytes: int,
    index: IndexChecker | None,
) -> Examination:
    with StoredFile(path) as file:
        stream = None
        if compression != "none":
            stream = DecompressedStream(file, compression, str(path), until_damage=True)
        examiner = _Examiner(_Window(stream or file, chunk_bytes), str(path), check, cap, index)
        examiner.run()
        examiner.finish(None if stream is None else stream.damage, file.size)
    lost = tuple(examiner.lost)
    if not examiner.records:
        raise DataError(
            f"nothing in this file is sound: {lost[0].reason if lost else 'it holds no record.'}",
            Location(str(path)),
            "It may be no TFRecord file, or not of this dataset. Copy it again, or move it away to convert the rest.",
        )
    return Examination(examiner.records, examiner.window.end, lost, None)


@dataclass
class _Examiner:
    """Goes through a stream once.

    Attributes:
        records: how many sound ones were met.
        lost: the damaged ranges that were met.
        position: where the next record is expected.
        effort: how many bytes were held against checksums; see :data:`_FREE_EFFORT`.
    """

    window: _Window
    path: str
    check: Check
    cap: int
    index: IndexChecker | None
    records: int = 0
    lost: list[LostRange] = field(default_factory=list)
    position: int = 0
    effort: int = 0

    def run(self) -> None:
        """Examine the whole stream."""
        while not self.window.ends_at(self.position):
            frames = self._sound_frames()
            if frames is None:
                self._pass_damage()
                continue
            if self.index is not None:
                self.index.check(frames)
            self._check_frames(frames)

    def finish(self, damage: tuple[int, str] | None, size: int) -> None:
        """Count what is lost behind the stream; ``damage`` is where the file of ``size`` bytes stops to inflate."""
        end = self.window.end
        missing = None if self.index is None else self.index.pass_over(end, None)
        if damage is not None:
            self.lost.append(LostRange(damage[0], size, missing, self.records, damage[1], end))
        elif missing:
            reason = f"the file ends here, while its index goes on with {missing} more records."
            self.lost.append(LostRange(end, end, missing, self.records, reason))

    # --- Sound records -------------------------------------------------------------------------------------

    def _sound_frames(self) -> Frames | None:
        """The next records whose checksums hold, about a chunk of them; None if there are none."""
        window, first = self.window, self.position
        window.drop(first)
        starts: list[int] = []
        sizes: list[int] = []
        while self.position - first < self.window.chunk_bytes:
            size = self._size_at(self.position)
            if size is None or not self._data_holds(self.position, size):
                break
            starts.append(self.position + HEADER_BYTES - window.start)
            sizes.append(size)
            self.position += OVERHEAD_BYTES + size
        if not starts:
            return None
        return Frames(window.data, np.array(starts, np.int64), np.array(sizes, np.int64), 0, first)

    def _check_frames(self, frames: Frames) -> None:
        """Check records, ever smaller parts of them where one fails."""
        count = len(frames.starts)
        try:
            self.check(frames)
        except DataError as error:
            if count == 1:
                end = frames.first_offset + int(frames.sizes[0]) + OVERHEAD_BYTES
                self._lose(frames.first_offset, end, 1, error.message, None)
            for rows in (slice(0, count // 2), slice(count // 2, count)) if count > 1 else ():
                starts, sizes = frames.starts[rows], frames.sizes[rows]
                self._check_frames(Frames(frames.buffer, starts, sizes, 0, int(frames.offsets()[rows.start])))
        else:
            self.records += count

    # --- Damage --------------------------------------------------------------------------------------------

    def _pass_damage(self) -> None:
        """Go on from damage at the position to where the next record begins, or the next damage."""
        start, reason = self.position, self._reason(self.position)
        end = self._told_end(start)
        records: int | None = 1
        found_again: FoundAgain | None = None
        if end is None:
            sizes = (self._size_at(start), self._example_size(start))
            end = self._indexed_end() or self._scan(start + 1)
            found = self.window.end if end is None else end
            records = 1 if found - start - OVERHEAD_BYTES in sizes else None
            if not self.window.ends_at(found):
                found_again = "by checksums" if self.index is None else "by index"
        if self.index is not None:
            passed = self.index.pass_over(start, end)
            if records not in (None, passed):
                raise IndexDisagreesError(
                    f"the index has {passed} records at byte {start}, where the file has one."
                )
            records = passed
        self.position = self.window.end if end is None else end
        self._lose(start, self.position, records, reason, found_again)

    def _lose(self, start: int, end: int, records: int | None, why: str, how: FoundAgain | None) -> None:
        self._spend(_RANGE_EFFORT)
        self.lost.append(LostRange(start, end, records, self.records, why, None, how))

    def _reason(self, start: int) -> str:
        """What is wrong with the record that should start here."""
        window = self.window
        window.reach(start + HEADER_BYTES)
        try:
            size = record_size(window.bytes(start, HEADER_BYTES), self.path, 0, start, self.cap)
        except DataError as error:
            return error.message
        if not window.reach(start + OVERHEAD_BYTES + size):
            there, expected = window.end - start, OVERHEAD_BYTES + size
            return f"the file ends inside a record: {there} bytes are there, {expected} were expected."
        return "the record's data fails its checksum."

    def _told_end(self, start: int) -> int | None:
        """Where the damaged record ends by its own account; None if that cannot be believed."""
        size = self._size_at(start)
        if size is not None and self._is_boundary(start + OVERHEAD_BYTES + size):
            return start + OVERHEAD_BYTES + size
        return self._end_by_example(start)

    def _indexed_end(self) -> int | None:
        """Where the damaged record ends by the index; None if that cannot be believed."""
        line = None if self.index is None else self.index.peek()
        return sum(line) if line is not None and self._is_boundary(sum(line)) else None

    def _is_boundary(self, offset: int) -> bool:
        """Whether the file ends here, or a record begins of which the header is sound or all but the header."""
        begins = self._size_at(offset) is not None or self._end_by_example(offset) is not None
        return begins or self.window.ends_at(offset)

    def _scan(self, start: int) -> int | None:
        """Where the next whole record begins, from ``start`` on; None if there is none."""
        window = self.window
        while window.reach(start + HEADER_BYTES):
            window.drop(start)
            window.reach(start + self.window.chunk_bytes)
            data = window.bytes(start, self.window.chunk_bytes)
            for header in valid_headers(data, self.cap).tolist():
                size = int.from_bytes(data[header : header + 8], "little")
                if self._data_holds(start + header, size):
                    return int(start + header)
            start += len(data) - HEADER_BYTES + 1
        return None

    # --- Bytes ---------------------------------------------------------------------------------------------

    def _size_at(self, offset: int) -> int | None:
        """The size of the data of the record at ``offset``; None if no sound header is there."""
        self.window.reach(offset + HEADER_BYTES)
        header = self.window.bytes(offset, HEADER_BYTES)
        size = int.from_bytes(header[:8], "little")
        return size if size <= self.cap and is_header(header) else None

    def _example_size(self, offset: int) -> int | None:
        """The size of the record at ``offset`` by its Example, which is one field of a length; None if it is not."""
        start = offset + HEADER_BYTES
        self.window.reach(start + 1 + _MAX_VARINT_BYTES)
        tag, *varint = self.window.bytes(start, 1 + _MAX_VARINT_BYTES) or b"\0"
        width = next((width for width, byte in enumerate(varint, 1) if byte < 0x80), None)
        if tag != _EXAMPLE_TAG or width is None:
            return None
        size = 1 + width + sum((byte & 0x7F) << 7 * place for place, byte in enumerate(varint[:width]))
        return size if size <= self.cap else None

    def _end_by_example(self, offset: int) -> int | None:
        """Where a record ends whose header is damaged and whose Example is not; None if that is not so."""
        size = self._example_size(offset)
        if size is None or not self._data_holds(offset, size):
            return None
        return offset + OVERHEAD_BYTES + size

    def _data_holds(self, offset: int, size: int) -> bool:
        """Whether the record is there and the checksum of its data holds."""
        end = offset + HEADER_BYTES + size
        if not self.window.reach(end + FOOTER_BYTES):
            return False
        self._spend(size)
        start = offset + HEADER_BYTES - self.window.start
        data = memoryview(self.window.data)[start : start + size]
        return masked_crc_of_long(data) == int.from_bytes(self.window.bytes(end, FOOTER_BYTES), "little")

    def _spend(self, effort: int) -> None:
        """Count work that may be in vain, so that no file can make it endless.

        Raises:
            DataError: it is too much.
        """
        self.effort += effort
        if self.effort > _FREE_EFFORT + _EFFORT_PER_BYTE * self.window.end:
            raise DataError(
                "so much in this file is damaged, or looks like a record and is none, that telling what is sound "
                "would take too long.",
                Location(self.path, offset=self.position),
                "Copy it again, or move it away to convert the rest.",
            )


class _Window:
    """A stretch of a stream in memory, which only ever moves on.

    Attributes:
        data: the bytes.
        end: offset in the stream one past them.
        chunk_bytes: how much is read at once.
    """

    def __init__(self, stream: ByteStream, chunk_bytes: int) -> None:
        self.data = b""
        self.end = 0
        self._stream = stream
        self.chunk_bytes = chunk_bytes

    @property
    def start(self) -> int:
        """Offset in the stream of the first byte."""
        return self.end - len(self.data)

    def reach(self, offset: int) -> bool:
        """Read on until the bytes before ``offset`` are here; whether the stream has as many."""
        pieces = [self.data]
        while self.end < offset and (piece := self._stream.read(self.chunk_bytes)):
            self.end += len(piece)
            pieces.append(piece)
        if len(pieces) > 1:
            self.data = b"".join(pieces)
        return self.end >= offset

    def ends_at(self, offset: int) -> bool:
        """Whether the stream ends at ``offset``."""
        return not self.reach(offset + 1) and self.end == offset

    def drop(self, before: int) -> None:
        """Forget the bytes before an offset, once they are half of all, so that no byte is moved often."""
        if before - self.start > len(self.data) // 2:
            self.data = self.data[before - self.start :]

    def bytes(self, start: int, size: int) -> bytes:
        """The bytes from ``start`` on; fewer than ``size`` where they are not here."""
        position = start - self.start
        return self.data[position : position + size]
