"""The values of features as the columns of a schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import list_array, number_array, packed_array, with_nulls
from converters.dataset.schema import Column, Schema, type_name
from converters.formats.tfrecord.fast_parser import BatchParser, FeatureValues, RecordError
from converters.formats.tfrecord.framing import CHUNK_BYTES, Frames
from converters.formats.tfrecord.strict_parser import FeatureKind

# Values of so many bytes on average are copied one by one; shorter ones, all at once by their positions.
_LONG_VALUE = 64

_HOW = "Describe it otherwise (kfer-convert inspect --describe), or leave the feature out with --without"
_HOW_TO_ADD = (
    "Add it to the columns of a dataset.json beside the files (kfer-convert inspect --describe writes one)"
)


class ColumnReader:
    """Reads records as batches of a schema's columns.

    Args:
        schema: the columns; what is joined to the records is null in these batches.
        ignored: features that are left out.
    """

    def __init__(self, schema: Schema, ignored: Collection[str] = ()) -> None:
        self._parser = BatchParser(ignored)
        self._schema = schema
        self._features = frozenset(column.feature for column in schema if column.feature is not None)

    def read(self, frames: Frames) -> pa.RecordBatch:
        """The records of ``frames``.

        Raises:
            RecordError: the first record that is malformed, or does not fit the schema.
        """
        values = self._parser.parse(frames)
        problems = [*self._unknown(values)]
        arrays = []
        for column in self._schema.stored:
            try:
                arrays.append(_array(column, values.get(column.feature or ""), frames))
            except RecordError as error:
                problems.append(error)
        if problems:
            raise min(problems, key=lambda error: error.row)
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema.arrow)

    def _unknown(self, values: Mapping[str, FeatureValues]) -> list[RecordError]:
        """Features that no column holds, and that would be lost."""
        return [
            _misfit(
                _first(found.counts >= 0),
                f"the feature {name!r} is not in the dataset's description and would be lost",
                _HOW_TO_ADD,
            )
            for name, found in values.items()
            if name not in self._features and found.kind is not None
        ]


def kind_of(column: Column) -> FeatureKind:
    """The list of an Example that holds a column's values."""
    value = column.value_type
    if pa.types.is_floating(value):
        return "float_list"
    return "int64_list" if pa.types.is_integer(value) else "bytes_list"


def values_array(found: FeatureValues, kind: pa.DataType, frames: Frames) -> pa.Array:
    """All values of a feature, one after the other, as an array of the type of one value.

    Raises:
        RecordError: a number or a text is none of this type.
    """
    if pa.types.is_floating(kind):
        return number_array(found.floats, kind)
    if pa.types.is_integer(kind):
        return number_array(_narrowed(found, kind), kind)
    if len(found.sizes) == 1 and found.sizes[0] > CHUNK_BYTES:
        # A long value stays where it is: a copy would double the memory.
        edges = np.array([found.starts[0], found.starts[0] + found.sizes[0]], np.int32)
        array = pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(edges), pa.py_buffer(frames.buffer)])
    else:
        array = packed_array(kind, found.sizes, _gathered(found, frames))
    if pa.types.is_string(kind):
        _check_texts(found, array)
    return array


def _array(column: Column, found: FeatureValues | None, frames: Frames) -> pa.Array:
    rows = len(frames.starts)
    if found is None or found.kind is None:
        if column.feature is not None and not column.nullable:
            raise _misfit(0, f"the feature {column.feature!r} is missing")
        return pa.nulls(rows, column.type)
    counts = found.counts
    if found.kind != kind_of(column):
        row = _first(counts >= 0)
        raise _misfit(
            row, f"the feature {column.feature!r} is of kind {found.kind}, expected {kind_of(column)}"
        )
    valid = counts >= 0
    if not column.nullable and not valid.all():
        raise _misfit(_first(~valid), f"the feature {column.feature!r} is missing")
    size = column.size
    if size is not None and (wrong := valid & (counts != size)).any():
        row = _first(wrong)
        raise _misfit(row, f"the feature {column.feature!r} has {counts[row]} values, expected {size}")
    try:
        values = values_array(found, column.value_type, frames)
    except RecordError as error:
        raise _misfit(error.row, f"the feature {column.feature!r} {error.message}") from None
    if valid.all():
        return list_array(values, column.type, counts) if column.is_list else values
    return _with_gaps(column, values, counts, valid)


def _with_gaps(
    column: Column, values: pa.Array, counts: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_]
) -> pa.Array:
    """The values as an array with null where a record has none."""
    if column.size is None:
        return with_nulls(list_array(values, column.type, np.maximum(counts, 0)), valid)
    there = np.repeat(valid, column.size)
    places = np.cumsum(there) - 1
    if not column.is_list:
        return values.take(pa.array(places, mask=~there))
    spread = (
        values.take(pa.array(np.maximum(places, 0))) if len(values) else pa.nulls(len(places), values.type)
    )
    return with_nulls(list_array(spread, column.type, counts), valid)


def _narrowed(found: FeatureValues, kind: pa.DataType) -> npt.NDArray[Any]:
    """The integers in a type of as many bits as a description says."""
    if pa.types.is_int64(kind):
        return found.integers
    narrow = found.integers.astype(kind.to_pandas_dtype())
    if (wrong := narrow != found.integers).any():
        place = int(np.argmax(wrong))
        raise RecordError(
            row_of(found, place), f"has the value {found.integers[place]}, which is no {type_name(kind)}", 0
        )
    return narrow


def _gathered(found: FeatureValues, frames: Frames) -> Any:  # noqa: ANN401  # a buffer
    """The bytes of all values, one after the other."""
    total = int(found.sizes.sum())
    if total > _LONG_VALUE * len(found.sizes):
        view = memoryview(frames.buffer)
        ends = (found.starts + found.sizes).tolist()
        return b"".join([view[start:end] for start, end in zip(found.starts.tolist(), ends, strict=True)])
    before = np.cumsum(found.sizes) - found.sizes
    places = np.repeat(found.starts - before, found.sizes) + np.arange(total)
    return np.frombuffer(frames.buffer, np.uint8)[places]


def _check_texts(found: FeatureValues, array: pa.Array) -> None:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        for place, text in enumerate(array.view(pa.binary()).to_pylist()):
            try:
                text.decode()
            except UnicodeDecodeError:
                raise RecordError(row_of(found, place), "has a value that is no UTF-8 text", 0) from None


def row_of(found: FeatureValues, place: int) -> int:
    """The record that has a value, given by its number."""
    return int(np.searchsorted(np.cumsum(np.maximum(found.counts, 0)), place, "right"))


def _first(which: npt.NDArray[np.bool_]) -> int:
    return int(np.argmax(which))


def _misfit(row: int, message: str, how: str = _HOW) -> RecordError:
    return RecordError(row, f"the record does not fit the description: {message}. {how}.", None)
