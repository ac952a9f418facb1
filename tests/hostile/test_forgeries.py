"""Outputs that were forged by somebody who knows the layout: manifest, sums and cards are renewed with what he changed.

Each test changes what a reader of the files would load, or adds to it, and leaves every fingerprint as it was.
"""

import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import flip, renew
from helpers.examples import encode_features, write_frames

from converters import convert, verify
from converters.errors import ConverterError, DataError
from converters.formats.tfrecord.framing import OVERHEAD_BYTES
from converters.formats.webdataset.tar import TarWriter, read_members

CONFIG = "multi-label"
SHARD_BYTES = 9000  # each split has a few shards


@pytest.fixture(scope="module")
def made(sample, tmp_path_factory):
    """Makes an output of the sample in a format, once."""
    folder, there = tmp_path_factory.mktemp("forgeries"), {}

    def make(to):
        if to not in there:
            there[to] = folder / to
            convert(sample, to=to, out=there[to], configs=[CONFIG], workers=1, max_shard_bytes=SHARD_BYTES)
            assert not verify(there[to], source=sample).failures()
        return there[to]

    return make


@pytest.fixture
def output(made, tmp_path):
    return lambda to: shutil.copytree(made(to), tmp_path / "out")


def edit(out, change) -> None:
    """Change the manifest, and renew all digests."""
    document = json.loads((out / "MANIFEST.json").read_text())
    change(document)
    (out / "MANIFEST.json").write_text(json.dumps(document))
    renew(out)


def failure(out, **options) -> str:
    return "\n".join(verify(out, **options).failures())


def train(document):
    return next(split for split in document["splits"] if split["split"] == "train")


def shard_files(out) -> list[str]:
    """The first file of each shard of the split train."""
    return [facts["files"][0] for facts in train(json.loads((out / "MANIFEST.json").read_text()))["shards"]]


def list_file(document, path) -> None:
    document["files"] = sorted(
        [*document["files"], {"path": path, "size": 0, "sha256": ""}], key=lambda file: file["path"]
    )


# --- Files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["arrow", "tfrecord", "arrayrecord", "webdataset", "jpeg"])
@pytest.mark.parametrize("key", ["shards", "joined"])
def test_a_file_given_to_a_shard_that_would_not_write_it_is_found(output, to, key):
    """`datasets` takes what fits a README's pattern, such as ``train-*.arrow``, for records."""
    out = output(to)
    first = shard_files(out)[0]
    path = "metadata.csv" if to == "jpeg" else first.replace("-0", "-more-0")
    shutil.copyfile(out / first, out / path)

    def give(document):
        list_file(document, path)
        entry = train(document)
        (entry["joined"] if key == "joined" else entry["shards"][0]["files"]).append(path)

    edit(out, give)
    assert f"{path}: no shard of this output has this name" in failure(out)


def test_a_file_in_quarantine_of_no_record_is_found(output):
    out = output("tfrecord")
    (out / "quarantine").mkdir()
    (out / "quarantine" / "more.py").write_text("")
    edit(out, lambda document: list_file(document, "quarantine/more.py"))
    assert "quarantine/more.py: no record and no format accounts for this file" in failure(out)


def test_an_empty_folder_that_is_listed_is_found(output):
    out = output("arrow")
    (out / "more").mkdir()
    edit(out, lambda document: document["empty_folders"].append("more"))
    assert "more/: no shard of this output has this name" in failure(out)


@pytest.mark.parametrize("to", ["arrow", "tfrecord", "arrayrecord", "webdataset"])
def test_shards_that_changed_places_are_found(output, to):
    """Each holds its records; whoever loads the files by their names has them in another order."""
    out = output(to)
    first, *_, last = shard_files(out)
    (out / first).rename(out / "first")
    (out / last).rename(out / first)
    (out / "first").rename(out / last)

    def exchange(document):
        one, *_, other = train(document)["shards"]
        one["files"], other["files"] = other["files"], one["files"]

    edit(out, exchange)
    assert f"{first}: no shard of this output has this name" in failure(out)


