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
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.dataset.description import About
from converters.formats.image_table import features
from converters.storage.file_list import OutputFile
from converters.storage.tree import hash_file

if TYPE_CHECKING:
    from converters.dataset.report import Report, SplitReport

CROISSANT = "croissant.json"

PARQUET_TYPE = "application/x-parquet"

# The context that the specification prescribes, with the responsible-AI terms.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_CONFORMS_TO = ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]
_MEANING = {
    "image": "The JPEG file as it is stored in the source, byte for byte.",
    "label_vector": "0 or 1 for each label, in stored order, as in the source.",
    "height": "Height in pixels.",
    "width": "Width in pixels.",
    "depth": "Number of colour channels.",
    "img_id": "Name of the image in the dataset's label files.",
    "clip_id": "The video clip that the image was cut from.",
}
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
    """Describe a complete output of Parquet files in the form of :mod:`converters.formats.image_table`.

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
    with (folder / CROISSANT).open("x", encoding="utf-8", newline="\n") as file:
        json.dump(document, file, indent=1, ensure_ascii=False)
        file.write("\n")


def croissant(report: Report, split_names: Mapping[str, str], files: Iterable[OutputFile]) -> dict[str, Any]:
    """The JSON-LD document; it holds no time, no path of a machine and no chance."""
    about = report.description.about
    configs: dict[str, list[SplitReport]] = {}
    for split in report.splits:
        configs.setdefault(split.split.config, []).append(split)
    file_sets, record_sets = [], []
    for config, splits in configs.items():
        names = [split_names[split.split.title] for split in splits]
        identifier = _identifier(config)
        file_sets.append(_file_set(identifier, config, names))
        record_sets += [
            _labels(identifier, splits[0]),
            _splits(identifier, names),
            _records(identifier, splits, names),
        ]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _CONFORMS_TO,
        **_about(about, report.description.name),
        **_responsible(about),
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


def _responsible(about: About) -> dict[str, Any]:
    """Responsible-AI terms, of what the description states and of what this program did."""
    terms: dict[str, Any] = {
        "rai:dataUseCases": about.licence.text,
        "rai:dataPreprocessingProtocol": [
            f"Converted from TFRecords by kfer-convert {version('kfer-convert')}: images copied byte for byte and "
            "never decoded and encoded again, label vectors as stored, order of the records as stored. The output was "
            "read back and compared with the source; MANIFEST.json has every check and its result."
        ],
        "rai:dataLimitations": [*about.notes, _JUDGED],
    }
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


def _file_set(identifier: str, config: str, names: Sequence[str]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{identifier}_files",
        "name": f"{identifier}_files",
        "description": f"The Parquet files of {config}, of all splits.",
        "encodingFormat": PARQUET_TYPE,
        "includes": [f"{glob.escape(config)}/{name}-*.parquet" for name in names],
    }


def _labels(identifier: str, split: SplitReport) -> dict[str, Any]:
    name = f"{identifier}_labels"
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"The labels of {split.split.config} by their numbers, which are their places in stored order.",
        "dataType": "sc:Enumeration",
        "key": {"@id": f"{name}/number"},
        "field": [
            _field(name, "number", "sc:Integer", "Number of the label."),
            _field(name, "name", "sc:Text", "Name of the label."),
        ],
        "data": [
            {f"{name}/number": number, f"{name}/name": label}
            for number, label in enumerate(split.split.label_names)
        ],
    }


def _splits(identifier: str, names: Sequence[str]) -> dict[str, Any]:
    name = f"{identifier}_splits"
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": "The splits that are here.",
        "dataType": "cr:Split",
        "key": {"@id": f"{name}/name"},
        "field": [_field(name, "name", "sc:Text", "Name of the split.")],
        "data": [{f"{name}/name": split} for split in names],
    }


def _records(identifier: str, splits: Sequence[SplitReport], names: Sequence[str]) -> dict[str, Any]:
    split = splits[0].split
    identified = any(report.fingerprint.identities_sha256 is not None for report in splits)
    multi = split.kind == "multi-label"
    labels = f"the record set {identifier}_labels has their names"
    meaning = {
        **_MEANING,
        "label": f"Numbers of the labels that the image has; {labels}."
        if multi
        else f"Number of the image's label; {labels}.",
    }
    fields = []
    for column, feature in features(split, identified=identified).items():
        source: dict[str, Any] = {"fileSet": {"@id": f"{identifier}_files"}, "extract": {"column": column}}
        kind = "sc:Text" if feature.get("dtype") == "string" else "sc:Integer"
        if feature["_type"] == "Image":
            kind = "sc:ImageObject"
            source["transform"] = {"jsonPath": "bytes"}
        field = _field(identifier, column, kind, meaning[column]) | {"source": source}
        if feature["_type"] == "Sequence":
            field["repeated"] = True
        fields.append(field)
    of_file = {
        "fileSet": {"@id": f"{identifier}_files"},
        "extract": {"fileProperty": "fullpath"},
        "transform": {
            "regex": f"(?:{re.escape(split.config)}/)?({'|'.join(map(re.escape, names))})(?:-.+parquet)?$"
        },
    }
    in_split = _field(identifier, "split", "sc:Text", "The split that the record is in.")
    fields.append(
        in_split | {"source": of_file, "references": {"field": {"@id": f"{identifier}_splits/name"}}}
    )
    return {
        "@type": "cr:RecordSet",
        "@id": identifier,
        "name": split.config,
        "description": (
            f"{sum(report.fingerprint.records for report in splits):,} images, "
            f"{'one or more labels' if multi else 'one label'} each, of {len(split.label_names)} labels."
        ),
        "field": fields,
    }


def _field(record_set: str, name: str, kind: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{name}",
        "name": f"{record_set}/{name}",
        "description": description,
        "dataType": kind,
    }
