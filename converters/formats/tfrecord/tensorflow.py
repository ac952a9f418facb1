"""TensorFlow as a second, independent reader, in a process of its own.

TensorFlow takes seconds to import, crashes on some corrupt files and overlooks stray bytes at the end of
others. So it never runs in our process, and it only ever confirms what our own reader found: each record is
read by both, and a digest of each record's values must be equal.

What it confirms is every record of the batches that the source's fingerprint is taken of. The output, as it was read
back, must have the same fingerprint, so that TensorFlow's word holds for what was read back too. (A fault of the leaves
themselves would be in both; known answers and witnesses are for that.) ``verify --reader datasets`` goes the other way
round: it reads the output, and is compared with what was read back.

This module is also the program of that process. A request is a JSON line that asks for the digests of the next so many
records; the first one of a range says of which file. The answer is a line with these, fewer at the file's end.
TensorFlow's parser does not tell a feature without values from one that is absent; nor do the digests.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from converters.dataset.arrays import binary_views, list_parts, numbers, valid_rows
from converters.dataset.schema import Column, Schema
from converters.errors import CallError, DataError, Location
from converters.formats.tfrecord.columns import kind_of
from converters.formats.tfrecord.reader import SourceRange
from converters.storage.processes import child_command

# Importing TensorFlow takes 10 to 15 s on a slow disk; a batch takes milliseconds.
SILENCE_SECONDS = 300.0


class SecondReader:
    """The records of one range of a source file, as TensorFlow reads them.

    One range at a time: beginning another one ends those before.

    Args:
        source: the range.
        schema: the columns of its records.
    """

    def __init__(self, source: SourceRange, schema: Schema) -> None:
        self._source = source
        self._columns = [column for column in schema.stored if column.feature is not None]
        self._opening: dict[str, Any] = {
            "path": str(Path(str(source.path)).resolve()),
            "compression": "" if source.compression == "none" else source.compression.upper(),
            "skip": source.first_record,
            "features": {column.feature: kind_of(column) for column in self._columns},
        }

    def confirm(self, batch: pa.RecordBatch, first: int) -> None:
        """Check that TensorFlow's next records equal those of ``batch``, the first being record ``first``.

        Raises:
            DataError: TensorFlow reads something else, fails, dies or falls silent.
        """
        theirs = self._next(len(batch))
        if len(theirs) < len(batch):
            raise self._error(f"TensorFlow ends after {first + len(theirs)} records.")
        texts = [_row_bytes(column, batch.column(column.name)) for column in self._columns]
        ours = [_digest(values) for values in zip(*texts, strict=True)]
        for row, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            if our != their:
                raise self._error("TensorFlow reads another record than this program.", first + row)

    def finish(self, records: int) -> None:
        """Check that TensorFlow has no more records.

        Raises:
            DataError: it has.
        """
        if self._next(1):
            raise self._error(f"TensorFlow reads more than the {records} records that are there.")

    def _next(self, count: int) -> list[str]:
        """The digests of TensorFlow's next records."""
        request, self._opening = {**self._opening, "count": count}, {}
        try:
            answer = _process().ask(request)
        except _FailedError as error:
            raise self._error(str(error)) from None
        if isinstance(answer, str):
            raise self._error(f"TensorFlow cannot read the file: {answer}.")
        return answer

    def _error(self, message: str, record: int | None = None) -> DataError:
        return DataError(message, Location(str(self._source.path), record))


def require_tensorflow() -> None:
    """Raise a CallError that says what to install where TensorFlow is missing; imports nothing."""
    if importlib.util.find_spec("tensorflow") is None:
        raise CallError("--reader tensorflow needs TensorFlow: pip install 'kfer-convert[tensorflow]'.")


def _digest(values: tuple[bytes, ...]) -> str:
    """A digest of a record: of each value's size and bytes."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(len(value).to_bytes(8, "little") + value)
    return digest.hexdigest()


def _row_bytes(column: Column, array: pa.Array) -> list[bytes]:
    """The values of each record in one piece of bytes: texts behind their sizes, integers in 8 bytes, floats in 4."""
    counts, values = list_parts(array) if column.is_list else (valid_rows(array).astype(np.int64), array)
    edges = np.concatenate([[0], np.cumsum(counts)]).tolist()
    if pa.types.is_binary(values.type) or pa.types.is_string(values.type):
        texts = [len(view).to_bytes(8, "little") + bytes(view) for view in binary_views(values)]
        if not column.is_list:
            return [text if valid else b"" for text, valid in zip(texts, counts.tolist(), strict=True)]
        return [b"".join(texts[start:end]) for start, end in pairwise(edges)]
    flat = numbers(values)
    if not column.is_list:
        flat = flat[counts.astype(np.bool_)]
    if not pa.types.is_floating(values.type):
        flat = flat.astype("<i8", copy=False)
    return [flat[start:end].tobytes() for start, end in pairwise(edges)]


@cache
def _process() -> _Process:
    """The one TensorFlow process of this process."""
    process = _Process()
    atexit.register(process.close)
    return process


class _FailedError(Exception):
    """TensorFlow's process died or fell silent."""


class _Process:
    """A process that reads with TensorFlow; see the module's text."""

    def __init__(self) -> None:
        require_tensorflow()
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        self._process = subprocess.Popen(
            child_command("converters.formats.tfrecord.tensorflow", "serve"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def ask(self, request: dict[str, Any]) -> list[str] | str:
        """The digests that answer a request, or what is wrong with the file."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        with suppress(BrokenPipeError):
            requests.write(json.dumps(request).encode() + b"\n")
            requests.flush()
        if not select.select([answers], [], [], SILENCE_SECONDS)[0]:
            self.close()
            raise _FailedError(f"TensorFlow was silent for {SILENCE_SECONDS:.0f} s.")
        line = answers.readline()
        if not line.endswith(b"\n"):
            status = self._process.wait()
            _process.cache_clear()
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise _FailedError(f"TensorFlow's process died ({how}) while it read this file.")
        answer: list[str] | str = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        _process.cache_clear()


def serve() -> None:
    """The program of TensorFlow's process: answer requests from standard input until it closes."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever TensorFlow prints must not come between the answers
    digests: Iterator[str] = iter(())
    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer: list[str] | str
        try:
            if "path" in request:
                digests = _digests(request)
            answer = list(islice(digests, request["count"]))
        except Exception as error:  # noqa: BLE001  # whatever it is, the parent must hear of it
            answer = f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"
        print(json.dumps(answer), file=out, flush=True)


def _digests(request: dict[str, Any]) -> Iterator[str]:
    """The digest of each record; as many are read at once as are asked for first, which bounds their size."""
    import tensorflow as tf

    kinds = {"bytes_list": tf.string, "int64_list": tf.int64, "float_list": tf.float32}
    form = {name: tf.io.RaggedFeature(kinds[kind]) for name, kind in request["features"].items()}
    dataset = tf.data.TFRecordDataset(request["path"], compression_type=request["compression"])
    for serialized in dataset.skip(request["skip"]).batch(request["count"]):
        parsed = tf.io.parse_example(serialized, form)
        texts = []
        for name, kind in request["features"].items():
            values, edges = parsed[name].flat_values.numpy(), parsed[name].row_splits.numpy().tolist()
            rows = [values[start:end] for start, end in pairwise(edges)]
            if kind == "bytes_list":
                texts.append(
                    [b"".join(len(text).to_bytes(8, "little") + text for text in row) for row in rows]
                )
            else:
                texts.append([row.tobytes() for row in rows])
        yield from map(_digest, zip(*texts, strict=True))
