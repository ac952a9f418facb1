"""CSV files of labels: text columns, then one 0/1 column per label in stored order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import numbers
from converters.errors import DataError, Location
from converters.storage.files import open_regular


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
        with open(open_regular(path), "rb") as file:  # noqa: PTH123  # a descriptor
            rows = file.read().rstrip(
                b"\r\n"
            )  # empty lines at the end, as some editors leave them, are no rows
        table = csv.read_csv(
            pa.BufferReader(rows),
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


def _combined(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)
