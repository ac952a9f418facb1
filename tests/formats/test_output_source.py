"""An output as a source: read whole or in part, held against its manifest, and never believed where it was changed."""

import hashlib
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import digests, tree

from converters import convert, verify
from converters.errors import CallError, ConverterError, DataError


@pytest.fixture(scope="module")
def pristine(sample, tmp_path_factory):
    """A Parquet output with the names that the label CSVs know."""
    out = tmp_path_factory.mktemp("first") / "first"
    convert(sample, to="parquet", out=out, labels=sample / "labels", max_shard_bytes=30_000)
    assert len(list((out / "multi-label").glob("train-*.parquet"))) > 1
    return out


@pytest.fixture
def first(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "first")


def manifest_of(out) -> dict:
    return json.loads((out / "MANIFEST.json").read_text())


def rows_of(out, split: str = "multi-label/train") -> list[dict]:
    return [row for path in sorted(out.glob(f"{split}-*.parquet")) for row in pq.read_table(path).to_pylist()]


def renew(out) -> None:
    """Make the manifest's files, and the sums, those that are there."""
    document = manifest_of(out)
    for file in document["files"]:
        data = (out / file["path"]).read_bytes()
        file |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (out / "MANIFEST.json").write_text(json.dumps(document))
    found = digests(out)
    del found["SHA256SUMS"]
    (out / "SHA256SUMS").write_text("".join(f"{found[name]}  {name}\n" for name in sorted(found)))


