"""Lance files, which ``datasets`` from 5.2 on and pylance read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from converters.dataset.arrays import conform, list_array, list_parts, valid_rows, with_nulls
from converters.dataset.description import Split
from converters.dataset.schema import Schema
from converters.dataset.shard import Shard
from converters.errors import CallError, DataError, Location
from converters.formats.shard_files import ShardFiles
from converters.formats.table import check_schema, compact, from_table, table_schema, tables
from converters.plugins import import_extra
from converters.storage.files import read_bounded
from converters.storage.hashing_reader import FileReader
from converters.storage.tree import hash_file

_BATCH_ROWS = 1000
_BATCH_BYTES = 16 << 20
_READ_BYTES = 8 << 20  # at once

_ERRORS = (pa.ArrowException, OSError, ValueError, RuntimeError)

_MAX_LINE_BYTES = 1 << 10
_UNCOMPRESSED = {"lance-encoding:compression": "none"}

# Of the file format; a library that is newer writes the same then.
_VERSION = "2.1"


class LanceFormat(ShardFiles):
    """Lance files, one per shard: <config>/<split>-00000-of-0000N.lance, images embedded, labels named.

    Each is a file on its own and no table: names of a table's files are random. Its digest lies beside it
    (<config>/<split>-00000-of-0000N.lance.sha256) and is checked before the library opens it: Lance has no checksums,
    and the library ends the process on some damage.
    """

    name = "lance"
    suffix = ".lance"

    def __init__(self) -> None:
        self._module = import_extra("lance", "Lance files", "lance.file")

    def refuse(self, splits: Sequence[Split]) -> None:
        """Refuse names that ``datasets`` or Lance would not take.

        Raises:
            CallError: with the split, and what to do.
        """
        super().refuse(splits)
        for split in splits:
            for column in split.schema.stored:
                if "." in column.name:
                    raise CallError(
                        f"{split.title}: the column {column.name} has a dot in its name, which Lance does not allow. "
                        f"Leave it out with --without {column.name}, or give it another name in dataset.json."
                    )

    def places(self, shard: Shard) -> list[str]:
        """The file, and the one of its digest."""
        (path,) = super().places(shard)
        return [path, str(_digest_file(Path(path)))]

    def write(self, batches: Iterable[pa.RecordBatch], shard: Shard, folder: Path) -> list[Path]:
        """Write a shard's records to one file."""
        path = self.new_file(folder, shard)
        shard = replace(shard, split=_held(shard.split))
        schema = _uncompressed(table_schema(shard.split.schema))
        with self._module.LanceFileWriter(str(path), schema, version=_VERSION) as writer:
            for rows in tables(_loosened(batches, shard.split), shard, _BATCH_ROWS, _BATCH_BYTES):
                writer.write_batch(compact(rows))
        digest = _digest_file(path)
        digest.write_text(_digest_line(path), encoding="utf-8", newline="\n")
        return [path, digest]

    def read_file(self, files: FileReader, path: Path, split: Split, first: int) -> Iterator[pa.RecordBatch]:
        """The digest is checked before the library opens the file."""
        try:
            if read_bounded(_digest_file(path), _MAX_LINE_BYTES) != _digest_line(path).encode():
                raise DataError("the file is not the one whose digest is beside it.", Location(str(path)))
            reader = self._module.LanceFileReader(str(path))
            check_schema(reader.metadata().schema, _held(split), path)
            records = reader.num_rows()
            step = max(1, min(_BATCH_ROWS, _READ_BYTES * records // path.stat().st_size))
            # Range by range: read_all reads ahead without a limit, up to the size of the file.
            for start in range(0, records, step):
                found = reader.read_range(
                    start, min(step, records - start), batch_size=step, batch_readahead=1
                )
                for rows in found.to_batches():
                    rows.validate(full=True)
                    yield conform(from_table(rows, _held(split), str(path), first), split.schema)
                    first += len(rows)
        except BaseException as error:
            # On damage the library may panic, which is no Exception of Python's.
            if not isinstance(error, _ERRORS) and type(error).__name__ != "PanicException":
                raise
            reason = next(iter(str(error).splitlines()), "")
            raise DataError(f"the Lance file cannot be read: {reason}.", Location(str(path))) from error


def _held(split: Split) -> Split:
    """The split as the library can hold it: texts and bytes come in lists of a varying size only."""
    columns = (
        replace(column, type=pa.list_(column.value_type)) if _is_fixed_list_of_texts(column.type) else column
        for column in split.schema
    )
    return replace(split, schema=Schema(tuple(columns)))


def _uncompressed(schema: pa.Schema) -> pa.Schema:
    """The schema with a word at texts and bytes that they are not to be compressed.

    The library would learn a code (FSST) from a random sample of them, and write other bytes in every run.
    """
    return pa.schema(map(_uncompressed_field, schema), metadata=schema.metadata)


def _uncompressed_field(field: pa.Field) -> pa.Field:
    kind = field.type
    if pa.types.is_struct(kind):
        return field.with_type(pa.struct(map(_uncompressed_field, kind)))
    if pa.types.is_list(kind):
        return field.with_type(pa.list_(_uncompressed_field(kind.value_field)))
    return field if pa.types.is_primitive(kind) else field.with_metadata(_UNCOMPRESSED)


def _is_fixed_list_of_texts(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) and not pa.types.is_primitive(kind.value_type))


def _loosened(batches: Iterable[pa.RecordBatch], split: Split) -> Iterator[pa.RecordBatch]:
    """The batches with lists of a varying size in place of those that the library cannot write."""
    form = split.schema.arrow
    for batch in batches:
        columns = [
            _varying(column, field.type) if _is_fixed_list_of_texts(column.type) else column
            for column, field in zip(batch.columns, form, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=form)


def _varying(array: pa.Array, kind: pa.DataType) -> pa.Array:
    counts, values = list_parts(array)
    return with_nulls(list_array(values, kind, counts), valid_rows(array))


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digest_line(path: Path) -> str:
    """The SHA-256 of a file, as sha256sum writes it."""
    return f"{hash_file(path, follow_links=True)[1]}  {path.name}\n"
