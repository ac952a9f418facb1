"""The labels of records as numbers of their names: what the counts and the derived column ``label`` follow from."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import (
    list_array,
    list_parts,
    number_array,
    numbers,
    valid_rows,
    vector_matrix,
    with_nulls,
)
from converters.dataset.schema import Column, Schema

UNLABELLED = -1
"""What TensorFlow Datasets stores where a label is not known."""

_SET_BITS = 64


def label_ranks(column: Column, array: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The labels of each record, as (row, rank of the name) in order of the rows.

    Args:
        column: the stored label, whose names are known.
        array: its values.

    Raises:
        ValueError: a number has no name.
    """
    if column.kind is not None:
        valid = valid_rows(array)
        if valid.all():
            rows, ranks = np.nonzero(vector_matrix(array))
            return rows, ranks
        _, values = list_parts(array)
        rows, ranks = np.nonzero(numbers(values).reshape(-1, len(column.label_names)))
        return np.flatnonzero(valid)[rows], ranks
    if column.is_list:
        counts, values = list_parts(array)
        rows, found = np.repeat(np.arange(len(array)), counts), numbers(values)
    else:
        rows = np.flatnonzero(valid_rows(array))
        found = numbers(array)[rows]
    labelled = found != UNLABELLED
    return rows[labelled], ranks_of(column, found[labelled].astype(np.int64))


def ranks_of(column: Column, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The ranks of label numbers.

    Raises:
        ValueError: a number has no name.
    """
    if not column.label_ids:
        wrong = (values < 0) | (values >= len(column.label_names))
        ranks = values
    else:
        ids = np.array(column.label_ids, np.int64)
        order = np.argsort(ids)
        places = np.minimum(np.searchsorted(ids, values, sorter=order), len(ids) - 1)
        ranks = order[places]
        wrong = ids[ranks] != values
    if wrong.any():
        raise ValueError(f"the label {int(values[np.argmax(wrong)])} has no name")
    return ranks


def derived_label(schema: Schema, batch: pa.RecordBatch) -> pa.Array:
    """The derived column of a batch; null where a record that may have no label has none."""
    derived, label = schema.derived, schema.label
    assert derived is not None
    assert label is not None
    rows, ranks = label_ranks(label, batch.column(label.name))
    counts = np.bincount(rows, minlength=len(batch))
    if derived.is_list:
        return list_array(number_array(ranks, pa.int64()), derived.type, counts)
    if (counts > 1).any() or (not derived.nullable and not counts.all()):
        raise ValueError("a single-label split needs exactly one label per record")
    values = np.zeros(len(batch), np.int64)
    values[rows] = ranks
    return with_nulls(number_array(values, pa.int64()), counts.astype(np.bool_))


@lru_cache(1 << 16)
def _set_of_bits(number: int) -> str:
    return ",".join(str(rank) for rank in range(_SET_BITS) if number >> rank & 1)


def count_label_sets(column: Column, array: pa.Array) -> Counter[str]:
    """How many records have each set of labels; a set is the ranks in their order, as in ``3,5``."""
    rows, ranks = label_ranks(column, array)
    counts = np.bincount(rows, minlength=len(array))
    sets: Counter[str] = Counter()
    if empty := int((counts == 0).sum()):
        sets[""] = empty
    starts = (np.cumsum(counts) - counts)[counts > 0]
    if len(column.label_names) <= _SET_BITS:
        # A set is a number with a bit for each of its labels; there are few different ones.
        bits = np.uint64(1) << ranks.astype(np.uint64)
        found = (
            np.unique(np.bitwise_or.reduceat(bits, starts), return_counts=True) if len(starts) else ((), ())
        )
        for number, times in zip(*map(list, found), strict=True):
            sets[_set_of_bits(int(number))] = int(times)
        return sets
    several = ranks.tolist()
    for start, count in zip(starts.tolist(), counts[counts > 0].tolist(), strict=True):
        sets[",".join(map(str, sorted(set(several[start : start + count]))))] += 1
    return sets
