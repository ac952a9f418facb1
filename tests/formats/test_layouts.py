"""The outputs tfrecord, webdataset, arrow, arrayrecord and lance, read by programs that are not ours; and back."""

import io
import json
import os
import re
import shutil
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from conftest import digests
from helpers.examples import fields, read_frames, write_frames
from helpers.unlike_kfer import SPLITS, encode, make, picture
from PIL import Image

from converters import convert, verify
from converters.dataset.description import load_description, with_columns
from converters.errors import CallError, DataError
from converters.formats import load_format
from converters.formats.table import yaml_features
from converters.formats.webdataset import format as webdataset
from converters.formats.webdataset.tar import header

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported
datasets = pytest.importorskip("datasets", reason="the extra hf brings it")

LAYOUTS = ("tfrecord", "webdataset", "arrow", "arrayrecord", "lance")
NEEDS = {"arrayrecord": "array_record", "lance": "lance"}
WITHOUT = {"webdataset": ["masks"], "lance": ["a.b", "image.bytes"]}


@pytest.fixture(scope="module")
def unlike(tmp_path_factory):
    """A source that is not like KFER, and its records."""
    folder = tmp_path_factory.mktemp("unlike") / "source"
    return folder, make(folder)


@pytest.fixture(scope="module")
def outputs(unlike, tmp_path_factory):
    """Makes the output of a config of it in a layout, once."""
    made = {}
    root = tmp_path_factory.mktemp("outputs")

    def output(layout, config="detection", **options):
        if layout in NEEDS:
            pytest.importorskip(NEEDS[layout])
        key = f"{layout}-{config}-{len(options)}"
        if key not in made:
            made[key] = root / key
            without = WITHOUT.get(layout, []) if config == "detection" else []
            convert(unlike[0], to=layout, out=made[key], configs=[config], without=without, **options)
        return made[key]

    return output


@pytest.fixture(scope="module")
def kfer(sample, tmp_path_factory):
    """Makes the output of the sample in a layout, once."""
    made = {}
    root = tmp_path_factory.mktemp("kfer")

    def output(layout):
        if layout in NEEDS:
            pytest.importorskip(NEEDS[layout])
        if layout not in made:
            made[layout] = root / layout
            convert(sample, to=layout, out=made[layout])
        return made[layout]

    return output


