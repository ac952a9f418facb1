"""Times this program on the full-size sample against what else is at hand, side by side in one run.

    python tests/benchmarks/speed.py [--runs 5] [--folder /dev/shm]

Makes the full-size synthetic sample on a memory file system, runs every program in turn, several times over, and
prints tables in Markdown: medians and ratios, how time and memory grow with the data and with the workers, and which
of the project's targets were met. Programs whose package is not installed are listed as such. No time is asserted: it
is no test. Python may keep the bytecode of what it imports, as it does where this program was installed by pip.

A program's CPU time and peak memory are those of its process and of all that this one waited for; the peak is that
of the largest process.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

CONVERT = [sys.executable, "-m", "converters"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

# The names of the programs that are compared.
HASH = "cat *.tfrecords | sha256sum"
PARQUET = "kfer-convert --to parquet"
SHUFFLED = "kfer-convert --to parquet, features in random order"
HF = "kfer-convert --to hf"
JPEG = "kfer-convert --to jpeg"
DATASETS = "import datasets"
UNPACK = "tar x; sha256sum (JPEG)"
SUMS = "sha256sum -c (Parquet)"
VERIFY = "kfer-convert verify (Parquet)"
HELP = "kfer-convert --help"
TFRECORD = "tfrecord (PyPI) to Parquet, no CRC"
BATCHES = "TensorFlow in batches to Parquet"
GENERATOR = "Dataset.from_generator over tf.data"
GENERATOR_LOOP = "Dataset.from_generator over the notebook's loop"
NOTEBOOK = "the notebook's loop to JPEG"

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

# The way that `datasets` documents for data of any kind, over records that TensorFlow parses in its own threads ...
_TO_DATASETS = """
from datasets import Dataset
def rows(path):
    for parsed in parse(path):
        row = {name: value.numpy() for name, value in parsed.items()}
        yield {"image": {"bytes": row["image_raw"], "path": None}, "label": row["label"].tolist(),
               "height": int(row["height"]), "width": int(row["width"]), "depth": int(row["depth"])}
for path in sorted(source.glob("*.tfrecords")):
    data = Dataset.from_generator(rows, gen_kwargs={"path": path}, cache_dir=str(out / "cache"))
    data.to_parquet(out / (path.stem + ".parquet"))
"""
FROM_GENERATOR = (
    _FORM
    + """
def parse(path):
    return tf.data.TFRecordDataset(str(path)).map(lambda record: tf.io.parse_single_example(record, form(path)))
"""
    + _TO_DATASETS
)

# ... and over the loop of the authors' notebook, record after record.
FROM_GENERATOR_LOOP = (
    _FORM
    + """
def parse(path):
    for record in tf.data.TFRecordDataset(str(path)):
        yield tf.io.parse_single_example(record, form(path))
