"""How fast Examples are parsed, beside protobuf's own parser (upb) with a look at each value.

    python tests/benchmarks/parser.py [--runs 100]

Each row is one chunk of records, as the framing hands them out, of bytes made up here. Prints a table in Markdown, the
best of the runs; the last column is bytes a second as a share of the first row's. No time is asserted, it is no test.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "formats" / "tfrecord"))

from example_maker import example, example_class, frames_of
from shapes import detection, kfer

from converters.formats.tfrecord.fast_parser import BatchParser
from converters.formats.tfrecord.framing import CHUNK_BYTES, Frames
from converters.formats.tfrecord.strict_parser import parse_example


def shuffled(chance: random.Random, features: dict[str, bytes]) -> dict[str, bytes]:
    return dict(chance.sample(list(features.items()), len(features)))


def chunk(make: Callable[[random.Random, int], dict[str, bytes]], image_bytes: int, in_order: bool) -> Frames:
    chance = random.Random(1)
    records = []
    for _ in range(max(CHUNK_BYTES // (image_bytes + 300), 1)):
        features = make(chance, round(chance.gauss(image_bytes, image_bytes / 20)))
        records.append(example(features if in_order else shuffled(chance, features)))
    return frames_of(records)


def look_at_all(message) -> None:
    for feature in message.features.feature.values():
        getattr(feature, feature.WhichOneof("kind")).value[:]


def best(runs: int, function: Callable[[], object]) -> float:
    """Seconds that the fastest run took."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=100)
    runs = options.parse_args(arguments).runs
    cls = example_class()
    print("| records | a chunk | bytes each | µs each | protobuf, µs | strict, µs | MB/s | share |")
    print("|---|---|---|---|---|---|---|---|")
    first = None
    for name, make, image_bytes, in_order in (
        ("KFER, in order", kfer, 2500, True),
        ("KFER, any order", kfer, 2500, False),
        ("KFER, 80 kB", kfer, 80_000, False),
        ("KFER, 8 MB", kfer, 8_000_000, False),
        ("Object Detection, in order", detection, 2500, True),
        ("Object Detection, any order", detection, 2500, False),
        ("Object Detection, 80 kB", detection, 80_000, False),
        ("Object Detection, 8 MB", detection, 8_000_000, False),
    ):
        frames = chunk(make, image_bytes, in_order)
        records = [frames.data(row) for row in range(len(frames.starts))]
        parser = BatchParser()
        mine = best(runs, lambda frames=frames, parser=parser: parser.parse(frames))
        some = records[:100]
        theirs = best(
            max(runs // 5, 1), lambda some=some: [look_at_all(cls.FromString(bytes(data))) for data in some]
        )
        strict = best(max(runs // 20, 1), lambda some=some: [parse_example(data) for data in some])
        size = int(frames.sizes.sum())
        first = first or size / mine
        print(
            f"| {name} | {len(records)} | {size // len(records):,} | {mine / len(records) * 1e6:.2f} "
            f"| {theirs / len(some) * 1e6:.2f} | {strict / len(some) * 1e6:.1f} | {size / mine / 1e6:,.0f} "
            f"| {size / mine / first:.0%} |"
        )


if __name__ == "__main__":
    main()
