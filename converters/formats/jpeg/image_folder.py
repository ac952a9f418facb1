"""Writes and reads the image folder of a split; see the package's text for how it is laid out."""

from __future__ import annotations

import glob
import json
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from converters.dataset.arrays import binary_array, binary_views, number_array, vector_matrix
from converters.dataset.description import Split
from converters.dataset.filenames import folded, unsafe_name
from converters.dataset.image_header import ImageHeaderReader
from converters.dataset.image_names import first_misnamed, image_names, image_tail
from converters.dataset.jpeg_header import ImageError
from converters.dataset.labels import label_ranks
from converters.dataset.schema import SIZES, Column
from converters.dataset.shard import Shard
from converters.errors import CallError, DataError, Location
from converters.formats.jpeg.metadata import Metadata, is_reserved
from converters.formats.json_rows import refuse_not_finite
from converters.formats.readme import (
    code,
    config_names,
    datasets_loading,
    default_config,
    refuse_names,
    several_labels,
    write_readme,
    write_terms,
)
from converters.storage.hashing_reader import FileReader
from converters.storage.tree import walk_files, walk_many_files

if TYPE_CHECKING:
    from converters.dataset.report import Report

IMAGES_FOLDER = "images"

_NUMBER = r"\d{5,}-of-\d{5,}"
_OF_A_SHARD = re.compile(f"{IMAGES_FOLDER}/{_NUMBER}")
# Where `datasets` finds a split's name in that of a file.
_SPLIT_WORD = re.compile(
    r"(?:^|[-._ 0-9])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)[-._ 0-9]"
)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class JpegFormat:
    """Image files byte for byte as stored, and one metadata file a split: <config>/<split>/{images/…,metadata.csv}.

    Args:
        class_folders: one folder a class instead, its number first, where records have one label whose name is known:
            <config>/<split>/00_angry/…, as torchvision's ImageFolder and Keras read them.
    """

    name = "jpeg"

    def __init__(self, *, class_folders: bool = False) -> None:
        self.class_folders = class_folders

    # --- What cannot be laid out ---------------------------------------------------------------------------

    def refuse(self, splits: Sequence[Split]) -> None:
        """Refuse what files of images and a text file cannot hold; see :class:`~converters.formats.Refuses`."""
        refuse_names(splits, self.name)
        for split in splits:
            if split.schema.image is None:
                raise CallError(
                    f"{split.title}: no column is an image, so a {self.name} output would have no files. Choose "
                    "another format; `kfer-convert inspect` shows what each is taken for, and why."
                )
            for column in split.schema.stored:
                if problem := _column_problem(split, column):
                    raise CallError(
                        f"{split.title}: the column {column.name} {problem}, which a {self.name} output cannot hold. "
                        f"Leave it out with --without {column.name}, or choose another format."
                    )
        if self.class_folders:
            self._refuse_class_folders(splits)

    def _refuse_class_folders(self, splits: Sequence[Split]) -> None:
        sorted_out = [split for split in splits if self._class_folders(split)]
        if not sorted_out:
            raise CallError(
                f"--class-folders: the records of {', '.join(split.title for split in splits)} do not have one label "
                "each whose name is known. Leave the option out."
            )
        for split in sorted_out:
            label = split.schema.label
            if label is not None and (label.nullable or label.unlabelled):
                raise CallError(
                    f"{split.title}: --class-folders: records may lack a label, and have no folder then. Leave the "
                    "option out."
                )
            if len(split.schema.images) > 1:
                names = ", ".join(image.name for image in split.schema.images[1:])
                raise CallError(
                    f"{split.title}: --class-folders: what reads class folders takes {names} for further records. "
                    "Leave the option out, or these with --without."
                )
            for name in self._class_folders(split):
                if problem := unsafe_name(name):
                    raise CallError(
                        f"--class-folders cannot make a folder of this label of {split.config}: its name {problem}."
                    )

    # --- Writing -------------------------------------------------------------------------------------------

    def write(self, batches: Iterable[pa.RecordBatch], shard: Shard, folder: Path) -> list[str]:
        """Write a shard's records: its images, and its metadata or the part of it."""
        split, schema, metadata = shard.split, shard.split.schema, Metadata(shard.split)
        root = folder / shard.config / split.name
        below = root.relative_to(folder).as_posix()
        folders = self._class_folders(split)
        images = IMAGES_FOLDER if shard.count == 1 else f"{IMAGES_FOLDER}/{shard.numbered()}"
        for name in folders or [images]:
            (root / name).mkdir(parents=True)
        file_name = metadata.file if shard.count == 1 else metadata.part(shard.numbered())
        written = [f"{below}/{file_name}"]
        first = shard.first_record
        names_there: set[str] = set()
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with (root / file_name).open("xb") as file:
                write_rows = metadata.writer(file, header=shard.index == 0)
                for batch in batches:
                    places = _places(split, folders, batch, first) if folders else [images] * len(batch)
                    paths = {}
                    for image in schema.images:
                        names = image_names(split, image, batch, first, with_split=False)
                        if schema.role("file_name") is not None:
                            _check_names(split, names, names_there, first)
                        files = [f"{place}/{name}" for place, name in zip(places, names, strict=True)]
                        _write_new(descriptor, files, binary_views(batch.column(image.name)))
                        written += [f"{below}/{path}" for path in files]
                        paths[image.name] = files
                    refuse_not_finite(split, batch, first)
                    write_rows(metadata.rows(batch, paths))
                    first += len(batch)
        finally:
            os.close(descriptor)
        return written

    def joins(self, split: Split, shards: int) -> dict[str, list[str]]:
        """The metadata of a split is made of its shards' parts; see :class:`~converters.formats.Joins`."""
        if shards == 1:
            return {}
        metadata, below = Metadata(split), f"{split.config}/{split.name}"
        parts = [metadata.part(Shard(split, index, shards, 0, (), 0).numbered()) for index in range(shards)]
        return {f"{below}/{metadata.file}": [f"{below}/{part}" for part in parts]}

    def finish(self, report: Report, folder: Path) -> None:
        """Write the terms of the data, and the README through which ``datasets`` finds every split."""
        splits = [split.split for split in report.splits]
        write_terms(report, folder)
        data_files = {split.title: f"{glob.escape(split.config)}/{split.name}/**" for split in splits}
        write_readme(report, folder, data_files, loading=_loading(report), columns=False)

    def places(self, shard: Shard) -> list[str]:
        """See :class:`~converters.formats.NamesFiles`; that records account for all in the folders, reading shows."""
        folders, alone = self._class_folders(shard.split), shard.count == 1
        found = [f"{name}/" for name in folders or [IMAGES_FOLDER]]
        if not alone and not folders:
            found = [f"{IMAGES_FOLDER}/{shard.numbered()}/"]
        found += [Metadata(shard.split).file] * alone  # the others' parts are joined
        return [f"{shard.config}/{shard.split.name}/{name}" for name in found]

    # --- Reading back --------------------------------------------------------------------------------------

    def read(self, folder: Path, split: Split, first: int = 0) -> Iterator[pa.RecordBatch]:
        """Read back the records of a split, in the order of its metadata."""
        return self.read_through(FileReader(), folder, split, first)

    def read_through(
        self, files: FileReader, folder: Path, split: Split, first: int = 0
    ) -> Iterator[pa.RecordBatch]:
        """As :meth:`read`; the images are read through ``files``."""
        root, metadata = folder / split.config / split.name, Metadata(split)
        folders = self._class_folders(split)
        table, number = _metadata_file(root, metadata)
        with os.scandir(root) as entries:  # what reads class folders takes an empty one for a class
            there = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        if odd := min(there - set(folders or [IMAGES_FOLDER]), default=None):
            raise DataError(f"{odd}: there is no such folder in this layout.", Location(str(root)))
        # The paths that records account for: how many, and the sum of their hashes, as there may be too many to keep.
        count, total, last = 1, hash(table.name), ""
        for rows in metadata.read(table, header=_has_header(number)):
            reader = _RowReader(files, root, metadata, table, first)
            stored = metadata.stored(rows, reader.location)
            named = [rows.column(name).to_pylist() for name in metadata.file_columns.values()]
            reader.check_places(named, number, _stated_places(split, stored) if folders else [])
            # Readers go by the names, so the folders of several shards must follow each other.
            if number is None and not folders:
                places = [last, *(path.rpartition("/")[0] for path in named[0])]
                if places != sorted(places):
                    raise DataError(
                        "the folders of the images are not in the order of the records.", Location(str(table))
                    )
                last = places[-1]
            for paths in named:
                count += len(paths)
                total += sum(map(hash, paths))
            yield from reader.read(named, stored)
            first += len(rows)
        for paths in walk_many_files(root):
            count -= len(paths)
            total -= sum(map(hash, paths))
        if (count, total) != (0, 0):
            raise DataError(_unaccounted(root, metadata, table, number), Location(str(root)))

    def _class_folders(self, split: Split) -> list[str]:
        """The folders of the classes in stored order; none where the images are not sorted into classes."""
        label = split.schema.label
        if not self.class_folders or label is None or not label.label_names or several_labels(label):
            return []
        width = max(2, len(str(len(label.label_names) - 1)))
        return [f"{number:0{width}d}_{name}" for number, name in enumerate(label.label_names)]


