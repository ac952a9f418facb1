"""Runs shard tasks on this machine: in this process, or in several."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from converters.dataset.shard import Progress, Shard, ShardResult, Task
from converters.engines import suitable_workers
from converters.errors import CallError, MachineError
from converters.storage.processes import safe_children

# So many shards are looked at together: within them the largest begins first, and no more results wait for an
# earlier one.
_WINDOW = 64
_POLL_SECONDS = 0.2

_NO_SEMAPHORES = (errno.EACCES, errno.ENOSYS, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOSPC)
_ENDED_BY_US = 1  # see _wait_and_end
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_Events = SimpleQueue[tuple[str, int]]


class LocalEngine:
    """One worker runs the tasks in this process; any more are processes beside it."""

    def __init__(self, workers: int | None = 1) -> None:
        if workers is not None and workers < 1:
            raise CallError(f"at least one worker is needed, not {workers}.")
        self._workers = workers

    def run(
        self, task: Task, shards: Sequence[Shard], progress: Progress | None = None
    ) -> Iterator[ShardResult]:
        """See :class:`converters.engines.Engine`."""
        workers = self._workers
        if workers is None:
            workers = suitable_workers(sum(shard.source_bytes for shard in shards))
        others = min(workers, len(shards)) - 1
        # A fork has all that this process has imported, but none of its threads.
        context = multiprocessing.get_context("fork" if _is_alone() else "spawn")
        events = _events(context) if others > 0 else None
        if events is None:
            for shard in shards:
                yield task(shard, progress)
            return
        # Workers end when the pipe's other end closes: when we say so, or with this process, however that ends.
        alive, ours = context.Pipe(duplex=False)
        with alive, ours:
            inherited = ours if context.get_start_method() == "fork" else None
            pool = ProcessPoolExecutor(
                others, mp_context=context, initializer=_begin_worker, initargs=(alive, inherited, events)
            )
            # A thread for each process hands it one shard after the other; what no thread has taken yet can be
            # cancelled, and is done here. (The pool itself would give out shards ahead.)
            threads = ThreadPoolExecutor(others)
            done = False
            try:
                with _undisturbed(), safe_children():
                    for _ in range(others):
                        pool.submit(os.getpid)  # starts a process
                yield from _Sharing(task, pool, threads, events, progress).run(shards)
                done = True
            except BrokenProcessPool as error:
                raise MachineError(_death(pool, error)) from error
            except BaseException:
                ours.close()
                raise
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
                # When all is done, the processes are idle and may end while this one goes on.
                pool.shutdown(wait=not done, cancel_futures=True)


def _is_alone() -> bool:
    """Whether no other thread runs in this process, which only Linux tells; that of jemalloc knows of forks."""
    try:
        names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    except OSError:
        return False
    return len(names) - names.count("jemalloc_bg_thd\n") == 1


def _events(context: BaseContext) -> _Events | None:
    """How workers tell of their progress; None where this process can have no workers."""
    if multiprocessing.current_process().daemon:
        return None  # it must not have children
    try:
        return context.SimpleQueue()
    except OSError as error:
        if error.errno not in _NO_SEMAPHORES:
            raise
        return None  # no writable /dev/shm, for one


def _death(pool: ProcessPoolExecutor, error: BrokenProcessPool) -> str:
    """What a worker died of, and what to do about it."""
    processes = list((pool._processes or {}).values())
    codes = sorted({code for process in processes if (code := process.exitcode) and code != _ENDED_BY_US})
    if names := " and ".join(signal.Signals(-code).name for code in codes if code < 0):
        memory = "; SIGKILL often means that memory ran out" if "SIGKILL" in names else ""
        return f"a worker process was ended by {names}{memory}. Try fewer --workers"
    if threading.current_thread() is threading.main_thread() and _main_is_unguarded():
        return (
            "the worker processes could not start: they import the main program again, so what it runs must stand "
            'below if __name__ == "__main__":'
        )
    status = f" (exit status {', '.join(map(str, codes))})" if codes else ""
    return (
        f"a worker process died while it started or worked{status}: {error}. Try --workers 1, which shows why"
    )


def _main_is_unguarded() -> bool:
    """Whether the main program is a script that has no guard, so that workers would run it again."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        return path is not None and "__main__" not in Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


@dataclass(frozen=True)
class _Sharing:
    """The work of a run, shared between this process and those of ``pool``.

    ``events`` is how the others tell of their progress. ``progress`` is only ever called in the thread that takes
    the results.
    """

    task: Task
    pool: ProcessPoolExecutor
    threads: ThreadPoolExecutor
    events: _Events
    progress: Progress | None
    failed: list[BaseException] = field(default_factory=list)

    def run(self, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        """The results of all shards, in order."""
        waiting: deque[Future[ShardResult]] = deque()
        taken: deque[tuple[Shard, Future[ShardResult]]] = deque()
        begun = 0
        while waiting or begun < len(shards):
            if begun < len(shards) and len(waiting) <= _WINDOW:
                window = shards[begun : begun + _WINDOW]
                begun += len(window)
                futures: dict[int, Future[ShardResult]] = {}
                # The largest begin first, so that none is left to one worker alone at the end.
                for number in sorted(range(len(window)), key=lambda number: -window[number].source_bytes):
                    futures[number] = self.threads.submit(self._elsewhere, window[number])
                    taken.append((window[number], futures[number]))
                waiting += [futures[number] for number in range(len(window))]
            elif taken:
                shard, future = taken.popleft()
                if future.cancel():
                    done: Future[ShardResult] = Future()
                    done.set_result(self.task(shard, self._here if self.progress else None))
                    waiting[waiting.index(future)] = done
            else:
                wait([waiting[0]], _POLL_SECONDS)
            yield from self._ready(waiting)

    def _elsewhere(self, shard: Shard) -> ShardResult:
        try:
            return self.pool.submit(_work, self.task, shard, self.progress is not None).result()
        except BaseException as error:
            self.failed.append(error)
            raise

    def _ready(self, waiting: deque[Future[ShardResult]]) -> Iterator[ShardResult]:
        """An error is raised, and results are passed on, as soon as this process looks up from its own work."""
        if self.failed:
            raise self.failed[0]
        self._pass_on()
        while waiting and waiting[0].done():
            yield waiting.popleft().result()

    def _here(self, stage: str, count: int) -> None:
        """The progress of this process; what the others have told meanwhile is passed on too."""
        self._pass_on()
        if self.progress is not None:
            self.progress(stage, count)

    def _pass_on(self) -> None:
        while not self.events.empty():
            event = self.events.get()
            if self.progress is not None:
                self.progress(*event)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Start processes while signals that end programs wait, until each process has said what they mean to it.

    What their handlers raise would be lost in the middle of a fork, and be raised in a worker that has them still.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_told: list[_Events] = []
"""In a worker: where it tells of its progress."""


def _begin_worker(alive: Connection, inherited: Connection | None, events: _Events) -> None:
    """Have this worker end as soon as nothing holds the other end of a pipe any more, which a fork inherits too."""
    if inherited is not None:
        inherited.close()
    # Ctrl-C reaches every process of the terminal; the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.SIG_DFL)  # what the parent does then is not for a worker to do
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    _told.append(events)
    threading.Thread(target=_wait_and_end, args=(alive,), daemon=True).start()


def _wait_and_end(alive: Connection) -> None:
    with suppress(EOFError, OSError):
        alive.recv_bytes()
    os._exit(1)


def _work(task: Task, shard: Shard, told: bool) -> ShardResult:
    """Runs a task in a worker."""
    return task(shard, (lambda stage, count: _told[0].put((stage, count))) if told else None)
