"""Pushing to a stand-in Hub: what is sent, when, to whom it is visible, and what is made of every failure."""

import hashlib
import itertools
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import httpx2
import huggingface_hub.constants
import pytest
from conftest import edit_description, flip, renew
from huggingface_hub import close_session, get_session
from huggingface_hub.utils import are_progress_bars_disabled, http_backoff
from standin_hub import TOKEN, Fault, File, Hub, Repo

import converters.hub.upload
from converters import CallError, CheckError, DataError, convert
from converters import push as push_api
from converters.hub import Destination
from converters.hub.changes import git_oid, groups
from converters.hub.failures import HubError, clean
from converters.hub.session import HubSession, Unreachable, _guard, hub_session
from converters.storage.file_list import OutputFile
from converters.verify.datasets_reader import confirm

REPO = "me/kfer"


def contents(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


@pytest.fixture(params=["large", "regular", "mixed"])
def storage(request, hub: Hub) -> str:
    """How the Hub keeps files: as large ones, in git, or each as it is used to."""
    if request.param != "mixed":
        hub.large = lambda path: request.param == "large"
    return request.param


@pytest.fixture
def push_small(push, small_output):
    """Pushes an output of one split."""
    return partial(push, out=small_output)


@pytest.fixture
def small_commits(monkeypatch):
    monkeypatch.setattr(converters.hub.upload, "_COMMIT_BYTES", 60_000)


# --- What arrives ---------------------------------------------------------------------------------------


def test_every_file_arrives_in_a_private_gated_repo(hub, push, hf_output, storage):
    done = push()
    assert (done.status, done.err) == (0, "")
    repo = hub.repos[REPO]
    assert repo.files() == contents(hf_output)
    assert (repo.private, repo.gated) == (True, "manual")
    assert f"{hub.endpoint}/datasets/{REPO}" in done.out
    assert "Licence of the data" in done.out


def test_private_and_gated_come_before_the_first_byte(hub, push, hf_output, storage):
    push()
    order = [str(request) for request in hub.requests]
    settings = order.index(f"PUT /api/datasets/{REPO}/settings")
    looked = order.index(f"GET /api/datasets/{REPO}", settings)
    created = order.index("POST /api/repos/create")
    sends = [
        at
        for at, request in enumerate(hub.requests)
        if request.size and not any(word in str(request) for word in ("repos/create", "settings"))
    ]
    assert created < settings < looked < min(sends)
    assert json.loads(hub.requests[created].body)["visibility"] == "private"


def test_the_second_push_sends_nothing(hub, push, hf_output, storage):
    push()
    commits, before = list(hub.repos[REPO].messages), len(hub.requests)
    done = push()
    assert done.status == 0
    assert "nothing had to be sent" in done.out
    assert hub.repos[REPO].messages == commits
    assert all(request.method == "GET" for request in hub.requests[before:])


def test_only_what_changed_is_sent(hub, push, hf_output, storage, sample, tmp_path, kfer_convert):
    push()
    out = tmp_path / "other"
    done = kfer_convert(sample, "--to", "hf", "--out", out, "--labels", sample / "labels")
    assert done.status == 0
    before = len(hub.requests)
    done = push(out=out)
    assert done.status == 0
    assert hub.repos[REPO].files() == contents(out)
    assert "replace  README.md" in done.out
    assert "LICENSE" not in done.out  # is the same
    assert "there already: 1\n" in done.out
    sent = b"".join(request.body for request in hub.requests[before:])
    assert (out / "LICENSE").read_bytes() not in sent


def test_several_commits_are_sent_in_order(hub, push, hf_output, storage, small_commits):
    done = push("--commit-message", "Mine")
    assert done.status == 0
    assert hub.repos[REPO].files() == contents(hf_output)
    messages = hub.repos[REPO].messages[1:]
    assert len(messages) > 2
    assert messages[0] == f"Mine (part 1 of {len(messages)})"
    first, last = hub.commits()[0].body, hub.commits()[-1].body
    assert b'"README.md"' in first
    assert b'"LICENSE"' in first
    assert b'"MANIFEST.json"' in last
    assert b'"SHA256SUMS"' in last
    # Between two commits the Hub is asked again who may see the repo.
    order = [str(request) for request in hub.requests]
    commits = [at for at, text in enumerate(order) if "/commit/" in text]
    for one, two in itertools.pairwise(commits):
        assert f"GET /api/datasets/{REPO}" in order[one:two]


@pytest.mark.parametrize("name", ["v1.2", "a/b-c_d", "refs/pr/12", "ä@1", "x.locked"])
def test_names_of_branches(name):
    assert Destination(REPO, revision=name).revision == name


def test_a_branch_is_made_and_committed_to(hub, push, hf_output):
    done = push("--revision", "v1.0/first")
    assert done.status == 0
    repo = hub.repos[REPO]
    assert repo.files("v1.0/first") == contents(hf_output)
    assert repo.files("main") == {}
    assert done.out.rstrip().endswith("/tree/v1.0/first")
    assert "nothing had to be sent" in push("--revision", "v1.0/first").out


def test_a_branch_begins_with_what_main_has(hub, push, hf_output):
    push()
    hub.repos[REPO].at("main")[1]["extra"] = hub.repos[REPO].at("main")[1].pop("LICENSE")
    shown = push("--revision", "new", "--dry-run").out
    assert "send   LICENSE" in shown
    assert "extra  extra" in shown
    assert "Files to send: 1, " in shown
    assert push("--revision", "new").status == 0
    assert hub.repos[REPO].files("new").keys() == contents(hf_output).keys() | {"extra"}


@pytest.mark.parametrize("storage", ["large", "regular"], indirect=True)
def test_a_pull_request(hub, push, hf_output, storage, small_commits):
    done = push("--create-pr")
    assert done.status == 0
    repo = hub.repos[REPO]
    assert repo.files("main") == {}
    assert repo.files("refs/pr/1") == contents(hf_output)
    assert "refs/pr/2" not in repo.branches
    assert done.out.rstrip().endswith("/discussions/1")
    assert push("--revision", "refs/pr/1").status == 0


def test_a_pull_request_that_breaks_off_is_none(hub, push, hf_output, small_commits):
    hub.faults = [Fault(STEPS["commit"], status=500, times=99)]
    assert push("--create-pr").status == 2
    assert "refs/pr/1" not in hub.repos[REPO].branches
    hub.faults = []
    assert push("--create-pr").status == 0
    assert hub.repos[REPO].files("refs/pr/1") == contents(hf_output)
    assert len(hub.repos[REPO].branches) == 2


def test_names_that_have_to_be_quoted(hub, push, source, tmp_path, storage):
    config = "b c (d) 얼굴 + é #% ;&"

    def change(document):
        document["configs"] = {config: document["configs"]["22_emo"]}

    edit_description(source, change)
    for file in [*source.glob("6_*.tfrecords"), *source.glob("multi*.tfrecords")]:
        file.unlink()
        file.with_suffix(".idx").unlink()
    convert(source, to="hf", out=tmp_path / "out")
    assert push(out=tmp_path / "out").status == 0
    assert hub.repos[REPO].files() == contents(tmp_path / "out")
    assert f"{config}/test-00000-of-00001.parquet" in hub.repos[REPO].files()


def test_extra_files_are_reported_and_stay(hub, push, hf_output):
    push()
    repo = hub.repos[REPO]
    repo.at("main")[1]["notes [1].txt"] = repo.at("main")[1]["LICENSE"]
    done = push()
    assert done.status == 0
    assert "extra  notes [1].txt" in done.out
    assert "notes [1].txt" in repo.files()
    done = push("--delete-extra")
    assert done.status == 0
    assert repo.files() == contents(hf_output)
    assert ".gitattributes" in repo.at("main")[1]
    assert "nothing had to be sent" in done.out


def test_extra_files_are_deleted_with_what_is_sent(hub, push, hf_output, storage):
    hub.repos[REPO] = repo = Repo(private=True)
    initial = repo.at("main")[1][".gitattributes"]
    repo.at("main")[1].update({"old.txt": initial, "22_emo/README.md": initial, "README.md": initial})
    done = push("--delete-extra", "--dry-run")
    assert "delete   22_emo/README.md" in done.out
    assert "replace  README.md" in done.out
    assert hub.writes == []
    assert push("--delete-extra").status == 0
    assert repo.files() == contents(hf_output)
    assert len(hub.commits()) == 1


def test_json(hub, push, hf_output):
    done = push("--json")
    assert done.err == ""
    said = json.loads(done.out)
    assert said["url"] == f"{hub.endpoint}/datasets/{REPO}"
    assert (said["visibility"], said["gated"]) == ("private", "manual")
    assert sorted(said["new"]) == sorted(contents(hf_output))
    assert said["verified_files"] == len(contents(hf_output))
    assert json.loads(push("--json").out)["bytes"] == 0


def test_quiet(hub, push):
    done = push("--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")
    hub.repos[REPO].private = False
    assert "public" in push("--quiet").err


def test_a_conversion_pushes(hub, kfer_convert, sample, tmp_path):
    done = kfer_convert(sample, "--to", "hf", "--out", tmp_path / "out", "--push-to-hub", REPO)
    assert (done.status, done.err) == (0, "")
    assert hub.repos[REPO].files() == contents(tmp_path / "out")
    done = kfer_convert(
        sample, "--to", "hf", "--out", tmp_path / "out", "--overwrite", "--push-to-hub", REPO, "--json"
    )
    said = json.loads(done.out)
    assert said["conversion"]["verified"] is True
    assert said["bytes"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--to", "parquet", "--push-to-hub", REPO),
        ("--to", "hf", "--gated", "auto"),
        ("--to", "hf", "--push-to-hub", REPO, "--public"),
        ("--to", "hf", "--push-to-hub", "nonsense"),
        ("--to", "hf", "--push-to-hub", "me/public"),
    ],
)
def test_a_conversion_that_could_not_be_pushed_is_not_begun(hub, kfer_convert, sample, tmp_path, arguments):
    hub.repos["me/public"] = Repo(private=False)
    done = kfer_convert(sample, "--out", tmp_path / "out", *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err
    assert not list(tmp_path.glob("out*"))
    assert hub.writes == []


# --- Who may see it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("--private",), ("--public",), ("--i-have-the-right-to-publish",)])
def test_a_public_repo_is_refused(hub, push, flags):
    hub.repos[REPO] = Repo(private=False, gated="manual")
    done = push(*flags)
    assert (done.status, done.out) == (2, "")
    assert "--i-have-the-right-to-publish" in done.err
    assert hub.writes == []
    assert hub.repos[REPO].files() == {}


@pytest.mark.parametrize("flag", ["--public", "--i-have-the-right-to-publish"])
def test_one_flag_alone_is_refused_before_any_request(hub, push, flag):
    done = push(flag)
    assert done.status == 2
    assert "--public" in done.err
    assert hub.requests == []


def test_with_both_flags_it_becomes_public_last(hub, push, hf_output):
    done = push("--public", "--i-have-the-right-to-publish")
    assert done.status == 0
    repo = hub.repos[REPO]
    assert (repo.private, repo.gated) == (False, "manual")
    assert repo.files() == contents(hf_output)
    bodies = [json.loads(request.body) for request in hub.called("PUT .*/settings")]
    assert bodies == [{"gated": "manual"}, {"visibility": "public"}]
    order = [str(request) for request in hub.requests]
    last_read = max(at for at, text in enumerate(order) if "/resolve/" in text)
    assert last_read < max(at for at, text in enumerate(order) if "settings" in text)


def test_with_both_flags_a_public_repo_is_taken(hub, push, hf_output):
    hub.repos[REPO] = Repo(private=False)
    assert push("--public", "--i-have-the-right-to-publish").status == 0
    assert hub.repos[REPO].files() == contents(hf_output)
    assert hub.repos[REPO].gated == "manual"


def test_a_repo_that_stays_public_gets_nothing(hub, push):
    hub.stays_public = True
    done = push()
    assert done.status == 2
    assert "public, though it was to be private" in done.err
    assert [str(request) for request in hub.writes] == ["POST /api/repos/create"]


def test_a_gating_that_does_not_hold_stops_it(hub, push):
    hub.ignores_gating = True
    done = push()
    assert done.status == 2
    assert "gating is no" in done.err
    assert len(hub.writes) == 2


def test_a_hub_that_takes_the_gating_and_does_not_tell_it_gets_a_private_repo(hub, push):
    hub.tells_gating = False
    done = push()
    assert done.status == 0, done.err
    assert "took the gating manual, but does not tell it back" in done.err
    assert hub.repos[REPO].gated == "manual"
    assert hub.repos[REPO].private


def test_a_hub_that_does_not_tell_the_gating_of_a_public_repo_is_not_believed(hub, push):
    hub.tells_gating = False
    done = push("--public", "--i-have-the-right-to-publish")
    assert done.status == 2
    assert "did not make the repo public with gating manual" in done.err


def test_a_repo_that_becomes_public_meanwhile_stops_it(hub, push, monkeypatch, small_commits):
    hub.tamper = lambda path, data: (setattr(hub.repos[REPO], "private", False), data)[1]
    done = push()
    assert done.status == 2
    assert "public" in done.err
    assert len(hub.commits()) == 1


@pytest.mark.parametrize(("asked", "found"), [("manual", "manual"), ("auto", "auto"), ("no", False)])
def test_gating(hub, push_small, asked, found):
    assert push_small("--gated", asked).status == 0
    assert hub.repos[REPO].gated == found
    hub.repos[REPO].gated = "auto"
    assert push_small("--gated", asked).status == 0
    assert hub.repos[REPO].gated == found


# --- What it refuses ------------------------------------------------------------------------------------


def test_what_does_not_verify_is_not_sent(hub, push, hf_output, tmp_path):
    out = Path(shutil.copytree(hf_output, tmp_path / "out"))
    flip(out / "22_emo" / "test-00000-of-00001.parquet", 500)
    done = push(out=out)
    assert done.status == 1
    assert "22_emo/test-00000-of-00001.parquet" in done.err
    assert hub.requests == []
    (out / "extra").write_text("")
    assert push(out=out).status == 1


def test_what_datasets_reads_otherwise_is_not_sent(hub, push, hf_output, tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("converters.verify.datasets_reader"), "confirm", confirm)
    out = Path(shutil.copytree(hf_output, tmp_path / "out"))
    card = (out / "README.md").read_text("utf-8").replace("path: 22_emo/test-*", "path: 22_emo/train-*")
    (out / "README.md").write_text(card, "utf-8")
    renew(out)
    done = push(out=out)
    assert done.status == 1
    assert "22_emo/test: datasets: " in done.err
    assert hub.requests == []


def test_only_hf_outputs(hub, push, kfer_convert, sample, tmp_path):
    kfer_convert(sample, "--to", "parquet", "--out", tmp_path / "out", "--config", "22_emo")
    done = push(out=tmp_path / "out")
    assert done.status == 2
    assert "--to hf" in done.err
    assert push(out=tmp_path).status == 2
    assert hub.requests == []


@pytest.mark.parametrize(
    "name",
    ["kfer", "me/", "/kfer", "me/kf/er", "me/a--b", "me/a b", "me/.x", "me/x.git", "-me/x", "me/" + "x" * 97, ""]
)  # fmt: skip
def test_names_that_are_none(hub, push_small, name):
    done = push_small(repo=name)
    assert done.status == 2
    assert "NAMESPACE/NAME" in done.err
    assert hub.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--create-pr", "--revision", "x"),
        *(
            ("--revision", name)
            for name in ("", "..", "a b", "main~1", "a/../b", "/a", "a/", "a//b", "a.lock", "@")
        ),
        ("--commit-message", " "),
        ("--gated", "maybe"),
        ("--token", TOKEN[:5]),
    ],
)
def test_wrong_options(hub, push_small, arguments):
    assert push_small(*arguments).status == 2
    assert hub.requests == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "ftp://x",
        "nonsense",
        "https://user:word@hub",
        "http://",
        "http://[::1",
        "http://hub:99999",
        "https://hub/?t=word",
    ],
)
def test_an_endpoint_that_is_none(hub, push, monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    done = push()
    assert done.status == 2
    assert "word" not in done.err.replace("password", "")
    assert hub.requests == []


def test_an_endpoint_on_which_huggingface_hub_itself_fails(small_output):
    environment = {"HF_ENDPOINT": "http://127.0.0.1:port", "HF_TOKEN": TOKEN, "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "converters", "push", str(small_output), REPO, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("kfer-convert: HF_ENDPOINT is no address of a Hub")
    assert "HF_ENDPOINT" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize(
    "answer", [b'{"url": "http://elsewhere.example/datasets/me/kfer"}', b"{}", b""], ids=str
)
def test_the_address_of_a_new_repo_is_not_needed(hub, push_small, small_output, answer):
    def create():
        hub.repos[REPO] = Repo(private=True)

    hub.faults = [Fault(STEPS["create"], status=200, body=answer, first=create)]
    assert push_small().status == 0
    assert hub.repos[REPO].files() == contents(small_output)


@pytest.mark.parametrize("token", ["", "  ", "hf_x y", "hf_é"])
def test_no_token(hub, push_small, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    done = push_small()
    assert done.status == 2
    assert "HF_TOKEN" in done.err
    assert "hf auth login" in done.err
    assert hub.requests == []


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["a folder", "no text"])
def test_a_login_cache_that_cannot_be_read(hub, push_small, monkeypatch, tmp_path, content):
    monkeypatch.delenv("HF_TOKEN")
    cached = tmp_path / "cached"
    if content is None:
        cached.mkdir()
    else:
        cached.write_bytes(content)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(cached))
    done = push_small()
    assert done.status == 2
    assert "the token cannot be read" in done.err
    assert "hf auth login" in done.err
    assert hub.requests == []


def test_the_login_cache_has_the_token_too(hub, push, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "cached").write_text(TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "cached"))
    assert push().status == 0


