"""The synthetic dataset: its shape, its promises, and what is refused."""

import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers.examples import decode_example, read_frames
from PIL import Image

from converters.dataset.description import Description, Split, kfer, load_description, parse_description
from converters.errors import CallError, DataError, MachineError
from converters.sample import writer as sample
from converters.sample.faces import draw_face
from converters.sample.rows import deal, full_rows, read_label_files, small_rows
from converters.sample.writer import LABELS_FOLDER, make_sample

AUTHORS_LABELS = Path(__file__).parents[3] / "shared" / "kfer" / "labels"


def read_split(folder: Path, split: Split) -> list[dict[str, bytes | list[int]]]:
    return [decode_example(data) for data in read_frames(folder / split.file)]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "made" / "here"
    make_sample(folder)
    return folder


@pytest.fixture
def tiny_spec(monkeypatch: pytest.MonkeyPatch) -> Description:
    """Two configs over one set of pictures, in place of KFER."""

    def config(kind: str, names: list[str]) -> dict[str, object]:
        return {
            "kind": kind,
            "label_names": names,
            "splits": {
                "train": {"file": f"{kind}.tfrecords", "index": f"{kind}.idx", "labels_csv": f"{kind}.csv"}
            },
        }

    document = {
        "configs": {
            "one": config("single-label", ["sad", "angry"]),
            "many": config("multi-label", ["angry", "happy", "sad"]),
        }
    }
    description = parse_description(document, "tiny")
    monkeypatch.setattr(sample, "kfer", lambda: description)
    return description


@pytest.fixture
def tiny_labels(tmp_path: Path) -> Path:
    folder = tmp_path / "label files"
    folder.mkdir()
    (folder / "single-label.csv").write_text(
        "img_id,clip_id,sad,angry\n03_1_00002.jpg,03_1,0,1\n03_2_00001.jpg,03_2,1,0\n"
    )
    (folder / "multi-label.csv").write_text(
        "img_id,clip_id,angry,happy,sad\n"
        "03_2_00001.jpg,03_2,0,0,1\n03_1_00001.jpg,03_1,1,1,0\n03_1_00002.jpg,03_1,1,0,0\n"
    )
    return folder


# --- What is written -----------------------------------------------------------------------------------


def test_the_summary_lists_what_is_there(tmp_path: Path) -> None:
    written: list[int] = []
    summary = make_sample(tmp_path, records=40, progress=written.append)
    files = contents(tmp_path)
    assert (summary.folder, summary.records, sum(written)) == (tmp_path, 40, 40)
    assert sorted(summary.files) == sorted(files)
    assert summary.files[-1] == "dataset.json"
    assert summary.bytes == sum(map(len, files.values()))
    expected = {split.file for split in kfer().splits()} | {str(split.index) for split in kfer().splits()}
    assert {name for name in files if name.endswith((".tfrecords", ".idx"))} == expected
    assert {name for name in files if "/" in name} == {f"labels/{s.labels_csv}" for s in kfer().splits()}


def test_the_description_is_true(small: Path) -> None:
    description = load_description(small)
    assert description.name == "kfer-sample"
    assert not description.about.personal_data
    assert "show nobody" in description.about.description
    assert description.about.licence.name == "cc0-1.0"
    assert description.about.gating.prompt is None
    shape = [
        (s.config, s.name, s.kind, s.label_names, s.file, s.index, s.labels_csv) for s in description.splits()
    ]
    assert shape == [
        (s.config, s.name, s.kind, s.label_names, s.file, s.index, s.labels_csv) for s in kfer().splits()
    ]
    for split in description.splits():
        labels = [record["label"] for record in read_split(small, split)]
        published = split.published
        assert published.records == len(labels)
        assert published.label_counts == tuple(map(sum, zip(*labels, strict=True)))
        assert published.labels_per_image == Counter(map(sum, labels))
        assert published.distinct_label_sets == len(set(map(tuple, labels)))
        assert published.labels_sha256 == hashlib.sha256(b"".join(map(bytes, labels))).hexdigest()
        with (small / LABELS_FOLDER / str(split.labels_csv)).open(newline="") as file:
            header, *rows = csv.reader(file)
        assert header == ["img_id", "clip_id", *split.label_names]
        assert [[int(value) for value in row[2:]] for row in rows] == labels
        assert published.clips == len({row[1] for row in rows})
        assert all(row[0].startswith(f"{row[1]}_") and row[0].endswith(".jpg") for row in rows)


