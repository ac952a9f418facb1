"""Witnesses: the leaf of a record by another way is the leaf that the fingerprint takes; other records have others."""

import numpy as np
import pyarrow as pa
import pytest
from helpers.examples import BYTES, FLOATS, INTEGERS, encode_features, field, framed, to_varint
from hypothesis import given
from hypothesis import strategies as st

from converters.dataset.leaves import record_leaves
from converters.dataset.schema import Column, Schema
from converters.errors import ConverterError
from converters.formats.tfrecord.columns import ColumnReader
from converters.formats.tfrecord.framing import Frames
from converters.formats.tfrecord.witnesses import Witnesses, joined_texts

SCHEMA = Schema(
    (
        Column("image", pa.binary(), "image", "image", nullable=True),
        Column("text", pa.string(), feature="text", nullable=True),
        Column("texts", pa.list_(pa.binary()), feature="texts", nullable=True),
        Column("number", pa.int64(), feature="number", nullable=True),
        Column("numbers", pa.list_(pa.int64()), feature="numbers", nullable=True),
        Column("floats", pa.list_(pa.float32()), feature="floats", nullable=True),
    )
)
INT64 = st.integers(-(2**63), 2**63 - 1)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "image": st.binary(max_size=300),
            "text": st.text().map(str.encode),
            "texts": st.lists(st.binary(max_size=5), min_size=1),
            "number": INT64.map(lambda value: [value]),
            "numbers": st.none() | st.lists(INT64, max_size=70),
            "floats": st.lists(st.floats(width=32), min_size=1),
        },
    ),
    min_size=1,
    max_size=60,
)


def frames_of(encoded, first=0):
    stored = b"".join(map(framed, encoded))
    sizes = np.array([len(data) for data in encoded], np.int64)
    return Frames(stored, np.cumsum(sizes + 16) - sizes - 4, sizes, first, 0)


def leaves_by_both(encoded, schema=SCHEMA, first=0):
    frames = frames_of(encoded, first)
    witnesses = Witnesses(schema, first)
    witnesses.take(frames)
    leaves = record_leaves(ColumnReader(schema).read(frames), schema)
    return witnesses.leaves, {record: leaves[record - first] for record in witnesses.leaves}


@given(RECORDS)
def test_they_are_the_leaves_of_the_fingerprint(records):
    ours, others = leaves_by_both([encode_features(record) for record in records], first=7)
    assert ours == others
    assert {7, 6 + len(records)} <= ours.keys()
    assert len(ours) == (len(records) if len(records) <= 32 else len(ours)) >= min(2, len(records))


def test_numbers_that_are_not_packed():
    integers = b"".join(b"\x08" + to_varint(value) for value in (1, -1, 2**40))
    floats = b"".join(b"\x0d" + np.float32(value).tobytes() for value in (0.5, float("nan")))
    features = {b"numbers": field(INTEGERS, integers), b"floats": field(FLOATS, floats)}
    entries = b"".join(field(1, field(1, name) + field(2, value)) for name, value in features.items())
    ours, others = leaves_by_both([field(1, entries)])
    assert ours == others
    assert len(ours) == 1


def test_whatever_protobuf_reads():
    """Features in any order, without a name or a value, in pieces, packed and not, with padded lengths."""
    mixed = field(1, to_varint(1) + b"\x82\x00") + b"\x08\x03" + field(1, to_varint(-4))
    texts = field(2, field(BYTES, field(1, b"a"))) + field(2, field(BYTES, field(1, b"b")) * 2)
    entries = [
        field(1, field(2, field(INTEGERS, mixed)) + field(1, b"numbers")),
        field(1, field(1, b"texts") + texts),
        field(1, field(1, b"number")),
        field(1, field(2, field(BYTES, field(1, b"nameless")))),
    ]
    data = b"".join(field(1, entry) for entry in entries)
    size = len(entries[0])
    data = data.replace(b"\x0a" + to_varint(size), b"\x0a" + bytes([size | 0x80, 0x80, 0]), 1)
    schema = Schema((*SCHEMA, Column("nameless", pa.binary(), feature="")))
    ours, others = leaves_by_both([data] * 3, schema)
    assert ours == others
    assert len(ours) == 3


def test_records_of_very_many_integers_or_texts_are_none():
    long = [encode_features({"numbers": [1] * 8193}), encode_features({"texts": [b""] * 8193})]
    ours, others = leaves_by_both([*long, encode_features({"numbers": [1] * 8192})])
    assert list(ours) == [2]
    assert ours == others


def test_long_records_are_few():
    encoded = [encode_features({"image": bytes([number]) * (1 << 20)}) for number in range(30)]
    ours, others = leaves_by_both(encoded)
    assert ours == others
    assert 8 <= len(ours) <= 11  # 8 MiB, and a sixteenth of 30


def test_records_that_do_not_follow_each_other_are_refused():
    frames = frames_of([encode_features({"number": [number]}) for number in range(9)])
    frames.starts[[3, 4]] = frames.starts[[4, 3]]
    with pytest.raises(ConverterError, match="one after the other"):
        Witnesses(SCHEMA, 0).take(frames)


def test_joined_texts_are_those_of_the_rows_that_are_left(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(b'img_id,clip_id,a\r\n1,x,0\r\n2,"y, z",1\r\n3,x,0\r\n4,w,1\r\n')
    texts = joined_texts(path, 2, [(0, 1), (2, 1)])
    assert [texts(0), texts(1)] == [["2", "y, z"], ["4", "w"]]
    schema = Schema((SCHEMA["number"], Column("img_id", pa.string()), Column("clip_id", pa.string())))
    witnesses = Witnesses(schema, 0, texts)
    witnesses.take(frames_of([encode_features({"number": [5]})]))
    batch = pa.RecordBatch.from_pylist([{"number": 5, "img_id": "2", "clip_id": "y, z"}], schema=schema.arrow)
    assert witnesses.leaves == {0: record_leaves(batch, schema)[0]}
