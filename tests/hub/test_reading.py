"""What was pushed, read back as users do: through the Hub by `datasets` and by path, and from a copy of the files.

Each reader runs in a process of its own, for libraries read ``HF_ENDPOINT`` when they are imported. It prints, for each
config and split, the SHA-256 of the images and their labels; these have to be the source's.
"""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import CONFIGS
from huggingface_hub import DatasetCard, DatasetCardData
from standin_hub import TOKEN, Hub

REPO = "me/kfer"
SPLITS = {"train": "train", "validation": "valid", "test": "test"}

START = """
import hashlib, io, json, sys
found = {}
def note(config, split, image, label):
    digest = hashlib.sha256(image).hexdigest()
    label = [int(n) for n in label] if hasattr(label, "__len__") else [int(label)]
    found.setdefault(config, {}).setdefault(split, []).append([digest, label])
REPO, CONFIGS, SPLITS = "me/kfer", ["6_basic_emo", "22_emo", "multi-label"], ["train", "validation", "test"]
"""
# Threads of a streaming reader sometimes abort the interpreter at its end, when all has been read.
END = "\nprint(json.dumps(found), flush=True)\nimport os; os._exit(0)\n"

DATASETS = """
from datasets import Image, load_dataset
for config in CONFIGS:
    loaded = load_dataset(REPO, config)
    assert list(loaded) == SPLITS
    for split, rows in loaded.items():
        assert rows[0]["image"].size == (64, 64)
        for row in rows.cast_column("image", Image(decode=False)):
            note(config, split, row["image"]["bytes"], row["label"])
"""
STREAMING = """
from datasets import Image, load_dataset
for config in CONFIGS:
    for split in SPLITS:
        rows = load_dataset(REPO, config, split=split, streaming=True)
        assert next(iter(rows))["image"].size == (64, 64)
        for row in rows.cast_column("image", Image(decode=False)):
            note(config, split, row["image"]["bytes"], row["label"])
"""
PANDAS = """
import pandas
for config in CONFIGS:
    for split in SPLITS:
        table = pandas.read_parquet(f"hf://datasets/{REPO}/{config}/{split}-00000-of-00001.parquet")
        for image, label in zip(table["image"], table["label"]):
            note(config, split, image["bytes"], label)
"""
# polars' own reader of hf:// addresses goes to the official Hub alone; by way of the file system it goes anywhere.
POLARS = """
import polars
from huggingface_hub import HfFileSystem
for config in CONFIGS:
    for split in SPLITS:
        with HfFileSystem().open(f"datasets/{REPO}/{config}/{split}-00000-of-00001.parquet", "rb") as file:
            table = polars.read_parquet(file)
        for image, label in zip(table["image"], table["label"]):
            note(config, split, image["bytes"], label)
"""
# On the files: DuckDB 2.0 asks a file system for what huggingface_hub's does not have.
DUCKDB = """
import duckdb
from huggingface_hub import snapshot_download
folder = snapshot_download(REPO, repo_type="dataset")
for config in CONFIGS:
    for split in SPLITS:
        path = f"{folder}/{config}/{split}-*.parquet"
        for image, label in duckdb.sql(f"SELECT image.bytes, label FROM '{path}'").fetchall():
            note(config, split, image, label)
"""
SNAPSHOT = """
import pyarrow.parquet as pq
from huggingface_hub import snapshot_download
folder = snapshot_download(REPO, repo_type="dataset")
for config in CONFIGS:
    for split in SPLITS:
        for row in pq.read_table(f"{folder}/{config}/{split}-00000-of-00001.parquet").to_pylist():
            note(config, split, row["image"]["bytes"], row["label"])
"""
TORCH = """
from datasets import Image, load_dataset
from torch.utils.data import DataLoader
for config in CONFIGS:
    for split in SPLITS:
        rows = load_dataset(REPO, config, split=split).cast_column("image", Image(decode=False))
        for batch in DataLoader(rows, batch_size=7, collate_fn=list):
            for row in batch:
                note(config, split, row["image"]["bytes"], row["label"])
        decoded = load_dataset(REPO, config, split=split).with_format("torch")
        assert tuple(decoded[0]["image"].shape) == (3, 64, 64)
        vectors = next(iter(DataLoader(decoded.select_columns(["label_vector"]), batch_size=2)))["label_vector"]
        assert vectors.shape[0] == min(2, len(decoded))
"""
TENSORFLOW = """
import tensorflow as tf
from datasets import Image, load_dataset
for config in CONFIGS:
    for split in SPLITS:
        rows = load_dataset(REPO, config, split=split).cast_column("image", Image(decode=False))
        def examples(rows=rows):
            for row in rows:
                label = row["label"] if isinstance(row["label"], list) else [row["label"]]
                yield row["image"]["bytes"], label
        signature = (tf.TensorSpec((), tf.string), tf.TensorSpec((None,), tf.int64))
        data = tf.data.Dataset.from_generator(examples, output_signature=signature)
        for image, label in data:
            assert tf.io.decode_jpeg(image).shape == (64, 64, 3)
            note(config, split, image.numpy(), label.numpy().tolist())
"""
READERS = {
    "datasets": DATASETS,
    "datasets, streaming": STREAMING,
    "pandas": PANDAS,
    "polars": POLARS,
    "duckdb": DUCKDB,
    "snapshot": SNAPSHOT,
    "torch": TORCH,
    "tensorflow": TENSORFLOW,
}


