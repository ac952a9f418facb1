"""The lines of the chapter ``proof`` that recompute ``records_sha256``: on values of every type, and changed ones."""

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.examples import encode_features, write_frames

from converters import convert
from converters.verify import compare

PROOF = Path(__file__).parents[2] / "converters" / "docs" / "proof.md"


@pytest.fixture
def recompute(tmp_path):
    """Runs the lines on an output."""
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", PROOF.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    allowed = {"hashlib", "json", "pathlib", "pyarrow"}
    assert set(re.findall(r"^(?:import|from) (\w+)", snippet, re.MULTILINE)) == allowed

    def run(out):
        text = snippet.replace('Path("kfer-parquet")', f"Path({str(out)!r})")
        return subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True)

    return run


@pytest.fixture
def odd(tmp_path):
    """Every type: negative and large numbers, NaN with a payload, lists that are empty, values that are missing."""
    folder = tmp_path / "odd"
    folder.mkdir()
    nan = float(np.frombuffer(struct.pack("<I", 0x7FC01234), np.float32)[0])
    records = [
        {
            "n": [-(2**63)],
            "many": [1, -2, 3],
            "f": [nan],
            "fs": [0.1, -0.0],
            "t": [b"\xc3\xa9"],
            "b": [b"\xff"],
        },
        {
            "n": [2**63 - 1],
            "many": [],
            "f": [1e-45],
            "fs": [1.5, 2.5, -3.5],
            "t": [b""],
            "b": [b"\xfe\x00"],
            "now": [5],
        },
        {"n": [0], "many": [7], "f": [float("inf")], "fs": [2.5], "t": [b"x"], "b": [b""], "now": [-6]},
    ] * 5
    write_frames(folder / "train.tfrecord", [encode_features(record) for record in records], index=False)
    return folder


def test_a_stranger_recomputes_the_root(recompute, odd, sample, tmp_path):
    convert(odd, to="parquet", out=tmp_path / "odd-out")
    convert(sample, to="hf", out=tmp_path / "hf", labels=sample / "labels", configs=["22_emo"])
    for out, records in (("odd-out", "default train 15"), ("hf", "22_emo train")):
        done = recompute(tmp_path / out)
        assert done.returncode == 0, done.stderr
        assert records in done.stdout


@pytest.mark.parametrize("column", ["n", "many", "f", "fs", "t", "b", "now"])
def test_a_changed_value_gives_another_root(recompute, odd, tmp_path, column):
    convert(odd, to="parquet", out=tmp_path / "out")
    (split,) = json.loads((tmp_path / "out" / "MANIFEST.json").read_text())["splits"]
    path = tmp_path / "out" / split["shards"][0]["files"][0]
    table = pq.read_table(path)
    moved = table[column].take(pa.array([*range(1, len(table)), 0]))  # every record has its neighbour's
    pq.write_table(
        table.set_column(table.column_names.index(column), table.schema.field(column), moved), path
    )
    done = recompute(tmp_path / "out")
    assert done.returncode == 1
    assert "AssertionError" in done.stderr


def test_the_tables_have_every_key_of_a_manifest(sample, tmp_path):
    convert(sample, to="parquet", out=tmp_path / "out", configs=["22_emo"], on_error="quarantine")
    document = json.loads((tmp_path / "out" / "MANIFEST.json").read_text())
    split = document["splits"][0]
    keys = {*document, *document["options"], *document["files"][0], *split, *split["columns"][0]}
    keys |= {
        *split["sources"][0],
        *split["fingerprint"],
        *split["shards"][0],
        *split["shards"][0]["nodes"][0],
    }
    keys |= set(split["checks"][0])
    chapter = PROOF.read_text("utf-8").split("## MANIFEST.json")[1]
    assert [key for key in sorted(keys) if f"`{key}`" not in chapter] == []


def test_the_table_has_every_check():
    table = PROOF.read_text("utf-8").split("| check |")[1].split("\n\n")[0]
    names = [value for name, value in vars(compare).items() if name.isupper() and isinstance(value, str)]
    names = [name for name in names if len(name) < 30] + ["source", "datasets"]
    assert [name for name in names if not re.search(rf"^\|.*\b{name}\b.*\|.*\|", table, re.MULTILINE)] == []
