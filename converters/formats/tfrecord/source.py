"""TFRecord files as a source: which there are, how they are cut into shards, and how a shard is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa

from converters.dataset.checks import RecordChecker
from converters.dataset.column_table import ColumnTable
from converters.dataset.damage import LostRange
from converters.dataset.description import (
    IDENTITIES,
    Split,
    parse_description,
    with_all_columns,
    with_columns,
    with_described_columns,
)
from converters.dataset.identity import Identities, Rows, read_identities
from converters.dataset.plan import Plan
from converters.dataset.quarantine import Quarantine, QuarantinedRange
from converters.dataset.report import Report
from converters.dataset.shard import Progress, Shard, SliceFacts
from converters.dataset.source import (
    MAX_RECORD_BYTES,
    Account,
    FileState,
    SourceFile,
    SourceSplit,
    changed_file,
)
from converters.dataset.source_facts import SourceFacts
from converters.errors import CallError, DataError, Location
from converters.formats.tfrecord.columns import ColumnReader
from converters.formats.tfrecord.descriptions import describe
from converters.formats.tfrecord.discovery import FoundSource, find_source, passed_over_note
from converters.formats.tfrecord.framing import OVERHEAD_BYTES
from converters.formats.tfrecord.label_maps import find_label_maps
from converters.formats.tfrecord.listing import Listing, list_source
from converters.formats.tfrecord.plan import plan_shards
from converters.formats.tfrecord.quarantine_folder import write_quarantine
from converters.formats.tfrecord.reader import RangeReader, SourceRange, frame_location, read_columns
from converters.formats.tfrecord.witnesses import Joined, Witnesses, joined_texts
from converters.storage.file_list import OutputFile
from converters.storage.files import file_state
from converters.storage.object_store import Place, side_by_side
from converters.storage.signals import held_interrupts
from converters.storage.tree import file_digest, hash_ranges

if TYPE_CHECKING:
    # What most runs do without is imported where it is used.
    from converters.formats.tfrecord.damage_scan import ExaminedSplit

Reader = Literal["native", "tensorflow"]

OnError = Literal["fail", "quarantine"]
"""What damage in the source means: an error, or that it is left out and put into quarantine."""

# A row of a label CSV is far shorter than the record it names, and all rows are held in memory.
_FREE_LABEL_BYTES = 16 << 20


@dataclass(frozen=True)
class TFRecordReading:
    """How the records of a TFRecord source are read.

    Attributes:
        labels: folder of the authors' label CSVs, where given.
        without: what is left out: columns, by their names or those of their features; in a source, features.
        reader: who reads the records.
        decode: whether every image is decoded.
        max_record_bytes: the longest record that is accepted.
        lost_rows: the rows of label CSVs whose records are lost, by the split's title.
    """

    labels: Path | None = None
    without: tuple[str, ...] = ()
    reader: Reader = "native"
    decode: bool = False
    max_record_bytes: int = MAX_RECORD_BYTES
    lost_rows: Mapping[str, Rows] = field(default_factory=dict)

    def read(self, shard: Shard) -> TFRecordShardReader:
        """A reader of one shard."""
        return TFRecordShardReader(self, shard)

    def identities(self, split: Split) -> Identities | None:
        """The rows of the label CSV that belong to the records that are there; None without label CSVs."""
        if self.labels is None:
            return None
        return read_identities(self.labels, split).without(self.lost_rows.get(split.title, ()))

    def joined(self, split: Split) -> Joined | None:
        """The identities once more, for :class:`~converters.formats.tfrecord.witnesses.Witnesses`."""
        if self.labels is None:
            return None
        return joined_texts(
            self.labels / split.labels_csv, len(IDENTITIES), self.lost_rows.get(split.title, ())
        )


class TFRecordShardReader:
    """Reads the records of a shard, checked and joined with their identities.

    Attributes:
        facts: what was found in each slice, once it is read through.
        witnesses: the leaves of a few records that were read.
    """

    def __init__(self, reading: TFRecordReading, shard: Shard) -> None:
        self.facts: tuple[SliceFacts, ...] = ()
        self.witnesses: Mapping[int, bytes] = {}
        self._reading = reading
        self._shard = shard

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The checked records, in order.

        Raises:
            DataError: the source is damaged, or a record fails a check.
        """
        shard = self._shard
        identities = self._reading.identities(shard.split)
        record = shard.first_record
        for batch in self._batches():
            yield batch if identities is None else identities.join(batch, record)
            record += len(batch)
        if identities is not None and shard.index == shard.count - 1:
            identities.finish(record)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        reading, schema = self._reading, self._shard.split.schema
        checker = RecordChecker(schema, decode=reading.decode)
        columns = ColumnReader(schema, reading.without)
        witnesses = Witnesses(schema, self._shard.first_record, reading.joined(self._shard.split))
        self.witnesses = witnesses.leaves
        for piece in self._shard.slices:
            assert isinstance(piece, SourceRange)
            reader = RangeReader(piece, reading.max_record_bytes)
            path = str(piece.path)
            second = None
            witnesses.begin()
            for frames in reader.frames():
                batch = read_columns(columns, path, frames)
                checker.check(batch, partial(frame_location, path, frames))
                witnesses.take(frames)
                if reading.reader == "tensorflow":
                    from converters.formats.tfrecord.tensorflow import SecondReader

                    # Started only when a first batch was found sound: TensorFlow crashes on some files that are not.
                    second = second or SecondReader(piece, schema)
                    second.confirm(batch, frames.first_record)
                yield batch
            if second is not None and piece.end == file_state(piece.path)[0]:
                second.finish(reader.records)
            whole = piece.compression == "none" and not piece.lost
            witnesses.finish(piece.end - piece.start if whole else reader.record_bytes)
            self.facts += (reader.facts(),)


