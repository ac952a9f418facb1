"""Damaged ranges of a source file, and reading strictly what lies between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from converters.errors import DataError, Location
from converters.formats.tfrecord.framing import ByteStream

_CHUNK = 1 << 20


@dataclass(frozen=True)
class LostRange:
    """A range of a source file that holds no sound record.

    Attributes:
        start: its first byte in the file's decompressed bytes; ``end``: one past the last.
        records: number of records that are lost with it; None where nothing tells.
        sound_before: number of sound records in the file before it.
        reason: what is wrong with it.
        inflated: for a range of a compressed file's *stored* bytes, which is what ``start`` and ``end`` count
            then: how many bytes the stored bytes before it inflate to. There is at most one, the file's end.
    """

    start: int
    end: int
    records: int | None
    sound_before: int
    reason: str
    inflated: int | None = None


@dataclass(frozen=True)
class FileDamage:
    """The damaged ranges of a source file, in order, and whether its index tells of them rightly."""

    lost: tuple[LostRange, ...]
    indexed: bool


@dataclass(frozen=True)
class SoundPart:
    """A stretch of whole records between lost ranges.

    Attributes:
        stream: its bytes, to be read to their end.
        offset: where it starts, in decompressed bytes.
        lost_records: number of records lost before it, as far as known.
    """

    stream: ByteStream
    offset: int
    lost_records: int


class LimitedStream:
    """The next ``size`` bytes of a stream, which must have as many."""

    def __init__(self, stream: ByteStream, size: int, path: str) -> None:
        self._stream = stream
        self._left = size
        self._path = path

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; none at the end.

        Raises:
            DataError: the stream ends early.
        """
        if not self._left:
            return b""
        data = self._stream.read(min(size, self._left))
        if not data:
            raise DataError(
                f"the file ends {self._left} bytes early; it changed since it was examined.",
                Location(self._path),
                "Try again.",
            )
        self._left -= len(data)
        return data


def stored_stream(file: ByteStream, lost: Sequence[LostRange], path: str) -> ByteStream:
    """The stored bytes of a compressed file that inflate."""
    for piece in lost:
        if piece.inflated is not None:
            return LimitedStream(file, piece.start, path)
    return file


def sound_parts(stream: ByteStream, start: int, lost: Sequence[LostRange], path: str) -> Iterator[SoundPart]:
    """The stretches of a stream between its lost ranges; each must be read to its end before the next.

    Args:
        stream: the bytes, decompressed, from ``start`` on.
        start: offset in the file of the stream's first byte.
        lost: the ranges to pass over, in order.
        path: names the file in errors.
    """
    position, records = start, 0
    end: int | None = None
    for piece in lost:
        if piece.inflated is not None:
            end = piece.inflated
            continue
        yield SoundPart(LimitedStream(stream, piece.start - position, path), position, records)
        drain(LimitedStream(stream, piece.end - piece.start, path))
        position = piece.end
        records += piece.records or 0
    rest = stream if end is None else LimitedStream(stream, end - position, path)
    yield SoundPart(rest, position, records)


def drain(stream: ByteStream) -> None:
    """Read a stream to its end."""
    while stream.read(_CHUNK):
        pass


def records_lost(lost: Sequence[LostRange]) -> int | None:
    """Number of records lost in ranges; None where it is not known."""
    counts = [piece.records for piece in lost]
    return None if None in counts else sum(filter(None, counts))


def first_lost(lost: Sequence[LostRange]) -> list[int | None]:
    """The index in the file of each range's first lost record, those lost before it counted; None where unknown."""
    numbers: list[int | None] = []
    before: int | None = 0
    for piece in lost:
        numbers.append(None if before is None else piece.sound_before + before)
        before = None if before is None or piece.records is None else before + piece.records
    return numbers
