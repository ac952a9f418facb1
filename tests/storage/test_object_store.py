"""Source and output in an object store: an S3 server on loopback, with the real client, from other processes too."""

import json
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from conftest import digests, drop_published, flip

from converters import CallError, ConverterError, DataError, convert, verify
from converters.errors import MachineError
from converters.formats.tfrecord.source import open_tfrecords
from converters.staging import make_staging
from converters.storage import object_store as objects
from converters.storage.object_store import ObjectPath, place

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed; the extra s3 brings it")
moto_server = pytest.importorskip("moto.server", reason="moto is not installed; the extra test brings it")

SHARDS = {"max_shard_bytes": 14_000}
BUCKET = "s3://faces"


@pytest.fixture(scope="module")
def server():
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def store(server, sample, monkeypatch):
    """An S3 file system with an empty bucket; the environment says where it is."""
    variables = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    system = s3fs.S3FileSystem()
    system.invalidate_cache()
    if not system.exists(BUCKET):
        system.mkdir(BUCKET)
    elif system.find(BUCKET):
        system.rm(system.find(BUCKET))
    return system


@pytest.fixture
def remote_sample(store, sample):
    for path in sample.iterdir():
        if path.is_file():
            store.put_file(str(path), f"{BUCKET}/source/{path.name}")
    return f"{BUCKET}/source"


def fetched(store, folder, target):
    target.mkdir()
    for path in store.find(folder):
        store.get_file(path, str(target / path.removeprefix(folder.removeprefix("s3://") + "/")))
    return target


def objects_of(store):
    store.invalidate_cache()
    return {path.removeprefix("faces/") for path in store.find(BUCKET)}


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "converters", *map(str, arguments)], capture_output=True, text=True
    )


@pytest.mark.parametrize("to", ["parquet", "jpeg", "hf"])
def test_a_store_holds_the_bytes_that_a_disk_would(store, remote_sample, sample, tmp_path, to):
    options = SHARDS | {"configs": ["22_emo"]}
    convert(sample, to=to, out=tmp_path / "expected", **options)
    report = convert(remote_sample, to=to, out=f"{BUCKET}/out", **options)
    assert report.out == f"{BUCKET}/out"
    names = {path for path in objects_of(store) if path.startswith("out")}
    assert names == {f"out/{path}" for path in digests(tmp_path / "expected")}
    for path, digest in digests(tmp_path / "expected").items():
        assert objects.hash_object(ObjectPath(f"{BUCKET}/out/{path}"))[1] == digest
    outcome = run("verify", f"{BUCKET}/out", "--source", remote_sample)
    assert outcome.returncode == 0, outcome.stderr
    assert f"verified: {BUCKET}/out" in outcome.stdout


def test_from_a_store_to_a_disk_and_back(store, remote_sample, sample, tmp_path):
    convert(sample, to="parquet", out=tmp_path / "expected", labels=sample / "labels")
    convert(remote_sample, to="parquet", out=tmp_path / "here", labels=sample / "labels")
    convert(sample, to="parquet", out=f"{BUCKET}/there", labels=sample / "labels", workers=2)
    assert digests(tmp_path / "here") == digests(tmp_path / "expected")
    store.get(f"{BUCKET}/there", str(tmp_path / "there"), recursive=True)
    assert digests(tmp_path / "there") == digests(tmp_path / "expected")
    assert verify(tmp_path / "here", source=remote_sample).failures() == []


