"""The README and the chapters of the manual: every snippet is run as it is printed, in order, in one folder a document.

The folder holds what the README's first command leaves behind. What a test cannot have (a network, Slurm, a package
that is not installed) is left out, and the test says so when all else has passed.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "converters" / "docs").glob("*.md"))
DOCUMENTS = {"README": ROOT / "README.md"} | {path.stem: path for path in CHAPTERS}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w./-]+\.(?:py|toml))\n")

# Whatever needs one of these in a shell is left out.
LEFT_OUT = {
    "python3 -m venv": "the README's first command is run by .ci/run",
    "pytest -n 2": "the README's second command is run by .ci/run",
    "pip install": "a network",
    "--engine ray": "tests/engines/test_ray.py runs it",
    "sbatch": "Slurm",
    "srun": "Slurm",
}
# What is not installed everywhere: the modules of a snippet, and what a command needs.
OPTIONAL = ("torch", "torchvision", "keras", "tensorflow", "grain", "webdataset", "lance", "datasets")
NEEDS = {
    "--to arrayrecord": "array_record",
    "--to lance": "lance",
    "kfer-arrayrecord": "array_record",
    "kfer-convert show": "vl_convert",
}


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and text of each snippet."""
    return BLOCK.findall(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def first_command(tmp_path_factory):
    """What the README's first command leaves behind."""
    folder = tmp_path_factory.mktemp("first")
    command = [sys.executable, "-m", "converters", "--sample", "--to", "parquet", "--quiet"]
    subprocess.run(command, cwd=folder, check=True)
    return folder


@pytest.fixture
def folder(first_command, tmp_path):
    """Where a document's snippets run."""
    folder = Path(shutil.copytree(first_command, tmp_path / "here"))
    (folder / "tfrecords").symlink_to("kfer-sample")
    return folder


@pytest.fixture
def environment(tmp_path, monkeypatch, hub):
    """Of the snippets: this program as ``kfer-convert``, the stand-in Hub, and what the document itself installs."""
    tools = tmp_path / "bin"
    tools.mkdir()
    script = tools / "kfer-convert"
    script.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m converters \"$@\"\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # other tests' modules set it
    return {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{tmp_path / 'site'}",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_DATASETS_OFFLINE": "1",
    }


@pytest.fixture
def bucket(monkeypatch):
    """A bucket called ``bucket`` on an S3 of our own, with the sample in ``tfrecords``."""
    moto_server = pytest.importorskip("moto.server")
    import s3fs

    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.makedirs("bucket", exist_ok=True)  # moto keeps it for as long as the process
    yield store
    running.stop()


def run(command: list[str], folder: Path, environment: dict[str, str], text: str) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"


def missing(text: str) -> str | None:
    """The module that a snippet or a command needs and that is not installed."""
    needed = [module for words, module in NEEDS.items() if words in text]
    needed += [word for word in OPTIONAL if re.search(rf"^(import|from) {word}\b", text, re.MULTILINE)]
    return next((module for module in needed if find_spec(module) is None), None)


def shell_text(text: str) -> tuple[str, list[str]]:
    """A shell snippet without what is left out, and why that is."""
    if text.startswith("#!"):
        needs = {reason for word, reason in LEFT_OUT.items() if word in text}
        assert needs, f"a script that nothing keeps from being run: {text}"
        return "", sorted(needs)
    kept, reasons = [], []
    for line in text.splitlines(keepends=True):
        reason = next((reason for word, reason in LEFT_OUT.items() if word in line), None) or missing(line)
        if reason is None:
            kept.append(line)
        else:
            reasons.append(reason)
    return "".join(kept), reasons


def install(project: Path, site: Path) -> None:
    """What pip makes of a project with a module and entry points."""
    described = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    name = described["name"].replace("-", "_")
    info = site / f"{name}-{described['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {described['version']}\n")
    groups = described["entry-points"].items()
    points = (
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups
    )
    (info / "entry_points.txt").write_text("".join(points))
    for module in project.glob("*.py"):
        shutil.copy(module, site)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_snippets_run_as_printed(name, folder, environment, request, tmp_path):
    left_out = []
    if "s3://bucket" in DOCUMENTS[name].read_text("utf-8"):
        store = request.getfixturevalue("bucket")
        store.put(str(folder / "kfer-sample") + "/", "bucket/tfrecords/", recursive=True)
        environment |= {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
    for language, text in blocks(DOCUMENTS[name]):
        if found := FILE.match(text):
            path = folder / found[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            if path.name == "pyproject.toml":
                install(path.parent, tmp_path / "site")
        elif language == "sh":
            kept, reasons = shell_text(text)
            left_out += reasons
            run(["bash", "-euo", "pipefail", "-c", kept], folder, environment, text)
        elif language == "python":
            if module := missing(text):
                left_out.append(module)
            else:
                # A file, as a snippet with workers imports itself again.
                script = folder / "snippet.py"
                script.write_text(text)
                run([sys.executable, str(script)], folder, environment, text)
        else:
            assert language == "json", f"what is to be done with {language}?"
    if left_out:
        pytest.skip(f"all else ran; left out: {', '.join(dict.fromkeys(left_out))}")


def test_the_readme_shows_the_table_that_its_first_command_prints(tmp_path):
    command = [sys.executable, "-m", "converters", "--sample", "--to", "parquet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    shown = DOCUMENTS["README"].read_text("utf-8").split("```\nSample of", 1)[1].split("```", 1)[0]
    assert done.stdout.startswith("Sample of" + shown)


def test_the_readme_is_short():
    assert len(DOCUMENTS["README"].read_text("utf-8").splitlines()) <= 300


@pytest.mark.parametrize("path", [*DOCUMENTS.values(), *ROOT.glob("tests/**/README.md")], ids=str)
def test_links_lead_somewhere(path):
    text = path.read_text("utf-8")
    anchors = {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in text.splitlines()}
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        assert "://" in target or (path.parent / target).exists(), target
    for anchor in re.findall(r"\]\(#([^)]*)\)", text):
        assert anchor in anchors, anchor


def test_chapters_do_not_link_to_files():
    """They are read in a terminal too, from a wheel, where there is nothing but the chapters."""
    for path in CHAPTERS:
        assert not re.search(r"\]\((?!https?://)", path.read_text("utf-8")), path


def test_docs_lists_the_chapters_and_shows_them(kfer_convert):
    listed = kfer_convert("docs")
    assert listed.status == 0
    for path in CHAPTERS:
        title = path.read_text("utf-8").splitlines()[0].removeprefix("# ")
        assert re.search(rf"^{path.stem} +{re.escape(title)}$", listed.out, re.MULTILINE)
        shown = kfer_convert("docs", path.stem)
        assert (shown.status, shown.out) == (0, path.read_text("utf-8"))
    wrong = kfer_convert("docs", "nothing")
    assert wrong.status == 2
    assert "'clusters'" in wrong.err
    assert "Traceback" not in wrong.err


def test_the_readme_names_every_chapter_and_every_option(kfer_convert):
    text = DOCUMENTS["README"].read_text("utf-8")
    for path in CHAPTERS:
        assert f"converters/docs/{path.name}" in text
    usage = kfer_convert("--help").out.split("Options of push")[0]
    manual = text + DOCUMENTS["hub"].read_text("utf-8")
    for option in re.findall(r"--[a-z-]+", usage):
        assert option == "--help" or option in manual, option
