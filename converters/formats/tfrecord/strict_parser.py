"""A strict parser of ``tf.train.Example``.

Protobuf's own parsers and TensorFlow's disagree about several inputs: a feature with two lists, packed and
unpacked numbers mixed, unknown fields in a map entry, wrong wire types. Whatever they disagree about, and
whatever no known writer produces (a key twice, a number encoded longer than it need be), is an error here and
not a choice. What is accepted, both read alike.

The messages, from ``tensorflow/core/example/{example,feature}.proto``::

    Example   { Features features = 1; }
    Features  { map<string, Feature> feature = 1; }
    Feature   { oneof kind { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; } }
    BytesList { repeated bytes value = 1; }    FloatList, Int64List { repeated … value = 1 [packed]; }

An empty Feature is null, and an empty list is not: both parsers tell them apart. A map entry without a value is
refused, for TensorFlow refuses it.

The depth is fixed, so there is no recursion. Time is linear in the record's size. Memory is too, at most eight
times the record: numbers and places are kept in arrays, and the number of features is bounded.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

FeatureKind = Literal["bytes_list", "float_list", "int64_list"]

# No image has more features; hostile records do, and each costs far more memory here than in the file.
MAX_FEATURES = 1000
MAX_NAME_BYTES = 1000

# As many floats as fit in the longest record. An integer may take eight times the memory that it takes in the file, so
# fewer of them are accepted: 256 MB of them.
MAX_VALUES = 1 << 26
MAX_INTEGERS = 1 << 25

# Byte strings, and numbers that are not packed, have a tag each and are read one by one in Python.
MAX_TAGGED_VALUES = 1 << 20

# A shorter run of integers is decoded faster one by one.
_MIN_RUN_BYTES = 40

# Integers are decoded in such pieces, for the arrays made on the way are several times as large.
_PIECE_BYTES = 1 << 18

_VARINT, _FIXED32, _DELIMITED = 0, 5, 2
_KINDS: dict[int, FeatureKind] = {0x0A: "bytes_list", 0x12: "float_list", 0x1A: "int64_list"}


class ExampleError(ValueError):
    """The bytes are not an Example that all parsers read alike; ``position`` is the byte where that shows."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


_NO_INTEGERS = np.zeros(0, np.int64)
_NO_FLOATS = np.zeros(0, np.float32)


def _no_integers() -> npt.NDArray[np.int64]:
    return _NO_INTEGERS


def _no_floats() -> npt.NDArray[np.float32]:
    return _NO_FLOATS


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """One feature.

    Attributes:
        kind: which list it holds; None where it has no kind set, which is null.
        count: number of values.
        position: where its map entry begins in the Example.
        starts: int64, for a bytes_list, where each value begins in the Example.
        sizes: int64, length of each of these values in bytes.
        integers: int64, for an int64_list, its values.
        floats: float32, for a float_list, its values, bit for bit.
    """

    kind: FeatureKind | None
    count: int
    position: int
    starts: npt.NDArray[np.int64] = field(default_factory=_no_integers)
    sizes: npt.NDArray[np.int64] = field(default_factory=_no_integers)
    integers: npt.NDArray[np.int64] = field(default_factory=_no_integers)
    floats: npt.NDArray[np.float32] = field(default_factory=_no_floats)


@dataclass(frozen=True, slots=True)
class Example:
    """A parsed Example: its features by name."""

    features: dict[str, Feature]


