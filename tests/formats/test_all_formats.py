"""What every format must pass: each with the same source, the same options and the same damage."""

import hashlib
import importlib.util
import json
import shutil
import subprocess
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CONFIGS, SPLITS, digests, flip
from helpers.examples import read_frames, write_frames

from converters import convert, verify
from converters.dataset.description import load_description, with_columns
from converters.errors import ConverterError
from converters.formats import load_format

LAYOUTS = {
    "arrayrecord": {},
    "arrow": {},
    "hf": {},
    "jpeg": {},
    "jpeg class folders": {"class_folders": True},
    "lance": {},
    "parquet": {},
    "tfrecord": {},
    "tfrecord with indexes": {"index": True},
    "webdataset": {},
}
NEEDS = {"arrayrecord": "array_record", "lance": "lance"}
OPTIONS = ("plain", "labels and shards")
SHARD_BYTES = 20_000


def arguments(layout: str, options: str, source) -> dict:
    chosen = {"to": layout.split()[0], **LAYOUTS[layout]}
    if "labels" in options:
        chosen["labels"] = source / "labels"
    if "shards" in options:
        chosen["max_shard_bytes"] = SHARD_BYTES
    return chosen


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request) -> str:
    if request.param in NEEDS and importlib.util.find_spec(NEEDS[request.param]) is None:
        pytest.skip(f"{NEEDS[request.param]} is not installed")
    return request.param


