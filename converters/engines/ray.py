"""Runs shard tasks on a Ray cluster.

Ray lives in a process of its own (:mod:`converters.engines.ray_driver`), and is never imported in this one. For Ray
waits for a cluster that is not there for minutes, in which no signal is handled; it takes over the handling of
signals; it writes to standard error; and when the head of the cluster dies, it aborts its process. Here, all that is
an end of a pipe, from which the results come in order.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from converters.dataset.shard import Progress, Shard, ShardResult, Task
from converters.errors import CallError, MachineError

_ANSWER_SECONDS = 5.0  # in which the machine at an address answers at all
_CONNECT_SECONDS = 20.0  # in which Ray is connected to a cluster
_START_SECONDS = 120.0  # in which Ray is started on this machine; it takes a few seconds on an idle one
_LEAVE_SECONDS = 10.0  # in which what runs is cancelled, and Ray disconnected or ended; it takes one or two
_INTERRUPT_SECONDS = 0.5  # the same, where somebody waits for us to end


@dataclass(frozen=True)
class Job:
    """What every attempt at a shard needs to know.

    Attributes:
        task: what is run for each shard.
        folder: the working folder, against which paths are relative.
        versions: of what the output's bytes depend on; they must be the same on every node.
    """

    task: Task
    folder: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Orders:
    """What Ray's process is told: the cluster (None: to start Ray here), the number of tasks at once, and the work."""

    address: str | None
    workers: int | None
    job: Job
    shards: Sequence[Shard]


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
        job = Job(task, str(Path.cwd()), versions)
        with _driver(Orders(self._address, self._workers, job, shards)) as driver:
            for _ in shards:
                kind, value = driver.receive()
                while kind == "progress":
                    if progress is not None:
                        progress(*value)
                    kind, value = driver.receive()
                yield value


@dataclass(frozen=True)
class _Driver:
    """The process that Ray lives in, the pipe to it, and what it wrote to its standard output and error."""

    process: subprocess.Popen[bytes]
    connection: Connection
    said: IO[bytes]

    def connect(self, orders: Orders) -> None:
        """Tell it what to run, and wait until Ray is there.

        Raises:
            CallError: no cluster is there.
            MachineError: Ray did not start.
        """
        address = orders.address
        seconds = _START_SECONDS if address is None else _CONNECT_SECONDS
        try:
            self.connection.send(orders)
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None
        if not self.connection.poll(seconds):
            if address is None:
                raise MachineError(f"Ray did not start on this machine within {seconds:.0f} s")
            raise CallError(
                f"no Ray cluster could be connected to at {address} within {seconds:.0f} s. Is this the address "
                "that `ray start --head` showed, and this machine a node of the cluster?"
            )
        self.receive()

    def receive(self) -> tuple[str, Any]:
        """What it has to say next: that it is connected, some progress, or a result.

        Raises:
            Exception: nothing more can be done, and why.
        """
        try:
            kind, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        if kind == "error":
            raise value
        return kind, value

    def _died(self) -> MachineError:
        """Ray ends its process where it loses the head of the cluster; some of what it said then is of use."""
        self.process.kill()
        status = self.process.wait()
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        self.said.seek(0)
        lines = [
            line.strip() for line in self.said.read().decode(errors="replace").splitlines() if line.strip()
        ]
        # "[date and time, process] file: what happened. See …"
        said = re.sub(r"^\[[^]]*\] \S+ ", "", lines[-1]).split(". ")[0][:300] if lines else "nothing"
        return MachineError(f"the connection to Ray is lost; its process ended ({how}) and said: {said}")


@contextmanager
def _driver(orders: Orders) -> Iterator[_Driver]:
    """Ray's process, connected. Leaving the block has it cancel what runs, let go of Ray and end."""
    ours, theirs = multiprocessing.Pipe()
    program = f"from converters.engines.ray_driver import main; main({theirs.fileno()})"
    with tempfile.TemporaryFile() as said, ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # Ctrl-C, which reaches every process of a terminal, is ours to handle
                cwd="/",  # Ray has workers import from the working folder, whatever lies there
                env=_environment(orders.address),
            )
        seconds = _INTERRUPT_SECONDS
        try:
            driver = _Driver(process, ours, said)
            driver.connect(orders)
            try:
                yield driver
                seconds = _LEAVE_SECONDS
            except Exception:
                seconds = _LEAVE_SECONDS
                raise
        finally:
            ours.close()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


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
