"""An output until it is published: lock, checkpoint of finished shards, free space, fsync, one rename.

Promises: the destination is absent, or complete; nothing is written outside the staging until then. In an object
store, the manifest is the commit. A damaged output is mended where it is: a file of it is as it was found, or as its
manifest says. Enter by :func:`make_staging`.
"""

from __future__ import annotations

from pathlib import Path

from converters.staging.folder import FolderStaging
from converters.staging.object_store import ObjectStaging
from converters.storage.object_store import Place

Staging = FolderStaging | ObjectStaging
"""Where an output grows until it is published; :class:`FolderStaging` says what both do."""


def make_staging(destination: Place, *, overwrite: bool, repair: bool) -> Staging:
    """The staging of an output, new or to be mended: a folder beside it, or objects beside it in its store.

    Raises:
        CallError: an output in a store was to be replaced.
    """
    if isinstance(destination, Path):
        return FolderStaging(destination, overwrite=overwrite or repair)
    return ObjectStaging(destination, overwrite=overwrite, repair=repair)
