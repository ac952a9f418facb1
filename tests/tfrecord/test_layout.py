"""Parsing a batch at once gives what parsing each record alone gives, or the same error."""

import random
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.spec import Features
from converters.tfrecord import layout
from converters.tfrecord.example import ExampleError, parse_example
from converters.tfrecord.framing import Frames
from converters.tfrecord.layout import ExampleParser, RecordError

LABELS = 5


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def ints(values: list[int], packed: bool = True) -> bytes:
    if packed:
        return field(3, field(1, b"".join(map(varint, values))))
    return field(3, b"".join(b"\x08" + varint(value) for value in values))


def record(
    image=b"jpeg", label=(0, 1, 0, 0, 0), size=(64, 64, 3), order=(0, 1, 2, 3, 4), packed=True, extra=()
) -> bytes:
    values = [
        ("image_raw", field(1, field(1, image))),
        ("label", ints(list(label), packed)),
        *(
            (name, ints([value], packed))
            for name, value in zip(("height", "width", "depth"), size, strict=True)
        ),
    ]
    entries = [values[position] for position in order] + list(extra)
    return field(1, b"".join(field(1, field(1, name.encode()) + field(2, value)) for name, value in entries))


def frames_of(records: list[bytes], before: bytes = b"\xaa" * 12, after: bytes = b"\xbb" * 4) -> Frames:
    buffer, starts = b"", []
    for data in records:
        buffer += before
        starts.append(len(buffer))
        buffer += data + after
    return Frames(buffer, np.array(starts, np.int64), np.array(list(map(len, records)), np.int64), 0, 0)


def outcome(parser: ExampleParser, records: list[bytes], **options):
    """(rows, None) or (None, the first bad row and what is wrong with it)."""
    frames = frames_of(records, **options)
    try:
        parsed = parser.parse(frames)
    except RecordError as error:
        return None, (error.row, error.message, error.position)
    rows = [
        (frames.buffer[start : start + size], tuple(label), tuple(shape))
        for start, size, label, shape in zip(
            parsed.image_starts.tolist(),
            parsed.image_sizes.tolist(),
            parsed.labels.tolist(),
            parsed.sizes.tolist(),
            strict=True,
        )
    ]
    assert parsed.labels.dtype == np.uint8
    assert parsed.sizes.dtype == np.int32
    # Each image lies inside its own record.
    for row in range(len(records)):
        assert frames.starts[row] <= parsed.image_starts[row]
        assert parsed.image_starts[row] + parsed.image_sizes[row] <= frames.starts[row] + frames.sizes[row]
    return rows, None


def alone(records: list[bytes]):
    rows = []
    for row, data in enumerate(records):
        found, error = outcome(ExampleParser(Features(), LABELS), [data])
        if error is not None:
            return None, (row, *error[1:])
        rows += found
    return rows, None


orders = st.permutations(range(5))
values = st.fixed_dictionaries(
    {
        "image": st.one_of(
            st.binary(max_size=40),
            st.sampled_from([0, 1, 60, 90, 100, 127, 128, 129, 300, 16_000, 16_383, 16_384, 17_000]).map(
                lambda n: b"\xd8" * n
            ),
        ),
        "label": st.lists(st.sampled_from([0, 0, 0, 1]), min_size=LABELS, max_size=LABELS),
        "size": st.tuples(
            *[st.sampled_from([0, 1, 3, 64, 127, 128, 200, 16_384, 2**21, 2**28, 2**31 - 1, -1, -(2**31)])]
            * 3
        ),
    }
)
kinds = st.sampled_from(
    ["same"] * 8 + ["order"] * 3 + ["unpacked", "two", "long label", "extra", "missing", "big", "mutate"]
)