def test_datasets_and_pandas_open_what_is_there(store, sample, server):
    pandas = pytest.importorskip("pandas")
    convert(sample, to="parquet", out=f"{BUCKET}/out", configs=["22_emo"])
    frame = pandas.read_parquet(f"{BUCKET}/out/22_emo/train-00000-of-00001.parquet")
    assert len(frame) > 10


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "converters", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_the_output_is_incomplete_and_the_next_run_completes_it(
    store, remote_sample, sample, tmp_path, number
):
    convert(sample, to="parquet", out=tmp_path / "expected", **SHARDS)
    command = (remote_sample, "--to", "parquet", "--out", f"{BUCKET}/out", "--max-shard-size", 14_000)
    process = start(*command, "--workers", 1)
    while len([path for path in objects_of(store) if path.startswith("out.incomplete/results/")]) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert "Traceback" not in error
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "kept in" in error
    assert "out/MANIFEST.json" not in objects_of(store)
    outcome = run("verify", f"{BUCKET}/out")
    assert outcome.returncode == 2
    assert "incomplete" in outcome.stderr
    # What a dead attempt may leave: an object that no result names.
    store.pipe_file(f"{BUCKET}/out/22_emo/train-00000-of-00099.parquet", b"left")
    again = run(*command)
    assert again.returncode == 0, again.stderr
    assert "Taken up from an interrupted run" in again.stdout
    assert {path for path in objects_of(store) if path.startswith("out")} == {
        f"out/{path}" for path in digests(tmp_path / "expected")
    }
    store.get(f"{BUCKET}/out", str(tmp_path / "out"), recursive=True)
    assert digests(tmp_path / "out") == digests(tmp_path / "expected")


def test_a_stored_shard_that_changed_is_done_again(store, sample, tmp_path):
    seen = []

    def progress(stage, count):
        seen.append(stage)
        if seen.count("verified") == 6:
            raise KeyboardInterrupt

    options = SHARDS | {"to": "parquet", "out": f"{BUCKET}/out", "configs": ["multi-label"]}
    with pytest.raises(KeyboardInterrupt):
        convert(sample, progress=progress, **options)
    stored = [path for path in objects_of(store) if path.endswith(".parquet")]
    assert len(stored) >= 4
    store.pipe_file(f"{BUCKET}/{stored[0]}", b"x" * store.size(f"{BUCKET}/{stored[0]}"))
    store.rm_file(f"{BUCKET}/{stored[1]}")
    assert convert(sample, **options).resumed_shards == len(stored) - 2
    assert verify(f"{BUCKET}/out", source=sample).failures() == []


def test_another_run_is_not_taken_up(store, sample):
    def progress(stage, count):
        if stage == "verified":
            seen.append(stage)
            if len(seen) == 3:
                raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt):
        convert(sample, to="parquet", out=f"{BUCKET}/out", progress=progress, **SHARDS)
    before = objects_of(store)
    with pytest.raises(CallError, match=r"differs in options.*delete s3://faces/out.incomplete/"):
        convert(sample, to="parquet", out=f"{BUCKET}/out", max_shard_bytes=15_000)
    assert objects_of(store) == before


def test_what_is_there_is_not_touched(store, sample):
    store.pipe_file(f"{BUCKET}/out/mine", b"mine")
    with pytest.raises(CallError, match="'mine' is there"):
        convert(sample, to="parquet", out=f"{BUCKET}/out")
    store.pipe_file(f"{BUCKET}/other.incomplete/mine", b"mine")
    with pytest.raises(CallError, match="no object of kfer-convert"):
        convert(sample, to="parquet", out=f"{BUCKET}/other")
    convert(sample, to="parquet", out=f"{BUCKET}/done", configs=["22_emo"])
    before = objects_of(store)
    for overwrite in (False, True):
        with pytest.raises(CallError, match=r"exists already|no rename"):
            convert(sample, to="parquet", out=f"{BUCKET}/done", overwrite=overwrite)
    assert objects_of(store) == before
    assert {"out/mine", "other.incomplete/mine"} <= before


def test_when_the_data_is_to_blame_nothing_stays(store, source):
    flip(source / "multi-label_test.tfrecords", 40)
    with pytest.raises(DataError, match="multi-label_test"):
        convert(source, to="parquet", out=f"{BUCKET}/out")
    assert objects_of(store) == set()


