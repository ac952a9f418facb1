"""TFRecords that nothing describes: which columns, roles and names are inferred from all their records."""

import io
import json
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.examples import encode_features, field, framed, to_varint, write_frames
from PIL import Image

from converters import convert, verify
from converters.dataset.schema import type_name
from converters.errors import CallError, ConverterError, DataError
from converters.formats.tfrecord.source import open_tfrecords


def picture(seed=0, size=(9, 7), kind="JPEG", mode="RGB"):
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels, mode).save(stream, kind)
    return stream.getvalue()


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_frames(path, [encode_features(record) for record in records], index=False)


def infer(folder, records, **options):
    """The schema inferred of some records, by the columns' names, and the source."""
    write(folder / "data.tfrecord", records)
    source = open_tfrecords(folder, **options)
    return {column.name: column for column in source.splits[0].split.schema}, source


def types(schema):
    return {name: type_name(column.type) for name, column in schema.items()}


def rows(source, split=0):
    found = source.splits[split].split
    batches = [
        batch for shard in source.plan(10**9) if shard.split == found for batch in source.reading.read(shard)
    ]
    return pa.Table.from_batches(batches).to_pylist()


def detection(number, **more):
    boxes = number % 3
    labels = [(number + box) % 2 for box in range(boxes)]
    return {
        "image/encoded": picture(number, (8 + number, 6)),
        "image/width": [8 + number],
        "image/height": [6],
        "image/filename": b"scene%d.jpg" % number,
        "image/format": b"jpeg",
        "image/object/bbox/xmin": [0.25 * box for box in range(boxes)] or None,
        "image/object/class/label": [label + 1 for label in labels] or None,
        "image/object/class/text": [[b"cat", b"dog"][label] for label in labels] or None,
    } | more


def test_objects_in_images(tmp_path):
    schema, source = infer(tmp_path, [detection(number) for number in range(12)])
    assert [(column.name, column.feature, column.role) for column in schema.values()] == [
        ("image", "image/encoded", "image"),
        ("label", None, "label"),
        ("image/object/class/label", "image/object/class/label", "label"),
        ("image/height", "image/height", "height"),
        ("image/width", "image/width", "width"),
        ("image/filename", "image/filename", "file_name"),
        ("image/format", "image/format", None),
        ("image/object/bbox/xmin", "image/object/bbox/xmin", None),
        ("image/object/class/text", "image/object/class/text", None),
    ]
    label = schema["image/object/class/label"]
    assert (label.label_names, label.label_ids, label.nullable) == (("cat", "dog"), (1, 2), True)
    assert types(schema) == {
        "image": "binary", "label": "int64[]", "image/object/class/label": "int64[]", "image/height": "int64",
        "image/width": "int64", "image/filename": "string", "image/format": "string",
        "image/object/bbox/xmin": "float32[]", "image/object/class/text": "string[]",
    }  # fmt: skip
    values = rows(source)
    assert values[0]["image/object/class/label"] is None
    assert values[5]["image/object/class/label"] == [2, 1]
    assert values[5]["image/object/class/text"] == ["dog", "cat"]


def test_what_was_taken_for_what_is_told(tmp_path):
    _, source = infer(tmp_path, [detection(number) for number in range(12)])
    (inferred,) = source.inferred
    text = "\n".join(inferred.lines())
    assert "one-to-one" in text
    assert "12 jpeg; width 8–19, height 6, depth 3" in text
    assert "1 cat: 6, 2 dog: 6" in text
    entries = {entry["feature"]: entry for entry in json.loads(json.dumps(inferred.to_json()))["columns"]}
    assert entries["image/object/bbox/xmin"]["absent"] == {"train": 4}
    assert (entries["image/object/bbox/xmin"]["least"], entries["image/object/bbox/xmin"]["most"]) == (1, 2)


