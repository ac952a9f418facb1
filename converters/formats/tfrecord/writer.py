"""Writes TFRecord files of ``tf.train.Example``, and the ``.idx`` files that NVIDIA DALI reads beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from converters.formats.tfrecord.framing import frame

# Wire format of tf.train.Example (tensorflow/core/example/{example,feature}.proto):
#   Example { features = 1 }, Features { map<string, Feature> feature = 1 },
#   Feature { bytes_list = 1 | float_list = 2 | int64_list = 3 }, each list { value = 1 }.
_BYTES_LIST, _INT64_LIST = 1, 3


def encode_example(features: Mapping[str, bytes | Sequence[int]]) -> bytes:
    """A serialised ``tf.train.Example``: bytes become a bytes_list of one, integers a packed int64_list.

    The features stand in the mapping's order.
    """
    entries = []
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = _delimited(_BYTES_LIST, _delimited(1, value))
        else:
            feature = _delimited(_INT64_LIST, _delimited(1, b"".join(map(_varint, value))))
        entries.append(_delimited(1, _delimited(1, name.encode()) + _delimited(2, feature)))
    return _delimited(1, b"".join(entries))


class TFRecordWriter:
    """Writes records to ``path`` and, where given, their offsets and sizes to ``index``.

    Existing files are not replaced.
    """

    def __init__(self, path: Path, index: Path | None = None) -> None:
        self._file = path.open("xb")
        self._index = None if index is None else index.open("x", encoding="ascii", newline="\n")
        self._offset = 0

    def write(self, data: bytes) -> None:
        """Append one record."""
        record = frame(data)
        self._file.write(record)
        if self._index is not None:
            self._index.write(f"{self._offset} {len(record)}\n")
        self._offset += len(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._index is not None:
            self._index.close()


def _delimited(field: int, payload: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF  # negative numbers are ten bytes of two's complement
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
