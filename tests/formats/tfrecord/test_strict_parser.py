"""The strict parser of Example on bytes made by hand: what protobuf reads whole is read, what it drops is an error."""

import struct

import numpy as np
import pytest
from example_maker import example_class, read_strictly, read_with_protobuf
from helpers.examples import BYTES, FLOATS, INTEGERS, field
from helpers.examples import to_varint as varint

from converters.formats.tfrecord.strict_parser import ExampleError, parse_example


def padded(value: int, size: int) -> bytes:
    return bytes([*(value >> 7 * place & 0x7F | 0x80 for place in range(size - 1)), value >> 7 * (size - 1)])


def packed(*values: int) -> bytes:
    return field(1, b"".join(map(varint, values)))


def unpacked(*values: int) -> bytes:
    return b"".join(b"\x08" + varint(value) for value in values)


def entry(name: str | bytes, feature: bytes) -> bytes:
    return field(1, field(1, name.encode() if isinstance(name, str) else name) + field(2, feature))


def example(*entries: bytes) -> bytes:
    return field(1, b"".join(entries))


INTS = field(INTEGERS, packed(1, 2, 3))


def integers(feature: bytes) -> tuple[int, ...]:
    found = parse_example(example(entry("a", feature)))["a"]
    assert found.kind == "int64_list"
    assert found.count == len(found.integers)
    assert found.integers.dtype == "int64"
    return tuple(found.integers.tolist())


def test_all_kinds():
    data = example(
        entry("ints", INTS),
        entry("bytes", field(BYTES, field(1, b"one") + field(1, b"") + field(1, b"\xff\xd8"))),
        entry("floats", field(FLOATS, field(1, struct.pack("<3f", 1, 2, 3)))),
        entry("", field(INTEGERS, b"")),
        entry("감정", field(FLOATS, b"\x0d" + struct.pack("<f", 1) + b"\x0d" + struct.pack("<f", 2))),
        entry("none", field(BYTES, b"")),
        entry("no kind", b""),
    )
    features = parse_example(data)
    assert {name: (feature.kind, feature.count) for name, feature in features.items()} == {
        "ints": ("int64_list", 3),
        "bytes": ("bytes_list", 3),
        "floats": ("float_list", 3),
        "": ("int64_list", 0),
        "감정": ("float_list", 2),
        "none": ("bytes_list", 0),
        "no kind": (None, 0),
    }
    spans = zip(features["bytes"].starts.tolist(), features["bytes"].sizes.tolist(), strict=True)
    assert [data[start : start + size] for start, size in spans] == [b"one", b"", b"\xff\xd8"]
    assert features["floats"].floats.tolist() == [1, 2, 3]
    assert features["감정"].floats.tolist() == [1, 2]


def test_an_example_without_features_is_one():
    assert parse_example(b"") == {} == parse_example(example())


@pytest.mark.parametrize("packed_run", [True, False])
def test_floats_survive_bit_for_bit(packed_run):
    bits = [0x7FC00001, 0xFFA00000, 0x7F800000, 0x80000000, 1]
    run = struct.pack("<5I", *bits)
    values = field(1, run) if packed_run else b"".join(b"\x0d" + run[at : at + 4] for at in range(0, 20, 4))
    found = parse_example(example(entry("a", field(FLOATS, values))))["a"]
    assert found.floats.dtype == "float32"
    assert found.floats.view("uint32").tolist() == bits


@pytest.mark.parametrize("values", [(), (0,), (-1,), (1, 0, 1), (2**63 - 1, -(2**63)), (127, 128, 16384)])
def test_integers_packed_and_unpacked_alike(values):
    assert integers(field(INTEGERS, packed(*values))) == values
    assert integers(field(INTEGERS, unpacked(*values))) == values


def test_minus_one_is_ten_bytes():
    assert integers(field(INTEGERS, field(1, b"\xff" * 9 + b"\x01"))) == (-1,)
    for wrong in (b"\xff" * 5 + b"\x01", b"\xff\xff\xff\xff\x0f"):  # 41 and 32 bits: other numbers, not -1
        assert integers(field(INTEGERS, field(1, wrong))) != (-1,)