def _loading(report: Report) -> str:
    """Markdown that says how ``datasets`` loads the folders, and which splits it may refuse to load together."""
    splits = [split.split for split in report.splits]
    texts = [datasets_loading(default_config(splits))]
    for config in config_names(splits):
        first, *others = (split for split in splits if split.config == config)
        sparse = {column.name for column in first.schema.sparse} & Metadata(first).fields.keys()
        if not others or Metadata(first).is_csv or not sparse:
            continue
        place = "".join(f" / {json.dumps(name, ensure_ascii=False)}" for name in (config, first.name))
        texts += [
            f"`datasets` takes the types of columns from their values, and loads no splits together of which one has "
            f"no value of a column and another has some. In {code(config)} this may be so of "
            f"{', '.join(map(code, sorted(sparse)))}. It loads each split by itself:",
            textwrap.dedent(f"""\
                ```python
                from pathlib import Path

                from datasets import load_dataset

                dataset = load_dataset("imagefolder", data_dir=str(Path.cwd(){place}), split="train")
                ```"""),
        ]
    return "\n\n".join(texts)


@dataclass(frozen=True)
class _RowReader:
    """Reads the records of rows of the metadata file ``path``; the first of them is record ``first`` of the split."""

    files: FileReader
    root: Path
    metadata: Metadata
    path: Path
    first: int
    headers: ImageHeaderReader = field(default_factory=ImageHeaderReader)

    def location(self, row: int) -> Location:
        """Where a row is, by the number of its record in the split."""
        return Location(str(self.path), self.first + row)

    def check_places(self, files: list[list[str]], number: str | None, classes: Sequence[str]) -> None:
        """Check the folders in which the files lie, before any is read.

        Args:
            files: the paths of each column of images.
            number: that of their shard; None where each may be of any.
            classes: the class folder of each, where there are such.
        """
        images = f"{IMAGES_FOLDER}/{number}" if number else IMAGES_FOLDER
        for name, paths in zip(self.metadata.file_columns.values(), files, strict=True):
            for row, path in enumerate(paths):
                place, _, file = path.rpartition("/")
                where = classes[row] if classes else images
                of_a_shard = number is None and not classes and _OF_A_SHARD.fullmatch(place)
                # Nothing else that a name can have leads out of the folder; that it is the right one is checked later.
                if not (place == where or of_a_shard) or file in ("", ".", "..") or "\0" in file:
                    raise DataError(f"{name} {path!r} does not lie in {where}/.", self.location(row))

    def read(self, files: list[list[str]], stored: dict[str, pa.Array]) -> Iterator[pa.RecordBatch]:
        """The records, in batches of bounded size; ``files`` are the paths of each column of images."""
        paths = files[0] if len(files) == 1 else list(chain.from_iterable(zip(*files, strict=True)))
        start = 0
        try:
            for read in self.files.read_images(str(self.root), paths, len(files)):
                end = start + len(read) // len(files)
                yield self._batch(read, [own[start:end] for own in files], stored, start)
                start = end
        except OSError as error:
            raise DataError(
                f"the image cannot be read: {error.strerror or error}.", self._place(error.filename or "")
            ) from error

    def _place(self, path: str) -> Location:
        return Location(os.path.join(self.root, path))  # noqa: PTH118  # a path may be whole

    def _batch(
        self, read: list[bytes], files: list[list[str]], stored: dict[str, pa.Array], start: int
    ) -> pa.RecordBatch:
        """The records from row ``start`` on; ``read`` has the images of the first, then of the second …."""
        split, schema = self.metadata.split, self.metadata.schema
        columns = {
            image.name: binary_array(read[place :: len(files)]) for place, image in enumerate(schema.images)
        }
        columns |= {name: array.slice(start, len(files[0])) for name, array in stored.items()}
        if schema.image is not None:
            try:
                sizes = self.headers.read(columns[schema.image.name]).sizes
            except ImageError as error:
                raise DataError(error.message, self._place(files[0][error.row])) from None
            for part, role in enumerate(SIZES):
                column = schema.role(role)
                if column is not None and self.metadata.from_header(column):
                    kind = column.type.to_pandas_dtype()
                    columns[column.name] = number_array(sizes[:, part].astype(kind), column.type)
        batch = pa.RecordBatch.from_arrays(
            [columns[column.name] for column in schema.stored], schema=schema.arrow
        )
        for image, paths in zip(schema.images, files, strict=True):
            names = [path.rpartition("/")[2] for path in paths]
            row = first_misnamed(split, image, batch, self.first + start, names, with_split=False)
            if row is not None:
                raise DataError(
                    f"the file is {paths[row]!r}, which is not the name of this record's image.",
                    self.location(start + row),
                )
        return batch


