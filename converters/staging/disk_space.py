"""Free space: whether an output can fit, estimated before it is written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from converters.dataset.source import Source, source_bytes
from converters.errors import MachineError

# What a full or failing disk says, of which the call is not to blame.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

# An output is about as large as its source: nearly all of both are the images. Where less than this part of it is
# free, it cannot fit; in between it is tried, because labels and headers take more in some sources than in outputs.
_CERTAIN_PART = 0.5


def require_space(destination: Path, source: Source, present: int) -> None:
    """Refuse to begin what cannot fit.

    Args:
        destination: the output.
        source: what is converted.
        present: bytes of the output that an earlier run has written already.

    Raises:
        MachineError: there is far too little space.
    """
    needed = source_bytes(source) - present
    free, _ = _free(destination.parent)
    if free is not None and free < needed * _CERTAIN_PART:
        raise MachineError(describe_space(destination, source, present))


def describe_space(destination: Path, source: Source, present: int) -> str:
    """How much space an output needs and how much there is, as a sentence."""
    needed = max(0, source_bytes(source) - present)
    free, files = _free(destination.parent)
    if free is None:
        return (
            f"About {_megabytes(needed)} are needed in {destination.parent}; how much is free, the file system does "
            "not say"
        )
    entries = " and no further file has room" if files == 0 else ""
    return f"About {_megabytes(needed)} are needed in {destination.parent}, where {_megabytes(free)} are free{entries}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.3f} MB" if size < 1_000_000 else f"{size / 1e6:,.0f} MB"


def _free(folder: Path) -> tuple[int | None, int | None]:
    """Bytes and files that an ordinary user can still write; None where the file system does not count them."""
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize if status.f_blocks else None
    return free, status.f_favail if status.f_files else None