def run_readme(folder, monkeypatch, tmp_path) -> list[dict]:
    """What the programs in an output's README define; they are run as they are printed."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    scopes = []
    for block in blocks:
        scopes.append({})
        exec(block, scopes[-1])
    return scopes


# --- tfrecord ------------------------------------------------------------------------------------------


def test_tensorflow_reads_the_tfrecords_as_the_readme_says(unlike, outputs, monkeypatch, tmp_path):
    [scope] = run_readme(outputs("tfrecord"), monkeypatch, tmp_path)
    rows = list(scope["dataset"].as_numpy_iterator())
    for row, expected in zip(rows, unlike[1]["detection", "train"], strict=True):
        assert row["picture"] == expected["picture"]
        assert row["order"] == expected["order"]
        assert row["maybe"].tolist() == [value for value in [expected["maybe"]] if value is not None]
        np.testing.assert_array_equal(
            row["image/object/bbox/xmin"], np.float32(expected["image/object/bbox/xmin"])
        )


def test_examples_are_what_tensorflow_serializes(outputs):
    tf = pytest.importorskip("tensorflow")
    for config in ("plain", "pairs", "detection"):
        for path in sorted((outputs("tfrecord", config) / config).iterdir()):
            for data in read_frames(path):
                serialized = tf.train.Example.FromString(data).SerializeToString(deterministic=True)
                # Python's protobuf puts a name behind longer ones that begin with it, such as maybe_text before maybe.
                if config == "detection":
                    ((_, serialized),), ((_, data),) = fields(serialized), fields(data)
                    entries = [(dict(fields(entry))[1], entry) for _, entry in fields(data)]
                    assert entries == sorted(
                        (dict(fields(entry))[1], entry) for _, entry in fields(serialized)
                    )
                else:
                    assert data == serialized


@pytest.mark.parametrize("layout", ["parquet", "hf", "jpeg", *LAYOUTS])
@pytest.mark.parametrize("labels", [False, True])
def test_tfrecords_come_back_byte_for_byte_from_any_layout(sample, kfer, layout, labels, tmp_path):
    if layout in NEEDS:
        pytest.importorskip(NEEDS[layout])
    names = {"labels": sample / "labels"} if labels else {}
    if labels:
        convert(sample, to="tfrecord", out=tmp_path / "first", **names)
    first = tmp_path / "first" if labels else kfer("tfrecord")
    convert(sample, to=layout, out=tmp_path / "other", **names)
    convert(tmp_path / "other", to="tfrecord", out=tmp_path / "back")
    files = {path for path in digests(first) if path.endswith(".tfrecord")}
    assert len(files) == 9
    assert {path: digests(first)[path] for path in files} == {
        path: digests(tmp_path / "back")[path] for path in files
    }


def test_the_files_convert_again_with_nothing_but_the_description(kfer, tmp_path):
    """As somebody who got them without the manifest has them."""
    source = tmp_path / "source"
    for path in ("dataset.json", *(path for path in digests(kfer("tfrecord")) if path.endswith(".tfrecord"))):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((kfer("tfrecord") / path).read_bytes())
    report = convert(source, to="tfrecord", out=tmp_path / "again")
    assert {check.result for split in report.splits for check in split.checks} <= {"passed", "unverified"}
    assert not report.failures()
    found, expected = digests(tmp_path / "again"), digests(kfer("tfrecord"))
    same = [path for path in expected if path.endswith((".tfrecord", ".json")) and path != "MANIFEST.json"]
    assert len(same) == 10
    assert {path: found[path] for path in same} == {path: expected[path] for path in same}


def test_a_lost_record_is_missed_by_the_description(kfer, tmp_path):
    source = tmp_path / "source"
    for path in ("dataset.json", *(path for path in digests(kfer("tfrecord")) if path.endswith(".tfrecord"))):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((kfer("tfrecord") / path).read_bytes())
    path = source / "22_emo" / "train-00000-of-00001.tfrecord"
    write_frames(path, read_frames(path)[1:], index=False)
    with pytest.raises(Exception, match="22_emo/train"):
        convert(source, to="parquet", out=tmp_path / "out")


def test_indexes_are_written_if_told_to(kfer, sample, tmp_path):
    convert(sample, to="tfrecord", out=tmp_path / "out", index=True, configs=["22_emo"])
    for path in sorted((tmp_path / "out" / "22_emo").glob("*.tfrecord")):
        lines = path.with_suffix(".idx").read_text().splitlines()
        offset = 0
        for line, data in zip(lines, read_frames(path), strict=True):
            assert line == f"{offset} {len(data) + 16}"
            offset += len(data) + 16
        assert path.read_bytes() == (kfer("tfrecord") / path.relative_to(tmp_path / "out")).read_bytes()
    assert not verify(tmp_path / "out").failures()
    assert not list(kfer("tfrecord").rglob("*.idx"))


def test_names_that_are_joined_are_features_of_their_own(sample, truth, tmp_path):
    tf = pytest.importorskip("tensorflow")
    convert(sample, to="tfrecord", out=tmp_path / "out", labels=sample / "labels", configs=["22_emo"])
    path = tmp_path / "out" / "22_emo" / "train-00000-of-00001.tfrecord"
    for data, record in zip(read_frames(path), truth["22_emo", "train"], strict=True):
        features = tf.train.Example.FromString(data).features.feature
        assert features["img_id"].bytes_list.value == [record.img_id.encode()]
        assert features["image_raw"].bytes_list.value == [record.image]
        assert "label_vector" not in features


# --- webdataset ----------------------------------------------------------------------------------------


def archive(folder, config="detection", split="train"):
    """The names and contents of the files of an archive, by Python's tarfile."""
    with tarfile.open(folder / config / f"{split}-000000.tar") as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


def test_webdataset_reads_the_archives_as_the_readme_says(kfer, truth, monkeypatch, tmp_path):
    pytest.importorskip("webdataset")
    first, second = run_readme(kfer("webdataset"), monkeypatch, tmp_path)
    records = truth["multi-label", "train"]
    rows = list(first["dataset"])
    assert len(rows) == len(records)
    for (image, values), record in zip(rows, records, strict=True):
        assert image.size == (record.width, record.height)
        assert values["label"] == record.indices
        assert tuple(values["label_vector"]) == record.label
    assert second["dataset"]["train"].num_rows == len(records)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("config", ["detection", "words", "tagged", "plain", "numbered"])
