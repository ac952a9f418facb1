"""Arrow IPC files, which ``datasets``, pyarrow, polars and DuckDB map into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from converters.dataset.description import Split
from converters.dataset.shard import Shard
from converters.errors import DataError, Location
from converters.formats.readme import refuse_names, write_readme, write_terms
from converters.formats.shard_files import data_files, new_shard_file, shard_files
from converters.formats.table import check_schema, compact, from_table, table_schema, tables

if TYPE_CHECKING:
    from converters.dataset.report import Report

# A record batch is what is read back, or sent to another process, at once; `datasets` writes 1,000 rows too.
BATCH_ROWS = 1000
BATCH_BYTES = 16 << 20

_SUFFIX = ".arrow"


class ArrowFormat:
    """Arrow IPC files, one per shard: <config>/<split>-00000-of-0000N.arrow, memory-mappable, images embedded."""

    name = "arrow"

    def refuse(self, splits: Sequence[Split]) -> None:
        """Refuse names that ``datasets`` would not take.

        Raises:
            CallError: with the split, and what to do.
        """
        refuse_names(splits, self.name)

    def write(self, batches: Iterable[pa.RecordBatch], shard: Shard, folder: Path) -> list[Path]:
        """Write a shard's records to one file."""
        path = new_shard_file(folder, shard, _SUFFIX)
        schema = table_schema(shard.split.schema)
        with path.open("xb") as file, pa.ipc.new_file(file, schema) as writer:
            for rows in tables(batches, shard, BATCH_ROWS, BATCH_BYTES):
                writer.write_table(compact(rows), BATCH_ROWS)
        return [path]

    def read(self, folder: Path, split: Split, first: int = 0) -> Iterator[pa.RecordBatch]:
        """Read back the records of a split, a record batch at a time; nothing is taken from a batch unchecked."""
        for path in shard_files(folder, split, _SUFFIX):
            for batch in _read_file(path, split, first):
                yield batch
                first += len(batch)

    def finish(self, report: Report, folder: Path) -> None:
        """Write the terms, and a README that tells `datasets` of configs and splits."""
        write_terms(report, folder)
        write_readme(report, folder, data_files(report, _SUFFIX))


def _read_file(path: Path, split: Split, first: int) -> Iterator[pa.RecordBatch]:
    try:
        with path.open("rb") as file:
            reader = pa.ipc.open_file(file)
            check_schema(reader.schema, split, path)
            for number in range(reader.num_record_batches):
                rows = reader.get_batch(number)
                rows.validate(full=True)
                yield from_table(rows, split, str(path), first)
                first += len(rows)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"the Arrow file cannot be read: {str(error).splitlines()[0]}.", Location(str(path))
        ) from error
