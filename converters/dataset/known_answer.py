"""Known answers: fingerprints of a few records that are written down here. Every run holds the code against them.

A fault in the tree, in how parts are merged or in the counts of labels is in both fingerprints that a conversion
compares, so these cannot show it. The numbers were computed with ``tests/helpers/proof.py``, which follows the
definition and uses nothing of this package. What goes wrong with other data only is for the witnesses (leaves) and
the property tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from converters.dataset.arrays import binary_array, list_array, number_array
from converters.dataset.fingerprint import Fingerprint, Part, PartBuilder, merge
from converters.dataset.schema import Column, Schema
from converters.errors import ConverterError

_VECTORS = Schema(
    (
        Column("image", pa.binary(), "image", "image"),
        Column(
            "label_vector", pa.list_(pa.uint8(), 3), "label", "label", ("a", "b", "c"), kind="multi-label"
        ),
        Column("text", pa.string(), feature="text", nullable=True),
        Column("floats", pa.list_(pa.float32()), feature="floats"),
        Column("img_id", pa.string()),
        Column("clip_id", pa.string()),
    )
)
_NUMBERS = Schema((Column("label", pa.int64(), "label", "label", ("a", "b", "c"), (1, 7, 300)),))
_LISTS = Schema((Column("label", pa.list_(pa.int64()), "label", "label", ("a", "b", "c")),))

_VECTOR_RECORDS = [
    {
        "image": bytes([255, 216, number]) * number,
        "label_vector": [number % 2, 1 - number % 2, number // 2 % 2],
        "text": None if number % 3 == 1 else "é" * number,
        "floats": [0.5 * number] * (number % 3),
        "img_id": f"clip_{number}",
        "clip_id": f"drama {number // 4}",
    }
    for number in range(7)
]
_NUMBER_RECORDS = [{"label": (1, 300, 7)[number % 3]} for number in range(7)]
_LIST_RECORDS = [{"label": [2, 0, -1, 2][: number % 5]} for number in range(7)]

# The records are taken in as parts of such batches.
_PARTS = ((3,), (4,))

_KNOWN = (
    (
        _VECTORS,
        _VECTOR_RECORDS,
        Fingerprint(
            records=7,
            records_sha256="2e4b50a65fd863f51abb04f2e93a695686ec8be4a85e892d2fa5f695ff26a6fe",
            image_bytes=63,
            label_counts=(3, 4, 3),
            labels_per_image={1: 4, 2: 3},
            distinct_label_sets=4,
            labels_sha256="f5da666df830db66d6f56d4221228137bf3c258266d880282032706846f745fe",
            identities_sha256="46d1d364af62eba1709aa9f5fae7ede4d197642411ff125297fd6773d2cd742b",
        ),
    ),
    (
        _NUMBERS,
        _NUMBER_RECORDS,
        Fingerprint(
            records=7,
            records_sha256="af81205a0f160e7d09186b0b404e60991ba5f3037df7922d20b6e231548c1a1d",
            image_bytes=0,
            label_counts=(3, 2, 2),
            labels_per_image={1: 7},
            distinct_label_sets=3,
        ),
    ),
    (
        _LISTS,
        _LIST_RECORDS,
        Fingerprint(
            records=7,
            records_sha256="5d51c394ec544c109cfb2b6148503d31d920532601c44075a4e7fc1591090e83",
            image_bytes=0,
            label_counts=(3, 0, 5),
            labels_per_image={0: 2, 1: 2, 2: 3},
            distinct_label_sets=3,
        ),
    ),
)


def check_known_answer() -> None:
    """Hold the fingerprint's code against the known answers; takes a millisecond.

    Raises:
        ConverterError: it is wrong.
    """
    for schema, records, known in _KNOWN:
        arrays = [_array(column, [record[column.name] for record in records]) for column in schema.stored]
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema.arrow)
        if merge(_parts(schema, batch), schema) != known:
            raise ConverterError("the fingerprint of known records is wrong: a fault of kfer-convert.")


def _array(column: Column, values: Sequence[Any]) -> pa.Array:
    """An array of Python values; ``pa.array`` would import pandas where that is installed."""
    if column.is_list:
        flat = _array(replace(column, type=column.value_type), list(chain.from_iterable(values)))
        return list_array(flat, column.type, np.array(list(map(len, values))))
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        data = [value.encode() if isinstance(value, str) else value for value in values]
        return binary_array(data).view(column.type)
    return number_array(np.array(values, column.type.to_pandas_dtype()), column.type)


def _parts(schema: Schema, batch: pa.RecordBatch) -> list[Part]:
    parts, first = [], 0
    for sizes in _PARTS:
        builder = PartBuilder(first, schema)
        for size in sizes:
            builder.add(batch.slice(first, size))
            first += size
        parts.append(builder.part())
    return parts
