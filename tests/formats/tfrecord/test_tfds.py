"""Folders that TensorFlow Datasets wrote: its own files are their description."""

import io
import json

import numpy as np
import pytest
from helpers.examples import encode_features, framed
from PIL import Image

from converters import convert, verify
from converters.dataset.schema import type_name
from converters.errors import CallError, ConverterError, DataError
from converters.formats.tfrecord.source import open_tfrecords


def picture(seed, mode="RGB"):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 6, len(mode)), np.uint8).squeeze()).save(
        stream, "PNG"
    )
    return stream.getvalue()


def leaf(kind, **content):
    return {"pythonClassName": f"tensorflow_datasets.core.features.some_feature.{kind}", **content}


def tensor(dtype, *sizes, encoding="none"):
    shape = {"dimensions": [str(size) for size in sizes]} if sizes else {}
    return leaf("Tensor", tensor={"shape": shape, "dtype": dtype, "encoding": encoding})


def sequence(feature, length=-1):
    return leaf("Sequence", sequence={"feature": feature, "length": str(length)})


def nested(**features):
    return leaf("FeaturesDict", featuresDict={"features": features})


IMAGE = leaf(
    "Image", image={"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8", "encodingFormat": "png"}
)
LABEL = leaf("ClassLabel", classLabel={"numClasses": "2"})
TEXT = leaf("Text", text={})
FEATURES = nested(image=IMAGE, label=LABEL, id=TEXT)


def record(number):
    return {"image": picture(number), "label": [number % 2], "id": b"i%d" % number}


def build(folder, features=FEATURES, shards=None, make=record, names=("cat", "dog"), **info):
    """A folder of TensorFlow Datasets: ``shards`` are the numbers of records of each split's files."""
    folder.mkdir(parents=True, exist_ok=True)
    splits, number = [], 0
    for split, lengths in (shards or {"train": [3, 2], "test": [2]}).items():
        size = 0
        for index, length in enumerate(lengths):
            records = [encode_features(make(number + place)) for place in range(length)]
            number += length
            size += sum(map(len, records))
            name = f"pets-{split}.tfrecord-{index:05d}-of-{len(lengths):05d}"
            (folder / name).write_bytes(b"".join(map(framed, records)))
        splits.append(
            {
                "name": split,
                "shardLengths": list(map(str, lengths)),
                "numBytes": str(size),
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    document = {"name": "pets", "fileFormat": "tfrecord", "splits": splits, "version": "1.0.0"} | info
    (folder / "dataset_info.json").write_text(json.dumps(document))
    (folder / "features.json").write_text(json.dumps(features))
    if names:
        (folder / "label.labels.txt").write_text("\n".join(names) + "\n")
    return folder


def edit(folder, change):
    path = folder / "dataset_info.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def schema_of(folder):
    return {column.name: column for column in open_tfrecords(folder).splits[0].split.schema}


def test_names_types_and_counts(tmp_path):
    build(tmp_path / "in", description="Pets.", citation="@x", location={"urls": ["https://example.org"]})
    report = convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    assert report.description.name == "pets"
    assert report.description.about.description == "Pets."
    assert report.warnings == ()
    assert [split.split.title for split in report.splits] == ["default/train", "default/test"]
    for split in report.splits:
        results = {check.name: check.result for check in split.checks if check.published}
        assert results == dict.fromkeys(
            ["records", "members", "records per file", "bytes of Examples"], "passed"
        )
    schema = {column.name: column for column in report.splits[0].split.schema}
    assert {name: type_name(column.type) for name, column in schema.items()} == {
        "image": "binary", "label": "int64", "id": "string"
    }  # fmt: skip
    assert (schema["image"].role, schema["label"].label_names) == ("image", ("cat", "dog"))
    assert verify(tmp_path / "out", source=tmp_path / "in").failures() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda info: info["splits"][0].update(shardLengths=["2", "3"]),
            "default/train.*has 3 records, 2 are published",
        ),
        (
            lambda info: info["splits"][0].update(shardLengths=["3", "3"]),
            "default/train: records: 5 found, 6 published",
        ),
        (
            lambda info: info["splits"][0].update(numBytes="7"),
            "default/train: bytes of Examples: [0-9]+ found, 7 published",
        ),
        (
            lambda info: info["splits"][0].update(shardLengths=["3", "2", "1"]),
            "default/train: this is one of 2 files; 3 files with 6 records are published",
        ),
    ],
)
def test_a_published_fact_that_differs_fails(tmp_path, change, words, kfer_convert):
    build(tmp_path / "in")
    edit(tmp_path / "in", change)
    done = kfer_convert(tmp_path / "in", "--to", "parquet", "--out", tmp_path / "out")
    assert done.status == 1
    with pytest.raises(ConverterError, match=words):
        convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_shard_fails(tmp_path):
    build(tmp_path / "in")
    (tmp_path / "in" / "pets-train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(ConverterError, match=r"default/train: records: 3 found, 5 published") as caught:
        convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    assert "pets-train.tfrecord-00001-of-00002: not here" in "".join(caught.value.report.failures())
    assert convert(tmp_path / "in", to="parquet", out=tmp_path / "out", allow_mismatch=True).records == 5


def test_a_missing_split_fails_unless_it_is_not_asked_for(tmp_path):
    build(tmp_path / "in")
    (tmp_path / "in" / "pets-test.tfrecord-00000-of-00001").unlink()
    with pytest.raises(
        DataError, match=r"default/test: none of its 1 files is here.*2 records are published"
    ):
        convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    for number, options in enumerate(({"splits": ["train"]}, {"allow_mismatch": True})):
        assert convert(tmp_path / "in", to="parquet", out=tmp_path / f"out{number}", **options).records == 5


def test_a_shard_that_is_cut_at_a_record_fails(tmp_path):
    build(tmp_path / "in")
    path = tmp_path / "in" / "pets-train.tfrecord-00000-of-00002"
    size = len(framed(encode_features(record(2))))
    path.write_bytes(path.read_bytes()[:-size])
    with pytest.raises(ConverterError, match="default/train: records: 4 found, 5 published") as caught:
        convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    assert any(
        "00000-of-00002 has 2 records, 3 are published" in text for text in caught.value.report.failures()
    )


def test_an_empty_shard_is_legal(tmp_path):
    build(tmp_path / "in", shards={"train": [3, 0, 2]})
    assert (tmp_path / "in" / "pets-train.tfrecord-00001-of-00003").stat().st_size == 0
    report = convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    assert report.records == 5
    assert verify(tmp_path / "out", source=tmp_path / "in").failures() == []


def test_a_label_that_is_not_known_stays(tmp_path):
    build(tmp_path / "in", make=lambda number: record(number) | {"label": [-1 if number == 1 else 1]})
    convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    source = open_tfrecords(tmp_path / "in")
    batches = [batch for shard in source.plan(10**9) for batch in source.reading.read(shard)]
    assert batches[0].column("label").to_pylist() == [1, -1, 1]


def test_a_label_without_a_name_is_refused(tmp_path):
    build(tmp_path / "in", make=lambda number: record(number) | {"label": [number]})
    with pytest.raises(DataError, match="the label 2 has no name"):
        convert(tmp_path / "in", to="parquet", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (nested(image=IMAGE, label=LABEL), "the feature 'id' is not in the dataset's description"),
        (nested(image=IMAGE, label=LABEL, id=TEXT, more=TEXT), "the feature 'more' is missing"),
    ],
)
def test_features_that_are_not_the_records_are_told(tmp_path, features, words):
    build(tmp_path / "in", features)
    with pytest.raises(DataError, match=words):
        convert(tmp_path / "in", to="parquet", out=tmp_path / "out")


