"""The chapter ``description``: ten lines of JSON for a dataset like none of KFER's, and tables that are true."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import read_records, tfrecords
from helpers.examples import encode_features, write_frames

from converters import CallError, DataError, convert, load_description
from converters.dataset.description import _ColumnForm, _ConfigForm, _Form, _SplitForm
from converters.dataset.schema import BASE_TYPES

CHAPTER = (Path(__file__).parents[2] / "converters" / "docs" / "description.md").read_text("utf-8")
(DOCUMENT,) = re.findall(r"dataset\.json <<'END'\n(.*?)^END$", CHAPTER, re.MULTILINE | re.DOTALL)
RECORDS = (
    {"code": [10], "mm": [0.5, 1.25], "at": b"Seoul", "wind": [0.5, -1.0]},
    {"code": [30], "mm": [0.25], "at": b"Seoul"},
    {"code": [20], "mm": [1.0, 2.0, 4.0], "at": b"Seoul", "wind": [0.5, -1.0]},
)


@pytest.fixture
def picture(sample):
    return read_records(tfrecords(sample, "22_emo", "train"))[0].image


@pytest.fixture
def radar(tmp_path, picture):
    folder = tmp_path / "radar"
    folder.mkdir()
    (folder / "dataset.json").write_text(DOCUMENT)
    frames = [encode_features({"scan": picture} | record) for record in RECORDS]
    for year in (2023, 2024):
        write_frames(folder / f"{year}-seoul.rec", frames, index=False)
    return folder


def test_ten_lines_describe_a_dataset_like_none_of_kfers(radar, tmp_path):
    assert len(DOCUMENT.splitlines()) <= 10
    report = convert(radar, to="parquet", out=tmp_path / "out")
    assert report.failures() == []
    rows = pq.read_table(tmp_path / "out" / "seoul" / "train-00000-of-00001.parquet").to_pylist()
    assert [(row["weather"], row["label"]) for row in rows] == [(10, 0), (30, 2), (20, 1)]
    assert [row["mm"] for row in rows] == [record["mm"] for record in RECORDS]
    assert [row["wind"] for row in rows] == [[0.5, -1.0], None, [0.5, -1.0]]
    assert {row["at"] for row in rows} == {"Seoul"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": [11]}, "weather"),
        ({"scan": b"no image"}, "image"),
        (
            {"wind": [1.0]},
            "the record does not fit the description: the feature 'wind' has 1 values, expected 2",
        ),
        ({"at": [5]}, "the record does not fit the description: the feature 'at' is of kind int64_list"),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_so(radar, picture, tmp_path, change, words):
    record = {"scan": picture} | RECORDS[0] | change
    write_frames(radar / "2024-seoul.rec", [encode_features(record)], index=False)
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        convert(radar, to="parquet", out=tmp_path / "out")
    assert "record 0" in str(caught.value)


def test_the_tables_have_every_key_and_type():
    tables = "".join(line for line in CHAPTER.splitlines() if line.startswith("|"))
    for form in (_Form, _ConfigForm, _ColumnForm, _SplitForm):
        for key in form.__dataclass_fields__:
            assert f"`{key}`" in tables, key
    for name in BASE_TYPES:
        assert f"`{name}`" in tables, name


def test_an_unknown_key_is_an_error(radar):
    document = json.loads(DOCUMENT)
    document["configs"]["seoul"]["columns"]["wind"]["optional"] = True
    (radar / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(CallError, match="optional"):
        load_description(radar)
