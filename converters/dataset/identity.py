"""The identity of records: ``img_id`` and ``clip_id`` from the authors' label CSVs, joined by record order.

The TFRecords store no names. The authors wrote record i from row i of the label CSV; that is proven for a
user's copy by comparing every label vector, and the join is refused if one differs. Names from a CSV become
file names in some formats, so a name that could leave its folder, or be two files at once, is refused too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.arrays import vector_matrix
from converters.dataset.description import Split
from converters.dataset.filenames import first_collision, unsafe_name
from converters.dataset.label_csv import read_label_csv
from converters.errors import CallError, DataError, Location

Rows = Sequence[tuple[int, int]]
"""Rows of a label CSV: the first, and how many."""

_ID_COLUMNS = ("img_id", "clip_id")


@dataclass(frozen=True)
class Identities:
    """The rows of one label CSV.

    Attributes:
        path: the file.
        img_id: string array, one image name per record.
        clip_id: string array.
        labels: uint8, shape (rows, labels).
        label: name of the column of labels, against which they are held.
        numbers: int64, which row of the CSV each is; None where all rows are here.
    """

    path: str
    img_id: pa.Array
    clip_id: pa.Array
    labels: npt.NDArray[np.uint8]
    label: str
    numbers: npt.NDArray[np.int64] | None = None

    def without(self, rows: Rows) -> Identities:
        """The identities without those of some rows."""
        if not any(count for _, count in rows):
            return self
        keep = np.ones(len(self.labels), np.bool_)
        for first, count in rows:
            keep[first : first + count] = False
        numbers = np.flatnonzero(keep)
        taken = pa.array(numbers.tolist(), pa.int64())
        return replace(
            self,
            img_id=self.img_id.take(taken),
            clip_id=self.clip_id.take(taken),
            labels=self.labels[keep],
            numbers=numbers,
        )

    def clips(self) -> int:
        """Number of distinct clips."""
        return len(self.clip_id.unique())

    def join(self, batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
        """The batch with the identities of the rows from ``first`` on.

        Raises:
            DataError: a record's labels differ from its row's, or there are more records than rows.
        """
        stored = vector_matrix(batch.column(self.label))
        rows = self.labels[first : first + len(stored)]
        differs = (rows != stored[: len(rows)]).any(axis=1)
        if differs.any():
            row = int(np.argmax(differs))
            number = first + row if self.numbers is None else int(self.numbers[first + row])
            raise DataError(
                f"labels {_ones(rows[row])} in the CSV, but record {number} of the split has "
                f"{_ones(stored[row])} (numbers of the labels that are set).",
                Location(self.path, number),
                _ADVICE,
            )
        if len(rows) < len(stored):
            raise DataError(
                f"the CSV has {len(self.labels)} rows, the split has more records.",
                Location(self.path),
                _ADVICE,
            )
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        columns["img_id"] = self.img_id.slice(first, len(rows))
        columns["clip_id"] = self.clip_id.slice(first, len(rows))
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)

    def finish(self, records: int) -> None:
        """Check that the split's records are as many as the rows.

        Raises:
            DataError: there are rows left over.
        """
        if records != len(self.labels):
            raise DataError(
                f"the CSV has {len(self.labels)} rows, the split has {records} records.",
                Location(self.path),
                _ADVICE,
            )


_ADVICE = (
    "So this CSV does not belong to this file, and which image is which cannot be known from it. Convert "
    "without --labels, or find the CSV that belongs to the file."
)


def read_identities(folder: Path, split: Split) -> Identities:
    """Read and check the label CSV of a split.

    Raises:
        CallError: the split has no label vectors.
        DataError: it cannot be read, its header or a row is malformed, or a name in it must not become a file name.
    """
    label = split.schema.label
    if label is None or label.kind is None:
        raise CallError(f"--labels compares label vectors, and {split.title} has none.")
    path = folder / split.labels_csv
    texts, labels = read_label_csv(path, _ID_COLUMNS, split.label_names)
    img_id, clip_id = (texts[name] for name in _ID_COLUMNS)
    _check_names(img_id.to_pylist(), str(path))
    for clip in clip_id.unique().to_pylist():
        if problem := unsafe_name(clip):
            raise DataError(f"the clip_id {problem}.", Location(str(path)))
    return Identities(str(path), img_id, clip_id, labels, label.name)


def _check_names(img_ids: list[str], path: str) -> None:
    for row, img_id in enumerate(img_ids):
        if problem := unsafe_name(_file_name(img_id) if img_id else img_id):
            raise DataError(f"the img_id {problem}; it cannot become a file name.", Location(path, row))
    if collision := first_collision(map(_file_name, img_ids)):
        first, second = collision
        raise DataError(
            f"the img_ids {img_ids[first]!r} (record {first}) and {img_ids[second]!r} would be one file.",
            Location(path, second),
        )


def _ones(labels: npt.NDArray[np.uint8]) -> str:
    return str(np.flatnonzero(labels).tolist())


def _file_name(img_id: str) -> str:
    """``img_id`` as the name of a JPEG file; it keeps the extension that it has."""
    return img_id if img_id.lower().endswith((".jpg", ".jpeg")) else f"{img_id}.jpg"
