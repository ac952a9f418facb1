"""A fault at every system call that changes a file: it fails, it writes less than asked, or it kills the process.

A library preloaded into the command (``inject.c``) does it, so pyarrow's own calls are struck like Python's. After
each fault the destination must be absent or complete, and the same command must then give the very bytes of a run
that nothing disturbed. ``KFER_CONVERT_ALL_FAULTS=1`` tries every errno at every call instead of taking turns, strikes
hf too, and kills after calls as well as before them.
"""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import digests, tree

from converters.sample.writer import make_sample

ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
KILL_BEFORE, KILL_AFTER, SHORT = -1, -2, -3
# Two shards of one split; in a format of many files, of a small one.
PART = {
    "parquet": ("--config", "multi-label", "--split", "train", "--max-shard-size", "14000"),
    "hf": ("--config", "multi-label", "--split", "train", "--max-shard-size", "14000"),
    "jpeg": ("--config", "22_emo", "--split", "train", "--max-shard-size", "8000"),
}
CASES_EACH = os.environ.get("KFER_CONVERT_ALL_FAULTS", "") != ""
# The calls of hf are those of parquet, and what a call leaves behind when it has returned, the next one finds.
FORMATS = ("parquet", "jpeg", "hf") if CASES_EACH else ("parquet", "jpeg")
KILLS = [("parquet", KILL_BEFORE), ("jpeg", KILL_BEFORE), *[("parquet", KILL_AFTER)] * CASES_EACH]


class Harness:
    """Runs the command in processes of its own, with a fault; see ``harness.py``."""

    def __init__(self, library: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("harness.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "LD_PRELOAD": str(library)},
        )

    def run(self, *arguments: object, **fault: float) -> dict:
        request = {"arguments": [str(argument) for argument in arguments], **fault}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)


