"""The checks on every record: what the roles of its columns promise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import binary_views, list_parts, numbers, valid_rows, vector_matrix
from converters.dataset.filenames import plain_lines, unsafe_name
from converters.dataset.image_header import ImageHeaderReader, decode_fully
from converters.dataset.jpeg_header import ImageError
from converters.dataset.labels import label_ranks
from converters.dataset.schema import SIZES, Column, Schema
from converters.errors import DataError, Location

Locate = Callable[[int], Location]
"""Says where a row of a batch comes from."""

_NO_IMAGE = (
    "To keep such values, describe the column without its role (kfer-convert inspect --describe); "
    "--on-error quarantine leaves the record out."
)


class RecordChecker:
    """Checks the records of one split.

    Args:
        schema: their columns.
        decode: also decode every image with Pillow.
    """

    def __init__(self, schema: Schema, *, decode: bool = False) -> None:
        self._schema = schema
        self._decode = decode
        self._headers = ImageHeaderReader()

    def check(self, batch: pa.RecordBatch, locate: Locate) -> None:
        """Check every record of a batch.

        Raises:
            DataError: a record that is not what a role of its columns promises.
        """
        label = self._schema.label
        if label is not None and label.label_names:
            _check_labels(label, batch.column(label.name), locate)
        for image in self._schema.images:
            self._check_image(image, batch, locate)
        name = self._schema.role("file_name")
        if name is not None:
            _check_names(batch.column(name.name), locate)

    def _check_image(self, column: Column, batch: pa.RecordBatch, locate: Locate) -> None:
        array = batch.column(column.name)
        try:
            found = self._headers.read(array).sizes
        except ImageError as error:
            raise DataError(f"{column.name}: {error.message}", locate(error.row), _NO_IMAGE) from None
        if column == self._schema.image:
            self._check_sizes(found, valid_rows(array), batch, locate)
        if self._decode:
            for row, view in enumerate(binary_views(array)):
                try:
                    if len(view):
                        decode_fully(view)
                except ImageError as error:
                    raise DataError(error.message, locate(row)) from None

    def _check_sizes(
        self,
        found: npt.NDArray[np.int32],
        there: npt.NDArray[np.bool_],
        batch: pa.RecordBatch,
        locate: Locate,
    ) -> None:
        for part, role in enumerate(SIZES):
            column = self._schema.role(role)
            if column is None:
                continue
            array = batch.column(column.name)
            stored = numbers(array)
            wrong = (stored != found[:, part]) & valid_rows(array) & there
            if wrong.any():
                row = int(np.argmax(wrong))
                sizes = ", ".join(map(str, found[row].tolist()))
                raise DataError(
                    f"the image's header says height, width, depth ({sizes}); the record says {role} {stored[row]}.",
                    locate(row),
                )


def _check_labels(column: Column, array: pa.Array, locate: Locate) -> None:
    if column.kind is not None:
        _check_vectors(column, array, locate)
        return
    try:
        label_ranks(column, array)
    except ValueError:
        for row in range(len(array)):
            try:
                label_ranks(column, array.slice(row, 1))
            except ValueError as error:
                raise DataError(
                    f"{column.name}: {error}; the description has {len(column.label_names)} names.",
                    locate(row),
                ) from None


def _check_vectors(column: Column, array: pa.Array, locate: Locate) -> None:
    valid = valid_rows(array)
    vectors = (
        vector_matrix(array) if valid.all() else numbers(list_parts(array)[1]).reshape(-1, column.size or 0)
    )
    rows = np.flatnonzero(valid)
    other = (vectors != 0) & (vectors != 1)
    if other.any():
        row, place = (int(part[0]) for part in np.nonzero(other))
        raise DataError(
            f"the feature {column.feature!r} has the value {vectors[row, place]}, expected 0 or 1.",
            locate(int(rows[row])),
        )
    set_labels = vectors.sum(axis=1, dtype=np.int64)
    single = column.kind == "single-label"
    wrong = set_labels > 1 if single else np.zeros(len(set_labels), np.bool_)
    if not column.unlabelled:
        wrong |= set_labels == 0
    if wrong.any():
        place = int(np.argmax(wrong))
        expected = "exactly one" if single else "at least one"
        raise DataError(
            f"{int(set_labels[place])} labels are set; a {column.kind} config has {expected}.",
            locate(int(rows[place])),
        )


def _check_names(array: pa.Array, locate: Locate) -> None:
    names = list(map(str, array.to_pylist()))
    if plain_lines(names) is not None:
        return
    for row, name in enumerate(names):
        if problem := unsafe_name(name):
            raise DataError(f"the file name {problem}.", locate(row))
