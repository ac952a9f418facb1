"""A strict parser of ``tf.train.Example``, and the one table of its wire format.

The messages, from ``tensorflow/core/example/{example,feature}.proto``::

    Example   { Features features = 1; }
    Features  { map<string, Feature> feature = 1; }
    Feature   { oneof kind { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; } }
    BytesList { repeated bytes value = 1; }    FloatList, Int64List { repeated … value = 1 [packed]; }

What protobuf's own parser (upb, C++) accepts is accepted here with the same result, however it is encoded: fields of
a map entry in any order or absent, messages in several pieces, which are merged, numbers packed, unpacked or mixed,
varints padded with zeros. Refused is what protobuf would drop or replace without a word: unknown fields, a name that
stands twice, a second kind of list in a feature, bits beyond a number's 64.

An empty Feature is null, and an empty list is not. A map entry without a value has an empty Feature.

The depth is fixed, so there is no recursion. Time is linear in the record's size. Memory is too, at most eight
times the record: numbers and places are kept in arrays, and the number of features is bounded.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FeatureKind = Literal["bytes_list", "float_list", "int64_list"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Data = bytes | memoryview
Pieces = Sequence[tuple[int, int]]
"""Where the contents of a message lie that may stand in several pieces: begin and end of each."""

# Tags: field number and wire type. All messages and byte strings are delimited; field 1 is what each level has.
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
FIRST_TAG, VALUE_TAG = 1 << 3 | _DELIMITED, 2 << 3 | _DELIMITED
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1 << 3 | _DELIMITED, 2 << 3 | _DELIMITED, 3 << 3 | _DELIMITED
KINDS: dict[int, FeatureKind] = {
    BYTES_LIST: "bytes_list",
    FLOAT_LIST: "float_list",
    INT64_LIST: "int64_list",
}
TAGS = {kind: tag for tag, kind in KINDS.items()}
# The tag of a number that is not in a packed run.
NUMBER_TAGS = {FLOAT_LIST: 1 << 3 | _FIXED32, INT64_LIST: 1 << 3 | _VARINT}

# Protobuf reads tags and lengths of so many bits.
_LENGTH_BITS = 32

# No image has more features; hostile records do, and each costs far more memory here than in the file.
MAX_FEATURES = 1000
MAX_NAME_BYTES = 1000

# As many floats as fit in the longest record. An integer may take eight times the memory that it takes in the file, so
# fewer of them are accepted: 256 MB of them.
MAX_VALUES = 1 << 26
MAX_INTEGERS = 1 << 25

# Byte strings have a tag each and are read one by one in Python; so are numbers, where some are packed and others not.
MAX_TAGGED_VALUES = 1 << 20

# Of a message that is to be merged, so many pieces are accepted.
_MAX_PIECES = 1000

# To tell unpacked integers from their tags takes much memory; in longer lists, they are read one by one.
_MAX_UNPACKED_BYTES = 16 << 20

# A shorter run of integers is decoded faster one by one.
_MIN_RUN_BYTES = 40

# Integers are decoded in such pieces, for the arrays made on the way are several times as large.
_PIECE_BYTES = 1 << 18


class ExampleError(ValueError):
    """The bytes are no Example, or not all of it would be read; ``position`` is the byte where that shows."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


_NO_INTEGERS = np.zeros(0, np.int64)
_NO_FLOATS = np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False, kw_only=True)
class Values:
    """The values of a list of one kind.

    Attributes:
        kind: which list; None: no kind is set, which is null.
        starts: int64, for a bytes_list, where each value begins.
        sizes: int64, length of each of these values in bytes.
        integers: int64, for an int64_list, its values.
        floats: float32, for a float_list, its values, bit for bit.
    """

    kind: FeatureKind | None
    starts: Ints = field(default_factory=lambda: _NO_INTEGERS)
    sizes: Ints = field(default_factory=lambda: _NO_INTEGERS)
    integers: Ints = field(default_factory=lambda: _NO_INTEGERS)
    floats: Floats = field(default_factory=lambda: _NO_FLOATS)


