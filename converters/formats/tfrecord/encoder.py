"""Encodes records as ``tf.train.Example``, byte for byte as protobuf's deterministic serialization does in C++.

Wire format (tensorflow/core/example/{example,feature}.proto)::

    Example { features = 1 }, Features { map<string, Feature> feature = 1 },
    Feature { bytes_list = 1 | float_list = 2 | int64_list = 3 }, each list { value = 1 }

The entries of a map stand in the order of their names as UTF-8 bytes, numbers are packed, and no length takes more
bytes than it needs. (Python's protobuf differs in one thing: it puts a name behind the longer ones that begin with
it.) A null is a feature that is absent; an empty list, a feature whose kind is set and that has no value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import binary_views, list_parts, numbers, valid_rows
from converters.dataset.schema import Column, Schema
from converters.formats.tfrecord.columns import kind_of
from converters.formats.tfrecord.strict_parser import BYTES_LIST, FIRST_TAG, INT64_LIST, TAGS, VALUE_TAG

_ABSENT = -1
_MAX_HEADS = 1 << 14

Piece = bytes | memoryview


def feature_schema(schema: Schema) -> Schema:
    """The stored columns of a schema, each with the feature that holds it in Examples that are written.

    A column that was joined to the records is held by a feature of its own name.

    Raises:
        ValueError: two columns would be held by one feature.
    """
    return Schema(tuple(replace(column, feature=column.feature or column.name) for column in schema.stored))


class ExampleEncoder:
    """Encodes batches of a schema's columns.

    Raises:
        ValueError: see :func:`feature_schema`.
    """

    def __init__(self, schema: Schema) -> None:
        features = ((column.feature or "").encode() for column in feature_schema(schema))
        named = sorted(zip(features, schema.stored, strict=True), key=lambda pair: pair[0])
        self._columns = [(column, _Heads(name, column)) for name, column in named]

    def encode(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        """The Example of each record, in order."""
        pieces: list[Sequence[Piece]] = []
        for column, heads in self._columns:
            sizes, payloads = _payloads(column, batch.column(column.name))
            pieces += [list(map(heads.__getitem__, sizes)), payloads]
        for record in zip(*pieces, strict=True):
            yield b"".join((_opening(FIRST_TAG, sum(map(len, record))), *record))


def encode_example(features: Mapping[str, bytes | Sequence[int]]) -> bytes:
    """One Example: bytes become a bytes_list of one, integers an int64_list.

    The features stand in the mapping's order.
    """
    entries = []
    for name, value in features.items():
        single = isinstance(value, bytes)
        payload = value if isinstance(value, bytes) else b"".join(map(varint, value))
        kind = BYTES_LIST if single else INT64_LIST
        entries += [_head(name.encode(), kind, len(payload), run=single or bool(payload)), payload]
    return b"".join((_opening(FIRST_TAG, sum(map(len, entries))), *entries))


class _Heads(dict[int, bytes]):
    """What stands before a feature's values, by the size of these; sizes recur, so most are made once."""

    def __init__(self, name: bytes, column: Column) -> None:
        super().__init__()
        self._name = name
        self._kind = TAGS[kind_of(column)]
        self._single = self._kind == BYTES_LIST and not column.is_list

    def __missing__(self, size: int) -> bytes:
        if size == _ABSENT:
            return b""
        run = self._single or (self._kind != BYTES_LIST and size > 0)
        head = _head(self._name, self._kind, size, run=run)
        if len(self) < _MAX_HEADS:
            self[size] = head
        return head


def _head(name: bytes, kind: int, size: int, *, run: bool) -> bytes:
    """What stands before so many bytes of values; ``run`` says that these are one value or one run of numbers."""
    opened = _opening(FIRST_TAG, size) if run else b""
    opened = _opening(kind, len(opened) + size) + opened
    opened = _opening(FIRST_TAG, len(name)) + name + _opening(VALUE_TAG, len(opened) + size) + opened
    return _opening(FIRST_TAG, len(opened) + size) + opened


def _payloads(column: Column, array: pa.Array) -> tuple[list[int], Sequence[Piece]]:
    """The values of each record as they are encoded, and their size in bytes, or ``_ABSENT``."""
    valid = valid_rows(array)
    counts, values = list_parts(array) if column.is_list else (valid.astype(np.int64), array)
    payloads: Sequence[Piece]
    if not (pa.types.is_binary(values.type) or pa.types.is_string(values.type)):
        flat = numbers(values) if column.is_list else numbers(values)[valid]
        payloads = _number_runs(flat, counts)
    elif column.is_list:
        payloads = _byte_lists(binary_views(values), counts)
    else:
        payloads = binary_views(values)
    if valid.all():
        return list(map(len, payloads)), payloads
    sizes = [len(payload) if there else _ABSENT for payload, there in zip(payloads, valid, strict=True)]
    there_only: list[Piece] = list(payloads)
    for row in np.flatnonzero(~valid).tolist():
        there_only[row] = b""
    return sizes, there_only


def _number_runs(values: npt.NDArray[np.generic], counts: npt.NDArray[np.int64]) -> list[memoryview]:
    if values.dtype.kind == "f":
        data, edges = values.astype("<f4", copy=False).tobytes(), 4 * _edges(counts)
    else:
        encoded, sizes = varints(values.astype(np.int64))
        data, edges = encoded.tobytes(), _edges(sizes)[_edges(counts)]
    view = memoryview(data)
    return [view[start:end] for start, end in pairwise(edges.tolist())]


def _byte_lists(views: Sequence[memoryview], counts: npt.NDArray[np.int64]) -> list[bytes]:
    pieces: list[Piece] = []
    for view in views:
        pieces += [_opening(FIRST_TAG, len(view)), view]
    return [b"".join(pieces[start:end]) for start, end in pairwise((2 * _edges(counts)).tolist())]


def _edges(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _opening(tag: int, size: int) -> bytes:
    """Tag and length of a delimited field."""
    return bytes((tag, size)) if size <= 0x7F else bytes((tag,)) + varint(size)


def varint(value: int) -> bytes:
    """A number in base 128, the lowest digits first."""
    value &= 0xFFFFFFFFFFFFFFFF  # negative numbers are ten bytes of two's complement
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def varints(values: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The same of many numbers, one after the other: uint8; and how many bytes each takes: int64."""
    unsigned = values.view(np.uint64)
    sizes = np.ones(len(unsigned), np.int64)
    for width in range(1, 10):
        longer = unsigned >= np.uint64(1 << 7 * width)
        if not longer.any():
            break
        sizes += longer
    widest = int(sizes.max(initial=1))
    if widest == 1:
        return unsigned.astype(np.uint8), sizes
    digits = np.empty((len(unsigned), widest), np.uint8)
    for place in range(widest):
        digits[:, place] = unsigned >> np.uint64(7 * place) & np.uint64(0x7F)
        digits[:, place] |= (sizes > place + 1).astype(np.uint8) << 7
    return digits[np.arange(widest) < sizes[:, None]], sizes
