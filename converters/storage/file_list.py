"""The files of an output: what is said of each, and lists of them that stay small where there is a file a record."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice, pairwise
from operator import attrgetter
from typing import NamedTuple

from converters.storage.lazy import MadeSequence

_DIGEST_BYTES = 32
_AT_ONCE = 4096


class OutputFile(NamedTuple):
    """A written file: its path in the output with forward slashes, size in bytes, and SHA-256 as read back."""

    path: str
    size: int
    sha256: str


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

    def extend(self, others: OutputFiles) -> None:
        """Append other files."""
        base = len(self._paths)
        self._paths += others._paths
        self._ends.extend(base + end for end in others._ends)
        self._sizes.extend(others._sizes)
        self._digests += others._digests

    def part(self, start: int, end: int) -> OutputFiles:
        """Files ``start`` to ``end``; nothing is made of each."""
        files = OutputFiles()
        base = self._ends[start - 1] if start else 0
        files._paths = self._paths[base : self._ends[end - 1] if end else 0]
        files._ends = array("q", [place - base for place in self._ends[start:end]])
        files._sizes = self._sizes[start:end]
        files._digests = self._digests[_DIGEST_BYTES * start : _DIGEST_BYTES * end]
        return files

    def split_off(self, paths: Collection[str]) -> tuple[OutputFiles, list[OutputFile]]:
        """The files but for those of these paths, and these; the files are in the order of their paths."""
        kept, off, start = OutputFiles(), [], 0
        for path in sorted(paths):
            number = bisect_left(range(len(self)), path, lo=start, key=self.path)
            if number < len(self) and self.path(number) == path:
                kept.extend(self.part(start, number))
                off.append(self.make(number))
                start = number + 1
        if not off:
            return self, off
        kept.extend(self.part(start, len(self)))
        return kept, off

    def path(self, number: int) -> str:
        """The path of one of the files."""
        start = self._ends[number - 1] if number else 0
        return self._paths[start : self._ends[number]].decode("utf-8", "surrogateescape")

    def last_path(self) -> str:
        """The path of the last of the files."""
        return self.path(len(self) - 1)

    def of_paths(self, paths: Sequence[str], made: Callable[[str], OutputFile]) -> OutputFiles:
        """The files of these paths, which are in order; ``made`` gives those that are not here."""
        held, files, start = self._in_order(), OutputFiles(), 0
        for path in sorted(set(paths).difference(held.paths())):
            at = bisect_left(range(len(held)), path, lo=start, key=held.path)
            files.extend(held.part(start, at))
            files.add(*made(path))
            start = at
        files.extend(held.part(start, len(held)))
        return files if len(files) == len(paths) else OutputFiles(map(made, paths))

    def _in_order(self) -> OutputFiles:
        """The same files in the order of their paths."""
        paths = list(self.paths())
        return self if paths == sorted(set(paths)) else OutputFiles(sorted(self, key=by_path))

    def paths(self) -> Iterator[str]:
        """The paths of all."""
        return self._paths_between(0, len(self))

    def _paths_between(self, start: int, end: int) -> Iterator[str]:
        for first in range(start, end, _AT_ONCE):
            last = min(first + _AT_ONCE, end)
            begin = self._ends[first - 1] if first else 0
            data = self._paths[begin : self._ends[last - 1]]
            text = data.decode("utf-8", "surrogateescape")
            edges = pairwise([0, *(place - begin for place in self._ends[first:last])])
            if len(text) == len(data):
                yield from [text[place:after] for place, after in edges]
            else:
                yield from [data[place:after].decode("utf-8", "surrogateescape") for place, after in edges]

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
        return self.between(0, len(self))

    def between(self, start: int, end: int) -> Iterator[OutputFile]:
        """Files ``start`` to ``end``, as far as there are so many."""
        end = min(end, len(self))
        width = 2 * _DIGEST_BYTES
        digests = self._digests[_DIGEST_BYTES * start : _DIGEST_BYTES * end].hex()
        texts = [digests[place : place + width] for place in range(0, len(digests), width)]
        return map(OutputFile, self._paths_between(start, end), self._sizes[start:end], texts)

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


class _Joined(MadeSequence[OutputFile]):
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


def merged_runs(runs: Iterable[OutputFiles]) -> Sequence[OutputFile]:
    """All files of runs, each in the order of its paths, in that order."""
    ordered = sorted(filter(None, runs), key=lambda run: run.path(0))
    if any(before.last_path() >= after.path(0) for before, after in pairwise(ordered)):
        ordered = [OutputFiles(heapq.merge(*ordered, key=by_path))]
    return _Joined(ordered)


def with_added(files: Sequence[OutputFile], added: Iterable[OutputFile]) -> Sequence[OutputFile]:
    """Files in the order of their paths, and a few more of other paths. Only a run that one comes into is copied."""
    runs = list(files.runs) if isinstance(files, _Joined) else list(filter(None, [OutputFiles(files)]))
    for file in added:
        new = [OutputFiles([file])]
        place = bisect_left(runs, file.path, key=OutputFiles.last_path)
        if place < len(runs) and (run := runs[place]).path(0) < file.path:
            cut = bisect_left(range(len(run)), file.path, key=run.path)
            runs[place : place + 1] = [run.part(0, cut), *new, run.part(cut, len(run))]
        else:
            runs[place:place] = new
    return _Joined(runs)
