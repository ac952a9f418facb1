"""What the tests share: a small synthetic source, made once, and a reading of it that uses nothing of the package."""

import csv
import gzip
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.examples import decode_example, encode_features, read_frames, write_frames
from hypothesis import HealthCheck, settings

from converters.sample.writer import make_sample

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what runs in the background; the programs under test would inherit it, and Ctrl-C be nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same cases in every run, however slow the machine is. New ones: tests/fuzz/properties.py
settings.register_profile(
    "suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", settings.get_profile("suite"), derandomize=False, database=None)
settings.load_profile("suite")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With ``-n``, a worker that has run out of tests takes some that another has not begun."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


RECORDS = 120
CONFIGS = ("6_basic_emo", "22_emo", "multi-label")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Record:
    """A record as the source has it; the identity is the one in the label CSV."""

    image: bytes
    label: tuple[int, ...]
    height: int
    width: int
    depth: int
    img_id: str = ""
    clip_id: str = ""

    @property
    def indices(self) -> list[int]:
        return [number for number, value in enumerate(self.label) if value]


# --- TFRecords by hand ---------------------------------------------------------------------------------


def read_records(path: Path, names=("image_raw", "label", "height", "width", "depth")) -> list[Record]:
    records = []
    for data in read_frames(path):
        image, label, *sizes = (decode_example(data)[name] for name in names)
        records.append(Record(image, tuple(label), *(size for (size,) in sizes)))
    return records


def encode_record(record: Record, names=("image_raw", "label", "height", "width", "depth"), **extra) -> bytes:
    values = (record.image, list(record.label), [record.height], [record.width], [record.depth])
    return encode_features(dict(zip(names, values, strict=True)) | extra)


def write_records(path: Path, records: list[Record], *, index: bool = True) -> None:
    write_frames(path, [encode_record(record) for record in records], index=index)


def tfrecords(source: Path, config: str, split: str) -> Path:
    return source / f"{config}_{split}.tfrecords"


def edit_description(source: Path, change) -> None:
    path = source / "dataset.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def drop_published(source: Path) -> None:
    """Make a description that publishes nothing to compare with."""

    def change(document):
        for config in document["configs"].values():
            for split in config["splits"].values():
                for key in set(split) - {"file", "index", "labels_csv"}:
                    del split[key]

    edit_description(source, change)


def compress(path: Path) -> Path:
    """Replace a file by its gzip."""
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return target


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and modification time of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def is_there(folder: Path, pattern: str) -> bool:
    """Whether a file matches, below a folder that another process is changing."""
    try:
        return any(folder.glob(pattern))
    except FileNotFoundError:  # a folder that went away while it was being listed
        return False


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def renew(out: Path) -> None:
    """Renew the digests in the manifest and the sums, as somebody who hides a change would."""
    path = out / "MANIFEST.json"
    document = json.loads(path.read_text())
    found = digests(out)
    for file in document["files"]:
        file |= {"sha256": found[file["path"]], "size": (out / file["path"]).stat().st_size}
    path.write_text(json.dumps(document))
    found = digests(out)
    del found["SHA256SUMS"]
    (out / "SHA256SUMS").write_text("".join(f"{found[name]}  {name}\n" for name in sorted(found)))


def flip(path: Path, position: int) -> bytes:
    """Change one byte of a file; gives back what it held."""
    data = path.read_bytes()
    changed = bytearray(data)
    changed[position] ^= 0x01
    path.write_bytes(changed)
    return data


# --- Fixtures ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """The synthetic source. Never written to; :func:`source` is a copy that may be."""
    folder = tmp_path_factory.mktemp("sample") / "tfrecords"
    make_sample(folder, records=RECORDS, workers=1)
    return folder


