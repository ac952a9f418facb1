"""``croissant.json`` as MLCommons' own library reads it."""

import hashlib
import json
import logging
import shutil
from pathlib import Path

import pytest
from conftest import CONFIGS, edit_description, tfrecords

from converters import convert
from converters.dataset.description import kfer
from converters.formats.croissant import CROISSANT, croissant

mlc = pytest.importorskip("mlcroissant", reason="mlcroissant comes with the test extra")

VALIDATION = {"parquet": "valid", "hf": "validation"}
# What the sample's description does not state is not made up.
UNSTATED = {"citeAs", "datePublished", "version"}


@pytest.fixture(scope="module", params=["parquet", "hf"])
def output(request, sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("croissant") / request.param
    convert(sample, to=request.param, out=out, labels=sample / "labels")
    return out


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def records(dataset, config, **options):
    """Image bytes, label, label vector, identities and split of each record, as mlcroissant reads them."""
    for record in dataset.records(config, **options):
        row = {key.removeprefix(f"{config}/"): text(value) for key, value in record.items()}
        yield row | {"image": row["image"].fp.getvalue()}


def test_it_validates_without_errors(output, caplog):
    caplog.set_level(logging.WARNING)
    dataset = mlc.Dataset(jsonld=output / CROISSANT)
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert {warning.split('"')[1].rsplit("/", 1)[1] for warning in issues.warnings} == UNSTATED
    assert "not standard" not in caplog.text
    document = json.loads((output / CROISSANT).read_text())
    assert document["conformsTo"][0] == "http://mlcommons.org/croissant/1.0"


@pytest.mark.parametrize("config", CONFIGS)
def test_records_equal_the_source(output, truth, config):
    dataset = mlc.Dataset(jsonld=output / CROISSANT)
    found = list(records(dataset, config))
    valid = VALIDATION[output.name]
    # mlcroissant reads the files by name: test, train, valid.
    order = [("test", "test"), ("train", "train"), (valid, "valid")]
    expected = [(name, record) for name, split in order for record in truth[config, split]]
    assert len(found) == len(expected)
    for row, (split, record) in zip(found, expected, strict=True):
        assert row["image"] == record.image
        label = row["label"] if config == "multi-label" else [row["label"]]
        assert label == record.indices
        assert row["label_vector"] == list(record.label)
        assert [row[size] for size in ("height", "width", "depth")] == [
            record.height,
            record.width,
            record.depth,
        ]
        assert (row["img_id"], row["clip_id"], row["split"]) == (record.img_id, record.clip_id, split)


@pytest.mark.parametrize("config", CONFIGS)
def test_one_split_can_be_asked_for(output, truth, config):
    for name, split in (("train", "train"), (VALIDATION[output.name], "valid")):
        dataset = mlc.Dataset(jsonld=output / CROISSANT)  # a filter changes it
        found = list(records(dataset, config, filters={f"{config}/split": name}))
        assert [row["image"] for row in found] == [record.image for record in truth[config, split]]


@pytest.mark.parametrize("config", CONFIGS)
def test_labels_and_splits_are_enumerated(output, label_names, config):
    dataset = mlc.Dataset(jsonld=output / CROISSANT)
    name = f"{config}_labels"
    found = [(row[f"{name}/number"], text(row[f"{name}/name"])) for row in dataset.records(name)]
    assert found == list(enumerate(label_names[config]))
    splits = [text(row[f"{config}_splits/name"]) for row in dataset.records(f"{config}_splits")]
    assert splits == ["train", VALIDATION[output.name], "test"]
    types = {node.uuid: [str(kind) for kind in node.data_types] for node in dataset.metadata.record_sets}
    assert types[name] == ["https://schema.org/Enumeration"]


def test_every_file_is_there_with_its_digest(output):
    listed = mlc.Dataset(jsonld=output / CROISSANT).metadata.file_objects
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert {node.id for node in listed} == files - {CROISSANT, "MANIFEST.json", "SHA256SUMS"}
    for node in listed:
        data = (output / node.content_url).read_bytes()
        assert node.sha256 == hashlib.sha256(data).hexdigest()
        assert node.content_size == f"{len(data)} B"
    assert f"  {CROISSANT}\n" in (output / "SHA256SUMS").read_text()


def test_several_shards(sample, truth, tmp_path):
    convert(sample, to="parquet", out=tmp_path / "out", configs=["multi-label"], max_shard_bytes=20_000)
    assert len(list((tmp_path / "out").rglob("train-*"))) > 2
    dataset = mlc.Dataset(jsonld=tmp_path / "out" / CROISSANT)
    found = [row["image"] for row in records(dataset, "multi-label", filters={"multi-label/split": "train"})]
    assert found == [record.image for record in truth["multi-label", "train"]]


def test_same_bytes_wherever_and_however(sample, output, tmp_path):
    convert(sample, to=output.name, out=tmp_path / "other", labels=sample / "labels", workers=2)
    written = (output / CROISSANT).read_bytes()
    assert (tmp_path / "other" / CROISSANT).read_bytes() == written
    assert str(output.parent).encode() not in written


def test_what_is_known_of_kfer_is_said(sample, tmp_path):
    report = convert(sample, to="parquet", out=tmp_path / "out")
    about = kfer().about
    document = croissant(
        type(report)(**{**vars(report), "description": kfer()}),
        {split.split.title: split.split.name for split in report.splits},
        report.files,
    )
    assert document["citeAs"] == about.citation
    assert document["license"]["description"] == about.licence.text
    assert "real people" in document["rai:personalSensitiveInformation"][0]
    assert set(about.notes) < set(document["rai:dataLimitations"])
    assert any("share clips" in note for note in document["rai:dataLimitations"])
    assert document["rai:dataUseCases"] == about.licence.text
    path = tmp_path / "kfer.json"
    path.write_text(json.dumps(document))
    dataset = mlc.Dataset(jsonld=path)
    assert not dataset.metadata.ctx.issues.errors
    assert len(dataset.metadata.ctx.issues.warnings) == 2  # date and version of the dataset are not known


def test_a_hostile_description(source, tmp_path):
    nasty = 'a "b" \\ {c} <d> 얼굴 # % $(e)'

    def change(document):
        config = document["configs"].pop("22_emo")
        config["label_names"] = [f"{nasty} {number}" for number in range(22)]
        for split in config["splits"].values():
            split.pop("label_counts", None)
        document["configs"] = {"b c (d) 얼굴 + é": config}
        document["about"] |= {"title": nasty, "description": nasty, "notes": [nasty], "tags": [nasty]}

    edit_description(source, change)
    for file in source.glob("*.tfrecords"):
        if not file.name.startswith("22_emo"):
            file.unlink()
            file.with_suffix(".idx").unlink()
    assert tfrecords(source, "22_emo", "train").is_file()
    convert(source, to="hf", out=tmp_path / "out")
    dataset = mlc.Dataset(jsonld=tmp_path / "out" / CROISSANT)
    assert not dataset.metadata.ctx.issues.errors
    config = "b~20~c~20~~28~d~29~~20~얼굴~20~~2b~~20~é"
    table = [text(row[f"{config}_labels/name"]) for row in dataset.records(f"{config}_labels")]
    assert table == [f"{nasty} {number}" for number in range(22)]
    assert next(iter(records(dataset, config)))["split"] == "test"


def test_it_is_read_where_it_lies(output, tmp_path, truth):
    moved = Path(shutil.copytree(output, tmp_path / "moved"))
    row = next(records(mlc.Dataset(jsonld=moved / CROISSANT), "22_emo"))
    assert row["image"] == truth["22_emo", "test"][0].image
