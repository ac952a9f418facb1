"""Small datasets of all the shapes that columns have; in three splits: of two shards, of one, and without a record."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from converters.dataset.description import (
    Description,
    Split,
    described_columns,
    parse_description,
    with_columns,
)
from converters.dataset.schema import Column, Role, with_derived_label
from converters.dataset.shard import Shard

BASIC = "labels"
"""The dataset that every format must hold."""

_SHARDS = {"train": (4, 3), "train_2": (2,), "none": (0,)}  # records of each shard of each split


@dataclass(frozen=True)
class TestSplit:
    """A split, and its records: a batch for each shard."""

    __test__ = False  # to pytest, it is no test

    split: Split
    batches: tuple[pa.RecordBatch, ...]

    def shards(self) -> Iterator[Shard]:
        """Its shards, which have no source."""
        first = 0
        for index, batch in enumerate(self.batches):
            yield Shard(self.split, index, len(self.batches), first, (), 0)
            first += len(batch)

    def records(self, shard: Shard) -> Sequence[pa.RecordBatch]:
        """The records of a shard, in two batches, of which the second is a slice; or in none."""
        batch = self.batches[shard.index]
        return [batch.slice(0, 1), batch.slice(1)] if len(batch) else []

    def long_values(self, shard: Shard) -> list[bytes]:
        """The images of a shard."""
        batch = self.batches[shard.index]
        images = [batch.column(column.name).to_pylist() for column in self.split.schema.images]
        return [image for column in images for image in column if image]


@dataclass(frozen=True)
class TestDataset:
    """A dataset: its description, and its splits with their records."""

    __test__ = False

    name: str
    description: Description
    splits: tuple[TestSplit, ...]


def datasets() -> list[TestDataset]:
    """All of them."""
    return [_dataset(name, *made) for name, made in _DATASETS.items()]


_Values = Callable[[int], Mapping[str, Any]]


def _dataset(name: str, columns: Sequence[Column], values: _Values) -> TestDataset:
    """A dataset whose record of a number has these values; img_id and clip_id are joined where they are among them."""
    schema = with_derived_label(tuple(columns))
    splits = {split: {"file": f"{split}.tfrecord"} for split in _SHARDS}
    document = {
        "name": name,
        "about": {"title": f"Synthetic: {name}", "licence": {"name": "CC0-1.0", "text": "Public domain."}},
        "configs": {"one": {"columns": described_columns(schema), "splits": splits}},
    }
    description = parse_description(document, name)
    made, record = [], 0
    for split, shards in zip(description.splits(), _SHARDS.values(), strict=True):
        split = with_columns(split, (), identified="img_id" in values(0))
        batches = []
        for records in shards:
            rows = [
                {"image": image(number)} | dict(values(number)) for number in range(record, record + records)
            ]
            batches.append(pa.RecordBatch.from_pylist(rows, schema=split.schema.arrow))
            record += records
        made.append(TestSplit(split, tuple(batches)))
    return TestDataset(name, description, tuple(made))


@cache
def image(number: int, encoding: str = "JPEG") -> bytes:
    """An encoded image of 12 pixels a row and 8 + ``number`` rows; no two are alike."""
    pixels = np.random.default_rng(number).integers(0, 256, (8 + number, 12, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, encoding)
    return file.getvalue()


def _column(name: str, dtype: pa.DataType, role: Role | None = None, **more: Any) -> Column:  # noqa: ANN401
    return Column(name, dtype, role, **{"feature": name} | more)


def _nullable(**kinds: pa.DataType) -> list[Column]:
    return [_column(name, kind, nullable=True) for name, kind in kinds.items()]


_INTEGERS, _FLOATS, _TEXTS, _BYTES = map(pa.list_, (pa.int64(), pa.float32(), pa.string(), pa.binary()))
_PAIR = pa.list_(pa.string(), 2)
_SPECIAL = (float("nan"), float("inf"), -float("inf"), -0.0, 1e-45)
_NAMES = ("anger", "joy", "calm")
_ODD_NAMES = ("anger", "joy, great", 'so-called "calm"')

_IMAGE = _column("image", pa.binary(), "image", feature="image/encoded")
_SIZES = [_column(role, pa.int32(), role) for role in ("height", "width", "depth")]
_ONE_LABEL, _SEVERAL_LABELS = (
    _column("label_vector", pa.list_(pa.uint8(), 3), "label", feature="label", label_names=_NAMES, kind=kind)
    for kind in ("single-label", "multi-label")
)
_IDS = _column(
    "category", pa.int64(), "label", label_names=_ODD_NAMES, label_ids=(1, 7, 300), unlabelled=True
)
_OBJECTS = _column("label", _INTEGERS, "label", feature="image/object/class/label", label_names=_ODD_NAMES)


def _size(number: int) -> dict[str, int]:
    return {"height": 8 + number, "width": 12, "depth": 3}


_DATASETS: Mapping[str, tuple[Sequence[Column], _Values]] = {
    BASIC: (
        (_IMAGE, _ONE_LABEL, *_SIZES),
        lambda number: _size(number) | {"label_vector": [int(number % 3 == place) for place in range(3)]},
    ),
    "several labels": (
        (_IMAGE, _SEVERAL_LABELS, *_SIZES),
        lambda number: {
            **_size(number),
            "label_vector": [number % 2, 1 - number % 2, number // 2 % 2],
            "img_id": f"clip_{number}.jpg",
            "clip_id": f"drama {number % 2}",
        },
    ),
    "numbers of labels": ((_IMAGE, _IDS), lambda number: {"category": (1, 300, 7, -1)[number % 4]}),
    "detection": (
        (
            _IMAGE,
            _OBJECTS,
            _column("name", pa.string(), "file_name", feature="image/filename"),
            *(_column(f"boxes_{side}", _FLOATS, feature=f"image/object/bbox/{side}") for side in "xy"),
            _column("texts", _TEXTS, feature="image/object/class/text"),
        ),
        lambda number: {
            "image": image(number, "PNG"),
            "label": [place % 3 for place in range(number % 4)],
            "name": f"some.name.{number}.jpg" if number % 2 else f"image {number}.png",
            "boxes_x": [0.1 * place for place in range(number % 4)],
            "boxes_y": [1e-38, -0.0, 16777217.0][: number % 4],
            "texts": ["", "한국어", 'a,"b"\n'][: number % 4],
        },
    ),
    "text labels": (
        (_IMAGE, _column("label", pa.string(), "label"), _column("id", pa.int64(), "file_name")),
        lambda number: {"label": f"word {number}", "id": 10**12 + number},
    ),
    "several images": (
        (_IMAGE, _column("mask/Left", pa.binary(), "image")),
        lambda number: {
            "image": image(number, "PNG" if number == 2 else "JPEG"),
            "mask/Left": image(50 + number, "PNG"),
        },
    ),
    "null images": (
        (_IMAGE, _column("mask", pa.binary(), "image", nullable=True)),
        lambda number: {"mask": image(50 + number) if number % 2 else None},
    ),
    "nulls": (
        (
            _IMAGE,
            *_nullable(integer=pa.int64(), small=pa.uint8(), float=pa.float32(), text=pa.string()),
            *_nullable(list=_INTEGERS, pair=pa.list_(pa.float32(), 2)),
        ),
        lambda number: {
            name: value if (number + place) % 3 else None
            for place, (name, value) in enumerate(
                {
                    "integer": -(2**63),
                    "small": 255,
                    "float": 0.5,
                    "text": "",
                    "list": [],
                    "pair": [1.5, -2.5],
                }.items()
            )
        },
    ),
    # Only the first record has values, so that whole shards and splits have none.
    "rare values": (
        (
            _IMAGE,
            *_nullable(integer=pa.int64(), float=pa.float32(), text=pa.string()),
            *_nullable(integers=_INTEGERS, texts=_TEXTS, pair=pa.list_(pa.int64(), 2)),
        ),
        lambda number: (
            {}
            if number
            else {"integer": 1, "float": 1.5, "text": "x", "integers": [1, 2], "texts": ["x"], "pair": [3, 4]}
        ),
    ),
    "pairs of texts": (
        (_IMAGE, _column("pair", _PAIR), _column("other", _PAIR, nullable=True)),
        lambda number: {"pair": ["", f"number {number}"], "other": ["x", ""] if number % 2 else None},
    ),
    "bytes": (
        (_IMAGE, _column("Raw", pa.binary()), _column("number", pa.int64())),
        lambda number: {"Raw": bytes(range(256)) * number, "number": 2**63 - 1 - number},
    ),
    "lists of bytes": (
        (_IMAGE, _column("lists", _BYTES), _column("pairs", pa.list_(pa.binary(), 2))),
        lambda number: {
            "lists": [b"", b"\xff\x00", b"x" * 300][: number % 4],
            "pairs": [b"", bytes([number])],
        },
    ),
    "null bytes": (
        (_IMAGE, *_nullable(raw=pa.binary())),
        lambda number: {"raw": (None, b"", b"\0")[number % 3]},
    ),
    "floats": (
        (_IMAGE, _column("value", pa.float32()), _column("values", _FLOATS)),
        lambda number: {"value": _SPECIAL[number % 5], "values": _SPECIAL[: number % 6]},
    ),
    "no image": (
        (_column("label", pa.int64(), "label", label_names=_NAMES), _column("x", pa.list_(pa.float32(), 3))),
        lambda number: {"label": number % 3, "x": [number / 3, 0.1, -1e30]},
    ),
}