NESTED = nested(
    image=IMAGE,
    mask=IMAGE,
    objects=sequence(nested(bbox=leaf("BBoxFeature", boundingBox={"bboxFormat": "REL_YXYX"}), label=LABEL,
                            crowd=tensor("bool"))),
    corners=tensor("float64", 5, 2),
    size=tensor("int32", 1),
    any=tensor("uint8", -1, 3),
    flag=tensor("bool"),
    packed=tensor("float32", 4, 4, encoding="zlib"),
    triple=sequence(tensor("int64"), 3),
    words=sequence(sequence(TEXT)),
    raw=tensor("string"),
    frames=sequence(IMAGE),
)  # fmt: skip


def nested_record(number):
    return {
        "image": picture(number), "mask": picture(number, "L"), "objects/bbox": [0.5] * 4 * (number % 3) or None,
        "objects/label": [0] * (number % 3), "objects/crowd": [1] * (number % 3), "corners": [0.5] * 10, "size": [7],
        "any": [1] * 3 * number, "flag": [1], "packed": b"\xff\x00", "triple": [1, 2, 3],
        "words/ragged_flat_values": [b"a", b"b"], "words/ragged_row_lengths_0": [2], "raw": b"\xff",
        "frames": [picture(1), picture(2)],
    }  # fmt: skip


