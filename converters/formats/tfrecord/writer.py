"""Writes TFRecord files, and the ``.idx`` files that NVIDIA DALI reads beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from converters.formats.tfrecord.framing import OVERHEAD_BYTES, footer, header

_BUFFER_BYTES = 1 << 20


class TFRecordWriter:
    """Writes records to ``path`` and, where given, their offsets and sizes to ``index``.

    Existing files are not replaced.
    """

    def __init__(self, path: Path, index: Path | None = None) -> None:
        self._file = path.open("xb", buffering=_BUFFER_BYTES)
        self._index = None if index is None else index.open("x", encoding="ascii", newline="\n")
        self._offset = 0

    def write(self, data: bytes) -> None:
        """Append one record."""
        for piece in (header(len(data)), data, footer(data)):
            self._file.write(piece)
        size = len(data) + OVERHEAD_BYTES
        if self._index is not None:
            self._index.write(f"{self._offset} {size}\n")
        self._offset += size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()
        if self._index is not None:
            self._index.close()