def _column_problem(split: Split, column: Column) -> str | None:
    """Why a column cannot be laid out; None where it can."""
    metadata = Metadata(split)
    if column.role == "image":
        if column.nullable:
            return "may have no image"
        if column in (further := split.schema.images[1:]):
            first = next(image for image in further if image_tail(image) == image_tail(column))
            if first != column:
                return f"would have files named as those of the column {first.name}"
        name = metadata.file_columns[column.name]
        return (
            "has a split's name in it" if _SPLIT_WORD.search(f"_{name.removesuffix('file_name')}.") else None
        )
    if pa.types.is_binary(column.value_type):
        return "holds bytes that are no image"
    if is_reserved(column.name):
        return "has a name by which imagefolder knows images (a description can call it otherwise)"
    return None


def _places(split: Split, folders: Sequence[str], batch: pa.RecordBatch, first: int) -> list[str]:
    """The class folder of each record."""
    label = split.schema.label
    assert label is not None
    rows, ranks = label_ranks(label, batch.column(label.name))
    counts = np.bincount(rows, minlength=len(batch))
    if (counts != 1).any():
        row = int(np.argmax(counts != 1))
        raise DataError(
            f"the record has {counts[row]} labels, and so no class folder. Leave --class-folders out.",
            Location(split.title, first + row),
        )
    return [folders[rank] for rank in ranks.tolist()]


