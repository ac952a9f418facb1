"""The Ray engine: the same bytes as in one process, whatever dies; an error of the data is tried once and told in full."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from converters.engines import ray as engine
from converters.engines.ray import (
    Begun,
    Counted,
    Died,
    Failed,
    Finished,
    RayEngine,
    Slots,
)
from converters.errors import CallError, DataError, Location, MachineError

pytest.importorskip("ray", reason="Ray is not installed: pip install 'kfer-convert[ray]'")

SHARD_SIZE = ("--max-shard-size", "20000")
NODES = 3
SECONDS = 60  # after which something hangs

# Formats that tell what they do: which shard is attempted, in which process. They take their time in Ray's workers.
MODULE = '''
import os, signal, sys, time
from pathlib import Path
from converters.formats.parquet import ParquetFormat

LOG, DOOMED = Path({log!r}), Path({doomed!r})


class Slow(ParquetFormat):
    """Parquet that takes its time, and never ends on a node that is doomed."""

    def write(self, batches, shard, folder):
        with LOG.open("a") as log:
            log.write(f"{{shard.key}} {{os.getpid()}}\\n")
        paths = super().write(batches, shard, folder)
        if "ray" in sys.modules:
            doomed = DOOMED.exists() and DOOMED.read_text() == str(os.getppid())
            time.sleep(60 if doomed else 0.1)
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
        MODULE.format(log=str(log), doomed=str(folder / "doomed"), deadly=DEADLY)
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow_parquet\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[kfer_convert.formats]\nslow = slow_parquet:Slow\ndeadly = slow_parquet:Deadly\nfull = slow_parquet:Full\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        from ray.cluster_utils import Cluster

        nodes = Cluster()
        try:
            for _ in range(NODES):
                nodes.add_node(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)
            yield SimpleNamespace(nodes=nodes, address=nodes.address, log=log, doomed=folder / "doomed")
        finally:
            nodes.shutdown()
            for number, handler in handlers.items():
                signal.signal(number, handler)


@pytest.fixture
def on_cluster(cluster):
    """The options for a run on the cluster."""
    cluster.log.unlink(missing_ok=True)
    return ("--engine", "ray", "--ray-address", cluster.address, *SHARD_SIZE)


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


def test_a_full_disk_is_told_as_here(cluster, on_cluster, sample, tmp_path, run):
    done = run(sample, "--to", "full", "--out", tmp_path / "out", *on_cluster)
    assert done.status == 1
    assert "No space left on device (" in done.err
    assert "MB are free" in done.err or "free" in done.err


def test_ctrl_c_ends_at_once_and_what_is_finished_is_kept(cluster, on_cluster, sample, tmp_path, run, start):
    command = (sample, "--to", "slow", "--out", tmp_path / "out", *on_cluster)
    process = start(*command)
    until(lambda: len(attempts(cluster)) > 6)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, err = process.communicate(timeout=SECONDS)
    assert time.monotonic() - started < 2
    assert process.returncode == 130
    assert "kept in" in err
    assert "Traceback" not in err
    running = {process for _, process in attempts(cluster)}
    until(lambda: not any(map(is_alive, running)))
    # The cluster is still up, and the same command goes on.
    done = run(*command)
    assert done.status == 0
    assert "Taken up" in done.out
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.fixture
def own_ray():
    """A folder for a Ray that is started here; its processes are known by it. (Paths of sockets must be short.)"""
    with tempfile.TemporaryDirectory(prefix="kfer", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def processes(folder: Path) -> list[str]:
    listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line]


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
    assert time.monotonic() - started < 2
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
    until(lambda: not processes(own_ray))
    assert not (tmp_path / "out").exists()


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
    assert time.monotonic() - started < 10
    assert done.status == 2
    assert address in done.err
    assert reason in done.err
    assert not list(tmp_path.iterdir())
