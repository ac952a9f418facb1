"""Times this program on the full-size sample against what else is at hand, side by side in one run.

    python tests/benchmarks/speed.py [--runs 5] [--folder /dev/shm]

Makes the full-size synthetic sample on a memory file system, runs every program in turn, several times over, and
prints tables in Markdown: medians and ratios, then how time and memory grow with the data and with the workers.
Programs whose package is not installed are listed as such. No time is asserted: it is no test.

A program's CPU time and peak memory are those of its process and of all that this one waited for; the peak is that
of the largest process.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

CONVERT = [sys.executable, "-m", "converters"]

# What the parsers of TensorFlow are told about a file, by the width of its labels.
_FORM = """
import sys, pathlib, tensorflow as tf
source, out = map(pathlib.Path, sys.argv[1:])
def form(path):
    width = {"6": 6, "2": 22, "m": 24}[path.name[0]]
    features = {k: tf.io.FixedLenFeature([], tf.int64) for k in ("height", "width", "depth")}
    return features | {"image_raw": tf.io.FixedLenFeature([], tf.string),
                       "label": tf.io.FixedLenFeature([width], tf.int64)}
"""

# The loop of the authors' notebook: record after record, here into JPEG files. Nothing is read back.
NOTEBOOK_LOOP = (
    _FORM
    + """
for path in sorted(source.glob("*.tfrecords")):
    folder = out / path.stem
    folder.mkdir()
    for number, record in enumerate(tf.data.TFRecordDataset(str(path))):
        parsed = tf.io.parse_single_example(record, form(path))
        label = parsed["label"].numpy()
        (folder / f"{number}.jpg").write_bytes(parsed["image_raw"].numpy())
"""
)

# The way that `datasets` documents for data of any kind.
FROM_GENERATOR = (
    _FORM
    + """
from datasets import Dataset
def records(path):
    for parsed in tf.data.TFRecordDataset(str(path)).map(lambda record: tf.io.parse_single_example(record, form(path))):
        row = {name: value.numpy() for name, value in parsed.items()}
        yield {"image": {"bytes": row["image_raw"], "path": None}, "label": row["label"].tolist(),
               "height": int(row["height"]), "width": int(row["width"]), "depth": int(row["depth"])}
for path in sorted(source.glob("*.tfrecords")):
    data = Dataset.from_generator(records, gen_kwargs={"path": path}, cache_dir=str(out / "cache"))
    data.to_parquet(out / (path.stem + ".parquet"))
"""
)

# Batched TensorFlow, the fastest that it is likely to be written.
TENSORFLOW_BATCHES = (
    _FORM
    + """
import pyarrow as pa, pyarrow.parquet as pq
for path in sorted(source.glob("*.tfrecords")):
    tables = []
    for batch in tf.data.TFRecordDataset(str(path)).batch(1024):
        parsed = tf.io.parse_example(batch, form(path))
        tables.append(pa.table({k: list(v.numpy()) for k, v in parsed.items()}))
    pq.write_table(pa.concat_tables(tables), out / (path.stem + ".parquet"))
