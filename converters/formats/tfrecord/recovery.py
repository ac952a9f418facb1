"""Finds what is sound in a damaged TFRecord file, and what is lost.

Where a record's data is damaged, its header says where the next one begins. Where the header is damaged, the
next record is looked for, in this order:

1. The Example in the record says how long it is; what it says is believed where the data's checksum holds, or
   a sound header or the end of the file follows there.
2. Every byte offset that follows is tried: a length within the cap whose checksum holds. With an index, that is
   the next record if the index says so. Without, its data's checksum must hold as well. Yet a JPEG may hold bytes
   that are a record; one that is inside the damaged record must not be taken for the next. The records of a file
   go on to its end or to the next damage, while a run of records inside another ends in the midst of that one.
   So a run is believed if it reaches the end of the file (unless a record before it says that it goes on beyond
   it: the file may be cut in the midst of that one), or ends at a record whose end can be told by 1., or is longer
   than twice the longest record known. What is not believed is lost; it is never guessed.

Memory is bounded by a chunk and a few times the longest record, and what a damaged length claims is never
allocated.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from converters.dataset.damage import LostRange
from converters.dataset.source import MAX_RECORD_BYTES, Compression
from converters.errors import DataError, Location
from converters.formats.tfrecord.compression import (
    GZIP_HEADER_BYTES,
    MAX_EXPANSION,
    DecompressedStream,
    StoredFile,
    gzip_header_problem,
)
from converters.formats.tfrecord.damage import LimitedStream, drain, stored_stream
from converters.formats.tfrecord.framing import (
    CHUNK_BYTES,
    FOOTER_BYTES,
    HEADER_BYTES,
    OVERHEAD_BYTES,
    ByteStream,
    Frames,
    is_header,
    masked_crc,
    record_size,
)
from converters.storage.files import open_file
from converters.storage.object_store import Place

Check = Callable[[Frames], None]
"""Raises a DataError if a record of the frames is not what it must be."""

_MAX_HOPS = 16  # records in a row whose headers are damaged and whose data is as well
_EXAMPLE_TAG = 0x0A
_INDEX_LINE = re.compile(rb"(\d{1,18}) (\d{1,18})\n?")
_INDEX_LINE_BYTES = 64

# A gigabyte and sixteen times the file: what may be read again to tell true records from false ones.
_FREE_EFFORT, _EFFORT_PER_BYTE = 1 << 30, 16
# What finding one record costs that fails a check: as much as reading so many bytes. A split of KFER stays below.
_CHECK_EFFORT = 50_000

_STORED_PIECE = 4096  # expands to 4 MiB at most
_FREE_EXPANSION = 64 << 20
_WINDOW_BITS = {"gzip": 31, "zlib": 15}


@dataclass(frozen=True)
class Examination:
    """What examining a file found.

    Attributes:
        records: number of sound records.
        stream_bytes: size of the file, decompressed; where the compression is damaged, of what inflates.
        lost: the damaged ranges, in order.
        index_problem: why the index was not used, where it contradicts the file; None otherwise.
        header_problem: what is wrong with the header of the compression, where that harms no record; None otherwise.
    """

    records: int
    stream_bytes: int
    lost: tuple[LostRange, ...]
    index_problem: str | None
    header_problem: str | None = None


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
        DataError: nothing in the file is sound, it cannot be read, it expands beyond reason, or it is made to
            mislead.
    """
    problem = None
    if index is not None:
        try:
            with _Index(index) as lines:
                return _examine(path, compression, lines, check, max_record_bytes, chunk_bytes, None)
        except _IndexDisagreesError as error:
            problem = str(error)
    return _examine(path, compression, None, check, max_record_bytes, chunk_bytes, problem)


