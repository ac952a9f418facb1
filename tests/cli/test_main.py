"""The command line: exit statuses, what goes to which stream, and never a traceback."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import RECORDS, digests, edit_description, flip, tfrecords

import converters

PACKAGE = Path(converters.__file__).parent


@pytest.fixture
def output(kfer_convert, sample, tmp_path):
    out = tmp_path / "out"
    assert kfer_convert(sample, "--to", "parquet", "--out", out, "--config", "6_basic_emo").status == 0
    return out


def test_a_conversion_shows_a_table_and_ends_with_0(kfer_convert, sample, tmp_path):
    done = kfer_convert(sample, "--to", "parquet", "--out", tmp_path / "out")
    assert (done.status, done.err) == (0, "")
    rows = [
        line.split()
        for line in done.out.splitlines()
        if line.startswith(("6_basic_emo", "22_emo", "multi-label"))
    ]
    assert len(rows) == 9
    assert all(row[3:] == ["passed"] * 5 for row in rows)
    assert "120 records, verified" in done.out
    assert "sha256sum -c" in done.out


def test_the_line_that_checks_an_output_does_so(sample, tmp_path):
    for out in ("./-o", "o ut"):
        command = [sys.executable, "-m", "converters", sample, "--to", "parquet", "--out", out]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        (line,) = (line for line in done.stdout.splitlines() if "sha256sum" in line)
        subprocess.run(["bash", "-c", line.partition(": ")[2]], cwd=tmp_path, check=True)


def test_the_default_command_and_the_default_folders(sample, tmp_path):
    (tmp_path / "tfrecords").symlink_to(sample)
    command = [sys.executable, "-m", "converters", "--to", "jpeg", "--config", "6_basic_emo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "kfer-jpeg" / "MANIFEST.json").is_file()


def test_json_is_one_object_on_success(kfer_convert, sample, tmp_path, output):
    for arguments in (
        (sample, "--to", "jpeg", "--out", tmp_path / "json"),
        ("verify", output),
        ("inspect", sample),
        ("formats",),
        ("sample", tmp_path / "new", "--records", "9"),
    ):
        done = kfer_convert(*arguments, "--json")
        assert done.status == 0
        assert isinstance(json.loads(done.out), dict)
        # Standard error has the events, a line each; with --quiet it has nothing.
        events = [json.loads(line) for line in done.err.splitlines()]
        assert {event["event"] for event in events} <= {"progress"}


def test_events_tell_how_far_a_conversion_is(kfer_convert, sample, tmp_path):
    done = kfer_convert(sample, "--to", "parquet", "--out", tmp_path / "out", "--json", "--workers", 2)
    last = json.loads(done.err.splitlines()[-1])
    assert last["event"] == "progress"
    assert last["read"] == last["verified"] == last["total"] == RECORDS
    work = json.loads(done.out)["work"]
    assert work["records"] == RECORDS
    assert work["workers"] in (1, 2)
    assert set(work["seconds"]) == {"reading", "writing", "reading_back"}
    assert work["records_per_second_per_worker"] > 0
    quiet = kfer_convert(sample, "--to", "parquet", "--out", tmp_path / "quiet", "--json", "--quiet")
    assert (quiet.status, quiet.err) == (0, "")


def test_json_is_one_object_on_failure(kfer_convert, source, tmp_path, output):
    flip(output / "6_basic_emo" / "test-00000-of-00001.parquet", 100)
    done = kfer_convert("verify", output, "--json")
    assert done.status == 1
    assert json.loads(done.out)["verified"] is False
    assert kfer_convert("verify", tmp_path / "nowhere", "--json").status == 2
    path = tfrecords(source, "6_basic_emo", "train")
    flip(path, 20_000)
    done = kfer_convert(source, "--to", "parquet", "--out", tmp_path / "bad", "--json")
    assert done.status == 1
    assert "6_basic_emo_train.tfrecords" in json.loads(done.out)["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("SOURCE", "--to", "nothing", "--out", "OUT"),
        ("nowhere", "--to", "parquet", "--out", "OUT"),
        ("SOURCE", "--to", "parquet", "--out", "OUT", "--config", "7_emo"),
        ("SOURCE", "--out", "OUT"),
        ("SOURCE", "--to", "parquet", "--out", "OUT", "--workers", "0"),
        ("SOURCE", "--to", "parquet", "--out", "OUT", "--unheard-of"),
    ],
    ids=["format", "source", "config", "no format", "workers", "option"],
)
def test_wrong_calls_end_with_2_and_give_json_if_asked(kfer_convert, sample, tmp_path, arguments):
    places = {"SOURCE": sample, "OUT": tmp_path / "out"}
    arguments = [places.get(argument, argument) for argument in arguments]
    done = kfer_convert(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err
    assert "Traceback" not in done.err
    done = kfer_convert(*arguments, "--json")
    assert done.status == 2
    assert isinstance(json.loads(done.out), dict)
    assert list(tmp_path.iterdir()) == []


def test_quiet_prints_nothing(kfer_convert, sample, tmp_path, output):
    for arguments in (
        (sample, "--to", "jpeg", "--out", tmp_path / "quiet"),
        ("verify", output),
        ("verify", output, "--source", sample),
        ("sample", tmp_path / "new", "--records", "9"),
    ):
        done = kfer_convert(*arguments, "--quiet")
        assert (done.status, done.out, done.err) == (0, "", "")


def test_quiet_workers_print_nothing_either(sample, tmp_path):
    """Lance warns of every fork of its process."""
    pytest.importorskip("lance", reason="Lance is not installed; the extra lance brings it")
    command = [
        sys.executable,
        "-m",
        "converters",
        sample,
        "--to",
        "lance",
        "--out",
        "out",
        "--workers",
        "2",
        "--quiet",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_quiet_still_says_what_is_wrong(kfer_convert, output):
    (output / "extra").write_text("")
    done = kfer_convert("verify", output, "--quiet")
    assert (done.status, done.out) == (1, "")
    assert "extra" in done.err


def test_the_sample_is_the_first_command(tmp_path):
    command = [sys.executable, "-m", "converters", "--sample", "--to", "parquet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"kfer-sample", "kfer-parquet"}
    before = digests(tmp_path / "kfer-sample")
    done = subprocess.run([*command, "--overwrite"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert digests(tmp_path / "kfer-sample") == before
    check = subprocess.run(
        ["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "kfer-parquet", check=False
    )
    assert check.returncode == 0


def test_formats_are_listed_with_a_line_each(kfer_convert):
    done = kfer_convert("formats")
    lines = dict(line.split(None, 1) for line in done.out.splitlines())
    assert {"parquet", "jpeg", "hf"} <= set(lines)
    assert not [line for line in lines.values() if "cannot be loaded" in line]


def test_help_names_every_option_and_command(kfer_convert):
    done = kfer_convert("--help")
    assert done.status == 0
    for word in (
        "--to",
        "--out",
        "--config",
        "--split",
        "--labels",
        "--reader",
        "--allow-mismatch",
        "--workers",
    ):
        assert word in done.out
    for word in (
        "--overwrite",
        "--sample",
        "--quiet",
        "--json",
        "inspect",
        "verify",
        "sample",
        "formats",
        "Exit status",
    ):
        assert word in done.out


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(kfer_convert, flag):
    assert kfer_convert(flag).out.split()[-1][0].isdigit()


def test_the_licence_of_the_description_is_printed_and_no_other(kfer_convert, source, tmp_path):
    def state(licence):
        def change(document):
            document["about"] |= {"personal_data": True, "licence": licence}

        edit_description(source, change)

    def convert(out):
        return kfer_convert(source, "--to", "parquet", "--config", "22_emo", "--out", tmp_path / out).out

    state({"name": "ours-1.0", "text": "Ask \n first.\x1b[31m"})
    out = convert("stated")
    assert "Licence of the data: ours-1.0: Ask first.?[31m\n" in out
    state({})
    assert "Licence" not in convert("not stated")
    for text in ("KFER", "non-commercial"):
        assert text not in out


def test_no_code_holds_a_fact_of_kfer():
    description = json.loads((PACKAGE / "dataset" / "kfer.json").read_text("utf-8"))
    facts = [*description["configs"], description["about"]["licence"]["name"], "Chung-Ang", "71,430", "Drama"]
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.jinja")]:
        text = path.read_text("utf-8")
        assert not [fact for fact in facts if fact in text and fact != "multi-label"], path


def test_an_upload_s_option_without_an_upload_is_named_as_it_was_given(kfer_convert, sample, tmp_path):
    for given, named in (("--public", "--public/--private"), ("--dry-run", "--dry-run")):
        done = kfer_convert(sample, "--to", "hf", "--out", tmp_path / "out", given)
        assert done.status == 2
        assert f"{named} is an option of an upload and needs --push-to-hub." in done.err


def test_a_sample_is_made_on_this_machine_only(kfer_convert):
    done = kfer_convert("s3://bucket/sample", "--sample", "--to", "parquet")
    assert (done.status, done.out) == (2, "")
    assert "--sample makes a folder on this machine" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("sample", "memory://x/new"),
        ("inspect", "--labels", "memory://x"),
        ("show", "--out", "memory://x/page.html"),
        ("push", "memory://x", "me/faces"),
    ],
)
def test_a_url_is_no_folder_of_this_machine(kfer_convert, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = kfer_convert(*arguments)
    assert done.status == 2
    assert "is in a store, and this must be on this machine." in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["nowhere", "file", "folder"])
def test_verifying_what_is_no_output_is_a_wrong_call(kfer_convert, tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    done = kfer_convert("verify", tmp_path / place)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("kfer-convert: ")


def test_an_output_of_version_1_is_refused_with_what_still_checks_it(kfer_convert, output):
    (output / "MANIFEST.json").write_text('{"manifest_version": 1}')
    done = kfer_convert("verify", output)
    assert done.status == 2
    assert "sha256sum -c SHA256SUMS" in done.err


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"manifest_version": 99}', "[" * 99999])
def test_a_manifest_that_is_none_ends_with_1(kfer_convert, output, text):
    (output / "MANIFEST.json").write_text(text)
    done = kfer_convert("verify", output)
    assert done.status == 1
    assert "MANIFEST.json" in done.err
    assert len(done.err) < 1000


def test_a_file_that_may_not_be_read_gives_no_traceback(kfer_convert, source, tmp_path):
    if os.geteuid() == 0:
        path = tfrecords(source, "6_basic_emo", "train")
        path.unlink()
        path.symlink_to("nothing")  # root may read every file that is there
    else:
        tfrecords(source, "6_basic_emo", "train").chmod(0)
    done = kfer_convert(source, "--to", "parquet", "--out", tmp_path / "out")
    assert done.status in (1, 2)
    assert "6_basic_emo_train.tfrecords" in done.err
    assert not (tmp_path / "out").exists()


def test_a_file_that_may_not_be_read_is_not_taken_for_damaged(kfer_convert, source, tmp_path, monkeypatch):
    def forbidden(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("converters.formats.tfrecord.compression._open", forbidden)
    done = kfer_convert(source, "--to", "parquet", "--out", tmp_path / "out")
    assert done.err.endswith("_train.tfrecords: the file cannot be opened: Permission denied.\n")
    monkeypatch.setattr("converters.storage.files.names_in", forbidden)
    assert kfer_convert(source, "--to", "parquet", "--out", tmp_path / "out").err == done.err


@pytest.mark.parametrize(("command", "option"), [("inspect", "--describe"), ("show", "--out")])
def test_a_file_that_cannot_be_written_whole_is_not_written(sample, tmp_path, command, option):
    program = f"ulimit -f 1; '{sys.executable}' -m converters {command} '{sample}' {option} written"
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "kfer-convert: written: File too large.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_name_moves_no_cursor(tmp_path):
    (tmp_path / "\x1b[2J\x9btrain.tfrecord").write_bytes(b"none")
    program = (
        "import os, pty, sys\n"
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.executable, '-m', 'converters', 'inspect', '.'])))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert "?[2J?train.tfrecord: this is no TFRecord file" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_closed_pipe_is_no_error_message(sample, tmp_path):
    command = f"'{sys.executable}' -m converters '{sample}' --to parquet --out '{tmp_path / 'out'}' --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_the_module_and_the_script_are_the_same(output):
    done = subprocess.run(
        [sys.executable, "-m", "converters", "verify", output], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "verified" in done.stdout


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_too_little_memory_is_an_error_in_words(kfer_convert, tmp_path, monkeypatch, command):
    def greedy(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(f"converters.api.{command}", greedy)
    done = kfer_convert(command, tmp_path)
    assert done.status == 1
    assert done.err == "kfer-convert: there is not enough memory. Give it more, or use fewer --workers.\n"


@pytest.mark.parametrize(
    "error", [MemoryError, KeyboardInterrupt, PermissionError(13, "Permission denied", "x")]
)
def test_json_is_one_object_whatever_ends_the_command(kfer_convert, tmp_path, monkeypatch, error):
    def failing(*arguments, **options):
        raise error

    monkeypatch.setattr("converters.api.verify", failing)
    done = kfer_convert("verify", tmp_path, "--json")
    assert done.err.strip() == f"kfer-convert: {json.loads(done.out)['error']}"


def test_json_of_several_formats_is_one_object(kfer_convert, source, tmp_path):
    """Also where one of them fails, and where one is pushed."""
    more = ("--config", "6_basic_emo", "--json", "--quiet")
    push = ("--push-to-hub", "me/faces", "--dry-run")
    done = kfer_convert(source, "--to", "hf,jpeg", "--out", tmp_path / "out", *push, *more)
    pushed = json.loads(done.out)
    assert (done.status, pushed["repo"]) == (0, "me/faces")
    assert {name: report["verified"] for name, report in pushed["conversion"].items()} == {
        "hf": True,
        "jpeg": True,
    }
    shutil.rmtree(next((tmp_path / "out").glob("*-jpeg")))
    done = kfer_convert(source, "--to", "hf,jpeg", "--out", tmp_path / "out", *push, *more)
    again = json.loads(done.out)
    assert (done.status, again["jpeg"]["verified"]) == (2, True)
    assert "exists already" in again["hf"]["error"]


def test_a_signal_that_comes_twice_is_no_traceback(tmp_path):
    """timeout(1) and others send one to a process and then to its group."""
    program = """
