"""Finds the source files of a dataset, and which config and split each belongs to."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from converters.dataset.description import Description, Split
from converters.dataset.source import SourceFile, SourceSplit
from converters.errors import CallError, DataError, Location
from converters.formats.tfrecord.compression import detect_compression
from converters.formats.tfrecord.reader import first_label_count
from converters.storage.files import file_state, is_folder, names_in
from converters.storage.object_store import Place, side_by_side

# Extensions that a compressed copy of a file may have in addition.
_COMPRESSED_SUFFIXES = ("", ".gz", ".gzip", ".zlib", ".zz")

_TFRECORD_NAME = re.compile(r"\.tfrecords?\b", re.IGNORECASE)

# Other words that name a split in file names; each stands for those of its row.
_SPLIT_WORDS = (
    frozenset({"train", "training"}),
    frozenset({"valid", "validation", "val", "dev"}),
    frozenset({"test", "testing"}),
)


@dataclass(frozen=True)
class FoundSource:
    """What was found in a source folder: the splits that are there, and those that are not."""

    folder: Place
    description: Description
    splits: tuple[SourceSplit, ...]
    absent: tuple[Split, ...]


def find_source(
    folder: Place, description: Description, configs: Collection[str] = (), splits: Collection[str] = ()
) -> FoundSource:
    """Find the files of the wanted configs and splits (all, where none are named).

    A file is matched by its name. A TFRecord file with a name that the description does not know is matched by
    the number of its labels and a split's name in its own, where both are unambiguous.

    Raises:
        CallError: the folder is not there, a name is unknown, or nothing that was asked for is there.
        DataError: a file cannot belong to any split, or could belong to more than one.
    """
    if not is_folder(folder):
        raise CallError(f"{folder}: there is no such folder. Name the folder that holds the TFRecord files.")
    wanted = _wanted(description, configs, splits)
    try:
        names = names_in(folder)
    except OSError as error:
        raise CallError(f"{folder}: cannot be read: {error.strerror}.") from error
    found: dict[Split, list[str]] = {split: _matching(split.file, names) for split in description.splits()}
    _refuse_shared(found, folder)
    notes: dict[Split, str] = {}
    known = {name for files in found.values() for name in files}
    for name in names:
        if _TFRECORD_NAME.search(name) and name not in known and not name.endswith(".idx"):
            split = _match_unknown(folder / name, description, found)
            found[split] = [name]
            notes[split] = (
                f"{name} was taken for {split.title} by its {len(split.label_names)} labels and its name"
            )
    present = [
        SourceSplit(
            split,
            tuple(_look(partial(_source_file, split, folder, frozenset(names)), found[split])),
            notes.get(split),
        )
        for split in wanted
        if found[split]
    ]
    _refuse_absent(folder, description, wanted, present, configs, splits)
    return FoundSource(
        folder, description, tuple(present), tuple(split for split in wanted if not found[split])
    )


def _wanted(description: Description, configs: Collection[str], splits: Collection[str]) -> list[Split]:
    for name in configs:
        description.config(name)
    known = {split.name for split in description.splits()}
    for name in splits:
        if name not in known:
            raise CallError(
                f"no split {name!r} in dataset {description.name!r}; it has {', '.join(sorted(known))}."
            )
    return [
        split
        for split in description.splits()
        if (not configs or split.config in configs) and (not splits or split.name in splits)
    ]


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that a split's ``file`` means: itself, or all that match if it is a pattern; compressed or not."""
    literal = [name for suffix in _COMPRESSED_SUFFIXES if (name := pattern + suffix) in names]
    if literal or not re.search(r"[*?\[]", pattern):
        return literal
    return [
        name
        for name in names
        if any(fnmatch.fnmatchcase(name, pattern + suffix) for suffix in _COMPRESSED_SUFFIXES)
        and not name.endswith(".idx")
    ]


