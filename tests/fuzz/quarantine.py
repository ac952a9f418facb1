"""Five damaged records in a file, many times over, by hand; the suite has the cases that matter.

    python tests/fuzz/quarantine.py [--runs 1000] [--seed 0] [--lengths 1]

Each run makes a file of forty records and damages five of them, ``--lengths`` of these in the length or its
checksum, the others in their data, labels or image; they may be the first, the last or neighbours. File, index, label
CSV, compression, format and shards differ from run to run. The output must have the other records, in order and with
their names, the quarantine the damaged ones' bytes, and ``verify --source`` must pass. Ends with 1 where one does not.
"""

import argparse
import csv
import gzip
import json
import random
import shutil
import struct
import sys
import tempfile
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import pyarrow.parquet as pq
from conftest import Record, encode_record
from helpers.examples import framed, masked_crc
from PIL import Image

from converters import convert, verify

RECORDS, LABELS = 40, "abc"


def jpeg(number: int) -> bytes:
    with tempfile.SpooledTemporaryFile(1 << 20) as file:
        noise = random.Random(number).randbytes(16 * 16 * 3)
        Image.frombytes("RGB", (16, 16), noise).save(file, "JPEG", quality=90)
        file.seek(0)
        return file.read()


def label(number: int) -> tuple[int, ...]:
    return tuple(int(place == number % 3) for place in range(3))


IMAGES = [jpeg(number) for number in range(RECORDS)]
SOUND = [
    framed(encode_record(Record(image, label(number), 16, 16, 3))) for number, image in enumerate(IMAGES)
]


def choose(draw: random.Random) -> list[int]:
    """Which five; the first one's length is damaged."""
    first = draw.randrange(RECORDS - 4)
    neighbours = draw.sample(range(first, first + 5), 5)
    anywhere = draw.sample(range(1, RECORDS - 1), 5)
    edges = draw.sample([0, RECORDS - 1, *anywhere[:3]], 5)
    return draw.choice([anywhere, neighbours, edges])


def damage_length(draw: random.Random, stored: bytearray) -> None:
    size = draw.choice([5, 100, len(stored) + 50, 2**33, 2**62, 2**64 - 1])
    length = struct.pack("<Q", size)
    ways = [
        lambda: stored.__setitem__(place := draw.randrange(12), stored[place] ^ draw.randrange(1, 256)),
        lambda: stored.__setitem__(slice(0, 8), length),
        lambda: stored.__setitem__(slice(0, 12), length + masked_crc(length)),
        lambda: stored.__setitem__(slice(0, 12), draw.choice([bytes(12), draw.randbytes(12)])),
    ]
    draw.choice(ways)()
    if draw.random() < 0.2:
        stored[draw.randrange(12, len(stored))] ^= draw.randrange(1, 256)


def damage_data(draw: random.Random, number: int) -> bytearray:
    stored = bytearray(SOUND[number])
    way = draw.randrange(4)
    if way == 0:
        return bytearray(framed(encode_record(Record(IMAGES[number], (0, 0, 0), 16, 16, 3))))
    if way == 1:
        return bytearray(framed(encode_record(Record(IMAGES[number], label(number), 17, 16, 3))))
    start = draw.randrange(12, len(stored) - 40)
    for place in range(start, start + draw.choice([1, 40])):
        stored[place] ^= draw.randrange(1, 256)
    return stored


def found(out: Path) -> list[tuple[bytes, str | None]]:
    """Image and name of every record of an output."""
    rows: list[tuple[bytes, str | None]] = []
    for path in sorted(out.glob("c/train*.parquet")):
        rows += [(row["image"]["bytes"], row.get("img_id")) for row in pq.read_table(path).to_pylist()]
    for path in sorted(out.rglob("metadata.csv")):
        with path.open(newline="") as file:
            rows += [
                ((path.parent / row["file_name"]).read_bytes(), row.get("img_id"))
                for row in csv.DictReader(file)
            ]
    return rows


def run(seed: int, lengths: int, folder: Path) -> str | None:
    """What is wrong with the outcome of one run; None where nothing is."""
    draw = random.Random(seed)
    records = [bytearray(data) for data in SOUND]
    damaged = choose(draw)
    for number in damaged[lengths:]:
        records[number] = damage_data(draw, number)
    for number in damaged[:lengths]:
        damage_length(draw, records[number])
    source, labels, out = folder / "source", folder / "labels", folder / "out"
    source.mkdir()
    labels.mkdir()
    stored = b"".join(map(bytes, records))
    (source / "t.tfrecords").write_bytes(draw.choice([bytes, bytes, gzip.compress, zlib.compress])(stored))
    splits = {"train": {"file": "t.tfrecords"} | draw.choice([{}, {"records": RECORDS}])}
    spec = {"configs": {"c": {"kind": "single-label", "label_names": list(LABELS), "splits": splits}}}
    (source / "dataset.json").write_text(json.dumps(spec))
    if draw.random() < 0.4:
        edges = [sum(map(len, records[:number])) for number in range(RECORDS)]
        lines = (f"{edge} {len(record)}\n" for edge, record in zip(edges, records, strict=True))
        (source / "t.idx").write_text("".join(lines))
    rows = (
        f"i{number}.jpg,clip{number // 4},{','.join(map(str, label(number)))}\n" for number in range(RECORDS)
    )
    (labels / "label_c_train.csv").write_text("img_id,clip_id,a,b,c\n" + "".join(rows))
    named = draw.random() < 0.4
    report = convert(
        source,
        to=draw.choice(["parquet", "jpeg", "hf"]),
        out=out,
        on_error="quarantine",
        labels=labels if named else None,
        max_shard_bytes=draw.choice([4_000, 500_000_000]),
    )
    (split,) = report.splits
    sound = [number for number in range(RECORDS) if number not in damaged]
    if found(out) != [(IMAGES[number], f"i{number}.jpg" if named else None) for number in sound]:
        return f"of {damaged}, the output lacks others or has some"
    raw = b"".join((out / piece.raw).read_bytes() for piece in split.quarantine.ranges if piece.raw)
    if raw != b"".join(bytes(records[number]) for number in sorted(damaged)):
        return "the bytes in quarantine are not the damaged records'"
    if report.lost_records != 5 and named:
        return f"{report.lost_records} records are said to be lost"
    return next(iter(verify(out, source=source).failures()), None)


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--runs", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--lengths", type=int, default=1)
    given = options.parse_args()
    wrong = 0
    for seed in range(given.seed, given.seed + given.runs):
        folder = Path(tempfile.mkdtemp())
        try:
            problem = run(seed, given.lengths, folder)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is wrong
            problem = f"{type(error).__name__}: {error}"
        finally:
            shutil.rmtree(folder)
        if problem is not None:
            wrong += 1
            print(f"seed {seed}: {problem}")
    print(f"{given.runs} files with five damaged records, {given.lengths} in the length: {wrong} wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