def test_nested_features(tmp_path):
    records = [nested_record(number) for number in (1, 2, 4)]
    build(tmp_path / "in", NESTED, {"train": [3]}, lambda number: records[number], names=None)
    (tmp_path / "in" / "objects-label.labels.txt").write_text("cat\ndog\n")
    schema = schema_of(tmp_path / "in")
    assert {name: type_name(column.type) for name, column in schema.items()} == {
        "image": "binary", "label": "int64[]", "mask": "binary", "objects/bbox": "float32[]",
        "objects/crowd": "int64[]", "corners": "float32[10]", "size": "int32", "any": "uint8[]", "flag": "int64",
        "packed": "binary",
        "triple": "int64[3]", "words/ragged_flat_values": "string[]", "words/ragged_row_lengths_0": "int64[]",
        "raw": "binary", "frames": "binary[]",
    }  # fmt: skip
    assert {name: column.role for name, column in schema.items() if column.role} == {
        "image": "image", "mask": "image", "label": "label"
    }  # fmt: skip
    assert schema["label"].feature == "objects/label"
    assert schema["label"].label_names == ("cat", "dog")
    report = convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    assert report.records == 3


def test_a_second_label_keeps_its_names_in_words(tmp_path):
    features = nested(image=IMAGE, label=LABEL, id=TEXT, colour=LABEL)
    build(tmp_path / "in", features, make=lambda number: record(number) | {"colour": [0]})
    (tmp_path / "in" / "colour.labels.txt").write_text("red\nblue\n")
    schema = schema_of(tmp_path / "in")
    assert (schema["label"].role, schema["colour"].role) == ("label", None)
    assert schema["colour"].meaning == "label: 0 red, 1 blue"


def test_the_supervised_label_is_the_label(tmp_path):
    features = nested(image=IMAGE, fine=LABEL, coarse=LABEL)
    keys = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "fine"}]}}
    build(
        tmp_path / "in", features, make=lambda number: {"image": picture(number), "fine": [0], "coarse": [1]},
        supervisedKeys=keys,
    )  # fmt: skip
    schema = schema_of(tmp_path / "in")
    assert (schema["label"].feature, schema["coarse"].role) == ("fine", None)


def test_features_as_older_versions_wrote_them(tmp_path):
    def old(kind, content):
        return {"type": f"tensorflow_datasets.core.features.{kind}", "content": content}

    features = old(
        "features_dict.FeaturesDict",
        {
            "image": old(
                "image_feature.Image", {"shape": [None, None, 3], "dtype": "uint8", "encoding_format": "png"}
            ),
            "label": old("class_label_feature.ClassLabel", {"num_classes": 2}),
            "id": old("text_feature.Text", {}),
        },
    )
    build(tmp_path / "in", features)
    schema = schema_of(tmp_path / "in")
    assert {name: type_name(column.type) for name, column in schema.items()} == {
        "image": "binary", "label": "int64", "id": "string"
    }  # fmt: skip
    assert schema["label"].label_names == ("cat", "dog")


def test_a_feature_of_an_unknown_kind_has_all_columns_inferred(tmp_path):
    build(tmp_path / "in", nested(image=IMAGE, label=LABEL, id=leaf("Hologram", hologram={})))
    source = open_tfrecords(tmp_path / "in")
    assert [config.name for config in source.inferred] == ["default"]
    assert source.splits[0].split.published.shard_lengths == (3, 2)
    assert {column.name for column in source.splits[0].split.schema} == {"image", "label", "id"}


def test_configs_and_versions(tmp_path):
    for config in ("small", "large"):
        build(tmp_path / "in" / config / "1.0.0", configName=config)
    source = open_tfrecords(tmp_path / "in")
    assert [there.split.title for there in source.splits] == [
        "large/train",
        "large/test",
        "small/train",
        "small/test",
    ]
    assert source.splits[0].files[0].name == "large/1.0.0/pets-train.tfrecord-00000-of-00002"
    assert open_tfrecords(tmp_path / "in" / "small").splits[0].split.config == "small"
    build(tmp_path / "in" / "small" / "1.1.0", configName="small")
    with pytest.raises(CallError, match="several versions"):
        open_tfrecords(tmp_path / "in")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": "x", "splits": [{"shardLengths": ["a"]}]}', '{"splits": 1}']
)
def test_files_that_are_not_tensorflow_datasets(tmp_path, text):
    build(tmp_path / "in")
    (tmp_path / "in" / "dataset_info.json").write_text(text)
    with pytest.raises(CallError, match=r"dataset_info\.json"):
        open_tfrecords(tmp_path / "in")


def test_only_one_of_the_two_files_says_nothing(tmp_path):
    build(tmp_path / "in")
    (tmp_path / "in" / "features.json").unlink()
    assert open_tfrecords(tmp_path / "in").inferred


def test_another_file_format_is_told(tmp_path):
    build(tmp_path / "in", fileFormat="array_record")
    with pytest.raises(CallError, match="stored this as array_record"):
        open_tfrecords(tmp_path / "in")
