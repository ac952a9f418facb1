"""The bytes of a source file, decompressed where it is compressed, hashed as stored.

TFRecord's compression (GZIP, ZLIB) wraps the whole file and no file says which it is, so it is told from the
first bytes. TensorFlow and ``gzip`` overlook cut or padded streams; here a stream is complete only with its
end marker and trailer, and nothing but further members may follow.
"""

from __future__ import annotations

import errno
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from converters.dataset.source_facts import Compression
from converters.errors import CallError, DataError, Location
from converters.formats.tfrecord.framing import ByteStream, is_header
from converters.storage.digests import Sha256Beside
from converters.storage.files import open_regular
from converters.storage.object_store import ObjectPath, Place, open_object

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# What inflate gets at once: it expands to 16 MiB at most (deflate: 1032 times), whatever the stream expands to. Inflate
# copies what it did not take, so with many members this must be little.
_PIECE_BYTES = 16 << 10
WINDOW_BITS = {"gzip": 31, "zlib": 15}

_GZIP_MAGIC = b"\x1f\x8b"


class StoredFile(io.RawIOBase):
    """A source file opened for reading a range of its stored bytes; hashes what it reads, if it is ``hashed``.

    Only regular files are opened: a directory, FIFO or device is refused without waiting for it.

    Attributes:
        path: as given; names the file in errors.
        size: of the file, in bytes.
    """

    def __init__(self, path: Place, start: int = 0, end: int | None = None, *, hashed: bool = True) -> None:
        self.path = str(path)
        try:
            self._file, self.size = _open(path)
        except FileNotFoundError as error:
            raise CallError(f"{path}: there is no such file.") from error
        except OSError as error:
            raise DataError(
                f"the file cannot be opened: {error.strerror}.",
                Location(str(path)),
                "Put a TFRecord file here." if error.errno == errno.EINVAL else None,  # it is something else
            ) from error
        self._left = (self.size if end is None else end) - start
        self._hashed = hashed
        self._digest = Sha256Beside()
        if start:
            self._file.seek(start)

    def read(self, size: int = -1, /) -> bytes:
        """The next ``size`` bytes or fewer; none at the end of the range."""
        buffer = memoryview(bytearray(self._left if size < 0 else min(size, self._left)))
        return bytes(buffer[: self.readinto(buffer)])

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read the next bytes into a buffer, which is hashed later and must not change; none at the end of the range.

        Raises:
            DataError: the file cannot be read.
        """
        view = memoryview(buffer)[: self._left]
        try:
            count = self._file.readinto(view)  # type: ignore[attr-defined]  # all that _open opens have it
        except OSError as error:
            raise DataError(f"the file cannot be read: {error.strerror}.", Location(self.path)) from error
        if not count and self._left:
            raise DataError(
                f"the file shrank while it was read: {self._left} bytes are gone.", Location(self.path)
            )
        self._left -= count
        if self._hashed:
            self._digest.update(view[:count])
        return int(count)

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

    def readable(self) -> bool:
        """True."""
        return True

    def __exit__(self, *_error: object) -> None:
        self._digest.close()
        self._file.close()


def _open(path: Place) -> tuple[IO[bytes], int]:
    """A file, opened for reading, and its size."""
    if isinstance(path, ObjectPath):
        opened = open_object(path)
        return opened, opened.seek(0, os.SEEK_END) - opened.seek(0)
    file = open(open_regular(path), "rb", buffering=0)  # noqa: PTH123, SIM115  # a descriptor; closed by __exit__
    return file, os.fstat(file.fileno()).st_size


def compression_of(head: bytes) -> Compression:
    """How a file that begins so is compressed."""
    if is_header(head):
        return "none"
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    # RFC 1950: method 8, window up to 32 KiB, and the two bytes are a multiple of 31. A damaged length may be so;
    # yet its upper half is zero, and deflated bytes are not at this place.
    zlib_header = len(head) > 1 and head[0] & 0x8F == 0x08 and int.from_bytes(head[:2], "big") % 31 == 0
    if zlib_header and head[4:8] != bytes(4):
        return "zlib"
    return "none"


class DecompressedStream(io.RawIOBase):
    """The decompressed bytes of a GZIP or ZLIB stream.

    Args:
        source: the stored bytes.
        compression: how they are compressed.
        path: names the file in errors.
        until_damage: where the stream is damaged, end there, with all that inflates before.

    Attributes:
        damage: with ``until_damage``, at the end: offset of the first stored byte that does not inflate, and why; None
            where all do. Of a member of which nothing inflates, that is its first byte.

    Raises:
        DataError: on reading, when the stream is damaged, cut short, or followed by anything but a further member.
    """

    def __init__(
        self, source: ByteStream, compression: Compression, path: str, *, until_damage: bool = False
    ) -> None:
        self.damage: tuple[int, str] | None = None
        self._source = source
        self._compression = compression
        self._path = path
        self._until_damage = until_damage
        self._pieces = self._inflated()
        self._rest = memoryview(b"")  # inflated, and not yet read

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer with decompressed bytes; there are fewer at the end, and then none."""
        room = memoryview(buffer)
        while room:
            if not self._rest:
                self._rest = memoryview(next(self._pieces, b""))
                if not self._rest:
                    break
            count = min(len(room), len(self._rest))
            room[:count], room = self._rest[:count], room[count:]
            self._rest = self._rest[count:]
        return len(memoryview(buffer)) - len(room)

    def _inflated(self) -> Iterator[bytes]:
        """The decompressed bytes, member by member."""
        inflate = zlib.decompressobj(WINDOW_BITS[self._compression])
        stored = produced = 0  # bytes that went in, and that came out
        member_stored = member_produced = 0  # of these, before the member
        reason: str | None = None
        while reason is None and (piece := self._source.read(_PIECE_BYTES)):
            while piece and reason is None:
                if inflate.eof:
                    if self._compression == "zlib":
                        reason = "something follows its end"
                        break
                    member_stored, member_produced = stored, produced
                    inflate = zlib.decompressobj(WINDOW_BITS[self._compression])
                data, taken, reason = self._decompress(inflate, piece)
                stored += taken
                produced += len(data)
                if data:
                    yield data
                piece = piece[taken:]
        if reason and member_stored and stored - member_stored < len(_GZIP_MAGIC):
            reason = "something other than a further member follows its end"
        if reason is None and not inflate.eof:
            reason = "it is cut short: its end marker or trailer is missing"
        if reason is not None:
            reason = f"the {self._compression} stream is damaged: {reason}."
            if not self._until_damage:
                raise DataError(
                    reason,
                    Location(self._path, offset=produced),
                    "Offsets count decompressed bytes. Copy the file again from where you got it.",
                )
            self.damage = stored if produced > member_produced else member_stored, reason

    def _decompress(self, inflate: zlib._Decompress, stored: bytes) -> tuple[bytes, int, str | None]:
        """What stored bytes inflate to, how many the member takes, and why the next one is damaged, if it is."""
        before = inflate.copy() if self._until_damage else None
        try:
            data = inflate.decompress(stored)
            return data, len(stored) - len(inflate.unused_data), None
        except zlib.error as error:
            reason = str(error)
        # Again, byte by byte: all that inflates is kept, and the damage gets its exact place.
        pieces: list[bytes] = []
        if before is not None:
            with suppress(zlib.error):
                for place in range(len(stored)):
                    pieces.append(before.decompress(stored[place : place + 1]))
        return b"".join(pieces), len(pieces), reason
