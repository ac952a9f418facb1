"""The names of image files in outputs."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from converters.dataset.arrays import binary_parts, binary_views
from converters.dataset.description import Split
from converters.dataset.image_header import SUFFIXES
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
    images = batch.column(column.name)
    if column != split.schema.image:
        tail = "_" + re.sub(r"[^\w-]", "_", column.name, flags=re.ASCII)
        return [stem + tail + suffix for stem, suffix in zip(stems, suffixes(images), strict=True)]
    if "img_id" in split.schema.joined_names:
        # The authors' names keep the extension that they have.
        img_ids = batch.column("img_id").to_pylist()
        return [
            name if name.lower().endswith((".jpg", ".jpeg")) else name + suffix
            for name, suffix in zip(img_ids, suffixes(images), strict=True)
        ]
    return [stem + suffix for stem, suffix in zip(stems, suffixes(images), strict=True)]


def image_stems(split: Split, batch: pa.RecordBatch, first: int, *, with_split: bool) -> list[str]:
    """The names of consecutive records without a suffix; see :func:`image_names`."""
    named = split.schema.role("file_name")
    if "img_id" in split.schema.joined_names:
        return [stem_of(name) for name in batch.column("img_id").to_pylist()]
    if named is not None:
        return [stem_of(str(name)) for name in batch.column(named.name).to_pylist()]
    before = f"{split.name}_" if with_split else ""
    return [f"{before}{record:08d}" for record in range(first, first + len(batch))]


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