def _examine(
    path: Place,
    compression: Compression,
    lines: _Index | None,
    check: Check,
    max_record_bytes: int,
    chunk_bytes: int,
    problem: str | None,
) -> Examination:
    with StoredFile(path) as file:
        inflating = None if compression == "none" else _Inflating(file, compression)
        window = _Window(inflating or file, chunk_bytes)
        examiner = _Examiner(window, str(path), lines, check, max_record_bytes)
        examiner.run()
        lost = examiner.finish(None if inflating is None else inflating.damage, file.size)
    if not examiner.records:
        raise DataError(
            f"nothing in this file is sound: {lost[0].reason if lost else 'it holds no record.'}",
            Location(str(path)),
            "It may be no TFRecord file, or not of this dataset. Copy it again, or move it away to convert the rest.",
        )
    header_problem = None if inflating is None else inflating.header_problem
    return Examination(examiner.records, window.end, lost, problem, header_problem)


def lost_bytes(
    path: Place, compression: Compression, lost: Sequence[LostRange]
) -> Iterator[tuple[LostRange, ByteStream]]:
    """The bytes of each lost range, as a stream; read what is wanted of one before the next.

    Raises:
        DataError: on reading, when the file is not what it was when it was examined.
    """
    for piece in lost:
        if compression == "none" or piece.inflated is not None:
            with StoredFile(path, piece.start, piece.end) as file:
                yield piece, file
    if compression == "none":
        return
    with StoredFile(path) as file:
        stored = stored_stream(file, lost, str(path))
        stream = DecompressedStream(stored, compression, str(path), any_header=True)
        position = 0
        for piece in lost:
            if piece.inflated is None:
                drain(LimitedStream(stream, piece.start - position, str(path)))
                part = LimitedStream(stream, piece.end - piece.start, str(path))
                yield piece, part
                drain(part)
                position = piece.end


