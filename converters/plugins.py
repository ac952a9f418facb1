"""What is installed under an entry-point group: the built-in formats and engines, and those of other packages."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points


def registered(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name, sorted; none of them is imported."""
    return dict(_installed(group, tuple(sys.path)))


@cache
def _installed(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Those found on the import path; finding them means reading a file of every package that is installed."""
    return {entry.name: entry for entry in sorted(entry_points(group=group))}
