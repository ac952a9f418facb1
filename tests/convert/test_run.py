"""Conversion: what stops it, what it says then, and what is left behind."""

import csv
import json
import re
import shutil
import subprocess
import sys
import zlib
from dataclasses import replace

import pytest
from conftest import (
    CONFIGS,
    SPLITS,
    compress,
    digests,
    drop_published,
    edit_description,
    encode_record,
    flip,
    read_frames,
    read_records,
    tfrecords,
    tree,
    write_frames,
    write_records,
)

from converters import convert, verify
from converters.dataset.report import CheckError
from converters.errors import CallError, DataError
from converters.formats.tfrecord.plan import plan_shards
from converters.formats.tfrecord.source import open_tfrecords


def results(report, name: str) -> dict[str, str]:
    """The result of a check by config/split."""
    return {
        split.split.title: check.result
        for split in report.splits
        for check in split.checks
        if check.name == name
    }


def nothing_was_published(folder) -> bool:
    """Nothing but the source is in a test's folder."""
    return {path.name for path in folder.iterdir()} == {"tfrecords"}


# --- Wrong data with valid checksums -------------------------------------------------------------------


def dropped(records):
    return records[:4] + records[5:]


def doubled(records):
    return [*records[:5], *records[4:]]


def relabelled(records):
    count = len(records[0].label)
    other = (records[4].indices[0] + 1) % count
    return [
        *records[:4],
        replace(records[4], label=tuple(int(i == other) for i in range(count))),
        *records[5:],
    ]


@pytest.mark.parametrize("to", ["parquet", "jpeg"])
@pytest.mark.parametrize(
    ("change", "found"),
    [(dropped, "16"), (doubled, "18"), (relabelled, None)],
    ids=["dropped", "doubled", "label"],
)
def test_a_record_too_few_too_many_or_changed_is_found(source, tmp_path, kfer_convert, to, change, found):
    path = tfrecords(source, "6_basic_emo", "train")
    records = read_records(path)
    assert len(records) == 17
    write_records(path, change(records))
    done = kfer_convert(source, "--to", to, "--out", tmp_path / "out")
    assert done.status == 1
    assert nothing_was_published(tmp_path)
    assert "6_basic_emo/train" in done.err
    assert "nothing was published" in done.err
    assert "--allow-mismatch" in done.err
    if found:
        assert re.search(rf"{found} found, 17 published", done.err)
    else:
        assert re.search(r"counts per label: .*\d \(published \d\)", done.err)
    assert "22_emo/train: records" not in done.err


def test_a_check_error_carries_the_report(source, tmp_path):
    path = tfrecords(source, "22_emo", "valid")
    write_records(path, read_records(path)[:-1])
    with pytest.raises(CheckError, match="22_emo/valid: records: 2 found, 3 published") as caught:
        convert(source, to="parquet", out=tmp_path / "out")
    assert results(caught.value.report, "records")["22_emo/valid"] == "failed"
    assert results(caught.value.report, "records")["22_emo/train"] == "passed"


def test_a_mismatch_that_is_allowed_is_published_and_recorded(source, tmp_path, kfer_convert):
    path = tfrecords(source, "6_basic_emo", "train")
    write_records(path, dropped(read_records(path)))
    out = tmp_path / "out"
    assert kfer_convert(source, "--to", "parquet", "--out", out, "--allow-mismatch").status == 0
    manifest = json.loads((out / "MANIFEST.json").read_text())
    assert manifest["allow_mismatch"] is True
    train = next(s for s in manifest["splits"] if (s["config"], s["split"]) == ("6_basic_emo", "train"))
    checks = {check["name"]: check for check in train["checks"]}
    assert checks["records"]["result"] == "failed"
    assert "16 found, 17 published" in checks["records"]["reason"]
    assert verify(out, source=source).failures() == []


