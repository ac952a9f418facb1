"""The base of formats that write one file per shard: ``<config>/<split>-00000-of-0000N.<suffix>``."""

from __future__ import annotations

import glob
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from converters.dataset.description import Split
from converters.dataset.shard import Shard
from converters.errors import DataError, Location
from converters.formats.readme import refuse_names, write_readme, write_terms
from converters.storage.hashing_reader import FileReader

if TYPE_CHECKING:
    from converters.dataset.report import Report

_NAME = re.compile(r"(.+)-\d{5,}-of-\d{5,}")


@contextmanager
def file_errors(kind: str, path: Path, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """What a library raises inside the block is an error of the file.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        yield
    except errors as error:
        reason = next(iter(str(error).splitlines()), "")
        raise DataError(f"the {kind} file cannot be read: {reason}.", Location(str(path))) from error


class ShardFiles(ABC):
    """What such formats have in common.

    Attributes:
        name: see :class:`~converters.formats.Format`.
        suffix: of the files, with its dot.
        in_datasets: whether `datasets` loads them.
    """

    name: str
    suffix: str
    in_datasets = True

    def split_name(self, split: Split) -> str:
        """What the files of ``split`` are called."""
        return split.name

    def names(self, splits: Sequence[Split]) -> dict[str, str]:
        """What the files of each split are called, by the split's title."""
        return {split.title: self.split_name(split) for split in splits}

    def refuse(self, splits: Sequence[Split]) -> None:
        """Refuse names that ``datasets`` would not take.

        Raises:
            CallError: with the split, and what to do.
        """
        refuse_names(splits, self.name, self.names(splits))

    def places(self, shard: Shard) -> list[str]:
        """The paths of a shard's files, that of its records first; see :class:`~converters.formats.NamesFiles`."""
        return [f"{shard.config}/{self.split_name(shard.split)}-{shard.numbered()}{self.suffix}"]

    def new_file(self, folder: Path, shard: Shard) -> Path:
        """The path of a shard's file below ``folder``; the folder that it lies in is made."""
        path = folder / self.places(shard)[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def paths(self, folder: Path, split: Split) -> list[Path]:
        """The files of a split below ``folder``, in the order of the shards."""
        found = sorted(path for path in (folder / split.config).iterdir() if path.suffix == self.suffix)
        named = [(_NAME.fullmatch(path.stem), path) for path in found]
        return [path for match, path in named if match and match[1] == self.split_name(split)]

    def read(self, folder: Path, split: Split, first: int = 0) -> Iterator[pa.RecordBatch]:
        """Read back the records of a split, in order."""
        return self.read_through(FileReader(), folder, split, first)

    def read_through(
        self, files: FileReader, folder: Path, split: Split, first: int = 0
    ) -> Iterator[pa.RecordBatch]:
        """As :meth:`read`; see :class:`~converters.formats.ReadsThrough`."""
        for path in self.paths(folder, split):
            for batch in self.read_file(files, path, split, first):
                yield batch
                first += len(batch)

    @abstractmethod
    def read_file(self, files: FileReader, path: Path, split: Split, first: int) -> Iterator[pa.RecordBatch]:
        """Read back the records of one file, strictly; the first is record ``first`` of the split.

        ``files`` opens it, unless a library must have the path.

        Raises:
            DataError: it is damaged, or not a file of this split.
        """

    def finish(self, report: Report, folder: Path) -> None:
        """Write the terms, and a README that tells `datasets` of configs and splits."""
        splits = [split.split for split in report.splits] if self.in_datasets else []
        data_files = {
            split.title: f"{glob.escape(split.config)}/{self.split_name(split)}-*{self.suffix}"
            for split in splits
        }
        write_terms(report, folder)
        features = self.stated_features(report)
        write_readme(report, folder, data_files, loading=self.loading(report), features=features)

    def loading(self, report: Report) -> str | None:  # for formats that say it themselves
        """Markdown for the README that says how the files are loaded; by default as `datasets` does."""
        return None

    def stated_features(self, report: Report) -> Mapping[str, Sequence[Mapping[str, Any]]]:  # likewise
        """By config, the features that the README states because `datasets` would not find them in the files."""
        return {}
