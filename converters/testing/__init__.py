"""For authors of formats: the contract of a format as one call, to be made in a test.

    from converters.testing import check_format

    def test_my_format():
        check_format(MyFormat)

It uses nothing but assertions, and datasets made here (:mod:`converters.testing.datasets`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from converters.dataset.arrays import conform
from converters.dataset.checks import RecordChecker
from converters.dataset.description import Split
from converters.dataset.fingerprint import PartBuilder, merge
from converters.dataset.leaves import record_leaves
from converters.dataset.report import Report, SplitReport
from converters.dataset.shard import Shard
from converters.errors import CallError, DataError, Location
from converters.formats import Finishes, Format, Joins, Summarizes
from converters.testing.datasets import BASIC, TestDataset, TestSplit, datasets

__all__ = ["check_format"]

_FLIPS = 16  # bytes that are changed in each file


def check_format(make: Callable[[], Format]) -> tuple[str, ...]:
    """Check that a format keeps its promises; a dataset that it cannot hold, it must refuse.

    Args:
        make: makes the format; the class itself, or a function that passes options.

    Returns:
        the names of the datasets that the format holds.

    Raises:
        AssertionError: a promise is not kept; says which, and with which dataset.
    """
    held = []
    for dataset in datasets():
        with tempfile.TemporaryDirectory() as folder:
            if _check(make, dataset, Path(folder)):
                held.append(dataset.name)
    assert BASIC in held, f"the format refuses the dataset {BASIC!r}: images, labels and sizes"
    return tuple(held)


def _check(make: Callable[[], Format], dataset: TestDataset, scratch: Path) -> bool:
    """Whether the format holds the dataset, and keeps its promises with it."""
    title = f"dataset {dataset.name!r}"
    shards = [(split, shard) for split in dataset.splits for shard in split.shards()]
    try:
        refuse = getattr(make(), "refuse", None)
        if refuse is not None:
            refuse([split.split for split in dataset.splits])
        for split, shard in shards:
            _write(make(), split, shard, scratch / "once" / shard.key, title)
    except (CallError, DataError):
        return False
    whole = scratch / "whole"
    for split, shard in shards:
        once = scratch / "once" / shard.key
        again = scratch / "again" / shard.key
        _write(make(), split, shard, again, title)
        assert _digests(once) == _digests(again), f"{title}: the bytes differ from one writing to the next"
        _compare(make(), once, split.split, split.records(shard), shard.first_record, f"{title}, a shard")
        if shard is shards[0][1]:
            _check_damage(make(), split, shard, again, title)
        for path in _files(once):
            target = whole / path
            assert not target.exists(), f"{title}: two shards write {path}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(once / path, target)
    _join(make(), dataset, whole, title)
    _finish(make(), dataset, scratch / "once", whole, title)
    for split in dataset.splits:
        _compare(make(), whole, split.split, split.batches, 0, f"{title}, the whole output")
    return True


def _write(target: Format, split: TestSplit, shard: Shard, folder: Path, title: str) -> None:
    """Write a shard to a new folder; the files must be those that the format says."""
    folder.mkdir(parents=True)
    batches = iter(split.records(shard))
    paths = target.write(batches, shard, folder)
    assert next(batches, None) is None, f"{title}: write did not take every batch"
    root = f"{folder}{os.sep}"
    stated = sorted(os.fspath(path).removeprefix(root).replace(os.sep, "/") for path in paths)
    assert stated == _files(folder), f"{title}: write says it wrote {stated}, and {_files(folder)} are there"


def _compare(
    target: Format, folder: Path, split: Split, batches: Sequence[pa.RecordBatch], first: int, title: str
) -> None:
    read = [conform(batch, split.schema) for batch in target.read(folder, split, first)]
    checker = RecordChecker(split.schema)
    for batch in read:
        checker.check(batch, lambda row: Location(title, first + row))
    found, expected = _leaves(read, split), _leaves(batches, split)
    assert len(found) == len(expected), f"{title}: {len(expected)} records are read back as {len(found)}"
    wrong = [record for record, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1]]
    assert not wrong, f"{title}: record {wrong[0]} of {split.title} is read back with other values"


def _leaves(batches: Iterable[pa.RecordBatch], split: Split) -> list[bytes]:
    return [leaf for batch in batches for leaf in record_leaves(batch, split.schema)]


def _check_damage(target: Format, split: TestSplit, shard: Shard, folder: Path, title: str) -> None:
    """One changed byte, or a missing end, gives an error or other records; never an end of the process.

    Bytes that are no part of a value may be without effect: of them, the digests of the files tell.
    """
    leaves = _leaves(split.records(shard), split.split)
    values = [bytes(value) for value in split.long_values(shard)]
    for name in _files(folder):
        path = folder / name
        data = path.read_bytes()
        middles = [data.find(value) + len(value) // 2 for value in values if value in data]
        others = [len(data) * part // _FLIPS for part in range(_FLIPS)]
        for position in {*middles, *others} if data else ():
            changed = bytearray(data)
            changed[position] ^= 0x10
            path.write_bytes(changed)
            same = _read_back(target, folder, split.split) == leaves
            assert not (same and position in middles), f"{title}: byte {position} of {name} is not read back"
        path.write_bytes(data[: len(data) // 2])
        assert _read_back(target, folder, split.split) != leaves, f"{title}: half of {name} is not read back"
        path.write_bytes(data)


def _read_back(target: Format, folder: Path, split: Split) -> list[bytes] | None:
    """The leaves of the records that are read back; None for an error."""
    try:
        return _leaves((conform(batch, split.schema) for batch in target.read(folder, split, 0)), split)
    except Exception:  # noqa: BLE001  # a format may raise anything: a run wraps it
        return None


def _join(target: Format, dataset: TestDataset, folder: Path, title: str) -> None:
    """Put files in the place of the parts that shards wrote, as a conversion does."""
    if not isinstance(target, Joins):
        return
    for split in dataset.splits:
        for path, parts in target.joins(split.split, len(split.batches)).items():
            assert len(parts) == len(split.batches), f"{title}: {path} has not one part of each shard"
            assert not (folder / path).exists(), f"{title}: {path} is a part, and the file of all"
            data = [(folder / part).read_bytes() for part in parts]
            for part in parts:
                (folder / part).unlink()
            (folder / path).write_bytes(b"".join(data))


def _finish(target: Format, dataset: TestDataset, written: Path, folder: Path, title: str) -> None:
    """Have the format write the files of the whole dataset; it must leave those of the shards alone."""
    if not isinstance(target, Finishes):
        return
    reports = []
    for split in dataset.splits:
        builder = PartBuilder(0, split.split.schema)
        for batch in split.batches:
            builder.add(batch)
        fingerprint = merge([builder.part()], split.split.schema)
        summaries = [
            target.summarize(written / shard.key, shard)
            for shard in split.shards()
            if isinstance(target, Summarizes)
        ]
        reports.append(SplitReport(split.split, (), 0, fingerprint, (), summaries=tuple(summaries)))
    before = _digests(folder)
    target.finish(Report(dataset.description, target.name, str(folder), tuple(reports)), folder)
    after = _digests(folder)
    assert before.items() <= after.items(), f"{title}: finish changed or removed a file of a shard"


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _files(folder)}