def test_labels_in_another_order_fail_the_run_and_refuse_the_join(source, tmp_path, kfer_convert):
    path = tfrecords(source, "6_basic_emo", "train")
    records = read_records(path)
    other = next(number for number, record in enumerate(records) if record.label != records[0].label)
    records[0], records[other] = records[other], records[0]
    write_records(path, records)

    def checks(done):
        splits = json.loads(done.out)["splits"]
        train = next(s for s in splits if (s["config"], s["split"]) == ("6_basic_emo", "train"))
        return {check["name"]: check for check in train["checks"]}

    arguments = (source, "--to", "parquet", "--out", tmp_path / "out", "--json")
    done = kfer_convert(*arguments)
    assert done.status == 1
    assert not (tmp_path / "out").exists()
    found = checks(done)
    assert found.pop("label order")["result"] == "failed"
    assert {check["result"] for check in found.values()} == {"passed"}

    done = kfer_convert(*arguments, "--allow-mismatch")
    assert done.status == 0
    assert "another order" in checks(done)["label order"]["reason"]

    done = kfer_convert(source, "--to", "parquet", "--out", tmp_path / "named", "--labels", source / "labels")
    assert done.status == 1
    assert "label_6_basic_emo_train.csv (record 0)" in done.err
    assert not (tmp_path / "named").exists()


# --- Records that are not what they must be ------------------------------------------------------------


def with_label(*label):
    return lambda record: encode_record(replace(record, label=label))


RECORD_DAMAGE = {
    "label 2": (with_label(2, 0, 0, 0, 0, 0), "label"),
    "label -1": (with_label(-1, 0, 0, 0, 0, 0), "label"),
    "no label": (with_label(0, 0, 0, 0, 0, 0), "0 labels are set"),
    "two labels": (with_label(1, 0, 0, 0, 0, 1), "2 labels are set"),
    "five labels": (with_label(1, 0, 0, 0, 0), "label"),
    "seven labels": (with_label(1, 0, 0, 0, 0, 0, 0), "label"),
    "height": (lambda record: encode_record(replace(record, height=record.height + 1)), "header says"),
    "width": (lambda record: encode_record(replace(record, width=record.width - 1)), "header says"),
    "depth": (lambda record: encode_record(replace(record, depth=1)), "header says"),
    "png": (lambda record: encode_record(replace(record, image=b"\x89PNG\r\n\x1a\n" + record.image)), "png"),
    "empty image": (lambda record: encode_record(replace(record, image=b"")), "starts with nothing"),
    "cut image": (lambda record: encode_record(replace(record, image=record.image[:-20])), "image"),
    "missing feature": (
        lambda record: encode_record(record).replace(b"height", b"heighx"),
        "the feature 'heigh[tx]' is",
    ),
    "extra feature": (lambda record: encode_record(record, more=[1]), "more"),
    "empty record": (lambda record: b"", "the feature 'image_raw' is missing"),
    "no Example": (lambda record: b"\xff" * 40, "byte"),
}


@pytest.mark.parametrize("name", RECORD_DAMAGE)
def test_a_wrong_record_is_refused_with_its_place(source, tmp_path, name):
    damage, message = RECORD_DAMAGE[name]
    path = tfrecords(source, "6_basic_emo", "train")
    records = read_records(path)
    data = [encode_record(record) for record in records]
    data[3] = damage(records[3])
    write_frames(path, data)
    with pytest.raises(DataError, match=message) as caught:
        convert(source, to="parquet", out=tmp_path / "out")
    assert "6_basic_emo_train.tfrecords (record 3, byte " in str(caught.value)
    start = sum(len(record) + 16 for record in data[:3])
    assert caught.value.at.record == 3
    assert start <= caught.value.at.offset < start + len(data[3]) + 16
    assert nothing_was_published(tmp_path)


def test_a_multi_label_record_needs_a_label(source, tmp_path):
    path = tfrecords(source, "multi-label", "valid")
    records = read_records(path)
    records[-1] = replace(records[-1], label=(0,) * len(records[-1].label))
    write_records(path, records)
    with pytest.raises(DataError, match=r"record 6, byte \d+\): 0 labels are set; .*at least one"):
        convert(source, to="parquet", out=tmp_path / "out")


def test_decode_finds_what_the_header_does_not_show(source, tmp_path):
    path = tfrecords(source, "6_basic_emo", "valid")
    records = read_records(path)
    image = records[1].image
    scan = image.index(b"\xff\xda")
    records[1] = replace(records[1], image=image[: scan + 2] + b"\x00\x03\x09" + image[-2:])
    write_records(path, records)
    with pytest.raises(DataError, match=r"record 1, byte \d+"):
        convert(source, to="parquet", out=tmp_path / "out", decode=True)


