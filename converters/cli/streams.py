"""Standard output and standard error, of which a run does not depend: they may be closed, full, or a broken pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from io import StringIO
from typing import TextIO

# What moves a terminal's cursor, or worse; names of somebody else's files may hold it.
_CONTROLS = {number: "?" for number in (*range(32), *range(127, 160)) if chr(number) not in "\t\n\r"}


class Tolerant:
    """A text stream that drops what it cannot write, and remembers why in ``error``; no terminal gets controls.

    Attributes:
        used: whether anything was to be written.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.error: OSError | None = None
        self.used = False
        self._stream = stream if stream is not None else open(os.devnull, "w")  # noqa: PTH123, SIM115  # until the end
        if hasattr(self._stream, "reconfigure"):
            # Names of files may be no UTF-8, and the terminal's encoding may lack what a dataset's names have.
            self._stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write a text; see the class."""
        self.used = True
        self._attempt(
            lambda: self._stream.write(text.translate(_CONTROLS) if self._stream.isatty() else text)
        )
        return len(text)

    def flush(self) -> None:
        """Flush; see the class."""
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (OSError, ValueError) as error:
            self.error = error if isinstance(error, OSError) else OSError(str(error))
            self._stream = StringIO()  # opening a file could fail, too

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def tolerate() -> Tolerant:
    """Make both streams tolerant; standard output."""
    out, err = Tolerant(sys.stdout), Tolerant(sys.stderr)
    sys.stdout, sys.stderr = out, err
    return out


def close(out: Tolerant) -> OSError | None:
    """Flush both streams; what standard output failed with, a reader that went away aside."""
    out.flush()
    sys.stderr.flush()
    # An output that is in place is a success, whatever can be opened now.
    sys.stdout = sys.stderr = StringIO()
    return None if isinstance(out.error, BrokenPipeError) else out.error
