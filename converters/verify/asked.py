"""What was asked for, described and named, held against what was converted, before it is published.

The functions here read the text of the description and the names of files by rules of their own: a fault of what reads
them for the conversion is not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Set
from itertools import pairwise
from pathlib import Path

from converters.dataset.description import DESCRIPTION_FILE, FEATURES
from converters.dataset.manifest import MANIFEST
from converters.dataset.report import Report
from converters.errors import ConverterError
from converters.formats.tfrecord.source import TFRecordSource
from converters.storage.object_store import Place
from converters.verify.complete import fault, names_by_number, stated_columns

_LABELS = {"label", "label_vector", "label_vector_stored", "label_id", "label_id_stored"}
_SPLITS = {"train", "valid", "validation", "val", "dev", "test"}
_WORD = re.compile(r"(?<![A-Za-z])(?:[A-Z]?[a-z]+|[A-Z]+)(?![A-Za-z])")
_TFRECORD = re.compile(r"(?!\.|events\.out\.).*\.tfrecords?")
_DIGITS = re.compile(r"[0-9]+")
_SHORT = 100  # what may name a column, in characters


def check_asked(report: Report) -> None:
    """Hold the splits and their columns against the text of the description, and against what was asked for.

    Raises:
        ConverterError: a split is missing or out of order; a column, its feature or the names of its labels are others;
            what is published of a split is not what its records were compared with.
    """
    document, options = report.description.document, report.options
    absent = {split.title for split in report.absent}
    asked = [
        title
        for config, stated in document["configs"].items()
        for split in stated["splits"]
        if config in (options["configs"] or [config]) and split in (options["splits"] or [split])
        if (title := f"{config}/{split}") not in absent
    ]
    if [split.split.title for split in report.splits] != asked:
        raise fault(Path(MANIFEST), f"its splits are not {', '.join(asked)}")
    for split in report.splits:
        schema, config = split.split.schema, document["configs"][split.split.config]
        columns = config.get("columns") or (document.get("columns") if config.get("kind") is None else None)
        if columns is None:
            names = {**FEATURES, **document.get("features", {})}
            columns = {
                "label_vector" if name == "label" else name: {"feature": names[name]} for name in FEATURES
            }
            columns["label_vector"]["label_names"] = config["label_names"]
        expected = {
            name: stated
            for name, stated in stated_columns(columns).items()
            if name not in options["without"] and stated[0] not in options["without"]
        }
        found = {
            column.name: (column.feature, names_by_number(column))
            for column in schema.stored
            if column.feature is not None
        }
        if list(found.items()) != list(expected.items()):
            raise fault(
                Path(MANIFEST), f"the columns of {split.split.title} are not those of the description"
            )
        facts, published = config["splits"][split.split.name], split.split.published
        labels = split.split.label_names  # none where they are left out
        counts = dict(zip(labels, published.label_counts or (), strict=False))
        wrong = labels and facts.get("label_counts") not in (None, counts)
        if wrong or facts.get("records") not in (None, published.records):
            raise fault(Path(MANIFEST), f"the facts published of {split.split.title} were not compared")
        if schema.derived and schema.label and schema.derived.label_names != schema.label.label_names:
            raise fault(Path(MANIFEST), f"{schema.derived.name} has other names than {schema.label.name}")


def check_inferred(report: Report, source: TFRecordSource) -> None:
    """Hold what was inferred from the names of files and of features against these names.

    Raises:
        ConverterError: a file is in a split of another name, or in none; its number is before that of the file before
            it; a column is called neither as its feature nor as what it is.
    """
    for found in source.splits:
        for file in found.files:
            own = {word.lower() for word in _WORD.findall(file.name.rpartition("/")[2])} & _SPLITS
            if not own <= set(found.split.name.split("_")):
                raise fault(Path(file.name), f"it is in the split {found.split.name}")
        for one, other in pairwise(file.name for file in found.files):
            numbers = [list(map(int, _DIGITS.findall(name))) for name in (one, other)]
            if _DIGITS.sub("0", one) == _DIGITS.sub("0", other) and numbers[0] > numbers[1]:
                raise fault(Path(other), f"its records come after those of {one}")
    if not (source.chosen or report.options["configs"] or report.options["splits"]):
        _check_siblings({file.path for found in source.splits for file in found.files})
    for table in report.inferred:
        for column in table.schema.stored:
            called = {table.schema.image: {"image"}, table.schema.label: _LABELS}.get(column, set())
            feature = column.feature or column.name
            if column.name not in {feature, *called} and feature.isprintable() and 0 < len(feature) < _SHORT:
                raise fault(Path(DESCRIPTION_FILE), f"the feature {feature} is called {column.name}")


def _check_siblings(known: Set[Place]) -> None:
    """No file beside those that were read is a ``.tfrecord`` too, or called as one of them but for the numbers."""
    here = [path for path in known if isinstance(path, Path)]
    patterns = {(path.parent, _DIGITS.sub("0", path.name)) for path in here}
    for folder in {path.parent for path in here}:
        for other in folder.iterdir():
            alike = (folder, _DIGITS.sub("0", other.name)) in patterns or _TFRECORD.fullmatch(other.name)
            if alike and other not in known and other.is_file():
                raise ConverterError(
                    f"{other}: this file was not read; a fault of kfer-convert, or it was put there while it ran."
                )
