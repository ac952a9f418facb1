"""Parses the Examples of many records at once, whatever their features.

NumPy finds where every feature of every record lies (:mod:`converters.formats.tfrecord.entry_walk`). Then, feature by
feature and in the order of the records, the values are gathered: integers are decoded, floats copied, byte strings
located.

Nothing is known of a dataset beforehand, and nothing is kept but the names of features, which save a look. A record
that differs in any way from what is expected goes to the strict parser
(:mod:`converters.formats.tfrecord.strict_parser`), which reads it or says what is wrong with it. So do long records,
and records of which there are too few for a step to pay. What is accepted here, the strict parser accepts with the
same values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.formats.tfrecord.entry_walk import (
    NO_KIND,
    Bools,
    Entries,
    Names,
    find_entries,
    open_fields,
    unaligned,
    where,
)
from converters.formats.tfrecord.framing import Frames
from converters.formats.tfrecord.strict_parser import (
    BYTES_LIST,
    FIRST_TAG,
    FLOAT_LIST,
    INT64_LIST,
    KINDS,
    MAX_FEATURES,
    ExampleError,
    Feature,
    FeatureKind,
    Floats,
    Ints,
    byte_values,
    decode_varints,
    no_floats,
    no_integers,
    parse_example,
    untagged,
)

# Fewer records, or lists of byte strings, are done faster one by one.
_MIN_RECORDS = 8
_MIN_LISTS = 40

# So many records are walked at once, lest their entries outgrow a core's cache.
_MAX_RECORDS = 1024

# Values are copied record by record where there are so many on average, and one by one where there are fewer.
_LONG_LIST = 64

_TAGS = {kind: tag for tag, kind in KINDS.items()}


class RecordError(ValueError):
    """Record ``row`` of the frames is not what it should be; ``position`` is a byte in it."""

    def __init__(self, row: int, message: str, position: int | None) -> None:
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
        message = f"the feature {name!r} is of kind {kind}; in an earlier record it is of kind {first_kind}."
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
    counts: Ints
    starts: Ints
    sizes: Ints
    integers: Ints
    floats: Floats


class BatchParser:
    """Parses the records of a dataset, some frames at a time.

    Args:
        ignored: features that are left out; they may even have two kinds.
    """

    def __init__(self, ignored: Collection[str] = ()) -> None:
        self._names = Names()
        self._ignored = frozenset(ignored)

    def parse(self, frames: Frames) -> dict[str, FeatureValues]:
        """The values of each feature by its name, in the order in which the features are first met.

        Raises:
            RecordError: a record is malformed, or the records have more than ``MAX_FEATURES`` features.
            KindError: a feature has two kinds. Of several errors, that of the first record is raised.
        """
        parts: dict[str, list[_Column]] = {}
        doubtful = np.zeros(len(frames.starts), np.bool_)
        for start in range(0, len(doubtful), _MAX_RECORDS):
            rows = range(start, min(start + _MAX_RECORDS, len(doubtful)))
            self._parse_in_step(frames, rows, doubtful, parts)
        error = _parse_strictly(frames, np.flatnonzero(doubtful), parts)
        columns = {name: _joined(several) for name, several in parts.items()}
        in_order = sorted(columns.keys() - self._ignored, key=lambda name: columns[name].first)
        _raise_first(error, columns, in_order, frames)
        return {name: columns[name].feature_values(len(doubtful)) for name in in_order}

    def _parse_in_step(
        self, frames: Frames, rows: range, doubtful: Bools, parts: dict[str, list[_Column]]
    ) -> None:
        """Add the features of these records to ``parts``, except those of records that it marks as doubtful."""
        if len(rows) < _MIN_RECORDS:
            doubtful[rows.start : rows.stop] = True
            return
        entries = find_entries(frames, rows, self._names, doubtful)
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
    for name in in_order:
        column = columns[name]
        if (column.kinds == column.kinds[0]).all():
            continue
        rows, kinds = where(column.kinds != NO_KIND, column.rows, column.kinds)
        others = np.flatnonzero(kinds != kinds[:1])
        if len(others):
            row, kind, first_kind = int(rows[others[0]]), KINDS[int(kinds[others[0]])], KINDS[int(kinds[0])]
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


# ---- Values -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Column:
    """One feature in the records that have it.

    Attributes:
        rows: int64, the records, in ascending order.
        first: the first of these, and a number that rises from one feature of that record to the next.
        kinds: int64, for each of the records, the tag of the list, or ``NO_KIND``.
        counts: int64, for each of the records, the number of values; -1 where there is no kind.
        starts: int64; this and the others are as in :class:`FeatureValues`. Where kinds differ, there are none.
        sizes: int64.
        integers: int64.
        floats: float32.
    """

    rows: Ints
    first: tuple[int, int]
    kinds: Ints
    counts: Ints
    starts: Ints = field(default_factory=no_integers)
    sizes: Ints = field(default_factory=no_integers)
    integers: Ints = field(default_factory=no_integers)
    floats: Floats = field(default_factory=no_floats)

    def feature_values(self, records: int) -> FeatureValues:
        """The same for all of the frames' records, of which there are so many."""
        counts = np.full(records, -1)
        counts[self.rows] = self.counts
        kind = KINDS.get(int(self.kinds.max()))
        return FeatureValues(kind, counts, self.starts, self.sizes, self.integers, self.floats)


