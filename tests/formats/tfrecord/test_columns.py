"""Values of features as columns: what is there, what is not, and which record is named where one does not fit."""

import io
import struct

import pyarrow as pa
import pytest
from helpers.examples import BYTES, FLOATS, encode_features, field, framed
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.dataset.schema import Column, Schema, parse_type
from converters.formats.tfrecord.columns import ColumnReader
from converters.formats.tfrecord.fast_parser import RecordError
from converters.formats.tfrecord.framing import CHUNK_BYTES, read_frames

ABSENT = object()
"""The feature does not stand in the record; None: it stands there without a kind."""


def frames_of(examples: list[bytes]):
    return [*read_frames(io.BytesIO(b"".join(map(framed, examples))), "file")]


def examples_of(name: str, values: list) -> list[bytes]:
    return [encode_features({} if value is ABSENT else {name: value}) for value in values]


def read(column: Column, values: list, **more) -> pa.Array:
    """The column of some records that have this feature, and one that every record has."""
    schema = Schema((Column("always", pa.int64(), feature="always"), column))
    examples = [
        encode_features({"always": [row]} | ({} if value is ABSENT else {column.feature: value}))
        for row, value in enumerate(values)
    ]
    batches = [ColumnReader(schema, **more).read(frames) for frames in frames_of(examples)]
    table = pa.Table.from_batches(batches)
    table.validate(full=True)
    assert table.schema.equals(schema.arrow)
    assert table.column("always").to_pylist() == list(range(len(values)))
    return table.column(column.name).combine_chunks()


def column(type_text: str, *, nullable: bool = False) -> Column:
    return Column("c", parse_type(type_text), feature="f", nullable=nullable)


def refused(message: str, row: int, type_text: str, values: list, **more) -> None:
    with pytest.raises(RecordError, match=message) as caught:
        read(column(type_text, **more), values)
    assert caught.value.row == row
    assert "does not fit the description" in caught.value.message
    assert "--without" in caught.value.message  # what can be done


BYTE_VALUES = [b"", b"a", b"x" * 300, b"\xff\xd8", b"\0"]


@pytest.mark.parametrize("rows", [1, 7, 200])
@pytest.mark.parametrize(
    ("type_text", "values", "expected"),
    [
        ("binary", BYTE_VALUES, BYTE_VALUES),
        ("string", ["감정".encode(), b"", b"\n"], ["감정", "", "\n"]),
        ("int64", [[2**63 - 1], [-(2**63)], [0]], [2**63 - 1, -(2**63), 0]),
        ("float32", [[1.5], [-0.0], [float("inf")]], [1.5, -0.0, float("inf")]),
        ("binary[2]", [[b"", b"a"], [b"bc", b"d" * 99]], [[b"", b"a"], [b"bc", b"d" * 99]]),
        ("int64[3]", [[1, 2, 3], [-1, 300, 2**40]], [[1, 2, 3], [-1, 300, 2**40]]),
        ("float32[2]", [[1.5, 2.5], [0.0, -1.0]], [[1.5, 2.5], [0.0, -1.0]]),
        ("binary[]", [[b"a"], [b"", b"bb", b"c"]], [[b"a"], [b"", b"bb", b"c"]]),
        ("string[]", [["감".encode()], [b"x", b"y"]], [["감"], ["x", "y"]]),
        ("int64[]", [[1], [], [1, 2, 3]], [[1], [], [1, 2, 3]]),
        ("float32[]", [[1.5], [2.5, 3.5]], [[1.5], [2.5, 3.5]]),
        ("uint8", [[0], [255]], [0, 255]),
        ("int8[2]", [[-128, 127], [0, 1]], [[-128, 127], [0, 1]]),
        ("int32[]", [[2**31 - 1], [-(2**31), 5]], [[2**31 - 1], [-(2**31), 5]]),
        ("uint32", [[2**32 - 1], [0]], [2**32 - 1, 0]),
    ],
)
def test_values_of_every_type(type_text, values, expected, rows):
    many = [values[row % len(values)] for row in range(rows)]
    assert read(column(type_text), many).to_pylist() == [expected[row % len(values)] for row in range(rows)]


