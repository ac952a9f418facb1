"""Counts what a person looks at in a dataset: images and their sizes, labels that occur together, equal images.

One pass over the records, in memory that grows by sixteen bytes an image for finding equal ones, up to a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import binary_parts, valid_rows
from converters.dataset.description import Split
from converters.dataset.image_header import ENCODINGS, NO_IMAGE, ImageHeaderReader
from converters.dataset.labels import label_ranks
from converters.dataset.leaves import image_digests
from converters.dataset.schema import Column

# Of more images than this, equal ones are not looked for; each takes sixteen bytes.
MAX_COMPARED_IMAGES = 10_000_000
MAX_GROUPS = 1000
MAX_PLACES = 100
_DIGEST_BYTES = 16
MAX_UNNAMED_SETS = 1 << 12
_MAX_SIZES = 1 << 16
_BITS = 48  # of the size of an image in bytes


@dataclass(frozen=True)
class ImageCounts:
    """What the images of a split are like.

    Attributes:
        encodings: how many images have each encoding.
        sizes: how many have each height, width and depth; of very many sizes, the first that were met.
        bytes_by_power: how many have from 2^n to 2^(n+1) - 1 bytes, by n.
        total_bytes: of all images.
        least: size in bytes of the smallest, and ``most`` of the largest.
    """

    encodings: Mapping[str, int]
    sizes: Mapping[tuple[int, int, int], int]
    bytes_by_power: Mapping[int, int]
    total_bytes: int
    least: int
    most: int

    def to_json(self) -> dict[str, Any]:
        """The counts as a JSON object."""
        return {
            "encodings": dict(self.encodings),
            "sizes": [
                {"height": height, "width": width, "depth": depth, "images": images}
                for (height, width, depth), images in self.sizes.items()
            ],
            "bytes_by_power_of_two": {str(power): images for power, images in self.bytes_by_power.items()},
            "total_bytes": self.total_bytes,
            "least_bytes": self.least,
            "most_bytes": self.most,
        }


Place = tuple[str, int]
"""The title of a split, and a record in it."""


@dataclass(frozen=True)
class EqualImages:
    """Which images of a dataset are equal byte for byte; an image counts once, however often it occurs.

    Attributes:
        within: how many images occur more than once in a split, by its title.
        across: how many occur in both of two splits, by their titles; these may be of different configs.
        groups: the places of each image that one config has more than once, in the order of their first places; of
            very many in a config, the first :data:`MAX_GROUPS`, and of an image the first :data:`MAX_PLACES`.
        number: of all such groups.
    """

    within: Mapping[str, int]
    across: Mapping[tuple[str, str], int]
    groups: tuple[tuple[Place, ...], ...]
    number: int

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {
            "within": dict(self.within),
            "across": [{"splits": list(titles), "images": images} for titles, images in self.across.items()],
            "groups": [
                [{"split": title, "record": record} for title, record in group] for group in self.groups
            ],
            "number_of_groups": self.number,
        }


@dataclass(frozen=True)
class SharedClips:
    """Clips that two splits of a config share: how many, and how many images of each split are from one of them."""

    splits: tuple[str, str]
    clips: int
    images: tuple[int, int]


@dataclass
class SplitSurvey:
    """Takes in the batches of a split, and counts its images; see :class:`ImageCounts`.

    Attributes:
        split: the split.
        clips: how many images each clip has, where clips are known.
        label_sets: how many records have each set of labels, where labels have no names; None of too many sets.
    """

    split: Split
    clips: Counter[str] = field(default_factory=Counter)
    label_sets: Counter[tuple[str, ...]] | None = field(default_factory=Counter)
    _digests: list[bytes] = field(default_factory=list)
    _images: int = 0
    _reader: ImageHeaderReader = field(default_factory=ImageHeaderReader)
    _encodings: Counter[str] = field(default_factory=Counter)
    _sizes: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    _powers: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BITS, np.int64))
    _bytes: list[int] = field(default_factory=lambda: [0, 1 << _BITS, 0])

    def add(self, batch: pa.RecordBatch) -> dict[str, list[bytes]]:
        """Take the next records; the SHA-256 of each of their images, by the column, for who needs it too."""
        schema = self.split.schema
        if "clip_id" in schema.joined_names:
            self.clips.update(batch.column("clip_id").to_pylist())
        label, image = schema.label, schema.image
        if self.label_sets is not None and label is not None and not label.label_names:
            self.label_sets.update(record_labels(label, batch.column(label.name)))
            if len(self.label_sets) > MAX_UNNAMED_SETS:
                self.label_sets = None
        if image is None or not len(batch):
            return {}
        array = batch.column(image.name)
        valid = valid_rows(array)
        digests = image_digests(array)
        self._images += len(batch)
        if self._images <= MAX_COMPARED_IMAGES:
            self._digests.append(b"".join(digest[:_DIGEST_BYTES] for digest in digests))
        headers = self._reader.try_read(array)
        codes, counts = np.unique(headers.encodings[headers.encodings != NO_IMAGE], return_counts=True)
        self._encodings.update(
            {ENCODINGS[code]: count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)}
        )
        sizes, times = np.unique(headers.sizes[valid], axis=0, return_counts=True)
        for size, count in zip(map(tuple, sizes.tolist()), times.tolist(), strict=True):
            if size in self._sizes or len(self._sizes) < _MAX_SIZES:
                self._sizes[size] += count
        edges, _ = binary_parts(array)
        lengths = np.diff(edges)[valid].astype(np.int64)
        if len(lengths):
            self._powers += np.bincount(np.log2(np.maximum(lengths, 1)).astype(np.int64), minlength=_BITS)
            total, least, most = self._bytes
            self._bytes = [
                total + int(lengths.sum()),
                min(least, int(lengths.min())),
                max(most, int(lengths.max())),
            ]
        return {image.name: digests}

    def images(self) -> ImageCounts | None:
        """What the images are like; None where there are none."""
        if not self._encodings:
            return None
        powers = {power: int(count) for power, count in enumerate(self._powers) if count}
        return ImageCounts(
            dict(self._encodings.most_common()), dict(self._sizes.most_common()), powers, *self._bytes
        )


def record_labels(column: Column, array: pa.Array) -> list[tuple[str, ...]]:
    """The different labels of each record: their names in stored order; without names, their values as text."""
    if column.label_names:
        found: list[list[str]] = [[] for _ in range(len(array))]
        rows, ranks = label_ranks(column, array)
        for row, rank in zip(rows.tolist(), ranks.tolist(), strict=True):
            found[row].append(column.label_names[rank])
        return [tuple(dict.fromkeys(names)) for names in found]
    records = [
        value if isinstance(value, list) else [] if value is None else [value] for value in array.to_pylist()
    ]
    return [tuple(map(_text, sorted(set(values)))) for values in records]


def _text(value: bytes | str | float) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def equal_images(surveys: Sequence[SplitSurvey]) -> EqualImages | None:
    """The images of all splits that are equal; None where there are too many to look."""
    if sum(survey._images for survey in surveys) > MAX_COMPARED_IMAGES:
        return None
    joined = [b"".join(survey._digests) for survey in surveys]
    edges = np.cumsum([0, *(len(part) // _DIGEST_BYTES for part in joined)])
    digests = np.frombuffer(b"".join(joined), _DIGEST)
    there = np.flatnonzero(digests != _EMPTY)
    order = there[np.lexsort((there, *(digests[there][part] for part in "ba")))]
    # The number of the image at each place; of those that occur more than once, the places and numbers from 0 on.
    found = np.cumsum(digests[order] != np.roll(digests[order], 1))
    several = np.bincount(found)[found] > 1
    places, images = order[several], np.unique(found[several], return_inverse=True)[1]
    splits = np.searchsorted(edges, places, "right") - 1
    times = np.zeros((images.max(initial=-1) + 1, len(surveys)), np.int32)
    np.add.at(times, (images, splits), 1)
    has = (times > 0).astype(np.int64)
    both = has.T @ has
    titles = [survey.split.title for survey in surveys]
    configs = [survey.split.config for survey in surveys]
    groups: dict[int, list[int]] = {}
    number = 0
    for config in dict.fromkeys(configs):
        own = np.array([name == config for name in configs])
        here = own[splits] & (times[:, own].sum(axis=1) > 1)[images]
        first = np.sort(places[here][np.unique(images[here], return_index=True)[1]])
        number += len(first)
        wanted = np.isin(images, images[np.isin(places, first[:MAX_GROUPS])]) & here
        places_of: dict[int, list[int]] = {}
        for image, place in zip(images[wanted].tolist(), places[wanted].tolist(), strict=True):
            places_of.setdefault(image, []).append(place)
        groups |= {group[0]: group for group in places_of.values()}
    repeated = zip(titles, (times > 1).sum(axis=0).tolist(), strict=True)
    pairs = combinations(range(len(titles)), 2)
    return EqualImages(
        {title: count for title, count in repeated if count},
        {(titles[one], titles[other]): int(both[one, other]) for one, other in pairs if both[one, other]},
        tuple(
            tuple(_place(titles, edges, index) for index in group[:MAX_PLACES])
            for _, group in sorted(groups.items())
        ),
        number,
    )


_DIGEST = np.dtype([("a", "<u8"), ("b", "<u8")])
_EMPTY = np.frombuffer(bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb924"), _DIGEST)[0]
"""The digest of nothing, as of a record without an image."""


def _place(titles: Sequence[str], edges: npt.NDArray[np.int64], index: int) -> Place:
    number = int(np.searchsorted(edges, index, "right")) - 1
    return titles[number], index - int(edges[number])


def shared_clips(surveys: Sequence[SplitSurvey]) -> tuple[SharedClips, ...]:
    """The clips that two splits of one config share, where clips are known."""
    return tuple(
        SharedClips(
            (one.split.title, other.split.title),
            len(both := one.clips.keys() & other.clips.keys()),
            (sum(one.clips[clip] for clip in both), sum(other.clips[clip] for clip in both)),
        )
        for number, one in enumerate(surveys)
        for other in surveys[number + 1 :]
        if one.clips and other.clips and one.split.config == other.split.config
    )