def _joined(parts: Sequence[_Column]) -> _Column:
    """The columns that one feature has in different records as one."""
    if len(parts) == 1:
        return parts[0]
    rows = np.concatenate([part.rows for part in parts])
    owners = np.concatenate([np.repeat(part.rows, np.maximum(part.counts, 0)) for part in parts])
    in_order = bool((rows[1:] > rows[:-1]).all())

    def join(name: str, rows: Ints) -> npt.NDArray[Any]:
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


def _read(group: Entries, frames: Frames, doubtful: Bools) -> _Column:
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
        filled_counts, counts = counts, -(group.kinds == NO_KIND).astype(np.int64)
        counts[group.filled] = filled_counts
    return _Column(group.rows, first, group.kinds, counts, **values)


_Read = tuple[Ints, dict[str, npt.NDArray[Any]]]


def _read_nothing(group: Entries, frames: Frames, doubtful: Bools) -> _Read:
    return no_integers(), {}


def _read_floats(group: Entries, frames: Frames, doubtful: Bools) -> _Read:
    if not group.packed.all():
        return _read_untagged(group, frames, doubtful)
    counts = group.sizes >> 2
    return counts, {"floats": _gather(frames, np.uint32, group.starts, counts).view(np.float32)}


def _read_integers(group: Entries, frames: Frames, doubtful: Bools) -> _Read:
    if not group.packed.all():
        return _read_untagged(group, frames, doubtful)
    encoded = _gather(frames, np.uint8, group.starts, group.sizes)
    integers, faults = decode_varints(encoded)
    if len(integers) == len(encoded):
        return group.sizes, {"integers": integers}
    rows, sizes = where(group.sizes > 0, group.rows, group.sizes)
    ends = np.cumsum(sizes)
    doubtful[rows[encoded[ends - 1] >= 0x80]] = True
    doubtful[rows[ends.searchsorted(faults, "right")]] = True
    counts = np.zeros(len(group.rows), np.int64)
    counts[group.sizes > 0] = np.add.reduceat(encoded < 0x80, ends - sizes, dtype=np.int64)
    return counts, {"integers": integers}