"""
)

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


@dataclass(frozen=True)
class Program:
    """A command that is timed.

    Attributes:
        name: what the tables call it.
        command: its arguments.
        needs: the package without which it cannot run.
        slow: whether it takes so long that it is run less often.
        makes_folder: whether the output folder must be there before it starts.
    """

    name: str
    command: Sequence[object]
    needs: str | None = None
    slow: bool = False
    makes_folder: bool = False


@dataclass(frozen=True)
class Run:
    """What one run of a program took: seconds by the clock and of CPU, and the peak memory in bytes."""

    seconds: float
    cpu: float
    peak: int


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    memory_folder = Path("/dev/shm")
    default = memory_folder if memory_folder.is_dir() else Path(tempfile.gettempdir())
    options.add_argument("--folder", type=Path, default=default, help="where to work; 6 GB are used")
    options.add_argument("--source", type=Path, help="a full-size sample that is there already")
    options.add_argument("--records", type=int, help="make a smaller sample")
    options.add_argument("--runs", type=int, default=5, help="of each program")
    options.add_argument("--slow-runs", type=int, default=1, help="of those that take half a minute or more")
    options.add_argument("--growth", type=int, nargs="*", default=[1, 3, 10], help="multiples of the data")
    options.add_argument("--growth-runs", type=int, default=3)
    options.add_argument("--only-ours", action="store_true", help="leave the Python alternatives out")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        source = chosen.source or make_sample(folder / "source", chosen.records)
        records = side_by_side(folder, source, chosen.runs, chosen.slow_runs, only_ours=chosen.only_ours)
        growth(folder, source, records, chosen.growth, chosen.growth_runs)


def make_sample(source: Path, records: int | None) -> Path:
    size = ["--full"] if records is None else ["--records", records]
    run([*CONVERT, "sample", source, *size, "--quiet"])
    return source


def programs(folder: Path, source: Path, *, only_ours: bool) -> list[Program]:
    """All programs, in the order of the table. What they compare with is made in ``folder`` first."""
    out, parquet, jpeg, tar = folder / "out", folder / "parquet", folder / "jpeg", folder / "jpeg.tar"
    run([*CONVERT, source, "--to", "parquet", "--out", parquet, "--quiet"])
    run([*CONVERT, source, "--to", "jpeg", "--out", jpeg, "--quiet"])
    run(["tar", "cf", tar, "-C", jpeg, "."])
    shutil.rmtree(jpeg)

    def convert(to: str, *more: object) -> list[object]:
        return [*CONVERT, source, "--to", to, "--out", out, "--quiet", *more]

    unpack = f"tar xf {tar} -C {out} && cd {out} && find . -type f -print0 | xargs -0 sha256sum"
    ours = [
        Program("cat *.tfrecords | sha256sum", ["sh", "-c", f"cat {source}/*.tfrecords | sha256sum"]),
        Program("kfer-convert --to parquet", convert("parquet")),
        Program("kfer-convert --to parquet --workers 1", convert("parquet", "--workers", 1)),
        Program("kfer-convert --to hf", convert("hf")),
        Program("import datasets", [sys.executable, "-c", "import datasets"], "datasets"),
        Program("tar x; sha256sum (JPEG)", ["sh", "-c", unpack], makes_folder=True),
        Program("kfer-convert --to jpeg", convert("jpeg")),
        Program("kfer-convert --to jpeg --workers 1", convert("jpeg", "--workers", 1)),
        Program("sha256sum -c (Parquet)", ["sh", "-c", f"cd {parquet} && sha256sum -c --quiet SHA256SUMS"]),
        Program("kfer-convert verify (Parquet)", [*CONVERT, "verify", parquet, "--quiet"]),
        Program("kfer-convert --help", [*CONVERT, "--help"]),
    ]
    if only_ours:
        return ours

    def script(name: str, code: str, needs: str, *, slow: bool) -> Program:
        return Program(name, [sys.executable, "-c", code, source, out], needs, slow, makes_folder=True)

    return [
        *ours,
        script("tfrecord (PyPI) to Parquet, no CRC", TFRECORD_LOOP, "tfrecord", slow=False),
        script("TensorFlow in batches to Parquet", TENSORFLOW_BATCHES, "tensorflow", slow=False),
        script("Dataset.from_generator over tf.data to Parquet", FROM_GENERATOR, "tensorflow", slow=True),
        script("TensorFlow record by record to JPEG", NOTEBOOK_LOOP, "tensorflow", slow=True),
    ]


def side_by_side(folder: Path, source: Path, runs: int, slow_runs: int, *, only_ours: bool) -> int:
    """Time all programs in turn and print the tables; returns the number of records."""
    out = folder / "out"
    found: dict[str, list[Run]] = defaultdict(list)
    timed = programs(folder, source, only_ours=only_ours)
    manifest = json.loads((folder / "parquet" / "MANIFEST.json").read_text("utf-8"))
    records = sum(split["fingerprint"]["records"] for split in manifest["splits"])
    for number in range(runs):
        for program in timed:
            installed = program.needs is None or find_spec(program.needs) is not None
            if installed and (number < slow_runs or not program.slow):
                found[program.name].append(measured(program.command, out, make=program.makes_folder))
    print(f"{records:,} records, {size_of(source) / 1e6:,.0f} MB, {os.cpu_count()} cores; medians\n")
    seconds = {name: statistics.median(run.seconds for run in done) for name, done in found.items()}
    base = seconds["cat *.tfrecords | sha256sum"]
    head = ["program", "runs", "seconds", "CPU seconds", "× `cat \\| sha256sum`", "records/s", "peak MB"]
    rows = []
    for program in timed:
        if program.name not in found:
            rows.append([program.name, "not installed", *[""] * 5])
            continue
        done, median = found[program.name], seconds[program.name]
        cpu = statistics.median(run.cpu for run in done)
        rate = "" if program.name.endswith(("--help", "datasets")) else f"{records / median:,.0f}"
        peak = max(run.peak for run in done) / 1e6
        rows.append(
            [
                program.name,
                len(done),
                f"{median:.2f}",
                f"{cpu:.2f}",
                f"{median / base:.2f}",
                rate,
                f"{peak:.0f}",
            ]
        )
    print_table(head, rows)
    ratios(seconds)
    shutil.rmtree(folder / "parquet")
    (folder / "jpeg.tar").unlink()
    return records


def ratios(seconds: dict[str, float]) -> None:
    """Print how the programs that do the same compare."""
    pairs = [
        ("kfer-convert --to parquet", "cat *.tfrecords | sha256sum"),
        ("kfer-convert --to jpeg", "tar x; sha256sum (JPEG)"),
        ("kfer-convert verify (Parquet)", "sha256sum -c (Parquet)"),
        ("kfer-convert --to hf", "kfer-convert --to parquet"),
        ("tfrecord (PyPI) to Parquet, no CRC", "kfer-convert --to parquet"),
        ("TensorFlow in batches to Parquet", "kfer-convert --to parquet"),
        ("Dataset.from_generator over tf.data to Parquet", "kfer-convert --to parquet"),
        ("TensorFlow record by record to JPEG", "kfer-convert --to jpeg"),
    ]
    rows = [
        [first, second, f"{seconds[first] / seconds[second]:.2f}", f"{seconds[first] - seconds[second]:+.2f}"]
        for first, second in pairs
        if first in seconds and second in seconds
    ]
    print_table(["this", "against this", "times as long", "seconds more"], rows)


def growth(folder: Path, source: Path, records: int, multiples: Sequence[int], runs: int) -> None:
    """Print how time and memory of a conversion to Parquet grow with the data, with one worker and with two."""
    rows = []
    for multiple in multiples:
        larger = multiplied(source, folder / f"x{multiple}", multiple)
        found: dict[int, list[Run]] = {1: [], 2: []}
        for _ in range(runs):
            for workers, done in found.items():
                out = folder / "out"
                command = [*CONVERT, larger, "--to", "parquet", "--out", out, "-q", "--workers", workers]
                done.append(measured(command, out, make=False))
        shutil.rmtree(larger)
        one, two = (statistics.median(run.seconds for run in done) for done in found.values())
        peaks = [f"{max(run.peak for run in done) / 1e6:.0f}" for done in found.values()]
        times = [f"{one:.2f}", f"{two:.2f}", f"{one / two:.2f}"]
        rows.append([f"{multiple} ×", f"{records * multiple:,}", *times, *peaks])
    if rows:
        head = ["data", "records", "seconds, 1 worker", "2 workers", "times as fast"]
        print_table([*head, "peak MB, 1 worker", "2 workers"], rows)


def multiplied(source: Path, folder: Path, multiple: int) -> Path:
    """A dataset whose files are the source's, each several times over, with nothing published to compare with."""
    folder.mkdir()
    description = json.loads((source / "dataset.json").read_text("utf-8"))
    for config in description["configs"].values():
        for split in config["splits"].values():
            for key in split.keys() - {"file"}:
                del split[key]
    (folder / "dataset.json").write_text(json.dumps(description), "utf-8")
    for path in source.glob("*.tfrecords"):
        with (folder / path.name).open("wb") as file:
            for _ in range(multiple):
                with path.open("rb") as original:
                    shutil.copyfileobj(original, file)
    return folder


def measured(command: Sequence[object], out: Path, *, make: bool) -> Run:
    """Run a command that must succeed; its output folder is removed before and after."""
    shutil.rmtree(out, ignore_errors=True)
    if make:
        out.mkdir()
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    shutil.rmtree(out, ignore_errors=True)
    if status:
        raise SystemExit(f"failed: {' '.join(map(str, command))}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def run(command: Sequence[object]) -> None:
    subprocess.run(list(map(str, command)), check=True)


def size_of(source: Path) -> int:
    return sum(path.stat().st_size for path in source.glob("*.tfrecords"))


def print_table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        cells = [str(cell) if row is head else str(cell).replace("|", "\\|") for cell in row]
        print(f"| {' | '.join(cells)} |", flush=True)
    print()


if __name__ == "__main__":
    main()
