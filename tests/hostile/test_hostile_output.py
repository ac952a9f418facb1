"""Verification of outputs that somebody tampered with: manifest and sums may be edited together."""

import copy
import hashlib
import json
import os
import shutil
import subprocess

import pytest
from conftest import digests
from corpus import jpeg, make_source
from hypothesis import given, settings
from hypothesis import strategies as st

from converters import convert, verify
from converters.errors import ConverterError

# What a manifest says for people and for reading the source again. Everything else is held against the output
# or against another part of the manifest.
INFORMATIONAL = [
    ("written_by",),
    ("fingerprint_definition",),
    ("warnings",),
    ("allow_mismatch",),  # decides whether a failure counts; here nothing fails
    ("options", "max_record_bytes"),
    ("options", "max_shard_bytes"),
    ("options", "format_options", "class_folders"),  # only where the layout is the same
    ("dataset", "name"),
    ("dataset", "about"),
    ("dataset", "features"),
    ("dataset", "configs", ..., "splits", ..., "file"),
    ("dataset", "configs", ..., "splits", ..., "index"),
    ("dataset", "configs", ..., "splits", ..., "labels_csv"),
    ("origin",),
    ("splits", ..., "sources", ..., "name"),
    ("splits", ..., "sources", ..., "bytes"),
    ("splits", ..., "sources", ..., "sha256"),
    ("splits", ..., "sources", ..., "compression"),
    ("splits", ..., "sources", ..., "indexed"),
    ("splits", ..., "sources", ..., "ranges"),
    ("splits", ..., "sources", ..., "example_bytes"),
    ("splits", ..., "sources", ..., "md5"),
    ("splits", ..., "checks", ..., "reason"),
]

# Facts that may be taken out of the description unnoticed, for no check rests on them alone; a changed one is found.
REMOVABLE = ("distinct_label_sets", "clips")


@pytest.fixture(scope="module")
def outputs(sample, tmp_path_factory):
    """An output with everything a manifest may have: names, several splits, an absent one, empty folders."""
    source = tmp_path_factory.mktemp("outputs") / "source"
    shutil.copytree(sample, source)
    (source / "6_basic_emo_test.tfrecords").unlink()
    (source / "6_basic_emo_test.idx").unlink()
    made = {}
    for name, options in {"jpeg": {"class_folders": True}, "parquet": {}}.items():
        made[name] = source.with_name(name)
        convert(source, to=name, out=made[name], configs=["6_basic_emo"], labels=source / "labels", **options)
        assert verify(made[name]).failures() == []
    return made


@pytest.fixture
def output(outputs, tmp_path):
    return shutil.copytree(outputs["jpeg"], tmp_path / "out")


def write_manifest(out, data: bytes) -> None:
    """The manifest, and sums that agree with it and with the files that are there."""
    (out / "MANIFEST.json").write_bytes(data)
    found = digests(out)
    found.pop("SHA256SUMS", None)
    (out / "SHA256SUMS").write_text("".join(f"{found[name]}  {name}\n" for name in sorted(found)))


def edit(out, change) -> None:
    document = json.loads((out / "MANIFEST.json").read_text())
    change(document)
    write_manifest(out, json.dumps(document).encode())


def problem(out) -> str | None:
    """What is wrong; None where it is verified. Anything but our errors is a crash."""
    try:
        failures = verify(out).failures()
    except ConverterError as error:
        return str(error)
    return failures[0] if failures else None


def leaves(value, path=()):
    """The place of every value in a JSON document, the containers' too."""
    yield path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from leaves(child, (*path, key))


def informational(path) -> bool:
    return any(
        len(path) >= len(known) and all(want in (..., got) for want, got in zip(known, path, strict=False))
        for known in INFORMATIONAL
    )


odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([2**31, 2**63, -(2**63), 2**64, 10**400, 0.5, 1e308, float("inf"), float("nan")]),
    st.sampled_from(
        ["", "..", "../x", "/etc/passwd", "a\0b", "a\\b", "x" * 300, "0" * 64, "passed", "\ud800"]
    ),
    st.sampled_from([[], {}, [[]], [None], {"a": 1}, ["passed"]]),
)


