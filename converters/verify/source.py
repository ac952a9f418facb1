"""Inspection: what a source folder holds, and whether it is the published dataset. Writes nothing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from converters.dataset.column_table import ColumnTable
from converters.dataset.decode import encode
from converters.dataset.description import Description, Split
from converters.dataset.fingerprint import Fingerprint, Merger, Part, PartBuilder
from converters.dataset.report import Check, html_table
from converters.dataset.shard import Progress, Shard, SliceFacts
from converters.dataset.source import ShardReader, Source, SourceFile, SourceSplit
from converters.dataset.source_facts import Compression
from converters.errors import DataError
from converters.formats.sources import open_source
from converters.formats.tfrecord.source import TFRecordSource, source_facts
from converters.storage.object_store import Place
from converters.verify import compare
from converters.verify.columns import ColumnCounts, described_config
from converters.verify.survey import (
    EqualImages,
    ImageCounts,
    SharedClips,
    SplitSurvey,
    equal_images,
    shared_clips,
)

if TYPE_CHECKING:
    import pyarrow as pa

Verdict = Literal["published", "different", "unknown", "damaged"]
"""Whether a split is the published one.

- ``published``: every label vector is, in order, and so every count;
- ``different``: something is not as published;
- ``unknown``: too little is published to tell;
- ``damaged``: the split cannot be read through.
"""

Watch = Callable[[Split, int, "pa.RecordBatch"], None]
"""Called with each batch, its split, and the index in the split of its first record."""

# Half of what a conversion compares is an output, and here is none.
_NO_OUTPUT = "; equal to the source's"


@dataclass(frozen=True)
class InspectedFile:
    """A source file.

    Attributes:
        file: its name.
        bytes: its size.
        compression: how it is compressed.
        index: name of its index; None where there is none.
        indexed: True where the file was read through and agrees with its index; None otherwise.
        records: their number; None where the file was not read through.
        sha256: of its bytes as stored; None where the file was not read through.
    """

    file: str
    bytes: int
    compression: Compression
    index: str | None
    indexed: bool | None
    records: int | None
    sha256: str | None


@dataclass(frozen=True)
class LabelCount:
    """How many records have a label, which share of the split these are, and how many are published to, if known."""

    name: str
    records: int
    share: float
    published: int | None


@dataclass(frozen=True)
class LabelCombination:
    """A set of labels, in stored order, and how many records have exactly these."""

    labels: tuple[str, ...]
    records: int


@dataclass(frozen=True, repr=False)
class InspectedSplit:
    """What is there of one split.

    Attributes:
        split: its description, with the published facts.
        files: the source files, in order.
        note: how the file was matched to the split, if not by its name.
        verdict: whether it is the published split.
        checks: the comparisons the verdict comes from; none where the split is damaged.
        fingerprint: counts and digests; None where the split is damaged.
        combinations: all sets of labels, most frequent first; None where there are no labels, or too many sets.
        images: what the images are like; None where there are none.
        columns: how many values the records have in each column, by its name.
        error: what is damaged and where; None where nothing is.
    """

    split: Split
    files: tuple[InspectedFile, ...]
    note: str | None
    verdict: Verdict
    checks: tuple[Check, ...] = ()
    fingerprint: Fingerprint | None = None
    combinations: tuple[LabelCombination, ...] | None = None
    images: ImageCounts | None = None
    columns: Mapping[str, ColumnCounts] = field(default_factory=dict)
    error: str | None = None

    def __repr__(self) -> str:
        return f"<InspectedSplit {self.title}: {self.records} records, {self.verdict}>"

    @property
    def title(self) -> str:
        """``config/split``."""
        return self.split.title

    @property
    def records(self) -> int | None:
        """Number of records; None where the split is damaged."""
        return None if self.fingerprint is None else self.fingerprint.records

    @property
    def bytes(self) -> int:
        """Size of the source files."""
        return sum(file.bytes for file in self.files)

    @cached_property
    def label_counts(self) -> tuple[LabelCount, ...]:
        """The counts per label, in stored order; without names, per value. Empty where the split is damaged."""
        if self.fingerprint is None:
            return ()
        names, counts = self.split.label_names, self.fingerprint.label_counts or ()
        published = self.split.published.label_counts or (None,) * len(names)
        if not names:
            found = Counter[str]()
            for entry in self.combinations or ():
                found.update(dict.fromkeys(entry.labels, entry.records))
            names = tuple(sorted(found, key=label_order))
            counts, published = tuple(found[name] for name in names), (None,) * len(names)
        total = max(1, self.fingerprint.records)
        return tuple(map(LabelCount, names, counts, (round(count / total, 6) for count in counts), published))

    @property
    def labels_per_image(self) -> Mapping[int, int]:
        """How many records have so many different labels, by that number."""
        found = Counter[int]()
        for entry in self.combinations or ():
            found[len(entry.labels)] += entry.records
        return dict(sorted(found.items()))

    @cached_property
    def label_pairs(self) -> tuple[LabelCombination, ...]:
        """How many records have both of two labels, most first."""
        found = Counter[tuple[str, ...]]()
        for entry in self.combinations or ():
            found.update(dict.fromkeys(combinations(entry.labels, 2), entry.records))
        return tuple(LabelCombination(pair, records) for pair, records in found.most_common())

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is not ``published``, a sentence each, what failed first."""
        if self.error is not None:
            return (self.error,)
        return tuple(
            f"{check.name}: {check.reason}"
            for result in ("failed", "unverified")
            for check in self.checks
            if check.result == result
        )

    def to_json(self) -> dict[str, Any]:
        """The entry as a JSON object."""
        split, published = self.split, self.split.published
        return {
            "config": split.config,
            "split": split.name,
            "kind": split.kind,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "error": self.error,
            "note": self.note,
            "records": self.records,
            "bytes": self.bytes,
            "files": encode(self.files),
            "label_counts": encode(self.label_counts),
            "labels_per_image": encode(self.labels_per_image),
            "combinations": encode(self.combinations),
            "label_pairs": encode(self.label_pairs),
            "images": encode(self.images),
            "fingerprint": encode(self.fingerprint),
            "published": {
                "records": published.records,
                "labels_per_image": encode(published.labels_per_image),
                "distinct_label_sets": published.distinct_label_sets,
                "labels_sha256": published.labels_sha256,
            },
            "checks": encode(self.checks),
        }


