"""Runs shard tasks on this machine: in this process, or in several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from converters.errors import CallError, MachineError
from converters.shards import Shard, ShardResult


class LocalEngine:
    """One worker runs the tasks in this process; any more are processes beside it."""

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise CallError(f"at least one worker is needed, not {workers}.")
        self._workers = workers

    def run(self, task: Callable[[Shard], ShardResult], shards: Sequence[Shard]) -> Iterator[ShardResult]:
        """See :class:`converters.engines.Engine`."""
        others = min(self._workers, len(shards)) - 1
        if others < 1:
            yield from map(task, shards)
            return
        # Not forked: the threads of pyarrow would not come along.
        context = multiprocessing.get_context("spawn")
        # Workers end when the pipe's other end closes: when we say so, or with this process, however that ends.
        alive, ours = context.Pipe(duplex=False)
        with alive, ours:
            pool = ProcessPoolExecutor(
                others, mp_context=context, initializer=_end_with_the_parent, initargs=(alive,)
            )
            # A thread for each process hands it one shard after the other; what no thread has taken yet can be
            # cancelled, and is done here. (The pool itself would give out shards ahead.)
            threads = ThreadPoolExecutor(others)
            try:
                # Ctrl-C reaches every process of the terminal; the parent decides what becomes of the workers.
                with _ignored_interrupts():
                    for _ in range(others):
                        pool.submit(os.getpid)  # starts a process
                yield from _share(task, shards, lambda shard: pool.submit(task, shard).result(), threads)
            except BrokenProcessPool as error:
                raise MachineError(
                    "a worker process died (out of memory, or killed). Try fewer --workers"
                ) from error
            except BaseException:
                ours.close()
                raise
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
                pool.shutdown(wait=True, cancel_futures=True)


def _share(
    here: Callable[[Shard], ShardResult],
    shards: Sequence[Shard],
    elsewhere: Callable[[Shard], ShardResult],
    threads: ThreadPoolExecutor,
) -> Iterator[ShardResult]:
    """The results of all shards, in order, where some are done ``here`` and others ``elsewhere`` by ``threads``."""
    # The largest begin first, so that none is left to one worker alone at the end.
    largest_first = sorted(shards, key=lambda shard: shard.source_bytes, reverse=True)
    futures = {shard: threads.submit(elsewhere, shard) for shard in largest_first}
    failed: list[Future[ShardResult]] = []
    for future in futures.values():
        future.add_done_callback(
            lambda done: None if done.cancelled() or not done.exception() else failed.append(done)
        )
    waiting = deque(shards)
    for shard in largest_first:
        if futures[shard].cancel():
            futures[shard] = Future()
            futures[shard].set_result(here(shard))
        # An error is raised, and results are passed on, as soon as this process looks up from its own work.
        if failed:
            failed[0].result()
        while waiting and futures[waiting[0]].done():
            yield futures[waiting.popleft()].result()
    for shard in waiting:
        yield futures[shard].result()


@contextmanager
def _ignored_interrupts() -> Iterator[None]:
    """Start processes that ignore Ctrl-C: what is ignored here when they start is ignored there."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change how signals are handled
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _end_with_the_parent(alive: Connection) -> None:
    """Have this worker end as soon as nothing holds the other end of a pipe any more."""
    threading.Thread(target=_wait_and_end, args=(alive,), daemon=True).start()


def _wait_and_end(alive: Connection) -> None:
    with suppress(EOFError, OSError):
        alive.recv_bytes()
    os._exit(1)