def test_a_dry_run_sends_nothing(hub, push, hf_output, monkeypatch):
    done = push("--dry-run")
    assert done.status == 0
    for path, data in contents(hf_output).items():
        assert f"{len(data):,}" in next(line for line in done.out.splitlines() if path in line)
    assert f"{hub.endpoint}/datasets/{REPO}" in done.out
    assert "private, gating manual" in done.out
    assert "Licence of the data" in done.out
    assert hub.writes == []
    assert hub.repos == {}
    before = len(hub.requests)
    monkeypatch.delenv("HF_TOKEN")
    done = push("--dry-run")
    assert (done.status, len(hub.requests)) == (0, before)
    assert "not looked at" in done.out
    assert json.loads(push("--dry-run", "--json").out)["dry_run"] is True


# --- What the Hub holds afterwards ----------------------------------------------------------------------


@pytest.mark.parametrize("honest", [True, False], ids=["listed as it is", "listed as it was sent"])
def test_one_byte_that_the_hub_stores_differently(hub, push, hf_output, storage, honest):
    name = "multi-label/train-00000-of-00001.parquet"
    hub.honest_listing = honest
    hub.tamper = lambda path, data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:] if path == name else data
    done = push()
    assert done.status == 1
    assert name in done.err
    assert hashlib.sha256((hf_output / name).read_bytes()).hexdigest() in done.err
    assert done.err.count(".parquet") == 1
    # The next push finds it too, and, where the Hub lists it as it is, sends it again.
    hub.tamper = None
    assert push().status == (0 if honest else 1)


