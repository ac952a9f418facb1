"""An output in an object store: the shards are stored where they stay, and the manifest, stored last, is the commit.

There is no rename in a store. So the destination is complete if, and only if, it has a manifest; until then
``<destination>.incomplete/`` beside it holds a lock, what describes the run, and the result of every shard that is
stored and was read back. The lock is an object that only one run can make; whoever holds it alone stores and deletes,
and objects that no result names are swept by the next run. A lock stays behind a run that was killed. It is taken from
a dead process of this machine; of another machine nobody can tell, so a person must delete it.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from converters.dataset.manifest import MANIFEST, SUMS
from converters.dataset.plan import Plan
from converters.dataset.shard import Shard, ShardResult
from converters.dataset.source import Source
from converters.errors import CallError, ConverterError, MachineError
from converters.staging.checkpoint import (
    KEPT_AFTER,
    RESULT,
    RUN,
    claim,
    kept_sentence,
    read_json,
    result_from_json,
    result_text,
)
from converters.storage.file_list import OutputFile
from converters.storage.files import staging_place
from converters.storage.object_store import (
    SCRATCH,
    ObjectPath,
    Place,
    delete_object,
    hash_object,
    list_objects,
    put_bytes,
    put_file,
    put_new,
    side_by_side,
)
from converters.storage.tree import hash_file, join_files, walk_empty_folders, walk_files

_RESULTS, _PARTS = "results", "parts"
_LOCK = "lock.json"
_HUB = "hf://"


@dataclass(frozen=True)
class ObjectWorkspace:
    """A task writes to a folder of its own machine, and stores what it has read back there.

    Attributes:
        destination: where the files go.
        results: where the results go.
    """

    destination: ObjectPath
    results: ObjectPath

    @contextmanager
    def attempt(self) -> Iterator[Path]:
        """See :class:`~converters.staging.scratch.Workspace`: a folder of the system's for temporary files."""
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder:
            yield Path(folder)

    def settle(self, folder: Path) -> None:
        """See :class:`~converters.staging.scratch.Workspace`: the store keeps what it has taken."""

    def deliver(self, result: ShardResult) -> None:
        """See :class:`~converters.staging.scratch.Workspace`."""
        if empty := next(walk_empty_folders(result.folder), None):
            raise CallError(
                f"{self.destination}: {empty}/ is a folder without a file, which a store does not keep. Whoever copies "
                "the output from there would miss it, and ImageFolder would number the classes otherwise. Choose a "
                "folder of this machine, or leave --class-folders out."
            )
        store_files(result.folder, self.destination, result.files)
        put_bytes("".join(result_text(result)).encode(), self.results / f"{result.shard.key}{RESULT}")


def store_files(folder: Path, destination: ObjectPath, files: Sequence[OutputFile]) -> None:
    """Store files, and read each back: it must be what it was on this machine.

    Raises:
        MachineError: the store failed, or gives back something else.
    """

    def store(file: OutputFile) -> None:
        put_file(folder / file.path, destination / file.path)
        if not _holds(destination, file):
            raise MachineError(
                f"{destination / file.path}: the store gives back other bytes than were stored (expected SHA-256 "
                f"{file.sha256})"
            )

    side_by_side(store, files)


def _holds(destination: ObjectPath, file: OutputFile) -> bool:
    try:
        return hash_object(destination / file.path) == (file.size, file.sha256)
    except FileNotFoundError:
        return False


