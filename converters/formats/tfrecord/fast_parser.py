"""Parses the Examples of many records at once, whatever their features.

NumPy finds where every feature of every record lies (:mod:`converters.formats.tfrecord.entry_walk`). Then, feature by
feature and in the order of the records, the values are gathered: integers are decoded, floats copied, byte strings
located.

Nothing is known of a dataset beforehand, and nothing is kept from one batch to the next. A record that differs in any
way from what is expected goes to the strict parser (:mod:`converters.formats.tfrecord.strict_parser`), which reads it
or says what is wrong with it. So do long records, and records of which there are too few for a step to pay. What is
accepted here, the strict parser accepts with the same values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.formats.tfrecord.entry_walk import (
    NO_KIND,
    Bools,
    Entries,
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
    Ints,
    Values,
    byte_values,
    decode_varints,
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

_ARRAYS = ("starts", "sizes", "integers", "floats")


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


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureValues(Values):
    """The values that one feature has in the records of some frames, record by record; all arrays are contiguous.

    Byte strings begin in the frames' buffer. The kind is None where no record sets one.

    Attributes:
        counts: int64, number of values in each record; -1 where the feature is absent or has no kind.
    """

    counts: Ints


@dataclass(frozen=True, eq=False, kw_only=True)
class _Part(FeatureValues):
    """The same in some of the records, in which the feature is of one kind.

    Attributes:
        rows: int64, the records, in ascending order.
        first: the first of these, and a number that rises from one feature of that record to the next.
    """

    rows: Ints
    first: tuple[int, int]


_Parts = dict[str, list[_Part]]


class BatchParser:
    """Parses the records of a dataset, some frames at a time.

    Args:
        ignored: features that are left out; they may even have two kinds.
    """

    def __init__(self, ignored: Collection[str] = ()) -> None:
        self._ignored = frozenset(ignored)

    def parse(self, frames: Frames) -> dict[str, FeatureValues]:
        """The values of each feature by its name, in the order in which the features are first met.

        Raises:
            RecordError: a record is malformed, or the records have more than ``MAX_FEATURES`` features.
            KindError: a feature has two kinds. Of several errors, that of the first record is raised.
        """
        parts: _Parts = {}
        doubtful = np.zeros(len(frames.starts), np.bool_)
        for start in range(0, len(doubtful), _MAX_RECORDS):
            _parse_in_step(frames, range(start, min(start + _MAX_RECORDS, len(doubtful))), doubtful, parts)
        errors = _parse_strictly(frames, np.flatnonzero(doubtful), parts)
        names = sorted(parts.keys() - self._ignored, key=lambda name: min(part.first for part in parts[name]))
        if len(names) > MAX_FEATURES:
            name, row = names[MAX_FEATURES], min(part.first for part in parts[names[MAX_FEATURES]])[0]
            message = f"with {name!r} the records have more than {MAX_FEATURES} features."
            errors.append(RecordError(row, message, _position(name, row, frames)))
        errors += [error for name in names for error in _two_kinds(name, parts[name], frames)]
        if errors:
            raise min(errors, key=lambda error: (error.row, error.position))
        return {name: _joined(parts[name], len(doubtful)) for name in names}


def _two_kinds(name: str, parts: Sequence[_Part], frames: Frames) -> Iterator[KindError]:
    kinds = sorted((part.first[0], part.kind) for part in parts if part.kind is not None)
    for row, kind in kinds:
        if kind != kinds[0][1]:
            yield KindError(row, _position(name, row, frames), name, kind, *kinds[0])
            break


def _position(name: str, row: int, frames: Frames) -> int:
    """Where a feature stands in a sound record."""
    return parse_example(_data(frames, row))[name].position


def _data(frames: Frames, row: int) -> memoryview:
    """A record's bytes, which are not copied."""
    start = int(frames.starts[row])
    return memoryview(frames.buffer)[start : start + int(frames.sizes[row])]


def _joined(parts: Sequence[_Part], records: int) -> FeatureValues:
    """What the parts say of one feature, of as many records as the frames have."""
    counts = np.full(records, -1)
    for part in parts:
        counts[part.rows] = part.counts
    filled = [part for part in parts if part.kind] or parts[:1]
    arrays = {name: [getattr(part, name) for part in filled] for name in _ARRAYS}
    if len(filled) == 1:
        return FeatureValues(
            kind=filled[0].kind, counts=counts, **{name: one for name, (one,) in arrays.items()}
        )
    joined = {name: np.concatenate(several) for name, several in arrays.items()}
    rows = np.concatenate([np.repeat(part.rows, part.counts) for part in filled])
    if (rows[1:] < rows[:-1]).any():
        order = np.argsort(rows, kind="stable")
        joined = {name: array[order] if len(array) else array for name, array in joined.items()}
    return FeatureValues(kind=filled[0].kind, counts=counts, **joined)


# ---- Many records at once -----------------------------------------------------------------------------


