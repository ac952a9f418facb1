"""Runs shard tasks on this machine: in this process, or in several."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from converters.errors import CallError, ConverterError
from converters.shards import Shard, ShardResult


class LocalEngine:
    """One worker runs the tasks in this process; more run them in processes of their own."""

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise CallError(f"at least one worker is needed, not {workers}.")
        self._workers = workers

    def run(self, task: Callable[[Shard], ShardResult], shards: Sequence[Shard]) -> Iterator[ShardResult]:
        """See :class:`converters.engines.Engine`."""
        if self._workers == 1 or len(shards) == 1:
            yield from map(task, shards)
            return
        # Not forked: the threads of pyarrow would not come along.
        context = multiprocessing.get_context("spawn")
        workers = min(self._workers, len(shards))
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts) as pool:
            try:
                yield from pool.map(task, shards)
            except BrokenProcessPool as error:
                raise ConverterError(
                    "a worker process died (out of memory, or killed); nothing is lost."
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; the parent decides what becomes of the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
