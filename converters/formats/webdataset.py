"""WebDataset: tar archives in which the files of one record follow each other and share a key.

What readers make of a name (webdataset's ``base_plus_ext``, and ``datasets``): the key is all before the first dot of
the base name, the field is all behind it, in lower case. ``datasets`` wants the same fields in every record, knows an
image by what follows the last dot, and calls its columns as the fields.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from converters.dataset.arrays import binary_array, binary_views, list_parts, numbers, valid_rows
from converters.dataset.description import Split
from converters.dataset.image_header import SUFFIXES
from converters.dataset.image_names import IMAGE_SUFFIXES, image_stems, is_stem_of, own_names, suffixes
from converters.dataset.labels import derived_label
from converters.dataset.schema import Column, Schema
from converters.dataset.shard import Shard
from converters.errors import CallError, DataError, Location
from converters.formats.readme import (
    code,
    datasets_loading,
    example_split,
    refuse_names,
    write_readme,
    write_terms,
)
from converters.formats.shard_files import data_files
from converters.formats.table import label_contradiction
from converters.formats.tar import MAX_NAME_BYTES, TarWriter, read_members

if TYPE_CHECKING:
    from converters.dataset.report import Report

_SEVERAL = ".jpg"  # ends the names of images of several encodings: readers look at the content
_RAW, _JSON = ".bin", ".json"
_LONGEST_SUFFIX = max(map(len, SUFFIXES.values()))
_MAX_TAIL_BYTES = MAX_NAME_BYTES - _LONGEST_SUFFIX - 20  # which leaves room for the number of any record
_BATCH_ROWS = 1000
_BATCH_BYTES = 8 << 20
_NAME = re.compile(r"(.+)-\d{6,}\.tar")
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class WebDatasetFormat:
    """Tar archives, one per shard: <config>/<split>-000000.tar with KEY.jpg and KEY.json, for webdataset and datasets.

    The key is the name of the image where that is known and fits, else the record's number. Further images are
    KEY.<column>.png, columns of bytes KEY.<column>.bin; all other columns are in KEY.json.

    Args:
        image_suffix: what the names of images end in, such as ``jpg``. By default what is in them; and ``jpg`` where
            those of a shard are of several encodings.
    """

    name = "webdataset"

    def __init__(self, *, image_suffix: str | None = None) -> None:
        if image_suffix is not None and f".{image_suffix}" not in SUFFIXES.values():
            known = ", ".join(suffix[1:] for suffix in SUFFIXES.values())
            raise CallError(f"image_suffix is {image_suffix!r}; it can be {known}.")
        self.image_suffix = image_suffix

    def refuse(self, splits: Sequence[Split]) -> None:
        """Refuse columns that cannot be in a WebDataset.

        Raises:
            CallError: there is one, or a name that ``datasets`` would not take.
        """
        refuse_names(splits, self.name)
        for split in splits:
            if (problem := next(_problems(split.schema), None)) is not None:
                name, reason = problem
                raise CallError(
                    f"{split.title}: the column {name} cannot be in a WebDataset: {reason}. Leave it out with "
                    f"--without {name}."
                )

    def write(self, batches: Iterable[pa.RecordBatch], shard: Shard, folder: Path) -> list[Path]:
        """Write a shard's records to one archive."""
        path = folder / shard.config / f"{shard.split.name}-{shard.index:06d}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x+b") as file:
            _write_archive(file, batches, shard, self.image_suffix)
        return [path]

    def read(self, folder: Path, split: Split, first: int = 0) -> Iterator[pa.RecordBatch]:
        """Read back the records of a split."""
        for path in _archives(folder, split):
            archive = _Archive(path, split, first)
            yield from archive.batches()
            archive.check_suffixes(self.image_suffix)
            first += archive.records

    def summarize(self, folder: Path, shard: Shard) -> dict[str, str]:
        """What the names of each column's images end in."""
        (path,) = _archives(folder, shard.split)
        return _Archive(path, shard.split, shard.first_record).suffixes()

    def finish(self, report: Report, folder: Path) -> None:
        """Write the terms, and a README that tells `datasets` of configs and splits.

        Raises:
            DataError: the images of a column are not one field in all shards; readers would lose the others.
        """
        found: dict[tuple[str, str], set[str]] = {}
        for split in report.splits:
            for summary in split.summaries:
                for column, suffix in summary.items():
                    found.setdefault((split.split.config, column), set()).add(suffix)
        for (config, column), several in found.items():
            if len(several) > 1:
                raise DataError(
                    f"{config}: the images of the column {column} are named {' and '.join(sorted(several))} in "
                    "different files, and programs that read WebDatasets would take these for different columns.",
                    advice="Name all alike with --image-suffix jpg.",
                )
        write_terms(report, folder)
        write_readme(report, folder, data_files(report, ".tar"), loading=_loading(report))