@dataclass(frozen=True, eq=False, kw_only=True)
class Feature(Values):
    """One feature; byte strings begin in the Example.

    Attributes:
        count: number of values.
        position: where its map entry begins in the Example.
    """

    count: int
    position: int


def parse_example(data: Data) -> dict[str, Feature]:
    """The features of a serialised ``tf.train.Example``, by their names; no bytes at all are one without features.

    Raises:
        ExampleError: protobuf refuses the bytes or would drop some, or they hold more than ``MAX_FEATURES``
            features, ``MAX_VALUES`` values or ``MAX_INTEGERS`` integers.
    """
    features: dict[str, Feature] = {}
    values = integers = 0
    for position, start, end in _entries(data):
        name, pieces = _entry(data, start, end)
        if name in features:
            raise ExampleError(f"the feature {name!r} stands twice", position)
        features[name] = feature = parse_feature(data, pieces, name, position)
        values += feature.count
        integers += len(feature.integers)
        if values > MAX_VALUES or integers > MAX_INTEGERS:
            most = f"{MAX_VALUES} values" if values > MAX_VALUES else f"{MAX_INTEGERS} integers"
            raise ExampleError(f"with {name!r} the Example has more than {most}", position)
        if len(features) > MAX_FEATURES:
            raise ExampleError(f"the Example has more than {MAX_FEATURES} features", position)
    return features


def _entries(data: Data) -> Iterator[tuple[int, int, int]]:
    for _, start, end in _contents(data, 0, len(data), "the Example's features"):
        yield from _contents(data, start, end, "a map entry")


def _entry(data: Data, start: int, end: int) -> tuple[str, Pieces]:
    """The name of a map entry's feature, and where its value lies."""
    name = None
    pieces: list[tuple[int, int]] = []
    for position, tag, first, last in fields(data, start, end):
        if tag == VALUE_TAG:
            _add_piece(pieces, first, last)
        elif tag != FIRST_TAG:
            raise _unknown("a feature's name or value", tag, position)
        elif name is not None:
            raise ExampleError(f"the map entry of {name!r} has a second name", position)
        elif last - first > MAX_NAME_BYTES:
            raise ExampleError(f"a feature's name is longer than {MAX_NAME_BYTES} bytes", first)
        else:
            try:
                name = bytes(data[first:last]).decode()
            except UnicodeDecodeError:
                raise ExampleError("a feature's name is not UTF-8", first) from None
    return name or "", pieces


def parse_feature(data: Data, pieces: Pieces, name: str, position: int) -> Feature:
    """The feature that lies in these places of ``data``; its map entry is at ``position``.

    Raises:
        ExampleError: see :func:`parse_example`.
    """
    kind = 0
    lists: list[tuple[int, int]] = []
    for start, end in pieces:
        for at, tag, first, last in fields(data, start, end):
            if tag not in KINDS:
                raise _unknown(f"a list of values of {name!r}", tag, at)
            if kind not in (0, tag):
                raise ExampleError(
                    f"{name!r} has a {KINDS[tag]} after an {KINDS[kind]}, which would be lost", at
                )
            kind = tag
            _add_piece(lists, first, last)
    if not kind:
        return Feature(kind=None, count=0, position=position)
    if kind == BYTES_LIST:
        starts, sizes = byte_values(data, lists, name)
        return Feature(kind=KINDS[kind], count=len(starts), position=position, starts=starts, sizes=sizes)
    numbers = {"floats" if kind == FLOAT_LIST else "integers": _numbers(data, lists, kind, name)}
    return Feature(kind=KINDS[kind], count=len(*numbers.values()), position=position, **numbers)


