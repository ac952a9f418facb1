"""What ``--on-error quarantine`` leaves out of an output: which ranges of the source, and that no byte is missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from converters.dataset.damage import FoundAgain, LostRange, records_lost
from converters.dataset.decode import Count
from converters.dataset.description import Split
from converters.dataset.filenames import safe_path, unsafe_name

if TYPE_CHECKING:
    from converters.dataset.source_facts import SourceFacts

FOLDER = "quarantine"
LIST = f"{FOLDER}/records.json"


@dataclass(frozen=True)
class QuarantinedRange:
    """A damaged range of a source file.

    Attributes:
        file: name of the source file.
        offset: its first byte in the file, decompressed.
        bytes: its size.
        inflated: None; for a range of a compressed file's *stored* bytes, which ``offset`` and ``bytes`` count
            then, how many bytes the stored bytes before it inflate to.
        records: number of records lost with it; None where it is not known.
        record: index in the file of the first of these, lost ones counted; None where it is not known.
        split_record: the same, in the split: the row of the label CSV.
        img_ids: names of the lost records, where label CSVs are given.
        reason: what is wrong with it.
        found_again: how its end was found, where the damaged record does not tell; None otherwise.
        raw: the file in the output that holds its bytes; None where it has none.
    """

    file: str
    offset: Count
    bytes: Count
    inflated: Count | None
    records: Count | None
    record: Count | None
    split_record: Count | None
    img_ids: tuple[str, ...] | None
    reason: str
    found_again: FoundAgain | None
    raw: str | None

    def lost_range(self) -> LostRange:
        """The range as the reader takes it; how many sound records are before it does not matter there."""
        return LostRange(self.offset, self.offset + self.bytes, self.records, 0, self.reason, self.inflated)


@dataclass(frozen=True)
class FileBytes:
    """Where the bytes of a source file went.

    Attributes:
        file: its name.
        bytes: its size, decompressed (where the compression is damaged, of what inflates).
        converted: bytes in records that were converted.
        quarantined: bytes in damaged ranges.
        stored: its size as stored.
        stored_lost: of these, how many at its end do not inflate.
    """

    file: str
    bytes: Count
    converted: Count
    quarantined: Count
    stored: Count
    stored_lost: Count

    @property
    def complete(self) -> bool:
        """Whether every byte is accounted for."""
        return self.converted + self.quarantined == self.bytes and self.stored_lost <= self.stored


@dataclass(frozen=True)
class Quarantine:
    """What was left out of one split, and where the bytes of its files went; both in the order of the source.

    Attributes:
        lost_records: number of records that are lost; None where it is not known.
        ranges: what was left out.
        files: the files.
    """

    lost_records: Count | None
    ranges: tuple[QuarantinedRange, ...]
    files: tuple[FileBytes, ...]

    def of_file(self, file: str) -> tuple[LostRange, ...]:
        """The damaged ranges of one file."""
        return tuple(piece.lost_range() for piece in self.ranges if piece.file == file)


def raw_name(split: Split, file: str, number: int, piece: LostRange) -> str | None:
    """The name of the file that holds a range's bytes; None where it has none.

    Args:
        split: whose file it is in.
        file: name of the source file; where that cannot be a file name everywhere, its number is taken.
        number: of the source file in the split.
        piece: the range.
    """
    if piece.start == piece.end:
        return None
    kind = "bin" if piece.inflated is None else "stored.bin"
    name = f"{file}-{piece.start}.{kind}"
    if unsafe_name(name):
        name = f"file-{number:05d}-{piece.start}.{kind}"
    return f"{FOLDER}/{split.config}/{split.name}/{name}"


def list_text(splits: Iterable[tuple[Split, Quarantine | None]]) -> str:
    """The text of ``records.json``: a list of all quarantined ranges, one to a line."""
    lines = [
        json.dumps({"config": split.config, "split": split.name, **asdict(piece)}, ensure_ascii=False)
        for split, quarantine in splits
        for piece in (quarantine.ranges if quarantine else ())
    ]
    return "[\n " + ",\n ".join(lines) + "\n]\n"


def check_quarantine(
    quarantine: Quarantine, sources: Sequence[SourceFacts], output: Mapping[str, int]
) -> None:
    """Check that a quarantine from a manifest fits the rest of it.

    Args:
        quarantine: of one split.
        sources: the split's source files, in order.
        output: the sizes of the output's files.

    Raises:
        ValueError: the ranges are not in the files, do not add up, or have other bytes in the output.
    """
    if quarantine.lost_records != records_lost(piece.records for piece in quarantine.ranges):
        raise ValueError("lost_records is not the sum of the ranges' records")
    files, names = quarantine.files, [facts.name for facts in sources]
    if [file.file for file in files] != names:
        raise ValueError("the files of a quarantine are not the split's")
    order = [piece.file for piece in quarantine.ranges]
    if order != sorted(order, key=names.index):
        raise ValueError("the ranges of a quarantine are not in the order of the files")
    for file, facts in zip(files, sources, strict=True):
        ranges = [piece for piece in quarantine.ranges if piece.file == file.file]
        _check_file(file, ranges, facts.bytes, facts.compression)
    _check_raw(quarantine.ranges, output)


def _check_file(file: FileBytes, ranges: Sequence[QuarantinedRange], size: int, compression: str) -> None:
    """The ranges of a file must follow each other inside it, and add up."""
    end = stored_lost = 0
    for number, piece in enumerate(ranges):
        if piece.inflated is not None:
            stored_lost = piece.bytes
            if compression == "none" or number != len(ranges) - 1 or piece.offset + piece.bytes != size:
                raise ValueError("a range of stored bytes that is not the end of a compressed file")
            if piece.inflated != file.bytes:
                raise ValueError("a file that does not end where it stops to inflate")
            continue
        if piece.offset < end:
            raise ValueError("the ranges of a quarantine overlap")
        end = piece.offset + piece.bytes
    quarantined = sum(piece.bytes for piece in ranges if piece.inflated is None)
    if end > file.bytes or (compression == "none" and file.bytes != size) or file.stored != size:
        raise ValueError("a range that is not in its file, or a file of another size")
    if (file.quarantined, file.stored_lost) != (quarantined, stored_lost) or not file.complete:
        raise ValueError("the bytes of a file do not add up")


def _check_raw(ranges: Sequence[QuarantinedRange], output: Mapping[str, int]) -> None:
    """Each range that has bytes has a file of its own in the output, as large as it."""
    names = [piece.raw for piece in ranges if piece.raw is not None]
    if len(set(names)) != len(names):
        raise ValueError("two ranges with one file")
    for piece in ranges:
        if piece.raw is None:
            if piece.bytes:
                raise ValueError("a range whose bytes are in no file")
        elif not (piece.raw.startswith(f"{FOLDER}/") and safe_path(piece.raw)):
            raise ValueError(f"the file name {piece.raw!r} leaves the quarantine")
        elif output.get(piece.raw) != piece.bytes:
            raise ValueError(f"the file {piece.raw!r} is not in the output, or has another size")
