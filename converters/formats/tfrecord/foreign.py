"""What a file is that lies among TFRecords, or what a record is that is no Example, in words."""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from converters.dataset.image_header import sniff
from converters.dataset.source_facts import Compression
from converters.formats.tfrecord.compression import WINDOW_BITS, StoredFile, compression_of
from converters.formats.tfrecord.framing import HEADER_BYTES, is_header
from converters.formats.tfrecord.strict_parser import ExampleError, parse_example
from converters.storage.object_store import Place

_HEAD_BYTES = 4096

_MAGICS = {
    b"version https://git-lfs": "a Git LFS pointer, in place of the file itself (git lfs pull fetches it)",
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF document",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x93NUMPY": "a NumPy file",
    b"SQLite format": "an SQLite database",
    b"Obj\x01": "an Avro file",
}
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")


@dataclass(frozen=True)
class Look:
    """What the first bytes of a file say.

    Attributes:
        kind: ``tfrecord``: a record's header is there; ``empty``: nothing is there, be it compressed; ``foreign``:
            something else, see ``words``; ``unknown``: none of these, as a TFRecord whose first header is damaged.
        compression: how it is compressed, as far as that can be told.
        words: what it is; empty of the other kinds.
    """

    kind: Literal["tfrecord", "empty", "foreign", "unknown"]
    compression: Compression = "none"
    words: str = ""


def look_at(path: Place) -> Look:
    """Tell a file by its first bytes.

    Raises:
        CallError: it is not there.
        DataError: it cannot be opened or read.
    """
    with StoredFile(path) as file:
        head = file.read(_HEAD_BYTES)
    return look_at_bytes(head)


def look_at_bytes(head: bytes) -> Look:
    """The same of the first bytes themselves."""
    if not head:
        return Look("empty")
    if is_header(head):
        return Look("tfrecord")
    compression = compression_of(head)
    inflated = b""
    if compression != "none":
        inflate = zlib.decompressobj(WINDOW_BITS[compression])
        with suppress(zlib.error):
            inflated = inflate.decompress(head, _HEAD_BYTES)
        if is_header(inflated):
            return Look("tfrecord", compression)
        if not inflated and inflate.eof and not inflate.unused_data:
            return Look("empty", compression)
    if compression == "gzip":
        words = file_words(inflated) if inflated else None
        return Look("foreign", compression, f"gzip of {words}") if words else Look("unknown", compression)
    words = file_words(head)
    return Look("foreign", words=words) if words else Look("unknown", compression)


def file_words(head: bytes) -> str | None:
    """What a file is that begins so, where that can be told."""
    for magic, words in _MAGICS.items():
        if head.startswith(magic):
            return words
    if head[257:262] == b"ustar":
        return "a tar archive"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(_HTML):
        return "an HTML page, such as a login or an error page, in place of the file itself"
    if start.startswith(b"<?xml"):
        return "an XML document"
    if encoding := sniff(head):
        return f"a {encoding} image"
    if len(head) >= HEADER_BYTES and not any(head):
        return "nothing but zero bytes"
    try:
        text = head[:-4].decode() if len(head) == _HEAD_BYTES else head.decode()
    except UnicodeDecodeError:
        return None
    if not all(character.isprintable() or character.isspace() for character in text):
        return None
    return "JSON" if start[:1] in (b"{", b"[") else "text"


# ---- Records ------------------------------------------------------------------------------------------


def record_words(data: bytes | memoryview) -> str | None:
    """What a record is that is no Example, where that can be told.

    Not for records that may be damaged: another message may be anything.
    """
    data = bytes(data[: 1 << 20]) if len(data) > 1 << 20 else bytes(data)
    if is_sequence_example(data):
        return "a tf.train.SequenceExample"
    fields = _fields(data)
    if fields is not None and _has_features(fields):
        return None
    if fields is not None:
        numbers = sorted({number for number, _ in fields})
        return f"a protobuf message of another type (fields {', '.join(map(str, numbers[:10]))})"
    return file_words(data)


def is_sequence_example(data: bytes) -> bool:
    """Whether these are ``context`` (Features) and ``feature_lists``: a map of lists of Features."""
    fields = _fields(data)
    if not fields or not {1, 2} >= {number for number, _ in fields}:
        return False
    lists = [content for number, content in fields if number == 2]
    context = [content for number, content in fields if number == 1]
    if len(lists) != 1 or len(context) > 1 or lists[0] is None:
        return False
    entries = _fields(lists[0])
    return entries is not None and all(_is_feature_list(content) for _, content in entries)


def _has_features(fields: list[tuple[int, bytes | None]]) -> bool:
    """Whether these are an Example's, whatever is wrong with its features: a map of names to messages."""
    if [number for number, _ in fields] != [1] or not (entries := _fields(fields[0][1] or b"")):
        return False
    inner = [_fields(entry or b"") if number == 1 else None for number, entry in entries]
    return all(entry and sorted(number for number, _ in entry) in ([1], [1, 2]) for entry in inner)


def _is_feature_list(entry: bytes | None) -> bool:
    fields = None if entry is None else _fields(entry)
    if not fields or [number for number, _ in fields] not in ([1], [1, 2]):
        return False
    features = [] if len(fields) == 1 else _fields(fields[1][1] or b"")
    return features is not None and all(number == 1 and _is_feature(content) for number, content in features)


def _is_feature(content: bytes | None) -> bool:
    if content is None:
        return False
    # A map entry of an Example, and around it the Example, so that the strict parser can say what it thinks.
    entry = b"\x0a\x00\x12" + _length(content) + content
    features = b"\x0a" + _length(entry) + entry
    try:
        parse_example(b"\x0a" + _length(features) + features)
    except ExampleError:
        return False
    return True


def _length(content: bytes) -> bytes:
    size, encoded = len(content), bytearray()
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*encoded, size])


def _fields(data: bytes) -> list[tuple[int, bytes | None]] | None:
    """The fields of any message: number, and content where it is delimited. None if the bytes are no message."""
    found: list[tuple[int, bytes | None]] = []
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        content: bytes | None = None
        if wire == 0:
            _, position = _varint(data, position)
        elif wire == 2:
            size, position = _varint(data, position)
            content = data[position : position + size]
            position += size
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            return None
        if not 0 < number < 1 << 29 or not 0 < position <= len(data):
            return None
        found.append((number, content))
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The varint at ``position`` and where it ends; an end beyond the data where there is none."""
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    return value, len(data) + 1
