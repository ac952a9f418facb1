"""Verification: what it proves by itself, and what it makes of manifests that somebody has written."""

import hashlib
import json
import shutil

import pyarrow.parquet as pq
import pytest
from conftest import digests, read_records, renew, tfrecords, tree, write_records
from helpers.examples import encode_features, write_frames
from helpers.proof import encoded_value, kfer_leaf, record_leaf, rfc9162_root

from converters import convert, verify
from converters.errors import ConverterError, DataError
from converters.verify.output import Verification


@pytest.fixture(scope="module")
def small(sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("small") / "out"
    convert(sample, to="parquet", out=out, configs=["6_basic_emo"], labels=sample / "labels")
    return out


@pytest.fixture
def output(small, tmp_path):
    return shutil.copytree(small, tmp_path / "out")


def edit_manifest(out, change) -> None:
    """Change the manifest, and renew the sums so that the two agree."""
    path = out / "MANIFEST.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    found = digests(out)
    del found["SHA256SUMS"]
    (out / "SHA256SUMS").write_text("".join(f"{found[name]}  {name}\n" for name in sorted(found)))


def test_the_fingerprints_are_what_their_definition_says(small, truth):
    """Recomputed from the definition in the manifest, with nothing of the package."""
    document = json.loads((small / "MANIFEST.json").read_text())
    assert "leaf = SHA-256(0x00, value of column 1" in document["fingerprint_definition"]
    for entry in document["splits"]:
        records = truth[entry["config"], entry["split"]]
        found = entry["fingerprint"]
        identities = [f"{r.img_id}\n{r.clip_id}".encode() for r in records]
        assert found["records"] == len(records)
        assert found["records_sha256"] == rfc9162_root([kfer_leaf(r) for r in records])
        assert found["labels_sha256"] == hashlib.sha256(b"".join(bytes(r.label) for r in records)).hexdigest()
        assert found["identities_sha256"] == rfc9162_root(
            [hashlib.sha256(identity).digest() for identity in identities], prefix=b""
        )
        assert found["image_bytes"] == sum(len(r.image) for r in records)
        assert list(found["label_counts"]) == [
            sum(column) for column in zip(*(r.label for r in records), strict=True)
        ]


def test_a_stranger_recomputes_the_root_from_the_output_and_its_manifest(small):
    """Of the columns that the manifest lists, in its order: those of the Parquet files that are not derived."""
    document = json.loads((small / "MANIFEST.json").read_text())
    for entry in document["splits"]:
        names = [
            path["path"]
            for path in document["files"]
            if path["path"].startswith(f"{entry['config']}/{entry['split']}-")
        ]
        rows = [row for name in names for row in pq.read_table(small / name).to_pylist()]
        leaves = []
        for row in rows:
            values = []
            for column in entry["columns"]:
                if column["derived"]:
                    continue
                value, image = row[column["name"]], column["role"] == "image"
                values.append(
                    encoded_value(
                        value["bytes"] if image else value, is_list=column["type"].endswith("]"), image=image
                    )
                )
            leaves.append(record_leaf(values))
        assert entry["fingerprint"]["records_sha256"] == rfc9162_root(leaves)


def test_verification_changes_nothing(output, sample):
    before = tree(output)
    assert verify(output, source=sample).failures() == []
    assert tree(output) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("records", 16),
        ("labels_sha256", "0" * 64),
        ("records_sha256", "0" * 64),
        ("identities_sha256", "0" * 64),
        ("image_bytes", 1),
        ("label_counts", [0] * 6),
        ("labels_per_image", {"2": 17}),
        ("distinct_label_sets", 1),
    ],
)
def test_a_fingerprint_that_is_not_the_content_s_is_found(output, key, value):
    edit_manifest(output, lambda document: document["splits"][0]["fingerprint"].update({key: value}))
    try:
        failures = verify(output).failures()
    except DataError as error:  # the shards in the manifest contradict it already
        assert key in ("records", "records_sha256")
        failures = [str(error).replace("splits 0", "6_basic_emo/train")]
    assert any("6_basic_emo/train" in failure for failure in failures)


