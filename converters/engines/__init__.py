"""Engines: where shard tasks run. Registered through the entry-point group ``kfer_convert.engines``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Protocol, cast

from converters.errors import CallError, ConverterError
from converters.plugins import registered

if TYPE_CHECKING:
    from converters.shards import Shard, ShardResult

GROUP = "kfer_convert.engines"


class Engine(Protocol):
    """Runs a task for each shard. Constructed with ``workers``, the number of processes that may be used."""

    def run(self, task: Callable[[Shard], ShardResult], shards: Sequence[Shard]) -> Iterator[ShardResult]:
        """The results, in the order of the shards. The first error of a task is raised; later shards stop."""
        ...


def available_engines() -> dict[str, EntryPoint]:
    """The registered engines by name, sorted; none of them is imported."""
    return registered(GROUP)


def load_engine(name: str, workers: int) -> Engine:
    """The engine called ``name``.

    Raises:
        CallError: no such engine is installed, or it cannot be imported.
    """
    entries = available_engines()
    if name not in entries:
        raise CallError(f"no engine {name!r} is installed; there are {', '.join(entries)}.")
    try:
        return cast("Engine", entries[name].load()(workers=workers))
    except ConverterError:
        raise
    except Exception as error:  # anything may be wrong with somebody else's module
        raise CallError(
            f"the engine {name!r} cannot be loaded: {type(error).__name__}: {error}. Is all it needs installed?"
        ) from error