@pytest.fixture(scope="module")
def pushed(hf_output, tmp_path_factory):
    """A stand-in that holds the output, and the environment that leads there."""
    environment = {
        **os.environ,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    with Hub() as hub:
        environment["HF_ENDPOINT"] = hub.endpoint
        command = [sys.executable, "-m", "converters", "push", str(hf_output), REPO, "--quiet"]
        subprocess.run(command, env=environment, check=True)
        yield hub, environment


@pytest.fixture(scope="module")
def expected(truth):
    """What each reader has to print."""
    return {
        config: {
            name: [
                [hashlib.sha256(record.image).hexdigest(), record.indices] for record in truth[config, split]
            ]
            for name, split in SPLITS.items()
        }
        for config in CONFIGS
    }


@pytest.mark.parametrize("reader", READERS)
def test_what_is_read_is_the_source(pushed, expected, tmp_path, reader):
    _, environment = pushed
    module = reader.split(",")[0]
    if module != "snapshot" and importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    program = START + READERS[reader] + END
    environment = {**environment, "HF_DATASETS_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_the_default_config_needs_no_name(pushed, tmp_path):
    _, environment = pushed
    program = (
        "from datasets import load_dataset; print(load_dataset('me/kfer', split='test').info.config_name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "HF_DATASETS_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "multi-label\n", done.stderr[-3000:]


def test_the_code_of_the_card_runs_from_a_download(pushed, tmp_path):
    hub, environment = pushed
    for path, data in hub.repos[REPO].files().items():
        file = tmp_path / "copy" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    blocks = re.findall(
        r"```python\n(.*?)```", (tmp_path / "copy" / "README.md").read_text("utf-8"), re.DOTALL
    )
    assert blocks
    running = [
        subprocess.Popen(
            [sys.executable, "-c", block],
            cwd=tmp_path / "copy",
            env={**environment, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")},
            stdout=-1,
            stderr=-1,
        )
        for block in blocks
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()[-3000:]


def test_the_card_passes_the_hubs_own_validation(pushed, hf_output):
    hub, _ = pushed
    card = DatasetCard.load(hf_output / "README.md")
    assert isinstance(card.data, DatasetCardData)
    front = yaml.safe_load((hf_output / "README.md").read_text("utf-8").split("---\n")[1])
    assert card.data.to_dict() == front  # nothing of it is lost or misread
    before = len(hub.called("validate-yaml"))
    program = "import sys; from huggingface_hub import DatasetCard; DatasetCard.load(sys.argv[1]).validate('dataset')"
    subprocess.run(
        [sys.executable, "-c", program, str(Path(hf_output) / "README.md")], env=pushed[1], check=True
    )
    assert len(hub.called("validate-yaml")) == before + 1
