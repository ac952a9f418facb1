"""Hashes files and walks over folders; no link is followed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

from converters.errors import MachineError
from converters.storage.digests import Sha256Beside
from converters.storage.file_list import OutputFile
from converters.storage.files import open_file, open_regular
from converters.storage.object_store import Place

_HASH_CHUNK = 1 << 20
_ENTRIES_AT_ONCE = 1024


def file_digest(path: Place, algorithm: str) -> str:
    """Hexadecimal digest of a source file."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open_file(path) as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def hash_file(path: str | os.PathLike[str], *, follow_links: bool = False) -> tuple[int, str]:
    """Size in bytes and hexadecimal SHA-256 of a regular file; a link is followed only where that is asked for."""
    with open(open_regular(path, follow_links=follow_links), "rb", buffering=0) as file:  # noqa: PTH123  # a descriptor
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


def hash_ranges(path: Place, ends: Sequence[int], stop: Sequence[int] = ()) -> tuple[str, list[str]]:
    """Hexadecimal SHA-256 of a file, and of each of its parts: from where one ends to where the next one does.

    Raises:
        KeyboardInterrupt: ``stop`` is no longer empty.
    """

    def read(size: int) -> bytes:
        if stop:
            raise KeyboardInterrupt
        return file.read(size)

    parts: list[str] = []
    start = 0
    with open_file(path) as file, closing(Sha256Beside()) as whole:
        for end in ends:
            digest = hashlib.sha256() if len(ends) > 1 else whole
            while start < end and (chunk := read(min(_HASH_CHUNK, end - start))):
                whole.update(chunk)
                if digest is not whole:
                    digest.update(chunk)
                start += len(chunk)
            parts.append(digest.hexdigest())
        while chunk := read(_HASH_CHUNK):
            whole.update(chunk)
        return whole.hexdigest(), parts


def join_files(folder: Place, parts: Sequence[OutputFile], target: Path) -> tuple[int, str]:
    """Write the files ``parts`` of a folder one after the other to the new file ``target``.

    Returns:
        Its size and SHA-256, as it was read back.

    Raises:
        MachineError: a part is not what it was when it was listed, or the file not what was written.
    """
    whole = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        for part in parts:
            digest = hashlib.sha256()
            with open_file(folder / part.path, follow_links=False) as source:
                while chunk := source.read(_HASH_CHUNK):
                    digest.update(chunk)
                    whole.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != part.sha256:
                raise MachineError(f"{folder / part.path}: changed since it was written and read back")
    size, sha256 = hash_file(target)
    if sha256 != whole.hexdigest():
        raise MachineError(f"{target}: reads back other bytes than were written")
    return size, sha256


def walk_files(folder: str | os.PathLike[str]) -> Iterator[str]:
    """All that lies below a folder and is no folder itself, as paths in it with ``/``; links are not followed."""
    return chain.from_iterable(walk_many_files(folder))


def walk_many_files(folder: str | os.PathLike[str]) -> Iterator[list[str]]:
    """As :func:`walk_files`, many paths at once."""
    return ([path + entry.name for entry in files] for path, files, _ in _walk(folder))


def count_files(folder: str | os.PathLike[str]) -> int:
    """How many :func:`walk_files` finds."""
    return sum(len(files) for _, files, _ in _walk(folder))


def walk_empty_folders(folder: str | os.PathLike[str]) -> Iterator[str]:
    """The folders below a folder that hold nothing, as paths in it with ``/``; links are not followed."""
    return (path.removesuffix("/") for path, _, empty in _walk(folder) if path and empty)


def _walk(folder: str | os.PathLike[str]) -> Iterator[tuple[str, list[os.DirEntry[str]], bool]]:
    """Of each folder, many at once: its path, those of its entries that are no folders, and whether it has none."""
    folders = [(os.fspath(folder), "")]
    while folders:
        place, path = folders.pop()
        with os.scandir(place) as entries:
            for some in _lists(entries):
                below = [entry for entry in some if entry.is_dir(follow_symlinks=False)]
                folders += [(entry.path, f"{path}{entry.name}/") for entry in below]
                kept = [entry for entry in some if not entry.is_dir(follow_symlinks=False)] if below else some
                yield path, kept, not some


def _lists(entries: Iterator[os.DirEntry[str]]) -> Iterator[list[os.DirEntry[str]]]:
    """Many entries at a time; of an empty folder, one empty list."""
    yield list(islice(entries, _ENTRIES_AT_ONCE))
    while some := list(islice(entries, _ENTRIES_AT_ONCE)):
        yield some