def test_an_image_in_the_folder_of_a_later_shard_is_found(output):
    """Image folders are loaded in the order of the paths."""
    out = output("jpeg")
    entry = train(json.loads((out / "MANIFEST.json").read_text()))
    files = [[name for name in facts["files"] if name.endswith(".jpg")] for facts in entry["shards"]]
    path = files[0][0]
    place = f"{files[-1][0].rpartition('/')[0]}/{path.rpartition('/')[2]}"
    (out / path).rename(out / place)
    root = out / CONFIG / "train"
    for metadata in root.glob("metadata.*"):
        text = metadata.read_text()
        short, moved = (name.removeprefix(f"{CONFIG}/train/") for name in (path, place))
        assert short in text
        metadata.write_text(text.replace(short, moved))

    def move(document):
        for file in document["files"]:
            file["path"] = place if file["path"] == path else file["path"]
        document["files"].sort(key=lambda file: file["path"])
        shards = train(document)["shards"]
        shards[0]["files"].remove(path)
        shards[-1]["files"].append(place)

    edit(out, move)
    assert "not in the order of the records" in failure(out)


# --- Values --------------------------------------------------------------------------------------------


def read_arrow(path) -> pa.Table:
    return pa.ipc.open_file(path.read_bytes()).read_all().combine_chunks()


def write_arrow(path, table) -> None:
    with path.open("wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("name", ["label", "label_vector"])
def test_nulls_in_lists_over_the_values_are_found(output, name):
    """The values are all there, in the buffers; a bitmap hides them from whoever reads the column."""
    out = output("arrow")
    path = out / shard_files(out)[0]
    table = read_arrow(path)
    place = table.schema.get_field_index(name)
    column = table.column(place).chunk(0)
    values = column.values
    bits = pa.py_buffer(np.packbits(np.arange(len(values)) % 2 == 0, bitorder="little"))
    hidden = pa.Array.from_buffers(values.type, len(values), [bits, values.buffers()[1]])
    buffers = column.buffers()[: 2 if pa.types.is_list(column.type) else 1]
    column = pa.Array.from_buffers(column.type, len(column), buffers, children=[hidden])
    write_arrow(path, table.set_column(place, table.schema.field(place), column))
    renew(out)
    assert "a value in a list is null" in failure(out)


@pytest.mark.parametrize("change", [lambda ranks: ranks or None, lambda ranks: [*ranks, None]])
def test_nulls_in_labels_that_follow_from_others_are_found(tmp_path, change):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    examples = [encode_features({"ids": [3] * (number % 3), "text": [b"text"]}) for number in range(6)]
    write_frames(source / "some.tfrecord", examples, index=False)
    ids = {"type": "int64[]", "role": "label", "label_names": {"1": "one", "3": "three"}}
    config = {
        "columns": {"ids": ids, "text": "string"},
        "splits": {"train": {"file": "some.tfrecord"}},
    }
    (source / "dataset.json").write_text(json.dumps({"name": "lists", "configs": {"c": config}}))
    convert(source, to="arrow", out=out)
    (path,) = out.rglob("*.arrow")
    table = read_arrow(path)
    place = table.schema.get_field_index("label")
    changed = pa.array(map(change, table.column(place).to_pylist()), table.schema.field(place).type)
    write_arrow(path, table.set_column(place, table.schema.field(place), changed))
    renew(out)
    assert "the columns label and ids contradict each other" in failure(out)


def test_other_records_from_the_beginning_of_an_arrow_file_on_are_found(output):
    """`datasets` reads a stream where a file begins with one; pyarrow reads a file by its end."""
    out = output("arrow")
    path = out / shard_files(out)[0]
    table = read_arrow(path)
    with pa.BufferOutputStream() as file:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table.take(list(range(len(table)))[::-1]))
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        path.write_bytes(file.getvalue())
    assert read_arrow(path).equals(table)
    renew(out)
    assert "does not begin as an Arrow file does" in failure(out)


@pytest.mark.parametrize("to", ["arrow", "parquet"])
def test_fields_that_claim_a_type_of_somebody_s_are_found(output, to):
    """Who has that type registered reads another column."""
    out = output(to)
    path = out / shard_files(out)[0]
    table = read_arrow(path) if to == "arrow" else pq.read_table(path)
    fields = [field.with_metadata({"ARROW:extension:name": "some.type"}) for field in table.schema]
    table = table.cast(pa.schema(fields, metadata=table.schema.metadata))
    if to == "arrow":
        write_arrow(path, table)
    else:
        pq.write_table(table, path, write_page_checksum=True)
    renew(out)
    assert "the file's schema is not the one of" in failure(out)


def test_metadata_of_a_parquet_file_that_arrow_does_not_show_is_found(output):
    out = output("parquet")
    path = out / shard_files(out)[0]
    table = pq.read_table(path)
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"pandas": '{"index_columns": ["label"]}'})
    renew(out)
    assert "the file has other metadata than its schema" in failure(out)


