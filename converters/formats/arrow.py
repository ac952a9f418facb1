"""Arrow IPC files, which ``datasets``, pyarrow, polars and DuckDB map into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from converters.dataset.description import Split
from converters.dataset.shard import Shard
from converters.errors import DataError, Location
from converters.formats.shard_files import ShardFiles, file_errors
from converters.formats.table import check_schema, compact, from_table, table_schema, tables
from converters.storage.hashing_reader import FileReader

# A record batch is what is read back, or sent to another process, at once; `datasets` writes 1,000 rows too.
BATCH_ROWS = 1000
BATCH_BYTES = 16 << 20

_MAGIC = b"ARROW1\0\0"  # where a stream stands instead, `datasets` reads that and not the file


class ArrowFormat(ShardFiles):
    """Arrow IPC files, one per shard: <config>/<split>-00000-of-0000N.arrow, memory-mappable, images embedded."""

    name = "arrow"
    suffix = ".arrow"

    def write(self, batches: Iterable[pa.RecordBatch], shard: Shard, folder: Path) -> list[Path]:
        """Write a shard's records to one file."""
        path = self.new_file(folder, shard)
        schema = table_schema(shard.split.schema)
        with path.open("xb") as file, pa.ipc.new_file(file, schema) as writer:
            for rows in tables(batches, shard, BATCH_ROWS, BATCH_BYTES):
                writer.write_table(compact(rows), BATCH_ROWS)
        return [path]

    def read_file(self, files: FileReader, path: Path, split: Split, first: int) -> Iterator[pa.RecordBatch]:
        """A record batch at a time; nothing is taken from a batch unchecked."""
        with file_errors("Arrow", path, (pa.ArrowException, OSError)), files.open(path) as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise DataError("the file does not begin as an Arrow file does.", Location(str(path)))
            reader = pa.ipc.open_file(file)
            check_schema(reader.schema, split, path)
            for number in range(reader.num_record_batches):
                rows = reader.get_batch(number)
                rows.validate(full=True)
                yield from_table(rows, split, str(path), first)
                first += len(rows)