def _stated_places(split: Split, stored: dict[str, pa.Array]) -> list[str]:
    """The class folder of each row, by the stored labels that were read back; by other code than what wrote them."""
    label = split.schema.label
    assert label is not None
    array, digits = stored[label.name], max(2, len(str(len(label.label_names) - 1)))
    folders = [f"{str(rank).zfill(digits)}_{name}" for rank, name in enumerate(label.label_names)]
    if label.kind is not None:
        return [folders[rank] for rank in vector_matrix(array).argmax(axis=1).tolist()]
    by_number = dict(zip(label.label_ids or range(len(folders)), folders, strict=True))
    return [by_number.get(number, "") for number in array.to_pylist()]


def _check_names(split: Split, names: Sequence[str], there: set[str], first: int) -> None:
    """File names that come from the data must be safe, of one file each, and no split's."""
    for row, name in enumerate(names):
        problem = unsafe_name(name)
        if word := _SPLIT_WORD.search(name):
            problem = f"{name!r} has the word {word[1]!r}, by which `datasets` takes it for a split's"
        elif folded(name) in there:
            problem = f"{name!r} is also that of an earlier record"
        if problem:
            raise DataError(
                f"the file name {problem}.",
                Location(split.title, first + row),
                "Describe the column without the role file_name, and the files get numbers.",
            )
        there.add(folded(name))


def _metadata_file(root: Path, metadata: Metadata) -> tuple[Path, str | None]:
    """The metadata file of a split; or the part that a shard wrote of it, with the number of the shard."""
    whole = root / metadata.file
    if whole.exists():
        return whole, None
    name = re.compile(re.escape(metadata.part("#")).replace(r"\#", f"({_NUMBER})"))
    parts = [(path, match[1]) for path in root.iterdir() if (match := name.fullmatch(path.name))]
    if len(parts) != 1:
        raise DataError(f"there is no {metadata.file}.", Location(str(root)))
    return parts[0]


def _has_header(number: str | None) -> bool:
    """Whether the CSV of this shard, or of a whole split, begins with the names of the columns."""
    return number is None or int(number.split("-")[0]) == 0


def _unaccounted(root: Path, metadata: Metadata, table: Path, number: str | None) -> str:
    """What is wrong with a folder that does not have just the files that its metadata names."""
    known = {table.name}
    for rows in metadata.read(table, header=_has_header(number)):
        for name in metadata.file_columns.values():
            known.update(rows.column(name).to_pylist())
    odd = min(set(walk_files(root)) - known, default=None)
    return f"{odd}: no record has this file." if odd else "two records have the same file."


def _write_new(folder: int, paths: Sequence[str], contents: Sequence[memoryview]) -> None:
    """Write files that must not exist yet, by their paths in the folder that is open as ``folder``; follows no link."""
    for path, content in zip(paths, contents, strict=True):
        descriptor = os.open(path, _CREATE, 0o666, dir_fd=folder)
        try:
            written = os.write(descriptor, content)
            while written < len(content):
                written += os.write(descriptor, content[written:])
        finally:
            os.close(descriptor)
