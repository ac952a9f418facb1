"""An interrupted run's finished shards are taken up by the same run, by no other one, and only if they are intact."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial, reduce
from operator import getitem
from pathlib import Path

import pytest
from conftest import digests, drop_published, flip, is_there, tfrecords, tree

from converters import CallError, DataError, convert
from converters.errors import MachineError
from converters.formats.parquet import ParquetFormat

SHARDS = {"max_shard_bytes": 14_000, "configs": ["multi-label"]}


def interrupt(source: Path, out: Path, to: str = "parquet", shards: int = 3, **options) -> list[Path]:
    """Interrupt a run after so many shards; the results that it left."""
    stages = {"shards": 0}
    last = ["read"]

    def progress(stage: str, count: int) -> None:
        # In one process each shard is read, then verified.
        if stage == "read" and last[0] == "verified":
            stages["shards"] += 1
            if stages["shards"] == shards:
                raise KeyboardInterrupt
        last[0] = stage

    with pytest.raises(KeyboardInterrupt) as caught:
        convert(source, to=to, out=out, progress=progress, **SHARDS | options)
    assert not out.exists()
    assert caught.value.__notes__[0].startswith(
        f"interrupted; nothing was published. {shards} finished shard"
    )
    found = sorted(out.with_name("out.incomplete").glob("shards/*.json"))
    assert len(found) == shards
    return found


@pytest.fixture(scope="module")
def expected(sample, tmp_path_factory) -> dict[str, str]:
    """What a run that nothing disturbed writes to Parquet."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    convert(sample, to="parquet", out=out, **SHARDS)
    return digests(out)


@pytest.mark.parametrize("to", ["parquet", "jpeg", "hf"])
@pytest.mark.parametrize("labels", [False, True])
def test_the_next_run_takes_up_what_is_finished_and_ends_with_the_same_bytes(sample, tmp_path, to, labels):
    options = SHARDS | ({"labels": sample / "labels"} if labels else {})
    convert(sample, to=to, out=tmp_path / "expected", **options)
    interrupt(sample, tmp_path / "out", to, **options)
    report = convert(sample, to=to, out=tmp_path / "out", **options)
    assert report.resumed_shards == 3
    assert not report.failures()
    assert digests(tmp_path / "out") == digests(tmp_path / "expected")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "expected"}


def test_shards_can_be_taken_up_more_than_once(sample, expected, tmp_path):
    interrupt(sample, tmp_path / "out", shards=1)
    first = list(tmp_path.glob("out.incomplete/shards/*.json"))

    def progress(stage: str, count: int) -> None:
        if len(list(tmp_path.glob("out.incomplete/shards/*.json"))) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(sample, to="parquet", out=tmp_path / "out", progress=progress, **SHARDS)
    assert first[0].is_file()
    assert convert(sample, to="parquet", out=tmp_path / "out", **SHARDS).resumed_shards == 3
    assert digests(tmp_path / "out") == expected


def _flip(folder: Path) -> None:
    flip(next(path for path in folder.rglob("*.parquet")), 200)


def _truncate(folder: Path) -> None:
    path = next(folder.rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])


def _edit_result(folder: Path) -> None:
    path = folder.with_name(folder.name + ".json")
    document = json.loads(path.read_text())
    document["slices"][0]["end"] += 1
    path.write_text(json.dumps(document))


MADE_UP = [
    (("files", 0, 0), {}),
    (("files", 0, 0), "../../../../elsewhere"),
    (("files", 0, 1), 1.5),
    (("slices", 0, "records"), "x"),
    (("source", "image_bytes"), "x"),
    (("output", "records"), []),
    (("output", "label_counts"), "x"),
    (("output", "label_counts"), [1]),
    (("output", "label_sets"), {}),
    (("output", "identities"), []),
    (("source", "labels"), ""),
    (("source", "nodes"), [[0, 0.5, "00"]]),
    (("source", "nodes"), []),
    (("source", "nodes", 0, "digest"), ""),
]


