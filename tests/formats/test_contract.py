"""Every format keeps the contract of formats, whatever the columns; and the contract finds formats that do not."""

import re
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import digests

from converters.dataset.description import Split
from converters.dataset.schema import Column, Schema
from converters.dataset.shard import Shard
from converters.errors import CallError, DataError
from converters.formats import available_formats, load_format
from converters.testing import check_format
from converters.testing.datasets import datasets, image

ALL = tuple(dataset.name for dataset in datasets())
NO_CLASSES = {name for name in ALL if name != "labels"}
NO_FIELDS = {"null images", "null bytes", "lists of bytes", "floats"}
NOT_IN_TEXT = {"null images", "bytes", "lists of bytes", "null bytes", "floats", "no image"}

# Each layout, with its options, and the datasets that it refuses.
LAYOUTS = {
    "arrayrecord": ({}, set()),
    "arrow": ({}, set()),
    "hf": ({}, set()),
    "jpeg": ({}, NOT_IN_TEXT),
    "jpeg, a folder for each class": ({"class_folders": True}, NO_CLASSES),
    "lance": ({}, set()),
    "parquet": ({}, set()),
    "tfrecord": ({}, set()),
    "tfrecord, with indexes": ({"index": True}, set()),
    "webdataset": ({}, NO_FIELDS),
    "webdataset, named jpg": ({"image_suffix": "jpg"}, NO_FIELDS),
}
NEEDS = {"arrayrecord": "array_record", "lance": "lance"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_format_keeps_the_contract(layout):
    name = layout.partition(",")[0]
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    options, refused = LAYOUTS[layout]
    held = check_format(lambda: load_format(name, **options))
    assert set(ALL) - set(held) == refused


def test_every_format_of_this_package_is_among_them():
    entries = available_formats()
    ours = {entry.value for entry in entries.values() if entry.value.startswith("converters.")}
    assert ours == {entries[layout.partition(",")[0]].value for layout in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_refusal_says_what_to_leave_out(layout, tmp_path):
    name = layout.partition(",")[0]
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    options, refused = LAYOUTS[layout]
    for dataset in datasets():
        if dataset.name not in refused:
            continue
        target = load_format(name, **options)
        with pytest.raises(
            (CallError, DataError), match=r"--without \w+|Choose another format|--class-folders"
        ):
            target.refuse([split.split for split in dataset.splits])
            for split in dataset.splits:
                for shard in split.shards():
                    folder = tmp_path / dataset.name / shard.key
                    folder.mkdir(parents=True)
                    target.write(split.records(shard), shard, folder)


# --- Bytes -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many():
    """A split of many records with texts, enough for libraries to learn codes of them."""
    columns = (
        Column("image", pa.binary(), "image", "image"),
        Column("label", pa.int64(), "label", "label", nullable=True),
        Column("text", pa.string(), feature="text"),
        Column("texts", pa.list_(pa.string()), feature="texts", nullable=True),
        Column("pair", pa.list_(pa.float32(), 2), feature="pair", nullable=True),
    )
    split = Split("one", "train", Schema(columns), ("train.tfrecord",))
    rows = [
        {
            "image": image(number % 5),
            "label": number if number % 3 else None,
            "text": f"the text of record {number}, which is much like that of others",
            "texts": [f"word {number}"] * (number % 4) if number % 5 else None,
            "pair": [number, 0.5] if number % 7 else None,
        }
        for number in range(5000)
    ]
    return split, pa.RecordBatch.from_pylist(rows, schema=split.schema.arrow)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "class" not in name])
def test_bytes_do_not_depend_on_how_records_come(layout, many, tmp_path):
    name = layout.partition(",")[0]
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    split, batch = many
    shard = Shard(split, 0, 1, 0, (), 0)
    found = []
    for step in (5000, 5000, 611):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        batches = [batch.slice(start, step) for start in range(0, len(batch), step)]
        if step == 611:  # from elsewhere, and so with other bytes behind what is null
            batches = [pa.RecordBatch.from_pylist(part.to_pylist(), schema=part.schema) for part in batches]
        load_format(name, **LAYOUTS[layout][0]).write(batches, shard, folder)
        found.append(digests(folder))
    assert found[0] == found[1] == found[2]


# --- The README's example, and formats that break the contract ---------------------------------------


@pytest.fixture(scope="module")
def example():
    """The class that the README shows."""
    text = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(# kfer-convert-stream/kfer_stream\.py\n.*?)```", text, re.DOTALL)
    scope: dict = {}
    exec(code, scope)
    return scope["StreamFormat"], code


def test_the_example_of_the_readme_keeps_the_contract(example):
    assert set(check_format(example[0])) == set(ALL)


def test_the_example_of_the_readme_is_short(example):
    assert len(example[1].splitlines()) < 35


def changed(line: str, by: str):
    return lambda code: code.replace(line, by)


BROKEN = {
    "loses a record": (
        changed("yield batch", "yield batch.slice(0, len(batch) - 1)"), "records are read back as"
    ),
    "writes a record twice": (
        changed("writer.write_batch(batch)", "writer.write_batch(batch); writer.write_batch(batch.slice(0, 1))"),
        "records are read back as",
    ),
    "changes the order": (
        changed("yield batch", "yield batch.take(list(range(len(batch)))[::-1])"), "is read back with other values"
    ),
    "takes not every batch": (
        changed("for batch in batches:", "for batch in [next(iter(batches))] if shard.first_record == 0 else batches:"),
        "did not take every batch|StopIteration",
    ),
    "says that it wrote less": (changed("return [path]", "return []"), "write says it wrote"),
    "writes other bytes each time": (
        changed("return [path]", "import os; path.open('ab').write(os.urandom(8)); return [path]"),
        "the bytes differ",
    ),
    "gives all shards one name": (changed("-{shard.numbered()}", "-0-of-1"), "two shards write"),
    "reads another split, too": (changed("{split.name}-*-of-*", "{split.name}*-of-*"), "records are read back as"),
    "reads from memory": (
        changed("return [path]", "KEPT[path.name] = path.read_bytes(); return [path]"), "is not read back"
    ),
    "refuses everything": (
        changed("    def read(", "    def refuse(self, splits):\n        raise CallError('no')\n\n    def read("),
        "refuses the dataset",
    ),
    "changes a file when it finishes": (
        changed(
            "    def read(",
            "    def finish(self, report, folder):\n"
            "        next(folder.rglob('*.arrows')).open('ab').write(b'x')\n\n    def read(",
        ),
        "finish changed or removed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_format_that_breaks_the_contract_is_found(example, fault):
    change, message = BROKEN[fault]
    code = change(example[1])
    assert code != example[1]
    if fault == "reads from memory":
        code = code.replace('with path.open("rb") as file:', "with io.BytesIO(KEPT[path.name]) as file:")
    scope: dict = {"KEPT": {}, "CallError": CallError}
    exec("import io\n" + code, scope)
    with pytest.raises((AssertionError, RuntimeError), match=message):
        check_format(scope["StreamFormat"])
