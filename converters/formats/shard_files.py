"""The names of the files of formats that write one file per shard: ``<config>/<split>-00000-of-0000N.<suffix>``."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING

from converters.dataset.description import Split
from converters.dataset.shard import Shard

if TYPE_CHECKING:
    from converters.dataset.report import Report

_NAME = re.compile(r"(.+)-\d{5,}-of-\d{5,}")


def new_shard_file(folder: Path, shard: Shard, suffix: str, split_name: str | None = None) -> Path:
    """The path of a shard's file below ``folder``; the folder that it lies in is made.

    Args:
        folder: what the shard is written to.
        shard: the shard.
        suffix: of the file, with its dot.
        split_name: what files of the split are called, where it is not the split's name.
    """
    path = folder / shard.config / f"{split_name or shard.split.name}-{shard.numbered()}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def shard_files(folder: Path, split: Split, suffix: str, split_name: str | None = None) -> list[Path]:
    """The files of a split below ``folder``, in the order of the shards."""
    found = sorted(path for path in (folder / split.config).iterdir() if path.suffix == suffix)
    named = [(_NAME.fullmatch(path.stem), path) for path in found]
    return [path for match, path in named if match and match[1] == (split_name or split.name)]


def data_files(report: Report, suffix: str) -> dict[str, str]:
    """A pattern for the files of each split, by its title; see :func:`converters.formats.readme.write_readme`."""
    splits = [split.split for split in report.splits]
    return {split.title: f"{glob.escape(split.config)}/{split.name}-*{suffix}" for split in splits}
