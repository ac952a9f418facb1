"""Which files belong to which split, and datasets that are not KFER."""

import gzip
import hashlib
import json
import os
import time
import unicodedata
import zlib

import fsspec
import pyarrow.parquet as pq
import pytest
from conftest import drop_published, encode_record, read_records, tfrecords, write_frames, write_records
from helpers.examples import encode_features

from converters import convert, inspect, verify
from converters.errors import CallError, ConverterError, DataError
from converters.formats.tfrecord.source import open_tfrecords
from converters.storage.object_store import place

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
        check.result for split in report.splits for check in split.checks if check.name != "every value"
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


# --- With no description -------------------------------------------------------------------------------


def plain(*numbers):
    return [encode_features({"a": [number]}) for number in numbers]


def put(folder, *names, count=1):
    """TFRecord files, each with other records."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_frames(path, plain(*range(number * count, number * count + count)), index=False)


def found(place, **options):
    """The names of the files of each split."""
    source = open_tfrecords(place, **options)
    return {there.split.name: [file.name for file in there.files] for there in source.splits}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.tfrecord", "train"),
        ("training/part-0.tfrecords", "train"),
        ("Split-train/data-00000-of-00001", "train"),
        ("mnist-test.tfrecord-00000-of-00001", "test"),
        ("flowers_validation_00000-of-00001.tfrecord", "validation"),
        ("VAL.TFRecord", "val"),
        ("valid/shapes.tfrecord", "valid"),
        ("flowersTest.tfr", "test"),
        ("eval01.rec", "eval"),
        ("dev/test.record", "test"),
        ("contest.tfrecord", "train"),
        ("validate.tfrecord", "train"),
        ("trainer/x.tfrecord", "train"),
        ("data.record", "train"),
        ("no suffix at all", "train"),
        ("pets_train_val.record", "train_val"),
        ("voc/trainval-00000-of-00001", "trainval"),
        ("coco_minival.record", "minival"),
        ("coco_testdev.record", "testdev"),
        ("testdata.tfrecords", "test"),
    ],
)
def test_splits_come_from_the_words_of_names(tmp_path, name, split):
    put(tmp_path, name)
    assert found(tmp_path) == {split: [name]}


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["svhn_extra.tfrecords", "svhn_test.tfrecords", "svhn_train.tfrecords"], ["train", "test", "extra"]),
        (
            ["reid32_query-0.tfrecord", "reid32_train-0.tfrecord", "reid32_train-1.tfrecord"],
            ["train", "query"],
        ),
        (["train/a-1.tfrecord", "unlabelled/a-1.tfrecord"], ["train", "unlabelled"]),
        (["all.tfrecord", "train.tfrecord"], ["train"]),
        (["boats.tfrecord", "boats_test.tfrecord"], ["train", "test"]),
    ],
)
def test_a_word_in_the_place_of_a_split_is_one(tmp_path, names, splits):
    put(tmp_path, *names)
    assert list(found(tmp_path)) == splits


def test_a_source_called_like_a_split_and_nothing_else_is_that_split(tmp_path):
    put(tmp_path, "Test/part-1.tfrecord", "contest/part-1.tfrecord")
    assert found(tmp_path / "Test") == {"test": ["part-1.tfrecord"]}
    assert found(tmp_path / "contest") == {"train": ["part-1.tfrecord"]}


def test_numbers_in_names_count_as_numbers(tmp_path):
    put(tmp_path, *(f"part-{number}-of-12" for number in range(12)))
    assert found(tmp_path) == {"train": [f"part-{number}-of-12" for number in range(12)]}


def test_a_pattern_passes_over_sidecars_too(tmp_path):
    put(tmp_path, "train.tfrecord")
    (tmp_path / "train.tfrecord.md5").write_text("x")
    assert found(tmp_path / "train*") == {"train": ["train.tfrecord"]}
    with pytest.raises(DataError, match="it is text"):
        open_tfrecords(tmp_path / "train.tfrecord.md5")


def test_names_that_are_no_text_are_listed_so_that_they_can_be_printed(tmp_path):
    put(tmp_path, "train.tfrecord")
    (tmp_path / os.fsdecode(b"caf\xe9")).write_text("x")
    (warning,) = open_tfrecords(tmp_path).warnings
    assert warning.encode().endswith(b"caf\\udce9'")


def test_files_are_known_by_their_content(tmp_path):
    put(tmp_path, "a/b/c/one", "two.bin", "train.tfrecord", "test.gz")
    data = (tmp_path / "test.gz").read_bytes()
    (tmp_path / "test.gz").write_bytes(gzip.compress(data))
    (tmp_path / "val.z").write_bytes(zlib.compress(data))
    (tmp_path / "notes").write_text("no record")
    (tmp_path / "raw").write_bytes(bytes(range(200)))
    assert found(tmp_path) == {
        "train": ["a/b/c/one", "train.tfrecord", "two.bin"], "val": ["val.z"], "test": ["test.gz"]
    }  # fmt: skip
    warnings = open_tfrecords(tmp_path).warnings
    assert any("notes, raw" in warning for warning in warnings)
    assert any("train is made of 3 sets of files" in warning for warning in warnings)


def test_a_file_or_a_pattern_is_a_source_too(tmp_path):
    put(tmp_path, "x/train-1.tfrecord", "x/train-2.tfrecord", "x/y/train-3.tfrecord", "x/test-1.tfrecord")
    assert found(tmp_path / "x" / "test-1.tfrecord") == {"test": ["test-1.tfrecord"]}
    assert found(tmp_path / "x" / "train-*") == {"train": ["train-1.tfrecord", "train-2.tfrecord"]}
    assert found(tmp_path / "*" / "train-[!1].tfrecord") == {"train": ["x/train-2.tfrecord"]}
    assert found(tmp_path / "**" / "t*-?.tfrecord")["train"] == [
        "x/train-1.tfrecord", "x/train-2.tfrecord", "x/y/train-3.tfrecord"
    ]  # fmt: skip
    for wrong in ("nothing-*", "x/nothing"):
        with pytest.raises(CallError, match=r"no file matches|no such folder"):
            open_tfrecords(tmp_path / wrong)


def test_one_of_kfer_s_files_is_kfer(sample, tmp_path):
    path = tfrecords(sample, "22_emo", "test")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / path.name).symlink_to(path)
    source = open_tfrecords(tmp_path / "x" / path.name)
    assert source.description.name == "kfer"
    assert [there.split.title for there in source.splits] == ["22_emo/test"]
    (tmp_path / "x" / path.name).rename(tmp_path / "x" / "faces_test.tfrecords")
    assert open_tfrecords(tmp_path / "x").description.name == "kfer"


def test_kfer_s_features_with_other_labels_are_another_dataset(tmp_path, truth):
    records = [type(r)(b"no image", (1,), r.height, r.width, r.depth) for r in truth["22_emo", "train"][:3]]
    write_records(tmp_path / "train.tfrecords", records, index=False)
    source = open_tfrecords(tmp_path)
    assert source.description.name == tmp_path.name
    assert source.inferred


SIDECARS = (
    "._train.tfrecord", "train.tfrecord:Zone.Identifier", "train.tfrecord.md5", "train.tfrecord.zip",
    ".train.tfrecord.icloud", "train.tfrecord~", ".train.tfrecord.crc", "README.tfrecord.md", ".DS_Store",
    "train.tfrecord.crdownload", "label_map.pbtxt", "info.json", ".train.tfrecord.aB3dEf",
    "model.ckpt-200.data-00000-of-00001", "variables.data-00001-of-00002",
)  # fmt: skip


def test_what_lies_beside_data_is_passed_over_and_listed(tmp_path):
    put(tmp_path, "train.tfrecord")
    for name in SIDECARS:
        (tmp_path / name).write_text("something else than records\n")
    hidden = (".cache/", "_temporary/", "beam-temp-train-1a2b/", "1.0.0.incompleteA1B2C3/")
    for folder in hidden:
        put(tmp_path, f"{folder}train.tfrecord")
    put(tmp_path, "events.out.tfevents.1577836800.host")  # framed as TFRecords are
    assert found(tmp_path) == {"train": ["train.tfrecord"]}
    (warning,) = open_tfrecords(tmp_path).warnings
    events = "events.out.tfevents.1577836800.host"
    assert set(warning.partition(": ")[2].split(", ")) == {*SIDECARS, *hidden, events}


def test_a_pattern_lists_the_folders_below_it_that_are_not_entered(tmp_path):
    put(tmp_path, "data/a/train.tfrecord", "data/.cache/x/train.tfrecord", "elsewhere/train.tfrecord")
    (tmp_path / "data" / "b").symlink_to("../elsewhere")
    for pattern, passed_over in {
        "*/*.tfrecord": ".cache/, b/",
        "**/*.tfrecord": ".cache/, b/",
        "[ab]/train*": ".cache/, b/",
        "a/*": None,
    }.items():
        source = open_tfrecords(tmp_path / "data" / pattern)
        assert [file.path for file in source.splits[0].files] == [tmp_path / "data/a/train.tfrecord"]
        warnings = [] if passed_over is None else [f"passed over, as no part of the dataset: {passed_over}"]
        assert list(source.warnings) == warnings, pattern


def test_indexes_in_a_folder_of_their_own_have_the_names_of_the_files(tmp_path):
    """As NVIDIA's examples lay them out."""
    names = [f"train-{number:05d}-of-00002" for number in range(2)]
    put(tmp_path, *(f"tfrecords/{name}" for name in names))
    (tmp_path / "idx").mkdir()
    for name in names:
        size = (tmp_path / "tfrecords" / name).stat().st_size
        (tmp_path / "idx" / name).write_text(f"0 {size}\n")
    assert found(tmp_path) == {"train": [f"tfrecords/{name}" for name in names]}
    assert "idx/train-00000-of-00002" in open_tfrecords(tmp_path).warnings[0]
    (tmp_path / "idx" / names[0]).write_text("00 no index\n")
    with pytest.raises(DataError, match="it is text"):
        open_tfrecords(tmp_path)


