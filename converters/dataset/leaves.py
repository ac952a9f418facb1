r"""The leaf of a record in its split's hash tree: every value of every column that is not derived.

The definition is public; the chapter ``proof`` has it with the few lines of Python that recompute it::

    leaf  = SHA-256(0x00 ‖ value of column 1 ‖ … ‖ value of column n)
    value = number of values as 8 bytes LE (2^64-1 for null) ‖ each value
            bytes, string: length as 8 bytes LE ‖ bytes · integers: 8 bytes LE · float32: its 4 bytes LE
            role image: the 32 bytes of its SHA-256

All records of a batch are encoded at once: a column is a few *segments*, each with some bytes of every record, and
the segments of a record follow each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import binary_parts, binary_views, list_parts, numbers, valid_rows
from converters.dataset.schema import Column, Schema
from converters.storage.digests import sha256_each

_NULL = np.uint64(2**64 - 1)
_LONG = 256  # from so many bytes of a record on, copying them one by one is faster than by their positions

Bytes = npt.NDArray[np.uint8]
Segment = tuple[Bytes, npt.NDArray[np.int64] | int]
"""Some bytes of every record, one after the other, and how many each has; a number where all have as many."""


def record_leaves(
    batch: pa.RecordBatch, schema: Schema, digests: Mapping[str, Sequence[bytes]] | None = None
) -> list[bytes]:
    """The leaf of each record of a batch, which has the stored columns of ``schema``.

    ``digests`` has those of images, by the column, where they are known already.
    """
    rows = len(batch)
    segments: list[Segment] = [(np.zeros(rows, np.uint8), 1)]
    for column, array in zip(schema.stored, batch.columns, strict=True):
        segments += _value(column, array, (digests or {}).get(column.name))
    data, edges = _interleaved(segments, rows)
    view = memoryview(data.data)
    return sha256_each([view[start:end] for start, end in pairwise(edges)])


def image_digests(array: pa.Array) -> list[bytes]:
    """The SHA-256 of each image; of nothing for null."""
    return sha256_each(binary_views(array))


def _value(column: Column, array: pa.Array, known: Sequence[bytes] | None) -> list[Segment]:
    valid = valid_rows(array)
    counts, values = list_parts(array) if column.is_list else (valid.astype(np.int64), array)
    prefix = counts.astype(np.uint64)
    prefix[~valid] = _NULL
    head: Segment = (prefix.view(np.uint8), 8)
    if column.role == "image":
        digests = np.frombuffer(b"".join(known or image_digests(array)), np.uint8).reshape(-1, 32)
        return [head, (digests, 32) if valid.all() else (digests[valid].ravel(), counts * 32)]
    if pa.types.is_binary(values.type) or pa.types.is_string(values.type):
        return [head, _texts(values, counts, valid, scalar=not column.is_list)]
    flat = numbers(values)
    if not column.is_list and not valid.all():
        flat = flat[valid]
    if not pa.types.is_floating(values.type):
        flat = flat.astype("<i8", copy=False)
    width = flat.itemsize
    data = np.ascontiguousarray(flat).view(np.uint8)
    return [head, (data, width * column.size if column.size and valid.all() else counts * width)]


def _texts(
    values: pa.Array, counts: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_], *, scalar: bool
) -> Segment:
    """The lengths and bytes of the texts of each record."""
    edges, data = binary_parts(values)
    sizes = np.diff(edges).astype(np.int64)
    own = data[edges[0] : edges[-1]]
    if scalar and not valid.all():
        sizes = sizes[valid]  # a null has no bytes
    encoded, ends = _interleaved([(sizes.astype("<u8").view(np.uint8), 8), (own, sizes)], len(sizes))
    if (counts == 1).all():
        return encoded, np.diff(ends)
    last = np.concatenate([[0], np.cumsum(counts)])
    return encoded, np.diff(np.asarray(ends)[last])


def _interleaved(segments: Sequence[Segment], rows: int) -> tuple[Bytes, list[int]]:
    """The bytes of all records, those of a record's segments one after the other, and where each record begins."""
    widths = [sizes for _, sizes in segments if isinstance(sizes, int)]
    if len(widths) == len(
        segments
    ):  # then all records are as long, as where there are only images and numbers
        parts = [data.reshape(rows, width) for (data, _), width in zip(segments, widths, strict=True)]
        table = np.concatenate(parts, axis=1)
        return table.ravel(), list(range(0, rows * sum(widths) + 1, sum(widths)))
    total = sum((sizes for _, sizes in segments), np.zeros(rows, np.int64))
    edges = np.concatenate([[0], np.cumsum(total)])
    out = np.empty(int(edges[-1]), np.uint8)
    starts: Any = edges[:-1].copy()
    for data, sizes in segments:
        if isinstance(sizes, int):
            out[starts[:, None] + np.arange(sizes)] = data.reshape(rows, sizes)
        else:
            _scatter(out, starts, data, sizes)
        starts += sizes
    return out, edges.tolist()


def _scatter(out: Bytes, starts: npt.NDArray[np.int64], data: Bytes, sizes: npt.NDArray[np.int64]) -> None:
    """Put the bytes of each record, ``sizes`` many, to where it begins."""
    ends = np.cumsum(sizes)
    if len(data) > _LONG * len(sizes):
        begins = (ends - sizes).tolist()
        for start, begin, end in zip(starts.tolist(), begins, ends.tolist(), strict=True):
            out[start : start + end - begin] = data[begin:end]
    else:
        out[np.repeat(starts - (ends - sizes), sizes) + np.arange(len(data))] = data
