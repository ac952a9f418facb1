"""The errors of this package: each says where, what was expected and found, and what to do.

Two kinds matter to a caller: the data is wrong (:class:`DataError`, :class:`CheckError`), or the call or the
environment is (:class:`CallError`). ``exit_status`` is what the command line makes of each.
"""

from __future__ import annotations

from dataclasses import dataclass

OUT_OF_MEMORY = "there is not enough memory. Give it more, or use fewer --workers"


class ConverterError(Exception):
    """Whatever this package raises on purpose."""

    exit_status = 1


class CallError(ConverterError):
    """The call or the environment is wrong (a missing folder, an unknown name, an absent package)."""

    exit_status = 2


class MachineError(ConverterError):
    """The machine failed while it worked, not the data: a full disk, an I/O error, a worker that was killed.

    Nothing was published; the shards that are finished are kept for the next run.
    """


@dataclass(frozen=True)
class Location:
    """Where a record is.

    Attributes:
        path: the file.
        record: index of the record in that file, from 0.
        offset: byte offset in that file (of the decompressed stream, where the file is compressed).
    """

    path: str | None = None
    record: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        parts = [] if self.record is None else [f"record {self.record}"]
        parts += [] if self.offset is None else [f"byte {self.offset}"]
        return " ".join(filter(None, [self.path, f"({', '.join(parts)})" if parts else ""]))


class DataError(ConverterError):
    """Data that is damaged, malformed, or not what the dataset's description says.

    Args:
        message: what is wrong: what was expected and what was found.
        at: where it is.
        advice: what the user can do about it.
    """

    def __init__(self, message: str, at: Location | None = None, advice: str | None = None) -> None:
        # All arguments are handed on, so that the error survives pickling: it crosses process boundaries.
        super().__init__(message, at, advice)
        self.message = message
        self.at = at or Location()
        self.advice = advice

    def __str__(self) -> str:
        place = str(self.at)
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} {self.advice}" if self.advice else text
