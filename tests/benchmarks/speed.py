"""Times this program on the full-size sample against what else is at hand, side by side in one run.

    python tests/benchmarks/speed.py [--runs 5] [--folder /dev/shm]

Makes the full-size synthetic sample, runs each program in turn, several times, and prints medians and ratios.
Rows whose program is not installed say so. Nothing here is a test: no time is asserted.
"""

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The loop that users of the PyPI package `tfrecord` write: no checksum is checked, nothing is read back.
TFRECORD_LOOP = """
import sys, pathlib, pyarrow as pa, pyarrow.parquet as pq
from tfrecord.reader import tfrecord_loader
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.tfrecords")):
    form = {"image_raw": "byte", "label": "int", "height": "int", "width": "int", "depth": "int"}
    rows = [{"image": bytes(r["image_raw"]), "label": r["label"].tolist(), "height": int(r["height"][0]),
             "width": int(r["width"][0]), "depth": int(r["depth"][0])} for r in tfrecord_loader(str(path), None, form)]
    pq.write_table(pa.Table.from_pylist(rows), pathlib.Path(sys.argv[2]) / (path.stem + ".parquet"))
"""

# Batched TensorFlow, the fastest that it is likely to be written.
TENSORFLOW_BATCHES = """
import sys, pathlib, tensorflow as tf, pyarrow as pa, pyarrow.parquet as pq
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.tfrecords")):
    width = {"6": 6, "2": 22, "m": 24}[path.name[0]]
    form = {k: tf.io.FixedLenFeature([], tf.int64) for k in ("height", "width", "depth")}
    form |= {"image_raw": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([width], tf.int64)}
    tables = []
    for batch in tf.data.TFRecordDataset(str(path)).batch(1024):
        parsed = tf.io.parse_example(batch, form)
        tables.append(pa.table({k: list(v.numpy()) for k, v in parsed.items()}))
    pq.write_table(pa.concat_tables(tables), pathlib.Path(sys.argv[2]) / (path.stem + ".parquet"))
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=5)
    memory_folder = Path("/dev/shm")
    default = memory_folder if memory_folder.is_dir() else Path(tempfile.gettempdir())
    options.add_argument("--folder", type=Path, default=default)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure(Path(folder), arguments.runs)


def measure(folder: Path, runs: int) -> None:
    source, out = folder / "source", folder / "out"
    convert = [sys.executable, "-m", "converters"]
    subprocess.run([*convert, "sample", source, "--full", "--quiet"], check=True)
    verified = folder / "verified"
    subprocess.run([*convert, source, "--to", "parquet", "--out", verified, "--quiet"], check=True)
    parquet = [*convert, source, "--to", "parquet", "--out", out, "-q"]
    programs = {
        "cat *.tfrecords | sha256sum": ["sh", "-c", f"cat {source}/*.tfrecords | sha256sum"],
        "kfer-convert --to parquet": parquet,
        "kfer-convert --to parquet --workers 2": [*parquet, "--workers", "2"],
        "kfer-convert --to hf": [*convert, source, "--to", "hf", "--out", out, "-q"],
        "kfer-convert --to jpeg": [*convert, source, "--to", "jpeg", "--out", out, "-q"],
        "kfer-convert verify (Parquet)": [*convert, "verify", verified, "-q"],
        "sha256sum -c (Parquet)": ["sh", "-c", f"cd {verified} && sha256sum -c --quiet SHA256SUMS"],
        "PyPI tfrecord to Parquet, nothing checked": [sys.executable, "-c", TFRECORD_LOOP, source, out],
        "TensorFlow in batches to Parquet": [sys.executable, "-c", TENSORFLOW_BATCHES, source, out],
    }
    needs = {
        "PyPI tfrecord to Parquet, nothing checked": "tfrecord",
        "TensorFlow in batches to Parquet": "tensorflow",
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    memory = dict.fromkeys(programs, 0)
    for _ in range(runs):
        for name, command in programs.items():
            if name in needs and importlib.util.find_spec(needs[name]) is None:
                continue
            shutil.rmtree(out, ignore_errors=True)
            if name in needs:
                out.mkdir()
            seconds, peak = timed([str(part) for part in command])
            times[name].append(seconds)
            memory[name] = max(memory[name], peak)
    base = statistics.median(times["cat *.tfrecords | sha256sum"])
    print(f"medians of {runs} runs on {os.cpu_count()} cores, 71,430 records\n")
    print("| program | seconds | × `cat \\| sha256sum` | peak memory of a process, MB |\n|---|---|---|---|")
    for name, seconds in times.items():
        if not seconds:
            print(f"| {name} | not installed | | |")
            continue
        median = statistics.median(seconds)
        cell = name.replace("|", "\\|")
        print(f"| {cell} | {median:.2f} | {median / base:.2f} | {memory[name] >> 10} |")


def timed(command: list[str]) -> tuple[float, int]:
    """Seconds and peak memory in KiB of a command; it must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, usage.ru_maxrss


if __name__ == "__main__":
    main()
