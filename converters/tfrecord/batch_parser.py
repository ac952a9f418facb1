"""Parses the Examples of many records at once, whatever their features.

An Example is a map, so its entries, each a name and a list of values, come in any order. NumPy walks all records in
step, from one entry to the next, and so finds where each entry of each record lies. Then it goes down, in all entries
at once: to the name, to the feature, to the list in it, to the values. Every tag and every length is checked: what
lies in an entry must end where the entry ends. Names are looked up by a hash and compared in full. Last, feature by
feature and in the order of the records, the values are gathered: integers are decoded, floats copied, byte strings
only located.

Nothing is known of a dataset beforehand, and nothing is kept but the names of features, which save a look. A record
that differs in any way from what is expected here is *doubtful* and goes to the strict parser
(:mod:`converters.tfrecord.example`), which reads it or says what is wrong with it. So do long records, and records of
which there are too few for a step to pay. What is accepted here, the strict parser accepts with the same values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.tfrecord.example import (
    MAX_FEATURES,
    MAX_NAME_BYTES,
    ExampleError,
    Feature,
    FeatureKind,
    byte_values,
    decode_varints,
    parse_example,
)
from converters.tfrecord.framing import Frames

_Bools = npt.NDArray[np.bool_]
_Bytes = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]

# Fewer records, or lists of byte strings, are done faster one by one.
_MIN_RECORDS = 8
_MIN_LISTS = 40

# So many at once, lest their entries outgrow a core's cache.
_MAX_RECORDS = 1024

# In longer records, a length may need more than the three bytes that are decoded here.
_MAX_RECORD_BYTES = (1 << 21) - 1

# Eight bytes are read at a time; a record that ends less than two such words before the buffer does is doubtful.
_WORD_BYTES = 8

# Among so few names, one is found faster by comparing with all than by halving.
_FEW_NAMES = 48

# Values are copied record by record where there are so many on average, and one by one where there are fewer.
_LONG_LIST = 64

_FIRST_TAG, _VALUE_TAG = 0x0A, 0x12
_NO_KIND, _BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 0, 0x0A, 0x12, 0x1A
_KINDS: dict[int, FeatureKind | None] = {
    _NO_KIND: None,
    _BYTES_LIST: "bytes_list",
    _FLOAT_LIST: "float_list",
    _INT64_LIST: "int64_list",
}
_TAGS = {kind: tag for tag, kind in _KINDS.items()}
_IS_KIND = np.isin(np.arange(256), [_BYTES_LIST, _FLOAT_LIST, _INT64_LIST])

# Odd, so that multiplying by it loses nothing.
_HASH_FACTOR = np.int64(-0x61C8864680B583EB)

# A mask of a word's first 0 … 8 bytes.
_FIRST_BYTES = np.array([(1 << 8 * size) - 1 for size in range(_WORD_BYTES)] + [-1])


# The bytes after a name where all lengths are short, as a number: 12 F kind G 0A H. Of R bytes until the entry's end,
# F is R - 2, G is R - 4 and H is R - 6.
_SHORT_FACTORS = 1 << 8 | 1 << 24 | 1 << 40
_SHORT_SUM = 0x12 - (2 << 8) - (4 << 24) + (0x0A << 32) - (6 << 40)
_SHORT_MASK = 0xFFFF_FF00_FFFF


class RecordError(ValueError):
    """Record ``row`` of the frames is not what it should be; ``position`` is a byte in it."""

    def __init__(self, row: int, message: str, position: int) -> None:
        super().__init__(message)
        self.row = row
        self.message = message
        self.position = position


class KindError(RecordError):
    """A feature is of one kind in a record and of another in an earlier one. Nothing is damaged; no column fits both.

    Attributes:
        name: the feature's.
        kind: what it is in record ``row``.
        first_row: an earlier record of the frames.
        first_kind: what it is there.
    """

    def __init__(
        self, row: int, position: int, name: str, kind: FeatureKind, first_row: int, first_kind: FeatureKind
    ) -> None:
        message = f"the feature {name!r} is a {kind}; in an earlier record it is a {first_kind}."
        super().__init__(row, message, position)
        self.name = name
        self.kind = kind
        self.first_row = first_row
        self.first_kind = first_kind


@dataclass(frozen=True, eq=False)
class FeatureValues:
    """The values that one feature has in the records of some frames; all arrays are contiguous.

    Attributes:
        kind: which list holds them; None where no record sets a kind.
        counts: int64, number of values in each record; -1 where the feature is absent or has no kind.
        starts: int64, for a bytes_list, where in the frames' buffer each value begins, record by record.
        sizes: int64, length of each of these values in bytes.
        integers: int64, for an int64_list, the values of all records.
        floats: float32, for a float_list, the values of all records, bit for bit.
    """

    kind: FeatureKind | None
    counts: _Ints
    starts: _Ints
    sizes: _Ints
    integers: _Ints
    floats: _Floats


class BatchParser:
    """Parses the records of a dataset, some frames at a time."""

    def __init__(self) -> None:
        self._names = _Names()

    def parse(self, frames: Frames) -> dict[str, FeatureValues]:
        """The values of each feature by its name, in the order in which the features are first met.

        Raises:
            RecordError: a record is malformed, or the records have more than ``MAX_FEATURES`` features.
            KindError: a feature has two kinds. Of several errors, that of the first record is raised.
        """
        parts: dict[str, list[_Column]] = {}
        doubtful = np.zeros(len(frames.starts), np.bool_)
        for start in range(0, len(doubtful), _MAX_RECORDS):
            self._parse_in_step(
                frames, np.arange(start, min(start + _MAX_RECORDS, len(doubtful))), doubtful, parts
            )
        error = _parse_strictly(frames, np.flatnonzero(doubtful), parts)
        columns = {name: _joined(several) for name, several in parts.items()}
        in_order = sorted(columns, key=lambda name: columns[name].first)
        _raise_first(error, columns, in_order, frames)
        return {name: columns[name].feature_values(len(doubtful)) for name in in_order}

    def _parse_in_step(
        self, frames: Frames, rows: _Ints, doubtful: _Bools, parts: dict[str, list[_Column]]
    ) -> None:
        """Add the features of these records to ``parts``, except those of records that it marks as doubtful."""
        if len(rows) < _MIN_RECORDS:
            doubtful[rows] = True
            return
        entries = _find_entries(frames, rows, self._names, doubtful)
        while True:
            entries = entries.where(~doubtful[entries.rows])
            doubts = np.count_nonzero(doubtful)
            columns = {number: _read(group, frames, doubtful) for number, group in entries.by_name()}
            if np.count_nonzero(doubtful) == doubts:
                break
        for number, column in columns.items():
            parts.setdefault(self._names.known[number], []).append(column)


def _raise_first(
    error: RecordError | None, columns: dict[str, _Column], in_order: Sequence[str], frames: Frames
) -> None:
    """Raise what is wrong with the first record of which something is."""
    errors = [] if error is None else [error]
    if len(in_order) > MAX_FEATURES:
        name, row = in_order[MAX_FEATURES], columns[in_order[MAX_FEATURES]].first[0]
        message = f"with {name!r} the records have more than {MAX_FEATURES} features."
        errors.append(RecordError(row, message, _position(name, row, frames)))
    for name, column in columns.items():
        if (column.kinds == column.kinds[0]).all():
            continue
        rows, kinds = _where(column.kinds != _NO_KIND, column.rows, column.kinds)
        others = np.flatnonzero(kinds != kinds[:1])
        if len(others):
            row, kind, first_kind = int(rows[others[0]]), _KINDS[int(kinds[others[0]])], _KINDS[int(kinds[0])]
            assert kind is not None
            assert first_kind is not None
            position = _position(name, row, frames)
            errors.append(KindError(row, position, name, kind, int(rows[0]), first_kind))
    if errors:
        raise min(errors, key=lambda error: (error.row, error.position))


def _position(name: str, row: int, frames: Frames) -> int:
    """Where a feature stands in a sound record."""
    return parse_example(_data(frames, row)).features[name].position


def _data(frames: Frames, row: int) -> memoryview:
    """A record's bytes, which are not copied."""
    start = int(frames.starts[row])
    return memoryview(frames.buffer)[start : start + int(frames.sizes[row])]


