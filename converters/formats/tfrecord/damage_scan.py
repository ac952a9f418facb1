"""The first pass of a conversion with quarantine: what in the source is damaged, and which records that costs.

It reads every file with the checks of a conversion. The second pass is the strict conversion itself, of what lies
between the damaged ranges; a record that fails there is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain, repeat
from pathlib import Path

from converters.dataset.checks import RecordChecker
from converters.dataset.damage import FoundAgain, first_lost, records_lost
from converters.dataset.filenames import folded
from converters.dataset.fingerprint import identity_digest, tree_root
from converters.dataset.identity import Identities, read_identities
from converters.dataset.quarantine import FOLDER, FileBytes, Quarantine, QuarantinedRange, raw_name
from converters.dataset.source import SourceSplit
from converters.errors import CallError, DataError, Location
from converters.formats.tfrecord.columns import ColumnReader
from converters.formats.tfrecord.framing import Frames
from converters.formats.tfrecord.reader import frame_location, read_columns
from converters.formats.tfrecord.recovery import Check, Examination, examine

# What it means for the output that a record was found again in this way.
_FOUND_AGAIN: Mapping[FoundAgain, str] = {
    "by checksums": "A record that lies whole inside a damaged one (in a JPEG's comment, say) comes out as well.",
    "by index": "The index agrees with all records that were found.",
}


@dataclass(frozen=True)
class ExaminedSplit:
    """What examining a split found.

    Attributes:
        found: the split, with the damaged ranges of its files; an index that contradicts its file is left out.
        ranges: the same ranges, as they are listed.
        stream_bytes: the decompressed size of each of its files, in order.
        warnings: what the user should know.
        csv_labels: whether its label CSV has the published labels, as a whole; None where none is given, or nothing
            is published.
        csv_identities: likewise, the published names.
    """

    found: SourceSplit
    ranges: tuple[QuarantinedRange, ...]
    stream_bytes: tuple[int, ...]
    warnings: tuple[str, ...]
    csv_labels: bool | None
    csv_identities: bool | None

    def lost_rows(self) -> tuple[tuple[int, int], ...]:
        """The rows of the label CSV whose records are lost: the first, and how many."""
        return tuple(
            (piece.split_record, piece.records)
            for piece in self.ranges
            if piece.split_record is not None and piece.records
        )

    def quarantine(self, record_bytes: Sequence[int]) -> Quarantine:
        """What was left out of the split, and where all bytes went: ``record_bytes`` is what was read of each file."""
        files = []
        for file, size, read in zip(self.found.files, self.stream_bytes, record_bytes, strict=True):
            lost, stored_lost = (
                sum(piece.end - piece.start for piece in file.lost if (piece.inflated is None) is inside)
                for inside in (True, False)
            )
            files.append(FileBytes(file.name, size, read, lost, file.size, stored_lost))
        lost_records = records_lost(piece.records for piece in self.ranges)
        return Quarantine(lost_records, self.ranges, tuple(files))


def examine_split(
    found: SourceSplit,
    labels: Path | None,
    *,
    decode: bool,
    max_record_bytes: int,
    without: tuple[str, ...] = (),
) -> ExaminedSplit:
    """Examine every file of a split.

    Raises:
        CallError: its config has the name of the quarantine's folder.
        DataError: nothing in a file is sound; or a label CSV is given, and its rows cannot be told apart.
    """
    if folded(found.split.config) == FOLDER:
        raise CallError(f"--on-error quarantine needs the folder {FOLDER!r}, which is a config's name here.")
    check = _record_check(found, without, decode=decode)
    examined = [
        Examination(0, 0, (), None)
        if file.may_be_empty
        else examine(file.path, file.compression, file.index, check, max_record_bytes)
        for file in found.files
    ]
    identities = None if labels is None else read_identities(labels, found.split)
    examined = _resolved(found, examined, identities)
    ranges = tuple(_ranges(found, examined, identities))
    warnings = [
        f"{file.index.name} was not used, as it does not belong to {file.name}: {examination.index_problem}"
        for file, examination in zip(found.files, examined, strict=True)
        if file.index is not None and examination.index_problem is not None
    ]
    files = tuple(
        replace(file, lost=examination.lost, index=None if examination.index_problem else file.index)
        for file, examination in zip(found.files, examined, strict=True)
    )
    return ExaminedSplit(
        replace(found, files=files),
        ranges,
        tuple(examination.stream_bytes for examination in examined),
        (*warnings, *_found_again(found.split.title, ranges)),
        *_csv_published(identities, found),
    )


def _record_check(found: SourceSplit, without: tuple[str, ...], *, decode: bool) -> Check:
    """Holds records against all that a conversion checks."""
    columns = ColumnReader(found.split.schema, without)
    checker = RecordChecker(found.split.schema, decode=decode)

    def check(frames: Frames) -> None:
        checker.check(read_columns(columns, "", frames), partial(frame_location, "", frames))

    return check


def _resolved(
    found: SourceSplit, examined: Sequence[Examination], identities: Identities | None
) -> list[Examination]:
    """The examinations, with numbers of lost records that follow from how many the split must have.

    If just one stretch of the split lost an unknown number of records, the total tells it. Ranges with no sound
    record between them are one stretch, whose number is counted at its first range.
    """
    total = found.split.published.records if identities is None else len(identities.labels)
    sound_before = accumulate((examination.records for examination in examined), initial=0)
    pieces = [
        (before + piece.sound_before, piece.records)
        for before, examination in zip(sound_before, examined, strict=False)
        for piece in examination.lost
    ]
    sound = sum(examination.records for examination in examined)
    known = sum(records or 0 for _, records in pieces)
    stretches = len({before for before, records in pieces if records is None})
    if identities is not None:
        _refuse_ambiguous(found, identities, stretches, sound, known)
    if stretches != 1 or total is None or total < sound + known:
        return list(examined)
    counts = chain([total - sound - known], repeat(0))
    return [
        replace(
            examination,
            lost=tuple(
                replace(piece, records=next(counts)) if piece.records is None else piece
                for piece in examination.lost
            ),
        )
        for examination in examined
    ]


def _refuse_ambiguous(
    found: SourceSplit, identities: Identities, stretches: int, sound: int, known: int
) -> None:
    """Each record's row must be known: it is never guessed."""
    rows, title = len(identities.labels), found.split.title
    if stretches > 1:
        raise DataError(
            f"{title} lost an unknown number of records in {stretches} places, so which row of this CSV belongs to "
            "which record cannot be known.",
            Location(identities.path),
            "Put the files' .idx files beside them, or convert without --labels.",
        )
    if sound + known > rows or (not stretches and sound + known != rows):
        raise DataError(
            f"the CSV has {rows} rows, {title} has {sound} sound records and {known} that are damaged.",
            Location(identities.path),
            "So this CSV does not belong to this file. Convert without --labels, or find the CSV that does.",
        )


