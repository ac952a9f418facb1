"""Counts what a person looks at in a dataset: images and their sizes, labels that occur together, equal images.

One pass over the records, in memory that grows by sixteen bytes an image for finding equal ones, up to a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import binary_parts, valid_rows
from converters.dataset.description import Split
from converters.dataset.image_header import ENCODINGS, NO_IMAGE, ImageHeaderReader
from converters.dataset.leaves import image_digests

# Of more images than this, equal ones are not looked for; each takes sixteen bytes.
MAX_COMPARED_IMAGES = 10_000_000
_DIGEST_BYTES = 16
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


@dataclass(frozen=True)
class EqualImages:
    """Images that are equal byte for byte: each as the title of its split and its record."""

    places: tuple[tuple[str, int], ...]

    @property
    def across(self) -> bool:
        """Whether they are in more than one split."""
        return len({title for title, _ in self.places}) > 1


@dataclass
class SplitSurvey:
    """Takes in the batches of a split, and counts its images; see :class:`ImageCounts`."""

    split: Split
    digests: list[bytes] = field(default_factory=list)
    clips: set[str] = field(default_factory=set)
    _reader: ImageHeaderReader = field(default_factory=ImageHeaderReader)
    _encodings: Counter[str] = field(default_factory=Counter)
    _sizes: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    _powers: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BITS, np.int64))
    _bytes: list[int] = field(default_factory=lambda: [0, 1 << _BITS, 0])

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next records."""
        if "clip_id" in self.split.schema.joined_names:
            self.clips.update(batch.column("clip_id").to_pylist())
        image = self.split.schema.image
        if image is None or not len(batch):
            return
        array = batch.column(image.name)
        valid = valid_rows(array)
        self.digests.append(b"".join(digest[:_DIGEST_BYTES] for digest in image_digests(array)))
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

    def images(self) -> ImageCounts | None:
        """What the images are like; None where there are none."""
        if not self._encodings:
            return None
        powers = {power: int(count) for power, count in enumerate(self._powers) if count}
        return ImageCounts(
            dict(self._encodings.most_common()), dict(self._sizes.most_common()), powers, *self._bytes
        )


def equal_images(surveys: Sequence[SplitSurvey]) -> list[EqualImages] | None:
    """The images of one config that are equal, in the order of their first places; None where there are too many."""
    joined = [b"".join(survey.digests) for survey in surveys]
    number = sum(map(len, joined)) // _DIGEST_BYTES
    if number > MAX_COMPARED_IMAGES:
        return None
    if not number:
        return []
    digests = np.frombuffer(b"".join(joined), np.dtype([("a", "<u8"), ("b", "<u8")]))
    order = np.lexsort((np.arange(number), digests["b"], digests["a"]))
    same = digests[order][1:] == digests[order][:-1]
    edges = np.cumsum([0, *(len(part) // _DIGEST_BYTES for part in joined)])
    groups = [group for group in _runs(order, same) if not _empty(digests[group[0]])]
    places = [
        EqualImages(tuple(_place(surveys, edges, index) for index in group)) for group in sorted(groups)
    ]
    return places


_EMPTY = np.frombuffer(
    bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb924"), np.dtype([("a", "<u8"), ("b", "<u8")])
)[0]


def _empty(digest: Any) -> bool:  # noqa: ANN401  # a NumPy record
    """Whether a digest is that of nothing, as of a record without an image."""
    return bool(digest == _EMPTY)


def _runs(order: npt.NDArray[np.int64], same: npt.NDArray[np.bool_]) -> Iterator[list[int]]:
    """The runs of equal neighbours, each as indices."""
    starts = np.flatnonzero(same & ~np.concatenate([[False], same[:-1]]))
    for start in starts.tolist():
        end = start + 1
        while end < len(same) and same[end]:
            end += 1
        yield order[start : end + 1].tolist()


def _place(surveys: Sequence[SplitSurvey], edges: npt.NDArray[np.int64], index: int) -> tuple[str, int]:
    number = int(np.searchsorted(edges, index, "right")) - 1
    return surveys[number].split.title, index - int(edges[number])


def shared_clips(surveys: Sequence[SplitSurvey]) -> dict[tuple[str, str], int]:
    """How many clips two splits of one config share, by the titles of the splits, where any are known."""
    return {
        (one.split.title, other.split.title): len(one.clips & other.clips)
        for number, one in enumerate(surveys)
        for other in surveys[number + 1 :]
        if one.clips and other.clips
    }