@dataclass(frozen=True, repr=False)
class Inspection:
    """What a source folder holds.

    Attributes:
        folder: the folder.
        description: of the dataset.
        splits: the splits that are there, in the description's order.
        absent: the splits that are not.
        equal_images: the images of all splits that are equal; None where there are too many to look.
        shared_clips: the clips that two splits share, where label CSVs tell clips.
        columns: what the features of each config are, or were taken for.
        document: the description as ``dataset.json`` has it, complete with all columns, to be edited.
        warnings: what is in the folder and was not read, a sentence.
    """

    folder: str
    description: Description
    splits: tuple[InspectedSplit, ...]
    absent: tuple[Split, ...]
    equal_images: EqualImages | None = None
    shared_clips: tuple[SharedClips, ...] = ()
    columns: tuple[ColumnTable, ...] = ()
    document: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Inspection {self.folder}: {self.records:,} records, {len(self.splits)} splits>"

    def _repr_html_(self) -> str:
        """The splits as a table, as notebooks show it."""
        rows = [["config", "split", "records", "is it the published one?"]]
        for split in self.splits:
            records = "" if split.records is None else f"{split.records:,}"
            rows.append([split.split.config, split.split.name, records, split.verdict])
        return html_table(rows, repr(self)[1:-1])

    @property
    def records(self) -> int:
        """Number of records in all splits that could be read through."""
        return sum(split.records or 0 for split in self.splits)

    @property
    def bytes(self) -> int:
        """Size of all source files."""
        return sum(split.bytes for split in self.splits)

    @property
    def failed(self) -> bool:
        """Whether a split is damaged, or is not the published one."""
        return any(split.verdict in ("damaged", "different") for split in self.splits)

    def to_json(self) -> dict[str, Any]:
        """The inspection as a JSON object."""
        return {
            "dataset": self.description.name,
            "folder": self.folder,
            "failed": self.failed,
            "records": self.records,
            "bytes": self.bytes,
            "columns": encode(self.columns),
            "splits": encode(self.splits),
            "absent": [split.title for split in self.absent],
            "equal_images": encode(self.equal_images),
            "shared_clips": encode(self.shared_clips),
            "warnings": list(self.warnings),
        }


def inspect_source(
    folder: Place, progress: Progress | None = None, *, labels: Path | None = None
) -> Inspection:
    """Read every split of a source folder through, and compare it with what is published.

    A damaged split does not stop the others: its entry has the error.

    Raises:
        CallError: there is no such folder, no file of the dataset in it, or its description is wrong.
        DataError: a file cannot be matched to a split.
    """
    source = open_source(folder, allow_mismatch=True, progress=progress, labels=labels)
    return inspect_opened(source, str(folder), progress)


def inspect_opened(
    source: Source, folder: str, progress: Progress | None = None, watch: Watch | None = None
) -> Inspection:
    """As :func:`inspect_source`; ``watch`` sees every batch, and ``folder`` is what the source is called."""
    # One slice per file, so that the digest of the slice is that of the file.
    plan = source.plan(sys.maxsize)
    surveys = [SplitSurvey(found.split) for found in source.splits]
    splits = tuple(
        _inspect_split(source, found, shard, survey, progress, watch)
        for found, shard, survey in zip(source.splits, plan, surveys, strict=True)
    )
    sound = [survey for split, survey in zip(splits, surveys, strict=True) if split.error is None]
    return Inspection(
        folder,
        source.description,
        splits,
        source.absent,
        equal_images(sound),
        shared_clips(sound),
        tuple(_column_tables(source, splits)),
        source.described(),
        source.passed_over if isinstance(source, TFRecordSource) else (),
    )