def test_it_converts_and_verifies(tmp_path):
    write(tmp_path / "in" / "train.record", [detection(number) for number in range(12)])
    write(tmp_path / "in" / "val.record", [detection(number) for number in range(3)])
    report = convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    assert [split.split.title for split in report.splits] == ["default/train", "default/val"]
    table = pq.read_table(tmp_path / "out" / "default" / "train-00000-of-00001.parquet", partitioning=None)
    assert table["label"].to_pylist()[5] == [1, 0]
    assert table["image/object/class/label"].to_pylist()[5] == [2, 1]
    assert verify(tmp_path / "out").failures() == []


def test_the_description_that_is_written_down_says_the_same(tmp_path):
    schema, source = infer(tmp_path, [detection(number) for number in range(12)])
    (tmp_path / "dataset.json").write_text(json.dumps(source.described()))
    again = open_tfrecords(tmp_path)
    assert again.inferred == ()
    assert list(again.splits[0].split.schema) == list(schema.values())
    assert rows(again) == rows(source)


# --- Shapes --------------------------------------------------------------------------------------------


def test_shapes(tmp_path):
    records = [
        {
            "one": [number],
            "four": [1, 2, 3, number],
            "some": [1] * number,
            "halves": [0.5, 1.5],
            "blob": bytes([255, number]),
            "text": "얼굴\tx\r\n".encode(),
            "texts": [b"a", b"b"],
            "now and then": None if number else b"x",
            "missing": None,
        }
        | ({} if number else {"absent": [0.5]})
        for number in range(3)
    ]
    schema, source = infer(tmp_path, records)
    assert types(schema) == {
        "absent": "float32", "blob": "binary", "four": "int64[4]", "halves": "float32[2]", "now and then": "string",
        "one": "int64", "some": "int64[]", "text": "string", "texts": "string[2]",
    }  # fmt: skip
    assert {name for name, column in schema.items() if column.nullable} == {"absent", "now and then"}
    assert any("missing: no record has a value" in warning for warning in source.warnings)
    assert rows(source)[2] == {
        "absent": None, "blob": b"\xff\x02", "four": [1, 2, 3, 2], "halves": [0.5, 1.5], "now and then": None,
        "one": 2, "some": [1, 1], "text": "얼굴\tx\r\n", "texts": ["a", "b"],
    }  # fmt: skip


def test_lists_that_are_always_empty_are_lists(tmp_path):
    schema, source = infer(tmp_path, [{"none": [], "some": [number]} for number in range(3)])
    assert types(schema) == {"none": "int64[]", "some": "int64"}
    assert rows(source)[0]["none"] == []


@pytest.mark.parametrize("value", [b"\xff", b"a\x00b", b"\x7f", "\x85".encode(), b"\x1b[31m", b"caf\xe9"])
def test_what_is_no_plain_text_is_binary(tmp_path, value):
    schema, source = infer(tmp_path, [{"a": b"text", "b": "é".encode()}, {"a": value, "b": b"text"}])
    assert types(schema) == {"a": "binary", "b": "string"}
    assert rows(source)[1]["a"] == value


def test_the_last_record_counts_like_the_first(tmp_path):
    records = [{"a": b"text", "b": [1], "c": [1]} for _ in range(5000)]
    schema, _ = infer(tmp_path, [*records, {"a": b"\xff", "b": [1, 2], "c": None}])
    assert types(schema) == {"a": "binary", "b": "int64[]", "c": "int64"}
    assert schema["c"].nullable


def test_a_column_that_a_split_lacks_is_null_there(tmp_path):
    """As in Kaggle's competitions, whose test split has no labels."""
    write(tmp_path / "train.tfrec", [{"image": picture(number), "class": [number]} for number in range(4)])
    write(tmp_path / "test.tfrec", [{"image": picture(number), "id": b"i%d" % number} for number in range(2)])
    source = open_tfrecords(tmp_path)
    train, test = (found.split.schema for found in source.splits)
    assert list(train) == list(test)
    assert {column.name: column.nullable for column in train} == {"image": False, "label": True, "id": True}
    assert [row["label"] for row in rows(source, 1)] == [None, None]
    (only_test,) = open_tfrecords(tmp_path, splits=["test"]).splits
    assert list(only_test.split.schema) == list(test)


