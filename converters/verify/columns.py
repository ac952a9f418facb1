"""Shows the columns of a config that is described, in the words in which inferred ones are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from converters.dataset.arrays import list_parts, valid_rows
from converters.dataset.column_table import ColumnRow, ColumnTable, image_words
from converters.dataset.schema import Column, Schema
from converters.formats.tfrecord.columns import kind_of
from converters.formats.tfrecord.feature_facts import shown_bytes, shown_numbers
from converters.verify.survey import ImageCounts

JOINED = "(joined)"
"""What stands in the place of a feature of columns that no feature holds."""


@dataclass
class ColumnCounts:
    """How many values the records of a split have in a column.

    Attributes:
        absent: how many records have none.
        least: the least number of values of the others; ``most``: the most.
        example: the value of a record, in words.
    """

    absent: int = 0
    least: int | None = None
    most: int = 0
    example: str = ""

    def add(self, column: Column, array: pa.Array) -> None:
        """Take the next records."""
        valid = valid_rows(array)
        there = int(valid.sum())
        self.absent += len(array) - there
        if not there:
            return
        least = most = 1
        if column.is_list:
            counts = list_parts(array)[0][valid]
            least, most = int(counts.min()), int(counts.max())
        self.least = least if self.least is None else min(self.least, least)
        self.most = max(self.most, most)
        if not self.example and column.role != "image" and most:
            values = array.drop_null()
            self.example = _in_words(next(value for value in values if not column.is_list or len(value)))


def _in_words(value: pa.Scalar) -> str:
    values = list(value.values) if isinstance(value, pa.ListScalar | pa.FixedSizeListScalar) else [value]
    if pa.types.is_integer(values[0].type) or pa.types.is_floating(values[0].type):
        return shown_numbers([number.as_py() for number in values])
    more = f" … ({len(values)})" if len(values) > 1 else ""
    return shown_bytes(values[0]) + more


def described_config(
    name: str,
    schema: Schema,
    counts: Mapping[str, Mapping[str, ColumnCounts]],
    records: Mapping[str, int],
    images: Sequence[ImageCounts],
) -> ColumnTable:
    """What the columns of a config are, as they are described.

    Args:
        name: of the config.
        schema: its columns.
        counts: of each column, by the split's name and the column's.
        records: of each split.
        images: what the first image is like in each split.
    """
    columns = []
    for column in schema.stored:
        own = {split: found[column.name] for split, found in counts.items() if column.name in found}
        found = [count for count in own.values() if count.least is not None]
        is_image = column is schema.image
        columns.append(
            ColumnRow(
                column.feature or JOINED,
                column,
                kind_of(column) if found else None,
                min((count.least or 0 for count in found), default=0),
                max((count.most for count in found), default=0),
                {split: count.absent for split, count in own.items() if count.absent},
                next((count.example for count in found if count.example), ""),
                "joined from label CSVs" if column.feature is None else "described",
                _image_words(images) if is_image and images else "",
            )
        )
    return ColumnTable(name, schema, tuple(columns), dict(records))


def _image_words(images: Sequence[ImageCounts]) -> str:
    encodings: Counter[str] = Counter()
    for counts in images:
        encodings.update(counts.encodings)
    sizes = list(zip(*(size for counts in images for size in counts.sizes), strict=True))
    return image_words(encodings, list(map(min, sizes)), list(map(max, sizes)))
