"""The plan follows from the data and the options alone, and it tiles the files."""

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import write_frames
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.convert.merge import merge_split
from converters.dataset.damage import LostRange
from converters.dataset.description import Split, kfer
from converters.dataset.fingerprint import Part
from converters.dataset.report import Work
from converters.dataset.schema import Column, Schema
from converters.dataset.shard import ShardResult, SliceFacts
from converters.dataset.source import SourceFile, SourceSplit
from converters.errors import DataError
from converters.formats.tfrecord.discovery import FoundSource
from converters.formats.tfrecord.plan import plan_shards
from converters.formats.tfrecord.source import TFRecordReading, TFRecordSource, open_tfrecords
from converters.storage.file_list import OutputFile, OutputFiles
from converters.storage.files import file_state

LABEL = Column("label", pa.int64(), "label", "label", ("even", "odd"))
SPLIT = Split("digits", "train", Schema((LABEL,)), ("train-*.tfrecords",))


def source_split(folder, sizes_of_files):
    """Files of records of such sizes."""
    files = []
    for number, sizes in enumerate(sizes_of_files):
        path = folder / f"train-{number}.tfrecords"
        write_frames(path, [bytes(size) for size in sizes])
        files.append(SourceFile(path.name, path, *file_state(path)))
    return SourceSplit(SPLIT, tuple(files))


def by_hand(sizes_of_files, limit):
    """Where shards begin: file, byte, record in the file, record in the split; record by record."""
    cuts, used, held, first = [(0, 0, 0, 0)], 0, 0, 0
    for file, sizes in enumerate(sizes_of_files):
        offset = 0
        for record, size in enumerate(sizes):
            if held and used + size + 16 > limit:
                cuts.append((file, offset, record, first))
                used = held = 0
            used, held, first, offset = used + size + 16, held + 1, first + 1, offset + size + 16
    return cuts


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    files=st.lists(st.lists(st.integers(0, 90), min_size=1, max_size=12), min_size=1, max_size=5),
    limit=st.integers(1, 400),
)
def test_files_are_cut_before_the_record_that_makes_a_shard_too_large(tmp_path_factory, files, limit):
    found = source_split(tmp_path_factory.mktemp("cut"), files)
    plan = plan_shards([found], limit)
    if sum(file.size for file in found.files) <= limit:
        assert len(plan) == 1
        return
    expected = by_hand(files, limit)
    assert len(plan) == len(expected)
    for shard, (file, offset, record, first) in zip(plan, expected, strict=True):
        begin = shard.slices[0]
        assert (begin.path, begin.start, begin.first_record) == (found.files[file].path, offset, record)
        assert shard.first_record == first
    pieces = [piece for shard in plan for piece in shard.slices]
    for before, after in pairwise(pieces):
        assert (after.path, after.start) == (before.path, before.end) or (
            after.start == 0 and before.end == next(f.size for f in found.files if f.path == before.path)
        )


def test_a_shard_is_found_by_its_key_and_by_nothing_else(tmp_path):
    found = source_split(tmp_path, [[50] * 30])
    plan = plan_shards([found], 200)
    assert [plan.find(shard.key) for shard in plan] == list(plan)
    assert plan[-1] == list(plan)[-1]
    for key in (
        "",
        "digits/train",
        "digits/train-00000-of-00099",
        "digits/test-00000-of-00010",
        "a/b-1-of-2",
    ):
        assert plan.find(key) is None
    with pytest.raises(IndexError):
        plan[len(plan)]
    left = plan.without({plan[4].key})
    assert [shard.index for shard in left] == [n for n in range(len(plan)) if n != 4]


def test_names_sort_by_number_however_many_shards_there_are(tmp_path):
    found = source_split(tmp_path, [[0] * 3])
    shard = plan_shards([found], 1)[2]
    assert shard.numbered() == "00002-of-00003"
    object.__setattr__(shard, "count", 1_000_000)
    assert shard.numbered() == "0000002-of-1000000"


def test_damaged_ranges_belong_to_the_shard_before_them(tmp_path):
    found = source_split(tmp_path, [[84] * 6])  # records of 100 bytes
    file = replace(found.files[0], lost=(LostRange(200, 300, 1, 2, "damaged"),))
    plan = plan_shards([replace(found, files=(file,))], 200)
    assert [(s.slices[0].start, s.slices[0].end, s.first_record) for s in plan] == [
        (0, 300, 0),
        (300, 500, 2),
        (500, 600, 4),
    ]
    assert [len(shard.slices[0].lost) for shard in plan] == [1, 0, 0]
    assert [shard.slices[0].first_record for shard in plan] == [0, 3, 5]


def test_many_files_of_a_split_are_read_in_the_order_of_their_names(sample, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "dataset.json").write_text(
        '{"digits": {"kind": "single-label", "label_names": ["even", "odd"], "splits": {"train": '
        '{"file": "train-*.tfrecords"}}}}'
    )
    for number in (10, 2, 1):
        write_frames(folder / f"train-{number:03d}.tfrecords", [bytes(number)])
    found = open_tfrecords(folder)
    assert [file.path.name for file in found.splits[0].files] == [
        f"train-{number:03d}.tfrecords" for number in (1, 2, 10)
    ]


def result_of(shard) -> ShardResult:
    """What a shard of one record might result in."""
    part = Part(shard.first_record, 1, (), 3, (1, 0), {"0": 1})
    facts = tuple(
        SliceFacts(str(piece.path), piece.start, piece.end, 1, "00" * 32, None, piece.end - piece.start)
        for piece in shard.slices
    )
    file = OutputFile(f"digits/train-{shard.numbered()}.parquet", 100, "00" * 32)
    return ShardResult(shard, shard.slices[0].path.parent, OutputFiles([file]), facts, part, part)


def test_results_must_tile_the_source(tmp_path):
    found = source_split(tmp_path, [[10] * 4, [10] * 3])
    source = TFRecordSource(FoundSource(tmp_path, kfer(), (found,), ()), TFRecordReading(), paranoid=True)
    results = [result_of(shard) for shard in source.plan(1)]

    def account(results):
        merged = merge_split(found, results, Work(), {})
        return merged, source.account([merged.slices])

    with pytest.raises(DataError, match="changed while it was converted"):
        account(results)  # the digests are made up: all else is right
    for missing in range(7):
        with pytest.raises(Exception, match=r"were not converted|expected a part|not in the plan"):
            account(results[:missing] + results[missing + 1 :])
    with pytest.raises(Exception, match=r"expected a part"):
        account([results[0], *results])
    sound = [replace(result, slices=tuple(_hashed(piece) for piece in result.slices)) for result in results]
    merged, (told,) = account(sound)
    assert [file.records for file in told.files] == [4, 3]
    assert merged.expected.records == 7


def _hashed(piece: SliceFacts) -> SliceFacts:
    data = Path(piece.path).read_bytes()[piece.start : piece.end]
    return replace(piece, sha256=hashlib.sha256(data).hexdigest())


def test_a_merge_holds_little_of_each_shard(tmp_path):
    """Of twenty thousand shards it must hold less than 400 MB: what is held of each is measured here."""
    import tracemalloc

    def held(shards: int) -> int:
        folder = tmp_path / str(shards)
        folder.mkdir()
        found = source_split(folder, [[0] * shards])
        tracemalloc.start()
        plan = plan_shards([found], 1)
        assert len(plan) == shards
        merged = merge_split(found, map(result_of, plan), Work(), {})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert merged.output.records == shards
        return peak

    assert (held(6000) - held(2000)) / 4000 < 2000  # bytes a shard