def _parse_in_step(frames: Frames, rows: range, doubtful: Bools, parts: _Parts) -> None:
    """Add the features of these records to ``parts``, except those of records that it marks as doubtful."""
    if len(rows) < _MIN_RECORDS:
        doubtful[rows.start : rows.stop] = True
        return
    entries = find_entries(frames, rows, doubtful)
    doubts = -1
    while doubts < doubtful.sum():
        doubts = int(doubtful.sum())
        entries = {name: group.where(~doubtful[group.rows]) for name, group in entries.items()}
        found = {
            name: [*_read(group, frames, doubtful)] for name, group in entries.items() if len(group.rows)
        }
    for name, several in found.items():
        parts.setdefault(name, []).extend(several)


def _read(group: Entries, frames: Frames, doubtful: Bools) -> Iterator[_Part]:
    """The values of one feature by kind; marks records whose values are not sound, and then means nothing."""
    for kind in set(group.kinds.tolist()):
        some = group.where(group.kinds == kind)
        first = int(some.rows[0]), int(some.ends[0])
        counts, values = _READERS[kind](some, frames, doubtful)
        yield _Part(kind=KINDS.get(kind), counts=counts, rows=some.rows, first=first, **values)


_Read = tuple[Ints, dict[str, npt.NDArray[Any]]]


def _read_nothing(group: Entries, frames: Frames, doubtful: Bools) -> _Read:
    return np.full(len(group.rows), -1), {}


def _read_floats(group: Entries, frames: Frames, doubtful: Bools) -> _Read:
    if group.tagged.any():
        return _read_tagged(group, frames, doubtful)
    counts = group.sizes >> 2
    return counts, {"floats": _gather(frames, np.uint32, group.starts, counts).view(np.float32)}


def _read_integers(group: Entries, frames: Frames, doubtful: Bools) -> _Read:
    if group.tagged.any():
        return _read_tagged(group, frames, doubtful)
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


def _read_tagged(group: Entries, frames: Frames, doubtful: Bools) -> _Read:
    """Numbers of lists in which each has a tag; where that does not hold for all lists, they are doubtful."""
    encoded = _gather(frames, np.uint8, group.starts, group.sizes)
    if group.kinds[0] == FLOAT_LIST:
        counts, rests = np.divmod(group.sizes, 5)
    else:
        edges = np.concatenate([[0], np.cumsum(group.sizes)])
        counts, rests = np.divmod(np.diff(np.concatenate([[0], np.cumsum(encoded < 0x80)])[edges]), 2)
    if (group.tagged | ~group.filled).all() and not rests.any():
        values = untagged(encoded, int(group.kinds[0]))
        if values is not None:
            return counts, {"floats" if group.kinds[0] == FLOAT_LIST else "integers": values}
    doubtful[group.rows[group.tagged]] = True
    return counts, {}


def _read_bytes(group: Entries, frames: Frames, doubtful: Bools) -> _Read:
    lists = np.flatnonzero(group.filled)
    more = np.flatnonzero(group.starts + group.sizes < group.ends)
    if len(lists) == len(group.rows) and not len(more):
        return np.ones(len(lists), np.int64), {"starts": group.starts, "sizes": group.sizes}
    found = [(lists, group.starts[lists], group.sizes[lists]), *_cut(group, more, frames, doubtful)]
    lists, starts, sizes = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    order = np.argsort(lists, kind="stable")
    return np.bincount(lists, minlength=len(group.rows)), {"starts": starts[order], "sizes": sizes[order]}


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


def _parse_strictly(frames: Frames, rows: Ints, parts: _Parts) -> list[RecordError]:
    """Add the features of these records to ``parts``, up to a record that is refused; returns why it is."""
    errors = []
    found: dict[str, dict[FeatureKind | None, list[tuple[int, Feature]]]] = {}
    for row in rows.tolist():
        try:
            features = parse_example(_data(frames, row))
        except ExampleError as refused:
            errors.append(RecordError(row, f"{refused.message}.", refused.position))
            break
        for name, feature in features.items():
            found.setdefault(name, {}).setdefault(feature.kind, []).append((row, feature))
        if len(found) > MAX_FEATURES:
            break
    for name, by_kind in found.items():
        for kind, parsed in by_kind.items():
            parts.setdefault(name, []).append(_strict_part(kind, parsed, frames.starts))
    return errors


def _strict_part(kind: FeatureKind | None, parsed: Sequence[tuple[int, Feature]], starts: Ints) -> _Part:
    """One feature of records that the strict parser read."""
    features = [feature for _, feature in parsed]
    return _Part(
        kind=kind,
        rows=np.array([row for row, _ in parsed]),
        first=(parsed[0][0], features[0].position),
        counts=np.array([-1 if kind is None else feature.count for feature in features]),
        starts=_one_array([feature.starts + starts[row] for row, feature in parsed]),
        sizes=_one_array([feature.sizes for feature in features]),
        integers=_one_array([feature.integers for feature in features]),
        floats=_one_array([feature.floats for feature in features]),
    )


def _one_array(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The arrays as one, aligned; a single one is copied only for that: it may be as long as a record."""
    return np.require(arrays[0], requirements="A") if len(arrays) == 1 else np.concatenate(arrays)