def _column_tables(source: Source, splits: Sequence[InspectedSplit]) -> Iterator[ColumnTable]:
    """What the features of each config are: as they were inferred, or as they are described."""
    inferred = {table.name: table for table in source.inferred}
    for config in dict.fromkeys(split.split.config for split in splits):
        own = [split for split in splits if split.split.config == config]
        yield inferred.get(config) or described_config(
            config,
            own[0].split.schema,
            {split.split.name: split.columns for split in own},
            {split.split.name: split.records or 0 for split in own},
            [split.images for split in own if split.images is not None],
        )


def _inspect_split(
    source: Source,
    found: SourceSplit,
    shard: Shard,
    survey: SplitSurvey,
    progress: Progress | None,
    watch: Watch | None,
) -> InspectedSplit:
    split = found.split
    reader = source.reading.read(shard)
    try:
        merger = Merger(split.schema)
        columns = {column.name: ColumnCounts() for column in split.schema.stored}
        for part in _parts(reader, survey, columns, progress, watch):
            merger.add(part)
        fingerprint = merger.fingerprint()
    except DataError as error:
        files = _files(found.files, reader.facts)
        return InspectedSplit(split, files, found.note, "damaged", error=str(error))
    files = _files(found.files, reader.facts)
    read = {piece.path: [piece] for piece in reader.facts}  # nothing is read of an empty file
    sources = [source_facts(file, read.get(str(file.path), [])) for file in found.files]
    checks = tuple(
        replace(check, reason=check.reason.removesuffix(_NO_OUTPUT))
        for check in compare.compare(split, fingerprint, fingerprint, sources, identified=False)
        if check.name != compare.VALUES
    )
    images = survey.images()
    sets = _combinations(split, merger.label_sets, survey)
    return InspectedSplit(
        split, files, found.note, _verdict(checks), checks, fingerprint, sets, images, columns
    )


def _parts(
    reader: ShardReader,
    survey: SplitSurvey,
    columns: Mapping[str, ColumnCounts],
    progress: Progress | None,
    watch: Watch | None,
) -> Iterator[Part]:
    """The fingerprint of each batch, so that no more than a batch is held of a split of any size."""
    record = 0
    for batch in reader:
        builder = PartBuilder(record, survey.split.schema)
        builder.add(batch, survey.add(batch))
        for column in survey.split.schema.stored:
            columns[column.name].add(column, batch.column(column.name))
        if watch is not None:
            watch(survey.split, record, batch)
        record += len(batch)
        yield builder.part()
        if progress is not None:
            progress("read", len(batch))


def _combinations(
    split: Split, label_sets: Mapping[str, int] | None, survey: SplitSurvey
) -> tuple[LabelCombination, ...] | None:
    names = split.label_names
    sets: Mapping[Any, int] | None = label_sets if names else survey.label_sets
    if split.schema.label is None or sets is None:
        return None
    found: list[tuple[int, list[Any], tuple[str, ...]]] = []
    for labels, records in sets.items():
        if names:
            order = [int(rank) for rank in labels.split(",") if rank]
            found.append((-records, order, tuple(names[rank] for rank in order)))
        else:
            ordered = sorted(labels, key=label_order)
            found.append((-records, [label_order(label) for label in ordered], tuple(ordered)))
    # Of equally frequent ones, that with the label stored first, so that the order is always the same.
    return tuple(LabelCombination(labels, -records) for records, _, labels in sorted(found))


def label_order(label: str) -> tuple[int, int, str]:
    """What sorts labels without names: numbers by their value, then texts."""
    number = label.removeprefix("-").isdecimal()
    return (0, int(label), "") if number else (1, 0, label)


def _files(files: Sequence[SourceFile], facts: Sequence[SliceFacts]) -> tuple[InspectedFile, ...]:
    read = {piece.path: piece for piece in facts}
    inspected = []
    for file in files:
        piece = read.get(str(file.path))
        index = None if file.index is None else file.index.name
        found = (None, None, None) if piece is None else (piece.indexed, piece.records, piece.sha256)
        inspected.append(InspectedFile(file.name, file.size, file.compression, index, *found))
    return tuple(inspected)


def _verdict(checks: Sequence[Check]) -> Verdict:
    if any(check.result == "failed" for check in checks):
        return "different"
    return "unknown" if any(check.result == "unverified" for check in checks) else "published"
