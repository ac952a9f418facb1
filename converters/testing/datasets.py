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
from converters.dataset.schema import Column, Kind, Role, with_derived_label
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
    return [_dataset(name, *make()) for name, make in _DATASETS.items()]


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
            rows = [values(number) for number in range(record, record + records)]
            batches.append(pa.RecordBatch.from_pylist(rows, schema=split.schema.arrow))
            record += records
        made.append(TestSplit(split, tuple(batches)))
    return TestDataset(name, description, tuple(made))


def _column(
    name: str,
    dtype: pa.DataType,
    role: Role | None = None,
    *,
    feature: str | None = None,
    **more: Any,  # noqa: ANN401
) -> Column:
    return Column(name, dtype, role, feature or name, **more)


_IMAGE = _column("image", pa.binary(), "image", feature="image/encoded")
_SIZES = tuple(_column(role, pa.int32(), role) for role in ("height", "width", "depth"))
_NAMES = ("anger", "joy", "calm")
_ODD_NAMES = ("anger", "joy, great", 'so-called "calm"')


def _sized(number: int, encoding: str = "JPEG") -> dict[str, Any]:
    return {"image": image(number, encoding), "height": 8 + number, "width": 12, "depth": 3}


@cache
def image(number: int, encoding: str = "JPEG") -> bytes:
    """An encoded image of 12 pixels a row and 8 + ``number`` rows; no two are alike."""
    pixels = np.random.default_rng(number).integers(0, 256, (8 + number, 12, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, encoding)
    return file.getvalue()


def _labels() -> tuple[Sequence[Column], _Values]:
    label = _vector("single-label")
    return (
        _IMAGE,
        label,
        *_SIZES,
    ), lambda number: _sized(number) | {"label_vector": [int(number % 3 == place) for place in range(3)]}


def _several_labels() -> tuple[Sequence[Column], _Values]:
    label = _vector("multi-label")
    return (
        (_IMAGE, label, *_SIZES),
        lambda number: (
            _sized(number)
            | {
                "label_vector": [number % 2, 1 - number % 2, number // 2 % 2],
                "img_id": f"clip_{number}.jpg",
                "clip_id": f"drama {number % 2}",
            }
        ),
    )


def _vector(kind: Kind) -> Column:
    vector = pa.list_(pa.uint8(), len(_NAMES))
    return _column("label_vector", vector, "label", feature="label", label_names=_NAMES, kind=kind)


def _ids() -> tuple[Sequence[Column], _Values]:
    label = _column(
        "category", pa.int64(), "label", label_names=_ODD_NAMES, label_ids=(1, 7, 300), unlabelled=True
    )
    return (_IMAGE, label), lambda number: {"image": image(number), "category": (1, 300, 7, -1)[number % 4]}


def _detection() -> tuple[Sequence[Column], _Values]:
    boxes = tuple(
        _column(f"boxes_{side}", pa.list_(pa.float32()), feature=f"image/object/bbox/{side}") for side in "xy"
    )
    columns = (
        _IMAGE,
        _column(
            "label", pa.list_(pa.int64()), "label", feature="image/object/class/label", label_names=_ODD_NAMES
        ),
        _column("name", pa.string(), "file_name", feature="image/filename"),
        *boxes,
        _column("texts", pa.list_(pa.string()), feature="image/object/class/text"),
    )
    return columns, lambda number: {
        "image": image(number, "PNG"),
        "label": [place % 3 for place in range(number % 4)],
        "name": f"some.name.{number}.jpg" if number % 2 else f"image {number}.png",
        "boxes_x": [0.1 * place for place in range(number % 4)],
        "boxes_y": [1e-38, -0.0, 16777217.0][: number % 4],
        "texts": ["", "한국어", 'a,"b"\n'][: number % 4],
    }


def _text_labels() -> tuple[Sequence[Column], _Values]:
    columns = (_IMAGE, _column("label", pa.string(), "label"), _column("id", pa.int64(), "file_name"))
    return columns, lambda number: {"image": image(number), "label": f"word {number}", "id": 10**12 + number}


def _several_images() -> tuple[Sequence[Column], _Values]:
    mask = _column("mask/Left", pa.binary(), "image")
    return (_IMAGE, mask), lambda number: {
        "image": image(number, "PNG" if number == 2 else "JPEG"),
        "mask/Left": image(50 + number, "PNG"),
    }


def _null_images() -> tuple[Sequence[Column], _Values]:
    mask = _column("mask", pa.binary(), "image", nullable=True)
    return (_IMAGE, mask), lambda number: {
        "image": image(number),
        "mask": image(50 + number) if number % 2 else None,
    }


def _nulls() -> tuple[Sequence[Column], _Values]:
    kinds: dict[str, tuple[pa.DataType, Any]] = {
        "integer": (pa.int64(), -(2**63)),
        "small": (pa.uint8(), 255),
        "float": (pa.float32(), 0.5),
        "text": (pa.string(), ""),
        "list": (pa.list_(pa.int64()), []),
        "pair": (pa.list_(pa.float32(), 2), [1.5, -2.5]),
    }
    columns = [_column(name, kind, nullable=True) for name, (kind, _) in kinds.items()]
    return (
        (_IMAGE, *columns),
        lambda number: (
            {"image": image(number)}
            | {
                name: value if (number + place) % 3 else None
                for place, (name, (_, value)) in enumerate(kinds.items())
            }
        ),
    )


def _rare() -> tuple[Sequence[Column], _Values]:
    """Columns of which only the first record has a value, so that whole shards and splits have none."""
    kinds = (
        pa.int64(),
        pa.float32(),
        pa.string(),
        pa.list_(pa.int64()),
        pa.list_(pa.string()),
        pa.list_(pa.int64(), 2),
    )
    values = (1, 1.5, "x", [1, 2], ["x"], [3, 4])
    columns = [_column(f"rare_{place}", kind, nullable=True) for place, kind in enumerate(kinds)]
    return (
        (_IMAGE, *columns),
        lambda number: (
            {"image": image(number)}
            | {column.name: None if number else value for column, value in zip(columns, values, strict=True)}
        ),
    )


def _bytes() -> tuple[Sequence[Column], _Values]:
    return (_IMAGE, _column("Raw", pa.binary()), _column("number", pa.int64())), lambda number: {
        "image": image(number),
        "Raw": bytes(range(256)) * number,
        "number": 2**63 - 1 - number,
    }


def _lists_of_bytes() -> tuple[Sequence[Column], _Values]:
    kinds = {"lists": pa.list_(pa.binary()), "pairs": pa.list_(pa.binary(), 2)}
    return (_IMAGE, *(_column(name, kind) for name, kind in kinds.items())), lambda number: {
        "image": image(number),
        "lists": [b"", b"\xff\x00", b"x" * 300][: number % 4],
        "pairs": [b"", bytes([number])],
    }


def _pairs_of_texts() -> tuple[Sequence[Column], _Values]:
    kind = pa.list_(pa.string(), 2)
    columns = (_IMAGE, _column("pair", kind), _column("other", kind, nullable=True))
    return columns, lambda number: {
        "image": image(number),
        "pair": ["", f"number {number}"],
        "other": ["x", ""] if number % 2 else None,
    }


def _null_bytes() -> tuple[Sequence[Column], _Values]:
    return (_IMAGE, _column("raw", pa.binary(), nullable=True)), lambda number: {
        "image": image(number),
        "raw": (None, b"", b"\0")[number % 3],
    }


def _floats() -> tuple[Sequence[Column], _Values]:
    columns = (_IMAGE, _column("value", pa.float32()), _column("values", pa.list_(pa.float32())))
    special = (float("nan"), float("inf"), -float("inf"), -0.0, 1e-45)
    return columns, lambda number: {
        "image": image(number),
        "value": special[number % 5],
        "values": special[: number % 6],
    }


def _no_image() -> tuple[Sequence[Column], _Values]:
    columns = (
        _column("label", pa.int64(), "label", label_names=_NAMES),
        _column("x", pa.list_(pa.float32(), 3)),
    )
    return columns, lambda number: {"label": number % 3, "x": [number / 3, 0.1, -1e30]}


_DATASETS: Mapping[str, Callable[[], tuple[Sequence[Column], _Values]]] = {
    BASIC: _labels,
    "several labels": _several_labels,
    "numbers of labels": _ids,
    "detection": _detection,
    "text labels": _text_labels,
    "several images": _several_images,
    "null images": _null_images,
    "nulls": _nulls,
    "rare values": _rare,
    "pairs of texts": _pairs_of_texts,
    "bytes": _bytes,
    "lists of bytes": _lists_of_bytes,
    "null bytes": _null_bytes,
    "floats": _floats,
    "no image": _no_image,
}
