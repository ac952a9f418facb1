"""Runs shard tasks on a Ray cluster.

Ray lives in a process of its own (:mod:`converters.engines.ray_driver`), and is never imported in this one. For Ray
waits for a cluster that is not there for minutes, in which no signal is handled; it takes over the handling of
signals; it writes to standard error; and when the head of the cluster dies, it aborts its process. Here, all that is
an end of a pipe. What is decided is decided here: which shards are worked on, what is tried again, what is an error.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from converters.dataset.shard import Progress, Shard, ShardResult, Task
from converters.errors import CallError, MachineError

MAX_ATTEMPTS = 3

# Finished shards that wait for an earlier one, and those under way, are so many times those under way at most.
_AHEAD = 4
_ANSWER_SECONDS = 5.0  # in which the machine at an address answers at all
_CONNECT_SECONDS = 20.0  # in which Ray is connected to a cluster
_START_SECONDS = (
    120.0  # in which Ray is started on this machine; it takes a few seconds where nothing else runs
)
_LEAVE_SECONDS = 10.0  # in which what runs is cancelled, and Ray disconnected or ended; it takes one or two
_INTERRUPT_SECONDS = 0.5  # the same, where somebody waits for us to end


@dataclass(frozen=True)
class Orders:
    """What Ray's process is told first; everything else depends on it.

    Attributes:
        address: of the cluster; None to start Ray on this machine.
        workers: number of tasks at once; None for as many as the cluster is fit for.
        task: what is run for each shard.
        told: whether progress is wanted.
        folder: the working folder, against which paths are relative.
        versions: of what the output's bytes depend on; they must be the same on every node.
    """

    address: str | None
    workers: int | None
    task: Task
    told: bool
    folder: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Start:
    """Ray's process is to begin an attempt at a shard, where there is a choice on none of the nodes ``avoid``."""

    number: int
    shard: Shard
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slots:
    """It is connected; so many attempts may be under way or wait for a free core."""

    count: int


@dataclass(frozen=True)
class Broken:
    """Nothing more can be done."""

    error: BaseException


@dataclass(frozen=True)
class Begun:
    """An attempt runs, on this node; ``host`` is what people call it."""

    number: int
    node: str
    host: str


@dataclass(frozen=True)
class Counted:
    """So many more records have passed each stage."""

    number: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Finished:
    """An attempt has come to its result."""

    number: int
    result: ShardResult


@dataclass(frozen=True)
class Failed:
    """The task itself has failed; it would again."""

    number: int
    error: BaseException


@dataclass(frozen=True)
class Died:
    """What an attempt ran in has died."""

    number: int
    reason: str


Message = Slots | Broken | Begun | Counted | Finished | Failed | Died


