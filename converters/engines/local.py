"""Runs shard tasks on this machine: in this process, or in several."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from weakref import WeakKeyDictionary

from converters.dataset.shard import Progress, Shard, ShardResult, Task
from converters.engines import suitable_workers
from converters.errors import CallError, ConverterError, MachineError
from converters.storage.processes import safe_children

# So many shards are looked at together: within them the largest begins first, and no more than twice as many results
# wait for an earlier one.
_WINDOW = 64
_POLL_SECONDS = 0.2
_LOOKS = 5  # for threads that are about to be gone
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
        done = False
        try:
            with _undisturbed(), safe_children(), warnings.catch_warnings():
                # Lance warns of threads, of which there are none.
                warnings.filterwarnings("ignore", ".*fork")
                # A fork has all that this process has imported, but none of its threads.
                context = multiprocessing.get_context("fork" if _is_alone() else "spawn")
                for _ in range(others):
                    processes.append(_started(context, task, told=progress is not None, earlier=processes))
                sharing.begin(processes)
            yield from sharing.results()
            done = True
        finally:
            with _undisturbed():
                for worker in () if done else processes:
                    worker.process.kill()
                sharing.end()
                for worker in processes:
                    worker.connection.close()  # at which an idle one ends, while this process may go on


def _is_alone() -> bool:
    """Whether no other thread runs in this process, which only Linux tells; that of jemalloc knows of forks."""
    try:
        for _ in range(_LOOKS):
            names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
            if len(names) - names.count("jemalloc_bg_thd\n") == 1:
                return True
            if threading.active_count() > 1:
                break
            time.sleep(0.001)  # a thread that Python has seen end may be there for a moment
    except OSError:
        pass
    return False


class _Sharing:
    """The work of a run, shared between this process and others; each takes the next shard when it has done one.

    ``progress`` is only ever called in the thread that takes the results.
    """

    def __init__(self, task: Task, shards: Sequence[Shard], progress: Progress | None) -> None:
        self._task, self._shards, self._progress = task, shards, progress
        # Queues of this kind hold no lock while Python runs, so that a Ctrl-C never leaves one taken for ever.
        self._left: SimpleQueue[int | None] = SimpleQueue()
        self._heard: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._results: dict[int, ShardResult] = {}
        self._failed: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def begin(self, workers: Sequence[_Worker]) -> None:
        """Have a thread for each worker give it one shard after the other."""
        for worker in workers:
            thread = threading.Thread(target=self._serve, args=(worker,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def results(self) -> Iterator[ShardResult]:
        """The results of all shards, in order."""
        passed_on = begun = 0
        while passed_on < len(self._shards):
            if begun < len(self._shards) and begun - passed_on <= _WINDOW:
                window = range(begun, min(begun + _WINDOW, len(self._shards)))
                begun = window.stop
                # The largest begin first, so that none is left to one worker alone at the end.
                for each in sorted(window, key=lambda number: -self._shards[number].source_bytes):
                    self._left.put(each)
            # An error is raised, and results are passed on, as soon as this process looks up from its own work.
            self._listen()
            if self._failed is not None:
                raise self._failed
            if passed_on in self._results:
                yield self._results.pop(passed_on)
                passed_on += 1
            elif (number := self._next()) is not None:
                here = self._here if self._progress else None
                self._results[number] = self._task(self._shards[number], here)
            else:
                self._listen(_POLL_SECONDS)
        self._listen()

    def end(self) -> None:
        """Have the threads end, whose processes have done all or were killed."""
        while self._next() is not None:
            pass
        for _ in self._threads:
            self._left.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, worker: _Worker) -> None:
        try:
            for number in iter(self._left.get, None):
                result = worker.run(self._shards[number], self._heard)
                self._heard.put((_DONE, (number, result)))
        except BaseException as error:  # noqa: BLE001  # raised where the results are taken
            self._heard.put((_FAILED, error))

    def _next(self) -> int | None:
        """A shard that nobody has begun yet; None where there is none."""
        try:
            return self._left.get_nowait()
        except Empty:
            return None

    def _listen(self, seconds: float = 0) -> None:
        """Take in what the others have said, and wait so long for them to say anything."""
        with suppress(Empty):
            while True:
                kind, value = self._heard.get(timeout=seconds)
                seconds = 0
                if kind == _DONE:
                    number, self._results[number] = value
                elif kind == _FAILED:
                    self._failed = self._failed or value
                elif self._progress is not None:
                    self._progress(*value)

    def _here(self, stage: str, count: int) -> None:
        """The progress of this process; what the others have told meanwhile is passed on too."""
        self._listen()
        if self._progress is not None:
            self._progress(stage, count)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Start or end processes while signals that end programs wait.

    What their handlers raise would be lost in the middle of a fork, be raised in a worker that has not yet said what
    they mean to it, and keep the last workers from being ended.
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

    def run(self, shard: Shard, heard: SimpleQueue[tuple[int, Any]]) -> ShardResult:
        """Have a shard done; what is told of its progress goes to ``heard``.

        Raises:
            MachineError: the worker died.
            BaseException: whatever the task raised.
        """
        try:
            self.connection.send(shard)
            kind, value = self.connection.recv()
            while kind == _TOLD:
                heard.put((kind, value))
                kind, value = self.connection.recv()
        except (EOFError, OSError) as error:
            raise MachineError(self._death()) from error
        if kind == _FAILED:
            raise value
        result: ShardResult = value
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
    _begun[process] = os.getpid()
    return _Worker(process, ours, forked)


_begun: WeakKeyDictionary[BaseProcess, int] = WeakKeyDictionary()
"""Processes that were started, and by which one."""


@atexit.register  # before multiprocessing's own, which would wait for a process that nobody has come to end
def _end_all() -> None:
    for process, parent in _begun.items():
        if parent == os.getpid():
            process.kill()


def _main_is_unguarded() -> bool:
    """Whether the main program is a script that has no guard, so that workers would run it again."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        return path is not None and "__main__" not in Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


# --- A worker, from inside -----------------------------------------------------------------------------

_TOLD, _DONE, _FAILED = range(3)  # what a worker sends: progress, a result, an error


def _work(task: Task, connection: Connection, inherited: Sequence[Connection], told: bool) -> None:
    """Do one shard after the other that comes through the connection, and end with whoever is at its other end."""
    for other in inherited:
        other.close()
    # Ctrl-C reaches every process of the terminal; the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what the parent does then is not for a worker to do
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    shards: SimpleQueue[Shard] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, shards), daemon=True).start()
    turn = threading.Lock()

    def send(kind: int, value: object) -> None:
        data = ForkingPickler.dumps((kind, value))  # whole, before any of it is sent
        with suppress(ConnectionError), turn:  # this process ends with its parent
            connection.send_bytes(data)

    def tell(stage: str, count: int) -> None:
        send(_TOLD, (stage, count))

    while True:
        try:
            send(_DONE, task(shards.get(), tell if told else None))
        except BaseException as error:  # noqa: BLE001  # raised again in the parent
            send(_FAILED, _portable(error))


def _receive(connection: Connection, shards: SimpleQueue[Shard]) -> None:
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
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  # of somebody else's class
        return ConverterError(f"{type(error).__name__}: {error}")
    return error
