"""Shards: the unit of work. What one is, how the source is cut into them, and what converting one results in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from converters.fingerprint import Part
from converters.sources import SourceFile, SourceSplit
from converters.spec import Split
from converters.tfrecord.damage import LostRange
from converters.tfrecord.reader import SourceRange, scan_units

# As `datasets`: a shard's output is about as large as its part of the source.
MAX_SHARD_BYTES = 500_000_000


@dataclass(frozen=True)
class Shard:
    """A contiguous range of a split's records, written to one file or one folder.

    Frozen and picklable; says where its records are and never holds them.

    Attributes:
        split: the split it belongs to.
        index: its number among the split's shards, from 0.
        count: number of shards the split has.
        first_record: index in the split of its first record.
        ranges: the parts of source files that hold its records, in order.
    """

    split: Split
    index: int
    count: int
    first_record: int
    ranges: tuple[SourceRange, ...]

    @property
    def config(self) -> str:
        """Name of the config."""
        return self.split.config

    @property
    def source_bytes(self) -> int:
        """Size of its source, as stored."""
        return sum(piece.end - piece.start for piece in self.ranges)

    @property
    def key(self) -> str:
        """A name for the shard that is unique in the dataset and a safe relative path."""
        return f"{self.split.config}/{self.split.name}-{self.numbered()}"

    def numbered(self) -> str:
        """``00000-of-00001``, as in the names of sharded files."""
        return f"{self.index:05d}-of-{self.count:05d}"


@dataclass(frozen=True)
class OutputFile:
    """A written file: its path in the output with forward slashes, size in bytes, and SHA-256 as read back."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class RangeFacts:
    """What was found in a range of a source file.

    Attributes:
        path: the source file.
        start: first byte; ``end``: one past the last.
        records: number of records.
        sha256: of the range's bytes, as stored.
        indexed: whether the range agreed with the file's index; None where there is no index.
        record_bytes: size of the records with their headers and checksums, decompressed.
    """

    path: str
    start: int
    end: int
    records: int
    sha256: str
    indexed: bool | None
    record_bytes: int = 0


@dataclass(frozen=True)
class FileDamage:
    """The damaged ranges of a source file, in order, and whether its index tells of them rightly."""

    lost: tuple[LostRange, ...]
    indexed: bool


@dataclass(frozen=True)
class ShardResult:
    """What converting a shard resulted in. Small: it never carries images.

    Attributes:
        shard: the shard.
        folder: the folder in staging that holds its files.
        files: the files, as they will lie in the output.
        ranges: what was found in the source.
        source: the fingerprint of the records as they were read from the source.
        output: the fingerprint of the records as they were read back from the output.
    """

    shard: Shard
    folder: Path
    files: tuple[OutputFile, ...]
    ranges: tuple[RangeFacts, ...]
    source: Part
    output: Part


def plan_shards(
    splits: Sequence[SourceSplit],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    damage: Mapping[Path, FileDamage] | None = None,
) -> list[Shard]:
    """Cut the source into shards; they follow from the data and ``max_shard_bytes`` alone.

    A split of at most ``max_shard_bytes`` is one shard, whose records nobody counts beforehand. A larger one is
    cut between records, at most so many bytes of source a shard; its files are scanned for that. ``damage`` says
    which ranges of which files are damaged and to be passed over; these belong to the shard before them.

    Raises:
        DataError: a file that has to be scanned is damaged.
    """
    shards: list[Shard] = []
    for source in splits:
        whole = [_whole_file(file, (damage or {}).get(file.path)) for file in source.files]
        if sum(piece.end - piece.start for piece in whole) <= max_shard_bytes:
            shards.append(Shard(source.split, 0, 1, 0, tuple(whole)))
            continue
        groups = list(_grouped(whole, max_shard_bytes))
        first = 0
        for index, (ranges, records) in enumerate(groups):
            shards.append(Shard(source.split, index, len(groups), first, ranges))
            first += records
    return shards


def _whole_file(file: SourceFile, damage: FileDamage | None) -> SourceRange:
    whole = SourceRange(file.path, 0, file.size, 0, file.compression, file.index)
    if damage is None:
        return whole
    return replace(whole, index=file.index if damage.indexed else None, lost=damage.lost)


def _grouped(
    files: Sequence[SourceRange], max_shard_bytes: int
) -> Iterator[tuple[tuple[SourceRange, ...], int]]:
    """Ranges of consecutive records, and their number, at most ``max_shard_bytes`` of source a group."""
    group: list[SourceRange] = []
    group_bytes = group_records = 0
    for file in files:
        start, start_record, record = file.start, 0, 0
        for unit in scan_units(file):
            if unit.records and group_records and group_bytes + unit.size > max_shard_bytes:
                if unit.offset > start:
                    group.append(_cut(file, start, unit.offset, start_record))
                    start, start_record = unit.offset, record
                yield tuple(group), group_records
                group, group_bytes, group_records = [], 0, 0
            if unit.records:  # what is lost takes no room in the output
                group_bytes += unit.size
            group_records += unit.records
            record += unit.records + unit.lost
        group.append(_cut(file, start, file.end, start_record))
    yield tuple(group), group_records


def _cut(file: SourceRange, start: int, end: int, first_record: int) -> SourceRange:
    """A part of a whole file's range, with the damaged ranges in it."""
    if (start, end) == (file.start, file.end):
        # Also a compressed file, which is never cut: its damaged ranges count other bytes than its ends.
        return file
    lost = tuple(piece for piece in file.lost if start <= piece.start < end or piece.start == end == file.end)
    return replace(file, start=start, end=end, first_record=first_record, lost=lost)
