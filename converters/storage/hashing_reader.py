"""Reads the files of an output back, each once: for its content, and for its digest where that is wanted."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from converters.storage.digests import Sha256Beside, sha256_each
from converters.storage.file_list import OutputFiles

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CHUNK = 1 << 16
_FILES_AT_ONCE = 2048
_BYTES_AT_ONCE = 8 << 20

_PIECE_BYTES = 1 << 20
_GAP_BYTES = 1 << 12  # a reader may pass over a few bytes, as over a magic number


class FileReader:
    """Reads files: what formats get at the files of an output through."""

    def read_images(self, folder: str, paths: Sequence[str], per_record: int = 1) -> Iterator[list[bytes]]:
        """The contents of files below a folder that are the images of records, those of many records at once.

        Those of a record follow each other, ``per_record`` many; no record's are read otherwise. No link is followed,
        and no FIFO is waited for.

        Raises:
            OSError: one cannot be read; its ``filename`` is the path.
        """
        # By the folder's descriptor, so that the system need not look up the whole path for each file.
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        contents: list[bytes] = []
        size = 0
        try:
            for number, path in enumerate(paths, start=1):
                data = _content(path, root)
                contents.append(data)
                size += len(data)
                if (len(contents) >= _FILES_AT_ONCE or size >= _BYTES_AT_ONCE) and number % per_record == 0:
                    yield contents
                    contents, size = [], 0
        finally:
            os.close(root)
        if contents:
            yield contents

    def open(self, path: str | os.PathLike[str]) -> AbstractContextManager[BinaryIO]:
        """A file of any size, open for reading from any place.

        Raises:
            OSError: it cannot be opened.
        """
        return open(path, "rb", buffering=0)  # noqa: PTH123  # the caller closes it

    def seen(self, path: str | os.PathLike[str], size: int, sha256: str) -> None:
        """Take note of what whoever read a file on its own found it to be."""


class HashingReader(FileReader):
    """Reads files below a folder and keeps, in ``files``, the size and the SHA-256 of what was read of each."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.files = OutputFiles()
        self._root = os.fspath(folder)
        self._images: deque[bytes] = deque()  # SHA-256 of those that nobody has asked for

    def read_images(self, folder: str, paths: Sequence[str], per_record: int = 1) -> Iterator[list[bytes]]:
        """See :meth:`FileReader.read_images`."""
        below = os.path.relpath(folder, self._root).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        names = iter(paths)
        for contents in super().read_images(folder, paths, per_record):
            read = [prefix + name for name in islice(names, len(contents))]
            digests = sha256_each(contents)
            self.files.extend_digests(read, list(map(len, contents)), digests)
            self._images.extend(digests)
            yield contents

    def image_digests(self, records: int, columns: Sequence[str]) -> dict[str, list[bytes]]:
        """The SHA-256 of the images of the next records, by their columns; nothing where they are no files."""
        if not self._images:
            return {}
        digests = [self._images.popleft() for _ in range(records * len(columns))]
        return {column: digests[place :: len(columns)] for place, column in enumerate(columns)}

    @contextmanager
    def open(self, path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
        """See :meth:`FileReader.open`; the digest is known when the file is closed, if nothing failed until then."""
        with _HashedFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as file:
            yield file  # type: ignore[misc]  # a raw file reads bytes like any binary one
            size, sha256 = file.finish()
        self.seen(path, size, sha256)

    def seen(self, path: str | os.PathLike[str], size: int, sha256: str) -> None:
        """See :meth:`FileReader.seen`. Of what is behind a link no note is taken."""
        if not Path(path).is_symlink():
            self.files.add(os.path.relpath(path, self._root).replace(os.sep, "/"), size, sha256)


def _content(path: str, folder: int) -> bytes:
    """All that is in a file below the folder that is open as ``folder``."""
    descriptor = os.open(path, _READ, dir_fd=folder)
    try:
        data = os.read(descriptor, _CHUNK)
        if rest := os.read(descriptor, _CHUNK):
            chunks = [data, rest]
            while rest := os.read(descriptor, _CHUNK):
                chunks.append(rest)
            data = b"".join(chunks)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)
    return data


class _HashedFile(io.RawIOBase):
    """An open file, by its descriptor, whose bytes are hashed as they are read, in a thread beside.

    Its content is hashed from the first byte to the last. What is read ahead of that place waits for it; what nobody
    read is read at the end.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(self._descriptor).st_size
        self._place = 0
        self._hashed = 0  # all bytes before this one are, or are about to be
        self._ahead: dict[int, bytes] = {}
        self._digest = Sha256Beside()

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, ``size`` many or fewer."""
        gap = self._place - self._hashed
        if not 0 < gap <= _GAP_BYTES:
            gap = 0
        start = self._place - gap
        data = os.pread(self._descriptor, gap + (self._size if size < 0 else size), start)
        if len(data) > gap:
            self._ahead[start] = data
            self._hash_what_follows()
        self._place = max(self._place, start + len(data))
        return data[gap:]

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """As :meth:`read`, into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a byte."""
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def tell(self) -> int:
        """The next byte to be read."""
        return self._place

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def finish(self) -> tuple[int, str]:
        """Size and SHA-256 of the whole file."""
        while self._hashed < self._size:
            self.seek(self._hashed)
            following = min((start for start in self._ahead if start > self._hashed), default=self._size)
            if not self.read(min(_PIECE_BYTES, following - self._hashed)):
                break
        return self._hashed, self._digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._digest.close()
            os.close(self._descriptor)
        super().close()

    def _hash_what_follows(self) -> None:
        """Hash what was read and follows what was hashed."""
        while (start := next((start for start in self._ahead if start <= self._hashed), None)) is not None:
            data = memoryview(self._ahead.pop(start))[self._hashed - start :]
            if data:
                self._digest.update(data)
                self._hashed += len(data)