@pytest.fixture(scope="module", params=OPTIONS)
def options(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def output(layout, options, sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("output") / "out"
    convert(sample, out=out, **arguments(layout, options, sample))
    return out


@pytest.fixture(scope="module")
def small(layout, sample, tmp_path_factory):
    """An output of one config in several shards, with names; small enough to be damaged everywhere."""
    out = tmp_path_factory.mktemp("small") / "out"
    convert(sample, out=out, configs=["6_basic_emo"], **arguments(layout, "labels and shards", sample))
    return out


@pytest.fixture
def damaged(small, tmp_path):
    return shutil.copytree(small, tmp_path / "out")


def failures(out) -> list[str]:
    """What verification finds; an output whose manifest cannot be used has failed too."""
    try:
        return verify(out).failures()
    except ConverterError as error:
        if error.exit_status != 1:
            raise
        return [str(error)]


def test_every_record_survives_in_order(layout, options, output, sample, truth):
    target = load_format(layout.split()[0], **LAYOUTS[layout])
    for split in load_description(sample).splits():
        split = with_columns(split, (), identified="labels" in options)
        rows = [row for batch in target.read(output, split) for row in batch.to_pylist()]
        expected = truth[split.config, split.name]
        assert [row["image"] for row in rows] == [record.image for record in expected]
        assert [tuple(row["label_vector"]) for row in rows] == [record.label for record in expected]
        sizes = [(row["height"], row["width"], row["depth"]) for row in rows]
        assert sizes == [(record.height, record.width, record.depth) for record in expected]
        names = [(row.get("img_id", ""), row.get("clip_id", "")) for row in rows]
        joined = [(record.img_id, record.clip_id) for record in expected]
        assert names == (joined if "labels" in options else [("", "")] * len(rows))


def test_verification_passes(output, sample):
    report = verify(output, source=sample)
    assert report.failures() == []
    results = {check.result for split in report.splits for check in split.checks}
    assert results == {"passed"}
    assert len(report.splits) == len(CONFIGS) * len(SPLITS)


def test_sha256sum_agrees_and_lists_every_file(output):
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=output, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    listed = {line.split("  ", 1)[1] for line in (output / "SHA256SUMS").read_text().splitlines()}
    there = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert listed == there - {"SHA256SUMS"}


def test_nothing_lies_beside_the_output(output):
    assert [path.name for path in output.parent.iterdir()] == ["out"]


def test_the_manifest_names_no_path_of_this_machine(output, sample):
    text = (output / "MANIFEST.json").read_text()
    assert str(sample) not in text
    assert str(output) not in text


def test_a_shard_option_makes_several_shards(options, layout, output):
    manifest = json.loads((output / "MANIFEST.json").read_text())
    paths = [file["path"] for file in manifest["files"]]
    assert any("00001-of-" in path or "-000001." in path for path in paths) == ("shards" in options)


def test_workers_do_not_change_a_byte(layout, sample, tmp_path):
    chosen = arguments(layout, "labels and shards", sample) | {"configs": ["6_basic_emo"]}
    for workers in (1, 2):
        convert(sample, out=tmp_path / str(workers), workers=workers, **chosen)
    assert (tmp_path / "1" / "SHA256SUMS").read_bytes() == (tmp_path / "2" / "SHA256SUMS").read_bytes()
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_the_same_run_gives_the_same_bytes(layout, small, sample, tmp_path):
    chosen = arguments(layout, "labels and shards", sample) | {"configs": ["6_basic_emo"]}
    convert(sample, out=tmp_path / "again", **chosen)
    assert digests(tmp_path / "again") == digests(small)


def test_one_changed_byte_of_any_file_is_found(damaged):
    assert failures(damaged) == []
    for path in sorted(damaged.rglob("*")):
        if not path.is_file():
            continue
        size = path.stat().st_size
        positions = {size // 2} if path.suffix == ".jpg" else {0, size // 2, size - 5, size - 1}
        for position in sorted(positions):
            before = flip(path, position)
            assert failures(damaged), f"{path.name}, byte {position}"
            path.write_bytes(before)
    assert failures(damaged) == []


def test_a_changed_byte_anywhere_in_the_manifest_or_the_sums_is_found(damaged):
    for name, step in (("MANIFEST.json", 701), ("SHA256SUMS", 397)):
        path = damaged / name
        for position in range(0, path.stat().st_size, step):
            before = flip(path, position)
            assert failures(damaged), f"{name}, byte {position}"
            path.write_bytes(before)


def test_a_manifest_that_names_other_options_is_found(damaged):
    path = damaged / "MANIFEST.json"
    document = json.loads(path.read_text())
    document["options"]["format_options"] = {"unheard_of": True}
    path.write_text(json.dumps(document))
    assert failures(damaged)


def test_a_forged_file_with_all_digests_renewed_is_found_in_the_content(layout, damaged):
    """Whoever renews every digest still leaves the fingerprint; and a lost row changes it."""
    lose_a_record(layout.split()[0], damaged)
    renew(damaged)
    assert any("fingerprint" in text or "content" in text for text in failures(damaged))


def lose_a_record(name: str, out) -> None:
    """Take the last record out of a file."""
    if name == "jpeg":
        path = next(out.rglob("metadata.csv"))
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
        return
    path = next(
        path for path in sorted((out / "6_basic_emo").iterdir()) if path.suffix not in (".idx", ".sha256")
    )
    if name == "tfrecord":
        write_frames(path, read_frames(path)[:-1], index=path.with_suffix(".idx").exists())
    elif name == "arrayrecord":
        module = pytest.importorskip("array_record.python.array_record_module")
        records = module.ArrayRecordReader(str(path)).read_all()
        writer = module.ArrayRecordWriter(str(path), "group_size:1")
        for record in records[:-1]:
            writer.write(record)
        writer.close()
    elif name == "webdataset":
        with tarfile.open(path) as tar:
            end = tar.getmembers()[-2].offset
        path.write_bytes(
            (path.read_bytes()[:end] + bytes(1024)).ljust(-(-(end + 1024) // 10240) * 10240, b"\0")
        )
    elif name == "arrow":
        with pa.ipc.open_file(path.read_bytes()) as file:
            table = file.read_all()
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table.slice(0, len(table) - 1))
    elif name == "lance":
        lance = pytest.importorskip("lance.file")
        table = lance.LanceFileReader(str(path)).read_all().to_table()
        with lance.LanceFileWriter(str(path), table.schema) as writer:
            writer.write_batch(table.slice(0, len(table) - 1))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
    else:
        table = pq.read_table(path)
        pq.write_table(table.slice(0, len(table) - 1), path)


def renew(out) -> None:
    """Write the manifest's and the sums' digests anew, as a forger would."""
    path = out / "MANIFEST.json"
    document = json.loads(path.read_text())
    found = digests(out)
    for file in document["files"]:
        file["sha256"] = found[file["path"]]
        file["size"] = (out / file["path"]).stat().st_size
    path.write_text(json.dumps(document))
    found = digests(out)
    del found["SHA256SUMS"]
    (out / "SHA256SUMS").write_text("".join(f"{found[name]}  {name}\n" for name in sorted(found)))


def test_a_missing_file_is_found(damaged):
    for path in sorted(damaged.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        path.unlink()
        try:
            problems = verify(damaged).failures()
        except ConverterError:
            assert path.name == "MANIFEST.json"
        else:
            assert any(path.name in problem for problem in problems)
        path.write_bytes(data)
    assert failures(damaged) == []


@pytest.mark.parametrize("place", ["extra.txt", "6_basic_emo/extra.jpg", ".hidden", "deep/er/file"])
def test_an_added_file_is_found(damaged, place):
    path = damaged / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    assert any(place in problem for problem in failures(damaged))


def test_a_link_in_place_of_a_file_is_found(damaged, tmp_path):
    path = next(path for path in sorted(damaged.rglob("6_basic_emo/**/*")) if path.is_file())
    moved = tmp_path / "elsewhere"
    path.rename(moved)
    path.symlink_to(moved)
    assert any(path.name in problem for problem in failures(damaged))


def test_verification_against_another_source_fails(small, source):
    path = source / "6_basic_emo_valid.tfrecords"
    shutil.copy(source / "6_basic_emo_test.tfrecords", path)
    shutil.copy(source / "6_basic_emo_test.idx", path.with_suffix(".idx"))
    problems = verify(small, source=source).failures()
    assert problems
    assert all("6_basic_emo/valid" in problem for problem in problems)


def test_verification_against_a_source_with_a_file_missing_fails(small, source):
    (source / "6_basic_emo_valid.tfrecords").unlink()
    assert any("6_basic_emo_valid" in problem for problem in verify(small, source=source).failures())
