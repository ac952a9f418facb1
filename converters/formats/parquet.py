"""Parquet files that ``datasets``, pandas, polars and DuckDB read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from converters.dataset.description import Split
from converters.dataset.filenames import MAX_NAME_BYTES
from converters.dataset.shard import Shard
from converters.errors import CallError, DataError, Location
from converters.formats.croissant import write_croissant
from converters.formats.shard_files import ShardFiles, file_errors
from converters.formats.table import check_schema, from_table, table_schema, tables
from converters.storage.hashing_reader import FileReader

if TYPE_CHECKING:
    from converters.dataset.report import Report

# A row group is what readers fetch at once: 5,000 to 20,000 rows of 2-3 kB images, and never near the 286 MiB
# that the Hub's viewer refuses.
ROW_GROUP_ROWS = 8192
ROW_GROUP_BYTES = 64 << 20

# Read back at once: so many rows, fewer where the images are large.
_READ_ROWS = 2048
_READ_IMAGE_BYTES = 8 << 20
_READ_BYTES = 1 << 16  # read at once, or a page; without it, a whole column of a row group is


class ParquetFormat(ShardFiles):
    """Parquet files, one per shard: <config>/<split>-00000-of-0000N.parquet, images embedded, labels named."""

    name = "parquet"
    suffix = ".parquet"

    def refuse(self, splits: Sequence[Split]) -> None:
        """Refuse names that ``datasets`` or a file system would not take.

        Raises:
            CallError: with the split, and what to do.
        """
        super().refuse(splits)
        for split in splits:
            longest = f"{self.split_name(split)}-{'0' * 8}-of-{'0' * 8}.parquet"
            if len(longest.encode()) > MAX_NAME_BYTES:
                raise CallError(
                    f"{split.title}: the split's name is too long for names of files. Rename it in dataset.json."
                )

    def write(self, batches: Iterable[pa.RecordBatch], shard: Shard, folder: Path) -> list[Path]:
        """Write a shard's records to one file."""
        path = self.new_file(folder, shard)
        path.touch(exist_ok=False)  # pyarrow's own file, which needs no lock of the interpreter, replaces any
        with pa.OSFile(str(path), "wb") as file, _writer(file, table_schema(shard.split.schema)) as writer:
            for rows in tables(batches, shard, ROW_GROUP_ROWS, ROW_GROUP_BYTES):
                writer.write_table(rows, row_group_size=len(rows))
                del rows  # or they would be held until the next ones are there
        return [path]

    def read_file(self, files: FileReader, path: Path, split: Split, first: int) -> Iterator[pa.RecordBatch]:
        """Pages whose checksums fail are an error: other readers would refuse them."""
        with (
            file_errors("Parquet", path, (pa.ArrowException, OSError)),
            files.open(path) as raw,
            pq.ParquetFile(
                raw, page_checksum_verification=True, pre_buffer=False, buffer_size=_READ_BYTES
            ) as file,
        ):
            schema = file.schema_arrow
            check_schema(schema, split, path)
            # Arrow takes its own copy of the metadata; others, what is in the file.
            stated = {**file.metadata.metadata, **schema.metadata}
            if stated != file.metadata.metadata or stated.keys() - schema.metadata.keys() != {
                b"ARROW:schema"
            }:
                raise DataError("the file has other metadata than its schema.", Location(str(path)))
            for rows in file.iter_batches(_rows_at_once(file.metadata), use_threads=False):
                yield from_table(rows, split, str(path), first)
                first += len(rows)

    def finish(self, report: Report, folder: Path) -> None:
        """Write the terms, a README that tells `datasets` of configs and splits, and the Croissant description."""
        super().finish(report, folder)
        write_croissant(report, self.names([split.split for split in report.splits]), folder)


def _writer(file: object, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer with the settings that Hugging Face's own has, and page checksums."""
    images = [f"{field.name}.bytes" for field in schema if pa.types.is_struct(field.type)]
    plain = images + [field.name for field in schema if pa.types.is_binary(field.type)]
    others = [name for name in _leaves(schema) if name not in images]
    return pq.ParquetWriter(
        file,
        schema,
        compression=dict.fromkeys(images, "NONE") | dict.fromkeys(others, "SNAPPY"),
        use_dictionary=[name for name in others if name not in plain],
        column_encoding=dict.fromkeys(plain, "PLAIN"),
        write_page_index=True,
        write_page_checksum=True,
        use_content_defined_chunking=True,
        write_statistics=others,
    )


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of a schema's Parquet columns."""
    leaves = []
    for field in schema:
        if pa.types.is_struct(field.type):
            leaves += [f"{field.name}.{child.name}" for child in field.type]
        elif pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
            leaves.append(f"{field.name}.list.element")
        else:
            leaves.append(field.name)
    return leaves


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """How many rows to read at once: as many as hold some megabytes where the images are largest."""
    largest = 1
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        largest = max(largest, group.total_byte_size // max(1, group.num_rows))
    return max(1, min(_READ_ROWS, _READ_IMAGE_BYTES // largest))
