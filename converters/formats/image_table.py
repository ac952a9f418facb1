"""The table that Parquet files hold: its Arrow schema, Hugging Face's features, and the way there and back.

Facts that the schema follows (seen in datasets 4 and 5): the features stand in the schema's metadata under
``huggingface`` as ``{"info": {"features": …}}``; an image is ``struct<bytes: binary, path: string>`` in that
order; a class label is int64; all fields are nullable; a column whose Arrow field differs in any way loses its
feature without a word. ``Sequence`` is read by all versions, ``List`` from 4 on.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.description import Split
from converters.dataset.identity import file_names
from converters.dataset.arrays import (
    label_matrix,
    number_array,
    record_batch,
    size_matrix,
    string_array,
    vector_matrix,
)
from converters.errors import DataError, Location

_SIZES = ("height", "width", "depth")
_IDENTITIES = ("img_id", "clip_id")


def features(split: Split, *, identified: bool) -> dict[str, dict[str, Any]]:
    """The features of a split's table by column, as ``datasets`` writes them in JSON."""
    label: dict[str, Any] = {"names": list(split.label_names), "_type": "ClassLabel"}
    if split.kind == "multi-label":
        label = {"feature": label, "_type": "Sequence"}
    vector = {
        "feature": {"dtype": "uint8", "_type": "Value"},
        "length": len(split.label_names),
        "_type": "Sequence",
    }
    columns = {"image": {"_type": "Image"}, "label": label, "label_vector": vector}
    columns |= {name: {"dtype": "int32", "_type": "Value"} for name in _SIZES}
    if identified:
        columns |= {name: {"dtype": "string", "_type": "Value"} for name in _IDENTITIES}
    return columns


def table_schema(split: Split, *, identified: bool) -> pa.Schema:
    """The Arrow schema of a split's table, with Hugging Face's metadata."""
    fields = [
        pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
        pa.field("label", pa.list_(pa.int64()) if split.kind == "multi-label" else pa.int64()),
        pa.field("label_vector", pa.list_(pa.uint8(), len(split.label_names))),
        *(pa.field(name, pa.int32()) for name in _SIZES),
        *(pa.field(name, pa.string()) for name in (_IDENTITIES if identified else ())),
    ]
    metadata = {"huggingface": json.dumps({"info": {"features": features(split, identified=identified)}})}
    return pa.schema(fields, metadata=metadata)


def to_table(batch: pa.RecordBatch, split: Split, first: int) -> pa.RecordBatch:
    """The rows of a record batch whose first record has index ``first`` in its split."""
    img_id = batch.column("img_id")
    identified = img_id.null_count == 0
    schema = table_schema(split, identified=identified)
    paths = string_array(file_names(split, img_id.to_pylist(), first))
    vectors = label_matrix(batch)
    columns = [
        pa.StructArray.from_arrays([batch.column("image"), paths], fields=list(schema.field("image").type)),
        label_indices(vectors, split),
        pa.FixedSizeListArray.from_arrays(
            number_array(vectors.reshape(-1), pa.uint8()), type=schema.field("label_vector").type
        ),
        *(batch.column(name) for name in _SIZES),
        *(batch.column(name) for name in (_IDENTITIES if identified else ())),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def label_indices(labels: npt.NDArray[np.uint8], split: Split) -> pa.Array:
    """The labels that are set, as numbers: int64 for a single-label split, else list<int64>."""
    rows, indices = np.nonzero(labels)
    values = number_array(indices.astype(np.int64, copy=False), pa.int64())
    if split.kind == "single-label":
        if len(rows) != len(labels) or not np.array_equal(rows, np.arange(len(labels))):
            raise ValueError("a single-label split needs exactly one label per record")
        return values
    offsets = np.zeros(len(labels) + 1, np.int32)
    np.cumsum(labels.sum(axis=1, dtype=np.int64), out=offsets[1:])
    return pa.ListArray.from_arrays(number_array(offsets, pa.int32()), values)


def from_table(rows: pa.RecordBatch, split: Split, path: str, first: int) -> pa.RecordBatch:
    """The record batch of a table's rows, of which the first is row ``first`` of the file ``path``.

    Raises:
        DataError: a value is missing, or the label numbers, the image's path and the rest contradict each other.
    """
    image = rows.column("image")
    data, paths = image.field("bytes"), image.field("path")
    for name, column in [("image.bytes", data), *zip(rows.schema.names, rows.columns, strict=True)]:
        if column.null_count:
            row = first + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(f"the column {name} has no value.", Location(path, row))
    vectors = vector_matrix(rows.column("label_vector"))
    if not np.isin(vectors, (0, 1)).all():
        raise DataError("a label vector has values other than 0 and 1.", Location(path, first))
    try:
        agrees = rows.column("label").equals(label_indices(vectors, split))
    except ValueError as error:
        raise DataError(f"{error}.", Location(path, first)) from None
    if not agrees:
        raise DataError("the columns label and label_vector contradict each other.", Location(path, first))
    identities = {name: rows.column(name) if name in rows.schema.names else None for name in _IDENTITIES}
    img_ids = identities["img_id"]
    if img_ids is not None and paths.to_pylist() != file_names(split, img_ids.to_pylist(), first):
        raise DataError("the columns image.path and img_id contradict each other.", Location(path, first))
    return record_batch(data, vectors, size_matrix(rows), identities["img_id"], identities["clip_id"])
