"""Has the system write files and folders through to the disk, so that a power cut does not take them back."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from converters.storage.tree import walk_files

_MANY_FILES = 1000
# What file systems say that cannot do this: FUSE, network and read-only ones among them.
_CANNOT_SYNC = (errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.EACCES, errno.ENOTSUP, errno.EROFS)


def sync_tree(folder: Path) -> None:
    """Have the system write all files below a folder to disk, and then the folders.

    Many files are written by one barrier where the platform has it: an fsync for each of 70,000 takes minutes.
    """
    many = next(islice(walk_files(folder), _MANY_FILES, None), None) is not None
    if many and _sync_file_system(folder):
        return
    sync_files(folder, walk_files(folder))
    for root, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(root))


def sync_files(folder: Path, paths: Iterable[str]) -> None:
    """Have the system write files of a folder to disk, where it can."""
    for path in paths:
        _fsync(os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))


def _sync_file_system(folder: Path) -> bool:
    """Linux's syncfs(2), which Python does not wrap; False where there is none."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if function(descriptor) != 0:
            number = ctypes.get_errno()
            if number in _CANNOT_SYNC:
                return False
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
    return True


def sync_folder(folder: Path) -> None:
    """Have the system write a folder's entries to disk, where it can."""
    _fsync(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _fsync(descriptor: int) -> None:
    """Have the system write what is open to disk, where it can, and close it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)
