"""Staging: the incomplete sibling folder an output grows in, and the one rename that publishes it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import uuid
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from converters.errors import CallError, ConverterError, MachineError
from converters.manifest import MANIFEST, SUMS, read_manifest, walk_files
from converters.resume import RUN, finished_folders, remove_unfinished

_SUFFIX = ".incomplete"
_LOCK = "lock"
_OUTPUT, _SHARDS, _REPLACED, _GARBAGE = "output", "shards", "replaced", "garbage"
_FOLDERS = (_OUTPUT, _SHARDS, _REPLACED, _GARBAGE)
_FILES = (_LOCK, RUN, f"{RUN}.new")
_MARK = b"kfer-convert staging\n"  # what the lock file holds
_MANY_FILES = 1000
# What a full or failing disk says, of which the call is not to blame.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)


class Staging:
    """The folder ``<destination>.incomplete`` while this process holds its lock.

    Only what this class itself names is ever removed from it, and a folder that it did not make is refused. When
    the environment ends a run (Ctrl-C, a full disk, a worker that was killed), its finished shards stay for the
    next run; when the data does, nothing stays.

    Attributes:
        destination: where the output will be.
        folder: the staging folder.
        output: the folder that becomes the destination.
        shards: the folder that holds the attempts.
        attempt: the folder in it that holds a folder per shard of this run.
        published: whether the destination is there, complete.
    """

    def __init__(self, destination: Path, *, overwrite: bool = False) -> None:
        self.destination = Path(os.path.abspath(destination))  # noqa: PTH100  # resolve() would follow a link
        self.folder = staging_folder(self.destination)
        self.output = self.folder / _OUTPUT
        self.shards = self.folder / _SHARDS
        # A worker whose parent was killed may still write for a moment; not into the next run's shards.
        self.attempt = self.shards / uuid.uuid4().hex
        self.published = False
        self._replaced = self.folder / _REPLACED
        self._overwrite = overwrite
        self._lock = -1

    def __enter__(self) -> Self:
        self._refuse_destination()
        try:
            self.destination.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise
            raise CallError(
                f"{self.folder}: cannot be made: {error.strerror}. Choose another --out."
            ) from error
        try:
            self._restore()
            self._clear(_REPLACED, _GARBAGE)
            if not self.output.is_dir():
                # It was published; what is left was only being cleared away.
                self._clear(_SHARDS)
            self._refuse_destination()
        except BaseException:
            self._leave(keep=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(keep=isinstance(error, (KeyboardInterrupt, OSError, MachineError, CallError)))

    def begin(self) -> None:
        """Make the folders for a run; what an earlier one left of its output is removed.

        What it left of its shards is for :func:`converters.resume.finished_shards` to take up, before this.
        """
        self._clear(_OUTPUT)
        self.output.mkdir()
        self.attempt.mkdir(parents=True)

    def kept(self) -> str:
        """What of an interrupted run stays for the next one, as a sentence; empty where nothing does."""
        count = len(finished_folders(self.shards))
        if not count or self.published:
            return ""
        shards = "1 finished shard is" if count == 1 else f"{count} finished shards are"
        return f"{shards} kept in {self.folder}, and the same command goes on from there."

    def kept_bytes(self) -> int:
        """Size of the finished shards that are there."""
        folders = finished_folders(self.shards)
        return sum((folder / path).lstat().st_size for folder in folders for path in walk_files(folder))

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
        try:
            if os.path.lexists(self.destination):
                self.destination.rename(self._replaced)
            self.output.rename(self.destination)
        except BaseException:
            self._restore()
            raise
        finally:
            # Whatever interrupted us: the output is where its rename left it.
            self.published = not os.path.lexists(self.output)
        if os.path.lexists(self._replaced):
            # From here on the old output is only to be deleted, and never to be put back half deleted.
            self._replaced.rename(self.folder / _GARBAGE)
        _sync_folder(self.destination.parent)

    def _restore(self) -> None:
        """Put the old output back where a run ended between the two renames."""
        if os.path.lexists(self._replaced) and not os.path.lexists(self.destination):
            self._replaced.rename(self.destination)

    def _leave(self, *, keep: bool) -> None:
        """Tidy up and let go of the lock; ``keep`` the finished shards, if there are any."""
        try:
            self._restore()
            finished = finished_folders(self.shards) if keep and not self.published else []
            if finished:
                if self.attempt.is_dir():
                    remove_unfinished(
                        self.attempt, [path for path in finished if self.attempt in path.parents]
                    )
                return
            self._clear(*_FOLDERS)
            (self.folder / RUN).unlink(missing_ok=True)
            (self.folder / f"{RUN}.new").unlink(missing_ok=True)
            # The lock file goes last, while the lock is still held.
            (self.folder / _LOCK).unlink(missing_ok=True)
            self.folder.rmdir()
        except OSError:
            pass  # what is left is taken up by the next run; the error that led here matters more
        finally:
            os.close(self._lock)

    def _clear(self, *names: str) -> None:
        """Remove what earlier work left here, by the names that this class gives, and nothing else."""
        for name in names:
            path = self.folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)

    def _acquire(self) -> None:
        """Take the lock. It is the system's: it ends with the process, however that ends."""
        while True:
            try:
                self.folder.mkdir()
            except FileExistsError:
                self._refuse_foreign()
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
                os.pwrite(lock, _MARK, 0)
                self._lock = lock
                return
            os.close(lock)  # it was removed before we had it

    def _refuse_foreign(self) -> None:
        """A folder of this name that is not an earlier run's staging is somebody's data."""
        if not self.folder.is_symlink() and self.folder.is_dir():
            entries = list(os.scandir(self.folder))
            lock = self.folder / _LOCK
            ours = all(
                (entry.name in _FOLDERS and entry.is_dir(follow_symlinks=False))
                or (entry.name in _FILES and entry.is_file(follow_symlinks=False))
                for entry in entries
            )
            if ours and (not entries or (lock.is_file() and lock.read_bytes() in (b"", _MARK))):
                return
        raise CallError(
            f"{self.folder}: exists and is no staging folder of kfer-convert, which needs this name. Move it away, "
            "or choose another --out."
        )

    def _refuse_destination(self) -> None:
        destination = self.destination
        if not os.path.lexists(destination):
            return
        if not self._overwrite:
            raise CallError(
                f"{destination}: exists already. Choose another --out, or replace it with --overwrite."
            )
        if foreign := _foreign(destination):
            raise CallError(
                f"{destination}: {foreign}, so --overwrite does not replace it. Move it away, or choose another --out."
            )


def staging_folder(destination: Path) -> Path:
    """Where the output for ``destination`` grows."""
    return destination.with_name(destination.name + _SUFFIX)


def _foreign(destination: Path) -> str | None:
    """Why a folder is not, or not only, an output of this program; None if it is."""
    if destination.is_symlink():
        return "this is a link"
    try:
        document, _ = read_manifest(destination)
        listed = {str(file["path"]) for file in document["files"]} | {MANIFEST, SUMS}
        if "kfer-convert" not in document["written_by"]:
            return f"its {MANIFEST} is not kfer-convert's"
    except (ConverterError, KeyError, TypeError):
        return f"this is no output of kfer-convert (it has no {MANIFEST} that says so)"
    extra = sorted(set(walk_files(destination)) - listed)
    return f"{extra[0]} in it is no file of the output" if extra else None


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
    many = next(islice(walk_files(folder), _MANY_FILES, None), None) is not None
    if many and _sync_file_system(folder):
        return
    for path in walk_files(folder):
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