# ---- Where the entries are ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Entries:
    """Map entries of several records; arrays of one length.

    Attributes:
        rows: int64, the record that each is in.
        names: int64, the number of its feature's name.
        kinds: int64, the tag of its list, or ``_NO_KIND``.
        filled: bool, whether its list has a value.
        starts: int64, where the list's run of numbers or first byte string begins.
        sizes: int64, how many bytes that has.
        ends: int64, where the entry ends.
    """

    rows: _Ints
    names: _Ints
    kinds: _Ints
    filled: _Bools
    starts: _Ints
    sizes: _Ints
    ends: _Ints

    def take(self, chosen: _Ints | _Bools | slice) -> _Entries:
        """The chosen entries."""
        return _Entries(*(array[chosen] for array in vars(self).values()))

    def where(self, chosen: _Bools) -> _Entries:
        """The entries for which ``chosen`` is true."""
        return self if chosen.all() else self.take(chosen)

    def by_name(self) -> Iterator[tuple[int, _Entries]]:
        """Each name's number, and its entries; they must be in the order of the numbers."""
        edges = [0, *(np.flatnonzero(np.diff(self.names)) + 1).tolist(), len(self.names)]
        for start, end in pairwise(edges):
            if start < end:
                yield int(self.names[start]), self.take(slice(start, end))