def test_datasets_loads_every_value_of_the_archives(unlike, outputs, tmp_path, config, streaming):
    options = {"streaming": True} if streaming else {}
    loaded = datasets.load_dataset(
        str(outputs("webdataset", config)), config, cache_dir=str(tmp_path), **options
    )
    assert list(loaded) == list(SPLITS)
    for split, rows in loaded.items():
        for name, feature in rows.features.items():
            if isinstance(feature, datasets.Image):
                rows = rows.cast_column(name, datasets.Image(decode=False))
        for row, expected in zip(rows, unlike[1][config, split], strict=True):
            values = {name: value for name, value in expected.items() if not isinstance(value, bytes)}
            for name, value in values.items():
                if name != "masks":
                    stored = np.float32(value).tolist() if isinstance(value, float) else value
                    assert approximately(row["json"][name], stored)
            for name, field in (("picture", "jpg"), ("image", None), ("raw", "raw.bin")):
                if name in expected:
                    suffix = {"plain": "png", "tagged": "png", "numbered": "jpg"}.get(config)
                    found = row[field or suffix]
                    assert (found["bytes"] if isinstance(found, dict) else found) == expected[name]


@pytest.mark.parametrize("bare", ["train", "val"])
def test_datasets_loads_archives_that_begin_without_values(tmp_path, bare):
    """By itself it takes types from five records of the last split, and then refuses what has others."""
    columns = {"image": {"role": "image"}, "raw": "binary", "n": "int64"}
    columns |= {"score": {"type": "float32", "nullable": True}, "boxes": "float32[]", "tags": "string[]"}
    columns["pair"] = {"type": "int64[2]", "nullable": True}
    columns["label"] = {"role": "label", "type": "int64", "nullable": True, "label_names": ["a", "b"]}
    nothing = {"score": None, "boxes": [], "tags": [], "pair": None, "label": None}
    something = {"score": 0.5, "boxes": [0.25, 1.0], "tags": ["x"], "pair": [1, 2], "label": 1}
    (tmp_path / "source").mkdir()
    rows = {}
    for split in ("train", "val"):
        first = 12 if split == bare else 6
        rows[split] = [
            {"image": picture("PNG", n), "raw": b"\xff", "n": n} | (nothing if n < first else something)
            for n in range(12)
        ]
        records = [encode(row, columns) for row in rows[split]]
        write_frames(tmp_path / "source" / f"{split}.tfrecord", records, index=False)
    splits = {split: {"file": f"{split}.tfrecord"} for split in rows}
    document = {"configs": {"one": {"columns": columns, "splits": splits}}}
    (tmp_path / "source" / "dataset.json").write_text(json.dumps(document))
    convert(tmp_path / "source", to="webdataset", out=tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), "one", cache_dir=str(tmp_path / "cache"))
    for split, expected in rows.items():
        assert loaded[split].features["json"]["label"].names == ["a", "b"]
        for found, row in zip(loaded[split], expected, strict=True):
            assert {"image": row["image"], "raw": found["raw.bin"]} | found["json"] == row
            assert found["png"].size == (9, 7)


@pytest.mark.parametrize(
    "change", [lambda stated: stated[:-1], lambda stated: [*stated[:-1], stated[-1] | {"dtype": "string"}]]
)
def test_features_that_are_not_those_of_the_columns_publish_nothing(tmp_path, monkeypatch, change):
    columns = {"n": "int64", "score": {"type": "float32", "nullable": True}}
    (tmp_path / "source").mkdir()
    write_frames(tmp_path / "source" / "a.tfrecord", [encode({"n": 1, "score": None}, columns)], index=False)
    document = {"configs": {"one": {"columns": columns, "splits": {"train": {"file": "a.tfrecord"}}}}}
    (tmp_path / "source" / "dataset.json").write_text(json.dumps(document))
    monkeypatch.setattr(webdataset, "yaml_features", lambda schema: change(yaml_features(schema)))
    with pytest.raises(DataError, match=r"README.md: the column.*score"):
        convert(tmp_path / "source", to="webdataset", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def approximately(found, expected) -> bool:
    """Equal, and floats as float32."""
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(approximately, found, expected))
    return np.float32(found) == np.float32(expected) if isinstance(expected, float) else found == expected


def test_floats_are_written_bit_for_bit(unlike, outputs):
    rows = [json.loads(data) for name, data in archive(outputs("webdataset")) if name.endswith(".json")]
    for row, expected in zip(rows, unlike[1]["detection", "train"], strict=True):
        found = np.array(row["image/object/bbox/xmin"])
        assert (found == np.float32(expected["image/object/bbox/xmin"]).astype(np.float64)).all()
        corners = row["maybe_corners"]
        assert corners is None or str(corners[1]) == "-0.0"