@settings(deadline=None, max_examples=int(os.environ.get("MANIFEST_CHANGES", "250")))
@given(data=st.data())
def test_a_changed_value_of_a_manifest_is_found_or_is_only_for_people(small_output, data):
    out, document = small_output
    path = data.draw(st.sampled_from([path for path in leaves(document) if path]))
    changed = copy.deepcopy(document)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    how = data.draw(st.sampled_from(["value", "value", "remove", "like"]))
    old = parent[path[-1]]
    if how == "remove":
        del parent[path[-1]]
    elif how == "like" and isinstance(old, str) and old:
        spot = data.draw(st.integers(0, len(old) - 1))
        parent[path[-1]] = old[:spot] + chr(ord(old[spot]) ^ 1) + old[spot + 1 :]
    elif how == "like" and isinstance(old, list) and old:
        parent[path[-1]] = [*old, data.draw(st.sampled_from(old))]
    elif how == "like" and isinstance(old, int) and not isinstance(old, bool):
        parent[path[-1]] = old + data.draw(st.sampled_from([-1, 1, 1000]))
    else:
        parent[path[-1]] = data.draw(odd_values)
    if json.dumps(changed) == json.dumps(document) or (how == "remove" and old is None):
        return  # what is null may as well be left out
    write_manifest(out, json.dumps(changed).encode())
    removed = parent.get(path[-1]) is None if isinstance(parent, dict) else False
    if not (informational(path) or (removed and path[-1] in REMOVABLE)):
        assert problem(out) is not None, path
    else:
        problem(out)  # found or not, but no crash


@pytest.fixture(scope="module")
def small_output(tmp_path_factory):
    """An output of three records with published facts, small enough to be verified hundreds of times."""
    source = make_source(tmp_path_factory.mktemp("small") / "source")
    document = json.loads((source / "dataset.json").read_text())
    split = document["configs"]["c"]["splits"]["train"]
    split |= {"records": 3, "label_counts": {"a": 1, "b": 2}, "labels_per_image": {"1": 3}}
    split |= {"distinct_label_sets": 2}
    document["configs"]["c"]["splits"]["test"] = {"file": "absent.tfrecords"}
    document |= {"name": "small", "about": {"title": "A title", "tags": ["one"], "licence": {"name": "mit"}}}
    (source / "dataset.json").write_text(json.dumps(document))
    out = source.with_name("out")
    convert(source, to="parquet", out=out)
    return out, json.loads((out / "MANIFEST.json").read_text())