def _find_entries(frames: Frames, rows: _Ints, names: _Names, doubtful: _Bools) -> _Entries:
    """The entries of these records, by name and then by record; those of doubtful records mean nothing."""
    words = _unaligned(frames, np.int64)
    first = int(rows[0])
    rows, places, ends = _walk(words, frames, rows, doubtful)
    tags, keys, sizes, sound = _open(words, places)
    sound &= (tags == _FIRST_TAG) & (keys + sizes <= ends)
    sizes = np.where(sound, sizes, 0)
    numbers = names.numbers(words, keys, sizes)
    kinds, filled, starts, sizes, fits = _find_values(words, keys + sizes, ends)
    sound &= fits & (numbers >= 0)
    doubtful[rows[~sound]] = True

    order = _order(numbers, rows - first)
    entries = _Entries(rows, numbers, kinds, filled, starts, sizes, ends).take(order)
    same = (entries.names[1:] == entries.names[:-1]) & (entries.rows[1:] == entries.rows[:-1])
    doubtful[entries.rows[1:][same]] = True  # a name stands twice
    return entries


def _order(names: _Ints, rows: _Ints) -> _Ints:
    """What puts the entries in the order of their names, and those of one name in the order of the records."""
    keys = names * _MAX_RECORDS + rows
    if keys.max(initial=0) < 1 << 16:
        return np.argsort(keys.astype(np.uint16), kind="stable")  # of sixteen bits, a radix sort
    by_row = np.argsort(rows.astype(np.uint16), kind="stable")
    return by_row[np.argsort(names[by_row].astype(np.uint16), kind="stable")]


def _find_values(words: _Ints, positions: _Ints, ends: _Ints) -> tuple[_Ints, _Bools, _Ints, _Ints, _Bools]:
    """What follows the names.

    Most values are so short that each length on the way to them takes one byte, and are one run or one byte string.
    These are checked at one look, the others level by level.

    Args:
        words: the eight bytes that begin at each byte of the buffer.
        positions: where each name ends.
        ends: where its entry ends.

    Returns:
        As in :class:`_Entries`: kinds, filled, starts, sizes. Last, bool, whether all that is sound.
    """
    rest = ends - positions
    fields = words[positions]
    kinds = fields >> 16 & 0xFF
    differences = (fields ^ (rest * _SHORT_FACTORS + _SHORT_SUM)) & _SHORT_MASK
    short = (differences == 0) & (rest >= 6) & (rest < 0x82) & _IS_KIND[kinds]
    short &= (kinds != _FLOAT_LIST) | (rest & 3 == 2)
    filled, sound = short.copy(), short.copy()
    starts, sizes = positions + 6, rest - 6
    others = np.flatnonzero(~short)
    if len(others):
        found = _descend(words, positions[others], ends[others])
        for array, values in zip((kinds, filled, starts, sizes, sound), found, strict=True):
            array[others] = values
    return kinds, filled, starts, sizes, sound