class TFRecordSource:
    """TFRecord files; see :class:`~converters.dataset.source.Source` for its attributes.

    Args:
        found: the files.
        reading: how their records are read.
        inferred: what was inferred of the configs that nothing describes.
        on_error: what damage means.
        paranoid: whether every file is hashed once more at the end.
        named_after_place: whether the dataset's name is only that of the folder, which may be moved.
        chosen: whether files were named, rather than their folder.
    """

    def __init__(
        self,
        found: FoundSource,
        reading: TFRecordReading,
        *,
        inferred: tuple[ColumnTable, ...] = (),
        on_error: OnError = "fail",
        paranoid: bool = False,
        named_after_place: bool = False,
        chosen: bool = False,
    ) -> None:
        self._paranoid = paranoid
        self.named_after_place = named_after_place
        self.chosen = chosen
        self.description = found.description
        self.inferred = inferred
        self.identified = reading.labels is not None
        self.without = reading.without
        self.origin = ()
        self.splits = tuple(
            replace(there, split=with_columns(there.split, self.without, self.identified))
            for there in found.splits
        )
        self.absent = found.absent
        self._found = found
        self._on_error = on_error
        self._examined: Mapping[str, ExaminedSplit] = {}
        left_out = {
            column.feature or ""
            for there in found.splits
            for column in there.split.schema.stored
            if column.name in self.without or column.feature in self.without
        }
        self.reading = replace(reading, without=tuple(sorted(left_out)))
        _check_label_files(found.splits, reading.labels)

    @property
    def passed_over(self) -> tuple[str, ...]:
        """A sentence that lists what is in the source and is no part of the dataset, if anything is."""
        return (passed_over_note(self._found.passed_over),) if self._found.passed_over else ()

    @property
    def warnings(self) -> Sequence[str]:
        """How files were matched, and what examining them has shown."""
        notes = [*(found.note for found in self.splits if found.note), *self.passed_over]
        notes += [f"{config.name}: {note}" for config in self.inferred for note in config.notes]
        return [*notes, *(warning for split in self._examined.values() for warning in split.warnings)]

    def inputs(self) -> dict[str, FileState]:
        """The state of the TFRecords, their indexes and the label CSVs; links keep their own names."""
        files = [file for found in self.splits for file in found.files]
        read: list[Place] = [file.path for file in files]
        read += [file.index for file in files if file.index is not None]
        read += self._found.companions
        labels = self.reading.labels
        if labels is not None:
            read += [labels / found.split.labels_csv for found in self.splits]
        return dict(zip(map(_absolute, read), side_by_side(file_state, read), strict=True))

    def described(self) -> dict[str, Any]:
        """The description as ``dataset.json`` has it, complete, to be edited.

        Where columns were inferred, roles that all but a few values bear out stand there as promises.
        """
        return with_all_columns(self.description, {config.name: config.to_edit() for config in self.inferred})

    def plan(self, max_shard_bytes: int) -> Plan:
        """Cut the files into shards; damaged ranges are looked for first where they are to be passed over."""
        reading = self.reading
        if self._on_error == "quarantine":
            from converters.formats.tfrecord.damage_scan import examine_split

            self._examined = {
                found.split.title: examine_split(
                    found,
                    reading.labels,
                    decode=reading.decode,
                    max_record_bytes=reading.max_record_bytes,
                    without=reading.without,
                )
                for found in self.splits
            }
            lost_rows = {title: examined.lost_rows() for title, examined in self._examined.items()}
            self.reading = replace(reading, lost_rows=lost_rows)
        splits = [examined.found for examined in self._examined.values()] or self.splits
        return plan_shards(splits, max_shard_bytes, reading.max_record_bytes)

    def plan_around(
        self,
        split: SourceSplit,
        quarantine: Quarantine | None,
        facts: Sequence[SourceFacts],
        max_shard_bytes: int,
    ) -> Plan:
        """Cut one split into shards that pass over what an earlier conversion of it left out.

        Args:
            split: one of :attr:`splits`.
            quarantine: what was left out; None where nothing could be.
            facts: the files as they were then.
            max_shard_bytes: as it was then.

        Raises:
            DataError: the files are other ones, or have other sizes.
        """
        if quarantine is not None:
            split = _without_stated(split, quarantine, facts)
        return plan_shards([split], max_shard_bytes, self.reading.max_record_bytes)

    def sound_range(
        self, split: SourceSplit, quarantine: Quarantine, facts: Sequence[SourceFacts]
    ) -> QuarantinedRange | None:
        """The first range of a quarantine that is not all damaged, where images that do not decode are damage too.

        The arguments are those of :meth:`plan_around`.

        Raises:
            DataError: the files are other ones, or have other sizes.
        """
        from converters.formats.tfrecord.damage_scan import examine_split

        bare = _without_stated(split, Quarantine(None, (), ()), facts)
        examined = examine_split(
            bare,
            None,
            decode=True,
            max_record_bytes=self.reading.max_record_bytes,
            without=self.reading.without,
        )
        lost = {file.name: file.lost for file in examined.found.files}
        return next((piece for piece in quarantine.ranges if not _covered(piece, lost[piece.file])), None)

    def account(self, facts: Sequence[Sequence[SliceFacts]]) -> list[Account]:
        """What was read of each split.

        Raises:
            DataError: a byte of a file was not read, or the file changed since it was.
        """
        accounts = [self.account_of(found, slices) for found, slices in zip(self.splits, facts, strict=True)]
        files = [file for found in self.splits for file in found.files]
        if self._paranoid:
            _hash_again(files, [known for account in accounts for known in account.files])
        for file, state in zip(files, side_by_side(file_state, [file.path for file in files]), strict=True):
            if state != (file.size, file.version):
                raise changed_file(file.path)
        return accounts

    def account_of(self, found: SourceSplit, facts: Sequence[SliceFacts]) -> Account:
        """What was read of one split.

        Raises:
            DataError: a byte of a file was not read.
        """
        read = _slices_of_files(found, facts)
        sources = tuple(map(source_facts, found.files, read))
        identities = self.reading.identities(found.split)
        clips = None if identities is None else identities.clips()
        there = self._examined.get(found.split.title)
        if there is None:
            return Account(sources, clips=clips)
        quarantine = there.quarantine([sum(piece.record_bytes for piece in slices) for slices in read])
        return Account(sources, quarantine, there.csv_labels, there.csv_identities, clips)

    def cut_like(self, found: SourceSplit, facts: SourceFacts, stated: SourceFacts) -> SourceFacts:
        """What was read of a file, with digests of the ranges that a manifest states, for which it is hashed again.

        Two conversions of the same files, the one of the other's output, may have read them in other ranges.
        """
        ends = [end for end, _ in stated.ranges] or [facts.bytes]
        if ends != sorted(set(ends)) or ends[-1] != facts.bytes:
            return facts
        file = next(file for file in found.files if file.name == facts.name)
        whole, digests = hash_ranges(file.path, ends, ())
        ranges = tuple(zip(ends, digests, strict=True)) if stated.ranges else ()
        return replace(facts, sha256=None if stated.sha256 is None else whole, ranges=ranges)

    def write_lost(self, report: Report, folder: Path) -> tuple[OutputFile, ...]:
        """Write the folder ``quarantine/``, where anything was left out."""
        return write_quarantine(self.splits, report, folder)


