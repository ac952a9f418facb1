"""``MANIFEST.json`` and ``SHA256SUMS``: what was converted, from which bytes, with which result.

The manifest holds no time, no path of a machine and nothing that depends on how the work was divided, so the
same input and options give the same bytes. ``SHA256SUMS`` lists every file of the output but itself, in the
form that ``sha256sum -c`` reads; the manifest lists every file but these two.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from converters.dataset.decode import (
    DecodeError,
    Sha256,
    decode,
    encode,
    load_json,
    not_a_count,
    not_a_sha256,
)
from converters.dataset.description import IDENTITIES, Description, Split, with_columns
from converters.dataset.filenames import safe_path
from converters.dataset.fingerprint import Fingerprint, Tree, node_places
from converters.dataset.quarantine import Quarantine, check_quarantine
from converters.dataset.report import Check, OutputPath, Report, ShardFacts
from converters.dataset.source_facts import SourceFacts
from converters.errors import CallError, DataError, Location
from converters.storage.file_list import OutputFile, by_path, in_columns
from converters.storage.files import read_bounded
from converters.storage.tree import count_files, walk_empty_folders

MANIFEST = "MANIFEST.json"
SUMS = "SHA256SUMS"
MANIFEST_VERSION = 2

DEFINITION = (
    "records_sha256: root of a hash tree as in RFC 9162, section 2.1.1, over the records in their order. leaf = "
    "SHA-256(0x00, value of column 1, ..., value of column n), of the columns that are not derived, in the order of "
    "columns. value = number of values as 8 bytes little-endian (2^64-1 for null), then each value: of binary and "
    "string its length as 8 bytes little-endian and its bytes; of integers 8 bytes little-endian; of float32 its 4 "
    "bytes little-endian; of the role image the 32 bytes of its SHA-256. node = SHA-256(0x01, left, right). "
    "labels_sha256: SHA-256 of label vectors, row after row, one byte (0 or 1) per label. identities_sha256: a tree "
    "of the same shape, without the bytes 0x00 and 0x01, whose leaves are the SHA-256 of the UTF-8 text img_id + "
    "newline + clip_id."
)

# How large a manifest may be: a description, and an entry for each file that is really there (a path has at most
# four names of 255 bytes). JSON takes up to twenty times its size in memory, so nothing larger is parsed.
_MAX_HEAD_BYTES = 8 << 20
_MAX_ENTRY_BYTES = 2 << 10


def _file(file: OutputFile) -> str | None:
    if not safe_path(file.path):
        return f"the file name {file.path!r} leaves the output"
    return not_a_count(file.size) or not_a_sha256(file.sha256)


def _no_file_twice(files: Sequence[OutputFile]) -> str | None:
    paths = Counter([MANIFEST, SUMS, *(file.path for file in files)])
    ((path, times),) = paths.most_common(1)
    return f"the file {path!r} stands twice" if times > 1 else None


def _positive(value: int) -> str | None:
    return None if value > 0 else f"expected a number from 1 on, found {value}"


@dataclass(frozen=True)
class StatedOptions:
    """The options that an output depends on, as its manifest says."""

    configs: tuple[str, ...]
    splits: tuple[str, ...]
    without: tuple[str, ...]
    labels: bool
    on_error: Literal["fail", "quarantine"]
    format_options: Mapping[str, bool | int | str]
    max_record_bytes: Annotated[int, _positive]
    max_shard_bytes: Annotated[int, _positive]


@dataclass(frozen=True)
class StatedSplit:
    """What a manifest says of one split."""

    config: str
    split: str
    columns: tuple[Any, ...]
    sources: tuple[SourceFacts, ...]
    fingerprint: Fingerprint
    shards: tuple[ShardFacts, ...]
    joined: tuple[OutputPath, ...]
    checks: tuple[Check, ...]
    quarantine: Quarantine | None = None

    @property
    def title(self) -> str:
        """``config/split``."""
        return f"{self.config}/{self.split}"


@dataclass(frozen=True)
class Origin:
    """An output that an output was made from: its format, what wrote it, and the SHA-256 of its manifest."""

    format: str
    written_by: Mapping[str, str]
    manifest_sha256: Sha256

    @classmethod
    def of(cls, manifest: Manifest, data: bytes) -> Origin:
        """The output whose manifest has these bytes."""
        return cls(manifest.format, manifest.written_by, hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """What a manifest says. It is data from outside: see :func:`read_manifest` for what is checked of it."""

    manifest_version: int
    written_by: Mapping[str, str]
    format: str
    origin: tuple[Origin, ...]
    options: StatedOptions
    dataset: Description
    fingerprint_definition: str
    splits: tuple[StatedSplit, ...]
    absent: tuple[str, ...]
    warnings: tuple[str, ...]
    allow_mismatch: bool
    empty_folders: tuple[str, ...]
    files: Annotated[tuple[Annotated[OutputFile, _file], ...], _no_file_twice]

    def split(self, entry: StatedSplit) -> Split:
        """The split that an entry of ``splits`` is about, with the columns that the output has."""
        split = next(split for split in self.dataset.splits() if split.title == entry.title)
        return with_columns(split, self.options.without, self.options.labels)


def write_manifest(report: Report, folder: Path) -> None:
    """Write ``SHA256SUMS`` and then ``MANIFEST.json`` of a complete output."""
    document = {
        "manifest_version": MANIFEST_VERSION,
        "written_by": {"kfer-convert": version("kfer-convert"), "pyarrow": version("pyarrow")},
        "format": report.format,
        "origin": encode(report.origin),
        "options": report.options,
        "dataset": report.description.document,
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
    separator = ""
    for paths, sizes, digests in in_columns(files):
        # All paths at once, one to a line; a line break in a path is none in JSON.
        texts = json.dumps(list(paths), ensure_ascii=False, separators=("\n", ":"))[1:-1].split("\n")
        entries = [
            f'{{"path": {path}, "size": {size}, "sha256": "{sha256}"}}'
            for path, size, sha256 in zip(texts, sizes, digests, strict=True)
        ]
        yield (separator + ",\n  ".join(entries)).encode()
        separator = ",\n  "
    yield b"\n ]\n}\n"


def sums_text(files: Iterable[OutputFile], manifest: bytes) -> str:
    """The text of ``SHA256SUMS``: every file in the order of their paths, the manifest among them."""
    return "".join(_sums_lines(sorted(files, key=by_path), hashlib.sha256(manifest).hexdigest()))


def _sums_lines(files: Iterable[OutputFile], manifest_sha256: str) -> Iterator[str]:
    """``files`` are in the order of their paths; many lines at once."""
    manifest = f"{manifest_sha256}  {MANIFEST}\n"
    for paths, _, digests in in_columns(files):
        lines = [f"{sha256}  {path}\n" for path, sha256 in zip(paths, digests, strict=True)]
        if manifest and paths[-1] > MANIFEST:
            lines.insert(bisect_left(paths, MANIFEST), manifest)
            manifest = ""
        yield "".join(lines)
    yield manifest


def max_manifest_bytes(files: int) -> int:
    """How large the manifest of an output of so many files may be."""
    return _MAX_HEAD_BYTES + files * _MAX_ENTRY_BYTES


def manifest_document(folder: Path, files: int | None = None) -> tuple[dict[str, Any], bytes]:
    """The manifest of an output as it stands there, of whatever version, and its bytes.

    Raises:
        CallError: the folder is not there, or holds no manifest.
        DataError: the manifest is no JSON object.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise CallError(f"{folder}: there is no such folder.")
    try:
        files = count_files(folder) if files is None else files
        data = read_bounded(path, max_manifest_bytes(files), follow_links=False)
        return decode(dict, load_json(data, ""), ""), data
    except FileNotFoundError:
        raise CallError(
            f"{folder}: no {MANIFEST} is here, so this is no finished output of kfer-convert."
        ) from None
    except OSError as error:
        raise DataError(f"the manifest cannot be read: {error.strerror}.", Location(str(path))) from error
    except DecodeError as error:
        raise DataError(f"{error}.", Location(str(path))) from None


