"""Image folders of datasets unlike KFER, and what they refuse; against records written by hand."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import renew
from helpers.examples import write_frames
from helpers.unlike_kfer import encode, picture
from hypothesis import given, settings
from hypothesis import strategies as st

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported

from converters import convert, verify
from converters.dataset.description import Split, parse_description
from converters.dataset.shard import Shard
from converters.errors import CallError, DataError, MachineError
from converters.formats import load_format
from converters.formats.jpeg.metadata import Metadata

NAMES = ["cat", "dog", "bird"]
TRICKY = ["NA", "007", "", "nan", "True", "2020-01-01", 'x"y, z', " 1 ", "한\u2028글", "\\n"]


def make(folder: Path, columns: dict, splits: dict[str, list[dict]]) -> Path:
    """A source of one config, ``shapes``."""
    folder.mkdir(parents=True)
    for split, records in splits.items():
        write_frames(folder / f"{split}.tfrecord", [encode(row, columns) for row in records], index=False)
    files = {split: {"file": f"{split}.tfrecord"} for split in splits}
    document = {"name": "shapes", "configs": {"shapes": {"columns": columns, "splits": files}}}
    (folder / "dataset.json").write_text(json.dumps(document), "utf-8")
    return folder


IMAGE = {"image": {"role": "image"}}
LABEL = {"label": {"role": "label", "label_names": NAMES}}


def scene(number: int) -> dict:
    boxes = number % 4
    return {
        "image": picture(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"][number % 6], number),
        "seg/mask": picture("PNG", 1000 + number),
        "label": number % 3,
        "boxes": [float(np.float32(0.1 * number + box)) for box in range(boxes)],
        "score": float(np.float32([0.1, 1.0, -0.0, 3e38, 1e-45, 123456789.0][number % 6])),
        "text": TRICKY[number % len(TRICKY)],
        "tags": TRICKY[:boxes],
        "corners": [number, -number, 2**62 + number],
        "maybe": None if number % 2 else number,
        "big": 2**60 + number,
        "height": 7,
        "width": 9,
    }


SCENE = {
    "image": {"role": "image"},
    "seg/mask": {"role": "image"},
    "label": {"role": "label", "label_names": NAMES},
    "boxes": "float32[]",
    "score": "float32",
    "text": "string",
    "tags": "string[]",
    "corners": "int64[3]",
    "maybe": {"type": "int64", "nullable": True},
    "big": "int64",
    "height": {"role": "height"},
    "width": {"role": "width"},
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    splits = {
        "train": [scene(number) for number in range(23)],
        "holdout": [scene(number) for number in range(40, 47)],
    }
    return make(tmp_path_factory.mktemp("scenes") / "source", SCENE, splits), splits


def rows_of(folder: Path) -> list[dict]:
    """The rows of the one metadata file of a split."""
    [path] = [path for path in folder.iterdir() if path.is_file()]
    if path.name == "metadata.csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    assert path.name == "metadata.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


@pytest.mark.parametrize("shard_bytes", [10**9, 3000])
def test_every_value_stands_in_the_files_as_it_is_in_the_source(scenes, tmp_path, shard_bytes):
    source, splits = scenes
    out = tmp_path / "out"
    convert(source, to="jpeg", out=out, max_shard_bytes=shard_bytes)
    for split, records in splits.items():
        folder = out / "shapes" / split
        rows = rows_of(folder)
        assert len(rows) == len(records)
        for row, record in zip(rows, records, strict=True):
            assert (folder / row.pop("file_name")).read_bytes() == record["image"]
            assert (folder / row.pop("seg/mask_file_name")).read_bytes() == record["seg/mask"]
            assert row.pop("label_name") == NAMES[record["label"]]
            expected = {
                name: value
                for name, value in record.items()
                if name not in ("image", "seg/mask", "height", "width")
            }
            assert repr(row) == repr(expected)  # -0.0 is not 0.0, and 1 is not 1.0
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len(files) == 2 * len(records) + 1
        assert any("-of-" in path.parent.name for path in files) == (shard_bytes < 10**9)
    assert not verify(out, source=source).failures()


def test_datasets_loads_every_value(scenes, tmp_path):
    datasets = pytest.importorskip("datasets")
    source, splits = scenes
    out = tmp_path / "out"
    convert(source, to="jpeg", out=out, max_shard_bytes=3000)
    loaded = datasets.load_dataset(str(out), "shapes", cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == list(splits)
    for split, rows in loaded.items():
        for name in ("image", "seg/mask"):
            rows = rows.cast_column(name, datasets.Image(decode=False))
        for row, record in zip(rows, splits[split], strict=True):
            for name in ("image", "seg/mask"):
                assert Path(row[name]["path"]).read_bytes() == record[name]
            for name in ("label", "boxes", "score", "text", "tags", "corners", "maybe", "big"):
                assert repr(row[name]) == repr(record[name])


def test_the_readme_loads_a_split_that_lacks_what_another_has(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    columns = IMAGE | {"boxes": "float32[]", "score": {"type": "float32", "nullable": True}, "n": "int64"}
    values = {"test": {"boxes": [], "score": None}, "train": {"boxes": [0.5], "score": 2.0}}
    splits = {name: [{"image": PICTURE, "n": n} | own for n in range(3)] for name, own in values.items()}
    convert(make(tmp_path / "source", columns, splits), to="jpeg", out=tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    text = Path("README.md").read_text("utf-8")
    assert "In `shapes` this may be so of `boxes`, `score`." in text
    together, alone = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with pytest.raises(ValueError, match="different features"):
        exec(together, {})
    for split, records in splits.items():
        exec(alone.replace('"test"', f'"{split}"'), scope := {})
        rows = scope["dataset"].remove_columns("image")
        assert list(rows) == [{name: record[name] for name in rows.column_names} for record in records]


def test_an_output_is_a_source_with_the_same_fingerprint(scenes, tmp_path):
    source, _ = scenes
    convert(source, to="jpeg", out=tmp_path / "folder", max_shard_bytes=3000)
    convert(tmp_path / "folder", to="parquet", out=tmp_path / "parquet")
    fingerprints = [
        [
            split["fingerprint"]
            for split in json.loads((tmp_path / name / "MANIFEST.json").read_text())["splits"]
        ]
        for name in ("folder", "parquet")
    ]
    assert fingerprints[0] == fingerprints[1]


# --- Labels ----------------------------------------------------------------------------------------------

LABELS = {
    "a number": ({"role": "label", "label_names": NAMES}, [0, 2, 1], "csv"),
    "numbers from 10": (
        {"role": "label", "label_names": dict(zip(("10", "20", "30"), NAMES, strict=True))},
        [10, 30, 20],
        "csv",
    ),
    "unlabelled": ({"role": "label", "label_names": NAMES}, [0, -1, 1], "csv"),
    "names that CSV makes something else of": (
        {"role": "label", "label_names": ["NA", "7", "a"]},
        [0, 2, 1],
        "jsonl",
    ),
    "a list": ({"type": "int64[]", "role": "label", "label_names": NAMES}, [[2, 0], [], [1]], "jsonl"),
    "missing": ({"role": "label", "label_names": NAMES, "nullable": True}, [1, None, 2], "jsonl"),
    "no names": ({"role": "label"}, [5, 3, -4], "csv"),
    "text": ({"type": "string", "role": "label"}, ["a", "", "NA"], "jsonl"),
    "a vector": (
        {"type": "uint8[3]", "role": "label", "label_names": ["NA", "7", "a b"], "kind": "multi-label"},
        [[1, 0, 1], [0, 1, 0], [1, 1, 1]],
        "csv",
    ),
    "a vector with the name of a column": (
        {"type": "int64[3]", "role": "label", "label_names": ["image", "n", "c"], "kind": "single-label"},
        [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
        "jsonl",
    ),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_by_number_and_by_name(tmp_path, case):
    column, values, suffix = LABELS[case]
    ids = column.get("label_names", [])
    names = ids if isinstance(ids, dict) else {str(number): name for number, name in enumerate(ids)}
    stored = "stored" if isinstance(ids, dict) or "kind" in column else "label"
    columns = {**IMAGE, stored: column, "n": "int64"}
    records = [
        {"image": picture("PNG", number), stored: value, "n": number} for number, value in enumerate(values)
    ]
    source = make(tmp_path / "source", columns, {"train": records})
    convert(source, to="jpeg", out=tmp_path / "out")
    folder = tmp_path / "out" / "shapes" / "train"
    assert (folder / f"metadata.{suffix}").exists()
    for row, value in zip(rows_of(folder), values, strict=True):
        if "kind" in column and suffix == "csv":
            assert [int(row[name]) for name in ids] == value
            assert row.keys() == {"file_name", "n", *ids}
            continue
        assert row[stored] == (str(value) if suffix == "csv" else value)
        if "kind" in column:
            assert (row["label"], row["label_name"]) == (value.index(1), ids[value.index(1)])
        elif isinstance(value, list):
            assert row["label_names"] == [names[str(number)] for number in value]
        elif names:
            assert (row["label_name"] or None) == names.get(str(value))
            if isinstance(ids, dict):
                assert row["label"] == str(list(names).index(str(value)))
        else:
            assert "label_name" not in row
    assert not verify(tmp_path / "out", source=source).failures()


def test_many_names_are_no_columns_of_a_csv(tmp_path):
    names = [f"n{number}" for number in range(1001)]
    label = {"type": "int64[1001]", "role": "label", "label_names": names, "kind": "single-label"}
    vectors = [[int(place == number * 10) for place in range(1001)] for number in range(3)]
    records = [{"image": picture("PNG", number), "v": vector} for number, vector in enumerate(vectors)]
    source = make(tmp_path / "source", IMAGE | {"v": label}, {"train": records})
    convert(source, to="jpeg", out=tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "shapes" / "train")
    assert [(row["label"], row["label_name"]) for row in rows] == [(0, "n0"), (10, "n10"), (20, "n20")]
    assert [row["v"] for row in rows] == vectors


# --- Class folders ---------------------------------------------------------------------------------------


def labelled(tmp_path, columns, values, name="label"):
    records = [{"image": picture("PNG", number), name: value} for number, value in enumerate(values)]
    return make(tmp_path / "source", IMAGE | columns, {"train": records, "test": records[:3]}), records


def test_class_folders_of_numbers_are_in_the_order_of_the_names(tmp_path):
    columns = {"kind": {"role": "label", "label_names": dict(zip(("30", "4", "7"), NAMES, strict=True))}}
    source, records = labelled(tmp_path, columns, [30, 4, 7, 7, 4], "kind")
    out = tmp_path / "out"
    convert(source, to="jpeg", out=out, class_folders=True, max_shard_bytes=600)
    folder = out / "shapes" / "train"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["00_dog", "01_bird", "02_cat"]
    rows = rows_of(folder)
    assert [row["file_name"].split("/")[0] for row in rows] == [
        {30: "02_cat", 4: "00_dog", 7: "01_bird"}[record["kind"]] for record in records
    ]
    assert [int(row["label"]) for row in rows] == [2, 0, 1, 1, 0]
    assert [(folder / row["file_name"]).read_bytes() for row in rows] == [
        record["image"] for record in records
    ]
    assert not verify(out, source=source).failures()


def test_keras_and_torchvision_find_the_numbers(tmp_path):
    source, records = labelled(tmp_path, LABEL, [2, 0, 1, 2, 0])
    out = tmp_path / "out"
    convert(source, to="jpeg", out=out, class_folders=True)
    folder = out / "shapes" / "train"
    program = f"""
