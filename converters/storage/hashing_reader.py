"""Reads the files of an output back, each once: for its content, and for its digest where that is wanted."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256

from converters.storage.file_list import OutputFiles

ReadFile = Callable[[str], bytes]
"""Gives the content of a file by its path."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CHUNK = 1 << 16


def read_file(path: str) -> bytes:
    """The content of a file. No link is followed, and no FIFO is waited for.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, _READ)
    try:
        chunks = []
        while chunk := os.read(descriptor, _CHUNK):
            chunks.append(chunk)
    finally:
        os.close(descriptor)
    return b"".join(chunks)


class HashingReader:
    """Reads files below a folder and keeps, in ``files``, the size and the SHA-256 of what was read of each."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.files = OutputFiles()
        self._root = os.fspath(folder) + os.sep

    def read(self, path: str) -> bytes:
        """See :func:`read_file`."""
        data = read_file(path)
        if path.startswith(self._root):
            name = path[len(self._root) :].replace(os.sep, "/")
            self.files.add_digest(name, len(data), sha256(data).digest())
        return data
