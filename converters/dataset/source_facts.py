"""What is known of a source file once it was read; manifests state it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from converters.dataset.decode import Count, Sha256
from converters.dataset.filenames import safe_path

Compression = Literal["none", "gzip", "zlib"]


def _not_false(indexed: bool | None) -> str | None:
    return "a file that disagrees with its index is not converted" if indexed is False else None


def _unsafe_path(path: str) -> str | None:
    return None if safe_path(path) else f"the path {path!r} leaves the source, or is not printable"


@dataclass(frozen=True)
class SourceFacts:
    """A source file as it was read.

    Attributes:
        name: its name, relative to the source folder.
        bytes: its size as stored.
        sha256: of its bytes as stored; None where it was read in several ranges.
        ranges: where each of several ranges ends, and the SHA-256 of its bytes.
        records: their number.
        example_bytes: size of the Examples in it, without their framing.
        compression: how it is compressed.
        indexed: whether it agreed with its index; None where there is none.
        published: the digest that a checksum file beside it states, as ``sha256:…`` or ``md5:…``.
        md5: of its bytes, where that is what is published.
    """

    name: Annotated[str, _unsafe_path]
    bytes: Count
    sha256: Sha256 | None
    records: Count
    example_bytes: Count
    compression: Compression
    indexed: Annotated[bool | None, _not_false]
    ranges: tuple[tuple[Count, Sha256], ...] = ()
    published: str | None = None
    md5: str | None = None
