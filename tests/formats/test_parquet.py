"""Parquet outputs, opened by the programs that users open them with, against a reading of the source by hand."""

import io
import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from conftest import CONFIGS, SPLITS, drop_published, read_records, tfrecords, write_records
from PIL import Image

from converters import convert
from converters.dataset.description import load_description
from converters.formats import parquet
from converters.formats.parquet import ParquetFormat


@pytest.fixture(scope="module")
def output(sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("parquet") / "out"
    convert(sample, to="parquet", out=out, labels=sample / "labels", max_shard_bytes=50_000)
    return out


def paths(output, config, split):
    return sorted((output / config).glob(f"{split}-*.parquet"))


def all_parts(truth):
    return [(config, split, truth[config, split]) for config in CONFIGS for split in SPLITS]


def expected_labels(config, records):
    return [record.indices if config == "multi-label" else record.indices[0] for record in records]


def test_the_files_are_those_of_the_layout(output):
    found = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert {"6_basic_emo/train-00000-of-00001.parquet", "multi-label/train-00002-of-00003.parquet"} < found
    assert found - {
        f"{config}/{path}" for config in CONFIGS for path in (p.name for p in (output / config).iterdir())
    } == {
        "MANIFEST.json",
        "SHA256SUMS",
        "croissant.json",
        "README.md",
        "LICENSE",
    }


def test_pyarrow(output, truth):
    for config, split, records in all_parts(truth):
        table = pq.ParquetDataset(paths(output, config, split)).read()
        assert [image["bytes"] for image in table["image"].to_pylist()] == [
            record.image for record in records
        ]
        assert [image["path"] for image in table["image"].to_pylist()] == [
            record.img_id for record in records
        ]
        assert table["label"].to_pylist() == expected_labels(config, records)
        assert [tuple(row) for row in table["label_vector"].to_pylist()] == [
            record.label for record in records
        ]
        for name in ("height", "width", "depth", "img_id", "clip_id"):
            assert table[name].to_pylist() == [getattr(record, name) for record in records]


def test_pandas(output, truth, label_names):
    pandas = pytest.importorskip("pandas")
    for config, split, records in all_parts(truth):
        frame = pandas.concat([pandas.read_parquet(path) for path in paths(output, config, split)])
        assert [image["bytes"] for image in frame["image"]] == [record.image for record in records]
        labels = [list(label) if config == "multi-label" else int(label) for label in frame["label"]]
        assert labels == expected_labels(config, records)
        assert list(frame["clip_id"]) == [record.clip_id for record in records]
        features = json.loads(pq.read_schema(paths(output, config, split)[0]).metadata[b"huggingface"])
        label = features["info"]["features"]["label"]
        assert (label.get("feature") or label)["names"] == label_names[config]


def test_polars(output, truth):
    polars = pytest.importorskip("polars")
    for config, split, records in all_parts(truth):
        frame = polars.read_parquet(paths(output, config, split))
        assert frame["image"].struct.field("bytes").to_list() == [record.image for record in records]
        assert frame["label"].to_list() == expected_labels(config, records)
        assert [tuple(row) for row in frame["label_vector"].to_list()] == [record.label for record in records]


def test_duckdb(output, truth):
    duckdb = pytest.importorskip("duckdb")
    for config, split, records in all_parts(truth):
        rows = duckdb.sql(
            f"select image.bytes, label, img_id from read_parquet('{output}/{config}/{split}-*.parquet')"
        ).fetchall()
        assert [row[0] for row in rows] == [record.image for record in records]
        assert [row[1] for row in rows] == expected_labels(config, records)
        assert [row[2] for row in rows] == [record.img_id for record in records]


def test_datasets_decodes_images_and_names_labels(output, truth, label_names, tmp_path):
    datasets = pytest.importorskip("datasets")
    for config in CONFIGS:
        files = {split: [str(path) for path in paths(output, config, split)] for split in SPLITS}
        loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))
        assert set(loaded) == set(SPLITS)
        for split in SPLITS:
            records, rows = truth[config, split], loaded[split]
            label = rows.features["label"]
            assert (label.feature if config == "multi-label" else label).names == label_names[config]
            assert rows["label"][:] == expected_labels(config, records)
            raw = rows.cast_column("image", datasets.Image(decode=False))
            assert [image["bytes"] for image in raw["image"]] == [record.image for record in records]
            for row, record in zip(rows, records, strict=True):
                assert row["image"].size == (record.width, record.height)
                with Image.open(io.BytesIO(record.image)) as original:
                    assert row["image"].tobytes() == original.tobytes()


def test_the_storage_is_what_readers_want(output):
    for path in output.rglob("*.parquet"):
        metadata = pq.read_metadata(path)
        for group in range(metadata.num_row_groups):
            columns = metadata.row_group(group)
            for number in range(columns.num_columns):
                column = columns.column(number)
                assert column.has_offset_index
                if column.path_in_schema == "image.bytes":
                    assert column.compression == "UNCOMPRESSED"
                    assert "PLAIN" in column.encodings
                    assert not {"PLAIN_DICTIONARY", "RLE_DICTIONARY"} & set(column.encodings)
                    assert column.statistics is None
                else:
                    assert column.compression == "SNAPPY"
                    assert column.has_column_index


