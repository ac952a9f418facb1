"""The table that Parquet and Arrow files hold: its Arrow schema, Hugging Face's features, and the way there and back.

Facts that the schema follows (seen in datasets 4 and 5): the features stand in the schema's metadata under
``huggingface`` as ``{"info": {"features": …}}``; an image is ``struct<bytes: binary, path: string>`` in that
order; a class label is int64; all fields are nullable; a column whose Arrow field differs in any way loses its
feature without a word. ``Sequence`` is read by all versions, ``List`` from 4 on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import (
    binary_parts,
    list_parts,
    numbers,
    string_array,
    valid_rows,
    with_empty_nulls,
    with_nulls,
)
from converters.dataset.description import Split
from converters.dataset.image_names import first_misnamed, image_names
from converters.dataset.labels import UNLABELLED, derived_label
from converters.dataset.schema import Column, Schema, type_name
from converters.dataset.shard import Shard
from converters.errors import DataError, Location

_ADDED = {b"PARQUET:field_id", b"lance-encoding:compression"}  # to fields, by formats
_IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


def features(schema: Schema) -> dict[str, dict[str, Any]]:
    """The features of a table by column, as ``datasets`` writes them in JSON."""
    return {column.name: _feature(schema, column) for column in schema}


def yaml_features(schema: Schema) -> list[dict[str, Any]]:
    """The features of a schema in the form of a dataset card; ``sequence`` is read by all versions of `datasets`."""
    return [{"name": name, **_yaml_feature(feature)} for name, feature in features(schema).items()]


def table_schema(schema: Schema) -> pa.Schema:
    """The Arrow schema of a table, with Hugging Face's metadata."""
    fields = [pa.field(column.name, _table_type(schema, column)) for column in schema]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features(schema)}})})


def to_table(batch: pa.RecordBatch, split: Split, first: int) -> pa.RecordBatch:
    """The rows of a record batch whose first record has index ``first`` in its split."""
    schema = split.schema
    columns = []
    for column in schema:
        if column.derived:
            columns.append(derived_label(schema, batch))
        elif column.role == "image":
            images = with_empty_nulls(batch.column(column.name))
            paths = string_array(image_names(split, column, batch, first, with_split=True))
            array = pa.StructArray.from_arrays([images, paths], fields=list(_IMAGE))
            columns.append(_null_images(array, images))
        else:
            columns.append(_as_class_label(schema, column, with_empty_nulls(batch.column(column.name))))
    return pa.RecordBatch.from_arrays(columns, schema=table_schema(schema))


def from_table(rows: pa.RecordBatch, split: Split, path: str, first: int) -> pa.RecordBatch:
    """The record batch of a table's rows, of which the first is row ``first`` of the split.

    Raises:
        DataError: a value is missing, or columns that follow from others contradict them.
    """
    schema = split.schema
    columns = []
    for column in schema.stored:
        array = rows.column(column.name)
        if array.null_count and not column.nullable:
            row = first + int(np.argmax(~valid_rows(array)))
            raise DataError(f"the column {column.name} has no value.", Location(path, row))
        if column.role == "image":
            array = _images(array)
        columns.append(array.cast(column.type) if array.type != column.type else array)
    batch = pa.RecordBatch.from_arrays(columns, schema=schema.arrow)
    for image in schema.images:
        found = rows.column(image.name)
        paths = (
            [row and row["path"] for row in found.to_pylist()]
            if found.null_count
            else found.field("path").to_pylist()
        )
        wrong = first_misnamed(split, image, batch, first, paths, with_split=True)
        if wrong is not None:
            raise DataError(
                f"{image.name}.path is {paths[wrong]!r}, which is not the name of this record's image.",
                Location(path, first + wrong),
            )
    if schema.derived is not None:
        problem = label_contradiction(schema, batch, rows.column(schema.derived.name))
        if problem is not None:
            raise DataError(
                f"the columns {schema.derived.name} and {schema.label.name if schema.label else ''} contradict each "
                "other.",
                Location(path, first + problem),
            )
    return batch


