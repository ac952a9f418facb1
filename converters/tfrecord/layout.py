"""Parses many Examples at once.

Records of one writer share one layout: the same features in the same order, so that only the image, its
size, the label values and a few numbers differ. A :class:`Layout` is learnt from one record that the strict
parser accepted; NumPy then checks, for a whole batch, that every other byte of every record is the same, and
that every length prefix says what the record's size demands. What it accepts, the strict parser accepts with
the same result; what differs goes to the strict parser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from converters.spec import Features
from converters.tfrecord.example import Example, ExampleError, Feature, parse_example
from converters.tfrecord.framing import Frames

# Writers with per-record feature orders have at most 5! = 120; after this many, the strict parser takes over.
MAX_LAYOUTS = 128

_INT32 = range(-(1 << 31), 1 << 31)


class RecordError(ValueError):
    """Record ``row`` of the frames is not what the dataset's description says; ``position`` is a byte in it."""

    def __init__(self, row: int, message: str, position: int) -> None:
        super().__init__(message)
        self.row = row
        self.message = message
        self.position = position


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
        image_start, image_end = image.spans[0]
        parsed.image_starts[row] = start + image_start
        parsed.image_sizes[row] = image_end - image_start
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
        if feature.integers[0] not in _INT32:
            raise ExampleError(f"the feature {name!r} is {feature.integers[0]}, which is no image size", 0)
    return found


@dataclass(frozen=True)
class _Place:
    """Bytes of fixed number in the prefix or suffix of a layout."""

    in_prefix: bool
    position: int
    width: int


@dataclass(frozen=True)
class Layout:
    """Where everything stands in the records of one writer.

    A record is a prefix of fixed size, the image, and a suffix of fixed size.

    Attributes:
        prefix: uint8, the learnt record's bytes before its image; likewise ``suffix`` after it.
        prefix_fixed: bool, which bytes of the prefix are the same in every record; likewise ``suffix_fixed``.
        lengths: the length prefixes of all that encloses the image, and by how much each exceeds its size.
        label: whether the label values stand in the prefix, where there, and how many they are.
        scalars: where height, width and depth stand.
    """

    prefix: npt.NDArray[np.uint8]
    suffix: npt.NDArray[np.uint8]
    prefix_fixed: npt.NDArray[np.bool_]
    suffix_fixed: npt.NDArray[np.bool_]
    lengths: tuple[tuple[_Place, int], ...]
    label: _Place
    scalars: tuple[_Place, ...]

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
        image_start, image_end = image.spans[0]
        packed = [feature.packed for feature in (label, *scalars)]
        if None in packed or any(end - start > 4 for start, end in packed[1:]):  # type: ignore[misc]
            return None
        # Copies: a view would keep the whole record, which may be large.
        prefix = np.frombuffer(bytes(data[:image_start]), np.uint8)
        suffix = np.frombuffer(bytes(data[image_end:]), np.uint8)
        prefix_fixed, suffix_fixed = np.ones(len(prefix), np.bool_), np.ones(len(suffix), np.bool_)

        def varint(start: int, end: int) -> _Place:
            in_prefix = end <= image_start
            place = _Place(in_prefix, start if in_prefix else start - image_end, end - start)
            fixed = prefix_fixed if in_prefix else suffix_fixed
            fixed[place.position : place.position + place.width] = False
            return place

        lengths = tuple(
            (varint(length.position, length.start), length.end - length.start - (image_end - image_start))
            for length in example.lengths
            if length.start <= image_start and length.end >= image_end
        )
        label_place, *scalar_places = (varint(*span) for span in packed)  # type: ignore[misc]
        return cls(
            prefix,
            suffix,
            prefix_fixed,
            suffix_fixed,
            lengths,
            label_place,
            tuple(scalar_places),
        )

    def fill(
        self,
        parsed: Parsed,
        rows: npt.NDArray[np.int64],
        buffer: npt.NDArray[np.uint8],
        frames: Frames,
    ) -> npt.NDArray[np.bool_]:
        """Fill in those of ``rows`` whose records have this layout; bool, which ones did."""
        before, after = len(self.prefix), len(self.suffix)
        starts, sizes = frames.starts[rows], frames.sizes[rows]
        image_sizes = sizes - before - after
        matches = image_sizes >= 0
        # Rows too short to hold prefix and suffix are masked; clipping keeps the gather inside the buffer.
        prefix = _gather(buffer, np.minimum(starts, len(buffer) - before), before)
        suffix = _gather(buffer, np.maximum(starts + sizes - after, 0), after)
        matches &= (prefix[:, self.prefix_fixed] == self.prefix[self.prefix_fixed]).all(axis=1)
        matches &= (suffix[:, self.suffix_fixed] == self.suffix[self.suffix_fixed]).all(axis=1)
        for place, excess in self.lengths:
            matches &= _encodes(_at(place, prefix, suffix), image_sizes + excess)
        labels = _at(self.label, prefix, suffix)
        matches &= (labels <= 1).all(axis=1)
        scalars = []
        for place in self.scalars:
            value = _decode(_at(place, prefix, suffix))
            matches &= _encodes(_at(place, prefix, suffix), value)
            scalars.append(value)
        filled = rows[matches]
        parsed.image_starts[filled] = starts[matches] + before
        parsed.image_sizes[filled] = image_sizes[matches]
        parsed.labels[filled] = labels[matches]
        parsed.sizes[filled] = np.stack(scalars, axis=1)[matches]
        return matches


def _gather(
    buffer: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], width: int
) -> npt.NDArray[np.uint8]:
    """uint8, shape (records, width): the bytes of the buffer from each start on."""
    if width == 0 or width > len(buffer):
        return np.zeros((len(starts), width), np.uint8)
    return sliding_window_view(buffer, width)[starts]


def _at(place: _Place, prefix: npt.NDArray[np.uint8], suffix: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    side = prefix if place.in_prefix else suffix
    return side[:, place.position : place.position + place.width]


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