def parse_example(data: bytes | memoryview) -> Example:
    """Parse one serialised ``tf.train.Example``; no bytes at all are one without features.

    Raises:
        ExampleError: the bytes are malformed, not of the one form that all parsers read alike, or hold more
            than ``MAX_FEATURES`` features, ``MAX_VALUES`` values or ``MAX_INTEGERS`` integers.
    """
    features: dict[str, Feature] = {}
    if not data:
        return Example(features)
    values = integers = 0
    position, end = _payload(data, 0, len(data), 0x0A, "features")
    if end != len(data):
        raise ExampleError("something follows the Example's features", end)
    while position < end:
        entry_start = position
        position, entry_end = _payload(data, position, end, 0x0A, "a map entry")
        key_start, key_end = _payload(data, position, entry_end, 0x0A, "a feature's name")
        if key_end - key_start > MAX_NAME_BYTES:
            raise ExampleError(f"a feature's name is longer than {MAX_NAME_BYTES} bytes", key_start)
        try:
            name = bytes(data[key_start:key_end]).decode()
        except UnicodeDecodeError:
            raise ExampleError("a feature's name is not UTF-8", key_start) from None
        if name in features:
            raise ExampleError(f"the feature {name!r} stands twice", entry_start)
        start, feature_end = _payload(data, key_end, entry_end, 0x12, f"the value of {name!r}")
        if feature_end != entry_end:
            raise ExampleError(f"an unknown field follows the value of {name!r}", feature_end)
        features[name] = _feature(data, entry_start, start, feature_end, name)
        values += features[name].count
        integers += len(features[name].integers)
        if values > MAX_VALUES or integers > MAX_INTEGERS:
            most = f"{MAX_VALUES} values" if values > MAX_VALUES else f"{MAX_INTEGERS} integers"
            raise ExampleError(f"with {name!r} the Example has more than {most}", start)
        if len(features) > MAX_FEATURES:
            raise ExampleError(f"the Example has more than {MAX_FEATURES} features", entry_start)
        position = entry_end
    return Example(features)


def _feature(data: bytes | memoryview, entry_start: int, start: int, end: int, name: str) -> Feature:
    if start == end:
        return Feature(None, 0, entry_start)
    kind = _KINDS.get(data[start])
    if kind is None:
        raise ExampleError(f"{name!r} holds no list of values", start)
    position, list_end = _payload(data, start, end, data[start], kind)
    if list_end != end:
        raise ExampleError(f"{name!r} holds more than one list of values", list_end)
    if kind == "bytes_list":
        starts, sizes = byte_values(data, position, end, name)
        return Feature(kind, len(starts), entry_start, starts=starts, sizes=sizes)
    if position < end and data[position] == 0x0A:
        packed = _payload(data, position, end, 0x0A, f"the values of {name!r}")
        if packed[1] != end:
            raise ExampleError(f"the values of {name!r} stand in more than one run", packed[1])
        if kind == "int64_list":
            integers = _integers(data, *packed, name)
            return Feature(kind, len(integers), entry_start, integers=integers)
        if (packed[1] - packed[0]) % 4:
            raise ExampleError(f"the floats of {name!r} end inside a number", packed[0])
        floats = np.frombuffer(data[slice(*packed)], np.float32) if packed[0] < packed[1] else _NO_FLOATS
        return Feature(kind, len(floats), entry_start, floats=floats)
    if kind == "int64_list":
        integers = _unpacked_integers(data, position, end, name)
        return Feature(kind, len(integers), entry_start, integers=integers)
    floats = _unpacked_floats(data, position, end, name)
    return Feature(kind, len(floats), entry_start, floats=floats)


