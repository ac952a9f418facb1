"""Reads the records of an archive."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa

from converters.dataset.arrays import binary_array
from converters.dataset.description import Split
from converters.dataset.image_header import suffixes_by_magic
from converters.dataset.image_names import IMAGE_SUFFIXES, is_stem_of, own_names
from converters.errors import DataError, Location
from converters.formats.json_rows import json_arrays
from converters.formats.table import label_contradiction
from converters.formats.webdataset.files import JSON, SEVERAL, Layout, json_object
from converters.formats.webdataset.tar import read_members
from converters.storage.hashing_reader import FileReader

_BATCH_ROWS = 1000
_BATCH_BYTES = 8 << 20
_READ_BYTES = 1 << 20


class Archive:
    """Reads the records of one archive through ``files``; the first is record ``first`` of the split.

    Attributes:
        records: how many were read.
    """

    def __init__(self, files: FileReader, path: Path, split: Split, first: int) -> None:
        self.records = 0
        self._files, self._path, self._split, self._first = files, path, split, first
        self._layout = Layout.of(split.schema)
        self._named: dict[str, str] = {}  # what the names of images end in, by the first record
        self._seen: dict[str, set[str]] = {tail: set() for tail in self._layout.images}

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The records in order, some at a time.

        Raises:
            DataError: the archive is damaged, or its files are not those of records of the split.
        """
        rows: list[list[bytes]] = []
        keys: list[str] = []
        size = 0
        for key, files in self._rows():
            keys.append(key)
            rows.append(files)
            size += sum(map(len, files))
            if len(rows) == _BATCH_ROWS or size >= _BATCH_BYTES:
                yield self._batch(keys, rows)
                keys, rows, size = [], [], 0
        if rows:
            yield self._batch(keys, rows)

    def suffixes(self) -> dict[str, list[str]]:
        """Of what was read: what the names of each column's images end in, and the suffixes of what is in them."""
        return {
            column.name: [self._named[tail], *sorted(self._seen[tail])]
            for tail, column in self._layout.images.items()
            if tail in self._named
        }

    def check_suffixes(self, stated: str | None) -> None:
        """Check that images are named by what is in them, once all are read.

        Raises:
            DataError: they are not.
        """
        for tail, found in self._seen.items():
            expected = {f".{stated}"} if stated else found if len(found) == 1 else {SEVERAL}
            if found and self._named[tail] not in expected:
                raise self._error(
                    f"the names of images end in {self._named[tail]}, expected {min(expected)}", 0
                )

    def _rows(self) -> Iterator[tuple[str, list[bytes]]]:
        """The key of each record, and the contents of its files in the order of the layout."""
        with self._files.open(self._path) as raw:
            file = io.BufferedReader(raw, _READ_BYTES)  # type: ignore[type-var]  # what is open is raw
            members = read_members(file, str(self._path), self._path.stat().st_size)
            record = 0
            while files := list(islice(members, self._layout.files)):
                names = [name for name, _ in files]
                key = names[0].partition(".")[0]
                if names != self._names(key, names) or (not record and not self._are_of_columns(names)):
                    raise self._error(f"expected the files of one record, found {', '.join(names)}", record)
                yield key, [data for _, data in files]
                record += 1

    def _names(self, key: str, found: Sequence[str]) -> list[str]:
        """The names that a record's files should have."""
        for name, tail in zip(found, self._layout.images, strict=False):
            self._named.setdefault(tail, f".{name.rpartition('.')[2]}")
        tails = [*(tail + self._named.get(tail, "") for tail in self._layout.images), *self._layout.raw]
        return [key + tail for tail in (*tails, *[JSON] * self._layout.has_json)]

    def _are_of_columns(self, names: Sequence[str]) -> bool:
        """Whether the files of a record are called as their columns; by other code than what names them."""
        held = [*self._layout.images.values(), *self._layout.raw.values()]
        for column, name in zip(held, names, strict=False):
            word = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in column.name)
            fields = [] if column == self._split.schema.image else [word.lower()]
            if name.split(".")[1:-1] != fields or name.endswith(".bin") != (column.role != "image"):
                return False
        return not self._layout.has_json or names[-1].split(".")[1:] == ["json"]

    def _batch(self, keys: Sequence[str], rows: Sequence[list[bytes]]) -> pa.RecordBatch:
        schema, first = self._split.schema, self._first + self.records
        contents = list(zip(*rows, strict=True))
        held = [*self._layout.images.values(), *self._layout.raw.values()]
        found = {column.name: binary_array(data) for column, data in zip(held, contents, strict=False)}
        if self._layout.has_json:
            found |= self._values(contents[-1])
        batch = pa.RecordBatch.from_arrays(
            [found[column.name] for column in schema.stored], schema=schema.arrow
        )
        for tail, column in self._layout.images.items():
            self._seen[tail].update(suffixes_by_magic(found[column.name]))
        for row, (key, own_name) in enumerate(zip(keys, own_names(self._split, batch), strict=True)):
            if not _is_key_of(key, first + row, own_name, self._layout.max_key_bytes):
                raise self._error(f"the key {key!r} is not the one of this record", self.records + row)
        if schema.derived is not None:
            row_of_problem = label_contradiction(schema, batch, found[schema.derived.name])
            if row_of_problem is not None:
                raise self._error("the labels contradict each other", self.records + row_of_problem)
        self.records += len(rows)
        return batch

    def _values(self, objects: Sequence[bytes]) -> dict[str, pa.Array]:
        """The columns in the JSON objects."""
        fields = {column.name: column.type for column in self._layout.values}
        arrays = json_arrays(objects, fields, json_object, str(self._path), self.records)
        for column in self._layout.values:
            if arrays[column.name].null_count and not column.nullable:
                raise self._error(f"the column {column.name} has no value", self.records)
        return arrays

    def _error(self, message: str, record: int) -> DataError:
        return DataError(f"{message}.", Location(str(self._path), record))


def _is_key_of(key: str, record: int, own_name: str | None, longest: int) -> bool:
    """Whether a key is the one of a record; by other code than :func:`~converters.formats.webdataset.files.keys`."""
    if own_name is not None and key == str(record).zfill(8):
        stem, _, suffix = own_name.rpartition(".")
        if f".{suffix.lower()}" not in IMAGE_SUFFIXES:
            stem = own_name
        return "." in stem or len(stem.encode()) > longest or stem == key
    return is_stem_of(key, record, own_name)
