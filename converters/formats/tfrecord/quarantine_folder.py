"""The folder ``quarantine/`` of an output: the bytes of every damaged range, and the list of these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from converters.dataset.quarantine import FOLDER, LIST, Quarantine, QuarantinedRange, list_text
from converters.dataset.report import Report
from converters.dataset.source import SourceSplit
from converters.formats.tfrecord.damage import lost_bytes
from converters.formats.tfrecord.framing import ByteStream
from converters.storage.file_list import OutputFile
from converters.storage.tree import hash_file

_CHUNK = 1 << 20


def write_quarantine(splits: Sequence[SourceSplit], report: Report, folder: Path) -> tuple[OutputFile, ...]:
    """Copy every damaged range from the source into the output, and list them; the files. None if nothing is damaged.

    Raises:
        DataError: the source changed meanwhile.
    """
    if not report.quarantined:
        return ()
    paths = []
    (folder / FOLDER).mkdir()
    reports = {split.split.title: split for split in report.splits}
    for found in splits:
        quarantine = reports[found.split.title].quarantine
        if quarantine is None:
            continue
        for piece, stream in _streams(found, quarantine):
            if piece.raw is None:
                continue
            (folder / piece.raw).parent.mkdir(parents=True, exist_ok=True)
            with (folder / piece.raw).open("xb") as raw:
                while data := stream.read(_CHUNK):
                    raw.write(data)
            paths.append(piece.raw)
    with (folder / LIST).open("x", encoding="utf-8", newline="\n") as file:
        file.write(list_text((split.split, split.quarantine) for split in report.splits))
    return tuple(OutputFile(path, *hash_file(folder / path)) for path in sorted([*paths, LIST]))


def differing_range(
    found: SourceSplit, quarantine: Quarantine, digests: Mapping[str, str]
) -> QuarantinedRange | None:
    """The first damaged range whose bytes in the source are not those in the output; None if all are.

    Args:
        found: the source's files.
        quarantine: what the output's manifest says of the split.
        digests: SHA-256 of the output's files.
    """
    for piece, stream in _streams(found, quarantine):
        digest = hashlib.sha256()
        while data := stream.read(_CHUNK):
            digest.update(data)
        if piece.raw is not None and digest.hexdigest() != digests[piece.raw]:
            return piece
    return None


def _streams(found: SourceSplit, quarantine: Quarantine) -> Iterator[tuple[QuarantinedRange, ByteStream]]:
    """Each damaged range of a split, with its bytes in the source."""
    for file in found.files:
        ranges = [piece for piece in quarantine.ranges if piece.file == file.name]
        lost = [piece.lost_range() for piece in ranges]
        yield from zip(ranges, lost_bytes(file.path, file.compression, lost), strict=True)