"""
    + _TO_DATASETS
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

# Writes the source anew, with the features of each record in an order of its own, as C++ protobuf leaves its maps.
SHUFFLE = """
import itertools, pathlib, random, shutil, sys
from converters.formats.tfrecord.strict_parser import parse_example
from converters.formats.tfrecord.framing import frame
from converters.formats.tfrecord.reader import RangeReader, SourceRange
source, folder = map(pathlib.Path, sys.argv[1:])
folder.mkdir()
shutil.copy(source / "dataset.json", folder)
chance = random.Random(1)
for path in sorted(source.glob("*.tfrecords")):
    with (folder / path.name).open("wb") as file:
        for frames in RangeReader(SourceRange(path, 0, path.stat().st_size, 0)).frames():
            for data in map(frames.data, range(len(frames.starts))):
                edges = [feature.position for feature in parse_example(data).features.values()]
                entries = [data[start:end] for start, end in itertools.pairwise([*edges, len(data)])]
                chance.shuffle(entries)
                file.write(frame(data[:edges[0]] + b"".join(entries)))
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
        records: whether it works on the records.
    """

    name: str
    command: Sequence[object]
    needs: str | None = None
    slow: bool = False
    makes_folder: bool = False
    records: bool = True


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
        print(describe_machine(), flush=True)
        found = side_by_side(folder, source, chosen.runs, chosen.slow_runs, only_ours=chosen.only_ours)
        grown = growth(folder, source, chosen.growth, chosen.growth_runs)
        print_targets(found, grown, start_up(folder))


def make_sample(source: Path, records: int | None) -> Path:
    size = ["--full"] if records is None else ["--records", records]
    run([*CONVERT, "sample", source, *size, "--quiet"])
    return source


def describe_machine() -> str:
    """A line on what this runs on."""
    names = ["pyarrow", "numpy", "tfrecord", "tensorflow", "datasets"]
    packages = ", ".join(f"{name} {version(name)}" for name in names if find_spec(name) is not None)
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    processor = models[0].split(":", 1)[1].strip() if models else platform.processor()
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {processor}; {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, {packages}; load before {load:.1f}\n"
    )


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
    other_order = folder / "shuffled"
    run([sys.executable, "-c", SHUFFLE, source, other_order])
    ours = [
        Program(HASH, ["sh", "-c", f"cat {source}/*.tfrecords | sha256sum"]),
        Program(PARQUET, convert("parquet")),
        Program(f"{PARQUET} --workers 1", convert("parquet", "--workers", 1)),
        Program(SHUFFLED, [*CONVERT, other_order, "--to", "parquet", "--out", out, "--quiet"]),
        Program(HF, convert("hf")),
        Program(DATASETS, [sys.executable, "-c", "import datasets"], "datasets", records=False),
        Program(UNPACK, ["sh", "-c", unpack], makes_folder=True),
        Program(JPEG, convert("jpeg")),
        Program(f"{JPEG} --workers 1", convert("jpeg", "--workers", 1)),
        Program(SUMS, ["sh", "-c", f"cd {parquet} && sha256sum -c --quiet SHA256SUMS"]),
        Program(VERIFY, [*CONVERT, "verify", parquet, "--quiet"]),
        Program(HELP, [*CONVERT, "--help"], records=False),
    ]
    if only_ours:
        return ours

    def script(name: str, code: str, needs: str, *, slow: bool) -> Program:
        return Program(name, [sys.executable, "-c", code, source, out], needs, slow, makes_folder=True)

    return [
        *ours,
        script(TFRECORD, TFRECORD_LOOP, "tfrecord", slow=False),
        script(BATCHES, TENSORFLOW_BATCHES, "tensorflow", slow=False),
        script(GENERATOR, FROM_GENERATOR, "tensorflow", slow=True),
        script(GENERATOR_LOOP, FROM_GENERATOR_LOOP, "tensorflow", slow=True),
        script(NOTEBOOK, NOTEBOOK_LOOP, "tensorflow", slow=True),
    ]


def side_by_side(
    folder: Path, source: Path, runs: int, slow_runs: int, *, only_ours: bool
) -> dict[str, list[Run]]:
    """Time all programs in turn and print the tables; returns the runs by program."""
    out = folder / "out"
    found: dict[str, list[Run]] = defaultdict(list)
    timed = programs(folder, source, only_ours=only_ours)
    manifest = json.loads((folder / "parquet" / "MANIFEST.json").read_text("utf-8"))
    records = sum(split["fingerprint"]["records"] for split in manifest["splits"])
    for number in range(max(runs, slow_runs)):
        for program in timed:
            installed = program.needs is None or find_spec(program.needs) is not None
            if installed and number < (slow_runs if program.slow else runs):
                found[program.name].append(measured(program.command, out, make=program.makes_folder))
    print(f"{records:,} records, {size_of(source) / 1e6:,.0f} MB; medians\n")
    rows = []
    for program in timed:
        if program.name not in found:
            rows.append([program.name, "not installed", *[""] * 5])
            continue
        done, median = found[program.name], seconds(found[program.name])
        numbers = [f"{median:.2f}", f"{cpu_seconds(done):.2f}", f"{median / seconds(found[HASH]):.2f}"]
        rate = f"{records / median:,.0f}" if program.records else ""
        rows.append([program.name, len(done), *numbers, rate, peak_mb(done)])
    print_table(["program", "runs", "s", "CPU s", "× `cat \\| sha256sum`", "records/s", "peak MB"], rows)
    print_ratios(found)
    for made in ("parquet", "shuffled"):
        shutil.rmtree(folder / made)
    (folder / "jpeg.tar").unlink()
    return found


def seconds(runs: Sequence[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


def cpu_seconds(runs: Sequence[Run]) -> float:
    return statistics.median(run.cpu for run in runs)


def peak_mb(runs: Sequence[Run]) -> int:
    return round(max(run.peak for run in runs) / 1e6)


def print_ratios(found: dict[str, list[Run]]) -> None:
    """Print how the programs that do the same compare."""
    pairs = [
        (PARQUET, HASH),
        (SHUFFLED, PARQUET),
        (HF, PARQUET),
        (JPEG, UNPACK),
        (VERIFY, SUMS),
        *((other, PARQUET) for other in (TFRECORD, BATCHES, GENERATOR, GENERATOR_LOOP)),
        (NOTEBOOK, JPEG),
    ]
    rows = []
    for first, second in pairs:
        if first in found and second in found:
            this, that = seconds(found[first]), seconds(found[second])
            rows.append([first, second, f"{this / that:.2f}", f"{this - that:+.2f}"])
    print_table(["this", "against this", "times as long", "s more"], rows)


def growth(
    folder: Path, source: Path, multiples: Sequence[int], runs: int
) -> dict[tuple[str, int, int], list[Run]]:
    """Print how time and memory grow with the data and the workers; the runs by format, multiple and workers.

    Raises:
        SystemExit: two workers made another output than one.
    """
    grown: dict[tuple[str, int, int], list[Run]] = defaultdict(list)
    rows = []
    for multiple in multiples:
        larger = multiplied(source, folder / f"x{multiple}", multiple)
        for to in ("parquet", "jpeg"):
            sums = set()
            for _ in range(runs):
                for workers in (1, 2):
                    out = folder / "out"
                    command = [*CONVERT, larger, "--to", to, "--out", out, "-q", "--workers", workers]
                    run = measured(command, out, make=False, keep=True)
                    sums.add((out / "SHA256SUMS").read_bytes())
                    shutil.rmtree(out)
                    grown[to, multiple, workers].append(run)
            if len(sums) > 1:
                raise SystemExit("the output depends on the workers")
            one, two = grown[to, multiple, 1], grown[to, multiple, 2]
            times = [f"{seconds(one):.2f}", f"{seconds(two):.2f}", f"{seconds(one) / seconds(two):.2f}"]
            rows.append([to, f"{multiple} ×", *times, peak_mb(one), peak_mb(two)])
        shutil.rmtree(larger)
    if rows:
        head = ["to", "data", "s, 1 worker", "s, 2 workers", "times as fast"]
        print_table([*head, "peak MB, 1 worker", "peak MB, 2 workers"], rows)
        print("The output of one worker and of two was the same, byte for byte.\n")
    return grown


def start_up(folder: Path) -> float:
    """Seconds that a conversion of next to nothing takes."""
    source, out = make_sample(folder / "tiny", 20), folder / "out"
    command = [*CONVERT, source, "--to", "parquet", "--out", out, "--quiet"]
    return seconds([measured(command, out, make=False) for _ in range(3)])


def print_targets(
    found: dict[str, list[Run]], grown: dict[tuple[str, int, int], list[Run]], start_up: float
) -> None:
    """Print the project's targets, and what of them was met in this run."""
    rows: list[list[object]] = []

    def at_most(what: str, measured: float, limit: float) -> None:
        rows.append([what, f"≤ {limit:.2f}", f"{measured:.2f}", "met" if measured <= limit else "missed"])

    def at_least(what: str, measured: float, limit: float) -> None:
        rows.append([what, f"≥ {limit:.2f}", f"{measured:.2f}", "met" if measured >= limit else "missed"])

    time = {name: seconds(runs) for name, runs in found.items()}
    at_most(f"`{PARQUET}` ÷ `{HASH}`", time[PARQUET] / time[HASH], 2.5)
    at_most(f"`{SHUFFLED}` ÷ `{HASH}`", time[SHUFFLED] / time[HASH], 2.5)
    for other, limit in ((TFRECORD, 2.5), (GENERATOR, 20), (GENERATOR_LOOP, 20)):
        if other in time:
            at_least(f"{other} ÷ `{PARQUET}`", time[other] / time[PARQUET], limit)
    at_most(f"`{JPEG}` ÷ {UNPACK}", time[JPEG] / time[UNPACK], 1.5)
    if DATASETS in time:
        at_most(f"s, `{HF}`: parquet + `{DATASETS}`", time[HF], time[PARQUET] + time[DATASETS])
    at_most(f"s, `{VERIFY}`: 1.5 × `{SUMS}` + 1", time[VERIFY], 1.5 * time[SUMS] + 1)
    for (to, multiple, workers), runs in grown.items():
        if multiple in (1, 10) and workers == 2:
            at_most(f"peak MB of a process, {to}, {multiple} × the data", peak_mb(runs), 250)
    for to in ("parquet", "jpeg"):
        for workers in (1, 2):
            if grown[to, 1, workers] and grown[to, 10, workers]:
                one, ten = (seconds(grown[to, multiple, workers]) for multiple in (1, 10))
                what = f"s, {to}, 10 × the data, {workers} worker(s): 10.5 × that of 1 × - start-up"
                at_most(what, ten, 10.5 * one - start_up)
        if grown[to, 10, 1]:
            speed_up = seconds(grown[to, 10, 1]) / seconds(grown[to, 10, 2])
            at_least(f"1 worker ÷ 2 workers, {to}, 10 × the data", speed_up, 1.6)
    at_most(f"CPU s, `{HELP}`", cpu_seconds(found[HELP]), 0.25)
    print_table(["target", "limit", "measured", ""], rows)


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


def measured(command: Sequence[object], out: Path, *, make: bool, keep: bool = False) -> Run:
    """Run a command that must succeed; its output folder is removed before and, unless it is to be kept, after."""
    shutil.rmtree(out, ignore_errors=True)
    if make:
        out.mkdir()
    start = time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if not keep:
        shutil.rmtree(out, ignore_errors=True)
    if status:
        raise SystemExit(f"failed: {' '.join(map(str, command))}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(elapsed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def run(command: Sequence[object]) -> None:
    subprocess.run(list(map(str, command)), check=True, env=ENVIRONMENT)


def size_of(source: Path) -> int:
    return sum(path.stat().st_size for path in source.glob("*.tfrecords"))


def print_table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        cells = [str(cell) if row is head else str(cell).replace("|", "\\|") for cell in row]
        print(f"| {' | '.join(cells)} |", flush=True)
    print()


if __name__ == "__main__":
    main()