def test_a_file_that_the_hub_loses_or_lists_wrongly(hub, push, hf_output, monkeypatch):
    push()
    repo = hub.repos[REPO]
    lost = Repo.commit

    def commit(self, branch, files, message):
        files.pop("SHA256SUMS", None)
        return lost(self, branch, files, message)

    monkeypatch.setattr(Repo, "commit", commit)
    del repo.at("main")[1]["README.md"]
    done = push()
    assert done.status == 1
    assert "SHA256SUMS: is not there" in done.err


@pytest.mark.parametrize("size", [0, 10])
def test_a_file_that_the_hub_hands_out_short_or_long(hub, push, hf_output, size):
    hub.tamper = lambda path, data: (
        data[:size] if path == "LICENSE" else data + b"x" if path == "README.md" else data
    )
    done = push()
    assert done.status == 1
    assert "LICENSE: has SHA-256" in done.err
    assert "README.md: has SHA-256" in done.err


# --- What goes wrong ------------------------------------------------------------------------------------

STEPS = {
    "look": r"^GET /api/datasets/me/kfer$",
    "create": r"^POST /api/repos/create",
    "gate": r"^PUT .*/settings",
    "card": r"^POST /api/validate-yaml",
    "preupload": r"/preupload/",
    "batch": r"/objects/batch",
    "put": r"^PUT /lfs/",
    "commit": r"/commit/",
    "list": r"/tree/",
    "read": r"/resolve/",
}
WORDS = {
    400: "refused",
    401: "token",
    402: "room",
    403: "permission",
    404: "not found",
    409: "somebody else",
    412: "somebody else",
    413: "room",
    429: "too many requests",
    500: "trouble",
    503: "trouble",
    507: "room",
}
# What these say is something of its own: a repo that is not there yet, though it was made; one that is there already,
# though it is not shown; a branch without files; a file that is not handed out.
OTHER_WORDS = {
    ("look", 404): (2, "does not show it"),
    ("create", 409): (2, "does not show it"),
    ("list", 404): (0, ""),
    ("read", 404): (1, "LICENSE: is not there"),
}


