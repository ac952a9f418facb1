"""``croissant.json``: the output described in MLCommons' Croissant 1.0, which loaders and search engines read.

The vocabulary is https://docs.mlcommons.org/croissant/docs/croissant-spec.html with the responsible-AI terms of
https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html. Only what is known is said: what the dataset's
description does not state is left out, not guessed.

Facts that the form follows (seen in mlcroissant 1.1): files that lie beside ``croissant.json`` are a ``FileSet``
without ``containedIn``, read in the order of their names. A field with ``references`` becomes a join: of several in
a record set only the first is made, none takes lists, and the field's transform is applied before and after, so its
pattern has to match its own result. The one join is the split's, by which loaders know splits; label fields name
their enumeration in words.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from converters.dataset.description import About, Split
from converters.dataset.schema import Column
from converters.formats.readme import column_meaning, config_names, records_word, write_text
from converters.formats.table import features
from converters.storage.file_list import OutputFile
from converters.storage.tree import hash_file

if TYPE_CHECKING:
    from converters.dataset.report import Report, SplitReport

CROISSANT = "croissant.json"

PARQUET_TYPE = "application/x-parquet"

_CONTEXT = "croissant_context.json"  # as the specification prescribes it, with the responsible-AI terms
# Of a feature's dtype; all others are integers. Croissant 1.0 has no type for bytes.
_TYPES = {"string": "sc:Text", "binary": "sc:Text", "float32": "sc:Float"}
_CONFORMS_TO = ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]
_FACES = (
    "The images show the faces of real people: personal data, and in many places biometric or otherwise sensitive "
    "data. That an image is in the dataset does not mean that the person in it agreed to a use of it. Do not try to "
    "find out who the people are, and do not use the images to recognise anybody."
)
_JUDGED = (
    "A label says what somebody judged an image to show. It does not say what a person felt or is: do not use a model "
    "trained on it to decide about people."
)


def write_croissant(report: Report, split_names: Mapping[str, str], folder: Path) -> None:
    """Describe a complete output of Parquet files in the form of :mod:`converters.formats.table`.

    Args:
        report: what was converted; its files with their digests are those of the shards.
        split_names: what each split (by its title) is called in the names of its files.
        folder: the output. Other files that are in it by now are listed too.
    """
    known = {file.path: file for file in report.files}
    others = [
        OutputFile(path.name, *hash_file(path))
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in known
    ]
    document = croissant(report, split_names, [*others, *report.files])
    write_text(folder / CROISSANT, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def croissant(report: Report, split_names: Mapping[str, str], files: Iterable[OutputFile]) -> dict[str, Any]:
    """The JSON-LD document; it holds no time, no path of a machine and no chance."""
    about = report.description.about
    configs = config_names([split.split for split in report.splits])
    taken = set(map(_identifier, configs))
    file_sets, record_sets = [], []
    for config in configs:
        splits = [split for split in report.splits if split.split.config == config]
        ids = _Ids(
            _identifier(config),
            *(_free(f"{_identifier(config)}_{part}", taken) for part in ("files", "labels", "splits")),
        )
        names = [split_names[split.split.title] for split in splits]
        file_sets.append(_file_set(ids, config, names))
        record_sets += [
            *([_labels(ids, splits[0].split)] if splits[0].split.label_names else []),
            _splits(ids, names),
            _records(ids, splits, names),
        ]
    return {
        "@context": json.loads(resources.files("converters.formats").joinpath(_CONTEXT).read_text("utf-8")),
        "@type": "sc:Dataset",
        "conformsTo": _CONFORMS_TO,
        **_about(about, report.description.name),
        **_responsible(about, [split.split for split in report.splits]),
        "isLiveDataset": False,
        "distribution": [*map(_file_object, files), *file_sets],
        "recordSet": record_sets,
    }


def _about(about: About, name: str) -> dict[str, Any]:
    stated = {
        "name": about.title or name,
        "description": about.description,
        "url": about.homepage,
        "sameAs": about.paper,
        "citeAs": about.citation,
        "inLanguage": list(about.languages),
        "keywords": list(about.tags),
    }
    licence = {"@type": "sc:CreativeWork", "name": about.licence.name, "description": about.licence.text}
    if about.licence.link:
        licence["url"] = about.licence.link
    return {**{key: value for key, value in stated.items() if value}, "license": licence}


def _responsible(about: About, splits: Sequence[Split]) -> dict[str, Any]:
    """Responsible-AI terms, of what the description states and of what this program did."""
    images = any(split.schema.images for split in splits)
    copied = "images copied byte for byte and never decoded and encoded again, " if images else ""
    terms: dict[str, Any] = {
        "rai:dataUseCases": about.licence.text,
        "rai:dataPreprocessingProtocol": [
            f"Converted from TFRecords by kfer-convert {version('kfer-convert')}: {copied}every value as stored, order "
            "of the records as stored. The output was read back and compared with the source; MANIFEST.json has every "
            "check and its result."
        ],
    }
    judged = about.personal_data and any(split.schema.label for split in splits)
    if limits := [*about.notes, *([_JUDGED] if judged else [])]:
        terms["rai:dataLimitations"] = limits
    if about.personal_data:
        terms["rai:personalSensitiveInformation"] = [_FACES]
        terms["rai:dataBiases"] = [
            "Who is shown, and how, follows from where the images were taken from. Expect models to do worse on other "
            "people."
        ]
    return terms


def _file_object(file: OutputFile) -> dict[str, Any]:
    kinds = {".parquet": PARQUET_TYPE, ".md": "text/markdown"}
    return {
        "@type": "cr:FileObject",
        "@id": _identifier(file.path),
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.size} B",
        "encodingFormat": kinds.get(Path(file.path).suffix, "text/plain"),
        "sha256": file.sha256,
    }


def _identifier(text: str) -> str:
    """``text`` as an ``@id``, which may hold no white space; different texts stay different."""
    return re.sub(r"[^\w./-]", lambda match: f"~{ord(match[0]):x}~", text)


def _free(identifier: str, taken: set[str]) -> str:
    """``identifier``, with something added if it is taken; then it is taken."""
    while identifier in taken:
        identifier += "_"
    taken.add(identifier)
    return identifier


class _Ids(NamedTuple):
    """The ``@id`` of a config's records, files, labels and splits."""

    records: str
    files: str
    labels: str
    splits: str