import os, signal
from converters import api
from converters.cli import main as cli

def terminate():
    os.kill(os.getpid(), signal.SIGTERM)

def steps():
    try:
        yield
    finally:
        terminate()  # where an exception could only be printed

def verify(*_, **__):
    running = steps()
    next(running)
    try:
        terminate()
    finally:
        del running

def closing(out):
    terminate()
    return close(out)

api.verify, close, cli.close = verify, cli.close, closing
cli.main(["verify", "out"])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 143
    assert done.stderr.strip() == "kfer-convert: interrupted; nothing was published."


def test_an_interrupted_write_to_a_pipe_that_nobody_reads_ends(tmp_path):
    """Nothing is written after what was begun, which would block again."""
    program = (
        "from converters import api\n"
        "from converters.cli import main as cli\n"
        "api.inspect = lambda *_, **__: type('', (), {'to_json': lambda _: 'x' * (1 << 20), 'failed': False})()\n"
        "cli.main(['inspect', '.', '--json'])\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(1)
        time.sleep(0.3)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        assert process.wait(10) in (130, -signal.SIGINT)
        assert b"Traceback" not in process.stderr.read()


def test_a_run_under_nohup_goes_on_when_the_terminal_is_closed(sample, tmp_path):
    program = (
        "import os, signal, converters.api as api, converters.cli.main as cli\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup(1) does\n"
        "convert = api.convert\n"
        "api.convert = lambda *a, **o: (os.kill(os.getpid(), signal.SIGHUP), convert(*a, **o))[1]\n"
        f"cli.main([{os.fspath(sample)!r}, '--to', 'parquet', '--out', 'out'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
