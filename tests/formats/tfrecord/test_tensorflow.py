"""TensorFlow as the second reader. Its start takes seconds, so most of this does without it."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import pytest
from conftest import digests, drop_published, read_records, tfrecords, write_records

from converters import convert, verify
from converters.errors import CallError, DataError
from converters.formats.tfrecord import tensorflow as second_reader
from converters.formats.tfrecord.framing import CHUNK_BYTES

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)


@pytest.fixture
def fresh():
    """No TensorFlow process from another test, before and after."""

    def close():
        if second_reader._process.cache_info().currsize:
            second_reader._process().close()
        second_reader._process.cache_clear()

    close()
    yield
    close()


@pytest.fixture
def stand_in(fresh, monkeypatch):
    """Puts a program of the test in the place of TensorFlow's."""
    popen = subprocess.Popen

    def use(program: str) -> None:
        monkeypatch.setattr(
            second_reader.subprocess,
            "Popen",
            lambda command, **more: popen([sys.executable, "-c", program], **more),
        )
        monkeypatch.setattr(second_reader, "require_tensorflow", lambda: None)
        monkeypatch.setattr(
            import_module("converters.formats.tfrecord.source"), "require_tensorflow", lambda: None
        )
        monkeypatch.setattr(import_module("converters.verify.output"), "require_tensorflow", lambda: None)

    return use


def run(sample, out, **more):
    return convert(sample, to="parquet", out=out, configs=["6_basic_emo"], reader="tensorflow", **more)


@needs_tensorflow
def test_tensorflow_confirms_what_is_converted(sample, source, tmp_path):
    """One TensorFlow process for all of it."""
    run(sample, tmp_path / "out")
    convert(sample, to="parquet", out=tmp_path / "native", configs=["6_basic_emo"])
    ours, theirs = digests(tmp_path / "native"), digests(tmp_path / "out")
    assert {name for name in ours if ours[name] != theirs[name]} == {"MANIFEST.json", "SHA256SUMS"}
    assert verify(tmp_path / "out", source=sample, reader="tensorflow").failures() == []

    # Files that go through several shards, and a failure between two splits, leave nothing unread behind.
    path = tfrecords(source, "6_basic_emo", "train")
    records = read_records(path)
    write_records(path, [*records[:-1], records[0]])
    problems = verify(tmp_path / "out", source=source, reader="tensorflow").failures()
    assert problems
    assert all(problem.startswith("6_basic_emo/train") for problem in problems)


@needs_tensorflow
def test_tensorflow_confirms_several_shards(sample, tmp_path):
    run(sample, tmp_path / "out", max_shard_bytes=20_000)
    assert len(list(tmp_path.rglob("train-*.parquet"))) > 1


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("", "died|ends"),
        ("import sys; sys.stdin.readline(); sys.exit(3)", "exit status 3"),
        ("import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)", "signal 9"),
        ('import sys; sys.stdin.readline(); print(\'{"request": 1, "bytes": 5000}\', flush=True)', "died"),
        (
            'import sys; sys.stdin.readline(); print(\'{"request": 1, "bytes": 0}\', flush=True)',
            "ends after 0 records",
        ),
        (
            'import sys; sys.stdin.readline(); print(\'{"request": 1, "error": "no such thing"}\', flush=True)',
            "no such thing",
        ),
        ("import sys; sys.stdin.readline(); print('this is no message', flush=True)", "TensorFlow"),
        (
            'import sys; sys.stdin.readline(); print(\'{"request": 1, "bytes": 9}\\nno arrow..\', flush=True)',
            "TensorFlow",
        ),
    ],
    ids=["gone", "exits", "killed", "dies in a message", "no records", "error", "no JSON", "no Arrow"],
)
def test_a_reader_that_fails_is_a_failed_check(sample, tmp_path, stand_in, kfer_convert, program, message):
    stand_in(program)
    done = kfer_convert(
        sample,
        "--to",
        "parquet",
        "--out",
        tmp_path / "out",
        "--config",
        "6_basic_emo",
        "--reader",
        "tensorflow",
    )
    assert done.status == 1
    import re

    assert re.search(message, done.err)
    assert "6_basic_emo_train.tfrecords" in done.err
    assert list(tmp_path.iterdir()) == []


@needs_tensorflow
def test_of_large_records_few_are_asked_for_at_once(source, tmp_path, stand_in, monkeypatch):
    """Or memory would grow with their size."""
    drop_published(source)
    path = tfrecords(source, "6_basic_emo", "train")
    record = read_records(path)[0]
    write_records(path, [replace(record, image=record.image[:-2] + bytes(1 << 20) + record.image[-2:])] * 9)
    asked = []

    class Process:
        def ask(self, request):
            asked.append(request["batch_records"])
            raise DataError("enough")

    monkeypatch.setattr(second_reader, "_process", Process)
    with pytest.raises(DataError, match="enough"):
        run(source, tmp_path / "out")
    assert asked == [CHUNK_BYTES // (1 << 20) - 1]  # whole records of a little over 1 MiB in a chunk


def test_a_silent_reader_is_a_failed_check(sample, tmp_path, stand_in, monkeypatch):
    stand_in("import time; time.sleep(60)")
    monkeypatch.setattr(second_reader, "SILENCE_SECONDS", 0.2)
    with pytest.raises(DataError, match="silent"):
        run(sample, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_silent_reader_fails_verification_too(sample, tmp_path, stand_in, monkeypatch):
    convert(sample, to="parquet", out=tmp_path / "out", configs=["6_basic_emo"], splits=["test"])
    stand_in("import time; time.sleep(60)")
    monkeypatch.setattr(second_reader, "SILENCE_SECONDS", 0.2)
    failures = verify(tmp_path / "out", source=sample, reader="tensorflow").failures()
    assert any("silent" in failure for failure in failures)


def test_a_dying_reader_fails_verification_too(sample, tmp_path, stand_in):
    convert(sample, to="parquet", out=tmp_path / "out", configs=["6_basic_emo"], splits=["test"])
    stand_in("import sys; sys.stdin.readline(); sys.exit(3)")
    failures = verify(tmp_path / "out", source=sample, reader="tensorflow").failures()
    assert any("exit status 3" in failure for failure in failures)


def test_without_tensorflow_it_says_what_to_install(sample, tmp_path, monkeypatch, kfer_convert):
    convert(sample, to="parquet", out=tmp_path / "there", configs=["22_emo"])
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "tensorflow" else find_spec(name, *more),
    )
    for arguments in (
        (sample, "--to", "parquet", "--out", tmp_path / "out"),
        ("verify", tmp_path / "there", "--source", sample),
    ):
        done = kfer_convert(*arguments, "--reader", "tensorflow")
        assert done.status == 2
        assert "pip install" in done.err
        assert "tensorflow" in done.err
    assert not (tmp_path / "out").exists()


def test_verifying_with_tensorflow_needs_the_source(sample, tmp_path):
    convert(sample, to="parquet", out=tmp_path / "out", configs=["22_emo"])
    with pytest.raises(CallError, match="--source"):
        verify(tmp_path / "out", reader="tensorflow")


def test_an_unknown_reader_is_a_wrong_call(sample, tmp_path):
    with pytest.raises(CallError, match="no reader"):
        convert(sample, to="parquet", out=tmp_path / "out", reader="pytorch")
