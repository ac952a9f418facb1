"""The files of an output: what is said of each, and lists of them that stay small where there is a file a record."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice, pairwise, starmap
from operator import attrgetter, lt
from typing import NamedTuple

from converters.storage.lazy import MadeSequence

_DIGEST_BYTES = 32
_AT_ONCE = 1024


class OutputFile(NamedTuple):
    """A written file: its path in the output with forward slashes, size in bytes, and SHA-256 as read back."""

    path: str
    size: int
    sha256: str


Columns = tuple[Sequence[str], Sequence[int], Sequence[str]]
"""Paths, sizes and SHA-256 of some files."""

by_path = attrgetter("path")
"""The order in which files are listed."""


class OutputFiles(MadeSequence[OutputFile]):
    """Files of an output. What it holds of each is the path and fifty bytes; an object for each would be 300 more."""

    def __init__(self, files: Iterable[OutputFile] = ()) -> None:
        self._paths = bytearray()
        self._ends = array("q")
        self._sizes = array("q")
        self._digests = bytearray()
        for file in files:
            self.add(file.path, file.size, file.sha256)

    def add(self, path: str, size: int, sha256: str) -> None:
        """Append a file.

        Raises:
            ValueError: the digest is none.
        """
        digest = bytes.fromhex(sha256)
        if len(digest) != _DIGEST_BYTES:
            raise ValueError(f"{sha256!r} is no SHA-256")
        self.extend_digests([path], [size], [digest])

    def extend_digests(self, paths: Sequence[str], sizes: Sequence[int], digests: Iterable[bytes]) -> None:
        """Append files whose SHA-256 is at hand as 32 bytes each."""
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        self._ends.extend(islice(accumulate(map(len, encoded), initial=len(self._paths)), 1, None))
        self._paths += b"".join(encoded)
        self._sizes.extend(sizes)
        self._digests += b"".join(digests)

    def extend(self, others: OutputFiles, start: int = 0, end: int | None = None) -> None:
        """Append files ``start`` to ``end`` of others, by default all; nothing is made of each."""
        end = len(others) if end is None else end
        first, last = (others._ends[number - 1] if number else 0 for number in (start, end))
        base = len(self._paths) - first
        self._paths += memoryview(others._paths)[first:last]
        self._ends.extend(base + place for place in others._ends[start:end])
        self._sizes.extend(others._sizes[start:end])
        self._digests += memoryview(others._digests)[_DIGEST_BYTES * start : _DIGEST_BYTES * end]

    def take_out(self, paths: Collection[str]) -> list[OutputFile]:
        """Remove the files of these paths, and return them; the files are in the order of their paths."""
        taken = []
        for path in sorted(paths):
            number = bisect_left(range(len(self)), path, key=self.path)
            if number < len(self) and self.path(number) == path:
                taken.append(self.make(number))
                self._remove(number)
        return taken

    def _remove(self, number: int) -> None:
        # In place: of a shard's files, which are many, a copy is as large as they are.
        start = self._ends[number - 1] if number else 0
        end = self._ends.pop(number)
        for later in range(number, len(self)):
            self._ends[later] -= end - start
        del self._paths[start:end], self._sizes[number]
        del self._digests[_DIGEST_BYTES * number : _DIGEST_BYTES * (number + 1)]

    def path(self, number: int) -> str:
        """The path of one of the files."""
        start = self._ends[number - 1] if number else 0
        return self._paths[start : self._ends[number]].decode("utf-8", "surrogateescape")

    def last_path(self) -> str:
        """The path of the last of the files."""
        return self.path(len(self) - 1)

    def of_paths(self, paths: Sequence[str], made: Callable[[str], OutputFile]) -> OutputFiles:
        """The files of these paths, which are in order; ``made`` gives those that are not here."""
        held, own = self, list(self.paths())
        if not all(starmap(lt, pairwise(own))):
            held = OutputFiles(sorted(self, key=by_path))
            own.sort()
        files, start = OutputFiles(), 0
        for path in sorted(set(paths).difference(own)):
            at = bisect_left(own, path, lo=start)
            files.extend(held, start, at)
            files.add(*made(path))
            start = at
        files.extend(held, start)
        return files if len(files) == len(paths) else OutputFiles(map(made, paths))

    def paths(self) -> Iterator[str]:
        """The paths of all."""
        for start in range(0, len(self), _AT_ONCE):
            yield from self._some_paths(start, min(start + _AT_ONCE, len(self)))

    def _some_paths(self, start: int, end: int) -> list[str]:
        begin = self._ends[start - 1] if start else 0
        data = self._paths[begin : self._ends[end - 1]]
        text = data.decode("utf-8", "surrogateescape")
        edges = pairwise([0, *(place - begin for place in self._ends[start:end])])
        if len(text) == len(data):
            return [text[place:after] for place, after in edges]
        return [data[place:after].decode("utf-8", "surrogateescape") for place, after in edges]

    def total_bytes(self) -> int:
        """Size of all."""
        return sum(self._sizes)

    def __len__(self) -> int:
        return len(self._ends)

    def make(self, number: int) -> OutputFile:
        """File ``number``."""
        digest = self._digests[_DIGEST_BYTES * number : _DIGEST_BYTES * (number + 1)]
        return OutputFile(self.path(number), self._sizes[number], digest.hex())

    def __iter__(self) -> Iterator[OutputFile]:
        return chain.from_iterable(map(OutputFile, *some) for some in self.columns())

    def columns(self) -> Iterator[Columns]:
        """See :func:`in_columns`."""
        width = 2 * _DIGEST_BYTES
        for first in range(0, len(self), _AT_ONCE):
            last = min(first + _AT_ONCE, len(self))
            digests = self._digests[_DIGEST_BYTES * first : _DIGEST_BYTES * last].hex()
            texts = [digests[place : place + width] for place in range(0, len(digests), width)]
            yield self._some_paths(first, last), self._sizes[first:last], texts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutputFiles) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it can grow


def add_run(runs: list[OutputFiles], files: OutputFiles) -> None:
    """Append files that are in the order of their paths to runs of such files, to the last one where they fit."""
    if not files:
        return
    if not runs or runs[-1].last_path() >= files.path(0):
        runs.append(OutputFiles())
    runs[-1].extend(files)


def in_columns(files: Iterable[OutputFile]) -> Iterator[Columns]:
    """Many files at once; of those that are held in columns no object is made, which would take most of the time."""
    if isinstance(files, OutputFiles | JoinedFiles):
        yield from files.columns()
        return
    remaining = iter(files)
    while some := list(islice(remaining, _AT_ONCE)):
        paths, sizes, digests = zip(*some, strict=True)
        yield paths, sizes, digests


class JoinedFiles(MadeSequence[OutputFile]):
    """Runs, one after the other; they are not copied."""

    def __init__(self, runs: Sequence[OutputFiles]) -> None:
        self.runs = runs

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    def make(self, number: int) -> OutputFile:
        """File ``number`` of all runs."""
        for run in self.runs:
            if number < len(run):
                return run.make(number)
            number -= len(run)
        raise IndexError(number)

    def __iter__(self) -> Iterator[OutputFile]:
        return chain.from_iterable(self.runs)

    def columns(self) -> Iterator[Columns]:
        """See :func:`in_columns`."""
        return chain.from_iterable(run.columns() for run in self.runs)


def merged_runs(runs: Iterable[OutputFiles]) -> JoinedFiles:
    """All files of runs, each in the order of its paths, in that order."""
    ordered = sorted(filter(None, runs), key=lambda run: run.path(0))
    if any(before.last_path() >= after.path(0) for before, after in pairwise(ordered)):
        ordered = [OutputFiles(heapq.merge(*ordered, key=by_path))]
    return JoinedFiles(ordered)


def with_added(files: Sequence[OutputFile], added: Iterable[OutputFile]) -> JoinedFiles:
    """Files in the order of their paths, and a few more of other paths. Only a run that one comes into is copied."""
    runs = list(files.runs) if isinstance(files, JoinedFiles) else list(filter(None, [OutputFiles(files)]))
    for file in added:
        new = [OutputFiles([file])]
        place = bisect_left(runs, file.path, key=OutputFiles.last_path)
        if place < len(runs) and (run := runs[place]).path(0) < file.path:
            cut = bisect_left(range(len(run)), file.path, key=run.path)
            before, behind = OutputFiles(), OutputFiles()
            before.extend(run, 0, cut)
            behind.extend(run, cut)
            runs[place : place + 1] = [before, *new, behind]
        else:
            runs[place:place] = new
    return JoinedFiles(runs)