def make_reachable(hub, step):
    """Only a repo that is there is asked for its list."""
    if step == "list":
        hub.repos[REPO] = Repo(private=True)


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (step, status)
        for step in STEPS
        for status in WORDS
        if status in (401, 403, 404, 500) or step in ("create", "card", "commit")
    ],
)
def test_every_status_at_every_step_is_in_words(hub, push_small, small_output, step, status):
    make_reachable(hub, step)
    hub.faults = [Fault(STEPS[step], times=99, status=status, body=f'{{"error": "said {TOKEN}"}}'.encode())]
    done = push_small("-v")
    if (step, status) in OTHER_WORDS:
        expected, words = OTHER_WORDS[step, status]
        assert done.status == expected
        assert words in done.err
        return
    errors = [line for line in done.err.splitlines() if "/" not in line.split(" ")[-1]]
    assert done.status == (1 if (step, status) == ("card", 400) else 2)
    assert any(WORDS[status] in line or "rejects the card" in line for line in errors), done.err
    assert hub.repos.get(REPO) is None or hub.repos[REPO].private
    hub.faults = []
    assert push_small().status == 0
    assert hub.repos[REPO].files() == contents(small_output)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", ["request", "answer"])
def test_a_connection_cut_once_or_for_good(hub, push_small, small_output, step, how):
    make_reachable(hub, step)
    fault = {"cut_after": 0} if how == "request" else {"cut_answer": 1}
    if how == "answer" and step in ("gate", "put"):
        fault = {"cut_after": 0}
    hub.faults = [Fault(STEPS[step], times=99, **fault)]
    done = push_small()
    assert done.status == 2
    assert "run the same command again" in done.err
    hub.faults = []
    assert push_small().status == 0
    assert hub.repos[REPO].files() == contents(small_output)