def _add_piece(pieces: list[tuple[int, int]], start: int, end: int) -> None:
    if len(pieces) == _MAX_PIECES:
        raise ExampleError(f"a message stands in more than {_MAX_PIECES} pieces", start)
    pieces.append((start, end))


def byte_values(data: Data, lists: Pieces, name: str) -> tuple[Ints, Ints]:
    """Where each value of a bytes_list begins in ``data``, and its length; int64.

    Args:
        data: the Example.
        lists: where the list's contents lie.
        name: the feature's, for errors.

    Raises:
        ExampleError: there is something else than values, or too many.
    """
    starts, sizes = array("q"), array("q")
    for begin, stop in lists:
        for _, start, end in _contents(data, begin, stop, f"a value of {name!r}"):
            starts.append(start)
            sizes.append(end - start)
            if len(starts) > MAX_TAGGED_VALUES:
                raise ExampleError(f"{name!r} has more than {MAX_TAGGED_VALUES} byte strings", start)
    return np.array(starts), np.array(sizes)


# ---- Numbers ------------------------------------------------------------------------------------------


def _numbers(data: Data, lists: Pieces, kind: int, name: str) -> npt.NDArray[Any]:
    """The values of a list of numbers."""
    (start, end), *more = lists
    if not more and start < end:
        _, tag, first, last = next(fields(data, start, end))
        if tag == FIRST_TAG and last == end:
            return _run(data, first, last, kind, name)
        if tag == NUMBER_TAGS[kind] and end - start <= _MAX_UNPACKED_BYTES:
            values = untagged(np.frombuffer(data[start:end], np.uint8), kind)
            if values is not None:
                return values
    encoded, count = bytearray(), 0
    for begin, stop in lists:
        for position, tag, first, last in fields(data, begin, stop):
            if tag == FIRST_TAG:
                encoded += _run(data, first, last, kind, name).tobytes()
            elif tag != NUMBER_TAGS[kind]:
                raise _unknown(f"a value of {name!r}", tag, position)
            elif kind == FLOAT_LIST:
                encoded += data[first:last]
            else:
                encoded += struct.pack("<Q", read_varint(data, first, last)[0])
            count += 1
            if count > MAX_TAGGED_VALUES or len(encoded) > 8 * MAX_INTEGERS:
                raise ExampleError(f"{name!r} has too many values that are not in one run", position)
    dtype = np.dtype(np.float32 if kind == FLOAT_LIST else np.int64)
    return np.ndarray(len(encoded) // dtype.itemsize, dtype, encoded)


def _run(data: Data, start: int, end: int, kind: int, name: str) -> npt.NDArray[Any]:
    """The numbers of a packed run."""
    if kind == FLOAT_LIST:
        if (end - start) % 4:
            raise ExampleError(f"the floats of {name!r} end inside a number", start)
        return np.ndarray((end - start) // 4, np.float32, data[start:end])
    if end - start >= _MIN_RUN_BYTES:
        encoded = np.frombuffer(data[start:end], np.uint8)
        if np.count_nonzero(encoded < 0x80) > MAX_INTEGERS:
            raise ExampleError(f"{name!r} has more than {MAX_INTEGERS} integers", start)
        values, faults = decode_varints(encoded)
        for fault in faults[:1].tolist():
            read_varint(data, start + fault, end)  # raises
        return values
    numbers = []
    while start < end:
        number, start = read_varint(data, start, end)
        numbers.append(number)
    return np.array(numbers, np.uint64).view(np.int64)


def untagged(encoded: npt.NDArray[np.uint8], kind: int) -> npt.NDArray[Any] | None:
    """The numbers of a list in which each has a tag of one byte; None where some have not."""
    tag = NUMBER_TAGS[kind]
    if kind == FLOAT_LIST:
        if len(encoded) % 5 or (encoded[::5] != tag).any():
            return None
        return encoded.reshape(-1, 5)[:, 1:].copy().view(np.float32).ravel()
    edges = np.flatnonzero(encoded < 0x80) + 1  # of tags and numbers in turn
    tags = np.concatenate([edges[:0], [0], edges[1:-1:2]])
    if len(edges) % 2 or edges[-1:] != len(encoded) or (encoded[tags] != tag).any():
        return None
    values, faults = decode_varints(np.delete(encoded, tags))
    return None if len(faults) else values


def decode_varints(encoded: npt.NDArray[np.uint8]) -> tuple[Ints, Ints]:
    """Decode varints that follow one another.

    Returns:
        int64, the value of each varint; int64, where those begin that are longer than ten bytes, have more than 64
        bits, or have no end. These have no meaningful value, the last of them none at all.
    """
    count = np.count_nonzero(encoded < 0x80)
    if count == len(encoded):
        return encoded.astype(np.int64), _NO_INTEGERS
    values = np.empty(count, np.int64)
    faults = []
    start = number = 0
    while start < len(encoded):
        piece = encoded[start : start + _PIECE_BYTES]
        ends = np.flatnonzero(piece < 0x80) + 1
        if not len(ends):
            faults.append(np.array([start]))
            break
        sizes = np.diff(ends, prepend=0)
        starts = ends - sizes
        decoded = (piece[starts] & 0x7F).astype(np.int64)
        longer = np.flatnonzero(sizes > 1)
        for place in range(1, 10):
            if not len(longer):
                break
            decoded[longer] |= (piece[starts[longer] + place] & 0x7F).astype(np.int64) << 7 * place
            longer = longer[sizes[longer] > place + 1]
        sound = (sizes < 10) | (sizes == 10) & (piece[ends - 1] <= 1)
        faults.append(start + starts[~sound])
        values[number : number + len(decoded)] = decoded
        number += len(decoded)
        start += int(ends[-1])
    return values, np.concatenate(faults)


# ---- The wire format ----------------------------------------------------------------------------------


def fields(data: Data, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of any message: where each begins, its tag, and where its content begins and ends.

    Raises:
        ExampleError: protobuf refuses the bytes, or there is a group.
    """
    while position < end:
        begin = position
        tag, start = data[position], position + 1
        if tag >= 0x80:
            tag, start = read_varint(data, position, end, _LENGTH_BITS)
        wire_type = tag & 7
        if wire_type == _DELIMITED:
            size, start = read_varint(data, start, end, _LENGTH_BITS)
            position = start + size
        elif wire_type == _VARINT:
            _, position = read_varint(data, start, end)
        else:
            position = start + {_FIXED32: 4, _FIXED64: 8}.get(wire_type, 0)
        if tag < 8 or (position == start and wire_type != _DELIMITED):
            raise ExampleError(f"found tag {tag:#04x}, which begins no field", begin)
        if position > end:
            raise ExampleError(f"a field claims {position - start} bytes, {end - start} are left", begin)
        yield begin, tag, start, position


def _contents(data: Data, start: int, end: int, what: str) -> Iterator[tuple[int, int, int]]:
    """The same of a message that has one field only, which may be repeated; without its tag."""
    for position, tag, first, last in fields(data, start, end):
        if tag != FIRST_TAG:
            raise _unknown(what, tag, position)
        yield position, first, last


def _unknown(expected: str, tag: int, position: int) -> ExampleError:
    found = f"field {tag >> 3} of wire type {tag & 7} (tag {tag:#04x})"
    return ExampleError(f"expected {expected}, found {found}, which would be lost", position)


def read_varint(data: Data, position: int, end: int, bits: int = 64) -> tuple[int, int]:
    """The unsigned number at ``position``, and where it ends.

    Raises:
        ExampleError: it has no end, more bits, or more bytes than these need.
    """
    value = shift = 0
    for place in range(position, end):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 and not value >> bits:
            return value, place + 1
        if byte < 0x80 or shift >= bits:
            raise ExampleError(f"a number has more than {bits} bits", position)
    raise ExampleError("the data ends inside a number", position)
