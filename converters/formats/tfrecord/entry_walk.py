"""Where the features of many Examples lie, and of which kind they are.

An Example is a map, so its entries, each a name and a list of values, come in any order. NumPy walks the records in
step, from one entry to the next, and so finds where each entry of each record lies. Then it goes down, in all entries
at once: to the name, to the feature, to the list in it, to the values. Every tag and every length is checked: what lies
in an entry must end where the entry ends. Entries are brought together by a hash of their names, which are compared in
full.

Records are numbered as in their frames. One that differs in any way from what is expected here is *doubtful*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.formats.tfrecord.framing import Frames
from converters.formats.tfrecord.strict_parser import (
    BYTES_LIST,
    FIRST_TAG,
    FLOAT_LIST,
    KINDS,
    MAX_FEATURES,
    MAX_NAME_BYTES,
    NUMBER_TAGS,
    VALUE_TAG,
    Ints,
)

Bools = npt.NDArray[np.bool_]

# In longer records, a length may need more than the three bytes that are decoded here.
_MAX_RECORD_BYTES = (1 << 21) - 1

# Eight bytes are read at a time; a record that ends less than two such words before the buffer does is doubtful.
_WORD_BYTES = 8

NO_KIND = 0
_IS_KIND = np.isin(np.arange(256), [*KINDS])
_NUMBER_TAGS = np.array([NUMBER_TAGS.get(kind, -1) for kind in range(256)])

# Odd, so that multiplying by it loses nothing.
_HASH_FACTOR = np.int64(-0x61C8864680B583EB)

# A mask of a word's first 0 … 8 bytes.
_FIRST_BYTES = np.array([(1 << 8 * size) - 1 for size in range(_WORD_BYTES)] + [-1])


# The bytes after a name where all lengths are short, as a number: 12 F kind G 0A H. Of R bytes until the entry's end,
# F is R - 2, G is R - 4 and H is R - 6.
_SHORT_FACTORS = 1 << 8 | 1 << 24 | 1 << 40
_SHORT_SUM = 0x12 - (2 << 8) - (4 << 24) + (0x0A << 32) - (6 << 40)
_SHORT_MASK = 0xFFFF_FF00_FFFF


@dataclass(frozen=True, eq=False)
class Entries:
    """Map entries of several records; arrays of one length.

    Attributes:
        rows: int64, the record that each is in.
        kinds: int64, the tag of its list, or ``NO_KIND``.
        filled: bool, whether its list has a value.
        tagged: bool, whether these are numbers with a tag each.
        starts: int64, where the list's run of numbers or first byte string begins, or these numbers.
        sizes: int64, how many bytes that has.
        ends: int64, where the entry ends.
    """

    rows: Ints
    kinds: Ints
    filled: Bools
    tagged: Bools
    starts: Ints
    sizes: Ints
    ends: Ints

    def take(self, chosen: Ints | Bools | slice) -> Entries:
        """The chosen entries."""
        return Entries(*(array[chosen] for array in vars(self).values()))

    def where(self, chosen: Bools) -> Entries:
        """The entries for which ``chosen`` is true."""
        return self if chosen.all() else self.take(chosen)


def find_entries(frames: Frames, rows: range, doubtful: Bools) -> dict[str, Entries]:
    """The entries of these records by name, each in the order of the records.

    Args:
        frames: the records.
        rows: those of them to look at.
        doubtful: bool, which records are doubtful; is set for those that are. What is said of these means nothing.
    """
    words = unaligned(frames, np.int64)
    owners, places, ends = _walk(words, frames, np.arange(rows.start, rows.stop), doubtful)
    tags, keys, sizes, sound = open_fields(words, places)
    sound &= (tags == FIRST_TAG) & (keys + sizes <= ends) & (sizes <= MAX_NAME_BYTES)
    sizes = np.where(sound, sizes, 0)
    order, edges = _by_name(words, keys, sizes, owners - rows.start)
    if len(edges) > MAX_FEATURES + 1:
        doubtful[owners] = True
        return {}
    kinds, filled, tagged, starts, lengths, fits = _find_values(words, keys + sizes, ends)
    doubtful[owners[~(sound & fits)]] = True

    entries = Entries(owners, kinds, filled, tagged, starts, lengths, ends).take(order)
    found: dict[str, Entries] = {}
    for begin, end in pairwise(edges):
        group, first = entries.take(slice(begin, end)), order[begin]
        name = words[keys[first] : keys[first] + sizes[first]].astype(np.uint8).tobytes()
        twice = group.rows[1:] == group.rows[:-1]
        doubtful[group.rows[1:][twice]] = True
        try:
            if found.setdefault(name.decode(), group) is group:
                continue
        except UnicodeDecodeError:
            pass
        doubtful[group.rows] = True  # no name, or one with the same hash as another
    return found


def _by_name(words: Ints, starts: Ints, sizes: Ints, rows: Ints) -> tuple[Ints, list[int]]:
    """What puts entries in the order of their names' hashes, and those of one name in the order of the records.

    Also the edges of the runs of one name in this order.
    """
    hashes, parts = sizes * _HASH_FACTOR, [sizes]
    for begin in range(0, int(sizes.max(initial=0)), _WORD_BYTES):
        longer = np.flatnonzero(sizes > begin)
        part = np.zeros(len(sizes), np.int64)
        part[longer] = (
            words[starts[longer] + begin] & _FIRST_BYTES[np.minimum(sizes[longer] - begin, _WORD_BYTES)]
        )
        hashes = (hashes ^ part) * _HASH_FACTOR
        parts.append(part)
    order = np.argsort(rows.astype(np.uint16), kind="stable")  # of sixteen bits, a radix sort
    for digit in (32, 48):
        order = order[np.argsort((hashes[order] >> digit).astype(np.uint16), kind="stable")]
    differ = np.zeros(max(len(order) - 1, 0), np.bool_)
    for part in parts:
        part = part[order]
        differ |= part[1:] != part[:-1]
    return order, [0, *(np.flatnonzero(differ) + 1).tolist(), len(order)] if len(order) else []


def _find_values(words: Ints, positions: Ints, ends: Ints) -> Sequence[npt.NDArray[Any]]:
    """What follows the names.

    Most values are so short that each length on the way to them takes one byte, and are one run or one byte string.
    These are checked at one look, the others level by level.

    Args:
        words: the eight bytes that begin at each byte of the buffer.
        positions: where each name ends.
        ends: where its entry ends.

    Returns:
        As in :class:`Entries`: kinds, filled, tagged, starts, sizes. Last, bool, whether all that is sound.
    """
    rest = ends - positions
    fields = words[positions]
    kinds = fields >> 16 & 0xFF
    differences = (fields ^ (rest * _SHORT_FACTORS + _SHORT_SUM)) & _SHORT_MASK
    short = (differences == 0) & (rest >= 6) & (rest < 0x82) & _IS_KIND[kinds]
    short &= (kinds != FLOAT_LIST) | (rest & 3 == 2)
    found = kinds, short.copy(), np.zeros_like(short), positions + 6, rest - 6, short
    others = np.flatnonzero(~short)
    if len(others):
        for array, values in zip(found, _descend(words, positions[others], ends[others]), strict=True):
            array[others] = values
    return found


def _descend(words: Ints, positions: Ints, ends: Ints) -> Sequence[npt.NDArray[Any]]:
    """What follows the names, from the feature to the list to the values; as :func:`_find_values`.

    What is not sound may claim to lie elsewhere; it is not followed beyond its end.
    """
    tags, features, sizes, sound = open_fields(words, np.minimum(positions, ends))
    sound &= (tags == VALUE_TAG) & (features + sizes == ends)
    features = np.minimum(features, ends)

    kinds, lists, sizes, opened = open_fields(words, features)
    null = features == ends
    kinds[null] = NO_KIND
    sound &= null | opened & _IS_KIND[kinds] & (lists + sizes == ends)
    lists = np.minimum(lists, ends)

    tags, starts, sizes, opened = open_fields(words, lists)
    filled = ~null & (lists < ends)
    fits = (starts + sizes == ends) & ((kinds != FLOAT_LIST) | (sizes & 3 == 0))
    fits |= (starts + sizes < ends) & (kinds == BYTES_LIST)
    tagged = filled & (tags == _NUMBER_TAGS[kinds])
    run = filled & ~tagged
    sound &= ~run | opened & (tags == FIRST_TAG) & fits
    return kinds, filled, tagged, np.where(run, starts, lists), np.where(run, sizes, ends - lists), sound


def _walk(words: Ints, frames: Frames, rows: Ints, doubtful: Bools) -> Sequence[Ints]:
    """For each entry of each of these records: the record, where the entry's payload begins, and where it ends."""
    rows = rows[frames.sizes[rows] > 0]
    positions, ends = frames.starts[rows], frames.starts[rows] + frames.sizes[rows]
    near = (frames.sizes[rows] <= _MAX_RECORD_BYTES) & (ends + 2 * _WORD_BYTES <= len(words))
    doubtful[rows[~near]] = True
    rows, positions, ends = where(near, rows, positions, ends)
    tags, positions, sizes, sound = open_fields(words, positions)
    sound &= (tags == FIRST_TAG) & (positions + sizes == ends)
    doubtful[rows[~sound]] = True
    rows, positions, ends = where(sound & (sizes > 0), rows, positions, ends)
    steps = [(rows[:0],) * 3]
    while len(rows) and len(steps) <= MAX_FEATURES:
        tags, places, sizes, sound = open_fields(words, positions)
        positions = places + sizes
        sound &= (tags == FIRST_TAG) & (positions <= ends)
        if not sound.all():
            doubtful[rows[~sound]] = True
            rows, places, positions, ends = where(sound, rows, places, positions, ends)
        steps.append((rows, places, positions))
        rows, positions, ends = where(positions < ends, rows, positions, ends)
    doubtful[rows] = True
    return [np.concatenate(arrays) for arrays in zip(*steps, strict=True)]


