"""What is imported: nothing heavy on any default path."""

import subprocess
import sys

import pytest

from converters import convert


@pytest.fixture(scope="module")
def output(sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("output") / "out"
    convert(sample, to="parquet", out=out, configs=["6_basic_emo"])
    return out


def imported(*arguments) -> set[str]:
    """Names of the modules that a command imports, packages' own parts among them."""
    command = [sys.executable, "-X", "importtime", "-m", "converters", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip() for line in lines}


def heavy(names: set[str]) -> set[str]:
    return {
        name
        for name in names
        if name.startswith("tensorflow")
        or name in ("datasets", "pandas", "torch", "ray", "converters.engines.ray")
        or name in ("huggingface_hub", "httpx2", "converters.hub")
    }


@pytest.mark.parametrize("to", ["parquet", "jpeg", "hf"])
def test_converting(sample, tmp_path, to):
    names = imported(sample, "--to", to, "--out", tmp_path / "out", "--config", "6_basic_emo")
    assert "pyarrow" in names
    assert not heavy(names)
    # It documents some 300 functions when it is imported, which takes a tenth of a second.
    assert "pyarrow.compute" not in names


def test_verifying(output, sample):
    assert not heavy(imported("verify", output, "--source", sample))


def test_inspecting(sample):
    assert not heavy(imported("inspect", sample))


@pytest.mark.parametrize("arguments", [("--help",), ("verify", "--help"), ("--version",)])
def test_help_is_light(arguments):
    names = imported(*arguments)
    assert not heavy(names)
    assert not {"pyarrow", "numpy", "PIL"} & names


def test_making_the_sample(tmp_path):
    assert not heavy(imported("sample", tmp_path / "sample", "--records", "20"))
