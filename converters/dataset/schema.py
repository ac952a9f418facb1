"""The record batch: what every format writes and reads back.

===================  =============================  ==================================================
column               type                           meaning
===================  =============================  ==================================================
image                binary                         the encoded JPEG, byte for byte as stored
label                fixed_size_list<uint8>[N]      the stored 0/1 vector, in stored order
height width depth   int32                          as stored
img_id clip_id       string, nullable               identity from the authors' label CSVs, where given
===================  =============================  ==================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def schema(label_count: int) -> pa.Schema:
    """The schema of a batch whose label vectors have ``label_count`` entries."""
    return pa.schema(
        [
            pa.field("image", pa.binary()),
            pa.field("label", pa.list_(pa.uint8(), label_count)),
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("depth", pa.int32()),
            pa.field("img_id", pa.string()),
            pa.field("clip_id", pa.string()),
        ]
    )


def conform(batch: pa.RecordBatch, label_count: int) -> pa.RecordBatch:
    """A batch that a format read back, in the schema of this module.

    Columns of a kindred type (large_binary, list, fields marked not null …) are cast; that the values are the
    source's is for the fingerprints to say.

    Raises:
        ValueError: columns are missing or out of order, or cannot be cast.
    """
    form = schema(label_count)
    if batch.schema.equals(form):
        return batch
    if batch.schema.names != form.names:
        raise ValueError(f"the columns are {', '.join(batch.schema.names)}; expected {', '.join(form.names)}")
    columns = [column.cast(field.type) for column, field in zip(batch.columns, form, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=form)


def record_batch(
    images: pa.Array | Sequence[bytes | memoryview],
    labels: npt.NDArray[np.uint8],
    sizes: npt.NDArray[np.int32],
    img_id: pa.Array | None = None,
    clip_id: pa.Array | None = None,
) -> pa.RecordBatch:
    """A record batch from its parts.

    Args:
        images: encoded images, as a binary array or a sequence of buffers.
        labels: uint8, shape (records, labels), the 0/1 vectors.
        sizes: int32, shape (records, 3): height, width, depth.
        img_id: string array, or None for all null.
        clip_id: string array, or None for all null.
    """
    count, label_count = labels.shape
    if not isinstance(images, pa.Array):
        images = binary_array(images)
    form = schema(label_count)
    values = number_array(labels.reshape(-1), pa.uint8())
    columns = [
        images,
        pa.FixedSizeListArray.from_arrays(values, type=form.field("label").type),
        *(number_array(sizes[:, part], pa.int32()) for part in range(3)),
        pa.nulls(count, pa.string()) if img_id is None else img_id,
        pa.nulls(count, pa.string()) if clip_id is None else clip_id,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=form)


def binary_array(buffers: Sequence[bytes | memoryview]) -> pa.Array:
    """A binary array of the given buffers; their bytes are copied once."""
    return _packed(pa.binary(), list(map(len, buffers)), b"".join(buffers))


def string_array(texts: Sequence[str]) -> pa.Array:
    """A string array of the given texts."""
    joined = "".join(texts)
    if not joined.isascii():
        return binary_array([text.encode() for text in texts]).view(pa.string())
    return _packed(pa.string(), list(map(len, texts)), joined.encode())


def _packed(kind: pa.DataType, sizes: Sequence[int], data: bytes) -> pa.Array:
    """An array of ``kind``, binary or string, whose values of the given sizes in bytes follow each other."""
    offsets = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    return pa.Array.from_buffers(kind, len(sizes), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def number_array(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """An array of numbers of the Arrow type that is NumPy's, without copying where they are contiguous.

    ``pa.array`` would do, but it imports pandas, where that is installed, to see whether it was given a series.
    """
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def image_views(batch: pa.RecordBatch) -> list[memoryview]:
    """The images of a batch as views of its buffer, without copying."""
    array = batch.column("image")
    if not len(array):
        return []
    offsets, data = binary_parts(array)
    view = memoryview(data.data)
    return [view[start:end] for start, end in pairwise(offsets.tolist())]


def binary_parts(array: pa.Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """The offsets (int32, one more than values) and the bytes (uint8) of a binary array, without copying."""
    _, offsets, data = array.buffers()
    edges = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return edges, np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)


def numbers(array: pa.Array, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """The values of an array of numbers without nulls, without copying; like ``to_numpy``, without pandas."""
    values = np.frombuffer(array.buffers()[1] or b"", dtype)
    return values[array.offset : array.offset + len(array)]


def label_matrix(batch: pa.RecordBatch) -> npt.NDArray[np.uint8]:
    """The label vectors as a uint8 matrix of shape (records, labels), without copying."""
    return vector_matrix(batch.column("label"))


def vector_matrix(column: pa.FixedSizeListArray) -> npt.NDArray[np.uint8]:
    """A column of uint8 vectors as a matrix, one row each, without copying.

    ``column.flatten()`` would do, but it imports pyarrow.compute, which takes a tenth of a second.
    """
    width = column.type.list_size
    # Unlike flatten(), values does not honour that the column may be a slice.
    values = column.values.slice(column.offset * width, len(column) * width)
    return numbers(values, np.uint8).reshape(len(column), width)


def size_matrix(batch: pa.RecordBatch) -> npt.NDArray[np.int32]:
    """Height, width and depth as an int32 matrix of shape (records, 3)."""
    return np.stack([numbers(batch.column(name), np.int32) for name in ("height", "width", "depth")], axis=1)
