"""Quarantine: damaged records are left out, listed and kept; everything else is converted and proven."""

import csv
import gzip
import hashlib
import importlib.util
import json
import shutil
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import google_crc32c
import pyarrow.parquet as pq
import pytest
from conftest import (
    compress,
    digests,
    drop_published,
    edit_description,
    encode_record,
    flip,
    read_records,
    tfrecords,
    tree,
    write_frames,
    write_records,
)

from converters import convert, verify
from converters.dataset.report import CheckError
from converters.errors import CallError, ConverterError, DataError

CONFIG, SPLIT = "22_emo", "train"
TITLE = f"{CONFIG}/{SPLIT}"
LAYOUTS = {"parquet": {}, "jpeg": {}, "jpeg class folders": {"class_folders": True}, "hf": {}}


def starts(path: Path) -> list[int]:
    """Where each record of a sound file starts, and where the last one ends."""
    stored, found = path.read_bytes(), [0]
    while found[-1] < len(stored):
        found.append(found[-1] + struct.unpack_from("<Q", stored, found[-1])[0] + 16)
    return found


def damage(source: Path) -> list[int]:
    """Damage five records of 22_emo/train in five ways, one of them in its length; their numbers."""
    path = tfrecords(source, CONFIG, SPLIT)
    records = read_records(path)
    last = len(records) - 1
    data = [encode_record(record) for record in records]
    data[8] = encode_record(replace(records[8], image=b"no JPEG" + records[8].image))
    data[9] = encode_record(replace(records[9], label=(1,) * len(records[9].label)))
    write_frames(path, data)
    places = starts(path)
    flip(path, places[2] + 300)
    flip(path, places[14] + 1)
    flip(path, places[last + 1] - 2)
    return [2, 8, 9, 14, last]


