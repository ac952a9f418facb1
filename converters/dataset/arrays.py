"""Arrow arrays as NumPy arrays and back, without copies where there need be none.

Much of this pyarrow does too, but it imports pyarrow.compute or pandas for it, which takes a tenth of a second or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.schema import Schema, type_name


def conform(batch: pa.RecordBatch, schema: Schema) -> pa.RecordBatch:
    """A batch that a format read back, with the columns of ``schema``.

    Columns of a kindred type (large_binary, list, fields marked not null …) are cast; that the values are the
    source's is for the fingerprints to say.

    Raises:
        ValueError: columns are missing or out of order, or cannot be cast.
    """
    form = schema.arrow
    if batch.schema.equals(form):
        return batch
    if batch.schema.names != form.names:
        raise ValueError(f"the columns are {', '.join(batch.schema.names)}; expected {', '.join(form.names)}")
    columns = []
    for column, field in zip(batch.columns, form, strict=True):
        if _family(column.type) != _family(field.type):
            raise ValueError(f"the column {field.name} is {column.type}; expected {type_name(field.type)}")
        columns.append(column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=form)


def _family(kind: pa.DataType) -> str:
    """What values a type has, whatever their widths: numbers written as text are none."""
    types = pa.types
    if any(is_list(kind) for is_list in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        return f"list of {_family(kind.value_type)}"
    if any(
        is_text(kind)
        for is_text in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    ):
        return "text"
    return "integer" if types.is_integer(kind) else "float" if types.is_floating(kind) else str(kind)


def binary_array(buffers: Sequence[bytes | memoryview | None]) -> pa.Array:
    """A binary array of the given buffers; their bytes are copied once."""
    array = packed_array(
        pa.binary(),
        [len(data) if data is not None else 0 for data in buffers],
        b"".join(filter(None, buffers)),
    )
    return (
        array if None not in buffers else with_nulls(array, np.array([data is not None for data in buffers]))
    )


def string_array(texts: Sequence[str]) -> pa.Array:
    """A string array of the given texts."""
    joined = "".join(texts)
    if not joined.isascii():
        return binary_array([text.encode() for text in texts]).view(pa.string())
    return packed_array(pa.string(), list(map(len, texts)), joined.encode())


def packed_array(kind: pa.DataType, sizes: Sequence[int] | npt.NDArray[np.int64], data: Any) -> pa.Array:  # noqa: ANN401  # a buffer
    """An array of ``kind``, binary or string, whose values of the given sizes in bytes follow each other."""
    return pa.Array.from_buffers(
        kind, len(sizes), [None, pa.py_buffer(offsets_of(sizes)), pa.py_buffer(data)]
    )


def offsets_of(sizes: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """int32, one more than sizes: where each of the values that follow each other begins, and the last one ends.

    Raises:
        OverflowError: they are more than an array of Arrow's holds.
    """
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise OverflowError(f"{offsets[-1]} bytes or values are more than one batch holds")
    return offsets.astype(np.int32)


def number_array(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """An array of numbers of the Arrow type that is NumPy's, without copying where they are contiguous."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def list_array(values: pa.Array, kind: pa.DataType, counts: npt.NDArray[np.int64]) -> pa.Array:
    """An array of lists of the type ``kind``, of varying or of fixed size, whose values follow each other."""
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    return pa.ListArray.from_arrays(number_array(offsets_of(counts), pa.int32()), values, type=kind)


def with_nulls(array: pa.Array, valid: npt.NDArray[np.bool_]) -> pa.Array:
    """The array with null in place of what is not valid; at offset 0."""
    if valid.all():
        return array
    bitmap = pa.py_buffer(np.packbits(valid, bitorder="little"))
    kind = array.type
    if pa.types.is_list(kind):
        buffers, children = [bitmap, array.buffers()[1]], [array.values]
    elif pa.types.is_fixed_size_list(kind):
        buffers, children = [bitmap], [array.values]
    else:
        return pa.Array.from_buffers(kind, len(array), [bitmap, *array.buffers()[1:]])
    return pa.Array.from_buffers(kind, len(array), buffers, children=children)


