"""Formats of other packages: they are listed, they convert, and they are believed no more than our own."""

import json
import os
import re
import subprocess
import sys

import pytest

from converters import convert, verify
from converters.errors import ConverterError

MODULE = '''
import pyarrow as pa


class ArrowFormat:
    """One Arrow file per shard, for a test."""

    name = "{name}"

    def write(self, batches, shard, folder):
        path = folder / shard.config / f"{{shard.split.name}}-{{shard.numbered()}}.arrow"
        path.parent.mkdir(parents=True)
        writer = None
        with path.open("xb") as file:
            for batch in batches:
                writer = writer or pa.ipc.new_file(file, batch.schema)
                {write}
            writer.close()
        {written}
        return [path]

    def read(self, folder, split, first=0):
        for path in sorted((folder / split.config).glob(f"{{split.name}}-*.arrow")):
            with pa.ipc.open_file(path) as file:
                for number in range(file.num_record_batches):
                    batch = file.get_batch(number)
                    {read}
                    yield batch

    def finish(self, report, folder):
        (folder / "README.txt").write_text(f"{{report.records}} records")
        {finish}
'''
GOOD = {"write": "writer.write(batch)", "written": "pass", "read": "pass", "finish": "pass"}
CHANGED_IMAGE = """rows = batch.to_pylist()
                    image = bytearray(rows[0]["image"])
                    image[-3] ^= 1
                    rows[0]["image"] = bytes(image)
                    batch = pa.RecordBatch.from_pylist(rows, schema=batch.schema)"""
CHANGED_LABEL = """rows = batch.to_pylist()
                    rows[0]["label"] = rows[0]["label"][1:] + rows[0]["label"][:1]
                    batch = pa.RecordBatch.from_pylist(rows, schema=batch.schema)"""
BAD = {
    "loses a record": {"read": "batch = batch.slice(0, len(batch) - 1)"},
    "does not write a record": {"write": "writer.write(batch.slice(1))"},
    "doubles a batch": {"write": "writer.write(batch); writer.write(batch)"},
    "changes an image": {"read": CHANGED_IMAGE},
    "changes a label": {"read": CHANGED_LABEL},
    "turns the order": {"read": "batch = batch.take(list(reversed(range(len(batch)))))"},
    "reads another schema": {"read": "batch = batch.select(['image', 'label'])"},
    "stops early": {"write": "break"},
    "writes an undeclared file": {"written": "(folder / 'more').write_text('')"},
    "raises": {"read": "raise RuntimeError('this format is broken')"},
    "writes a manifest": {"finish": "(folder / 'MANIFEST.json').write_text('{{}}')"},
    "removes a file": {"finish": "next(folder.rglob('*.arrow')).unlink()"},
    "changes a file": {"finish": "next(folder.rglob('*.arrow')).write_bytes(b'x')"},
}


def install(site, name: str, **changes):
    """A package with a format, installed into the folder ``site``."""
    package = "plugin_" + name.replace("-", "_")
    site.mkdir(exist_ok=True)
    (site / f"{package}.py").write_text(MODULE.format(name=name, **GOOD | changes))
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[kfer_convert.formats]\n{name} = {package}:ArrowFormat\n")
    return site


def run(site, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "converters", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_separate_package_s_format_is_listed_and_converts(sample, tmp_path, truth):
    site = install(tmp_path / "site", "arrow-test")
    done = run(site, "formats")
    assert done.returncode == 0
    assert re.search(r"^arrow-test +One Arrow file per shard, for a test\.$", done.stdout, re.MULTILINE)
    assert "parquet" in done.stdout
    assert "arrow-test" in re.sub(r"\s", "", run(site, "--help").stdout)  # lines may break at the dash

    out = tmp_path / "out"
    done = run(
        site, sample, "--to", "arrow-test", "--out", out, "--workers", "2", "--max-shard-size", "50000"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "README.txt").read_text() == "120 records"
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=out, capture_output=True).returncode == 0
    done = run(site, "verify", out, "--source", sample)
    assert (done.returncode, done.stderr) == (0, "")

    import pyarrow as pa

    images = []
    for path in sorted((out / "multi-label").glob("train-*.arrow")):
        with pa.ipc.open_file(path) as file:
            images += file.read_all()["image"].to_pylist()
    assert images == [record.image for record in truth["multi-label", "train"]]

    # Without the package, the files can be checked and the content is said to be unverified: no success.
    report = verify(out)
    assert any("unverified" in failure and "arrow-test" in failure for failure in report.failures())


@pytest.mark.parametrize("fault", BAD)
def test_a_format_that_fails_publishes_nothing(sample, tmp_path, monkeypatch, fault):
    name = "bad-" + fault.replace(" ", "-")
    monkeypatch.syspath_prepend(install(tmp_path / "site", name, **BAD[fault]))
    with pytest.raises((ConverterError, RuntimeError)) as caught:
        convert(sample, to=name, out=tmp_path / "out", configs=["6_basic_emo"])
    assert getattr(caught.value, "exit_status", 1) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"site"}


@pytest.mark.parametrize("fault", ["loses a record", "changes an image", "raises"])
def test_the_command_ends_with_1_and_no_traceback(sample, tmp_path, monkeypatch, kfer_convert, fault):
    name = "worse-" + fault.replace(" ", "-")
    monkeypatch.syspath_prepend(install(tmp_path / "site", name, **BAD[fault]))
    done = kfer_convert(sample, "--to", name, "--out", tmp_path / "out", "--json")
    assert done.status == 1
    assert done.err
    json.loads(done.out)
    assert {path.name for path in tmp_path.iterdir()} == {"site"}


def test_a_format_that_cannot_be_imported(sample, tmp_path, monkeypatch, kfer_convert):
    site = install(tmp_path / "site", "unimportable")
    (site / "plugin_unimportable.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(site)
    done = kfer_convert("formats")
    assert done.status == 0
    assert "a_package_that_is_not_there" in done.out
    done = kfer_convert(sample, "--to", "unimportable", "--out", tmp_path / "out")
    assert done.status == 2
    assert "a_package_that_is_not_there" in done.err
