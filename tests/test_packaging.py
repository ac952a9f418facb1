"""What the package says of itself: what it needs, and where it runs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Stands for an installation without some packages.
WITHOUT = """
import importlib.util, sys
find_spec = importlib.util.find_spec
missing = {missing!r}
importlib.util.find_spec = lambda name, *more: None if name in missing else find_spec(name, *more)
sys.argv[0] = "kfer-convert"
from converters.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def names(requirements):
    return {re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower() for requirement in requirements}


def test_no_conversion_needs_the_libraries_of_the_hub(project):
    extra = names(project["optional-dependencies"]["hf"])
    assert extra == {"datasets", "huggingface_hub", "httpx2"}
    assert not (extra | {"pandas"}) & names(project["dependencies"])


@pytest.mark.parametrize("missing", ["datasets", "huggingface_hub", "httpx2"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("push", "out", "me/kfer"),
        ("--to", "hf", "--push-to-hub", "me/kfer"),
        ("verify", "out", "--reader", "datasets"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_the_extra_hf_names_it(tmp_path, arguments, missing):
    if arguments[0] == "verify" and missing != "datasets":
        pytest.skip("verify needs datasets alone")
    program = WITHOUT.format(missing={missing})
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "pip install 'kfer-convert[hf]'" in done.stderr
    assert missing in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_windows_is_told_where_it_runs():
    program = "import sys; sys.platform = 'win32'; from converters.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "Linux, macOS or WSL" in done.stderr
