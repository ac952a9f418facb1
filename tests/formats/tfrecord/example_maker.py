"""Makes Examples by hand and reads them with protobuf; for the tests of the parsers, and for tests/fuzz."""

import random
import struct
from dataclasses import dataclass

import numpy as np
import pytest

from converters.formats.tfrecord.fast_parser import BatchParser, RecordError
from converters.formats.tfrecord.framing import Frames
from converters.formats.tfrecord.strict_parser import ExampleError, parse_example

WHY = "TensorFlow brings protobuf"
descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2", reason=WHY)
descriptor_pool = pytest.importorskip("google.protobuf.descriptor_pool", reason=WHY)
message_factory = pytest.importorskip("google.protobuf.message_factory", reason=WHY)
DecodeError = pytest.importorskip("google.protobuf.message", reason=WHY).DecodeError

BYTES, FLOATS, INTEGERS = 1, 2, 3
SINGLE_TAGS = {FLOATS: b"\x0d", INTEGERS: b"\x08"}
"""What stands before a number that is not packed."""

# ---- By hand ------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def padded(encoded: bytes, size: int) -> bytes:
    """A number in so many bytes, which are more than it needs."""
    continued = bytes([*encoded[:-1], encoded[-1] | 0x80])
    return continued + b"\x80" * (size - len(encoded) - 1) + b"\0"


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def fields(message: bytes) -> list[tuple[int, bytes]]:
    """Field numbers and payloads of a sound message that has only delimited fields."""
    found, position = [], 0
    while position < len(message):
        number, size, shift = message[position] >> 3, 0, 0
        position += 1
        while True:
            byte = message[position]
            size |= (byte & 0x7F) << shift
            position, shift = position + 1, shift + 7
            if byte < 0x80:
                break
        found.append((number, message[position : position + size]))
        position += size
    return found


def bytes_list(*values: bytes) -> bytes:
    return field(BYTES, b"".join(field(1, value) for value in values))


def float_list(*values: float | bytes, packed: bool = True) -> bytes:
    raw = [value if isinstance(value, bytes) else struct.pack("<f", value) for value in values]
    return field(FLOATS, field(1, b"".join(raw)) if packed else b"".join(b"\x0d" + value for value in raw))


def int64_list(*values: int, packed: bool = True) -> bytes:
    raw = [varint(value) for value in values]
    return field(INTEGERS, field(1, b"".join(raw)) if packed else b"".join(b"\x08" + value for value in raw))


def entry(name: str | bytes, feature: bytes) -> bytes:
    return field(1, field(1, name.encode() if isinstance(name, str) else name) + field(2, feature))


def example(features: dict[str, bytes]) -> bytes:
    return field(1, b"".join(entry(name, feature) for name, feature in features.items()))


def frames_of(
    records: list[bytes], before: bytes = b"\xaa" * 12, after: bytes = b"\xbb" * 4, rest: int = 64
) -> Frames:
    """Frames of these records; as many other bytes as ``rest`` says follow the last."""
    buffer, starts = bytearray(), []
    for data in records:
        buffer += before
        starts.append(len(buffer))
        buffer += data + after
    buffer += b"\x0a" * rest
    return Frames(
        bytes(buffer), np.array(starts, np.int64), np.array(list(map(len, records)), np.int64), 0, 0
    )


# ---- By what is read ----------------------------------------------------------------------------------

# A feature as it is read: its kind, and its values, floats as their four bytes each. The kind may be None.
Read = tuple[str | None, list]


def read_strictly(data: bytes) -> dict[str, Read] | None:
    """What the strict parser reads; None where it refuses."""
    try:
        features = parse_example(data)
    except ExampleError as error:
        assert 0 <= error.position <= len(data)  # noqa: PT017  # not a test
        return None
    found: dict[str, Read] = {}
    for name, feature in features.items():
        spans = zip(feature.starts.tolist(), feature.sizes.tolist(), strict=True)
        values = [data[start : start + size] for start, size in spans]
        values += feature.integers.tolist() + [value.tobytes() for value in feature.floats]
        assert len(values) == feature.count
        found[name] = feature.kind, values
    return found


def read_with_protobuf(cls, data: bytes) -> dict[str, Read] | None:
    """What protobuf reads; None where it refuses."""
    try:
        message = cls.FromString(data)
    except DecodeError:
        return None
    found: dict[str, Read] = {}
    for name, feature in message.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind == "float_list":  # Python's floats are doubles, which do not keep all NaNs; bytes do
            raw = feature.float_list.SerializeToString()
            raw = raw[len(raw) - 4 * len(feature.float_list.value) :]
            found[name] = kind, [raw[at : at + 4] for at in range(0, len(raw), 4)]
        else:
            found[name] = kind, list(getattr(feature, kind).value) if kind else []
    return found


