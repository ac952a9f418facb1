"""An output of ours as a source: read by its own format, and held against its manifest while it is read."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from converters.dataset.arrays import conform
from converters.dataset.checks import RecordChecker
from converters.dataset.column_table import ColumnTable
from converters.dataset.description import Description, Split, with_all_columns
from converters.dataset.fingerprint import PartBuilder, Tree
from converters.dataset.manifest import (
    MANIFEST,
    SUMS,
    Manifest,
    Origin,
    StatedOptions,
    StatedSplit,
    read_manifest,
    sums_text,
)
from converters.dataset.plan import Plan
from converters.dataset.quarantine import LIST, list_text
from converters.dataset.report import Report
from converters.dataset.shard import Shard, SliceFacts
from converters.dataset.source import Account, FileState, SourceFile, SourceSplit
from converters.errors import CallError, ConverterError, DataError, Location
from converters.formats import load_format
from converters.formats.fetch import fetch
from converters.storage.file_list import OutputFile
from converters.storage.files import file_state, is_folder, is_there, read_bounded
from converters.storage.object_store import Place, side_by_side
from converters.storage.tree import hash_file

_OF_TFRECORDS: Mapping[str, tuple[str, object]] = {
    "labels": ("--labels", None),
    "reader": ("--reader tensorflow", "native"),
    "on_error": ("--on-error quarantine", "fail"),
    "paranoid": ("--paranoid", False),
}
"""The options that only TFRecords have: what a person types, and the value that asks for nothing."""


@dataclass(frozen=True)
class OutputSlice:
    """Records ``start`` to ``end`` of a split of an output; ``path`` is its manifest."""

    path: Path
    start: int
    end: int


@dataclass(frozen=True)
class OutputReading:
    """How the records of an output are read.

    Attributes:
        folder: the output.
        format: its format; ``format_options`` are for the constructor.
        splits: the splits with all columns that the output has, by their titles.
        decode: whether every image is decoded.
    """

    folder: Path
    format: str
    format_options: Mapping[str, Any]
    splits: Mapping[str, Split]
    decode: bool = False

    def read(self, shard: Shard) -> OutputShardReader:
        """A reader of one shard."""
        return OutputShardReader(self, shard)


class OutputShardReader:
    """Reads the records of a shard.

    Attributes:
        facts: what was found, once it is read through.
        witnesses: none. The manifest states the root of all leaves, against which all records are held.
    """

    witnesses: Mapping[int, bytes] = MappingProxyType({})

    def __init__(self, reading: OutputReading, shard: Shard) -> None:
        self.facts: tuple[SliceFacts, ...] = ()
        self._reading = reading
        self._shard = shard

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The checked records, in order.

        Raises:
            DataError: the output is damaged, or a record fails a check.
        """
        reading, (piece,) = self._reading, self._shard.slices
        split = reading.splits[self._shard.split.title]
        checker = RecordChecker(split.schema, decode=reading.decode)
        builder = PartBuilder(piece.start, split.schema)
        names = self._shard.split.schema.arrow.names
        last = self._shard.index == self._shard.count - 1  # it goes on to the end, wherever that is
        for batch in _between(self._batches(split), piece.start, sys.maxsize if last else piece.end):
            first = piece.start + builder.records
            checker.check(batch, partial(_location, reading.folder, first))
            builder.add(batch)
            yield batch if names == split.schema.arrow.names else batch.select(names)
        if builder.records != piece.end - piece.start:
            raise DataError(
                f"{split.title} has {piece.start + builder.records} records; its manifest says "
                f"{piece.end}{'' if last else ' and more'}.",
                Location(str(reading.folder)),
            )
        self.facts = (
            SliceFacts(str(piece.path), piece.start, piece.end, builder.records, nodes=builder.part().nodes),
        )

    def _batches(self, split: Split) -> Iterator[pa.RecordBatch]:
        reading = self._reading
        try:
            for batch in load_format(reading.format, **reading.format_options).read(reading.folder, split):
                yield conform(batch, split.schema)
        except ValueError as error:
            raise DataError(f"{split.title}: {error}.", Location(str(reading.folder))) from error
        except OSError as error:
            path = Location(error.filename or str(reading.folder))
            raise DataError(f"cannot be read: {error.strerror}.", path) from error