def test_a_damaged_object_is_named_with_record_and_byte(store, remote_sample, sample):
    data = bytearray((sample / "22_emo_train.tfrecords").read_bytes())
    data[40] ^= 1
    store.pipe_file(f"{BUCKET}/source/22_emo_train.tfrecords", bytes(data))
    outcome = run(remote_sample, "--to", "parquet", "--out", f"{BUCKET}/out")
    assert outcome.returncode == 1
    assert f"{BUCKET}/source/22_emo_train.tfrecords (record 0, byte 0)" in outcome.stderr
    assert not [path for path in objects_of(store) if path.startswith("out")]


def test_quarantine_works_from_store_to_store(store, remote_sample, sample):
    data = bytearray((sample / "22_emo_train.tfrecords").read_bytes())
    data[40] ^= 1
    store.pipe_file(f"{BUCKET}/source/22_emo_train.tfrecords", bytes(data))
    outcome = run(remote_sample, "--to", "parquet", "--out", f"{BUCKET}/out", "--on-error", "quarantine")
    assert outcome.returncode == 3, outcome.stderr
    report = verify(f"{BUCKET}/out", source=remote_sample)
    assert report.failures() == []
    assert report.quarantined == 1


def test_a_source_object_that_changes_meanwhile_fails_the_run(store, remote_sample):
    def progress(stage, count):
        if stage == "verified" and not changed:
            changed.append(True)
            data = store.cat_file(f"{BUCKET}/source/22_emo_test.tfrecords")
            time.sleep(1.1)  # the version must not hang on a second's fraction
            store.pipe_file(f"{BUCKET}/source/22_emo_test.tfrecords", data[:-1] + b"x")

    changed = []
    with pytest.raises(DataError, match=r"changed while it was converted|fails its checksum"):
        convert(remote_sample, to="parquet", out=f"{BUCKET}/out", configs=["22_emo"], progress=progress)
    assert not [path for path in objects_of(store) if path.startswith("out")]


def test_a_store_that_keeps_other_bytes_is_found_out(store, sample, monkeypatch):
    put = objects.put_file

    def put_other(path, target):
        if path.name.startswith("test-"):
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        put(path, target)

    monkeypatch.setattr("converters.staging.object_store.put_file", put_other)
    with pytest.raises(MachineError, match="the store gives back other bytes"):
        convert(sample, to="parquet", out=f"{BUCKET}/out")
    assert "out/MANIFEST.json" not in objects_of(store)


def test_an_object_that_comes_or_goes_before_the_manifest_is_stored(store, sample, monkeypatch):
    from converters.staging.object_store import ObjectStaging

    publish = ObjectStaging.publish

    def late(self, files):
        store.pipe_file(f"{BUCKET}/out/late", b"late")
        publish(self, files)

    monkeypatch.setattr(ObjectStaging, "publish", late)
    with pytest.raises(MachineError, match=r"out/late: it came, went or changed"):
        convert(sample, to="parquet", out=f"{BUCKET}/out", configs=["22_emo"])
    assert "out/MANIFEST.json" not in objects_of(store)


def test_folders_without_a_file_are_refused_as_a_store_keeps_none(store, sample):
    """ImageFolder would number the classes otherwise after a download."""
    with pytest.raises(CallError, match="a folder without a file"):
        convert(sample, to="jpeg", out=f"{BUCKET}/out", configs=["22_emo"], class_folders=True)
    assert "out/MANIFEST.json" not in objects_of(store)


@pytest.mark.parametrize("run", [b"{}", b"[]", b"{", b'{"version": 1}'])
def test_nothing_is_swept_by_the_word_of_a_run_that_is_none(store, sample, run):
    store.pipe_file(f"{BUCKET}/out/mine", b"mine")
    store.pipe_file(f"{BUCKET}/out.incomplete/run.json", run)
    with pytest.raises(CallError, match="'mine' is there"):
        convert(sample, to="parquet", out=f"{BUCKET}/out")
    assert "out/mine" in objects_of(store)


