"""Finds the source files of a dataset, and which config and split each belongs to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from converters.dataset.description import DESCRIPTION_FILE, Description, Split
from converters.dataset.filenames import safe_path
from converters.dataset.members import COMPRESSED_SUFFIXES, is_pattern, member_sets, plain_name, same_name
from converters.dataset.source import SourceFile, SourceSplit
from converters.errors import CallError, DataError, Location
from converters.formats.tfrecord.checksum_files import published_digests
from converters.formats.tfrecord.file_names import is_sidecar_name
from converters.formats.tfrecord.foreign import Look, look_at
from converters.formats.tfrecord.listing import Listing, pattern_of
from converters.formats.tfrecord.reader import first_label_count
from converters.storage.files import file_state
from converters.storage.object_store import ObjectPath, Place, side_by_side
from converters.storage.tree import file_digest

_TFRECORD_NAME = re.compile(r"\.tfrecords?\b", re.IGNORECASE)

# Words in file names that name the same split, by one of them.
_SAME_SPLIT = {"training": "train", "validation": "valid", "val": "valid", "dev": "valid", "testing": "test"}
_SHOWN = 20


@dataclass(frozen=True)
class Described:
    """A description, and how it was come by.

    Attributes:
        description: of the dataset; the columns of its configs may have to be inferred.
        complete: whether a split that it has must be there, if it is not left out by name.
        files: the files that it was read from, relative to the source.
        notes: of splits that were made of files of several stems, a sentence each, by the split's name.
        named_after_place: whether the dataset's name is only that of the folder, or of the file.
    """

    description: Description
    complete: bool = False
    files: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    named_after_place: bool = False


@dataclass(frozen=True)
class FoundSource:
    """What was found in a source: the splits that are there, and those that are not.

    Attributes:
        folder: the folder that the names of files are relative to.
        description: of the dataset.
        splits: those that are there, of those asked for.
        absent: those that are not.
        passed_over: files and folders that are no part of the dataset, as far as they are worth a word.
        companions: files whose content counts, besides the TFRecords and their indexes.
        others: splits that are there and were not asked for.
    """

    folder: Place
    description: Description
    splits: tuple[SourceSplit, ...]
    absent: tuple[Split, ...]
    passed_over: tuple[str, ...] = ()
    companions: tuple[Place, ...] = ()
    others: tuple[SourceSplit, ...] = ()


def find_source(
    listing: Listing,
    described: Described,
    configs: Collection[str] = (),
    splits: Collection[str] = (),
    *,
    allow_mismatch: bool = False,
) -> FoundSource:
    """Find the files of the wanted configs and splits (all, where none are named).

    A file is matched by its name. A TFRecord file with a name that the description does not know is matched by
    the number of its labels and a split's name in its own, where both are unambiguous. With ``allow_mismatch``, a
    file of no bytes is one of no records, and a split may be absent that must be there.

    Raises:
        CallError: the folder is not there, a name is unknown, outputs cannot hold the name of a file, or nothing that
            was asked for is there.
        DataError: a file cannot belong to any split, or could belong to more than one; it is no TFRecord; a member of
            ``-of-N`` is there twice, or a file and its copy; a split is absent that must be there.
    """
    folder, description = listing.folder, described.description
    wanted = _wanted(description, configs, splits)
    found = _by_name(description, listing.names)
    _refuse_shared(found, folder)
    notes: dict[Split, str] = {}
    known = {name for files in found.values() for name in files}
    for name in _unknown(listing, known):
        split = _match_unknown(folder / name, description, found)
        found[split] = [name]
        notes[split] = (
            f"{name} was taken for {split.title} by its {len(split.label_names)} labels and its name"
        )
    for split, names in found.items():
        _check_members(names, split, folder)
    digests, digest_files = published_digests(folder, listing.beside)
    files = _look_at_all(found, listing, digests, allow_empty=allow_mismatch)
    for split, names in found.items():
        _refuse_copies([files[name] for name in names], split, folder)
        if empty := [name for name in names if files[name].may_be_empty]:
            notes[split] = f"no record of {split.title} is in {_listed(empty)}"
    there = [
        SourceSplit(
            split,
            tuple(files[name] for name in found[split]),
            described.notes.get(split.name, notes.get(split)),
        )
        for split in description.splits()
        if found[split]
    ]
    asked = set(wanted)
    present = [source for source in there if source.split in asked]
    absent = tuple(split for split in wanted if not found[split])
    _refuse_absent(listing, description, wanted, present, configs, splits)
    if absent and described.complete and not (configs or splits or allow_mismatch):
        raise DataError(
            f"{absent[0].title}: none of its {len(absent[0].files)} files is here, first {absent[0].files[0]}; "
            f"{absent[0].published.records} records are published.",
            Location(str(folder)),
            "Name the splits that you want with --split, or go on with --allow-mismatch.",
        )
    used = {name for names in found.values() for name in names}
    used |= {DESCRIPTION_FILE, *digest_files, *described.files}
    used |= {file.index.name for file in files.values() if file.index is not None}
    return FoundSource(
        folder,
        description,
        tuple(present),
        absent,
        tuple(_passed_over(listing, used, description)),
        tuple(folder / name for name in digest_files),
        tuple(source for source in there if source.split not in asked),
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


# ---- By name ------------------------------------------------------------------------------------------


def _by_name(description: Description, names: Sequence[str]) -> dict[Split, list[str]]:
    """The files of each split, by the names and patterns that the description has, in their order."""
    exact = {same_name(name): name for name in reversed(names)} | dict(zip(names, names, strict=True))
    plain = {name: same_name(plain_name(name)) for name in names if not is_sidecar_name(name)}

    def matching(file: str) -> list[str]:
        """What a ``file`` means: itself, or all that match if it is a pattern; compressed or not."""
        stored = [file + suffix for suffix in COMPRESSED_SUFFIXES]
        literal = list(filter(None, (exact.get(name) or exact.get(same_name(name)) for name in stored)))
        if literal or not is_pattern(file):
            return literal
        pattern = pattern_of(same_name(plain_name(file)))
        return sorted(name for name, own in plain.items() if pattern.fullmatch(own))

    return {
        split: list(dict.fromkeys(name for file in split.files for name in matching(file)))
        for split in description.splits()
    }


def _refuse_shared(found: Mapping[Split, list[str]], folder: Place) -> None:
    owners: dict[str, Split] = {}
    for split, names in found.items():
        plain: dict[str, str] = {}
        for name in names:
            other = plain.setdefault(same_name(plain_name(name)), name)
            if other != name:
                raise DataError(
                    f"{other} and {name} both look like {split.title}: one is a copy of the other.",
                    Location(str(folder)),
                    "Keep one of them here.",
                )
            if name in owners:
                raise DataError(
                    f"the description gives this file to {owners[name].title} and to {split.title}.",
                    Location(str(folder / name)),
                )
            owners[name] = split


def _check_members(names: Sequence[str], split: Split, folder: Place) -> None:
    """Refuse members of ``-of-N`` that contradict each other."""
    try:
        member_sets(names)
    except ValueError as error:
        raise DataError(
            f"{split.title}: {error}.", Location(str(folder)), "Keep the files of one set here."
        ) from None


# ---- By content ---------------------------------------------------------------------------------------


def _unknown(listing: Listing, known: Collection[str]) -> Iterator[str]:
    """TFRecord files beside those that the description names; those of folders below, only if there are no others."""
    names = [
        name
        for name in listing.names
        if name not in known and _TFRECORD_NAME.search(name) and not is_sidecar_name(name)
    ]
    top = [name for name in names if "/" not in name]
    yield from top if top or known else names


def _match_unknown(path: Place, description: Description, found: Mapping[Split, list[str]]) -> Split:
    """The one split that a file of unknown name can belong to."""
    _refuse_other_set(path, description)
    look = _look(path)
    if look.kind == "empty":
        raise _empty(path, "move it elsewhere")  # nothing tells of which split it would be
    labels = [config.schema.label for config in description.configs]
    feature = next((label.feature for label in labels if label and label.kind), None)
    count = None if feature is None else first_label_count(path, look.compression, feature)
    fitting = [
        config
        for config, label in zip(description.configs, labels, strict=True)
        if label and len(label.label_names) == count
    ]
    words = {_SAME_SPLIT.get(word, word) for word in re.split(r"[^a-z]+", path.name.lower())}
    splits = [
        split
        for config in (fitting if len(fitting) == 1 else ())
        for split in config.splits
        if _SAME_SPLIT.get(split.name.lower(), split.name.lower()) in words
    ]
    if len(splits) == 1 and not found[splits[0]]:
        return splits[0]
    reason = f"its {count} labels fit {', '.join(config.name for config in fitting) or 'no config'}"
    if feature is None:
        reason = "the description does not name it"
    elif len(splits) == 1:
        reason = f"it looks like {splits[0].title}, for which {found[splits[0]][0]} is there already"
    elif len(fitting) == 1:
        reason += ", but its name does not say which split it is"
    expected = (
        _listed([split.file for split in description.splits() if not found[split]]) or "none is missing"
    )
    raise DataError(
        f"this TFRecord file cannot be matched to the dataset: {reason}.",
        Location(str(path)),
        f"Rename it (expected: {expected}), move it elsewhere, or describe the dataset in a dataset.json.",
    )


def _refuse_other_set(path: Place, description: Description) -> None:
    """Refuse a member of a set of which there must be another number by the description."""
    try:
        (own,) = member_sets([path.name])
    except ValueError:
        return
    for split in description.splits():
        for members in member_sets(file.rpartition("/")[2] for file in split.files if not is_pattern(file)):
            if (members.before, members.after) == (own.before, own.after):
                records = split.published.records
                counts = "" if records is None else f" with {records} records"
                raise DataError(
                    f"{split.title}: this is one of {own.count} files; {members.count} files{counts} are published.",
                    Location(str(path)),
                    "Keep the files of one set here.",
                )


def _look_at_all(
    found: Mapping[Split, list[str]], listing: Listing, digests: Mapping[str, str], *, allow_empty: bool
) -> dict[str, SourceFile]:
    """Every file of every split. Where there are many, requests to a store go side by side."""
    names = [(split, name) for split, names in found.items() for name in names]
    look = partial(_source_file, listing, digests)
    many = side_by_side if isinstance(listing.folder, ObjectPath) else map
    looked = list(many(lambda entry: look(*entry), names))
    files = {name: file for (_, name), file in zip(names, looked, strict=True)}
    nothing = all(file.may_be_empty for file in files.values())
    for split, own in found.items():
        # What is compressed and complete was written so: a file of no record, if there are others.
        empty = [
            name
            for name in own
            if files[name].may_be_empty
            and (nothing or (files[name].compression == "none" and not allow_empty))
        ]
        records = split.published.records
        if empty and (records is None or (records and len(empty) == len(own))):
            raise _empty(
                files[empty[0]].path, "if it is meant to have no record, go on with --allow-mismatch"
            )
    return files


def _source_file(listing: Listing, digests: Mapping[str, str], split: Split, name: str) -> SourceFile:
    path = listing.folder / name
    refuse_unsafe(listing.folder, name)
    look = _look(path)
    index = split.index if split.index and name.startswith(split.file) else None
    # A link that leads nowhere is an index that cannot be read, not one that is absent; its name is there.
    if index is None or index not in listing.beside:
        index = next((other for other in _index_names(name) if other in listing.beside), None)
    return SourceFile(
        name,
        path,
        *file_state(path),
        look.compression,
        None if index is None else listing.folder / index,
        digests.get(name),
        look.kind == "empty",
    )


def refuse_unsafe(folder: Place, name: str) -> None:
    """Refuse a file whose name the manifest cannot hold.

    Raises:
        CallError: its name is that.
    """
    if not safe_path(name):
        raise CallError(
            f"{folder}: the name of the file {name!r} is not UTF-8, or has a backslash or a character that is not "
            "printable, so that outputs cannot hold it. Rename it, or make a link of another name to it."
        )


def _refuse_copies(files: Sequence[SourceFile], split: Split, folder: Place) -> None:
    """Refuse a file and its copy in another folder, whose records would come twice."""
    alike: dict[tuple[str, int], list[SourceFile]] = {}
    for file in files:
        alike.setdefault((file.name.rpartition("/")[2], file.size), []).append(file)
    for group in alike.values():
        seen: dict[str, SourceFile] = {}
        for file in group if len(group) > 1 and not group[0].may_be_empty else ():
            other = seen.setdefault(file_digest(file.path, "sha256"), file)
            if other is not file:
                raise DataError(
                    f"{split.title}: {other.name} and {file.name} are the same, byte for byte: one is a copy.",
                    Location(str(folder)),
                    "Keep one of them here.",
                )


def _index_names(name: str) -> tuple[str, str]:
    """What DALI's tools call the index of a file: with the extension replaced or added."""
    folder, slash, own = name.rpartition("/")
    stem = own.rpartition(".")[0] if "." in own.lstrip(".") else own
    return f"{folder}{slash}{stem}.idx", f"{name}.idx"


