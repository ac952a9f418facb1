"""What the driver holds of a plan of a million shards, and how long it takes to merge their results.

    python tests/benchmarks/million_shards.py [--shards 1000000]

The source files and the results are made up, since 500 TB are not at hand; the plan, the merge, the manifest and
the sums are the program's own. Prints a table in Markdown: no size and no time is asserted, it is no test.
"""

import argparse
import resource
import sys
import tempfile
import time
from array import array
from pathlib import Path

import numpy as np

from converters.convert.merge import WorkDone, merge_split
from converters.convert.timing import Stopwatch
from converters.dataset.description import Split, parse_spec
from converters.dataset.fingerprint import PartBuilder
from converters.dataset.manifest import write_manifest
from converters.dataset.report import Report, SplitReport
from converters.dataset.schema import record_batch
from converters.dataset.shard import Effort, RangeFacts, Shard, ShardResult
from converters.formats.tfrecord.discovery import SourceFile, SourceSplit
from converters.formats.tfrecord.plan import MAX_SHARD_BYTES, Plan, SplitPlan
from converters.formats.tfrecord.reader import SourceRange
from converters.storage.file_list import OutputFile, OutputFiles

SHARDS_PER_FILE = 100
RECORDS_PER_SHARD = 4

DATASET = {
    "name": "simulated",
    "configs": {
        "all": {
            "kind": "single-label",
            "label_names": ["no", "yes"],
            "splits": {"train": {"file": "train-*.tfrecords"}},
        }
    },
}


def megabytes() -> float:
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform == "linux" else 1024**2)


def made_up_plan(split: Split, shards: int) -> tuple[SourceSplit, Plan]:
    """A plan of so many shards of 500 MB, a hundred to a file."""
    files, cuts = [], array("q")
    for number in range(0, shards, SHARDS_PER_FILE):
        path = Path(f"train-{number // SHARDS_PER_FILE:06d}.tfrecords")
        own = min(SHARDS_PER_FILE, shards - number)
        files.append(SourceFile(path, own * MAX_SHARD_BYTES, 0, "none", None))
        for shard in range(own):
            record = shard * RECORDS_PER_SHARD
            first = (number + shard) * RECORDS_PER_SHARD
            cuts.extend((len(files) - 1, shard * MAX_SHARD_BYTES, record, first))
    cuts.extend((len(files), 0, 0, shards * RECORDS_PER_SHARD))
    ranges = tuple(SourceRange(file.path, 0, file.size, 0) for file in files)
    return SourceSplit(split, tuple(files)), Plan([SplitPlan(split, ranges, cuts)])


def made_up_result(shard: Shard) -> ShardResult:
    """What a worker would have returned, as small as it is: paths, sizes, digests, fingerprints."""
    labels = np.tile(np.array([0, 1], np.uint8), (RECORDS_PER_SHARD, 1))
    sizes = np.full((RECORDS_PER_SHARD, 3), 64, np.int32)
    batch = record_batch([b"image"] * RECORDS_PER_SHARD, labels, sizes)
    builder = PartBuilder(shard.first_record, 2)
    builder.add(batch)
    digest = f"{shard.index:064x}"
    (piece,) = shard.ranges
    facts = RangeFacts(
        str(piece.path), piece.start, piece.end, RECORDS_PER_SHARD, digest, None, MAX_SHARD_BYTES
    )
    file = OutputFile(f"all/train-{shard.numbered()}.parquet", MAX_SHARD_BYTES, digest)
    effort = Effort(f"host:{shard.index % 1000}", 1.0, 1.0, 1.0)
    part = builder.part()
    return ShardResult(
        shard, Path("staging") / shard.key, OutputFiles([file]), (facts,), part, part, None, effort
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=1_000_000)
    shards = parser.parse_args().shards
    spec = parse_spec(DATASET, "made up")
    (split,) = spec.splits()
    rows = [("nothing yet", 0.0, megabytes())]
    started = time.perf_counter()

    def step(name: str) -> None:
        nonlocal started
        rows.append((name, time.perf_counter() - started, megabytes()))
        started = time.perf_counter()

    found, plan = made_up_plan(split, shards)
    step("the plan")
    making = Stopwatch()
    done = WorkDone()
    merged = merge_split(found, making.watch(map(made_up_result, plan)), done)
    started += making.seconds
    step("the merge of all results")
    report = Report(
        spec,
        "parquet",
        "out",
        (SplitReport(split, (), (), merged.output, ()),),
        files=merged.files,
        work=done.work(),
    )
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(report, Path(folder))
        step("MANIFEST.json and SHA256SUMS")
    print(f"{shards:,} shards in {len(found.files):,} files\n")
    print("| after | seconds | peak memory, MB | bytes a shard |\n|---|--:|--:|--:|")
    for name, seconds, peak in rows:
        print(f"| {name} | {seconds:.1f} | {peak:,.0f} | {(peak - rows[0][2]) * 1e6 / shards:,.0f} |")


if __name__ == "__main__":
    main()
