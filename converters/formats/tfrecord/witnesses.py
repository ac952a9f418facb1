"""Witnesses: the leaves of a few records of a source, by a way that shares no code with the conversion's.

The two fingerprints of a conversion cannot show what was wrong before both were taken: a parser that gives a record
its neighbour's labels, a leaf that leaves a column out. So of every batch the first record, the last and one between
(of a small batch, all) are read once more, value by value, by the decoder below. It only knows where values lie:
whether the bytes are sound is for the parsers to say. The leaf of each, made here by the public definition, must be the
one that the fingerprint takes of the record *as it was read back*
(:func:`converters.verify.compare.check_witnesses`).

So a witness covers all that happens to its record between the frames of the source and the output's fingerprint. It
does not see a fault that hits rarer records only; the property tests of the parsers are for these. Which frames
there are it cannot say either: :meth:`Witnesses.take` checks that they lie side by side.
"""

from __future__ import annotations

import csv
import struct
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from converters.dataset.leaves import record_leaves
from converters.dataset.schema import Schema
from converters.errors import ConverterError
from converters.formats.tfrecord.framing import Frames

# One byte in so many is read again, beyond those that every shard may have. To find a value takes as long as to hash
# some bytes; a record with more texts or integers than this in a feature is no witness.
_SHARE = 16
_FREE_BYTES = 8 << 20
_VALUE_COST = 64
_MAX_VALUES = 1 << 13

# Of a batch of so few, all are witnesses.
_FEW_RECORDS = 32

_FRAMING_BYTES = 16

Joined = Callable[[int], Sequence[str]]
"""The texts that are joined to the record of an index in the split."""


class Witnesses:
    """The leaves of a few records of a shard, by their index in the split.

    Args:
        schema: the columns; those that no feature holds are joined, or held by a feature of their own name.
        first: index in the split of the shard's first record.
        joined: see :func:`joined_texts`.
    """

    def __init__(self, schema: Schema, first: int, joined: Joined | None = None) -> None:
        self.leaves: dict[int, bytes] = {}
        self._columns = [
            (
                own if (own := column.feature) is not None else None if joined else column.name,
                column.role == "image",
            )
            for column in schema.stored
        ]
        self._joined = joined
        self._next = first
        self._allowed = _FREE_BYTES
        self._end = self._bytes = 0

    def begin(self) -> None:
        """Begin with another range of a file."""
        self._end = self._bytes = 0

    def take(self, frames: Frames, *, side_by_side: bool = True) -> None:
        """Take the first record of the next frames, the last, and one between; of a few, all.

        Raises:
            ConverterError: the frames do not lie ``side_by_side``, as those of a TFRecord file do.
        """
        rows, starts, sizes = len(frames.starts), frames.starts, frames.sizes
        ends = starts + sizes + _FRAMING_BYTES
        if side_by_side and (frames.first_offset < self._end or (starts[1:] != ends[:-1]).any()):
            raise ConverterError(f"the records from {self._next} on were not read one after the other.")
        self._end = frames.first_offset + int(ends[-1] - starts[0])
        self._bytes += int(ends[-1] - starts[0])
        self._allowed += int(sizes.sum()) // _SHARE
        between = Random(self._next).randrange(rows)
        for row in range(rows) if rows <= _FEW_RECORDS else sorted({0, between, rows - 1}):
            leaf = self._leaf(frames.data(row), self._next + row) if self._allowed > 0 else None
            if leaf is not None:
                self.leaves[self._next + row] = leaf
        self._next += rows

    def finish(self, record_bytes: int) -> None:
        """Check that the frames of a range were so many bytes.

        Raises:
            ConverterError: they were not.
        """
        if self._bytes != record_bytes:
            raise ConverterError(
                f"the records before record {self._next} have {self._bytes} bytes, expected {record_bytes}."
            )

    def _leaf(self, data: bytes | memoryview, record: int) -> bytes | None:
        """The leaf of a record; None where it has too many integers."""
        self._allowed -= len(data)
        features = _features(memoryview(data))
        texts = iter(self._joined(record) if self._joined else ())
        leaf = sha256(b"\0")
        for name, is_image in self._columns:
            kind, values = (_TEXTS, [next(texts).encode()]) if name is None else features.get(name, _NULL)
            if values is None:
                return None
            count = sum(map(len, values)) // _WIDTHS[kind] if kind in _WIDTHS else len(values)
            leaf.update(struct.pack("<Q", count) if kind else b"\xff" * 8)
            for value in values:
                if kind == _TEXTS:
                    leaf.update(sha256(value).digest() if is_image else struct.pack("<Q", len(value)))
                if not is_image:
                    leaf.update(value)
            self._allowed -= 0 if kind == _FLOATS else _VALUE_COST * count
        return leaf.digest()