def _descend(words: _Ints, positions: _Ints, ends: _Ints) -> tuple[_Ints, _Bools, _Ints, _Ints, _Bools]:
    """What follows the names, from the feature to the list to the values; as :func:`_find_values`.

    What is not sound may claim to lie elsewhere; it is not followed beyond its end.
    """
    tags, features, sizes, sound = _open(words, np.minimum(positions, ends))
    sound &= (tags == _VALUE_TAG) & (features + sizes == ends)
    features = np.minimum(features, ends)

    kinds, lists, sizes, opened = _open(words, features)
    null = features == ends
    kinds[null] = _NO_KIND
    sound &= null | opened & _IS_KIND[kinds] & (lists + sizes == ends)
    lists = np.minimum(lists, ends)

    tags, starts, sizes, opened = _open(words, lists)
    filled = ~null & (lists < ends)
    fits = (starts + sizes == ends) & ((kinds != _FLOAT_LIST) | (sizes & 3 == 0))
    fits |= (starts + sizes < ends) & (kinds == _BYTES_LIST)
    sound &= ~filled | opened & (tags == _FIRST_TAG) & fits
    return kinds, filled, starts, sizes, sound


def _walk(words: _Ints, frames: Frames, rows: _Ints, doubtful: _Bools) -> Sequence[_Ints]:
    """For each entry of each of these records: the record, where the entry's payload begins, and where it ends."""
    rows = rows[frames.sizes[rows] > 0]
    positions, ends = frames.starts[rows], frames.starts[rows] + frames.sizes[rows]
    near = (frames.sizes[rows] <= _MAX_RECORD_BYTES) & (ends + 2 * _WORD_BYTES <= len(words))
    doubtful[rows[~near]] = True
    rows, positions, ends = _where(near, rows, positions, ends)
    tags, positions, sizes, sound = _open(words, positions)
    sound &= (tags == _FIRST_TAG) & (positions + sizes == ends)
    doubtful[rows[~sound]] = True
    rows, positions, ends = _where(sound & (sizes > 0), rows, positions, ends)
    steps = [(rows[:0],) * 3]
    while len(rows) and len(steps) <= MAX_FEATURES:
        tags, places, sizes, sound = _open(words, positions)
        positions = places + sizes
        sound &= (tags == _FIRST_TAG) & (positions <= ends)
        if not sound.all():
            doubtful[rows[~sound]] = True
            rows, places, positions, ends = _where(sound, rows, places, positions, ends)
        steps.append((rows, places, positions))
        rows, positions, ends = _where(positions < ends, rows, positions, ends)
    doubtful[rows] = True
    return [np.concatenate(arrays) for arrays in zip(*steps, strict=True)]


def _open(words: _Ints, positions: _Ints) -> tuple[_Ints, _Ints, _Ints, _Bools]:
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