def _loading(report: Report) -> str:
    """Markdown that says which column is where, and how webdataset and ``datasets`` load a split."""
    split = example_split(report)
    layout = _Layout.of(split.schema)
    named: dict[str, str] = next(
        (found.summaries[0] for found in report.splits if found.split == split and found.summaries), {}
    )
    tails = {column.name: tail + named.get(column.name, _SEVERAL) for tail, column in layout.images.items()}
    tails |= {column.name: tail for tail, column in layout.raw.items()}
    files = [f"`KEY{tail}` is the column {code(name)}" for name, tail in tails.items()]
    if layout.has_json:
        files.append(f"`KEY{_JSON}` has {', '.join(code(column.name) for column in layout.values)}")
    names = [
        f"The numbers in {code(column.name)} of {code(config)} are, from 0: {', '.join(map(code, column.label_names))}."
        for config, schema in {found.split.config: found.split.schema for found in report.splits}.items()
        for column in _Layout.of(schema).values
        if column.label_names and column.kind is None and not column.label_ids
    ]
    fields = [tail.removeprefix(".") for tail in (*tails.values(), *[_JSON] * layout.has_json)]
    snippet = textwrap.dedent(
        """\
        ```python
        from pathlib import Path

        import webdataset as wds

        files = sorted(map(str, Path({config}).glob({files})))
        dataset = wds.WebDataset(files, shardshuffle=False).decode("pil").to_tuple({fields})
        ```"""
    ).format(
        config=json.dumps(split.config, ensure_ascii=False),
        files=json.dumps(f"{split.name}-*.tar", ensure_ascii=False),
        fields=", ".join(json.dumps(field, ensure_ascii=False) for field in fields),
    )
    where = f"Of each record of {code(split.config)}, {', '.join(files)}."
    return "\n\n".join((where, *names, snippet, datasets_loading(split.config)))


