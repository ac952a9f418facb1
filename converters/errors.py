"""The errors of this package: each says where, what was expected and found, and what to do.

Two kinds matter to a caller: the data is wrong (:class:`DataError`, :class:`CheckError`), or the call or the
environment is (:class:`CallError`). ``exit_status`` is what the command line makes of each.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.report import Report


class ConverterError(Exception):
    """Whatever this package raises on purpose."""

    exit_status = 1


class CallError(ConverterError):
    """The call or the environment is wrong (a missing folder, an unknown name, an absent package)."""

    exit_status = 2


class DataError(ConverterError):
    """Data that is damaged, malformed, or not what the dataset's description says.

    Args:
        message: what is wrong: what was expected and what was found.
        path: the file it is in.
        record: index of the record in that file, from 0.
        offset: byte offset in that file (of the decompressed stream, where the file is compressed).
        advice: what the user can do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        record: int | None = None,
        offset: int | None = None,
        advice: str | None = None,
    ) -> None:
        self.message = message
        self.path = None if path is None else os.fspath(path)
        self.record = record
        self.offset = offset
        self.advice = advice
        super().__init__(message, self.path, record, offset, advice)

    def __str__(self) -> str:
        place = []
        if self.record is not None:
            place.append(f"record {self.record}")
        if self.offset is not None:
            place.append(f"byte {self.offset}")
        head = " ".join(filter(None, [self.path, f"({', '.join(place)})" if place else ""]))
        text = f"{head}: {self.message}" if head else self.message
        return f"{text} {self.advice}" if self.advice else text

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process boundaries; keyword-only arguments need a rebuild of their own.
        return (_rebuild, (type(self), self.message, self.path, self.record, self.offset, self.advice))


def _rebuild(
    kind: type[DataError],
    message: str,
    path: str | None,
    record: int | None,
    offset: int | None,
    advice: str | None,
) -> DataError:
    return kind(message, path=path, record=record, offset=offset, advice=advice)


class CheckError(ConverterError):
    """A conversion or verification whose checks did not all pass; the report says which."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message, report)
        self.message = message
        self.report = report

    def __str__(self) -> str:
        return self.message