@dataclass(frozen=True)
class Outcome:
    """What parsing some records gives: their features that are not null, or the error.

    Attributes:
        names: of all features, in the order in which they are met.
        records: for each record, its features.
        error: the error's attributes.
    """

    names: list[str]
    records: list[dict[str, Read]]
    error: dict | None = None


def outcome(parser: BatchParser, frames: Frames) -> Outcome:
    """What the batch parser gives."""
    try:
        found = parser.parse(frames)
    except RecordError as error:
        return Outcome([], [], {"type": type(error).__name__, **vars(error)})
    records: list[dict[str, Read]] = [{} for _ in range(len(frames.starts))]
    for name, values in found.items():
        arrays = {
            "bytes_list": [
                bytes(frames.buffer[start : start + size])
                for start, size in zip(values.starts.tolist(), values.sizes.tolist(), strict=True)
            ],
            "float_list": [value.tobytes() for value in values.floats],
            "int64_list": values.integers.tolist(),
        }
        assert (
            values.counts.dtype
            == values.starts.dtype
            == values.sizes.dtype
            == values.integers.dtype
            == np.int64
        )
        assert values.floats.dtype == np.float32
        for array in (values.counts, values.starts, values.sizes, values.integers, values.floats):
            assert array.flags.c_contiguous
            assert array.flags.aligned
        assert len(values.counts) == len(records)
        flat = arrays.pop(values.kind, [])
        assert not any(arrays.values())  # of the other kinds
        at = 0
        for record, count in zip(records, values.counts.tolist(), strict=True):
            if count >= 0:
                record[name] = values.kind, flat[at : at + count]
                at += count
        assert at == len(flat)
        # Byte strings lie in their own records.
        owners = np.repeat(np.arange(len(records)), np.maximum(values.counts, 0))
        if values.kind == "bytes_list":
            assert (values.starts >= frames.starts[owners]).all()
            assert (values.starts + values.sizes <= (frames.starts + frames.sizes)[owners]).all()
    return Outcome(list(found), records)


def strict_outcome(records: list[bytes]) -> Outcome:
    """What the batch parser must give: that of the strict parser, record by record."""
    names: dict[str, tuple[int, str] | None] = {}
    rows = []
    for row, data in enumerate(records):
        try:
            features = parse_example(data)
        except ExampleError as error:
            wrong = {
                "type": "RecordError",
                "row": row,
                "message": f"{error.message}.",
                "position": error.position,
            }
            return Outcome([], [], wrong)
        for name, feature in features.items():
            first = names.setdefault(name, None)
            if first is None and feature.kind is not None:
                names[name] = row, feature.kind
            elif feature.kind is not None and feature.kind != first[1]:
                wrong = {
                    "type": "KindError",
                    "row": row,
                    "message": f"the feature {name!r} is of kind {feature.kind}; in "
                    f"an earlier record it is of kind {first[1]}.",
                    "position": feature.position,
                    "name": name,
                    "kind": feature.kind,
                    "first_row": first[0],
                    "first_kind": first[1],
                }
                return Outcome([], [], wrong)
        found = read_strictly(data)
        rows.append({name: read for name, read in found.items() if read[0] is not None})
    return Outcome(list(names), rows)


