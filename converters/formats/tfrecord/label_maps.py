"""Label names from the files that lie beside data: ``label_map.pbtxt`` and ``labels.txt``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from converters.dataset.description import can_name_label
from converters.dataset.labels import UNLABELLED
from converters.storage.files import read_bounded
from converters.storage.object_store import Place

_MAX_BYTES = 1 << 20
_MAX_NUMBER = 10**18  # what a description takes has at most 18 digits
_PBTXT = re.compile(r".*\.pbtxt", re.IGNORECASE | re.DOTALL)
_LABELS = re.compile(r"labels?\.txt", re.IGNORECASE)
_NUMBERED = re.compile(r"\s*(-?\d+)\s*:\s*(.*\S)\s*")
_TOKEN = re.compile(
    r"""\s*(?:\#[^\n]*|(?P<open>\w+)\s*:?\s*[{<]|(?P<close>[}>])|[;,]
    |(?P<key>\w+)\s*:\s*(?:(?P<number>-?\d+)|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|[-+.\w]+))""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class LabelMap:
    """The names that a file gives to labels.

    Attributes:
        path: the file, relative to the source.
        names: by the number; where ``listed``, the file does not say whether it counts from 0 or from 1.
        listed: whether the file has one name a line, and no numbers.
    """

    path: str
    names: Mapping[int, str]
    listed: bool = False

    def fitting(self, labels: Collection[int]) -> dict[int, str] | None:
        """The names, by the numbers that occur in the data; None where they do not fit these."""
        names = {number: name for number, name in self.names.items() if number != UNLABELLED}
        if self.listed and 0 not in labels:
            if max(labels, default=0) != len(names):
                return None
            names = {number + 1: name for number, name in names.items()}
        return names if names and all(label in names for label in labels) else None


def find_label_maps(folder: Place, files: Collection[str]) -> list[LabelMap]:
    """The label maps among the files of a source: those that parse, each content once, by the order of their names."""
    found: list[LabelMap] = []
    for path in sorted(files, key=lambda path: (path.count("/"), path)):
        name = path.rpartition("/")[2]
        parse = parse_pbtxt if _PBTXT.fullmatch(name) else parse_labels if _LABELS.fullmatch(name) else None
        if parse is None:
            continue
        try:
            made = parse(read_bounded(folder / path, _MAX_BYTES).decode("utf-8-sig"))
        except (OSError, ValueError):  # no UTF-8, or a number of thousands of digits
            continue
        if made is None or any((other.names, other.listed) == made for other in found):
            continue
        found.append(LabelMap(path, *made))
    return found


def parse_labels(text: str) -> tuple[dict[int, str], bool] | None:
    """The names of a ``labels.txt``: lines ``0:name`` as tf-slim writes them, or one name a line; and which it was."""
    lines = [line for line in text.splitlines() if line.strip()]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered):
        by_id = {int(match[1]): match[2] for match in numbered if match}
        return (by_id, False) if _usable(by_id, len(lines)) else None
    listed = {number: line.strip() for number, line in enumerate(lines)}
    return (listed, True) if _usable(listed, len(lines)) else None


def parse_pbtxt(text: str) -> tuple[dict[int, str], bool] | None:
    """The names of a ``StringIntLabelMap`` of the Object Detection API, in protobuf's text form.

    The name that people read, ``display_name``, counts where all have one, and no two the same.
    """
    items: list[dict[str, int | str]] = []
    depth, position, text = 0, 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        position = match.end()
        if match["open"]:
            if depth == 0 and match["open"] == "item":
                items.append({})
            depth += 1
        elif match["close"]:
            depth -= 1
        elif depth == 1 and items and match["number"]:
            items[-1][match["key"]] = int(match["number"])
        elif depth == 1 and items and match["text"]:
            items[-1][match["key"]] = _unquoted(match["text"])
    if depth or not items or not all(isinstance(item.get("id"), int) for item in items):
        return None
    for field in ("display_name", "name"):
        by_id = {
            item["id"]: item[field]
            for item in items
            if isinstance(item["id"], int) and isinstance(item.get(field), str)
        }
        if _usable(by_id, len(items)):
            return {number: str(name) for number, name in by_id.items()}, False
    return None


def _usable(names: Mapping[int, int | str], count: int) -> bool:
    """Whether there are so many names, no two the same, that can name labels; -1, which is no label, may have one."""
    texts = [str(name) for name in names.values()]
    distinct = len(names) == len(set(texts)) == count > 0
    numbers = distinct and min(names) >= UNLABELLED and max(names) < _MAX_NUMBER
    return numbers and all(map(can_name_label, texts))


def _unquoted(text: str) -> str:
    """A string of protobuf's text form: with the escapes of C, octal ones for the bytes of UTF-8."""
    try:
        return text[1:-1].encode().decode("unicode_escape").encode("latin-1").decode()
    except UnicodeError:
        return text[1:-1]