def test_the_small_sample_is_one_per_cent_with_every_label(small: Path) -> None:
    description = load_description(small)
    assert sum(split.published.records or 0 for split in description.splits()) == 714
    for split, full in zip(description.splits(), kfer().splits(), strict=True):
        assert split.published.records == pytest.approx((full.published.records or 0) / 100, abs=1)
    for config in description.configs:
        counts = zip(*(split.published.label_counts or () for split in config.splits), strict=True)
        assert all(map(sum, counts)), config.name
        numbers = {number for split in config.splits for number in split.published.labels_per_image or {}}
        assert numbers == ({1} if config.splits[0].kind == "single-label" else {1, 2, 3, 4})


def test_ids_are_unique_over_all_configs(small: Path) -> None:
    ids = [
        row["img_id"]
        for path in (small / LABELS_FOLDER).iterdir()
        for row in csv.DictReader(path.open(newline=""))
    ]
    assert len(set(ids)) == len(ids) == 714


def test_the_label_files_can_be_read_back(small: Path) -> None:
    parts = read_label_files(small / LABELS_FOLDER, load_description(small))
    assert parts == [
        (split, part.rows) for split, part in zip(load_description(small).splits(), parts, strict=True)
    ]
    assert sum(len(part.rows) for part in parts) == 714


def test_records_are_as_the_authors_wrote_theirs(small: Path) -> None:
    images = []
    for split in load_description(small).splits():
        for record in read_split(small, split):
            assert list(record) == ["height", "width", "depth", "label", "image_raw"]
            assert (record["height"], record["width"], record["depth"]) == ([64], [64], [3])
            assert len(record["label"]) == len(split.label_names)
            assert set(record["label"]) <= {0, 1}
            images.append(record["image_raw"])
    for data in images:
        assert 1_500 <= len(data) <= 3_500
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")
    assert sum(2_000 <= len(data) <= 3_000 for data in images) > 0.95 * len(images)
    assert len(set(images)) == len(images)


def test_the_index_tiles_the_file(small: Path) -> None:
    for split in load_description(small).splits():
        end = 0
        lines = (small / str(split.index)).read_text("ascii").splitlines()
        assert len(lines) == split.published.records
        for line in lines:
            offset, size = map(int, line.split(" "))
            assert offset == end
            end += size
        assert end == (small / split.file).stat().st_size


