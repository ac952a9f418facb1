"""How fast PyTorch loads the images of each layout, beside WebDataset's own reader and imagefolder's.

    kfer-convert SOURCE --to parquet,arrow,jpeg,webdataset,tfrecord,lance,arrayrecord --out FOLDER
    python tests/benchmarks/loading.py FOLDER [--runs 3]

Prints a table in Markdown: decoded images a second, in batches of 64 of a DataLoader of one process, the median of the
epochs; "in any order" is by index, drawn without replacement, where the layout can be read by index. FOLDER holds the
outputs of one split of images of one size.
"""

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

BATCH = 64


class Stream(IterableDataset):
    """What can only be read in order."""

    def __init__(self, make: Callable[[], Iterable]) -> None:
        self.make = make

    def __iter__(self):
        return iter(self.make())


def hub(out: Path):
    """An output as its README has `datasets` load it; a folder of images with its imagefolder."""
    from datasets import load_dataset

    (split,) = load_dataset(str(out), cache_dir=str(out.with_name("cache"))).values()
    return split


def webdataset(out: Path):
    import webdataset

    files = sorted(map(str, out.glob("*/*.tar")))
    return webdataset.WebDataset(files, shardshuffle=False).to_tuple("jpg").map(lambda row: row[0])


def _image_of(record: bytes) -> bytes:
    import tensorflow as tf

    return tf.train.Example.FromString(record).features.feature["image_raw"].bytes_list.value[0]


def tfrecord(out: Path):
    import tensorflow as tf

    records = tf.data.TFRecordDataset(sorted(map(str, out.glob("*/*.tfrecord"))))
    form = {"image_raw": tf.io.FixedLenFeature([], tf.string)}
    images = records.batch(BATCH).map(lambda batch: tf.io.parse_example(batch, form)["image_raw"]).unbatch()
    return Stream(images.as_numpy_iterator)


def arrayrecord(out: Path):
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource(sorted(map(str, out.glob("*/*.array_record"))))


# Layout: who reads it, with which packages.
READERS = {
    "parquet": (hub, "datasets"),
    "arrow": (hub, "datasets"),
    "jpeg": (hub, "datasets"),
    "lance": (hub, "datasets", "lance"),
    "webdataset": (webdataset, "webdataset"),
    "tfrecord": (tfrecord, "tensorflow"),
    "arrayrecord": (arrayrecord, "array_record", "tensorflow"),
}


def collate(rows) -> torch.Tensor:
    """Rows of `datasets`, encoded images, or Examples: uint8, (n, height, width, 3)."""
    images = []
    for row in rows:
        if isinstance(row, dict):
            image = row["image"]
        else:
            image = Image.open(io.BytesIO(row if row[:2] == b"\xff\xd8" else _image_of(row)))
        images.append(np.asarray(image.convert("RGB")))
    return torch.from_numpy(np.stack(images))


def images_a_second(data, runs: int, shuffle: bool) -> float:
    rates = []
    for _ in range(runs):
        start = time.perf_counter()
        count = sum(map(len, DataLoader(data, BATCH, shuffle=shuffle or None, collate_fn=collate)))
        rates.append(count / (time.perf_counter() - start))
    if not count:
        raise SystemExit(f"no image was read from {data}")
    return statistics.median(rates)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--runs", type=int, default=3)
    chosen = options.parse_args()
    print("| layout | read with | images/s, in order | in any order |\n|---|---|---|---|")
    for layout, (read, *needed) in READERS.items():
        missing = [name for name in needed if find_spec(name) is None]
        found = sorted(chosen.folder.glob(f"*-{layout}"))
        if missing or not found:
            print(
                f"| {layout} | {missing[0]}: not installed | | |"
                if missing
                else f"| {layout} | no output | | |"
            )
            continue
        data = read(found[0])
        streamed = isinstance(data, IterableDataset)
        rates = [
            f"{images_a_second(data, chosen.runs, order):,.0f}" for order in (False, True)[: 2 - streamed]
        ]
        print(f"| {layout} | {needed[0]} | {' | '.join([*rates, 'no index'][:2])} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