def read_manifest(folder: Path, files: int | None = None) -> tuple[Manifest, bytes]:
    """The manifest of an output, of the right form and without contradictions, and its bytes.

    ``files`` is how many files the output has, where they are not in the folder.

    Raises:
        CallError: the folder is not there, or holds no manifest.
        DataError: the manifest is of another version, or is none that kfer-convert writes.
    """
    document, data = manifest_document(folder, files)
    version_found = document.get("manifest_version")
    at = Location(str(folder / MANIFEST))
    if version_found == 1 and type(version_found) is int:
        raise CallError(
            f"{folder}: this output is of version 1 of kfer-convert, whose proofs this version does not check. Check "
            "its files with: sha256sum -c SHA256SUMS"
        )
    if version_found != MANIFEST_VERSION or type(version_found) is not int:
        raise DataError(f"expected a manifest of version {MANIFEST_VERSION}.", at)
    try:
        manifest = decode(Manifest, document, "")
        _refuse_other_splits(manifest)
        for number, entry in enumerate(manifest.splits):
            _check_split(manifest, entry, f"splits {number}")
    except ValueError as error:
        raise DataError(f"this is no manifest that kfer-convert writes: {error}.", at) from None
    return manifest, data


def _refuse_other_splits(manifest: Manifest) -> None:
    """What was converted and what was absent are, in order, what was asked for."""
    configs, names = manifest.options.configs, manifest.options.splits
    asked = [
        split.title
        for split in manifest.dataset.splits()
        if (not configs or split.config in configs) and (not names or split.name in names)
    ]
    stated, absent = [entry.title for entry in manifest.splits], list(manifest.absent)
    expected = (
        [title for title in asked if title not in absent],
        [title for title in asked if title not in stated],
    )
    if (stated, absent) != expected or not stated:
        raise ValueError(f"splits {stated} and absent {absent} are not what was asked for, {asked}")


