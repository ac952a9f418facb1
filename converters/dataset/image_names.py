"""The names of image files in outputs; and back, from a name to the record that it is of.

What is read back is checked by :func:`first_misnamed` and :func:`is_stem_of`, which share no code with what made the
names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from converters.dataset.arrays import binary_parts, binary_views, valid_rows
from converters.dataset.description import Split
from converters.dataset.image_header import SUFFIXES, suffixes_by_magic
from converters.dataset.schema import Column

# A name that ends in one of these is given the suffix that the image's content has.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")

_MAGICS = {
    b"\xff\xd8": "jpeg",
    b"\x89P": "png",
    b"RI": "webp",
    b"GI": "gif",
    b"BM": "bmp",
    b"II": "tiff",
    b"MM": "tiff",
}


def image_names(
    split: Split, column: Column, batch: pa.RecordBatch, first: int, *, with_split: bool
) -> list[str]:
    """The file names of consecutive images: by ``img_id`` or a file name where that is known, else by record number.

    Args:
        split: the records' split.
        column: the images, whose content tells the suffix.
        batch: the records.
        first: index in the split of the first record.
        with_split: whether names of numbers begin with the split's name.
    """
    stems = image_stems(split, batch, first, with_split=with_split)
    found = suffixes(batch.column(column.name))
    if column != split.schema.image:
        tail = image_tail(column)
        return [stem + tail + suffix for stem, suffix in zip(stems, found, strict=True)]
    if "img_id" in split.schema.joined_names:
        # The authors' names keep the extension that they have.
        names = zip(batch.column("img_id").to_pylist(), found, strict=True)
        return [name if name.lower().endswith((".jpg", ".jpeg")) else name + suffix for name, suffix in names]
    return [stem + suffix for stem, suffix in zip(stems, found, strict=True)]


def image_tail(column: Column) -> str:
    """What stands before the suffix in the names of a further image: that of its column, of plain characters."""
    return "_" + re.sub(r"[^\w-]", "_", column.name, flags=re.ASCII)


def image_stems(split: Split, batch: pa.RecordBatch, first: int, *, with_split: bool) -> list[str]:
    """The names of consecutive records without a suffix; see :func:`image_names`."""
    named = split.schema.role("file_name")
    if "img_id" in split.schema.joined_names:
        return [stem_of(name) for name in batch.column("img_id").to_pylist()]
    if named is not None:
        return [stem_of(str(name)) for name in batch.column(named.name).to_pylist()]
    before = f"{split.name}_" if with_split else ""
    return [f"{before}{record:08d}" for record in range(first, first + len(batch))]


def first_misnamed(
    split: Split,
    column: Column,
    batch: pa.RecordBatch,
    first: int,
    names: Sequence[str | None],
    *,
    with_split: bool,
) -> int | None:
    """The first row whose image has a file of another name than :func:`image_names` says; None if none has.

    ``names`` are those of the files, and anything where there is no image.
    """
    images = batch.column(column.name)
    prefix = f"{split.name}_" if with_split else ""
    tail = "" if column == split.schema.image else "_" + "".join(map(_word_character, column.name))
    keeps_suffix = "img_id" in split.schema.joined_names and not tail
    own, endings = own_names(split, batch), suffixes_by_magic(images)
    if own[:1] == [None]:  # and so have all
        numbers = range(first, first + len(batch))
        if list(names) == [
            prefix + f"{number:08}{tail}{end}" for number, end in zip(numbers, endings, strict=True)
        ]:
            return None
    rows = zip(names, own, endings, valid_rows(images), strict=True)
    for row, (name, own_name, suffix, there) in enumerate(rows):
        if not there:
            continue
        if keeps_suffix:
            if name != (own_name if own_name.lower().endswith((".jpg", ".jpeg")) else own_name + suffix):
                return row
            continue
        end = tail + suffix
        if not (
            name
            and name.endswith(end)
            and is_stem_of(name[: len(name) - len(end)], first + row, own_name, prefix)
        ):
            return row
    return None


def own_names(split: Split, batch: pa.RecordBatch) -> list[Any]:
    """The name that each record has itself, as text; None where they have none."""
    joined = "img_id" in split.schema.joined_names
    for column in split.schema.stored:
        if (column.name == "img_id") if joined else (column.role == "file_name"):
            return [str(name) for name in batch.column(column.name).to_pylist()]
    return [None] * len(batch)


def is_stem_of(stem: str, record: int, own_name: str | None, prefix: str = "") -> bool:
    """Whether a file's name without its suffix is that of a record: its own name's, where it has one, or its number."""
    if own_name is None:
        return stem == prefix + str(record).zfill(8)
    rest, lowered = own_name[len(stem) :], own_name.lower()
    has_suffix = lowered.endswith(IMAGE_SUFFIXES) and lowered not in IMAGE_SUFFIXES
    return stem + rest == own_name and (rest.lower() in IMAGE_SUFFIXES if has_suffix else not rest)


def _word_character(character: str) -> str:
    return character if character.isascii() and (character.isalnum() or character in "_-") else "_"


def stem_of(name: str) -> str:
    """A file name without the suffix of an image."""
    suffix = next((suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: -len(suffix)] if suffix and len(suffix) < len(name) else name


def suffixes(images: pa.Array) -> list[str]:
    """The suffix of each encoded image, by its content; none of what is no image."""
    edges, data = binary_parts(images)
    starts = edges[:-1]
    if (
        len(starts)
        and (np.diff(edges) >= 2).all()
        and ((data[starts] == 0xFF) & (data[starts + 1] == 0xD8)).all()
    ):
        return [".jpg"] * len(starts)
    found = (_MAGICS.get(bytes(view[:2])) for view in binary_views(images))
    return [SUFFIXES[encoding] if encoding else "" for encoding in found]  # type: ignore[index]
