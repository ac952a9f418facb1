"""Datasets of random schemas, written by TensorFlow: every value of every record is in the Parquet output."""

import json
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
from helpers.examples import field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from converters import convert, verify

INTEGERS = {
    "int8": (-128, 127), "uint8": (0, 255), "int16": (-(2**15), 2**15 - 1), "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1), "int64": (-(2**63), 2**63 - 1),
}  # fmt: skip
# Names that mean something to formats, to Parquet or to this package.
ODD_NAMES = ["image", "label", "img_id", "clip_id", "file_name", "height", "path", "a.b", "c.list.element",
             "image.bytes", "감정", "e\u0301", "with space", "-x", '"', "__index_level_0__",
             "label_vector"]  # fmt: skip
LABELS = ["no", "perhaps", "yes"]


def encoded(encoding: str, size: tuple[int, int]) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, (9, 90, 200)).save(file, encoding)
    return file.getvalue()


IMAGES = {encoded(encoding, size): size for encoding in ("JPEG", "PNG", "GIF") for size in ((3, 5), (40, 2))}


@dataclass(frozen=True)
class Made:
    """A column: its entry in the description, its feature, and of each record the values, or why there are none.

    Floats are given by their bits.
    """

    name: str
    feature: str
    stated: dict
    values: list[list | None]
    absent: list[bool]

    @property
    def base(self) -> str:
        return self.stated["type"].partition("[")[0]

    @property
    def single(self) -> bool:
        return not self.stated["type"].endswith("]")


def one_of(base: str) -> st.SearchStrategy:
    if base == "float32":
        return st.integers(0, 2**32 - 1) | st.sampled_from([0x7FC00001, 0xFF800001, 0x80000000])
    if base == "string":
        return st.text(max_size=5)
    if base == "binary":
        return st.binary(max_size=5) | st.binary(min_size=70, max_size=80)
    return st.integers(*INTEGERS[base])


@st.composite
def columns(draw, name: str, rows: int) -> Made:
    role = (
        draw(st.sampled_from([None, None, None, "image", "label"]))
        if name == "image" or draw(st.booleans())
        else None
    )
    stated: dict = {}
    if role == "image":
        base, size, single = "binary", 1, st.sampled_from([*IMAGES])
    elif role == "label":
        base, single = "int64", st.integers(-1, 2)
        size = draw(st.sampled_from([1, None]))
        if draw(st.booleans()):
            stated["label_names"] = LABELS
    else:
        base = draw(st.sampled_from([*INTEGERS, "float32", "float32", "string", "binary", "binary"]))
        single = one_of(base)
        size = draw(st.sampled_from([1, 1, None, 2, 5]))
    if role is not None:
        stated["role"] = role
    stated["type"] = base + ("" if size == 1 else "[]" if size is None else f"[{size}]")
    stated["nullable"] = nullable = draw(st.booleans())
    gap = st.sampled_from([False, False, True]) if nullable else st.just(False)
    values = [
        None if draw(gap) else draw(st.lists(single, min_size=size or 0, max_size=size or 4))
        for _ in range(rows)
    ]
    feature = draw(st.sampled_from([name, f"feature/{name}"]))
    return Made(name, feature, stated, values, [draw(st.booleans()) for _ in range(rows)])


@st.composite
def datasets(draw) -> tuple[list[Made], list[int]]:
    """Columns, and how many records each file has."""
    files = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    names = draw(st.lists(st.sampled_from([*ODD_NAMES, *"abcdef"]), min_size=1, max_size=7, unique=True))
    made = [draw(columns(name, sum(files))) for name in names]
    labelled = [column for column in made if column.stated.get("role") == "label"]
    for column in labelled[1:]:  # only one column can be the label
        del column.stated["role"]
        column.stated.pop("label_names", None)
    return made, files


def fill(feature, column: Made, row: int) -> None:
    """Give a ``tf.train.Feature`` the values of a record."""
    values = column.values[row]
    if values is None:
        feature.SetInParent()  # it stands there without a kind
    elif column.base == "float32":
        # By the bits: a Python float would not keep a NaN's payload.
        feature.float_list.MergeFromString(field(1, struct.pack(f"<{len(values)}I", *values)))
    elif column.base in ("string", "binary"):
        feature.bytes_list.SetInParent()
        feature.bytes_list.value.extend(
            value.encode() if isinstance(value, str) else value for value in values
        )
    else:
        feature.int64_list.SetInParent()
        feature.int64_list.value.extend(values)


def write(tf, folder: Path, made: list[Made], files: list[int], compression: str) -> None:
    record = 0
    for number, records in enumerate(files):
        path = folder / f"part-{number}.tfrecords"
        with tf.io.TFRecordWriter(str(path), compression) as writer:
            for row in range(record, record + records):
                message = tf.train.Example()
                for column in made:
                    if column.values[row] is not None or not column.absent[row]:
                        fill(message.features.feature[column.feature], column, row)
                writer.write(message.SerializeToString())
        record += records
    document = {
        "columns": {column.name: {"feature": column.feature} | column.stated for column in made},
        "configs": {"c": {"splits": {"train": {"file": "part-*.tfrecords"}}}},
    }
    (folder / "dataset.json").write_text(json.dumps(document))


def values_of(column: Made, found: pa.ChunkedArray) -> list[list | None]:
    """The values of each record of a column as pyarrow reads it, floats by their bits."""
    array = found.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    if column.stated.get("role") == "image":
        array = pa.StructArray.field(array, "bytes")
    if column.base == "float32":
        bits = array if column.single else array.flatten()
        flat = bits.view(pa.uint32()).to_pylist()
        if not column.single:
            sizes = [None if row is None else len(row) for row in array.to_pylist()]
            places = iter(flat)
            return [None if size is None else [next(places) for _ in range(size)] for size in sizes]
        return [None if value is None else [value] for value in flat]
    rows = array.to_pylist()
    return [None if row is None else [row] for row in rows] if column.single else rows


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    dataset=datasets(),
    compression=st.sampled_from(["", "", "GZIP", "ZLIB"]),
    max_shard_bytes=st.sampled_from([1, 200, 10**9]),
)
def test_every_value_of_a_random_dataset_is_in_the_parquet_output(tf, dataset, compression, max_shard_bytes):
    made, files = dataset
    with TemporaryDirectory() as name:
        source, out = Path(name) / "source", Path(name) / "out"
        source.mkdir()
        write(tf, source, made, files, compression)
        report = convert(source, to="parquet", out=out, max_shard_bytes=max_shard_bytes)
        assert report.records == sum(files)
        table = pa.concat_tables(
            [pq.read_table(path) for path in sorted((out / "c").glob("train-*.parquet"))]
        )
        assert set(table.column_names) >= {column.name for column in made}
        for column in made:
            assert values_of(column, table.column(column.name)) == column.values, column.name
        assert verify(out, source=source).failures() == []