def _ranges(
    found: SourceSplit, examined: Sequence[Examination], identities: Identities | None
) -> Iterator[QuarantinedRange]:
    base: int | None = 0  # number of records in the files before, lost ones counted
    for number, (file, examination) in enumerate(zip(found.files, examined, strict=True)):
        for piece, record in zip(examination.lost, first_lost(examination.lost), strict=True):
            row = None if base is None or record is None else base + record
            img_ids = None
            if identities is not None and row is not None and piece.records is not None:
                img_ids = tuple(identities.img_id.slice(row, piece.records).to_pylist())
            yield QuarantinedRange(
                file=file.name,
                offset=piece.start,
                bytes=piece.end - piece.start,
                inflated=piece.inflated,
                records=piece.records,
                record=record,
                split_record=row,
                img_ids=img_ids,
                reason=piece.reason,
                found_again=piece.found_again,
                raw=raw_name(found.split, file.name, number, piece),
            )
        lost = records_lost(piece.records for piece in examination.lost)
        base = None if base is None or lost is None else base + examination.records + lost


def _found_again(title: str, ranges: Sequence[QuarantinedRange]) -> Iterator[str]:
    """Where records were found again after damage that does not tell its end, and what that means."""
    for how, meaning in _FOUND_AGAIN.items():
        if count := sum(piece.found_again == how for piece in ranges):
            places = "1 damaged range does" if count == 1 else f"{count:,} damaged ranges do"
            yield f"{title}: {places} not tell where the next record begins; it was found again {how}. {meaning}"


def _csv_published(identities: Identities | None, found: SourceSplit) -> tuple[bool | None, bool | None]:
    """Whether a label CSV has, as a whole, the published labels, and the published names."""
    published = found.split.published
    labels = names = None
    if identities is not None and published.labels_sha256 is not None:
        labels = hashlib.sha256(identities.labels.tobytes()).hexdigest() == published.labels_sha256
    if identities is not None and published.identities_sha256 is not None:
        pairs = zip(identities.img_id.to_pylist(), identities.clip_id.to_pylist(), strict=True)
        names = tree_root((identity_digest(*pair) for pair in pairs), b"") == published.identities_sha256
    return labels, names