def example_class():
    """``tf.train.Example``, from a descriptor made here, so that TensorFlow need not be there."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="made", syntax="proto3")

    def message(name: str, *fields) -> descriptor_pb2.DescriptorProto:
        made = file.message_type.add(name=name)
        for number, (field_name, kind, repeated, type_name) in enumerate(fields, 1):
            made.field.add(
                name=field_name,
                number=number,
                type=kind,
                label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL,
                type_name=type_name,
            )
        return made

    message("BytesList", ("value", field.TYPE_BYTES, True, None))
    message("FloatList", ("value", field.TYPE_FLOAT, True, None))
    message("Int64List", ("value", field.TYPE_INT64, True, None))
    feature = message(
        "Feature",
        *((name, field.TYPE_MESSAGE, False, f".made.{kind}") for name, kind in
          (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List"))),
    )  # fmt: skip
    feature.oneof_decl.add(name="kind")
    for part in feature.field:
        part.oneof_index = 0
    features = message("Features", ("feature", field.TYPE_MESSAGE, True, ".made.Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL, type_name=".made.Feature"
    )
    message("Example", ("features", field.TYPE_MESSAGE, False, ".made.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("made.Example"))


# ---- Batches ------------------------------------------------------------------------------------------

NAMES = [
    "", "a", "b", "label", "image_raw", "image/encoded", "image/object/bbox/xmin", "image/object/bbox/xmax", "감정",
    "eightbyt", "ninebytes", "person_01_keypoints_of_body", "person_02_keypoints_of_body", "n" * 127, "n" * 128,
    "o" * 1000, "a\0", "a\0\0",
]  # fmt: skip
TAGS = [0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x10, 0x12, 0x15, 0x18, 0x1A, 0x22, 0x2A, 0x80, 0x00, 0xFF]
NANS = [b"\x01\x00\x80\x7f", b"\x00\x00\xc0\x7f", b"\xff\xff\xff\xff", b"\x2a\x00\x80\xff"]
INTEGERS_OF_NOTE = [0, 1, 127, 128, 16383, 16384, -1, 2**31, 2**62, 2**63 - 1, -(2**63)]


@dataclass(frozen=True)
class _Column:
    """How one feature of a made dataset is in its records."""

    kind: int
    present: float
    null: float
    unpacked: float
    counts: list[int]
    sizes: list[int]
    bits: list[int]


class BatchMaker:
    """Makes records of datasets of any schema, from a seeded generator."""

    def __init__(self, seed: int | str) -> None:
        self.random = random.Random(seed)

    def batch(self, count: int, *, odd: float = 0.0, spoiled: float = 0.0, loose: float = 0.0) -> list[bytes]:
        """Records of one dataset.

        Some have other features or kinds (``odd``), some are damaged (``spoiled``), some are encoded as no known
        writer does, and yet as protobuf reads them (``loose``).
        """
        chance = self.random
        names = chance.sample(NAMES, chance.choice([1, 2, 5, 12]))
        names += {chance.randbytes(chance.randrange(1, 12)).hex() for _ in range(chance.choice([0, 0, 1, 3]))}
        schema = {name: self._column() for name in names}
        shuffled = chance.random() < 0.6
        records = []
        for _ in range(count):
            columns = dict(schema)
            if chance.random() < odd:
                columns[chance.choice(NAMES)] = self._column()
            order = list(columns)
            if shuffled:
                chance.shuffle(order)
            present = {name: columns[name] for name in order if chance.random() < columns[name].present}
            if chance.random() < loose:
                data = self.loose_example({name: self._values(column) for name, column in present.items()})
            else:
                data = example({name: self._feature(column) for name, column in present.items()})
            if chance.random() < 0.01:
                data = chance.choice([b"", b"\x0a\x00"])
            records.append(self.spoiled(data) if chance.random() < spoiled else data)
        return records

    def _column(self) -> _Column:
        chance = self.random
        kind = chance.choice([BYTES, FLOATS, INTEGERS])
        return _Column(
            kind,
            present=chance.choice([1, 1, 1, 0.9, 0.1]),
            null=chance.choice([0, 0, 0, 0.1]),
            unpacked=chance.choice([0, 0, 0, 0.05]),
            counts=chance.choice([[1], [1], [3], [0, 1, 2], [0, 1, 2, 3, 20], [0], [24], [60, 140]]),
            sizes=chance.choice([[0], [4], [0, 1, 2, 3], [0, 5, 120, 121, 122, 130], [200, 2000]]),
            bits=chance.choice([[1], [7, 8], [1, 14, 15], [7, 63, 64], [64]]),
        )

    def _values(self, column: _Column) -> tuple[int, list[bytes]] | None:
        """A kind, and how each value is encoded; None: no kind."""
        chance = self.random
        if chance.random() < column.null:
            return None
        count = chance.choice(column.counts)
        if column.kind == BYTES:
            return BYTES, [chance.randbytes(chance.choice(column.sizes)) for _ in range(min(count, 30))]
        if column.kind == FLOATS:
            return FLOATS, [
                chance.choice(NANS) if chance.random() < 0.1 else chance.randbytes(4) for _ in range(count)
            ]
        numbers = (
            chance.choice(INTEGERS_OF_NOTE)
            if chance.random() < 0.02 and len(column.bits) > 1
            else chance.getrandbits(chance.choice(column.bits))
            for _ in range(count)
        )
        return INTEGERS, [varint(number) for number in numbers]

    def _feature(self, column: _Column) -> bytes:
        chance = self.random
        if (found := self._values(column)) is None:
            return b""
        kind, values = found
        if not values and chance.random() < 0.5:
            return field(kind, b"")
        if kind == BYTES:
            return bytes_list(*values)
        if chance.random() >= column.unpacked:
            return field(kind, field(1, b"".join(values)))
        return field(kind, b"".join(SINGLE_TAGS[kind] + value for value in values))

    # What follows is legal protobuf that no known writer writes.

    def loose_example(self, features: dict[str, tuple[int, list[bytes]] | None]) -> bytes:
        """A record of these features, each a kind, and how each value is encoded."""
        entries = [
            self._loose_entry(name.encode(), values)
            for name, values in sorted(features.items(), key=lambda _: self.random.random())
        ]
        return self._in_pieces(1, entries)

    def _loose_entry(self, name: bytes, found: tuple[int, list[bytes]] | None) -> bytes:
        chance = self.random
        feature = [] if found is None else [self._in_pieces(found[0], self._loose_values(*found))]
        value = self._in_pieces(2, feature) if feature or chance.random() < 0.5 else b""
        key = self._loose_field(1, name) if name or chance.random() < 0.5 else b""
        return self._loose_field(1, b"".join(chance.sample([key, value], 2)))

    def _loose_values(self, kind: int, values: list[bytes]) -> list[bytes]:
        chance = self.random
        if kind == BYTES:
            return [self._loose_field(1, value) for value in values]
        if kind == INTEGERS:
            values = [self._padded(value, 10) for value in values]
        if chance.random() < 0.3:
            return [SINGLE_TAGS[kind] + value for value in values]
        pieces = []
        while values:
            count = chance.randrange(4)
            run, values = values[:count], values[count:]
            if chance.random() < 0.5:
                pieces.append(self._loose_field(1, b"".join(run)))
            else:
                pieces += [self._padded(SINGLE_TAGS[kind], 5) + value for value in run]
        return pieces

    def _in_pieces(self, number: int, parts: list[bytes]) -> bytes:
        """A message field whose parts are shared out among several of it, which are merged."""
        pieces = [parts]
        if self.random.random() < 0.3:
            cut = self.random.randrange(len(parts) + 1)
            pieces = [parts[:cut], parts[cut:]]
        return b"".join(self._loose_field(number, b"".join(piece)) for piece in pieces)

    def _loose_field(self, number: int, payload: bytes) -> bytes:
        tag, size = varint(number << 3 | 2), varint(len(payload))
        return self._padded(tag, 5) + self._padded(size, 5) + payload

    def _padded(self, encoded: bytes, most: int) -> bytes:
        """A number in more bytes than it needs."""
        more = self.random.randrange(most - len(encoded) + 1) if self.random.random() < 0.1 else 0
        return encoded if not more else padded(encoded, len(encoded) + more)

    def spoiled(self, data: bytes) -> bytes:
        """A sound record with something changed: bytes of it, or of a part of it, with all lengths put right."""
        entries = [payload for _, payload in fields(dict(fields(data)).get(1, b""))]
        depth = self.random.randrange(6)
        if depth == 0 or not entries:
            return self.changed(data)
        number = self.random.randrange(len(entries))
        if depth == 1:
            entries.insert(self.random.randrange(len(entries) + 1), entries[number])
        elif depth == 2:
            entries[number] = self.changed(entries[number])
        else:
            (_, name), (_, feature) = fields(entries[number])
            entries[number] = field(1, name) + field(2, self._changed_within(feature, depth - 3))
        return field(1, b"".join(field(1, payload) for payload in entries))

    def _changed_within(self, message: bytes, depth: int) -> bytes:
        """The message with its first field's payload changed, or, at a depth, that of the first field in it."""
        if depth == 0 or not message or message[0] & 7 != 2:
            return self.changed(message)
        (number, payload), *rest = fields(message)
        return b"".join(field(*each) for each in [(number, self._changed_within(payload, depth - 1)), *rest])

    def changed(self, data: bytes) -> bytes:
        chance = self.random
        changed = bytearray(data)
        for _ in range(chance.choice([1, 1, 2])):
            # Half of the damage goes to the first bytes, where lengths and names are.
            spot = chance.randrange(min(len(changed), chance.choice([30, 1 << 20]))) if changed else 0
            how = chance.randrange(7)
            if how == 0 and changed:
                changed[spot] ^= 1 << chance.randrange(8)
            elif how == 1 and changed:
                changed[spot] = chance.choice(TAGS)
            elif how == 2:
                changed.insert(spot, chance.choice(TAGS))
            elif how == 3 and changed:
                del changed[spot]
            elif how == 4:
                del changed[spot:]
            elif how == 5:
                changed[spot:spot] = changed[spot : spot + chance.randrange(1, 20)]
            elif changed:
                changed[spot] = (changed[spot] + chance.choice([-2, -1, 1, 2])) % 256
        return bytes(changed)
