"""``MANIFEST.json`` and ``SHA256SUMS``: what was converted, from which bytes, with which result.

The manifest holds no time, no path of a machine and nothing that depends on how the work was divided, so the
same input and options give the same bytes. ``SHA256SUMS`` lists every file of the output but itself, in the
form that ``sha256sum -c`` reads; the manifest lists every file but these two.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from converters.dataset.description import unique_keys
from converters.dataset.report import Report
from converters.errors import CallError, DataError, Location
from converters.storage.file_list import OutputFile, by_path
from converters.storage.files import read_bounded
from converters.storage.tree import walk_empty_folders, walk_files

MANIFEST = "MANIFEST.json"
SUMS = "SHA256SUMS"
MANIFEST_VERSION = 1

DEFINITION = (
    "labels_sha256: SHA-256 of the label vectors, row after row, one byte (0 or 1) per label, in the order of "
    "label_names. images_sha256: hash tree whose leaves are the SHA-256 of each image's bytes in record order; "
    "neighbours are joined to the SHA-256 of their two digests, level by level; an odd one at the end moves up "
    "unchanged. identities_sha256: the same tree over the UTF-8 text img_id + newline + clip_id of each record."
)

# How large a manifest may be: a description, and an entry for each file that is really there (a path has at most
# four names of 255 bytes). JSON takes up to twenty times its size in memory, so nothing larger is parsed.
_MAX_HEAD_BYTES = 8 << 20
_MAX_ENTRY_BYTES = 2 << 10


def write_manifest(report: Report, folder: Path) -> None:
    """Write ``SHA256SUMS`` and then ``MANIFEST.json`` of a complete output."""
    document = {
        "manifest_version": MANIFEST_VERSION,
        "written_by": {"kfer-convert": version("kfer-convert"), "pyarrow": version("pyarrow")},
        "format": report.format,
        "options": report.options,
        "dataset": report.spec.document,
        "fingerprint_definition": DEFINITION,
        "splits": [split.to_json() for split in report.splits],
        "absent": [split.title for split in report.absent],
        "warnings": list(report.warnings),
        "allow_mismatch": report.allow_mismatch,
        "empty_folders": sorted(walk_empty_folders(folder)),
    }
    head = json.dumps(document, indent=1, ensure_ascii=False).removesuffix("\n}")
    # Written line by line, as there may be tens of thousands of files; it gets its name when the sums are there.
    digest = hashlib.sha256()
    unnamed = folder / f"{MANIFEST}.new"
    with unnamed.open("xb") as manifest:
        for piece in _manifest_pieces(head, report.files):
            digest.update(piece)
            manifest.write(piece)
    with (folder / SUMS).open("x", encoding="utf-8", newline="\n") as file:
        file.writelines(_sums_lines(report.files, digest.hexdigest()))
    unnamed.rename(folder / MANIFEST)


def _manifest_pieces(head: str, files: Iterable[OutputFile]) -> Iterator[bytes]:
    """The text of the manifest: ``head``, all before the files, and then the files, one to a line."""
    yield f'{head},\n "files": [\n  '.encode()
    encode = json.JSONEncoder(ensure_ascii=False).encode
    separator = ""
    for path, size, sha256 in files:
        entry = f'{{"path": {encode(path)}, "size": {size}, "sha256": "{sha256}"}}'
        yield (separator + entry).encode()
        separator = ",\n  "
    yield b"\n ]\n}\n"


def sums_text(files: Iterable[OutputFile], manifest: bytes) -> str:
    """The text of ``SHA256SUMS``: every file in the order of their paths, the manifest among them."""
    return "".join(_sums_lines(sorted(files, key=by_path), hashlib.sha256(manifest).hexdigest()))


def _sums_lines(files: Iterable[OutputFile], manifest_sha256: str) -> Iterator[str]:
    """``files`` are in the order of their paths."""
    for file in heapq.merge(files, [OutputFile(MANIFEST, 0, manifest_sha256)], key=by_path):
        yield f"{file.sha256}  {file.path}\n"


def max_manifest_bytes(files: int) -> int:
    """How large the manifest of an output of so many files may be."""
    return _MAX_HEAD_BYTES + files * _MAX_ENTRY_BYTES


def read_manifest(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The manifest of an output, and its bytes.

    Raises:
        CallError: the folder is not there, or holds no manifest.
        DataError: the manifest is no JSON object of a known version.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise CallError(f"{folder}: there is no such folder.")
    try:
        files = sum(1 for _ in walk_files(folder))
        data = read_bounded(path, max_manifest_bytes(files), follow_links=False)
    except FileNotFoundError:
        raise CallError(
            f"{folder}: no {MANIFEST} is here, so this is no finished output of kfer-convert."
        ) from None
    except OSError as error:
        raise DataError(f"the manifest cannot be read: {error.strerror}.", Location(str(path))) from error
    try:
        document = json.loads(data, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the manifest is not JSON: {error}.", Location(str(path))) from None
    version_found = document.get("manifest_version") if isinstance(document, dict) else None
    if version_found != MANIFEST_VERSION or type(version_found) is not int:
        raise DataError(f"expected a manifest of version {MANIFEST_VERSION}.", Location(str(path)))
    return document, data