def test_a_file_is_known_by_its_content_though_its_name_is_a_checkpoint_s(tmp_path):
    put(tmp_path, "train.data-00000-of-00001")
    assert found(tmp_path) == {"train": ["train.data-00000-of-00001"]}


WRONG = {
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "an HTML page": b"\xef\xbb\xbf\n<!DOCTYPE html><html><title>Sign in</title></html>",
    "a zip archive": b"PK\x03\x04aaaaaaaaaaaaaaaa",
    "text": b"404: not found\n",
    "JSON": b'{"error": 1}',
    "gzip of an HTML page": gzip.compress(b"<html></html>"),
    "nothing but zero bytes": bytes(100),
    "a Parquet file": b"PAR1" + bytes(20),
    "the file is empty": b"",
}


LIKE_TFRECORDS = ("test.tfrecord", "test.record", "test.tfrec", "test-00000-of-00001", "x.tfrecord-0-of-1", "x.tfr.gz",
                  "part-2.bin", "other.bin")  # fmt: skip


@pytest.mark.parametrize(
    ("words", "name"),
    [(words, "test.tfrecord") for words in WRONG] + [("text", name) for name in LIKE_TFRECORDS],
)
def test_a_file_that_should_be_a_tfrecord_is_never_passed_over(tmp_path, words, name):
    put(tmp_path, "part-1.bin")
    (tmp_path / name).write_bytes(WRONG[words])
    described = {"configs": {"c": {"splits": {"train": {"file": name}}}}}
    for document in (None, described):
        if document is not None:
            (tmp_path / "dataset.json").write_text(json.dumps(document))
        with pytest.raises(DataError, match=words) as caught:
            open_tfrecords(tmp_path)
        assert caught.value.at.path == str(tmp_path / name)
        assert "damaged" not in str(caught.value)


