"""The bytes of a source file, decompressed where it is compressed, hashed as stored.

TFRecord's compression (GZIP, ZLIB) wraps the whole file and no file says which it is, so it is told from the
first bytes. TensorFlow and ``gzip`` overlook cut or padded streams; here a stream is complete only with its
end marker and trailer, and nothing but further members may follow.
"""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from types import TracebackType
from typing import IO, Self

from converters.dataset.source import Compression
from converters.errors import CallError, DataError, Location
from converters.formats.tfrecord.framing import HEADER_BYTES, ByteStream, is_header
from converters.storage.files import open_regular
from converters.storage.object_store import ObjectPath, Place, open_object

# Deflate expands at most 1032 times, JPEGs hardly at all. A stream that expands more than this is a bomb.
MAX_EXPANSION = 100
_FREE_BYTES = 64 << 20  # not held against a stream: labels and sizes of few records compress well

# Concatenated members may be empty (bgzip ends with one), but nobody writes thousands in a row.
MAX_EMPTY_MEMBERS = 1000

_COMPRESSED_CHUNK = 1 << 20
# What inflate gets at once. It copies what it did not take, so with many members this must be little.
_PIECE_BYTES = 16 << 10
_WINDOW_BITS = {"gzip": 31, "zlib": 15}

GZIP_HEADER_BYTES = 10
_GZIP_TEXT = 0x01
_GZIP_LEVELS = (0, 2, 4)  # unknown, best, fastest
_GZIP_SYSTEMS = (*range(20), 255)  # RFC 1952 has 0 to 13 and 255; zlib and Info-ZIP go up to 19, Darwin


class StoredFile:
    """A source file opened for reading a range of its stored bytes; hashes what it reads.

    Only regular files are opened: a directory, FIFO or device is refused without waiting for it.

    Attributes:
        path: as given; names the file in errors.
        size: of the file, in bytes.
    """

    def __init__(self, path: Place, start: int = 0, end: int | None = None) -> None:
        self.path = str(path)
        try:
            self._file, self.size = _open(path)
        except FileNotFoundError as error:
            raise CallError(f"{path}: there is no such file.") from error
        except OSError as error:
            raise DataError(
                f"the file cannot be opened: {error.strerror}.",
                Location(str(path)),
                "Put a TFRecord file here.",
            ) from error
        self._left = (self.size if end is None else end) - start
        self._digest = hashlib.sha256()
        if start:
            self._file.seek(start)

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; none at the end of the range."""
        try:
            data = self._file.read(min(size, self._left))
        except OSError as error:
            raise DataError(f"the file cannot be read: {error.strerror}.", Location(self.path)) from error
        if not data and self._left:
            raise DataError(
                f"the file shrank while it was read: {self._left} bytes are gone.", Location(self.path)
            )
        self._left -= len(data)
        self._digest.update(data)
        return data

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes from anywhere in the file, fewer at its end; they are not hashed."""
        if isinstance(self._file, io.FileIO):
            return os.pread(self._file.fileno(), size, offset)
        place = self._file.tell()
        self._file.seek(offset)
        data = self._file.read(size)
        self._file.seek(place)
        return data

    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes read so far, as stored."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _open(path: Place) -> tuple[IO[bytes], int]:
    """A file, opened for reading, and its size."""
    if isinstance(path, ObjectPath):
        opened = open_object(path)
        return opened, opened.seek(0, os.SEEK_END) - opened.seek(0)
    file = open(open_regular(path), "rb", buffering=0)  # noqa: PTH123, SIM115  # a descriptor; closed by __exit__
    return file, os.fstat(file.fileno()).st_size


def detect_compression(path: Place) -> Compression:
    """How the file is compressed, from its first bytes.

    Raises:
        DataError: the file cannot be read, is no regular file, or is empty.
    """
    with StoredFile(path) as file:
        head = file.read(HEADER_BYTES)
    if not head:
        raise DataError("the file is empty.", Location(str(path)), "Copy it again from where you got it.")
    if is_header(head):
        return "none"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    # RFC 1950: method 8, window up to 32 KiB, and the two bytes are a multiple of 31.
    if len(head) > 1 and head[0] & 0x8F == 0x08 and int.from_bytes(head[:2], "big") % 31 == 0:
        return "zlib"
    return "none"