@pytest.mark.parametrize("gaps", [{0}, {4}, {1, 3}, {0, 1, 2, 3, 4}])
@pytest.mark.parametrize("gap", [ABSENT, None], ids=["absent", "no kind"])
@pytest.mark.parametrize(
    ("type_text", "value"),
    [
        ("binary", lambda row: b"x" * row * 40),
        ("string", lambda row: b"y" * row),
        ("int64", lambda row: [row - 2]),
        ("uint8", lambda row: [row]),
        ("float32", lambda row: [row / 2]),
        ("binary[2]", lambda row: [b"x" * row, b""]),
        ("string[2]", lambda row: [b"x" * row, b"z"]),
        ("int64[3]", lambda row: [row, 0, -row]),
        ("float32[1]", lambda row: [row / 4]),
        ("int64[]", lambda row: [row] * row),
        ("binary[]", lambda row: [b"x" * row] * (row or 1)),
        ("string[]", lambda row: [b"x"] * (row or 1)),
    ],
)
def test_a_gap_is_null_and_moves_no_other_value(type_text, value, gap, gaps):
    plain = [value(row) for row in range(5)]
    found = read(column(type_text, nullable=True), [gap if row in gaps else plain[row] for row in range(5)])
    expected = read(column(type_text), plain).to_pylist()
    assert found.to_pylist() == [None if row in gaps else expected[row] for row in range(5)]


def test_an_empty_list_is_not_null():
    assert read(column("int64[]", nullable=True), [[], ABSENT, [1], None]).to_pylist() == [
        [],
        None,
        [1],
        None,
    ]


def test_a_feature_that_no_record_has_is_null_everywhere():
    for type_text in ("binary", "int64[]", "float32[4]"):
        assert read(column(type_text, nullable=True), [ABSENT, None]).to_pylist() == [None, None]


def test_a_joined_column_is_null_until_it_is_joined():
    schema = Schema((Column("a", pa.int64(), feature="a"),)).joined({"img_id": "A name."})
    (frames,) = frames_of(examples_of("a", [[1]]))
    assert ColumnReader(schema).read(frames).to_pydict() == {"a": [1], "img_id": [None]}


@pytest.mark.parametrize("gap", [ABSENT, None])
def test_what_must_be_there_and_is_not(gap):
    for type_text, value in (("binary", b"x"), ("int64[2]", [1, 2]), ("int64[]", [])):
        refused("the feature 'f' is missing", 2, type_text, [value, value, gap, gap])
        refused("the feature 'f' is missing", 0, type_text, [gap])


@pytest.mark.parametrize(
    ("type_text", "sound", "wrong", "message"),
    [
        ("int64", [1], [], "has 0 values, expected 1"),
        ("int64", [1], [1, 2], "has 2 values, expected 1"),
        ("binary", b"x", [b"x", b"y"], "has 2 values, expected 1"),
        ("int64[3]", [1, 2, 3], [1, 2], "has 2 values, expected 3"),
        ("float32[2]", [0.5, 1.5], [0.5], "has 1 values, expected 2"),
        ("binary[1]", [b"x"], [b"x", b"x"], "has 2 values, expected 1"),
    ],
)
def test_another_number_of_values(type_text, sound, wrong, message):
    for nullable in (False, True):
        refused(message, 3, type_text, [sound, sound, sound, wrong, sound, wrong], nullable=nullable)


@pytest.mark.parametrize(
    ("type_text", "wrong", "message"),
    [
        ("int64", [1.5], "is of kind float_list, expected int64_list"),
        ("int64[]", b"x", "is of kind bytes_list, expected int64_list"),
        ("float32", [1], "is of kind int64_list, expected float_list"),
        ("string", [1], "is of kind int64_list, expected bytes_list"),
        ("binary[2]", [1.5, 2.5], "is of kind float_list, expected bytes_list"),
    ],
)
def test_another_kind_of_list(type_text, wrong, message):
    refused(message, 0, type_text, [wrong, wrong])
    refused(message, 1, type_text, [ABSENT, wrong], nullable=True)


