"""CSV files of labels: text columns, then one 0/1 column per label in stored order."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import numbers
from converters.errors import DataError, Location
from converters.storage.files import open_regular

_EMPTY_LINES = 4096  # bytes of them that are looked for


def read_label_csv(
    path: Path, text_names: tuple[str, ...], label_names: tuple[str, ...]
) -> tuple[dict[str, pa.Array], npt.NDArray[np.uint8]]:
    """Read a label CSV strictly.

    Args:
        path: the file.
        text_names: the text columns that it must start with.
        label_names: the label columns that must follow, in this order.

    Returns:
        The text columns by name, string arrays; and the labels: uint8, shape (rows, labels).

    Raises:
        DataError: the file is malformed, has other columns or another order, or a label is no small integer.
    """
    from pyarrow import csv

    location = Location(str(path))
    types = dict.fromkeys(label_names, pa.uint8()) | dict.fromkeys(text_names, pa.string())
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
    expected = [*text_names, *label_names]
    if table.column_names != expected:
        columns = (
            f"the columns are {', '.join(table.column_names)}; expected {', '.join(expected)}, in this order."
        )
        raise DataError(columns, location)
    labels = np.empty((len(table), len(label_names)), np.uint8)
    for position, name in enumerate(label_names):
        labels[:, position] = numbers(_combined(table.column(name)))
    return {name: _combined(table.column(name)) for name in text_names}, labels


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
