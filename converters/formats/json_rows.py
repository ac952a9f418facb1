"""Records as JSON objects: what image folders and WebDatasets hold of them besides files of images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from converters.dataset.arrays import list_parts, numbers, valid_rows
from converters.dataset.description import Split
from converters.errors import DataError, Location


def refuse_not_finite(split: Split, batch: pa.RecordBatch, first: int) -> None:
    """Refuse floats that text cannot hold.

    Raises:
        DataError: one is NaN or infinite; ``first`` is the index in the split of the first record.
    """
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        is_list = pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type)
        if not pa.types.is_floating(array.type.value_type if is_list else array.type):
            continue
        counts, values = list_parts(array) if is_list else (valid_rows(array).astype(np.int64), array)
        there = numbers(values) if is_list else numbers(values)[counts.astype(np.bool_)]
        wrong = np.repeat(np.arange(len(array)), counts)[~np.isfinite(there)]
        if len(wrong):
            raise DataError(
                f"the column {name} is not finite (NaN or infinite), which text cannot hold.",
                Location(split.title, first + int(wrong[0])),
                f"Leave it out with --without {name}, or choose another format.",
            )


def json_arrays(
    objects: Sequence[bytes],
    fields: Mapping[str, pa.DataType],
    encode: Callable[[dict[str, Any]], bytes],
    path: str,
    first: int,
) -> dict[str, pa.Array]:
    """The values of consecutive records' objects by name, each name once and in this order; the first is ``first``.

    ``encode`` writes such an object. What it would write otherwise is refused: of 1.0 or 1e0 in place of 1, readers
    make a column of another type.

    Raises:
        DataError: one has others or is no JSON, or a value is not of its type, or not written as it is.
    """
    rows = [
        _json_row(data, list(fields), Location(path, record)) for record, data in enumerate(objects, first)
    ]
    columns = zip(*rows, strict=True)
    arrays = {
        name: _typed(name, values, kind, Location(path, first))
        for (name, kind), values in zip(fields.items(), columns, strict=True)
    }
    read = zip(*(array.to_pylist() for array in arrays.values()), strict=True)
    for record, (data, row) in enumerate(zip(objects, read if fields else rows, strict=True), first):
        if encode(dict(zip(fields, row, strict=True))) != data:
            raise DataError("the JSON is not as kfer-convert writes it.", Location(path, record))
    return arrays


def _json_row(data: bytes, names: Sequence[str], location: Location) -> list[Any]:
    try:
        pairs = json.loads(data.decode(), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(f"no valid JSON: {error}.", location) from None
    if not isinstance(pairs, _Pairs) or [name for name, _ in pairs] != list(names):
        raise DataError(f"expected an object with {', '.join(names)[:1000]}, in this order.", location)
    return [value for _, value in pairs]


class _Pairs(list[tuple[str, Any]]):
    """An object, by its names and values in their order."""


def _typed(name: str, values: Sequence[Any], kind: pa.DataType, location: Location) -> pa.Array:
    try:
        array = pa.array(values, kind)
        if array.to_pylist() != list(values):  # Arrow makes 1 of 1.5 without a word
            raise ValueError(f"a value is no {kind}")
    except (pa.ArrowException, TypeError, OverflowError, ValueError) as error:
        raise DataError(f"{name}: {str(error).splitlines()[0]}.", location) from None
    return array