@pytest.mark.parametrize(
    ("type_text", "wrong"),
    [("uint8", 256), ("uint8", -1), ("int8", 128), ("int8", -129), ("int16", 2**15), ("uint16", 2**16),
     ("int32", 2**31), ("int32", -(2**31) - 1), ("uint32", 2**32), ("uint32", -1), ("uint8", 2**63 - 1),
     ("int32", -(2**63))],
)  # fmt: skip
def test_an_integer_too_large_for_a_narrow_column_names_its_record(type_text, wrong):
    message = f"the feature 'f' has the value {wrong}, which is no {type_text}"
    refused(message, 2, type_text, [[1], [2], [wrong], [wrong]])
    refused(message, 3, f"{type_text}[2]", [[1, 2], [3, 4], [5, 6], [7, wrong]])
    # Of lists of any length, and with gaps, the record is still the right one.
    refused(message, 4, f"{type_text}[]", [[], [1, 2, 3], [4], [], [5, wrong], [6]])
    refused(message, 3, type_text, [ABSENT, [1], None, [wrong]], nullable=True)
    refused(message, 4, f"{type_text}[]", [ABSENT, [1, 1], [], None, [wrong]], nullable=True)


@pytest.mark.parametrize("wrong", [b"\xff", b"a\x80", b"\xed\xa0\x80", b"\xc3", "x".encode("utf-16")])
def test_a_text_that_is_not_utf_8_names_its_record(wrong):
    message = "the feature 'f' has a value that is no UTF-8 text"
    refused(message, 2, "string", [b"a", "감".encode(), wrong, b"b"])
    refused(message, 1, "string[2]", [[b"a", b"b"], [b"c", wrong]])
    refused(message, 3, "string[]", [[b""], [b"a", b"b"], [b"", b"", b""], [wrong], [b"c"]])
    refused(message, 2, "string[]", [ABSENT, [b"a", b"b"], [b"c", wrong]], nullable=True)
    assert read(column("binary"), [wrong]).to_pylist() == [wrong]


def test_a_character_cut_between_two_values_is_no_text():
    """Joined they would be one."""
    whole = "감".encode()
    refused("no UTF-8 text", 0, "string", [whole[:1], whole[1:]])


def test_of_several_faults_the_first_record_s_is_told():
    schema = Schema((Column("a", pa.int64(), feature="a"), Column("b", pa.string(), feature="b")))
    good = {"a": [1], "b": b"x"}
    for later, first in (
        ({"a": [1, 2]}, {"b": b"\xff"}),
        ({"b": b"\xff"}, {"a": [1, 2]}),
        ({"more": [1]}, {"a": b"x"}),
    ):
        records = [good, good, good | first, good | later]
        (frames,) = frames_of([encode_features(record) for record in records])
        with pytest.raises(RecordError) as caught:
            ColumnReader(schema).read(frames)
        assert caught.value.row == 2


def test_a_feature_that_is_not_described_is_never_lost():
    schema = Schema((Column("a", pa.int64(), feature="a"),))
    records = [{"a": [1]}, {"a": [2], "more": None}, {"a": [3], "more": b"x"}]
    (frames,) = frames_of([encode_features(record) for record in records])
    with pytest.raises(
        RecordError,
        match=r"'more' is not in the .* description and would be lost\. Add it to the columns of a dataset\.json",
    ) as caught:
        ColumnReader(schema).read(frames)
    assert caught.value.row == 2
    assert ColumnReader(schema, ["more"]).read(frames).to_pydict() == {"a": [1, 2, 3]}
    (sound,) = frames_of([encode_features(record) for record in records[:2]])
    assert ColumnReader(schema).read(sound).to_pydict() == {"a": [1, 2]}  # nothing in it to lose