def _look(path: Place) -> Look:
    look = look_at(path)
    if look.kind == "foreign":
        raise foreign_file(path, look)
    return look


def foreign_file(path: Place, look: Look) -> DataError:
    """The error of a file that should be a TFRecord and is something else."""
    return DataError(
        f"this is no TFRecord file: it is {look.words}.",
        Location(str(path)),
        "Put the TFRecord file itself here, or move this one elsewhere.",
    )


def _empty(path: Place, otherwise: str) -> DataError:
    return DataError(
        "the file is empty.", Location(str(path)), f"Copy it again from where you got it; {otherwise}."
    )


# ---- What is left -------------------------------------------------------------------------------------


def _passed_over(listing: Listing, used: Collection[str], description: Description) -> Iterable[str]:
    """What is in the source and is no part of the dataset, nor known to lie beside one."""
    expected = {split.labels_csv for split in description.splits()}
    for name in listing.names:
        own = name.rpartition("/")[2]
        if name not in used and own not in expected and own not in used:
            yield name
    yield from listing.hidden


def passed_over_note(names: Sequence[str]) -> str:
    """A sentence that lists what was passed over."""
    return f"passed over, as no part of the dataset: {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _refuse_absent(
    listing: Listing,
    description: Description,
    wanted: Sequence[Split],
    present: Sequence[SourceSplit],
    configs: Collection[str],
    splits: Collection[str],
) -> None:
    """Nothing there at all, or nothing of what was asked for by name, is a wrong call."""
    place = listing.place
    expected = _listed([split.file for split in wanted])
    if not present:
        raise CallError(
            f"{place}: no TFRecord file of dataset {description.name!r} is here; expected {expected}."
        )
    there = [source.split for source in present]
    for kind, names, known in (
        ("config", configs, {split.config for split in there}),
        ("split", splits, {split.name for split in there}),
    ):
        if missing := next((name for name in names if name not in known), None):
            raise CallError(f"{place}: no file of {kind} {missing!r} is here; expected {expected}.")
    if configs and splits and len(there) < len(wanted):
        absent = next(split for split in wanted if split not in there)
        raise CallError(f"{place}: {absent.file} ({absent.title}) is not here.")
