"""A long run of the Example parser against protobuf's own (upb), by hand; the suite has short ones.

    python tests/fuzz/example_parser.py [--seconds 300] [--seed 0] [--tensorflow]

Makes Examples of all forms, spoils them byte by byte and piece by piece, and parses each with both. What ours
accepts, protobuf must accept with the same features and values. With --tensorflow, it is also counted how often
TensorFlow's own parser reads something else: that only takes what writers write, such as a name before its value.
Prints how many there were, and ends with 1 at the first disagreement.
"""

import argparse
import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "formats" / "tfrecord"))

from example_maker import example_class
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError
from helpers.examples import field
from helpers.examples import to_varint as varint

from converters.formats.tfrecord.strict_parser import ExampleError, parse_example

NAMES = ["image_raw", "label", "height", "width", "depth", "", "a", "감정", "n" * 130]
TAGS = [0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x10, 0x12, 0x15, 0x18, 0x1A, 0x22, 0x2A, 0x80, 0x00, 0xFF]


class Maker:
    """Makes Examples, most of them nearly sound, from a seeded generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def example(self) -> bytes:
        entries = b"".join(self.entry() for _ in range(self.random.choice([0, 1, 1, 2, 3, 5])))
        data = field(1, entries)
        if self.rarely():
            data += self.odd()
        return self.spoiled(data)

    def rarely(self) -> bool:
        return self.random.random() < 0.04

    def entry(self) -> bytes:
        parts = [field(1, self.random.choice(NAMES).encode()), field(2, self.feature())]
        if self.rarely():
            self.random.shuffle(parts)
        if self.rarely():
            parts.insert(self.random.randrange(3), self.odd())
        if self.rarely():
            parts.pop(self.random.randrange(len(parts)))
        return field(1, b"".join(parts))

    def feature(self) -> bytes:
        kind = self.random.choice([1, 2, 3, 3])
        data = field(kind, self.values(kind))
        if self.rarely():
            data += self.random.choice([self.odd(), field(kind, self.values(kind)), field(1, b"")])
        return b"" if self.rarely() else data

    def values(self, kind: int) -> bytes:
        count = self.random.choice([0, 1, 1, 2, 6, 24])
        if kind == 1:
            return b"".join(
                field(1, self.random.randbytes(self.random.choice([0, 1, 9]))) for _ in range(count)
            )
        if kind == 2:
            values = [self.random.randbytes(4) for _ in range(count)]
            runs = field(1, b"".join(values)), b"".join(b"\x0d" + value for value in values)
        else:
            values = [varint(self.integer()) for _ in range(count)]
            runs = field(1, b"".join(values)), b"".join(b"\x08" + value for value in values)
        data = self.random.choice(runs)
        return data + self.random.choice([*runs, self.odd()]) if self.rarely() else data

    def integer(self) -> int:
        return self.random.choice(
            [0, 1, 1, 2, -1, 127, 128, 2**31, 2**63 - 1, -(2**63), self.random.getrandbits(64)]
        )

    def odd(self) -> bytes:
        return self.random.choice(
            [
                field(self.random.randrange(1, 20), self.random.randbytes(self.random.randrange(4))),
                bytes([self.random.choice(TAGS)]) + self.random.randbytes(self.random.randrange(9)),
                b"\x0b\x0c",
                b"\x80" * self.random.randrange(1, 12) + b"\x00",
            ]
        )

    def spoiled(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.random.choice([0, 0, 1, 1, 2, 4])):
            spot = self.random.randrange(len(changed)) if changed else 0
            how = self.random.randrange(6)
            if how == 0 and changed:
                changed[spot] ^= 1 << self.random.randrange(8)
            elif how == 1 and changed:
                changed[spot] = self.random.choice(TAGS)
            elif how == 2:
                changed.insert(spot, self.random.choice(TAGS))
            elif how == 3 and changed:
                del changed[spot]
            elif how == 4:
                del changed[spot:]
            else:
                changed[spot:spot] = changed[spot : spot + self.random.randrange(1, 20)]
        return bytes(changed)


def ours(data: bytes) -> dict | None:
    """Features by name: kind and values (floats as texts, for no NaN equals itself); None where it is refused."""
    try:
        parsed = parse_example(data)
    except ExampleError as error:
        assert 0 <= error.position <= len(data)  # noqa: PT017  # not a test
        return None
    found = {}
    for name, feature in parsed.items():
        if feature.kind == "bytes_list":
            spans = zip(feature.starts.tolist(), feature.sizes.tolist(), strict=True)
            values = [data[start : start + size] for start, size in spans]
        elif feature.kind == "int64_list":
            values = feature.integers.tolist()
        else:
            values = texts(feature.floats.tolist()) if feature.kind else None
        found[name] = (feature.kind, values)
    return found


def theirs(cls, data: bytes) -> dict | None:
    """What protobuf reads; None where it refuses."""
    try:
        message = cls.FromString(data)
    except DecodeError:
        return None
    found = {}
    for name, feature in message.features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else None
        found[name] = (kind, texts(values) if kind == "float_list" else values)
    return found


def texts(floats: list[float]) -> list[str]:
    return [value.hex() for value in floats]


def tensorflows(tf, data: bytes, mine: dict) -> dict:
    """What TensorFlow's own parser reads of the features that ours found; nothing where it refuses."""
    dtypes = {"bytes_list": tf.string, "int64_list": tf.int64, "float_list": tf.float32}
    form = {name: tf.io.VarLenFeature(dtypes[kind]) for name, (kind, _) in mine.items()}
    try:
        parsed = tf.io.parse_single_example(data, form) if form else {}
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # its message may hold any bytes
        return {}
    found = {}
    for name in form:
        kind, values = mine[name][0], parsed[name].values.numpy().tolist()
        found[name] = (kind, texts(values) if kind == "float_list" else values)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=300)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--tensorflow", action="store_true", help="also ask TensorFlow, which is slower")
    arguments = options.parse_args()
    cls, maker = example_class(), Maker(arguments.seed)
    tf = None
    if arguments.tensorflow:
        os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        import tensorflow as tf
    tried = accepted = only_theirs = otherwise = 0
    deadline = time.monotonic() + arguments.seconds
    while time.monotonic() < deadline:
        data = maker.example()
        mine = ours(data)
        tried += 1
        other = theirs(cls, data)
        if mine is None:
            only_theirs += other is not None
            continue
        accepted += 1
        # TensorFlow finds no features without a name, and no kind where there is none.
        known = {name: value for name, value in mine.items() if name and value[0]}
        otherwise += tf is not None and tensorflows(tf, data, known) != known
        if mine != other:
            sys.exit(f"after {tried:,}: they disagree about {data.hex()}\nours: {mine}\nprotobuf: {other}")
    print(
        f"{tried:,} Examples against protobuf ({api_implementation.Type()}), seed {arguments.seed}: "
        f"{accepted:,} accepted by ours, all read alike; {only_theirs:,} refused by ours alone, "
        f"{tried - accepted - only_theirs:,} by both{f'; {otherwise:,} that TensorFlow reads otherwise' if tf else ''}"
    )


if __name__ == "__main__":
    main()
