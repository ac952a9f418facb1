"""Reads the damaged ranges of a source file, and what lies between them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.dataset.damage import LostRange
from converters.dataset.source_facts import Compression
from converters.errors import DataError, Location
from converters.formats.tfrecord.compression import DecompressedStream, StoredFile
from converters.formats.tfrecord.framing import ByteStream
from converters.storage.object_store import Place

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK = 1 << 20


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


class LimitedStream(io.RawIOBase):
    """The next ``size`` bytes of a stream, which must have as many."""

    def __init__(self, stream: ByteStream, size: int, path: str) -> None:
        self._stream = stream
        self._left = size
        self._path = path

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read the next bytes into a buffer; none at the end.

        Raises:
            DataError: the stream ends early.
        """
        if not self._left:
            return 0
        count = self._stream.readinto(memoryview(buffer)[: self._left])
        if not count:
            raise DataError(
                f"the file ends {self._left} bytes early; it changed since it was examined.",
                Location(self._path),
                "Try again.",
            )
        self._left -= count
        return count


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


def lost_bytes(path: Place, compression: Compression, lost: Sequence[LostRange]) -> Iterator[ByteStream]:
    """The bytes of each lost range, as a stream; read what is wanted of one before the next.

    Raises:
        DataError: on reading, when the file is not what it was when it was examined.
    """
    stored = list(lost)
    if compression != "none":
        stored = [piece for piece in lost if piece.inflated is not None]  # at most one, the last
        with StoredFile(path) as file:
            stream = DecompressedStream(stored_stream(file, lost, str(path)), compression, str(path))
            position = 0
            for piece in lost[: len(lost) - len(stored)]:
                drain(LimitedStream(stream, piece.start - position, str(path)))
                part = LimitedStream(stream, piece.end - piece.start, str(path))
                yield part
                drain(part)
                position = piece.end
    for piece in stored:
        with StoredFile(path, piece.start, piece.end) as file:
            yield file


def drain(stream: ByteStream) -> None:
    """Read a stream to its end."""
    while stream.read(_CHUNK):
        pass
