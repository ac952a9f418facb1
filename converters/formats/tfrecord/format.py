"""TFRecord files as an output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from converters.dataset.description import Split
from converters.dataset.shard import Shard
from converters.errors import ConverterError
from converters.formats.tfrecord.columns import ColumnReader
from converters.formats.tfrecord.encoder import ExampleEncoder, feature_schema
from converters.formats.tfrecord.example_files import ExampleFiles, tensorflow_loading
from converters.formats.tfrecord.framing import frame
from converters.formats.tfrecord.reader import RangeReader, SourceRange, read_columns
from converters.formats.tfrecord.witnesses import confirm_output
from converters.formats.tfrecord.writer import TFRecordWriter
from converters.storage.hashing_reader import FileReader

if TYPE_CHECKING:
    from converters.dataset.report import Report

# As TensorFlow writes it. What is wrong with the framing of an output is wrong in the same way when it is read back.
_EMPTY_RECORD = bytes.fromhex("0000000000000000 29039807 d8ea82a2")


class TFRecordFormat(ExampleFiles):
    """TFRecord files of Examples, one per shard: <config>/<split>-00000-of-0000N.tfrecord, and a dataset.json.

    Features stand in the order of their names, and the files are not compressed. A source that is written so comes
    back byte for byte.

    Args:
        index: write NVIDIA DALI's index of each file too: <config>/<split>-00000-of-0000N.idx.
    """

    name = "tfrecord"
    suffix = ".tfrecord"

    def __init__(self, *, index: bool = False) -> None:
        self.index = index

    def places(self, shard: Shard) -> list[str]:
        """The file, and its index where there is one."""
        (path,) = super().places(shard)
        return [path, path.removesuffix(self.suffix) + ".idx"] if self.index else [path]

    def write(self, batches: Iterable[pa.RecordBatch], shard: Shard, folder: Path) -> list[Path]:
        """Write a shard's records to one file."""
        if frame(b"") != _EMPTY_RECORD:
            raise ConverterError("the framing of a known record is wrong: a fault of kfer-convert.")
        path = self.new_file(folder, shard)
        index = path.with_suffix(".idx") if self.index else None
        encoder = ExampleEncoder(shard.split.schema)
        with TFRecordWriter(path, index) as writer:
            for batch in batches:
                for example in encoder.encode(batch):
                    writer.write(example)
        return [path] if index is None else [path, index]

    def read_file(self, files: FileReader, path: Path, split: Split, first: int) -> Iterator[pa.RecordBatch]:
        """As strictly as the records of a source are read."""
        size = path.stat().st_size
        if not size:
            return  # all records of the shard were quarantined
        columns = ColumnReader(feature_schema(split.schema))
        index = path.with_suffix(".idx") if self.index else None
        # A record may be as long as its file: nothing is allocated for a length beyond the end.
        reader = RangeReader(SourceRange(path, 0, size, 0, index=index), max(1, size))
        for frames in reader.frames():
            batch = read_columns(columns, str(path), frames)
            confirm_output(frames, batch, split.schema)
            yield batch
        files.seen(path, size, reader.sha256)

    def loading(self, report: Report) -> str:
        """How TensorFlow reads the files of a split."""
        return tensorflow_loading(report)
