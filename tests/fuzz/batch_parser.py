"""A long run of the batch parser against the strict parser and protobuf's own (upb), by hand; the suite has short ones.

    python tests/fuzz/batch_parser.py [--seconds 300] [--seed 0]

Makes batches of Examples of any schema, and damages one record of each in many ways. The batch parser must give what
the strict parser gives of each record alone, or the same error; what both accept, protobuf must read alike. How many
records are worth a step is varied, so that as much as possible is read in step. Prints how many there were, and ends
with 1 at the first disagreement.
"""

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "formats" / "tfrecord"))

from example_maker import (
    BatchMaker,
    example_class,
    frames_of,
    outcome,
    read_strictly,
    read_with_protobuf,
    strict_outcome,
)
from google.protobuf.internal import api_implementation

from converters.formats.tfrecord import fast_parser as batch_parser
from converters.formats.tfrecord.fast_parser import BatchParser

DAMAGED_PER_BATCH = 12


class DisagreementError(Exception):
    """Two parsers read the same bytes differently."""


def vary_limits(chance: random.Random) -> None:
    batch_parser._MAX_RECORDS = chance.choice([5, 1024])
    batch_parser._MIN_RECORDS = chance.choice([1, 1, 8])
    batch_parser._MIN_LISTS = chance.choice([1, 5, 40])
    batch_parser._LONG_LIST = chance.choice([2, 64])


def compare_with_protobuf(cls, data: bytes) -> bool:
    """Whether the strict parser accepts the data; if so, protobuf must read the same."""
    mine = read_strictly(data)
    if mine is not None and mine != read_with_protobuf(cls, data):
        raise DisagreementError(f"protobuf reads {data.hex()} differently")
    return mine is not None


def compare_with_strict(parser: BatchParser, records: list[bytes], rest: int) -> None:
    found, expected = outcome(parser, frames_of(records, rest=rest)), strict_outcome(records)
    if found != expected:
        raise DisagreementError(f"the batch parser gives {found}\nthe strict parser gives {expected}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=300)
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    cls = example_class()
    batches = sound = damaged = accepted = 0
    deadline = time.monotonic() + arguments.seconds
    while time.monotonic() < deadline:
        seed = f"{arguments.seed}/{batches}"
        chance, maker, parser = random.Random(seed), BatchMaker(seed), BatchParser()
        vary_limits(chance)
        loose = chance.choice([0, 0, 0.1, 1])
        records = maker.batch(chance.choice([1, 3, 9, 12, 40]), odd=chance.choice([0, 0, 0.1]), loose=loose)
        try:
            compare_with_strict(parser, records, chance.choice([0, 64]))
            for data in records:
                compare_with_protobuf(cls, data)
            for _ in range(DAMAGED_PER_BATCH):
                row = chance.randrange(len(records))
                data = maker.changed(records[row]) if loose else maker.spoiled(records[row])
                compare_with_strict(
                    parser, [*records[:row], data, *records[row + 1 :]], chance.choice([0, 64, 64])
                )
                accepted += compare_with_protobuf(cls, data)
        except DisagreementError as error:
            sys.exit(f"batch {seed}: {error}")
        batches, sound, damaged = batches + 1, sound + len(records), damaged + DAMAGED_PER_BATCH
    print(
        f"{batches:,} batches of {sound:,} records, and {damaged:,} times one record damaged, seed {arguments.seed}, "
        f"protobuf ({api_implementation.Type()}): all read alike; {accepted:,} of the damaged were accepted"
    )


if __name__ == "__main__":
    main()