MALFORMED = {
    "no splits": lambda d: d.pop("splits"),
    "no files": lambda d: d.pop("files"),
    "files no list": lambda d: d.update(files={}),
    "splits no list": lambda d: d.update(splits={"a": 1}),
    "no dataset": lambda d: d.update(dataset=None),
    "unknown split": lambda d: d["splits"][0].update(split="dev"),
    "size a text": lambda d: d["files"][0].update(size="1"),
    "no fingerprint": lambda d: d["splits"][0].pop("fingerprint"),
    "fingerprint with more": lambda d: d["splits"][0]["fingerprint"].update(more=1),
    "a path that leaves": lambda d: d["files"][0].update(path="../../etc/passwd"),
    "an absolute path": lambda d: d["files"][0].update(path="/etc/passwd"),
    "an empty path": lambda d: d["files"][0].update(path=""),
    "a path twice": lambda d: d["files"].append(d["files"][0]),
    "the manifest itself": lambda d: d["files"][0].update(path="MANIFEST.json"),
    "another format": lambda d: d.update(format="unheard of"),
    "a format that is another's": lambda d: d.update(format="hf"),
    "a column renamed": lambda d: d["splits"][0]["columns"][0].update(name="picture"),
    "columns no list": lambda d: d["splits"][0].update(columns={}),
    "no columns": lambda d: d["splits"][0].pop("columns"),
    "another label's name": lambda d: d["splits"][0]["columns"][1]["label_names"].reverse(),
    "without a column that is there": lambda d: d["options"].update(without=["depth"]),
    "an origin without a digest": lambda d: d["origin"].append({"format": "parquet", "written_by": {}}),
    "another version": lambda d: d.update(manifest_version=3),
    "a version that is no number": lambda d: d.update(manifest_version="2"),
    "an option that nobody can check": lambda d: d["options"].update(decode=True),
    "a quarantine that is not there": lambda d: d["options"].update(on_error="quarantine"),
    "options": lambda d: d["options"].update(format_options={"unheard_of": 1}),
    "label counts no list": lambda d: d["splits"][0]["fingerprint"].update(label_counts=3),
    "source facts": lambda d: d["splits"][0]["sources"][0].pop("sha256"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_manifest_of_another_form_fails(output, kfer_convert, name):
    try:
        edit_manifest(output, MALFORMED[name])
    except (KeyError, TypeError):
        pytest.fail("the test does not fit the manifest")
    done = kfer_convert("verify", output)
    assert done.status == 1
    assert done.err.startswith("kfer-convert: ")
    with_source = kfer_convert("verify", output, "--json")
    assert with_source.status == 1
    json.loads(with_source.out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["files"][0].update(size="1"), "files 0 size: expected an integer, found a string"),
        (lambda d: d["files"].append(d["files"][0]), "stands twice"),
        (lambda d: d["splits"][1]["checks"][0].pop("published"), "splits 1 checks 0 published: is missing"),
        (lambda d: d["options"].update(more=1), "options: unknown key 'more'"),
        (
            lambda d: d["dataset"]["about"].update(title=1),
            "dataset about title: expected a string, found an integer",
        ),
        (lambda d: d["splits"][2]["columns"].pop(), "splits 2: the columns are not those"),
        (lambda d: d["splits"][2]["columns"][0].update(role=None), "splits 2: the columns are not those"),
        (lambda d: d["splits"][0]["columns"].reverse(), "splits 0: the columns are not those"),
    ],
)
def test_an_error_in_a_manifest_says_where_it_is(output, change, message):
    edit_manifest(output, change)
    with pytest.raises(
        ConverterError, match=r"MANIFEST\.json: this is no manifest that kfer-convert writes"
    ) as caught:
        verify(output)
    assert message in str(caught.value)


@pytest.mark.parametrize("to", ["parquet", "jpeg"])
def test_a_source_that_differs_is_found(sample, source, tmp_path, to):
    convert(sample, to=to, out=tmp_path / "out", configs=["6_basic_emo"], labels=sample / "labels")
    path = tfrecords(source, "6_basic_emo", "train")
    records = read_records(path)
    for changed in (records[:-1], [*records, records[0]], [records[1], records[0], *records[2:]]):
        write_records(path, changed)
        failures = verify(tmp_path / "out", source=source).failures()
        assert failures
        assert all(failure.startswith("6_basic_emo/train: source: ") for failure in failures)
    path.unlink()
    assert any("6_basic_emo_train.tfrecords" in f for f in verify(tmp_path / "out", source=source).failures())


def test_a_source_that_is_not_there_is_a_wrong_call(output, tmp_path, kfer_convert):
    assert kfer_convert("verify", output, "--source", tmp_path / "nowhere").status == 2


def test_an_output_moved_elsewhere_is_still_proven(output, sample, tmp_path):
    moved = output.rename(tmp_path / "another name")
    assert verify(moved, source=sample).failures() == []


def test_a_part_of_the_dataset_is_proven_against_the_whole_source(sample, tmp_path):
    convert(sample, to="parquet", out=tmp_path / "out", configs=["22_emo"], splits=["test"])
    report = verify(tmp_path / "out", source=sample)
    assert report.failures() == []
    assert [split.split.title for split in report.splits] == ["22_emo/test"]


