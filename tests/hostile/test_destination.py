"""Links planted where an output grows, and destinations that are the source by another name: nothing outside is
read or written."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tree
from corpus import make_source
from helpers.examples import encode_features, write_frames

from converters import convert, verify
from converters.errors import CallError, ConverterError


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path / "source")


@pytest.fixture
def victim(tmp_path):
    """Somebody's folder, which must stay as it is."""
    folder = tmp_path / "victim"
    (folder / "below").mkdir(parents=True)
    (folder / "file").write_text("precious")
    (folder / "empty").write_text("")
    return folder


def everything(folder) -> dict:
    return tree(folder) | {str(path): None for path in sorted(folder.rglob("*")) if path.is_dir()}


def status(kfer_convert, source, out, *more) -> int:
    done = kfer_convert(source, "--to", "jpeg", "--out", out, *more)
    assert "Traceback" not in done.err
    assert str(out) in done.err
    return done.status


@pytest.mark.parametrize("target", ["victim", "victim/file", "nowhere"])
@pytest.mark.parametrize("name", ["out", "out.incomplete"])
@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_a_link_at_the_destination_or_where_it_grows(
    kfer_convert, source, victim, tmp_path, target, name, more
):
    (tmp_path / "to").mkdir()
    before = everything(victim)
    (tmp_path / "to" / name).symlink_to(tmp_path / target)
    assert status(kfer_convert, source, tmp_path / "to" / "out", *more) in (1, 2)
    assert everything(victim) == before
    assert not (tmp_path / "nowhere").exists()
    assert (tmp_path / "to" / name).is_symlink()


@pytest.mark.parametrize("target", ["victim", "victim/file", "victim/empty", "nowhere"])
@pytest.mark.parametrize("name", ["lock", "output", "shards", "replaced", "garbage"])
def test_a_link_in_a_staging_folder_that_was_left_behind(
    kfer_convert, source, victim, tmp_path, target, name
):
    before = everything(victim)
    staging = tmp_path / "out.incomplete"
    staging.mkdir()
    if name != "lock":
        (staging / "lock").write_text("")
    (staging / name).symlink_to(tmp_path / target)
    assert status(kfer_convert, source, tmp_path / "out") in (1, 2)
    assert everything(victim) == before
    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "out").exists()


def test_links_inside_an_output_that_is_replaced_are_not_followed(kfer_convert, source, victim, tmp_path):
    """--overwrite takes the old output away; what its links lead to stays."""
    out = tmp_path / "out"
    convert(source, to="jpeg", out=out)
    before = everything(victim)
    shutil.rmtree(out / "c" / "train" / "images")
    (out / "c" / "train" / "images").symlink_to(victim)
    kfer_convert(source, "--to", "jpeg", "--out", out, "--overwrite")
    assert everything(victim) == before


def test_the_parent_exchanged_for_a_link_while_it_runs(source, victim, tmp_path):
    before = everything(victim)
    parent = tmp_path / "to"
    parent.mkdir()

    def exchange(stage, count):
        if not parent.is_symlink():
            parent.rename(tmp_path / "moved")
            parent.symlink_to(victim)

    with pytest.raises(ConverterError):
        convert(source, to="jpeg", out=parent / "out", max_shard_bytes=300, progress=exchange)
    assert everything(victim) == before


@pytest.mark.parametrize("spelling", ["out", "OUT", "./x/../out", "link/out", "link"])
@pytest.mark.parametrize("inside", ["source", "labels"])
def test_a_destination_in_what_is_read_is_refused_however_it_is_spelled(source, tmp_path, spelling, inside):
    (source / "x").mkdir()
    (source / "link").symlink_to(source)
    (source / "labels").mkdir()
    before = everything(source)
    base = source if inside == "source" else source / "labels"
    (base / "link").exists() or (base / "link").symlink_to(base)
    options = {} if inside == "source" else {"labels": base}
    with pytest.raises(CallError):
        convert(source, to="jpeg", out=base / spelling, **options)
    if inside == "source":
        assert everything(source) == before


