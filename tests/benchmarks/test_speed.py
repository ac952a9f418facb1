"""The benchmark runs: on a tiny sample, and without any time being asserted."""

import subprocess
import sys
from pathlib import Path


def test_the_benchmark_prints_its_tables(tmp_path):
    script = Path(__file__).with_name("speed.py")
    small = ["--records", "45", "--runs", "1", "--growth", "2", "--growth-runs", "1", "--only-ours"]
    command = [sys.executable, script, *small, "--folder", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for row in (
        "kfer-convert --to parquet",
        "kfer-convert --to jpeg",
        "kfer-convert verify (Parquet)",
        "parquet | 2 ×",
        "`kfer-convert --to parquet` ÷ `cat *.tfrecords \\| sha256sum`",
    ):
        assert f"| {row} |" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_benchmark_of_the_parser_prints_its_table():
    command = [sys.executable, str(Path(__file__).with_name("parser.py")), "--runs", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("\n") == 10
    assert "| Object Detection, any order |" in done.stdout
