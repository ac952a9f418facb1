"""Brings an output from a store to this machine, to be read here; it goes by the manifest."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from converters.dataset.filenames import safe_path
from converters.dataset.manifest import MANIFEST, Manifest, max_manifest_bytes, read_manifest
from converters.errors import CallError, DataError, Location, MachineError
from converters.storage.files import staging_place
from converters.storage.object_store import (
    SCRATCH,
    ObjectPath,
    ObjectState,
    Place,
    hash_object,
    list_objects,
    side_by_side,
)


def stated_manifest(out: Place) -> tuple[Manifest, bytes]:
    """The manifest of an output, on this machine or in a store; see ``read_manifest``."""
    if isinstance(out, Path):
        return read_manifest(out)
    there = _objects(out)
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as name:
        hash_object(out / MANIFEST, Path(name, MANIFEST))
        return read_manifest(Path(name), files=len(there))


def fetch(out: ObjectPath) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder that holds the objects of an output as files.

    Raises:
        CallError: there is no finished output.
        DataError: an object has a name that leads out of the folder.
        MachineError: there is no room, or the store failed.
    """
    there = _objects(out)
    scratch = tempfile.TemporaryDirectory(prefix=SCRATCH)
    folder = Path(scratch.name)
    needed, free = sum(state.size for state in there.values()), shutil.disk_usage(folder).free
    if needed > free:
        scratch.cleanup()
        raise MachineError(
            f"{out}: to be read it is fetched to {folder.parent}, which has {free:,} bytes free of {needed:,} "
            "that it needs. TMPDIR names another folder."
        )

    def bring(path: str) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        hash_object(out / path, folder / path)

    side_by_side(bring, there)
    return scratch


def _objects(out: ObjectPath) -> dict[str, ObjectState]:
    """The objects of a finished output.

    Raises:
        CallError: there is none.
        DataError: an object has a name that leads out of the folder.
    """
    there = list_objects(out)
    if MANIFEST not in there:
        begun = bool(there or list_objects(staging_place(out)))
        raise CallError(
            f"{out}: incomplete: no {MANIFEST} is here, which is stored last. Run the conversion again to complete it."
            if begun
            else f"{out}: no {MANIFEST} is here, so this is no finished output of kfer-convert."
        )
    if there[MANIFEST].size > max_manifest_bytes(len(there)):
        raise DataError("the manifest is too large to be one.", Location(str(out / MANIFEST)))
    if unsafe := next((path for path in there if not safe_path(path)), None):
        raise DataError("an object of this name cannot be a file.", Location(f"{out}/{unsafe}"))
    return there
