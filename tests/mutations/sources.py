"""A small source of five configs, and its records as a program that knows nothing of the package reads them."""

import csv
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from helpers.examples import INTEGERS, field, fields, to_varint, write_frames
from helpers.unlike_kfer import encode
from PIL import Image

NAMES = ["neutral", "anger", "joy"]  # in no order of an alphabet
SPLITS = {"train": (16, 9), "test": (11,)}
"""Records of the files of each split."""

Row = dict[str, Any]


@cache
def image(number: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (8 + number % 5, 9, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def _sized(number: int) -> Row:
    return {"image": image(number), "height": 8 + number % 5, "width": 9, "depth": 3}


def _multi(number: int) -> Row:
    return _sized(number) | {"label_vector": [number % 2, 1 - number % 2, number // 2 % 2]}


def _single(number: int) -> Row:
    return _sized(number) | {"label_vector": [int(number * number % 3 == place) for place in range(3)]}


def _numbered(number: int) -> Row:
    return {
        "image": image(number, "PNG"),
        "category": (1, 2, 3)[number % 3],
        "score": None if number % 4 == 1 else number / 4,
        "note": None if number % 3 == 0 else f"note {'é' * (number % 5)}{number}",
        "first": 3 * number,
        "second": -number - 2**40,
    }


def _boxes(number: int) -> Row:
    boxes = number % 4
    return {
        "image": image(number, "PNG" if number % 2 else "JPEG"),
        "label": [(number + box) % 3 for box in range(boxes)],
        "xmin": [0.25 * box + number for box in range(boxes)],
        "xmax": [0.25 * box + number + 0.5 for box in range(boxes)],
        "texts": [f"얼굴 {number} {box}" for box in range(boxes)],
    }


def _plain(number: int) -> Row:
    return {
        "image": image(number),
        "mask": image(100 + number, "PNG"),
        "label": number * number % 3,
        "name": f"scene-{number * 7 % 25}.jpg",
        "raw": bytes([0xFF, number]),
        "other": bytes([0xFE, number, 0]),
    }


def _doubted(number: int) -> Row:
    return {
        "image": image(number),
        "label": number * number % 3,
        "three": [number, -number, 2**35 + number],
        "two": [7, number],
    }


_SIZES = {"height": "int64", "width": "int64", "depth": "int64"}
_SIZED = {name: {"type": kind, "role": name, "feature": name} for name, kind in _SIZES.items()}
_IMAGE = {"type": "binary", "role": "image", "feature": "image_raw"}


def _vector(kind: str) -> dict[str, Any]:
    return {"type": "uint8[3]", "role": "label", "feature": "label", "label_names": NAMES, "kind": kind}


CONFIGS = {
    "multi": (_multi, {"image": _IMAGE, "label_vector": _vector("multi-label"), **_SIZED}),
    "single": (_single, {"image": _IMAGE, "label_vector": _vector("single-label"), **_SIZED}),
    "numbered": (
        _numbered,
        {
            "image": _IMAGE,
            "category": {
                "type": "int64",
                "role": "label",
                "label_names": {str(number): name for number, name in enumerate(NAMES, 1)},
            },
            "score": {"type": "float32", "nullable": True},
            "note": {"type": "string", "nullable": True},
            "first": "int64",
            "second": "int64",
        },
    ),
    "boxes": (
        _boxes,
        {
            "image": _IMAGE,
            "label": {"type": "int64[]", "role": "label", "feature": "class/label", "label_names": NAMES},
            "xmin": "float32[]",
            "xmax": "float32[]",
            "texts": "string[]",
        },
    ),
    "plain": (
        _plain,
        {
            "image": _IMAGE,
            "mask": {"type": "binary", "role": "image"},
            "label": {"type": "int64", "role": "label", "label_names": NAMES},
            "name": {"type": "string", "role": "file_name"},
            "raw": "binary",
            "other": "binary",
        },
    ),
    # Most records have numbers that are not packed, so that the fast parser leaves them to the strict one.
    "doubted": (
        _doubted,
        {
            "image": _IMAGE,
            "label": {"type": "int64", "role": "label", "label_names": NAMES},
            "three": "int64[3]",
            "two": "int64[2]",
        },
    ),
}
KINDS = {"multi": "multi-label", "single": "single-label"}
IDENTIFIED = "single"
"""The config whose label CSVs are there."""


def feature_of(config: str, column: str) -> str:
    stated = CONFIGS[config][1].get(column)
    return stated.get("feature", column) if isinstance(stated, dict) else column


def rows(config: str, split: str) -> list[Row]:
    """The records of a split, by the names of their columns."""
    first = 0 if split == "train" else sum(SPLITS["train"])
    return [CONFIGS[config][0](number) for number in range(first, first + sum(SPLITS[split]))]


def identities(split: str) -> list[tuple[str, str]]:
    count = sum(SPLITS[split])
    return [(f"{split[:2]}_{number * 7 % 100:02}.jpg", f"drama {number // 3}") for number in range(count)]


def _encoded(config: str, row: Row) -> bytes:
    columns = CONFIGS[config][1]
    features = {name: feature_of(config, name) for name in row}
    encoded = encode(
        {features[name]: value for name, value in row.items()},
        {features[name]: columns[name] for name in row},
    )
    if config == "doubted" and row["label"] != 1:
        run = field(INTEGERS, field(1, b"".join(map(to_varint, row["two"]))))
        single = field(INTEGERS, b"".join(b"\x08" + to_varint(value) for value in row["two"]))
        entry, other = (field(1, field(1, b"two") + field(2, value)) for value in (run, single))
        ((_, entries),) = fields(encoded)
        encoded = field(1, entries.replace(entry, other))
    return encoded


def make(folder: Path) -> None:
    """Write the source: two files for each ``train``, one for each ``test``, and a ``dataset.json``."""
    folder.mkdir(parents=True)
    configs: dict[str, Any] = {}
    for config, (_, columns) in CONFIGS.items():
        splits: dict[str, Any] = {}
        for split, sizes in SPLITS.items():
            encoded = [_encoded(config, row) for row in rows(config, split)]
            files = []
            for number, size in enumerate(sizes):
                files.append(f"{config}-{split}-{number:05}-of-{len(sizes):05}.tfrecord")
                write_frames(folder / files[-1], encoded[:size], index=False)
                encoded = encoded[size:]
            splits[split] = {"file": files}
        configs[config] = {"columns": columns, "splits": splits}
    for split in SPLITS:
        with (folder / f"label_{IDENTIFIED}_{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["img_id", "clip_id", *NAMES])
            for names, row in zip(identities(split), rows(IDENTIFIED, split), strict=True):
                writer.writerow([*names, *row["label_vector"]])
    document = {
        "name": "mutants",
        "about": {"title": "Mutants", "licence": {"name": "CC0-1.0", "text": "Public domain."}},
        "configs": configs,
    }
    (folder / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