@pytest.fixture(scope="session")
def harness(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler (cc), to build the library that injects the faults")
    library = tmp_path_factory.mktemp("inject") / "inject.so"
    source = Path(__file__).with_name("inject.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    started = Harness(library)
    yield started
    started.close()


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "tfrecords"
    make_sample(folder, records=24, workers=1)
    return folder


class Case:
    """One command, its undisturbed output, and what must hold after a fault."""

    def __init__(self, harness: Harness, source: Path, folder: Path, name: str) -> None:
        self.harness = harness
        self.source = source
        self.before = tree(source)
        self.folder = folder
        self.out = folder / "out"
        self.command = (source, "--to", name, "--out", self.out, "-q", *PART[name])
        undisturbed = harness.run(*self.command)
        assert undisturbed["status"] == 0, undisturbed["errors"]
        self.calls = undisturbed["calls"]
        self.expected = digests(self.out)
        self.clear()

    def clear(self) -> None:
        for path in (self.out, self.folder / "out.incomplete"):
            shutil.rmtree(path, ignore_errors=True)
        assert list(self.folder.iterdir()) == []

    def check(self, result: dict) -> bool:
        """After a fault: all is published, or nothing is."""
        published = self.out.exists()
        assert "Traceback" not in result["errors"], result
        assert tree(self.source) == self.before
        if published:
            assert digests(self.out) == self.expected
        return published

    def check_rerun(self) -> float:
        """The next run completes, and leaves nothing behind; the seconds that it took."""
        again = self.harness.run(*self.command)
        assert again["status"] == 0, again["errors"]
        assert digests(self.out) == self.expected
        assert list(self.folder.iterdir()) == [self.out]
        self.clear()
        return again["seconds"]


@pytest.fixture
def case(harness, small, tmp_path):
    def make(name: str) -> Case:
        folder = tmp_path / "destination"
        folder.mkdir()
        return Case(harness, small, folder, name)

    return make


@pytest.mark.parametrize("name", FORMATS)
def test_a_call_that_fails_publishes_nothing_and_says_what_to_do(case, name):
    case = case(name)
    struck = Counter()
    for call in range(1, len(case.calls) + 1):
        for error in ERRNOS if CASES_EACH else [ERRNOS[call % 3]]:
            result = case.harness.run(*case.command, call=call, mode=error)
            struck[result["calls"][call - 1]] += 1
            published = case.check(result)
            lines = result["errors"].splitlines()
            if published:
                # Struck where only what is left over was being cleared away.
                assert result["status"] == 0, result
                assert lines == []
                case.clear()
                continue
            assert result["status"] == 1, result
            assert len(lines) == 1, result
            assert os.strerror(error) in lines[0]
            assert "Nothing was published, and the source is as it was" in lines[0]
            assert "are needed in" in lines[0]
            case.check_rerun()
    assert {"write", "open", "rename", "fsync", "mkdir"} <= set(struck)
    assert sum(struck.values()) >= len(case.calls)
    print(f"{name}: {sum(struck.values())} failing calls: {dict(struck)}")


@pytest.mark.parametrize("name", ["parquet", "jpeg"])
def test_a_write_that_takes_less_than_asked_loses_nothing(case, name):
    case = case(name)
    writes = [number for number, call in enumerate(case.calls, 1) if call in ("write", "pwrite")]
    assert len(writes) > 5
    for call in writes:
        result = case.harness.run(*case.command, call=call, mode=SHORT)
        assert result["status"] == 0, result
        assert case.check(result)
        case.clear()


@pytest.mark.parametrize(("name", "mode"), KILLS)
def test_a_process_killed_at_any_call_leaves_all_or_nothing(case, name, mode):
    case = case(name)
    killed = resumed = 0
    for call in range(1, len(case.calls) + 1):
        result = case.harness.run(*case.command, call=call, mode=mode)
        assert result["status"] == -signal.SIGKILL, result
        killed += 1
        if case.check(result):
            # The folder that it grew in may still be there; the next run with --overwrite clears it away.
            again = case.harness.run(*case.command, "--overwrite")
            assert again["status"] == 0, again["errors"]
            assert digests(case.out) == case.expected
            assert list(case.folder.iterdir()) == [case.out]
            case.clear()
            continue
        results = list(case.folder.glob("out.incomplete/shards/*.json"))
        again = case.harness.run(*case.command, "--json")
        assert again["status"] == 0, again["errors"]
        # Where a file of the split is being joined, the parts that shards have of it are gone: these are done again.
        lost = len(results) - json.loads(again["output"])["resumed_shards"]
        assert lost == 0 or (name == "jpeg" and 0 < lost <= len(results))
        resumed += bool(results)
        assert digests(case.out) == case.expected
        assert list(case.folder.iterdir()) == [case.out]
        case.clear()
    assert killed == len(case.calls)
    assert resumed > 10
    print(
        f"{name}: killed {'before' if mode == KILL_BEFORE else 'after'} each of {killed} calls, {resumed} resumed"
    )


def test_an_output_that_is_replaced_is_old_or_new_wherever_the_process_is_killed(case, small):
    case = case("parquet")
    old_command = (small, "--to", "parquet", "--out", case.out, "-q", "--config", "22_emo")
    assert case.harness.run(*old_command)["status"] == 0
    old = digests(case.out)
    saved = case.folder.with_name("old")
    shutil.copytree(case.out, saved)
    calls = len(case.harness.run(*case.command, "--overwrite")["calls"])
    assert digests(case.out) == case.expected
    seen = set()
    for call in range(1, calls + 1):
        case.clear()
        shutil.copytree(saved, case.out)
        result = case.harness.run(*case.command, "--overwrite", call=call, mode=KILL_BEFORE)
        assert result["status"] == -signal.SIGKILL
        if not case.out.exists():
            # Between the two renames: the next run puts the old output back before it does anything else.
            seen.add("absent")
            again = case.harness.run(*case.command)
            assert again["status"] == 2
            assert "exists already" in again["errors"]
            assert digests(case.out) == old
            continue
        found = digests(case.out)
        assert found in (old, case.expected)
        seen.add("new" if found == case.expected else "old")
    assert seen == {"old", "absent", "new"}


def test_a_hundred_runs_killed_at_random_moments(case):
    case = case("parquet")
    moments = random.Random(20)
    runs = killed = partial = 0
    seconds = case.check_rerun()
    # How long a run takes changes with what else the machine does, so it is measured all the while. Where too many
    # were faster, or were killed before they had begun, there are more runs.
    while runs < 100 or (runs < 400 and (killed <= 50 or partial <= 20)):
        runs += 1
        result = case.harness.run(*case.command, kill_after=moments.uniform(0, seconds))
        killed += result["status"] == -signal.SIGKILL
        published = case.check(result)
        partial += not published and (case.folder / "out.incomplete").exists()
        if published:
            case.clear()
        else:
            seconds = case.check_rerun()
    assert killed > 50
    assert partial > 20
    print(f"{killed} of {runs} runs killed at random moments; {partial} left a staging folder")


def test_ctrl_c_ends_at_once_and_says_what_is_kept(harness, sample, tmp_path):
    out = tmp_path / "out"
    command = (sample, "--to", "parquet", "--out", out, "--max-shard-size", "3000")
    undisturbed = harness.run(*command)["seconds"]
    shutil.rmtree(out)
    seen, tried = set(), 0
    while True not in seen:
        tried += 1
        assert tried < 200
        # One moment after another of the time that a run takes, from its middle on: by then a shard is finished.
        wait = undisturbed * (0.5 + tried % 20 / 20)
        result = harness.run(*command, kill_after=wait, signal=signal.SIGINT)
        if result["status"] == 0:  # it was faster
            shutil.rmtree(out)
            continue
        assert result["status"] == 130, result
        assert result["seconds"] < 30
        assert "nothing was published" in result["errors"]
        seen.add("kept in" in result["errors"])
        assert not out.exists()
        assert (tmp_path / "out.incomplete").exists() == ("kept in" in result["errors"])
    again = harness.run(*command)
    assert again["status"] == 0