class ObjectStaging:
    """See :class:`~converters.staging.folder.FolderStaging`, and the module's text for how a store differs from a disk.

    Args:
        destination: where the output will be.
        overwrite: refused: without a rename, the old output would be gone before the new one is there.
        repair: whether the output is there and is mended.

    Attributes:
        place: what is beside the destination until that is complete.
    """

    def __init__(self, destination: ObjectPath, *, overwrite: bool, repair: bool) -> None:
        if destination.url.startswith(_HUB):
            raise CallError(
                f"{destination}: an output goes to the Hub with `kfer-convert push`, which keeps it private and gated."
            )
        if overwrite:
            raise CallError(
                f"{destination}: a store has no rename, so an output in it cannot be replaced by a proven one at once. "
                "Choose another --out, or delete the old output first."
            )
        self.destination = destination
        self.place = staging_place(destination)
        self.published = False
        self.scratch = self.place / _PARTS
        self._results = self.place / _RESULTS
        self._repair = repair
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._claimed: object | None = None
        self._parts: list[ObjectPath] = []
        self._begun = False
        self._holder = {"host": socket.gethostname(), "process": os.getpid(), "run": uuid.uuid4().hex}

    @property
    def output(self) -> Path:
        """A folder of this machine for all that is no shard's."""
        if self._scratch is None:
            raise ValueError("the staging was not entered")
        return Path(self._scratch.name)

    def __enter__(self) -> Self:
        self._refuse_foreign()
        self._refuse_taken()
        try:
            self._acquire()
            self._refuse_taken()
        except BaseException:
            with suppress(ConverterError):  # what led here matters more
                self._release()
            raise
        self._scratch = tempfile.TemporaryDirectory(prefix=SCRATCH)
        return self

    def _refuse_taken(self) -> None:
        """Refuse a destination that is complete, or has what no run of ours left there."""
        there = {} if self._repair else list_objects(self.destination)
        if MANIFEST in there:
            raise CallError(
                f"{self.destination}: exists already. Choose another --out, or mend what is damaged of it with "
                "--repair."
            )
        if there and self._run() is None:
            raise CallError(
                f"{self.destination}: {next(iter(there))!r} is there, no {MANIFEST}, and no run of kfer-convert that "
                "was interrupted. Choose another --out."
            )

    def _refuse_foreign(self) -> None:
        staged = list_objects(self.place)
        ours = RUN in staged or _LOCK in staged
        if foreign := sorted(path for path in staged if not ours or not _is_ours(path)):
            raise CallError(
                f"{self.place / foreign[0]}: this is no object of kfer-convert, which needs {self.place}/ for itself. "
                "Move it away, or choose another --out."
            )

    def _acquire(self) -> None:
        """Take the lock.

        Raises:
            CallError: another run holds it, or may hold it.
        """
        lock = self.place / _LOCK
        mine = json.dumps(self._holder).encode()
        holder: object = None
        for _ in range(2):
            if put_new(mine, lock):
                return
            holder = read_json(lock)
            if _is_dead(holder):
                delete_object(lock)
        who = (
            f"process {holder.get('process')} on {holder.get('host')}"
            if isinstance(holder, dict)
            else "another run"
        )
        raise CallError(
            f"{self.destination}: another run is writing this output ({who}). Wait for it; if it is dead, delete "
            f"{lock} and repeat this run."
        )

    def _release(self) -> None:
        if read_json(self.place / _LOCK) == self._holder:
            delete_object(self.place / _LOCK)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()
        keep = isinstance(error, KEPT_AFTER)
        if read_json(self.place / _LOCK) != self._holder:
            return  # somebody took it for dead: what is there is not ours any more
        if self.published or (self._begun and not keep):
            there = [] if self.published else list_objects(self.destination)
            if MANIFEST not in there:
                side_by_side(delete_object, [self.destination / path for path in there])
            self._clear()
        side_by_side(delete_object, self._objects(self.scratch))
        self._release()

    def claim(self, run: Mapping[str, Any]) -> None:
        """See :class:`FolderStaging`."""
        remove = f"delete {self.place}/ and {self.destination}/ in the store"
        self._claimed = claim(self.place, run, finished=bool(list_objects(self._results)), remove=remove)
        self._begun = True

    def finished(self, plan: Plan) -> dict[str, Place]:
        """See :class:`FolderStaging`. What no finished shard names is swept from the destination."""

        def intact(name: str) -> tuple[str, ObjectPath, set[str]] | None:
            place = self._results / name
            result = result_from_json(read_json(place), plan.find, Path())
            if result is None or not all(_holds(self.destination, file) for file in result.files):
                return None
            return result.shard.key, place, {file.path for file in result.files}

        there = list_objects(self.destination)
        self._still_ours(there)
        names = list(list_objects(self._results))
        found = dict(zip(names, side_by_side(intact, names), strict=True))
        side_by_side(delete_object, [self._results / name for name, known in found.items() if known is None])
        kept = [known for known in found.values() if known is not None]
        named = set().union(*(files for _, _, files in kept))
        side_by_side(delete_object, [self.destination / path for path in there if path not in named])
        return {key: place for key, place, _ in kept}

    def load(self, place: Place, shard: Shard) -> ShardResult | None:
        """See :class:`FolderStaging`."""
        return result_from_json(read_json(place), {shard.key: shard}.get, Path())

    def require_space(self, source: Source) -> None:
        """See :class:`FolderStaging`; nobody knows how much a store has."""

    def describe_space(self, source: Source) -> str:
        """See :class:`FolderStaging`."""
        return (
            "Each worker needs room for the files of one shard (--max-shard-size) where temporary files are kept: "
            f"{tempfile.gettempdir()} (TMPDIR says where)"
        )

    def begin(self) -> None:
        """See :class:`FolderStaging`."""

    def workspace(self, *, durable: bool) -> ObjectWorkspace:
        """See :class:`FolderStaging`."""
        return ObjectWorkspace(self.destination, self._results)

    def collect(self, folder: Path) -> None:
        """See :class:`FolderStaging`: shards are where they stay."""

    def join(self, path: str, parts: Sequence[OutputFile]) -> OutputFile:
        """See :class:`FolderStaging`: the parts are read from the store."""
        self._parts += [self.destination / part.path for part in parts]
        return OutputFile(path, *join_files(self.destination, parts, self.output / path))

    def publish(self, files: Sequence[OutputFile]) -> None:
        """See :class:`FolderStaging`: all that is no shard's is stored, the manifest last."""
        manifest = [OutputFile(name, *hash_file(self.output / name)) for name in (SUMS, MANIFEST)]
        here = set(walk_files(self.output))
        store_files(self.output, self.destination, tuple(file for file in files if file.path in here))
        side_by_side(delete_object, self._parts)
        there = {path: state.size for path, state in list_objects(self.destination).items()}
        self._still_ours(there)
        expected = {file.path: file.size for file in files}
        if odd := sorted(path for path in there.keys() | expected if there.get(path) != expected.get(path)):
            raise MachineError(
                f"{self.destination / odd[0]}: it came, went or changed while this run stored the output. Is another "
                "run writing it?"
            )
        store_files(self.output, self.destination, manifest[:1])
        if not put_new((self.output / MANIFEST).read_bytes(), self.destination / MANIFEST):
            raise CallError(f"{self.destination}: another run has published this output meanwhile.")
        self.published = True
        if not _holds(self.destination, manifest[1]):
            raise MachineError(
                f"{self.destination / MANIFEST}: the store gives back other bytes than were stored"
            )

    def kept(self) -> str:
        """See :class:`FolderStaging`."""
        return kept_sentence(0 if self.published else len(list_objects(self._results)), self.destination)

    def _still_ours(self, there: Collection[str]) -> None:
        if MANIFEST in there:
            raise CallError(f"{self.destination}: another run has published this output meanwhile.")
        if self._run() != self._claimed or read_json(self.place / _LOCK) != self._holder:
            raise MachineError(f"{self.place / RUN}: another run has begun to write this output")

    def _run(self) -> object | None:
        """What describes the run that left what is here; None where there was none."""
        stated = read_json(self.place / RUN)
        return (
            stated if isinstance(stated, dict) and stated.keys() >= {"version", "format", "source"} else None
        )

    def _objects(self, folder: ObjectPath) -> list[ObjectPath]:
        return [folder / path for path in list_objects(folder)]

    def _clear(self) -> None:
        """Remove what is beside the destination; what says that it is ours goes last."""
        side_by_side(delete_object, self._objects(self._results))
        delete_object(self.place / RUN)


def _is_ours(path: str) -> bool:
    named = path.startswith(f"{_RESULTS}/") and path.endswith(RESULT)
    return path in (RUN, _LOCK) or named or path.startswith(f"{_PARTS}/")


def _is_dead(holder: object) -> bool:
    """Whether a lock is that of a process of this machine which is no more."""
    match holder:
        case {"host": host, "process": int(process)} if host == socket.gethostname() and process > 0:
            try:
                os.kill(process, 0)
            except OSError as error:
                return isinstance(error, ProcessLookupError)
    return False
