"""The merge: what all shards of a split add up to, taken one after the other and not held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters import proof
from converters.errors import DataError, Location
from converters.examination import ExaminedSource
from converters.files import file_state
from converters.fingerprint import Fingerprint, Merger
from converters.manifest import hash_ranges
from converters.objects import ObjectPath
from converters.report import SourceFacts, SplitReport, Work
from converters.shards import Effort, OutputFile, RangeFacts, ShardResult
from converters.sources import SourceFile, SourceSplit


@dataclass(frozen=True)
class MergedSplit:
    """What the results of a split's shards add up to.

    Attributes:
        found: the split's source files.
        expected: the fingerprint of the records as they were read from the source; ``output``: as they were read back.
        ranges: what was found in each source file, in order.
        files: the files of the output.
        folders: the folders in staging that hold them, in the order of the shards.
        summaries: what the format said of each shard, as far as it said anything.
    """

    found: SourceSplit
    expected: Fingerprint
    output: Fingerprint
    ranges: tuple[tuple[RangeFacts, ...], ...]
    files: tuple[OutputFile, ...]
    folders: tuple[Path, ...]
    summaries: tuple[Any, ...]


@dataclass
class WorkDone:
    """Adds up what the shards took."""

    records: int = 0
    workers: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"reading": 0.0, "writing": 0.0, "reading_back": 0.0}
    )

    def add(self, records: int, effort: Effort) -> None:
        """Take what one shard took."""
        self.records += records
        self.workers.add(effort.worker)
        for step in self.seconds:
            self.seconds[step] += getattr(effort, step)

    def work(self) -> Work:
        """The sum."""
        return Work(self.records, len(self.workers), self.seconds)


def merge_split(found: SourceSplit, results: Iterable[ShardResult], done: WorkDone) -> MergedSplit:
    """Add up the results of a split's shards, which come in order.

    Raises:
        DataError: the ranges that they converted do not tile the split's source files, from the first byte of each
            to its last.
    """
    label_count = len(found.split.label_names)
    expected, output = Merger(label_count), Merger(label_count)
    tiles = _Tiles(found.files)
    files: list[OutputFile] = []
    folders: list[Path] = []
    summaries: list[Any] = []
    for result in results:
        expected.add(result.source)
        output.add(result.output)
        for piece in result.ranges:
            tiles.add(piece)
        files += result.files
        folders.append(result.folder)
        if result.summary is not None:
            summaries.append(result.summary)
        if result.effort is not None:
            done.add(result.source.records, result.effort)
    return MergedSplit(
        found,
        expected.fingerprint(),
        output.fingerprint(),
        tiles.finish(),
        tuple(files),
        tuple(folders),
        tuple(summaries),
    )


class _Tiles:
    """Takes ranges of source files, which must follow each other from the first byte of each file to its last."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self._left = iter(files)
        self._file: SourceFile | None = None
        self._end = 0
        self._ranges: list[list[RangeFacts]] = []

    def add(self, piece: RangeFacts) -> None:
        """Take the next range."""
        if self._file is None or self._end == self._file.size:
            self._next()
        if self._file is None or piece.path != str(self._file.path):
            raise DataError("a file was converted that is not in the plan.", Location(piece.path))
        if piece.start != self._end or not piece.start < piece.end <= self._file.size:
            raise self._hole()
        self._end = piece.end
        self._ranges[-1].append(piece)

    def finish(self) -> tuple[tuple[RangeFacts, ...], ...]:
        """The ranges of each file; all files must have been tiled."""
        if self._file is None or self._end == self._file.size:
            self._next()
        if self._file is not None:
            raise self._hole()
        return tuple(map(tuple, self._ranges))

    def _next(self) -> None:
        self._file, self._end = next(self._left, None), 0
        if self._file is not None:
            self._ranges.append([])

    def _hole(self) -> DataError:
        assert self._file is not None
        return DataError(
            f"bytes {self._end} to {self._file.size} of the file were not converted.",
            Location(str(self._file.path)),
            "Try again.",
        )


def split_reports(
    merged: Sequence[MergedSplit],
    examined: ExaminedSource | None,
    *,
    identified: bool,
    clips: Callable[[SourceSplit], int | None],
) -> list[SplitReport]:
    """Compare each split's output with its source, and with what is published.

    The source files are read again and hashed in here: they must still be what was converted.

    Raises:
        DataError: a source file is not.
    """
    # Files are hashed while other threads go on.
    with ThreadPoolExecutor() as pool:
        facts = pool.map(
            lambda pair: _source_facts(*pair),
            [pair for split in merged for pair in zip(split.found.files, split.ranges, strict=True)],
        )
        return [
            _split_report(split, _taken(facts, len(split.ranges)), examined, identified, clips)
            for split in merged
        ]


def _taken(facts: Iterator[SourceFacts], count: int) -> tuple[SourceFacts, ...]:
    return tuple(next(facts) for _ in range(count))


def _split_report(
    merged: MergedSplit,
    sources: tuple[SourceFacts, ...],
    examined: ExaminedSource | None,
    identified: bool,
    clips: Callable[[SourceSplit], int | None],
) -> SplitReport:
    found, split, output = merged.found, merged.found.split, merged.output
    checks = proof.compare(split, merged.expected, output, sources, identified=identified, clips=clips(found))
    quarantine = None
    if examined is not None:
        there = examined.splits[split.title]
        quarantine = there.quarantine(found, [piece for pieces in merged.ranges for piece in pieces])
        checks = proof.explain(
            split,
            output,
            checks,
            quarantine,
            csv_labels=there.csv_labels,
            csv_identities=there.csv_identities,
        )
    files = tuple(file.path for file in merged.files)
    return SplitReport(split, sources, files, output, checks, quarantine, merged.summaries)


def _source_facts(file: SourceFile, ranges: Sequence[RangeFacts]) -> SourceFacts:
    """The facts of a source file, whose ranges tile it.

    Raises:
        DataError: its size, its time or a byte of it changed since.
    """
    if isinstance(file.path, ObjectPath) and len(ranges) == 1:
        # What was hashed when it was converted is the whole object, and an object has a version.
        whole, parts = ranges[0].sha256, [ranges[0].sha256]
    else:
        whole, parts = hash_ranges(file.path, [piece.end for piece in ranges])
    if parts != [piece.sha256 for piece in ranges]:
        raise _changed(file)
    refuse_changed(file)
    indexed = ranges[0].indexed if all(piece.indexed == ranges[0].indexed for piece in ranges) else None
    records = sum(piece.records for piece in ranges)
    return SourceFacts(file.path.name, file.size, whole, records, file.compression, indexed)


def refuse_changed(file: SourceFile) -> None:
    """Raise if a source file has another size or time than when it was found.

    Raises:
        DataError: it has.
    """
    if file_state(file.path) != (file.size, file.version):
        raise _changed(file)


def _changed(file: SourceFile) -> DataError:
    return DataError(
        "the file changed while it was converted.",
        Location(str(file.path)),
        "Convert again when nothing writes to it.",
    )
