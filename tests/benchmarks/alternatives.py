"""What else turns TFRecords into Parquet, each as its documentation or its users write it; nothing is read back.

    python tests/benchmarks/alternatives.py tensorflow SHAPE SOURCE OUT

Each function writes the files of the folder ``source`` to the folder ``out``; ``columns`` are those of the shape.
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from shapes import SHAPES

Columns = Mapping[str, str]


def tfrecord(source: Path, out: Path, columns: Columns) -> None:
    """The loop of the PyPI package `tfrecord`: no checksum is checked."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tfrecord.reader import tfrecord_loader

    kinds = {"b": "byte", "s": "byte", "i": "int", "f": "float"}
    form = {name: kinds[type_[0]] for name, type_ in columns.items()}

    def plain(value, type_):
        values = [bytes(value)] if isinstance(value, bytes) else value.tolist()
        return values if type_.endswith("[]") else values[0]

    for path in sorted(source.glob("*.tfrecords")):
        records = tfrecord_loader(str(path), None, form)
        rows = [{name: plain(row[name], type_) for name, type_ in columns.items()} for row in records]
        pq.write_table(pa.Table.from_pylist(rows), out / f"{path.stem}.parquet")


def _form(columns: Columns) -> dict:
    """What TensorFlow's parsers are told."""
    import tensorflow as tf

    types = {"b": tf.string, "s": tf.string, "i": tf.int64, "f": tf.float32}
    return {
        name: tf.io.RaggedFeature(types[type_[0]], row_splits_dtype=tf.int64)
        if type_.endswith("[]")
        else tf.io.FixedLenFeature([], types[type_[0]])
        for name, type_ in columns.items()
    }


def tensorflow(source: Path, out: Path, columns: Columns) -> None:
    """Batched TensorFlow, the fastest that it is likely to be written."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import tensorflow as tf

    form = _form(columns)

    def array(value):
        if isinstance(value, tf.RaggedTensor):
            splits = value.row_splits.numpy().astype("int32")
            return pa.ListArray.from_arrays(splits, array(value.flat_values))
        return pa.array(value.numpy())

    for path in sorted(source.glob("*.tfrecords")):
        batches = tf.data.TFRecordDataset(str(path)).batch(1024)
        parsed = batches.map(lambda batch: tf.io.parse_example(batch, form), tf.data.AUTOTUNE)
        tables = [pa.table({name: array(value) for name, value in batch.items()}) for batch in parsed]
        pq.write_table(pa.concat_tables(tables), out / f"{path.stem}.parquet")


def generator(source: Path, out: Path, columns: Columns) -> None:
    """The way that `datasets` documents for data of any kind, over records that TensorFlow parses in its threads."""
    import tensorflow as tf
    from datasets import Dataset, Features, List, Value

    form = _form(columns)
    types = {
        name: Value(type_.removesuffix("[]").replace("string", "binary")) for name, type_ in columns.items()
    }
    lists = {name: List(types[name]) for name, type_ in columns.items() if type_.endswith("[]")}
    features = Features(types | lists)

    def rows(path):
        records = tf.data.TFRecordDataset(path)
        yield from records.map(lambda record: tf.io.parse_single_example(record, form)).as_numpy_iterator()

    for path in sorted(source.glob("*.tfrecords")):
        data = Dataset.from_generator(
            rows, features=features, gen_kwargs={"path": str(path)}, cache_dir=str(out / "cache")
        )
        data.to_parquet(out / f"{path.stem}.parquet")


def ray(source: Path, out: Path, columns: Columns) -> None:
    """Ray Data, on a Ray of its own; ``columns`` are found by Ray."""
    import ray

    files = [str(path) for path in sorted(source.glob("*.tfrecords"))]
    # Sockets stand in Ray's folder, so its path must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as logs:
        ray.init(num_cpus=os.cpu_count(), include_dashboard=False, logging_level="error", _temp_dir=logs)
        try:
            ray.data.read_tfrecords(files).write_parquet(str(out))
        finally:
            ray.shutdown()


if __name__ == "__main__":
    program, shape, source, out = sys.argv[1:]
    Path(out).mkdir()
    {"tfrecord": tfrecord, "tensorflow": tensorflow, "generator": generator, "ray": ray}[program](
        Path(source), Path(out), SHAPES[shape].columns
    )