class _Examiner:
    """Goes through a stream once; ``position`` is where the next record is expected."""

    def __init__(
        self, window: _Window, path: str, lines: _Index | None, check: Check, max_record_bytes: int
    ) -> None:
        self.records = 0
        self._window = window
        self._path = path
        self._lines = lines
        self._check = check
        self._cap = max_record_bytes
        self._lost: list[LostRange] = []
        self._position = 0
        self._longest = 0
        self._effort = 0
        self._cut = (
            False  # whether a record met in the damage says that it goes on beyond the end of the stream
        )

    def run(self) -> None:
        """Examine the whole stream."""
        while not self._window.ends_at(self._position):
            frames = self._sound_frames()
            if frames is None:
                self._pass_damage()
            else:
                self._check_frames(frames)

    def finish(self, damage: tuple[int, str] | None, size: int) -> tuple[LostRange, ...]:
        """The lost ranges; ``damage`` is where the stored bytes stop inflating and why, ``size`` how many there are."""
        missing = None
        if self._lines is not None:
            self._lines.pass_until(None)
            missing = self._lines.take_passed()
        if damage is not None:
            start, reason = damage
            self._lost.append(LostRange(start, size, missing, self.records, reason, self._window.end))
        elif missing:
            reason = f"the file ends here, while its index goes on with {missing} more records."
            end = self._window.end
            self._lost.append(LostRange(end, end, missing, self.records, reason))
        return tuple(self._lost)

    # --- Sound records -------------------------------------------------------------------------------------

    def _sound_frames(self) -> Frames | None:
        """The next records whose checksums hold, about a chunk of them; None if there are none."""
        window, first = self._window, self._position
        window.drop(first)
        starts: list[int] = []
        sizes: list[int] = []
        while self._position - first < window.chunk_bytes:
            size = self._size_at(self._position)
            if size is None:
                break
            end = self._position + OVERHEAD_BYTES + size
            if not window.reach(end) or not self._data_holds(self._position, size):
                break
            if self._lines is not None:
                self._lines.confirm(self._position, size + OVERHEAD_BYTES)
            starts.append(self._position + HEADER_BYTES - first)
            sizes.append(size)
            self._position = end
        if not starts:
            return None
        self._longest = max(self._longest, max(sizes) + OVERHEAD_BYTES)
        return Frames(window.data, np.array(starts, np.int64), np.array(sizes, np.int64), 0, first)

    def _check_frames(self, frames: Frames) -> None:
        """Check records, ever smaller parts of them where one fails."""
        try:
            self._check(frames)
        except DataError as error:
            count = len(frames.starts)
            if count == 1:
                self._spend(_CHECK_EFFORT)
                end = frames.first_offset + int(frames.sizes[0]) + OVERHEAD_BYTES
                self._lost.append(LostRange(frames.first_offset, end, 1, self.records, error.message))
                return
            for rows in (slice(0, count // 2), slice(count // 2, count)):
                first_offset = int(frames.offsets()[rows.start])
                self._check_frames(
                    Frames(frames.buffer, frames.starts[rows], frames.sizes[rows], 0, first_offset)
                )
        else:
            self.records += len(frames.starts)

    # --- Damage --------------------------------------------------------------------------------------------

    def _pass_damage(self) -> None:
        """Go on from damage at the position to where the next record begins, or the next damage."""
        start = self._position
        reason = self._reason(start)
        size = self._size_at(start)
        end = None if size is None else start + OVERHEAD_BYTES + size
        claims = [claim for claim in (end, self._example_claim(start)) if claim is not None]
        self._cut = not all(map(self._window.reach, claims))
        if end is not None and not self._window.reach(end):
            end = None
        if end is not None and self._in_index(start, end):
            self._lose(end, 1, reason)
        elif end is not None and (self._is_boundary(end) or self._hops(end)):
            # A record that begins before the end and goes on beyond it: some of this one's bytes are gone.
            found = None if self._lines is not None else self._scan(start + 1, end, beyond=end)
            self._lose(found or end, 1 if found is None else None, reason)
        elif end is not None and end == self._example_end(start):
            # The next record is damaged as well; or some of this one's bytes are gone, and the next begins earlier.
            found = self._scan(start + 1, end)
            self._lose(found or end, 1 if found is None else None, reason)
        elif hops := self._hops(start):
            reasons = [reason, *map(self._reason, hops[:-1])]
            last = hops[-1]
            found = None if self._lines is not None else self._scan(start + 1, last, beyond=last)
            if found is not None:
                self._lose(found, None, reason)
            else:
                for hop, what in zip(hops, reasons, strict=True):
                    self._lose(hop, 1, what)
        else:
            self._lose(self._scan(start + 1), None, reason)

    def _lose(self, end: int | None, records: int | None, reason: str) -> None:
        """Count the bytes up to ``end`` (None: the end of the stream) as lost, and go on there."""
        if self._lines is not None:
            self._lines.pass_until(end)
            passed = self._lines.take_passed()
            at = self._lines.offset
            if records not in (None, passed) or (end is not None and at not in (None, end)):
                raise _IndexDisagreesError(f"its lines do not fit the damage from byte {self._position} on")
            if end is None and passed > 1 and self._lines.strange:
                raise _IndexDisagreesError(f"records after byte {self._position} are not where it says")
            records = passed
        end = self._window.end if end is None else end
        self._lost.append(LostRange(self._position, end, records, self.records, reason))
        self._position = end

    def _reason(self, start: int) -> str:
        """What is wrong with the record that should start here."""
        window = self._window
        window.reach(start + HEADER_BYTES)
        try:
            size = record_size(window.bytes(start, HEADER_BYTES), self._path, 0, start, self._cap)
        except DataError as error:
            return error.message
        if not window.reach(start + OVERHEAD_BYTES + size):
            there, expected = window.end - start, OVERHEAD_BYTES + size
            return f"the file ends inside a record: {there} bytes are there, {expected} were expected."
        return "the record's data fails its checksum."

    def _in_index(self, start: int, end: int) -> bool:
        return self._lines is not None and self._lines.is_next(start, end - start)

    def _size_at(self, offset: int) -> int | None:
        """The size of the data of the record at ``offset``; None if no sound header is there."""
        if not self._window.reach(offset + HEADER_BYTES):
            return None
        header = self._window.bytes(offset, HEADER_BYTES)
        size = int.from_bytes(header[:8], "little")
        return size if size <= self._cap and is_header(header) else None

    def _is_boundary(self, offset: int) -> bool:
        """Whether a sound header is at ``offset``, or the end of the stream."""
        return self._window.ends_at(offset) or self._size_at(offset) is not None

    def _data_holds(self, offset: int, size: int) -> bool:
        """Whether the checksum of a record's data holds; the record is in the window."""
        stored = self._window.bytes(offset + HEADER_BYTES + size, FOOTER_BYTES)
        return masked_crc(self._window.bytes(offset + HEADER_BYTES, size)) == int.from_bytes(stored, "little")

    def _example_end(self, offset: int) -> int | None:
        """Where the record at ``offset`` ends by what its Example says of itself; None if that is not in the stream."""
        end = self._example_claim(offset)
        return end if end is not None and self._window.reach(end) else None

    def _example_claim(self, offset: int) -> int | None:
        """Likewise, be it beyond the stream's end; None if the Example says nothing credible."""
        window = self._window
        window.reach(offset + HEADER_BYTES + 11)
        head = window.bytes(offset + HEADER_BYTES, 11)
        if not head or head[0] != _EXAMPLE_TAG:
            return None
        width = next((width for width, byte in enumerate(head[1:], 1) if byte < 0x80), None)
        if width is None:
            return None
        length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(head[1 : 1 + width]))
        size = 1 + width + length
        return offset + OVERHEAD_BYTES + size if size <= self._cap else None

    def _hops(self, offset: int) -> list[int]:
        """The ends of the records from ``offset`` on by what their Examples say, up to an end that is proven."""
        ends: list[int] = []
        position = offset
        while len(ends) < _MAX_HOPS and position - offset <= self._cap:
            end = self._example_end(position)
            if end is None:
                break
            ends.append(end)
            size = end - position - OVERHEAD_BYTES
            self._spend(size)
            if self._is_boundary(end) or self._data_holds(position, size):
                return ends
            position = end
        return []

    # --- Finding records again -----------------------------------------------------------------------------

    def _scan(self, start: int, stop: int | None = None, *, beyond: int = 0) -> int | None:
        """Where the next record begins that is believed, from ``start`` on; None if there is none before ``stop``.

        With ``beyond``, what is looked for are records that end behind it; these are believed as well if something
        begins where they end.
        """
        window, position = self._window, start
        while True:
            window.drop(position)
            more = window.reach(position + window.chunk_bytes)
            end = window.end
            for header in valid_headers(window.data, self._cap).tolist():
                found = position + header
                if stop is not None and found >= stop:
                    return None
                behind = found + OVERHEAD_BYTES + (self._size_at(found) or 0)
                if beyond and (behind <= beyond or self._is_boundary(behind)):
                    believed = behind > beyond
                else:
                    believed = self._is_believed(found)
                if believed:
                    return found
            position = max(position, end - HEADER_BYTES + 1)
            if not more or (stop is not None and position >= stop):
                return None

    def _is_believed(self, offset: int) -> bool:
        """Whether the sound header at ``offset`` is the beginning of a record; see the module's text."""
        size = self._size_at(offset)
        if size is None:
            return False
        if self._lines is not None:
            self._lines.pass_until(offset)
            believed = self._lines.is_next(offset, size + OVERHEAD_BYTES)
            self._lines.strange = self._lines.strange or not believed
            return believed
        return self._is_long_run(offset) and self._spend(size) and self._data_holds(offset, size)

    def _is_long_run(self, offset: int) -> bool:
        """Whether the records from ``offset`` on are not inside another one."""
        position, longest = offset, self._longest
        while (size := self._size_at(position)) is not None:
            end = position + OVERHEAD_BYTES + size
            self._spend(1000)  # about what a step costs
            if not self._window.reach(end):
                self._cut = True
                return False
            longest = max(longest, size + OVERHEAD_BYTES)
            position = end
            if position - offset > 2 * longest or (not self._cut and self._window.ends_at(position)):
                return True
        if self._window.ends_at(position):
            return False
        claim = self._example_claim(position)
        self._cut = self._cut or (claim is not None and not self._window.reach(claim))
        return bool(self._hops(position))

    def _spend(self, effort: int) -> bool:
        """Count work that may be in vain, so that no file can make it endless.

        Raises:
            DataError: it is too much.
        """
        self._effort += effort
        if self._effort > _FREE_EFFORT + _EFFORT_PER_BYTE * self._window.end:
            raise DataError(
                "so much in this file looks like a record and is none that it cannot be told what is sound.",
                Location(self._path, offset=self._position),
                "It is made to mislead: do not use it.",
            )
        return True


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
    masked = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)
    return found[masked == checksums[found]]


