"""Which files belong to which split, and datasets that are not KFER."""

import hashlib
import json

import pyarrow.parquet as pq
import pytest
from conftest import drop_published, encode_record, read_records, tfrecords, write_frames, write_records

from converters import convert, verify
from converters.errors import CallError, ConverterError, DataError

NAMES = ("jpeg", "target", "rows", "columns", "channels")


def rename(source, config, split, name):
    path = tfrecords(source, config, split)
    path.with_suffix(".idx").unlink()
    return path.rename(source / name)


@pytest.mark.parametrize(
    ("config", "split", "name"),
    [
        ("6_basic_emo", "valid", "six-validation.tfrecords"),
        ("22_emo", "train", "my_training.tfrecord"),
        ("multi-label", "test", "emotions.test.tfrecords"),
        ("multi-label", "valid", "VAL.TFRecord"),
        ("22_emo", "valid", "dev.tfrecords"),
    ],
)
def test_an_unknown_name_is_matched_by_labels_and_split_word(source, tmp_path, truth, config, split, name):
    rename(source, config, split, name)
    report = convert(source, to="parquet", out=tmp_path / "out", configs=[config])
    assert report.absent == ()
    assert any(name in warning and f"{config}/{split}" in warning for warning in report.warnings)
    table = pq.read_table(tmp_path / "out" / config / f"{split}-00000-of-00001.parquet", partitioning=None)
    assert [image["bytes"] for image in table["image"].to_pylist()] == [r.image for r in truth[config, split]]
    assert verify(tmp_path / "out", source=source).failures() == []


def test_a_name_that_says_no_split_is_refused(source, tmp_path):
    rename(source, "22_emo", "valid", "faces.tfrecords")
    with pytest.raises(DataError, match=r"faces\.tfrecords.*does not say which split") as caught:
        convert(source, to="parquet", out=tmp_path / "out")
    assert "22_emo_valid.tfrecords" in str(caught.value)


def test_a_name_that_says_two_splits_is_refused(source, tmp_path):
    rename(source, "22_emo", "valid", "train_and_test.tfrecords")
    with pytest.raises(DataError, match=r"train_and_test\.tfrecords"):
        convert(source, to="parquet", out=tmp_path / "out")


def test_a_second_file_for_one_split_is_refused(source, tmp_path):
    copy = source / "backup_train.tfrecords"
    copy.write_bytes(tfrecords(source, "22_emo", "train").read_bytes())
    with pytest.raises(DataError, match="there already"):
        convert(source, to="parquet", out=tmp_path / "out")


def test_a_file_and_its_compressed_copy_are_refused(source, tmp_path):
    import gzip

    path = tfrecords(source, "22_emo", "train")
    (source / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match="both look like 22_emo/train"):
        convert(source, to="parquet", out=tmp_path / "out")


def test_labels_that_fit_no_config_are_refused(source, tmp_path):
    records = read_records(tfrecords(source, "22_emo", "valid"))
    short = [type(r)(r.image, r.label[:5], r.height, r.width, r.depth) for r in records]
    write_records(source / "other_train.tfrecords", short, index=False)
    with pytest.raises(DataError, match="5 labels fit no config"):
        convert(source, to="parquet", out=tmp_path / "out")


def test_labels_that_fit_two_configs_are_refused(tmp_path, truth):
    source = custom(tmp_path, truth, {"one": "single-label", "two": "single-label"})
    (source / "one_train.tfrecords").rename(source / "some_train.tfrecords")
    with pytest.raises(DataError, match="3 labels fit one, two"):
        convert(source, to="parquet", out=tmp_path / "out")


def test_files_of_two_configs_exchanged_are_refused(source, tmp_path):
    one, other = tfrecords(source, "22_emo", "valid"), tfrecords(source, "multi-label", "valid")
    for path in (one, other):
        path.with_suffix(".idx").unlink()
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    with pytest.raises(DataError, match=r"22_emo_valid\.tfrecords \(record 0"):
        convert(source, to="parquet", out=tmp_path / "out")


def test_files_of_two_splits_exchanged_are_found(source, tmp_path):
    one, other = tfrecords(source, "22_emo", "train"), tfrecords(source, "22_emo", "valid")
    for suffix in (".tfrecords", ".idx"):
        a, b = one.with_suffix(suffix), other.with_suffix(suffix)
        data = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(data)
    with pytest.raises(ConverterError, match="22_emo/train: records: 3 found, 27 published"):
        convert(source, to="parquet", out=tmp_path / "out")