@st.composite
def batches(draw, mutate: bool):
    base = draw(orders)
    records, expected = [], []
    allowed = ["same"] * 6 + ["order", "unpacked"]
    for _ in range(draw(st.integers(1, 14))):
        parts = draw(values)
        kind = draw(kinds) if mutate else draw(st.sampled_from(allowed))
        order = draw(orders) if kind == "order" else base
        if kind == "two":
            parts["label"][draw(st.integers(0, LABELS - 1))] = draw(st.sampled_from([2, 127, 128, -1]))
        if kind == "long label":
            parts["label"].append(0)
        if kind == "big":
            parts["size"] = (2**31, 1, 1)
        if kind == "missing":
            order = order[1:]
        data = record(
            **parts,
            order=order,
            packed=kind != "unpacked",
            extra=[("x", ints([1]))] if kind == "extra" else [],
        )
        if kind == "mutate":
            damaged = bytearray(data)
            # Half of the damage goes to the first and last bytes, where the layout is.
            spot = draw(st.one_of(st.integers(0, len(data) - 1), st.integers(0, min(60, len(data) - 1))))
            how = draw(st.sampled_from(["flip", "flip", "insert", "delete", "cut"]))
            if how == "flip":
                damaged[spot if draw(st.booleans()) else -1 - spot] ^= draw(st.integers(1, 255))
            elif how == "insert":
                damaged.insert(spot, draw(st.integers(0, 255)))
            elif how == "delete":
                del damaged[spot]
            else:
                del damaged[spot:]
            data = bytes(damaged)
        records.append(data)
        expected.append((parts["image"], tuple(parts["label"]), parts["size"]))
    return records, expected


@settings(deadline=None, max_examples=120)
@given(batches(mutate=False))
def test_a_batch_of_sound_records_gives_what_was_put_in(batch):
    records, expected = batch
    parser = ExampleParser(Features(), LABELS)
    assert outcome(parser, records) == (expected, None)
    # Again, with the layouts learnt, in reverse, and with nothing around the records.
    assert outcome(parser, records[::-1], before=b"", after=b"") == (expected[::-1], None)


@settings(deadline=None, max_examples=120)
@given(batches(mutate=True), batches(mutate=False))
def test_a_batch_gives_what_each_record_alone_gives(batch, sound):
    records, _ = batch
    expected = alone(records)
    parser = ExampleParser(Features(), LABELS)
    assert outcome(parser, records) == expected
    parser = ExampleParser(Features(), LABELS)
    outcome(parser, sound[0])  # layouts learnt before
    assert outcome(parser, records) == expected
    assert outcome(parser, records, before=b"", after=b"") == expected


def test_every_byte_of_a_record_changed():
    """Beside a sound record that teaches the layout: the same verdict and rows as the strict parser alone."""
    for order, image in [((0, 1, 2, 3, 4), b"j"), ((1, 2, 0, 3, 4), b""), ((4, 3, 2, 1, 0), b"jpeg" * 40)]:
        sound = record(image=image, order=order)
        taught = ExampleParser(Features(), LABELS)
        outcome(taught, [sound])
        for position in range(len(sound)):
            if 60 < position < len(sound) - 110:
                continue
            for value in {0, 1, 2, 0x7F, 0x80, sound[position] ^ 1, sound[position] ^ 0x80}:
                changed = sound[:position] + bytes([value]) + sound[position + 1 :]
                assert outcome(taught, [changed]) == alone([changed]), (position, value)


def test_records_longer_and_shorter_than_the_learnt_one():
    for learnt in (0, 50, 120, 127, 128, 20_000):
        parser = ExampleParser(Features(), LABELS)
        outcome(parser, [record(image=bytes(learnt))])
        records = [record(image=b"\x0a" * size) for size in [*range(0, 200), 16_250, 16_300, 16_384, 20_001]]
        assert outcome(parser, records) == alone(records)


def test_truncations_of_the_last_record_do_not_read_beyond_the_buffer():
    sound = record(image=b"jpeg" * 10)
    for end in range(len(sound)):
        for records in ([sound, sound[:end]], [sound[:end], sound]):
            assert outcome(ExampleParser(Features(), LABELS), records, before=b"", after=b"") == alone(
                records
            )