def test_floats_keep_every_bit(tmp_path):
    bits = [0x7FC00001, 0xFF800000, 0x80000000, 0x00000001]
    value = field(2, field(1, struct.pack("<4I", *bits)))
    entry = field(1, field(1, b"f") + field(2, value))
    write_frames(tmp_path / "a.tfrecord", [field(1, entry)], index=False)
    source = open_tfrecords(tmp_path)
    (batch,) = (batch for shard in source.plan(10**9) for batch in source.reading.read(shard))
    assert np.frombuffer(batch.column(0).values.buffers()[1], np.uint32).tolist() == bits


def test_no_values_at_all_are_refused(tmp_path):
    with pytest.raises(DataError, match="no record of default has a value"):
        infer(tmp_path, [{"a": None}, {}])


# --- Two kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [0, 900])
def test_a_feature_of_two_kinds_is_refused_or_left_out(tmp_path, between):
    records = [{"a": [1], "b": [2]}, *[{"a": [1], "c": bytes(4000)}] * between, {"a": b"x", "b": [3]}]
    with pytest.raises(
        DataError,
        match=rf"record {between + 1}, .*'a' is of kind bytes_list here.*int64_list in .*record [0-9]+",
    ):
        infer(tmp_path, records)
    write(tmp_path / "data.tfrecord", records)
    source = open_tfrecords(tmp_path, without=("a",))
    (first, *_) = source.splits[0].split.schema
    assert (first.name, first.nullable) == ("b", between > 0)
    assert source.inferred[0].records == {"train": between + 2}
    assert rows(source)[-1]["b"] == 3
    report = convert(tmp_path, to="parquet", out=tmp_path.parent / f"out{between}", without=["a"])
    assert report.failures() == []
    assert verify(tmp_path.parent / f"out{between}").failures() == []


# --- Roles ---------------------------------------------------------------------------------------------


def test_images_of_any_encoding(tmp_path):
    kinds = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
    schema, source = infer(tmp_path, [{"pixels": picture(1, kind=kind)} for kind in kinds])
    assert schema["image"].role == "image"
    assert schema["image"].feature == "pixels"
    images = source.inferred[0].columns[0].images
    assert all(f"1 {kind.lower()}" in images for kind in kinds)


def test_which_image_is_the_image(tmp_path):
    record = {"a_mask": picture(1, kind="PNG"), "image/encoded": picture(2), "image_raw": picture(3)}
    schema, _ = infer(tmp_path, [record])
    assert [(name, column.feature) for name, column in schema.items()] == [
        ("image", "image/encoded"), ("a_mask", "a_mask"), ("image_raw", "image_raw")
    ]  # fmt: skip
    assert {column.role for column in schema.values()} == {"image"}


def test_nothing_is_renamed_onto_a_name_that_a_feature_has(tmp_path):
    schema, _ = infer(
        tmp_path, [{"image/encoded": picture(), "image": [1], "image/class/label": [3], "label": b"x"}]
    )
    assert [(name, column.role) for name, column in schema.items()] == [
        ("image/encoded", "image"), ("image/class/label", "label"), ("image", None), ("label", None)
    ]  # fmt: skip