def open_fields(words: Ints, positions: Ints) -> tuple[Ints, Ints, Ints, Bools]:
    """The delimited fields at these positions.

    Returns:
        int64, the tag of each; int64, where its payload begins; int64, the payload's size; bool, whether the size is
        encoded in at most three bytes, and in no more than it needs.
    """
    fields = words[positions]
    starts = positions + 2
    sizes = fields >> 8 & 0x7F
    sound = np.ones(len(positions), np.bool_)
    goes_on = fields >> 15 & 1
    for place in (1, 2):
        if not goes_on.any():
            break
        byte = fields >> 8 + 8 * place & 0xFF
        starts += goes_on
        sizes += goes_on * (byte & 0x7F) << 7 * place
        sound &= byte >= goes_on  # or the byte before could have been the last
        goes_on &= byte >> 7
    else:
        sound &= goes_on == 0
    return fields & 0xFF, starts, sizes, sound


def unaligned(frames: Frames, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The number of this type that begins at each byte of the buffer."""
    dtype = np.dtype(dtype)
    count = max(len(frames.buffer) - dtype.itemsize + 1, 0)
    return np.ndarray(count, dtype, frames.buffer, strides=1)


def where(chosen: Bools, *arrays: npt.NDArray[Any]) -> Sequence[npt.NDArray[Any]]:
    """The elements for which ``chosen`` is true."""
    return arrays if chosen.all() else [array[chosen] for array in arrays]
