"""``inspect``: the table of columns, of any source and of outputs, and the description that it writes."""

import json

import pytest
from helpers.examples import encode_features, write_frames

from converters import convert, inspect
from converters.verify.columns import JOINED


@pytest.fixture
def boxes(tmp_path, sample_image):
    """Records like none of KFER's, with nothing that describes them: boxes of any number, a note now and then."""
    folder = tmp_path / "boxes"
    folder.mkdir()
    frames = [
        encode_features(
            {"picture": sample_image, "box": [float(number)] * number}
            | ({"note": b"seen"} if number % 2 else {})
        )
        for number in range(1, 5)
    ]
    write_frames(folder / "train.tfrecord", frames, index=False)
    return folder


@pytest.fixture
def sample_image(sample):
    from conftest import read_records, tfrecords

    return read_records(tfrecords(sample, "22_emo", "train"))[0].image


def columns(inspection):
    return {
        entry["feature"]: (entry["kind"], entry["least"], entry["most"], entry["absent"])
        for entry in inspection.to_json()["columns"][0]["columns"]
    }


def test_the_table_is_the_same_of_a_source_and_of_its_outputs(boxes, tmp_path):
    expected = {
        "picture": ("bytes_list", 1, 1, {}),
        "box": ("float_list", 1, 4, {}),
        "note": ("bytes_list", 1, 1, {"train": 2}),
    }
    assert columns(inspect(boxes)) == expected
    for to in ("parquet", "tfrecord"):
        convert(boxes, to=to, out=tmp_path / to)
        assert columns(inspect(tmp_path / to)) == expected


def test_people_see_what_was_taken_for_what(kfer_convert, boxes, tmp_path):
    for done in (
        kfer_convert("inspect", boxes),
        kfer_convert(boxes, "--to", "parquet", "--out", tmp_path / "p"),
    ):
        assert done.status == 0
        lines = [line.split() for line in done.out.splitlines()]
        assert ["box", "float_list", "box", "float32[]", "1–4", "1"] in lines
        assert any(line[:4] == ["picture", "bytes_list", "image", "binary"] for line in lines)
        assert any(line[:2] == ["picture:", "4"] for line in lines)


def test_joined_columns_are_shown(sample, tmp_path):
    convert(sample, to="parquet", out=tmp_path / "named", configs=["22_emo"], labels=sample / "labels")
    assert columns(inspect(tmp_path / "named"))[JOINED] == ("bytes_list", 1, 1, {})


@pytest.mark.parametrize("described", ["boxes", "sample"])
def test_what_describe_writes_describes_the_source(kfer_convert, request, described, tmp_path):
    source = request.getfixturevalue(described)
    there = tmp_path / "described"
    there.mkdir()
    assert kfer_convert("inspect", source, "--describe", there / "dataset.json").status == 0
    for path in source.glob("*.tfrecord*"):
        (there / path.name).symlink_to(path)
    first = convert(source, to="parquet", out=tmp_path / "first")
    again = convert(there, to="parquet", out=tmp_path / "again")
    assert again.inferred == ()
    assert [split.fingerprint for split in again.splits] == [split.fingerprint for split in first.splits]
    assert [split.split.schema for split in again.splits] == [split.split.schema for split in first.splits]


def test_describe_overwrites_nothing(kfer_convert, sample, tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text("mine")
    done = kfer_convert("inspect", sample, "--describe", path)
    assert (done.status, path.read_text()) == (2, "mine")
    assert kfer_convert("inspect", sample, "--describe", tmp_path / "no" / "dataset.json").status == 2


def test_json_says_the_same(kfer_convert, boxes):
    document = json.loads(kfer_convert("inspect", boxes, "--json").out)
    assert document["columns"][0]["columns"][0]["role"] == "image"


def test_what_is_passed_over_is_listed(kfer_convert, boxes):
    assert json.loads(kfer_convert("inspect", boxes, "--json").out)["warnings"] == []
    (boxes / "label_map.pbtxt").write_text("item { id: 1 name: 'a' } item { id: 1 name: 'b' }")
    (boxes / ".git").mkdir()
    words = "passed over, as no part of the dataset: label_map.pbtxt, .git/"
    assert json.loads(kfer_convert("inspect", boxes, "--json").out)["warnings"] == [words]
    assert f"\nWarning: {words}.\n" in kfer_convert("inspect", boxes).out