def test_a_corrupt_byte_anywhere_is_found_with_its_place(source, tmp_path):
    path = tfrecords(source, "6_basic_emo", "test")
    ends = []
    for data in read_frames(path):
        ends.append((ends[-1] if ends else 0) + len(data) + 16)
    starts = [0, *ends]
    everywhere = {start + step for start in starts[:-1] for step in (0, 3, 7, 8, 11, 12, 40)}
    everywhere |= {end - step for end in ends for step in (1, 4, 5)} | set(range(0, ends[-1], 331))
    for position in sorted(everywhere):
        before = flip(path, position)
        with pytest.raises(DataError) as caught:
            convert(source, to="parquet", out=tmp_path / "out", configs=["6_basic_emo"], splits=["test"])
        record = sum(position >= end for end in ends)
        at = caught.value.at
        assert f"6_basic_emo_test.tfrecords (record {record}, byte " in str(caught.value), position
        assert starts[record] <= at.offset < ends[record]
        path.write_bytes(before)
    assert nothing_was_published(tmp_path)


def test_a_corrupt_byte_ends_the_command_with_1(source, tmp_path, kfer_convert):
    flip(tfrecords(source, "6_basic_emo", "test"), 2000)
    done = kfer_convert(source, "--to", "parquet", "--out", tmp_path / "out", "--quiet")
    assert (done.status, done.out) == (1, "")
    assert re.search(r"6_basic_emo_test\.tfrecords \(record 0, byte \d+\)", done.err)
    assert len(done.err.splitlines()) <= 2
    assert nothing_was_published(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_damage_in_one_of_several_shards_publishes_nothing(source, tmp_path, workers):
    flip(tfrecords(source, "6_basic_emo", "train"), 30_000)
    with pytest.raises(DataError, match=r"6_basic_emo_train\.tfrecords \(record \d+, byte \d+\)"):
        convert(
            source,
            to="parquet",
            out=tmp_path / "out",
            configs=["6_basic_emo"],
            max_shard_bytes=20_000,
            workers=workers,
        )
    assert nothing_was_published(tmp_path)


@pytest.mark.parametrize("bytes_lost", [1, 4, 9, 100])
def test_a_truncated_file_is_refused(source, tmp_path, bytes_lost):
    path = tfrecords(source, "6_basic_emo", "test")
    path.with_suffix(".idx").unlink()
    path.write_bytes(path.read_bytes()[:-bytes_lost])
    with pytest.raises(DataError, match=r"6_basic_emo_test\.tfrecords"):
        convert(source, to="parquet", out=tmp_path / "out")
    assert nothing_was_published(tmp_path)


@pytest.mark.parametrize("extra", [b"\0", b"\0" * 16, b"stray bytes at the end of the file"])
def test_stray_bytes_at_the_end_are_refused(source, tmp_path, extra):
    path = tfrecords(source, "6_basic_emo", "test")
    path.write_bytes(path.read_bytes() + extra)
    with pytest.raises(DataError, match=r"6_basic_emo_test\.tfrecords"):
        convert(source, to="parquet", out=tmp_path / "out")


def test_a_cut_between_two_records_without_counts_and_index_is_unverified(source, tmp_path, kfer_convert):
    drop_published(source)
    path = tfrecords(source, "6_basic_emo", "train")
    write_records(path, read_records(path)[:-2], index=False)
    done = kfer_convert(source, "--to", "parquet", "--out", tmp_path / "out", "--json")
    assert done.status == 0
    for split in json.loads(done.out)["splits"]:
        checks = {check["name"]: check for check in split["checks"]}
        whole = (split["config"], split["split"]) != ("6_basic_emo", "train")
        assert checks["records"]["result"] == ("passed" if whole else "unverified")
        assert checks["label order"]["result"] == "unverified"
        assert checks["every value"]["result"] == "passed"


def test_a_cut_between_two_records_is_found_by_the_index(source, tmp_path):
    drop_published(source)
    path = tfrecords(source, "6_basic_emo", "train")
    index = path.with_suffix(".idx").read_bytes()
    write_records(path, read_records(path)[:-2])
    path.with_suffix(".idx").write_bytes(index)
    with pytest.raises(DataError, match=r"6_basic_emo_train\.idx"):
        convert(source, to="parquet", out=tmp_path / "out")
    assert nothing_was_published(tmp_path)


def test_an_empty_file_is_refused(source, tmp_path, kfer_convert):
    tfrecords(source, "22_emo", "test").write_bytes(b"")
    done = kfer_convert(source, "--to", "parquet", "--out", tmp_path / "out")
    assert done.status == 1
    assert "22_emo_test.tfrecords" in done.err


# --- The label CSVs ------------------------------------------------------------------------------------


@pytest.fixture
def edit_labels(source):
    """Changes the rows of the label CSV of 6_basic_emo/train; the first is the header."""

    def edit(change):
        path = source / "labels" / "label_6_basic_emo_train.csv"
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        rows = change(rows) or rows
        with path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    return edit


def run_with_labels(source, tmp_path, to="parquet"):
    return convert(source, to=to, out=tmp_path / "out", configs=["6_basic_emo"], labels=source / "labels")


def test_two_rows_of_a_csv_swapped_are_refused(source, tmp_path, edit_labels):
    def swap(rows):
        other = next(number for number in range(2, len(rows)) if rows[number][2:] != rows[1][2:])
        rows[1], rows[other] = rows[other], rows[1]

    edit_labels(swap)
    with pytest.raises(DataError, match=r"label_6_basic_emo_train\.csv \(record 0\)"):
        run_with_labels(source, tmp_path)
    assert nothing_was_published(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: [*rows, rows[-1]],
        lambda rows: [*rows, ["one_more.jpg", "one_more", *rows[-1][2:]]],
        lambda rows: rows[1:],
        lambda rows: [[*row[:2], *reversed(row[2:])] for row in rows],
        lambda rows: [row[:-1] for row in rows],
        lambda rows: [*rows[:5], [*rows[5][:2], "2", *rows[5][3:]], *rows[6:]],
        lambda rows: [*rows[:5], [*rows[5][:2], "", *rows[5][3:]], *rows[6:]],
    ],
    ids=[
        "row lost",
        "row twice",
        "row more",
        "no header",
        "columns turned",
        "column lost",
        "a 2",
        "no value",
    ],
)
def test_a_csv_that_does_not_fit_is_refused(source, tmp_path, edit_labels, change):
    edit_labels(change)
    with pytest.raises(DataError, match=r"label_6_basic_emo_train\.csv"):
        run_with_labels(source, tmp_path)
    assert nothing_was_published(tmp_path)


