"""Inspection: what a source folder holds, and whether it is the published dataset. Writes nothing."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from converters.dataset.decode import encode
from converters.dataset.description import Description, Split
from converters.dataset.fingerprint import Fingerprint, Merger, Part, PartBuilder
from converters.dataset.report import Check
from converters.dataset.schema import Schema
from converters.dataset.shard import Progress, Shard, SliceFacts
from converters.dataset.source import ShardReader, Source, SourceFile, SourceSplit
from converters.dataset.source_facts import Compression
from converters.errors import DataError
from converters.formats.sources import open_source
from converters.formats.tfrecord.source import source_facts
from converters.storage.object_store import Place
from converters.verify import compare

Verdict = Literal["published", "different", "unknown", "damaged"]
"""Whether a split is the published one.

- ``published``: every label vector is, in order, and so every count;
- ``different``: something is not as published;
- ``unknown``: too little is published to tell;
- ``damaged``: the split cannot be read through.
"""

TOP_COMBINATIONS = 10

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
    """How many records have a label, and how many are published to; None where that is not known."""

    name: str
    records: int
    published: int | None


@dataclass(frozen=True)
class LabelCombination:
    """A set of labels, in stored order, and how many records have exactly these."""

    labels: tuple[str, ...]
    records: int


@dataclass(frozen=True)
class InspectedSplit:
    """What is there of one split.

    Attributes:
        split: its description, with the published facts.
        files: the source files, in order.
        note: how the file was matched to the split, if not by its name.
        verdict: whether it is the published split.
        checks: the comparisons the verdict comes from; none where the split is damaged.
        fingerprint: counts and digests; None where the split is damaged.
        combinations: the most frequent sets of labels, most frequent first.
        error: what is damaged and where; None where nothing is.
    """

    split: Split
    files: tuple[InspectedFile, ...]
    note: str | None
    verdict: Verdict
    checks: tuple[Check, ...] = ()
    fingerprint: Fingerprint | None = None
    combinations: tuple[LabelCombination, ...] = ()
    error: str | None = None

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

    @property
    def label_counts(self) -> tuple[LabelCount, ...]:
        """The counts per label, in stored order; none where the split is damaged."""
        if self.fingerprint is None:
            return ()
        names = self.split.label_names
        published = self.split.published.label_counts or (None,) * len(names)
        return tuple(map(LabelCount, names, self.fingerprint.label_counts or (), published))

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
            "files": [asdict(file) for file in self.files],
            "label_counts": [asdict(count) for count in self.label_counts],
            "combinations": [
                {"labels": list(combination.labels), "records": combination.records}
                for combination in self.combinations
            ],
            "fingerprint": encode(self.fingerprint),
            "published": {
                "records": published.records,
                "labels_per_image": _text_keys(published.labels_per_image),
                "distinct_label_sets": published.distinct_label_sets,
                "labels_sha256": published.labels_sha256,
            },
            "checks": [check.to_json() for check in self.checks],
        }


@dataclass(frozen=True)
class Inspection:
    """What a source folder holds.

    Attributes:
        folder: the folder.
        description: of the dataset.
        splits: the splits that are there, in the description's order.
        absent: the splits that are not.
    """

    folder: str
    description: Description
    splits: tuple[InspectedSplit, ...]
    absent: tuple[Split, ...]

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
            "splits": [split.to_json() for split in self.splits],
            "absent": [split.title for split in self.absent],
        }


def inspect_source(folder: Place, progress: Progress | None = None) -> Inspection:
    """Read every split of a source folder through, and compare it with what is published.

    A damaged split does not stop the others: its entry has the error.

    Raises:
        CallError: there is no such folder, no file of the dataset in it, or its description is wrong.
        DataError: a file cannot be matched to a split.
    """
    source = open_source(folder, allow_mismatch=True, progress=progress)
    # One slice per file, so that the digest of the slice is that of the file.
    plan = source.plan(sys.maxsize)
    splits = tuple(
        _inspect_split(source, found, plan[number], progress) for number, found in enumerate(source.splits)
    )
    return Inspection(str(folder), source.description, splits, source.absent)


def _inspect_split(
    source: Source, found: SourceSplit, shard: Shard, progress: Progress | None
) -> InspectedSplit:
    split = found.split
    reader = source.reading.read(shard)
    try:
        merger = Merger(split.schema)
        for part in _parts(reader, split.schema, progress):
            merger.add(part)
        fingerprint = merger.fingerprint()
    except DataError as error:
        files = _files(found.files, reader.facts)
        return InspectedSplit(split, files, found.note, "damaged", error=str(error))
    files = _files(found.files, reader.facts)
    sources = [source_facts(file, [piece]) for file, piece in zip(found.files, reader.facts, strict=True)]
    checks = tuple(
        replace(check, reason=check.reason.removesuffix(_NO_OUTPUT))
        for check in compare.compare(split, fingerprint, fingerprint, sources, identified=False)
        if check.name != compare.VALUES
    )
    combinations = _most_frequent(merger.label_sets or {}, split.label_names)
    return InspectedSplit(split, files, found.note, _verdict(checks), checks, fingerprint, combinations)


def _parts(reader: ShardReader, schema: Schema, progress: Progress | None) -> Iterator[Part]:
    """The fingerprint of each batch, so that no more than a batch is held of a split of any size."""
    record = 0
    for batch in reader:
        builder = PartBuilder(record, schema)
        builder.add(batch)
        record += len(batch)
        yield builder.part()
        if progress is not None:
            progress("read", len(batch))


def _most_frequent(label_sets: Mapping[str, int], names: Sequence[str]) -> tuple[LabelCombination, ...]:
    # Of equally frequent ones, that with the label stored first, so that the order is always the same.
    sets = [
        ([int(rank) for rank in ranks.split(",") if rank], records) for ranks, records in label_sets.items()
    ]
    top = heapq.nsmallest(TOP_COMBINATIONS, sets, key=lambda item: (-item[1], item[0]))
    return tuple(LabelCombination(tuple(names[rank] for rank in ranks), records) for ranks, records in top)


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
    open_checks = [check for check in checks if check.result == "unverified"]
    if not open_checks:
        return "published"
    return "unknown"


def _text_keys(counts: Mapping[int, int] | None) -> dict[str, int] | None:
    return None if counts is None else {str(key): count for key, count in counts.items()}