def images(out: Path, layout: str) -> list[tuple[bytes, tuple[int, ...], str | None]]:
    """Image, labels and name of every record of 22_emo/train in an output, read with nothing of the package."""
    if layout in ("parquet", "hf"):
        tables = [pq.read_table(path) for path in sorted((out / CONFIG).glob(f"{SPLIT}-*.parquet"))]
        return [
            (row["image"]["bytes"], tuple(row["label_vector"]), row.get("img_id"))
            for table in tables
            for row in table.to_pylist()
        ]
    rows = []
    for path in sorted((out / CONFIG / SPLIT).rglob("metadata*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                image = (path.parent / row.pop("file_name")).read_bytes()
                name, _ = row.pop("img_id", None), row.pop("clip_id", None)
                rows.append((image, tuple(map(int, row.values())), name))
    return rows


def entries(out: Path) -> list[dict]:
    return json.loads((out / "quarantine" / "records.json").read_text())


def checks(out: Path, title: str = TITLE) -> dict[str, dict]:
    for split in json.loads((out / "MANIFEST.json").read_text())["splits"]:
        if f"{split['config']}/{split['split']}" == title:
            return {check["name"]: check for check in split["checks"]}
    raise AssertionError(title)


def masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


# --- The case of the promise ---------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [False, True], ids=["", "labels"])
@pytest.mark.parametrize("indexed", [False, True], ids=["", "index"])
@pytest.mark.parametrize("packed", [False, True], ids=["", "gzip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_five_damaged_records(source, tmp_path, truth, kfer_convert, layout, packed, indexed, labels):
    path = tfrecords(source, CONFIG, SPLIT)
    numbers = damage(source)
    stored = path.read_bytes()
    if not indexed:
        path.with_suffix(".idx").unlink()
    if packed:
        path = compress(path)
    out = tmp_path / "out"
    options = ["--on-error", "quarantine", "--config", CONFIG, "--out", out]
    options += ["--labels", source / "labels"] if labels else []
    options += ["--class-folders"] if LAYOUTS[layout] else []
    before = tree(source)
    assert kfer_convert(source, "--to", layout.split()[0], *options[2:]).status == 1
    assert not out.exists()
    done = kfer_convert(source, "--to", layout.split()[0], *options)
    assert done.status == 3, done.err
    assert tree(source) == before

    # Exactly these five are missing, and everything else is what it was.
    expected = [record for number, record in enumerate(truth[CONFIG, SPLIT]) if number not in numbers]
    found = images(out, layout)
    assert [(image, label) for image, label, _ in found] == [(r.image, r.label) for r in expected]
    assert [name for *_, name in found] == [record.img_id if labels else None for record in expected]

    # They are listed, with their bytes.
    listed = entries(out)
    assert [entry["split_record"] for entry in listed] == numbers
    assert [entry["record"] for entry in listed] == numbers
    assert {entry["records"] for entry in listed} == {1}
    assert {entry["found_again"] for entry in listed} == {None}
    assert {entry["file"] for entry in listed} == {path.name}
    for entry in listed:
        raw = (out / entry["raw"]).read_bytes()
        assert raw == stored[entry["offset"] : entry["offset"] + entry["bytes"]]
    names = [truth[CONFIG, SPLIT][number].img_id for number in numbers]
    assert [entry["img_ids"] for entry in listed] == [[name] if labels else None for name in names]
    for text in ("fails its checksum", "the value is no jpeg", "labels are set", "length"):
        assert any(text in entry["reason"] for entry in listed), (text, listed)
    there = {file.relative_to(out).as_posix() for file in (out / "quarantine").rglob("*") if file.is_file()}
    assert there == {entry["raw"] for entry in listed} | {"quarantine/records.json"}

    # Every byte is accounted for, by the output alone.
    (bytes_of_file,) = next(
        split["quarantine"]["files"]
        for split in json.loads((out / "MANIFEST.json").read_text())["splits"]
        if split["split"] == SPLIT
    )
    lost = sum(entry["bytes"] for entry in listed)
    assert bytes_of_file["converted"] + lost == bytes_of_file["bytes"] == len(stored)
    found_checks = checks(out)
    assert found_checks["every byte"]["result"] == found_checks["every value"]["result"] == "passed"
    assert found_checks["records"]["explained"] is True
    assert "found" in found_checks["records"]["reason"]
    assert found_checks["records"]["result"] == "failed"
    assert all("explained" not in check for check in checks(out, f"{CONFIG}/valid").values())

    # It is said in so many words.
    assert "5 damaged ranges; 5 records are lost" in done.out
    for number in numbers:
        assert f"record {number}" in done.out

    assert subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=out).returncode == 0
    assert kfer_convert("verify", out).status == 0
    shown = kfer_convert("verify", out, "--source", source)
    assert shown.status == 0, shown.err
    assert "5 records are lost" in shown.out
    report = verify(out, source=source)
    assert report.failures() == []
    assert (report.quarantined, report.lost_records) == (5, 5)


# --- Nothing damaged, and other options ----------------------------------------------------------------


def test_without_damage_nothing_is_quarantined(source, tmp_path, kfer_convert):
    out = tmp_path / "out"
    done = kfer_convert(source, "--to", "parquet", "--out", out, "--on-error", "quarantine", "--json")
    assert done.status == 0
    report = json.loads(done.out)
    assert (report["quarantined"], report["lost_records"]) == (0, 0)
    assert not (out / "quarantine").exists()
    assert {check["result"] for split in report["splits"] for check in split["checks"]} == {"passed"}
    convert(source, to="parquet", out=tmp_path / "plain")
    plain = digests(tmp_path / "plain")
    assert {name for name, digest in digests(out).items() if plain[name] != digest} == {
        "MANIFEST.json",
        "SHA256SUMS",
    }
    assert verify(out, source=source).failures() == []


def test_the_manifest_of_a_strict_run_has_the_option_and_no_more(source, tmp_path):
    convert(source, to="parquet", out=tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "MANIFEST.json").read_text())
    assert manifest["options"]["on_error"] == "fail"
    assert all("quarantine" not in split for split in manifest["splits"])


def test_json_and_the_api_have_it_all(source, tmp_path, kfer_convert):
    numbers = damage(source)
    done = kfer_convert(
        source, "--to", "parquet", "--out", tmp_path / "out", "--on-error", "quarantine", "--json"
    )
    assert done.status == 3
    report = json.loads(done.out)
    assert (report["quarantined"], report["lost_records"], report["verified"]) == (5, 5, True)
    split = next(s for s in report["splits"] if (s["config"], s["split"]) == (CONFIG, SPLIT))
    assert [entry["split_record"] for entry in split["quarantine"]["ranges"]] == numbers
    api = convert(source, to="parquet", out=tmp_path / "api", on_error="quarantine")
    assert (api.quarantined, api.lost_records, api.failures()) == (5, 5, [])
    assert digests(tmp_path / "api") == digests(tmp_path / "out")
    quiet = kfer_convert(
        source, "--to", "parquet", "--out", tmp_path / "quiet", "--on-error", "quarantine", "--quiet"
    )
    assert (quiet.status, quiet.out, quiet.err) == (3, "", "")


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_wrong_calls(source, tmp_path, kfer_convert):
    with pytest.raises(CallError, match="fail or quarantine"):
        convert(source, to="parquet", out=tmp_path / "out", on_error="ignore")
    with pytest.raises(CallError, match="TensorFlow stops"):
        convert(source, to="parquet", out=tmp_path / "out", on_error="quarantine", reader="tensorflow")
    damage(source)
    convert(source, to="parquet", out=tmp_path / "out", on_error="quarantine")
    with pytest.raises(CallError, match="TensorFlow stops"):
        verify(tmp_path / "out", source=source, reader="tensorflow")
    edit_description(
        source, lambda document: document["configs"].update(quarantine=document["configs"].pop(CONFIG))
    )
    with pytest.raises(CallError, match="config's name"):
        convert(source, to="parquet", out=tmp_path / "again", on_error="quarantine")


@pytest.mark.parametrize("to", ["parquet", "jpeg"])
@pytest.mark.parametrize("labels", [False, True])
def test_shards_and_workers(source, tmp_path, truth, to, labels):
    """Damage at the ends of shards and of the file; the workers do not matter, nor does the size of shards."""
    path = tfrecords(source, CONFIG, SPLIT)
    places = starts(path)
    numbers = [0, 1, 7, 8, len(places) - 2]
    for number in numbers:
        flip(path, places[number] + (1 if number % 2 else 40))
    chosen = {
        "to": to,
        "on_error": "quarantine",
        "configs": [CONFIG],
        "labels": source / "labels" if labels else None,
    }
    expected = [
        (record.image, record.label, record.img_id if labels else None)
        for number, record in enumerate(truth[CONFIG, SPLIT])
        if number not in numbers
    ]
    for size in (1, 9_000, 10**9):
        out = tmp_path / str(size)
        report = convert(source, out=out, max_shard_bytes=size, **chosen)
        assert report.quarantined == 5
        assert images(out, to) == expected
        assert verify(out, source=source).failures() == []
        if size == 9_000:
            if labels:  # starting processes takes seconds
                convert(source, out=tmp_path / "two", max_shard_bytes=size, workers=2, **chosen)
                assert digests(tmp_path / "two") == digests(out)
            assert len({path.name for path in out.rglob("*-of-*")}) > 3


@pytest.mark.parametrize("shard_bytes", [1, 6_000, 10**9])
@pytest.mark.parametrize("labels", [False, True])
def test_several_files_in_a_split(source, tmp_path, truth, shard_bytes, labels):
    path = tfrecords(source, CONFIG, SPLIT)
    records = read_records(path)
    names = [f"{CONFIG}_{SPLIT}-{number:05}-of-00003.tfrecords" for number in range(3)]
    edges = [0, 5, 9, len(records)]
    for name, start, end in zip(names, edges, edges[1:], strict=False):
        write_records(source / name, records[start:end], index=False)
    path.unlink()
    path.with_suffix(".idx").unlink()

    def change(document):
        document["configs"][CONFIG]["splits"][SPLIT] |= {
            "file": f"{CONFIG}_{SPLIT}-*.tfrecords",
            "index": None,
        }

    edit_description(source, change)
    flip(source / names[0], starts(source / names[0])[4] + 60)
    flip(source / names[1], 2)  # its first record's length
    places = starts(source / names[2])
    flip(source / names[2], places[0] + 60)
    flip(source / names[2], places[3] + 60)
    out = tmp_path / "out"
    report = convert(
        source,
        to="parquet",
        out=out,
        configs=[CONFIG],
        splits=[SPLIT],
        max_shard_bytes=shard_bytes,
        labels=source / "labels" if labels else None,
        on_error="quarantine",
    )
    numbers = [4, 5, 9, 12]
    assert [entry["split_record"] for entry in entries(out)] == numbers
    assert [entry["record"] for entry in entries(out)] == [4, 0, 0, 3]
    assert images(out, "parquet") == [
        (record.image, record.label, record.img_id if labels else None)
        for number, record in enumerate(truth[CONFIG, SPLIT])
        if number not in numbers
    ]
    assert report.splits[0].checks[-1].result == "passed"
    assert verify(out, source=source).failures() == []


def test_the_end_of_a_compressed_file_larger_than_a_shard(source, tmp_path):
    """Its damaged ranges count decompressed bytes, which go on beyond the file's size."""
    path = tfrecords(source, CONFIG, SPLIT)
    flip(path, starts(path)[-2] + 60)
    compress(path)
    report = convert(
        source, to="parquet", out=tmp_path / "out", on_error="quarantine", configs=[CONFIG], max_shard_bytes=1
    )
    assert report.lost_records == 1
    assert verify(tmp_path / "out", source=source).failures() == []


def test_a_killed_run_is_resumed(source, tmp_path):
    """Killed when shards and quarantine are in the output folder; the next run ends as one that was not killed."""
    damage(source)
    program = (
        "import os, signal, sys\n"
        "from converters import convert\n"
        "from converters.formats.parquet import ParquetFormat\n"
        "ParquetFormat.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert(sys.argv[1], to='parquet', out=sys.argv[2], on_error='quarantine', max_shard_bytes=20_000)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, source, tmp_path / "out"], capture_output=True)
    assert killed.returncode == -9
    assert (tmp_path / "out.incomplete" / "output" / "quarantine" / "records.json").is_file()
    chosen = {"to": "parquet", "on_error": "quarantine", "max_shard_bytes": 20_000}
    report = convert(source, out=tmp_path / "out", **chosen)
    assert report.resumed_shards > 9
    convert(source, out=tmp_path / "again", **chosen)
    assert digests(tmp_path / "out") == digests(tmp_path / "again")


# --- How many are lost ---------------------------------------------------------------------------------


def overwrite(source: Path, first: int, last: int) -> None:
    """Overwrite the records from ``first`` to ``last`` with zeros."""
    path = tfrecords(source, CONFIG, SPLIT)
    places = starts(path)
    data = bytearray(path.read_bytes())
    data[places[first] : places[last + 1]] = bytes(places[last + 1] - places[first])
    path.write_bytes(data)


@pytest.mark.parametrize("told_by", ["index", "labels", "published", "nothing"])
def test_an_unknown_number_is_told_by_what_knows_it(source, tmp_path, truth, kfer_convert, told_by):
    overwrite(source, 6, 8)
    if told_by != "index":
        tfrecords(source, CONFIG, SPLIT).with_suffix(".idx").unlink()
    if told_by != "published":
        drop_published(source)
    out = tmp_path / "out"
    options = ["--labels", source / "labels"] if told_by == "labels" else []
    done = kfer_convert(source, "--to", "parquet", "--out", out, "--on-error", "quarantine", *options)
    assert done.status == 3, done.err
    (entry,) = entries(out)
    assert entry["split_record"] == 6
    assert entry["records"] == (None if told_by == "nothing" else 3)
    assert ("an unknown number of records is lost" in done.out) == (told_by == "nothing")
    if told_by != "nothing":
        assert "records 6 to 8" in done.out
    if told_by == "labels":
        assert entry["img_ids"] == [record.img_id for record in truth[CONFIG, SPLIT][6:9]]
    assert [image for image, *_ in images(out, "parquet")] == [
        record.image for number, record in enumerate(truth[CONFIG, SPLIT]) if number not in (6, 7, 8)
    ]
    assert verify(out, source=source).failures() == []


def test_several_unknown_numbers_and_label_csvs_are_refused(source, tmp_path, kfer_convert):
    overwrite(source, 2, 3)
    overwrite_again = tfrecords(source, CONFIG, SPLIT)
    index = overwrite_again.with_suffix(".idx").read_text()
    places = [int(line.split()[0]) for line in index.splitlines()]
    data = bytearray(overwrite_again.read_bytes())
    data[places[12] : places[14]] = bytes(places[14] - places[12])
    overwrite_again.write_bytes(data)
    arguments = (source, "--to", "parquet", "--on-error", "quarantine")
    named = ("--labels", source / "labels")
    assert kfer_convert(*arguments, *named, "--out", tmp_path / "indexed").status == 3
    assert len(entries(tmp_path / "indexed")) == 2
    overwrite_again.with_suffix(".idx").unlink()
    done = kfer_convert(*arguments, *named, "--out", tmp_path / "out")
    assert done.status == 1
    assert "unknown number of records in 2 places" in done.err
    assert ".idx" in done.err
    assert not (tmp_path / "out").exists()
    # Without names nothing hangs on it: the total is the published count's.
    done = kfer_convert(*arguments, "--out", tmp_path / "unnamed")
    assert done.status == 3
    assert verify(tmp_path / "unnamed", source=source).failures() == []


def test_a_tail_cut_off_and_a_tail_appended(source, tmp_path, truth):
    path = tfrecords(source, CONFIG, SPLIT)
    places, whole = starts(path), path.read_bytes()
    path.write_bytes(whole[: places[-3] + 100])
    convert(source, to="parquet", out=tmp_path / "cut", on_error="quarantine", configs=[CONFIG])
    (entry,) = entries(tmp_path / "cut")
    assert (entry["records"], entry["bytes"]) == (2, 100)
    path.write_bytes(whole + bytes(50))
    report = convert(source, to="parquet", out=tmp_path / "longer", on_error="quarantine", configs=[CONFIG])
    (entry,) = entries(tmp_path / "longer")
    assert (entry["records"], entry["bytes"], report.lost_records) == (0, 50, 0)
    assert checks(tmp_path / "longer")["records"]["result"] == "passed"
    assert checks(tmp_path / "longer")["label order"]["result"] == "passed"
    for name in ("cut", "longer"):
        path.write_bytes(whole[: places[-3] + 100] if name == "cut" else whole + bytes(50))
        assert verify(tmp_path / name, source=source).failures() == []


def test_damaged_compression(source, tmp_path, truth, kfer_convert):
    path = compress(tfrecords(source, CONFIG, SPLIT))
    stored = path.read_bytes()
    path.write_bytes(stored[: len(stored) * 2 // 3])
    out = tmp_path / "out"
    done = kfer_convert(
        source, "--to", "parquet", "--out", out, "--on-error", "quarantine", "--config", CONFIG
    )
    assert done.status == 3, done.err
    found = images(out, "parquet")
    expected = truth[CONFIG, SPLIT]
    assert 3 < len(found) < len(expected)
    assert [image for image, *_ in found] == [record.image for record in expected[: len(found)]]
    assert f"{len(expected) - len(found)} records are lost" in done.out
    assert verify(out, source=source).failures() == []
    # The trailer alone is damaged: no record is lost, and it is not passed over in silence.
    path.write_bytes(stored[:-5] + b"x" + stored[-4:])
    report = convert(source, to="parquet", out=tmp_path / "trailer", on_error="quarantine", configs=[CONFIG])
    assert (report.quarantined, report.lost_records) == (1, 0)
    assert images(tmp_path / "trailer", "parquet") == [(r.image, r.label, None) for r in expected]
    assert verify(tmp_path / "trailer", source=source).failures() == []


def test_an_index_of_another_file_is_not_used_and_that_is_said(source, tmp_path):
    damage(source)
    path = tfrecords(source, CONFIG, SPLIT)
    path.with_suffix(".idx").write_text("0 100\n100 100\n")
    report = convert(source, to="parquet", out=tmp_path / "out", on_error="quarantine")
    assert report.quarantined == 5
    assert any("22_emo_train.idx was not used" in warning for warning in report.warnings)
    assert verify(tmp_path / "out", source=source).failures() == []


# --- What still stops a conversion ---------------------------------------------------------------------


def test_nothing_sound_is_an_error(source, tmp_path, kfer_convert):
    tfrecords(source, CONFIG, SPLIT).write_bytes(b"\x91nothing of the kind" * 100)
    done = kfer_convert(source, "--to", "parquet", "--out", tmp_path / "out", "--on-error", "quarantine")
    assert done.status == 1
    assert "nothing in this file is sound" in done.err
    assert not (tmp_path / "out").exists()


def test_a_difference_that_the_damage_does_not_explain_stops_it(source, tmp_path):
    """One record is damaged, and another is missing; or one has other labels than published."""
    path = tfrecords(source, CONFIG, SPLIT)
    records = read_records(path)
    write_records(path, records[:3] + records[4:])
    flip(path, 100)
    chosen = {"to": "parquet", "configs": [CONFIG], "on_error": "quarantine"}
    with pytest.raises(CheckError, match="22_emo/train: records"):
        convert(source, out=tmp_path / "out", **chosen)
    other = (records[5].indices[0] + 1) % len(records[5].label)
    records[5] = replace(records[5], label=tuple(int(i == other) for i in range(len(records[5].label))))
    write_records(path, records)
    flip(path, 100)
    with pytest.raises(CheckError, match="22_emo/train: counts per label"):
        convert(source, out=tmp_path / "out", **chosen)
    assert not (tmp_path / "out").exists()
    report = convert(source, out=tmp_path / "out", allow_mismatch=True, **chosen)
    assert report.quarantined == 1


def test_label_csvs_that_do_not_fit_are_refused(source, tmp_path):
    damage(source)
    path = source / "labels" / f"label_{CONFIG}_{SPLIT}.csv"
    rows = path.read_text().splitlines(keepends=True)
    chosen = {"to": "parquet", "on_error": "quarantine", "labels": source / "labels"}
    path.write_text("".join(rows[:-1]))
    with pytest.raises(DataError, match="rows"):
        convert(source, out=tmp_path / "out", **chosen)
    path.write_text("".join([rows[0], *reversed(rows[1:])]))
    with pytest.raises(DataError, match="numbers of the labels"):
        convert(source, out=tmp_path / "out", **chosen)
    # Two rows with the same labels changed places: only the published digest shows it.
    first, second = next(
        (one, other)
        for one in range(1, len(rows))
        for other in range(one + 1, len(rows))
        if rows[one].split(",")[2:] == rows[other].split(",")[2:]
        and not {one - 1, other - 1} & {2, 8, 9, 14, len(rows) - 2}
    )
    rows[first], rows[second] = rows[second], rows[first]
    path.write_text("".join(rows))
    with pytest.raises(CheckError, match="identity"):
        convert(source, out=tmp_path / "out", **chosen)
    assert not (tmp_path / "out").exists()


# --- Verification --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def once(sample, tmp_path_factory) -> Path:
    """A damaged source and its output."""
    folder = tmp_path_factory.mktemp("once")
    shutil.copytree(sample, folder / "damaged")
    damage(folder / "damaged")
    convert(folder / "damaged", to="parquet", out=folder / "out", on_error="quarantine", configs=[CONFIG])
    return folder


@pytest.fixture
def output(once, tmp_path) -> Path:
    return shutil.copytree(once / "out", tmp_path / "out")


@pytest.fixture
def damaged_source(once, tmp_path) -> Path:
    return shutil.copytree(once / "damaged", tmp_path / "damaged")


def renew_sums(out: Path) -> None:
    found = digests(out)
    del found["SHA256SUMS"]
    (out / "SHA256SUMS").write_text("".join(f"{found[name]}  {name}\n" for name in sorted(found)))


def test_a_changed_file_in_quarantine_is_found(output, damaged_source):
    raw = output / entries(output)[1]["raw"]
    flip(raw, 50)
    assert any(raw.name in failure for failure in verify(output).failures())
    # Somebody who renews the manifest as well is found by the source.
    manifest = json.loads((output / "MANIFEST.json").read_text())
    for file in manifest["files"]:
        if file["path"].endswith(raw.name):
            file["sha256"] = hashlib.sha256(raw.read_bytes()).hexdigest()
    (output / "MANIFEST.json").write_text(json.dumps(manifest))
    renew_sums(output)
    # Without the source, only the description that lists all files knows.
    assert all("croissant.json" in failure for failure in verify(output).failures())
    failures = verify(output, source=damaged_source).failures()
    assert any("are not those in" in failure for failure in failures)


def test_a_missing_file_in_quarantine_is_found(output):
    shutil.rmtree(output / "quarantine" / CONFIG)
    assert any("is missing" in failure for failure in verify(output).failures())


def test_another_source_is_found(output, damaged_source, sample):
    """The intact original is not what was converted: its five records are sound."""
    assert verify(output, source=sample).failures()
    flip(tfrecords(damaged_source, CONFIG, SPLIT), 20)
    assert verify(output, source=damaged_source).failures()


HOSTILE = {
    "negative offset": lambda ranges, files: ranges[0].update(offset=-5),
    "offset beyond the file": lambda ranges, files: ranges[-1].update(offset=10**9),
    "enormous offset": lambda ranges, files: ranges[-1].update(offset=2**70),
    "overlap": lambda ranges, files: ranges[1].update(offset=ranges[0]["offset"]),
    "order": lambda ranges, files: ranges.reverse(),
    "text for a number": lambda ranges, files: ranges[0].update(offset="0"),
    "true for a number": lambda ranges, files: ranges[0].update(records=True),
    "float": lambda ranges, files: ranges[0].update(bytes=1.0),
    "no bytes": lambda ranges, files: ranges[0].update(bytes=0),
    "unknown key": lambda ranges, files: ranges[0].update(more=1),
    "missing key": lambda ranges, files: ranges[0].pop("reason"),
    "path out": lambda ranges, files: ranges[0].update(raw="../../etc/passwd"),
    "path to a shard": lambda ranges, files: ranges[0].update(raw="22_emo/train-00000-of-00001.parquet"),
    "path twice": lambda ranges, files: ranges[0].update(raw=ranges[1]["raw"]),
    "no path": lambda ranges, files: ranges[0].update(raw=None),
    "another file": lambda ranges, files: ranges[0].update(file="x"),
    "img_ids": lambda ranges, files: ranges[0].update(img_ids=[1]),
    "img_ids no list": lambda ranges, files: ranges[0].update(img_ids=3),
    "stored bytes": lambda ranges, files: ranges[-1].update(inflated=3),
    "sum": lambda ranges, files: files[0].update(converted=1),
    "size": lambda ranges, files: files[0].update(bytes=1),
    "no files": lambda ranges, files: files.clear(),
    "ranges no list": lambda ranges, files: ranges[0].update(file=[]),
    "one less": lambda ranges, files: ranges.pop(),
    "found again in a way that there is not": lambda ranges, files: ranges[0].update(found_again="by luck"),
    "other reason": lambda ranges, files: ranges[0].update(reason="nothing"),
    "enormous number": lambda ranges, files: ranges[0].update(records=2**62),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_manifest_is_an_error(output, damaged_source, kfer_convert, name):
    path = output / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    split = next(split for split in manifest["splits"] if split["split"] == SPLIT)
    HOSTILE[name](split["quarantine"]["ranges"], split["quarantine"]["files"])
    path.write_text(json.dumps(manifest))
    renew_sums(output)
    for original in (None, damaged_source):
        status = kfer_convert("verify", output, *(["--source", original] if original else [])).status
        assert status == 1


@pytest.mark.parametrize("value", [3, [], {}, {"ranges": 3, "files": []}, {"ranges": [3], "files": [None]}])
def test_a_quarantine_of_another_form_is_an_error(output, value):
    path = output / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    manifest["splits"][0]["quarantine"] = value
    path.write_text(json.dumps(manifest))
    renew_sums(output)
    with pytest.raises(ConverterError, match="no manifest that kfer-convert writes"):
        verify(output)


# --- Files that TensorFlow wrote -----------------------------------------------------------------------


def test_files_that_tensorflow_wrote(source, tmp_path, truth):
    tf = pytest.importorskip("tensorflow")
    path = tfrecords(source, CONFIG, SPLIT)
    records = read_records(path)
    plain = tmp_path / "plain"
    with tf.io.TFRecordWriter(str(plain)) as writer:
        for record in records:
            numbers = {"height": [record.height], "width": [record.width], "depth": [record.depth]}
            features = {
                name: tf.train.Feature(int64_list=tf.train.Int64List(value=value))
                for name, value in (numbers | {"label": list(record.label)}).items()
            }
            features["image_raw"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[record.image]))
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    places = starts(plain)
    path.with_suffix(".idx").unlink()
    numbers = [1, 4, 5, 6, 11]
    for number in numbers:
        flip(plain, places[number] + (9 if number == 5 else 500))
    stored = plain.read_bytes()
    for name, packed in (("none", stored), ("gzip", gzip.compress(stored)), ("zlib", zlib.compress(stored))):
        path.write_bytes(packed)
        out = tmp_path / name
        report = convert(source, to="parquet", out=out, on_error="quarantine", labels=source / "labels")
        assert report.lost_records == 5
        assert images(out, "parquet") == [
            (record.image, record.label, record.img_id)
            for number, record in enumerate(truth[CONFIG, SPLIT])
            if number not in numbers
        ]


def with_a_record_inside(source: Path) -> list:
    """The records of 22_emo/train, of which the tenth has a whole record of this dataset in a comment of its JPEG."""
    path = tfrecords(source, CONFIG, SPLIT)
    records = read_records(path)
    inner = encode_record(records[3])
    length = struct.pack("<Q", len(inner))
    whole = length + masked_crc(length) + inner + masked_crc(inner)
    jpeg = records[10].image
    outer = jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(whole) + 2) + whole + jpeg[2:]
    records[10] = replace(records[10], image=outer)
    write_records(path, records, index=False)
    return records


@pytest.mark.parametrize("where", [1, 300], ids=["length", "image"])
def test_a_record_inside_a_jpeg_does_not_come_out_if_its_end_is_known(source, tmp_path, where):
    records = with_a_record_inside(source)
    path = tfrecords(source, CONFIG, SPLIT)
    convert(source, to="parquet", out=tmp_path / "sound", configs=[CONFIG])
    assert images(tmp_path / "sound", "parquet")[10][0] == records[10].image
    flip(path, starts(path)[10] + where)
    report = convert(source, to="parquet", out=tmp_path / "out", configs=[CONFIG], on_error="quarantine")
    assert report.lost_records == 1
    assert not any("found again" in warning for warning in report.warnings)
    assert [image for image, *_ in images(tmp_path / "out", "parquet")] == [
        record.image for number, record in enumerate(records) if number != 10
    ]


def test_a_record_inside_a_jpeg_may_come_out_otherwise_and_that_is_said(source, tmp_path, kfer_convert):
    """Length and beginning of a record are damaged: its Example does not tell where it ends either."""
    records = with_a_record_inside(source)
    path = tfrecords(source, CONFIG, SPLIT)
    place = starts(path)[10]
    flip(path, place + 1)
    flip(path, place + 12)
    drop_published(source)
    out = tmp_path / "out"
    done = kfer_convert(
        source, "--to", "parquet", "--out", out, "--config", CONFIG, "--on-error", "quarantine"
    )
    assert done.status == 3, done.err
    assert [image for image, *_ in images(out, "parquet")] == [
        record.image for record in [*records[:10], records[3], *records[11:]]
    ]
    assert [entry["found_again"] for entry in entries(out)] == ["by checksums", "by checksums"]
    assert f"{TITLE}: 2 damaged ranges do not tell where the next record begins" in done.out + done.err
    assert "found again by checksums" in done.out + done.err
    report = verify(out, source=source)
    assert report.failures() == []
    # With an index, it is lost as a whole, and nothing else is.
    path.with_suffix(".idx").write_text(index_of(records))
    report = convert(source, to="parquet", out=tmp_path / "indexed", configs=[CONFIG], on_error="quarantine")
    assert report.lost_records == 1
    assert [entry["found_again"] for entry in entries(tmp_path / "indexed")] == ["by index"]
    assert any("found again by index" in warning for warning in report.warnings)


def index_of(records: list) -> str:
    lines, end = "", 0
    for record in records:
        size = len(encode_record(record)) + 16
        lines, end = f"{lines}{end} {size}\n", end + size
    return lines