def test_a_tfrecord_whose_first_length_is_wrong_is_damaged(tmp_path):
    put(tmp_path, "train.tfrecord")
    data = bytearray((tmp_path / "train.tfrecord").read_bytes())
    data[0] ^= 1
    (tmp_path / "train.tfrecord").write_bytes(data)
    with pytest.raises(DataError, match="fails its checksum"):
        open_tfrecords(tmp_path)


def test_what_cannot_be_read_is_passed_over_unless_it_should_be_a_tfrecord(tmp_path):
    put(tmp_path, "train.tfrecord")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "fifo")
    assert found(tmp_path) == {"train": ["train.tfrecord"]}
    (tmp_path / "test.tfrecord").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConverterError, match=r"test\.tfrecord"):
        open_tfrecords(tmp_path)


def test_a_folder_without_tfrecords_lists_what_is_there(tmp_path):
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(CallError, match=r"no TFRecord file is here; there is a\.csv"):
        open_tfrecords(tmp_path)


# --- Members -------------------------------------------------------------------------------------------


def test_missing_members_fail_unless_that_is_allowed(tmp_path, kfer_convert):
    put(
        tmp_path / "in",
        "train-00000-of-00003.tfrecord",
        "train-00002-of-00003.tfrecord",
        "val-1-of-1.tfrecord",
    )
    done = kfer_convert(tmp_path / "in", "--to", "parquet", "--out", tmp_path / "out")
    assert done.status == 1
    assert "default/train: members: train-00001-of-00003.tfrecord: not here" in done.err
    report = convert(tmp_path / "in", to="parquet", out=tmp_path / "out", allow_mismatch=True)
    checks = {
        split.split.name: (check.result, check.published)
        for split in report.splits
        for check in split.checks
        if check.name == "members"
    }
    assert checks == {"train": ("failed", True), "val": ("passed", True)}
    assert [split.split.name for split in verify(tmp_path / "out").splits] == ["train", "val"]
    assert verify(tmp_path / "out").failures() == []