def confirm_output(frames: Frames, batch: pa.RecordBatch, schema: Schema) -> None:
    """Hold a few records of an output against their bytes: features have the names that the schema says.

    Raises:
        ConverterError: they do not, or have other values.
    """
    witnesses = Witnesses(schema, 0)
    witnesses.take(frames, side_by_side=False)
    for row, leaf in witnesses.leaves.items():
        if record_leaves(batch.slice(row, 1), schema) != [leaf]:
            raise ConverterError(
                f"record {frames.first_record + row} is read back with other values than it has."
            )


def joined_texts(path: Path, columns: int, lost: Sequence[tuple[int, int]] = ()) -> Joined:
    """The first columns of a label CSV, whose row i belongs to record i.

    Args:
        path: the file.
        columns: how many.
        lost: the rows whose records are not there: the first, and how many.
    """
    lines = path.read_bytes().split(b"\n")[1:]
    for first, count in sorted(lost, reverse=True):
        del lines[first : first + count]

    def texts(record: int) -> list[str]:
        # Where rows are missing, those who join them refuse them.
        row = next(csv.reader([lines[record].decode()])) if record < len(lines) else []
        return (row + [""] * columns)[:columns]

    return texts


# --- Where values lie ----------------------------------------------------------------------------------

_TEXTS, _FLOATS, _INTEGERS = 1, 2, 3
_WIDTHS = {_FLOATS: 4, _INTEGERS: 8}

_Feature = tuple[int, "Sequence[bytes | memoryview] | None"]
"""Which list it has, 0 for none, and the values as they stand in a leaf, some at a time; None if they are too many."""

_NULL: _Feature = (0, ())


def _features(example: memoryview) -> dict[str, _Feature]:
    """The features of an Example by their names."""
    found: dict[str, _Feature] = {}
    entries = [entry for _, features in _fields(example) for _, entry in _fields(features)]
    for entry in entries:
        parts = [*_fields(entry)]
        name = b"".join(content for number, content in parts if number == 1)
        lists = [values for number, feature in parts if number == 2 for values in _fields(feature)]
        kind = lists[0][0] if lists else 0
        fields = (value for _, content in lists for _, value in _fields(content))
        found[name.decode()] = (kind, _values(kind, fields)) if kind else _NULL
    return found


def _values(kind: int, fields: Iterator[Any]) -> list[bytes | memoryview] | None:
    """The values of a list; None if they are too many."""
    if kind == _INTEGERS:
        fields = (
            struct.pack("<Q", number)  # of a negative one, it is the two's complement
            for value in fields
            for number in ([value] if isinstance(value, int) else _numbers(value))
        )
    found = [*islice(fields, _MAX_VALUES + 1)]
    return found if len(found) <= _MAX_VALUES else None


def _numbers(run: memoryview) -> Iterator[int]:
    position = 0
    while position < len(run):
        number, position = _number(run, position)
        yield number


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """The number of each field of a message, and its content: that of a delimited one, four bytes, or a number."""
    position = 0
    while position < len(message):
        tag, position = _number(message, position)
        content: Any
        if tag & 7 == 0:
            content, position = _number(message, position)
        else:
            size, position = _number(message, position) if tag & 7 == 2 else (4, position)
            content, position = message[position : position + size], position + size
        yield tag >> 3, content


def _number(data: memoryview, position: int) -> tuple[int, int]:
    """The number that is encoded at a position, and where it ends."""
    value = shift = 0
    while True:
        byte = data[position]
        value, shift, position = value | (byte & 0x7F) << shift, shift + 7, position + 1
        if byte < 0x80:
            return value, position
