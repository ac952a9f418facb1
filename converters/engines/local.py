"""Runs shard tasks on this machine: in this process, or in several."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from converters.dataset.shard import Progress, Shard, ShardResult, Task
from converters.engines import suitable_workers
from converters.errors import CallError, ConverterError, MachineError
from converters.storage.processes import safe_children

# So many shards are looked at together: within them the largest begins first. No more than twice as many results wait
# for an earlier one.
_WINDOW = 64
_POLL_SECONDS = 0.2
_END_SECONDS = 10  # in which a process that no longer answers has ended

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
        if others < 1 or multiprocessing.current_process().daemon:  # which must not have children
            for shard in shards:
                yield task(shard, progress)
            return
        sharing = _Sharing(task, shards, progress)
        processes: list[_Worker] = []
        try:
            with _undisturbed(), safe_children():
                # A fork has all that this process has imported, but none of its threads.
                context = multiprocessing.get_context("fork" if _is_alone() else "spawn")
                for _ in range(others):
                    processes.append(_started(context, task, told=progress is not None, earlier=processes))
            yield from sharing.run(processes)
        except BaseException:
            for worker in processes:
                worker.process.kill()
            raise
        finally:
            sharing.end()
            for worker in processes:
                worker.connection.close()  # at which an idle one ends, while this process may go on


def _is_alone() -> bool:
    """Whether no other thread runs in this process, which only Linux tells; that of jemalloc knows of forks."""
    try:
        names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    except OSError:
        return False
    return len(names) - names.count("jemalloc_bg_thd\n") == 1


class _Sharing:
    """The work of a run, shared between this process and others; each takes the next shard when it has done one.

    ``progress`` is only ever called in the thread that takes the results.
    """

    def __init__(self, task: Task, shards: Sequence[Shard], progress: Progress | None) -> None:
        self._task, self._shards, self._progress = task, shards, progress
        numbers = range(len(shards))
        # The largest begin first, so that none is left to one worker alone at the end.
        windows = [numbers[start : start + _WINDOW] for start in range(0, len(shards), _WINDOW)]
        self._left = deque(
            number for window in windows for number in sorted(window, key=lambda n: -shards[n].source_bytes)
        )
        self._results: dict[int, ShardResult] = {}
        self._failed: list[BaseException] = []
        self._passed_on = 0  # results
        self._told: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    def run(self, workers: Sequence[_Worker]) -> Iterator[ShardResult]:
        """The results of all shards, in order."""
        for worker in workers:
            self._threads.append(threading.Thread(target=self._serve, args=(worker,), daemon=True))
            self._threads[-1].start()
        while self._passed_on < len(self._shards):
            # An error is raised, and results are passed on, as soon as this process looks up from its own work.
            if self._failed:
                raise self._failed[0]
            self._pass_on()
            if self._passed_on in self._results:
                yield self._results.pop(self._passed_on)
                with self._changed:
                    self._passed_on += 1
                    self._changed.notify_all()
            elif (number := self._next()) is not None:
                self._results[number] = self._task(
                    self._shards[number], self._here if self._progress else None
                )
            else:
                with self._changed:
                    if self._passed_on not in self._results and not self._failed:
                        self._changed.wait(_POLL_SECONDS)
        self._pass_on()

    def end(self) -> None:
        """Have the threads end, whose processes have all done or were killed."""
        with self._changed:
            self._left.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self, worker: _Worker) -> None:
        """Give a worker one shard after the other."""
        try:
            while (number := self._next(wait=True)) is not None:
                result = worker.run(self._shards[number], self._told)
                with self._changed:
                    self._results[number] = result
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001  # raised where the results are taken
            with self._changed:
                self._failed.append(error)
                self._changed.notify_all()

    def _next(self, *, wait: bool = False) -> int | None:
        """The next shard to be done; None where there is none, or, unless ``wait``, none yet."""
        with self._changed:
            while self._left and self._left[0] >= self._passed_on + 2 * _WINDOW:
                if not wait:
                    return None
                self._changed.wait()
            return self._left.popleft() if self._left else None

    def _here(self, stage: str, count: int) -> None:
        """The progress of this process; what the others have told meanwhile is passed on too."""
        self._pass_on()
        if self._progress is not None:
            self._progress(stage, count)

    def _pass_on(self) -> None:
        while not self._told.empty():
            event = self._told.get()
            if self._progress is not None:
                self._progress(*event)


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


# --- A worker, from outside ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Worker:
    """A process that runs tasks, and the way to talk to it."""

    process: BaseProcess
    connection: Connection
    forked: bool

    def run(self, shard: Shard, told: queue.SimpleQueue[tuple[str, int]]) -> ShardResult:
        """Have a shard done; what is told of its progress goes to ``told``.

        Raises:
            MachineError: the worker died.
            BaseException: whatever the task raised.
        """
        try:
            self.connection.send(shard)
            while (answer := self.connection.recv())[0] not in (_DONE, _FAILED):
                told.put(answer)
        except (EOFError, ConnectionError) as error:
            raise MachineError(self._death()) from error
        if answer[0] == _FAILED:
            raise answer[1]
        result: ShardResult = answer[1]
        return result

    def _death(self) -> str:
        """What it died of, and what to do about it."""
        self.process.join(_END_SECONDS)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            memory = "; SIGKILL often means that memory ran out" if name == "SIGKILL" else ""
            return f"a worker process was ended by {name}{memory}. Try fewer --workers"
        if not self.forked and _main_is_unguarded():
            return (
                "the worker processes could not start: they import the main program again, so what it runs must stand "
                'below if __name__ == "__main__":'
            )
        died = f"a worker process died while it started or worked (exit status {code})"
        return f"{died}. Try --workers 1, which shows why"


def _started(context: Any, task: Task, *, told: bool, earlier: Sequence[_Worker]) -> _Worker:  # noqa: ANN401  # of either kind
    ours, its = context.Pipe()
    forked = context.get_start_method() == "fork"
    # A fork has our ends of all pipes too: while it held them, the others would not see this process end.
    inherited = [ours, *(worker.connection for worker in earlier)] if forked else []
    process = context.Process(target=_work, args=(task, its, inherited, told))
    process.start()
    its.close()
    return _Worker(process, ours, forked)


def _main_is_unguarded() -> bool:
    """Whether the main program is a script that has no guard, so that workers would run it again."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        return path is not None and "__main__" not in Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


