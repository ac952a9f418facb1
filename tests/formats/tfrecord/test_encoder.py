"""Records as Examples: what is encoded is what protobuf serializes, and what comes back is what was encoded."""

import io

import numpy as np
import pyarrow as pa
import pytest
from helpers.examples import fields, to_varint
from hypothesis import given
from hypothesis import strategies as st

from converters.dataset.leaves import record_leaves
from converters.dataset.schema import Column, Schema
from converters.formats.tfrecord.columns import ColumnReader
from converters.formats.tfrecord.encoder import ExampleEncoder, encode_example, feature_schema, varints
from converters.formats.tfrecord.framing import footer, frame, header, masked_crc, read_frames

int64 = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    pa.int64(): int64,
    pa.uint8(): st.integers(0, 255),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.float32(): st.floats(width=32),
    pa.binary(): st.binary(max_size=200),
    pa.string(): st.text(max_size=50),
}


@st.composite
def batches(draw):
    """A schema of any columns, and a batch of some records, which may be a slice of a larger one."""
    names = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=5, unique=True))
    rows = draw(st.integers(0, 6))
    columns, arrays = [], []
    for name in names:
        base = draw(st.sampled_from(list(VALUES)))
        size = draw(st.sampled_from([None, 1, 2, 3]))
        kind = base if size == 1 else pa.list_(base) if size is None else pa.list_(base, size)
        nullable = draw(st.booleans())
        value = VALUES[base]
        if size != 1:
            value = st.lists(value, min_size=size or 0, max_size=size or 40)
        values = draw(
            st.lists(st.one_of(st.none(), value) if nullable else value, min_size=rows, max_size=rows)
        )
        feature = draw(st.sampled_from([name, f"{name}/of the Example", None]))
        columns.append(Column(name, kind, feature=feature, nullable=nullable))
        arrays.append(pa.array(values, kind))
    try:
        schema = Schema(tuple(columns))
        feature_schema(schema)
    except ValueError:
        schema = Schema(tuple(Column(c.name, c.type, nullable=c.nullable, feature=c.name) for c in columns))
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema.arrow)
    return schema, batch.slice(draw(st.integers(0, rows)))


def encoded(schema, batch) -> list[bytes]:
    return list(ExampleEncoder(schema).encode(batch))


@given(batches())
def test_what_is_encoded_is_read_back_bit_for_bit(made):
    schema, batch = made
    examples = encoded(schema, batch)
    assert len(examples) == len(batch)
    reader = ColumnReader(feature_schema(schema))
    found = [
        leaf
        for frames in read_frames(io.BytesIO(b"".join(map(frame, examples))), "here")
        for leaf in record_leaves(reader.read(frames), schema)
    ]
    assert found == record_leaves(batch, schema)


@given(batches())
def test_it_is_what_protobuf_serializes(tf, made):
    schema, batch = made
    for data, row in zip(encoded(schema, batch), batch.to_pylist(), strict=True):
        features = {}
        for column in schema:
            value = row[column.name]
            if value is None:
                continue
            values = value if isinstance(value, list) else [value]
            if pa.types.is_floating(column.value_type):
                feature = tf.train.Feature(float_list=tf.train.FloatList(value=values))
            elif pa.types.is_integer(column.value_type):
                feature = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
            else:
                texts = [text.encode() if isinstance(text, str) else text for text in values]
                feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
            features[column.feature or column.name] = feature
        example = tf.train.Example(features=tf.train.Features(feature=features))
        if not any(np.isnan(value) for value in floats(batch)):
            assert example == tf.train.Example.FromString(data)
        # Python's protobuf puts a name behind longer ones that begin with it; so the entries are put in order here.
        entries = sorted((dict(fields(entry))[1], entry) for entry in entries_of(example.SerializeToString()))
        assert entries == [(dict(fields(entry))[1], entry) for entry in entries_of(data)]
        assert len(data) == len(example.SerializeToString())


def entries_of(data: bytes) -> list[bytes]:
    ((number, content),) = fields(data)
    assert number == 1
    return [entry for _, entry in fields(content)]


def floats(batch) -> list[float]:
    found = []
    for column in batch.columns:
        for value in column.to_pylist():
            values = value if isinstance(value, list) else [value]
            found += [number for number in values if isinstance(number, float)]
    return found


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@given(st.lists(int64, max_size=50))
def test_many_varints_are_those_of_each(values):
    data, sizes = varints(np.array(values, np.int64))
    assert data.tobytes() == b"".join(map(to_varint, values))
    assert sizes.tolist() == [len(to_varint(value)) for value in values]


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.binary(max_size=300), st.lists(int64, max_size=30))))
def test_one_example_is_what_a_batch_of_one_is(features):
    features = dict(sorted(features.items(), key=lambda item: item[0].encode()))
    columns, arrays = [], []
    for number, (name, value) in enumerate(features.items()):
        kind = pa.binary() if isinstance(value, bytes) else pa.list_(pa.int64())
        columns.append(Column(f"column {number}", kind, feature=name or None))
        arrays.append(pa.array([value], kind))
    if not columns or "" in features:
        return
    schema = Schema(tuple(columns))
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema.arrow)
    assert encoded(schema, batch) == [encode_example(features)]


def test_features_stand_in_the_order_of_their_bytes():
    names = ["b", "a", "ab", "Z", "é", "image/x", "image"]
    schema = Schema(tuple(Column(name, pa.int64(), feature=name) for name in names))
    batch = pa.RecordBatch.from_pylist([dict.fromkeys(names, 1)], schema=schema.arrow)
    [data] = encoded(schema, batch)
    found = [dict(fields(entry))[1].decode() for entry in entries_of(data)]
    assert found == sorted(names, key=str.encode)


def test_two_columns_of_one_feature_are_an_error():
    schema = Schema((Column("img_id", pa.string()), Column("other", pa.string(), feature="img_id")))
    with pytest.raises(ValueError, match="img_id"):
        ExampleEncoder(schema)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 70_000])
def test_a_frame_is_its_parts(size):
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    assert frame(data) == header(size) + data + footer(data)
    assert footer(data) == masked_crc(data).to_bytes(4, "little")