def test_records_in_groups_are_found(output):
    module = pytest.importorskip("array_record.python.array_record_module")
    out = output("arrayrecord")
    path = out / shard_files(out)[0]
    reader = module.ArrayRecordReader(str(path))
    records = reader.read_all()
    reader.close()
    writer = module.ArrayRecordWriter(str(path), "group_size:64,uncompressed")
    for record in records:
        writer.write(record)
    writer.close()
    renew(out)
    assert "in groups" in failure(out)


# --- Text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"), [(b'":[', b'": ['), (b"}", b"}\n"), (b'"height":', b'"height":0e0'), (b"]", b".0]")]
)
def test_json_that_is_written_otherwise_is_found(output, old, new):
    """Of 1.0 in place of 1, `datasets` makes a column of floats."""
    out = output("webdataset")
    path = out / shard_files(out)[0]
    with path.open("rb") as file:
        members = list(read_members(file, "", path.stat().st_size))
    with path.open("w+b") as file:
        writer = TarWriter(file)
        for name, data in members:
            writer.add(name.encode(), data.replace(old, new) if name.endswith(".json") else data)
        writer.finish()
    renew(out)
    found = failure(out)
    assert "not as kfer-convert writes it" in found or "no valid JSON" in found


@pytest.mark.parametrize(
    ("old", "new"),
    [(b",1", b",0x1"), (b",1", b", 1"), (b",1", b",01"), (b",1", b',"1"'), (b'"', b""), (b"\n", b"\r\n")],
)
def test_csv_that_is_written_otherwise_is_found(output, old, new):
    """Arrow takes 0x1 for 1; pandas makes texts of the whole column."""
    out = output("jpeg")
    path = out / CONFIG / "train" / "metadata.csv"
    head, _, rows = path.read_bytes().partition(b"\n")
    assert old in rows
    path.write_bytes(head + b"\n" + rows.replace(old, new))
    renew(out)
    assert "not as kfer-convert writes them" in failure(out)


# --- The source ----------------------------------------------------------------------------------------


def test_a_split_that_is_called_absent_and_is_in_the_source_is_found(output, sample):
    out = output("arrow")
    for path in (out / CONFIG).glob("test-*"):
        path.unlink()

    def hide(document):
        document["splits"] = [split for split in document["splits"] if split["split"] != "test"]
        document["absent"] = [f"{CONFIG}/test"]
        document["files"] = [file for file in document["files"] if "/test-" not in file["path"]]

    edit(out, hide)
    assert f"{CONFIG}/test is in {sample}" in failure(out, source=sample)


def test_a_sound_record_in_quarantine_is_found(tmp_path):
    """Somebody has a record left out, and says that it was damaged."""
    source, damaged, out = tmp_path / "source", tmp_path / "damaged", tmp_path / "out"
    examples = [encode_features({"number": [number], "text": [b"text"]}) for number in range(9)]
    source.mkdir()
    write_frames(source / "some.tfrecord", examples, index=False)
    shutil.copytree(source, damaged)
    start = sum(len(example) + OVERHEAD_BYTES for example in examples[:4])
    flip(damaged / "some.tfrecord", start + 20)
    report = convert(damaged, to="arrow", out=out, on_error="quarantine")
    assert report.splits[0].fingerprint.records == 8
    assert not verify(out, source=damaged).failures()  # its columns are inferred, without what is damaged
    data = (source / "some.tfrecord").read_bytes()
    (raw,) = out.rglob("*.bin")
    raw.write_bytes(data[start : start + len(examples[4]) + OVERHEAD_BYTES])
    edit(
        out,
        lambda document: document["splits"][0]["sources"][0].update(sha256=hashlib.sha256(data).hexdigest()),
    )
    assert "not all of the" in failure(out, source=source)


@pytest.mark.parametrize("to", ["webdataset", "tfrecord", "arrayrecord"])
def test_a_manifest_that_the_sums_do_not_list_is_no_source(output, tmp_path, to):
    """What reads these formats has the names of labels from the manifest alone."""
    out = output(to)
    path = out / "MANIFEST.json"
    text = path.read_text()
    changed = text.replace('"happy"', '"-"').replace('"sad"', '"happy"').replace('"-"', '"sad"')
    assert changed != text
    path.write_text(changed)
    with pytest.raises(DataError, match="contradict each other"):
        convert(out, to="parquet", out=tmp_path / "next")
    (out / "SHA256SUMS").unlink()
    with pytest.raises(ConverterError, match="SHA256SUMS"):
        convert(out, to="parquet", out=tmp_path / "next")
