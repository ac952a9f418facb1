"""What is installed: formats and engines of any package, under entry-point groups, and the extras of this one."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from converters.errors import CallError


def registered(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name, sorted; none of them is imported."""
    return dict(_installed(group, tuple(sys.path)))


@cache
def _installed(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Those found on the import path; finding them means reading a file of every package that is installed."""
    return {entry.name: entry for entry in sorted(entry_points(group=group))}


def require_extra(extra: str, what: str, *modules: str) -> None:
    """Check that the ``modules`` that ``what`` needs are installed; imports none of them.

    Raises:
        CallError: one is missing. The text says how to install the extra that brings it.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise CallError(
            f"{what} needs {', '.join(missing)}, which is not installed: pip install 'kfer-convert[{extra}]'."
        )