def test_a_file_and_its_copy_in_another_folder_are_refused(tmp_path):
    put(tmp_path, "part-1.tfrecord", "old/part-1.tfrecord", "part-2.tfrecord")  # same names and sizes
    assert found(tmp_path) == {"train": ["old/part-1.tfrecord", "part-1.tfrecord", "part-2.tfrecord"]}
    (tmp_path / "backup").mkdir()
    copied = (tmp_path / "part-2.tfrecord").read_bytes()
    (tmp_path / "backup" / "part-2.tfrecord").write_bytes(copied)
    with pytest.raises(DataError, match=r"backup/part-2\.tfrecord and part-2\.tfrecord are the same"):
        open_tfrecords(tmp_path)
    (tmp_path / "dataset.json").write_text(
        '{"configs": {"c": {"splits": {"train": {"file": "**/*.tfrecord"}}}}}'
    )
    with pytest.raises(DataError, match="are the same"):
        open_tfrecords(tmp_path)
    (tmp_path / "backup").rename(tmp_path / "test")  # another split may have the same
    (tmp_path / "dataset.json").unlink()
    assert found(tmp_path)["test"] == ["test/part-2.tfrecord"]


@pytest.mark.parametrize("numbers", [(0, 1, 2), (1, 2, 3), (0, 1, 2, 3)])
def test_members_count_from_0_or_1_or_up_to_the_last_number(tmp_path, numbers):
    put(tmp_path / "in", *(f"train-{number:05d}-of-00003" for number in numbers))
    report = convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    assert [check.result for check in report.splits[0].checks if check.name == "members"] == ["passed"]
    if len(numbers) > 3:
        (tmp_path / "in" / "train-00001-of-00003").unlink()
        with pytest.raises(ConverterError, match="members: train-00001-of-00003: not here"):
            convert(tmp_path / "in", to="parquet", out=tmp_path / "again")


def test_a_member_of_a_pattern_is_missing_too(tmp_path):
    put(tmp_path / "in", "train-00000-of-00002")
    (tmp_path / "in" / "dataset.json").write_text(
        '{"configs": {"c": {"splits": {"train": {"file": "train-*"}}}}}'
    )
    with pytest.raises(ConverterError, match="members: train-00001-of-00002: not here"):
        convert(tmp_path / "in", to="parquet", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a-0-of-2", "a-1-of-2", "a-2-of-3"], "two sets: of 2 and of 3"),
        (["a-0-of-2", "a-00-of-02"], "the same member twice"),
        (["a-0-of-2", "a-7-of-2"], "a number that no member of 2 has"),
        (["a-0-of-1", "a-0-of-1.gz"], "one is a copy of the other"),
        (["train.tfrecord", "train.tfrecord.gz"], "one is a copy of the other"),
    ],
)
def test_members_that_contradict_each_other_are_refused(tmp_path, names, words):
    put(tmp_path, *names)
    with pytest.raises(DataError, match=words) as caught:
        open_tfrecords(tmp_path)
    assert sum(name in str(caught.value) for name in names) >= 1
    (tmp_path / "dataset.json").write_text('{"configs": {"c": {"splits": {"train": {"file": "*"}}}}}')
    with pytest.raises(DataError, match=words):
        open_tfrecords(tmp_path)