def test_two_dots_behind_a_link_are_the_folder_above_what_it_leads_to(source, tmp_path):
    """As the system has it: by the text alone, this output would be in the source."""
    (tmp_path / "elsewhere" / "below").mkdir(parents=True)
    (tmp_path / "elsewhere" / source.name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "below")
    before = everything(source)
    convert(source, to="jpeg", out=tmp_path / "link" / ".." / source.name / "out")
    assert everything(source) == before
    assert verify(tmp_path / "elsewhere" / source.name / "out").failures() == []


def test_a_source_in_the_destination_is_refused_however_it_is_spelled(source, tmp_path):
    inner = make_source(tmp_path / "out" / "deep" / "source")
    (tmp_path / "link").symlink_to(tmp_path / "out" / "deep")
    before = everything(tmp_path / "out")
    for read in (inner, tmp_path / "link" / "source", tmp_path / "link" / ".." / "deep" / "source"):
        for out in (tmp_path / "out", tmp_path / "x" / ".." / "out", tmp_path / "link" / ".."):
            with pytest.raises(CallError):
                convert(read, to="jpeg", out=out, overwrite=True)
    assert everything(tmp_path / "out") == before


def test_the_source_by_another_name_of_the_same_folder_is_refused(source, tmp_path, monkeypatch):
    """As through a bind mount, or where case does not count: another path, the same inode."""
    other = make_source(tmp_path / "other")
    stat = os.stat

    def same(path, *more, **options):
        if isinstance(path, str | os.PathLike) and os.fspath(path) == os.fspath(other):
            path = source
        return stat(path, *more, **options)

    monkeypatch.setattr(os, "stat", same)
    with pytest.raises(CallError, match="must not lie in each other"):
        convert(source, to="jpeg", out=other / "out")
    assert not (other / "out").exists()


@pytest.mark.parametrize("out", ["loop/out", "loop", "file/out", "n" * 300, "n" * 250])
def test_a_destination_that_cannot_be_is_a_wrong_call(kfer_convert, source, tmp_path, out):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    assert status(kfer_convert, source, tmp_path / out) == 2
    assert (tmp_path / "file").read_text() == ""


def test_a_conversion_with_all_this_around_it_still_works(source, victim, tmp_path):
    before = everything(victim)
    convert(source, to="jpeg", out=tmp_path / "to" / "out")
    assert verify(tmp_path / "to" / "out").failures() == []
    assert everything(victim) == before


def test_an_empty_folder_is_taken_and_a_mount_point_is_not(sample, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    options = {"to": "parquet", "out": out, "configs": ["6_basic_emo"], "splits": ["test"]}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_mount", lambda path: path == out)
        with pytest.raises(CallError, match=r"mount point.*folder inside it"):
            convert(sample, **options)
    (out / "file").touch()
    with pytest.raises(CallError, match="exists already"):
        convert(sample, **options)
    (out / "file").unlink()
    assert not verify(convert(sample, **options).out).failures()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="Linux's unshare is not here")
def test_a_bind_mount_is_a_mount_point_too(sample, tmp_path):
    """Of the same file system, so that no number of a device tells."""
    out = tmp_path / "o\\u t"
    out.mkdir()
    command = [sys.executable, "-m", "converters", str(sample), "--to", "parquet", "--out", str(out)]
    mount = shlex.join(["mount", "--bind", str(tmp_path), str(out)])
    script = f"{mount} && touch mounted && {shlex.join(command)}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    if not (tmp_path / "mounted").exists():
        pytest.skip(f"no bind mount can be made here: {done.stderr}")
    assert done.returncode == 2
    assert "mount point" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mounted", out.name]


@pytest.mark.skipif(sys.platform == "darwin", reason="its names are UTF-8")
def test_a_source_folder_whose_name_is_no_utf8(tmp_path):
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    source.mkdir()
    write_frames(source / "train.tfrecord", [encode_features({"a": [1]})])
    convert(source, to="parquet", out=tmp_path / "out")
    assert not verify(tmp_path / "out", source=source).failures()
    write_frames(source / os.fsdecode(b"\xfe.tfrecord"), [encode_features({"a": [1]})])
    with pytest.raises(CallError, match="Rename it"):
        convert(source, to="parquet", out=tmp_path / "other")