def open_tfrecords(
    place: Place,
    *,
    configs: Collection[str] = (),
    splits: Collection[str] = (),
    labels: Path | None = None,
    reader: Reader = "native",
    on_error: OnError = "fail",
    decode: bool = False,
    max_record_bytes: int = MAX_RECORD_BYTES,
    without: tuple[str, ...] = (),
    paranoid: bool = False,
    allow_mismatch: bool = False,
    progress: Progress | None = None,
) -> TFRecordSource:
    """TFRecord files as a source. Where nothing describes their columns, all records are read to infer them.

    Args:
        place: a folder, which is searched with all below it; a file; or a glob pattern.
        configs: those wanted; all by default.
        splits: likewise.
        labels: see :class:`TFRecordReading`.
        reader: likewise.
        on_error: see :class:`TFRecordSource`.
        decode: see :class:`TFRecordReading`.
        max_record_bytes: likewise.
        without: likewise.
        paranoid: see :class:`TFRecordSource`.
        allow_mismatch: whether a split may be absent that must be there by what is published, and a file empty.
        progress: told of the records that columns are inferred from.

    Raises:
        CallError: the place, the description or the environment is wrong.
        DataError: a file cannot be matched to a split, or is no TFRecord of Examples; it is damaged, where columns
            are inferred.
    """
    if reader not in get_args(Reader):
        raise CallError(f"no reader {reader!r}; there are native and tensorflow.")
    if on_error not in get_args(OnError):
        raise CallError(f"on_error is {on_error!r}; it can be fail or quarantine.")
    if reader == "tensorflow":
        from converters.formats.tfrecord.tensorflow import require_tensorflow

        if on_error == "quarantine":
            raise CallError(
                "--reader tensorflow does not go with --on-error quarantine: TensorFlow stops at the first damage."
            )
        if not isinstance(place, Path):
            raise CallError("--reader tensorflow reads files of this machine: copy the source here first.")
        require_tensorflow()
    listing = list_source(place)
    described = describe(listing)
    found = find_source(listing, described, configs, splits, allow_mismatch=allow_mismatch)
    found, inferred = _with_inferred(
        found,
        listing,
        without=without,
        max_record_bytes=max_record_bytes,
        quarantine=on_error == "quarantine",
        progress=progress,
    )
    return TFRecordSource(
        found,
        TFRecordReading(labels, without, reader, decode, max_record_bytes),
        inferred=inferred,
        on_error=on_error,
        paranoid=paranoid,
        named_after_place=described.named_after_place,
        chosen=listing.chosen,
    )