# --- A worker, from inside -----------------------------------------------------------------------------

_DONE, _FAILED = "done", "failed"  # what is told of progress is called otherwise


def _work(task: Task, connection: Connection, inherited: Sequence[Connection], told: bool) -> None:
    """Do one shard after the other that comes through the connection, and end with whoever is at its other end."""
    for other in inherited:
        other.close()
    # Ctrl-C reaches every process of the terminal; the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.SIG_DFL)  # what the parent does then is not for a worker to do
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    shards: queue.SimpleQueue[Shard] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, shards), daemon=True).start()
    turn = threading.Lock()

    def tell(stage: str, count: int) -> None:
        with turn:
            connection.send((stage, count))

    while True:
        answer: tuple[str, object]
        try:
            answer = (_DONE, task(shards.get(), tell if told else None))
        except BaseException as error:  # noqa: BLE001  # raised again in the parent
            answer = (_FAILED, _portable(error))
        with suppress(ConnectionError), turn:  # this process ends with its parent
            connection.send(answer)


def _receive(connection: Connection, shards: queue.SimpleQueue[Shard]) -> None:
    try:
        while True:
            shards.put(connection.recv())
    except (EOFError, ConnectionError):
        os._exit(0)  # nobody wants what is being done
    finally:
        os._exit(1)


def _portable(error: BaseException) -> BaseException:
    """An error that another process can raise; one that is a fault says where it was."""
    if not isinstance(error, ConverterError | OSError | MemoryError):
        error.add_note("In a worker process:\n" + traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))  # our own
    except Exception:  # noqa: BLE001  # of somebody else's class
        return ConverterError(f"{type(error).__name__}: {error}")
    return error
