"""ArrayRecord files of Examples, for Grain and TensorFlow Datasets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from converters.dataset.description import Split
from converters.dataset.shard import Shard
from converters.errors import DataError, Location
from converters.formats.readme import example_split
from converters.formats.shard_files import file_errors
from converters.formats.tfrecord.columns import ColumnReader
from converters.formats.tfrecord.encoder import ExampleEncoder, feature_schema
from converters.formats.tfrecord.example_files import ExampleFiles
from converters.formats.tfrecord.fast_parser import RecordError
from converters.formats.tfrecord.framing import CHUNK_BYTES, Frames
from converters.formats.tfrecord.witnesses import confirm_output
from converters.plugins import import_extra
from converters.storage.hashing_reader import FileReader

if TYPE_CHECKING:
    from converters.dataset.report import Report

# One record a group, so that any record is read without others. Encoded images do not compress further.
_OPTIONS = "group_size:1,uncompressed"

_LOADING = """\
With this folder as working directory:

```python
from pathlib import Path

import grain
import tensorflow as tf

files = sorted(map(str, Path({config}).glob({files})))
dataset = grain.MapDataset.source(grain.sources.ArrayRecordDataSource(files)).map(
    lambda record: tf.train.Example.FromString(record).features.feature
)
```

`dataset.json` says what the features are."""


class ArrayRecordFormat(ExampleFiles):
    """ArrayRecord files of Examples, one per shard: <config>/<split>-00000-of-0000N.array_record.

    Every record is read without its neighbours, as Grain does. A dataset.json says what the features are.
    """

    name = "arrayrecord"
    suffix = ".array_record"

    def __init__(self) -> None:
        self._module = import_extra(
            "arrayrecord", "ArrayRecord files", "array_record.python.array_record_module"
        )

    def write(self, batches: Iterable[pa.RecordBatch], shard: Shard, folder: Path) -> list[Path]:
        """Write a shard's records to one file."""
        path = self.new_file(folder, shard)
        encoder = ExampleEncoder(shard.split.schema)
        writer = self._module.ArrayRecordWriter(str(path), _OPTIONS)
        try:
            for batch in batches:
                for example in encoder.encode(batch):
                    writer.write(example)
        finally:
            writer.close()
        return [path]

    def loading(self, report: Report) -> str:
        """How Grain reads the files of a split."""
        split = example_split(report)
        return _LOADING.format(
            config=json.dumps(split.config, ensure_ascii=False),
            files=json.dumps(f"{split.name}-*.array_record", ensure_ascii=False),
        )

    def read_file(self, files: FileReader, path: Path, split: Split, first: int) -> Iterator[pa.RecordBatch]:
        """Blocks whose hashes differ are an error."""
        columns = ColumnReader(feature_schema(split.schema))
        with file_errors("ArrayRecord", path, (RuntimeError, ValueError, IndexError, OSError)):
            # The library ends the process where it cannot open a file.
            with path.open("rb") as file:
                size = max(1, file.seek(0, 2))
            reader = self._module.ArrayRecordReader(str(path))
            try:
                if not reader.writer_options_string().startswith("group_size:1,"):
                    raise DataError(
                        "its records are in groups, which Grain does not read.", Location(str(path))
                    )
                records = reader.num_records()
                step = max(1, min(records, CHUNK_BYTES * records // size))
                for first in range(0, records, step):
                    examples = reader.read(first, min(records, first + step))
                    frames = _frames(examples, first)
                    batch = columns.read(frames)
                    confirm_output(frames, batch, split.schema)
                    yield batch
            except RecordError as error:
                raise DataError(error.message, Location(str(path), first + error.row)) from None
            finally:
                reader.close()


def _frames(examples: Sequence[bytes], first: int) -> Frames:
    """Records as the parser takes them; with some bytes behind the last one, so that it reads words there too."""
    sizes = np.fromiter(map(len, examples), np.int64, len(examples))
    return Frames(b"".join((*examples, bytes(16))), np.cumsum(sizes) - sizes, sizes, first, 0)
