"""Tar archives of small files, written and read fast: plain USTAR headers (POSIX.1-1988), alike but for name and size.

Time, owner and group are 0, the mode is 0644, and no names of users stand in them. Python's tarfile writes the same
bytes for the same headers, ten times as slowly.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import IO

from converters.errors import DataError, Location

BLOCK = 512
MAX_NAME_BYTES = 100
MAX_FILE_BYTES = (1 << 33) - 1  # eleven octal digits

_RECORD = 20 * BLOCK  # an archive's size is a multiple of it
_BEFORE_SIZE = b"0000644\0" + 2 * b"0000000\0"
_BEFORE_CHECKSUM = 11 * b"0" + b"\0"
_TYPE = b"0"
_BEHIND_CHECKSUM = _TYPE + bytes(100) + b"ustar\x0000" + bytes(80)
_PADDING = bytes(BLOCK)
# The checksum is the sum of all bytes, with spaces in its own place.
_SUM = sum(_BEFORE_SIZE + _BEFORE_CHECKSUM + _BEHIND_CHECKSUM + 8 * b" ")


def header(name: bytes, size: int) -> bytes:
    """The header of a regular file.

    Raises:
        ValueError: the name or the file is longer than a header can say.
    """
    if not 0 < len(name) <= MAX_NAME_BYTES or size > MAX_FILE_BYTES:
        raise ValueError(f"no USTAR header can say {name!r} and {size} bytes")
    octal = b"%011o\0" % size
    checksum = b"%06o\0 " % (_SUM + sum(name) + sum(octal))
    return b"".join(
        (name.ljust(100, b"\0"), _BEFORE_SIZE, octal, _BEFORE_CHECKSUM, checksum, _BEHIND_CHECKSUM)
    ).ljust(BLOCK, b"\0")


class TarWriter:
    """Writes an archive to a file that is open for reading and writing, and empty."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0

    def add(self, name: bytes, data: bytes | memoryview) -> None:
        """Append a regular file."""
        length = len(data)
        for piece in (header(name, length), data, _PADDING[: -length % BLOCK]):
            self._file.write(piece)
        self.size += BLOCK + length + -length % BLOCK

    def rename(self, old: str, new: str) -> None:
        """Give all files whose names go on with ``old`` from the first dot on names that go on with ``new``."""
        place = 0
        while place < self.size:
            self._file.seek(place)
            name, length = _opened(self._file.read(BLOCK), Location(offset=place))
            stem = name.partition(".")[0]
            if name == stem + old:
                self._file.seek(place)
                self._file.write(header((stem + new).encode(), length))
            place += BLOCK + length + -length % BLOCK
        self._file.seek(self.size)

    def finish(self) -> None:
        """Write the end of the archive."""
        self._file.write(_end(self.size))


def _end(size: int) -> bytes:
    """What ends an archive that has so many bytes up to there."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % _RECORD)


def read_members(file: IO[bytes], path: str, size: int) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of an archive that was written with these headers.

    Args:
        file: the archive.
        path: names it in errors.
        size: of the archive in bytes; no file in it is taken to be longer.

    Raises:
        DataError: it holds something else, or is cut short.
    """
    offset = 0
    while (block := file.read(BLOCK)) != _PADDING:
        at = Location(path, offset=offset)
        name, length = _opened(block, at)
        if not offset and not _is_known(block, name, length):
            raise DataError("tar reads this header otherwise: a fault of kfer-convert.", at)
        if offset + BLOCK + length + -length % BLOCK > size:
            raise DataError(f"the archive ends inside {name}.", at)
        data = file.read(length)
        if file.read(-length % BLOCK) != _PADDING[: -length % BLOCK]:
            raise DataError(f"something stands between {name} and the next file of the archive.", at)
        yield name, data
        offset += BLOCK + length + -length % BLOCK
    end = block + file.read(_RECORD + 1)
    if end != _end(offset) or len(end) < 2 * tarfile.BLOCKSIZE or (offset + len(end)) % tarfile.RECORDSIZE:
        raise DataError("the archive does not end as it should.", Location(path, offset=offset))


def _is_known(block: bytes, name: str, length: int) -> bool:
    """Whether Python's tarfile finds the same file in a header."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except tarfile.HeaderError:
        return False
    return (info.name, info.size, info.isreg(), info.mode) == (name, length, True, 0o644)


def _opened(block: bytes, at: Location) -> tuple[str, int]:
    """Name and size of the file that a header is of."""
    try:
        name, length = block[:100].rstrip(b"\0"), int(block[124:135], 8)
        if block == header(name, length):
            return name.decode(), length
    except ValueError:
        pass
    raise DataError("expected the header of a file in the archive, as kfer-convert writes it.", at)
