"""Mending: files of an output that were lost or changed get back into their places, one by one.

The manifest says what each must be, and nothing else takes its place. So whatever interrupts this, a file is as it was
found, or as it must be; and what is mended already, the next run need not make again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from converters.dataset.shard import ShardResult
from converters.errors import DataError, Location
from converters.staging.fsync import sync_files, sync_folder
from converters.staging.object_store import store_files
from converters.staging.scratch import Workspace
from converters.storage.file_list import OutputFile
from converters.storage.object_store import ObjectPath, Place


@dataclass(frozen=True)
class Mending:
    """A workspace: of each shard that is made again, the files that its output lacks go to their places.

    Attributes:
        attempts: where tasks write.
        out: the output.
        lacking: the files that it lacks, as its manifest has them, by their paths.
        parts: paths of the files of shards that are parts of such a file; they go to ``scratch``.
        scratch: where these wait to be joined.
    """

    attempts: Workspace
    out: Place
    lacking: Mapping[str, OutputFile]
    parts: Collection[str]
    scratch: Place

    def attempt(self) -> AbstractContextManager[Path]:
        """See :class:`~converters.staging.scratch.Workspace`."""
        return self.attempts.attempt()

    def settle(self, folder: Path) -> None:
        """See :class:`~converters.staging.scratch.Workspace`."""
        self.attempts.settle(folder)

    def deliver(self, result: ShardResult) -> None:
        """See :class:`~converters.staging.scratch.Workspace`.

        Raises:
            DataError: a file is another than the manifest says.
        """
        mended = [file for file in result.files if file.path in self.lacking]
        for file in mended:
            if file != self.lacking[file.path]:
                raise DataError(
                    "made again, this file has other bytes than the manifest says.",
                    Location(str(self.out / file.path)),
                    "The source, kfer-convert or pyarrow is another than when the output was made: make all of it "
                    "anew, with --overwrite or to another --out.",
                )
        put_files(result.folder, self.out, mended)
        put_files(result.folder, self.scratch, [file for file in result.files if file.path in self.parts])


def put_files(folder: Path, target: Place, files: Sequence[OutputFile]) -> None:
    """Put files of a folder into the places of those that may be there: by renaming, or stored and read back."""
    if isinstance(target, ObjectPath):
        store_files(folder, target, files)
        return
    sync_files(folder, (file.path for file in files))
    for file in files:
        place = target / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        (folder / file.path).replace(place)
    for parent in {(target / file.path).parent for file in files}:
        sync_folder(parent)
