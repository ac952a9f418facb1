"""The plan: how the source is cut into shards. It follows from the data and the options alone."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.dataset.damage import FileDamage
from converters.dataset.description import Split
from converters.dataset.plan import MAX_SHARD_BYTES, Plan
from converters.dataset.shard import Shard
from converters.dataset.source import MAX_RECORD_BYTES, SourceFile, SourceSplit
from converters.formats.tfrecord.reader import SourceRange, Units, scan_units, starts_record
from converters.storage.object_store import Place

_CUT_NUMBERS = 4


@dataclass(frozen=True)
class TFRecordSplitPlan:
    """How one split is cut.

    Attributes:
        split: the split.
        files: its source files, whole, in order.
        cuts: where its shards begin, and after them where the last one ends, four numbers each: the file's number,
            the byte in it, the record in it, and the record in the split. So a shard takes 32 bytes.
    """

    split: Split
    files: tuple[SourceRange, ...]
    cuts: array[int]

    @property
    def count(self) -> int:
        """Number of shards."""
        return len(self.cuts) // _CUT_NUMBERS - 1

    def shard(self, index: int) -> Shard:
        """Shard ``index`` of the split."""
        number, start, first_in_file, first = self._cut(index)
        last, end, _, _ = self._cut(index + 1)
        ranges = []
        while (number, start) < (last, end):
            file = self.files[number]
            if file.end:
                ranges.append(_part(file, start, end if number == last else file.end, first_in_file))
            number, start, first_in_file = number + 1, 0, 0
        size = sum(piece.end - piece.start for piece in ranges)
        return Shard(self.split, index, self.count, first, tuple(ranges), size)

    def _cut(self, index: int) -> array[int]:
        return self.cuts[_CUT_NUMBERS * index : _CUT_NUMBERS * (index + 1)]


def plan_shards(
    splits: Sequence[SourceSplit],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    damage: Mapping[Place, FileDamage] | None = None,
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Plan:
    """Cut the source into shards; they follow from the data and ``max_shard_bytes`` alone.

    A split of at most ``max_shard_bytes`` is one shard, whose records nobody counts beforehand. A larger one is
    cut between records, at most so many bytes of source a shard; its files are scanned for that. ``damage`` says
    which ranges of which files are damaged and to be passed over; these belong to the shard before them.
    ``max_record_bytes`` is the longest record that is accepted.

    Raises:
        DataError: a file that has to be scanned is damaged.
    """
    plans = []
    for source in splits:
        files = tuple(_whole_file(file, (damage or {}).get(file.path)) for file in source.files)
        plans.append(TFRecordSplitPlan(source.split, files, _cuts(files, max_shard_bytes, max_record_bytes)))
    return Plan(plans)


def _whole_file(file: SourceFile, damage: FileDamage | None) -> SourceRange:
    whole = SourceRange(
        file.path, 0, file.size, 0, file.compression, file.index, may_be_empty=file.may_be_empty
    )
    if damage is None:
        return whole
    index = file.index if damage.indexed else None
    return replace(whole, index=index, lost=damage.lost)


def _cuts(files: Sequence[SourceRange], max_shard_bytes: int, max_record_bytes: int) -> array[int]:
    """Where the shards of a split begin and the last one ends; see :class:`TFRecordSplitPlan`."""
    if sum(file.end - file.start for file in files) <= max_shard_bytes:
        return array("q", [0, 0, 0, 0, len(files), 0, 0, 0])
    cutter = _Cutter(max_shard_bytes)
    for number, file in enumerate(files):
        begun = cutter.begin_file(number)
        for units in scan_units(file, max_record_bytes):
            cutter.add(units)
        if file.index is not None and not cutter.sound(begun, file):
            # The index is not the file's, which reading will tell; until then it is not followed.
            cutter.return_to(begun)
            for units in scan_units(replace(file, index=None), max_record_bytes):
                cutter.add(units)
    return cutter.finish(len(files))


class _Cutter:
    """Takes the units of a split, file by file, and cuts before one that would make a shard too large."""

    def __init__(self, max_shard_bytes: int) -> None:
        self._max = max_shard_bytes
        self._cuts = array("q", [0, 0, 0, 0])
        self._file = 0
        self._record_in_file = self._record = 0
        self._group_bytes = self._group_records = 0

    def begin_file(self, number: int) -> tuple[int, ...]:
        """Go on with the next file; what :meth:`return_to` takes to do so again."""
        self._file, self._record_in_file = number, 0
        return len(self._cuts), self._record, self._group_bytes, self._group_records

    def return_to(self, begun: tuple[int, ...]) -> None:
        """Forget what was taken of the file."""
        length, self._record, self._group_bytes, self._group_records = begun
        del self._cuts[length:]
        self._record_in_file = 0

    def add(self, units: Units) -> None:
        """Take the next units of the file."""
        ends = np.cumsum(units.sizes)
        sound, passed = np.cumsum(units.records), np.cumsum(units.records + units.lost)
        holding = np.flatnonzero(units.records)  # a damaged range is never what a shard begins with
        start, base = 0, 0
        while True:
            # The first unit that would make the shard too large, and is not the only one of the shard.
            full = int(np.searchsorted(ends, base + self._max - self._group_bytes, "right"))
            place = int(np.searchsorted(holding, max(full, start)))
            if not self._group_records:
                place = max(place, int(np.searchsorted(holding, start)) + 1)
            if place >= len(holding):
                break
            unit = int(holding[place])
            first_in_file = self._record_in_file + int(passed[unit - 1]) if unit else self._record_in_file
            first = self._record + int(sound[unit - 1]) if unit else self._record
            self._cuts.extend((self._file, int(units.offsets[unit]), first_in_file, first))
            start, base = unit, int(ends[unit - 1]) if unit else 0
            self._group_bytes = self._group_records = 0
        self._group_bytes += int(ends[-1]) - base
        self._group_records += int(sound[-1]) - (int(sound[start - 1]) if start else 0)
        self._record_in_file += int(passed[-1])
        self._record += int(sound[-1])

    def sound(self, begun: tuple[int, ...], file: SourceRange) -> bool:
        """Whether a record starts at each cut of the file."""
        offsets = self._cuts[begun[0] + 1 :: _CUT_NUMBERS]
        return file.compression != "none" or all(starts_record(file.path, offset) for offset in offsets)

    def finish(self, files: int) -> array[int]:
        """All cuts, the end of the last of ``files`` among them."""
        self._cuts.extend((files, 0, 0, self._record))
        return self._cuts


def _part(file: SourceRange, start: int, end: int, first_record: int) -> SourceRange:
    """A part of a whole file's range, with the damaged ranges in it."""
    if (start, end) == (file.start, file.end):
        # Also a compressed file, which is never cut: its damaged ranges count other bytes than its ends.
        return file
    lost = tuple(piece for piece in file.lost if start <= piece.start < end or piece.start == end == file.end)
    return replace(file, start=start, end=end, first_record=first_record, lost=lost)