def test_the_description_is_written_last(tmp_path: Path) -> None:
    def stop(_records: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_sample(tmp_path, records=9, progress=stop)
    assert not (tmp_path / "dataset.json").exists()


# --- The same, again -----------------------------------------------------------------------------------


def test_the_bytes_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    make_sample(tmp_path / "one", records=1_500, workers=1)
    make_sample(tmp_path / "three", records=1_500, workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_the_bytes_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    program = "import sys, pathlib, converters.sample.writer as s; s.make_sample(pathlib.Path(sys.argv[1]), records=60)"
    for seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(Path(sample.__file__).parents[2]),
        }
        subprocess.run([sys.executable, "-c", program, str(tmp_path / seed)], env=environment, check=True)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_another_seed_gives_other_rows_and_pictures(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_sample(tmp_path / str(seed), records=30, seed=seed)
    one, two = (load_description(tmp_path / str(seed)).splits()[-3] for seed in (1, 2))
    assert one.published.labels_sha256 != two.published.labels_sha256
    images = [{r["image_raw"] for r in read_split(tmp_path / str(seed), one)} for seed in (1, 2)]
    assert images[0].isdisjoint(images[1])


def test_a_face_depends_on_each_argument_but_not_on_the_order_of_emotions() -> None:
    emotions = ["angry", "sad", "fearful", "happy"]
    face = draw_face("person", "picture", emotions)
    assert face == draw_face("person", "picture", emotions[::-1])
    others = [
        draw_face("other", "picture", emotions),
        draw_face("person", "other", emotions),
        draw_face("person", "picture", ["happy"]),
        draw_face("person", "picture", []),
    ]
    assert len({face, *others}) == 5
    assert others[-1] == draw_face("person", "picture", ["neutral"]) == draw_face("person", "picture", ["?"])


# --- The rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("records", [9, 10, 11, 13, 24, 57, 100, 333, 1_000, 7_143, 80_000])
def test_any_number_of_records_is_met_exactly(records: int) -> None:
    description = kfer()
    parts = small_rows(description, records, seed=records)
    assert [part.split for part in parts] == list(description.splits())
    assert sum(len(part.rows) for part in parts) == records
    assert all(part.rows for part in parts)
    for config in description.configs:
        rows = [row for part in parts if part.split.config == config.name for row in part.rows]
        counts = [sum(column) for column in zip(*(row.label for row in rows), strict=True)]
        assert sum(map(bool, counts)) == min(len(counts), sum(counts))
        sizes = {sum(row.label) for row in rows}
        assert sizes <= ({1} if config.splits[0].kind == "single-label" else {1, 2, 3, 4})


def test_full_rows_have_the_published_counts() -> None:
    parts = full_rows(kfer(), seed=0)
    assert sum(len(part.rows) for part in parts) == 71_430
    for split, rows in parts:
        assert len(rows) == split.published.records
        columns = zip(*(row.label for row in rows), strict=True)
        assert tuple(map(sum, columns)) == split.published.label_counts
        assert Counter(sum(row.label) for row in rows) == split.published.labels_per_image
    ids = {row.img_id for part in parts for row in part.rows}
    assert len(ids) == 71_430


def test_full_rows_are_mixed() -> None:
    rows = full_rows(kfer(), seed=0)[6].rows
    assert len({row.label for row in rows}) > 150  # the published data has 158 label sets here
    assert sum(row.label[4] for row in rows[:1000]) == pytest.approx(9_802 / 31.053, rel=0.2)


def test_dealing_is_exact_however_tight() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        width = chance.randint(1, 6)
        matrix = [[chance.random() < 0.6 for _ in range(width)] for _ in range(chance.randint(1, 12))]
        for row in matrix:
            row[chance.randrange(width)] = True
        sizes, counts = list(map(sum, matrix)), [sum(column) for column in zip(*matrix, strict=True)]
        rows = deal(sizes, counts, chance)
        assert sorted(map(len, rows)) == sorted(sizes)
        assert all(len(set(row)) == len(row) for row in rows)
        assert [sum(label in row for row in rows) for label in range(width)] == counts


def test_what_cannot_be_dealt_is_said() -> None:
    with pytest.raises(ValueError, match="no rows"):
        deal([1, 1], [1, 2], random.Random(0))


# --- The authors' label files --------------------------------------------------------------------------


def test_given_labels_are_taken_in_their_order(
    tmp_path: Path, tiny_spec: Description, tiny_labels: Path
) -> None:
    out = tmp_path / "out"
    summary = make_sample(out, full=True, labels=tiny_labels)
    assert summary.records == 5
    assert not (out / LABELS_FOLDER).exists()
    one, many = (read_split(out, split) for split in tiny_spec.splits())
    assert [record["label"] for record in one] == [[0, 1], [1, 0]]
    assert [record["label"] for record in many] == [[0, 0, 1], [1, 1, 0], [1, 0, 0]]
    # 03_1_00002 and 03_2_00001 are in both configs, at other places and with other label positions.
    assert [record["image_raw"] for record in one] == [many[2]["image_raw"], many[0]["image_raw"]]
    assert len({bytes(record["image_raw"]) for record in many}) == 3
    description = load_description(out)
    assert [split.published.clips for split in description.splits()] == [2, 2]
    assert "label files" in description.about.licence.text
    assert description.about.licence.name != "cc0-1.0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"img_id,clip_id,angry,sad\na,b,0,1\n", "expected img_id, clip_id, sad, angry"),
        (b"", "no valid label CSV"),
        (b"img_id,clip_id,sad,angry\n03_1_00002.jpg,03_1,0\n", "no valid label CSV"),
        (b"img_id,clip_id,sad,angry\n03_1_00002.jpg,03_1,0,x\n", "no valid label CSV"),
        (b"img_id,\xff\n", "no valid label CSV"),
        (None, "cannot be read"),
    ],
)
def test_a_malformed_label_file_is_named(
    tmp_path: Path, tiny_spec: Description, tiny_labels: Path, content: bytes | None, message: str
) -> None:
    path = tiny_labels / "single-label.csv"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        make_sample(tmp_path / "out", full=True, labels=tiny_labels)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_label_files_that_are_not_the_published_ones_are_refused(small: Path) -> None:
    with pytest.raises(DataError, match=r"its 102 rows are not the 10249 published") as caught:
        read_label_files(small / LABELS_FOLDER, kfer())
    assert "label_6_basic_emo_train.csv" in str(caught.value)


