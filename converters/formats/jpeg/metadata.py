"""``metadata.csv`` and ``metadata.jsonl``: what an image folder holds of a record besides its images.

A row has ``file_name``, the path of the image; ``<column>_file_name`` for each further image; and the other columns
under their names. Heights, widths and depths are not written: the images' headers have them, and every record was
checked against its. Of a label whose names are known:

====================  ===============================================================================================
0/1 vector in CSV     a column a name, 0 or 1, in stored order; nothing else
0/1 vector in JSON    the vector; ``label``, the number or the list of numbers; ``label_name``, their names
number                as stored; ``label``, the rank of the name, where the stored numbers do not count from 0;
                      ``label_name`` (of a list: ``label_names``), null where there is no label
====================  ===============================================================================================

CSV has no types, so it takes only what every reader finds in it by itself: integers, label vectors, and the ids of
KFER's own label CSVs. Text ("NA", "007", ""), floats (which pandas reads from CSV with the last bit wrong), lists and
what may be missing go into JSON lines, where a float stands as the shortest decimal of its value as a double.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from converters.dataset.arrays import (
    list_array,
    number_array,
    numbers,
    string_array,
    vector_matrix,
)
from converters.dataset.description import IDENTITIES, Split
from converters.dataset.labels import derived_label, label_ranks
from converters.dataset.schema import SIZES, Column, Schema
from converters.errors import DataError, Location
from converters.formats.json_rows import json_arrays
from converters.formats.readme import several_labels
from converters.formats.table import label_contradiction
from converters.storage.files import open_regular

FILE_NAME = "file_name"
MAX_CSV_LABELS = 1000  # as columns of a CSV; more names than that are unwieldy there, and go into JSON lines

# Columns that imagefolder takes for paths of images, or that take the place of the image.
_RESERVED = re.compile(r"image|(.+_)?file_names?")
# A word that no reader of CSV takes for a number, a truth value or nothing at all.
_WORD = re.compile(r"(?!(?:nan?|null|none|true|false|inf|infinity)$)[^\W\d_][\w '&()-]*", re.IGNORECASE)
_NAMES_OF_LABELS = ("label_name", "label_names")
_NO_WORDS = ("", "na", "nan", "null", "none", "true", "false", "inf", "infinity")
_READ_ROWS = 2048
_READ_BYTES = 1 << 20
_BLOCK = 1 << 20

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode

Writer = Callable[[pa.RecordBatch], object]


def is_reserved(name: str) -> bool:
    """Whether imagefolder takes a column of this name for something else than a column."""
    return _RESERVED.fullmatch(name) is not None


@dataclass(frozen=True)
class Metadata:
    """The metadata files of a split."""

    split: Split

    @property
    def schema(self) -> Schema:
        """The columns of the split."""
        return self.split.schema

    @cached_property
    def _besides_images(self) -> list[Column]:
        """The stored columns that neither are images nor are said by their headers."""
        stored = self.schema.stored
        return [column for column in stored if column.role != "image" and not self.from_header(column)]

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The stored columns that are written as such."""
        return tuple(column for column in self._besides_images if not self._as_names(column))

    @cached_property
    def is_csv(self) -> bool:
        """Whether it is CSV. It follows from the columns alone: all splits of a config have the same."""
        plain = [column for column in self._besides_images if column.kind is None]
        label = self.schema.label
        if not all(
            (pa.types.is_integer(column.type) and not column.nullable)
            or (column.feature is None and column.name in IDENTITIES)
            for column in plain
        ):
            return False
        if label is None or not label.label_names:
            return True
        if label.kind is None:
            derived = self.schema.derived
            words = all(map(_WORD.fullmatch, label.label_names))
            return words and not (derived is not None and derived.nullable)
        names = set(label.label_names)
        clash = names & {column.name for column in plain} or any(map(is_reserved, names))
        return not label.nullable and len(names) <= MAX_CSV_LABELS and not clash

    @property
    def file(self) -> str:
        """The name of the split's metadata file."""
        return f"metadata.{'csv' if self.is_csv else 'jsonl'}"

    def part(self, number: str) -> str:
        """The name of a shard's part of it."""
        return self.file.replace(".", f"-{number}.")

    @cached_property
    def file_columns(self) -> dict[str, str]:
        """The column of each image's path, by the column of the image."""
        first = self.schema.image
        return {
            image.name: FILE_NAME if image == first else f"{image.name}_{FILE_NAME}"
            for image in self.schema.images
        }

    @cached_property
    def fields(self) -> dict[str, pa.DataType]:
        """The columns of a row in their order, with their types."""
        fields: dict[str, pa.DataType] = dict.fromkeys(self.file_columns.values(), pa.string())
        for column in self.schema:
            if column in self.columns or (column.derived and not self._as_names(column)):
                fields[column.name] = column.type
            if column == self.schema.label and self._name_column is not None:
                several = several_labels(self.schema.label)
                fields[self._name_column] = pa.list_(pa.string()) if several else pa.string()
        if (label := self.schema.label) and self._as_names(label):
            fields |= dict.fromkeys(label.label_names, pa.uint8())
        return fields

    def _is_complete(self) -> bool:
        """Whether a row has all that readers look for, as they find it; by other code than what decides on it."""
        schema, fields = self.schema, set(self.fields)
        names = set(self.split.label_names)
        as_names = bool(names) and names <= fields
        needed = {
            "file_name" if image == schema.image else f"{image.name}_file_name" for image in schema.images
        }
        needed |= {
            column.name
            for column in schema
            if column.role not in ("image", *SIZES) and not (as_names and column.role == "label")
        }
        texts = {name for name, kind in self.fields.items() if not pa.types.is_integer(kind)}
        words = all(name[:1] not in "0123456789.+-" and name.lower() not in _NO_WORDS for name in names)
        if self.is_csv and not (
            texts <= {*self.file_columns.values(), *IDENTITIES, *_NAMES_OF_LABELS} and (words or as_names)
        ):
            return False
        called = self.file in ("metadata.csv", "metadata.jsonl") and needed <= fields
        return called and (not names or as_names or not fields.isdisjoint(_NAMES_OF_LABELS))

    def from_header(self, column: Column) -> bool:
        """Whether the image's header says what a column does."""
        return column.role in SIZES and not column.nullable and self.schema.image is not None

    def _as_names(self, column: Column) -> bool:
        """Whether a label is a column a name."""
        label = self.schema.label
        return column.role == "label" and label is not None and label.kind is not None and self.is_csv

    @cached_property
    def _name_column(self) -> str | None:
        """The column of the labels' names; None where there is none, or the dataset has one of its own."""
        label = self.schema.label
        if label is None or not label.label_names or self._as_names(label):
            return None
        name = "label_names" if several_labels(label) else "label_name"
        return None if name in self.schema else name

    def rows(self, batch: pa.RecordBatch, paths: Mapping[str, Sequence[str]]) -> pa.RecordBatch:
        """The rows of records.

        Args:
            batch: the records.
            paths: the paths of the files of each column of images.
        """
        values = {self.file_columns[name]: string_array(files) for name, files in paths.items()}
        for name in self.fields:
            if name in batch.schema.names and name in self.schema:
                values[name] = batch.column(name)
        if (derived := self.schema.derived) is not None and derived.name in self.fields:
            values[derived.name] = derived_label(self.schema, batch)
        label = self.schema.label
        if label is not None and self._name_column is not None:
            values[self._name_column] = self._label_names(label, batch.column(label.name))
        if label is not None and self._as_names(label):
            vectors = vector_matrix(batch.column(label.name)).astype(np.uint8)
            values |= {
                name: number_array(vectors[:, place], pa.uint8())
                for place, name in enumerate(label.label_names)
            }
        return pa.RecordBatch.from_pydict({name: values[name] for name in self.fields})

    def _label_names(self, label: Column, array: pa.Array) -> pa.Array:
        texts: list[list[str]] = [[] for _ in range(len(array))]
        rows, ranks = label_ranks(label, array)
        for row, rank in zip(rows.tolist(), ranks.tolist(), strict=True):
            texts[row].append(label.label_names[rank])
        if several_labels(label):
            return pa.array(texts, pa.list_(pa.string()))
        return pa.array([names[0] if names else None for names in texts], pa.string())

    def stored(self, rows: pa.RecordBatch, location: Callable[[int], Location]) -> dict[str, pa.Array]:
        """The stored columns that rows hold, by name; the way back from :meth:`rows`.

        Raises:
            DataError: a name or a number of a label is not the one of the stored label.
        """
        found = {column.name: rows.column(column.name) for column in self.columns}
        label = self.schema.label
        if label is None or not label.label_names:
            return found
        if self._as_names(label):
            columns = [numbers(rows.column(name)) for name in label.label_names]
            flat = np.stack(columns, axis=1).reshape(-1).astype(label.value_type.to_pandas_dtype())
            values = number_array(flat, label.value_type)
            return found | {label.name: list_array(values, label.type, np.empty(0, np.int64))}
        stated = [self.schema.derived.name] if self.schema.derived is not None else []
        stated += [self._name_column] if self._name_column is not None else []
        batch = pa.RecordBatch.from_pydict({label.name: found[label.name]})
        for name in stated:
            ranks = rows.column(name)
            if name == self._name_column:
                ranks = pa.array([self._ranks(value) for value in ranks.to_pylist()])
            if (row := label_contradiction(self.schema, batch, ranks)) is not None:
                raise DataError(f"the columns {name} and {label.name} contradict each other.", location(row))
        return found

    @cached_property
    def _rank_of(self) -> dict[str, int]:
        return {name: rank for rank, name in enumerate(self.split.label_names)}

    def _ranks(self, names: list[str] | str | None) -> list[int] | int | None:
        """The ranks of names; of what is no name, one that no label has."""
        if isinstance(names, list):
            return [self._rank_of.get(name, len(self._rank_of)) for name in names]
        return self._rank_of.get(names, len(self._rank_of)) if names else None

    # --- Files ---------------------------------------------------------------------------------------------

    def writer(self, file: IO[bytes], *, header: bool) -> Writer:
        """Writes rows to a file; ``header``: the file begins with the names of the columns, where it is CSV."""
        if not self.is_csv:
            return lambda rows: file.writelines(_json_lines(rows))
        if header:
            file.write(self._header())
        return lambda rows: _write_csv(rows, file)

    def _header(self) -> bytes:
        """The first line of the CSV; Arrow's own writer would quote every name."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(self.fields)
        return text.getvalue().encode()

    def read(self, path: Path, *, header: bool) -> Iterator[pa.RecordBatch]:
        """The rows of a file, strictly.

        Raises:
            DataError: the file is malformed, has other columns or another order, or a value is not of its type.
        """
        location = Location(str(path))
        if not self._is_complete():
            raise DataError("its name or its columns are wrong: a fault of kfer-convert.", location)
        try:
            # A file object: from a path, Arrow would go by the name and decompress.
            with open(open_regular(path, follow_links=False), "rb") as file:  # noqa: PTH123  # a descriptor
                if self.is_csv:
                    yield from self._read_csv(file, location, header=header)
                else:
                    yield from self._read_json(file, str(path))
        except pa.ArrowInvalid as error:
            raise DataError(f"no valid metadata file: {str(error).splitlines()[0]}.", location) from None
        except OSError as error:
            raise DataError(f"the metadata cannot be read: {error.strerror or error}.", location) from error

    def _read_csv(self, file: IO[bytes], location: Location, *, header: bool) -> Iterator[pa.RecordBatch]:
        from pyarrow import csv as arrow_csv

        names = list(self.fields)
        first = self._header() if header else b""
        if file.read(len(first)) != first:
            raise DataError(f"the first line does not name the columns {', '.join(names)[:1000]}.", location)
        if not file.read(1):
            return
        file.seek(len(first))
        place = len(first)
        for rows in arrow_csv.open_csv(
            file,
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=_BLOCK, column_names=names),
            parse_options=arrow_csv.ParseOptions(ignore_empty_lines=False, newlines_in_values=False),
            convert_options=arrow_csv.ConvertOptions(
                column_types=self.fields, null_values=[], strings_can_be_null=False, check_utf8=True
            ),
        ):
            written = io.BytesIO()
            _write_csv(self._with_null_names(rows), written)
            # What Arrow takes for the same number, others may take for text: 0x1, or "1".
            if os.pread(file.fileno(), written.tell(), place) != written.getvalue():
                raise DataError(
                    "the rows are not as kfer-convert writes them.", Location(location.path, offset=place)
                )
            place += written.tell()
            yield rows

    def _with_null_names(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with null, which CSV has not, for the name of no label."""
        if self._name_column is None:
            return rows
        place = rows.schema.get_field_index(self._name_column)
        names = [name or None for name in rows.column(place).to_pylist()]
        return rows.set_column(place, self._name_column, pa.array(names, pa.string()))

    def _read_json(self, file: IO[bytes], path: str) -> Iterator[pa.RecordBatch]:
        first = size = 0
        lines: list[bytes] = []
        for number, line in enumerate(file):
            lines.append(line)
            size += len(line)
            if len(lines) == _READ_ROWS or size >= _READ_BYTES:
                yield pa.RecordBatch.from_pydict(json_arrays(lines, self.fields, _json_line, path, first))
                first, size, lines = number + 1, 0, []
        if lines:
            yield pa.RecordBatch.from_pydict(json_arrays(lines, self.fields, _json_line, path, first))


def _write_csv(rows: pa.RecordBatch, file: IO[bytes]) -> None:
    from pyarrow import csv as arrow_csv

    arrow_csv.write_csv(rows, file, arrow_csv.WriteOptions(include_header=False, quoting_style="needed"))


def _json_lines(rows: pa.RecordBatch) -> Iterator[bytes]:
    names = rows.schema.names
    step = max(
        1, len(rows) * _READ_BYTES // max(1, rows.nbytes)
    )  # as Python's objects they are many times as large
    for start in range(0, len(rows), step):
        part = rows.slice(start, step)
        for values in zip(*(column.to_pylist() for column in part.columns), strict=True):
            yield _json_line(dict(zip(names, values, strict=True)))


def _json_line(values: dict[str, Any]) -> bytes:
    return (_encode(values) + "\n").encode()