@cache
def _length_checksums() -> npt.NDArray[np.uint32]:
    """CRC32C of eight bytes, in parts: that of zeros in row 0, and what each byte at position n adds in row n + 1."""
    import google_crc32c

    zeros = google_crc32c.value(bytes(8))
    table = np.zeros((9, 256), np.uint32)
    table[0, 0] = zeros
    for position in range(8):
        for value in range(256):
            message = bytearray(8)
            message[position] = value
            table[1 + position, value] = google_crc32c.value(bytes(message)) ^ zeros
    return table


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
        self.chunk_bytes = chunk_bytes
        self._stream = stream
        self._ended = False

    def reach(self, offset: int) -> bool:
        """Read on until the bytes before ``offset`` are here; whether the stream has as many."""
        if offset <= self.end:
            return True
        pieces = [self.data]
        while self.end < offset and not self._ended:
            piece = self._stream.read(self.chunk_bytes)
            self._ended = not piece
            self.end += len(piece)
            pieces.append(piece)
        self.data = b"".join(pieces)
        return self.end >= offset

    def ends_at(self, offset: int) -> bool:
        """Whether the stream ends at ``offset``."""
        return not self.reach(offset + 1) and self.end == offset

    def drop(self, before: int) -> None:
        """Forget the bytes before an offset."""
        start = self.end - len(self.data)
        if before > start:
            self.data = self.data[before - start :]

    def bytes(self, start: int, size: int) -> bytes:
        """The bytes from ``start`` on; fewer than ``size`` where they are not here."""
        position = start - (self.end - len(self.data))
        return self.data[position : position + size]