def byte_values(
    data: bytes | memoryview, position: int, end: int, name: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each value of a bytes_list begins in ``data``, and its length; int64.

    Args:
        data: the Example.
        position: where the list's payload begins.
        end: where it ends.
        name: the feature's, for errors.

    Raises:
        ExampleError: there is something else than values, or too many.
    """
    starts, sizes = array("q"), array("q")
    while position < end:
        start, position = _payload(data, position, end, 0x0A, f"a value of {name!r}")
        starts.append(start)
        sizes.append(position - start)
        if len(starts) > MAX_TAGGED_VALUES:
            raise _too_many(name, start)
    return np.array(starts), np.array(sizes)


def _unpacked_integers(data: bytes | memoryview, position: int, end: int, name: str) -> npt.NDArray[np.int64]:
    """Integers that each have a tag of their own, as proto2 writers leave them."""
    values = array("q")
    while position < end:
        value, position = _varint(data, _tagged(data, position, _VARINT, name), end)
        values.append(_signed(value))
        if len(values) > MAX_TAGGED_VALUES:
            raise _too_many(name, position)
    return np.array(values)


def _unpacked_floats(data: bytes | memoryview, position: int, end: int, name: str) -> npt.NDArray[np.float32]:
    """Floats that each have a tag of their own."""
    values = bytearray()
    while position < end:
        start = _tagged(data, position, _FIXED32, name)
        position = start + 4
        if position > end:
            raise ExampleError(f"the floats of {name!r} end inside a number", start)
        values += data[start:position]
        if len(values) > 4 * MAX_TAGGED_VALUES:
            raise _too_many(name, position)
    return np.frombuffer(values, np.float32) if values else _NO_FLOATS


def _tagged(data: bytes | memoryview, position: int, wire_type: int, name: str) -> int:
    """Where the number begins whose tag is at ``position``."""
    if data[position] != 1 << 3 | wire_type:
        raise ExampleError(f"expected a value of {name!r}, found tag {data[position]:#04x}", position)
    return position + 1


def _integers(data: bytes | memoryview, position: int, end: int, name: str) -> npt.NDArray[np.int64]:
    """The integers of a packed run."""
    if end - position >= _MIN_RUN_BYTES:
        return _long_run(data, position, end)
    values = []
    while position < end:
        value, position = _varint(data, position, end)
        values.append(_signed(value))
    return np.array(values, np.int64)


def _long_run(data: bytes | memoryview, position: int, end: int) -> npt.NDArray[np.int64]:
    encoded = np.frombuffer(data[position:end], np.uint8)
    if np.count_nonzero(encoded < 0x80) > MAX_INTEGERS:
        raise ExampleError(f"there are more than {MAX_INTEGERS} integers", position)
    values, faults = decode_varints(encoded)
    for fault in faults[:1].tolist():
        _varint(data, position + fault, end)  # raises
    return values


def decode_varints(encoded: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Decode varints that follow one another.

    Returns:
        int64, the value of each varint; int64, where those begin that are not the one accepted encoding of a
        number of 64 bits, or have no end. These have no meaningful value, the last of them none at all.
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
        last = piece[ends - 1]
        sound = ((last != 0) | (sizes == 1)) & ((sizes < 10) | (sizes == 10) & (last == 1))
        faults.append(start + starts[~sound])
        values[number : number + len(decoded)] = decoded
        number += len(decoded)
        start += int(ends[-1])
    return values, np.concatenate(faults)


def _too_many(name: str, position: int) -> ExampleError:
    return ExampleError(
        f"{name!r} has more than {MAX_TAGGED_VALUES} values that are not in one run", position
    )


def _payload(data: bytes | memoryview, position: int, end: int, tag: int, what: str) -> tuple[int, int]:
    """Where the payload of the length-delimited field at ``position`` lies; its tag must be ``tag``."""
    if position >= end:
        raise ExampleError(f"expected {what}, found the end", position)
    if data[position] != tag:
        raise ExampleError(f"expected {what} (tag {tag:#04x}), found tag {data[position]:#04x}", position)
    size, start = _varint(data, position + 1, end)
    if size > end - start:
        raise ExampleError(f"{what} claims {size} bytes, {end - start} are left", position)
    return start, start + size


def _varint(data: bytes | memoryview, position: int, end: int) -> tuple[int, int]:
    """The unsigned varint at ``position``, and where it ends. Each number has one accepted encoding."""
    value = shift = 0
    start = position
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise ExampleError("a number is encoded longer than it need be", start)
            if value >= 1 << 64:
                raise ExampleError("a number has more than 64 bits", start)
            return value, position
        shift += 7
        if shift > 63:
            raise ExampleError("a number is longer than ten bytes", start)
    raise ExampleError("the data ends inside a number", start)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
