"""The program of the process in which `datasets` loads an output; :mod:`datasets_reader` starts it.

One request comes in as JSON. For each split that was loaded one line of JSON goes out, and a file: the digest of
every record, in the order in which `datasets` gives them, and the name of its image's file.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.fingerprint import record_digests
from converters.dataset.jpeg_header import JpegSizes
from converters.dataset.schema import binary_array, record_batch

if TYPE_CHECKING:
    from datasets import Dataset

IDENTITIES = ("img_id", "clip_id")
DIGESTS = pa.schema([("digest", pa.binary(32)), ("file", pa.string())])

_BATCH_ROWS = 64  # read at once; of images of 20 MB, a gigabyte that is mapped and not copied
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE)


def serve() -> None:
    """Answer the request on standard input."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever `datasets` prints must not come between the answers
    for load in json.load(sys.stdin):
        for name, answer in _load(load):
            out.write(json.dumps({"config": load["config"], "split": name, **answer}) + "\n")
            out.flush()


def _load(load: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Load a config; an answer about each split of ``load["digests"]``, which says where its digests go."""
    try:
        from datasets import load_dataset

        loaded = load_dataset(**load["arguments"])
        if sorted(loaded) != sorted(load["splits"]):
            raise ValueError(f"it gives the splits {', '.join(loaded)}, and not {', '.join(load['splits'])}")
    except Exception as error:  # noqa: BLE001  # whatever it is, the parent must hear of it
        yield from ((name, _described(error)) for name in load["digests"])
        return
    for name, path in load["digests"].items():
        try:
            yield name, _digest(loaded[name], Path(path), csv=load["csv"])
        except Exception as error:  # noqa: BLE001  # likewise
            yield name, _described(error)


def _described(error: BaseException) -> dict[str, Any]:
    """An error in one line, and whether it is the machine's: `datasets` wraps what happens to it in others."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
    machine = isinstance(cause, MemoryError | ImportError) or getattr(cause, "errno", None) in _MACHINE
    return {"error": text, "machine": machine}


def _digest(rows: Dataset, path: Path, *, csv: bool) -> dict[str, Any]:
    """Write the digests of a split; its label names.

    Args:
        rows: the split.
        path: of the file to write.
        csv: whether its labels are the columns of a CSV, and images and labels all that is compared: a CSV has no
            types, so `datasets` may take an identity for a number.
    """
    from datasets import Image

    if not isinstance(rows.features["image"], Image):
        raise TypeError(f"the column image is {rows.features['image']}")
    if csv:
        names = [name for name in rows.column_names if name not in ("image", *IDENTITIES)]
    else:
        label = rows.features["label"]
        names = list(getattr(label, "feature", label).names)
    first = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, DIGESTS) as file:
        for table in rows.with_format("arrow").iter(_BATCH_ROWS):
            for found in table.to_batches():
                try:
                    file.write_batch(_csv_rows(found, names) if csv else _typed_rows(found, len(names)))
                except _RowError as wrong:
                    raise ValueError(f"record {first + wrong.row}: {wrong}") from None
                first += len(found)
    return {"records": first, "label_names": names}


class _RowError(Exception):
    """What is wrong with a row of a batch."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def _csv_rows(found: pa.RecordBatch, names: list[str]) -> pa.RecordBatch:
    """Digests of rows whose images are files, and whose labels are a column each."""
    paths = [Path(path) for path in found.column("image").field("path").to_pylist()]
    images = binary_array([path.read_bytes() for path in paths])
    labels = np.zeros((len(found), len(names)), np.uint8)
    for number, name in enumerate(names):
        for row, value in enumerate(found.column(name).to_pylist()):
            if value not in (0, 1):
                raise _RowError(row, f"the column {name} holds {value!r}")
            labels[row, number] = value
    batch = record_batch(images, labels, JpegSizes().read(images))
    return _digests(batch, [path.name for path in paths], identities=False)


def _typed_rows(found: pa.RecordBatch, label_count: int) -> pa.RecordBatch:
    """Digests of rows that hold what the columns of a Parquet output do."""
    image = found.column("image")
    for name, column in [
        ("image.bytes", image.field("bytes")),
        *zip(found.schema.names, found.columns, strict=True),
    ]:
        if column.null_count:
            raise _RowError(column.is_null().to_pylist().index(True), f"the column {name} holds None")
    labels = _label_matrix(found.column("label").to_pylist(), label_count)
    vectors = found.column("label_vector").to_pylist()
    for row, vector in enumerate(vectors):
        if vector != labels[row].tolist():
            raise _RowError(row, "the columns label and label_vector contradict each other")
    sizes = np.array([found.column(name).to_pylist() for name in ("height", "width", "depth")], np.int32)
    ids = [found.column(name) if name in found.schema.names else None for name in IDENTITIES]
    batch = record_batch(image.field("bytes"), labels, sizes.T, *ids)
    return _digests(batch, image.field("path").to_pylist(), identities=True)


def _label_matrix(labels: list[Any], label_count: int) -> npt.NDArray[np.uint8]:
    """The 0/1 vectors of label numbers, of one each or of lists of them."""
    matrix = np.zeros((len(labels), label_count), np.uint8)
    for row, value in enumerate(labels):
        for number in value if isinstance(value, list) else [value]:
            if number is None or not 0 <= number < label_count:
                raise _RowError(row, f"the column label holds {value!r}")
            matrix[row, number] = 1
    return matrix


def _digests(batch: pa.RecordBatch, files: list[str], *, identities: bool) -> pa.RecordBatch:
    digests = pa.array(record_digests(batch, identities=identities), DIGESTS.field("digest").type)
    return pa.RecordBatch.from_arrays([digests, pa.array(files, pa.string())], schema=DIGESTS)
