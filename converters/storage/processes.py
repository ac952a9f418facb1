"""Starts Python processes that take no code of the current folder: ``signal.py`` there is somebody else's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SAFE = "PYTHONSAFEPATH"


def child_command(module: str, function: str) -> list[str]:
    """The command that calls a function of a module of ours in a process of its own."""
    # Behind everything else, so that it finds this package and shadows nothing.
    root = str(Path(__file__).parents[2])
    return [
        sys.executable,
        "-P",
        "-c",
        f"import sys; sys.path.append({root!r}); from {module} import {function}; {function}()",
    ]


@contextmanager
def safe_children() -> Iterator[None]:
    """Python processes that are started inside the block do not look for modules in the current folder."""
    before = os.environ.get(_SAFE)
    os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE]
        else:
            os.environ[_SAFE] = before
