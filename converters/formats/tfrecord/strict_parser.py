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

The depth is fixed, so there is no recursion. Time is linear in the record's size, and how many features and
values are read is bounded, so memory is too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FeatureKind = Literal["bytes_list", "float_list", "int64_list"]

# No image has more features or values; hostile records do, and each costs far more memory here than in the file.
MAX_FEATURES = 1000
MAX_VALUES = 1 << 18
MAX_NAME_BYTES = 1000

_VARINT, _FIXED32, _DELIMITED = 0, 5, 2
_KINDS: dict[int, FeatureKind] = {0x0A: "bytes_list", 0x12: "float_list", 0x1A: "int64_list"}


class ExampleError(ValueError):
    """The bytes are not an Example that all parsers read alike; ``position`` is the byte where that shows."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


@dataclass(frozen=True, slots=True)
class Length:
    """A length prefix: the varint at ``position`` says that a payload lies from ``start`` to ``end``."""

    position: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature.

    Attributes:
        kind: which list it holds.
        spans: for a bytes_list, where each value lies (start, end).
        integers: for an int64_list, its values.
        packed: for an int64_list or float_list, where its packed run lies; None if it is not packed.
        count: number of values.
    """

    kind: FeatureKind
    count: int
    spans: tuple[tuple[int, int], ...] = ()
    integers: tuple[int, ...] = ()
    packed: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A parsed Example: its features by name, and every length prefix met on the way, in order."""

    features: dict[str, Feature]
    lengths: tuple[Length, ...]


def parse_example(data: bytes | memoryview) -> Example:
    """Parse one serialised ``tf.train.Example``.

    Raises:
        ExampleError: the bytes are malformed, not of the one form that all parsers read alike, or hold more
            than ``MAX_FEATURES`` features or ``MAX_VALUES`` values.
    """
    lengths: list[Length] = []
    features: dict[str, Feature] = {}
    if not data:
        raise ExampleError("the Example is empty", 0)
    values = 0
    position, end = _payload(data, 0, len(data), 0x0A, "features", lengths)
    if end != len(data):
        raise ExampleError("something follows the Example's features", end)
    while position < end:
        entry_start = position
        position, entry_end = _payload(data, position, end, 0x0A, "a map entry", lengths)
        key_start, key_end = _payload(data, position, entry_end, 0x0A, "a feature's name", lengths)
        if key_end - key_start > MAX_NAME_BYTES:
            raise ExampleError(f"a feature's name is longer than {MAX_NAME_BYTES} bytes", key_start)
        try:
            name = bytes(data[key_start:key_end]).decode()
        except UnicodeDecodeError:
            raise ExampleError("a feature's name is not UTF-8", key_start) from None
        if name in features:
            raise ExampleError(f"the feature {name!r} stands twice", entry_start)
        start, feature_end = _payload(data, key_end, entry_end, 0x12, f"the value of {name!r}", lengths)
        if feature_end != entry_end:
            raise ExampleError(f"an unknown field follows the value of {name!r}", feature_end)
        features[name] = _feature(data, start, feature_end, name, MAX_VALUES - values, lengths)
        values += features[name].count
        if len(features) > MAX_FEATURES:
            raise ExampleError(f"the Example has more than {MAX_FEATURES} features", entry_start)
        position = entry_end
    return Example(features, tuple(lengths))


def _feature(
    data: bytes | memoryview, start: int, end: int, name: str, room: int, lengths: list[Length]
) -> Feature:
    kind = _KINDS.get(data[start]) if start < end else None
    if kind is None:
        raise ExampleError(f"{name!r} holds no list of values", start)
    position, list_end = _payload(data, start, end, data[start], kind, lengths)
    if list_end != end:
        raise ExampleError(f"{name!r} holds more than one list of values", list_end)
    if kind == "bytes_list":
        spans = []
        while position < end:
            span = _payload(data, position, end, 0x0A, f"a value of {name!r}", lengths)
            spans.append(span)
            if len(spans) > room:
                raise _too_many(name, position)
            position = span[1]
        return Feature(kind, len(spans), spans=tuple(spans))
    if position < end and data[position] == 0x0A:
        packed = _payload(data, position, end, 0x0A, f"the values of {name!r}", lengths)
        if packed[1] != end:
            raise ExampleError(f"the values of {name!r} stand in more than one run", packed[1])
        if kind == "int64_list":
            integers = _integers(data, *packed, name, room)
            return Feature(kind, len(integers), integers=integers, packed=packed)
        if (packed[1] - packed[0]) % 4:
            raise ExampleError(f"the floats of {name!r} end inside a number", packed[0])
        return Feature(kind, (packed[1] - packed[0]) // 4, packed=packed)
    return _unpacked(data, position, end, name, kind, room)


def _unpacked(
    data: bytes | memoryview, position: int, end: int, name: str, kind: FeatureKind, room: int
) -> Feature:
    """Numbers that each have a tag of their own, as proto2 writers leave them."""
    wire_type = _VARINT if kind == "int64_list" else _FIXED32
    integers: list[int] = []
    count = 0
    while position < end:
        if data[position] != 1 << 3 | wire_type:
            raise ExampleError(f"expected a value of {name!r}, found tag {data[position]:#04x}", position)
        position += 1
        if wire_type == _VARINT:
            value, position = _varint(data, position, end)
            integers.append(_signed(value))
        elif position + 4 > end:
            raise ExampleError(f"the floats of {name!r} end inside a number", position)
        else:
            position += 4
        count += 1
        if count > room:
            raise _too_many(name, position)
    return Feature(kind, count, integers=tuple(integers))


def _integers(data: bytes | memoryview, position: int, end: int, name: str, room: int) -> tuple[int, ...]:
    values: list[int] = []
    while position < end:
        if len(values) == room:
            raise _too_many(name, position)
        value, position = _varint(data, position, end)
        values.append(_signed(value))
    return tuple(values)


def _too_many(name: str, position: int) -> ExampleError:
    return ExampleError(f"with {name!r} the Example has more than {MAX_VALUES} values", position)


def _payload(
    data: bytes | memoryview, position: int, end: int, tag: int, what: str, lengths: list[Length]
) -> tuple[int, int]:
    """Where the payload of the length-delimited field at ``position`` lies; its tag must be ``tag``."""
    if position >= end:
        raise ExampleError(f"expected {what}, found the end", position)
    if data[position] != tag:
        raise ExampleError(f"expected {what} (tag {tag:#04x}), found tag {data[position]:#04x}", position)
    size, start = _varint(data, position + 1, end)
    if size > end - start:
        raise ExampleError(f"{what} claims {size} bytes, {end - start} are left", position)
    lengths.append(Length(position + 1, start, start + size))
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
