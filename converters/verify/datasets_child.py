"""The program of the process in which `datasets` loads an output; :mod:`datasets_reader` starts it.

One request comes in as JSON. For each split that was loaded one line of JSON goes out, and a file: the digest of
every record, in the order in which `datasets` gives them, and the name of its image's file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from datasets import Dataset

DIGESTS = pa.schema([("digest", pa.binary(32)), ("file", pa.string())])

_BATCH_ROWS = 64  # read at once; of images of 20 MB, a gigabyte that is mapped and not copied
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE)


def row_digest(values: Sequence[Any]) -> bytes:
    """A digest of a row's values, as Python has them: bytes, texts, numbers, lists of these, None."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(_encoded(value))
    return digest.digest()


def _encoded(value: Any) -> bytes:  # noqa: ANN401  # see above
    if value is None:
        return b"n"
    if isinstance(value, bytes | str):
        data = value if isinstance(value, bytes) else value.encode()
        return b"b" + len(data).to_bytes(8, "little") + data
    if isinstance(value, float):
        # What a NaN carries does not survive as a number of Python's.
        return b"f" + (b"nan" if math.isnan(value) else struct.pack("<d", value))
    if isinstance(value, int):
        return b"i%d;" % value
    return b"l%d;" % len(value) + b"".join(map(_encoded, value))


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
            yield name, _digest(loaded[name], Path(path), load["columns"])
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


def _digest(rows: Dataset, path: Path, columns: Sequence[str]) -> dict[str, Any]:
    """Write the digests of a split's ``columns``; number of records, names of labels, and columns that are images."""
    features = {name: rows.features[name] for name in columns}
    names = {
        name: list(label.names)
        for name, feature in features.items()
        if (label := _label(feature)) is not None
    }
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    records = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, DIGESTS) as file:
        for table in rows.with_format("arrow").iter(_BATCH_ROWS):
            values = [_values(table.column(name).combine_chunks(), name in images) for name in columns]
            files = _files(table.column(images[0]).combine_chunks()) if images else [None] * len(table)
            digests = pa.array([row_digest(row) for row in zip(*values, strict=True)], pa.binary(32))
            file.write_batch(
                pa.RecordBatch.from_arrays([digests, pa.array(files, pa.string())], schema=DIGESTS)
            )
            records += len(table)
    return {"records": records, "label_names": names, "images": images}


def _label(feature: Any) -> Any:  # noqa: ANN401  # ClassLabel, or None
    inner = getattr(feature, "feature", feature)
    return inner if type(inner).__name__ == "ClassLabel" else None


def _values(column: Any, is_image: bool) -> list[Any]:  # noqa: ANN401  # an array, or one of chunks
    values: list[Any] = column.to_pylist()
    if not is_image:
        return values
    return [None if value is None else value["bytes"] or Path(value["path"]).read_bytes() for value in values]


def _files(column: Any) -> list[str | None]:  # noqa: ANN401  # likewise
    return [Path(value["path"]).name if value and value["path"] else None for value in column.to_pylist()]
