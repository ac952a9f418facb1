"""The Hugging Face repo: what `datasets` makes of it, and what its card says."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import flip
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries are imported

import datasets
from huggingface_hub import DatasetCard

from converters import Report, convert, make_sample, verify
from converters.dataset.description import About, Licence, kfer, load_description
from converters.dataset.schema import Column, Schema
from converters.errors import CallError
from converters.formats.hf import HfFormat, size_category, yaml_features
from converters.formats.licences import HUB_LICENCES, hub_licence, slug
from converters.formats.readme import cell, code, fence, licence_text, licence_yaml
from converters.sample.writer import LABELS_FOLDER

CONFIGS = ("6_basic_emo", "22_emo", "multi-label")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "source"
    make_sample(folder, records=120)
    return folder


@pytest.fixture(scope="module")
def converted(source: Path) -> tuple[Path, Report]:
    out = source.parent / "repo"
    return out, convert(source, to="hf", out=out)


@pytest.fixture(scope="module")
def repo(converted: tuple[Path, Report]) -> Path:
    return converted[0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def front_matter(repo: Path) -> dict[str, Any]:
    text = (repo / "README.md").read_text("utf-8")
    return yaml.safe_load(text.split("---\n")[1])


def edited(source: Path, folder: Path, change: Any) -> Path:
    """A copy of the source whose description was changed."""
    folder.mkdir()
    for file in source.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    document = json.loads((folder / "dataset.json").read_text())
    change(document)
    (folder / "dataset.json").write_text(json.dumps(document))
    described = {split.file for split in load_description(folder).splits()}
    for file in folder.glob("*.tfrecords"):
        if file.name not in described:
            file.unlink()
            file.with_suffix(".idx").unlink()
    return folder


def test_layout_and_proof(repo: Path, source: Path) -> None:
    splits = ("train", "validation", "test")
    parquet = {f"{config}/{split}-00000-of-00001.parquet" for config in CONFIGS for split in splits}
    files = {path.relative_to(repo).as_posix() for path in repo.rglob("*") if path.is_file()}
    assert files == parquet | {"README.md", "LICENSE", "croissant.json", "MANIFEST.json", "SHA256SUMS"}
    assert not verify(repo, source=source).failures()


@pytest.mark.parametrize("name", CONFIGS)
def test_datasets_loads_what_the_source_holds(converted: tuple[Path, Report], cache: str, name: str) -> None:
    repo, report = converted
    loaded = datasets.load_dataset(str(repo), name, cache_dir=cache)
    assert list(loaded) == ["train", "validation", "test"]
    [info] = [info for info in front_matter(repo)["dataset_info"] if info["config_name"] == name]
    found = [split for split in report.splits if split.split.config == name]
    for split, rows, stated in zip(found, loaded.values(), info["splits"], strict=True):
        assert len(rows) == stated["num_examples"] == split.fingerprint.records
        label = rows.features["label"]
        label = label.feature if name == "multi-label" else label
        assert tuple(label.names) == split.split.label_names
        assert isinstance(rows[0]["image"], Image.Image)
        counts = tuple(map(sum, zip(*rows["label_vector"], strict=True)))
        assert counts == split.fingerprint.label_counts


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes_are_those_that_datasets_counts(repo: Path, cache: str, name: str) -> None:
    [info] = [info for info in front_matter(repo)["dataset_info"] if info["config_name"] == name]
    files = sorted((repo / name).iterdir())
    assert info["download_size"] == sum(file.stat().st_size for file in files)
    assert info["dataset_size"] == sum(split["num_bytes"] for split in info["splits"])
    for split in info["splits"]:
        [file] = (repo / name).glob(f"{split['name']}-*")
        # Loaded as a plain file, nothing is known of the card.
        rows = datasets.load_dataset(
            "parquet", data_files={"train": str(file)}, cache_dir=cache, split="train"
        )
        assert rows.info.splits["train"].num_bytes == split["num_bytes"]


def test_sizes_with_several_row_groups_and_shards(
    source: Path, tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.formats.parquet.ROW_GROUP_ROWS", 7)
    out = tmp_path / "out"
    convert(source, to="hf", out=out, configs=["multi-label"], max_shard_bytes=50_000)
    [info] = front_matter(out)["dataset_info"]
    train = info["splits"][0]
    files = sorted(str(file) for file in (out / "multi-label").glob("train-*"))
    assert len(files) > 1
    assert pq.ParquetFile(files[0]).num_row_groups > 1
    rows = datasets.load_dataset("parquet", data_files={"train": files}, cache_dir=cache, split="train")
    assert rows.info.splits["train"].num_bytes == train["num_bytes"]
    assert len(datasets.load_dataset(str(out), cache_dir=cache)["train"]) == train["num_examples"]


def test_without_a_name_the_multi_label_config_is_loaded(repo: Path, cache: str) -> None:
    loaded = datasets.load_dataset(str(repo), cache_dir=cache, split="test")
    assert loaded.info.config_name == "multi-label"
    assert [config.get("default") for config in front_matter(repo)["configs"]] == [None, None, True]


def test_without_a_multi_label_config_the_last_is_the_default(source: Path, tmp_path: Path) -> None:
    convert(source, to="hf", out=tmp_path / "out", configs=["6_basic_emo", "22_emo"], splits=["valid"])
    card = front_matter(tmp_path / "out")
    assert [config.get("default") for config in card["configs"]] == [None, True]
    assert card["task_ids"] == ["multi-class-image-classification"]
    assert card["configs"][1]["data_files"] == [{"split": "validation", "path": "22_emo/validation-*"}]


@pytest.mark.parametrize("labels", [False, True])
def test_card_features_are_those_of_the_files(source: Path, tmp_path: Path, labels: bool) -> None:
    out = tmp_path / "out"
    convert(source, to="hf", out=out, labels=source / LABELS_FOLDER if labels else None)
    for info in front_matter(out)["dataset_info"]:
        [path] = (out / info["config_name"]).glob("train-*")
        features = datasets.Features.from_arrow_schema(pq.read_schema(path))
        assert datasets.Features._from_yaml_list(info["features"]) == features
        assert ("img_id" in features) is labels
        assert ("`img_id`" in (out / "README.md").read_text("utf-8")) is labels


def test_labels_that_yaml_could_mistake_stay_names() -> None:
    names = ("no", "null", "1.0", "a: b", "#", "얼굴", "~")
    schema = Schema((Column("label", pa.int64(), "label", "label", names),))
    text = yaml.safe_dump(yaml_features(schema), allow_unicode=True, sort_keys=False)
    label = datasets.Features._from_yaml_list(yaml.safe_load(text))["label"]
    assert tuple(label.names) == names


def test_hub_library_reads_the_card(repo: Path) -> None:
    data = DatasetCard.load(repo / "README.md").data
    assert data.license == "cc0-1.0"
    assert data.task_categories == ["image-classification"]
    assert data.size_categories == ["n<1K"]


def test_card_shows_fingerprints_counts_and_checks(converted: tuple[Path, Report]) -> None:
    repo, report = converted
    text = (repo / "README.md").read_text("utf-8")
    for split in report.splits:
        assert split.fingerprint.labels_sha256 in text
        assert split.fingerprint.records_sha256 in text
        for check in split.checks:
            assert f"| `{split.split.title}` | {check.name} | {check.result} | {cell(check.reason)} |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert tables
    assert "\n\n\n" not in text
    assert str(repo.parent) not in text


def test_clips_that_splits_share_are_counted(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(source, to="hf", out=out, labels=source / LABELS_FOLDER)
    text = (out / "README.md").read_text("utf-8")
    counted = 0
    for name in CONFIGS:
        clips = {}
        for split in ("train", "valid", "test"):
            with (source / LABELS_FOLDER / f"label_{name}_{split}.csv").open(newline="") as file:
                clips[split] = [row["clip_id"] for row in csv.DictReader(file)]
        for split, called in (("valid", "validation"), ("test", "test")):
            shared = sum(clip in set(clips["train"]) for clip in clips[split])
            share = f"{100 * shared / len(clips[split]):.1f}"
            row = f"| `{name}` | `{called}` | {len(clips[split])} | `train` | {shared} | {share} % |"
            assert row in text
            counted += shared
    assert counted
    assert not [clip for clip in clips["train"] if clip in text]


def test_the_card_says_what_was_left_out(
    source: Path, converted: tuple[Path, Report], tmp_path: Path, cache: str
) -> None:
    repo, whole = converted
    folder = edited(source, tmp_path / "in", lambda document: None)
    flip(folder / "22_emo_train.tfrecords", 5000)
    report = convert(folder, to="hf", out=tmp_path / "out", configs=["22_emo"], on_error="quarantine")
    assert (report.quarantined, report.lost_records) == (1, 1)
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "1 damaged range of its files, with 1 record,\n" in text
    assert (tmp_path / "out" / "quarantine" / "records.json").is_file()
    [expected] = [s.fingerprint.records for s in whole.splits if s.split.title == "22_emo/train"]
    assert len(datasets.load_dataset(str(tmp_path / "out"), cache_dir=cache, split="train")) == expected - 1
    assert "Not all of the source" not in (repo / "README.md").read_text("utf-8")


def test_without_clips_the_card_says_that_none_were_counted(repo: Path) -> None:
    assert "made without the names of clips" in " ".join((repo / "README.md").read_text("utf-8").split())


def test_a_card_says_of_clips_only_where_there_are_any(source: Path, tmp_path: Path) -> None:
    def change(document):
        for config in document["configs"].values():
            for split in config["splits"].values():
                split.pop("clips")

    folder = edited(source, tmp_path / "in", change)
    convert(folder, to="hf", out=tmp_path / "out", configs=["22_emo"])
    convert(
        source, to="hf", out=tmp_path / "one", configs=["22_emo"], splits=["test"], labels=source / "labels"
    )
    for out in ("out", "one"):
        text = (tmp_path / out / "README.md").read_text("utf-8")
        assert "Evaluating" not in text
        assert "made without" not in text


def test_the_card_has_the_sections_that_people_look_for(repo: Path) -> None:
    headings = re.findall(r"^## (.+)$", (repo / "README.md").read_text("utf-8"), re.MULTILINE)
    assert headings == [
        "Dataset description",
        "How to load it",
        "Dataset structure",
        "Evaluating: splits that share clips",
        "Considerations for using the data",
        "How it was converted and proven",
        "Licence",
        "Citation",
    ]
    assert "consented" in (repo / "README.md").read_text("utf-8")


def test_tables_are_tables(repo: Path) -> None:
    block: list[int] = []
    for line in [*(repo / "README.md").read_text("utf-8").splitlines(), ""]:
        if line.startswith("|"):
            block.append(len(re.findall(r"(?<!\\)\|", line)))
        elif block:
            assert len(block) > 2
            assert len(set(block)) == 1, line
            block = []


def test_same_input_gives_same_bytes(source: Path, repo: Path, tmp_path: Path) -> None:
    convert(source, to="hf", out=tmp_path / "elsewhere", workers=2)
    for name in ("README.md", "LICENSE", "MANIFEST.json", "SHA256SUMS"):
        assert (tmp_path / "elsewhere" / name).read_bytes() == (repo / name).read_bytes()


def test_code_of_the_card_runs_as_printed(repo: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (repo / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 5
    for module in ("pandas", "polars", "duckdb"):
        pytest.importorskip(module)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    # One process a block, at once: each has to stand on its own.
    running = [
        subprocess.Popen([sys.executable, "-c", block], cwd=repo, env=environment, stdout=-1, stderr=-1)
        for block in blocks
    ]
    for process in running:
        output, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
        assert b"64" in output or b"moved" in output
    assert not [path for path in repo.iterdir() if path.name.startswith((".", "_"))]


def test_conversion_imports_no_hub_library(source: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from converters import convert;"
        "convert(sys.argv[1], to='hf', out=sys.argv[2], configs=['22_emo']);"
        "sys.exit(bool({'datasets', 'huggingface_hub'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program, source, tmp_path / "out"], check=True)


def test_hostile_description_breaks_neither_front_matter_nor_tables(
    source: Path, tmp_path: Path, cache: str
) -> None:
    nasty = 'a: "b" | c\n---\nlicense: mit\n```\n{{ 7 * 7 }} {% raw %} 얼굴 #'

    def change(document: dict[str, Any]) -> None:
        document["about"] |= {
            "title": nasty,
            "description": "Plain.",
            "languages": ["ko"],
            "tags": [nasty],
            "notes": [nasty],
            "citation": "@x{```}",
            "personal_data": True,
            "licence": {"name": " Some Licence_(v1)!", "text": nasty},
            "gating": {"prompt": nasty, "fields": {nasty: "checkbox"}},
        }

    out = tmp_path / "out"
    convert(edited(source, tmp_path / "in", change), to="hf", out=out, configs=["6_basic_emo"])
    data: Mapping[str, Any] = DatasetCard.load(out / "README.md").data.to_dict()
    assert data["license"] == "other"
    assert data["license_name"] == "some-licence-v1"
    assert data["license_link"] == "LICENSE"
    assert data["extra_gated_prompt"] == nasty
    assert data["extra_gated_fields"] == {nasty: "checkbox"}
    assert data["tags"] == [nasty]
    text = (out / "README.md").read_text("utf-8")
    assert "````bibtex\n@x{```}\n````" in text
    assert "faces of real people" in text
    assert "{{ 7 * 7 }}" in text
    assert len(datasets.load_dataset(str(out), cache_dir=cache)) == 3


def test_unverified_checks_are_shown_with_their_reason(source: Path, tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        for config in document["configs"].values():
            for split in config["splits"].values():
                del split["label_counts"]

    convert(edited(source, tmp_path / "in", change), to="hf", out=tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "| counts per label | **unverified** | no counts per label are published |" in text


@pytest.mark.parametrize("name", ["data", "a[1]"])
def test_config_names_that_the_hub_misreads_are_refused(source: Path, tmp_path: Path, name: str) -> None:
    def change(document: dict[str, Any]) -> None:
        document["configs"] = {name: document["configs"]["22_emo"]}

    with pytest.raises(CallError, match="no config named"):
        convert(edited(source, tmp_path / "in", change), to="hf", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shard_bytes", [500_000_000, 20_000])
def test_two_splits_never_become_one(source: Path, tmp_path: Path, shard_bytes: int) -> None:
    def change(document: dict[str, Any]) -> None:
        splits = document["configs"]["22_emo"]["splits"]
        document["configs"] = {"22_emo": document["configs"]["22_emo"]}
        document["configs"]["22_emo"]["splits"] = {
            "validation": splits["train"],
            "valid": splits["valid"],
        }

    with pytest.raises(CallError, match="would both be 'validation'"):
        convert(
            edited(source, tmp_path / "in", change),
            to="hf",
            out=tmp_path / "out",
            max_shard_bytes=shard_bytes,
        )
    assert not (tmp_path / "out").exists()


def test_split_names(source: Path) -> None:
    split = load_description(source).config("22_emo").splits[1]
    assert split.name == "valid"
    assert HfFormat().split_name(split) == "validation"
    assert [HfFormat().split_name(split) for split in kfer().config("22_emo").splits] == [
        "train",
        "validation",
        "test",
    ]


def test_licence_of_kfer_is_stated_in_full() -> None:
    about = kfer().about
    text = licence_text(about.title, about.licence)
    assert about.licence.text in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    assert "Full terms: https://x" in licence_text("t", Licence("n", "text", "https://x"))
    assert licence_yaml(about) == {
        "license": "other",
        "license_name": "kfer-non-commercial-research",
        "license_link": "LICENSE",
    }
    assert licence_yaml(About())["license"] == "other"


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        *((name, name) for name in sorted(HUB_LICENCES)),
        ("CC BY 4.0", "cc-by-4.0"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International", "cc-by-nc-sa-4.0"),
        ("CC0", "cc0-1.0"),
        ("The MIT License", "mit"),
        ("Apache License 2.0", "apache-2.0"),
        ("ODbL-1.0", "odbl"),
        ("GPL-3.0-or-later", "gpl-3.0"),
        ("OpenRAIL++", "openrail++"),
        ("cc0-1.0-pictures-only", None),
        ("CC BY 4.0 with restrictions", None),
        ("CC BY", None),
        ("unknown", None),
        ("other", None),
        ("", None),
    ],
)
def test_licences_by_the_identifiers_of_the_hub(name: str, identifier: str | None) -> None:
    assert hub_licence(name) == identifier


@pytest.mark.parametrize(
    ("records", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (71_430, "10K<n<100K"),
        (10**12 - 1, "100B<n<1T"),
        (10**12, "n>1T"),
    ],
)
def test_size_categories(records: int, category: str) -> None:
    assert size_category(records) == category


def test_markdown_and_names() -> None:
    assert cell("a|b\n c") == "a\\|b c"
    assert code("a`b|") == "`` a`b\\| ``"
    assert fence("no") == "```"
    assert fence("x ````") == "`````"
    assert slug("KFER Non_commercial 1.0!") == "kfer-non-commercial-1.0"
    assert slug("표") == "unknown"


def test_image_bytes_are_read_without_datasets(repo: Path) -> None:
    table = pq.read_table(next((repo / "22_emo").glob("test-*")))
    with Image.open(io.BytesIO(table["image"][0]["bytes"].as_py())) as image:
        assert image.size == (64, 64)