def _set(keys: tuple[str | int, ...], value: object, folder: Path) -> None:
    path = folder.with_name(folder.name + ".json")
    document = json.loads(path.read_text())
    *outer, last = keys
    reduce(getitem, outer, document)[last] = value
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "spoil",
    [
        _flip,
        _truncate,
        _edit_result,
        lambda folder: next(folder.rglob("*.parquet")).unlink(),
        lambda folder: (folder / "more").write_text(""),
        lambda folder: folder.with_name(folder.name + ".json").write_text("{"),
        lambda folder: folder.with_name(folder.name + ".json").write_text("[]"),
        lambda folder: folder.with_name(folder.name + ".json").write_text('{"files": 1}'),
        *(partial(_set, keys, value) for keys, value in MADE_UP),
    ],
    ids=["a byte", "its end", "another range", "no file", "a file more", "no JSON", "a list", "wrong types"]
    + [f"{'.'.join(map(str, keys))}={value}" for keys, value in MADE_UP],
)
def test_a_shard_that_is_not_intact_is_done_again(sample, expected, tmp_path, spoil):
    result = interrupt(sample, tmp_path / "out")[1]
    spoil(result.with_suffix(""))
    report = convert(sample, to="parquet", out=tmp_path / "out", **SHARDS)
    assert report.resumed_shards == 2
    assert digests(tmp_path / "out") == expected
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_files_that_were_moved_to_the_output_already_count(sample, expected, tmp_path):
    folder = interrupt(sample, tmp_path / "out", "parquet")[0].with_suffix("")
    (tmp_path / "out.incomplete" / "output").rmdir()
    folder.rename(tmp_path / "out.incomplete" / "output")
    assert convert(sample, to="parquet", out=tmp_path / "out", **SHARDS).resumed_shards == 3
    assert digests(tmp_path / "out") == expected


@pytest.mark.parametrize("other", ["options", "format", "source", "source file", "labels", "version"])
def test_another_run_does_not_take_them_up_and_says_how_to_clear_them(source, tmp_path, monkeypatch, other):
    kept = interrupt(source, tmp_path / "out")
    options, to = dict(SHARDS), "parquet"
    if other == "options":
        options["decode"] = True
    elif other == "format":
        to = "hf"
    elif other == "source":
        source = source.rename(tmp_path / "elsewhere")
    elif other == "source file":
        os.utime(tfrecords(source, "multi-label", "test"), (1, 1))
    elif other == "labels":
        options["labels"] = source / "labels"
    else:
        monkeypatch.setattr("converters.staging.checkpoint.version", lambda name: "0")
    before = digests(tmp_path / "out.incomplete")
    with pytest.raises(CallError) as caught:
        convert(source, to=to, out=tmp_path / "out", **options)
    assert f"rm -r {tmp_path / 'out.incomplete'}" in str(caught.value)
    word = {"source file": "source", "labels": "options and source"}.get(other, other)
    assert f"differs in {word}," in str(caught.value)
    assert digests(tmp_path / "out.incomplete") == before
    assert all(path.is_file() for path in kept)
    assert not (tmp_path / "out").exists()