class OutputSource:
    """An output as a source; one in a store is fetched.

    Args:
        place: the output.
        configs: those wanted; all by default. Likewise ``splits``.
        without: columns that are left out.
        decode: whether every image is decoded.
        of_tfrecords: what can only be asked of TFRecords, by the names of :data:`_OF_TFRECORDS`.

    Raises:
        CallError: it is no finished output, its format is not installed, nothing of what is wanted is there, or it is
            asked for what only TFRecords have.
        DataError: its manifest is damaged.
    """

    def __init__(
        self,
        place: Place,
        *,
        configs: Sequence[str] = (),
        splits: Sequence[str] = (),
        without: tuple[str, ...] = (),
        decode: bool = False,
        **of_tfrecords: object,
    ) -> None:
        for name, value in of_tfrecords.items():
            option, default = _OF_TFRECORDS[name]
            if value != default:
                raise CallError(
                    f"{place}: this is an output of kfer-convert, and {option} belongs to TFRecords. Leave it out."
                )
        folder = place
        if not isinstance(folder, Path):
            self._scratch = fetch(folder)  # held as long as the source is
            folder = Path(self._scratch.name)
        self._manifest, data = read_manifest(folder)
        manifest = self._manifest
        load_format(manifest.format, **manifest.options.format_options)
        _check_sums(folder, manifest, data)
        self._folder = folder
        self._entries = _wanted(manifest, configs, splits)
        all_columns = {entry.title: manifest.split(entry) for entry in self._entries}
        self.reading = OutputReading(
            folder, manifest.format, manifest.options.format_options, all_columns, decode
        )
        self.description: Description = manifest.dataset
        self.identified = manifest.options.labels
        self.without = (*manifest.options.without, *without)
        self.origin = (*manifest.origin, Origin.of(manifest, data))
        self.warnings: Sequence[str] = manifest.warnings
        self.inferred: Sequence[ColumnTable] = ()
        total = sum(file.size for file in manifest.files)
        records = sum(entry.fingerprint.records for entry in manifest.splits)
        sizes = [total * entry.fingerprint.records // max(1, records) for entry in self._entries]
        self.splits = tuple(
            SourceSplit(
                replace(split, schema=split.schema.without(without)),
                (SourceFile(MANIFEST, folder / MANIFEST, size, 0),),
            )
            for split, size in zip(all_columns.values(), sizes, strict=True)
        )
        there = {entry.title for entry in manifest.splits}
        self.absent = tuple(
            split
            for split in manifest.dataset.splits()
            if split.title not in there
            and (not configs or split.config in configs)
            and (not splits or split.name in splits)
        )

    def inputs(self) -> dict[str, FileState]:
        """The state of every file that the manifest lists, and of the manifest."""
        paths = [self._folder / path for path in (MANIFEST, *(file.path for file in self._manifest.files))]
        return dict(zip(map(str, paths), side_by_side(file_state, paths), strict=True))

    def described(self) -> dict[str, Any]:
        """See :class:`~converters.dataset.source.Source`; the files are those that the output was made from."""
        return with_all_columns(self.description)

    def plan(self, max_shard_bytes: int) -> Plan:
        """The shards: as many records in each as make about so many bytes."""
        shards = []
        for found in self.splits:
            records = self._entry(found).fingerprint.records
            count = max(1, min(records, -(-found.bytes // max_shard_bytes)))
            for index in range(count):
                start, end = (records * number // count for number in (index, index + 1))
                piece = OutputSlice(self._folder / MANIFEST, start, end)
                size = found.bytes * (end - start) // max(1, records)
                shards.append(Shard(found.split, index, count, start, (piece,), size))
        return Plan(shards)

    def _entry(self, found: SourceSplit) -> StatedSplit:
        return next(entry for entry in self._entries if entry.title == found.split.title)

    def account(self, facts: Sequence[Sequence[SliceFacts]]) -> list[Account]:
        """The first source files of each split, once its records and its files are what the manifest says.

        Raises:
            DataError: they are not.
        """
        accounts = [self.account_of(found, slices) for found, slices in zip(self.splits, facts, strict=True)]
        side_by_side(self._check_file, self._manifest.files)
        return accounts

    def account_of(self, found: SourceSplit, facts: Sequence[SliceFacts]) -> Account:
        """The first source files of one split, once its records are what the manifest says.

        Raises:
            DataError: they are not.
        """
        tree = Tree(0)
        for piece in facts:
            for node in piece.nodes:
                tree.push(node)
        entry = self._entry(found)
        if tree.root() != entry.fingerprint.records_sha256:
            raise DataError(
                f"the records of {found.split.title} are not those that its manifest states.",
                Location(str(self._folder)),
                "The output was changed after it was made: convert the originals again.",
            )
        return Account(entry.sources, entry.quarantine)

    def check_copied(self, report: Report) -> None:
        """Check that the records of another output, as they were read back, are those that this one's manifest states.

        Raises:
            ConverterError: of a split that has all columns, they are not.
        """
        for found, split in zip(self.splits, report.splits, strict=True):
            whole = found.split.schema == self.reading.splits[found.split.title].schema
            stated = self._entry(found).fingerprint
            if whole and stated.records_sha256 != split.fingerprint.records_sha256:
                raise ConverterError(
                    f"{found.split.title}: the records that were read are not those of {self._folder}; a fault of "
                    "kfer-convert."
                )

    def _check_file(self, file: OutputFile) -> None:
        path = self._folder / file.path
        try:
            same = hash_file(path) == (file.size, file.sha256)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}.", Location(str(path))) from error
        if not same:
            raise DataError(
                "the file is not the one that the manifest lists; it was changed.", Location(str(path))
            )

    def write_lost(self, report: Report, folder: Path) -> tuple[OutputFile, ...]:
        """Copy what was in quarantine, where anything was."""
        if not report.quarantined:
            return ()
        paths = [
            piece.raw
            for split in report.splits
            for piece in (split.quarantine.ranges if split.quarantine else ())
            if piece.raw is not None
        ]
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._folder / path, folder / path, follow_symlinks=False)
        (folder / LIST).parent.mkdir(parents=True, exist_ok=True)
        with (folder / LIST).open("x", encoding="utf-8", newline="\n") as file:
            file.write(list_text((split.split, split.quarantine) for split in report.splits))
        return tuple(OutputFile(path, *hash_file(folder / path)) for path in sorted([*paths, LIST]))


def _check_sums(folder: Path, manifest: Manifest, data: bytes) -> None:
    """The manifest, whose bytes are ``data``, must be the one that the sums list: it alone may hold names of labels."""
    path, expected = folder / SUMS, sums_text(manifest.files, data).encode()
    try:
        same = read_bounded(path, len(expected), follow_links=False) == expected
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}.", Location(str(path))) from error
    if not same:
        raise DataError(
            f"it and {MANIFEST} contradict each other: one of them was changed.", Location(str(path))
        )


def _location(folder: Path, first: int, row: int) -> Location:
    return Location(str(folder), first + row)


def _between(batches: Iterator[pa.RecordBatch], start: int, end: int) -> Iterator[pa.RecordBatch]:
    """Records ``start`` to ``end`` of all; beyond the last one, one batch is looked for."""
    first = 0
    for batch in batches:
        last = first + len(batch)
        if last > start and first < end:
            yield batch.slice(max(0, start - first), min(last, end) - max(first, start))
        first = last
        if first > end:
            return


def _wanted(manifest: Manifest, configs: Sequence[str], splits: Sequence[str]) -> list[StatedSplit]:
    """The entries that are wanted.

    Raises:
        CallError: a name is unknown, or nothing of it is there.
    """
    for name in configs:
        manifest.dataset.config(name)
    entries = [
        entry
        for entry in manifest.splits
        if (not configs or entry.config in configs) and (not splits or entry.split in splits)
    ]
    for kind, names, there in (
        ("config", configs, {entry.config for entry in entries}),
        ("split", splits, {entry.split for entry in entries}),
    ):
        if missing := next((name for name in names if name not in there), None):
            have = ", ".join(entry.title for entry in manifest.splits)
            raise CallError(f"no {kind} {missing!r} is in this output; it has {have}.")
    return entries


def is_output(place: Place) -> bool:
    """Whether a place holds an output of ours, by its manifest."""
    return is_folder(place) and is_there(place / MANIFEST)


def stated_options(place: Place) -> StatedOptions:
    """The options that the manifest of an output on this machine states; of one in a store, none are known."""
    if isinstance(place, Path):
        return read_manifest(place)[0].options
    raise CallError(f"{place}: an output in a store is no source to verify against. Copy it here first.")