def test_the_first_bad_record_is_named_whatever_order_they_are_looked_at():
    good, other = record(), record(order=(4, 3, 2, 1, 0))
    bad, worse = record(label=(0, 2, 0, 0, 0)), b"rubbish"
    for records, row in [
        ([good, other, bad, good, worse], 2),
        ([good, other, worse, other, bad], 2),
        ([worse, bad], 0),
        ([other, good, good, good, other, bad], 5),
    ]:
        found, error = outcome(ExampleParser(Features(), LABELS), records)
        assert found is None
        assert error[0] == row
        assert (found, error) == alone(records)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (record(label=(0, 2, 0, 0, 0)), "'label' has the value 2"),
        (record(label=(0, -1, 0, 0, 0)), "'label' has the value -1"),
        (record(label=(0, 1)), "has 2 values, expected 5"),
        (record(label=()), "has 0 values, expected 5"),
        (record(size=(2**31, 1, 1)), "'height'"),
        (record(size=(1, -(2**31) - 1, 1)), "'width'"),
        (record(order=(1, 2, 3, 4)), "'image_raw' is missing"),
        (record(order=(0, 2, 3, 4)), "'label' is missing"),
        (record(extra=[("x", ints([1]))]), "'x' is not in the dataset's description"),
        (record(order=(1, 2, 3, 4), extra=[("image_raw", ints([1]))]), "'image_raw' is a int64_list"),
        (record(order=(1, 2, 3, 4), extra=[("image_raw", field(1, field(1, b"a") * 2))]), "2 values"),
        (record(order=(0, 1, 2, 3), extra=[("depth", field(1, field(1, b"3")))]), "'depth' is a bytes_list"),
        (b"", "the record has none"),
    ],
)
def test_what_the_description_does_not_say_is_an_error(data, message):
    with pytest.raises(RecordError, match=message) as caught:
        ExampleParser(Features(), LABELS).parse(frames_of([record(), record(), data]))
    assert caught.value.row == 2


def test_one_record_teaches_all_orders(monkeypatch):
    """A protobuf map has no order, and some writers leave its entries in another one in each record."""
    taught = []

    def counted(data):
        taught.append(data)
        return parse_example(data)

    monkeypatch.setattr(layout, "parse_example", counted)
    records, expected = [], []
    for number, order in enumerate(permutations(range(5))):
        image, label = bytes([number]) * (number + 200), tuple(number >> bit & 1 for bit in range(LABELS))
        records.append(record(image, label, (number, 64, 3), order))
        expected.append((image, label, (number, 64, 3)))
    assert outcome(ExampleParser(Features(), LABELS), records) == (expected, None)
    assert len(taught) == 1


def test_more_layouts_than_are_kept():
    """Numbers of several widths, in several orders, are more layouts than are kept; all are read."""
    chance = random.Random(5)
    records, expected = [], []
    for number in range(400):
        order = chance.sample(range(5), 5)
        image = bytes([number % 256]) * chance.choice([3, 130, 17_000])
        size = tuple(chance.choice([3, 64, 200, 20_000]) for _ in range(3))
        label = tuple(chance.choice([0, 1]) for _ in range(LABELS))
        records.append(record(image, label, size, order))
        expected.append((image, label, size))
    parser = ExampleParser(Features(), LABELS)
    assert outcome(parser, records) == (expected, None)
    assert outcome(parser, records) == (expected, None)


def test_an_empty_batch():
    assert outcome(ExampleParser(Features(), LABELS), []) == ([], None)


@settings(deadline=None, max_examples=60)
@given(batches(mutate=True))
def test_what_is_accepted_is_what_the_strict_parser_says(batch):
    records, _ = batch
    rows, error = outcome(ExampleParser(Features(), LABELS), records)
    if error is not None:
        return
    for data, (image, label, size) in zip(records, rows, strict=True):
        try:
            features = parse_example(data).features
        except ExampleError as bad:  # pragma: no cover
            pytest.fail(f"accepted what the strict parser refuses: {bad}")
        start, length = int(features["image_raw"].starts[0]), int(features["image_raw"].sizes[0])
        assert data[start : start + length] == image
        assert tuple(features["label"].integers) == label
        assert tuple(features[name].integers[0] for name in ("height", "width", "depth")) == size
