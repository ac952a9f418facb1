"""TensorFlow as the second reader. Its start takes seconds, so most of this does without it."""

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import pyarrow as pa
import pytest
from conftest import digests, drop_published, read_records, tfrecords, write_records
from helpers.examples import encode_features, write_frames

from converters import convert, verify
from converters.dataset.schema import parse_type
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

    return use


def run(sample, out, **more):
    return convert(sample, to="parquet", out=out, configs=["6_basic_emo"], reader="tensorflow", **more)


@needs_tensorflow
def test_tensorflow_confirms_what_is_converted(sample, source, tmp_path):
    """One TensorFlow process for all of it."""
    run(sample, tmp_path / "out")
    convert(sample, to="parquet", out=tmp_path / "native", configs=["6_basic_emo"])
    assert digests(tmp_path / "native") == digests(tmp_path / "out")
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


ROWS = 7
OTHERS = {  # a value of each type, and another one
    "binary": (b"\xff\xd8", b"\xff\xd9"),
    "string": ("감정", "감정 "),
    "int64": (2**63 - 1, -1),
    "uint8": (255, 254),
    "float32": (1.5, -1.5),
    "int64[]": ([1, 2], [1, 2, 0]),
    "binary[]": ([b"ab", b"c"], [b"a", b"bc"]),
    "float32[]": ([0.0], [-0.0]),
    "string[2]": (["a", "b"], ["b", "a"]),
    "float32[2]": ([float("inf"), 1.0], [float("inf"), 2.0]),
    "int64[3]": ([1, 2, 3], [1, 2, 4]),
}


@pytest.fixture
def described(tmp_path):
    """A source that has a column of every type, each of them absent in one record."""
    folder = tmp_path / "any"
    folder.mkdir()
    columns = {f"c {kind}": {"type": kind, "nullable": True} for kind in OTHERS}
    configs = {"c": {"splits": {"train": {"file": "t.tfrecords"}}}}
    (folder / "dataset.json").write_text(json.dumps({"columns": columns, "configs": configs}))
    examples = []
    for row in range(ROWS):
        features = {}
        for number, (kind, (value, _)) in enumerate(OTHERS.items()):
            if number % ROWS != row:
                values = value if isinstance(value, list) else [value]
                features[f"c {kind}"] = [one.encode() if isinstance(one, str) else one for one in values]
        examples.append(encode_features(features))
    write_frames(folder / "t.tfrecords", examples)
    return folder


@needs_tensorflow
@pytest.mark.parametrize("max_shard_bytes", [1, 10**9])
def test_tensorflow_confirms_columns_of_every_type(described, tmp_path, max_shard_bytes):
    out = tmp_path / "out"
    convert(described, to="parquet", out=out, reader="tensorflow", max_shard_bytes=max_shard_bytes)
    assert verify(out, source=described, reader="tensorflow").failures() == []


@needs_tensorflow
@pytest.mark.parametrize("kind", OTHERS)
def test_the_record_that_differs_is_named(described, tmp_path, monkeypatch, kind):
    """Our own reader is made to read one value of one record otherwise, or not at all, or one that is not there."""
    source = import_module("converters.formats.tfrecord.source")
    read_columns, (value, other) = source.read_columns, OTHERS[kind]
    absent = [*OTHERS].index(kind) % ROWS

    for row, wrong in (((absent + 3) % ROWS, other), ((absent + 1) % ROWS, None), (absent, value)):

        def misread(columns, path, frames, row=row, wrong=wrong):
            batch = read_columns(columns, path, frames)
            place = row - frames.first_record
            if not 0 <= place < len(batch):
                return batch
            values = batch.column(f"c {kind}").to_pylist()
            values[place] = wrong
            arrays = batch.columns
            arrays[batch.schema.names.index(f"c {kind}")] = pa.array(values, parse_type(kind))
            return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)

        monkeypatch.setattr(source, "read_columns", misread)
        message = rf"t\.tfrecords \(record {row}\): TensorFlow reads another record than this program"
        with pytest.raises(DataError, match=message):
            convert(described, to="parquet", out=tmp_path / "out", reader="tensorflow")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("", "died"),
        ("import sys; sys.stdin.readline(); sys.exit(3)", "exit status 3"),
        ("import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)", "signal 9"),
        ("import sys; sys.stdin.readline(); print('[\"00', end='', flush=True)", "died"),
        ("import sys; sys.stdin.readline(); print('[]', flush=True)", "ends after 0 records"),
        (
            "import json, sys; count = json.loads(sys.stdin.readline())['count']\n"
            "print(json.dumps(['00'] * count), flush=True)",
            r"\(record 0\): TensorFlow reads another record",
        ),
        ("import sys; sys.stdin.readline(); print('\"no such thing\"', flush=True)", "no such thing"),
    ],
    ids=["gone", "exits", "killed", "dies in a message", "no records", "others", "error"],
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
            asked.append(request["count"])
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
