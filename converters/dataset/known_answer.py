"""Known answers: fingerprints of a few records that are written down here. Every run holds the code against them.

A fault in the tree, in how parts are merged or in the counts of labels is in both fingerprints that a conversion
compares, so these cannot show it. The numbers were computed with ``tests/helpers/proof.py``, which follows the
definition and uses nothing of this package. What goes wrong with other data only is for the witnesses (leaves) and
the property tests.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from converters.dataset.arrays import binary_array, list_array, number_array, string_array, with_nulls
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

_ROWS = 7


def _vectors() -> list[pa.Array]:
    numbers = range(_ROWS)
    vectors = np.array([(number % 2, 1 - number % 2, number // 2 % 2) for number in numbers], np.uint8)
    floats = np.array([0.5 * number for number in numbers for _ in range(number % 3)], np.float32)
    texts = string_array(["" if number % 3 == 1 else "é" * number for number in numbers])
    return [
        binary_array([bytes((255, 216, number)) * number for number in numbers]),
        list_array(number_array(vectors.ravel(), pa.uint8()), pa.list_(pa.uint8(), 3), _NO_COUNTS),
        with_nulls(texts, np.arange(_ROWS) % 3 != 1),
        list_array(number_array(floats, pa.float32()), pa.list_(pa.float32()), np.arange(_ROWS) % 3),
        string_array([f"clip_{number}" for number in numbers]),
        string_array([f"drama {number // 4}" for number in numbers]),
    ]


def _numbers() -> list[pa.Array]:
    return [number_array(np.array([(1, 300, 7)[number % 3] for number in range(_ROWS)]), pa.int64())]


def _lists() -> list[pa.Array]:
    counts = np.arange(_ROWS) % 5
    values = np.concatenate([np.array([2, 0, -1, 2])[:count] for count in counts.tolist()])
    return [list_array(number_array(values, pa.int64()), pa.list_(pa.int64()), counts)]


_NO_COUNTS = np.zeros(0, np.int64)

# The records are taken in as parts of such batches.
_PARTS = ((1, 2), (4,))

_KNOWN = (
    (
        _VECTORS,
        _vectors,
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
        _numbers,
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
        _lists,
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
    for schema, arrays, known in _KNOWN:
        batch = pa.RecordBatch.from_arrays(arrays(), schema=schema.arrow)
        if merge(_parts(schema, batch), schema) != known:
            raise ConverterError("the fingerprint of known records is wrong: a fault of kfer-convert.")


def _parts(schema: Schema, batch: pa.RecordBatch) -> list[Part]:
    parts, first = [], 0
    for sizes in _PARTS:
        builder = PartBuilder(first, schema)
        for size in sizes:
            builder.add(batch.slice(first, size))
            first += size
        parts.append(builder.part())
    return parts
