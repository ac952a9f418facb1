"""Arrow arrays and NumPy arrays: slices, nulls and offsets, against what pyarrow says of the same."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.dataset.arrays import (
    binary_array,
    binary_parts,
    binary_views,
    conform,
    list_array,
    list_parts,
    number_array,
    numbers,
    offsets_of,
    packed_array,
    string_array,
    valid_rows,
    vector_matrix,
    with_nulls,
)
from converters.dataset.schema import Column, Schema, parse_type

texts = st.lists(st.none() | st.binary(max_size=5), max_size=40)


@st.composite
def sliced(draw, kinds) -> pa.Array:
    """Any array of one of these types, and any slice of it."""
    name, values = draw(st.sampled_from(kinds))
    rows = draw(st.lists(st.none() | values, max_size=30))
    array = pa.array(rows, parse_type(name))
    start = draw(st.integers(0, len(array)))
    return array.slice(start, draw(st.integers(0, len(array) - start)))


INTEGERS = st.integers(-(2**63), 2**63 - 1)
SCALARS = [
    ("int64", INTEGERS),
    ("float32", st.floats(width=32, allow_nan=False)),
    ("uint8", st.integers(0, 255)),
]
TEXTS = [("binary", st.binary(max_size=5)), ("string", st.text(max_size=5))]
LISTS = [
    ("int64[]", st.lists(INTEGERS, max_size=4)),
    ("string[]", st.lists(st.text(max_size=3), max_size=3)),
    ("binary[2]", st.lists(st.binary(max_size=3), min_size=2, max_size=2)),
    ("float32[3]", st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3)),
]


@given(sliced(SCALARS + TEXTS + LISTS))
def test_valid_rows(array):
    assert valid_rows(array).tolist() == [value is not None for value in array.to_pylist()]


@given(sliced(SCALARS))
def test_numbers(array):
    found, valid = numbers(array), valid_rows(array)
    assert len(found) == len(array)
    assert found[valid].tolist() == [value for value in array.to_pylist() if value is not None]


@given(sliced(TEXTS))
def test_views_and_parts_of_texts(array):
    plain = [
        b"" if value is None else value.encode() if isinstance(value, str) else value
        for value in array.to_pylist()
    ]
    assert [bytes(view) for view in binary_views(array)] == plain
    edges, data = binary_parts(array)
    assert len(edges) == len(array) + 1
    assert data[edges[0] : edges[-1]].tobytes() == b"".join(plain)


@given(sliced(LISTS))
def test_counts_and_values_of_lists(array):
    counts, values = list_parts(array)
    rows = array.to_pylist()
    assert counts.tolist() == [0 if row is None else len(row) for row in rows]
    assert values.to_pylist() == [value for row in rows if row is not None for value in row]


def test_a_null_list_that_has_values_is_refused():
    """Arrow allows it; the values would be counted and yet not be there."""
    array = pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), pa.array([1, 2, 3]))
    hidden = pa.Array.from_buffers(
        array.type, 2, [pa.py_buffer(b"\x02"), array.buffers()[1]], children=[array.values]
    )
    assert hidden.to_pylist() == [None, [3]]
    with pytest.raises(ValueError, match="null has values"):
        list_parts(hidden)


@given(texts)
def test_binary_arrays(values):
    array = binary_array([None if value is None else memoryview(value) for value in values])
    array.validate(full=True)
    assert array.equals(pa.array(values, pa.binary()))


@given(st.lists(st.text(max_size=5), max_size=20))
def test_string_arrays(values):
    array = string_array(values)
    array.validate(full=True)
    assert array.equals(pa.array(values, pa.string()))


@given(sliced(SCALARS + TEXTS + LISTS), st.randoms(use_true_random=False))
def test_with_nulls(array, chance):
    sound = pa.array([value for value in array.to_pylist() if value is not None], array.type)
    valid = np.array([chance.random() < 0.7 for _ in range(len(sound))], np.bool_)
    found = with_nulls(sound, valid)
    found.validate(full=True)
    expected = [value if there else None for value, there in zip(sound.to_pylist(), valid, strict=True)]
    assert found.to_pylist() == expected


@given(st.lists(st.lists(INTEGERS, max_size=4), max_size=10))
def test_lists_of_values_that_follow_each_other(rows):
    flat = number_array(np.array([value for row in rows for value in row], np.int64), pa.int64())
    array = list_array(flat, pa.list_(pa.int64()), np.array([len(row) for row in rows], np.int64))
    array.validate(full=True)
    assert array.to_pylist() == rows


def test_vectors_as_a_matrix_of_a_slice():
    column = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.uint8(), 2))
    assert vector_matrix(column.slice(1)).tolist() == [[3, 4], [5, 6]]


def test_more_bytes_than_a_batch_holds_are_an_error():
    with pytest.raises(OverflowError, match="2147483648 bytes or values are more than one batch holds"):
        offsets_of([2**31 - 1, 1])
    assert offsets_of([2**31 - 1, 0]).tolist() == [0, 2**31 - 1, 2**31 - 1]


def test_packed_values():
    assert packed_array(pa.string(), [1, 0, 2], b"abc").to_pylist() == ["a", "", "bc"]


# --- What a format read back -------------------------------------------------------------------------------

SCHEMA = Schema((Column("a", pa.int64()), Column("b", parse_type("float32[]")), Column("c", pa.binary())))
ROWS = {"a": [1, None], "b": [[1.5], []], "c": [b"x", b""]}


def test_kindred_types_are_cast():
    kindred = pa.schema(
        [pa.field("a", pa.int32(), False), ("b", pa.large_list(pa.float32())), ("c", pa.large_binary())]
    )
    batch = pa.RecordBatch.from_pydict({**ROWS, "a": [1, 2]}, schema=kindred)
    found = conform(batch, SCHEMA)
    assert found.schema.equals(SCHEMA.arrow)
    assert found.to_pydict() == {**ROWS, "a": [1, 2]}
    same = pa.RecordBatch.from_pydict(ROWS, schema=SCHEMA.arrow)
    assert conform(same, SCHEMA) is same


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": [1], "c": [b"x"]}, "the columns are a, c; expected a, b, c"),
        ({"b": [[1.5]], "a": [1], "c": [b"x"]}, "the columns are b, a, c"),
        ({**ROWS, "more": [1, 1]}, "the columns are a, b, c, more"),
        ({**ROWS, "a": [1.0, 2.0]}, "the column a is double; expected int64"),  # 2**53 + 1 would be lost
        ({**ROWS, "a": ["1", "2"]}, "the column a is string; expected int64"),
        ({**ROWS, "a": [True, False]}, "the column a is bool; expected int64"),
        ({**ROWS, "b": [["1"], ["2"]]}, r"the column b is list<.*string>; expected float32\[\]"),
        ({**ROWS, "b": [1.5, 2.5]}, "the column b is double"),
        ({**ROWS, "c": [1, 2]}, "the column c is int64; expected binary"),
    ],
)
def test_columns_that_are_others_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        conform(pa.RecordBatch.from_pydict(rows), SCHEMA)


@pytest.mark.parametrize(
    ("value", "kind", "read"), [(300, "uint8", "int64"), (-1, "uint8", "int8"), (2**63, "int64", "uint64")]
)
def test_a_number_that_the_column_cannot_hold_is_refused(value, kind, read):
    batch = pa.RecordBatch.from_arrays([pa.array([value], getattr(pa, read)())], ["a"])
    with pytest.raises(ValueError, match=r"value .* not in range|out of bounds"):
        conform(batch, Schema((Column("a", parse_type(kind)),)))
