"""The staging folder of an output on this machine, and the one rename that publishes it."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from converters.dataset.manifest import MANIFEST, SUMS, manifest_document
from converters.dataset.plan import Plan
from converters.dataset.shard import Shard, ShardResult
from converters.dataset.source import Source
from converters.errors import CallError, ConverterError
from converters.staging.checkpoint import (
    KEPT_AFTER,
    RUN,
    claim,
    finished_folders,
    finished_shards,
    kept_sentence,
    load_result,
    remove_unfinished,
)
from converters.staging.disk_space import DISK_ERRORS, describe_space, require_space
from converters.staging.fsync import sync_folder, sync_tree
from converters.staging.scratch import SharedFolder
from converters.storage.file_list import OutputFile
from converters.storage.files import staging_place
from converters.storage.object_store import Place
from converters.storage.tree import count_files, join_files, walk_files

_LOCK = "lock"
_OUTPUT, _SHARDS, _REPLACED, _GARBAGE = "output", "shards", "replaced", "garbage"
_FOLDERS = (_OUTPUT, _SHARDS, _REPLACED, _GARBAGE)
_FILES = (_LOCK, RUN, f"{RUN}.new")
_MARK = b"kfer-convert staging\n"  # what the lock file holds


class FolderStaging:
    """Where an output grows until it is published, and what interrupted runs left there.

    It is the folder ``<destination>.incomplete`` while this process holds its lock. Only what this class itself names
    is ever removed from it, and a folder that it did not make is refused.

    A context manager: entered, nobody else's run grows the same output. When the environment ends a run (Ctrl-C, a
    full disk, a worker that was killed), its finished shards stay for the next run; when the data does, nothing stays.

    Args:
        destination: where the output will be.
        overwrite: whether an output that is there is replaced.

    Attributes:
        destination: where the output will be.
        published: whether it is there, complete.
        output: the folder for all that is no shard's, and for the shards too, once they are collected.
        scratch: a place for what a repair needs for a while; it is gone when the staging is left.
        folder: the staging folder.
        shards: the folder that holds the attempts, each a folder of its own.
    """

    def __init__(self, destination: Path, *, overwrite: bool = False) -> None:
        self.destination = _in_its_real_folder(destination)
        self.folder = staging_place(self.destination)
        self.output = self.scratch = self.folder / _OUTPUT
        self.shards = self.folder / _SHARDS
        self.published = False
        self._replaced = self.folder / _REPLACED
        self._parts: list[Path] = []
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
        self._leave(keep=isinstance(error, KEPT_AFTER))

    def claim(self, run: Mapping[str, Any]) -> None:
        """Make what is here this run's (see :func:`converters.staging.checkpoint.describe_run`).

        Raises:
            CallError: it holds finished shards of another run.
        """
        remove = f"rm -r {shlex.quote(str(self.folder))}"
        claim(self.folder, run, finished=bool(finished_folders(self.shards)), remove=remove)

    def finished(self, plan: Plan) -> dict[str, Path]:
        """The shards that earlier runs finished, verified again: by their keys, where :meth:`load` finds them."""
        return finished_shards(self.shards, self.output, plan)

    def load(self, place: Place, shard: Shard) -> ShardResult | None:
        """The result of a finished shard; None where it is gone."""
        return load_result(Path(str(place)), {shard.key: shard}.get)

    def require_space(self, source: Source) -> None:
        """Refuse to begin what cannot fit.

        Raises:
            MachineError: there is far too little space.
        """
        require_space(self.destination, source, self._kept_bytes())

    def describe_space(self, source: Source) -> str:
        """How much space the output needs, and how much there is, as a sentence."""
        return describe_space(self.destination, source, self._kept_bytes())

    def workspace(self, *, durable: bool) -> SharedFolder:
        """Where tasks write; ``durable``: through to the disk at once, since other machines may do so."""
        return SharedFolder(self.shards, durable)

    def begin(self) -> None:
        """Make ready for a run; what an earlier one left of its output, besides finished shards, is removed.

        Before this, :meth:`finished` takes up shards.
        """
        self._clear(_OUTPUT)
        self.output.mkdir()
        self.shards.mkdir(exist_ok=True)

    def kept(self) -> str:
        """What of an interrupted run stays for the next one, as a sentence; empty where nothing does."""
        return kept_sentence(0 if self.published else len(finished_folders(self.shards)), self.folder)

    def _kept_bytes(self) -> int:
        """Size of the finished shards that are there."""
        folders = finished_folders(self.shards)
        return sum((folder / path).lstat().st_size for folder in folders for path in walk_files(folder))

    def collect(self, folder: Path) -> None:
        """Take the files of a shard's folder into the output: they are moved to places where none may be yet."""
        _move_into(folder, self.output)

    def join(self, path: str, parts: Sequence[OutputFile]) -> OutputFile:
        """Put one file in the place of files of shards: their bytes, one after the other.

        The parts are removed when the output is published, so that an interrupted run can be taken up until then.
        """
        self._parts += [self.output / part.path for part in parts]
        return OutputFile(path, *join_files(self.output, parts, self.output / path))

    def publish(self, files: Sequence[OutputFile]) -> None:
        """Make the output durable, and put it in its place by one rename.

        ``files`` are all of it but the manifest and its like.

        Raises:
            CallError: something came to be at the destination meanwhile.
        """
        sync_tree(self.output)
        for part in self._parts:
            part.unlink()
        for folder in {part.parent for part in self._parts}:
            sync_folder(folder)
        if (there := count_files(self.output)) != len(files) + len((MANIFEST, SUMS)):
            raise ConverterError(
                f"{self.output}: the manifest lists {len(files)} files, and {there} are there."
            )
        self._refuse_destination()
        try:
            if os.path.lexists(self.destination) and not _is_empty_folder(self.destination):
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
        sync_folder(self.destination.parent)

    def _restore(self) -> None:
        """Put the old output back where a run ended between the two renames."""
        if os.path.lexists(self._replaced) and not os.path.lexists(self.destination):
            self._replaced.rename(self.destination)

    def _leave(self, *, keep: bool) -> None:
        """Tidy up and let go of the lock; ``keep`` the finished shards, if there are any."""
        try:
            self._restore()
            if keep and not self.published and finished_folders(self.shards):
                remove_unfinished(self.shards)
                return
            self._clear(*_FOLDERS)
            for name in (RUN, f"{RUN}.new"):
                (self.folder / name).unlink(missing_ok=True)
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
                try:
                    shutil.rmtree(path)
                except OSError as error:
                    error.filename = str(path)  # or it names a file alone, and not where it is
                    raise

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
        if _is_mount(destination):
            raise CallError(
                f"{destination}: this is a mount point, onto which nothing can be renamed. Name a folder inside it, "
                f"such as {destination / 'output'}."
            )
        if _is_empty_folder(destination):
            return  # a rename takes its place
        if not self._overwrite:
            raise CallError(
                f"{destination}: exists already. Choose another --out, replace it with --overwrite, or mend what is "
                "damaged of it with --repair."
            )
        if foreign := _foreign(destination):
            raise CallError(
                f"{destination}: {foreign}, so nothing is replaced here. Move it away, or choose another --out."
            )


def _in_its_real_folder(destination: Path) -> Path:
    """The destination, absolute, with no link in the way to it: its own name may be one, which is refused later.

    ``link/../out`` lies where the system finds it, which is beside what the link leads to.
    """
    if destination.name in ("", ".."):
        return destination.resolve()
    return destination.parent.resolve() / destination.name


def _is_mount(path: Path) -> bool:
    """Whether something is mounted on a folder. A part of the same file system (bind) shows in Linux's list alone."""
    if path.is_mount():
        return True
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return False
    # The fifth field, in which blanks and backslashes are octal; see proc_pid_mountinfo(5).
    name = re.sub(rb"[ \t\n\\]", lambda found: b"\\%03o" % found[0][0], os.fsencode(path))
    return any(mount.split(b" ")[4] == name for mount in mounts)


def _is_empty_folder(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    with os.scandir(path) as entries:
        return next(entries, None) is None


def _foreign(destination: Path) -> str | None:
    """Why a folder is not, or not only, an output of this program; None if it is."""
    if destination.is_symlink():
        return "this is a link"
    try:
        document, _ = manifest_document(destination)
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
