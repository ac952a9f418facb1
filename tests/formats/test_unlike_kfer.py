"""Parquet, hf and Arrow outputs of datasets unlike KFER: what `datasets` and mlcroissant make of every value."""

import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from helpers.unlike_kfer import CONFIGS, SPLITS, make
from PIL import Image

from converters import convert, verify
from converters.errors import CallError

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported
datasets = pytest.importorskip("datasets", reason="the extra hf brings it")

DERIVED = {
    # By the stored number, as the names' ids are 3 (cat) and 7 (dog).
    "numbered": lambda row: {3: 0, 7: 1}.get(row["animal"]),
    "tagged": lambda row: [number for number, value in enumerate(row["tags"]) if value],
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unlike") / "source"
    return folder, make(folder)


@pytest.fixture(scope="module", params=["hf", "parquet", "arrow"])
def output(request, source):
    out = source[0].parent / request.param
    convert(source[0], to=request.param, out=out)
    return out


@pytest.fixture(scope="module", params=["hf", "parquet"])
def described(request, source):
    """An output with a description for Croissant's readers."""
    out = source[0].parent / f"{request.param}-described"
    convert(source[0], to=request.param, out=out)
    return out


@pytest.fixture(scope="module")
def hf(source):
    out = source[0].parent / "hf-alone"
    convert(source[0], to="hf", out=out)
    return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def front_matter(output):
    return yaml.safe_load((output / "README.md").read_text("utf-8").split("---\n")[1])


def same(found, expected):
    if isinstance(expected, float):
        return found == np.float32(expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == expected and type(found) is type(expected)


def expected_row(config, row):
    return row | ({"label": DERIVED[config](row)} if config in DERIVED else {})


def undecoded(rows):
    """The rows of a data set, with the bytes of images as they are."""
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    for row in rows:
        yield {name: value["bytes"] if isinstance(value, dict) else value for name, value in row.items()}


def test_it_equals_its_source(output, source):
    assert not verify(output, source=source[0]).failures()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
def test_datasets_loads_every_value(output, source, cache, config, streaming):
    loaded = datasets.load_dataset(
        str(output), config, cache_dir=cache, **({"streaming": True} if streaming else {})
    )
    assert list(loaded) == list(SPLITS)
    for split, rows in loaded.items():
        found = list(undecoded(rows))
        expected = [expected_row(config, row) for row in source[1][config, split]]
        assert len(found) == len(expected) == SPLITS[split]
        for one, other in zip(found, expected, strict=True):
            assert one.keys() == other.keys()
            for name in other:
                assert same(one[name], other[name]), (name, one[name], other[name])


@pytest.mark.parametrize("config", CONFIGS)
def test_the_card_states_the_features_and_the_sizes_that_datasets_finds(hf, cache, config):
    [info] = [info for info in front_matter(hf)["dataset_info"] if info["config_name"] == config]
    features = datasets.Features._from_yaml_list(info["features"])
    for split in info["splits"]:
        [path] = (hf / config).glob(f"{split['name']}-*")
        assert datasets.Features.from_arrow_schema(pq.read_schema(path)) == features
        # Loaded as a plain file, nothing is known of the card.
        rows = datasets.load_dataset("parquet", data_files=str(path), cache_dir=cache, split="train")
        assert rows.info.splits["train"].num_bytes == split["num_bytes"]
        assert len(rows) == split["num_examples"]


def test_sizes_of_several_row_groups_of_unequal_length(source, tmp_path, cache, monkeypatch):
    monkeypatch.setattr("converters.formats.parquet.ROW_GROUP_BYTES", 2300)
    out = tmp_path / "out"
    convert(source[0], to="hf", out=out, splits=["train"], max_shard_bytes=6000)
    groups, shards = set(), 0
    for info in front_matter(out)["dataset_info"]:
        for split in info["splits"]:
            files = sorted(map(str, (out / info["config_name"]).glob(f"{split['name']}-*")))
            shards = max(shards, len(files))
            groups |= {
                pq.read_metadata(file).row_group(group).num_rows
                for file in files
                for group in range(pq.read_metadata(file).num_row_groups)
            }
            rows = datasets.load_dataset("parquet", data_files=files, cache_dir=cache, split="train")
            assert rows.info.splits["train"].num_bytes == split["num_bytes"]
    assert shards > 1
    assert len(groups) > 2


def test_names_that_yaml_could_mistake_stay_names(output, cache):
    for config, name, names in (
        ("plain", "class", ["null", "1.0", "~"]),
        ("detection", "classes", ["car", "cat", "no"]),
        ("numbered", "label", ["cat", "dog"]),
    ):
        feature = datasets.load_dataset(str(output), config, cache_dir=cache, split="train").features[name]
        assert getattr(feature, "feature", feature).names == names


def test_tasks_are_only_those_that_the_data_is_for(source, hf, tmp_path):
    assert front_matter(hf)["task_ids"] == [
        "multi-class-image-classification",
        "multi-label-image-classification",
    ]
    for config, tasks in (("words", None), ("detection", None), ("plain", ["image-classification"])):
        out = tmp_path / config
        convert(source[0], to="hf", out=out, configs=[config])
        assert front_matter(out).get("task_categories") == tasks
    without = tmp_path / "without"
    convert(source[0], to="hf", out=without, configs=["plain"], without=["class"])
    assert "task_categories" not in front_matter(without)


def test_the_licence_is_told_by_its_identifier(output):
    card = front_matter(output)
    assert card["license"] == "cc-by-4.0"
    assert "license_name" not in card
    text = (output / "LICENSE").read_text("utf-8")
    assert "CC BY 4.0" in text
    assert "Name the authors." in text


def test_code_of_the_card_runs_as_printed(source, tmp_path):
    program = "import os\n"  # one for all: imports take most of the time
    for config in CONFIGS:
        out = tmp_path / config
        convert(source[0], to="hf", out=out, configs=[config])
        text = (out / "README.md").read_text("utf-8")
        assert "\n\n\n" not in text
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert len(blocks) == 4 + ("label_names" in str(CONFIGS[config][0]))
        program += f"os.chdir({str(out)!r})\n" + "".join(f"{block}\nprint('ran')\n" for block in blocks)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"ran\n") == program.count("'ran'")
    assert b"(9, 7)" in done.stdout


def test_tables_are_tables(output):
    block = []
    for line in [*(output / "README.md").read_text("utf-8").splitlines(), ""]:
        if line.startswith("|"):
            block.append(len(re.findall(r"(?<!\\)\|", line)))
        elif block:
            assert len(block) > 2
            assert len(set(block)) == 1, line
            block = []


@pytest.mark.parametrize("config", CONFIGS)
def test_mlcroissant_reads_every_value(described, source, config):
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(jsonld=described / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    [records] = [node for node in dataset.metadata.record_sets if node.uuid == config]
    columns = [field.source.extract.column for field in records.fields]
    found = list(dataset.records(config))
    expected = [expected_row(config, row) for split in sorted(SPLITS) for row in source[1][config, split]]
    assert len(found) == len(expected)
    for one, row in zip(found, expected, strict=True):
        for field, name in zip(records.fields, columns, strict=True):
            if name is None:
                continue
            value, wanted = one[field.uuid], row[name]
            if isinstance(value, Image.Image):
                value = value.fp.getvalue()
            if wanted is None:
                assert value is None or value != value
            elif isinstance(wanted, str):
                assert value.decode() == wanted
            elif isinstance(wanted, list) and wanted and isinstance(wanted[0], str):
                assert [text.decode() for text in value] == wanted
            else:
                assert same(value, wanted), (name, value, wanted)


def test_croissant_tells_configs_of_like_names_apart(source, tmp_path):
    folder = edited(source[0], tmp_path / "in", lambda configs: None)
    path = folder / "dataset.json"
    document = json.loads(path.read_text("utf-8"))
    for config in ("plain_labels", "plain_splits"):
        splits = {split: {"file": f"{config}_{split}.tfrecord"} for split in SPLITS}
        document["configs"][config] = document["configs"]["plain"] | {"splits": splits}
        for split in SPLITS:
            (folder / splits[split]["file"]).write_bytes((folder / f"plain_{split}.tfrecord").read_bytes())
    path.write_text(json.dumps(document), "utf-8")
    convert(folder, to="parquet", out=tmp_path / "out")
    document = json.loads((tmp_path / "out" / "croissant.json").read_text("utf-8"))
    ids = [node["@id"] for node in document["recordSet"] + document["distribution"]]
    assert len(set(ids)) == len(ids)
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(jsonld=tmp_path / "out" / "croissant.json")
    for config in ("plain", "plain_labels", "plain_splits"):
        assert len(list(dataset.records(config))) == sum(SPLITS.values())


def edited(source, folder, change):
    folder.mkdir()
    for file in [*source.glob("plain_*"), source / "dataset.json"]:
        (folder / file.name).write_bytes(file.read_bytes())
    document = json.loads((folder / "dataset.json").read_text("utf-8"))
    document["configs"] = {"plain": document["configs"]["plain"]}
    change(document["configs"])
    (folder / "dataset.json").write_text(json.dumps(document), "utf-8")
    return folder


def renamed(*names):
    def change(configs):
        splits = configs["plain"]["splits"]
        configs["plain"]["splits"] = dict(zip(names, splits.values(), strict=True))

    return change


@pytest.mark.parametrize(
    ("to", "names", "words"),
    [
        ("hf", ("all", "test"), "'all'"),
        ("parquet", ("All", "test"), "'All'"),
        ("hf", ("valid", "validation"), "would both be 'validation'"),
        ("hf", ("val", "dev"), "would both be 'validation'"),
        ("parquet", ("x" * 240, "test"), "too long"),
    ],
)
def test_splits_that_cannot_be_are_refused_before_anything_is_read(source, tmp_path, to, names, words):
    folder = edited(source[0], tmp_path / "in", renamed(*names))
    for file in folder.glob("*.tfrecord"):
        file.write_bytes(file.read_bytes()[:-1])  # what is read would fail
    with pytest.raises(CallError, match=words):
        convert(folder, to=to, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("name", ["README.md", "license", "croissant.json"])
def test_configs_named_like_a_file_of_the_output_are_refused(source, tmp_path, name):
    def change(configs):
        configs[name] = configs.pop("plain")

    folder = edited(source[0], tmp_path / "in", change)
    with pytest.raises(CallError, match=re.escape(name)):
        convert(folder, to="parquet", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("to", "names"),
    [
        ("parquet", ("valid", "validation")),
        ("parquet", ("a.b", "ünï")),
        ("parquet", ("1", "train_2")),
        ("hf", ("test", "holdout")),
    ],
)
def test_splits_of_other_names_load_under_their_names(source, tmp_path, cache, to, names):
    folder = edited(source[0], tmp_path / "in", renamed(*names))
    convert(folder, to=to, out=tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), "plain", cache_dir=cache)
    assert {name: len(rows) for name, rows in loaded.items()} == dict(
        zip(names, SPLITS.values(), strict=True)
    )


def test_configs_with_characters_of_patterns_load_from_parquet(source, tmp_path, cache):
    def change(configs):
        configs["a[b]{c}"] = configs.pop("plain")

    folder = edited(source[0], tmp_path / "in", change)
    convert(folder, to="parquet", out=tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), "a[b]{c}", cache_dir=cache)
    assert len(loaded["train"]) == SPLITS["train"]
    assert isinstance(loaded["train"][0]["image"], Image.Image)


def test_a_split_with_no_records_is_a_file_that_opens(source, tmp_path):
    from dataclasses import replace

    from converters.dataset.description import load_description
    from converters.dataset.shard import Shard
    from converters.formats.hf import HfFormat, arrow_bytes

    split = load_description(source[0]).config("pairs").splits[0]
    shard = Shard(replace(split), 0, 1, 0, (), 0)
    [path] = HfFormat().write([], shard, tmp_path)
    assert pq.read_table(io.BytesIO(path.read_bytes())).num_rows == 0
    assert list(HfFormat().read(tmp_path, split)) == []
    assert arrow_bytes(path, split.schema) == 0
