"""Reads the files of an output back, each once: for its content, and for its digest where that is wanted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from converters.storage.digests import sha256_each
from converters.storage.file_list import OutputFiles

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CHUNK = 1 << 16
_HASHED_FILES = 256
_HASHED_BYTES = 4 << 20


class FileReader:
    """Reads files: what formats get at the files of an output through."""

    def read(self, folder: str, paths: Sequence[str]) -> Iterator[bytes]:
        """The contents of files below a folder. No link is followed, and no FIFO is waited for.

        Raises:
            OSError: one cannot be read.
        """
        # By the folder's descriptor, so that the system need not look up the whole path for each file.
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for path in paths:
                descriptor = os.open(path, _READ, dir_fd=root)
                try:
                    data = os.read(descriptor, _CHUNK)
                    if rest := os.read(descriptor, _CHUNK):
                        chunks = [data, rest]
                        while rest := os.read(descriptor, _CHUNK):
                            chunks.append(rest)
                        data = b"".join(chunks)
                finally:
                    os.close(descriptor)
                yield data
        finally:
            os.close(root)


class HashingReader(FileReader):
    """Reads files below a folder and keeps, in ``files``, the size and the SHA-256 of what was read of each."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.files = OutputFiles()
        self._root = os.fspath(folder)

    def read(self, folder: str, paths: Sequence[str]) -> Iterator[bytes]:
        """See :meth:`FileReader.read`. Of files that are not all taken, the last ones may be missing in ``files``."""
        below = os.path.relpath(folder, self._root).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        names = iter(paths)
        read: list[bytes] = []
        size = 0
        for data in super().read(folder, paths):
            read.append(data)
            size += len(data)
            if len(read) == _HASHED_FILES or size >= _HASHED_BYTES:
                self._keep(prefix, islice(names, len(read)), read)
                read, size = [], 0
            yield data
        self._keep(prefix, names, read)

    def _keep(self, prefix: str, names: Iterable[str], read: Sequence[bytes]) -> None:
        """Hash many files at once, which is faster."""
        paths = [prefix + name for name in names]
        self.files.extend_digests(paths, list(map(len, read)), sha256_each(read))
