"""CSV files of labels: text columns, then one 0/1 column per label in stored order."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import numbers
from converters.errors import DataError, Location
from converters.storage.files import open_regular

_EMPTY_LINES = 4096  # bytes of them that are looked for


@dataclass(frozen=True)
class LabelTable:
    """The rows of a label CSV.

    Attributes:
        texts: the text columns by name, string arrays.
        labels: uint8, shape (rows, labels).
    """

    texts: dict[str, pa.Array]
    labels: npt.NDArray[np.uint8]


def read_label_csv(
    path: Path, headers: Sequence[tuple[str, ...]], label_names: tuple[str, ...]
) -> LabelTable:
    """Read a label CSV strictly.

    Args:
        path: the file.
        headers: the text columns it may start with; one of these.
        label_names: the label columns that must follow, in this order.

    Raises:
        DataError: the file is malformed, has other columns or another order, or a label is no small integer.
    """
    from pyarrow import csv

    location = Location(str(path))
    types = dict.fromkeys(label_names, pa.uint8()) | {
        name: pa.string() for header in headers for name in header
    }
    try:
        # A file object: from a path, Arrow would go by the name and decompress.
        with open(open_regular(path), "rb") as file:  # noqa: PTH123  # a descriptor
            table = csv.read_csv(
                _Rows(file),
                read_options=csv.ReadOptions(use_threads=False),
                parse_options=csv.ParseOptions(ignore_empty_lines=False, newlines_in_values=False),
                convert_options=csv.ConvertOptions(
                    column_types=types, null_values=[], strings_can_be_null=False, check_utf8=True
                ),
            )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataError(f"no valid label CSV: {str(error).splitlines()[0]}.", location) from None
    except OSError as error:
        raise DataError(f"the label CSV cannot be read: {error.strerror or error}.", location) from error
    columns = tuple(table.column_names)
    header = next((header for header in headers if columns == header + label_names), None)
    if header is None:
        expected = ", ".join(headers[-1] + label_names)
        raise DataError(
            f"the columns are {', '.join(columns)}; expected {expected}, in this order.", location
        )
    labels = np.empty((len(table), len(label_names)), np.uint8)
    for position, name in enumerate(label_names):
        labels[:, position] = numbers(_combined(table.column(name)))
    return LabelTable({name: _combined(table.column(name)) for name in header}, labels)


class _Rows(io.RawIOBase):
    """An open file up to its last row: empty lines at its end, as some editors leave them, are none."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _EMPTY_LINES))
        tail = file.read(_EMPTY_LINES)
        self._left = size - (len(tail) - len(tail.rstrip(b"\r\n")))
        file.seek(0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401  # anything that can be written to
        data = self._file.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


def _combined(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)