A = ("int64_list", [1, 2, 3])
OTHER = field(INTEGERS, packed(4))
ACCEPTED = {
    "two lists of one kind": (example(entry("a", INTS + OTHER)), {"a": ("int64_list", [1, 2, 3, 4])}),
    "two lists of texts": (
        example(entry("a", field(BYTES, field(1, b"x")) + field(BYTES, field(1, b"y")))),
        {"a": ("bytes_list", [b"x", b"y"])},
    ),
    "no value": (example(field(1, field(1, b"a"))), {"a": (None, [])}),
    "no key": (example(field(1, field(2, INTS))), {"": A}),
    "an empty entry": (example(field(1, b"")), {"": (None, [])}),
    "the value before the key": (example(field(1, field(2, INTS) + field(1, b"a"))), {"a": A}),
    "the value twice": (
        example(field(1, field(1, b"a") + field(2, INTS) + field(2, OTHER))),
        {"a": ("int64_list", [1, 2, 3, 4])},
    ),
    "the value around the key": (
        example(field(1, field(2, INTS) + field(1, b"a") + field(2, OTHER))),
        {"a": ("int64_list", [1, 2, 3, 4])},
    ),
    "a value, and one without a kind": (example(field(1, field(1, b"a") + field(2, INTS) + field(2, b""))), {"a": A}),
    "packed, then unpacked": (example(entry("a", field(INTEGERS, packed(1, 2) + unpacked(3)))), {"a": A}),
    "unpacked, then packed": (example(entry("a", field(INTEGERS, unpacked(1) + packed(2, 3)))), {"a": A}),
    "two packed runs": (example(entry("a", field(INTEGERS, packed(1) + packed(2, 3)))), {"a": A}),
    "an empty packed run, then another": (example(entry("a", field(INTEGERS, packed() + packed(1, 2, 3)))), {"a": A}),
    "two float runs": (
        example(entry("a", field(FLOATS, field(1, bytes(4)) + field(1, bytes(4))))),
        {"a": ("float_list", [bytes(4)] * 2)},
    ),
    "floats packed, then not": (
        example(entry("a", field(FLOATS, field(1, bytes(4)) + b"\x0d" + bytes(4)))),
        {"a": ("float_list", [bytes(4)] * 2)},
    ),
    "features twice": (example(entry("a", INTS)) + example(entry("b", INTS)), {"a": A, "b": A}),
    "features, and none": (example(entry("a", INTS)) + example(), {"a": A}),
    "an overlong value": (
        example(entry("a", field(INTEGERS, field(1, b"\x81\x00\x02\x03")))),
        {"a": A},
    ),
    "an overlong zero": (example(entry("a", field(INTEGERS, field(1, b"\x80\x00")))), {"a": ("int64_list", [0])}),
    "a zero of ten bytes": (
        example(entry("a", field(INTEGERS, field(1, b"\x80" * 9 + b"\x00")))),
        {"a": ("int64_list", [0])},
    ),
    "an overlong unpacked value": (
        example(entry("a", field(INTEGERS, b"\x08\x81\x00"))),
        {"a": ("int64_list", [1])},
    ),
    "an overlong tag of a value": (
        example(entry("a", field(INTEGERS, b"\x88\x00\x01\x08\x02\x08\x03"))),
        {"a": A},
    ),
    "an overlong length": (b"\x0a" + padded(len(entry("a", INTS)), 5) + entry("a", INTS), {"a": A}),
    "an overlong tag": (padded(0x0A, 5) + varint(len(entry("a", INTS))) + entry("a", INTS), {"a": A}),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_protobuf_reads_whole_is_read(name):
    data, expected = ACCEPTED[name]
    assert read_strictly(data) == expected
    assert read_with_protobuf(example_class(), data) == expected


REFUSED = {
    "a key twice": example(entry("a", INTS), entry("a", INTS)),
    "a key twice, not neighbours": example(entry("a", INTS), entry("b", INTS), entry("a", field(BYTES, b""))),
    "a key twice, in two features": example(entry("a", INTS)) + example(entry("a", INTS)),
    "no key twice": example(field(1, field(2, INTS)), field(1, b"")),
    "two lists of two kinds": example(entry("a", field(BYTES, b"") + INTS)),
    "values of two kinds": example(field(1, field(1, b"a") + field(2, INTS) + field(2, field(BYTES, b"")))),
    "the key twice in an entry": example(field(1, field(1, b"a") + field(1, b"b") + field(2, INTS))),
    "an unknown field in an entry": example(field(1, field(1, b"a") + field(2, INTS) + field(3, b"x"))),
    "an unknown number in an entry": example(field(1, field(1, b"a") + field(2, INTS) + b"\x18\x01")),
    "an unknown field in a feature": example(entry("a", INTS + field(4, b""))),
    "an unknown kind": example(entry("a", field(4, packed(1)))),
    "an unknown field in a list": example(entry("a", field(INTEGERS, packed(1) + field(2, b"")))),
    "an unknown field in features": example(entry("a", INTS), field(2, b"")),
    "an unknown field in the Example": example(entry("a", INTS)) + field(2, b""),
    "an unknown field of eight bytes": example(entry("a", INTS)) + b"\x19" + bytes(8),
    "field 0": example(entry("a", INTS)) + b"\x02\x00",
    "wire type: float in int64_list": example(entry("a", field(INTEGERS, b"\x0d" + bytes(4)))),
    "wire type: fixed64 in int64_list": example(entry("a", field(INTEGERS, b"\x09" + bytes(8)))),
    "wire type: varint in float_list": example(entry("a", field(FLOATS, b"\x08\x01"))),
    "wire type: varint in bytes_list": example(entry("a", field(BYTES, b"\x08\x01"))),
    "wire type: group in bytes_list": example(entry("a", field(BYTES, b"\x0b\x0c"))),
    "wire type: list as a number": example(entry("a", b"\x18\x01")),
    "wire type: features as a number": b"\x08\x01",
    "a length of six bytes": b"\x0a" + padded(len(entry("a", INTS)), 6) + entry("a", INTS),
    "a tag of six bytes": padded(0x0A, 6) + varint(len(entry("a", INTS))) + entry("a", INTS),
    "a tag of 33 bits": b"\x8a\x80\x80\x80\x10" + varint(len(entry("a", INTS))) + entry("a", INTS),
    "a number of more than 64 bits": example(entry("a", field(INTEGERS, field(1, b"\xff" * 9 + b"\x02")))),
    "a number of eleven bytes": example(entry("a", field(INTEGERS, field(1, b"\xff" * 10 + b"\x01")))),
    "an unpacked number of more than 64 bits": example(entry("a", field(INTEGERS, b"\x08" + b"\xff" * 9 + b"\x02"))),
    "a number without end": example(entry("a", field(INTEGERS, field(1, b"\x80")))),
    "half a float": example(entry("a", field(FLOATS, field(1, bytes(6))))),
    "half an unpacked float": example(entry("a", field(FLOATS, b"\x0d" + bytes(3)))),
    "a key that is not UTF-8": example(entry(b"\xff", INTS)),
    "a key with a surrogate": example(entry(b"\xed\xa0\x80", INTS)),
    "a length of 2**64 - 1": b"\x0a" + b"\xff" * 9 + b"\x01",
    "a length of 2**63": b"\x0a" + b"\x80" * 9 + b"\x01",
    "something after": example(entry("a", INTS)) + b"\0",
    "a feature in very many pieces": example(field(1, field(1, b"a") + field(2, b"") * 2000)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_lost_or_is_malformed_is_an_error(name):
    data = REFUSED[name]
    with pytest.raises(ExampleError) as caught:
        parse_example(data)
    assert 0 <= caught.value.position <= len(data)
    assert caught.value.message


@pytest.mark.parametrize(
    ("data", "words", "position"),
    [
        (example(entry("a", INTS)) + field(2, b""), "expected the Example's features, found field 2", 16),
        (example(entry("a", INTS + field(4, b""))), "expected a list of values of 'a', found field 4", 16),
        (example(field(1, field(3, b"x") + field(1, b"a"))), "expected a feature's name or value, found field 3", 4),
        (example(entry("a", INTS + field(BYTES, b""))), "'a' has a bytes_list after an int64_list", 16),
        (example(entry("a", INTS), entry("a", INTS)), "the feature 'a' stands twice", 16),
        (example(field(1, field(1, b"a") * 2)), "the map entry of 'a' has a second name", 7),
    ],
)  # fmt: skip
def test_words_and_places(data, words, position):
    with pytest.raises(ExampleError, match=words) as caught:
        parse_example(data)
    assert caught.value.position == position


def test_unpacked_numbers_are_not_read_one_by_one():
    count = (1 << 20) + 5  # more than are read one by one
    floats = np.arange(count, dtype=np.float32)
    tagged = np.full((count, 5), 0x0D, np.uint8)
    tagged[:, 1:] = floats.view(np.uint8).reshape(-1, 4)
    found = parse_example(example(entry("a", field(FLOATS, tagged.tobytes()))))["a"]
    assert np.array_equal(found.floats, floats)
    found = parse_example(example(entry("a", field(INTEGERS, unpacked(5, 300, -1) * 350_000))))["a"]
    assert found.integers.tolist() == [5, 300, -1] * 350_000


def test_every_truncation_is_an_error():
    data = example(entry("a", INTS), entry("b", field(BYTES, field(1, b"abc"))))
    for end in range(1, len(data)):  # no bytes at all are an Example without features
        with pytest.raises(ExampleError):
            parse_example(data[:end])


def test_depth_and_time_are_bounded():
    nested = b""
    for _ in range(3000):
        nested = field(1, nested)
    with pytest.raises(ExampleError):
        parse_example(nested)
    many = 200_000
    assert parse_example(example(entry("a", field(BYTES, field(1, b"") * many))))["a"].count == many
