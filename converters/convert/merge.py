"""The merge: what all shards of a split add up to, taken one after the other and not held."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from converters.dataset.fingerprint import Fingerprint, Merger
from converters.dataset.report import SourceFacts, SplitReport, Work
from converters.dataset.shard import Effort, RangeFacts, ShardResult
from converters.errors import DataError, Location
from converters.formats.tfrecord.damage_scan import ExaminedSource
from converters.formats.tfrecord.discovery import SourceFile, SourceSplit
from converters.storage.file_list import OutputFiles, add_run
from converters.storage.files import file_state
from converters.storage.object_store import ObjectPath, Place
from converters.storage.signals import held_interrupts
from converters.storage.tree import hash_ranges
from converters.verify import compare as proof


@dataclass
class FileRead:
    """What was read of a source file, range after range; 40 bytes of each are held.

    Attributes:
        file: the file.
        ends: where each range ends; the next one begins there.
        digests: the SHA-256 of each, one after the other.
        records: number of records.
        record_bytes: their size with headers and checksums, decompressed.
        indexed: whether all ranges agreed with the file's index; None where there is none.
    """

    file: SourceFile
    ends: array[int] = field(default_factory=lambda: array("q"))
    digests: bytearray = field(default_factory=bytearray)
    records: int = 0
    record_bytes: int = 0
    indexed: bool | None = None

    @property
    def end(self) -> int:
        """How far it was read."""
        return self.ends[-1] if self.ends else 0

    def add(self, piece: RangeFacts) -> None:
        """Take the next range."""
        self.indexed = piece.indexed if not self.ends or piece.indexed == self.indexed else None
        self.ends.append(piece.end)
        self.digests += bytes.fromhex(piece.sha256)
        self.records += piece.records
        self.record_bytes += piece.record_bytes

    def sha256(self) -> list[str]:
        """The SHA-256 of each range, hexadecimal."""
        return [self.digests[start : start + 32].hex() for start in range(0, len(self.digests), 32)]


@dataclass(frozen=True)
class MergedSplit:
    """What the results of a split's shards add up to.

    Attributes:
        found: the split's source files.
        expected: the fingerprint of the records as they were read from the source; ``output``: as they were read back.
        read: what was read of each source file, in order.
        files: the files of the output, in runs that are each in the order of the paths.
        folders: paths of the folders in staging that hold them, in the order of the shards.
        summaries: what the format said of each shard, as far as it said anything.
    """

    found: SourceSplit
    expected: Fingerprint
    output: Fingerprint
    read: tuple[FileRead, ...]
    files: tuple[OutputFiles, ...]
    folders: tuple[str, ...]
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
    files: list[OutputFiles] = []
    folders: list[str] = []
    summaries: list[Any] = []
    for result in results:
        expected.add(result.source)
        output.add(result.output)
        for piece in result.ranges:
            tiles.add(piece)
        add_run(files, result.files)
        folders.append(str(result.folder))
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
        self._read: list[FileRead] = []

    def add(self, piece: RangeFacts) -> None:
        """Take the next range."""
        read = self._current()
        if read is None or piece.path != str(read.file.path):
            raise DataError("a file was converted that is not in the plan.", Location(piece.path))
        if piece.start != read.end or not piece.start < piece.end <= read.file.size:
            raise _hole(read)
        read.add(piece)

    def finish(self) -> tuple[FileRead, ...]:
        """What was read of each file; all files must have been tiled."""
        if (read := self._current()) is not None:
            raise _hole(read)
        return tuple(self._read)

    def _current(self) -> FileRead | None:
        """The file that the next range must belong to; None where all were read."""
        if not self._read or self._read[-1].end == self._read[-1].file.size:
            file = next(self._left, None)
            if file is None:
                return None
            self._read.append(FileRead(file))
        return self._read[-1]


def _hole(read: FileRead) -> DataError:
    return DataError(
        f"bytes {read.end} to {read.file.size} of the file were not converted.",
        Location(str(read.file.path)),
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
    # Hashing lets other threads run; the largest files go first, so that none is left to one thread at the end.
    read = list(chain.from_iterable(split.read for split in merged))
    with held_interrupts() as stop, ThreadPoolExecutor(os.cpu_count()) as pool:
        hashed = {
            id(file): pool.submit(_source_facts, file, stop)
            for file in sorted(read, key=lambda file: -file.file.size)
        }
        facts = iter([hashed[id(file)].result() for file in read])
    return [
        _split_report(split, tuple(islice(facts, len(split.read))), examined, identified, clips)
        for split in merged
    ]


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
        quarantine = there.quarantine(found, [read.record_bytes for read in merged.read])
        checks = proof.explain(
            split,
            output,
            checks,
            quarantine,
            csv_labels=there.csv_labels,
            csv_identities=there.csv_identities,
        )
    output_bytes = sum(run.total_bytes() for run in merged.files)
    return SplitReport(split, sources, output_bytes, output, checks, quarantine, merged.summaries)


def _source_facts(read: FileRead, stop: Sequence[int]) -> SourceFacts:
    """The facts of a source file that was read from its first byte to its last.

    Raises:
        DataError: its size, its time or a byte of it changed since.
    """
    file, parts = read.file, read.sha256()
    if isinstance(file.path, ObjectPath) and len(parts) == 1:
        # What was hashed when it was converted is the whole object, and an object has a version.
        whole, now = parts[0], parts
    else:
        whole, now = hash_ranges(file.path, read.ends, stop)
    if now != parts:
        raise changed_file(file.path)
    if file_state(file.path) != (file.size, file.version):
        raise changed_file(file.path)
    return SourceFacts(file.path.name, file.size, whole, read.records, file.compression, read.indexed)


def changed_file(path: Place) -> DataError:
    """The error of a source file that was changed during the run."""
    return DataError(
        "the file changed while it was converted.",
        Location(str(path)),
        "Convert again when nothing writes to it.",
    )
