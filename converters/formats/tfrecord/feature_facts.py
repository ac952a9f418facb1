"""What all records show of each feature: kinds, numbers of values, and which roles every value bears out.

Memory does not grow with the records, but for eight bytes a record and candidate for a file name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import binary_parts
from converters.dataset.description import can_name_label
from converters.dataset.filenames import folded, plain_lines, unsafe_name
from converters.dataset.image_header import ENCODINGS, NO_IMAGE, ImageHeaderReader
from converters.dataset.image_names import IMAGE_SUFFIXES, stem_of
from converters.dataset.labels import UNLABELLED
from converters.dataset.schema import SIZES, Role
from converters.errors import DataError, Location
from converters.formats.tfrecord.columns import row_of, values_array
from converters.formats.tfrecord.fast_parser import FeatureValues
from converters.formats.tfrecord.file_names import split_words
from converters.formats.tfrecord.framing import Frames
from converters.formats.tfrecord.strict_parser import MAX_FEATURES, FeatureKind

MAX_LABELS = 10_000
_MAX_FILE_NAMES = 20_000_000
_MAX_NAME_BYTES = 1000  # of a label
_ENOUGH = 1000  # values after which a role that most of them contradict is not looked at any more

# Which bytes ask for a closer look: all but ASCII without control characters; tab and line breaks are text.
_TEXT_BYTES = ~np.isin(np.arange(256), [9, 10, 13, *range(32, 127)])
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_SIZE_WORDS: Mapping[Role, frozenset[str]] = {
    "height": frozenset({"height", "rows", "h"}),
    "width": frozenset({"width", "cols", "columns", "w"}),
    "depth": frozenset({"depth", "channels", "channel", "c"}),
}
# What a name must have that speaks of a split.
_SPLIT_WORDS = ("train", "val", "dev", "test")
_IMAGE_SUFFIX = re.compile(rf"(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})\n")
_FILE_NAMES = ("filename", "file_name", "fname", "image_name", "img_name", "image_filename", "file", "name", "image_id",
               "img_id", "image_key", "source_id", "id", "key")  # fmt: skip

Locate = Callable[[int], Location]
_Ints = npt.NDArray[np.int64]


class TwoKindsError(DataError):
    """A feature is of one kind in a record and of another in an earlier one."""

    def __init__(
        self, name: str, kind: FeatureKind, at: Location, other: FeatureKind, first: Location | None
    ) -> None:
        super().__init__(
            f"the feature {name!r} is of kind {kind} here, and of kind {other} in {first}; no column fits both.",
            at,
            f"Nothing is damaged. --without {name} leaves the feature out.",
        )
        self.name = name
        self.kind = kind


@dataclass
class Claim:
    """A role that values bear out, or do not.

    Attributes:
        borne: how many values do.
        against: how many do not.
        first: the first that does not.
        found: what it is.
    """

    borne: int = 0
    against: int = 0
    first: Location | None = None
    found: str = ""

    def add(self, sound: npt.NDArray[np.bool_], locate: Locate, words: Callable[[int], str]) -> None:
        """Take one value a record; ``locate`` and ``words`` take the number of a value."""
        wrong = np.flatnonzero(~sound)
        self.borne += len(sound) - len(wrong)
        self.against += len(wrong)
        if len(wrong) and self.first is None:
            self.first, self.found = locate(int(wrong[0])), words(int(wrong[0]))

    @property
    def holds(self) -> bool:
        """Whether there are values, and all bear it out."""
        return self.borne > 0 and not self.against

    @property
    def nearly(self) -> bool:
        """Whether all but a few values bear it out."""
        return 0 < self.against <= max(1, self.borne // 10) and self.borne > self.against

    @property
    def hopeless(self) -> bool:
        """Whether it need not be looked at any more."""
        return self.against > _ENOUGH and self.against > self.borne


@dataclass
class FileNames:
    """Whether the values of a feature can name files, each within its split."""

    claim: Claim = field(default_factory=Claim)
    hashes: dict[str, list[_Ints]] = field(default_factory=dict)
    count: int = 0

    def add(self, split: str, names: list[str], locate: Locate) -> None:
        """Take the names that a batch has."""
        lines = plain_lines(names)
        if lines is not None and not any(word in lines for word in _SPLIT_WORDS):
            self.claim.borne += len(names)
            stems = _IMAGE_SUFFIX.sub("\n", lines).split("\n")[1:-1]
        else:
            stems = [stem_of(name) for name in names]
            sound = [
                not unsafe_name(name) and not split_words(stem)
                for name, stem in zip(names, stems, strict=True)
            ]
            self.claim.add(np.array(sound, np.bool_), locate, lambda row: repr(names[row][:80]))
            stems = list(map(folded, stems))
        self.hashes.setdefault(split, []).append(np.fromiter(map(hash, stems), np.int64, len(stems)))
        self.count += len(names)

    @property
    def unique(self) -> bool:
        """Whether no two are one file where case and suffix do not count."""
        for parts in self.hashes.values():
            everything = np.concatenate(parts)
            everything.sort()
            if (everything[1:] == everything[:-1]).any():
                return False
        return True


@dataclass
class FeatureFacts:
    """What the records read so far show of a feature.

    Attributes:
        name: its name.
        kind: which list holds its values; None while it was seen without one only.
        first: the first record that has it.
        present: in how many records of each split it has a kind.
        least: the least number of values of a record that has it; ``most``: the most.
        example: a value, in words.
        image: whether its values are encoded images; ``text``: whether they are UTF-8 without control characters.
        encodings: how many of its images have which encoding.
        smallest: the least height, width and depth of its images; ``largest``: the greatest.
        low: its least integer; ``high``: its greatest.
        labels: how many values have which integer; None where they are many.
        sums: least and greatest sum of the integers of one record; None where they are not all 0 or 1.
        sizes: for the role that the feature's name speaks of, whether it equals that of each feature of images.
        names: whether its values can name files; None where nothing in its name says so.
    """

    name: str
    kind: FeatureKind | None = None
    first: Location | None = None
    present: Counter[str] = field(default_factory=Counter)
    least: int = 0
    most: int = 0
    example: str = ""
    image: Claim = field(default_factory=Claim)
    text: Claim = field(default_factory=Claim)
    encodings: Counter[str] = field(default_factory=Counter)
    smallest: _Ints | None = None
    largest: _Ints | None = None
    low: int | None = None
    high: int | None = None
    labels: Counter[int] | None = field(default_factory=Counter)
    sums: tuple[int, int] | None = None
    sizes: dict[str, Claim] = field(default_factory=dict)
    names: FileNames | None = None

    @property
    def single(self) -> bool:
        """Whether every record that has it has one value."""
        return self.least == self.most == 1

    @cached_property
    def size_role(self) -> Role | None:
        """The size that the feature's name speaks of."""
        words = re.split(r"[^a-z]+", self.name.lower())
        return next((role for role in SIZES if _SIZE_WORDS[role] & set(words)), None)

    @cached_property
    def name_rank(self) -> int | None:
        """How likely the feature's name is one of file names: lower is likelier; None where it is none."""
        own = self.name.lower().rpartition("/")[2]
        return _FILE_NAMES.index(own) if own in _FILE_NAMES else None


