"""Opens whatever is there as a source: an output of ours, known by its manifest, or TFRecords."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.dataset.description import DESCRIPTION_FILE, kfer, load_description
from converters.dataset.filenames import unsafe_name
from converters.dataset.manifest import read_manifest
from converters.dataset.shard import Progress
from converters.dataset.source import MAX_RECORD_BYTES, Source
from converters.errors import ConverterError
from converters.formats.output_source import OutputSource, is_output
from converters.formats.tfrecord.source import open_tfrecords
from converters.storage.files import is_folder, is_there, names_in
from converters.storage.object_store import Place


def open_source(
    place: Place,
    *,
    max_record_bytes: int = MAX_RECORD_BYTES,
    allow_mismatch: bool = False,
    progress: Progress | None = None,
    **options: Any,  # noqa: ANN401
) -> Source:
    """The source at a place.

    Args:
        place: a folder, a file or a pattern of TFRecords, or an output.
        max_record_bytes: the longest record that is accepted of TFRecords.
        allow_mismatch: whether a split of TFRecords may be absent that must be there by what is published.
        progress: told of the TFRecords' records that columns are inferred from.
        options: see :func:`~converters.formats.tfrecord.source.open_tfrecords`.

    Raises:
        CallError: nothing is there, or what is there does not go with an option.
        DataError: what is there is damaged, or cannot be told apart.
    """
    if is_output(place):
        return OutputSource(place, **options)
    return open_tfrecords(
        place, max_record_bytes=max_record_bytes, allow_mismatch=allow_mismatch, progress=progress, **options
    )


def name_of(place: Place) -> str:
    """What the dataset at a place is called, as far as a look tells, in the characters of a file name."""
    name = ""
    try:
        if isinstance(place, Path) and is_output(place):
            name = read_manifest(place)[0].dataset.name
        elif is_folder(place):
            known = kfer()
            if is_there(place / DESCRIPTION_FILE):
                name = load_description(place).name
            elif {file for split in known.splits() for file in split.files} & set(names_in(place)):
                name = known.name
    except (ConverterError, OSError):
        name = ""  # opening it says what is wrong
    name = name or place.name.partition(".")[0]
    return name if name and not unsafe_name(name) else "dataset"