@pytest.mark.parametrize("storage", ["large", "regular"], indirect=True)
def test_after_a_cut_finished_files_are_not_sent_again(hub, push, hf_output, storage, small_commits):
    pattern = r"^PUT /lfs/" if storage == "large" else r"/commit/"
    hub.faults = [Fault(pattern, times=99, cut_after=5000, skip=3)]
    assert push().status == 2
    finished = {request.path for request in hub.called(r"^PUT /lfs/")}
    committed = set(hub.repos[REPO].files())
    assert finished if storage == "large" else committed
    hub.faults = []
    before = len(hub.requests)
    assert push().status == 0
    again = hub.requests[before:]
    assert not finished & {request.path for request in again if request.method == "PUT"}
    for request in again:
        if "/commit/" in request.path:
            lines = [json.loads(line) for line in request.body.splitlines()]
            paths = {line["value"].get("path") for line in lines}
            assert not committed & paths
    assert hub.repos[REPO].files() == contents(hf_output)


def test_a_short_rate_limit_is_waited_for(hub, push_small, small_output, naps):
    for step in ("create", "gate", "card", "preupload", "batch", "put", "commit", "list", "read", "look"):
        hub.faults.append(Fault(STEPS[step], status=429, headers={"Retry-After": "7"}))
    assert push_small().status == 0
    assert push_small().status == 0  # this one lists the files
    assert hub.repos[REPO].files() == contents(small_output)
    assert len(naps) == 10
    assert min(naps) >= 7


@pytest.mark.parametrize(
    "asked", [{"Retry-After": "3600"}, {"RateLimit": '"api";r=0;t=3600'}], ids=["retry-after", "ratelimit"]
)
@pytest.mark.parametrize("step", STEPS)
def test_a_long_rate_limit_is_not(hub, push_small, naps, step, asked):
    make_reachable(hub, step)
    hub.faults = [Fault(STEPS[step], status=429, headers=asked, times=99)]
    done = push_small()
    assert done.status == 2
    assert "3600 seconds" in done.err
    assert naps == []


@pytest.mark.parametrize("step", ["look", "create", "gate", "commit"])
def test_a_rate_limit_in_its_other_form_is_waited_for(hub, push_small, naps, step):
    # The last number is the rest of the window; a limit that has requests left is no reason to wait.
    hub.faults = [
        Fault(STEPS[step], status=429, headers={"RateLimit": '"api";r=0;t=7'}),
        Fault(STEPS[step], status=429, headers={"RateLimit": '"api";r=3;t=299', "Retry-After": "5"}),
    ]
    assert push_small().status == 0
    assert naps == [7, 5]


@pytest.mark.parametrize("step", ["look", "create", "gate"])
@pytest.mark.parametrize("fault", [{"status": 502}, {"cut_after": 0}], ids=["502", "cut"])
def test_what_may_be_asked_twice_is_asked_again(hub, push_small, small_output, naps, step, fault):
    hub.faults = [Fault(STEPS[step], times=4, **fault)]
    assert push_small().status == 0
    assert naps == [1, 2, 4, 8]
    assert hub.repos[REPO].files() == contents(small_output)


def test_a_commit_is_not_sent_again_unasked(hub, push_small):
    hub.faults = [Fault(STEPS["commit"], status=502)]
    assert push_small().status == 2
    assert len(hub.commits()) == 1


