"""The Ray engine: the same bytes as in one process, whatever dies; an error of the data is attempted once."""

import contextlib
import importlib.util
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import converters.engines.ray
from converters.engines.ray import Job, RayEngine
from converters.errors import CallError, DataError, Location, MachineError

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'kfer-convert[ray]'"
)

SHARD_SIZE = ("--max-shard-size", "20000")
NODES = 3
SECONDS = 180  # after which something hangs, on a machine that does much else too
SOON = 40  # it takes 0.7 on two idle cores, and Ray itself would take minutes

# Formats that tell what they do: which shard is attempted, in which process. They take their time in Ray's workers.
MODULE = '''
import os, signal, sys, time
from pathlib import Path
from converters.formats.parquet import ParquetFormat

LOG, DOOMED, STUCK = Path({log!r}), Path({doomed!r}), Path({stuck!r})


class Slow(ParquetFormat):
    """Parquet that takes its time, and does not end on a node that is doomed, or with a config that is stuck."""

    def write(self, batches, shard, folder):
        # Before the log tells of this attempt: a test may kill the node then, and the process has another parent.
        doomed = DOOMED.exists() and DOOMED.read_text() == str(os.getppid())
        stuck = STUCK.exists() and STUCK.read_text() == shard.config
        with LOG.open("a") as log:
            log.write(f"{{shard.key}} {{os.getpid()}}\\n")
        paths = super().write(batches, shard, folder)
        if "ray" in sys.modules:
            time.sleep(600 if doomed or stuck else 0.1)
        return paths


class Deadly(Slow):
    """A shard kills its process."""

    def write(self, batches, shard, folder):
        paths = super().write(batches, shard, folder)
        if shard.key == {deadly!r}:
            os.kill(os.getpid(), signal.SIGKILL)
        return paths


class Full(ParquetFormat):
    """A disk that is full."""

    def write(self, batches, shard, folder):
        raise OSError(28, "No space left on device", str(folder / "file"))
'''
DEADLY = "22_emo/valid-00000-of-00001"


def attempts(cluster) -> list[tuple[str, int]]:
    """The attempts at writing so far: shard and process."""
    if not cluster.log.exists():
        return []
    return [(key, int(process)) for key, process in map(str.split, cluster.log.read_text().splitlines())]


