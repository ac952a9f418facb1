"""What a push has to do: the output's files held against the repo's. Pure functions; nothing is sent here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import RepoFile

from converters.dataset.manifest import MANIFEST, SUMS
from converters.dataset.report import Report
from converters.formats.readme import LICENCE, README
from converters.storage.file_list import OutputFile
from converters.storage.tree import hash_file

# The Hub makes it with the repo; it says which files are kept as large ones.
HUB_FILES = frozenset({".gitattributes"})

_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Changes:
    """What a push sends, replaces, leaves and finds; each in the order in which it is sent, or by name."""

    new: tuple[OutputFile, ...]
    replaced: tuple[OutputFile, ...]
    unchanged: tuple[OutputFile, ...]
    extra: tuple[str, ...]

    @property
    def pending(self) -> list[OutputFile]:
        """All that is to be sent, in order."""
        return sending_order([*self.new, *self.replaced])

    @property
    def pending_bytes(self) -> int:
        """How much that is."""
        return sum(file.size for file in self.pending)


def local_files(out: Path, report: Report) -> tuple[OutputFile, ...]:
    """All files of a verified output, the manifest and ``SHA256SUMS`` among them, in the order of sending."""
    own = [OutputFile(name, *hash_file(out / name)) for name in (MANIFEST, SUMS)]
    return tuple(sending_order([*report.files, *own]))


def sending_order(files: Iterable[OutputFile]) -> list[OutputFile]:
    """The terms and the card first, so that no data ever lies there without them; last what says *complete*."""
    first, last = (LICENCE, README), (MANIFEST, SUMS)

    def rank(file: OutputFile) -> tuple[int, str]:
        return (0 if file.path in first else 2 if file.path in last else 1), file.path

    return sorted(files, key=rank)


def find_changes(
    out: Path,
    files: Sequence[OutputFile],
    remote: Mapping[str, RepoFile],
    digest: Callable[[OutputFile], str | None] = lambda _: None,
) -> Changes:
    """Compare the output's files with the repo's, by size and by the digest that the Hub lists.

    Of a file of the right size with another digest, ``digest`` is asked for the SHA-256 of what the Hub hands out: not
    every Hub lists the digests that huggingface.co does, and no file is to be sent twice.
    """
    new, replaced, unchanged = [], [], []
    for file in files:
        there = remote.get(file.path)
        if there is None:
            new.append(file)
        elif there.size == file.size and (listed_as(out, file, there) or digest(file) == file.sha256):
            unchanged.append(file)
        else:
            replaced.append(file)
    extra = sorted(remote.keys() - {file.path for file in files} - HUB_FILES)
    return Changes(tuple(new), tuple(replaced), tuple(unchanged), tuple(extra))


def listed_as(out: Path, file: OutputFile, there: RepoFile) -> bool:
    """Whether the Hub's own listing says that it has this very file, of whose size it is.

    It has the SHA-256 of a large file; of all others, the name of the git blob is the digest of the content.
    """
    if there.lfs:
        return there.lfs.sha256 == file.sha256
    return there.blob_id == git_oid(out / file.path, file.size)


def git_oid(path: Path, size: int) -> str:
    """SHA-1 of a file as a git blob, which is how the Hub names what is no large file."""
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def groups(files: Sequence[OutputFile], most_bytes: int | None) -> list[list[OutputFile]]:
    """The files cut into commits of at most ``most_bytes`` (a larger file alone); None: one commit."""
    found: list[list[OutputFile]] = []
    size = 0
    for file in files:
        if not found or (most_bytes is not None and size + file.size > most_bytes):
            found.append([])
            size = 0
        found[-1].append(file)
        size += file.size
    return found
