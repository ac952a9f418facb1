"""Staging: where an output grows until it is published, beside its destination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from converters.errors import CallError, MachineError
from converters.storage.object_store import Place

if TYPE_CHECKING:
    from converters.dataset.plan import Plan
    from converters.dataset.shard import Shard, ShardResult
    from converters.dataset.source import Source
    from converters.staging.scratch import Workspace
    from converters.storage.file_list import OutputFile


class Staging(Protocol):
    """Where an output grows until it is published, and what interrupted runs left there.

    A context manager: entered, nobody else's run grows the same output. When the environment ends a run (Ctrl-C, a
    full disk, a worker that was killed), its finished shards stay for the next run; when the data does, nothing stays.

    Attributes:
        published: whether the destination is there, complete.
    """

    published: bool

    @property
    def destination(self) -> Place:
        """Where the output will be."""
        ...

    @property
    def output(self) -> Path:
        """The folder for all that is no shard's, and on this machine for the shards too, once they are collected."""
        ...

    @property
    def scratch(self) -> Place:
        """A place for what a repair needs for a while; it is gone when the staging is left."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def claim(self, run: Mapping[str, Any]) -> None:
        """Make what is here this run's (see :func:`converters.staging.checkpoint.describe_run`).

        Raises:
            CallError: it holds finished shards of another run.
        """
        ...

    def finished(self, plan: Plan) -> Mapping[str, Place]:
        """The shards that earlier runs finished, verified again: by their keys, where :meth:`load` finds them."""
        ...

    def load(self, place: Place, shard: Shard) -> ShardResult | None:
        """The result of a finished shard; None where it is gone."""
        ...

    def require_space(self, source: Source) -> None:
        """Refuse to begin what cannot fit.

        Raises:
            MachineError: there is far too little space.
        """
        ...

    def describe_space(self, source: Source) -> str:
        """How much space the output needs, and how much there is, as a sentence."""
        ...

    def begin(self) -> None:
        """Make ready for a run; what an earlier one left of its output, besides finished shards, is removed."""
        ...

    def workspace(self, *, durable: bool) -> Workspace:
        """Where tasks write; ``durable``: through to the disk at once, since other machines may do so."""
        ...

    def collect(self, folder: Path) -> None:
        """Take the files of a shard's folder into the output."""
        ...

    def join(self, path: str, parts: Sequence[OutputFile]) -> OutputFile:
        """Put one file in the place of files of shards: their bytes, one after the other.

        The parts are removed when the output is published, so that an interrupted run can be taken up until then.
        """
        ...

    def publish(self, files: Sequence[OutputFile]) -> None:
        """Make the output durable, and put it in its place. ``files`` are all of it but the manifest and its like.

        Raises:
            CallError: something came to be at the destination meanwhile.
        """
        ...

    def kept(self) -> str:
        """What of an interrupted run stays for the next one, as a sentence; empty where nothing does."""
        ...


KEPT_AFTER = (KeyboardInterrupt, OSError, MemoryError, MachineError, CallError)
"""What the environment ends a run with, after which finished shards stay."""


def kept_sentence(count: int, place: Place) -> str:
    """What :meth:`Staging.kept` says of so many finished shards that stay at a place."""
    if not count:
        return ""
    shards = "1 finished shard is" if count == 1 else f"{count} finished shards are"
    return f"{shards} kept in {place}, and the same command goes on from there."