def with_empty_nulls(array: pa.Array) -> pa.Array:
    """The same values, with zeros or nothing in the places of nulls.

    What stands there is no value, differs by where an array is from, and would get into files that hold arrays as they
    are in memory.
    """
    if not array.null_count:
        return array
    valid, kind = valid_rows(array), array.type
    if not pa.types.is_fixed_size_list(kind):
        return with_nulls(_emptied(array, valid), valid)
    _, values = list_parts(array)
    there = np.repeat(valid, kind.list_size)
    places = pa.array(np.where(there, np.cumsum(there) - 1, 0), pa.int64(), mask=~there)
    spread = _emptied(values.take(places), there)
    return with_nulls(pa.FixedSizeListArray.from_arrays(spread, type=kind), valid)


def _emptied(array: pa.Array, valid: npt.NDArray[np.bool_]) -> pa.Array:
    """An array without nulls, with zeros or nothing where ``valid`` is false."""
    kind = array.type
    if pa.types.is_list(kind):
        counts, values = list_parts(array)
        return list_array(values, kind, counts)
    if pa.types.is_binary(kind) or pa.types.is_string(kind):
        edges, data = binary_parts(array)
        sizes = np.diff(edges).astype(np.int64)
        if not sizes[~valid].any():
            return packed_array(kind, sizes, data[edges[0] : edges[-1]])
        views = binary_views(array)
        kept = [view if there else b"" for view, there in zip(views, valid, strict=True)]
        return packed_array(kind, np.where(valid, sizes, 0), b"".join(kept))
    return number_array(np.where(valid, numbers(array), 0).astype(kind.to_pandas_dtype()), kind)


def valid_rows(array: pa.Array) -> npt.NDArray[np.bool_]:
    """bool, which values are not null."""
    bitmap = array.buffers()[0]
    if bitmap is None or not array.null_count:
        return np.ones(len(array), np.bool_)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(np.bool_)


def list_parts(array: pa.Array) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Of an array of lists: the number of values in each (0 in a null), and the values, one after the other.

    Raises:
        ValueError: one of the values is null.
    """
    counts, values = _list_parts(array)
    if values.null_count:
        raise ValueError("a value in a list is null")
    return counts, values


def _list_parts(array: pa.Array) -> tuple[npt.NDArray[np.int64], pa.Array]:
    kind = array.type
    if pa.types.is_fixed_size_list(kind):
        # Unlike flatten(), values does not honour that the column may be a slice.
        values = array.values.slice(array.offset * kind.list_size, len(array) * kind.list_size)
        counts = np.full(len(array), kind.list_size, np.int64)
        if array.null_count:
            keep = np.repeat(valid_rows(array), kind.list_size)
            counts[~valid_rows(array)] = 0
            values = values.take(pa.array(np.flatnonzero(keep)))
        return counts, values
    edges = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1].astype(
        np.int64
    )
    counts = np.diff(edges)
    if array.null_count and counts[~valid_rows(array)].any():
        raise ValueError("a list that is null has values")
    return counts, array.values.slice(int(edges[0]), int(edges[-1] - edges[0]))


def binary_views(array: pa.Array) -> list[memoryview]:
    """The values of a binary or string array as views of its buffer, without copying; nothing for null."""
    if not len(array):
        return []
    offsets, data = binary_parts(array)
    view = memoryview(data.data)
    return [view[start:end] for start, end in pairwise(offsets.tolist())]


def binary_parts(array: pa.Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """The offsets (int32, one more than values) and the bytes (uint8) of a binary array, without copying."""
    if not len(array):
        return np.zeros(1, np.int32), np.empty(0, np.uint8)
    _, offsets, data = array.buffers()
    edges = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return edges, np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)


def numbers(array: pa.Array) -> npt.NDArray[Any]:
    """The values of an array of numbers, without copying; anything where they are null."""
    if not len(array):  # its buffer may be absent, or of any size
        return np.empty(0, array.type.to_pandas_dtype())
    values = np.frombuffer(array.buffers()[1], array.type.to_pandas_dtype(), array.offset + len(array))
    return values[array.offset :]


def vector_matrix(column: pa.FixedSizeListArray) -> npt.NDArray[Any]:
    """A column of vectors without nulls as a matrix, one row each, without copying."""
    _, values = list_parts(column)
    return numbers(values).reshape(len(column), column.type.list_size)