def test_two_runs_with_other_options_do_not_publish_a_mixture(store, sample):
    def progress(stage, count):
        if stage == "verified" and not others:
            others.append(store.cat_file(f"{BUCKET}/out.incomplete/run.json"))
            store.pipe_file(f"{BUCKET}/out.incomplete/run.json", others[0].replace(b"parquet", b"jpeg"))

    others = []
    with pytest.raises(MachineError, match="another run has begun"):
        convert(sample, to="parquet", out=f"{BUCKET}/out", configs=["22_emo"], progress=progress)
    assert "out/MANIFEST.json" not in objects_of(store)


def test_verify_finds_every_kind_of_change(store, sample):
    convert(sample, to="parquet", out=f"{BUCKET}/out", configs=["22_emo"])
    name = f"{BUCKET}/out/22_emo/test-00000-of-00001.parquet"
    data = store.cat_file(name)
    store.pipe_file(name, data[:-1] + bytes([data[-1] ^ 1]))
    assert any("was changed" in text for text in verify(f"{BUCKET}/out").failures())
    store.rm_file(name)
    assert any("is missing" in text for text in verify(f"{BUCKET}/out").failures())
    store.pipe_file(name, data)
    store.pipe_file(f"{BUCKET}/out/more", b"")
    assert any("not in the manifest" in text for text in verify(f"{BUCKET}/out").failures())
    store.rm_file(f"{BUCKET}/out/more")
    assert verify(f"{BUCKET}/out").failures() == []
    store.pipe_file(f"{BUCKET}/out/a/../../b", b"")
    with pytest.raises(DataError, match="cannot be a file"):
        verify(f"{BUCKET}/out")


def test_what_cannot_be_reached_or_read_is_said_in_words(store, sample, kfer_convert):
    for arguments, message in [
        (("inspect", f"{BUCKET}/nothing"), "there is no such folder"),
        (("inspect", "s3://nowhere/source"), "there is no such folder"),
        (("verify", f"{BUCKET}/nothing"), "no MANIFEST.json is here"),
        ((sample, "--to", "parquet", "--out", "nonsense://a/b"), "cannot be used"),
        ((sample, "--to", "parquet", "--out", "s3://"), "names no place in a store"),
        (("inspect", "s3:///"), "names no place in a store"),
        ((sample, "--to", "parquet", "--out", "s3://nowhere/out"), "bucket"),
        (
            (BUCKET + "/source", "--to", "parquet", "--out", f"{BUCKET}/source/out"),
            "must not lie in each other",
        ),
    ]:
        if arguments[0] == BUCKET + "/source":
            store.put_file(str(sample / "dataset.json"), f"{BUCKET}/source/dataset.json")
        outcome = kfer_convert(*arguments)
        assert outcome.status in (1, 2), outcome
        assert message in outcome.err
        assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://a/b", "kfer-convert[s3]"), ("gs://a/b", "kfer-convert[gcs]")]
)
def test_the_extra_that_is_missing_is_named(monkeypatch, url, extra):
    def missing(url):
        raise ImportError("Please install it")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(CallError, match="not installed") as caught:
        place(url)
    assert extra in str(caught.value)


def test_the_hub_is_reached_by_push_alone(sample):
    """Nothing goes public without being told to in so many words, and a file system asks nobody."""
    with pytest.raises(CallError, match="kfer-convert push"):
        convert(sample, to="hf", out="hf://datasets/me/faces")


def test_a_file_url_is_a_path(sample, tmp_path):
    out = tmp_path / "an out"
    convert(
        f"file://{sample}", to="parquet", out=f"file://{str(out).replace(' ', '%20')}", configs=["22_emo"]
    )
    assert (out / "MANIFEST.json").is_file()


