"""What is known of a source file once it was read; manifests state it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from converters.dataset.decode import Count, Sha256
from converters.dataset.filenames import unsafe_name

Compression = Literal["none", "gzip", "zlib"]


def _not_false(indexed: bool | None) -> str | None:
    return "a file that disagrees with its index is not converted" if indexed is False else None


@dataclass(frozen=True)
class SourceFacts:
    """A source file as it was read: name, bytes, SHA-256 as stored, records, compression.

    ``indexed`` says whether it agreed with its index; None where there is none.
    """

    file: Annotated[str, unsafe_name]
    bytes: Count
    sha256: Sha256
    records: Count
    compression: Compression
    indexed: Annotated[bool | None, _not_false]