class _Inflating:
    """The decompressed bytes of a GZIP or ZLIB stream up to its damage.

    Attributes:
        damage: the offset of the first stored byte that does not inflate, and why; None where all do.
        header_problem: what is wrong with the header of a member that inflates nevertheless; None where nothing is.
    """

    def __init__(self, file: StoredFile, compression: Compression) -> None:
        self.damage: tuple[int, str] | None = None
        self.header_problem: str | None = None
        self._file = file
        self._compression = compression
        self._inflate = zlib.decompressobj(_WINDOW_BITS[compression])
        self._consumed = 0
        self._produced = 0
        self._member_start = 0
        self._member_produced = 0
        self._header = b""  # the first bytes of the member, as far as they were seen
        self._ended = False

    def read(self, _size: int, /) -> bytes:
        """The next decompressed bytes, at most 4 MiB of them; none at the end or the damage."""
        while not self._ended:
            piece = self._file.read(_STORED_PIECE)
            if not piece:
                self._ended = True
                if not self._inflate.eof:
                    self._damaged("it is cut short: its end marker or trailer is missing")
                return b""
            data = self._piece(piece)
            self._produced += len(data)
            if self._produced > MAX_EXPANSION * self._consumed + _FREE_EXPANSION:
                raise DataError(
                    f"the {self._compression} stream expands more than {MAX_EXPANSION} times; images do not.",
                    Location(self._file.path, offset=self._produced),
                )
            if data:
                return data
        return b""

    def _piece(self, piece: bytes) -> bytes:
        before = self._inflate.copy()
        try:
            return self._feed(piece)
        except zlib.error:
            pass
        # Again, byte by byte: all that inflates is kept, and the damage gets its exact place.
        self._inflate = before
        data = []
        for position in range(len(piece)):
            try:
                data.append(self._feed(piece[position : position + 1]))
            except zlib.error as error:
                self._damaged(str(error))
                break
        self._ended = True
        return b"".join(data)

    def _feed(self, piece: bytes) -> bytes:
        """Inflate stored bytes, which may go on with another member."""
        data = []
        left = piece
        member_start, member_produced = self._member_start, self._member_produced
        header = self._header
        while left:
            if self._inflate.eof:
                if self._compression == "zlib":
                    raise zlib.error("something follows its end")
                self._inflate = zlib.decompressobj(_WINDOW_BITS[self._compression])
                member_start, member_produced = self._consumed + len(piece) - len(left), 0
                header = b""
            if self._compression == "gzip" and len(header) < GZIP_HEADER_BYTES:
                header += left[: GZIP_HEADER_BYTES - len(header)]
                if len(header) == GZIP_HEADER_BYTES:
                    self.header_problem = self.header_problem or gzip_header_problem(header)
            data.append(self._inflate.decompress(left))
            member_produced += len(data[-1])
            left = self._inflate.unused_data
        self._consumed += len(piece)
        self._member_start, self._member_produced = member_start, member_produced
        self._header = header
        return b"".join(data)

    def _damaged(self, reason: str) -> None:
        """The stream is damaged from the next byte on; or from a member on of which nothing inflates."""
        start = self._consumed if self._member_produced else self._member_start
        self.damage = (start, f"the {self._compression} stream is damaged: {reason}.")