def test_page_checksums_are_there(output):
    path = paths(output, "6_basic_emo", "train")[0]
    data = bytearray(path.read_bytes())
    with pq.ParquetFile(path) as file:
        image = next(
            file.metadata.row_group(0).column(number)
            for number in range(file.metadata.row_group(0).num_columns)
            if file.metadata.row_group(0).column(number).path_in_schema == "image.bytes"
        )
    data[image.data_page_offset + image.total_compressed_size // 2] ^= 1
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(io.BytesIO(bytes(data)), page_checksum_verification=True)


def test_row_groups_are_bounded_by_rows_and_bytes(sample, tmp_path, monkeypatch, truth):
    records = truth["multi-label", "train"]
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 10)
    convert(sample, to="parquet", out=tmp_path / "rows", configs=["multi-label"], splits=["train"])
    path = tmp_path / "rows" / "multi-label" / "train-00000-of-00001.parquet"
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert sizes == [10] * (len(records) // 10) + [len(records) % 10] * bool(len(records) % 10)

    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 8192)
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 9_000)
    convert(sample, to="parquet", out=tmp_path / "bytes", configs=["multi-label"], splits=["train"])
    with pq.ParquetFile(tmp_path / "bytes" / "multi-label" / "train-00000-of-00001.parquet") as file:
        groups = [file.read_row_group(group)["image"].to_pylist() for group in range(file.num_row_groups)]
    assert [image["bytes"] for group in groups for image in group] == [record.image for record in records]
    assert all(len(group) == 1 or sum(len(image["bytes"]) for image in group) <= 9_000 for group in groups)
    assert len(groups) < len(records)


def test_without_labels_there_are_no_identities_and_paths_are_numbers(sample, tmp_path, truth):
    convert(sample, to="parquet", out=tmp_path / "out", configs=["22_emo"], splits=["valid"])
    table = pq.read_table(tmp_path / "out" / "22_emo" / "valid-00000-of-00001.parquet", partitioning=None)
    assert table.column_names == ["image", "label", "label_vector", "height", "width", "depth"]
    names = [image["path"] for image in table["image"].to_pylist()]
    assert names == [f"valid_{number:08}.jpg" for number in range(len(truth["22_emo", "valid"]))]


def test_the_same_records_as_tensorflow_s_protobuf_reads(sample, truth):
    """The hand parser that all this is compared with is itself right."""
    example_pb2 = pytest.importorskip("google.protobuf.descriptor_pool")
    from google.protobuf import descriptor_pb2, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="example_of_test.proto", package="of_test", syntax="proto3"
    )

    def message(name, *fields, oneof=None):
        declared = file.message_type.add(name=name)
        if oneof:
            declared.oneof_decl.add(name=oneof)
        for number, (field, kind, repeated) in enumerate(fields, 1):
            options = (
                {"type_name": f".of_test.{kind}", "type": 11} if isinstance(kind, str) else {"type": kind}
            )
            entry = declared.field.add(name=field, number=number, label=3 if repeated else 1, **options)
            if oneof:
                entry.oneof_index = 0

    message("BytesList", ("value", 12, True))
    message("FloatList", ("value", 2, True))
    message("Int64List", ("value", 3, True))
    kinds = (
        ("bytes_list", "BytesList", False),
        ("float_list", "FloatList", False),
        ("int64_list", "Int64List", False),
    )
    message("Feature", *kinds, oneof="kind")
    message("Entry", ("key", 9, False), ("value", "Feature", False))
    message("Features", ("feature", "Entry", True))
    message("Example", ("features", "Features", False))
    pool = example_pb2.DescriptorPool()
    pool.Add(file)
    example = message_factory.GetMessageClass(pool.FindMessageTypeByName("of_test.Example"))

    from conftest import read_frames

    path = tfrecords(sample, "multi-label", "valid")
    for data, record in zip(read_frames(path), read_records(path), strict=True):
        entries = {entry.key: entry.value for entry in example.FromString(data).features.feature}
        assert entries["image_raw"].bytes_list.value[0] == record.image
        assert tuple(entries["label"].int64_list.value) == record.label
        assert entries["height"].int64_list.value[0] == record.height


def test_large_images_are_read_back_a_few_at_a_time(source, tmp_path):
    """Memory is bounded by a batch, so that must be bounded in bytes too."""
    drop_published(source)
    path = tfrecords(source, "22_emo", "test")
    record = read_records(path)[0]
    large = replace(record, image=record.image[:-2] + bytes(300_000) + record.image[-2:])
    write_records(path, [record] * 50 + [large] * 100)
    convert(source, to="parquet", out=tmp_path / "out", configs=["22_emo"], splits=["test"])
    split = next(split for split in load_description(source).splits() if split.title == "22_emo/test")
    batches = [batch.column("image") for batch in ParquetFormat().read(tmp_path / "out", split)]
    assert sum(map(len, batches)) == 150
    assert max(batch.nbytes for batch in batches) < 16 << 20
