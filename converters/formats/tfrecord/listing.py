"""What lies in the place that is named as a source: a folder with all below it, a file, or what a pattern matches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converters.errors import CallError
from converters.storage.files import is_folder, is_there
from converters.storage.object_store import ObjectPath, Place, list_objects

_GLOB = re.compile(r"[*?\[]")
# Hidden, or what writers leave that do not finish: Hadoop's, Beam's, TensorFlow Datasets' and this program.
_NOT_ENTERED = re.compile(r"\..*|_temporary|beam-temp-.*|.+\.incomplete\w*", re.DOTALL)
_NO_SUCH_FOLDER = "there is no such folder. Name the folder that holds the TFRecord files."


@dataclass(frozen=True)
class Listing:
    """The files of a source.

    Attributes:
        place: the source, as it was named.
        folder: the folder that all names are relative to.
        names: the files that are meant, with ``/``, sorted.
        beside: all files that are in the folder; they may say something about those that are meant.
        hidden: folders that are not entered: hidden ones, those of unfinished writers, and links to folders.
    """

    place: Place
    folder: Place
    names: tuple[str, ...]
    beside: frozenset[str]
    hidden: tuple[str, ...] = ()

    @property
    def chosen(self) -> bool:
        """Whether the files were named, by a name or a pattern, rather than their folder."""
        return self.place != self.folder


def list_source(place: Place) -> Listing:
    """What lies in a place. A folder is searched with all below it, but for hidden ones.

    Raises:
        CallError: nothing is there, or it cannot be read.
    """
    if is_folder(place):
        names, hidden = _names_below(place)
        return Listing(place, place, names, frozenset(names), hidden)
    if is_there(place):
        folder = _parent(place)
        names, hidden = _names_below(folder, deep=False)
        return Listing(place, folder, (place.name,), frozenset(names) | {place.name}, hidden)
    parts = str(place).split("/")
    first = next((number for number, part in enumerate(parts) if _GLOB.search(part)), None)
    if first is None:
        raise CallError(f"{place}: {_NO_SUCH_FOLDER}")
    base = "/".join(parts[:first])
    folder = ObjectPath(base) if isinstance(place, ObjectPath) else Path(base or ("/" if first else "."))
    if not is_folder(folder):
        raise CallError(f"{folder}: {_NO_SUCH_FOLDER}")
    pattern = pattern_of("/".join(parts[first:]))
    all_names, hidden = _names_below(folder)
    names = tuple(name for name in all_names if pattern.fullmatch(name))
    if not names:
        raise CallError(f"{place}: no file matches this pattern.")
    return Listing(place, folder, names, frozenset(all_names), hidden)


def pattern_of(glob: str) -> re.Pattern[str]:
    """A glob pattern as a regular expression. ``*`` stays in its folder, ``**/`` does not."""
    pieces = re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^]]*\]|.", glob, re.DOTALL)
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(special.get(piece) or _literal_or_class(piece) for piece in pieces), re.DOTALL)


def _literal_or_class(piece: str) -> str:
    if len(piece) == 1:
        return re.escape(piece)
    inner = piece[1:-1].replace("\\", r"\\").replace("[", r"\[")
    return f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner.replace('^', chr(92) + '^', 1)}]"


def _parent(place: Place) -> Place:
    return place.parent if isinstance(place, Path) else ObjectPath(place.url.rpartition("/")[0])


def _names_below(folder: Place, *, deep: bool = True) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files below a folder, and the folders that were not entered, sorted."""
    hidden: list[str] = []
    if isinstance(folder, ObjectPath):
        found = [name for name in list_objects(folder) if name and not name.endswith("/")]
        names = []
        for name in found if deep else [name for name in found if "/" not in name]:
            *folders, _ = name.split("/")
            place = next((place for place, own in enumerate(folders, 1) if _NOT_ENTERED.fullmatch(own)), None)
            if place is None:
                names.append(name)
            else:
                hidden.append("/".join(folders[:place]) + "/")
    else:
        try:
            names = list(_walk(os.fspath(folder), hidden, deep=deep))
        except OSError as error:
            raise CallError(f"{error.filename or folder}: cannot be read: {error.strerror}.") from error
    return tuple(sorted(names)), tuple(sorted(set(hidden)))


def _walk(root: str, hidden: list[str], *, deep: bool) -> Iterator[str]:
    folders = [(root, "")]
    while folders:
        path, prefix = folders.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.is_dir():
                    yield prefix + entry.name
                elif not deep:
                    continue
                elif _NOT_ENTERED.fullmatch(entry.name) or entry.is_symlink():
                    hidden.append(f"{prefix}{entry.name}/")
                else:
                    folders.append((entry.path, f"{prefix}{entry.name}/"))
