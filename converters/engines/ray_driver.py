"""The process that Ray lives in: it runs what :mod:`converters.engines.ray` orders, and says what becomes of it.

It decides nothing but what a failure means: whether the task itself has failed, or what it ran in.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import random
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from importlib.metadata import version
from multiprocessing.connection import Connection

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from converters.dataset.shard import Shard, ShardResult
from converters.engines.ray import (
    Begun,
    Broken,
    Counted,
    Died,
    Failed,
    Finished,
    Message,
    Orders,
    Slots,
    Start,
)
from converters.errors import CallError, ConverterError, MachineError

_TOLD_EVERY_SECONDS = 0.5
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
    starts: queue.SimpleQueue[Start | None] = queue.SimpleQueue()
    ended = threading.Event()
    threading.Thread(target=_listen, args=(connection, starts, ended), daemon=True).start()
    try:
        _connect(orders)
        _serve(connection, orders, starts)
    except (BrokenPipeError, ConnectionResetError):
        pass  # nobody hears us any more
    except Exception as error:  # noqa: BLE001  # whatever it is, it must be heard of
        with suppress(OSError):
            connection.send(Broken(_sendable(error)))
    ray.shutdown()
    ended.set()


def _listen(connection: Connection, starts: queue.SimpleQueue[Start | None], ended: threading.Event) -> None:
    """Take in what is ordered. When the other end is closed, however that came, this process ends soon."""
    with suppress(EOFError, OSError):
        while True:
            starts.put(connection.recv())
    starts.put(None)
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


def _serve(connection: Connection, orders: Orders, starts: queue.SimpleQueue[Start | None]) -> None:
    """Run what is ordered until nobody wants it any more.

    Raises:
        MachineError: the cluster cannot run anything.
    """
    begin = ray.remote(num_cpus=1, max_retries=0, num_returns="streaming")(attempt)
    running: dict[ray.ObjectRefGenerator, int] = {}
    slots = 0
    looked = -_LOOK_SECONDS
    with_cores = time.monotonic()
    while True:
        now = time.monotonic()
        if now >= looked + _LOOK_SECONDS:
            looked = now
            cores = int(ray.cluster_resources().get("CPU", 0))
            with_cores = now if cores else with_cores
            if now > with_cores + _NO_CORE_SECONDS:
                raise MachineError(f"the Ray cluster has had no core for {_NO_CORE_SECONDS / 60:.0f} minutes")
            if slots != (slots := orders.workers or max(1, 2 * cores)):
                connection.send(Slots(slots))
        while not (running and starts.empty()):
            start = starts.get()
            if start is None:
                _cancel(set(running))
                return
            # Each task has the same name: Ray would keep every other one until the end.
            placed = begin.options(name="kfer-convert", scheduling_strategy=_place(start))
            running[placed.remote(orders, start.number, start.shard)] = start.number
        for generator in _ready(list(running)):
            message = _news(generator, running[generator])
            connection.send(message)
            if isinstance(message, Finished | Failed | Died):
                del running[generator]


def _cancel(running: set[ray.ObjectRefGenerator]) -> None:
    """End what runs, and wait a moment until it has ended, so that nothing is written after us."""
    for generator in running:
        ray.cancel(generator, force=True)
    deadline = time.monotonic() + _CANCEL_SECONDS
    while running and time.monotonic() < deadline:
        for generator in _ready(list(running)):
            if isinstance(_news(generator, 0), Finished | Failed | Died):
                running.remove(generator)


def _place(start: Start) -> str | NodeAffinitySchedulingStrategy:
    """Where Ray is to run an attempt: anywhere, spread over the nodes, but not where earlier ones died."""
    if start.avoid:
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        others = [node["NodeID"] for node in nodes if node["NodeID"] not in start.avoid]
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


def _news(generator: ray.ObjectRefGenerator, number: int) -> Message:
    """What an attempt says next, or what became of it."""
    try:
        message: Message = ray.get(next(generator))
    except StopIteration:
        return Died(number, "it ended without a result")
    except exceptions.RayError as error:
        return explain(error, number)
    return message


def explain(error: exceptions.RayError, number: int) -> Died | Failed:
    """What a failure of Ray's means: what the task ran in has died, or the task cannot run."""
    if isinstance(error, NODE_FAILURES):
        return Died(number, f"{type(error).__name__}: {_in_a_line(error)}")
    if isinstance(error, exceptions.RayTaskError):
        # Whatever a task raises is told in a message; so this comes from before the task.
        what = _in_a_line(error.cause or error)
        return Failed(
            number,
            CallError(
                f"a node of the Ray cluster ({error.ip}) cannot run kfer-convert: {what}. It has to be installed alike "
                "on every node."
            ),
        )
    return Failed(number, MachineError(f"Ray: {type(error).__name__}: {_in_a_line(error)}"))


def _in_a_line(error: BaseException) -> str:
    """The first line of what an error says; Ray's go on about log files, and for pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")


# What follows runs in the workers.


def attempt(orders: Orders, number: int, shard: Shard) -> Iterator[Message]:
    """An attempt at a shard, as a stream of messages; whatever the task raises is one of them."""
    node = ray.get_runtime_context().get_node_id()
    host = f"node {ray.util.get_node_ip_address()} ({node[:8]})"
    yield Begun(number, node, host)
    counted: deque[tuple[str, int]] = deque()
    # The task has a thread of its own, so that this one can tell of its progress.
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(_run_task, orders, shard, host, counted)
        while wait([future], _TOLD_EVERY_SECONDS).not_done:
            yield from _counted(number, counted)
    yield from _counted(number, counted)
    error = future.exception()
    yield Finished(number, future.result()) if error is None else Failed(number, _sendable(error))


def _run_task(orders: Orders, shard: Shard, host: str, counted: deque[tuple[str, int]]) -> ShardResult:
    for name, wanted in orders.versions.items():
        if (found := version(name)) != wanted:
            raise CallError(f"{host} of the Ray cluster has {name} {found}, and this machine has {wanted}.")
    with suppress(OSError):
        os.chdir(orders.folder)  # not there: no matter, unless a path is relative
    return orders.task(shard, (lambda stage, count: counted.append((stage, count))) if orders.told else None)


def _counted(number: int, counted: deque[tuple[str, int]]) -> Iterator[Counted]:
    """What was counted since the last time, if anything."""
    counts: Counter[str] = Counter()
    while counted:
        stage, count = counted.popleft()
        counts[stage] += count
    if counts:
        yield Counted(number, dict(counts))


def _sendable(error: BaseException) -> BaseException:
    """An error that gets through a pipe; what comes out says what this one does."""
    if not isinstance(error, ConverterError | OSError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  # anybody's exception may fail in its own way
        return ConverterError(f"{type(error).__name__}: {error}")
    return error