BAD_NAMES = [
    "..",
    ".",
    "../x.jpg",
    "a/b.jpg",
    "/etc/passwd.jpg",
    "a\\b.jpg",
    "C:x.jpg",
    "a\x01b.jpg",
    "a\x7fb.jpg",
    "a\x00b.jpg",
    "a\u202eb.jpg",
    ".hidden.jpg",
    "CON.jpg",
    "con",
    "LPT1.jpg",
    "nul.tar.jpg",
    "",
    " x.jpg",
    "-x.jpg",
    "x" * 300 + ".jpg",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_must_not_become_files_are_refused(source, tmp_path, edit_labels, name):
    def change(rows):
        rows[4][0] = name

    edit_labels(change)
    with pytest.raises(DataError, match=r"label_6_basic_emo_train\.csv"):
        run_with_labels(source, tmp_path)
    assert nothing_was_published(tmp_path)


@pytest.mark.parametrize("column", [0, 1])
def test_a_line_break_in_a_name_is_refused(source, tmp_path, edit_labels, column):
    def change(rows):
        rows[4][column] = "a\nb.jpg"

    edit_labels(change)
    with pytest.raises(DataError):
        run_with_labels(source, tmp_path)
    assert nothing_was_published(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("face.jpg", "face.jpg"),
        ("Face.jpg", "face.JPG"),
        ("face", "face.jpg"),
        ("é.jpg", "e\u0301.jpg"),
        ("ß.jpg", "SS.jpg"),
    ],
)
def test_names_that_would_be_one_file_are_refused(source, tmp_path, edit_labels, one, other):
    def change(rows):
        rows[3][0], rows[9][0] = one, other

    edit_labels(change)
    with pytest.raises(DataError, match="would be one file"):
        run_with_labels(source, tmp_path)
    assert nothing_was_published(tmp_path)


