"""Nothing that is not ours is removed, and the destination is the old output or the new one, whatever interrupts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import is_there

from converters import CallError, convert, verify
from converters.staging import fsync as durability
from converters.staging.folder import FolderStaging
from converters.storage.file_list import OutputFile
from converters.storage.files import staging_place


def output(folder: Path, text: str) -> Path:
    """A folder that looks like an output of this program."""
    folder.mkdir(parents=True)
    manifest = {"manifest_version": 1, "written_by": {"kfer-convert": "0"}, "files": [{"path": "data"}]}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "SHA256SUMS").write_text("")
    (folder / "data").write_text(text)
    return folder


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_the_staging_name_that_is_not_ours_is_left_alone(sample, tmp_path):
    theirs = tmp_path / "out.incomplete"
    theirs.mkdir()
    (theirs / "precious").write_text("data")
    with pytest.raises(CallError, match="no staging folder"):
        convert(sample, to="parquet", out=tmp_path / "out")
    assert tree(theirs) == {"precious": "data"}


@pytest.mark.parametrize("read", ["source", "labels"])
def test_what_is_read_must_not_lie_where_the_output_grows(sample, tmp_path, read):
    link = tmp_path / "out.incomplete"
    link.symlink_to(sample if read == "source" else sample / "labels")
    before = sorted(path.name for path in sample.iterdir())
    with pytest.raises(CallError, match="must not lie in each other"):
        if read == "source":
            convert(link, to="parquet", out=tmp_path / "out")
        else:
            convert(sample, to="parquet", out=tmp_path / "out", labels=link)
    assert sorted(path.name for path in sample.iterdir()) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "notes.txt").write_text("mine"),
        lambda folder: (folder / "MANIFEST.json").write_text("{}"),
        lambda folder: (folder / "MANIFEST.json").unlink(),
    ],
    ids=["a file more", "another manifest", "no manifest"],
)
def test_overwrite_replaces_nothing_that_is_not_an_output_alone(sample, tmp_path, spoil):
    out = output(tmp_path / "out", "old")
    spoil(out)
    before = tree(out)
    with pytest.raises(CallError, match="so nothing is replaced here"):
        convert(sample, to="parquet", out=out, overwrite=True)
    assert tree(out) == before


def test_overwrite_replaces_an_output_of_another_version(sample, tmp_path):
    out = tmp_path / "out"
    convert(sample, to="parquet", out=out, configs=["22_emo"])
    path = out / "MANIFEST.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"manifest_version": 0, "more": 1}))
    convert(sample, to="parquet", out=out, configs=["22_emo"], overwrite=True)
    assert verify(out).failures() == []


@pytest.mark.parametrize("step", range(1, 4))
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(5, "Input/output error")])
def test_whatever_interrupts_the_renames_one_of_the_outputs_is_there(
    tmp_path, monkeypatch, step, when, error
):
    destination = output(tmp_path / "out", "old")
    renames = 0
    rename = Path.rename

    def interrupted(path, target):
        nonlocal renames
        renames += 1
        if renames == step and when == "before":
            raise error
        result = rename(path, target)
        if renames == step and when == "after":
            raise error
        return result

    staging = FolderStaging(destination, overwrite=True)
    with pytest.raises((KeyboardInterrupt, OSError)), staging:
        output(staging.output / "x", "new")
        for path in list((staging.output / "x").iterdir()):
            path.rename(staging.output / path.name)
        (staging.output / "x").rmdir()
        there = {path.name for path in staging.output.iterdir()}
        for name in {"MANIFEST.json", "SHA256SUMS"} - there:
            (staging.output / name).touch()
        listed = [OutputFile(name, 0, "") for name in sorted(there - {"MANIFEST.json", "SHA256SUMS"})]
        monkeypatch.setattr(Path, "rename", interrupted)
        staging.publish(listed)
    assert tree(destination)["data"] == ("new" if staging.published else "old")
    assert staging.published == (step > 1 and (step, when) != (2, "before"))
    assert list(tmp_path.iterdir()) == [destination]


@pytest.mark.parametrize("many", [False, True])
def test_all_is_on_the_disk_before_the_rename_that_publishes_it(sample, tmp_path, monkeypatch, many):
    """A power cut right after the rename must find every file and folder whole."""
    synced: set[int] = set()
    fsync, rename = os.fsync, Path.rename
    published = []

    def noted_fsync(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def noted_file_system(folder):
        synced.update(path.stat().st_ino for path in [folder, *folder.rglob("*")])
        return True

    def noted_rename(self, target):
        if target == tmp_path / "out":
            there = [self, *self.rglob("*")]
            assert {path.stat().st_ino for path in there} <= synced
            assert {"MANIFEST.json", "SHA256SUMS"} < {path.name for path in there}
            published.append(target)
            synced.clear()
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    if many:
        monkeypatch.setattr(durability, "_MANY_FILES", 5)
        monkeypatch.setattr(durability, "_sync_file_system", noted_file_system)
    convert(sample, to="parquet", out=tmp_path / "out")
    assert published == [tmp_path / "out"]
    assert synced == {tmp_path.stat().st_ino}  # after it, the folder in which the new name stands


def test_an_output_that_was_moved_aside_by_a_killed_run_comes_back(tmp_path):
    destination = tmp_path / "out"
    with FolderStaging(destination):
        pass
    output(staging_place(destination) / "replaced", "old")
    (staging_place(destination) / "lock").write_bytes(b"")
    with pytest.raises(CallError, match="exists already"), FolderStaging(destination):
        pass
    assert tree(destination)["data"] == "old"


def test_one_that_was_being_deleted_does_not(tmp_path):
    destination = tmp_path / "out"
    output(staging_place(destination) / "garbage", "half")
    (staging_place(destination) / "lock").write_bytes(b"")
    with FolderStaging(destination):
        assert not destination.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_no_output_and_the_next_one_completes(sample, tmp_path, number, workers):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "converters", str(sample), "--to", "parquet", "--out", str(out), "-q"]
    command += ["--workers", str(workers), "--max-shard-size", "3000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not is_there(tmp_path, "out.incomplete/shards/*") and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in error
    assert not out.exists()
    assert subprocess.run(command, check=False, timeout=120).returncode == 0
    assert list(tmp_path.iterdir()) == [out]
