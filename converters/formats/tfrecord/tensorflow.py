"""TensorFlow as a second, independent reader, in a process of its own.

TensorFlow takes seconds to import, crashes on some corrupt files and overlooks stray bytes at the end of
others. So it never runs in our process, and it only ever confirms what our own reader found: each record is
read by both, and a digest of each record's values must be equal.

What it confirms is every record of the batches that the source's fingerprint is taken of. The output, as it was read
back, must have the same fingerprint, so that TensorFlow's word holds for what was read back too. (A fault of the leaves
themselves would be in both; known answers and witnesses are for that.) ``verify --reader datasets`` goes the other way
round: it reads the output, and is compared with what was read back.

This module is also the program of that process: requests come in as JSON lines, and for each the digests go out, many
in a JSON line. TensorFlow's parser does not tell a feature without values from one that is absent; nor do the digests.
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
from functools import cache
from itertools import pairwise
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

_MAX_BATCH_RECORDS = 1024
_PIPE_BYTES = 1 << 20


class SecondReader:
    """The records of one range of a source file, as TensorFlow reads them.

    Args:
        source: the range.
        schema: the columns of its records.
        batch_records: how many records to ask for at once; as many as this program read at once, which bounds
            their size.
    """

    def __init__(self, source: SourceRange, schema: Schema, batch_records: int) -> None:
        self._source = source
        self._columns = [column for column in schema.stored if column.feature is not None]
        self._pending: list[str] = []
        request = {
            "path": str(source.path),
            "compression": "" if source.compression == "none" else source.compression.upper(),
            "skip": source.first_record,
            "features": {column.feature: kind_of(column) for column in self._columns},
            "batch_records": min(_MAX_BATCH_RECORDS, batch_records),
        }
        self._messages = _process().ask(request)

    def confirm(self, batch: pa.RecordBatch, first: int) -> None:
        """Check that TensorFlow's next records equal those of ``batch``, the first being record ``first``.

        Raises:
            DataError: TensorFlow reads something else, fails, dies or falls silent.
        """
        while len(self._pending) < len(batch):
            more = next(self._messages, None)
            if more is None:
                raise self._error(f"TensorFlow ends after {first + len(self._pending)} records.")
            self._pending += more
        texts = [_row_bytes(column, batch.column(column.name)) for column in self._columns]
        ours = [_digest(values) for values in zip(*texts, strict=True)]
        for row, (our, their) in enumerate(zip(ours, self._pending, strict=False)):
            if our != their:
                raise self._error("TensorFlow reads another record than this program.", first + row)
        del self._pending[: len(batch)]

    def finish(self, records: int) -> None:
        """Check that TensorFlow has no more records.

        Raises:
            DataError: it has.
        """
        if self._pending or next(self._messages, None) is not None:
            raise self._error(f"TensorFlow reads more than the {records} records that are there.")

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
        self._received = b""
        self._requests = 0

    def ask(self, request: dict[str, Any]) -> Iterator[list[str]]:
        """The digests that answer a request.

        An answer need not be taken to the end: a range may end before its file does. What is left of it is
        skipped when the next request is made.
        """
        path = Path(request["path"])
        self._requests += 1
        number = self._requests
        assert self._process.stdin is not None
        message = {**request, "path": str(path.resolve()), "request": number}
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died(path) from None
        while True:
            try:
                answer = json.loads(self._read_line(path))
                current = answer["request"] == number
                error, digests = answer.get("error"), [str(digest) for digest in answer.get("digests", ())]
            except (ValueError, KeyError, TypeError, AttributeError):
                self.close()
                raise DataError(
                    "TensorFlow's process sent what is no message.", Location(str(path))
                ) from None
            if not current:
                continue
            if error is not None:
                raise DataError(f"TensorFlow cannot read the file: {error}.", Location(str(path)))
            if not digests:
                return
            yield digests

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        _process.cache_clear()

    def _read_line(self, path: Path) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        while b"\n" not in self._received:
            if not select.select([stdout], [], [], SILENCE_SECONDS)[0]:
                self.close()
                raise DataError(f"TensorFlow was silent for {SILENCE_SECONDS:.0f} s.", Location(str(path)))
            data = os.read(stdout.fileno(), _PIPE_BYTES)
            if not data:
                raise self._died(path)
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _died(self, path: Path) -> DataError:
        status = self._process.wait()
        _process.cache_clear()
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return DataError(f"TensorFlow's process died ({how}) while it read this file.", Location(str(path)))


def serve() -> None:
    """The program of TensorFlow's process: answer requests from standard input until it closes."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever TensorFlow prints must not come between the messages
    for line in sys.stdin.buffer:
        request = json.loads(line)
        number = request["request"]
        try:
            for digests in _digests(request):
                print(json.dumps({"request": number, "digests": digests}), file=out)
            print(json.dumps({"request": number}), file=out)
        except Exception as error:  # noqa: BLE001  # whatever it is, the parent must hear of it
            text = f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"
            print(json.dumps({"request": number, "error": text}), file=out)
        out.flush()


def _digests(request: dict[str, Any]) -> Iterator[list[str]]:
    import tensorflow as tf

    kinds = {"bytes_list": tf.string, "int64_list": tf.int64, "float_list": tf.float32}
    form = {name: tf.io.RaggedFeature(kinds[kind]) for name, kind in request["features"].items()}
    dataset = tf.data.TFRecordDataset(request["path"], compression_type=request["compression"])
    for serialized in dataset.skip(request["skip"]).batch(request["batch_records"]):
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
        yield [_digest(record) for record in zip(*texts, strict=True)]