def test_names_are_what_the_csv_says(source, tmp_path, edit_labels):
    def change(rows):
        rows[1][0], rows[2][0], rows[3][0] = "얼굴 1.jpg", "a b,c.jpeg", "plain"

    edit_labels(change)
    description = json.loads((source / "dataset.json").read_text())
    # The names are no longer those that the description has a digest of.
    del description["configs"]["6_basic_emo"]["splits"]["train"]["identities_sha256"]
    (source / "dataset.json").write_text(json.dumps(description))
    run_with_labels(source, tmp_path, "jpeg")
    folder = tmp_path / "out" / "6_basic_emo" / "train"
    assert {"얼굴 1.jpg", "a b,c.jpeg", "plain.jpg"} < {path.name for path in (folder / "images").iterdir()}
    with (folder / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["img_id"] for row in rows[:3]] == ["얼굴 1.jpg", "a b,c.jpeg", "plain"]
    assert verify(tmp_path / "out").failures() == []


def test_rows_with_equal_labels_that_changed_places_are_seen(source, tmp_path, edit_labels):
    """No label vector shows that; the published digest of the names does."""

    def change(rows):
        by_labels = {}
        for row in rows[1:]:
            other = by_labels.setdefault(tuple(row[2:]), row)
            if other is not row:
                other[:2], row[:2] = row[:2], other[:2]
                return
        raise AssertionError("no two rows have the same labels")

    edit_labels(change)
    with pytest.raises(CheckError, match="img_ids and clip_ids of the CSV are not the published ones"):
        run_with_labels(source, tmp_path)
    assert nothing_was_published(tmp_path)


def test_a_folder_without_the_csvs_is_a_wrong_call(source, tmp_path):
    (source / "labels" / "label_22_emo_valid.csv").unlink()
    with pytest.raises(CallError, match=r"label_22_emo_valid\.csv"):
        convert(source, to="parquet", out=tmp_path / "out", labels=source / "labels")
    with pytest.raises(CallError, match="no such folder"):
        convert(source, to="parquet", out=tmp_path / "out", labels=tmp_path / "nowhere")
    assert nothing_was_published(tmp_path)


# --- The destination -----------------------------------------------------------------------------------


def test_an_existing_destination_is_refused_and_unchanged(source, tmp_path, kfer_convert):
    out = tmp_path / "out"
    for content in ("file", "folder", "output"):
        if content == "file":
            out.write_text("mine")
        elif content == "folder":
            out.mkdir()
            (out / "mine.txt").write_text("mine")
        else:
            convert(source, to="parquet", out=out, configs=["22_emo"])
        before = out.read_bytes() if out.is_file() else tree(out)
        done = kfer_convert(source, "--to", "parquet", "--out", out)
        assert done.status == 2
        assert "--overwrite" in done.err
        if content != "output":
            assert kfer_convert(source, "--to", "parquet", "--out", out, "--overwrite").status == 2
        assert (out.read_bytes() if out.is_file() else tree(out)) == before
        assert {path.name for path in tmp_path.iterdir()} == {"tfrecords", "out"}
        shutil.rmtree(out) if out.is_dir() else out.unlink()


def test_a_link_as_destination_is_not_replaced(source, tmp_path):
    convert(source, to="parquet", out=tmp_path / "real", configs=["22_emo"])
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with pytest.raises(CallError):
        convert(source, to="parquet", out=tmp_path / "out", overwrite=True)
    assert (tmp_path / "out").is_symlink()
    assert verify(tmp_path / "real").failures() == []


def test_overwrite_replaces_an_output_only_after_success(source, tmp_path, kfer_convert):
    out = tmp_path / "out"
    convert(source, to="parquet", out=out, configs=["22_emo"])
    before = tree(out)
    path = tfrecords(source, "6_basic_emo", "train")
    good = flip(path, 30_000)
    assert kfer_convert(source, "--to", "jpeg", "--out", out, "--overwrite").status == 1
    assert tree(out) == before
    path.write_bytes(good)
    assert kfer_convert(source, "--to", "jpeg", "--out", out, "--overwrite").status == 0
    assert not list(out.rglob("*.parquet"))
    assert verify(out, source=source).failures() == []
    assert {path.name for path in tmp_path.iterdir()} == {"tfrecords", "out"}