def test_records_longer_than_the_reads_ahead_pass_through_a_store(store, tmp_path):
    """The plan reads headers alone, so what lies between is not fetched; the shards then read it all."""
    from converters.sample.writer import make_sample

    make_sample(tmp_path / "source", records=30)
    drop_published(tmp_path / "source")
    for path in (tmp_path / "source").glob("*"):
        if path.suffix != ".idx" and path.is_file():
            store.put_file(str(path), f"{BUCKET}/plain/{path.name}")
    expected = convert(tmp_path / "source", to="parquet", out=tmp_path / "out", max_shard_bytes=5_000)
    report = convert(f"{BUCKET}/plain", to="parquet", out=tmp_path / "again", max_shard_bytes=5_000)
    assert [s.fingerprint for s in report.splits] == [s.fingerprint for s in expected.splits]


def test_errors_of_any_file_system_become_ours():
    for error in (ValueError("bad\nworse"), KeyError(), OSError(5, "Input/output error"), RuntimeError()):
        with pytest.raises(ConverterError) as caught, objects.store_errors(ObjectPath("s3://a/b")):
            raise error
        assert str(caught.value).startswith("s3://a/b: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(CallError, match="credentials"), objects.store_errors(ObjectPath("s3://a/b")):
        raise PermissionError("Forbidden")


def test_folders_that_are_not_entered_are_listed(store, sample, remote_sample):
    name = "multi-label_test.tfrecords"
    for folder in ("_temporary/0", "beam-temp-x", "more/.hidden"):
        store.put_file(str(sample / name), f"{remote_sample}/{folder}/{name}")
    (warning,) = open_tfrecords(place(remote_sample)).warnings
    assert warning == "passed over, as no part of the dataset: _temporary/, beam-temp-x/, more/.hidden/"


def test_a_bucket_is_no_destination(store, sample):
    """What is beside a bucket is another bucket, and may be anybody's."""
    store.mkdir("s3://faces.incomplete")
    outcome = run(sample, "--to", "parquet", "--out", BUCKET)
    assert outcome.returncode == 2
    assert "beside a bucket is only another bucket" in outcome.stderr
    store.invalidate_cache()
    assert not store.find("s3://faces.incomplete")


def test_another_scheme_of_the_same_store_is_the_same_place(store, remote_sample):
    outcome = run(remote_sample, "--to", "parquet", "--out", "s3a://faces/source/out")
    assert outcome.returncode == 2
    assert "must not lie in each other" in outcome.stderr


@pytest.mark.parametrize("begin", ["file://localhost/", "local:///", "FILE:///"])
def test_every_url_of_a_file_is_a_path(begin):
    assert place(f"{begin}a/b").as_posix() == "/a/b"


def test_a_name_that_would_be_a_chain_of_urls_is_refused(store, sample):
    store.pipe_file(f"{BUCKET}/source/x", b"")
    for url in (f"{BUCKET}/a::b", f"{BUCKET}/x::file:///etc"):
        outcome = run(sample, "--to", "parquet", "--out", url)
        assert outcome.returncode == 2
        assert "chain of URLs" in outcome.stderr


@pytest.mark.parametrize("fails", [False, True])
def test_what_another_run_has_published_meanwhile_stays(store, sample, monkeypatch, fails):
    """Neither the sweep of a run that began earlier removes it, nor what that does when its data is to blame."""
    from converters.staging.object_store import ObjectStaging

    name = "begin" if fails else "claim"
    method = getattr(ObjectStaging, name)

    def late(self, *arguments):
        method(self, *arguments)
        monkeypatch.setattr(ObjectStaging, name, method)
        with pytest.raises(CallError, match=r"another run is writing this output.*delete .*/lock\.json"):
            convert(sample, to="parquet", out=f"{BUCKET}/out", configs=["22_emo"])
        store.rm(f"{BUCKET}/out.incomplete/lock.json")  # as the message says, though this run lives
        convert(sample, to="parquet", out=f"{BUCKET}/out", configs=["22_emo"])
        if fails:
            raise DataError("a record is damaged.")

    monkeypatch.setattr(ObjectStaging, name, late)
    with pytest.raises(
        DataError if fails else CallError, match=r"is damaged|published this output meanwhile"
    ):
        convert(sample, to="parquet", out=f"{BUCKET}/out", configs=["22_emo"])
    assert verify(f"{BUCKET}/out").failures() == []


def test_a_flipped_object_is_named_by_its_shard_and_only_that_one_is_made_again(
    store, remote_sample, sample, tmp_path, monkeypatch
):
    """And no more than a shard is ever on this machine."""
    out, options = f"{BUCKET}/out", SHARDS | {"configs": ["multi-label"]}
    convert(sample, to="parquet", out=tmp_path / "expected", **options)
    convert(remote_sample, to="parquet", out=out, **options)
    sizes = {path: details["size"] for path, details in store.find(out, detail=True).items()}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    here = []

    def progress(stage, count):
        here.append(sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file()))

    assert verify(out, workers=1, progress=progress).failures() == []
    assert max(here) < 1.1 * max(sizes.values()) < sum(sizes.values()) / 4
    broken = f"{out}/multi-label/train-00003-of-00011.parquet"
    data = bytearray(store.cat_file(broken))
    data[len(data) // 2] ^= 1
    store.pipe_file(broken, bytes(data))
    store.rm_file(f"{out}/README.md")
    report = verify(out)
    assert report.damaged_shards == ("multi-label/train-00003-of-00011",)
    assert len(report.failures()) == 2
    read, stored = [], []
    put = objects.put_file
    monkeypatch.setattr(
        "converters.staging.object_store.put_file", lambda path, to: stored.append(to.url) or put(path, to)
    )
    report = convert(
        remote_sample,
        to="parquet",
        out=out,
        repair=True,
        workers=1,
        progress=lambda stage, count: read.append(count) if stage == "read" else None,
        **options,
    )
    assert report.remade_shards == ("multi-label/train-00003-of-00011",)
    entry = json.loads((tmp_path / "expected" / "MANIFEST.json").read_text())["splits"][0]
    assert sum(read) == entry["shards"][3]["records"]
    assert stored == [broken, f"{out}/README.md"]
    store.get(out, str(tmp_path / "fetched"), recursive=True)
    assert digests(tmp_path / "fetched") == digests(tmp_path / "expected")
    assert not [path for path in objects_of(store) if path.startswith("out.incomplete")]


def test_a_file_of_parts_is_joined_again_in_a_store(store, sample, tmp_path):
    out, options = f"{BUCKET}/out", SHARDS | {"configs": ["22_emo"], "splits": ["train"]}
    convert(sample, to="jpeg", out=tmp_path / "expected", **options)
    convert(sample, to="jpeg", out=out, **options)
    store.rm_file(f"{out}/22_emo/train/metadata.csv")
    report = convert(sample, to="jpeg", out=out, repair=True, **options)
    assert len(report.remade_shards) > 1
    store.get(out, str(tmp_path / "fetched"), recursive=True)
    assert digests(tmp_path / "fetched") == digests(tmp_path / "expected")
    assert not [path for path in objects_of(store) if path.startswith("out.incomplete")]


def test_an_output_with_objects_that_are_not_its_own_is_not_mended(store, sample):
    out = f"{BUCKET}/out"
    convert(sample, to="parquet", out=out, configs=["22_emo"])
    store.pipe_file(f"{out}/more", b"mine")
    store.rm_file(f"{out}/README.md")
    before = objects_of(store)
    with pytest.raises(ConverterError, match=r"cannot be mended: more: .*--overwrite or to another --out"):
        convert(sample, to="parquet", out=out, configs=["22_emo"], repair=True)
    assert objects_of(store) == before


def test_ctrl_c_while_the_lock_is_taken_leaves_none(monkeypatch):
    """The store may have it before this process hears so; from another machine, nobody could take it over."""

    def interrupted(data, lock):
        objects.put_new(data, lock)
        raise KeyboardInterrupt

    out = place("memory://locked/out")
    monkeypatch.setattr("converters.staging.object_store.put_new", interrupted)
    with pytest.raises(KeyboardInterrupt), make_staging(out, overwrite=False, repair=False):
        pass
    assert objects.list_objects(place("memory://locked")) == {}