def until(condition):
    """Wait for a condition; what it comes to."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def parent(process: int) -> int:
    done = subprocess.run(["ps", "-o", "ppid=", "-p", str(process)], capture_output=True, text=True)
    return int(done.stdout or 0)


@dataclass(frozen=True)
class FakeShard:
    key: str


class FakeCluster:
    """Says what is in its script, or of each attempt that it has come to a result; the latest begun ends first."""

    def __init__(self, slots, script=()):
        self.slots = slots
        self.script = list(script)
        self.started = []
        self.running = []
        self.most = 0

    def start(self, number, shard, avoid=()):
        self.started.append((number, tuple(avoid)))
        self.running.append(number)
        self.most = max(self.most, len(self.running))

    def news(self):
        number, message = self.script.pop(0) if self.script else (None, None)
        if isinstance(message, int):
            self.slots = message
            return []
        if message is None:
            number, message = self.running[-1], ("finished", ({}, self.running[-1]))
        if message[0] in ("finished", "died"):
            self.running.remove(number)
        return [(number, message)]


def results(cluster, count, tell=lambda stage, count: None):
    from converters.engines.ray_driver import in_order

    return in_order(cluster, [FakeShard(f"shard-{number}") for number in range(count)], tell)


@needs_ray
@pytest.mark.parametrize("slots", [1, 2, 7])
def test_results_come_in_order_and_few_are_held(slots):
    cluster = FakeCluster(slots)
    ahead = []
    for passed, result in enumerate(results(cluster, 100)):
        assert result == passed
        ahead.append(len(cluster.started) - passed)
    assert passed == 99
    assert cluster.most == slots
    assert max(ahead) <= 4 * slots + 1


@needs_ray
def test_a_cluster_that_grows_is_given_more():
    cluster = FakeCluster(1, [(None, 3)])
    assert list(results(cluster, 10)) == list(range(10))
    assert cluster.most == 3


@needs_ray
def test_what_a_dead_attempt_did_is_not_counted_and_it_is_tried_elsewhere():
    script = [
        ("begun", ("a", "node a")),
        ("died", "the plug was pulled"),
        ("begun", ("b", "node b")),
        ("died", "again"),
        ("begun", ("c", "node c")),
        ("finished", ({"read": 9, "verified": 9}, 0)),
    ]
    cluster = FakeCluster(1, [(0, message) for message in script])
    told = []
    assert list(results(cluster, 1, lambda *event: told.append(event))) == [0]
    assert cluster.started == [(0, ()), (0, ("a",)), (0, ("a", "b"))]
    assert told == [("read", 9), ("verified", 9)]


@needs_ray
def test_three_deaths_are_the_end():
    script = [
        ("begun", ("a", "node a")),
        ("died", "first"),
        ("died", "second"),
        ("begun", ("c", "node c")),
        ("died", "third"),
    ]
    with pytest.raises(MachineError) as caught:
        list(results(FakeCluster(1, [(0, message) for message in script]), 1))
    assert str(caught.value) == (
        "shard shard-0: what converted it died 3 times; on node a: first; before it began: second; on node c: third"
    )


@needs_ray
def test_an_error_of_the_task_is_raised_as_it_is():
    error = DataError("damaged")
    with pytest.raises(DataError) as caught:
        list(results(FakeCluster(2, [(1, ("failed", error))]), 5))
    assert caught.value is error


def test_workers():
    with pytest.raises(CallError, match="at least one worker"):
        RayEngine(0)


@pytest.fixture
def start():
    """Starts the command line in a process of its own, which does not outlive the test."""
    with contextlib.ExitStack() as stack:

        def run(*arguments, **options) -> subprocess.Popen:
            process = subprocess.Popen(
                [sys.executable, "-m", "converters", *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **options,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield run


@pytest.fixture
def run(start):
    """Runs the command line to its end."""

    def run(*arguments, **options) -> SimpleNamespace:
        process = start(*arguments, **options)
        out, err = process.communicate(timeout=SECONDS)
        return SimpleNamespace(status=process.returncode, out=out, err=err)

    return run


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three nodes of one core each, which know the formats of :data:`MODULE`."""
    folder = tmp_path_factory.mktemp("ray")
    site = folder / "site"
    info = site / "slow_parquet-1.0.dist-info"
    info.mkdir(parents=True)
    log = folder / "attempts"
    (site / "slow_parquet.py").write_text(
        MODULE.format(log=str(log), doomed=str(folder / "doomed"), stuck=str(folder / "stuck"), deadly=DEADLY)
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow_parquet\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[kfer_convert.formats]\nslow = slow_parquet:Slow\ndeadly = slow_parquet:Deadly\nfull = slow_parquet:Full\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        from ray.cluster_utils import Cluster

        nodes = Cluster()
        try:
            for _ in range(NODES):
                nodes.add_node(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)
            yield SimpleNamespace(
                nodes=nodes, address=nodes.address, log=log, doomed=folder / "doomed", stuck=folder / "stuck"
            )
        finally:
            nodes.shutdown()
            for number, handler in handlers.items():
                signal.signal(number, handler)


@pytest.fixture
def on_cluster(cluster):
    """The options for a run on the cluster."""
    cluster.log.unlink(missing_ok=True)
    return ("--engine", "ray", "--ray-address", cluster.address, *SHARD_SIZE)


@needs_ray
@pytest.mark.parametrize("to", ["parquet", "jpeg", "hf"])
def test_a_cluster_gives_the_same_bytes_as_this_process(cluster, on_cluster, sample, tmp_path, to, run):
    here = run(sample, "--to", to, "--out", tmp_path / "here", "--workers", "1", *SHARD_SIZE)
    there = run(sample, "--to", to, "--out", tmp_path / "there", *on_cluster)
    assert (here.status, here.err) == (there.status, there.err) == (0, "")
    assert sums(tmp_path / "here") == sums(tmp_path / "there")
    assert {path.name for path in tmp_path.iterdir()} == {"here", "there"}


def sums(out: Path) -> str:
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=out, capture_output=True).returncode == 0
    return (out / "SHA256SUMS").read_text()