def test_values_longer_than_a_chunk_stay_where_they_are():
    values = [b"a" * 10, b"b" * (CHUNK_BYTES + 1), b"", b"c" * (2 * CHUNK_BYTES), b"d"]
    assert read(column("binary"), values).to_pylist() == values
    assert read(column("binary", nullable=True), [values[1], ABSENT, values[3]]).to_pylist() == [
        values[1],
        None,
        values[3],
    ]
    assert read(column("binary[]"), [[values[1], b"x"], [values[3]]]).to_pylist() == [
        [values[1], b"x"],
        [values[3]],
    ]


@pytest.mark.parametrize("packed", [True, False])
def test_floats_survive_bit_for_bit(packed):
    bits = [0x7FC00001, 0xFFA00000, 0x7F800000, 0x80000000, 1, 0x7F800001]
    run = struct.pack(f"<{len(bits)}I", *bits)
    values = field(1, run) if packed else b"".join(b"\x0d" + run[at : at + 4] for at in range(0, len(run), 4))
    example = field(1, field(1, field(1, b"f") + field(2, field(FLOATS, values))))
    (frames,) = frames_of([example] * 3)
    for kind in ("float32[]", "float32[6]"):
        array = ColumnReader(Schema((column(kind),))).read(frames).column(0)
        found = array.flatten().view(pa.uint32()).to_pylist()
        assert found == bits * 3


def test_an_example_without_features_and_one_of_empty_texts():
    schema = Schema((Column("f", pa.binary(), feature="f", nullable=True),))
    empty = field(1, field(1, field(1, b"f") + field(2, field(BYTES, field(1, b"")))))
    (frames,) = frames_of([b"", empty, b"\x0a\x00"])
    assert ColumnReader(schema).read(frames).column(0).to_pylist() == [None, b"", None]


NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 200)
KINDS = {
    "int64": (NUMBERS, lambda value: value),
    "binary": (st.binary(max_size=9) | st.binary(min_size=64, max_size=90), lambda value: value),
    "string": (st.text(max_size=4).map(str.encode), bytes.decode),
    "float32": (st.floats(width=32, allow_nan=False), lambda value: value),
}


@settings(max_examples=200)
@given(st.data())
def test_any_values_of_any_features(data):
    """Several features in any order, with gaps, against what was written."""
    columns, rows = [], data.draw(st.integers(1, 12))
    records: list[dict] = [{} for _ in range(rows)]
    expected: list[dict] = [{} for _ in range(rows)]
    for number in range(data.draw(st.integers(1, 5))):
        base = data.draw(st.sampled_from([*KINDS]))
        size = data.draw(st.sampled_from([1, None, 2]))
        single, shown = KINDS[base]
        suffix = "" if size == 1 else "[]" if size is None else f"[{size}]"
        nullable = data.draw(st.booleans())
        name = f"feature {number}"
        columns.append(Column(f"c{number}", parse_type(base + suffix), feature=name, nullable=nullable))
        for row in range(rows):
            value = data.draw(st.lists(single, min_size=size or 0, max_size=size or 4))
            gap = data.draw(st.sampled_from([None, ABSENT, ""])) if nullable else ""
            # A list without values is written as one of integers: it would be of another kind.
            if gap == "" and not value and base != "int64":
                value = [data.draw(single)]
            expected[row][f"c{number}"] = (
                None if gap != "" else shown(value[0]) if size == 1 else [shown(one) for one in value]
            )
            if gap is not ABSENT:
                records[row][name] = None if gap is None else value
    shuffled = [dict(data.draw(st.permutations([*record.items()]))) for record in records]
    reader = ColumnReader(Schema(tuple(columns)))
    found = []
    for frames in frames_of([encode_features(record) for record in shuffled]):
        batch = reader.read(frames)
        batch.validate(full=True)
        found += batch.to_pylist()
    assert found == expected
