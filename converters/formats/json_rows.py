"""Records as JSON objects: what image folders and WebDatasets hold of them besides files of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    objects: Sequence[bytes], fields: Mapping[str, pa.DataType], path: str, first: int
) -> dict[str, pa.Array]:
    """The values of consecutive records' objects by name, each name once and in this order; the first is ``first``.

    Raises:
        DataError: one has others or is no JSON, or a value is not of its type.
    """
    rows = [
        _json_row(data, list(fields), Location(path, record)) for record, data in enumerate(objects, first)
    ]
    columns = zip(*rows, strict=True)
    return {
        name: _typed(name, values, kind, Location(path, first))
        for (name, kind), values in zip(fields.items(), columns, strict=True)
    }


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