@needs_ray
def test_a_node_that_dies_in_the_middle_changes_nothing(cluster, on_cluster, sample, tmp_path, run, start):
    here = run(sample, "--to", "slow", "--out", tmp_path / "here", *SHARD_SIZE)
    assert here.status == 0
    cluster.log.unlink()
    node = cluster.nodes.add_node(num_cpus=1, object_store_memory=80 << 20)
    raylet = node.all_processes["raylet"][0].process.pid
    cluster.doomed.write_text(str(raylet))
    # Relative paths, which mean the same wherever a worker was started.
    shutil.copytree(sample, tmp_path / "tfrecords")
    process = start("--to", "slow", "--out", "there", *on_cluster, cwd=tmp_path)
    until(lambda: [process for _, process in attempts(cluster) if parent(process) == raylet])
    cluster.nodes.remove_node(node, allow_graceful=False)
    _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, "")
    assert sums(tmp_path / "here") == sums(tmp_path / "there")
    assert {path.name for path in tmp_path.iterdir()} == {"here", "there", "tfrecords"}
    tried = Counter(key for key, _ in attempts(cluster))
    assert sorted(tried.values())[-2:] == [1, 2]
    cluster.nodes.wait_for_nodes()  # until it is known to all that the node is gone


@needs_ray
def test_a_corrupt_record_is_attempted_once_and_told_in_full(cluster, on_cluster, source, tmp_path, run):
    path = source / "22_emo_valid.tfrecords"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    here = run(source, "--to", "slow", "--out", tmp_path / "out", "--workers", "1", *SHARD_SIZE)
    cluster.log.unlink()
    there = run(source, "--to", "slow", "--out", tmp_path / "out", *on_cluster)
    assert (there.status, there.err) == (here.status, here.err)
    assert there.status == 1
    assert f"{path} (record " in there.err
    assert ", byte " in there.err
    assert max(Counter(key for key, _ in attempts(cluster)).values()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"tfrecords"}


@needs_ray
def test_a_worker_that_dies_three_times_is_the_end(cluster, on_cluster, sample, tmp_path, run):
    done = run(sample, "--to", "deadly", "--out", tmp_path / "out", *on_cluster)
    assert done.status == 1
    assert f"shard {DEADLY}: " in done.err
    assert done.err.count("WorkerCrashedError") == 3
    assert not (tmp_path / "out").exists()
    tried = Counter(key for key, _ in attempts(cluster))
    assert tried[DEADLY] == 3
    # On another node each time; they are told by the beginning of their names.
    assert len({piece.split(")")[0] for piece in done.err.split("on node ")[1:]}) == 3


@needs_ray
def test_a_full_disk_is_told_as_here(cluster, on_cluster, sample, tmp_path, run):
    done = run(sample, "--to", "full", "--out", tmp_path / "out", *on_cluster)
    assert done.status == 1
    assert "No space left on device (" in done.err
    assert "free" in done.err