def _file_set(ids: _Ids, config: str, names: Sequence[str]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": ids.files,
        "name": ids.files,
        "description": f"The Parquet files of {config}, of all splits.",
        "encodingFormat": PARQUET_TYPE,
        "includes": [f"{glob.escape(config)}/{name}-*.parquet" for name in names],
    }


def _labels(ids: _Ids, split: Split) -> dict[str, Any]:
    return _enumeration(
        ids.labels,
        f"The labels of {split.config} by their numbers, which are their places in stored order.",
        "sc:Enumeration",
        {"number": ("sc:Integer", "Number of the label."), "name": ("sc:Text", "Name of the label.")},
        enumerate(split.label_names),
    )


def _splits(ids: _Ids, names: Sequence[str]) -> dict[str, Any]:
    fields = {"name": ("sc:Text", "Name of the split.")}
    return _enumeration(ids.splits, "The splits that are here.", "cr:Split", fields, zip(names, strict=True))


def _enumeration(
    name: str,
    description: str,
    kind: str,
    fields: Mapping[str, tuple[str, str]],
    rows: Iterable[Sequence[Any]],
) -> dict[str, Any]:
    """A record set whose records stand in it; ``fields`` are the types and descriptions, the key's first."""
    names = [f"{name}/{field}" for field in fields]
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "dataType": kind,
        "key": {"@id": names[0]},
        "field": [_field(name, field, *stated) for field, stated in fields.items()],
        "data": [dict(zip(names, row, strict=True)) for row in rows],
    }


def _records(ids: _Ids, splits: Sequence[SplitReport], names: Sequence[str]) -> dict[str, Any]:
    split = splits[0].split
    described = features(split.schema)
    taken: set[str] = set()
    fields = [
        _column(ids, column, described[column.name], _free(_identifier(column.name), taken))
        for column in split.schema
    ]
    of_file = {
        "fileSet": {"@id": ids.files},
        "extract": {"fileProperty": "fullpath"},
        "transform": {
            "regex": f"(?:{re.escape(split.config)}/)?({'|'.join(map(re.escape, names))})(?:-.+parquet)?$"
        },
    }
    name = _free("split", taken)
    in_split = _field(ids.records, name, "sc:Text", "The split that the record is in.")
    fields.append(in_split | {"source": of_file, "references": {"field": {"@id": f"{ids.splits}/name"}}})
    records = sum(report.fingerprint.records for report in splits)
    return {
        "@type": "cr:RecordSet",
        "@id": ids.records,
        "name": split.config,
        "description": f"{records:,} {records_word([split])}{_of_labels(split)}.",
        "field": fields,
    }


def _of_labels(split: Split) -> str:
    """How many labels the records of a split have, as the end of a sentence."""
    label = split.schema.label
    if label is None or not label.label_names:
        return ""
    if label.kind == "single-label":
        each = "one label each, "
    else:
        each = "one or more labels each, " if label.kind and not label.unlabelled else ""
    return f", {each}of {len(label.label_names)} labels" if each else f" with {len(label.label_names)} labels"


def _column(ids: _Ids, column: Column, feature: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A column as a field called ``name``; the type is that of a single value."""
    value = feature.get("feature", feature)
    source: dict[str, Any] = {"fileSet": {"@id": ids.files}, "extract": {"column": column.name}}
    if value["_type"] == "Image":
        kind = "sc:ImageObject"
        source["transform"] = {"jsonPath": "bytes"}
    else:
        kind = _TYPES.get(value.get("dtype"), "sc:Integer")
    meaning = column_meaning(column) or (f"The feature {column.feature}" if column.feature else column.name)
    if value.get("dtype") == "binary":
        meaning += "; bytes, which are no text"
    if value["_type"] == "ClassLabel":
        meaning += f"; the record set {ids.labels} has their names"
    field = _field(ids.records, name, kind, f"{meaning[:1].upper()}{meaning[1:]}.")
    return field | {"source": source} | ({"repeated": True} if column.is_list else {})


def _field(record_set: str, name: str, kind: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{name}",
        "name": f"{record_set}/{name}",
        "description": description,
        "dataType": kind,
    }
