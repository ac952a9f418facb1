"""Leaves against their public definition, which ``helpers.proof`` has as plainly as it can be written."""

import struct
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pytest
from helpers.proof import encoded_value, record_leaf, rfc9162_root
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.dataset import leaves
from converters.dataset.fingerprint import tree_root
from converters.dataset.leaves import record_leaves
from converters.dataset.schema import Column, Schema, parse_type

INTEGERS = {"int8": (-128, 127), "uint8": (0, 255), "int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1),
            "int64": (-(2**63), 2**63 - 1)}  # fmt: skip
# Floats by their bits, NaNs with any payload among them.
BITS = st.integers(0, 2**32 - 1)


def single(base: str) -> st.SearchStrategy:
    if base == "float32":
        return BITS
    if base == "string":
        return st.text(max_size=6)
    if base == "binary":
        return st.binary(max_size=6) | st.binary(min_size=300, max_size=400)
    return st.integers(*INTEGERS[base])


def array_of(rows: list, kind: pa.DataType) -> pa.Array:
    """An array of rows, whose floats are given by their bits."""
    value = kind.value_type if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) else kind
    if not pa.types.is_float32(value):
        return pa.array(rows, kind)
    bits = (
        pa.uint32()
        if value == kind
        else pa.list_(pa.uint32(), *([kind.list_size] if pa.types.is_fixed_size_list(kind) else []))
    )
    whole = pa.array(rows, bits)
    if value == kind:
        return whole.view(pa.float32())
    children = [whole.values.view(pa.float32())]
    return pa.Array.from_buffers(
        kind, len(rows), whole.buffers()[: 2 if pa.types.is_list(kind) else 1], children=children
    )


@st.composite
def tables(draw) -> tuple[Schema, pa.RecordBatch, list[list[bytes]]]:
    """A schema, a slice of a batch of it, and what the definition makes of each value of that slice."""
    rows = draw(st.integers(0, 6))
    start = draw(st.integers(0, rows))
    columns, arrays, encoded = [], [], []
    for number in range(draw(st.integers(1, 4))):
        base = draw(st.sampled_from([*INTEGERS, "float32", "string", "binary"]))
        image = base == "binary" and draw(st.booleans())
        form = "" if image else draw(st.sampled_from(["", "[]", "[1]", "[3]"]))
        sizes = {"[]": (0, 4), "[1]": (1, 1), "[3]": (3, 3)}.get(form)
        value = (
            single(base) if sizes is None else st.lists(single(base), min_size=sizes[0], max_size=sizes[1])
        )
        values = draw(st.lists(st.none() | value, min_size=rows, max_size=rows))
        kind = parse_type(base + form)
        columns.append(Column(f"c{number}", kind, "image" if image else None))
        arrays.append(array_of(values, kind))

        def definition(row, base=base, form=form, image=image):
            if base == "float32" and row is not None:
                bits = row if form else [row]
                return struct.pack("<Q", len(bits)) + struct.pack(f"<{len(bits)}I", *bits)
            return encoded_value(row, is_list=bool(form), image=image)

        encoded.append([definition(row) for row in values[start:]])
    schema = Schema(tuple(columns))
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema.arrow).slice(start)
    return schema, batch, [list(row) for row in zip(*encoded, strict=True)]


@settings(max_examples=300)
@given(tables())
def test_leaves_are_what_the_definition_says(made):
    schema, batch, encoded = made
    expected = [record_leaf(row) for row in encoded]
    assert record_leaves(batch, schema) == expected
    assert tree_root(record_leaves(batch, schema)) == rfc9162_root(expected)


def test_both_ways_of_copying_make_the_same_leaves(monkeypatch):
    """Long values are copied one by one, and short ones all at once."""
    schema = Schema((Column("a", pa.binary()), Column("b", pa.list_(pa.string()))))
    chance = np.random.default_rng(1)
    rows = [chance.bytes(int(size)) for size in chance.integers(0, 900, 30)]
    texts = [["x" * (number % 5)] * (number % 3) for number in range(30)]
    batch = pa.RecordBatch.from_pydict({"a": rows, "b": texts}, schema=schema.arrow)
    found = []
    for limit in (0, 256, 10**6):
        monkeypatch.setattr(leaves, "_LONG", limit)
        found.append(record_leaves(batch, schema))
    assert found[0] == found[1] == found[2]
    assert found[0] == [
        record_leaf([encoded_value(one, is_list=False), encoded_value(other, is_list=True)])
        for one, other in zip(rows, texts, strict=True)
    ]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("int64[]", [[1], [2, 3]], [[1, 2], [3]]),
        ("string[]", [["ab", "c"], []], [["a", "bc"], []]),
        ("binary[]", [[b"", b"x"], []], [[b"x", b""], []]),
        ("int64[]", [[], []], [None, []]),
        ("int64", [0, 1], [None, 1]),
        ("binary", [b"", b""], [None, b""]),
    ],
)
def test_records_that_differ_have_other_leaves(kind, one, other):
    """Where a value ends, and whether there is one, is part of what is hashed."""
    schema = Schema((Column("a", parse_type(kind)),))
    sets = [
        record_leaves(pa.RecordBatch.from_pydict({"a": rows}, schema=schema.arrow), schema)
        for rows in (one, other)
    ]
    assert sets[0][0] != sets[1][0]


def test_a_value_does_not_pass_into_the_next_column():
    schema = Schema((Column("a", pa.string()), Column("b", pa.string())))
    batch = pa.RecordBatch.from_pydict({"a": ["ab", "a"], "b": ["c", "bc"]}, schema=schema.arrow)
    assert len(set(record_leaves(batch, schema))) == 2


def test_integers_of_any_width_and_texts_of_both_types_count_alike():
    """So a description may say narrower, and an output have the narrower column, without another fingerprint."""

    def leaf(kind: str, rows: list) -> list[bytes]:
        schema = Schema((Column("a", parse_type(kind)),))
        return record_leaves(pa.RecordBatch.from_pydict({"a": rows}, schema=schema.arrow), schema)

    assert leaf("uint8", [0, 255]) == leaf("int64", [0, 255]) == leaf("int16", [0, 255])
    assert leaf("string", ["감정"]) == leaf("binary", ["감정".encode()])
    assert leaf("int64[2]", [[1, 2]]) == leaf("int64[]", [[1, 2]])


def test_an_image_counts_by_its_digest_and_a_derived_column_not_at_all():
    image = Column("image", pa.binary(), "image")
    schema = Schema((image, Column("label", pa.int64(), "label", derived=True)))
    batch = pa.RecordBatch.from_pydict({"image": [b"jpeg"]}, schema=schema.arrow)
    one = struct.pack("<Q", 1)
    assert record_leaves(batch, schema) == [sha256(b"\0" + one + sha256(b"jpeg").digest()).digest()]
