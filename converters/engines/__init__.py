"""Engines: where shard tasks run. Registered through the entry-point group ``kfer_convert.engines``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Protocol, cast

from converters.plugins import construct, load, registered

if TYPE_CHECKING:
    from converters.dataset.shard import Progress, Shard, ShardResult, Task

GROUP = "kfer_convert.engines"

# A process of one's own pays only from so many bytes of source on: it takes about half a second to start.
_BYTES_PER_WORKER = 32 << 20


class Engine(Protocol):
    """Runs a task for each shard.

    Constructed with ``workers``, the number of processes that may be used (None: as it sees fit), and with its own
    options, such as the address of a cluster.
    """

    def run(
        self, task: Task, shards: Sequence[Shard], progress: Progress | None = None
    ) -> Iterator[ShardResult]:
        """The results, in the order of the shards. The first error of a task is raised; later shards stop.

        ``task(shard, progress)`` converts a shard wherever it is called; it is picklable, and may be called again
        for a shard when the process or the machine it ran in has died. ``progress`` has to be called from here, as
        records pass or once a shard is done. No more results are held than a bounded number of shards.
        """
        ...


def suitable_workers(source_bytes: int) -> int:
    """How many processes to use for a source of that size: one per core at most, and one where little is to do."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, source_bytes // _BYTES_PER_WORKER))


def available_engines() -> dict[str, EntryPoint]:
    """The registered engines by name, sorted; none of them is imported."""
    return registered(GROUP)


def load_engine(name: str, workers: int | None, **options: object) -> Engine:
    """The engine called ``name``, with ``options`` for its constructor.

    Raises:
        CallError: no such engine is installed, it cannot be imported, or it does not take these options.
    """
    engine = load(GROUP, "engine", name)
    return cast("Engine", construct("engine", name, lambda **own: engine(workers=workers, **own), options))
