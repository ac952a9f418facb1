"""The process that Ray lives in: it runs what :mod:`converters.engines.ray` orders, and passes the results on.

Here is decided which shards are worked on, what a failure means (the task itself has failed, or what it ran in), and
what is tried again.
"""

from __future__ import annotations

import logging
import os
import pickle
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from converters.dataset.shard import Progress, Shard, ShardResult
from converters.engines.ray import Job, Orders
from converters.errors import CallError, ConverterError, MachineError

MAX_ATTEMPTS = 3

Message = tuple[str, Any]
"""What an attempt says, or what became of it.

``begun`` on a node, with what people call it; ``finished`` with how many records passed each stage, and the result;
``failed`` with the task's own error, which it would have again; ``died``, for a reason of the node's.
"""

# Finished shards that wait for an earlier one, and those under way, are so many times those under way at most.
_AHEAD = 4
_WAIT_SECONDS = 0.05  # for news of attempts, before orders are looked at
_LOOK_SECONDS = 5.0  # after which the cluster may be found grown or shrunk
_NO_CORE_SECONDS = 600.0  # after which a cluster without any core is given up; one that grows takes minutes
_CANCEL_SECONDS = 2.0  # in which what is cancelled has ended
_UNHEARD_SECONDS = 8.0  # in which this process has to end once nobody hears it any more
_OBJECT_STORE_BYTES = 100 << 20  # results are small; Ray would reserve a third of the memory

# The node's or the worker's failures, which say nothing about the task: it is tried again. The result may be lost with
# the node it lies on (ObjectLostError and its kinds), Ray's own memory there may be full, the worker may not have come
# to be (RuntimeEnvSetupError), and the node that was chosen may be gone (TaskUnschedulableError).
NODE_FAILURES = (
    exceptions.WorkerCrashedError,
    exceptions.LocalRayletDiedError,
    exceptions.NodeDiedError,
    exceptions.OutOfMemoryError,
    exceptions.OutOfDiskError,
    exceptions.ObjectStoreFullError,
    exceptions.ObjectLostError,
    exceptions.PlasmaObjectNotAvailable,
    exceptions.RaySystemError,
    exceptions.RpcError,
    exceptions.RuntimeEnvSetupError,
    exceptions.TaskUnschedulableError,
)


def main(descriptor: int) -> None:
    """Serve the process at the other end of a pipe, until it closes it."""
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    orders: Orders = connection.recv()
    gone, ended = threading.Event(), threading.Event()
    threading.Thread(target=_watch, args=(connection, gone, ended), daemon=True).start()
    try:
        _connect(orders)
        connection.send(("connected", None))
        with closing(_Cluster(orders, gone)) as cluster:
            tell = lambda stage, count: connection.send(("progress", (stage, count)))  # noqa: E731
            for result in in_order(cluster, orders.shards, tell):
                connection.send(("result", result))
    except (BrokenPipeError, ConnectionResetError):
        pass  # nobody hears us any more
    except Exception as error:  # noqa: BLE001  # whatever it is, it must be heard of
        with suppress(OSError):
            connection.send(("error", _sendable(error)))
    ray.shutdown()
    ended.set()


def _watch(connection: Connection, gone: threading.Event, ended: threading.Event) -> None:
    """When the other end of the pipe is closed, however that came, this process ends soon."""
    with suppress(EOFError, OSError):
        connection.recv()
    gone.set()
    if not ended.wait(_UNHEARD_SECONDS):
        os._exit(1)  # the main thread is stuck in Ray


def _connect(orders: Orders) -> None:
    """Connect to the cluster, or start Ray on this machine.

    Raises:
        CallError: that is not possible.
    """
    own = {"num_cpus": orders.workers, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(
            address=orders.address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if orders.address else own),
        )
    except Exception as error:
        where = f"to the Ray cluster at {orders.address}" if orders.address else "to a Ray started here"
        raise CallError(f"no connection {where}: {_in_a_line(error)}") from error


@dataclass
class _Work:
    """A shard that is worked on, and what became of earlier attempts at it."""

    host: str = ""
    node: str = ""
    deaths: list[str] = field(default_factory=list)
    died_on: list[str] = field(default_factory=list)

    def bury(self, reason: str) -> None:
        """Note that the attempt has died, and be ready for the next."""
        self.deaths.append(f"on {self.host}: {reason}" if self.host else f"before it began: {reason}")
        if self.node:
            self.died_on.append(self.node)
        self.host = self.node = ""


def in_order(cluster: _Cluster, shards: Sequence[Shard], tell: Progress) -> Iterator[ShardResult]:
    """The results of all shards, in order, with a bounded number of them held or worked on.

    Raises:
        MachineError: all attempts at a shard have died.
        Exception: of a task.
    """
    work: dict[int, _Work] = {}
    done: dict[int, ShardResult] = {}
    begun = passed = 0
    while passed < len(shards):
        while begun < min(len(shards), passed + _AHEAD * cluster.slots) and len(work) < cluster.slots:
            work[begun] = _Work()
            cluster.start(begun, shards[begun])
            begun += 1
        for number, (kind, value) in cluster.news():
            of = work[number]
            if kind == "begun":
                of.node, of.host = value
            elif kind == "finished":
                del work[number]
                counts, done[number] = value
                for stage, count in counts.items():
                    tell(stage, count)
            elif kind == "failed":
                raise value
            else:
                of.bury(value)
                if len(of.deaths) == MAX_ATTEMPTS:
                    raise MachineError(
                        f"shard {shards[number].key}: what converted it died {MAX_ATTEMPTS} times; "
                        f"{'; '.join(of.deaths)}"
                    )
                cluster.start(number, shards[number], of.died_on)
        while passed in done:
            yield done.pop(passed)
            passed += 1


