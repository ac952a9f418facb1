"""Image folders of KFER, opened by the programs that users open them with, against a reading by hand."""

import csv
import io

import pytest
from conftest import CONFIGS, SPLITS, drop_published, edit_description
from PIL import Image

from converters import convert, verify
from converters.errors import CallError, DataError


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "labels"])
def named(request):
    return request.param


@pytest.fixture(scope="module")
def output(named, sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("jpeg") / "out"
    convert(sample, to="jpeg", out=out, labels=sample / "labels" if named else None)
    return out


def rows_of(folder):
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


def test_files_and_labels_are_the_source_s(output, named, truth, label_names):
    for (config, split), records in truth.items():
        folder = output / config / split
        assert {path.name for path in folder.iterdir()} == {"images", "metadata.csv"}
        header, rows = rows_of(folder)
        identities = ["img_id", "clip_id"] if named else []
        assert header == ["file_name", *identities, *label_names[config]]
        assert len(rows) == len(records) == len(list((folder / "images").iterdir()))
        for number, (row, record) in enumerate(zip(rows, records, strict=True)):
            name = record.img_id if named else f"{number:08}.jpg"
            assert row[0] == f"images/{name}"
            assert (folder / row[0]).read_bytes() == record.image
            assert row[1 : 1 + len(identities)] == ([record.img_id, record.clip_id] if named else [])
            assert row[1 + len(identities) :] == [str(value) for value in record.label]


def test_pandas(output, truth, label_names):
    pandas = pytest.importorskip("pandas")
    for (config, split), records in truth.items():
        frame = pandas.read_csv(output / config / split / "metadata.csv")
        assert [tuple(row) for row in frame[label_names[config]].to_numpy()] == [
            record.label for record in records
        ]
        images = [(output / config / split / name).read_bytes() for name in frame["file_name"]]
        assert images == [record.image for record in records]


def equal_in_order(rows, records, label_names):
    """Whether rows as `datasets` loads them are the records, with all their labels and in their order."""
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        assert tuple(row[label] for label in label_names) == record.label
        assert (row.get("img_id", record.img_id), row.get("clip_id", record.clip_id)) == (
            record.img_id,
            record.clip_id,
        )
        with Image.open(io.BytesIO(record.image)) as original:
            assert row["image"].tobytes() == original.tobytes()


@pytest.mark.parametrize(
    ("shard_bytes", "options"),
    [(10**9, {}), (20_000, {}), (20_000, {"labels": True}), (20_000, {"class_folders": True})],
)
def test_datasets_gives_all_labels_of_a_config_and_of_a_split(
    sample, tmp_path, truth, label_names, shard_bytes, options
):
    datasets = pytest.importorskip("datasets")
    out, cache = tmp_path / "out", {"cache_dir": str(tmp_path / "cache")}
    identified = "labels" in options
    if identified:
        options = {"labels": sample / "labels"}
    convert(sample, to="jpeg", out=out, max_shard_bytes=shard_bytes, **options)
    for config in CONFIGS:
        columns = {"image", *label_names[config], *(["img_id", "clip_id"] if identified else [])}
        by_folder = datasets.load_dataset("imagefolder", data_dir=str(out / config), **cache)
        by_readme = datasets.load_dataset(str(out), config, **cache)
        assert set(by_folder) == {"train", "validation", "test"}
        assert set(by_readme) == set(SPLITS)
        for split, name in zip(SPLITS, ("train", "validation", "test"), strict=True):
            alone = datasets.load_dataset("imagefolder", data_dir=str(out / config / split), **cache)
            assert len(alone) == 1
            for rows in (by_folder[name], by_readme[split], *alone.values()):
                assert set(rows.column_names) == columns
                equal_in_order(rows, truth[config, split], label_names[config])


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_class_folders_have_the_stored_indices(sample, tmp_path, truth, label_names, shard_bytes):
    out = tmp_path / "out"
    convert(sample, to="jpeg", out=out, class_folders=True, max_shard_bytes=shard_bytes)
    for config in CONFIGS:
        for split in SPLITS:
            records = truth[config, split]
            part = out / config / split  # what ImageFolder is given, however many shards
            assert [path.name for path in part.iterdir() if path.is_file()] == ["metadata.csv"]
            folders = sorted(path.name for path in part.iterdir() if path.is_dir())  # as torchvision does
            header, rows = rows_of(part)
            assert header == ["file_name", *label_names[config]]
            if config == "multi-label":
                assert folders == ["images"]
            else:
                assert [name.split("_", 1)[1] for name in folders] == label_names[config]
            for row, record in zip(rows, records, strict=True):
                if config != "multi-label":
                    assert folders.index(row[0].split("/")[0]) == record.indices[0]
                assert (part / row[0]).read_bytes() == record.image


def test_class_folders_of_a_label_that_is_no_folder_name_are_refused(source, tmp_path):
    drop_published(source)

    def change(document):
        document["configs"]["6_basic_emo"]["label_names"][2] = "and/or"

    edit_description(source, change)
    with pytest.raises(CallError, match="and/or"):
        convert(source, to="jpeg", out=tmp_path / "out", configs=["6_basic_emo"], class_folders=True)
    convert(source, to="jpeg", out=tmp_path / "out", configs=["6_basic_emo"])
    assert verify(tmp_path / "out").failures() == []


def test_label_names_that_csv_must_quote(source, tmp_path, truth):
    names = ["a,b", 'say "hi"', "세 번째", " space ", "=1+1", "sad"]
    drop_published(source)

    def change(document):
        document["configs"]["6_basic_emo"]["label_names"] = names

    edit_description(source, change)
    convert(source, to="jpeg", out=tmp_path / "out", configs=["6_basic_emo"])
    header, rows = rows_of(tmp_path / "out" / "6_basic_emo" / "train")
    assert header == ["file_name", *names]
    assert [row[1:] for row in rows] == [
        list(map(str, record.label)) for record in truth["6_basic_emo", "train"]
    ]
    assert verify(tmp_path / "out", source=source).failures() == []


def test_another_format_does_not_take_the_option(sample, tmp_path):
    with pytest.raises(CallError, match="class-folders"):
        convert(sample, to="parquet", out=tmp_path / "out", class_folders=True)


def test_a_label_file_that_leaves_its_folder_is_not_followed(sample, tmp_path):
    from converters.dataset.description import load_description
    from converters.formats import load_format

    out = tmp_path / "out"
    convert(sample, to="jpeg", out=out, configs=["22_emo"], splits=["valid"])
    path = out / "22_emo" / "valid" / "metadata.csv"
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    split = next(split for split in load_description(sample).splits() if split.title == "22_emo/valid")
    text = path.read_text()
    for name in (
        "images/../../../../../secret.jpg",
        f"{tmp_path}/secret.jpg",
        "images/../images/00000000.jpg",
        "images/..",
    ):
        path.write_text(text.replace("images/00000000.jpg", name))
        with pytest.raises(DataError, match="does not lie in"):
            list(load_format("jpeg").read(out, split))