def _unaligned(frames: Frames, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The number of this type that begins at each byte of the buffer."""
    dtype = np.dtype(dtype)
    count = max(len(frames.buffer) - dtype.itemsize + 1, 0)
    return np.ndarray(count, dtype, frames.buffer, strides=1)


def _where(chosen: _Bools, *arrays: npt.NDArray[Any]) -> Sequence[npt.NDArray[Any]]:
    """The elements for which ``chosen`` is true."""
    return arrays if chosen.all() else [array[chosen] for array in arrays]


# ---- Names --------------------------------------------------------------------------------------------

# Eight bytes of names: which names have them, and the bytes, filled up with zeros.
_Part = tuple["_Ints | slice", _Ints]


class _Names:
    """The names of the features met so far; each has a number, its index in ``known``."""

    def __init__(self) -> None:
        self._set([])

    def numbers(self, words: _Ints, starts: _Ints, sizes: _Ints) -> _Ints:
        """int64, the number of the name that lies at each place; -1 where there is none, or are too many."""
        parts = _parts(words, starts, sizes)
        hashes = _hash(sizes, parts)
        numbers = self._look_up(hashes, sizes, parts)
        unknown = np.flatnonzero(numbers < 0)
        if not len(unknown):
            return numbers
        fresh = unknown[np.unique(hashes[unknown], return_index=True)[1]]
        if len(self.known) + len(fresh) > MAX_FEATURES:
            self._set([])
            fresh = np.unique(hashes, return_index=True)[1]
        self._learn(words[starts[index] : starts[index] + sizes[index]] for index in fresh.tolist())
        return self._look_up(hashes, sizes, parts)

    def _look_up(self, hashes: _Ints, sizes: _Ints, parts: Sequence[_Part]) -> _Ints:
        if not self.known:
            return np.full(len(hashes), -1)
        numbers = self._by_hash[_last_not_above(self._hashes, hashes)]
        same = self._sizes[numbers] == sizes
        for (part, bits), known in zip(parts, self._words.T, strict=False):
            same[part] &= known[numbers[part]] == bits
        return np.where(same, numbers, -1)

    def _learn(self, found: Iterable[_Ints]) -> None:
        """Add names, each given by the words that begin at its bytes, while there is room."""
        names = dict.fromkeys(self.known)
        for words in found:
            try:
                name = (words & 0xFF).astype(np.uint8).tobytes().decode()
            except UnicodeDecodeError:
                continue
            if len(words) <= MAX_NAME_BYTES and len(names) < MAX_FEATURES:
                names[name] = None
        self._set(list(names))

    def _set(self, names: list[str]) -> None:
        self.known = names
        encoded = [name.encode() for name in names]
        self._sizes = np.array([len(name) for name in encoded], np.int64)
        width = (int(self._sizes.max(initial=0)) // _WORD_BYTES + 2) * _WORD_BYTES
        table = np.array([name.ljust(width, b"\0") for name in encoded], np.dtype((bytes, width)))
        self._words = table.view(np.int64).reshape(len(names), width // _WORD_BYTES)
        unaligned: _Ints = np.ndarray(max(table.nbytes - 7, 0), np.int64, table, strides=1)
        hashes = _hash(self._sizes, _parts(unaligned, width * np.arange(len(names)), self._sizes))
        self._by_hash = np.argsort(hashes)
        self._hashes = hashes[self._by_hash]


def _last_not_above(ascending: _Ints, values: _Ints) -> _Ints:
    """The index of the last element that does not exceed each value; 0 where all do."""
    if len(ascending) > _FEW_NAMES:
        return np.maximum(ascending.searchsorted(values, "right") - 1, 0)
    indices = np.zeros(len(values), np.int8)
    for element in ascending[1:]:
        indices += values >= element
    return indices.astype(np.int64)


def _parts(words: _Ints, starts: _Ints, sizes: _Ints) -> list[_Part]:
    """Names in parts of eight bytes."""
    parts: list[_Part] = []
    for begin in range(0, int(sizes.max(initial=0)), _WORD_BYTES):
        longer = sizes > begin
        part = slice(None) if longer.all() else np.flatnonzero(longer)
        there = np.minimum(sizes[part] - begin, _WORD_BYTES)
        parts.append((part, words[starts[part] + begin] & _FIRST_BYTES[there]))
    return parts


def _hash(sizes: _Ints, parts: Sequence[_Part]) -> _Ints:
    hashes = sizes * _HASH_FACTOR
    for part, bits in parts:
        hashes[part] = (hashes[part] ^ bits) * _HASH_FACTOR
    return hashes


# ---- Values -------------------------------------------------------------------------------------------


def _no_integers() -> _Ints:
    return np.zeros(0, np.int64)


def _no_floats() -> _Floats:
    return np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class _Column:
    """One feature in the records that have it.

    Attributes:
        rows: int64, the records, in ascending order.
        first: the first of these, and a number that rises from one feature of that record to the next.
        kinds: int64, for each of the records, the tag of the list, or ``_NO_KIND``.
        counts: int64, for each of the records, the number of values; -1 where there is no kind.
        starts: int64; this and the others are as in :class:`FeatureValues`. Where kinds differ, there are none.
        sizes: int64.
        integers: int64.
        floats: float32.
    """

    rows: _Ints
    first: tuple[int, int]
    kinds: _Ints
    counts: _Ints
    starts: _Ints = field(default_factory=_no_integers)
    sizes: _Ints = field(default_factory=_no_integers)
    integers: _Ints = field(default_factory=_no_integers)
    floats: _Floats = field(default_factory=_no_floats)

    def feature_values(self, records: int) -> FeatureValues:
        """The same for all of the frames' records, of which there are so many."""
        counts = np.full(records, -1)
        counts[self.rows] = self.counts
        kind = _KINDS[int(self.kinds.max())]
        return FeatureValues(kind, counts, self.starts, self.sizes, self.integers, self.floats)


def _joined(parts: Sequence[_Column]) -> _Column:
    """The columns that one feature has in different records as one."""
    if len(parts) == 1:
        return parts[0]
    rows = np.concatenate([part.rows for part in parts])
    owners = np.concatenate([np.repeat(part.rows, np.maximum(part.counts, 0)) for part in parts])
    in_order = bool((rows[1:] > rows[:-1]).all())

    def join(name: str, rows: _Ints) -> npt.NDArray[Any]:
        joined = np.concatenate([getattr(part, name) for part in parts])
        if in_order or len(joined) != len(rows):  # where another kind has the values, there are none
            return joined
        return joined[np.argsort(rows, kind="stable")]

    return _Column(
        join("rows", rows),
        min(part.first for part in parts),
        join("kinds", rows),
        join("counts", rows),
        *(join(name, owners) for name in ("starts", "sizes", "integers", "floats")),
    )


def _read(group: _Entries, frames: Frames, doubtful: _Bools) -> _Column:
    """The values of one feature; marks records whose values are not sound, and then means nothing."""
    first = int(group.rows[0]), int(group.ends[0])
    kind = int(group.kinds.max())
    filled = group.where(group.filled)
    if (filled.kinds == kind).all():
        counts, values = _READERS[kind](filled, frames, doubtful)
    else:  # an error, but that of a record that is damaged may come first
        for each, reader in _READERS.items():
            reader(filled.where(filled.kinds == each), frames, doubtful)
        counts, values = np.zeros(len(filled.rows), np.int64), {}
    if filled is not group:
        filled_counts, counts = counts, -(group.kinds == _NO_KIND).astype(np.int64)
        counts[group.filled] = filled_counts
    return _Column(group.rows, first, group.kinds, counts, **values)


_Read = tuple[_Ints, dict[str, npt.NDArray[Any]]]


def _read_nothing(group: _Entries, frames: Frames, doubtful: _Bools) -> _Read:
    return _no_integers(), {}


def _read_floats(group: _Entries, frames: Frames, doubtful: _Bools) -> _Read:
    counts = group.sizes >> 2
    return counts, {"floats": _gather(frames, np.uint32, group.starts, counts).view(np.float32)}


def _read_integers(group: _Entries, frames: Frames, doubtful: _Bools) -> _Read:
    encoded = _gather(frames, np.uint8, group.starts, group.sizes)
    integers, faults = decode_varints(encoded)
    if len(integers) == len(encoded):
        return group.sizes, {"integers": integers}
    rows, sizes = _where(group.sizes > 0, group.rows, group.sizes)
    ends = np.cumsum(sizes)
    doubtful[rows[encoded[ends - 1] >= 0x80]] = True
    doubtful[rows[ends.searchsorted(faults, "right")]] = True
    counts = np.zeros(len(group.rows), np.int64)
    counts[group.sizes > 0] = np.add.reduceat(encoded < 0x80, ends - sizes, dtype=np.int64)
    return counts, {"integers": integers}


def _read_bytes(group: _Entries, frames: Frames, doubtful: _Bools) -> _Read:
    more = np.flatnonzero(group.starts + group.sizes < group.ends)
    if not len(more):
        return np.ones(len(group.rows), np.int64), {"starts": group.starts, "sizes": group.sizes}
    lists = np.arange(len(group.rows))
    found = [(lists, group.starts, group.sizes), *_cut(group, more, frames, doubtful)]
    lists, starts, sizes = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    order = np.argsort(lists, kind="stable")
    return np.bincount(lists), {"starts": starts[order], "sizes": sizes[order]}


def _cut(
    group: _Entries, lists: _Ints, frames: Frames, doubtful: _Bools
) -> Iterator[tuple[_Ints, _Ints, _Ints]]:
    """The byte strings after the first of these lists: the list's number, where each begins, and its size."""
    words = _unaligned(frames, np.int64)
    positions, ends = (group.starts + group.sizes)[lists], group.ends[lists]
    while len(lists) >= _MIN_LISTS:
        tags, starts, sizes, sound = _open(words, positions)
        positions = starts + sizes
        sound &= (tags == _FIRST_TAG) & (positions <= ends)
        doubtful[group.rows[lists[~sound]]] = True
        lists, starts, sizes, positions, ends = _where(sound, lists, starts, sizes, positions, ends)
        yield lists, starts, sizes
        lists, positions, ends = _where(positions < ends, lists, positions, ends)
    for number, position, end in zip(lists.tolist(), positions.tolist(), ends.tolist(), strict=True):
        try:
            starts, sizes = byte_values(memoryview(frames.buffer), position, end, "")
        except ExampleError:
            doubtful[group.rows[number]] = True
        else:
            yield np.full(len(starts), number), starts, sizes


_READERS = {
    _NO_KIND: _read_nothing,
    _BYTES_LIST: _read_bytes,
    _FLOAT_LIST: _read_floats,
    _INT64_LIST: _read_integers,
}


def _gather(frames: Frames, dtype: npt.DTypeLike, starts: _Ints, counts: _Ints) -> npt.NDArray[Any]:
    """The numbers that follow one another from each start on, all in one array."""
    width = np.dtype(dtype).itemsize
    if len(counts) and counts[0] and (counts == counts[0]).all():
        size = int(counts[0]) * width
        shape = (len(frames.buffer) - size + 1, size)
        return np.ndarray(shape, np.uint8, frames.buffer, strides=(1, 1))[starts].view(dtype).ravel()
    total = int(counts.sum())
    if total > _LONG_LIST * len(counts):
        buffer = np.frombuffer(frames.buffer, np.uint8)
        spans = zip(starts.tolist(), (starts + width * counts).tolist(), strict=True)
        return np.concatenate([buffer[start:end] for start, end in spans]).view(dtype)
    before = np.cumsum(counts) - counts
    return _unaligned(frames, dtype)[np.repeat(starts - width * before, counts) + width * np.arange(total)]


# ---- Records parsed one by one ------------------------------------------------------------------------


def _parse_strictly(frames: Frames, rows: _Ints, parts: dict[str, list[_Column]]) -> RecordError | None:
    """Add the features of these records to ``parts``, up to a record that is refused; returns why it is."""
    error = None
    found: dict[str, list[tuple[int, Feature]]] = {}
    for row in rows.tolist():
        try:
            features = parse_example(_data(frames, row)).features
        except ExampleError as refused:
            error = RecordError(row, f"{refused.message}.", refused.position)
            break
        for name, feature in features.items():
            found.setdefault(name, []).append((row, feature))
        if len(found) > MAX_FEATURES:
            break
    for name, parsed in found.items():
        parts.setdefault(name, []).append(_strict_column(parsed, frames.starts))
    return error


def _strict_column(parsed: Sequence[tuple[int, Feature]], record_starts: _Ints) -> _Column:
    """One feature of records that the strict parser read."""
    rows = np.array([row for row, _ in parsed])
    features = [feature for _, feature in parsed]
    counts = [-1 if feature.kind is None else feature.count for feature in features]
    return _Column(
        rows,
        (int(rows[0]), features[0].position),
        np.array([_TAGS[feature.kind] for feature in features]),
        np.array(counts),
        np.concatenate([feature.starts + record_starts[row] for row, feature in parsed]),
        np.concatenate([feature.sizes for feature in features]),
        np.concatenate([feature.integers for feature in features]),
        np.concatenate([feature.floats for feature in features]),
    )