def test_a_validator_that_is_down_does_not_reject_the_card(hub, push_small):
    hub.faults = [
        Fault(STEPS["card"], status=503, headers={"Content-Type": "text/html"}, body=b"<html>down</html>")
    ]
    done = push_small()
    assert done.status == 2
    assert "the Hub has trouble of its own (503)" in done.err
    assert hub.commits() == []


@pytest.mark.parametrize("namespace", ["nobody"])
def test_no_such_namespace(hub, push, namespace):
    done = push(repo=f"{namespace}/kfer")
    assert done.status == 2
    assert f"no namespace '{namespace}'" in done.err


def test_a_wrong_token(hub, push_small, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrong")
    done = push_small()
    assert done.status == 2
    assert "does not accept the token" in done.err
    assert "hf_wrong" not in done.err
    assert hub.writes == []


def test_a_hub_that_lists_nothing_is_compared_by_what_it_hands_out(hub, push_small, small_output):
    hub.faults = [Fault(STEPS["list"], status=404, times=99)]
    assert push_small().status == 0
    messages = list(hub.repos[REPO].messages)
    assert push_small().status == 0
    assert hub.repos[REPO].messages == messages
    assert hub.repos[REPO].files() == contents(small_output)


def test_files_that_are_listed_with_other_digests_are_not_sent_again(hub, push, monkeypatch, storage):
    listed = File.entry

    def entry(self, path):
        return {"type": "file", "path": path, "size": listed(self, path)["size"], "oid": "0" * 40}

    monkeypatch.setattr(File, "entry", entry)
    monkeypatch.setattr(File, "etag", "0" * 40)
    push()
    messages = list(hub.repos[REPO].messages)
    done = push()
    assert (done.status, done.err) == (0, "")
    assert "nothing had to be sent" in done.out
    assert hub.repos[REPO].messages == messages


def test_names_in_the_repo_do_not_reach_the_terminal_as_they_are(hub, push):
    hub.repos[REPO] = Repo(private=True)
    hub.repos[REPO].at("main")[1]["\x1b[2Jaway\r.txt"] = File(b"")
    done = push("--dry-run")
    assert "?[2Jaway?.txt" in done.out
    assert "\x1b" not in done.out


def test_a_listed_file_that_is_not_handed_out(hub, push_small):
    hub.faults = [Fault(r"/resolve/main/croissant\.json$", status=404)]
    done = push_small()
    assert done.status == 1
    assert "croissant.json: is not there" in done.err
    assert done.err.count("is not there") == 1


def test_a_repo_that_is_made_meanwhile(hub, push_small, small_output):
    hub.repos[REPO] = Repo(private=True)
    hub.faults = [
        Fault(STEPS["look"], status=404),
        Fault(STEPS["create"], status=409, body=b'{"error": "exists"}'),  # without its address
    ]
    assert push_small().status == 0
    assert hub.repos[REPO].files() == contents(small_output)


def test_no_number_of_bytes_is_said_to_be_sent_that_was_not(hub, push_small):
    hub.faults = [Fault(STEPS["commit"], status=403)]
    push_small()
    sent = len(hub.called("^PUT /lfs/"))
    done = push_small()
    assert done.status == 0
    assert len(hub.called("^PUT /lfs/")) == sent > 0
    assert "brought up to date" in done.out
    assert "bytes sent" not in done.out


def test_a_missing_repo_that_is_answered_with_401(hub, push_small, small_output):
    hub.faults = [Fault(STEPS["look"], status=401)]
    assert push_small().status == 0
    assert hub.repos[REPO].files() == contents(small_output)


def test_a_hub_that_is_not_there(hub, push_small, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = push_small()
    assert done.status == 2
    assert "127.0.0.1:9 failed" in done.err


def test_what_is_no_hub(hub, push_small):
    for body in (b"<html>", b"[]", b"null"):
        for step in ("look", "create", "preupload", "batch", "commit", "list"):
            hub.faults = [Fault(STEPS[step], status=200, body=body, times=99)]
            hub.repos.clear()
            hub.blobs.clear()
            make_reachable(hub, step)
            done = push_small()
            assert done.status in (0, 1, 2), (step, body)
            assert done.status or step == "list" or hub.repos[REPO].private


def test_offline(hub, push_small, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    done = push_small()
    assert done.status == 2
    assert "HF_HUB_OFFLINE" in done.err


def test_a_card_that_the_hub_rejects(hub, push):
    hub.card_errors = ['"license" must be one of [mit]']
    done = push()
    assert done.status == 1
    assert "rejects the card" in done.err
    assert '"license" must be one of [mit]' in done.err
    assert hub.commits() == []
    assert hub.called("preupload") == []


def test_remarks_about_the_card_are_shown(hub, push):
    hub.card_warnings = ["empty or missing yaml metadata"]
    done = push()
    assert done.status == 0
    assert done.out.count("empty or missing yaml metadata") == 1


def test_no_space(hub, push):
    message = b'{"error": "Private repository storage limit reached"}'
    hub.faults = [Fault(STEPS["batch"], status=403, body=message)]
    done = push()
    assert done.status == 2
    assert "no room" in done.err
    assert "storage limit reached" in done.err


def test_somebody_else_commits_meanwhile(hub, push, small_commits):
    def interfere(path, data):
        hub.tamper = None
        hub.on_next_commit = lambda repo: repo.commit("main", dict(repo.at("main")[1]), "somebody else's")
        return data

    hub.tamper = interfere
    done = push()
    assert done.status == 2
    assert "somebody else" in done.err
    assert push().status == 0


def test_a_storage_elsewhere_gets_nothing(hub, push):
    with Hub() as other:
        hub.lfs_host = other.endpoint
        done = push()
        assert other.requests == []
    assert done.status == 2
    assert "another address" in done.err
    assert hub.commits() == []


def test_a_redirect_elsewhere_is_not_followed(hub, push_small):
    with Hub() as other:
        for step in ("look", "create", "read"):
            hub.repos.clear()
            hub.faults = [Fault(STEPS[step], status=307, headers={"Location": other.endpoint + "/x"})]
            done = push_small()
            assert done.status == 2
            assert "another address" in done.err
        assert other.requests == []


def test_interrupted(hub, push, monkeypatch):
    def stop(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("converters.hub.upload._upload", stop)
    done = push()
    assert done.status == 130
    assert "goes on from there" in done.err
    assert "nothing was published" not in done.err


def test_ctrl_c_ends_an_upload_that_hangs(hub, push):
    over = threading.Event()
    pressed = threading.Lock()
    threads = set(threading.enumerate())

    def hang():
        if pressed.acquire(blocking=False):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        over.wait(60)

    hub.large = lambda path: True
    hub.faults = [Fault(STEPS["put"], times=99, instead=hang)]
    done = push()
    assert not over.is_set()
    over.set()
    assert done.status == 130
    assert "goes on from there" in done.err
    assert hub.commits() == []
    left = set(threading.enumerate()) - threads
    assert not [thread for thread in left if "ThreadPool" in thread.name]


@pytest.mark.parametrize("event", ["connection.connect_tcp.complete", "connection.start_tls.complete"])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_connections_are_cut_in_the_clear_and_encrypted(event, late):
    session = HubSession()
    ours, theirs = socket.socketpair()
    stream = SimpleNamespace(get_extra_info={"socket": ours}.get)
    if late:
        session.cut()
    session._traced(event, {"return_value": stream})
    if not late:
        session.cut()
    with ours, theirs:
        assert theirs.recv(1) == b""
    with pytest.raises(HubError):
        session.follow(httpx2.Request("GET", "https://hub.example"))


def test_no_client_without_the_guard_takes_the_place_of_one_that_cannot_connect(hub):
    away = "http://127.0.0.1:9"
    with hub_session(Destination(REPO, away)):
        client = get_session()
        with pytest.raises(Unreachable):
            http_backoff("GET", f"{away}/x")  # which makes a new client where it meets httpx2's own error
        assert get_session() is client
        with pytest.raises(HubError, match="another address"):
            http_backoff("GET", f"{hub.endpoint}/x")
    assert hub.requests == []


def test_a_client_that_is_replaced_meanwhile_stops_it(hub, push_small):
    hub.faults = [Fault(STEPS["gate"], first=close_session)]
    done = push_small()
    assert done.status == 2
    assert "closed the connections" in done.err
    assert hub.called("/preupload/") == []


# --- What it leaves behind in this process, and says ----------------------------------------------------


def test_the_token_is_nowhere(hub, push, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(huggingface_hub.constants, "HF_DEBUG", True)
    hub.faults = [
        Fault(
            STEPS["look"],
            status=403,
            body=f'{{"error": "Bearer {TOKEN} and https://x/y?sig={TOKEN}"}}'.encode(),
        )
    ]
    for _ in range(2):
        done = push("-v")
        assert TOKEN not in caplog.text
    assert "GET 127.0.0.1/datasets/me/kfer/resolve/main/README.md" in done.err
    assert any(TOKEN in request.headers.get("authorization", "") for request in hub.requests)
    assert not any("authorization" in request.headers for request in hub.called("^PUT /lfs/"))


@pytest.mark.parametrize("token", [TOKEN, "odd/t%6Fken"])
def test_a_token_that_the_hub_puts_into_addresses_is_not_shown(hub, push_small, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    hub.token = token
    for address in (f"/seen/{quote(token)}?t={token}", f"http://{token.lower()}.example/x"):
        hub.faults = [Fault(STEPS["read"], status=302, headers={"Location": address}, times=99)]
        done = push_small("-v")
        assert done.status != 0
        assert not any(
            form in (done.out + done.err).lower() for form in (token.lower(), quote(token).lower())
        )


def test_the_token_is_in_no_exception(hub, hf_output):
    hub.faults = [Fault(".", status=500, times=99, body=TOKEN.encode())]
    with pytest.raises(CallError) as caught:
        push_api(hf_output, REPO)
    error: BaseException | None = caught.value
    assert TOKEN not in str(error)
    assert error.__suppress_context__
    assert error.__cause__ is None


def test_huggingface_hub_is_left_as_it_was(hub, push, hf_output):
    from huggingface_hub.utils import logging as hub_logging

    def settings():
        client = get_session()
        return (
            client,
            client.timeout,
            *map(tuple, client.event_hooks.values()),
            hub_logging.get_verbosity(),
            huggingface_hub.constants.HF_HUB_DISABLE_XET,
            huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY,
            are_progress_bars_disabled(),
        )

    before = settings()
    assert push().status == 0
    hub.faults = [Fault(".", status=500, times=99)]
    assert push().status == 2
    assert settings() == before


def test_the_api(hub, hf_output, tmp_path):
    seen = []
    report = push_api(hf_output, REPO, announce=seen.append)
    assert report.url == f"{hub.endpoint}/datasets/{REPO}"
    assert report.verified == len(contents(hf_output))
    assert seen[0].changes == report.changes
    with pytest.raises(CallError, match="have-the-right"):
        push_api(hf_output, REPO, public=True)
    hub.tamper = lambda path, data: data + b" "
    del hub.repos[REPO]
    with pytest.raises(DataError):
        push_api(hf_output, REPO)
    out = Path(shutil.copytree(hf_output, tmp_path / "out"))
    flip(out / "LICENSE", 3)
    with pytest.raises(CheckError):
        push_api(out, REPO)


# --- The official Hub, which is not there in tests ------------------------------------------------------


@pytest.fixture
def official(monkeypatch, hub):
    """Takes the stand-in for the official Hub: huggingface_hub then sends a folder by its Xet pipeline."""
    monkeypatch.setattr(Destination, "official", property(lambda _: True))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    hub.large = lambda path: False  # nobody here speaks Xet


def test_the_pipeline_of_several_commits_does_the_same(official, hub, push, hf_output):
    assert push().status == 0
    assert hub.repos[REPO].files() == contents(hf_output)
    assert "nothing had to be sent" in push().out
    hub.repos[REPO].at("main")[1].pop("LICENSE")
    hub.repos[REPO].at("main")[1]["old"] = hub.repos[REPO].at("main")[1]["SHA256SUMS"]
    assert push("--delete-extra").status == 0
    assert hub.repos[REPO].files() == contents(hf_output)


def test_the_pipeline_opens_one_pull_request(official, hub, push, hf_output):
    done = push("--create-pr")
    assert done.status == 0
    assert done.out.rstrip().endswith("/discussions/1")
    assert hub.repos[REPO].files("refs/pr/1") == contents(hf_output)
    assert hub.repos[REPO].files("main") == {}


@pytest.mark.parametrize("step", ["card", "preupload", "commit"])
@pytest.mark.parametrize("status", [401, 403, 413, 500])
def test_the_pipelines_errors_are_in_words(official, hub, push_small, small_output, step, status):
    hub.faults = [Fault(STEPS[step], times=99, status=status)]
    done = push_small()
    assert done.status == 2
    assert WORDS[status] in done.err
    hub.faults = []
    assert push_small().status == 0
    assert hub.repos[REPO].files() == contents(small_output)


@pytest.mark.parametrize(
    ("endpoint", "url", "headers", "passes"),
    [
        ("https://huggingface.co", "https://huggingface.co/x", {"authorization": "Bearer t"}, True),
        ("https://huggingface.co", "https://storage.example/x", {}, True),
        ("https://huggingface.co", "https://storage.example/x", {"authorization": "Bearer t"}, False),
        ("https://huggingface.co", "http://storage.example/x", {}, False),
        ("https://huggingface.co", "http://huggingface.co/x", {}, False),
        ("https://hub.example", "https://hub.example/x", {"authorization": "Bearer t"}, True),
        ("https://hub.example", "https://hub.example:443/x", {}, True),
        ("https://hub.example", "https://hub.example:8443/x", {}, False),
        ("https://hub.example", "https://huggingface.co/x", {}, False),
        ("https://hub.example", "https://hub.example.evil/x", {}, False),
        ("https://hub.example", "https://hub.example@evil/x", {}, False),
        ("http://127.0.0.1:99", "http://localhost:99/x", {}, True),
        ("http://127.0.0.1:99", "http://localhost:98/x", {}, False),
        ("http://127.0.0.1:99", "https://localhost:99/x", {}, False),
    ],
)
def test_where_requests_may_go(endpoint, url, headers, passes):
    check = _guard(Destination(REPO, endpoint))
    request = httpx2.Request("GET", url, headers=headers)
    if passes:
        check(request)
    else:
        with pytest.raises(HubError, match=r"another address|not\s+the Hub"):
            check(request)


# --- Parts ----------------------------------------------------------------------------------------------


def test_git_oid(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert git_oid(tmp_path / "empty", 0) == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # git's own
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert git_oid(tmp_path / "hello", 6) == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_groups():
    files = [OutputFile(str(size), size, "") for size in (5, 6, 4, 20, 1)]
    assert [[file.size for file in group] for group in groups(files, 10)] == [[5], [6, 4], [20], [1]]
    assert groups(files, None) == [files]
    assert groups([], 10) == []


def test_clean():
    assert clean("a\nb\x1b[31m  c") == "a b?[31m c"
    assert (
        clean("Bearer abc https://x/y?Signature=1 hf_abcdefghij", "x/y")
        == "[secret] https://[secret]?[secret] [secret]"
    )
    assert clean("Really? No hf_hub") == "Really? No hf_hub"
    odd = 'a/b"c%2F+'
    assert (
        clean(f"{odd} {quote(odd)} {quote(odd, safe='')} {json.dumps(odd)}", odd)
        == "[secret] " * 3 + '"[secret]"'
    )
    assert len(clean("x" * 9999)) < 500


def test_an_output_with_a_quarantine_is_pushed_whole_and_says_so(hub, push, source, tmp_path):
    flip(source / "22_emo_train.tfrecords", 5000)
    convert(source, to="hf", out=tmp_path / "out", configs=["22_emo"], on_error="quarantine")
    done = push(out=tmp_path / "out")
    assert done.status == 0
    assert "Not all of the source is in it" in done.out
    files = hub.repos[REPO].files()
    assert files == contents(tmp_path / "out")
    assert any(path.startswith("quarantine/") for path in files)