def test_ids_that_are_not_the_published_ones_are_refused(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    shutil.copytree(small / LABELS_FOLDER, folder)
    description = load_description(small)
    path = folder / str(description.splits()[0].labels_csv)
    lines = path.read_text().splitlines()
    lines[1] = "07_9999999_00001.jpg," + lines[1].split(",", 1)[1]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"not the .* published"):
        read_label_files(folder, description)


@pytest.mark.skipif(
    not AUTHORS_LABELS.is_dir(), reason=f"the authors' label files are not at {AUTHORS_LABELS}"
)
def test_the_authors_label_files_pass_every_published_check() -> None:
    parts = read_label_files(AUTHORS_LABELS, kfer())
    document = json.loads(json.dumps(sample._describe(kfer(), parts, authors_rows=True)))
    described = parse_description(document, "described").splits()
    assert [split.published for split in described] == [split.published for split in kfer().splits()]


# --- Errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"records": 8}, "at least 9"),
        ({"records": 0}, "at least 9"),
        ({"records": -1}, "at least 9"),
        ({"records": 100, "full": True}, "exclude"),
        ({"labels": Path("labels")}, "give full"),
        ({"workers": 0}, "at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(CallError, match=message):
        make_sample(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(CallError, match="not empty"):
        make_sample(tmp_path, records=9)
    with pytest.raises(CallError, match="cannot be used"):
        make_sample(tmp_path / "mine", records=9)
    assert contents(tmp_path) == {"mine": b"precious"}


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "at all")
    with pytest.raises(CallError, match="cannot be written"):
        make_sample(tmp_path / "link", records=9)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_workers_end_with_a_sample_that_is_interrupted(tmp_path, number):
    command = [sys.executable, "-m", "converters", "sample", tmp_path / "out", "--full", "--workers", "3"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / "out").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert error.strip() == "kfer-convert: interrupted; nothing was published."


def test_a_sample_of_which_a_worker_died_is_not_finished(tmp_path, monkeypatch):
    def dying(*_):
        raise MachineError("a worker process was ended by SIGKILL. Try fewer --workers")
        yield

    monkeypatch.setattr(sample.LocalEngine, "run", dying)
    with pytest.raises(CallError, match=r"not finished, delete it: a worker process .* fewer --workers\.$"):
        make_sample(tmp_path / "out", records=9, workers=2)