def _check_split(manifest: Manifest, entry: StatedSplit, place: str) -> None:
    """What a manifest says of a split agrees with its description, its options and its files."""
    split = manifest.split(entry)
    columns = (list(entry.columns), [column.to_json() for column in split.schema])
    stated, expected = (json.dumps(each, sort_keys=True) for each in columns)  # as text, for 0 equals false
    if stated != expected:
        raise DecodeError("the columns are not those of the dataset's description", place)
    identified = split.schema.joined_names >= IDENTITIES.keys()
    if entry.fingerprint.records and (entry.fingerprint.identities_sha256 is not None) != identified:
        raise DecodeError("the columns and the identities contradict each other", place)
    tree, first = Tree(0), 0
    for number, shard in enumerate(entry.shards):
        if [(node.level, node.number) for node in shard.nodes] != node_places(first, shard.records):
            raise DecodeError("the nodes are not those of so many records", place, "shards", str(number))
        if len(set(shard.files)) < len(shard.files):
            raise DecodeError("a file stands twice", place, "shards", str(number), "files")
        for node in shard.nodes:
            tree.push(node)
        first += shard.records
    if not {file.path for file in manifest.files}.issuperset(entry.joined):
        raise DecodeError("a joined file is not among the files", place)
    if sum(shard.records for shard in entry.shards) != entry.fingerprint.records:
        raise DecodeError("the records of its shards are not its own", place)
    if tree.root() != entry.fingerprint.records_sha256:
        raise DecodeError("the nodes of its shards are not those of records_sha256", place)
    # What an output was made from has its quarantine from there.
    if (manifest.options.on_error == "quarantine") != (entry.quarantine is not None and not manifest.origin):
        raise DecodeError("the quarantine and the option on_error contradict each other", place)
    if entry.quarantine is not None:
        output = {file.path: file.size for file in manifest.files}
        try:
            check_quarantine(entry.quarantine, entry.sources, output)
        except ValueError as error:
            raise DecodeError(str(error), place, "quarantine") from None