def _read_untagged(group: Entries, frames: Frames, doubtful: Bools) -> _Read:
    """Numbers that each have a tag, where that holds for all lists."""
    if not group.packed.any():
        encoded = _gather(frames, np.uint8, group.starts, group.sizes)
        if group.kinds[0] == FLOAT_LIST:
            counts, rests = np.divmod(group.sizes, 5)
        else:
            starts = np.cumsum(group.sizes) - group.sizes
            counts, rests = np.divmod(np.add.reduceat(encoded < 0x80, starts, dtype=np.int64), 2)
        values = None if rests.any() else untagged(encoded, int(group.kinds[0]))
        if values is not None:
            return counts, {"floats" if group.kinds[0] == FLOAT_LIST else "integers": values}
    doubtful[group.rows[~group.packed]] = True
    return np.zeros(len(group.rows), np.int64), {}


def _read_bytes(group: Entries, frames: Frames, doubtful: Bools) -> _Read:
    more = np.flatnonzero(group.starts + group.sizes < group.ends)
    if not len(more):
        return np.ones(len(group.rows), np.int64), {"starts": group.starts, "sizes": group.sizes}
    lists = np.arange(len(group.rows))
    found = [(lists, group.starts, group.sizes), *_cut(group, more, frames, doubtful)]
    lists, starts, sizes = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    order = np.argsort(lists, kind="stable")
    return np.bincount(lists), {"starts": starts[order], "sizes": sizes[order]}


def _cut(group: Entries, lists: Ints, frames: Frames, doubtful: Bools) -> Iterator[tuple[Ints, Ints, Ints]]:
    """The byte strings after the first of these lists: the list's number, where each begins, and its size."""
    words = unaligned(frames, np.int64)
    positions, ends = (group.starts + group.sizes)[lists], group.ends[lists]
    while len(lists) >= _MIN_LISTS:
        tags, starts, sizes, sound = open_fields(words, positions)
        positions = starts + sizes
        sound &= (tags == FIRST_TAG) & (positions <= ends)
        doubtful[group.rows[lists[~sound]]] = True
        lists, starts, sizes, positions, ends = where(sound, lists, starts, sizes, positions, ends)
        yield lists, starts, sizes
        lists, positions, ends = where(positions < ends, lists, positions, ends)
    for number, position, end in zip(lists.tolist(), positions.tolist(), ends.tolist(), strict=True):
        try:
            starts, sizes = byte_values(memoryview(frames.buffer), [(position, end)], "")
        except ExampleError:
            doubtful[group.rows[number]] = True
        else:
            yield np.full(len(starts), number), starts, sizes


_READERS = {
    NO_KIND: _read_nothing,
    BYTES_LIST: _read_bytes,
    FLOAT_LIST: _read_floats,
    INT64_LIST: _read_integers,
}


def _gather(frames: Frames, dtype: npt.DTypeLike, starts: Ints, counts: Ints) -> npt.NDArray[Any]:
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
    return unaligned(frames, dtype)[np.repeat(starts - width * before, counts) + width * np.arange(total)]


# ---- Records parsed one by one ------------------------------------------------------------------------


def _parse_strictly(frames: Frames, rows: Ints, parts: dict[str, list[_Column]]) -> RecordError | None:
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


def _strict_column(parsed: Sequence[tuple[int, Feature]], record_starts: Ints) -> _Column:
    """One feature of records that the strict parser read."""
    rows = np.array([row for row, _ in parsed])
    features = [feature for _, feature in parsed]
    counts = [-1 if feature.kind is None else feature.count for feature in features]
    return _Column(
        rows,
        (int(rows[0]), features[0].position),
        np.array([NO_KIND if feature.kind is None else _TAGS[feature.kind] for feature in features]),
        np.array(counts),
        _one_array([feature.starts + record_starts[row] for row, feature in parsed]),
        _one_array([feature.sizes for feature in features]),
        _one_array([feature.integers for feature in features]),
        _one_array([feature.floats for feature in features]),
    )


def _one_array(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The arrays as one, aligned; a single one is copied only for that: it may be as long as a record."""
    return np.require(arrays[0], requirements="A") if len(arrays) == 1 else np.concatenate(arrays)