def test_source_and_output_must_not_lie_in_each_other(source, tmp_path):
    for out in (source / "out", source, source.parent, source / "deep" / "er"):
        before = tree(source)
        with pytest.raises(CallError, match="must not lie in each other"):
            convert(source, to="parquet", out=out, overwrite=True)
        assert tree(source) == before
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(CallError, match="must not lie in each other"):
        convert(source, to="parquet", out=tmp_path / "link" / "out")


def test_a_folder_that_cannot_be_made_is_a_wrong_call(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CallError):
        convert(source, to="parquet", out=tmp_path / "file" / "out")


def test_the_source_is_left_as_it_is(source, tmp_path):
    before = tree(source)
    for to in ("parquet", "jpeg"):
        convert(source, to=to, out=tmp_path / to, labels=source / "labels", max_shard_bytes=20_000)
        verify(tmp_path / to, source=source)
    assert tree(source) == before


def test_a_source_that_changes_meanwhile_is_found(source, tmp_path, monkeypatch):
    from converters.formats.parquet import ParquetFormat

    def finish(self, report, folder):
        path = tfrecords(source, "6_basic_emo", "test")
        write_records(path, list(reversed(read_records(path))))

    monkeypatch.setattr(ParquetFormat, "finish", finish)
    with pytest.raises(DataError, match=r"6_basic_emo_test\.tfrecords.*changed"):
        convert(source, to="parquet", out=tmp_path / "out")
    assert nothing_was_published(tmp_path)


# --- Parts, compression, several files -----------------------------------------------------------------


def test_absent_files_are_listed(source, tmp_path, kfer_convert):
    tfrecords(source, "22_emo", "test").unlink()
    tfrecords(source, "multi-label", "valid").unlink()
    done = kfer_convert(source, "--to", "parquet", "--out", tmp_path / "out")
    assert done.status == 0
    text = done.out + done.err
    assert "22_emo_test.tfrecords" in text
    assert "multi-label_valid.tfrecords" in text
    manifest = json.loads((tmp_path / "out" / "MANIFEST.json").read_text())
    assert manifest["absent"] == ["22_emo/test", "multi-label/valid"]


def test_a_part_of_the_dataset(source, tmp_path, kfer_convert):
    out = tmp_path / "out"
    arguments = ("--config", "22_emo", "--config", "multi-label", "--split", "valid")
    assert kfer_convert(source, "--to", "parquet", "--out", out, *arguments).status == 0
    found = {path.relative_to(out).as_posix() for path in out.rglob("*.parquet")}
    assert found == {f"{config}/valid-00000-of-00001.parquet" for config in ("22_emo", "multi-label")}
    assert verify(out, source=source).failures() == []


@pytest.mark.parametrize(
    "wanted", [{"configs": ["7_emo"]}, {"splits": ["validation"]}, {"configs": ["22_emo"], "splits": ["dev"]}]
)
def test_unknown_parts_are_a_wrong_call(source, tmp_path, wanted):
    with pytest.raises(CallError, match=r"no (config|split)"):
        convert(source, to="parquet", out=tmp_path / "out", **wanted)


def test_a_part_that_is_not_there_is_a_wrong_call(source, tmp_path):
    tfrecords(source, "22_emo", "test").unlink()
    with pytest.raises(CallError, match="22_emo_test"):
        convert(source, to="parquet", out=tmp_path / "out", configs=["22_emo"], splits=["test"])


