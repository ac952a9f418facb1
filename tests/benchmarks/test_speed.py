"""The benchmarks run: on little data, and without any time being asserted."""

import subprocess
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest

HERE = Path(__file__).parent


def printed_by(*command: object) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_benchmark_prints_its_tables(tmp_path):
    printed = printed_by(HERE / "speed.py", "--quick", "--only-ours", "--runs", 1, "--folder", tmp_path)
    assert printed.count("| kfer-convert --to parquet --workers 1 | 1 |") == 3
    assert printed.count("| kfer-convert --to parquet | 2 |") == 3
    assert "| kfer-convert verify (Parquet) | 1 |" in printed
    assert "| 20 MB images: peak MB of a process, `kfer-convert --to jpeg` | ≤ 400.00 |" in printed
    assert not list(tmp_path.iterdir())


def test_the_benchmark_of_loading_prints_its_table(tmp_path):
    missing = [package for package in ("torch", "datasets", "webdataset") if find_spec(package) is None]
    if missing:
        pytest.skip(f"{missing} are not installed")
    printed_by("-m", "converters", "sample", tmp_path / "source", "--records", 200, "--quiet")
    some = ["--config", "6_basic_emo", "--split", "train", "--out", tmp_path / "outputs", "--quiet"]
    printed_by("-m", "converters", tmp_path / "source", "--to", "jpeg,webdataset", *some)
    rows = printed_by(HERE / "loading.py", tmp_path / "outputs", "--runs", 1).splitlines()
    assert "| parquet | no output | | |" in rows
    (streamed,) = (row.split(" | ") for row in rows if row.startswith("| webdataset"))
    assert int(streamed[2].replace(",", "")) > 0
    assert streamed[3] == "no index |"


@pytest.mark.parametrize("program", ["tfrecord", "tensorflow"])
def test_an_alternative_writes_all_records(program, tmp_path):
    # Not find_spec: a folder of the tests has this name, too.
    if program not in {distribution.name for distribution in distributions()}:
        pytest.skip(f"{program} is not installed")
    printed_by(HERE / "shapes.py", "12 features, 6 ragged", tmp_path / "source", 30)
    out = tmp_path / "out"
    printed_by(HERE / "alternatives.py", program, "12 features, 6 ragged", tmp_path / "source", out)
    table = pq.read_table(out / "train.parquet")
    assert (table.num_rows, table.num_columns) == (30, 12)


def test_the_benchmark_of_the_parser_prints_its_table():
    printed = printed_by(HERE / "parser.py", "--runs", 1)
    assert printed.count("\n") == 10
    assert "| Object Detection, any order |" in printed
