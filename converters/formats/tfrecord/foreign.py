"""What a file is that lies among TFRecords, or what a record is that is no Example, in words."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from converters.dataset.image_header import sniff
from converters.dataset.source_facts import Compression
from converters.formats.tfrecord.compression import WINDOW_BITS, StoredFile, compression_of
from converters.formats.tfrecord.framing import HEADER_BYTES, is_header
from converters.formats.tfrecord.strict_parser import (
    FIRST_TAG,
    VALUE_TAG,
    Data,
    ExampleError,
    fields,
    parse_example,
)
from converters.storage.object_store import Place

_HEAD_BYTES = 4096
_MANY_FIELDS = 10

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


def record_words(data: Data) -> str | None:
    """What a record is that is no Example, where that is clear; of others, the parser's error tells more.

    Not for records that may be damaged: another message may be anything.
    """
    with suppress(ExampleError):
        parse_example(data)
        return None
    if is_sequence_example(data):
        return "a tf.train.SequenceExample"
    numbers: set[int] = set()
    try:
        for tag, content in _parts(data):
            if tag == FIRST_TAG and _has_map_entry(content):
                return None
            if len(numbers) < _MANY_FIELDS:
                numbers.add(tag >> 3)
    except ExampleError:
        return file_words(bytes(data[:_HEAD_BYTES]))
    return f"a protobuf message of another type (fields {', '.join(map(str, sorted(numbers)))})"


def is_sequence_example(data: Data) -> bool:
    """Whether these are ``context`` (Features) and ``feature_lists``: maps, the one of Features, the other of lists."""
    names_and_values = {FIRST_TAG, VALUE_TAG}
    has_lists = False
    try:
        for tag, entries in _parts(data):
            has_lists |= tag == VALUE_TAG
            if tag not in names_and_values or any(
                inner != FIRST_TAG or any(innermost not in names_and_values for innermost, _ in _parts(entry))
                for inner, entry in _parts(entries)
            ):
                return False
    except ExampleError:
        return False
    return has_lists


def _has_map_entry(features: Data) -> bool:
    """Whether an Example's features may be meant, whatever is wrong with them."""
    try:
        return any(
            tag == FIRST_TAG and any(inner in (FIRST_TAG, VALUE_TAG) for inner, _ in _parts(entry))
            for tag, entry in _parts(features)
        )
    except ExampleError:
        return False


def _parts(message: Data) -> Iterator[tuple[int, Data]]:
    """The tag and the content of each field of a message."""
    view = memoryview(message)
    for _, tag, start, end in fields(view, 0, len(view)):
        yield tag, view[start:end]