class FactsBuilder:
    """Adds up what the batches of a config show.

    Args:
        without: features that may have two kinds; these are then ``left_out``, with one of the kinds.
    """

    def __init__(self, without: Collection[str] = ()) -> None:
        self.features: dict[str, FeatureFacts] = {}
        self.left_out: dict[str, FeatureKind] = {}
        self.without = without
        self.records: Counter[str] = Counter()
        self.pairs: dict[str, TextPairs] = {}
        self._headers: dict[str, ImageHeaderReader] = {}

    def add(self, split: str, values: Mapping[str, FeatureValues], frames: Frames, locate: Locate) -> None:
        """Take the records of some frames.

        Args:
            split: the name of their split.
            values: what the parser read.
            frames: where it did.
            locate: says where a record is.

        Raises:
            DataError: a feature is of another kind than in an earlier record, or there are too many features.
        """
        values = self._of_one_kind(values, locate)
        self.records[split] += len(frames.starts)
        if len(self.features.keys() | values.keys()) > MAX_FEATURES:
            raise DataError(f"the records have more than {MAX_FEATURES} features.", locate(0))
        texts: dict[str, pa.Array] = {}
        image_sizes: dict[str, npt.NDArray[np.int32]] = {}  # by record; 0 where there is none
        for name, found in values.items():
            facts = self.features.setdefault(name, FeatureFacts(name))
            if found.kind is None:
                continue
            at = partial(_locate_value, found, locate)
            _add_counts(facts, split, found, locate)
            if found.kind == "bytes_list":
                array = self._add_bytes(facts, split, found, frames, at, image_sizes)
                if array is not None:
                    texts[name] = array
                continue
            if not facts.example and found.counts.any():
                numbers = found.integers if found.kind == "int64_list" else found.floats
                first = found.counts[found.counts >= 0][0]
                facts.example = shown_numbers(numbers[: max(1, first)].tolist())
            if len(found.integers):
                _add_integers(facts, split, found.integers, at)
        for name, found in values.items():
            facts = self.features[name]
            if (role := facts.size_role) and facts.single and found.kind == "int64_list":
                _add_sizes(facts, SIZES.index(role), found, image_sizes, locate)
        self._add_pairs(values, texts)

    def _of_one_kind(self, values: Mapping[str, FeatureValues], locate: Locate) -> dict[str, FeatureValues]:
        """The values of features that have been of one kind so far."""
        for name, found in values.items():
            facts = self.features.get(name)
            if facts is None or facts.kind is None or found.kind in (None, facts.kind):
                continue
            if name not in self.without:
                row = int(np.argmax(found.counts >= 0))
                raise TwoKindsError(name, found.kind, locate(row), facts.kind, facts.first)
            self.left_out[name] = found.kind
        for name in self.left_out:
            self.features.pop(name, None)
        return {name: found for name, found in values.items() if name not in self.left_out}

    def _add_bytes(
        self,
        facts: FeatureFacts,
        split: str,
        found: FeatureValues,
        frames: Frames,
        at: Locate,
        image_sizes: dict[str, npt.NDArray[np.int32]],
    ) -> pa.Array | None:
        """Take byte strings and, of images, one a record, their sizes; returns them if all so far are text."""
        look = facts.single and not facts.image.hopeless
        if not len(found.sizes) or (facts.text.against and not look and facts.example):
            return None
        array = values_array(found, pa.binary(), frames)
        if look:
            headers = self._headers.setdefault(facts.name, ImageHeaderReader()).try_read(array)
            images = headers.encodings != NO_IMAGE
            facts.image.add(images, at, lambda value: shown_bytes(array[value]))
            for number in np.flatnonzero(np.bincount(headers.encodings[images], minlength=1)):
                facts.encodings[ENCODINGS[number]] += int((headers.encodings == number).sum())
            if images.any():
                image_sizes[facts.name] = np.zeros((len(found.counts), 3), np.int32)
                image_sizes[facts.name][found.counts >= 0] = headers.sizes
                so_far = [known for known in (facts.smallest, facts.largest) if known is not None]
                facts.smallest = np.min([headers.sizes[images].min(axis=0), *so_far], axis=0)
                facts.largest = np.max([headers.sizes[images].max(axis=0), *so_far], axis=0)
                if not facts.example:
                    row = int(np.argmax(images))
                    height, width, depth = headers.sizes[row].tolist()
                    facts.example = f"{ENCODINGS[headers.encodings[row]]}, {width} x {height} x {depth}"
        facts.example = facts.example or shown_bytes(array[0])
        if not facts.text.against:
            _add_text(facts.text, array, at)
        if facts.text.against:
            return None
        if facts.single and facts.name_rank is not None:
            _add_names(facts, split, array.view(pa.string()).to_pylist(), at)
        return array

    def _add_pairs(self, values: Mapping[str, FeatureValues], texts: Mapping[str, pa.Array]) -> None:
        """Take the texts that stand beside labels."""
        for name, found in values.items():
            if not name.endswith("label") or found.kind != "int64_list":
                continue
            beside = name.removesuffix("label") + "text"
            text = values.get(beside)
            pairs = self.pairs.setdefault(name, TextPairs(beside))
            counts = np.zeros(1) if text is None or text.kind != "bytes_list" else text.counts
            if (np.maximum(found.counts, 0) != np.maximum(counts, 0)).any():
                pairs.broken = True
            elif len(found.integers) and not pairs.broken:
                pairs.add(found.integers, texts.get(beside))


