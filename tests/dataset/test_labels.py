"""Labels: numbers, vectors and lists as ranks of names, against a reading row by row."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.dataset.labels import UNLABELLED, count_label_sets, derived_label, label_ranks, ranks_of
from converters.dataset.schema import Column, Schema, parse_type, with_derived_label

NAMES = ("a", "b", "c", "d")
IDS = (7, -3, 90, 2)  # in no order


def column(type_text: str, **more) -> Column:
    return Column("stored", parse_type(type_text), "label", "f", NAMES, **more)


def plainly(label: Column, row: object) -> list[int]:
    """The ranks of one record, in the order in which it has them."""
    if row is None:
        return []
    if label.kind is not None:
        return [rank for rank, value in enumerate(row) if value]
    numbers = row if isinstance(row, list) else [row]
    ids = label.label_ids or range(len(NAMES))
    return [list(ids).index(number) for number in numbers if number != UNLABELLED]


@st.composite
def labels(draw) -> tuple[Column, pa.Array]:
    """A label of any form, and a slice of an array of it."""
    ids = draw(st.sampled_from([(), IDS]))
    number = st.sampled_from([*(ids or range(4)), UNLABELLED])
    label, rows = draw(
        st.sampled_from(
            [
                (column("int64", label_ids=ids, nullable=True), number | st.none()),
                (column("int32", label_ids=ids), number),
                (column("int64[]", label_ids=ids), st.lists(number, max_size=4) | st.none()),
                (column("int64[2]", label_ids=ids), st.lists(number, min_size=2, max_size=2) | st.none()),
                (column("uint8[4]", kind="multi-label"), st.lists(st.integers(0, 1), min_size=4, max_size=4)),
                (
                    column("int64[4]", kind="multi-label", nullable=True),
                    st.none() | st.lists(st.integers(0, 1), min_size=4, max_size=4),
                ),
            ]
        )
    )
    array = pa.array(draw(st.lists(rows, max_size=12)), label.type)
    start = draw(st.integers(0, len(array)))
    return label, array.slice(start)


@given(labels())
def test_ranks(made):
    label, array = made
    rows, ranks = label_ranks(label, array)
    found = [[] for _ in range(len(array))]
    for row, rank in zip(rows.tolist(), ranks.tolist(), strict=True):
        found[row].append(rank)
    assert rows.tolist() == sorted(rows.tolist())
    assert found == [plainly(label, row) for row in array.to_pylist()]


@given(labels())
def test_label_sets(made):
    label, array = made
    sets = (sorted(set(plainly(label, row))) for row in array.to_pylist())
    assert count_label_sets(label, array) == Counter(",".join(map(str, ranks)) for ranks in sets)


@pytest.mark.parametrize("ids", [(), IDS])
def test_a_number_without_a_name(ids):
    label = column("int64", label_ids=ids)
    for wrong in (4, -1, 5, 91, -(2**63), 2**63 - 1):
        values = np.array([(ids or (0,))[0], wrong], np.int64)
        with pytest.raises(ValueError, match=f"the label {wrong} has no name"):
            ranks_of(label, values)
    for wrong in (4, 91, -2):
        with pytest.raises(ValueError, match=f"the label {wrong} has no name"):
            label_ranks(label, pa.array([wrong]))


def batch_of(label: Column, rows: list) -> tuple[Schema, pa.RecordBatch]:
    schema = with_derived_label((label,))
    return schema, pa.RecordBatch.from_pydict({"stored": rows}, schema=schema.arrow)


@pytest.mark.parametrize(
    ("label", "rows", "derived"),
    [
        (column("int64", label_ids=IDS), [2, 7, -3], [3, 0, 1]),
        (column("int64", label_ids=IDS, nullable=True), [90, -1, None], [2, None, None]),
        (column("int64[]", label_ids=IDS), [[2, 7], [], [7, 7]], [[3, 0], [], [0, 0]]),
        (column("uint8[4]", kind="single-label"), [[0, 0, 1, 0], [1, 0, 0, 0]], [2, 0]),
        (column("uint8[4]", kind="single-label", unlabelled=True), [[0, 0, 0, 1], [0] * 4], [3, None]),
        (column("uint8[4]", kind="multi-label"), [[0, 1, 1, 0], [1, 0, 0, 0]], [[1, 2], [0]]),
        (
            column("uint8[4]", kind="multi-label", unlabelled=True),
            [[0] * 4, [1, 1, 1, 1]],
            [[], [0, 1, 2, 3]],
        ),
    ],
)
def test_the_derived_label(label, rows, derived):
    schema, batch = batch_of(label, rows)
    found = derived_label(schema, batch)
    found.validate(full=True)
    assert found.type == schema.derived.type
    assert found.to_pylist() == derived
    assert derived_label(schema, batch.slice(1)).to_pylist() == derived[1:]


@pytest.mark.parametrize(
    ("label", "row"),
    [
        (column("uint8[4]", kind="single-label"), [0, 0, 0, 0]),
        (column("uint8[4]", kind="single-label"), [1, 0, 1, 0]),
        (column("uint8[4]", kind="single-label", unlabelled=True), [1, 0, 1, 0]),
        (column("int64", label_ids=IDS), -1),
    ],
)
def test_a_record_that_has_not_one_label_cannot_have_a_number(label, row):
    schema, batch = batch_of(label, [row])
    with pytest.raises(ValueError, match="exactly one label"):
        derived_label(schema, batch)
