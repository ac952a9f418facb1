"""Files that are members of one set, as their names say: ``train-00003-of-00010``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

COMPRESSED_SUFFIXES = ("", ".gz", ".gzip", ".zlib", ".zz")
"""What may follow the name of a file that is compressed."""

_MEMBER = re.compile(r"(.*?)(?<!\d)(\d{1,9})-of-(\d{1,9})(?!\d)(.*)", re.DOTALL)
_PATTERN = re.compile(r"[*?\[]")
_SHOWN = 20


@dataclass(frozen=True)
class MemberSet:
    """The files that call themselves members of one set.

    Attributes:
        before: what their names begin with; ``after``: what they end with, but for the compression's suffix.
        count: how many there must be.
        names: those that are there, by their numbers.
    """

    before: str
    after: str
    count: int
    names: dict[int, str]

    @property
    def numbers(self) -> range:
        """The numbers that its members have: from 0; from 1, or one more of them, where there is one of the count."""
        if self.count not in self.names:
            return range(self.count)
        return range(0 if 0 in self.names else 1, self.count + 1)

    @property
    def missing(self) -> int:
        """How many are not there."""
        return len(self.numbers) - len(self.names)

    def missing_names(self) -> Iterator[str]:
        """The names of those that are not there, in order."""
        match = _MEMBER.fullmatch(plain_name(next(iter(self.names.values()))))
        width = len(match[2]) if match else 0
        for number in self.numbers:
            if number not in self.names:
                yield f"{self.before}{number:0{width}d}-of-{self.count:0{width}d}{self.after}"


def is_pattern(file: str) -> bool:
    """Whether a ``file`` of a description may mean several files."""
    return _PATTERN.search(file) is not None


def plain_name(name: str) -> str:
    """A file's name without the suffix of a compression."""
    suffix = next((suffix for suffix in COMPRESSED_SUFFIXES if suffix and name.lower().endswith(suffix)), "")
    return name[: -len(suffix)] if suffix else name


def same_name(name: str) -> str:
    """The form in which two names are one, though systems write their letters differently."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def member_sets(names: Iterable[str]) -> list[MemberSet]:
    """The sets of which there are members among files; in the order of the names.

    Raises:
        ValueError: a member stands twice, belongs to a set of another size, or has a number that its set cannot have.
    """
    found: dict[tuple[str, str], MemberSet] = {}
    for name in names:
        match = _MEMBER.fullmatch(plain_name(name))
        if match is None:
            continue
        before, index, count, after = match[1], int(match[2]), int(match[3]), match[4]
        members = found.setdefault((before, after), MemberSet(before, after, count, {}))
        if count != members.count:
            other = next(iter(members.names.values()))
            raise ValueError(f"{other} and {name} are members of two sets: of {members.count} and of {count}")
        if index in members.names:
            raise ValueError(f"{members.names[index]} and {name} are the same member twice")
        members.names[index] = name
    for members in found.values():
        wrong = [name for index, name in members.names.items() if index not in members.numbers]
        if wrong:
            raise ValueError(f"{wrong[0]} has a number that no member of {members.count} has")
    return list(found.values())


def missing_files(files: Sequence[str], names: Sequence[str]) -> tuple[int, list[str]] | None:
    """Which files of a split are not there: by its description, and by what the names of the others say.

    Args:
        files: the split's files, by its description.
        names: those that are there.

    Returns:
        How many files are missing, and the names of the first of them; None where nothing says how many there must be.
    """
    there = {same_name(plain_name(name)) for name in names}
    lost = [
        file
        for file in files
        if not is_pattern(file) and not there & {same_name(file), same_name(plain_name(file))}
    ]
    try:
        sets = member_sets(names)
    except ValueError:
        sets = []
    if 0 < len(lost) < len(files):  # where all are, the file was known otherwise
        return len(lost), lost[:_SHOWN]
    if not sets:
        return None
    shown = [name for members in sets for name in islice(members.missing_names(), _SHOWN)]
    return sum(members.missing for members in sets), shown[:_SHOWN]