def test_a_role_that_all_but_a_few_values_bear_out_is_none(tmp_path):
    records = [
        {"image": picture(number), "height": [7], "width": [9], "depth": [3 if number != 4 else 1]}
        for number in range(20)
    ]
    records[7]["image"] = b"BM is how a name may begin"
    schema, source = infer(tmp_path, records)
    assert all(column.role is None for column in schema.values())
    lines = "\n".join(source.inferred[0].lines())
    assert "nearly every value is an encoded image: 1 of 20 do not, first" in lines
    assert "record 7" in lines
    described = source.described()["configs"]["default"]["columns"]
    assert described["image"]["role"] == "image"
    (tmp_path / "dataset.json").write_text(json.dumps(source.described()))
    with pytest.raises(DataError, match="record 7"):
        rows(open_tfrecords(tmp_path))


def test_a_size_that_is_wrong_once_is_no_size(tmp_path):
    records = [
        {"image": picture(number), "height": [7], "width": [9], "depth": [3 if number != 4 else 1]}
        for number in range(20)
    ]
    schema, source = infer(tmp_path, records)
    assert {name: column.role for name, column in schema.items()} == {
        "image": "image", "height": "height", "width": "width", "depth": None
    }  # fmt: skip
    assert "record 4" in "\n".join(source.inferred[0].lines())
    assert source.described()["configs"]["default"]["columns"]["depth"]["role"] == "depth"


def test_a_constant_is_no_depth_of_grey_pictures(tmp_path):
    schema, _ = infer(tmp_path, [{"image": picture(mode="L"), "image/channels": [3], "image/height": [7]}])
    assert schema["image/channels"].role is None
    assert schema["image/height"].role == "height"


@pytest.mark.parametrize(
    ("names", "role"),
    [
        (["a.jpg", "b.jpg"], "file_name"),
        (["a.jpg", "A.png"], None),
        (["a.jpg", "a.jpg"], None),
        (["test_1.jpg", "b.jpg"], None),
        (["contest1.jpg", "b.jpg"], "file_name"),
        (["../a.jpg", "b.jpg"], None),
        (["con.jpg", "b.jpg"], None),
        (["얼굴.jpg", "b.jpg"], "file_name"),
        (["x/a.jpg", "b.jpg"], None),
    ],
)
def test_file_names_are_unique_safe_and_free_of_split_words(tmp_path, names, role):
    schema, _ = infer(
        tmp_path, [{"image": picture(number), "filename": name.encode()} for number, name in enumerate(names)]
    )
    assert schema["filename"].role == role


def test_names_need_be_unique_in_each_split_only(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.record", [{"image": picture(), "id": [number]} for number in range(3)])
    source = open_tfrecords(tmp_path)
    assert source.splits[0].split.schema["id"].role == "file_name"


def test_text_that_names_nothing_is_no_file_name(tmp_path):
    schema, _ = infer(
        tmp_path, [{"image": picture(), "caption": b"a"}, {"image": picture(), "caption": b"b"}]
    )
    assert schema["caption"].role is None


# --- Labels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "label"),
    [
        ({"image/class/label": [2]}, "image/class/label"),
        ({"image/object/class/label": [2, 3]}, "image/object/class/label"),
        ({"objects/label": [2, 3]}, "objects/label"),
        ({"label": [2]}, "label"),
        ({"class": [2]}, "class"),
        ({"label": [2], "class": [2]}, None),
        ({"label": [2], "class": b"cat"}, "label"),
        ({"target": [2]}, None),
        ({"label": [-1]}, "label"),
        ({"label": [-2]}, None),
        ({"label": [2**40]}, None),
        ({"label": [0.5]}, None),
        ({"label": b"cat"}, None),
    ],
)
def test_labels_are_known_by_convention(tmp_path, features, label):
    schema, _ = infer(tmp_path, [{"image": picture()} | features])
    found = next((column for column in schema.values() if column.role == "label"), None)
    assert (found and found.feature) == label
    assert found is None or (found.name, found.label_names) == ("label", ())


def slim(number, labels=3, first=0):
    return {"image/encoded": picture(number), "image/class/label": [number % labels + first]}


