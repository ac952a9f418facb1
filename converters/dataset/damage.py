"""Damaged ranges of a source file: what they are, and what is lost with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

FoundAgain = Literal["by checksums", "by index"]
"""How the end of a damaged range was found, where the damaged record does not tell.

By checksums: at the next byte where a length and its data have the checksums that follow them. A record that lies whole
inside a damaged one is found like that too. By index: where the index has a record.
"""


@dataclass(frozen=True)
class LostRange:
    """A range of a source file that holds no sound record.

    Attributes:
        start: its first byte in the file's decompressed bytes; ``end``: one past the last.
        records: number of records that are lost with it; None where nothing tells.
        sound_before: number of sound records in the file before it.
        reason: what is wrong with it.
        inflated: for a range of a compressed file's *stored* bytes, which is what ``start`` and ``end`` count
            then: how many bytes the stored bytes before it inflate to. There is at most one, the file's end.
        found_again: how its end was found, where the damaged record does not tell; None where it does, or where the
            file ends there.
    """

    start: int
    end: int
    records: int | None
    sound_before: int
    reason: str
    inflated: int | None = None
    found_again: FoundAgain | None = None


def records_lost(counts: Iterable[int | None]) -> int | None:
    """Number of records lost in all, of the numbers in each range; None where one is not known."""
    known = list(counts)
    return None if None in known else sum(filter(None, known))


def first_lost(lost: Sequence[LostRange]) -> list[int | None]:
    """The index in the file of each range's first lost record, those lost before it counted; None where unknown."""
    numbers: list[int | None] = []
    before: int | None = 0
    for piece in lost:
        numbers.append(None if before is None else piece.sound_before + before)
        before = None if before is None or piece.records is None else before + piece.records
    return numbers
