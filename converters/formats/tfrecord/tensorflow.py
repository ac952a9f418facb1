"""TensorFlow as a second, independent reader, in a process of its own.

TensorFlow takes seconds to import, crashes on some corrupt files and overlooks stray bytes at the end of
others. So it never runs in our process, and it only ever confirms what our own reader found: each record is
read by both and must be equal.

This module is also the program of that process: requests come in as JSON lines, and for each the records go
out as messages, a JSON line that says how many bytes of Arrow IPC follow.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from converters.dataset.description import Features
from converters.dataset.arrays import record_batch, schema
from converters.errors import CallError, DataError, Location
from converters.formats.tfrecord.reader import SourceRange

# Importing TensorFlow takes 10 to 15 s on a slow disk; a batch takes milliseconds.
SILENCE_SECONDS = 300.0

_MAX_BATCH_RECORDS = 1024
_PIPE_BYTES = 1 << 20


class SecondReader:
    """The records of one range of a source file, as TensorFlow reads them.

    Args:
        source: the range.
        features: names of the features.
        label_count: how many label values a record has.
        batch_records: how many records to ask for at once; as many as this program read at once, which bounds
            their size.
    """

    def __init__(self, source: SourceRange, features: Features, label_count: int, batch_records: int) -> None:
        self._source = source
        self._label_count = label_count
        self._pending = schema(label_count).empty_table()
        request = {
            "path": str(source.path),
            "compression": "" if source.compression == "none" else source.compression.upper(),
            "skip": source.first_record,
            "features": features.names(),
            "label_count": label_count,
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
            self._pending = pa.concat_tables([self._pending, pa.Table.from_batches([more])])
        theirs = self._pending.slice(0, len(batch)).combine_chunks()
        self._pending = self._pending.slice(len(batch))
        ours = pa.Table.from_batches([batch])
        for name in ("image", "label", "height", "width", "depth"):
            if not theirs.column(name).equals(ours.column(name)):
                pairs = zip(theirs.column(name), ours.column(name), strict=True)
                row = next(row for row, (their, our) in enumerate(pairs) if their != our)
                raise self._error(f"TensorFlow reads another {name} than this program.", first + row)

    def finish(self, records: int) -> None:
        """Check that TensorFlow has no more records.

        Raises:
            DataError: it has.
        """
        if len(self._pending) or next(self._messages, None) is not None:
            raise self._error(f"TensorFlow reads more than the {records} records that are there.")

    def _error(self, message: str, record: int | None = None) -> DataError:
        return DataError(message, Location(str(self._source.path), record))


def require_tensorflow() -> None:
    """Raise a CallError that says what to install where TensorFlow is missing; imports nothing."""
    if importlib.util.find_spec("tensorflow") is None:
        raise CallError("--reader tensorflow needs TensorFlow: pip install 'kfer-convert[tensorflow]'.")


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
            [sys.executable, "-c", "from converters.formats.tfrecord.tensorflow import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self._received = b""
        self._requests = 0

    def ask(self, request: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        """The batches that answer a request.

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
                header = json.loads(self._read_line(path))
                current = header["request"] == number
                error, size = header.get("error"), header.get("bytes", 0)
                batches = _decoded(self._read(size, path)) if size else []
            except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
                self.close()
                raise DataError(
                    "TensorFlow's process sent what is no message.", Location(str(path))
                ) from None
            if not current:
                continue
            if error is not None:
                raise DataError(f"TensorFlow cannot read the file: {error}.", Location(str(path)))
            if not size:
                return
            yield from batches

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        _process.cache_clear()

    def _read_line(self, path: Path) -> bytes:
        while b"\n" not in self._received:
            self._receive(path)
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _read(self, size: int, path: Path) -> bytes:
        parts = [self._received]
        received = len(self._received)
        while received < size:
            self._received = b""
            self._receive(path)
            parts.append(self._received)
            received += len(self._received)
        data = b"".join(parts)
        self._received = data[size:]
        return data[:size]

    def _receive(self, path: Path) -> None:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + SILENCE_SECONDS
        while not select.select([descriptor], [], [], 1.0)[0]:
            if time.monotonic() > deadline:
                self.close()
                raise DataError(f"TensorFlow was silent for {SILENCE_SECONDS:.0f} s.", Location(str(path)))
        data = os.read(descriptor, _PIPE_BYTES)
        if not data:
            raise self._died(path)
        self._received += data

    def _died(self, path: Path) -> DataError:
        status = self._process.wait()
        _process.cache_clear()
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return DataError(f"TensorFlow's process died ({how}) while it read this file.", Location(str(path)))


def serve() -> None:
    """The program of TensorFlow's process: answer requests from standard input until it closes."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever TensorFlow prints must not come between the messages
    for line in sys.stdin.buffer:
        request = json.loads(line)
        number = request["request"]
        try:
            for batch in _batches(request):
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, batch.schema) as stream:
                    stream.write_batch(batch)
                data = sink.getvalue()
                _send(out, {"request": number, "bytes": data.size}, memoryview(data))
            _send(out, {"request": number, "bytes": 0})
        except Exception as error:  # noqa: BLE001  # whatever it is, the parent must hear of it
            text = f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"
            _send(out, {"request": number, "error": text})
        out.flush()


def _send(out: IO[bytes], header: dict[str, Any], data: bytes | memoryview = b"") -> None:
    out.write(json.dumps(header).encode() + b"\n")
    out.write(data)


def _decoded(data: bytes) -> list[pa.RecordBatch]:
    with pa.ipc.open_stream(data) as stream:
        return list(stream)


def _batches(request: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    import tensorflow as tf

    image, label, *sizes = request["features"]
    form = {image: tf.io.FixedLenFeature([], tf.string)}
    form[label] = tf.io.FixedLenFeature([request["label_count"]], tf.int64)
    form |= {name: tf.io.FixedLenFeature([], tf.int64) for name in sizes}
    dataset = tf.data.TFRecordDataset(request["path"], compression_type=request["compression"])
    for serialized in dataset.skip(request["skip"]).batch(request["batch_records"]):
        parsed = tf.io.parse_example(serialized, form)
        numbers = np.stack([parsed[name].numpy() for name in sizes], axis=1)
        yield record_batch(
            parsed[image].numpy().tolist(), parsed[label].numpy().astype(np.uint8), numbers.astype(np.int32)
        )