@needs_ray
def test_ctrl_c_ends_at_once_and_what_is_finished_is_kept(cluster, on_cluster, sample, tmp_path, run, start):
    command = (sample, "--to", "slow", "--out", tmp_path / "out", *on_cluster)
    cluster.stuck.write_text("multi-label")
    process = start(*command)
    until(lambda: len([key for key, _ in attempts(cluster) if key.startswith("multi-label")]) == NODES)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, err = process.communicate(timeout=SECONDS)
    assert time.monotonic() - started < SOON
    assert process.returncode == 130
    assert "kept in" in err
    assert "Traceback" not in err
    running = {process for _, process in attempts(cluster)}
    until(lambda: not any(map(is_alive, running)))
    # The cluster is still up, and the same command goes on.
    cluster.stuck.unlink()
    done = run(*command)
    assert done.status == 0
    assert "Taken up from an interrupted run, and verified again: 11 shards." in done.out
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.fixture
def own_ray():
    """A folder for a Ray that is started here; its processes are known by it. (Paths of sockets must be short.)"""
    with tempfile.TemporaryDirectory(prefix="kfer", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def processes(folder: Path) -> list[str]:
    listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line]


@needs_ray
def test_without_an_address_ray_is_started_here_and_ended(sample, tmp_path, own_ray, run):
    home = tmp_path / "home"
    home.mkdir()
    arguments = ("--engine", "ray", "--workers", "2", *SHARD_SIZE)
    done = run(
        sample,
        "--to",
        "parquet",
        "--out",
        tmp_path / "out",
        *arguments,
        env=os.environ | {"RAY_TMPDIR": str(own_ray), "HOME": str(home)},
    )
    assert (done.status, done.err) == (0, "")
    until(lambda: not processes(own_ray))
    assert {path.name for path in tmp_path.iterdir()} == {"home", "out"}
    assert not list(home.iterdir())


@needs_ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_this_process_ends_the_ray_it_started(sample, tmp_path, own_ray, number, start):
    arguments = ("--engine", "ray", "--workers", "1", *SHARD_SIZE)
    process = start(
        sample,
        "--to",
        "parquet",
        "--out",
        tmp_path / "out",
        *arguments,
        env=os.environ | {"RAY_TMPDIR": str(own_ray)},
    )
    until(lambda: processes(own_ray))
    process.send_signal(number)
    started = time.monotonic()
    process.communicate(timeout=SECONDS)
    assert time.monotonic() - started < SOON
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
    until(lambda: not processes(own_ray))
    assert not (tmp_path / "out").exists()


@needs_ray
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "Connection refused"),
        ("no-such-host.invalid:6379", "nothing answers there"),
        ("ray://127.0.0.1:10001", "Ray Client"),
        ("somewhere", "neither HOST:PORT nor"),
        ("127.0.0.1:99999999", "nothing answers there"),
    ],
)
def test_an_address_where_there_is_no_cluster(sample, tmp_path, kfer_convert, address, reason):
    started = time.monotonic()
    done = kfer_convert(
        sample, "--to", "parquet", "--out", tmp_path / "out", "--engine", "ray", "--ray-address", address
    )
    assert time.monotonic() - started < SOON
    assert done.status == 2
    assert address in done.err
    assert reason in done.err
    assert not list(tmp_path.iterdir())


@needs_ray
def test_verifying_looks_for_the_cluster_that_converting_looks_for(
    sample, tmp_path, kfer_convert, monkeypatch
):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    for command in (("verify", tmp_path), (sample, "--to", "parquet", "--out", tmp_path / "out")):
        assert "127.0.0.1:1: nothing answers there" in kfer_convert(*command, "--engine", "ray").err


@needs_ray
def test_an_address_where_something_else_answers(sample, tmp_path, kfer_convert, monkeypatch):
    monkeypatch.setattr(converters.engines.ray, "_CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        done = kfer_convert(
            sample, "--to", "parquet", "--out", tmp_path / "out", "--engine", "ray", "--ray-address", address
        )
    assert done.status == 2
    assert f"no Ray cluster could be connected to at {address}" in done.err
    assert not list(tmp_path.iterdir())


