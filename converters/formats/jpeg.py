"""JPEG files as they are stored, with one CSV label file a split."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv as arrow_csv

from converters.dataset.arrays import (
    binary_array,
    image_views,
    label_matrix,
    number_array,
    record_batch,
    string_array,
)
from converters.dataset.description import Split
from converters.dataset.filenames import unsafe_name
from converters.dataset.identity import file_names
from converters.dataset.jpeg_header import JpegError, JpegSizes
from converters.dataset.label_csv import read_label_csv
from converters.dataset.shard import Shard
from converters.errors import CallError, DataError, Location
from converters.storage.hashing_reader import ReadFile, read_file

# `datasets` looks for this name beside the images; its column file_name holds paths relative to it.
LABELS_FILE = "metadata.csv"
IMAGES_FOLDER = "images"

_IDENTITIES = ("img_id", "clip_id")
_BATCH_ROWS = 2048
_BATCH_BYTES = 8 << 20
_SHARD_FOLDER = re.compile(r"\d{5,}-of-\d{5,}")
_LABELS_FILE = re.compile(r"metadata(-\d{5,}-of-\d{5,})?\.csv")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class JpegFormat:
    """JPEG files byte for byte as stored, and a CSV label file a split: <config>/<split>/{images/…,metadata.csv}.

    Args:
        class_folders: lay single-label configs out for torchvision's ImageFolder instead, one folder per class
            with its number first: <config>/<split>/00_angry/….
    """

    name = "jpeg"

    def __init__(self, *, class_folders: bool = False) -> None:
        self.class_folders = class_folders

    def write(self, batches: Iterable[pa.RecordBatch], shard: Shard, folder: Path) -> list[str]:
        """Write a shard's records: its images and its label file."""
        root = folder / shard.config / shard.split.name
        folders = self._image_folders(shard.split)
        labels_file = LABELS_FILE
        if shard.count > 1 and len(folders) == 1:
            root /= shard.numbered()
        elif shard.count > 1:
            # ImageFolder takes every folder of a split for a class, so the shards share the class folders.
            labels_file = f"metadata-{shard.numbered()}.csv"
        for name in folders:
            (root / name).mkdir(parents=True)
        descriptors = {name: os.open(root / name, os.O_RDONLY | os.O_DIRECTORY) for name in folders}
        below = root.relative_to(folder).as_posix()
        written = [f"{below}/{labels_file}"]
        first = shard.first_record
        try:
            with (root / labels_file).open("xb") as file:
                table: arrow_csv.CSVWriter | None = None
                for batch in batches:
                    names = file_names(shard.split, batch.column("img_id").to_pylist(), first)
                    places = self._places(folders, label_matrix(batch))
                    for place, name, view in zip(places, names, image_views(batch), strict=True):
                        _write_new(descriptors[place], name, view)
                    paths = [f"{place}/{name}" for place, name in zip(places, names, strict=True)]
                    written += [f"{below}/{path}" for path in paths]
                    rows = _label_rows(batch, paths, shard.split)
                    table = table or _csv_writer(file, rows.schema)
                    table.write_batch(rows)
                    first += len(batch)
                if table is not None:
                    table.close()
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)
        return written

    def read(self, folder: Path, split: Split) -> Iterator[pa.RecordBatch]:
        """Read back the records of a split, in the order of its label files."""
        return self.read_through(read_file, folder, split)

    def read_through(self, read_file: ReadFile, folder: Path, split: Split) -> Iterator[pa.RecordBatch]:
        """As :meth:`read`; the images are read by ``read_file``."""
        root = folder / split.config / split.name
        parts = [path / LABELS_FILE for path in sorted(root.iterdir()) if _SHARD_FOLDER.fullmatch(path.name)]
        parts += [path for path in sorted(root.iterdir()) if _LABELS_FILE.fullmatch(path.name)]
        for path in parts:
            yield from self._read_part(read_file, path, split)

    def _image_folders(self, split: Split) -> list[str]:
        """The folders of a split's images: one, or one per class in stored order."""
        if not self.class_folders or split.kind == "multi-label":
            return [IMAGES_FOLDER]
        width = max(2, len(str(len(split.label_names) - 1)))
        folders = [f"{number:0{width}d}_{name}" for number, name in enumerate(split.label_names)]
        for name in folders:
            if problem := unsafe_name(name):
                raise CallError(
                    f"--class-folders cannot make a folder of this label of {split.config}: it {problem}."
                )
        return folders

    def _places(self, folders: Sequence[str], labels: npt.NDArray[np.uint8]) -> list[str]:
        """The folder of each record's image."""
        if len(folders) == 1:
            return [folders[0]] * len(labels)
        return [folders[label] for label in labels.argmax(axis=1).tolist()]

    def _read_part(self, read_file: ReadFile, path: Path, split: Split) -> Iterator[pa.RecordBatch]:
        root = f"{path.parent}{os.sep}"
        table = read_label_csv(path, [("file_name", *_IDENTITIES), ("file_name",)], split.label_names)
        files = table.texts["file_name"].to_pylist()
        places = self._places(self._image_folders(split), table.labels)
        for row, (file, place) in enumerate(zip(files, places, strict=True)):
            head, _, name = file.rpartition("/")
            if head != place or unsafe_name(name):
                raise DataError(f"file_name {file!r} does not lie in {place}/.", Location(str(path), row))
        sizes = JpegSizes()
        start = 0
        for images in _batched(_read_image(read_file, root + file) for file in files):
            rows = slice(start, start + len(images))
            array = binary_array(images)
            try:
                found = sizes.read(array)
            except JpegError as error:
                raise DataError(error.message, Location(root + files[start + error.row])) from None
            identities = [table.texts[name][rows] if name in table.texts else None for name in _IDENTITIES]
            yield record_batch(array, table.labels[rows], found, *identities)
            start += len(images)


def _batched(images: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The images in lists of bounded length and total size."""
    batch: list[bytes] = []
    size = 0
    for image in images:
        batch.append(image)
        size += len(image)
        if len(batch) == _BATCH_ROWS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _label_rows(batch: pa.RecordBatch, paths: Sequence[str], split: Split) -> pa.RecordBatch:
    """The rows of the label file: file_name, img_id and clip_id where known, a 0/1 column per label."""
    columns = {"file_name": string_array(paths)}
    if batch.column("img_id").null_count == 0:
        columns |= {name: batch.column(name) for name in _IDENTITIES}
    labels = label_matrix(batch)
    columns |= {
        name: number_array(labels[:, number], pa.uint8()) for number, name in enumerate(split.label_names)
    }
    return pa.RecordBatch.from_pydict(columns)


def _csv_writer(file: IO[bytes], schema: pa.Schema) -> arrow_csv.CSVWriter:
    """A writer that quotes only what needs it; Arrow's own would quote the whole header."""

    class _Text:
        def write(self, text: str) -> int:
            return file.write(text.encode())

    csv.writer(_Text(), lineterminator="\n").writerow(schema.names)
    return arrow_csv.CSVWriter(file, schema, write_options=arrow_csv.WriteOptions(include_header=False))


def _write_new(folder: int, name: str, data: memoryview) -> None:
    """Write a file that must not exist yet into the folder open as descriptor ``folder``; follows no link."""
    descriptor = os.open(name, _CREATE, 0o666, dir_fd=folder)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


def _read_image(read_file: ReadFile, path: str) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise DataError(f"the image cannot be read: {error.strerror}.", Location(path)) from error
