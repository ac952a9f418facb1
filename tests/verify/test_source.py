"""Inspection: what it finds, each split's verdict, and that damage in one leaves the others alone."""

import csv
import gzip
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from converters.errors import CallError, DataError
from converters.formats.tfrecord.framing import OVERHEAD_BYTES, read_frames
from converters.formats.tfrecord.strict_parser import parse_example
from converters.formats.tfrecord.writer import TFRecordWriter
from converters.sample.writer import make_sample
from converters.verify.source import InspectedSplit, Inspection, inspect_source

RECORDS = 150
TRAIN = "multi-label/train"
TRAIN_FILE = "multi-label_train.tfrecords"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "tfrecords"
    make_sample(folder, records=RECORDS)
    return folder


@pytest.fixture
def source(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "source"))


def read_records(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return [
            bytes(frames.buffer[start : start + size])
            for frames in read_frames(file, str(path))
            for start, size in zip(frames.starts.tolist(), frames.sizes.tolist(), strict=True)
        ]


def rewrite(path: Path, change: Callable[[list[bytes]], Sequence[bytes]], *, index: bool = True) -> None:
    records = change(read_records(path))
    path.unlink()
    path.with_suffix(".idx").unlink()
    with TFRecordWriter(path, path.with_suffix(".idx") if index else None) as writer:
        for record in records:
            writer.write(record)


def describe(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "dataset.json"
    document = json.loads(path.read_text("utf-8"))
    for config in document["configs"].values():
        for split in config["splits"].values():
            change(split)
    path.write_text(json.dumps(document), "utf-8")


def csv_rows(folder: Path, title: str) -> list[tuple[str, ...]]:
    """The labels of each record, from the label CSV."""
    path = folder / "labels" / f"label_{title.replace('/', '_')}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return [
        tuple(name for name, value in zip(header[2:], row[2:], strict=True) if value == "1") for row in rows
    ]


def entry(inspection: Inspection, title: str) -> InspectedSplit:
    return next(split for split in inspection.splits if split.title == title)


def verdicts(inspection: Inspection, *, without: str) -> set[str]:
    return {split.verdict for split in inspection.splits if split.title != without}


def label(record: bytes) -> object:
    return parse_example(record)["label"].integers.tolist()


def test_the_sample_is_published_everywhere(pristine: Path) -> None:
    seen = []
    inspection = inspect_source(pristine, lambda stage, records: seen.append((stage, records)))
    assert len(inspection.splits) == 9
    assert {split.verdict for split in inspection.splits} == {"published"}
    assert all(
        split.reasons == () and split.error is None and split.note is None for split in inspection.splits
    )
    assert (inspection.records, inspection.absent, inspection.failed) == (RECORDS, (), False)
    assert {stage for stage, _ in seen} == {"read"}
    assert sum(records for _, records in seen) == RECORDS
    assert inspection.bytes == sum(path.stat().st_size for path in pristine.glob("*.tfrecords"))


def test_files_are_told(pristine: Path) -> None:
    split = entry(inspect_source(pristine), TRAIN)
    (file,) = split.files
    data = (pristine / TRAIN_FILE).read_bytes()
    assert (file.file, file.bytes, file.sha256) == (TRAIN_FILE, len(data), hashlib.sha256(data).hexdigest())
    assert (file.compression, file.index, file.indexed) == ("none", "multi-label_train.idx", True)
    assert file.records == split.records == len(csv_rows(pristine, TRAIN))


def test_json(pristine: Path) -> None:
    document = json.loads(json.dumps(inspect_source(pristine).to_json(), allow_nan=False))
    assert (document["dataset"], document["failed"], document["records"]) == ("kfer-sample", False, RECORDS)
    split = next(
        split for split in document["splits"] if (split["config"], split["split"]) == ("22_emo", "test")
    )
    assert split["verdict"] == "published"
    assert sum(count["records"] for count in split["label_counts"]) == split["records"]
    assert split["published"]["records"] == split["records"] == split["fingerprint"]["records"]
    assert split["published"]["labels_per_image"] == split["fingerprint"]["labels_per_image"]


def test_label_counts_and_combinations_are_those_of_the_csv(pristine: Path) -> None:
    split = entry(inspect_source(pristine), TRAIN)
    rows = csv_rows(pristine, TRAIN)
    counts = Counter(name for row in rows for name in row)
    assert {count.name: count.records for count in split.label_counts} == {
        name: counts[name] for name in split.split.label_names
    }
    assert all(count.published == count.records for count in split.label_counts)
    assert split.fingerprint is not None
    assert split.fingerprint.labels_per_image == Counter(map(len, rows))
    sets = Counter(rows)
    assert split.fingerprint.distinct_label_sets == len(sets)
    found = [(combination.labels, combination.records) for combination in split.combinations]
    assert len(found) == len(dict(found)) == len(sets)
    assert all(sets[labels] == records for labels, records in found)
    assert [records for _, records in found] == sorted(sets.values(), reverse=True)
    assert any(len(labels) > 1 for labels, _ in found)


def test_few_combinations_are_all_told(pristine: Path) -> None:
    split = entry(inspect_source(pristine), "6_basic_emo/train")
    sets = Counter(csv_rows(pristine, "6_basic_emo/train"))
    assert {combination.labels: combination.records for combination in split.combinations} == sets


def test_dropped_record_is_different(source: Path) -> None:
    rewrite(source / TRAIN_FILE, lambda records: records[:-1])
    inspection = inspect_source(source)
    split = entry(inspection, TRAIN)
    total = len(csv_rows(source, TRAIN))
    assert split.verdict == "different"
    assert f"records: {total - 1} found, {total} published" in split.reasons
    assert split.error is None
    assert inspection.failed
    assert verdicts(inspection, without=TRAIN) == {"published"}


@pytest.mark.parametrize("index", [True, False])
def test_swapped_records_are_told_as_another_order(source: Path, index: bool) -> None:
    def swap(records: list[bytes]) -> list[bytes]:
        other = next(i for i, record in enumerate(records) if label(record) != label(records[0]))
        records[0], records[other] = records[other], records[0]
        return records

    rewrite(source / TRAIN_FILE, swap, index=index)
    inspection = inspect_source(source)
    split = entry(inspection, TRAIN)
    assert split.verdict == "different"
    assert "another order" in split.reasons[0]
    assert "source" not in split.reasons[0]
    assert split.files[0].indexed is (True if index else None)
    assert inspection.failed
    assert verdicts(inspection, without=TRAIN) == {"published"}


def test_damage_is_told_and_stops_nothing_else(source: Path) -> None:
    path = source / TRAIN_FILE
    offset = sum(len(record) + OVERHEAD_BYTES for record in read_records(path)[:3])
    data = bytearray(path.read_bytes())
    data[offset + 500] ^= 1
    path.write_bytes(data)
    inspection = inspect_source(source)
    split = entry(inspection, TRAIN)
    assert split.verdict == "damaged"
    assert split.error is not None
    assert split.error.startswith(f"{path} (record 3, byte {offset}): ")
    assert split.reasons == (split.error,)
    assert (split.records, split.fingerprint, split.label_counts, split.checks) == (None, None, (), ())
    (file,) = split.files
    assert (file.bytes, file.index, file.indexed) == (len(data), "multi-label_train.idx", None)
    assert (file.records, file.sha256) == (None, None)
    assert inspection.failed
    assert inspection.records == RECORDS - len(csv_rows(source, TRAIN))
    assert verdicts(inspection, without=TRAIN) == {"published"}
    assert json.loads(json.dumps(inspection.to_json()))["failed"] is True


def test_index_of_another_file_is_an_error(source: Path) -> None:
    shutil.copy(source / "multi-label_test.idx", source / "multi-label_train.idx")
    inspection = inspect_source(source)
    assert "multi-label_train.idx" in (entry(inspection, TRAIN).error or "")
    assert verdicts(inspection, without=TRAIN) == {"published"}


def test_nothing_published_is_unknown(source: Path) -> None:
    def forget(split: dict) -> None:
        for key in (
            "records",
            "label_counts",
            "labels_per_image",
            "distinct_label_sets",
            "labels_sha256",
            "clips",
        ):
            del split[key]

    describe(source, forget)
    (source / "multi-label_train.idx").unlink()
    inspection = inspect_source(source)
    assert {split.verdict for split in inspection.splits} == {"unknown"}
    assert not inspection.failed
    split = entry(inspection, TRAIN)
    assert len(split.reasons) == 4
    assert "label order: no digest of the labels is published" in split.reasons
    assert {count.published for count in split.label_counts} == {None}
    json.dumps(inspection.to_json())


def test_counts_without_a_digest_are_unknown(source: Path) -> None:
    describe(source, lambda split: split.pop("labels_sha256"))
    assert entry(inspect_source(source), TRAIN).verdict == "unknown"


def test_other_labels_without_published_counts_are_not_called_reordered(source: Path) -> None:
    def forget(split: dict) -> None:
        for key in ("label_counts", "labels_per_image", "distinct_label_sets"):
            del split[key]
        split["labels_sha256"] = "0" * 64

    describe(source, forget)
    assert entry(inspect_source(source), TRAIN).verdict in ("unknown", "different")


def test_absent_files_are_listed(source: Path) -> None:
    (source / TRAIN_FILE).unlink()
    inspection = inspect_source(source)
    assert [split.title for split in inspection.absent] == [TRAIN]
    assert inspection.to_json()["absent"] == [TRAIN]
    assert verdicts(inspection, without=TRAIN) == {"published"}
    assert not inspection.failed


def test_file_of_another_name_has_a_note(source: Path) -> None:
    (source / TRAIN_FILE).rename(source / "faces-training.tfrecord")
    (source / "multi-label_train.idx").unlink()
    split = entry(inspect_source(source), TRAIN)
    assert split.verdict == "published"
    assert "faces-training.tfrecord was taken for multi-label/train" in (split.note or "")


def test_split_of_several_files(source: Path) -> None:
    path = source / TRAIN_FILE
    records = read_records(path)
    path.unlink()
    path.with_suffix(".idx").unlink()
    parts = [source / f"part-{part}.tfrecords" for part in range(3)]
    for part, file in enumerate(parts):
        with TFRecordWriter(file) as writer:
            for record in records[part * 7 : part * 7 + 7 if part < 2 else None]:
                writer.write(record)
    parts[1].write_bytes(gzip.compress(parts[1].read_bytes()))

    def rename(split: dict) -> None:
        if split["file"] == TRAIN_FILE:
            split["file"] = "part-*.tfrecords"

    describe(source, rename)
    split = entry(inspect_source(source), TRAIN)
    assert split.verdict == "published"
    assert [file.records for file in split.files] == [7, 7, len(records) - 14]
    assert [file.compression for file in split.files] == ["none", "gzip", "none"]
    assert [file.sha256 for file in split.files] == [
        hashlib.sha256(p.read_bytes()).hexdigest() for p in parts
    ]

    parts[2].write_bytes(parts[2].read_bytes()[:-1])
    split = entry(inspect_source(source), TRAIN)
    assert [file.records for file in split.files] == [7, 7, None]
    assert str(parts[2]) in (split.error or "")


def test_batches_do_not_show(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inspect_source(source)
    monkeypatch.setattr(read_frames, "__kwdefaults__", {**read_frames.__kwdefaults__, "chunk_bytes": 10_000})
    calls = []
    assert inspect_source(source, lambda _, records: calls.append(records)) == whole
    assert len(calls) > 2 * len(whole.splits)


def test_nothing_is_written(source: Path) -> None:
    def snapshot() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in source.rglob("*")}

    before = snapshot()
    inspect_source(source)
    assert snapshot() == before


def test_wrong_calls(tmp_path: Path, source: Path) -> None:
    with pytest.raises(CallError, match="no such folder"):
        inspect_source(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CallError, match="no TFRecord file"):
        inspect_source(tmp_path / "empty")
    shutil.copy(source / TRAIN_FILE, source / "stray.tfrecords")
    with pytest.raises(DataError, match="cannot be matched"):
        inspect_source(source)