def tables(
    batches: Iterable[pa.RecordBatch], shard: Shard, max_rows: int, max_bytes: int
) -> Iterator[pa.Table]:
    """The rows of a shard's records, cut after so many rows or bytes of long values, wherever the batches end."""
    pending: list[pa.RecordBatch] = []
    first = shard.first_record
    rows = size = 0
    for records in batches:
        batch = to_table(records, shard.split, first)
        first += len(batch)
        offsets = _edges(batch)
        start = 0
        while start < len(batch):
            room = int(np.searchsorted(offsets, offsets[start] + max_bytes - size, "right")) - 1
            end = min(len(batch), start + max_rows - rows, max(room, start + (not rows)))
            pending.append(batch.slice(start, end - start))
            rows += end - start
            size += int(offsets[end] - offsets[start])
            if end < len(batch) or rows == max_rows:
                yield pa.Table.from_batches(pending)
                pending, rows, size = [], 0, 0
            start = end
    if rows:
        yield pa.Table.from_batches(pending)


def _edges(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """int64, one more than rows: how many bytes of long values are in the rows before each, and in all."""
    edges = np.zeros(len(batch) + 1, np.int64)
    for column in batch.columns:
        values = column.field("bytes") if pa.types.is_struct(column.type) else column
        if pa.types.is_binary(values.type) or pa.types.is_string(values.type):
            offsets, _ = binary_parts(values)
            edges += offsets - offsets[0]
        elif pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            counts, items = list_parts(values)
            edges[1:] += np.cumsum(counts) * (items.nbytes // max(1, len(items)))
    return edges


def compact(rows: pa.Table) -> pa.Table:
    """The same rows in one chunk, whose buffers hold these rows and nothing else.

    A file of arrays as they are in memory would hold bytes of the rows next to them, too, which depend on how the
    source was read.
    """
    empty = rows.slice(0, 0)  # a single chunk would not be copied
    return pa.concat_tables([rows, empty]).combine_chunks()


def check_schema(schema: pa.Schema, split: Split, path: Path) -> None:
    """Check that a file's schema is the one of its split's tables.

    Raises:
        DataError: it is another.
    """
    expected = table_schema(split.schema)
    if not schema.equals(expected) or schema.metadata != expected.metadata or any(map(_is_tagged, schema)):
        raise DataError(
            f"the file's schema is not the one of {split.title}: columns, label names or features differ.",
            Location(str(path)),
        )
    stated = json.loads((schema.metadata or {}).get(b"huggingface", b'{"info": {"features": {}}}'))["info"][
        "features"
    ]
    check_features({name: _stated(feature) for name, feature in stated.items()}, split, path)


def _is_tagged(field: pa.Field) -> bool:
    """Whether a field, or one in it, has metadata that no format adds: a name of a type, say, that a reader knows."""
    kind = field.type
    inner = list(kind) if pa.types.is_struct(kind) else [kind.value_field] if _is_nested(kind) else []
    return bool((field.metadata or {}).keys() - _ADDED) or any(map(_is_tagged, inner))


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


Stated = tuple[str, tuple[str, ...]]
"""What is said of a column: its type, where ``label`` is a number with a name; and these names."""


def check_features(stated: Mapping[str, Stated], split: Split, path: Path) -> None:
    """Hold what a file says of its columns against the split, by other code than :func:`features`.

    Raises:
        DataError: columns, types or the names of labels differ.
    """
    expected: dict[str, Stated] = {}
    named = split.schema.derived or split.schema.label
    for column in split.schema:
        kind, brackets, size = ("image" if column.role == "image" else type_name(column.type)).partition("[")
        is_label = column == named and column.label_names
        expected[column.name] = (
            ("label" if is_label else kind) + brackets + size,
            column.label_names if is_label else (),
        )
    if list(stated) != list(expected):
        found = f"the columns are {', '.join(stated)}; those of {split.title} are {', '.join(expected)}."
        raise DataError(found, Location(str(path)))
    for name, (kind, names) in stated.items():
        if (kind, names) != expected[name]:
            text = f"the column {name} is said to be {kind} {', '.join(names)[:1000]}".rstrip()
            raise DataError(f"{text}, which is not what it is in {split.title}.", Location(str(path)))


def _stated(feature: Mapping[str, Any]) -> Stated:
    """What a feature of ``datasets`` in JSON says."""
    kind = feature["_type"]
    if kind == "Sequence":
        inner, names = _stated(feature["feature"])
        return f"{inner}[{feature.get('length', '')}]", names
    if kind == "ClassLabel":
        return "label", tuple(feature["names"])
    return ("image" if kind == "Image" else str(feature["dtype"])), ()


def label_contradiction(schema: Schema, batch: pa.RecordBatch, found: pa.Array) -> int | None:
    """The first row in which the ranks of labels, as they were read, are not what is stored; None if there is none.

    It goes the other way than :func:`~converters.dataset.labels.derived_label`: from the numbers to what is stored.
    """
    label = schema.label
    assert label is not None
    stored, several = batch.column(label.name), pa.types.is_list(found.type)
    if several and found.null_count:  # a record without labels has an empty list
        return _first(~valid_rows(found))
    if label.kind is not None:
        matrix = np.zeros((len(batch), len(label.label_names)), np.int64)
        counts, ranks = list_parts(found) if several else (valid_rows(found).astype(np.int64), found)
        chosen = numbers(ranks) if several else numbers(ranks)[counts.astype(np.bool_)]
        rows = np.repeat(np.arange(len(batch)), counts)
        wrong = (chosen < 0) | (chosen >= matrix.shape[1])
        wrong[1:] |= (rows[1:] == rows[:-1]) & (chosen[1:] <= chosen[:-1])  # twice, or out of order
        if wrong.any():
            return int(rows[np.argmax(wrong)])
        matrix[rows, chosen] = 1
        expected = np.zeros_like(matrix)
        valid = valid_rows(stored)
        expected[valid] = numbers(list_parts(stored)[1]).reshape(-1, matrix.shape[1])
        return _first((matrix != expected).any(axis=1))
    ids = label.label_ids or tuple(range(len(label.label_names)))
    for row, (rank, number) in enumerate(zip(found.to_pylist(), stored.to_pylist(), strict=True)):
        ranks, labels = (
            value if isinstance(value, list) else [value] * (value is not None) for value in (rank, number)
        )
        known = [value for value in labels if value != UNLABELLED]
        if [ids[value] if value is not None and 0 <= value < len(ids) else None for value in ranks] != known:
            return row
    return None


def _first(which: Any) -> int | None:  # noqa: ANN401  # bool array
    return int(np.argmax(which)) if which.any() else None


def _null_images(array: pa.StructArray, images: pa.Array) -> pa.Array:
    if not images.null_count:
        return array
    bitmap = pa.py_buffer(np.packbits(valid_rows(images), bitorder="little"))
    return pa.Array.from_buffers(array.type, len(array), [bitmap], children=[array.field(0), array.field(1)])


def _images(array: pa.StructArray) -> pa.Array:
    """The encoded images; null where there is none."""
    images = array.field("bytes")
    return images if not array.null_count else with_nulls(images, valid_rows(array) & valid_rows(images))


def _is_class_label(schema: Schema, column: Column) -> bool:
    """Whether the numbers of a label are what ``datasets`` takes for one."""
    if column.derived:
        return True
    return bool(
        column.role == "label" and column.label_names and column.kind is None and not column.label_ids
    )


def _as_class_label(schema: Schema, column: Column, array: pa.Array) -> pa.Array:
    return array.cast(_table_type(schema, column)) if _is_class_label(schema, column) else array


def _table_type(schema: Schema, column: Column) -> pa.DataType:
    if column.role == "image":
        return _IMAGE
    if not _is_class_label(schema, column):
        return column.type
    if column.size == 1:
        return pa.int64()
    return pa.list_(pa.int64()) if column.size is None else pa.list_(pa.int64(), column.size)


def _feature(schema: Schema, column: Column) -> dict[str, Any]:
    if column.role == "image":
        return {"_type": "Image"}
    value: dict[str, Any] = {"dtype": type_name(column.value_type), "_type": "Value"}
    if _is_class_label(schema, column):
        value = {"names": list(column.label_names), "_type": "ClassLabel"}
    if not column.is_list:
        return value
    sequence: dict[str, Any] = {"feature": value}
    if column.size is not None:
        sequence["length"] = column.size
    return sequence | {"_type": "Sequence"}


def _yaml_feature(feature: Mapping[str, Any]) -> dict[str, Any]:
    kind = feature["_type"]
    if kind == "Value":
        return {"dtype": feature["dtype"]}
    if kind == "ClassLabel":
        # The Hub wants strings for keys.
        names = {str(number): name for number, name in enumerate(feature["names"])}
        return {"dtype": {"class_label": {"names": names}}}
    if kind == "Sequence":
        length = {"length": feature["length"]} if "length" in feature else {}
        return {"sequence": _yaml_feature(feature["feature"])["dtype"], **length}
    return {"dtype": str(kind).lower()}
