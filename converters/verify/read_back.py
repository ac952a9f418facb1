"""Reads the records of an output back, checked as those of a source are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from converters.dataset.arrays import conform
from converters.dataset.checks import RecordChecker
from converters.dataset.description import Split
from converters.errors import ConverterError, Location
from converters.formats import Format, ReadsThrough
from converters.storage.hashing_reader import HashingReader


def read_back(
    target: Format, folder: Path, split: Split, first: int = 0, reader: HashingReader | None = None
) -> Iterator[pa.RecordBatch]:
    """The records of a split that are below ``folder``, in order; the first is record ``first`` of the split.

    A format that can reads its files through ``reader``, which then knows their digests too.

    Raises:
        DataError: a record fails a check.
        ValueError: a batch does not have the columns of the split.
    """
    if reader is not None and isinstance(target, ReadsThrough):
        batches = target.read_through(reader, folder, split, first)
    else:
        batches = target.read(folder, split, first)
    checker = RecordChecker(split.schema)
    for found in batches:
        batch = conform(found, split.schema)
        # The sizes of the images are checked against their headers on both sides, so they survived too.
        checker.check(batch, _location(split, first))
        first += len(batch)
        yield batch


def _location(split: Split, first: int) -> Callable[[int], Location]:
    return lambda row: Location(f"output of {split.title}", first + row)


@contextmanager
def format_errors(name: str, doing: str) -> Iterator[None]:
    """Wrap any exception of a format, which may be a plug-in, in an error that names it."""
    try:
        yield
    except (ConverterError, OSError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise ConverterError(
            f"the format {name!r} failed while {doing}: {type(error).__name__}: {error}; nothing was published."
        ) from error
