"""Which description applies to a source: one beside it, KFER's, TensorFlow Datasets', or what file names say."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

from converters.dataset.description import (
    DESCRIPTION_FILE,
    Description,
    kfer,
    parse_description,
    read_description,
)
from converters.dataset.members import COMPRESSED_SUFFIXES, plain_name
from converters.errors import CallError, ConverterError
from converters.formats.tfrecord.compression import StoredFile
from converters.formats.tfrecord.discovery import Described, foreign_file, refuse_unsafe
from converters.formats.tfrecord.file_names import (
    is_sidecar_name,
    is_tfrecord_name,
    natural_order,
    sibling_pattern,
    splits_of,
    stem_of_shards,
    suffix_of,
)
from converters.formats.tfrecord.foreign import Look, look_at
from converters.formats.tfrecord.listing import Listing
from converters.formats.tfrecord.reader import RangeReader, SourceRange
from converters.formats.tfrecord.strict_parser import ExampleError, parse_example
from converters.formats.tfrecord.tfds import tfds_description, tfds_folders
from converters.storage.files import file_state
from converters.storage.object_store import ObjectPath, Place, side_by_side

INFERRED_CONFIG = "default"
_SPLIT_ORDER = ("train", "valid", "validation", "val", "dev", "eval", "test")
_SHOWN = 20
_INDEX = re.compile(rb"0 \d+\n")


def describe(listing: Listing) -> Described:
    """The description that applies to a source.

    Raises:
        CallError: a description is wrong, or there is no TFRecord file.
        DataError: a file that should be a TFRecord is something else.
    """
    if DESCRIPTION_FILE in listing.beside:
        return Described(read_description(listing.folder / DESCRIPTION_FILE), files=(DESCRIPTION_FILE,))
    if _is_kfer(listing):
        return Described(kfer())
    if tfds_folders(listing.beside):
        document, files = tfds_description(listing.folder, listing.beside)
        origin = f"{listing.folder}: TensorFlow Datasets' files"
        return Described(parse_description(document, origin), complete=not listing.chosen, files=tuple(files))
    return _by_names(listing)


# ---- KFER ---------------------------------------------------------------------------------------------


def _is_kfer(listing: Listing) -> bool:
    """Whether a file has one of KFER's names, or the first TFRecord file has records like KFER's."""
    description = kfer()
    known = {split.file + suffix for split in description.splits() for suffix in COMPRESSED_SUFFIXES}
    if not known.isdisjoint(listing.names):
        return True
    for name in listing.names:
        if not is_sidecar_name(name):
            look = _look(listing.folder / name)
            if look.kind == "tfrecord":
                return _has_records_of(description, listing.folder / name, look)
    return False


def _look(path: Place) -> Look:
    try:
        return look_at(path)
    except ConverterError:
        return Look("unknown")  # whoever needs the file will say what is wrong with it


def _has_records_of(description: Description, path: Place, look: Look) -> bool:
    whole = SourceRange(path, 0, file_state(path)[0], 0, look.compression)
    try:
        with closing(RangeReader(whole).frames()) as frames:
            features = parse_example(next(frames).data(0))
    except (ConverterError, ExampleError, StopIteration):
        return False
    for config in description.configs:
        counts = {column.feature: column.size for column in config.schema.stored}
        if {name: feature.count for name, feature in features.items()} == counts:
            return True
    return False


# ---- By the files' names ------------------------------------------------------------------------------


def _by_names(listing: Listing) -> Described:
    """All TFRecord files, known by their content; their names, or those of their folders, say the splits."""
    names = [name for name in listing.names if not is_sidecar_name(name)] or list(listing.names)
    names.sort(key=natural_order)
    many = side_by_side if isinstance(listing.folder, ObjectPath) else map
    looks = dict(zip(names, many(lambda name: _look(listing.folder / name), names), strict=True))
    sound = [name for name in names if looks[name].kind == "tfrecord"]
    suffixes = frozenset(filter(None, (suffix_of(plain_name(name)) for name in sound)))
    patterns = frozenset(map(sibling_pattern, sound))
    files = []
    for name in names:
        named = is_tfrecord_name(name) or sibling_pattern(name) in patterns
        named = named or listing.chosen or suffix_of(plain_name(name)) in suffixes
        if _is_meant(listing.folder / name, looks[name], named=named):
            files.append(name)
    if not files:
        here = ", ".join(listing.names[:_SHOWN]) or "nothing"
        raise CallError(f"{listing.place}: no TFRecord file is here; there is {here}.")
    for name in files:
        refuse_unsafe(listing.folder, name)
    splits: dict[str, list[str]] = {}
    source_name = "" if listing.chosen else _name(listing.folder)
    for name, split in splits_of(files, source_name).items():
        splits.setdefault(split, []).append(name)
    order = sorted(splits, key=lambda split: (_rank(split), split))
    document: dict[str, Any] = {
        "name": _dataset_name(listing),
        "configs": {INFERRED_CONFIG: {"splits": {split: {"file": splits[split]} for split in order}}},
    }
    notes = {}
    for split in order:
        stems = list(dict.fromkeys(map(stem_of_shards, splits[split])))
        if len(stems) > 1:
            shown = ", ".join(stem or "(no name)" for stem in stems[:_SHOWN])
            notes[split] = f"{split} is made of {len(stems)} sets of files, one after the other: {shown}"
    return Described(parse_description(document, str(listing.place)), notes=notes, named_after_place=True)


def _is_meant(path: Place, look: Look, *, named: bool) -> bool:
    """Whether a file is a TFRecord, or should be one by its name.

    Raises:
        DataError: it should be, and is something else.
    """
    if named and look.kind == "foreign":
        with StoredFile(path) as file:
            if _INDEX.match(file.read(64)):  # DALI's, in a folder of its own under the names of the files
                return False
        raise foreign_file(path, look)
    return named or look.kind == "tfrecord"


def _rank(split: str) -> int:
    word = split.partition("_")[0]
    return _SPLIT_ORDER.index(word) if word in _SPLIT_ORDER else len(_SPLIT_ORDER)


def _name(folder: Place) -> str:
    return folder.resolve().name if isinstance(folder, Path) else folder.name


def _dataset_name(listing: Listing) -> str:
    """The folder's name, or that of the file."""
    name = plain_name(listing.place.name) if listing.place.name in listing.names else _name(listing.folder)
    return name if name.isprintable() and name else "dataset"
