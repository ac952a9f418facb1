"""Writes the records of a shard to an archive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO

import pyarrow as pa

from converters.dataset.arrays import binary_views
from converters.dataset.description import Split
from converters.dataset.image_names import suffixes
from converters.dataset.labels import derived_label
from converters.dataset.schema import Schema
from converters.dataset.shard import Shard
from converters.errors import DataError, Location
from converters.formats.json_rows import refuse_not_finite
from converters.formats.webdataset.files import JSON, Layout, common_suffix, json_object, keys
from converters.formats.webdataset.tar import TarWriter


def write_archive(
    file: IO[bytes], batches: Iterable[pa.RecordBatch], shard: Shard, stated: str | None
) -> None:
    """Write the records of a shard to an empty file that is open for reading, too.

    Args:
        file: the archive.
        batches: the records.
        shard: what they are.
        stated: what the names of images end in; by default what is in them.

    Raises:
        DataError: two records would have one key, or a number is none of JSON's.
    """
    layout = Layout.of(shard.split.schema)
    archive = TarWriter(file)
    seen: dict[str, set[str]] = {tail: set() for tail in layout.images}
    named: dict[str, str] = {}  # by the first image of the shard
    keys_seen: set[str] = set()
    first = shard.first_record
    for batch in batches:
        named_by = keys(shard.split, batch, first, layout)
        _refuse_same_keys(named_by, keys_seen, shard.split, first)
        refuse_not_finite(shard.split, batch, first)
        files: list[tuple[str, Sequence[bytes | memoryview]]] = []
        for tail, column in layout.images.items():
            found = suffixes(batch.column(column.name))
            seen[tail].update(found)
            named.setdefault(tail, common_suffix(found[:1], stated))
            files.append((tail + named[tail], binary_views(batch.column(column.name))))
        files += [(tail, binary_views(batch.column(column.name))) for tail, column in layout.raw.items()]
        if layout.has_json:
            files.append((JSON, _json_objects(shard.split.schema, layout, batch)))
        names = [tail.encode() for tail, _ in files]
        for key, *contents in zip(named_by, *(contents for _, contents in files), strict=True):
            encoded = key.encode()
            for name, content in zip(names, contents, strict=True):
                archive.add(encoded + name, content)
        first += len(batch)
    for tail, suffix in named.items():
        if (common := common_suffix(seen[tail], stated)) != suffix:
            archive.rename(tail + suffix, tail + common)
    archive.finish()


def _refuse_same_keys(keys: Sequence[str], seen: set[str], split: Split, first: int) -> None:
    for record, key in enumerate(keys, first):
        if key in seen:
            named = split.schema.role("file_name")
            name = named.name if named is not None else "img_id"
            raise DataError(
                f"two records of a file would have the key {key!r}.",
                Location(split.title, record),
                f"Leave the column of names out: --without {name}.",
            )
        seen.add(key)


def _json_objects(schema: Schema, layout: Layout, batch: pa.RecordBatch) -> list[bytes]:
    """The JSON object of each record: all columns but images and bytes, in their order."""
    columns = [
        (derived_label(schema, batch) if column.derived else batch.column(column.name)).to_pylist()
        for column in layout.values
    ]
    names = [column.name for column in layout.values]
    rows = zip(*columns, strict=True) if columns else [()] * len(batch)
    return [json_object(dict(zip(names, row, strict=True))) for row in rows]