def test_an_empty_member_is_legal_where_the_published_number_fits(tmp_path):
    put(tmp_path / "in", "a-0.tfrecord", "a-1.tfrecord", "a-2.tfrecord", "a-3.tfrecord")
    (tmp_path / "in" / "a-1.tfrecord").write_bytes(b"")
    (tmp_path / "in" / "a-3.tfrecord").write_bytes(gzip.compress(b""))
    split = {"file": "a-*", "records": 2}
    for records, on_error in ((2, "fail"), (2, "quarantine"), (3, "fail"), (None, "fail")):
        split["records"] = records
        document = {"configs": {"c": {"splits": {"train": split}}}}
        (tmp_path / "in" / "dataset.json").write_text(json.dumps(document))
        out = tmp_path / f"out-{records}-{on_error}"
        if records == 2:
            report = convert(tmp_path / "in", to="parquet", out=out, on_error=on_error)
            assert (report.records, report.quarantined) == (2, 0)
            assert verify(out, source=tmp_path / "in").failures() == []
        else:
            with pytest.raises(ConverterError, match="2 found, 3 published" if records else "file is empty"):
                convert(tmp_path / "in", to="parquet", out=out, on_error=on_error)


def test_an_empty_file_is_one_of_no_record_if_that_is_said(tmp_path, kfer_convert):
    put(tmp_path / "in", "train-00000-of-00002", "val.tfrecord")
    for name in ("train-00001-of-00002", "test.tfrecord"):
        (tmp_path / "in" / name).write_bytes(b"")
    done = kfer_convert(tmp_path / "in", "--to", "parquet", "--out", tmp_path / "out")
    assert done.status == 1
    assert "the file is empty" in done.err
    assert "--allow-mismatch" in done.err
    report = convert(tmp_path / "in", to="parquet", out=tmp_path / "out", allow_mismatch=True)
    assert [split.fingerprint.records for split in report.splits] == [1, 1, 0]
    assert "no record of default/train is in train-00001-of-00002" in report.warnings
    assert verify(tmp_path / "out", source=tmp_path / "in").failures() == []
    assert [split.records for split in inspect(tmp_path / "in").splits] == [1, 1, 0]
    for name in ("train-00000-of-00002", "val.tfrecord"):
        (tmp_path / "in" / name).write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        convert(tmp_path / "in", to="parquet", out=tmp_path / "again", allow_mismatch=True)


def test_an_empty_file_that_no_split_names_is_not_said_to_go_with_an_option(source):
    (source / "more-train.tfrecord").write_bytes(b"")
    with pytest.raises(DataError, match=r"more-train.tfrecord: the file is empty\. .* move it elsewhere\.$"):
        open_tfrecords(source, allow_mismatch=True)


def test_a_compressed_file_of_no_record_is_one(tmp_path):
    """As Beam writes them where there are fewer records than files."""
    put(tmp_path / "in", "train-00000-of-00002.gz", "test.tfrecord")
    for name in ("train-00001-of-00002.gz", "val.tfrecord.gz"):
        (tmp_path / "in" / name).write_bytes(gzip.compress(b""))
    report = convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    assert [split.fingerprint.records for split in report.splits] == [1, 0, 1]
    (tmp_path / "in" / "val.tfrecord.gz").write_bytes(gzip.compress(b"")[:-1])
    with pytest.raises(DataError, match="cut short"):
        convert(tmp_path / "in", to="parquet", out=tmp_path / "again")


# --- Names ---------------------------------------------------------------------------------------------


def test_names_are_the_same_in_either_unicode_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "학습.tfrecord") for form in ("NFC", "NFD"))
    for stored, written in ((composed, decomposed), (decomposed, composed)):
        folder = tmp_path / str(stored == composed)
        put(folder, stored)
        (folder / "dataset.json").write_text(
            json.dumps({"configs": {"c": {"splits": {"train": {"file": written}}}}})
        )
        assert found(folder) == {"train": [stored]}
        (folder / "dataset.json").write_text(
            json.dumps({"configs": {"c": {"splits": {"train": {"file": written[:-3] + "*"}}}}})
        )
        assert found(folder) == {"train": [stored]}


@pytest.mark.parametrize(
    "name", ["train-12:30.tfrecords", "-t.tfrecords", ".hidden.tfrecords", "a|?* 'b", "con"]
)
def test_names_that_other_systems_do_not_have_are_kept(tmp_path, name):
    put(tmp_path / "in", name)
    report = convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    assert [facts.name for split in report.splits for facts in split.sources] == [name]
    assert verify(tmp_path / "out", source=tmp_path / "in").failures() == []


@pytest.mark.parametrize("name", ["a\\b.tfrecords", "a\tb.tfrecords", "a\udcffb.tfrecords"])
def test_names_that_a_manifest_cannot_hold_are_refused(tmp_path, name):
    put(tmp_path, name)
    with pytest.raises(CallError, match="outputs cannot hold it"):
        open_tfrecords(tmp_path)