@dataclass
class TextPairs:
    """The texts that stand beside the labels of a feature.

    Attributes:
        feature: the one that holds the texts.
        texts: by the label.
        broken: whether a label has two texts, a text two labels, or there is one without the other.
    """

    feature: str
    texts: dict[int, bytes] = field(default_factory=dict)
    broken: bool = False

    def add(self, labels: _Ints, texts: pa.Array | None) -> None:
        """Take as many labels and texts."""
        if texts is None or int(np.diff(binary_parts(texts)[0]).max()) > _MAX_NAME_BYTES:
            self.broken = True
            self.texts.clear()
            return
        for label, text in set(zip(labels.tolist(), texts.to_pylist(), strict=True)):
            self.broken |= self.texts.setdefault(label, text) != text
        self.broken |= len(self.texts) > MAX_LABELS

    @property
    def label_names(self) -> dict[int, str] | None:
        """The names of the labels, where they are in one-to-one relation in all records; -1 is no label."""
        try:
            names = {label: text.decode() for label, text in sorted(self.texts.items())}
        except UnicodeDecodeError:
            return None
        usable = all(map(can_name_label, names.values())) and len(set(names.values())) == len(names)
        names.pop(UNLABELLED, None)
        return names if names and usable and not self.broken else None


def _locate_value(found: FeatureValues, locate: Locate, value: int) -> Location:
    """Where the record is that has a value, given by its number."""
    return locate(row_of(found, value))