class _IndexDisagreesError(Exception):
    """The index is malformed, or says something else than the file."""


class _Index:
    """The lines of an index, one after the other.

    Attributes:
        strange: whether a sound header was met that is in no line.
    """

    def __init__(self, path: Place) -> None:
        self.strange = False
        self._passed = 0
        self._number = 0
        self._next: tuple[int, int] | None = (0, 0)
        try:
            self._file = open_file(path)
        except OSError as error:
            raise _IndexDisagreesError(f"it cannot be read: {error.strerror}") from error

    @property
    def offset(self) -> int | None:
        """The offset in the next line; None at the end."""
        return None if self._next is None else self._next[0]

    def is_next(self, offset: int, size: int) -> bool:
        """Whether the next line says this."""
        return self._next == (offset, size)

    def confirm(self, offset: int, size: int) -> None:
        """Take the line of a sound record.

        Raises:
            _IndexDisagreesError: it says something else.
        """
        if self._next != (offset, size):
            found = "ends" if self._next is None else f"says offset {self._next[0]} and size {self._next[1]}"
            raise _IndexDisagreesError(
                f"it {found} at line {self._number}, where the file has a record of offset {offset} and size {size}"
            )
        self._advance()

    def pass_until(self, offset: int | None) -> None:
        """Pass over the lines of records before ``offset`` (None: all)."""
        while self._next is not None and (offset is None or self._next[0] < offset):
            self._passed += 1
            self._advance()

    def take_passed(self) -> int:
        """How many lines were passed over since this was last asked."""
        passed, self._passed = self._passed, 0
        return passed

    def _advance(self) -> None:
        try:
            line = self._file.readline(_INDEX_LINE_BYTES)
        except OSError as error:
            raise _IndexDisagreesError(f"it cannot be read: {error.strerror}") from error
        if not line:
            self._next = None
            return
        self._number += 1
        match = _INDEX_LINE.fullmatch(line)
        if match is None:
            raise _IndexDisagreesError(f"line {self._number} is not 'offset size': {line[:40]!r}")
        offset, size = int(match[1]), int(match[2])
        if self._next is not None and offset != sum(self._next):
            raise _IndexDisagreesError(f"line {self._number} does not begin where the line before it ends")
        self._next = offset, size

    def __enter__(self) -> _Index:
        self._advance()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