@pytest.mark.parametrize(
    ("text", "first", "names", "ids"),
    [
        ("0:daisy\n1:rose\n2:tulip\n", 0, ("daisy", "rose", "tulip"), ()),
        ("1:daisy\n2:rose\n3:tulip\n", 1, ("daisy", "rose", "tulip"), (1, 2, 3)),
        ("daisy\nrose\ntulip\n", 0, ("daisy", "rose", "tulip"), ()),
        ("daisy\nrose\ntulip\n", 1, ("daisy", "rose", "tulip"), (1, 2, 3)),
        ("daisy\nrose\ntulip\nviolet\n", 0, ("daisy", "rose", "tulip", "violet"), ()),
        ("daisy\nrose\ntulip\nviolet\n", 1, (), ()),
        ("daisy\nrose\n", 0, (), ()),
        ("daisy\nrose\nrose\n", 0, (), ()),
        ("daisy\nrose\nfile_name\n", 0, (), ()),
        ("", 0, (), ()),
    ],
)
def test_names_from_labels_txt(tmp_path, text, first, names, ids):
    (tmp_path / "labels.txt").write_text(text)
    schema, source = infer(tmp_path, [slim(number, first=first) for number in range(6)])
    column = next(column for column in schema.values() if column.feature == "image/class/label")
    assert (column.label_names, column.label_ids) == (names, ids)
    assert column.name == ("image/class/label" if ids else "label")
    assert ("label" in schema) == ("label" in types(schema))
    if text and not names:
        assert any("labels.txt" in warning for warning in source.warnings)
    if ids:
        assert schema["label"].derived


