"""Shards: the unit of work. What one is, and what converting one results in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from converters.dataset.decode import Count
from converters.dataset.description import Split
from converters.dataset.fingerprint import Node, Part
from converters.storage.file_list import OutputFiles
from converters.storage.object_store import Place

# As in the names of sharded files everywhere; more where there are more shards, so that names sort by number.
_MIN_DIGITS = 5

Progress = Callable[[str, int], None]
"""Called with what was done to records ("read", "verified") and to how many."""


class Slice(Protocol):
    """A part of a source that holds whole records: its source made it, and knows how to read it."""

    @property
    def path(self) -> Place:
        """The file that it is in."""
        ...

    @property
    def start(self) -> int:
        """Where it begins in the file, in units of the source's."""
        ...

    @property
    def end(self) -> int:
        """Where it ends."""
        ...


@dataclass(frozen=True)
class Shard:
    """A contiguous range of a split's records, written to one file or one folder.

    Frozen and picklable; says where its records are and never holds them.

    Attributes:
        split: the split it belongs to.
        index: its number among the split's shards, from 0.
        count: number of shards the split has.
        first_record: index in the split of its first record.
        slices: the parts of the source that hold its records, in order.
        source_bytes: their size, as stored.
    """

    split: Split
    index: int
    count: int
    first_record: int
    slices: tuple[Slice, ...]
    source_bytes: int

    @property
    def config(self) -> str:
        """Name of the config."""
        return self.split.config

    @property
    def key(self) -> str:
        """A name for the shard that is unique in the dataset and a safe relative path."""
        return f"{self.split.config}/{self.split.name}-{self.numbered()}"

    def numbered(self) -> str:
        """``00000-of-00001``, as in the names of sharded files."""
        digits = max(_MIN_DIGITS, len(str(self.count)))
        return f"{self.index:0{digits}d}-of-{self.count:0{digits}d}"


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """What was found in a slice of a source.

    Attributes:
        path: the source file.
        start: of the slice; ``end`` likewise.
        records: number of records.
        sha256: of the slice's bytes, as stored.
        indexed: whether the slice agreed with the file's index; None where there is no index.
        record_bytes: size of the records with their headers and checksums, decompressed.
        nodes: of a slice of an output, the nodes of the records' tree that it finishes.
    """

    path: str
    start: int
    end: int
    records: int
    sha256: str = ""
    indexed: bool | None = None
    record_bytes: Count = 0
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Effort:
    """Which process converted a shard, as host and process number, and the seconds that its steps took there."""

    worker: str
    reading: float
    writing: float
    reading_back: float


@dataclass(frozen=True)
class ShardResult:
    """What converting a shard resulted in. Small: it never carries images.

    Attributes:
        shard: the shard.
        folder: the folder in staging that holds its files.
        files: the files, as they will lie in the output, in the order of their paths.
        slices: what was found in the source.
        source: the fingerprint of the records as they were read from the source.
        output: the fingerprint of the records as they were read back from the output.
        summary: what the format has to say of the shard for the files that describe the whole dataset, as JSON.
        effort: what it took; None for a shard that an interrupted run had finished.
    """

    shard: Shard
    folder: Path
    files: OutputFiles
    slices: tuple[SliceFacts, ...]
    source: Part
    output: Part
    summary: Any = None
    effort: Effort | None = field(default=None, compare=False)


Task = Callable[[Shard, Progress | None], ShardResult]
"""Converts a shard; picklable, and may be called again for a shard when what it ran in has died."""
