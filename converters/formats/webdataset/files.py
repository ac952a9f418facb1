"""Which file of a record holds which column, and what the files are called.

What readers make of a name (webdataset's ``base_plus_ext``, and ``datasets``): the key is all before the first dot of
the base name, the field is all behind it, in lower case. ``datasets`` wants the same fields in every record, knows an
image by what follows the last dot, and calls its columns as the fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from converters.dataset.description import Split
from converters.dataset.image_header import SUFFIXES
from converters.dataset.image_names import image_stems
from converters.dataset.schema import Column, Schema
from converters.formats.webdataset.tar import MAX_NAME_BYTES

SEVERAL = ".jpg"
"""Ends the names of images of several encodings: readers look at the content."""

RAW, JSON = ".bin", ".json"

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_LONGEST_SUFFIX = max(map(len, SUFFIXES.values()))
_MAX_TAIL_BYTES = MAX_NAME_BYTES - _LONGEST_SUFFIX - 20  # which leaves room for the number of any record


@dataclass(frozen=True)
class Layout:
    """What follows the key in the name of the file that holds a column; of an image, all but the suffix."""

    images: Mapping[str, Column]
    raw: Mapping[str, Column]
    values: tuple[Column, ...]

    @classmethod
    def of(cls, schema: Schema) -> Layout:
        """The layout of a schema's records."""
        raw = [column for column in schema.stored if is_bytes(column) and column.role != "image"]
        return cls(
            {_tail(schema, column): column for column in schema.images},
            {_tail(schema, column): column for column in raw},
            tuple(column for column in schema if not is_bytes(column)),
        )

    @property
    def has_json(self) -> bool:
        """Whether there is a JSON object; a record without any file would be none."""
        return bool(self.values) or not (self.images or self.raw)

    @property
    def files(self) -> int:
        """How many files a record has."""
        return len(self.images) + len(self.raw) + self.has_json

    @property
    def max_key_bytes(self) -> int:
        """How long a key may be, so that each name fits into a header."""
        longest = max(len(tail.encode()) for tail in (*self.images, *self.raw, JSON))
        return MAX_NAME_BYTES - longest - _LONGEST_SUFFIX


def json_object(values: dict[str, Any]) -> bytes:
    """The content of a record's JSON file; numbers bit for bit."""
    return _encode(values).encode()


def is_bytes(column: Column) -> bool:
    """Whether the values of a column are bytes, or lists of bytes."""
    return bool(pa.types.is_binary(column.value_type))


def _tail(schema: Schema, column: Column) -> str:
    if column == schema.image:
        return ""
    field = "." + re.sub(r"[^\w-]", "_", column.name).lower()
    return field if column.role == "image" else field + RAW


def problems(schema: Schema) -> Iterator[tuple[str, str]]:
    """The columns that cannot be in a WebDataset, and why."""
    taken: dict[str, str] = {}
    for column in filter(is_bytes, schema.stored):
        if column.is_list:
            yield column.name, "its values are lists of bytes, which JSON has not"
        if column.nullable:
            yield column.name, "some records lack it, and `datasets` wants the same files for every record"
        tail = _tail(schema, column)
        if tail in taken:
            yield column.name, f"its files would be named as those of the column {taken[tail]}"
        if len(tail.encode()) > _MAX_TAIL_BYTES:
            yield column.name, "its name is too long for the names of files in a tar archive"
        taken[tail] = column.name


def keys(split: Split, batch: pa.RecordBatch, first: int, layout: Layout) -> list[str]:
    """The keys of consecutive records: the name of the image where it can be one, else the record's number."""
    longest = layout.max_key_bytes
    return [
        f"{record:08d}" if "." in stem or len(stem.encode()) > longest else stem
        for record, stem in enumerate(image_stems(split, batch, first, with_split=False), first)
    ]


def common_suffix(found: Collection[str], stated: str | None) -> str:
    """What the names of images end in of which these are the suffixes, one by one."""
    if stated is not None:
        return f".{stated}"
    (suffix,) = set(found) if len(set(found)) == 1 else {SEVERAL}
    return suffix
