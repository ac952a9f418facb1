"""The local engine: results in the order of the shards, whoever makes them; the first error ends the run soon."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from converters.engines.local import LocalEngine
from converters.errors import DataError
from converters.formats.tfrecord.source import open_tfrecords


def who(shard, progress):
    """Some work, and which process did it."""
    time.sleep(0.02)
    return shard, os.getpid()


class Noted:
    """Makes a file for each shard that is done."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, shard, progress):
        (self.folder / shard.key.replace("/", "-")).touch()
        return shard


class FailElsewhere:
    """Fails in every process but this one, whose second shard waits for that."""

    def __init__(self, failed):
        self.parent = os.getpid()
        self.failed = failed
        self.done = 0

    def __call__(self, shard, progress):
        if os.getpid() != self.parent:
            self.failed.touch()
            raise DataError("damaged")
        self.done += 1
        deadline = time.monotonic() + 120
        while self.done > 1 and not self.failed.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        return shard


@pytest.fixture
def shards(sample):
    found = open_tfrecords(sample).plan(3_000)
    assert len(found) > 30
    return found


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_shards(shards, workers):
    results = list(LocalEngine(workers).run(who, shards))
    assert [shard for shard, _ in results] == list(shards)
    processes = {process for _, process in results}
    assert os.getpid() in processes
    assert 1 <= len(processes) <= workers


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_passed_on_while_others_are_still_made(shards, tmp_path, workers):
    results = LocalEngine(workers).run(Noted(tmp_path), shards)
    assert next(results) == shards[0]
    assert len(list(tmp_path.iterdir())) < len(shards)  # a generator that waited for all would have made all
    assert list(results) == list(shards)[1:]
    assert len(list(tmp_path.iterdir())) == len(shards)


def test_an_error_elsewhere_ends_the_run_before_this_process_has_done_all(shards, tmp_path):
    task = FailElsewhere(tmp_path / "failed")
    with pytest.raises(DataError, match="damaged"):
        list(LocalEngine(2).run(task, shards))
    assert task.done < len(shards) - 1


LARGE = """
import os, signal, sys, threading, time
from pathlib import Path
from converters.engines.local import LocalEngine
from converters.errors import MachineError
from converters.formats.tfrecord.source import open_tfrecords

MADE, ENDED_BY = Path(sys.argv[2]), sys.argv[3]

def task(shard, progress):
    if os.getpid() == int(os.environ["PARENT"]):
        while not MADE.exists():
            time.sleep(0.001)
        # No other thread runs here meanwhile, so the worker comes no further than the pipe holds.
        sys.setswitchinterval(100)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass
        sys.setswitchinterval(0.005)
        if ENDED_BY == "an error here":
            raise ValueError("failed here")
        return shard
    MADE.touch()
    if ENDED_BY == "a signal there":
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return bytes(50_000_000)

if __name__ == "__main__":
    os.environ["PARENT"] = str(os.getpid())
    shards = open_tfrecords(Path(sys.argv[1])).plan(3_000)
    try:
        list(LocalEngine(2).run(task, shards))
    except (ValueError, MachineError) as error:
        print(error)
"""


def run_script(folder, text, *arguments):
    """Run a program of its own that does no more than it says."""
    script = folder / "script.py"
    script.write_text(text)
    return subprocess.run(
        [sys.executable, script, *arguments], env=environment(), capture_output=True, text=True, timeout=120
    )


def environment():
    return os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.mark.parametrize(
    ("ended_by", "expected"),
    [("an error here", "failed here"), ("a signal there", "a worker process was ended by SIGKILL")],
)
def test_a_run_ends_while_a_worker_sends_a_large_result(sample, tmp_path, ended_by, expected):
    """Half a result in a pipe is none; whoever waits for the rest of it waits for ever."""
    done = run_script(tmp_path, LARGE, sample, tmp_path / "made", ended_by)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(expected)


def unportable(shard, progress):
    """What no other process can be sent."""
    time.sleep(0.02)
    return lambda: shard


def test_a_result_that_cannot_be_sent_is_the_error_that_it_is(shards, capfd):
    with pytest.raises((AttributeError, pickle.PicklingError), match="pickle"):
        list(LocalEngine(2).run(unportable, shards))
    assert capfd.readouterr() == ("", "")


def test_a_program_ends_though_nobody_took_the_last_results(sample, tmp_path):
    text = SCRIPT.replace(
        "    results = list(LocalEngine(3).run(task, shards))",
        "    results = LocalEngine(3).run(task, shards)\n    next(results)\n    sys.exit(3)",
    )
    assert text != SCRIPT
    done = run_script(tmp_path, text, sample, "alone")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


SCRIPT = """
import os, signal, sys, threading, time
from pathlib import Path
from converters.engines.local import LocalEngine
from converters.formats.tfrecord.source import open_tfrecords

NOTED = []  # what this process does after its start; a process that is started anew knows nothing of it

def task(shard, progress):
    time.sleep(0.02)
    return shard, os.getpid(), list(NOTED), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

if __name__ == "__main__":
    NOTED.append("here")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if sys.argv[2] == "beside":
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    source = Path(sys.argv[1])
    shards = open_tfrecords(source).plan(3_000)
    results = list(LocalEngine(3).run(task, shards))
    assert [shard for shard, *_ in results] == list(shards)
    others = [(noted, default) for _, process, noted, default in results if process != os.getpid()]
    assert others
    print(others[0])
    assert all(other == others[0] for other in others)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks are made on Linux only")
@pytest.mark.parametrize(
    ("beside", "expected"), [("alone", "(['here'], True)"), ("beside", "([], True)")], ids=["alone", "beside"]
)
def test_workers_are_forked_where_no_thread_would_be_lost(sample, tmp_path, beside, expected):
    done = run_script(tmp_path, SCRIPT, sample, beside)
    assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="forks are made on Linux only")
def test_forked_workers_end_with_the_process_that_made_them(sample, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT.replace("time.sleep(0.02)", "os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)")
    )
    with subprocess.Popen(
        [sys.executable, script, sample, "alone"], env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        workers = {int(process.stdout.readline()) for _ in range(3)} - {process.pid}
        process.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() and _runs(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers outlived the process that made them"
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="forks are made on Linux only")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_in_the_middle_of_a_fork_ends_the_program_and_nothing_is_printed(sample, tmp_path, name):
    strike = f"    signal.signal(signal.{name}, lambda *_: sys.exit(1))\n"
    strike += f"    strike = lambda: os.kill(os.getpid(), signal.{name})\n"
    strike += "    os.register_at_fork(after_in_parent=strike, after_in_child=strike)\n"
    text = SCRIPT.replace("    source = Path", f"{strike}    source = Path")
    done = run_script(tmp_path, text, sample, "alone")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def _runs(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
