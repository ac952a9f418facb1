"""Whatever TensorFlow writes converts with no description, and every value is what TensorFlow reads."""

import json
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from example_maker import BYTES, FLOATS, INTEGERS, BatchMaker, varint
from helpers.examples import write_frames
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters import convert

CONFIGS = 20
# fmt: off
NAMES = st.sampled_from(
    ["label", "image", "image/encoded", "image/class/label", "image/class/text", "image/object/class/label", "height",
     "width", "image/filename", "id", "label_vector", "label_id", "image.path", "a b", "얼굴", "x/y", 'q"', "class"]
) | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp", "Zs"]), min_size=1, max_size=8)
# fmt: on
VALUES = {
    "bytes_list": st.binary(max_size=12)
    | st.text(max_size=6).map(str.encode)
    | st.sampled_from([b"BM", b"\xff\xd8\xff"]),
    "int64_list": st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 3),
    "float_list": st.floats(width=32),
}


@st.composite
def records_of_a_schema(draw):
    """Some records, each with the kind and the values of every feature it has; an empty kind is none."""
    features = draw(st.dictionaries(NAMES, st.sampled_from(sorted(VALUES)), min_size=1, max_size=6))
    sizes = {name: draw(st.sampled_from([(1, 1), (0, 0), (3, 3), (0, 3)])) for name in features}
    always = {name: draw(st.booleans()) for name in features}
    records = []
    for _ in range(draw(st.integers(1, 6))):
        record = {}
        for name, kind in features.items():
            least, most = sizes[name]
            there = "yes" if always[name] else draw(st.sampled_from(["yes", "no", "kindless"]))
            if there == "yes":
                record[name] = kind, draw(st.lists(VALUES[kind], min_size=least, max_size=most))
            elif there == "kindless":
                record[name] = "", []
        records.append(record)
    kind = features[next(iter(features))]
    records.append(
        {name: (kind, draw(st.lists(VALUES[kind], min_size=1, max_size=1))) for name in list(features)[:1]}
    )
    return records


def example(tf, record):
    message = tf.train.Example()
    for name, (kind, values) in record.items():
        feature = message.features.feature[name]
        if kind:
            getattr(feature, kind).SetInParent()
            getattr(feature, kind).value.extend(values)
    return message.SerializeToString()


def read_by_tensorflow(tf, path):
    """The values of each record by feature: what a list of bytes tells apart; None where there is none."""
    found = []
    for data in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        message = tf.train.Example.FromString(data)
        record = {}
        for name, feature in message.features.feature.items():
            kind = feature.WhichOneof("kind")
            if kind is not None:
                record[name] = [as_bytes(value) for value in getattr(feature, kind).value]
        found.append(record)
    return found


def as_bytes(value):
    if isinstance(value, dict):
        value = value["bytes"]
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, float):
        return struct.pack("<f", value)
    return value if isinstance(value, bytes) else struct.pack("<q", value)


@settings(max_examples=5, suppress_health_check=list(HealthCheck), deadline=None)
@given(schemas=st.lists(records_of_a_schema(), min_size=CONFIGS, max_size=CONFIGS))
def test_every_value_is_what_tensorflow_reads(tf, tmp_path_factory, schemas):
    folder = tmp_path_factory.mktemp("random")
    (folder / "in").mkdir()
    for number, records in enumerate(schemas):
        with tf.io.TFRecordWriter(str(folder / "in" / f"{number}.tfrecord")) as writer:
            for record in records:
                writer.write(example(tf, record))
    splits = {
        f"c{number}": {"splits": {"train": {"file": f"{number}.tfrecord"}}} for number in range(len(schemas))
    }
    (folder / "in" / "dataset.json").write_text(json.dumps({"configs": splits}))
    report = convert(folder / "in", to="parquet", out=folder / "out")
    for number, split in enumerate(report.splits):
        table = pq.read_table(
            folder / "out" / f"c{number}" / "train-00000-of-00001.parquet", partitioning=None
        )
        expected = read_by_tensorflow(tf, folder / "in" / f"{number}.tfrecord")
        features = {column.feature: column for column in split.split.schema.stored}
        assert set(features) == {name for record in expected for name in record}
        for name, column in features.items():
            values = table[column.name].to_pylist()
            single = not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type))
            stored = [
                None if value is None else list(map(as_bytes, [value] if single else value))
                for value in values
            ]
            assert stored == [record.get(name) for record in expected], name


@pytest.mark.parametrize("count", [3, 60])
def test_examples_that_no_known_writer_writes(tf, tmp_path, count):
    """Fields in any order, in pieces or absent, numbers packed or not, padded lengths: converted, and proven."""
    maker = BatchMaker(count)
    records = []
    for row in range(count):
        features = {
            "image": (BYTES, [b"\xff\xd8" + bytes([row])]),
            "label": (INTEGERS, [varint(row % 3)]),
            "numbers": (INTEGERS, [varint(row * 1000 - 7), varint(5)]),
            "floats": (FLOATS, [struct.pack("<f", row / 7)] * (row % 4)),
            "texts": (BYTES, [b"a" * row, b"", b"b"][: row % 4]),
            "maybe": (INTEGERS, [varint(row)]) if row % 2 else None,
        }
        records.append(maker.loose_example(features))
    write_frames(tmp_path / "in.tfrecord", records, index=False)
    convert(tmp_path / "in.tfrecord", to="parquet", out=tmp_path / "out")
    table = pq.read_table(next((tmp_path / "out").rglob("*.parquet")), partitioning=None).to_pylist()
    expected = read_by_tensorflow(tf, tmp_path / "in.tfrecord")
    assert len(table) == count
    for row, record in zip(table, expected, strict=True):
        single = {name: row[name] if isinstance(row[name], list) else [row[name]] for name in record}
        assert {name: list(map(as_bytes, values)) for name, values in single.items()} == record
