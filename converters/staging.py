"""Staging: the incomplete sibling folder an output grows in, and the one rename that publishes it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from converters.errors import CallError, ConverterError
from converters.manifest import MANIFEST, walk_files

_SUFFIX = ".incomplete"
_LOCK = "lock"
_MANY_FILES = 1000
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)


class Staging:
    """The folder ``<destination>.incomplete`` while this process holds its lock.

    Attributes:
        destination: where the output will be.
        output: the folder that becomes the destination.
        shards: the folder that holds a folder per shard.
    """

    def __init__(self, destination: Path, *, overwrite: bool = False) -> None:
        self.destination = Path(os.path.abspath(destination))  # noqa: PTH100  # resolve() would follow a link
        self.folder = self.destination.with_name(self.destination.name + _SUFFIX)
        self.output = self.folder / "output"
        self.shards = self.folder / "shards"
        self._replaced = self.folder / "replaced"
        self._overwrite = overwrite
        self._lock = -1

    def __enter__(self) -> Self:
        self._refuse_destination()
        try:
            self.destination.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except OSError as error:
            raise CallError(f"{self.folder}: cannot be made: {error.strerror}.") from error
        try:
            if os.path.lexists(self._replaced) and not os.path.lexists(self.destination):
                self._replaced.rename(self.destination)  # an earlier run was killed between two renames
            self._refuse_destination()
            self.clear()
            self.output.mkdir()
            self.shards.mkdir()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The lock file goes last, while the lock is still held.
        self.clear()
        (self.folder / _LOCK).unlink(missing_ok=True)
        self.folder.rmdir()
        os.close(self._lock)

    def collect(self, folder: Path) -> None:
        """Move the files of a shard's folder to their places in the output; none may be there yet."""
        _move_into(folder, self.output)

    def publish(self) -> None:
        """Make everything durable, then put the output in its place by one rename.

        Raises:
            CallError: something came to be at the destination meanwhile.
        """
        _sync_tree(self.output)
        self._refuse_destination()
        if os.path.lexists(self.destination):
            self.destination.rename(self._replaced)
            try:
                self.output.rename(self.destination)
            except OSError:
                self._replaced.rename(self.destination)
                raise
        else:
            self.output.rename(self.destination)
        _sync_folder(self.destination.parent)

    def clear(self) -> None:
        """Remove all that is in the staging folder but the lock."""
        for entry in list(os.scandir(self.folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.name != _LOCK:
                os.unlink(entry.path)  # noqa: PTH108  # an os.DirEntry

    def _acquire(self) -> None:
        """Take the lock. It is the system's: it ends with the process, however that ends."""
        while True:
            self.folder.mkdir(exist_ok=True)
            if self.folder.is_symlink():
                raise CallError(f"{self.folder}: this is a link. Remove it.")
            path = self.folder / _LOCK
            try:
                lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                continue  # another run has just ended
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise CallError(f"{self.destination}: another run is writing this output.") from None
            if _same_file(lock, path):
                self._lock = lock
                return
            os.close(lock)  # it was removed before we had it

    def _refuse_destination(self) -> None:
        destination = self.destination
        if not os.path.lexists(destination):
            return
        if not self._overwrite:
            raise CallError(
                f"{destination}: exists already. Choose another --out, or replace it with --overwrite."
            )
        if destination.is_symlink() or not (destination / MANIFEST).is_file():
            raise CallError(
                f"{destination}: this is no output of kfer-convert (it has no {MANIFEST}), so --overwrite does not "
                "replace it. Remove it yourself, or choose another --out."
            )


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _move_into(source: Path, target: Path) -> None:
    for entry in list(os.scandir(source)):
        place = target / entry.name
        if entry.is_dir(follow_symlinks=False) and place.is_dir():
            _move_into(Path(entry.path), place)
        elif os.path.lexists(place):
            raise ConverterError(f"two shards wrote the same file: {place.name}.")
        else:
            Path(entry.path).rename(place)


def _sync_tree(folder: Path) -> None:
    """Have the system write all files below a folder to disk, and then the folders.

    Many files are written by one barrier where the platform has it: an fsync for each of 70,000 takes minutes.
    """
    paths = list(walk_files(folder))
    if len(paths) > _MANY_FILES and _sync_file_system(folder):
        return
    for path in paths:
        descriptor = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for root, _, _ in os.walk(folder, topdown=False):
        _sync_folder(Path(root))


def _sync_file_system(folder: Path) -> bool:
    """Linux's syncfs(2), which Python does not wrap; False where there is none."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if function(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:  # some file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)