@dataclass(frozen=True)
class _Layout:
    """What follows the key in the name of the file that holds a column; of an image, all but the suffix."""

    images: Mapping[str, Column]
    raw: Mapping[str, Column]
    values: tuple[Column, ...]

    @classmethod
    def of(cls, schema: Schema) -> _Layout:
        """The layout of a schema's records."""
        raw = [column for column in schema.stored if _is_bytes(column) and column.role != "image"]
        return cls(
            {_tail(schema, column): column for column in schema.images},
            {_tail(schema, column): column for column in raw},
            tuple(column for column in schema if not _is_bytes(column)),
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
        longest = max(len(tail.encode()) for tail in (*self.images, *self.raw, _JSON))
        return MAX_NAME_BYTES - longest - _LONGEST_SUFFIX


def _is_bytes(column: Column) -> bool:
    return bool(pa.types.is_binary(column.value_type))


def _tail(schema: Schema, column: Column) -> str:
    if column == schema.image:
        return ""
    field = "." + re.sub(r"[^\w-]", "_", column.name).lower()
    return field if column.role == "image" else field + _RAW


def _problems(schema: Schema) -> Iterator[tuple[str, str]]:
    """The columns that cannot be in a WebDataset, and why."""
    taken: dict[str, str] = {}
    for column in filter(_is_bytes, schema.stored):
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


def _keys(split: Split, batch: pa.RecordBatch, first: int, layout: _Layout) -> list[str]:
    """The keys of consecutive records: the name of the image where it can be one, else the record's number."""
    longest = layout.max_key_bytes
    return [
        f"{record:08d}" if "." in stem or len(stem.encode()) > longest else stem
        for record, stem in enumerate(image_stems(split, batch, first, with_split=False), first)
    ]


def _is_key_of(key: str, record: int, own_name: str | None, longest: int) -> bool:
    """Whether a key is the one of a record; by other code than :func:`_keys`."""
    if own_name is not None and key == str(record).zfill(8):
        stem, _, suffix = own_name.rpartition(".")
        if f".{suffix.lower()}" not in IMAGE_SUFFIXES:
            stem = own_name
        return "." in stem or len(stem.encode()) > longest or stem == key
    return is_stem_of(key, record, own_name)


def _archives(folder: Path, split: Split) -> list[Path]:
    found = [(_NAME.fullmatch(path.name), path) for path in (folder / split.config).iterdir()]
    named = [path for match, path in found if match and match[1] == split.name]
    return sorted(named, key=lambda path: (len(path.name), path.name))


def _joint_suffix(found: Iterable[str], stated: str | None) -> str:
    """What the names of a column's images end in, of which a shard has those with these suffixes."""
    several = set(found)
    return f".{stated}" if stated else next(iter(several)) if len(several) == 1 else _SEVERAL


# --- Writing -------------------------------------------------------------------------------------------


def _write_archive(
    file: IO[bytes], batches: Iterable[pa.RecordBatch], shard: Shard, stated: str | None
) -> None:
    layout = _Layout.of(shard.split.schema)
    archive = TarWriter(file)
    seen: dict[str, set[str]] = {tail: set() for tail in layout.images}
    named: dict[str, str] = {}  # by the first image of the shard
    keys_seen: set[str] = set()
    first = shard.first_record
    for batch in batches:
        keys = _keys(shard.split, batch, first, layout)
        _refuse_same_keys(keys, keys_seen, shard.split, first)
        files: list[tuple[str, Sequence[bytes | memoryview]]] = []
        for tail, column in layout.images.items():
            found = suffixes(batch.column(column.name))
            seen[tail].update(found)
            named.setdefault(tail, _common_suffix(found[:1], stated))
            files.append((tail + named[tail], binary_views(batch.column(column.name))))
        files += [(tail, binary_views(batch.column(column.name))) for tail, column in layout.raw.items()]
        if layout.has_json:
            files.append((_JSON, _json_objects(shard.split.schema, layout, batch, first)))
        names = [tail.encode() for tail, _ in files]
        for key, *contents in zip(keys, *(contents for _, contents in files), strict=True):
            encoded = key.encode()
            for name, content in zip(names, contents, strict=True):
                archive.add(encoded + name, content)
        first += len(batch)
    for tail, suffix in named.items():
        if (common := _common_suffix(seen[tail], stated)) != suffix:
            archive.rename(tail + suffix, tail + common)
    archive.finish()


def _common_suffix(found: Collection[str], stated: str | None) -> str:
    """What the names of images end in of which these are the suffixes, one by one."""
    if stated is not None:
        return f".{stated}"
    (suffix,) = set(found) if len(set(found)) == 1 else {_SEVERAL}
    return suffix


def _refuse_same_keys(keys: Sequence[str], seen: set[str], split: Split, first: int) -> None:
    for record, key in enumerate(keys, first):
        if key in seen:
            named = split.schema.role("file_name")
            name = named.name if named is not None else "img_id"
            raise DataError(
                f"two records of a file would have the key {key!r}.",
                Location(split.title, record),
                f"Leave the column of names out: --without {name}.",
            )
        seen.add(key)


def _json_objects(schema: Schema, layout: _Layout, batch: pa.RecordBatch, first: int) -> list[bytes]:
    """The JSON object of each record: all columns but images and bytes, in their order; numbers bit for bit."""
    columns: list[list[Any]] = []
    for column in layout.values:
        array = derived_label(schema, batch) if column.derived else batch.column(column.name)
        if pa.types.is_floating(column.value_type):
            _refuse_not_finite(column, array, first)
        columns.append(array.to_pylist())
    names = [column.name for column in layout.values]
    rows = zip(*columns, strict=True) if columns else [()] * len(batch)
    return [_encode(dict(zip(names, row, strict=True))).encode() for row in rows]


def _refuse_not_finite(column: Column, array: pa.Array, first: int) -> None:
    counts, values = list_parts(array) if column.is_list else (None, array)
    finite = np.isfinite(numbers(values))
    if counts is None:
        finite |= ~valid_rows(array)
    if not finite.all():
        place = int(np.argmin(finite))
        row = place if counts is None else int(np.searchsorted(np.cumsum(counts), place, "right"))
        raise DataError(
            f"the column {column.name} has the value {numbers(values)[place]}, which JSON has not.",
            Location(record=first + row),
            f"Leave the column out: --without {column.name}.",
        )


# --- Reading -------------------------------------------------------------------------------------------


class _Archive:
    """Reads the records of one archive; the first is record ``first`` of the split.

    Attributes:
        records: how many were read.
    """

    def __init__(self, path: Path, split: Split, first: int) -> None:
        self.records = 0
        self._path, self._split, self._first = path, split, first
        self._layout = _Layout.of(split.schema)
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

    def suffixes(self) -> dict[str, str]:
        """What the names of each column's images end in, by the first record."""
        if next(self._rows(), None) is None:
            return {}
        return {column.name: self._named[tail] for tail, column in self._layout.images.items()}

    def check_suffixes(self, stated: str | None) -> None:
        """Check that images are named by what is in them, once all are read.

        Raises:
            DataError: they are not.
        """
        for tail, found in self._seen.items():
            expected = _common_suffix(found, stated)
            if self._named.get(tail, expected) != expected:
                raise self._error(f"the names of images end in {self._named[tail]}, expected {expected}", 0)

    def _rows(self) -> Iterator[tuple[str, list[bytes]]]:
        """The key of each record, and the contents of its files in the order of the layout."""
        with self._path.open("rb") as file:
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
        return [key + tail for tail in (*tails, *[_JSON] * self._layout.has_json)]

    def _are_of_columns(self, names: Sequence[str]) -> bool:
        """Whether the files of a record are called as the columns that they are taken for; without :func:`_tail`."""
        held = [*self._layout.images.values(), *self._layout.raw.values()]
        for column, name in zip(held, names, strict=False):
            word = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in column.name)
            fields = [] if column == self._split.schema.image else [word.lower()]
            if name.split(".")[1:-1] != fields or (name.endswith(_RAW) and column.role == "image"):
                return False
        return True

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
            self._seen[tail].update(suffixes(found[column.name]))
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
        rows = []
        names = [column.name for column in self._layout.values]
        for row, data in enumerate(objects, self.records):
            try:
                values = json.loads(data)
            except ValueError as error:
                raise self._error(f"the JSON cannot be read: {error}", row) from None
            if not isinstance(values, dict) or list(values) != names:
                raise self._error(f"expected a JSON object with {', '.join(names)}", row)
            rows.append(values)
        arrays = {}
        for column in self._layout.values:
            try:
                arrays[column.name] = pa.array([row[column.name] for row in rows], column.type)
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise self._error(
                    f"the values of {column.name} cannot be read: {error}", self.records
                ) from None
            if arrays[column.name].null_count and not column.nullable:
                raise self._error(f"the column {column.name} has no value", self.records)
        return arrays

    def _error(self, message: str, record: int) -> DataError:
        return DataError(f"{message}.", Location(str(self._path), record))
