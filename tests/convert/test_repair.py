"""A damaged output names its shards; the same command with --repair makes these again, and no others."""

import json
import shutil

import pytest
from conftest import digests, edit_description, flip
from helpers.examples import read_frames, write_frames

from converters import CallError, DataError, convert, verify
from converters.convert.shard_task import ShardTask
from converters.dataset.report import CheckError
from converters.errors import MachineError

OPTIONS = {"max_shard_bytes": 14_000, "configs": ["multi-label"]}
SECOND, LAST = "multi-label/train-00001-of-00011", "multi-label/train-00010-of-00011"


@pytest.fixture(scope="module")
def outputs(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    for to in ("parquet", "jpeg"):
        convert(sample, to=to, out=folder / to, labels=sample / "labels", **OPTIONS)
    return folder


@pytest.fixture
def made(monkeypatch):
    """The shards that are made, in order."""
    keys = []
    convert_shard = ShardTask._convert
    monkeypatch.setattr(
        ShardTask,
        "_convert",
        lambda self, shard, *rest: keys.append(shard.key) or convert_shard(self, shard, *rest),
    )
    return keys


def repair(sample, out, to="parquet", **options):
    return convert(sample, to=to, out=out, labels=sample / "labels", repair=True, **OPTIONS | options)


def _interrupt(stage, count):
    raise KeyboardInterrupt


def changed(path):
    flip(path, path.stat().st_size // 2)


def test_only_what_is_damaged_is_made_again(sample, outputs, tmp_path, made, kfer_convert):
    out = shutil.copytree(outputs / "parquet", tmp_path / "out")
    changed(out / f"{SECOND}.parquet")
    (out / f"{LAST}.parquet").unlink()
    before = {path: path.stat().st_ino for path in out.rglob("*.parquet")}
    report = verify(out)
    assert report.damaged_shards == (SECOND, LAST)
    assert report.to_json()["damaged_shards"] == [SECOND, LAST]
    assert [failure.partition(": ")[0] for failure in report.failures()] == [
        f"{SECOND}.parquet",
        f"{LAST}.parquet",
    ]
    done = kfer_convert("verify", out)
    assert done.status == 1
    assert (
        f"Shards to make again: {SECOND}, {LAST}. The command that made {out} does so with --repair."
        in done.err
    )
    report = repair(sample, out)
    assert made == [SECOND, LAST] == list(report.remade_shards)
    assert report.failures() == []
    assert digests(out) == digests(outputs / "parquet")
    after = {path: path.stat().st_ino for path in out.rglob("*.parquet")}
    assert [path.stem for path in before if before[path] != after[path]] == [SECOND.rpartition("/")[2]]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("to", ["parquet", "jpeg"])
def test_what_is_no_shard_s_is_written_again(sample, outputs, tmp_path, made, to):
    out = shutil.copytree(outputs / to, tmp_path / "out")
    changed(out / "README.md")
    (out / "SHA256SUMS").unlink()
    assert verify(out).damaged_shards == ()
    assert repair(sample, out, to).remade_shards == ()
    assert made == []
    assert digests(out) == digests(outputs / to)


def test_an_image_and_a_file_that_all_shards_have_parts_of(sample, outputs, tmp_path, made):
    out = shutil.copytree(outputs / "jpeg", tmp_path / "out")
    image = sorted((out / "multi-label" / "test").rglob("*.jpg"))[0]
    changed(image)
    assert verify(out).damaged_shards == ("multi-label/test-00000-of-00002",)
    repair(sample, out, "jpeg")
    assert made == ["multi-label/test-00000-of-00002"]
    changed(out / "multi-label" / "valid" / "metadata.csv")
    repair(sample, out, "jpeg")
    assert len(made) == 3
    assert digests(out) == digests(outputs / "jpeg")


def test_a_folder_that_lost_all_its_files_is_filled_again(sample, outputs, tmp_path, made):
    out = shutil.copytree(outputs / "parquet", tmp_path / "out")
    for path in (out / "multi-label").iterdir():
        path.unlink()
    failures = verify(out).failures()
    assert any(f"{SECOND}.parquet: this file is missing" in failure for failure in failures)
    assert not any("folder" in failure for failure in failures)
    repair(sample, out)
    assert len(made) == len(set(made)) == len(list((out / "multi-label").iterdir()))
    assert digests(out) == digests(outputs / "parquet")


def test_a_sound_output_is_left_as_it_is(sample, outputs, tmp_path, made, kfer_convert):
    out = shutil.copytree(outputs / "parquet", tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    command = [
        sample,
        "--to",
        "parquet",
        "--out",
        out,
        "--labels",
        sample / "labels",
        "--max-shard-size",
        14_000,
    ]
    done = kfer_convert(*command, "--config", "multi-label", "--repair")
    assert (done.status, made) == (0, [])
    assert "Shards made again: none" in done.out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize("other", [{"max_shard_bytes": 15_000}, {"to": "hf"}, {"without": ["depth"]}])
def test_another_command_mends_nothing(sample, outputs, tmp_path, other):
    out = shutil.copytree(outputs / "parquet", tmp_path / "out")
    changed(out / f"{SECOND}.parquet")
    before = digests(out)
    with pytest.raises(
        CallError, match=f"differs in {next(iter(other)).replace('to', 'format')}.*--overwrite"
    ):
        repair(sample, out, **{"to": "parquet"} | other)
    assert digests(out) == before


def test_records_of_another_source_take_no_place(source, outputs, tmp_path):
    """Its records are in another order; its files are as large, and so only reading them tells."""
    out = shutil.copytree(outputs / "parquet", tmp_path / "out")
    lost = "multi-label/valid-00000-of-00002.parquet"
    (out / lost).unlink()
    before = digests(out)
    path = source / "multi-label_valid.tfrecords"
    write_frames(path, read_frames(path)[::-1])
    with pytest.raises(DataError, match="does not belong to this file"):
        repair(source, out)
    edit_description(source, lambda document: document.update(name="other"))
    with pytest.raises(CallError, match="differs in description of the source"):
        repair(source, out)
    assert digests(out) == before


def test_a_manifest_that_was_changed_is_not_made_the_truth(sample, outputs, tmp_path):
    out = shutil.copytree(outputs / "parquet", tmp_path / "out")
    document = json.loads((out / "MANIFEST.json").read_text())
    document["warnings"] = ["made up"]
    (out / "MANIFEST.json").write_text(json.dumps(document))
    before = digests(out)
    with pytest.raises(CheckError, match="contradict each other"):
        repair(sample, out)
    assert digests(out) == before


@pytest.mark.parametrize("left", [0, 40, 100])
def test_sums_that_were_cut_are_written_again(sample, outputs, tmp_path, left):
    out = shutil.copytree(outputs / "parquet", tmp_path / "out")
    (out / "SHA256SUMS").write_bytes((out / "SHA256SUMS").read_bytes()[:left])
    repair(sample, out)
    assert digests(out) == digests(outputs / "parquet")


def test_an_interrupted_repair_goes_on_from_there(sample, outputs, tmp_path, made, monkeypatch):
    out = shutil.copytree(outputs / "parquet", tmp_path / "out")
    changed(out / f"{SECOND}.parquet")
    changed(out / f"{LAST}.parquet")
    attempt = ShardTask._convert

    def fail(self, shard, *rest):
        if shard.key == LAST:
            raise OSError(28, "No space left on device")
        return attempt(self, shard, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(ShardTask, "_convert", fail)
        with pytest.raises(MachineError, match=r"No space left on device.*goes on from there"):
            repair(sample, out)
        with pytest.raises(KeyboardInterrupt) as caught:
            repair(sample, out, progress=_interrupt)
        assert caught.value.__notes__[0].startswith("interrupted. What was mended stays so")
    assert verify(out).damaged_shards == (LAST,)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    repair(sample, out)
    assert made == [SECOND, LAST]
    assert digests(out) == digests(outputs / "parquet")


def test_what_is_not_the_output_s_is_not_touched(sample, outputs, tmp_path):
    out = shutil.copytree(outputs / "parquet", tmp_path / "out")
    changed(out / f"{SECOND}.parquet")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(CallError, match=r"notes\.txt"):
        repair(sample, out)
    with pytest.raises(CallError, match="no such folder"):
        repair(sample, tmp_path / "nowhere")
    with pytest.raises(CallError, match="choose one"):
        repair(sample, out, overwrite=True)


def test_what_is_in_quarantine_is_copied_again(source, tmp_path):
    flip(source / "multi-label_test.tfrecords", -20)
    options = {"on_error": "quarantine", "allow_mismatch": True}
    convert(source, to="parquet", out=tmp_path / "expected", labels=source / "labels", **OPTIONS | options)
    out = shutil.copytree(tmp_path / "expected", tmp_path / "out")
    shutil.rmtree(out / "quarantine")
    assert verify(out).failures()
    repair(source, out, **options)
    assert digests(out) == digests(tmp_path / "expected")


def test_sums_are_not_written_for_a_manifest_of_another_source(sample, outputs, tmp_path):
    out = shutil.copytree(outputs / "parquet", tmp_path / "out")
    (out / "SHA256SUMS").unlink()
    manifest = json.loads((out / "MANIFEST.json").read_text("utf-8"))
    facts = manifest["splits"][0]["sources"][0]
    facts["ranges"][0][1] = "0" * 64
    (out / "MANIFEST.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(CheckError):
        repair(sample, out)
    assert not (out / "SHA256SUMS").exists()


def test_a_source_of_other_files_mends_nothing(source, outputs, tmp_path):
    out = shutil.copytree(outputs / "parquet", tmp_path / "out")
    changed(out / "README.md")
    path = source / "multi-label_test.tfrecords"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CallError, match="differs in source"):
        repair(source, out)
