"""DALI's ``.idx`` files: a line ``offset size`` per record.

An index is a hint from outside. It is held against the file and never trusted over it: the tool that makes
them writes a short last line for a truncated file as if it were valid.
"""

from __future__ import annotations

import re
from typing import Self

import numpy as np

from converters.errors import DataError, Location
from converters.formats.tfrecord.framing import OVERHEAD_BYTES, Frames
from converters.storage.files import open_file
from converters.storage.object_store import Place

_LINE = re.compile(rb"(\d{1,19}) (\d{1,19})\n?")
_MAX_LINE_BYTES = 64
_ADVICE = "One of the two is damaged: copy both again, or remove the index to go without it."


class IndexDisagreesError(DataError):
    """An index cannot be read, or says something else than its file."""


class IndexChecker:
    """Holds the records of a file, in order, against the lines of its index.

    Args:
        path: the index.
        tfrecord: the file it belongs to; named in errors.
        first_record: the record at which the comparison starts.
    """

    def __init__(self, path: Place, tfrecord: str, first_record: int = 0) -> None:
        self._path = str(path)
        self._tfrecord = tfrecord.rpartition("/")[2]
        self._line = 0
        try:
            self._file = open_file(path)  # closed by __exit__
        except OSError as error:
            raise IndexDisagreesError(
                f"the index cannot be read: {error.strerror}.",
                Location(self._path),
                "Remove it to go without it.",
            ) from error
        self.skip(first_record)

    def skip(self, records: int) -> None:
        """Pass over the lines of so many records, or over all that are left.

        Raises:
            IndexDisagreesError: a line is malformed.
        """
        for _ in range(records):
            if self._next() is None:
                break

    def check(self, frames: Frames) -> None:
        """Compare the next lines with the records of ``frames``.

        Raises:
            IndexDisagreesError: a line is malformed, missing, or says something else than the file.
        """
        pairs = np.stack([frames.offsets(), frames.sizes + OVERHEAD_BYTES], axis=1)
        # Nearly always the lines are what DALI's tool writes, so they are compared as one text. Where they are
        # not, they are read again one by one, which says what is wrong, or that they are only written otherwise.
        expected = ("%d %d\n" * len(pairs)) % tuple(pairs.ravel().tolist())
        start = self._file.tell()
        if self._file.read(len(expected)) == expected.encode():
            self._line += len(pairs)
            return
        self._file.seek(start)
        for offset, size in pairs.tolist():
            record, line = self._line, self._next()
            if line is None:
                raise self._error(
                    f"the index ends after {record} records, but {self._tfrecord} goes on with a record at byte "
                    f"{offset}.",
                    record,
                )
            if line != (offset, size):
                raise self._error(
                    f"the index says offset {line[0]} and size {line[1]}, but in {self._tfrecord} the record has "
                    f"offset {offset} and size {size}.",
                    record,
                )

    def peek(self) -> tuple[int, int] | None:
        """The next line's offset and size, which stays the next; None at the end.

        Raises:
            IndexDisagreesError: it is malformed.
        """
        place, number = self._file.tell(), self._line
        line = self._next()
        self._file.seek(place)
        self._line = number
        return line

    def pass_over(self, start: int, end: int | None) -> int:
        """Pass over the lines of records that fill the bytes from ``start`` to ``end`` (None: all lines that are left).

        Returns:
            how many these are; of an index that ends before ``end``, what is left of it.

        Raises:
            IndexDisagreesError: a line is malformed, or they do not fill these bytes.
        """
        passed = 0
        while start != end and (line := self._next()) is not None:
            offset, size = line
            if offset != start or size < OVERHEAD_BYTES or (end is not None and end < offset + size):
                expected = f"at byte {start}" if end is None else f"from byte {start} to {end}"
                raise self._error(
                    f"the index says offset {offset} and size {size}; expected were records {expected}.",
                    self._line - 1,
                )
            start += size
            passed += 1
        return passed

    def finish(self, records: int) -> None:
        """Check that the index ends where the file does.

        Raises:
            IndexDisagreesError: it goes on.
        """
        line = self._next()
        if line is not None:
            raise self._error(
                f"the index goes on with offset {line[0]} and size {line[1]}, but {self._tfrecord} ends after "
                f"{records} records.",
                records,
            )

    def _next(self) -> tuple[int, int] | None:
        """The next line's offset and size; None at the end."""
        try:
            line = self._file.readline(_MAX_LINE_BYTES)
        except OSError as error:
            raise self._error(f"the index cannot be read: {error.strerror}.", self._line) from error
        if not line:
            return None
        match = _LINE.fullmatch(line)
        if match is None:
            raise self._error(f"expected a line 'offset size', found {line[:40]!r}.", self._line)
        self._line += 1
        return int(match[1]), int(match[2])

    def _error(self, message: str, record: int | None) -> IndexDisagreesError:
        return IndexDisagreesError(message, Location(self._path, record), _ADVICE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()