def _with_inferred(
    found: FoundSource,
    listing: Listing,
    **options: Any,  # noqa: ANN401  # of the pass
) -> tuple[FoundSource, tuple[ColumnTable, ...]]:
    """The source with the columns of those configs that are asked for and have none yet."""
    unknown = dict.fromkeys(there.split.config for there in found.splits if not there.split.schema.columns)
    if not unknown:
        return found, ()
    from converters.formats.tfrecord.inference_pass import InferencePass

    label_maps = find_label_maps(found.folder, listing.beside)
    inference = InferencePass(label_maps=label_maps, **options)
    inferred = tuple(
        inference.infer(
            config, [there for there in (*found.splits, *found.others) if there.split.config == config]
        )
        for config in unknown
    )
    document = with_described_columns(
        found.description, {config.name: config.described() for config in inferred}
    )
    description = parse_description(document, f"{listing.place}: what was inferred")
    by_title = {split.title: split for split in description.splits()}
    used = [label_map.path for label_map in label_maps]
    found = replace(
        found,
        description=description,
        splits=tuple(replace(there, split=by_title[there.split.title]) for there in found.splits),
        absent=tuple(by_title[split.title] for split in found.absent),
        others=(),
        passed_over=tuple(name for name in found.passed_over if name not in used),
        companions=(*found.companions, *(found.folder / path for path in used)),
    )
    return found, inferred


