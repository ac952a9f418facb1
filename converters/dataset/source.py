"""A source: where records come from, whatever they are stored in.

A conversion, a verification and an inspection know no more of it than this. What a task needs to read a shard is
small and picklable (:class:`Reading`); how the work was divided shows in nothing that is said of a source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from converters.dataset.damage import LostRange
from converters.dataset.description import Description, Split
from converters.dataset.quarantine import Quarantine
from converters.dataset.source_facts import Compression, SourceFacts
from converters.errors import DataError, Location
from converters.storage.object_store import Place

if TYPE_CHECKING:
    import pyarrow as pa

    from converters.dataset.column_table import ColumnTable
    from converters.dataset.plan import Plan
    from converters.dataset.report import Report
    from converters.dataset.shard import Shard, SliceFacts
    from converters.storage.file_list import OutputFile

# TensorFlow itself cannot hold a larger record in a protobuf (2 GiB); images are far below this.
MAX_RECORD_BYTES = 256 << 20

FileState = tuple[int, int | str]
"""Size in bytes, and a token that changes whenever the file does; see :func:`~converters.storage.files.file_state`."""


@dataclass(frozen=True)
class SourceFile:
    """A source file.

    Attributes:
        name: how outputs name it.
        path: where it is.
        size: in bytes.
        version: a token that changes whenever the file does.
        compression: how it is compressed.
        index: its ``.idx`` file, where there is one.
        published: the digest that a checksum file beside it states, as ``sha256:…`` or ``md5:…``.
        may_be_empty: whether it may hold no record, as one of several whose published number fits.
        lost: the damaged ranges in it that are to be passed over, in order.
    """

    name: str
    path: Place
    size: int
    version: int | str
    compression: Compression = "none"
    index: Place | None = None
    published: str | None = None
    may_be_empty: bool = False
    lost: tuple[LostRange, ...] = ()


@dataclass(frozen=True)
class SourceSplit:
    """The source files of one split, in order; ``note`` says how they were matched, if not by their names."""

    split: Split
    files: tuple[SourceFile, ...]
    note: str | None = None

    @property
    def bytes(self) -> int:
        """Size of the files as stored."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Account:
    """What is known of a split's source once all of it was read.

    Attributes:
        files: its source files, in order.
        quarantine: what was left out; None where damage is an error.
        csv_labels: whether the label CSV, against which all records were held, has the published labels as a whole;
            None where there is none, or this is not known.
        csv_identities: likewise, the published names.
        clips: number of distinct clips, where label CSVs are given.
    """

    files: tuple[SourceFacts, ...]
    quarantine: Quarantine | None = None
    csv_labels: bool | None = None
    csv_identities: bool | None = None
    clips: int | None = None


class ShardReader(Protocol):
    """Reads the records of a shard; iterated once, and then it has its facts."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The checked records, in order.

        Raises:
            DataError: the source is damaged, or a record fails a check.
        """
        ...

    @property
    def facts(self) -> tuple[SliceFacts, ...]:
        """What was found in each slice of the shard, once all of it was read."""
        ...

    @property
    def witnesses(self) -> Mapping[int, bytes]:
        """The leaves of a few records, made by other code: by their index in the split, once they were read."""
        ...


class Reading(Protocol):
    """How the shards of a source are read: what tasks need for it, frozen and picklable."""

    def read(self, shard: Shard) -> ShardReader:
        """A reader of one shard."""
        ...


class Source(Protocol):
    """Where records come from."""

    @property
    def description(self) -> Description:
        """The description of the dataset."""
        ...

    @property
    def splits(self) -> Sequence[SourceSplit]:
        """The splits that are there, of those asked for."""
        ...

    @property
    def absent(self) -> tuple[Split, ...]:
        """The splits that are not."""
        ...

    @property
    def identified(self) -> bool:
        """Whether img_id and clip_id are joined to the records."""
        ...

    @property
    def without(self) -> tuple[str, ...]:
        """The columns that were left out, here and in what it was made from."""
        ...

    @property
    def origin(self) -> Sequence[Any]:
        """The outputs that it is, and was made from; none of the originals."""
        ...

    @property
    def inferred(self) -> Sequence[ColumnTable]:
        """What was inferred of each config that nothing describes."""
        ...

    def described(self) -> dict[str, Any]:
        """The description as ``dataset.json`` has it, complete with all columns, to be edited."""
        ...

    @property
    def reading(self) -> Reading:
        """How its shards are read, by the plan that was made last."""
        ...

    def inputs(self) -> Mapping[str, FileState]:
        """The state, now, of every file that a run depends on, by its absolute path or URL.

        Raises:
            OSError: one is gone.
        """
        ...

    def plan(self, max_shard_bytes: int) -> Plan:
        """Cut the source into shards; they follow from the data and ``max_shard_bytes`` alone.

        Raises:
            DataError: a file that has to be scanned is damaged.
        """
        ...

    def account(self, facts: Sequence[Sequence[SliceFacts]]) -> list[Account]:
        """What all was read of each split, by the facts of its shards in order.

        Raises:
            DataError: a byte of the source was not read, or a file changed since it was.
        """
        ...

    def account_of(self, found: SourceSplit, facts: Sequence[SliceFacts]) -> Account:
        """The same of one split alone."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What the user should know, as far as reading has shown it."""
        ...

    def write_lost(self, report: Report, folder: Path) -> Sequence[OutputFile]:
        """Write what was left out (see :attr:`Account.quarantine`) into an output; the files."""
        ...


def source_bytes(source: Source) -> int:
    """Size of all that a source has, as stored."""
    return sum(split.bytes for split in source.splits)


def changed_input(source: Source, before: Mapping[str, FileState]) -> DataError | None:
    """The error of a file that is another than it was ``before``, or is gone; None if none is."""
    try:
        now = source.inputs()
    except OSError as error:
        return changed_file(error.filename)
    return next((changed_file(path) for path, state in before.items() if now.get(path) != state), None)


def changed_file(path: Place | str | None) -> DataError:
    """The error of a source file that was changed during the run."""
    return DataError(
        "the file changed while it was converted.",
        Location(None if path is None else str(path)),
        "Convert again when nothing writes to it.",
    )