def test_headers_are_those_that_tarfile_writes(outputs):
    data = (outputs("webdataset") / "detection" / "train-000000.tar").read_bytes()
    again = io.BytesIO()
    with tarfile.open(fileobj=again, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in archive(outputs("webdataset")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert again.getvalue() == data


@pytest.mark.parametrize(
    ("name", "size"), [(b"a", 0), ("얼굴.jpg".encode(), 511), (b"n" * 100, (1 << 33) - 1)]
)
def test_a_header_is_the_one_of_tarfile(name, size):
    member = tarfile.TarInfo(name.decode())
    member.size = size
    assert header(name, size) == member.tobuf(tarfile.USTAR_FORMAT, "utf-8")


def test_keys_are_the_names_of_images(outputs, kfer, sample, truth, tmp_path):
    names = [name.partition(".")[0] for name, _ in archive(outputs("webdataset"))]
    assert names == [f"scene {number}" for number in range(SPLITS["train"]) for _ in range(3)]
    names = [name for name, _ in archive(kfer("webdataset"), "22_emo")]
    assert names[:4] == ["00000000.jpg", "00000000.json", "00000001.jpg", "00000001.json"]
    convert(sample, to="webdataset", out=tmp_path / "named", labels=sample / "labels", configs=["22_emo"])
    names = [name for name, _ in archive(tmp_path / "named", "22_emo")][::2]
    assert names == [record.img_id for record in truth["22_emo", "train"]]


def test_images_of_several_encodings_have_one_name(outputs):
    names = {name.partition(".")[2] for name, _ in archive(outputs("webdataset"))}
    assert names == {"jpg", "raw.bin", "json"}  # every second picture is a PNG
    text = (outputs("webdataset") / "README.md").read_text("utf-8")
    assert "The images of `picture` are .jpg, .png; all are called .jpg" in text


def mixed(folder, first: str, others: str):
    """A source whose first image has one encoding, and the others another."""
    from helpers.unlike_kfer import encode

    columns = {"image": {"role": "image"}, "n": "int64"}
    rows = [{"image": picture(others if number else first, number), "n": number} for number in range(8)]
    folder.mkdir()
    write_frames(folder / "a.tfrecord", [encode(row, columns) for row in rows], index=False)
    document = {"configs": {"one": {"columns": columns, "splits": {"train": {"file": "a.tfrecord"}}}}}
    (folder / "dataset.json").write_text(json.dumps(document))
    return rows


def test_the_name_of_a_mixed_shard_is_jpg_whatever_comes_first(tmp_path):
    rows = mixed(tmp_path / "source", "PNG", "WEBP")
    convert(tmp_path / "source", to="webdataset", out=tmp_path / "out")
    files = archive(tmp_path / "out", "one")
    assert {name.partition(".")[2] for name, _ in files} == {"jpg", "json"}
    assert [data for _, data in files[::2]] == [row["image"] for row in rows]


def test_shards_that_would_name_images_differently_are_refused(tmp_path):
    mixed(tmp_path / "source", "JPEG", "PNG")
    with pytest.raises(DataError, match=r"\.jpg and \.png.*--image-suffix"):
        convert(tmp_path / "source", to="webdataset", out=tmp_path / "out", max_shard_bytes=500)
    assert not (tmp_path / "out").exists()
    convert(
        tmp_path / "source", to="webdataset", out=tmp_path / "out", max_shard_bytes=500, image_suffix="jpg"
    )
    assert not verify(tmp_path / "out", source=tmp_path / "source").failures()
    assert {name.partition(".")[2] for name, _ in archive(tmp_path / "out", "one")} == {"jpg", "json"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_has_not_is_refused(tmp_path, value):
    from helpers.unlike_kfer import encode

    columns = {"image": {"role": "image"}, "x": "float32", "xs": "float32[]"}
    rows = [{"image": picture("PNG", n), "x": 1.0, "xs": [0.0] * n} for n in range(4)]
    rows[3]["xs"][1] = value
    (tmp_path / "source").mkdir()
    write_frames(tmp_path / "source" / "a.tfrecord", [encode(row, columns) for row in rows], index=False)
    document = {"configs": {"one": {"columns": columns, "splits": {"train": {"file": "a.tfrecord"}}}}}
    (tmp_path / "source" / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"record 3.*xs.*--without xs"):
        convert(tmp_path / "source", to="webdataset", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    convert(tmp_path / "source", to="webdataset", out=tmp_path / "out", without=["xs"])


# --- arrow, arrayrecord, lance -------------------------------------------------------------------------


def test_arrow_files_map_into_memory(unlike, outputs, tmp_path):
    path = outputs("arrow") / "detection" / "train-00000-of-00001.arrow"
    before = pa.total_allocated_bytes()
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
        assert pa.total_allocated_bytes() - before < path.stat().st_size / 4
        expected = unlike[1]["detection", "train"]
        assert [row["bytes"] for row in table["picture"].to_pylist()] == [row["picture"] for row in expected]
    rows = datasets.load_dataset("arrow", data_files=str(path), cache_dir=str(tmp_path), split="train")
    assert rows.features["classes"].feature.names == ["car", "cat", "no"]
    assert isinstance(rows[0]["picture"], Image.Image)
    assert rows["texts"] == [row["texts"] for row in expected]


def test_grain_reads_the_array_records_as_the_readme_says(kfer, truth, monkeypatch, tmp_path):
    pytest.importorskip("grain")
    [scope] = run_readme(kfer("arrayrecord"), monkeypatch, tmp_path)
    records = truth["multi-label", "train"]
    assert len(scope["dataset"]) == len(records)
    for number in (0, len(records) - 1, 3):
        example = scope["dataset"][number]
        assert example["image_raw"].bytes_list.value == [records[number].image]
        assert tuple(example["label"].int64_list.value) == records[number].label


def test_array_records_are_the_examples_of_the_tfrecords(unlike, outputs):
    module = pytest.importorskip("array_record.python.array_record_module")
    for path in sorted((outputs("arrayrecord") / "detection").iterdir()):
        reader = module.ArrayRecordReader(str(path))
        other = outputs("tfrecord") / "detection" / f"{path.stem}.tfrecord"
        assert reader.read_all() == read_frames(other)
        assert "group_size:1," in reader.writer_options_string()


def test_pylance_and_datasets_read_the_lance_files(unlike, outputs, tmp_path):
    lance = pytest.importorskip("lance.file")
    path = outputs("lance") / "detection" / "train-00000-of-00001.lance"
    table = lance.LanceFileReader(str(path)).read_all().to_table()
    expected = unlike[1]["detection", "train"]
    assert [row["bytes"] for row in table["picture"].to_pylist()] == [row["picture"] for row in expected]
    if tuple(map(int, datasets.__version__.split(".")[:2])) < (5, 2):
        pytest.skip("datasets reads single Lance files from 5.2 on")
    loaded = datasets.load_dataset(str(outputs("lance")), "detection", cache_dir=str(tmp_path))
    assert {split: rows.num_rows for split, rows in loaded.items()} == SPLITS
    rows = loaded["train"]
    assert rows.features["classes"].feature.names == ["car", "cat", "no"]
    assert isinstance(rows[0]["picture"], Image.Image)
    for name in expected[0]:
        if name not in ("picture", *WITHOUT["lance"]):
            assert all(map(approximately, rows[name], [row[name] for row in expected])), name


def test_a_lance_file_that_was_changed_is_not_opened(unlike, outputs, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(outputs("lance"), out)
    path = out / "detection" / "train-00000-of-00001.lance"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert any("train-00000-of-00001.lance: its SHA-256" in problem for problem in verify(out).failures())
    split = load_description(unlike[0]).config("detection").splits[0]
    with pytest.raises(DataError, match="digest is beside it"):
        list(load_format("lance").read(out, with_columns(split, WITHOUT["lance"], identified=False)))


@pytest.mark.parametrize("name", ["arrayrecord", "lance"])
def test_a_library_that_is_missing_is_named(name, monkeypatch, sample, tmp_path):
    array_record = ("array_record", "array_record.python", "array_record.python.array_record_module")
    for module in (*array_record, "lance", "lance.file"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CallError, match=rf"pip install 'kfer-convert\[{name}\]'"):
        convert(sample, to=name, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- A split without records ------------------------------------------------------------------------------

COLUMNS = {"image": {"role": "image"}, "label": {"role": "label", "label_names": ["cat", "dog"]}}


@pytest.mark.parametrize("layout", ["parquet", "hf", "jpeg", "arrow", "webdataset"])
def test_datasets_loads_a_config_of_which_a_split_has_no_records(layout, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    records = [encode({"image": picture("PNG", number), "label": number % 2}, COLUMNS) for number in range(3)]
    write_frames(source / "train.tfrecord", records)
    (source / "test.tfrecord").touch()
    splits = {"train": {"file": "train.tfrecord"}, "test": {"file": "test.tfrecord", "records": 0}}
    config = {"columns": COLUMNS, "splits": splits}
    (source / "dataset.json").write_text(json.dumps({"name": "few", "configs": {"few": config}}))
    convert(source, to=layout, out=out)
    loaded = datasets.load_dataset(str(out), "few", cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {"train": 3}
    assert "No records: `few/test`." in (out / "README.md").read_text()
    if layout in ("parquet", "hf", "jpeg"):
        report = verify(out, reader="datasets")
        results = [
            check.result for split in report.splits for check in split.checks if check.name == "datasets"
        ]
        assert results == ["passed", "unverified"]
