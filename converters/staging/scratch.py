"""Where a task works: the folder of its attempt, and how what it finished gets to the driver."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from converters.dataset.shard import ShardResult
from converters.errors import MachineError
from converters.staging.checkpoint import save_result
from converters.staging.fsync import sync_tree


class Workspace(Protocol):
    """Frozen and picklable; the same in all tasks of a run."""

    def attempt(self) -> AbstractContextManager[Path]:
        """A new and empty folder for one attempt at a shard."""
        ...

    def settle(self, folder: Path) -> None:
        """Called when a shard is written to its folder, before it is read back."""
        ...

    def deliver(self, result: ShardResult) -> None:
        """Put a result, and the files that it names, where the driver and later runs find them."""
        ...


@dataclass(frozen=True)
class SharedFolder:
    """The staging folder on a file system that the driver sees too.

    Attributes:
        folder: holds the attempts.
        durable: whether each shard is written through to the disk at once: where another machine than the driver's
            may have written it, the driver cannot do so for all together.
    """

    folder: Path
    durable: bool = False

    @contextmanager
    def attempt(self) -> Iterator[Path]:
        """See :class:`Workspace`. What an attempt that fails leaves, the driver removes."""
        if not self.folder.is_dir():
            raise MachineError(
                f"{self.folder}: this folder is not there. It must be on a file system that all machines share"
            )
        # An attempt that was taken for dead may still write for a moment; not into another one's folder.
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir()
        yield folder

    def settle(self, folder: Path) -> None:
        """See :class:`Workspace`."""
        if self.durable:
            sync_tree(folder)

    def deliver(self, result: ShardResult) -> None:
        """See :class:`Workspace`."""
        save_result(result)
