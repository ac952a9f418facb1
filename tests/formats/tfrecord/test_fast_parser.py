"""Parsing a batch at once gives what the strict parser gives of each record alone, and what protobuf gives."""

import random
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from example_maker import (
    FLOATS,
    INTEGERS,
    BatchMaker,
    bytes_list,
    entry,
    example,
    example_class,
    field,
    float_list,
    frames_of,
    int64_list,
    outcome,
    padded,
    read_strictly,
    read_with_protobuf,
    strict_outcome,
    varint,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.formats.tfrecord import entry_walk
from converters.formats.tfrecord import fast_parser as batch_parser
from converters.formats.tfrecord.fast_parser import BatchParser, KindError, RecordError
from converters.formats.tfrecord.framing import Frames
from converters.formats.tfrecord.strict_parser import decode_varints

seeds = st.integers(0, 2**64 - 1)
counts = st.sampled_from([1, 2, 7, 8, 9, 20, 60])
rests = st.sampled_from([0, 1, 16, 64])


def with_examples(number: int):
    """Settings; a fixture that patches the parser once for all examples is wanted here."""
    health = [HealthCheck.function_scoped_fixture]
    return settings(deadline=None, max_examples=number, derandomize=True, suppress_health_check=health)


@pytest.fixture(scope="module")
def protobuf():
    return example_class()


@pytest.fixture(params=["as it is", "always in step"])
def limits(request, monkeypatch):
    """The parser as it is, and one that leaves records to the strict parser only if they are doubtful."""
    if request.param == "always in step":
        monkeypatch.setattr(batch_parser, "_MAX_RECORDS", 16)
        monkeypatch.setattr(batch_parser, "_MIN_RECORDS", 1)
        monkeypatch.setattr(batch_parser, "_MIN_LISTS", 1)
        monkeypatch.setattr(batch_parser, "_LONG_LIST", 2)


def read(records: list[bytes], **options):
    """What the records give, which must be what the strict parser gives; in other surroundings, the same."""
    expected = strict_outcome(records)
    parser = BatchParser()
    assert outcome(parser, frames_of(records, **options)) == expected
    assert outcome(parser, frames_of(records, b"", b"", 0)) == expected  # names are known by now
    return expected


# ---- Any schema ---------------------------------------------------------------------------------------


@with_examples(150)
@given(seed=seeds, count=counts, rest=rests)
def test_sound_records_of_any_schema(limits, protobuf, seed, count, rest):
    records = BatchMaker(seed).batch(count)
    found = read(records, rest=rest)
    assert found.error is None
    for data, row in zip(records, found.records, strict=True):
        theirs = read_with_protobuf(protobuf, data)
        assert row == {name: feature for name, feature in theirs.items() if feature[0] is not None}
        assert theirs.keys() <= set(found.names)


@with_examples(80)
@given(seed=seeds, count=counts, rest=rests, loose=st.sampled_from([0.1, 1]))
def test_what_protobuf_reads_is_read_however_it_is_encoded(limits, protobuf, seed, count, rest, loose):
    """Fields in any order or absent, messages in pieces, numbers packed or not, varints padded."""
    records = BatchMaker(seed).batch(count, loose=loose)
    assert read(records, rest=rest).error is None
    for data in records:
        mine = read_strictly(data)
        assert mine is not None
        assert mine == read_with_protobuf(protobuf, data)


@with_examples(100)
@given(seed=seeds, count=counts, rest=rests)
def test_records_of_several_schemas(limits, seed, count, rest):
    """Features that few records have; some are of two kinds."""
    read(BatchMaker(seed).batch(count, odd=0.2), rest=rest)


@with_examples(150)
@given(seed=seeds, count=counts, rest=rests)
def test_a_damaged_record_is_accepted_where_the_strict_parser_accepts_it(limits, protobuf, seed, count, rest):
    maker = BatchMaker(seed)
    records = maker.batch(count)
    for _ in range(4):
        row = maker.random.randrange(count)
        damaged = maker.spoiled(records[row])
        read([*records[:row], damaged, *records[row + 1 :]], rest=rest)
        mine = read_strictly(damaged)
        if mine is not None:
            assert mine == read_with_protobuf(protobuf, damaged)


@with_examples(40)
@given(seed=seeds, count=counts)
def test_a_damaged_record_that_is_encoded_as_no_writer_does(limits, protobuf, seed, count):
    maker = BatchMaker(seed)
    records = maker.batch(count, loose=1)
    for _ in range(4):
        row = maker.random.randrange(count)
        damaged = maker.changed(records[row])
        read([*records[:row], damaged, *records[row + 1 :]])
        mine = read_strictly(damaged)
        if mine is not None:
            assert mine == read_with_protobuf(protobuf, damaged)


@with_examples(60)
@given(seed=seeds, rest=rests)
def test_of_several_errors_the_first_records_is_raised(limits, seed, rest):
    read(BatchMaker(seed).batch(30, odd=0.05, spoiled=0.1), rest=rest)


def test_every_byte_of_a_record_changed(limits):
    sound = example(
        {
            "i": int64_list(1, -1, 300),
            "f": float_list(1.5, -2),
            "b": bytes_list(b"xy", b"", b"z"),
            "null": b"",
            "long": bytes_list(b"x" * 200),
        }
    )
    parser = BatchParser()
    records = [sound] * 9
    for position in [*range(75), *range(len(sound) - 215, len(sound) - 190)]:
        for value in {
            0,
            1,
            2,
            0x0A,
            0x12,
            0x1A,
            0x7F,
            0x80,
            0xFF,
            sound[position] ^ 1,
            sound[position] ^ 0x80,
        }:
            records[4] = sound[:position] + bytes([value]) + sound[position + 1 :]
            assert outcome(parser, frames_of(records)) == strict_outcome(records)


# ---- What is read in step -----------------------------------------------------------------------------


@pytest.fixture
def strictly_parsed(monkeypatch):
    """Records that the batch parser leaves to the strict parser."""
    records = []

    def parse(data):
        records.append(bytes(data))
        return strict_parser(data)

    strict_parser = batch_parser.parse_example
    monkeypatch.setattr(batch_parser, "parse_example", parse)
    return records


def detection(chance: random.Random, row: int) -> dict[str, bytes]:
    """Twelve features, six of them lists of varying length."""
    boxes = chance.choice([0, 1, 1, 2, 3, 8])
    return {
        "image/encoded": bytes_list(chance.randbytes(chance.randrange(20_000))),
        "image/filename": bytes_list(b"%d.jpg" % row),
        "image/format": bytes_list(b"jpeg"),
        "image/height": int64_list(chance.randrange(1000)),
        "image/width": int64_list(chance.randrange(1000)),
        "image/source_id": bytes_list(b"" if row % 3 else b"%d" % row),
        **{
            f"image/object/bbox/{side}": float_list(*(chance.random() for _ in range(boxes)))
            for side in ("xmin", "xmax", "ymin", "ymax")
        },
        "image/object/class/label": int64_list(*(chance.randrange(-1, 200) for _ in range(boxes))),
        "image/object/class/text": bytes_list(*(chance.choice([b"cat", b"person"]) for _ in range(boxes))),
    }


def in_any_order(chance: random.Random, features: dict[str, bytes]) -> bytes:
    names = list(features)
    chance.shuffle(names)
    return example({name: features[name] for name in names})


def test_no_sound_record_of_a_batch_is_left_to_the_strict_parser(strictly_parsed):
    """Neither the order of the features, nor lists of varying length, nor absent features make a record doubtful."""
    chance = random.Random(3)
    records = []
    for row in range(300):
        features = detection(chance, row)
        features["null"] = b""
        features["n" * 120] = int64_list(2**40, -(2**40), 0)
        features["long"] = float_list(*range(row % 9 * 30))
        if row % 3:
            del features["image/height"]
        records.append(in_any_order(chance, features))
    records[7], records[123] = b"", b"\x0a\x00"
    found = outcome(BatchParser(), frames_of(records))
    assert not strictly_parsed
    assert found == strict_outcome(records)


def test_more_records_than_are_walked_at_once(strictly_parsed):
    """Tiny records are many in a chunk; each of them has its own values, and so have those that are parsed strictly."""
    chance = random.Random(6)
    records = []
    for row in range(2 * batch_parser._MAX_RECORDS + 20):
        features = {
            "row": int64_list(row, packed=row % 700 != 5),
            "name": bytes_list(*[b"%d" % row] * (row % 3)),
        }
        if row % 5 == 0:
            features["f"] = float_list(row)
        if row > batch_parser._MAX_RECORDS:
            features["late"] = int64_list(-row)
        records.append(in_any_order(chance, features))
    found = outcome(BatchParser(), frames_of(records))
    assert len(strictly_parsed) == 3
    assert found == strict_outcome(records)
    records[batch_parser._MAX_RECORDS] += b"x"
    records[-1] = records[5] = example({"f": int64_list(1)})
    assert outcome(BatchParser(), frames_of(records)) == strict_outcome(records)
    records[5] = records[6]
    assert outcome(BatchParser(), frames_of(records)) == strict_outcome(records)


def test_many_names():
    chance = random.Random(7)
    records = []
    for row in range(900):
        names = [f"feature/{number}" for number in range(80) if chance.random() < 0.9]
        records.append(in_any_order(chance, {name: int64_list(row, len(name)) for name in names}))
    assert outcome(BatchParser(), frames_of(records)) == strict_outcome(records)


@pytest.mark.parametrize(
    "last", [int64_list(1), b"", bytes_list(b""), bytes_list(b"a", b"b"), float_list(1), b"\x0a", b"\x80"]
)
@pytest.mark.parametrize("rest", [b"\x0a", b"\x00", b"\x80", b"\xff"])
def test_what_follows_the_last_record_is_not_read_as_its_own(limits, last, rest):
    records = [example({"a": int64_list(5)})] * 12
    for data in (example({"a": int64_list(5), "last": last}), field(1, entry("a", last) + b"\x0a\x00")):
        for length in range(24):
            frames = frames_of([*records, data], b"", b"", 0)
            frames = replace(frames, buffer=frames.buffer + rest * length)
            assert outcome(BatchParser(), frames) == strict_outcome([*records, data])


@pytest.mark.parametrize("swapped", [(0, 1), (0, 299), (298, 299), (150, 151)])
def test_each_record_has_its_own_values(swapped):
    """Two records that change places change places in all features."""
    chance = random.Random(4)
    records = [in_any_order(chance, detection(chance, row)) for row in range(300)]
    before = outcome(BatchParser(), frames_of(records))
    assert before.error is None
    one, other = swapped
    records[one], records[other] = records[other], records[one]
    before.records[one], before.records[other] = before.records[other], before.records[one]
    assert outcome(BatchParser(), frames_of(records)).records == before.records


def test_short_values_are_found_at_one_look(monkeypatch):
    """Up to those whose lengths take a second byte; of those before, none goes down level by level."""
    records = [
        example(
            {
                "bytes": bytes_list(b"x" * (row % 124)),
                "floats": float_list(*range(row % 31)),
                "integers": int64_list(*[row % 2] * (row % 124)),
            }
        )
        for row in range(124)
    ]
    parser = BatchParser()
    expected = strict_outcome(records)
    assert outcome(parser, frames_of(records)) == expected
    monkeypatch.delattr(entry_walk, "_descend")
    assert outcome(parser, frames_of(records)) == expected
    for longer in (
        bytes_list(b"x" * 124),
        bytes_list(b"x", b"y"),
        float_list(*range(31)),
        field(INTEGERS, b""),
        b"",
    ):
        with pytest.raises(NameError):
            parser.parse(frames_of([*records, example({"bytes": longer})]))


def test_records_up_to_two_mebibytes_are_read_in_step(strictly_parsed):
    size = entry_walk._MAX_RECORD_BYTES
    for name_size, strict in ((1, 0), (2, 8)):
        empty = example({"n" * name_size: bytes_list(b"x" * (1 << 20))})
        data = example({"n" * name_size: bytes_list(b"x" * (size + name_size - 1 - len(empty) + (1 << 20)))})
        assert len(data) == size + name_size - 1
        parsed = BatchParser().parse(frames_of([data] * 8))
        assert parsed["n" * name_size].counts.tolist() == [1] * 8
        assert len(strictly_parsed) == strict


def test_what_is_unusual_is_left_to_the_strict_parser_alone(strictly_parsed):
    chance = random.Random(5)
    records = [in_any_order(chance, detection(chance, row)) for row in range(60)]
    unusual = {
        0: example({"image/height": int64_list(5, packed=False)}),
        17: example({"image/object/bbox/xmin": float_list(1, 2, packed=False)}),
        59: example({"image/encoded": bytes_list(b"x" * (2 << 20))}),
    }
    for row, data in unusual.items():
        records[row] = data
    found = outcome(BatchParser(), frames_of(records))
    assert strictly_parsed == list(unusual.values())
    assert found == strict_outcome(records)


def test_numbers_without_a_run_are_read_in_step(strictly_parsed):
    """Where all records have them so; else, those that have go to the strict parser."""
    chance = random.Random(9)
    records = [
        example(
            {
                "i": int64_list(*[chance.getrandbits(chance.choice([3, 64]))] * (row % 4), packed=False),
                "f": float_list(*[chance.random()] * (row % 3), packed=False),
            }
        )
        for row in range(50)
    ]
    found = outcome(BatchParser(), frames_of(records))
    assert not strictly_parsed
    assert found == strict_outcome(records)


@pytest.mark.parametrize(
    ("kind", "spoiled"),
    [
        (INTEGERS, (b"\x08\x05\x08", b"\x08\x08\x08")),  # as if the second number of one stood in the other
        (INTEGERS, (b"\x08\x85", b"\x08\x05\x08\x06")),
        (INTEGERS, (b"\x08" + b"\xff" * 9 + b"\x02",)),
        (FLOATS, (b"\x0d" + bytes(3), b"\x0d" + bytes(5))),
        (FLOATS, (b"\x0d" + bytes(4) + b"\x0c" + bytes(4),)),
    ],
)
def test_numbers_without_a_run_stay_in_their_records(limits, kind, spoiled):
    sound = int64_list(1, 300, packed=False) if kind == INTEGERS else float_list(1, 2, packed=False)
    records = [example({"a": sound})] * 20
    records[7 : 7 + len(spoiled)] = [example({"a": field(kind, content)}) for content in spoiled]
    assert read(records).error["row"] == 7


def test_few_records_go_to_the_strict_parser(strictly_parsed):
    records = [example({"a": int64_list(row)}) for row in range(batch_parser._MIN_RECORDS - 1)]
    assert outcome(BatchParser(), frames_of(records)) == strict_outcome(records)
    assert strictly_parsed == records


def test_a_long_record_is_not_copied():
    """It costs as much as its features, whatever their bytes; the frames of such a record hold a bytearray."""
    image = bytes(30 << 20)
    data = example({"label": int64_list(1, 2), "image": bytes_list(image), "name": bytes_list(b"a")})
    frames = frames_of([data], rest=0)
    frames = replace(frames, buffer=bytearray(frames.buffer))
    tracemalloc.start()
    try:
        values = BatchParser().parse(frames)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    start, size = int(values["image"].starts[0]), int(values["image"].sizes[0])
    assert (start, size) == (12 + data.index(image[:100]), len(image))
    assert values["label"].integers.tolist() == [1, 2]


def test_long_lists_of_numbers():
    floats = np.random.default_rng(1).random(512 * 512 * 3, np.float32)
    integers = list(range(-1000, 100_000, 7))
    for count in (1, 9):
        records = [example({"f": field(2, field(1, floats.tobytes())), "i": int64_list(*integers)})] * count
        values = BatchParser().parse(frames_of(records))
        assert values["f"].floats.tobytes() == floats.tobytes() * count
        assert values["i"].integers.tolist() == integers * count
        assert values["f"].counts.tolist() == [len(floats)] * count


def test_no_records():
    assert BatchParser().parse(Frames(b"", np.zeros(0, np.int64), np.zeros(0, np.int64), 0, 0)) == {}
    for count in (1, 20):
        assert BatchParser().parse(frames_of([b""] * count)) == {}
        assert BatchParser().parse(frames_of([b"\x0a\x00"] * count)) == {}


# ---- Nulls, kinds, errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10])
def test_null_absent_and_empty(count):
    records = [
        example({"a": int64_list(1), "b": b""}),
        example({"a": field(INTEGERS, b""), "b": b""}),
        example({"a": b""}),
        example({"b": b""}),
        b"",
    ] * count
    values = BatchParser().parse(frames_of(records))
    assert values["a"].counts.tolist() == [1, 0, -1, -1, -1] * count
    assert values["a"].integers.tolist() == [1] * count
    assert values["b"].kind is None
    assert values["b"].counts.tolist() == [-1] * 5 * count


@pytest.mark.parametrize("rows", [(0, 1), (0, 99), (3, 50), (98, 99)])
def test_a_feature_of_two_kinds(rows):
    first, second = rows
    records = [example({"x": int64_list(1)})] * 100
    records[first] = example({"x": int64_list(1), "a": float_list(1)})
    for row in range(second, 100):
        records[row] = example({"x": int64_list(1), "a": bytes_list(b"b")})
    with pytest.raises(
        KindError, match="'a' is of kind bytes_list; in an earlier record it is of kind float_list"
    ) as caught:
        BatchParser().parse(frames_of(records))
    error = caught.value
    assert (error.row, error.name, error.kind) == (second, "a", "bytes_list")
    assert (error.first_row, error.first_kind) == (first, "float_list")
    assert records[second][error.position :] == entry("a", bytes_list(b"b"))
    # Damage in an earlier record is told first.
    records[second - 1] = records[second - 1][:-1]
    with pytest.raises(RecordError) as caught:
        BatchParser().parse(frames_of(records))
    assert not isinstance(caught.value, KindError)
    assert caught.value.row == second - 1


def test_null_is_of_no_kind():
    records = [example({"a": b""}), example({"a": int64_list(1)}), example({"a": b""})] * 9
    assert BatchParser().parse(frames_of(records))["a"].kind == "int64_list"


@pytest.mark.parametrize("per_record", [5, 300])
def test_more_features_than_are_read(per_record):
    """Over all records of the frames; each has features of its own."""
    records = []
    for row in range(1000 // per_record + 20):
        names = [f"{row}/{number}" for number in range(per_record)]
        records.append(example({name: int64_list(row) for name in names}))
    with pytest.raises(RecordError, match="more than 1000 features") as caught:
        BatchParser().parse(frames_of(records))
    row = 1000 // per_record
    assert caught.value.row == row
    assert records[row][caught.value.position :].startswith(
        entry(f"{row}/{1000 % per_record}", int64_list(row))
    )
    fewer = records[:row]
    assert outcome(BatchParser(), frames_of(fewer)) == strict_outcome(fewer)


def test_frames_with_other_features_than_the_frames_before(strictly_parsed):
    parser = BatchParser()
    for batch in range(3):
        records = [
            example({f"{batch}/{row}/{number}": int64_list(row, batch) for number in range(10)})
            for row in range(12)
        ]
        assert outcome(parser, frames_of(records)) == strict_outcome(records)
    assert not strictly_parsed


def test_names_with_the_same_hash():
    """They are told apart by the strict parser."""
    factor, mask = int(entry_walk._HASH_FACTOR), 2**64 - 1

    def hash_of_first(word: bytes) -> int:
        return (16 * factor ^ int.from_bytes(word, "little")) * factor & mask

    one = b"first___second__"
    chance = random.Random(1)
    while True:
        word = bytes(chance.choices(range(97, 123), k=8))
        last = hash_of_first(one[:8]) ^ hash_of_first(word) ^ int.from_bytes(one[8:], "little")
        other = word + last.to_bytes(8, "little")
        if max(other) < 0x80:
            break
    assert one != other
    records = [
        field(1, entry(one, int64_list(row)) + entry(other, bytes_list(b"%d" % row))) for row in range(20)
    ]
    read(records)
    names = np.frombuffer(one + other + bytes(16), np.uint8)
    words = np.ndarray(len(names) - 7, np.int64, names, strides=1)
    rows = np.array([0, 0, 1, 1])
    _, edges = entry_walk._by_name(words, np.array([0, 16, 0, 16]), np.full(4, 16), rows)
    assert edges == [0, 1, 2, 3, 4]  # else, [0, 2, 4]


def test_lengths_of_every_width(limits):
    """Where a length takes a byte more, and where it does not, in each of the lengths around a value."""
    sizes = [*range(100, 140), *range(16_350, 16_400)]
    records = [
        example({"image": bytes_list(b"x" * size), "label": int64_list(row)})
        for row, size in enumerate(sizes)
    ]
    records += [
        example({"image": bytes_list(*[b"x" * (size // 3)] * 3), "label": int64_list(7)}) for size in sizes
    ]
    records += [example({"floats": float_list(*[1] * (size // 4)), "label": int64_list(7)}) for size in sizes]
    assert read(records).error is None


@pytest.mark.parametrize("size", [2, 3, 5, 6])
def test_lengths_that_are_longer_than_they_need_be(limits, protobuf, size):
    """In each place, a padded length is read as protobuf reads it: up to five bytes."""
    sound = example({"a": int64_list(1, 2)})
    value = b"\x01\x02"
    for depth in range(6):
        levels = [b"\x0a", b"\x0a", None, b"\x12", b"\x1a", b"\x0a"]
        data = value
        for level in reversed(range(6)):
            length = varint(len(data))
            if level == 2:
                key = padded(varint(1), size) if level == depth else varint(1)
                data = b"\x0a" + key + b"a" + data
            else:
                data = levels[level] + (padded(length, size) if level == depth else length) + data
        records = [sound] * 10
        records[7] = data
        assert (read_with_protobuf(protobuf, data) is None) == (size > 5)
        found = read(records)
        if size > 5:
            assert found.error["row"] == 7
        else:
            assert found.records[7] == {"a": ("int64_list", [1, 2])}


def test_damage_in_values_is_told_before_two_kinds(limits):
    """Values of a feature of two kinds are of no use, and are checked all the same."""
    for spoiled in (
        field(1, field(1, b"a") + b"\x0b\x0c"),  # another byte string was expected
        field(3, field(1, b"\x80")),
        field(2, field(1, b"abc")),
    ):
        for other in (bytes_list(b"a", b"b"), int64_list(1), float_list(1)):
            records = [example({"a": bytes_list(b"a", b"b")})] * 30
            records[8] = example({"a": spoiled})
            records[23] = example({"a": other})
            records[24] = example({"a": int64_list(2)})
            assert read(records).error["row"] == 8


@pytest.mark.parametrize("row", [0, 13, 29])
def test_an_unfounded_doubt_about_values_changes_nothing(monkeypatch, strictly_parsed, row):
    """The strict parser has the last word on a record, however late it becomes doubtful."""
    chance = random.Random(8)
    records = [
        in_any_order(chance, detection(chance, number) | {"a": int64_list(number)}) for number in range(30)
    ]
    encoded = bytes(range(30))

    def decode(data):
        values, faults = decode_varints(data)
        # As if the byte that is the record's value of "a" were a fault, and NumPy had found no other.
        return (values[:-1], np.array([row])) if data.tobytes() == encoded else (values, faults)

    monkeypatch.setattr(batch_parser, "decode_varints", decode)
    found = outcome(BatchParser(), frames_of(records))
    assert strictly_parsed == [records[row]]
    assert found == strict_outcome(records)
