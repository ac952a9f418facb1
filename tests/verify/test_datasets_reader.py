"""`datasets` as a second opinion: it must see in every output what the format reads back, and say where it does not."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import edit_description, renew, tree
from helpers.unlike_kfer import CONFIGS, make

from converters import CallError, convert, verify
from converters.dataset.manifest import read_manifest
from converters.errors import MachineError
from converters.formats.parquet import ParquetFormat
from converters.verify import datasets_child, datasets_reader

load_dataset = pytest.importorskip("datasets").load_dataset


@pytest.fixture(scope="module")
def outputs(sample, tmp_path_factory):
    """An output of each format, in shards, with identities. Never written to."""
    folder = tmp_path_factory.mktemp("outputs")
    for to in ("parquet", "jpeg", "hf"):
        convert(sample, to=to, out=folder / to, labels=sample / "labels", max_shard_bytes=60_000)
    return folder


@pytest.fixture
def output(outputs, tmp_path):
    """A copy of an output, to be changed."""
    return lambda to: Path(shutil.copytree(outputs / to, tmp_path / to))


def opinions(out, **options) -> dict[str, tuple[str, str]]:
    """Result and reason of the check by split, and nothing else of the report."""
    report = verify(out, reader="datasets", **options)
    found = {
        split.split.title: (check.result, check.reason)
        for split in report.splits
        for check in split.checks
        if check.name == "datasets"
    }
    assert len(found) == len(report.splits)
    return found


def exchange(text: str, one: str, other: str) -> str:
    return text.replace(one, "\0").replace(other, one).replace("\0", other)


@pytest.mark.parametrize("to", ["parquet", "jpeg", "hf"])
def test_all_is_as_the_format_reads_it(outputs, sample, to, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = tree(outputs / to)
    found = opinions(outputs / to, source=sample)
    assert len(found) == 9
    for title, (result, reason) in found.items():
        assert result == "passed", (title, reason)
    assert found["multi-label/train"][1].startswith("52 records")
    assert tree(outputs / to) == before
    assert list(tmp_path.iterdir()) == []


def test_label_names_exchanged_in_the_metadata_of_parquet_are_found(output, label_names):
    out = output("parquet")
    first, second = label_names["22_emo"][:2]
    for path in (out / "22_emo").glob("*.parquet"):
        table = pq.read_table(path)
        features = exchange(table.schema.metadata[b"huggingface"].decode(), f'"{first}"', f'"{second}"')
        pq.write_table(table.replace_schema_metadata({"huggingface": features}), path)
    renew(out)
    found = opinions(out)
    for title, (result, reason) in found.items():
        assert result == ("failed" if title.startswith("22_emo/") else "passed"), (title, reason)
    assert found["22_emo/test"][1] == f"the name of label 0 is {second!r}; the manifest says {first!r}"


def test_label_names_exchanged_in_the_card_are_found(output, label_names):
    out = output("hf")
    first, second = label_names["22_emo"][:2]
    card = (out / "README.md").read_text("utf-8")
    head, middle, tail = card.partition("- config_name: 22_emo\n  features:")
    names, rest, after = tail.partition("- name: label_vector")
    names = exchange(names, f"'0': {first}\n", f"'0': {second}\n").replace(
        f"'1': {second}\n", f"'1': {first}\n"
    )
    (out / "README.md").write_text(head + middle + names + rest + after, "utf-8")
    renew(out)
    (failure,) = verify(out).failures()  # what the card says is written again and compared
    assert failure.startswith("README.md: ")
    found = opinions(out)
    assert {title for title, (result, _) in found.items() if result == "failed"} == {
        "22_emo/train",
        "22_emo/valid",
        "22_emo/test",
    }
    assert f"{second!r}; the manifest says {first!r}" in found["22_emo/train"][1]


def test_a_card_that_leads_to_other_files_is_found(output):
    out = output("hf")
    card = (out / "README.md").read_text("utf-8")
    changed = exchange(card, "path: multi-label/test-*", "path: multi-label/validation-*")
    assert changed != card
    (out / "README.md").write_text(changed, "utf-8")
    renew(out)
    found = opinions(out)
    assert {title for title, (result, _) in found.items() if result == "failed"} == {
        "multi-label/valid",
        "multi-label/test",
    }
    assert found["multi-label/test"][1].startswith("record 0 (")


def test_a_split_that_the_card_does_not_name_is_found(output):
    out = output("hf")
    card = (out / "README.md").read_text("utf-8")
    changed = card.replace("  - split: validation\n    path: 22_emo/validation-*\n", "")
    assert changed != card
    (out / "README.md").write_text(changed, "utf-8")
    renew(out)
    found = opinions(out)
    assert {found[f"22_emo/{split}"][0] for split in ("train", "valid", "test")} == {"failed"}
    assert found["multi-label/train"][0] == "passed"


def test_a_file_that_keeps_datasets_from_loading_is_found(output):
    out = output("jpeg")
    path = "multi-label/test/metadata.jsonl"  # there is a metadata.csv, and `datasets` takes no two kinds
    (out / path).write_text("")
    document = json.loads((out / "MANIFEST.json").read_text())
    document["files"].append({"path": path, "size": 0, "sha256": ""})
    document["files"].sort(key=lambda file: file["path"].encode())
    (out / "MANIFEST.json").write_text(json.dumps(document))
    renew(out)
    failures = verify(out).failures()
    assert any(failure.startswith(f"{path}: no record and no format accounts") for failure in failures)
    found = opinions(out)
    assert {found[f"multi-label/{split}"][0] for split in ("train", "valid", "test")} == {"failed"}
    assert "cannot be loaded" in found["multi-label/test"][1]
    assert found["22_emo/test"][0] == "passed"


def test_what_was_changed_is_not_loaded(output):
    out = output("parquet")
    (out / "22_emo" / "extra.parquet").write_bytes(b"")
    assert set(opinions(out).values()) == {("unverified", "the content of the output was not read")}


# --- Other names, and other columns ---------------------------------------------------------------------


def test_class_folders_in_shards_are_confirmed(sample, tmp_path):
    convert(sample, to="jpeg", out=tmp_path / "out", class_folders=True, max_shard_bytes=20_000)
    assert {result for result, _ in opinions(tmp_path / "out").values()} == {"passed"}


@pytest.mark.parametrize("to", ["parquet", "jpeg"])
def test_other_names_of_splits_and_configs_are_confirmed(source, tmp_path, to):
    def rename(document):
        splits = document["configs"]["22_emo"]["splits"]
        splits["holdout"] = splits.pop("valid")
        document["configs"]["22 [a]"] = document["configs"].pop("22_emo")

    edit_description(source, rename)
    convert(source, to=to, out=tmp_path / "out")
    found = opinions(tmp_path / "out")
    assert "22 [a]/holdout" in found
    assert {result for result, _ in found.values()} == {"passed"}
    moved = (tmp_path / "out").rename(tmp_path / "o [ut]")
    assert {result for result, _ in opinions(moved).values()} == {"unverified"}


@pytest.mark.parametrize("to", ["parquet", "hf", "jpeg"])
def test_datasets_unlike_kfer_are_confirmed(tmp_path, to):
    make(tmp_path / "in")
    configs = ["numbered", "tagged", "plain"] if to == "jpeg" else []
    convert(tmp_path / "in", to=to, out=tmp_path / "out", configs=configs)
    found = opinions(tmp_path / "out")
    assert len(found) == 2 * len(configs or CONFIGS)
    for title, (result, reason) in found.items():
        assert result == "passed", (title, reason)


@pytest.mark.parametrize(
    ("config", "column"),
    [("detection", "image/object/bbox/xmin"), ("detection", "maybe_text"), ("numbered", "animal")],
)
def test_one_value_that_differs_from_what_is_read_back_is_found(tmp_path, config, column, monkeypatch):
    make(tmp_path / "in")
    convert(tmp_path / "in", to="parquet", out=tmp_path / "out", configs=[config])
    loaded = load_dataset(str(tmp_path / "out"), config, cache_dir=str(tmp_path / "cache"))
    read = datasets_child.read_back
    other = {"image/object/bbox/xmin": [0.5], "maybe_text": "x", "animal": 3}[column]

    def changed(target, out, split):
        for batch in read(target, out, split):
            rows = batch.to_pylist()
            rows[-1][column] = other if rows[-1][column] != other else None
            yield pa.RecordBatch.from_pylist(rows, schema=batch.schema)

    manifest, _ = read_manifest(tmp_path / "out")
    for entry in manifest.splits:
        rows, records = loaded[entry.split], entry.fingerprint.records
        arguments = (rows, ParquetFormat(), tmp_path / "out", manifest.split(entry), records)
        assert datasets_child.find_difference(*arguments) is None
        with monkeypatch.context() as patch:
            patch.setattr(datasets_child, "read_back", changed)
            reason = datasets_child.find_difference(*arguments)
        assert reason.startswith(("record 22 ", "record 4 "))


# --- The call and the machine ---------------------------------------------------------------------------


def test_no_code_of_the_current_folder_is_run(outputs, tmp_path, monkeypatch):
    for name in ("datasets", "pandas", "sitecustomize", "json"):
        (tmp_path / f"{name}.py").write_text("open('run', 'w')\nraise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    assert {result for result, _ in opinions(outputs / "jpeg").values()} == {"passed"}
    assert not (tmp_path / "run").exists()


def test_another_format_is_a_wrong_call():
    with pytest.raises(CallError, match="outputs of --to hf, jpeg, parquet; this is one of --to mine"):
        datasets_reader.require_known_layout("mine")


def test_a_process_that_dies_is_no_failure_of_the_data(outputs, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(MachineError, match=r"died \(exit status 1\)"):
        opinions(outputs / "hf")


def test_no_room_for_the_copy_is_said_before(outputs, monkeypatch):
    usage = shutil.disk_usage(outputs)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(MachineError, match="TMPDIR"):
        opinions(outputs / "hf")
    assert {result for result, _ in opinions(outputs / "jpeg").values()} == {"passed"}


def test_the_command(outputs, output, kfer_convert):
    done = kfer_convert("verify", outputs / "jpeg", "--reader", "datasets")
    assert (done.status, done.err) == (0, "")
    assert "datasets" in done.out.splitlines()[0]
    out = output("hf")
    card = (out / "README.md").read_text("utf-8")
    (out / "README.md").write_text(card.replace("22_emo/test-*", "22_emo/train-*"), "utf-8")
    renew(out)
    done = kfer_convert("verify", out, "--reader", "datasets")
    assert done.status == 1
    assert "22_emo/test: datasets: " in done.err, done
