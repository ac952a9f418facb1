"""Hashes files and walks over folders; no link is followed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

from converters.errors import MachineError
from converters.storage.file_list import OutputFile
from converters.storage.files import open_file, open_regular
from converters.storage.object_store import Place

_HASH_CHUNK = 1 << 20

FileState = tuple[int, int, int, int]
"""Inode, size in bytes, and the times of the last modification and of the last change in nanoseconds."""


def file_digest(path: Place, algorithm: str) -> str:
    """Hexadecimal digest of a source file."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open_file(path) as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def hash_file(path: str | os.PathLike[str], *, follow_links: bool = False) -> tuple[int, str]:
    """Size in bytes and hexadecimal SHA-256 of a regular file; a link is followed only where that is asked for."""
    digest = hashlib.sha256()
    size = 0
    descriptor = open_regular(path, follow_links=follow_links)
    try:
        while chunk := os.read(descriptor, _HASH_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    finally:
        os.close(descriptor)
    return size, digest.hexdigest()


def hash_ranges(path: Place, ends: Sequence[int], stop: Sequence[int] = ()) -> tuple[str, list[str]]:
    """Hexadecimal SHA-256 of a file, and of each of its parts: from where one ends to where the next one does.

    Raises:
        CancelledError: ``stop`` is no longer empty.
    """

    def read(size: int) -> bytes:
        if stop:
            raise CancelledError
        return file.read(size)

    whole = hashlib.sha256()
    parts: list[str] = []
    start = 0
    with open_file(path) as file, ThreadPoolExecutor(1) as beside:
        for end in ends:
            digest = hashlib.sha256() if len(ends) > 1 else whole
            while start < end and (chunk := read(min(_HASH_CHUNK, end - start))):
                done = None if digest is whole else beside.submit(whole.update, chunk)
                digest.update(chunk)
                if done is not None:
                    done.result()
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
    folders = [(os.fspath(folder), "")]
    while folders:
        path, prefix = folders.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, f"{prefix}{entry.name}/"))
                else:
                    yield prefix + entry.name


def file_states(folder: str | os.PathLike[str]) -> dict[str, FileState]:
    """What the system says of each file that :func:`walk_files` finds, to see later whether it was changed.

    The time of the last change shows any write, and no program can set it.
    """
    states: dict[str, FileState] = {}
    folders = [(os.fspath(folder), "")]
    while folders:
        path, prefix = folders.pop()
        # By a descriptor, so that the system need not look up the whole path for each file.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((f"{path}/{entry.name}", f"{prefix}{entry.name}/"))
                        continue
                    status = entry.stat(follow_symlinks=False)
                    states[prefix + entry.name] = (
                        status.st_ino,
                        status.st_size,
                        status.st_mtime_ns,
                        status.st_ctime_ns,
                    )
        finally:
            os.close(descriptor)
    return states


def walk_empty_folders(folder: str | os.PathLike[str]) -> Iterator[str]:
    """The folders below a folder that hold nothing, as paths in it with ``/``; links are not followed."""
    folders = [(os.fspath(folder), "")]
    while folders:
        path, prefix = folders.pop()
        empty = True
        with os.scandir(path) as entries:
            for entry in entries:
                empty = False
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, f"{prefix}{entry.name}/"))
        if prefix and empty:
            yield prefix.removesuffix("/")