@pytest.fixture(scope="session")
def truth(sample) -> dict[tuple[str, str], list[Record]]:
    """The source's records by config and split, read by hand, with the names of the label CSVs."""
    found = {}
    for config in CONFIGS:
        for split in SPLITS:
            records = read_records(tfrecords(sample, config, split))
            with (sample / "labels" / f"label_{config}_{split}.csv").open(newline="") as file:
                rows = list(csv.reader(file))[1:]
            assert [list(map(int, row[2:])) for row in rows] == [list(record.label) for record in records]
            found[config, split] = [
                replace(record, img_id=row[0], clip_id=row[1])
                for record, row in zip(records, rows, strict=True)
            ]
    assert sum(map(len, found.values())) == RECORDS
    return found


@pytest.fixture(scope="session")
def label_names(sample) -> dict[str, list[str]]:
    configs = json.loads((sample / "dataset.json").read_text())["configs"]
    return {name: config["label_names"] for name, config in configs.items()}


@pytest.fixture
def source(sample, tmp_path) -> Path:
    """A copy of the sample, for a test to change."""
    return Path(shutil.copytree(sample, tmp_path / "tfrecords"))


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def kfer_convert(capsys):
    """Runs the command line in this process."""
    from converters.cli.main import main

    def run(*arguments) -> Outcome:
        capsys.readouterr()
        streams = sys.stdout, sys.stderr
        handlers = {
            number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            with pytest.raises(SystemExit) as stop:
                main([str(argument) for argument in arguments])
        finally:
            sys.stdout, sys.stderr = streams  # a command closes them at its end
            for number, handler in handlers.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return Outcome(stop.value.code or 0, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def tf():
    """TensorFlow in this process, which takes seconds to import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="session")
def kfer_isolated():
    """Runs the command line in a process of its own, and says what it took."""
    from isolated import Isolated

    run = Isolated()
    yield run
    run.close()


# --- The stand-in Hub ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def hf_output(sample, tmp_path_factory) -> Path:
    """An hf output. Never written to."""
    from converters import convert

    out = tmp_path_factory.mktemp("hub") / "kfer-hf"
    convert(sample, to="hf", out=out)
    return out


@pytest.fixture(scope="session")
def small_output(sample, tmp_path_factory) -> Path:
    """An hf output of one split. Never written to."""
    from converters import convert

    out = tmp_path_factory.mktemp("hub") / "small"
    convert(sample, to="hf", out=out, configs=["22_emo"], splits=["test"])
    return out


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """The seconds that were waited for the Hub; nobody really waits."""
    import huggingface_hub.utils._http

    import converters.hub.session

    waited: list[float] = []
    fake = SimpleNamespace(sleep=waited.append, monotonic=time.monotonic, time=time.time)
    monkeypatch.setattr(huggingface_hub.utils._http, "time", fake)
    monkeypatch.setattr(converters.hub.session, "time", fake)
    return waited


@pytest.fixture
def hub(monkeypatch, tmp_path, naps):
    """The stand-in, which the environment names; its token is in ``HF_TOKEN``.

    That `datasets` loads each output first takes two seconds a push, so here it is left out.
    """
    from importlib import import_module

    import httpx2
    import huggingface_hub.constants
    from huggingface_hub.utils import _http
    from standin_hub import TOKEN, Hub

    monkeypatch.setattr(
        import_module("converters.verify.datasets_reader"), "confirm", lambda report, *_: report
    )

    # As huggingface_hub's own, but for the certificates: reading them takes as long as a whole push does here.
    def client():
        return httpx2.Client(
            verify=False, follow_redirects=True, event_hooks={"request": [_http.hf_request_event_hook]}
        )

    monkeypatch.setattr(_http, "_GLOBAL_CLIENT_FACTORY", client)
    _http.close_session()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with Hub() as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.endpoint)
        yield standin
    _http.close_session()


@pytest.fixture
def push(kfer_convert, hf_output):
    """Runs ``kfer-convert push`` of the output to ``me/kfer``; whatever it says never holds the token."""

    from standin_hub import TOKEN

    def run(*arguments, out=hf_output, repo="me/kfer"):
        done = kfer_convert("push", out, repo, *arguments)
        for text in (done.out, done.err):
            assert TOKEN not in text
            assert "Traceback" not in text
            assert "X-Amz-Signature" not in text
        return done

    return run
