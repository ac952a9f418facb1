"""Refuses an output that would lie in what is read, or the other way round."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from converters.errors import CallError
from converters.storage.files import staging_place
from converters.storage.object_store import ObjectPath, Place, store_name


def refuse_nesting(out: Place, inputs: Sequence[Place]) -> None:
    """Neither the output nor its staging folder may be, hold or lie in a folder that is read.

    Raises:
        CallError: it does, or it cannot be an output at all.
    """
    grows: Place
    if isinstance(out, Path):
        folders = _real_folders(out)
        grows = staging_place(out)
        nests: list[Place] = [
            read for read in inputs if isinstance(read, Path) and _nests(folders, _resolved(out, read))
        ]
    else:
        _refuse_root(out)
        grows = staging_place(out)
        urls = [f"{store_name(out)}/", f"{store_name(grows)}/"]
        others = [(read, f"{store_name(read)}/") for read in inputs if not isinstance(read, Path)]
        nests = [
            read for read, other in others if any(u.startswith(other) or other.startswith(u) for u in urls)
        ]
    if nests:
        raise CallError(
            f"{out}: the output, which grows in {grows}, and {nests[0]}, which is read, must not "
            "lie in each other. Choose another --out."
        )


def _refuse_root(out: ObjectPath) -> None:
    """Beside a bucket are only other buckets, which may be anybody's."""
    if "/" not in out.url.partition("://")[2]:
        raise CallError(
            f"{out}: an output grows beside its destination, and beside a bucket is only another bucket. "
            f"Choose a folder in it: --out {out / 'kfer'}"
        )


def _real_folders(out: Path) -> list[Path]:
    """The folders that a run to ``out`` makes, by their real names."""
    try:
        os.fspath(out).encode()
    except UnicodeEncodeError:
        raise CallError(f"{os.fspath(out)!r}: this path is not UTF-8. Choose another --out.") from None
    place = _resolved(out, out)
    if not place.name or not out.name:
        raise CallError(
            f"{out}: this cannot be an output folder. Name a new folder, such as {out / 'kfer-parquet'}"
        )
    return [place, _resolved(out, staging_place(place))]


def _resolved(out: Path, path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # Python before 3.13 raises RuntimeError for a loop of links
        raise CallError(f"{out}: this cannot be an output folder: {error}. Choose another --out.") from None


def _nests(folders: Sequence[Path], other: Path) -> bool:
    return any(_lies_in(folder, other) or _lies_in(other, folder) for folder in folders)


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or below it, by name or by what the system says is the same folder.

    One folder has several names where case does not count, and where it is mounted twice.
    """
    if path == folder or folder in path.parents:
        return True
    try:
        status = folder.stat()
    except OSError:
        return False
    for ancestor in (path, *path.parents):
        try:
            if os.path.samestat(ancestor.stat(), status):
                return True
        except OSError:
            continue  # not there yet
    return False