def test_folders_without_anything_are_a_wrong_call(tmp_path):
    with pytest.raises(CallError, match="no such folder"):
        convert(tmp_path / "nowhere", to="parquet", out=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CallError, match="no TFRecord file"):
        convert(tmp_path / "empty", to="parquet", out=tmp_path / "out")


# --- Another dataset -----------------------------------------------------------------------------------


def custom(folder, truth, configs: dict[str, str]):
    """A dataset of three labels with other feature names, in one file a config."""
    source = folder / "other"
    source.mkdir()
    document = {
        "name": "pets",
        "features": dict(zip(("image", "label", "height", "width", "depth"), NAMES, strict=True)),
        "configs": {},
    }
    for config, kind in configs.items():
        records = [
            type(r)(r.image, tuple(int(i == n % 3) for i in range(3)), r.height, r.width, r.depth)
            for n, r in enumerate(truth["22_emo", "train"][:7])
        ]
        write_frames(
            source / f"{config}_train.tfrecords", [encode_record(r, NAMES) for r in records], index=False
        )
        document["configs"][config] = {
            "kind": kind,
            "label_names": ["cat", "dog", "weasel"],
            "splits": {"train": {"file": f"{config}_train.tfrecords"}},
        }
    (source / "dataset.json").write_text(json.dumps(document))
    return source


def test_another_dataset_converts_with_no_code(tmp_path, truth):
    source = custom(tmp_path, truth, {"pets": "single-label"})
    report = convert(source, to="parquet", out=tmp_path / "out")
    assert {
        check.result for split in report.splits for check in split.checks if check.name != "image bytes"
    } == {"unverified"}
    table = pq.read_table(tmp_path / "out" / "pets" / "train-00000-of-00001.parquet", partitioning=None)
    assert table["label"].to_pylist() == [0, 1, 2, 0, 1, 2, 0]
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"]["names"] == ["cat", "dog", "weasel"]
    text = (tmp_path / "out" / "MANIFEST.json").read_text()
    assert "kfer" not in text.replace("kfer-convert", "").lower()
    for to in ("jpeg", "parquet"):
        convert(source, to=to, out=tmp_path / to)
        assert verify(tmp_path / to, source=source).failures() == []


def test_another_dataset_s_published_facts_are_checked(tmp_path, truth):
    source = custom(tmp_path, truth, {"pets": "single-label"})
    path = source / "dataset.json"
    document = json.loads(path.read_text())
    labels = b"".join(bytes(int(i == n % 3) for i in range(3)) for n in range(7))
    facts = {
        "records": 7,
        "label_counts": {"cat": 3, "dog": 2, "weasel": 2},
        "labels_per_image": {"1": 7},
        "labels_sha256": hashlib.sha256(labels).hexdigest(),
    }
    document["configs"]["pets"]["splits"]["train"] |= facts
    path.write_text(json.dumps(document))
    report = convert(source, to="jpeg", out=tmp_path / "out")
    assert {check.result for split in report.splits for check in split.checks} == {"passed"}
    for key, value in {"records": 8, "label_counts": {"cat": 2, "dog": 3, "weasel": 2}}.items():
        changed = json.loads(json.dumps(document))
        changed["configs"]["pets"]["splits"]["train"][key] = value
        path.write_text(json.dumps(changed))
        with pytest.raises(ConverterError, match="pets/train"):
            convert(source, to="jpeg", out=tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"configs": {}}', '{"configs": {"..": {}}}', "\udcff"]
)
def test_a_malformed_description_is_a_wrong_call(source, tmp_path, kfer_convert, text):
    (source / "dataset.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    done = kfer_convert(source, "--to", "parquet", "--out", tmp_path / "out")
    assert done.status == 2
    assert "dataset.json" in done.err


def test_a_description_without_counts_says_unverified(source, tmp_path):
    drop_published(source)
    report = convert(source, to="parquet", out=tmp_path / "out")
    names = {check.name for split in report.splits for check in split.checks if check.result == "unverified"}
    assert names == {"counts per label", "labels per image", "label order"}  # the indexes tell the records