def test_a_run_of_other_options_begins_anew_where_nothing_is_finished(sample, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        convert(sample, to="parquet", out=tmp_path / "out", progress=_interrupt)
    (tmp_path / "out.incomplete").mkdir()
    (tmp_path / "out.incomplete" / "lock").write_bytes(b"kfer-convert staging\n")
    (tmp_path / "out.incomplete" / "run.json").write_text("{}")
    (tmp_path / "out.incomplete" / "shards" / "0" / "multi-label").mkdir(parents=True)
    assert convert(sample, to="parquet", out=tmp_path / "out").resumed_shards == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _interrupt(stage: str, count: int) -> None:
    raise KeyboardInterrupt


def test_what_is_finished_is_kept_when_memory_runs_out(sample, tmp_path, monkeypatch, kfer_convert):
    """It is the machine that is to blame then, not the format in which it happens."""
    write = ParquetFormat.write
    calls = []

    def greedy(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return write(self, *arguments)

    arguments = (sample, "--to", "parquet", "--out", tmp_path / "out", "--max-shard-size", 14_000)
    arguments += ("--config", "multi-label")
    with monkeypatch.context() as patch:
        patch.setattr(ParquetFormat, "write", greedy)
        done = kfer_convert(*arguments)
    assert done.status == 1
    assert len(done.err.splitlines()) == 1
    assert "there is not enough memory" in done.err
    assert "2 finished shards are kept" in done.err
    done = kfer_convert(*arguments, "--json")
    assert done.status == 0
    assert json.loads(done.out)["resumed_shards"] == 2


def test_nothing_is_kept_when_the_data_is_to_blame(source, tmp_path):
    flip(tfrecords(source, "multi-label", "test"), -20)
    with pytest.raises(DataError, match="checksum"):
        convert(source, to="parquet", out=tmp_path / "out", **SHARDS)
    assert [path.name for path in tmp_path.iterdir()] == ["tfrecords"]


@pytest.mark.parametrize("link", ["output", "shards", "run.json", "replaced", "shards/0"])
def test_no_link_in_a_staging_folder_is_followed(sample, tmp_path, link):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "multi-label").mkdir(parents=True)
    (elsewhere / "precious").write_text("data")
    staging = tmp_path / "out.incomplete"
    (staging / link).parent.mkdir(parents=True)
    (staging / "lock").write_bytes(b"kfer-convert staging\n")
    (staging / link).symlink_to(elsewhere)
    if link == "shards/0":
        convert(sample, to="parquet", out=tmp_path / "out", **SHARDS)
    else:
        with pytest.raises(CallError, match="no staging folder"):
            convert(sample, to="parquet", out=tmp_path / "out", **SHARDS)
    assert tree(elsewhere).keys() == {"precious"}
    assert sorted(path.name for path in elsewhere.iterdir()) == ["multi-label", "precious"]


@pytest.mark.parametrize("way", ["a name", "a link"])
def test_what_a_result_says_moves_no_file_from_elsewhere(sample, expected, tmp_path, way):
    result = interrupt(sample, tmp_path / "out")[1]
    document = json.loads(result.read_text())
    name = document["files"][0][0]
    precious = tmp_path / "elsewhere" / Path(name).name
    precious.parent.mkdir()
    precious.write_text("data")
    if way == "a name":
        document["files"][0][0] = f"../../elsewhere/{precious.name}"
        result.write_text(json.dumps(document))
    else:
        (result.with_suffix("") / name).unlink()
        folder = tmp_path / "out.incomplete" / "output" / Path(name).parent
        folder.parent.mkdir(exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.symlink_to(precious.parent)
    assert convert(sample, to="parquet", out=tmp_path / "out", **SHARDS).resumed_shards == 2
    assert digests(tmp_path / "out") == expected
    assert precious.read_text() == "data"


# --- The source changes ------------------------------------------------------------------------------------


def _touch(path: Path) -> None:
    os.utime(path, (1, 1))


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 16)


def _rewrite(path: Path) -> None:
    """Another byte, under the same size and time."""
    status = path.stat()
    flip(path, 40)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [_touch, _append, _rewrite])