def _refuse_shared(found: dict[Split, list[str]], folder: Place) -> None:
    owners: dict[str, Split] = {}
    for split, names in found.items():
        if len(names) > 1 and not re.search(r"[*?\[]", split.file):
            raise DataError(
                f"{' and '.join(names)} both look like {split.title}.",
                Location(str(folder)),
                "Keep one of them here.",
            )
        for name in names:
            if name in owners:
                raise DataError(
                    f"the description gives this file to {owners[name].title} and to {split.title}.",
                    Location(str(folder / name)),
                )
            owners[name] = split


def _match_unknown(path: Place, description: Description, found: dict[Split, list[str]]) -> Split:
    """The one split that a file of unknown name can belong to."""
    label_count = first_label_count(path, detect_compression(path), description.features)
    configs = [config for config in description.configs if len(config.label_names) == label_count]
    words = set(re.split(r"[^a-z]+", path.name.lower()))
    splits = [split for config in configs for split in config.splits if words & _words(split.name)]
    if len(configs) == 1 and len(splits) == 1 and not found[splits[0]]:
        return splits[0]
    if not configs:
        reason = f"its {label_count} labels fit no config"
    elif len(configs) > 1:
        reason = f"its {label_count} labels fit {', '.join(config.name for config in configs)}"
    elif len(splits) != 1:
        reason = (
            f"its {label_count} labels fit {configs[0].name}, but its name does not say which split it is"
        )
    else:
        reason = f"it looks like {splits[0].title}, for which {found[splits[0]][0]} is there already"
    expected = (
        ", ".join(split.file for split in description.splits() if not found[split]) or "none is missing"
    )
    raise DataError(
        f"this TFRecord file cannot be matched to the dataset: {reason}.",
        Location(str(path)),
        f"Rename it (expected: {expected}), move it elsewhere, or describe the dataset in a dataset.json.",
    )


def _words(split_name: str) -> frozenset[str]:
    name = split_name.lower()
    return next((row for row in _SPLIT_WORDS if name in row), frozenset({name}))


def _look(look: Callable[[str], SourceFile], names: Sequence[str]) -> Iterable[SourceFile]:
    """What is found at each name. Where there are many, requests to a store go side by side."""
    return side_by_side(look, names) if len(names) > 1 else map(look, names)


def _source_file(split: Split, folder: Place, there: Collection[str], name: str) -> SourceFile:
    path = folder / name
    index = split.index if split.index and name.startswith(split.file) else None
    # A link that leads nowhere is an index that cannot be read, not one that is absent; its name is there.
    if index is None or index not in there:
        index = next((other for other in _index_names(path) if other in there), None)
    compression = detect_compression(path)
    return SourceFile(
        path.name, path, *file_state(path), compression, None if index is None else folder / index
    )


def _index_names(path: Place) -> tuple[str, str]:
    """What DALI's tools call the index of a file: with the extension replaced or added."""
    return path.with_suffix(".idx").name, f"{path.name}.idx"


def _refuse_absent(
    folder: Place,
    description: Description,
    wanted: Sequence[Split],
    present: Sequence[SourceSplit],
    configs: Collection[str],
    splits: Collection[str],
) -> None:
    """Nothing there at all, or nothing of what was asked for by name, is a wrong call."""
    expected = ", ".join(split.file for split in wanted)
    if not present:
        raise CallError(
            f"{folder}: no TFRecord file of dataset {description.name!r} is here; expected {expected}."
        )
    there = {source.split for source in present}
    for config in configs:
        if not any(split.config == config for split in there):
            raise CallError(f"{folder}: no file of config {config!r} is here; expected {expected}.")
    for name in splits:
        if not any(split.name == name for split in there):
            raise CallError(f"{folder}: no file of split {name!r} is here; expected {expected}.")
    if configs and splits and len(there) < len(wanted):
        missing = next(split for split in wanted if split not in there)
        raise CallError(f"{folder}: {missing.file} ({missing.title}) is not here.")