class _Cluster:
    """The attempts that run on a cluster. Closing it ends them.

    Attributes:
        slots: how many may be under way or wait for a free core.
    """

    def __init__(self, orders: Orders, gone: threading.Event) -> None:
        self._workers = orders.workers
        self._job = orders.job
        self._gone = gone
        self._attempt = ray.remote(num_cpus=1, max_retries=0, num_returns="streaming")(attempt)
        self._running: dict[ray.ObjectRefGenerator, int] = {}
        self._with_cores = time.monotonic()
        self._look()

    def start(self, number: int, shard: Shard, avoid: Collection[str] = ()) -> None:
        """Begin an attempt at a shard, where there is a choice on none of the nodes ``avoid``."""
        # Each task has the same name: Ray would keep every other one until the end.
        placed = self._attempt.options(name="kfer-convert", scheduling_strategy=_place(avoid))
        self._running[placed.remote(self._job, shard)] = number

    def news(self) -> list[tuple[int, Message]]:
        """What attempts say next, or what became of them; nothing after a moment in which none says anything.

        Raises:
            BrokenPipeError: nobody wants to know any more.
            MachineError: the cluster cannot run anything.
        """
        if self._gone.is_set():
            raise BrokenPipeError
        if time.monotonic() >= self._looked + _LOOK_SECONDS:
            self._look()
        news = []
        for generator in _ready(list(self._running)):
            number, message = self._running[generator], _message(generator)
            news.append((number, message))
            if message[0] in ("finished", "failed", "died"):
                del self._running[generator]
        return news

    def _look(self) -> None:
        """See how large the cluster is now."""
        self._looked = time.monotonic()
        cores = int(ray.cluster_resources().get("CPU", 0))
        if cores:
            self._with_cores = self._looked
        elif self._looked > self._with_cores + _NO_CORE_SECONDS:
            raise MachineError(f"the Ray cluster has had no core for {_NO_CORE_SECONDS / 60:.0f} minutes")
        self.slots = self._workers or max(1, 2 * cores)

    def close(self) -> None:
        """End what runs, and wait a moment until it has ended, so that nothing is written after us."""
        running = set(self._running)
        for generator in running:
            ray.cancel(generator, force=True)
        deadline = time.monotonic() + _CANCEL_SECONDS
        while running and time.monotonic() < deadline:
            for generator in _ready(list(running)):
                if _message(generator)[0] in ("finished", "failed", "died"):
                    running.remove(generator)


def _place(avoid: Collection[str]) -> str | NodeAffinitySchedulingStrategy:
    """Where Ray is to run an attempt: anywhere, spread over the nodes, but not where earlier ones died."""
    if avoid:
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        others = [node["NodeID"] for node in nodes if node["NodeID"] not in avoid]
        if others:
            # Soft: it runs elsewhere if this one is gone by then.
            return NodeAffinitySchedulingStrategy(random.choice(others), soft=True)
    return "SPREAD"


def _ready(generators: list[ray.ObjectRefGenerator]) -> list[ray.ObjectRefGenerator]:
    """Those that have news, which are waited for for a moment."""
    ready, _ = ray.wait(generators, timeout=_WAIT_SECONDS)
    if ready:
        ready, _ = ray.wait(generators, num_returns=len(generators), timeout=0)
    return ready


def _message(generator: ray.ObjectRefGenerator) -> Message:
    """What an attempt says next, or what became of it."""
    try:
        message: Message = ray.get(next(generator))
    except StopIteration:
        return "died", "it ended without a result"
    except exceptions.RayError as error:
        return explain(error)
    return message


def explain(error: exceptions.RayError) -> Message:
    """What a failure of Ray's means: what the task ran in has died, or the task cannot run."""
    if isinstance(error, NODE_FAILURES):
        return "died", f"{type(error).__name__}: {_in_a_line(error)}"
    if isinstance(error, exceptions.RayTaskError):
        # Whatever a task raises is told in a message; so this comes from before the task.
        what = _in_a_line(error.cause or error)
        return "failed", CallError(
            f"a node of the Ray cluster ({error.ip}) cannot run kfer-convert: {what}. It has to be installed alike "
            "on every node."
        )
    return "failed", MachineError(f"Ray: {type(error).__name__}: {_in_a_line(error)}")


def _in_a_line(error: BaseException) -> str:
    """The first line of what an error says; Ray's go on about log files, and for pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")


# What follows runs in the workers.


def attempt(job: Job, shard: Shard) -> Iterator[Message]:
    """An attempt at a shard, as a stream of messages; whatever the task raises is one of them."""
    node = ray.get_runtime_context().get_node_id()
    host = f"node {ray.util.get_node_ip_address()} ({node[:8]})"
    yield "begun", (node, host)
    message: Message
    try:
        message = "finished", run_task(job, shard, host)
    except BaseException as error:  # noqa: BLE001  # it is raised where it is told of
        message = "failed", _sendable(error)
    yield message


def run_task(job: Job, shard: Shard, host: str) -> tuple[Counter[str], ShardResult]:
    """How many records passed each stage, and the result."""
    for name, wanted in job.versions.items():
        if (found := version(name)) != wanted:
            raise CallError(f"{host} of the Ray cluster has {name} {found}, and this machine has {wanted}.")
    with suppress(OSError):
        os.chdir(job.folder)  # not there: no matter, unless a path is relative
    counts: Counter[str] = Counter()
    return counts, job.task(shard, lambda stage, count: counts.update({stage: count}))


def _sendable(error: BaseException) -> BaseException:
    """An error that gets through a pipe; what comes out says what this one does."""
    if not isinstance(error, ConverterError | OSError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  # anybody's exception may fail in its own way
        return ConverterError(f"{type(error).__name__}: {error}")
    return error