@pytest.mark.parametrize("max_shard_bytes", [14_000, 500_000_000])
def test_a_source_that_changes_after_it_was_read_fails_the_run(source, tmp_path, change, max_shard_bytes):
    drop_published(source)
    done = []

    def progress(stage: str, count: int) -> None:
        if stage == "verified" and not done:
            done.append(change(tfrecords(source, "6_basic_emo", "train")))

    with pytest.raises(DataError, match=r"6_basic_emo_train\.tfrecords.*changed while it was converted"):
        convert(
            source,
            to="parquet",
            out=tmp_path / "out",
            configs=["6_basic_emo"],
            max_shard_bytes=max_shard_bytes,
            progress=progress,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["tfrecords"]


@pytest.mark.parametrize(
    ("what", "change"), [("index", _touch), ("index", Path.unlink), ("label CSV", _touch)]
)
def test_an_index_or_a_label_csv_that_changes_while_it_is_used_fails_the_run(source, tmp_path, what, change):
    """Its shards may have read different ones."""
    csv = source / "labels" / "label_6_basic_emo_train.csv"
    path = csv if what == "label CSV" else tfrecords(source, "6_basic_emo", "train").with_suffix(".idx")
    done = []

    def progress(stage: str, count: int) -> None:
        # With one shard, each is read by now, and not needed again but for this.
        if stage == "verified" and not done:
            done.append(change(path))

    with pytest.raises(DataError, match=rf"{path.name}.*changed while it was converted") as caught:
        convert(
            source,
            to="parquet",
            out=tmp_path / "out",
            configs=["6_basic_emo"],
            splits=["train"],
            labels=source / "labels" if what == "label CSV" else None,
            progress=progress,
        )
    assert caught.value.exit_status == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tfrecords"]


def test_a_shard_that_was_finished_before_the_source_changed_is_not_believed(source, tmp_path):
    drop_published(source)
    interrupt(source, tmp_path / "out")
    _rewrite(tfrecords(source, "multi-label", "train"))
    with pytest.raises(CallError, match="an interrupted run that differs in source"):
        convert(source, to="parquet", out=tmp_path / "out", **SHARDS)
    assert not (tmp_path / "out").exists()


def test_paranoid_finds_a_change_that_no_state_shows(source, tmp_path, monkeypatch):
    """A disk that forgets, or a file system that keeps no times: here, a state that is always the same."""
    drop_published(source)
    for module in ("converters.formats.tfrecord.source", "converters.formats.tfrecord.discovery"):
        monkeypatch.setattr(f"{module}.file_state", lambda path: (path.stat().st_size, "same"), raising=False)
    changed = []

    def progress(stage: str, count: int) -> None:
        if stage == "verified" and not changed:
            changed.append(_rewrite(tfrecords(source, "6_basic_emo", "train")))

    options = {"configs": ["6_basic_emo"], "progress": progress}
    with pytest.raises(DataError, match=r"6_basic_emo_train\.tfrecords.*changed while it was converted"):
        convert(source, to="parquet", out=tmp_path / "out", paranoid=True, **options)
    assert not (tmp_path / "out").exists()


# --- Processes -----------------------------------------------------------------------------------------------


def command(source: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "converters", str(source), "--to", "parquet", "--out", str(out), *more]


def test_of_two_runs_into_one_destination_exactly_one_succeeds(sample, tmp_path):
    out = tmp_path / "out"
    runs = [subprocess.Popen(command(sample, out, "-q"), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 2]
    assert "another run is writing this output" in "".join(errors) or "exists already" in "".join(errors)
    assert "Traceback" not in "".join(errors)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    check = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, check=False)
    assert check.returncode == 0


def test_ctrl_c_does_not_wait_for_the_source_to_be_hashed_to_its_end(sample, tmp_path):
    program = (
        "import os, time\n"
        "from concurrent.futures import CancelledError\n"
        "from converters import __main__\n"
        "from converters.formats.tfrecord import source\n"
        "def endless(path, ends, stop):\n"
        "    os.write(1, b'hashing\\n')\n"
        "    while not stop:\n"
        "        time.sleep(0.001)\n"
        "    raise CancelledError\n"
        "source.hash_ranges = endless\n"
        "__main__.main()\n"
    )
    arguments = command(sample, tmp_path / "out", "--workers", "1", "--paranoid")[3:]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "hashing\n"
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "interrupted; nothing was published. 9 finished shards are kept" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_end_at_once_and_what_they_finished_is_kept(sample, tmp_path, number):
    out = tmp_path / "out"
    more = ["--workers", "2", "--max-shard-size", "3000"]
    process = subprocess.Popen(
        command(sample, out, *more), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not is_there(tmp_path, "out.incomplete/shards/*.json") and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "kept in" in error
    assert len(error.strip().splitlines()) == 1, error  # no traceback, nor anything of multiprocessing's
    assert not out.exists()
    again = subprocess.run(command(sample, out, *more), capture_output=True, text=True, check=True)
    assert "Taken up from an interrupted run, and verified again" in again.stdout


def test_a_worker_that_is_killed_ends_the_run_and_the_finished_shards_are_kept(sample, tmp_path, monkeypatch):
    """The engine's tasks run in processes that this test can see."""
    out = tmp_path / "out"

    def kill() -> None:
        while not is_there(tmp_path, "out.incomplete/shards/*.json"):
            time.sleep(0.01)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(MachineError, match=r"a worker process was ended by SIGKILL.*kept in"):
        convert(sample, to="parquet", out=out, workers=2, max_shard_bytes=3000)
    killer.join()
    assert not out.exists()
    assert convert(sample, to="parquet", out=out, max_shard_bytes=3000).resumed_shards > 0
