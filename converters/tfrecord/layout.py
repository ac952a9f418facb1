"""Parses many Examples at once.

Records of one writer are alike: the same features, each in the same bytes but for the image, its size, the label
values and a few numbers. Only their order may differ from record to record, for a protobuf map has none. A
:class:`Layout` is learnt from one record that the strict parser accepted; NumPy then finds, for a whole batch,
which feature comes where, and checks that every other byte is the same, and that every length prefix says what
the record's size demands. What it accepts, the strict parser accepts with the same result; what differs goes to
the strict parser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from converters.spec import Features
from converters.tfrecord.batch_parser import RecordError as RecordError
from converters.tfrecord.example import Example, ExampleError, Feature, parse_example
from converters.tfrecord.framing import Frames

# Layouts differ in how many bytes a length or a size takes, so a dataset has a few; after this many, the strict
# parser takes over.
MAX_LAYOUTS = 32

_FEATURES = _IMAGE, _LABEL, *_SIZES = range(5)
_HEAD_TAG = 0x0A

_INT32 = range(-(1 << 31), 1 << 31)


@dataclass(frozen=True)
class Parsed:
    """What the records of some frames hold, one row each.

    Attributes:
        image_starts: int64, where in the frames' buffer each image lies.
        image_sizes: int64, length of each image in bytes.
        labels: uint8, shape (records, labels), 0 or 1.
        sizes: int32, shape (records, 3): height, width, depth.
    """

    image_starts: npt.NDArray[np.int64]
    image_sizes: npt.NDArray[np.int64]
    labels: npt.NDArray[np.uint8]
    sizes: npt.NDArray[np.int32]

    @classmethod
    def empty(cls, count: int, label_count: int) -> Self:
        """Room for ``count`` records, to be filled in."""
        return cls(
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.zeros((count, label_count), np.uint8),
            np.zeros((count, 3), np.int32),
        )


class ExampleParser:
    """Parses the records of one dataset; keeps the layouts it has learnt."""

    def __init__(self, features: Features, label_count: int) -> None:
        self._features = features
        self._label_count = label_count
        self._layouts: list[Layout] = []

    def parse(self, frames: Frames) -> Parsed:
        """Parse all records of ``frames``.

        Raises:
            RecordError: a record is malformed or not what the description says; the first such record.
        """
        parsed = Parsed.empty(len(frames.starts), self._label_count)
        buffer = np.frombuffer(frames.buffer, np.uint8)
        rows = np.arange(len(frames.starts))
        for layout in self._layouts:
            rows = rows[~layout.fill(parsed, rows, buffer, frames)]
            if not len(rows):
                return parsed
        while len(rows):
            row, rows = int(rows[0]), rows[1:]
            layout_or_none = self._parse_one(parsed, row, frames)
            if layout_or_none is not None and len(self._layouts) < MAX_LAYOUTS:
                self._layouts.append(layout_or_none)
                rows = rows[~layout_or_none.fill(parsed, rows, buffer, frames)]
        return parsed

    def _parse_one(self, parsed: Parsed, row: int, frames: Frames) -> Layout | None:
        """Parse one record strictly into its row; the layout it has, if one can be learnt."""
        start = int(frames.starts[row])
        data = frames.data(row)
        try:
            example = parse_example(data)
            image, label, *scalars = _expected(example, self._features, self._label_count)
        except ExampleError as error:
            raise RecordError(row, f"{error.message}.", error.position) from None
        parsed.image_starts[row] = start + image.starts[0]
        parsed.image_sizes[row] = image.sizes[0]
        parsed.labels[row] = label.integers
        parsed.sizes[row] = [scalar.integers[0] for scalar in scalars]
        return Layout.learn(data, example, image, label, scalars)


def _expected(example: Example, features: Features, label_count: int) -> list[Feature]:
    """The features image, label, height, width, depth, each of the right kind and length."""
    names = features.names()
    kinds = ("bytes_list", "int64_list", "int64_list", "int64_list", "int64_list")
    counts = (1, label_count, 1, 1, 1)
    found = []
    for name, kind, count in zip(names, kinds, counts, strict=True):
        feature = example.features.get(name)
        if feature is None:
            have = ", ".join(map(repr, example.features)) or "none"
            raise ExampleError(f"the feature {name!r} is missing; the record has {have}", 0)
        if feature.kind != kind:
            raise ExampleError(f"the feature {name!r} is a {feature.kind}, expected a {kind}", 0)
        if feature.count != count:
            raise ExampleError(f"the feature {name!r} has {feature.count} values, expected {count}", 0)
        found.append(feature)
    if len(example.features) > len(names):
        extra = next(name for name in example.features if name not in names)
        raise ExampleError(f"the feature {extra!r} is not in the dataset's description and would be lost", 0)
    if not set(found[1].integers) <= {0, 1}:
        wrong = next(value for value in found[1].integers if value not in (0, 1))
        raise ExampleError(f"the feature {names[1]!r} has the value {wrong}, expected 0 or 1", 0)
    for name, feature in zip(names[2:], found[2:], strict=True):
        if int(feature.integers[0]) not in _INT32:
            raise ExampleError(f"the feature {name!r} is {feature.integers[0]}, which is no image size", 0)
    return found


@dataclass(frozen=True)
class _Entry:
    """How one feature stands in the records: its entry in the map, up to the image where it holds that.

    Attributes:
        feature: which one it is.
        template: uint8, the learnt record's bytes; ``fixed`` is 255 where they are the same in every record, else 0.
        values: where the label values or the number stand in it; empty for the image, which comes after it.
        lengths: where the length prefixes of all that encloses the image stand, and by how much each exceeds the
            image's size; none for the others, whose lengths are the same in every record.
    """

    feature: int
    template: npt.NDArray[np.uint8]
    fixed: npt.NDArray[np.uint8]
    values: slice
    lengths: tuple[tuple[slice, int], ...]

    @classmethod
    def learn(cls, data: bytes | memoryview, example: Example, feature: int, span: tuple[int, int]) -> _Entry:
        """The entry of a parsed record whose image, or whose packed values, lie at ``span``."""
        start, end = span
        # The first length is that of all features; the strict parser saw to it that an entry ends with its values.
        enclosing = [length for length in example.lengths[1:] if length.start <= start and length.end >= end]
        entry_start = enclosing[0].position - 1
        # A copy: a view would keep the whole record, which may be large.
        template = np.frombuffer(bytes(data[entry_start : start if feature == _IMAGE else end]), np.uint8)
        fixed = np.full(len(template), 255, np.uint8)
        values = slice(start - entry_start, len(template))
        fixed[values] = 0
        lengths = []
        for length in enclosing if feature == _IMAGE else ():
            place = slice(length.position - entry_start, length.start - entry_start)
            fixed[place] = 0
            lengths.append((place, length.end - length.start - (end - start)))
        return cls(feature, template, fixed, values, tuple(lengths))


@dataclass(frozen=True)
class Layout:
    """What the records of one writer have in common.

    A record is a head, which tells the length of the rest, and an entry for each feature, in any order.

    Attributes:
        head_bytes: size of the head.
        entries: the features, in the order in which the learnt record has them.
        other_bytes: size of a record without its image.
    """

    head_bytes: int
    entries: tuple[_Entry, ...]
    other_bytes: int

    @classmethod
    def learn(
        cls,
        data: bytes | memoryview,
        example: Example,
        image: Feature,
        label: Feature,
        scalars: list[Feature],
    ) -> Layout | None:
        """The layout of a parsed record, or None where its numbers are not packed or too long to be sizes."""
        spans = [(int(image.starts[0]), int(image.starts[0] + image.sizes[0]))]
        for feature in (label, *scalars):
            if feature.packed is None:
                return None
            spans.append(feature.packed)
        if any(end - start > 4 for start, end in spans[2:]):
            return None
        in_order = sorted(_FEATURES, key=lambda feature: spans[feature])
        entries = tuple(_Entry.learn(data, example, feature, spans[feature]) for feature in in_order)
        head_bytes = example.lengths[0].start
        return cls(head_bytes, entries, head_bytes + sum(len(entry.template) for entry in entries))

    def fill(
        self,
        parsed: Parsed,
        rows: npt.NDArray[np.int64],
        buffer: npt.NDArray[np.uint8],
        frames: Frames,
    ) -> npt.NDArray[np.bool_]:
        """Fill in those of ``rows`` whose records have this layout; bool, which ones did."""
        long_enough = frames.sizes[rows] >= self.other_bytes
        tried = rows[long_enough]
        starts, sizes = frames.starts[tried], frames.sizes[tried]
        image_sizes = sizes - self.other_bytes
        heads = _gather(buffer, starts, self.head_bytes)
        matches = (heads[:, 0] == _HEAD_TAG) & _encodes(heads[:, 1:], sizes - self.head_bytes)
        image_starts, found = self._find(matches, starts, sizes, buffer)
        image, label = found[_IMAGE], found[_LABEL]
        for place, excess in self._entry(_IMAGE).lengths:
            matches &= _encodes(image[:, place], image_sizes + excess)
        labels = label[:, self._entry(_LABEL).values]
        matches &= (labels <= 1).all(axis=1)
        scalars = []
        for feature in _SIZES:
            encoded = found[feature][:, self._entry(feature).values]
            scalars.append(_decode(encoded))
            matches &= _encodes(encoded, scalars[-1])
        filled = tried[matches]
        parsed.image_starts[filled] = image_starts[matches]
        parsed.image_sizes[filled] = image_sizes[matches]
        parsed.labels[filled] = labels[matches]
        parsed.sizes[filled] = np.stack(scalars, axis=1)[matches]
        long_enough[long_enough] = matches
        return long_enough

    def _entry(self, feature: int) -> _Entry:
        return next(entry for entry in self.entries if entry.feature == feature)

    def _find(
        self,
        matches: npt.NDArray[np.bool_],
        starts: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
        buffer: npt.NDArray[np.uint8],
    ) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.uint8]]]:
        """Find each feature of each record once, whatever their order.

        Args:
            matches: the records to look at; set to false where one has anything else than these features.
            starts: where each record begins in ``buffer``.
            sizes: how long it is; at least ``other_bytes``.
            buffer: the bytes.

        Returns:
            Where each image begins, and for each feature the bytes of its entry, one row each.
        """
        image_starts = np.zeros(len(starts), np.int64)
        found = [np.empty((0, 0), np.uint8)] * len(self.entries)
        for entry in self.entries:
            found[entry.feature] = np.zeros((len(starts), len(entry.template)), np.uint8)
        missing = np.ones((len(self.entries), len(starts)), np.bool_)
        positions, ends = starts + self.head_bytes, starts + sizes
        for step in range(len(self.entries)):
            unknown = matches.copy()
            # Most likely, this record has them in the order of the learnt one.
            for entry in self.entries[step:] + self.entries[:step]:
                width = len(entry.template)
                rows = np.flatnonzero(unknown & missing[entry.feature] & (positions + width <= ends))
                if not len(rows):
                    continue
                there = _gather(buffer, positions[rows], width)
                same = ~((there ^ entry.template) & entry.fixed).any(axis=1)
                if not same.all():
                    rows, there = rows[same], there[same]
                if len(rows) == len(starts):
                    found[entry.feature] = there
                else:
                    found[entry.feature][rows] = there
                unknown[rows] = missing[entry.feature, rows] = False
                positions[rows] += width
                if entry.feature == _IMAGE:
                    image_starts[rows] = positions[rows]
                    positions[rows] += sizes[rows] - self.other_bytes
            matches &= ~unknown
        return image_starts, found


def _gather(
    buffer: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], width: int
) -> npt.NDArray[np.uint8]:
    """uint8, shape (records, width): the bytes of the buffer from each start on."""
    if not len(starts):
        return np.zeros((0, width), np.uint8)
    return sliding_window_view(buffer, width)[starts]


def _decode(encoded: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """int64, the value of each row's varint."""
    shifts = 7 * np.arange(encoded.shape[1])
    return ((encoded & 0x7F).astype(np.int64) << shifts).sum(axis=1)


def _encodes(encoded: npt.NDArray[np.uint8], values: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """bool, whether each row is the one accepted encoding of its value."""
    width = encoded.shape[1]
    shifts = 7 * np.arange(width)
    expected = (values[:, None] >> shifts) & 0x7F
    expected[:, :-1] |= 0x80
    smallest = 0 if width == 1 else 1 << 7 * (width - 1)
    in_range = (values >= smallest) & (values < 1 << 7 * width)
    return np.asarray(in_range & (encoded == expected).all(axis=1))