def test_finding_is_linear(tmp_path):
    put(tmp_path, *(f"part-{number:05d}.tfrecord" for number in range(1500)))
    names = [name for number in range(2000) for name in (f"*{number:05d}*", f"part-{number:05d}.*")]
    document = {
        "columns": {"a": "int64"},
        "configs": {
            "c": {"splits": {f"s{number}": {"file": name} for number, name in enumerate(names[::2])}}
        },
    }
    (tmp_path / "dataset.json").write_text(json.dumps(document))
    start = time.process_time()
    assert len(open_tfrecords(tmp_path).splits) == 1500
    assert time.process_time() - start < 5


# --- Checksums -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("SHA256SUMS", "{sha256}  {name}\n"),
        ("MD5SUMS", "{md5} *{name}\n"),
        ("checksums.txt", "# sums\nSHA256 ({name}) = {sha256}\n"),
        ("train.tfrecord.sha256", "{sha256}\n"),
        ("train.tfrecord.md5", "{md5}  ./{name}\n"),
    ],
)
def test_checksum_files_are_published_facts(tmp_path, name, line):
    put(tmp_path / "in", "train.tfrecord")
    data = (tmp_path / "in" / "train.tfrecord").read_bytes()
    digests = {kind: hashlib.new(kind, data).hexdigest() for kind in ("sha256", "md5")}
    (tmp_path / "in" / name).write_text(line.format(name="train.tfrecord", **digests))
    report = convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    (check,) = (check for check in report.splits[0].checks if check.name == "checksums")
    assert (check.result, check.published) == ("passed", True)
    wrong = {kind: digest[::-1] for kind, digest in digests.items()}
    (tmp_path / "in" / name).write_text(line.format(name="train.tfrecord", **wrong))
    with pytest.raises(ConverterError, match="not the published digest"):
        convert(tmp_path / "in", to="parquet", out=tmp_path / "again")
    for other in ("no checksums at all\n", f"{digests['sha256']}  other.tfrecord\n"):
        (tmp_path / "in" / name).write_text(other)
        assert open_tfrecords(tmp_path / "in").splits[0].files[0].published is None


# --- In a store ----------------------------------------------------------------------------------------


def test_a_folder_a_file_or_a_pattern_of_a_store(tmp_path):
    put(tmp_path / "in", "x/train-1.tfrecord", "x/train-2.tfrecord", "x/y/test.tfrecord")
    (tmp_path / "in" / "x" / "README.md").write_text("text")
    store = fsspec.filesystem("memory")
    url = f"memory://{tmp_path.name}"
    store.put(str(tmp_path / "in") + "/", f"/{tmp_path.name}", recursive=True)
    store.pipe_file(f"/{tmp_path.name}/x/.git/z.tfrecord", b"")
    everything = {"train": ["x/train-1.tfrecord", "x/train-2.tfrecord"], "test": ["x/y/test.tfrecord"]}
    assert found(place(url)) == everything
    assert open_tfrecords(place(url)).warnings == [
        "passed over, as no part of the dataset: x/README.md, x/.git/"
    ]
    assert found(place(f"{url}/x/train-1.tfrecord")) == {"train": ["train-1.tfrecord"]}
    assert found(place(f"{url}/x/train-*")) == {"train": ["train-1.tfrecord", "train-2.tfrecord"]}
    assert found(place(f"{url}/**/*.tfrecord")) == everything
    report = convert(f"{url}/x/y/test.tfrecord", to="parquet", out=tmp_path / "out")
    assert report.records == 1
    for wrong in ("nothing", "x/nothing-*"):
        with pytest.raises(CallError, match=r"no file matches|no such folder"):
            open_tfrecords(place(f"{url}/{wrong}"))


def test_a_split_of_which_no_records_are_published_may_be_empty(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    write_frames(source / "train.tfrecord", [encode_features({"a": [1]})])
    (source / "test.tfrecord").touch()
    splits = {"train": {"file": "train.tfrecord"}, "test": {"file": "test.tfrecord", "records": 0}}
    (source / "dataset.json").write_text(json.dumps({"configs": {"c": {"splits": splits}}}))
    report = convert(source, to="parquet", out=tmp_path / "out")
    assert [split.fingerprint.records for split in report.splits] == [1, 0]
    assert not verify(tmp_path / "out", source=source).failures()