TEXTS = {
    "nothing": b"",
    "no JSON": b"{",
    "NULs": bytes(1000),
    "not UTF-8": b"\xff\xfe{}",
    "a list": b"[]",
    "null": b"null",
    "deep nesting": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "another version": b'{"manifest_version": 2}',
    "a version that is true": b'{"manifest_version": true}',
    "a version that is 1.0": b'{"manifest_version": 1.0}',
    "a version of 10**400": b'{"manifest_version": 1' + b"0" * 400 + b"}",
    "a version of 10**10000": b'{"manifest_version": 1' + b"0" * 10_000 + b"}",
    "only a version": b'{"manifest_version": 1}',
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_manifest_is_an_error(output, name):
    write_manifest(output, TEXTS[name])
    assert problem(output)


def test_a_key_twice_is_an_error(output):
    text = (output / "MANIFEST.json").read_text()
    write_manifest(output, text.replace("{", '{\n "format": "parquet",', 1).encode())
    assert "twice" in problem(output)


PATHS = [
    "../x",
    "/etc/passwd",
    "a/../../x",
    "./x",
    "a//b",
    "a/",
    "",
    ".",
    "..",
    "a\\b",
    "a\0b",
    "a\nb",
    "C:\\x",
    "\ud800",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_leaves_is_refused_and_not_opened(output, tmp_path, path, monkeypatch):
    (tmp_path / "x").write_bytes(b"outside")
    opened = []
    system_open = os.open

    def watched(name, *more, **options):
        opened.append(os.fspath(name))
        return system_open(name, *more, **options)

    monkeypatch.setattr(os, "open", watched)
    entry = {"path": path, "size": 7, "sha256": hashlib.sha256(b"outside").hexdigest()}
    edit(output, lambda document: document["files"].append(entry))
    opened.clear()
    assert problem(output)
    assert all(os.path.realpath(name).startswith(os.fspath(output)) for name in opened)


def test_an_added_or_removed_empty_folder_is_found(output):
    """An empty class folder is part of the output; another is not."""
    (empty, *_) = [
        folder for folder in sorted(output.rglob("*")) if folder.is_dir() and not any(folder.iterdir())
    ]
    empty.rmdir()
    assert "missing" in problem(output)
    empty.mkdir()
    assert problem(output) is None
    (output / "more" / "below").mkdir(parents=True)
    assert "more/below" in problem(output)


def test_splits_taken_out_of_the_manifest_are_found(output):
    edit(output, lambda document: document["splits"].pop())
    assert "asked for" in problem(output)


def test_splits_taken_out_and_called_absent_are_found(output):
    def hide(document):
        taken = document["splits"].pop()
        document["absent"].insert(0, f"{taken['config']}/{taken['split']}")

    edit(output, hide)
    failures = verify(output).failures()
    lost = "6_basic_emo/valid/metadata.csv: no record and no format accounts for this file"
    assert lost in failures


def test_splits_taken_out_and_not_asked_for_are_found(output):
    def hide(document):
        taken = document["splits"].pop()
        document["options"]["splits"] = ["train"]
        document["absent"] = []
        assert taken["split"] == "valid"

    edit(output, hide)
    failures = verify(output).failures()
    lost = "6_basic_emo/valid/metadata.csv: no record and no format accounts for this file"
    assert lost in failures


ODD_FILES = {
    "a FIFO": os.mkfifo,
    "a directory": lambda path: path.mkdir(),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link that leads nowhere": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("what", ODD_FILES)
@pytest.mark.parametrize("name", ["MANIFEST.json", "SHA256SUMS", "6_basic_emo/train/metadata.csv", "more"])
def test_what_is_no_file_is_found_and_not_waited_for(output, kfer_isolated, what, name):
    (output / name).unlink(missing_ok=True)
    ODD_FILES[what](output / name)
    run = kfer_isolated("verify", output)
    assert run.status in ((1, 2) if name == "MANIFEST.json" else (1,)), run
    assert "Traceback" not in run.err
    assert run.seconds < 20


@pytest.mark.parametrize(
    "name", ["MANIFEST.json", "SHA256SUMS", "6_basic_emo/train", "6_basic_emo/train/metadata.csv"]
)
def test_a_link_is_never_followed(output, tmp_path, name):
    """Also where it leads to the same bytes."""
    (output / name).rename(tmp_path / "elsewhere")
    (output / name).symlink_to(tmp_path / "elsewhere")
    assert problem(output)


def test_a_hard_link_is_the_file_itself(output, tmp_path):
    os.link(output / "MANIFEST.json", tmp_path / "link")
    assert problem(output) is None


@pytest.mark.parametrize("name", ["MANIFEST.json", "SHA256SUMS"])
def test_a_gigabyte_is_not_read(output, kfer_isolated, name):
    os.truncate(output / name, 1 << 30)
    run = kfer_isolated("verify", output)
    assert run.status == 1
    assert run.megabytes < 400
    assert run.seconds < 20


@pytest.mark.parametrize(
    "data", [b"[]," * 2_600_000 + b"[]]", b'"\\ud800",' * 900_000 + b"1]"], ids=["lists", "texts"]
)
def test_a_manifest_that_takes_much_memory_is_bounded(output, kfer_isolated, data):
    (output / "MANIFEST.json").write_bytes(b"[" + data)
    run = kfer_isolated("verify", output)
    assert run.status == 1
    assert run.megabytes < 400


def test_folders_within_folders_are_found(output):
    """Deeper than Python recurses, and than a path may be long."""
    place = os.getcwd()  # noqa: PTH109
    os.chdir(output)
    try:
        for _ in range(1200):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
    finally:
        os.chdir(place)
    try:
        assert problem(output)
    finally:
        subprocess.run(["rm", "-rf", output / "d"], check=True)  # Python's own way goes by recursion


def test_nothing_in_an_output_is_run(output, monkeypatch):
    """A format is one that is installed; a module of its name in the output, or here, is not loaded."""
    mark = output.with_name("mark")
    (output / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    monkeypatch.chdir(output)
    for name in ("evil", "evil:main", "converters.sample.writer", "../evil", "os:system", ""):
        edit(output, lambda document, name=name: document.update(format=name))
        assert problem(output)
    assert not mark.exists()


@pytest.mark.parametrize("claim", [1, 2**31, 2**63, 10**30])
def test_a_parquet_file_of_many_rows_ends_soon(small_output, tmp_path, kfer_isolated, claim):
    """A few bytes may say a million rows; reading ends where the manifest's number is exceeded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = shutil.copytree(small_output[0], tmp_path / "out")
    path = next(out.rglob("*.parquet"))
    table = pq.read_table(path)
    row = table.slice(0, 1)
    many = pa.concat_tables([row.take([0] * 5000)] * 20).replace_schema_metadata(table.schema.metadata)
    pq.write_table(many, path, use_dictionary=True, compression="SNAPPY", write_page_checksum=True)
    data = path.read_bytes()

    def renew(document):
        document["files"][0] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        document["splits"][0]["fingerprint"]["records"] = claim

    edit(out, renew)
    run = kfer_isolated("verify", out)
    assert run.status == 1
    assert run.megabytes < 400
    assert run.seconds < 30


def test_images_that_are_spoiled_in_an_output_are_found(output):
    """The digests are renewed too; what the content says is left."""
    path = next(output.rglob("*.jpg"))
    path.write_bytes(jpeg("RGB", (64, 64), shade=(1, 2, 3)))
    name = path.relative_to(output).as_posix()

    def renew(document):
        entry = next(file for file in document["files"] if file["path"] == name)
        entry |= {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    edit(output, renew)
    assert problem(output)
