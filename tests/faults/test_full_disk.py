"""A disk that is really full: a small tmpfs of its own, and the system's limit on the size of files."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import digests, tree, write_records

from converters.sample.writer import make_sample

SIZE = 2 << 20


def command(source: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "converters", str(source), "--out", str(out), "-q", *more]


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A sample that is larger than the small disk, in many shards that are not."""
    folder = tmp_path_factory.mktemp("large") / "tfrecords"
    make_sample(folder, records=2700, workers=1)
    return folder


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A tmpfs of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs (root on Linux), to have a disk that is full")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def grow(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@pytest.mark.parametrize("to", ["parquet", "jpeg", "hf"])
def test_an_output_that_cannot_fit_is_refused_before_it_begins(large, disk, to):
    before = tree(large)
    result = subprocess.run(
        command(large, disk / "out", "--to", to), capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "MB are needed in" in line
    assert "MB are free" in line
    assert list(disk.iterdir()) == []
    assert tree(large) == before


@pytest.mark.parametrize(("to", "workers"), [("parquet", "1"), ("jpeg", "2"), ("hf", "1")])
def test_a_disk_that_fills_up_stops_the_run_and_the_next_one_goes_on(large, disk, tmp_path, to, workers):
    before = tree(large)
    more = ["--to", to, "--max-shard-size", "300000", "--workers", workers]
    subprocess.run(command(large, tmp_path / "expected", *more), check=True)
    needed = sum(path.stat().st_size for path in large.glob("*.tfrecords"))
    grow(disk, int(needed * 0.7))
    out = disk / "out"
    result = subprocess.run(command(large, out, *more), capture_output=True, text=True, check=False)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "No space left on device" in line
    assert "MB are needed in" in line
    assert "Nothing was published, and the source is as it was" in line
    assert "kept in" in line
    assert not out.exists()
    assert tree(large) == before
    assert shutil.disk_usage(disk).free > 0
    grow(disk, 64 << 20)
    again = subprocess.run(
        [part for part in command(large, out, *more, "--json") if part != "-q"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(again.stdout)["resumed_shards"] > 0
    assert digests(out) == digests(tmp_path / "expected")
    assert [path.name for path in disk.iterdir()] == ["out"]


def test_a_limit_on_the_size_of_files_is_an_error_in_words(large, tmp_path):
    """EFBIG, which a quota of the process gives."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = subprocess.run(
        command(large, tmp_path / "out", "--to", "parquet"),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "File too large" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="a device that is always full: /dev/full")
def test_output_that_cannot_be_printed_does_not_undo_what_is_published(source, tmp_path, truth):
    write_records(source / "6_basic_emo_test.tfrecords", truth["6_basic_emo", "test"])
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [part for part in command(source, tmp_path / "out", "--to", "parquet") if part != "-q"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert "Traceback" not in result.stderr
    assert (tmp_path / "out" / "MANIFEST.json").is_file()