import json, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
rows = keras.utils.image_dataset_from_directory({str(folder)!r}, shuffle=False, batch_size=None)
print(json.dumps([rows.class_names, [[path, int(label)] for path, (_, label) in zip(rows.file_paths, rows)]]))
"""
    pytest.importorskip("tensorflow")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names, found = json.loads(done.stdout.splitlines()[-1])
    assert names == ["00_cat", "01_dog", "02_bird"]
    by_image = {record["image"]: record["label"] for record in records}
    assert {Path(path).read_bytes(): label for path, label in found} == by_image
    torchvision = pytest.importorskip("torchvision.datasets")
    assert {
        Path(path).read_bytes(): label for path, label in torchvision.ImageFolder(folder).samples
    } == by_image


def test_a_thousand_class_folders_with_few_descriptors(tmp_path):
    columns = {"label": {"role": "label", "label_names": [f"n{number}" for number in range(1000)]}}
    source, _ = labelled(tmp_path, columns, list(range(0, 1000, 3)))
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from converters import convert, verify
convert({str(source)!r}, to="jpeg", out={str(tmp_path / "out")!r}, class_folders=True)
assert not verify({str(tmp_path / "out")!r}).failures()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "out" / "shapes" / "train" / "999_n999").is_dir()


# --- Refusals --------------------------------------------------------------------------------------------

PICTURE = picture("PNG", 1)
REFUSED = {
    "bytes": (IMAGE | {"raw": "binary"}, {"raw": b"\xff"}, {}, "raw holds bytes .*--without raw"),
    "a list of bytes": (
        IMAGE | {"raw": "binary[]"},
        {"raw": [b"\xff"]},
        {},
        "raw holds bytes .*--without raw",
    ),
    "no image": ({"n": "int64"}, {"n": 1}, {}, "no column is an image.*inspect"),
    "an image that may be missing": ({"image": {"role": "image", "nullable": True}}, {}, {}, "may have no"),
    "the name file_name": (IMAGE | {"file_name": "string"}, {"file_name": "a"}, {}, "--without file_name"),
    "the name of a further image": (
        IMAGE | {"x_file_name": "string"},
        {"x_file_name": "a"},
        {},
        "x_file_name",
    ),
    "files of two columns with one name": (
        IMAGE | {"a/b": {"role": "image"}, "a b": {"role": "image"}},
        {"a/b": PICTURE, "a b": PICTURE},
        {},
        "the column a b would have files named as those of the column a/b",
    ),
    "the name image": (
        {"picture": {"role": "image"}, "image": "string"},
        {"picture": PICTURE, "image": "a"},
        {},
        "the column image",
    ),
    "class folders without names": (
        IMAGE | {"label": {"role": "label"}},
        {"label": 1},
        {"class_folders": True},
        "class-folders: the records of shapes/train",
    ),
    "class folders of what may lack a label": (
        IMAGE | {"label": {"role": "label", "label_names": NAMES, "nullable": True}},
        {"label": 1},
        {"class_folders": True},
        "may lack a label",
    ),
    "class folders with a mask": (
        IMAGE | LABEL | {"mask": {"role": "image"}},
        {"label": 1, "mask": PICTURE},
        {"class_folders": True},
        "mask",
    ),
    "a class that is no folder": (
        IMAGE | {"label": {"role": "label", "label_names": ["a/b"]}},
        {"label": 0},
        {"class_folders": True},
        "a/b",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_folder_cannot_hold_is_refused_beforehand(tmp_path, case):
    columns, record, options, message = REFUSED[case]
    image = {"image": PICTURE} if columns.keys() >= {"image"} else {}
    source = make(tmp_path / "source", columns, {"train": [image | record]})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CallError, match=message):
        convert(source, to="jpeg", out=tmp_path / "out", **options)
    assert sorted(tmp_path.rglob("*")) == before


FOUND_LATER = {
    "NaN": ({"x": "float32"}, [{"x": 1.0}, {"x": float("nan")}], {}, r"record 1\).* x .*--without x"),
    "infinite": (
        {"x": "float32[]"},
        [{"x": []}, {"x": [1.0, -float("inf")]}],
        {},
        r"record 1\).*--without x",
    ),
    "a split's name": (
        {"name": {"role": "file_name"}},
        [{"name": "a.png"}, {"name": "my test 1.png"}],
        {},
        r"record 1\).*'test'",
    ),
    "a name twice": (
        {"name": {"role": "file_name"}},
        [{"name": "a.png"}, {"name": "A.jpg"}],
        {},
        r"record 1\).*earlier",
    ),
    "no label": (
        LABEL,
        [{"label": 1}, {"label": -1}],
        {"class_folders": True},
        r"record 1\).*no class folder",
    ),
}


@pytest.mark.parametrize("case", FOUND_LATER)
def test_values_that_a_folder_cannot_hold_publish_nothing(tmp_path, case):
    columns, records, options, message = FOUND_LATER[case]
    records = [{"image": picture("PNG", number)} | record for number, record in enumerate(records)]
    source = make(tmp_path / "source", IMAGE | columns, {"train": records})
    with pytest.raises(DataError, match=message):
        convert(source, to="jpeg", out=tmp_path / "out", **options)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_file_names_name_the_files_by_what_is_in_them(tmp_path):
    names = ["a b.PNG", "얼굴.jpeg", "plain", "x.y"]
    records = [{"image": picture("GIF", number), "name": name} for number, name in enumerate(names)]
    source = make(tmp_path / "source", IMAGE | {"name": {"role": "file_name"}}, {"train": records})
    convert(source, to="jpeg", out=tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "shapes" / "train")
    assert [row["file_name"] for row in rows] == [
        f"images/{stem}.gif" for stem in ("a b", "얼굴", "plain", "x.y")
    ]
    assert [row["name"] for row in rows] == names


# --- Reading back ----------------------------------------------------------------------------------------


def exchange(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def swap(folder: Path, one: str, other: str) -> None:
    """Exchange two files."""
    (folder / one).rename(folder / "x")
    (folder / other).rename(folder / one)
    (folder / "x").rename(folder / other)


FORGED = {
    "a name": lambda folder: exchange(folder / "metadata.csv", '"cat"', '"dog"'),
    "a name that no label has": lambda folder: exchange(folder / "metadata.csv", '"cat"', '"cow"'),
    "a rank": lambda folder: exchange(folder / "metadata.csv", ",0,30,", ",1,30,"),
    "a stored number": lambda folder: exchange(folder / "metadata.csv", ",0,30,", ",0,40,"),
    "the header": lambda folder: exchange(folder / "metadata.csv", "label,kind", "kind,label"),
    "the order of the rows": lambda folder: (folder / "metadata.csv").write_text(
        "".join(
            (lines := (folder / "metadata.csv").read_text().splitlines(True))[:1]
            + lines[2:3]
            + lines[1:2]
            + lines[3:]
        )
    ),
    "the class of an image": lambda folder: (
        exchange(folder / "metadata.csv", "00_cat/00000000", "01_dog/00000000"),
        (folder / "00_cat/00000000.png").rename(folder / "01_dog/00000000.png"),
    ),
    "the name of a file": lambda folder: (
        exchange(folder / "metadata.csv", "00_cat/00000000.png", "00_cat/00000009.png"),
        (folder / "00_cat/00000000.png").rename(folder / "00_cat/00000009.png"),
    ),
    "its suffix": lambda folder: (
        exchange(folder / "metadata.csv", "00_cat/00000000.png", "00_cat/00000000.jpg"),
        (folder / "00_cat/00000000.png").rename(folder / "00_cat/00000000.jpg"),
    ),
    "two images": lambda folder: swap(folder, "00_cat/00000000.png", "01_dog/00000001.png"),
    "a file too many": lambda folder: (folder / "00_cat/extra.png").write_bytes(PICTURE),
    "an empty class": lambda folder: (folder / "03_cow").mkdir(),
    "a class too many": lambda folder: (
        (folder / "03_cow").mkdir(),
        (folder / "03_cow/extra.png").write_bytes(PICTURE),
    ),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_folder_fails_though_every_digest_is_renewed(tmp_path, case):
    columns = {"kind": {"role": "label", "label_names": dict(zip(("30", "40", "50"), NAMES, strict=True))}}
    source, _ = labelled(tmp_path, columns, [30, 40, 50, 30], "kind")
    out = tmp_path / "out"
    convert(source, to="jpeg", out=out, class_folders=True, splits=["train"])
    assert not verify(out).failures()
    folder = out / "shapes" / "train"
    FORGED[case](folder)
    manifest = json.loads((out / "MANIFEST.json").read_text())
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    listed = {file["path"] for file in manifest["files"]}
    manifest["files"] = sorted(
        [file for file in manifest["files"] if file["path"] in there]
        + [
            {"path": path, "size": 0, "sha256": ""}
            for path in there - listed - {"MANIFEST.json", "SHA256SUMS"}
        ],
        key=lambda file: file["path"],
    )
    manifest["empty_folders"] = sorted(
        str(path.relative_to(out)) for path in out.rglob("*") if path.is_dir() and not any(path.iterdir())
    )
    (out / "MANIFEST.json").write_text(json.dumps(manifest))
    renew(out)
    failures = verify(out).failures()
    assert failures
    assert all("not in the manifest" not in failure for failure in failures)


def test_the_parts_of_a_split_s_metadata_stay_until_the_output_is_published(scenes, tmp_path, monkeypatch):
    source, splits = scenes
    out = tmp_path / "out"
    options = {"to": "jpeg", "max_shard_bytes": 3000}

    def full(folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("converters.staging.folder.sync_tree", full)
        with pytest.raises(MachineError, match="No space left"):
            convert(source, out=out, **options)
    shards = len(list((tmp_path / "out.incomplete").rglob("metadata-*")))
    assert shards > len(splits)
    report = convert(source, out=out, **options)
    assert report.resumed_shards == shards
    convert(source, out=tmp_path / "again", **options)
    assert (out / "SHA256SUMS").read_bytes() == (tmp_path / "again" / "SHA256SUMS").read_bytes()


# --- Metadata files --------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
FLOAT = st.floats(width=32, allow_nan=False, allow_infinity=False)
INTEGER = st.integers(-(2**63), 2**63 - 1)
SCHEMA = {
    "image": {"role": "image"},
    "label": {"type": "int64[]", "role": "label", "label_names": ["NA", "b", "c"]},
    "text": "string",
    "texts": "string[]",
    "x": {"type": "float32", "nullable": True},
    "xs": "float32[2]",
    "n": "int64",
}
RECORD = st.fixed_dictionaries(
    {
        "label": st.lists(st.integers(0, 2), max_size=3),
        "text": TEXT,
        "texts": st.lists(TEXT, max_size=3),
        "x": st.none() | FLOAT,
        "xs": st.lists(FLOAT, min_size=2, max_size=2),
        "n": INTEGER,
    }
)


def described(columns: dict) -> Split:
    document = {"configs": {"c": {"columns": columns, "splits": {"s": {"file": "f"}}}}}
    return parse_description(document, "").splits()[0]


def written_and_read(split: Split, batch: pa.RecordBatch, path: Path) -> pa.Table:
    metadata = Metadata(split)
    rows = metadata.rows(batch, {"image": [f"images/{number}.jpg" for number in range(len(batch))]})
    with path.open("wb") as file:
        metadata.writer(file, header=True)(rows)
    found = list(metadata.read(path, header=True))
    assert pa.Table.from_batches(found, rows.schema).equals(pa.Table.from_batches([rows]))
    columns = [metadata.stored(part, lambda row: row) for part in found]
    return pa.Table.from_batches([pa.RecordBatch.from_pydict(part) for part in columns])


@settings(max_examples=60, deadline=None)
@given(records=st.lists(RECORD, min_size=1, max_size=6))
def test_json_lines_give_every_value_back(tmp_path_factory, records):
    split = described(SCHEMA)
    images = [{"image": b"\xff\xd8"} | record for record in records]
    batch = pa.RecordBatch.from_pylist(images, schema=split.schema.arrow)
    found = written_and_read(split, batch, tmp_path_factory.mktemp("lines") / "metadata.jsonl")
    assert repr(found.to_pylist()) == repr(batch.select(found.column_names).to_pylist())


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(
        TEXT.filter(lambda name: name.isprintable() and name), min_size=1, max_size=4, unique=True
    ),
    data=st.data(),
)
def test_csv_gives_every_label_back(tmp_path_factory, names, data):
    columns = {
        "image": {"role": "image"},
        "n": "int64",
        "v": {
            "type": f"uint8[{len(names)}]",
            "role": "label",
            "label_names": names,
            "kind": "multi-label",
            "unlabelled": True,
        },
    }
    split = described(columns)
    vector = st.lists(st.integers(0, 1), min_size=len(names), max_size=len(names))
    records = data.draw(st.lists(st.fixed_dictionaries({"n": INTEGER, "v": vector}), min_size=1, max_size=5))
    batch = pa.RecordBatch.from_pylist(
        [{"image": b""} | record for record in records], schema=split.schema.arrow
    )
    path = tmp_path_factory.mktemp("csv") / "metadata"
    found = written_and_read(split, batch, path)
    assert found.select(["n", "v"]).to_pylist() == records
    if Metadata(split).is_csv:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        assert header == ["file_name", "n", *names]
        assert [[int(cell) for cell in row[1:]] for row in rows] == [
            [record["n"], *record["v"]] for record in records
        ]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[1]",
        b'{"file_name": "images/0.jpg"}',
        b'{"n": 1, "file_name": "images/0.jpg"}',
        b'{"file_name": "images/0.jpg", "n": 1, "n": 2}',
        b'{"file_name": "images/0.jpg", "n": 1.5}',
        b'{"file_name": "images/0.jpg", "n": "1"}',
        b'{"file_name": "images/0.jpg", "n": 9223372036854775808}',
        b'{"file_name": 3, "n": 1}',
        b'{"file_name": "images/0.jpg", "n": 1} x',
        b'{"file_name": "\xff", "n": 1}',
    ],
)
def test_malformed_lines_are_told_with_their_record(tmp_path, line):
    split = described({"image": {"role": "image"}, "n": {"type": "int64", "nullable": True}})
    path = tmp_path / "metadata.jsonl"
    path.write_bytes(b'{"file_name": "images/0.jpg", "n": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"metadata\.jsonl"):
        list(Metadata(split).read(path, header=True))


def test_the_parts_are_joined_in_the_order_of_the_shards():
    split = described(SCHEMA)
    target = load_format("jpeg")
    assert target.joins(split, 1) == {}
    [(file, parts)] = target.joins(split, 100_001).items()
    assert file == "c/s/metadata.jsonl"
    assert parts == sorted(parts)
    assert parts[7] == f"c/s/metadata-{Shard(split, 7, 100_001, 0, (), 0).numbered()}.jsonl"