def gzip_header_problem(header: bytes | bytearray) -> str | None:
    """What no writer puts into the first :data:`GZIP_HEADER_BYTES` of a gzip member; zlib overlooks it.

    RFC 1952, 2.3.1. Nothing protects the time, nor the system and the level among the known ones, nor a name; no
    byte of the content depends on them.
    """
    flags, level, system = header[3], header[8], header[9]
    if flags & _GZIP_TEXT:
        return "the gzip header says that the content is text."
    if level not in _GZIP_LEVELS or system not in _GZIP_SYSTEMS:
        return f"the gzip header is damaged: level {level}, system {system}."
    return None


class DecompressedStream:
    """The decompressed bytes of a GZIP or ZLIB stream.

    With ``any_header``, what :func:`gzip_header_problem` finds is passed over.

    Raises:
        DataError: on reading, when the stream is damaged, cut short, followed by anything but a further
            member, or expands beyond reason.
    """

    def __init__(
        self, source: ByteStream, compression: Compression, path: str, *, any_header: bool = False
    ) -> None:
        self._source = source
        self._any_header = any_header
        self._compression = compression
        self._path = path
        self._inflate = zlib.decompressobj(_WINDOW_BITS[compression])
        self._stored = memoryview(b"")  # read from the source, and not yet given to inflate
        self._pending = b""  # given to inflate, and not taken
        self._consumed = 0
        self._produced = 0
        self._empty_members = 0
        self._member_start = 0  # in decompressed bytes
        self._header = bytearray()  # the first bytes of a gzip member, as far as they were seen

    def read(self, size: int, /) -> bytes:
        """``size`` decompressed bytes; fewer at the end, and then none."""
        parts: list[bytes] = []
        wanted = size
        while wanted:
            data = self._read_some(wanted)
            if not data:
                break
            parts.append(data)
            wanted -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_some(self, size: int) -> bytes:
        while True:
            if not self._pending and not self._refill():
                return self._end()
            if self._inflate.eof:
                self._next_member()
            self._check_header()
            data = self._decompress(self._pending, size)
            self._pending = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            self._produced += len(data)
            if self._produced > MAX_EXPANSION * self._consumed + _FREE_BYTES:
                raise self._error(
                    f"the {self._compression} stream expands more than {MAX_EXPANSION} times; images do not."
                )
            if data:
                return data

    def _refill(self) -> bool:
        """Take the next piece of the source; False at its end."""
        if not self._stored:
            self._stored = memoryview(self._source.read(_COMPRESSED_CHUNK))
            self._consumed += len(self._stored)
        self._pending += bytes(self._stored[:_PIECE_BYTES])
        self._stored = self._stored[_PIECE_BYTES:]
        return bool(self._pending)

    def _end(self) -> bytes:
        if not self._inflate.eof:
            # What inflate holds back without input is only ever output it had no room for.
            data = self._decompress(b"", _COMPRESSED_CHUNK)
            if data:
                return data
            raise self._error(
                f"the {self._compression} stream is cut short: its end marker or trailer is missing."
            )
        return b""

    def _decompress(self, data: bytes, size: int) -> bytes:
        try:
            return self._inflate.decompress(data, size)
        except zlib.error as error:
            raise self._error(f"the {self._compression} stream is damaged: {error}.") from error

    def _next_member(self) -> None:
        if self._compression == "zlib":
            raise self._error("something follows the end of the zlib stream.")
        if len(self._pending) < 2:
            self._refill()
        if not self._pending.startswith(b"\x1f\x8b"):
            raise self._error("something other than a further member follows the end of the gzip stream.")
        self._empty_members = 0 if self._produced > self._member_start else self._empty_members + 1
        if self._empty_members > MAX_EMPTY_MEMBERS:
            raise self._error(f"more than {MAX_EMPTY_MEMBERS} members in a row hold nothing.")
        self._member_start = self._produced
        self._header.clear()
        self._inflate = zlib.decompressobj(_WINDOW_BITS[self._compression])

    def _check_header(self) -> None:
        """Refuse a gzip member's header once it is there, if something is wrong with it."""
        missing = GZIP_HEADER_BYTES - len(self._header)
        if self._compression != "gzip" or self._any_header or not missing:
            return
        self._header += self._pending[:missing]
        if len(self._header) == GZIP_HEADER_BYTES and (problem := gzip_header_problem(self._header)):
            raise self._error(problem)

    def _error(self, message: str) -> DataError:
        return DataError(
            message,
            Location(self._path, offset=self._produced),
            "Offsets count decompressed bytes. Copy the file again from where you got it.",
        )