def test_a_label_called_label_that_counts_from_one_gets_another_name(tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\n")
    schema, source = infer(
        tmp_path, [{"label": [number % 2 + 1], "image": picture(number)} for number in range(4)]
    )
    assert schema["label"].derived
    assert (schema["label_id"].feature, schema["label_id"].label_ids) == ("label", (1, 2))
    assert [row["label_id"] for row in rows(source)] == [1, 2, 1, 2]


PBTXT = """
# made by a tool
item {
  id: 1
  name: '/m/01'
  display_name: "cat"
}
item { name: "/m/02" id: 2 display_name: 'the \\'dog\\'' }
"""


def test_names_from_a_label_map(tmp_path):
    (tmp_path / "train").mkdir()
    for folder in (tmp_path, tmp_path / "train"):
        (folder / "pets_label_map.pbtxt").write_text(PBTXT)
    schema, source = infer(tmp_path, [detection(number) for number in range(6)])
    column = schema["image/object/class/label"]
    assert (column.label_names, column.label_ids) == (("cat", "the 'dog'"), (1, 2))
    assert any("has other names" in warning for warning in source.warnings)


def test_label_maps_that_differ_are_not_used(tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    (tmp_path / "label_map.pbtxt").write_text("item { id: 1 name: 'x' } item { id: 2 name: 'y' }")
    schema, source = infer(tmp_path, [slim(number) for number in range(6)])
    assert schema["label"].label_names == ()
    assert any("differently" in warning for warning in source.warnings)


def test_texts_that_are_not_one_to_one_name_nothing(tmp_path):
    records = [detection(number) for number in range(6)]
    records[-1]["image/object/class/text"] = [b"cat", b"cat"]
    schema, _ = infer(tmp_path, records)
    assert schema["label"].feature == "image/object/class/label"
    assert schema["label"].label_names == ()


def test_a_text_that_cannot_name_a_label_names_none(tmp_path):
    texts = [b"clip_id", b"cat"]
    schema, _ = infer(tmp_path, [slim(n, 2) | {"image/class/text": texts[n % 2]} for n in range(4)])
    assert schema["label"].label_names == ()


def test_a_text_of_what_has_no_label_names_no_label(tmp_path):
    texts = [b"none", b"cat", b"dog"]
    schema, source = infer(tmp_path, [slim(n, 3, -1) | {"image/class/text": texts[n % 3]} for n in range(6)])
    assert (schema["label"].label_names, schema["label"].label_ids) == (("cat", "dog"), ())
    assert [row["label"] for row in rows(source)] == [-1, 0, 1, -1, 0, 1]


def test_labels_that_are_no_integers_are_told_as_such(tmp_path):
    _, source = infer(tmp_path, [{"image": picture(), "label": [0.5]}])
    [why] = [column.why for column in source.inferred[0].columns if column.feature == "label"]
    assert why == "called as labels are, but its values are no integers"


def test_vectors_of_named_labels(tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    vectors = [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    schema, source = infer(tmp_path, [{"label": vector, "image": picture()} for vector in vectors])
    column = schema["label_vector"]
    assert (column.kind, column.unlabelled, column.label_names) == ("multi-label", True, ("a", "b", "c"))
    assert schema["label"].derived
    assert [row["label_vector"] for row in rows(source)] == vectors


# --- What cannot be ------------------------------------------------------------------------------------


def test_a_long_name_names_a_column(tmp_path):
    assert list(infer(tmp_path, [{"x" * 1000: [1]}])[0]) == ["x" * 1000]


@pytest.mark.parametrize("name", ["", "a\nb"])
def test_a_feature_that_cannot_name_a_column(tmp_path, name):
    with pytest.raises(DataError, match="no column can be called so"):
        infer(tmp_path, [{name: [1]}])
    write(tmp_path / "in" / "data.tfrecord", [{name: [1], "b": [2]}])
    convert(tmp_path / "in", to="parquet", out=tmp_path / "out", without=[name])
    assert not verify(tmp_path / "out", source=tmp_path / "in").failures()
    assert pq.read_table(next((tmp_path / "out").rglob("*.parquet"))).column_names == ["b"]


def test_a_feature_without_a_name_can_be_described(tmp_path):
    write(tmp_path / "in" / "data.tfrecord", [{"": [1]}])
    columns = {"nameless": {"type": "int64", "feature": ""}}
    document = {"configs": {"c": {"columns": columns, "splits": {"train": {"file": "data.tfrecord"}}}}}
    (tmp_path / "in" / "dataset.json").write_text(json.dumps(document))
    convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    assert pq.read_table(next((tmp_path / "out").rglob("*.parquet"))).to_pylist() == [{"nameless": 1}]


def test_sequence_examples_are_named(tmp_path):
    context = encode_features({"id": [1]})
    lists = field(2, field(1, field(1, b"frames") + field(2, field(1, field(1, field(1, b"x"))))))
    for data in (context + lists, lists):
        (tmp_path / "a.tfrecord").write_bytes(framed(data))
        for on_error in ("fail", "quarantine"):
            with pytest.raises(DataError, match="SequenceExample") as caught:
                open_tfrecords(tmp_path, on_error=on_error)
            assert "damaged" not in str(caught.value)
        document = {
            "columns": {"id": "int64"},
            "configs": {"c": {"splits": {"train": {"file": "a.tfrecord"}}}},
        }
        (tmp_path / "dataset.json").write_text(json.dumps(document))
        with pytest.raises(DataError, match="SequenceExample"):
            rows(open_tfrecords(tmp_path))
        (tmp_path / "dataset.json").unlink()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (field(3, b"chr1") + to_varint(4 << 3) + to_varint(1000), "another type"),
        (b'{"a": 1}', "JSON"),
        (picture(), "jpeg image"),
        (encode_features({"a" * 1001: [1]}), "name is longer"),
        (field(1, field(1, field(1, b"a") + field(2, b"")) * 2), "stands twice"),
        (
            field(1, field(1, field(1, b"a") + field(3, b"x"))),
            "expected a feature's name or value, found field 3",
        ),
        (encode_features({"a": [1]}) + field(3, b"x"), "expected the Example's features, found field 3"),
        (encode_features({"a": [1]}) + field(2, b"x"), "expected the Example's features, found field 2"),
        (field(1, b"") + field(3, b"x"), "another type"),
        (encode_features({"a": [1]})[:-1], "a field claims 12 bytes, 11 are left"),
    ],
)
def test_other_records_are_named(tmp_path, data, words):
    (tmp_path / "a.tfrecord").write_bytes(framed(data))
    with pytest.raises(DataError, match=words) as caught:
        open_tfrecords(tmp_path)
    assert "damaged" not in str(caught.value)


def test_damage_is_an_error_or_passed_over(tmp_path):
    records = [framed(encode_features({"a": b"text", "b": [number]})) for number in range(6)]
    broken = bytearray(records[3])
    broken[-6] ^= 1
    path = tmp_path / "in" / "a.tfrecord"
    path.parent.mkdir()
    path.write_bytes(b"".join([*records[:3], broken, *records[4:]]))
    with pytest.raises(DataError, match="record 3"):
        open_tfrecords(tmp_path / "in")
    report = convert(tmp_path / "in", to="parquet", out=tmp_path / "out", on_error="quarantine")
    assert report.quarantined == 1
    table = pq.read_table(tmp_path / "out" / "default" / "train-00000-of-00001.parquet", partitioning=None)
    assert table["b"].to_pylist() == [0, 1, 2, 4, 5]


def test_a_file_that_changes_while_it_is_read(tmp_path):
    path = tmp_path / "a.tfrecord"
    write(path, [{"a": [1]}])

    def progress(step, records):
        path.write_bytes(path.read_bytes() * 2)

    with pytest.raises(DataError, match="changed"):
        open_tfrecords(tmp_path, progress=progress)


def test_records_that_fit_no_longer_do_not_fit(tmp_path):
    """A description that is too narrow is told as that, and not as damage."""
    write(tmp_path / "a.tfrecord", [{"a": [1]}, {"a": [1, 2]}])
    (tmp_path / "dataset.json").write_text(
        json.dumps(
            {"columns": {"a": "int64"}, "configs": {"c": {"splits": {"train": {"file": "a.tfrecord"}}}}}
        )
    )
    with pytest.raises(DataError, match="does not fit the description") as caught:
        rows(open_tfrecords(tmp_path))
    assert "damaged" not in str(caught.value)


def test_a_description_without_columns_has_them_inferred(tmp_path):
    write(tmp_path / "in" / "a.tfrecord", [{"a": [1]}, {"a": [1, 2]}])
    document = {"name": "mine", "configs": {"c": {"splits": {"train": {"file": "a*", "records": 2}}}}}
    (tmp_path / "in" / "dataset.json").write_text(json.dumps(document))
    report = convert(tmp_path / "in", to="parquet", out=tmp_path / "out")
    assert report.description.name == "mine"
    assert report.description.document["configs"]["c"]["columns"] == {"a": {"type": "int64[]"}}
    assert {check.name: check.result for check in report.splits[0].checks}["records"] == "passed"
    document["configs"]["c"]["splits"]["train"]["records"] = 3
    (tmp_path / "in" / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(ConverterError, match="2 found, 3 published"):
        convert(tmp_path / "in", to="parquet", out=tmp_path / "again")


def test_a_column_that_is_not_there_cannot_be_left_out(tmp_path):
    with pytest.raises(CallError, match="--without b: there is no such column"):
        infer(tmp_path, [{"a": [1]}], without=("b",))


def test_names_with_line_breaks_and_long_texts_are_only_text(tmp_path):
    records = [{"image": picture(), "name": b"a\nb", "x/label": [1], "x/text": b"t" * 2000}] * 2
    schema, source = infer(tmp_path, records)
    assert types(schema) == {"image": "binary", "name": "string", "x/label": "int64", "x/text": "string"}
    assert schema["name"].role is None
    assert rows(source)[1]["name"] == "a\nb"
