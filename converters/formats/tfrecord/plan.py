"""The plan: how the source is cut into shards. It follows from the data and the options alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from converters.dataset.plan import MAX_SHARD_BYTES, Plan
from converters.dataset.shard import Shard
from converters.dataset.source import MAX_RECORD_BYTES, SourceSplit
from converters.formats.tfrecord.compression import StoredFile
from converters.formats.tfrecord.framing import HEADER_BYTES, MAX_SIZES_SEEN, OVERHEAD_BYTES, record_size
from converters.formats.tfrecord.reader import RangeReader, SourceRange, whole_file

_Cut = tuple[int, int, int, int]
"""Where a shard begins: the number of the file, the byte in it, the record in it, and the record in the split."""


def plan_shards(
    splits: Sequence[SourceSplit],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Plan:
    """Cut the source into shards; they follow from the data and ``max_shard_bytes`` alone.

    A split of at most ``max_shard_bytes`` is one shard, whose records nobody counts beforehand. A larger one is
    cut between records, at most so many bytes of source a shard; its files are scanned for that. Damaged ranges belong
    to the shard before them. ``max_record_bytes`` is the longest record that is accepted.

    Raises:
        DataError: a file that has to be scanned is damaged.
    """
    shards = []
    for source in splits:
        files = tuple(map(whole_file, source.files))
        cuts = _cuts(files, max_shard_bytes, max_record_bytes)
        for index, (begin, end) in enumerate(pairwise(cuts)):
            slices = tuple(_slices(files, begin, end))
            size = sum(piece.end - piece.start for piece in slices)
            shards.append(Shard(source.split, index, len(cuts) - 1, begin[3], slices, size))
    return Plan(shards)


def _cuts(files: Sequence[SourceRange], max_shard_bytes: int, max_record_bytes: int) -> list[_Cut]:
    """Where the shards of a split begin, and after them where the last one ends."""
    cuts = [(0, 0, 0, 0)]
    if sum(file.end for file in files) <= max_shard_bytes:
        return [*cuts, (len(files), 0, 0, 0)]
    shard_bytes = shard_records = first = 0
    for number, file in enumerate(files):
        first_in_file = 0
        for offset, size, records, lost in _units(file, max_record_bytes):
            # A damaged range is never what a shard begins with.
            if records and shard_records and shard_bytes + size > max_shard_bytes:
                cuts.append((number, offset, first_in_file, first))
                shard_bytes = shard_records = 0
            shard_bytes += size
            shard_records += records
            first += records
            first_in_file += records + lost
    return [*cuts, (len(files), 0, 0, first)]


def _slices(files: Sequence[SourceRange], begin: _Cut, end: _Cut) -> Iterator[SourceRange]:
    """What lies between two cuts."""
    number, start, first_in_file, _ = begin
    while (number, start) < end[:2]:
        file = files[number]
        if file.end:
            yield _part(file, start, end[1] if number == end[0] else file.end, first_in_file)
        number, start, first_in_file = number + 1, 0, 0


def _units(file: SourceRange, max_record_bytes: int) -> Iterator[tuple[int, int, int, int]]:
    """What a file can be cut before, in order: records, damaged ranges, or the whole of a compressed file.

    Of each: where it starts, as stored; the bytes that it takes in an output; how many sound records are in it; and how
    many lost ones, as far as known.
    """
    if file.compression != "none":
        reader = RangeReader(file, max_record_bytes)
        for _ in reader.frames():
            pass
        yield 0, reader.record_bytes, reader.records, 0
        return
    lost = {piece.start: piece for piece in file.lost}
    sizes_seen: dict[bytes, int] = {}
    offset = record = 0
    with StoredFile(file.path) as stored:
        while offset < file.end:
            if piece := lost.pop(offset, None):
                yield offset, 0, 0, piece.records or 0
                offset, record = piece.end, record + (piece.records or 0)
                continue
            header = stored.read_at(offset, HEADER_BYTES)
            size = sizes_seen.get(header)
            if size is None:
                size = OVERHEAD_BYTES + record_size(header, stored.path, record, offset, max_record_bytes)
                if len(sizes_seen) < MAX_SIZES_SEEN:
                    sizes_seen[header] = size
            yield offset, size, 1, 0
            offset, record = offset + size, record + 1


def _part(file: SourceRange, start: int, end: int, first_record: int) -> SourceRange:
    """A part of a whole file's range, with the damaged ranges in it."""
    if (start, end) == (file.start, file.end):
        # Also a compressed file, which is never cut: its damaged ranges count other bytes than its ends.
        return file
    lost = tuple(piece for piece in file.lost if start <= piece.start < end or piece.start == end == file.end)
    return replace(file, start=start, end=end, first_record=first_record, lost=lost)
