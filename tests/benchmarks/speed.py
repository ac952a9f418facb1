"""Times this program against what else is at hand, side by side in one run, on three shapes of data.

    python tests/benchmarks/speed.py [--runs 5] [--folder /dev/shm] [--quick] [--only-ours]

Makes the data on a memory file system, runs every program in turn, several times over, and prints tables in Markdown:
medians and ratios, how time and memory grow with the data, how fast the outputs are loaded, and which of the project's
targets were met. Programs whose package is not installed are listed as such. No time is asserted: it is no test.
Python may keep the bytecode of what it imports, as it does where this program was installed by pip.

A program's CPU time and peak memory are those of its process and of all that this one waited for; the peak is that
of the largest process. Ray's own processes are not among them.
"""

import argparse
import hashlib
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

from shapes import IMAGES, KFER, LARGE, RAGGED, SHAPES, Shape

HERE = Path(__file__).parent
CONVERT = [sys.executable, "-m", "converters"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
DIGEST = "openssl dgst -sha256" if shutil.which("openssl") else "sha256sum"

# The names of the programs that are compared.
HASH = f"cat | {DIGEST}"
PARQUET = "kfer-convert --to parquet"
JPEG = "kfer-convert --to jpeg"
UNPACK = f"tar x; {DIGEST} (JPEG)"
SUMS = f"{DIGEST} (Parquet)"
VERIFY = "kfer-convert verify (Parquet)"
HELP = "kfer-convert --help"
# Those of alternatives.py, what the tables call them, and the packages that they need.
ALTERNATIVES = {
    "tfrecord": ("tfrecord (PyPI) to Parquet, no CRC", ["tfrecord"]),
    "tensorflow": ("TensorFlow in batches to Parquet", ["tensorflow"]),
    "ray": ("Ray Data, read_tfrecords → write_parquet", ["ray", "tensorflow"]),
    "generator": ("Dataset.from_generator over tf.data", ["datasets", "tensorflow"]),
}
MANY = 10
"""How many times the data is there for what is measured as growth."""


class ProgramError(Exception):
    """A program did not succeed; the message is its last error line."""


@dataclass(frozen=True)
class Run:
    """What one run of a program took: seconds by the clock and of CPU, and the peak memory in bytes."""

    seconds: float
    cpu: float
    peak: int


class Runs(list[Run]):
    """All runs of one program on the same data."""

    seconds = property(lambda self: statistics.median(run.seconds for run in self))
    cpu = property(lambda self: statistics.median(run.cpu for run in self))
    peak_mb = property(lambda self: max(run.peak for run in self) / 1e6)


# By shape, program, number of workers (0: as it likes) and multiple of the data.
Found = defaultdict[tuple[Shape, str, int, int], Runs]


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    memory_folder = Path("/dev/shm")
    default = memory_folder if memory_folder.is_dir() else Path(tempfile.gettempdir())
    options.add_argument("--folder", type=Path, default=default, help="where to work; 10 GB are used")
    options.add_argument(
        "--runs", type=int, default=5, help="of each program; Ray Data and from_generator run once"
    )
    options.add_argument("--only-ours", action="store_true", help="without alternatives and loading")
    options.add_argument("--quick", action="store_true", help="little data, which says nothing about speed")
    chosen = options.parse_args(arguments)
    print(describe_machine(), flush=True)
    found: Found = defaultdict(Runs)
    sizes: dict[Shape, int] = {}
    for shape in SHAPES.values():
        with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
            folder = Path(name)
            source = make(shape, folder / "source", chosen.quick)
            sizes[shape] = sum(path.stat().st_size for path in source.glob("*.tfrecords"))
            print(
                f"### {shape.name}: {shape.records[chosen.quick]:,} records, {sizes[shape] / 1e6:,.0f} MB\n"
            )
            if shape is LARGE:
                print_memory(found, folder, source)
                continue
            side_by_side(found, shape, folder, source, chosen.runs, chosen.only_ours)
            growth(found, shape, folder, source, (chosen.runs + 1) // 2, sizes[shape])
            if shape is KFER and not chosen.only_ours:
                print_loading(folder, source)
    print_targets(found, sizes)


def describe_machine() -> str:
    """A line on what this runs on."""
    names = ["pyarrow", "numpy", "tfrecord", "tensorflow", "ray", "datasets", "torch", "webdataset"]
    packages = ", ".join(f"{name} {version(name)}" for name in names if find_spec(name) is not None)
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    processor = models[0].split(":", 1)[1].strip() if models else platform.processor()
    return (
        f"{os.cpu_count()} cores, {processor}; {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, {packages}; load before {os.getloadavg()[0]:.1f}\n"
    )


def make(shape: Shape, source: Path, quick: bool) -> Path:
    records = shape.records[quick]
    if shape is KFER:
        run([*CONVERT, "sample", source, "--quiet", *(["--records", records] if quick else ["--full"])])
    else:
        run([sys.executable, HERE / "shapes.py", shape.name, source, records])
    return source


def convert(source: Path, program: str, out: Path, workers: int = 0) -> list[object]:
    to = program.rsplit(" ", 1)[1]
    some = ["--workers", workers] if workers else []
    return [*CONVERT, source, "--to", to, "--out", out, "--quiet", *some]


def side_by_side(found: Found, shape: Shape, folder: Path, source: Path, runs: int, only_ours: bool) -> None:
    """Time all programs on one shape of data in turn, and print their table."""
    out, parquet, jpeg, tar = folder / "out", folder / "parquet", folder / "jpeg", folder / "jpeg.tar"

    def digests_in(there: Path) -> str:
        return f"cd {there} && find . -type f -print0 | xargs -0 {DIGEST}"

    programs: dict[tuple[str, int], list[object]] = {
        (HASH, 0): ["sh", "-c", f"cat {source}/*.tfrecords | {DIGEST}"],
        (PARQUET, 0): convert(source, PARQUET, out),
        (PARQUET, 1): convert(source, PARQUET, out, 1),
    }
    if shape is KFER:
        run(convert(source, PARQUET, parquet))
        run(convert(source, JPEG, jpeg))
        run(["tar", "cf", tar, "-C", jpeg, "."])
        shutil.rmtree(jpeg)
        programs |= {
            (UNPACK, 0): ["sh", "-c", f"mkdir {out} && tar xf {tar} -C {out} && {digests_in(out)}"],
            (JPEG, 0): convert(source, JPEG, out),
            (JPEG, 1): convert(source, JPEG, out, 1),
            (SUMS, 0): ["sh", "-c", digests_in(parquet)],
            (VERIFY, 0): [*CONVERT, "verify", parquet, "--quiet"],
            (HELP, 0): [*CONVERT, "--help"],
        }
    failures: dict[str, str] = {}
    for name, (title, needs) in {} if only_ours else ALTERNATIVES.items():
        programs[title, 0] = [sys.executable, HERE / "alternatives.py", name, shape.name, source, out]
        if missing := [package for package in needs if find_spec(package) is None]:
            failures[title] = f"{missing[0]} is not installed"
    slow = {ALTERNATIVES[name][0] for name in ("ray", "generator")}
    for number in range(runs):
        for (title, workers), command in programs.items():
            if title in failures or (title in slow and number > 0):
                continue
            try:
                found[shape, title, workers, 1].append(measured(command, out))
            except ProgramError as error:
                if HERE / "alternatives.py" not in command:
                    raise
                failures[title] = str(error)
    rows: list[list[object]] = []
    hashing, ours = (found[shape, title, 0, 1].seconds for title in (HASH, PARQUET))
    for title, workers in programs:
        name = f"{title} --workers {workers}" if workers else title
        if title in failures:
            rows.append([name, failures[title], *[""] * 5])
            continue
        done = found[shape, title, workers, 1]
        times = (done.seconds, done.cpu, done.seconds / hashing, done.seconds / ours)
        took = [f"{number:.2f}" for number in times]
        rows.append([name, len(done), *took, f"{done.peak_mb:.0f}"])
    print_table(["program", "runs", "s", "CPU s", f"× `{HASH}`", "× `--to parquet`", "peak MB"], rows)
    shutil.rmtree(parquet, ignore_errors=True)
    tar.unlink(missing_ok=True)


def growth(found: Found, shape: Shape, folder: Path, source: Path, runs: int, size: int) -> None:
    """Print how time and memory grow with the data.

    Raises:
        SystemExit: two workers made another output than one.
    """
    out = folder / "out"
    programs = [PARQUET, JPEG] if shape is KFER else [PARQUET]
    for multiple in (1, MANY):
        larger = multiplied(source, folder / "larger", multiple)
        for program in programs:
            sums = set()
            for _ in range(runs):
                for workers in (1, 2):
                    command = convert(larger, program, out, workers)
                    found[shape, f"grown {program}", workers, multiple].append(
                        measured(command, out, keep=True)
                    )
                    with (out / "SHA256SUMS").open(
                        "rb"
                    ) as file:  # large, and peaks begin with this process's
                        sums.add(hashlib.file_digest(file, "sha256").digest())
                    shutil.rmtree(out)
            if len(sums) > 1:
                raise SystemExit("the output depends on the workers")
        shutil.rmtree(larger)
    rows: list[list[object]] = []
    for program in programs:
        for workers in (1, 2):
            both = [found[shape, f"grown {program}", workers, multiple] for multiple in (1, MANY)]
            rates = [f"{rate:.0f}" for rate in slopes(found, shape, program, workers, size)]
            peaks = [f"{done.peak_mb:.0f}" for done in both]
            rows.append([program, workers, *(f"{done.seconds:.2f}" for done in both), *rates, *peaks])
    head = ["program", "workers", "s, 1 ×", f"s, {MANY} ×", "MB/s, slope", "MB a CPU s, slope"]
    print_table([*head, "peak MB, 1 ×", f"peak MB, {MANY} ×"], rows)
    print("The output of one worker and of two was the same, byte for byte.\n")


def print_memory(found: Found, folder: Path, source: Path) -> None:
    """Print what images of 20 MB take."""
    rows: list[list[object]] = []
    for program in (PARQUET, JPEG):
        once = measured(convert(source, program, folder / "out"), folder / "out")
        found[LARGE, program, 0, 1].append(once)
        rows.append([program, f"{once.seconds:.2f}", f"{once.peak / 1e6:.0f}"])
    print_table(["program", "s", "peak MB"], rows)


def slopes(found: Found, shape: Shape, program: str, workers: int, size: int) -> tuple[float, float]:
    """Megabytes for each second, and for each CPU second, that more data takes; start-up does not count."""
    one, many = (found[shape, f"grown {program}", workers, multiple] for multiple in (1, MANY))
    more = (MANY - 1) * size / 1e6
    return more / max(many.seconds - one.seconds, 1e-3), more / max(many.cpu - one.cpu, 1e-3)


def multiplied(source: Path, folder: Path, multiple: int) -> Path:
    """A dataset whose files are the source's, each linked several times, with nothing published to compare with."""
    folder.mkdir()
    description = json.loads((source / "dataset.json").read_text("utf-8"))
    for config in description["configs"].values():
        for split, published in config["splits"].items():
            names = [f"{number}-{published['file']}" for number in range(multiple)]
            config["splits"][split] = {"file": names}
            for name in names:
                os.link(source / published["file"], folder / name)
    (folder / "dataset.json").write_text(json.dumps(description), "utf-8")
    return folder


def print_loading(folder: Path, source: Path) -> None:
    """Print how fast one split is loaded from each layout that can be written here."""
    if find_spec("torch") is None:
        print("torch is not installed: nothing was loaded.\n")
        return
    extras = {"lance": "lance", "arrayrecord": "array_record"}
    layouts = ["parquet", "arrow", "jpeg", "webdataset", "tfrecord"]
    layouts += [layout for layout, package in extras.items() if find_spec(package) is not None]
    part = ["--config", "6_basic_emo", "--split", "train"]
    out = folder / "layouts"
    run([*CONVERT, source, "--to", ",".join(layouts), "--out", out, "--quiet", *part])
    print("Loading one split of 64 × 64 pixels with PyTorch:\n")
    print(run([sys.executable, HERE / "loading.py", out]), flush=True)
    shutil.rmtree(out)


def print_targets(found: Found, sizes: dict[Shape, int]) -> None:
    """Print the project's targets, and what of them was met in this run."""
    rows: list[list[object]] = []

    def target(what: str, measured: float, *, most: float = 0, least: float = 0) -> None:
        met = measured <= most if most else measured >= least
        limit = f"≤ {most:.2f}" if most else f"≥ {least:.0f}"
        rows.append([what, limit, f"{measured:.2f}", "met" if met else "missed"])

    def time_of(shape: Shape, program: str) -> float:
        return found[shape, program, 0, 1].seconds

    def ratio(shape: Shape, program: str, other: str, most: float) -> None:
        measured = time_of(shape, program) / time_of(shape, other)
        target(f"{shape.name}: `{program}` ÷ `{other}`", measured, most=most)

    def slope(shape: Shape, least: float) -> None:
        """Of one worker; the smaller of both, should it use more than a core or wait."""
        measured = min(slopes(found, shape, PARQUET, 1, sizes[shape]))
        target(f"{shape.name}: MB/s a core to Parquet, start-up not counted", measured, least=least)

    def peak(shape: Shape, program: str, most: float) -> None:
        peaks = [done.peak_mb for (of, name, *_), done in found.items() if of is shape and program in name]
        target(f"{shape.name}: peak MB of a process, `{program}`", max(peaks), most=most)

    ratio(IMAGES, PARQUET, HASH, 2.8)
    slope(IMAGES, 260)
    ratio(KFER, PARQUET, HASH, 6.0)
    slope(KFER, 160)
    slope(RAGGED, 160 / 2)
    ratio(KFER, JPEG, UNPACK, 1.25)
    limit = 2 * time_of(KFER, SUMS) + 0.35
    target(f"KFER: s, `{VERIFY}`: 2 × `{SUMS}` + 0.35", time_of(KFER, VERIFY), most=limit)
    for shape in (KFER, IMAGES, RAGGED):
        peak(shape, PARQUET, 250)
    peak(KFER, JPEG, 300)
    peak(LARGE, PARQUET, 400)
    peak(LARGE, JPEG, 400)
    target(f"CPU s, `{HELP}`", found[KFER, HELP, 0, 1].cpu, most=0.25)
    print("### Targets\n")
    print_table(["target", "limit", "measured", ""], rows)


def measured(command: Sequence[object], out: Path, *, keep: bool = False) -> Run:
    """Run a command; its output folder is removed before and, unless it is to be kept, after.

    Raises:
        ProgramError: it did not end with status 0.
    """
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.DEVNULL, stderr=errors, env=ENVIRONMENT
        )
        _, status, usage = os.wait4(process.pid, 0)
        elapsed = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if not keep or status:
            shutil.rmtree(out, ignore_errors=True)
        if status:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").splitlines()
            said = [line for line in lines if "Error: " in line] or lines or [""]
            raise ProgramError(f"status {process.returncode}: {said[-1][:200]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(elapsed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def run(command: Sequence[object]) -> str:
    """What a command that must succeed prints."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def print_table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |", flush=True)
    print()


if __name__ == "__main__":
    main()