def edit_table(path, change) -> None:
    """Write a Parquet file again with another value in it."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


# --- The same data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_shard_bytes", [1, 20_000, 10**9])
def test_every_value_of_an_output_is_in_the_next_one(pristine, sample, tmp_path, max_shard_bytes):
    before = tree(pristine)
    out = tmp_path / "second"
    report = convert(pristine, to="parquet", out=out, max_shard_bytes=max_shard_bytes)
    assert report.failures() == []
    assert tree(pristine) == before
    for entry, original in zip(manifest_of(out)["splits"], manifest_of(pristine)["splits"], strict=True):
        assert rows_of(out, f"{entry['config']}/{entry['split']}") == rows_of(
            pristine, f"{entry['config']}/{entry['split']}"
        )
        for key in ("config", "split", "columns", "fingerprint", "checks", "sources"):
            assert entry[key] == original[key], key
    assert verify(out).failures() == []
    assert verify(out, source=pristine).failures() == []
    assert verify(out, source=sample).failures() == []  # the originals prove it too


def test_shards_workers_and_an_interruption_do_not_matter(pristine, tmp_path):
    expected, out = tmp_path / "expected", tmp_path / "out"
    convert(pristine, to="parquet", out=expected, max_shard_bytes=20_000)

    def progress(stage: str, count: int) -> None:
        if len(list(tmp_path.glob("out.incomplete/shards/*.json"))) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(pristine, to="parquet", out=out, max_shard_bytes=20_000, progress=progress)
    assert not out.exists()
    report = convert(pristine, to="parquet", out=out, max_shard_bytes=20_000, workers=2)
    assert report.resumed_shards == 3
    assert digests(out) == digests(expected)


def test_the_manifest_says_what_it_was_made_from(pristine, tmp_path):
    second, third = tmp_path / "second", tmp_path / "third"
    convert(pristine, to="parquet", out=second)
    convert(second, to="parquet", out=third)
    assert manifest_of(pristine)["origin"] == []
    sums = [hashlib.sha256((out / "MANIFEST.json").read_bytes()).hexdigest() for out in (pristine, second)]
    origin = manifest_of(third)["origin"]
    assert [entry["manifest_sha256"] for entry in origin] == sums  # the whole way, the first one first
    assert [entry["format"] for entry in origin] == ["parquet", "parquet"]
    assert manifest_of(second)["origin"] == origin[:1]
    assert origin[0]["written_by"] == manifest_of(pristine)["written_by"]


# --- A part of it ------------------------------------------------------------------------------------------


def test_a_part_of_an_output(pristine, tmp_path):
    out = tmp_path / "out"
    convert(pristine, to="parquet", out=out, configs=["22_emo"], splits=["test", "valid"])
    document = manifest_of(out)
    assert [(entry["config"], entry["split"]) for entry in document["splits"]] == [
        ("22_emo", "valid"),
        ("22_emo", "test"),
    ]
    assert rows_of(out, "22_emo/test") == rows_of(pristine, "22_emo/test")
    assert verify(out, source=pristine).failures() == []
    with pytest.raises(
        CallError, match=r"no split 'train' is in this output; it has 22_emo/valid, 22_emo/test"
    ):
        convert(out, to="parquet", out=tmp_path / "none", splits=["train"])
    with pytest.raises(CallError, match="multi-label"):
        convert(out, to="parquet", out=tmp_path / "none", configs=["multi-label"])
    with pytest.raises(CallError, match="no config 'unheard'"):
        convert(out, to="parquet", out=tmp_path / "none", configs=["unheard"])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "without", [["depth"], ["label_vector"], ["img_id"], ["image_raw", "clip_id"], ["height", "width"]]
)
def test_columns_that_are_left_out_are_gone_and_recorded(pristine, tmp_path, without):
    out = tmp_path / "out"
    convert(pristine, to="parquet", out=out, without=without)
    document = manifest_of(out)
    assert document["options"]["without"] == without
    columns = [column["name"] for column in document["splits"][0]["columns"]]
    gone = {"image" if name == "image_raw" else name for name in without}
    gone |= {"label"} if "label_vector" in without else set()
    assert not gone & set(columns)
    for row, original in zip(rows_of(out), rows_of(pristine), strict=True):
        assert list(row) == [name for name in original if name not in gone]
        if "img_id" not in without:
            assert row == {name: original[name] for name in row}
    assert verify(out).failures() == []
    # What is gone stays gone.
    again = tmp_path / "again"
    convert(out, to="parquet", out=again)
    assert manifest_of(again)["options"]["without"] == without
    assert manifest_of(again)["splits"][0]["fingerprint"] == document["splits"][0]["fingerprint"]


def test_a_column_that_is_not_there_cannot_be_left_out(pristine, tmp_path):
    with pytest.raises(CallError, match="--without colour: there is no such column"):
        convert(pristine, to="parquet", out=tmp_path / "out", without=["colour"])


@pytest.mark.parametrize(
    "option",
    [{"reader": "tensorflow"}, {"on_error": "quarantine"}, {"paranoid": True}, {"labels": "labels"}],
)
def test_what_belongs_to_tfrecords_is_refused(pristine, sample, tmp_path, option):
    if "labels" in option:
        option = {"labels": sample / "labels"}
    with pytest.raises(CallError, match="this is an output of kfer-convert"):
        convert(pristine, to="parquet", out=tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()


# --- An output that was changed ----------------------------------------------------------------------------


def a_byte_of_an_image(out):
    path = next((out / "multi-label").glob("train-*.parquet"))
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xda") + 20] ^= 1
    path.write_bytes(data)


def a_value(column: str, value):
    def change(out):
        def edit(rows):
            rows[1][column] = value(rows[1][column])

        edit_table(next((out / "multi-label").glob("train-*.parquet")), edit)

    return change


def two_rows(out):
    def edit(rows):
        rows[0], rows[1] = rows[1], rows[0]

    edit_table(next((out / "multi-label").glob("train-*.parquet")), edit)


def a_row_less(out):
    edit_table(sorted((out / "multi-label").glob("train-*.parquet"))[-1], lambda rows: rows.pop())


def a_row_more(out):
    edit_table(sorted((out / "multi-label").glob("train-*.parquet"))[-1], lambda rows: rows.append(rows[-1]))


def two_files(out):
    one, other = sorted((out / "multi-label").glob("train-*.parquet"))[:2]
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


CHANGES = {
    "a byte of an image": a_byte_of_an_image,
    "a clip": a_value("clip_id", lambda clip: f"{clip}x"),
    "a name": a_value("img_id", lambda name: f"x{name}"),
    "a vector alone": a_value("label_vector", lambda vector: [1 - vector[0], *vector[1:]]),
    "a label alone": a_value("label", lambda label: [*label, 23] if 23 not in label else label[:-1]),
    "a height": a_value("height", lambda height: height + 1),
    "two rows": two_rows,
    "a row less": a_row_less,
    "a row more": a_row_more,
    "two files": two_files,
    "an empty file": lambda out: next((out / "multi-label").glob("train-*.parquet")).write_bytes(b""),
    "no file": lambda out: next((out / "multi-label").glob("train-*.parquet")).unlink(),
}


@pytest.mark.parametrize("renewed", [False, True], ids=["", "sums renewed"])
@pytest.mark.parametrize("name", CHANGES)
def test_an_output_that_was_changed_publishes_nothing(first, tmp_path, name, renewed):
    CHANGES[name](first)
    if renewed:
        if name == "no file":
            pytest.skip("there is nothing to renew the sum of")
        renew(first)
    for chosen in (
        {},
        {"configs": ["multi-label"], "splits": ["train"]},
        {"without": ["clip_id", "img_id", "height"]},
    ):
        with pytest.raises((ConverterError, OSError)) as caught:
            convert(first, to="parquet", out=tmp_path / "out", **chosen)
        assert (
            caught.value.exit_status == 1 if isinstance(caught.value, ConverterError) else name == "no file"
        )
        assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_a_change_elsewhere_in_the_output_is_found_too(first, tmp_path):
    """What is converted is as it was, but it is not the output that was proven."""
    a_byte_of_an_image(first)
    with pytest.raises(DataError, match="not the one that the manifest lists"):
        convert(first, to="parquet", out=tmp_path / "out", configs=["22_emo"])
    assert not (tmp_path / "out").exists()


def test_a_change_during_the_run_is_found(first, tmp_path):
    done = []

    def progress(stage: str, count: int) -> None:
        if stage == "verified" and not done:
            path = next((first / "22_emo").glob("test-*.parquet"))
            done.append(path.write_bytes(path.read_bytes()))  # the same bytes, in a state of their own

    with pytest.raises(DataError, match=r"test-.*changed while it was converted"):
        convert(first, to="parquet", out=tmp_path / "out", progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda d: d.update(manifest_version=1), 2),
        (lambda d: d.update(manifest_version=3), 1),
        (lambda d: d.update(format="unheard of"), 2),
        (lambda d: d["splits"][0].pop("fingerprint"), 1),
        (lambda d: d["splits"][0]["columns"].pop(), 1),
        (lambda d: d["files"][0].update(path="../../etc/passwd"), 1),
        (lambda d: d["splits"][0]["fingerprint"].update(records_sha256="0" * 64), 1),
        (lambda d: d["options"].update(labels=False), 1),
    ],
)
def test_a_manifest_of_another_form_is_no_source(first, tmp_path, kfer_convert, change, status):
    document = manifest_of(first)
    change(document)
    (first / "MANIFEST.json").write_text(json.dumps(document))
    done = kfer_convert(first, "--to", "parquet", "--out", tmp_path / "out")
    assert done.status == status
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_an_output_that_records_are_missing_from_says_so_again(source, tmp_path):
    """What was in quarantine goes along, with its bytes."""
    from conftest import flip, tfrecords

    flip(tfrecords(source, "22_emo", "train"), 600)
    one, two = tmp_path / "one", tmp_path / "two"
    lost = convert(source, to="parquet", out=one, on_error="quarantine", configs=["22_emo"])
    assert lost.quarantined == 1
    report = convert(one, to="parquet", out=two)
    assert (report.quarantined, report.lost_records) == (lost.quarantined, lost.lost_records)
    for entry, original in zip(manifest_of(two)["splits"], manifest_of(one)["splits"], strict=True):
        assert entry["checks"] == original["checks"]
        assert entry["quarantine"] == original["quarantine"]
    quarantined = {name: digest for name, digest in digests(one).items() if name.startswith("quarantine/")}
    assert quarantined
    assert quarantined.items() <= digests(two).items()
    assert verify(two).failures() == []
    assert verify(two, source=source).failures() == []


def test_an_output_that_differs_from_what_is_published_needs_to_be_allowed_again(source, tmp_path):
    from conftest import read_records, tfrecords, write_records

    path = tfrecords(source, "6_basic_emo", "train")
    write_records(path, read_records(path)[:-1])
    one, two = tmp_path / "one", tmp_path / "two"
    convert(source, to="parquet", out=one, allow_mismatch=True)
    with pytest.raises(ConverterError):
        convert(one, to="parquet", out=two)
    assert not two.exists()
    convert(one, to="parquet", out=two, allow_mismatch=True)
    assert manifest_of(two)["allow_mismatch"] is True