def test_compressed_sources(source, sample, tmp_path, truth):
    """GZIP and ZLIB, with and without the index of the records inside."""
    gz = compress(tfrecords(source, "6_basic_emo", "train"))
    assert gz.name == "6_basic_emo_train.tfrecords.gz"
    path = tfrecords(source, "6_basic_emo", "valid")
    path.write_bytes(zlib.compress(path.read_bytes()))
    compress(tfrecords(source, "22_emo", "train"))
    (source / "22_emo_train.idx").unlink()
    convert(source, to="parquet", out=tmp_path / "out")
    convert(sample, to="parquet", out=tmp_path / "plain")
    written = {
        name: digest for name, digest in digests(tmp_path / "out").items() if name.endswith(".parquet")
    }
    plain = digests(tmp_path / "plain")
    assert written == {name: plain[name] for name in written}
    assert len(written) == len(CONFIGS) * len(SPLITS)
    assert verify(tmp_path / "out", source=source).failures() == []


def test_a_damaged_compressed_source_is_refused(source, tmp_path):
    path = compress(tfrecords(source, "6_basic_emo", "train"))
    whole = path.read_bytes()
    for damage in (whole[:-1], whole[:-9], whole[: len(whole) // 2], whole + b"x"):
        path.write_bytes(damage)
        with pytest.raises(DataError, match=r"6_basic_emo_train\.tfrecords\.gz"):
            convert(source, to="parquet", out=tmp_path / "out")
    assert nothing_was_published(tmp_path)


@pytest.mark.parametrize("shard_bytes", [1, 5_000, 10**9])
def test_a_split_of_several_files(source, tmp_path, truth, shard_bytes):
    path = tfrecords(source, "22_emo", "train")
    records = read_records(path)
    for number, (start, end) in enumerate([(0, 5), (5, 6), (6, len(records))]):
        write_records(
            source / f"22_emo_train-{number:05}-of-00003.tfrecords", records[start:end], index=False
        )
    path.unlink()
    path.with_suffix(".idx").unlink()

    def change(document):
        document["configs"]["22_emo"]["splits"]["train"] |= {
            "file": "22_emo_train-*.tfrecords",
            "index": None,
        }

    edit_description(source, change)
    out = tmp_path / "out"
    report = convert(
        source, to="parquet", out=out, configs=["22_emo"], splits=["train"], max_shard_bytes=shard_bytes
    )
    assert results(report, "label order") == {"22_emo/train": "passed"}
    import pyarrow.parquet as pq

    tables = [pq.read_table(file) for file in sorted((out / "22_emo").iterdir())]
    images = [image["bytes"] for table in tables for image in table["image"].to_pylist()]
    assert images == [record.image for record in truth["22_emo", "train"]]
    assert verify(out, source=source).failures() == []


def test_a_record_longer_than_allowed_is_refused(source, tmp_path):
    with pytest.raises(DataError, match=r"record 0, byte 0"):
        convert(source, to="parquet", out=tmp_path / "out", max_record_bytes=100)


def test_the_longest_record_that_is_allowed_holds_for_shards_and_verify_too(source, tmp_path, monkeypatch):
    """A source of several shards is scanned for where to cut it, and the scan knew only the default."""
    monkeypatch.setattr("converters.formats.tfrecord.plan.plan_shards.__defaults__", (3_000, 100))
    out = tmp_path / "out"
    convert(source, to="parquet", out=out, max_record_bytes=50_000, max_shard_bytes=3_000)
    assert verify(out, source=source).failures() == []
    with pytest.raises(DataError, match="at most 100 are accepted"):
        plan_shards(open_tfrecords(source).splits)


def test_progress_counts_every_record(source, tmp_path):
    seen = {"read": 0, "verified": 0}

    def progress(stage, count):
        seen[stage] += count

    report = convert(source, to="parquet", out=tmp_path / "out", progress=progress)
    assert seen == {"read": report.records, "verified": report.records}


def test_a_killed_run_leaves_no_output_and_the_next_one_succeeds(source, tmp_path):
    """Killed in the middle of writing: no destination; the next run clears away what is left."""
    program = (
        "import os, signal, sys\n"
        "from converters import convert\n"
        "seen = []\n"
        "def progress(stage, count):\n"
        "    seen.append(stage)\n"
        "    if len(seen) == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert(sys.argv[1], to='parquet', out=sys.argv[2], progress=progress)\n"
    )
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", program, source, out], capture_output=True)
    assert done.returncode == -9
    assert not out.exists()
    convert(source, to="parquet", out=out)
    assert verify(out, source=source).failures() == []
    assert {path.name for path in tmp_path.iterdir()} == {"tfrecords", "out"}