def test_without_ray_the_message_says_what_to_install(sample, tmp_path, kfer_convert, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = kfer_convert(sample, "--to", "parquet", "--out", tmp_path / "out", "--engine", "ray")
    assert done.status == 2
    assert "pip install 'kfer-convert[ray]'" in done.err


# Which failures of Ray's say nothing about the task, so that it is tried again.
RETRIED = """
    LocalRayletDiedError NodeDiedError ObjectFetchTimedOutError ObjectFreedError ObjectLostError
    ObjectReconstructionFailedError ObjectStoreFullError OutOfDiskError OutOfMemoryError OwnerDiedError
    PlasmaObjectNotAvailable RayCgraphCapacityExceeded RayChannelError RayChannelTimeoutError RayDirectTransportError
    RaySystemError ReferenceCountingAssertionError RpcError RuntimeEnvSetupError
    StreamingGeneratorReplayInconsistentError TaskUnschedulableError WorkerCrashedError
"""
# It was ours to call Ray otherwise; somebody stopped it on purpose; or it is of what is not used here, as actors.
NOT_RETRIED = """
    ActorAlreadyExistsError ActorDiedError ActorHandleNotFoundError ActorPlacementGroupRemoved ActorUnavailableError
    ActorUnschedulableError AsyncioActorExit AuthenticationError CrossLanguageError GetTimeoutError
    ObjectRefStreamEndOfStreamError OufOfBandObjectRefSerializationException PendingCallsLimitExceeded RayActorError
    RayError RayTaskError TaskCancelledError TaskPlacementGroupRemoved UnserializableException UserCodeException
"""


@needs_ray
def test_each_of_ray_s_exceptions_is_decided():
    from ray import exceptions

    from converters.engines.ray_driver import NODE_FAILURES

    kinds = [
        kind
        for kind in vars(exceptions).values()
        if isinstance(kind, type) and issubclass(kind, exceptions.RayError)
    ]
    assert {kind.__name__ for kind in kinds} <= {*RETRIED.split(), *NOT_RETRIED.split()}
    for kind in kinds:
        assert issubclass(kind, NODE_FAILURES) == (kind.__name__ in RETRIED.split())


@needs_ray
def test_what_a_failure_means():
    from ray import exceptions

    from converters.engines.ray_driver import explain

    died = explain(exceptions.NodeDiedError("The node is gone.\nSee the logs."))
    assert died == ("died", "NodeDiedError: The node is gone")
    kind, error = explain(exceptions.TaskCancelledError())
    assert (kind, type(error)) == ("failed", MachineError)
    # A worker that lacks this package.
    kind, error = explain(exceptions.RayTaskError("f", "trace", ImportError("no converters"), ip="10.0.0.1"))
    assert (kind, type(error)) == ("failed", CallError)
    assert "10.0.0.1" in str(error)
    assert "no converters" in str(error)


@needs_ray
def test_an_error_gets_out_of_the_worker_as_it_is():
    from converters.engines.ray_driver import _sendable

    for error in (
        DataError("damaged", Location("file", 3, 70)),
        OSError(28, "No space left on device", "file"),
    ):
        copy = pickle.loads(pickle.dumps(_sendable(error)))
        assert (type(copy), copy.args, str(copy)) == (type(error), error.args, str(error))
    stubborn = ValueError("strange")
    stubborn.reason = lambda: None  # cannot be pickled
    assert str(_sendable(stubborn)) == "ValueError: strange"


@needs_ray
def test_a_node_with_another_version_is_refused(tmp_path, monkeypatch):
    from converters.engines.ray_driver import run_task

    monkeypatch.chdir(tmp_path)
    job = Job(lambda shard, progress: progress("read", 3), str(tmp_path), {"pyarrow": "0"})
    with pytest.raises(CallError, match=r"node b of the Ray cluster has pyarrow .*, and this machine has 0"):
        run_task(job, FakeShard("shard"), "node b")
    counts, _ = run_task(replace(job, versions={}), FakeShard("shard"), "node b")
    assert counts == {"read": 3}