class RayEngine:
    """Tasks are Ray Core tasks of one core each.

    Args:
        workers: number of tasks at once; None for about twice as many as the cluster has cores, so that one waits
            for each that runs.
        address: of the cluster (``host:port``, or ``auto``), of which this machine must be a node. None starts Ray on
            this machine, and ends it again.

    Raises:
        CallError: Ray is not installed, or the address is none.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        if workers is not None and workers < 1:
            raise CallError(f"at least one worker is needed, not {workers}.")
        if importlib.util.find_spec("ray") is None:
            raise CallError("--engine ray needs Ray: pip install 'kfer-convert[ray]'.")
        if address is not None and address != "auto":
            _require_answer(address)
        self._workers = workers
        self._address = address

    def run(
        self, task: Task, shards: Sequence[Shard], progress: Progress | None = None
    ) -> Iterator[ShardResult]:
        """See :class:`converters.engines.Engine`."""
        if not shards:
            return
        versions = {name: version(name) for name in ("kfer-convert", "pyarrow")}
        orders = Orders(self._address, self._workers, task, progress is not None, str(Path.cwd()), versions)
        with _Driver(orders) as driver:
            yield from _results(driver, shards, progress)


@dataclass
class _Work:
    """A shard that is worked on, and what became of earlier attempts at it."""

    shard: Shard
    host: str = ""
    node: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    deaths: list[str] = field(default_factory=list)
    died_on: list[str] = field(default_factory=list)

    def bury(self, reason: str) -> None:
        """Note that the attempt has died, and be ready for the next."""
        self.deaths.append(f"on {self.host}: {reason}" if self.host else f"before it began: {reason}")
        if self.node:
            self.died_on.append(self.node)
        self.host = self.node = ""
        self.counts.clear()


def _results(driver: _Driver, shards: Sequence[Shard], progress: Progress | None) -> Iterator[ShardResult]:
    """The results of all shards, in order, with a bounded number of them held or worked on."""
    tell = progress or (lambda stage, count: None)
    work: dict[int, _Work] = {}
    done: dict[int, ShardResult] = {}
    begun = passed = 0
    while passed < len(shards):
        while begun < min(len(shards), passed + _AHEAD * driver.slots) and len(work) < driver.slots:
            work[begun] = _Work(shards[begun])
            driver.start(Start(begun, shards[begun]))
            begun += 1
        match driver.receive():
            case Begun(number, node, host):
                work[number].node, work[number].host = node, host
            case Counted(number, counts):
                work[number].counts.update(counts)
                for stage, count in counts.items():
                    tell(stage, count)
            case Finished(number, result):
                del work[number]
                done[number] = result
            case Failed(_, error):
                raise error
            case Died(number, reason):
                for stage, count in work[number].counts.items():
                    tell(stage, -count)
                work[number].bury(reason)
                _try_again(driver, number, work[number])
        while passed in done:
            yield done.pop(passed)
            passed += 1


def _try_again(driver: _Driver, number: int, work: _Work) -> None:
    """Begin another attempt, on another node if there is one.

    Raises:
        MachineError: there were enough.
    """
    if len(work.deaths) == MAX_ATTEMPTS:
        raise MachineError(
            f"shard {work.shard.key}: what converted it died {MAX_ATTEMPTS} times; {'; '.join(work.deaths)}"
        )
    driver.start(Start(number, work.shard, tuple(work.died_on)))


class _Driver:
    """The process that Ray lives in, and the pipe to it. Leaving it ends what it runs.

    Attributes:
        slots: how many attempts may be under way or wait for a free core.
    """

    def __init__(self, orders: Orders) -> None:
        self.slots = 0
        self._orders = orders
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed when this is left
        self._connection, theirs = multiprocessing.Pipe()
        program = f"from converters.engines.ray_driver import main; main({theirs.fileno()})"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                start_new_session=True,  # Ctrl-C, which reaches every process of a terminal, is ours to handle
                cwd="/",  # Ray has workers import from the working folder, whatever lies there
                env=_environment(orders.address),
            )

    def __enter__(self) -> Self:
        address = self._orders.address
        seconds = _START_SECONDS if address is None else _CONNECT_SECONDS
        try:
            self._send(self._orders)
            if not self._connection.poll(seconds):
                if address is None:
                    raise MachineError(f"Ray did not start on this machine within {seconds:.0f} s")
                raise CallError(
                    f"no Ray cluster could be connected to at {address} within {seconds:.0f} s. Is this the address "
                    "that `ray start --head` showed, and this machine a node of the cluster?"
                )
            while not self.slots:
                self.receive()
        except BaseException:
            self._close(_INTERRUPT_SECONDS)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = kind is not None and not issubclass(kind, Exception)
        self._close(_INTERRUPT_SECONDS if interrupted else _LEAVE_SECONDS)

    def start(self, order: Start) -> None:
        """Have an attempt begun."""
        self._send(order)

    def receive(self) -> Message:
        """What it has to say next.

        Raises:
            Exception: nothing more can be done, and why.
        """
        try:
            message: Message = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        match message:
            case Slots(count):
                self.slots = count
            case Broken(error):
                raise error
        return message

    def _send(self, message: Any) -> None:  # noqa: ANN401  # Orders or Start
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None

    def _died(self) -> MachineError:
        """Ray ends its process where it loses the head of the cluster; some of what it said then is of use."""
        self._process.kill()
        status = self._process.wait()
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        self._said.seek(0)
        lines = [
            line.strip() for line in self._said.read().decode(errors="replace").splitlines() if line.strip()
        ]
        # "[date and time, process] file: what happened. See …"
        said = re.sub(r"^\[[^]]*\] \S+ ", "", lines[-1]).split(". ")[0][:300] if lines else "nothing"
        return MachineError(f"the connection to Ray is lost; its process ended ({how}) and said: {said}")

    def _close(self, seconds: float) -> None:
        """Have it cancel what runs, let go of Ray and end; after so many seconds, it is ended."""
        self._connection.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()


def _environment(address: str | None) -> dict[str, str]:
    """The environment of Ray's process, which a Ray that it starts inherits."""
    path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)  # noqa: PTH100  # links stay links
    environment = {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    if address is None and "RAY_AUTH_MODE" not in environment:
        # What Ray listens on is open to this machine's network, so a token is asked for; Ray would make one, and
        # leave it in the home folder.
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return environment


def _require_answer(address: str) -> None:
    """Raise a CallError where nothing answers at an address; Ray itself would try for minutes."""
    if "://" in address:
        raise CallError(
            f"--ray-address {address}: Ray Client is not supported. Run this command on a node of the cluster "
            "(`ray job submit` does), with the host and port that `ray start --head` showed, or `auto`."
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise CallError(f"--ray-address {address}: this is neither HOST:PORT nor `auto`.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise CallError(
            f"--ray-address {address}: nothing answers there: {getattr(error, 'strerror', None) or error}. "
            "`ray start --head` shows the address of a cluster."
        ) from error