def _slices_of_files(found: SourceSplit, facts: Sequence[SliceFacts]) -> list[list[SliceFacts]]:
    """The slices of each file; they must follow each other from its first byte to its last.

    Raises:
        DataError: they do not.
    """
    left = iter(facts)
    piece = next(left, None)
    read = []
    for file in found.files:
        end, slices = 0, []
        while (
            piece is not None and piece.path == str(file.path) and piece.start == end < piece.end <= file.size
        ):
            slices.append(piece)
            end = piece.end
            piece = next(left, None)
        if end != file.size:
            raise DataError(
                f"bytes {end} to {file.size} of the file were not converted.",
                Location(str(file.path)),
                "Try again.",
            )
        read.append(slices)
    if piece is not None:
        raise DataError("a part of a file was converted that is not in the plan.", Location(piece.path))
    return read


def _hash_again(files: Sequence[SourceFile], facts: Sequence[SourceFacts]) -> None:
    """Hash every file once more.

    Raises:
        DataError: a byte is another than was converted.
    """

    def hashed_again(file: SourceFile, known: SourceFacts) -> None:
        ranges = known.ranges or ((known.bytes, known.sha256),)
        _, now = hash_ranges(file.path, [end for end, _ in ranges], stop)
        if now != [sha256 for _, sha256 in ranges]:
            raise changed_file(file.path)

    # Hashing lets other threads run.
    with held_interrupts() as stop, ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(hashed_again, files, facts))


def source_facts(file: SourceFile, slices: Sequence[SliceFacts]) -> SourceFacts:
    """What was found in a file, by its slices; one of several is hashed as a whole only if that digest is published."""
    indexed = {piece.indexed for piece in slices}
    records = sum(piece.records for piece in slices)
    algorithm, _, _ = (file.published or "").partition(":")
    whole = slices[0].sha256 if len(slices) == 1 else None
    if not slices:
        whole = hashlib.sha256().hexdigest()
    if whole is None and algorithm == "sha256":
        whole = file_digest(file.path, algorithm)
    return SourceFacts(
        file.name,
        file.size,
        whole,
        records,
        sum(piece.record_bytes for piece in slices) - OVERHEAD_BYTES * records,
        file.compression,
        indexed.pop() if len(indexed) == 1 else None,
        tuple((piece.end, piece.sha256) for piece in slices) if len(slices) > 1 else (),
        file.published,
        file_digest(file.path, algorithm) if algorithm == "md5" else None,
    )


def _without_stated(split: SourceSplit, quarantine: Quarantine, facts: Sequence[SourceFacts]) -> SourceSplit:
    """The split with the ranges of its files that are to be passed over, by what a manifest says."""
    stated = {piece.name: piece for piece in facts}
    files = []
    for file in split.files:
        known = stated.get(file.name)
        if known is None or (known.bytes, known.compression) != (file.size, file.compression):
            raise DataError(
                "this is not the file that was converted: its name, size or compression is another.",
                Location(str(file.path)),
            )
        index = file.index if known.indexed else None
        files.append(replace(file, lost=quarantine.of_file(known.name), index=index))
    return replace(split, files=tuple(files))


def _covered(piece: QuarantinedRange, lost: Sequence[LostRange]) -> bool:
    """Whether damaged ranges of a file, which are in order, have all bytes of this one."""
    place = piece.offset
    for found in lost:
        if found.inflated == piece.inflated and found.start <= place < found.end:
            place = found.end
    return place >= piece.offset + piece.bytes


def _check_label_files(splits: Sequence[SourceSplit], labels: Path | None) -> None:
    """The label CSVs must be there, and none so large that it cannot belong to its TFRecords."""
    if labels is None:
        return
    if not labels.is_dir():
        raise CallError(f"{labels}: there is no such folder. --labels takes the folder of the label CSVs.")
    for found in splits:
        path = labels / found.split.labels_csv
        if not path.is_file():
            raise CallError(f"{path}: there is no such label CSV, which {found.split.title} needs.")
        largest = _FREE_LABEL_BYTES + found.bytes
        if (size := path.stat().st_size) > largest:
            raise DataError(
                f"the label CSV has {size} bytes; at most {largest} are accepted for TFRecords as large as those of "
                f"{found.split.title}.",
                Location(str(path)),
                "Is it the right file?",
            )


def _absolute(path: Place) -> str:
    """The files' own names stay, also where they are links."""
    return str(path.parent.resolve() / path.name) if isinstance(path, Path) else path.url
