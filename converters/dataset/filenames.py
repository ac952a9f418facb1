"""Names that come from data and become file names: which are refused, and why."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

# Reserved by Windows with any extension:
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789¹²³"]
)
_FORBIDDEN = frozenset('<>:"/\\|?*')
_NO_NAMES = frozenset({"", ".", ".."})
MAX_NAME_BYTES = 255  # of one file name, on all common file systems

# A name of these characters that starts with a letter or digit can only be unsafe by being reserved,
# too long, or by ending in a dot.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")

# Many names that can only be unsafe by being reserved, and how they then begin.
_PLAIN_LINES = re.compile(r"\n(?:[a-z0-9_][a-z0-9_-]{0,99}(?:\.[a-z0-9_-]{1,50})?\n)*+")
_RESERVED_STARTS = ("\ncon", "\nprn", "\naux", "\nnul", "\ncom", "\nlpt")


def unsafe_name(name: str) -> str | None:
    """Why ``name`` must not be used as the name of a file or folder, or ``None`` if it may be.

    A safe name stays in its folder and means the same file on Linux, macOS and Windows.
    """
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if name.split(".", 1)[0].rstrip(" ").casefold() in _RESERVED:
        return f"{name!r} is a name that Windows reserves"
    if _PLAIN.fullmatch(name):
        return None
    if not name:
        return "is empty"
    if name.startswith("."):
        return f"{name!r} starts with a dot"
    if any(character in _FORBIDDEN for character in name):
        return f'{name!r} has one of the characters < > : " / \\ | ? *'
    # Control, format, unassigned …, and the separators of lines and paragraphs.
    if any(unicodedata.category(character)[0] == "C" or character in "\u2028\u2029" for character in name):
        return f"{name!r} has a control or invisible character"
    if name != name.strip() or name.endswith("."):
        return f"{name!r} starts or ends with white space, or ends with a dot"
    if name.startswith("-"):
        return f"{name!r} starts with a dash, which commands take for an option"
    return None


def plain_lines(names: Sequence[str]) -> str | None:
    """The names in lower case, each between two line breaks, if one look at all tells that they are safe; else None."""
    joined = "\n".join(["", *names, ""])
    lines = joined.lower()
    plain = joined.isascii() and lines.count("\n") == len(names) + 1 and _PLAIN_LINES.fullmatch(lines)
    return None if not plain or any(start in lines for start in _RESERVED_STARTS) else lines


def folded(name: str) -> str:
    """The form in which two names are the same file where case and Unicode form do not count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def first_collision(names: Iterable[str]) -> tuple[int, int] | None:
    """Positions of the first two names that are one file on a file system that folds case, or ``None``."""
    seen: dict[str, int] = {}
    for position, name in enumerate(names):
        earlier = seen.setdefault(name.casefold() if name.isascii() else folded(name), position)
        if earlier != position:
            return earlier, position
    return None


def safe_path(path: str) -> bool:
    """Whether a path with ``/`` stays below its folder and can stand on a line of ``SHA256SUMS`` as it is."""
    return path.isprintable() and "\\" not in path and _NO_NAMES.isdisjoint(path.split("/"))