def test_a_column_that_the_source_lacks_is_named(sample, tmp_path):
    less, more = (
        convert(sample, to="parquet", out=tmp_path / name, configs=["22_emo"], without=without).out
        for name, without in (("less", ["depth"]), ("more", []))
    )
    for out, source, words in ((more, less, "is None there and {'name': 'depth'"), (less, more, "")):
        failures = verify(out, source=source).failures()
        assert all(words in failure for failure in failures)
        assert bool(failures) == bool(words)


def test_an_unreadable_content_is_a_failure_not_a_crash(output):
    (path,) = (output / "6_basic_emo").glob("train-*.parquet")
    path.write_bytes(b"PAR1\xff\xfe\0")
    assert any(path.name in failure for failure in verify(output).failures())

    def renew(document):
        entry = next(file for file in document["files"] if file["path"] == f"6_basic_emo/{path.name}")
        entry |= {"size": 7, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    edit_manifest(output, renew)
    assert any("cannot be read back" in failure for failure in verify(output).failures())
    shutil.rmtree(output / "6_basic_emo")
    assert verify(output).failures()


def test_an_output_of_version_1_is_refused_in_words_that_say_what_can_be_done(output, kfer_convert):
    edit_manifest(output, lambda document: document.update(manifest_version=1))
    done = kfer_convert("verify", output)
    assert done.status == 2
    assert "version 1" in done.err
    assert "sha256sum -c SHA256SUMS" in done.err


def test_no_manifest_is_no_output(output):
    (output / "MANIFEST.json").unlink()
    with pytest.raises(ConverterError, match="no finished output"):
        verify(output)


def test_a_source_may_be_moved(tmp_path):
    """Where nothing names a dataset its folder does, and a folder of another name is no fault of the data."""
    source = tmp_path / "first"
    source.mkdir()
    write_frames(source / "train.tfrecord", [encode_features({"label": [n]}) for n in range(3)], index=False)
    convert(source, to="parquet", out=tmp_path / "out")
    source.rename(tmp_path / "second")
    report = verify(tmp_path / "out", source=tmp_path / "second")
    assert not report.failures()
    assert any("its source second" in warning for warning in report.warnings)


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_made_up_size_of_shards_is_found_with_the_source(sample, tmp_path, size):
    out = tmp_path / "out"
    convert(sample, to="parquet", out=out, configs=["6_basic_emo"], max_shard_bytes=14_000)
    assert verify(out, source=sample).failures() == []
    edit_manifest(out, lambda document: document["options"].update(max_shard_bytes=size))
    (failure, *_) = verify(out, source=sample).failures()
    assert f"6_basic_emo/train: source: shards of max_shard_bytes {size} have other records" in failure


def test_what_another_version_wrote_about_the_dataset_is_not_compared(output):
    """It may say the same in other words."""
    (output / "README.md").write_text("as another version has it")
    renew(output)
    assert any(
        "README.md: it is not what this version writes" in failure for failure in verify(output).failures()
    )
    edit_manifest(output, lambda document: document["written_by"].update({"kfer-convert": "3.0.0"}))
    report = verify(output)
    assert report.failures() == []
    for split in report.splits:
        (check,) = (check for check in split.checks if check.name == "descriptions")
        assert check.result == "unverified"
        assert "written by kfer-convert 3.0.0" in check.reason


@pytest.mark.parametrize("max_shard_bytes", [14_000, 500_000_000])
@pytest.mark.parametrize(
    ("to", "options", "suffix"),
    [("tfrecord", {"index": True}, "tfrecord"), ("parquet", {}, "parquet"), ("jpeg", {}, "jpg")],
)
def test_no_file_may_be_a_link(sample, tmp_path, to, options, suffix, max_shard_bytes):
    out = tmp_path / "out"
    convert(sample, to=to, out=out, configs=["22_emo"], max_shard_bytes=max_shard_bytes, **options)
    assert verify(out).failures() == []
    path = min(out.rglob(f"*.{suffix}"))
    path.rename(tmp_path / "own")
    path.symlink_to(tmp_path / "own")
    assert "none is followed" in verify(out).failures()[0]


def test_which_files_hold_records_is_not_asked_for_each_file(sample, tmp_path, monkeypatch):
    """That took minutes of 71,430 images."""
    convert(sample, to="jpeg", out=tmp_path / "out", configs=["22_emo"])
    calls, ask = [], Verification._of_records

    def counted(self):
        calls.append(self)
        return ask(self)

    monkeypatch.setattr(Verification, "_of_records", counted)
    assert not verify(tmp_path / "out").failures()
    assert 0 < len(calls) < 4