def _add_counts(facts: FeatureFacts, split: str, found: FeatureValues, locate: Locate) -> None:
    counts = found.counts[found.counts >= 0]
    least, most = int(counts.min()), int(counts.max())
    if facts.kind is None:
        facts.kind, facts.first = found.kind, locate(int(np.argmax(found.counts >= 0)))
        facts.least, facts.most = least, most
    facts.least, facts.most = min(facts.least, least), max(facts.most, most)
    facts.present[split] += len(counts)


def _add_integers(facts: FeatureFacts, split: str, integers: _Ints, at: Locate) -> None:
    low, high = int(integers.min()), int(integers.max())
    facts.low, facts.high = _range(low, high, facts.low, facts.high)
    if facts.labels is not None:
        facts.labels = _counted(facts.labels, integers, low, high)
    if facts.least == facts.most > 1 and facts.low >= 0 and facts.high <= 1:
        sums = integers.reshape(-1, facts.most).sum(axis=1)
        facts.sums = _range(int(sums.min()), int(sums.max()), *(facts.sums or (None, None)))
    if facts.single and facts.name_rank is not None:
        _add_names(facts, split, list(map(str, integers.tolist())), at)


def _range(low: int, high: int, lowest: int | None, highest: int | None) -> tuple[int, int]:
    """The least and the greatest of further numbers and, where there are any, of those before."""
    return min(low, low if lowest is None else lowest), max(high, high if highest is None else highest)


def _counted(counts: Counter[int], integers: _Ints, low: int, high: int) -> Counter[int] | None:
    """The counts with those of further integers; None where these are too many different ones."""
    if high - low < 1 << 16:
        times = np.bincount(integers - low)
        values = np.flatnonzero(times)
        values, times = values + low, times[values]
    elif len(integers) <= MAX_LABELS:
        values, times = np.unique(integers, return_counts=True)
    else:
        return None
    counts.update(dict(zip(values.tolist(), times.tolist(), strict=True)))
    return counts if len(counts) <= MAX_LABELS else None


def _add_sizes(
    facts: FeatureFacts,
    part: int,
    found: FeatureValues,
    image_sizes: Mapping[str, npt.NDArray[np.int32]],
    locate: Locate,
) -> None:
    """Hold a size against those of the images of the same records."""
    rows = np.flatnonzero(found.counts >= 0)
    for image, sizes in image_sizes.items():
        there = sizes[rows, part] > 0
        stored, real = found.integers[there], sizes[rows[there], part]
        facts.sizes.setdefault(image, Claim()).add(
            stored == real,
            lambda value, where=rows[there]: locate(int(where[value])),  # type: ignore[misc]
            lambda value, stored=stored, real=real: f"{stored[value]}, the image's header says {real[value]}",  # type: ignore[misc]
        )


def _add_names(facts: FeatureFacts, split: str, names: list[str], locate: Locate) -> None:
    facts.names = facts.names or FileNames()
    if facts.names.claim.hopeless or facts.names.count > _MAX_FILE_NAMES:
        return
    facts.names.add(split, names, locate)


def _add_text(claim: Claim, array: pa.Array, locate: Locate) -> None:
    edges, data = binary_parts(array)
    if not _TEXT_BYTES[data[edges[0] : edges[-1]]].any():
        claim.borne += len(array)
        return
    for number, value in enumerate(array):
        if not _is_text(value.as_py()):
            claim.against, claim.first, claim.found = 1, locate(number), shown_bytes(value)
            return
        claim.borne += 1


def _is_text(value: bytes) -> bool:
    try:
        return not _CONTROL.search(value.decode())
    except UnicodeDecodeError:
        return False


def shown_numbers(values: list[int] | list[float]) -> str:
    """The first of the numbers of a record, for people."""
    shown = ", ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values[:6])
    return shown if len(values) <= 6 else f"{shown} … ({len(values)})"


def shown_bytes(value: pa.Scalar) -> str:
    """The begin of a text, or how many bytes it is, for people."""
    buffer = value.as_buffer()
    head = bytes(memoryview(buffer)[:60])
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        text = head[: error.start].decode() if error.start > 50 else ""
    if text and text.isprintable():
        return repr(text) if buffer.size <= 60 else f"{text[:40]!r} … ({buffer.size} bytes)"
    return f"{buffer.size} bytes" if buffer.size else "''"
