"""An output that is about to be published: what describes it to people and programs, held against what it holds.

The functions here read the finished files with general tools (a glob pattern, JSON, YAML, ``hashlib``) and share no
code with what wrote them: what a card says of names, splits and numbers of records; which files it gives to which
split; which files there are, and their sums. Large files are not hashed once more: a fault that exchanges the digests
of two of them alone is not seen here (``verify`` sees it).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain, dropwhile, filterfalse, islice, takewhile, zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa

from converters.dataset.description import DESCRIPTION_FILE, Split
from converters.dataset.manifest import MANIFEST, SUMS
from converters.dataset.members import is_pattern, plain_name
from converters.dataset.quarantine import FOLDER, LIST, check_quarantine
from converters.dataset.report import Report, SplitReport
from converters.dataset.schema import Column, Schema
from converters.dataset.source import Source
from converters.errors import ConverterError
from converters.formats.croissant import CROISSANT
from converters.formats.readme import LICENCE, README
from converters.formats.table import Stated, check_features
from converters.storage.file_list import OutputFile

_VALIDATION = {"validation", "valid", "val", "dev"}
_ENDS = 8  # so many of a shard's files, from either end, are held against the patterns
_COMPANIONS = (".idx", ".sha256")  # of files of records
_NUMBERED = re.compile(r"-(\d{5,})-of-(\d{5,})")
_HASHED_BYTES = 4 << 20
_MAX_HASHED_FILES = 256
_MAX_COMPARED = 1 << 12  # of more files, so many are compared
_PART_BYTES = 1 << 12
# Of our own formats: what the names of files end in, and what lies beside them.
_LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "arrayrecord": (".array_record", README, LICENCE, DESCRIPTION_FILE),
    "arrow": (".arrow", README, LICENCE),
    "hf": (".parquet", README, LICENCE, CROISSANT),
    "jpeg": ("", README, LICENCE),
    "lance": (".lance", README, LICENCE),
    "parquet": (".parquet", README, LICENCE, CROISSANT),
    "tfrecord": (".tfrecord", README, LICENCE, DESCRIPTION_FILE),
    "webdataset": (".tar", README, LICENCE),
}
_FILES = ' "files": [\n'  # the line of a manifest behind which the files stand, one to a line
_END = {" ]\n", "}\n"}  # the lines that follow them


# --- What describes the dataset ------------------------------------------------------------------------


def check_descriptions(report: Report, folder: Path) -> None:
    """Hold the README, the terms, a ``dataset.json`` and a ``croissant.json`` against what the output holds.

    Raises:
        ConverterError: one of them says something else than the output holds.
    """
    splits = [split.split for split in report.splits]
    files = {split.split.title: _files_of(split, splits, report.format) for split in report.splits}
    _, *beside = _LAYOUTS.get(report.format, ("",))
    for name in beside:
        if not (folder / name).is_file():
            raise fault(folder / name, "it is missing")
    if (folder / README).is_file():
        card = _front_matter(folder / README)
        _check_patterns(card.get("configs") or (), report, files, folder / README)
        for info in card.get("dataset_info") or ():
            _check_info(info, report, folder / README)
    if (folder / LICENCE).is_file():
        licence = report.description.about.licence
        text = "".join((folder / LICENCE).read_text(encoding="utf-8").split())
        if "".join(licence.name.split()) not in text or "".join(licence.text.split()) not in text:
            raise fault(folder / LICENCE, "it does not hold the terms")
    if (folder / DESCRIPTION_FILE).is_file():
        _check_description(json.loads((folder / DESCRIPTION_FILE).read_bytes()), report, files, folder)
    _check_quarantine(report, folder)
    if (folder / CROISSANT).is_file():
        document = json.loads((folder / CROISSANT).read_bytes())
        stated = [list(names) for names in _enumerations(document)]
        configs = {split.split.config: list(split.split.label_names) for split in report.splits}
        if stated != [names for names in configs.values() if names]:
            raise fault(folder / CROISSANT, "the names of labels are not those of the splits, in their order")
        _check_croissant(document, report, files, folder / CROISSANT)


def _check_quarantine(report: Report, folder: Path) -> None:
    """What was left out has its bytes in files that are there, and is listed."""
    if not any(split.quarantine for split in report.splits):
        return
    sizes = {file.path: file.size for file in report.files if file.path.startswith(f"{FOLDER}/")}
    ranges = []
    for split in report.splits:
        if split.quarantine is None:
            continue
        try:
            check_quarantine(split.quarantine, split.sources, sizes)
        except ValueError as error:
            raise fault(folder / FOLDER, f"{split.split.title}: {error}") from None
        ranges += [
            (split.split.config, split.split.name, piece.file, piece.raw) for piece in split.quarantine.ranges
        ]
    stated = json.loads((folder / LIST).read_bytes()) if LIST in sizes else []
    if [(entry["config"], entry["split"], entry["file"], entry["raw"]) for entry in stated] != ranges:
        raise fault(folder / LIST, "it does not list what was left out")


def _front_matter(path: Path) -> Mapping[str, Any]:
    import yaml

    text = path.read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")[0]
    document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # both are safe
    return document if isinstance(document, dict) else {}


def _check_patterns(
    configs: Sequence[Any], report: Report, files: Mapping[str, Sequence[str]], path: Path
) -> None:
    """The patterns that a README gives to ``datasets``: each must be of its split's files, and of no others."""
    for entry in configs:
        for split, stated in _paired(report, entry["config_name"], entry["data_files"], "split", path):
            _check_pattern(stated["path"], split.split, files, path)


def _paired(
    report: Report, config: str, stated: Sequence[Any], key: str, path: Path
) -> Iterator[tuple[SplitReport, Any]]:
    """The splits of a config, each with what a README says of it by its name, which is at ``key``."""
    splits = [split for split in report.splits if split.split.config == config]
    # `datasets` loads no split without records, where others have some.
    splits = [split for split in splits if split.fingerprint.records] or splits
    for split, entry in zip_longest(splits, stated):
        if split is None or entry is None or not _is_called(split.split, entry[key]):
            raise fault(path, f"the splits of the config {config} are not those that are here")
        yield split, entry


def _check_pattern(pattern: str, split: Split, files: Mapping[str, Sequence[str]], path: Path) -> None:
    for title, names in files.items():
        for name in names:
            if fnmatchcase(name, pattern) != (title == split.title):
                raise fault(path, f"the pattern {pattern} of {split.title} is wrong about {name}")


def _check_info(info: Mapping[str, Any], report: Report, path: Path) -> None:
    """What a README says of a config's columns and, where it is a card, numbers of records."""
    counts = _paired(report, info["config_name"], info["splits"], "name", path) if "splits" in info else ()
    for split, stated in counts:
        if stated["num_examples"] != split.fingerprint.records:
            raise fault(path, f"{split.split.title} has {split.fingerprint.records} records")
    for split in report.splits:
        if split.split.config == info["config_name"]:
            check_features(_of_fields(info["features"], split.split.schema), split.split, path)


def _of_fields(fields: Sequence[Mapping[str, Any]], schema: Schema) -> dict[str, Stated]:
    """What is said of columns. The fields of a WebDataset are files; of these, what is said of the columns in JSON."""
    json_fields = next((field["struct"] for field in fields if "struct" in field), None)
    if json_fields is None:
        return {field["name"]: _of_yaml(field) for field in fields}
    stated: dict[str, Stated] = {field["name"]: _of_yaml(field) for field in json_fields}
    files = [column for column in schema if column.name not in stated and pa.types.is_binary(column.type)]
    stated |= {column.name: ("image" if column.role == "image" else "binary", ()) for column in files}
    order = [column.name for column in schema if column.name in stated]
    return {name: stated[name] for name in dict.fromkeys([*order, *stated])}


def _of_yaml(feature: Mapping[str, Any]) -> Stated:
    """What a feature in the form of a card says."""
    if "sequence" in feature:
        kind, names = _of_yaml({"dtype": feature["sequence"]})
        return f"{kind}[{feature.get('length', '')}]", names
    kind = feature["dtype"]
    if isinstance(kind, dict):
        names = kind["class_label"]["names"]
        return "label", tuple(names[str(number)] for number in range(len(names)))
    return kind, ()


def _check_description(
    document: Mapping[str, Any], report: Report, files: Mapping[str, Sequence[str]], folder: Path
) -> None:
    """The description that lies beside files of Examples."""
    path = folder / DESCRIPTION_FILE
    for split in report.splits:
        config = document["configs"][split.split.config]
        stated = config["splits"][split.split.name]
        columns = {
            column.name: (column.name if column.feature is None else column.feature, names_by_number(column))
            for column in split.split.schema
            if not column.derived
        }
        if list(stated_columns(config["columns"]).items()) != list(columns.items()):
            raise fault(path, f"the columns are not those of {split.split.title}")
        if stated["records"] != split.fingerprint.records:
            raise fault(path, f"{split.split.title} has {split.fingerprint.records} records")
        _check_pattern(stated["file"], split.split, files, path)


def stated_columns(columns: Mapping[str, Any]) -> dict[str, tuple[str, dict[int, str]]]:
    """The feature of each column of a description, and the names of its labels by their numbers."""
    found = {}
    for name, column in columns.items():
        column = {} if isinstance(column, str) else column
        names = column.get("label_names") or []
        numbered = enumerate(names) if isinstance(names, list) else names.items()
        found[name] = (
            name if column.get("feature") is None else column["feature"],
            {int(number): label for number, label in numbered},
        )
    return found


def names_by_number(column: Column) -> dict[int, str]:
    """The names of a column's labels by the stored numbers."""
    numbers = column.label_ids or range(len(column.label_names))
    return dict(zip(numbers, column.label_names, strict=True))


def _enumerations(croissant: Mapping[str, Any]) -> Iterator[Iterator[str]]:
    """The names of labels in a Croissant description, config by config, by their numbers."""
    for records in croissant["recordSet"]:
        if records.get("dataType") == "sc:Enumeration":
            rows = {row[f"{records['@id']}/number"]: row[f"{records['@id']}/name"] for row in records["data"]}
            yield (rows.get(number, "") for number in range(len(rows)))


def _check_croissant(
    document: Mapping[str, Any], report: Report, files: Mapping[str, Sequence[str]], path: Path
) -> None:
    """The files, the patterns and the columns of a Croissant description."""
    listed = {file["contentUrl"]: file["sha256"] for file in document["distribution"] if "sha256" in file}
    if listed != {file.path: file.sha256 for file in report.files if file.path != CROISSANT}:
        raise fault(path, "the files are not those that are here")
    patterns = [pattern for entry in document["distribution"] for pattern in entry.get("includes", ())]
    by_config: dict[str, list[Split]] = {}
    for split in report.splits:
        by_config.setdefault(split.split.config, []).append(split.split)
    ordered = [*chain.from_iterable(by_config.values())]
    if len(patterns) != len(ordered):
        raise fault(path, "the patterns of files are not one a split")
    for own, pattern in zip(ordered, patterns, strict=True):
        _check_pattern(pattern, own, files, path)
    stated = [
        [
            (source["extract"]["column"], source.get("transform", {}).get("jsonPath") == "bytes")
            for source in (field["source"] for field in records["field"])
            if "column" in source["extract"]
        ]
        for records in document["recordSet"]
        if "dataType" not in records
    ]
    columns = [
        [(column.name, column.role == "image") for column in splits[0].schema]
        for splits in by_config.values()
    ]
    if stated != columns:
        raise fault(path, "the columns are not those of the splits")


def _is_called(split: Split, name: str) -> bool:
    return name == split.name or (name == "validation" and split.name in _VALIDATION)


def _files_of(report: SplitReport, splits: Sequence[Split], format_name: str) -> list[str]:
    """Files of a split: those of its first shard and of its last one, and those that all have parts of.

    Raises:
        ConverterError: one is called as another split of the config is.
    """
    ends = report.shards[:1] + report.shards[-1:]
    files = [name for shard in ends for name in (*shard.files[:_ENDS], *shard.files[-_ENDS:])]
    files = [f"{name}0" if name.endswith("/") else name for name in (*files, *report.joined)]
    own, config = report.split, report.split.config
    for shard, number in zip(ends, (0, len(report.shards) - 1), strict=False):
        for name in shard.files[:1]:
            if (found := _NUMBERED.search(name)) and (int(found[1]), int(found[2])) != (
                number,
                len(report.shards),
            ):
                raise fault(Path(name), f"it is shard {number} of {len(report.shards)}")
    for name in files:
        called = [
            split
            for split in splits
            if split.config == config
            and name.startswith((f"{config}/{split.name}-", f"{config}/{split.name}/"))
        ]
        if called and own not in called and not (own.name in _VALIDATION and called[0].name == "validation"):
            raise fault(Path(name), f"it holds records of {own.title}")
    files = [name for name in files if not name.endswith(_COMPANIONS)]
    suffix, *_ = _LAYOUTS.get(format_name, ("",))
    if odd := next((name for name in files if not name.endswith(suffix)), None):
        raise fault(Path(odd), f"its name does not end in {suffix}")
    return files


def fault(path: Path, problem: str) -> ConverterError:
    """The error of an output that is not what its report says."""
    return ConverterError(f"{path.name}: {problem}; a fault of kfer-convert or of the format.")


# --- The files -----------------------------------------------------------------------------------------


def check_sources(report: Report, source: Source) -> None:
    """Hold what is said of source files on this machine against them: sizes, and the digests of small ones.

    Raises:
        ConverterError: they differ.
    """
    budget = _HASHED_BYTES
    files = [file for split in source.splits for file in split.files]
    described = report.description.document["configs"]
    for found in source.splits:
        names = described[found.split.config]["splits"][found.split.name]["file"]
        names = [] if isinstance(names, str) or any(map(is_pattern, names)) else list(dict.fromkeys(names))
        places = {name: place for place, name in enumerate(names)}
        order = [places[name] for file in found.files if (name := plain_name(file.name)) in places]
        if order != sorted(order):
            raise fault(
                Path(found.files[0].name), "the files of its split are not in the order of the description"
            )
    stated = [facts for split in report.splits for facts in split.sources]
    for file, facts in zip(files, stated, strict=True):
        place = file.path
        if not isinstance(place, Path):
            continue
        if file.name != facts.name or place.stat().st_size != facts.bytes:
            raise fault(place, f"{facts.name} is said to have {facts.bytes} bytes")
        if facts.bytes <= budget:
            budget -= facts.bytes
            data, start = place.read_bytes(), 0
            for end, digest in facts.ranges or ((facts.bytes, facts.sha256),):
                if hashlib.sha256(data[start:end]).hexdigest() != digest:
                    raise fault(place, "it has another digest")
                start = end


def check_joined(folder: Path, path: str, parts: Sequence[OutputFile]) -> None:
    """Hold a file that was joined of the parts of shards against them, as far as they are in this folder.

    Raises:
        ConverterError: it has not their bytes, in the order of their numbers.
    """
    with (folder / path).open("rb") as file:
        for part in sorted(parts, key=lambda part: part.path):
            place = file.tell()
            if (folder / part.path).is_file():
                with (folder / part.path).open("rb") as one:
                    for offset in (0, max(0, part.size - _PART_BYTES)):
                        one.seek(offset)
                        file.seek(place + offset)
                        if one.read(_PART_BYTES) != file.read(min(_PART_BYTES, part.size)):
                            raise fault(
                                folder / path, f"it does not have the bytes of {part.path} in their place"
                            )
            file.seek(place + part.size)
        if file.tell() != os.fstat(file.fileno()).st_size:
            raise fault(folder / path, "it has other bytes than its parts")


def check_sums(report: Report, folder: Path, *, all_here: bool) -> None:
    """Hold ``SHA256SUMS`` against ``MANIFEST.json``, and both against the files and the report.

    Args:
        report: what the manifest is of.
        folder: the output.
        all_here: whether the shards are in this folder, and not in a store.

    Raises:
        ConverterError: they differ; a file is missing; a size or a digest is wrong.
    """
    hashed = 0
    budget, step = _HASHED_BYTES, 1 + len(report.files) // _MAX_COMPARED
    with (folder / MANIFEST).open("rb") as manifest:
        itself = f"{hashlib.file_digest(manifest, 'sha256').hexdigest()}  {MANIFEST}\n"
    with (folder / SUMS).open(encoding="utf-8") as file:
        if itself not in file:
            raise fault(folder / SUMS, "it does not have the digest of the manifest")
        file.seek(0)
        others = filterfalse(itself.__eq__, file)
        for entry, line in zip_longest(
            islice(_entries(folder), 0, None, step), islice(others, 0, None, step), fillvalue=""
        ):
            stated = json.loads(entry.strip().removesuffix(",") or "{}")
            path, size, digest = (stated.get(key) for key in ("path", "size", "sha256"))
            if line != f"{digest}  {path}\n":
                raise fault(folder / SUMS, f"it does not say of {path} what the manifest says")
            place = f"{folder}{os.sep}{path}"
            if not all_here and not os.path.isfile(place):  # noqa: PTH113  # a Path for each takes as long as the rest
                continue
            if os.lstat(place).st_size != size:
                raise fault(folder / MANIFEST, f"the size of {path} is another")
            if size <= budget and hashed < _MAX_HASHED_FILES:
                budget, hashed = budget - size, hashed + 1
                if hashlib.sha256(Path(place).read_bytes()).hexdigest() != digest:
                    raise fault(folder / MANIFEST, f"the digest of {path} is another")
        file.seek(0)
        summed = sum(1 for _ in file) - 1  # without the manifest's
    listed = sum(1 for _ in _entries(folder))
    if not listed == summed == len(report.files):
        raise fault(folder / MANIFEST, f"it lists {listed} files of {len(report.files)}, and {SUMS} {summed}")
    ours = [
        (
            split.split.title,
            split.fingerprint.records,
            split.fingerprint.records_sha256,
            [[column.name, list(column.label_names)] for column in split.split.schema],
        )
        for split in report.splits
    ]
    stated = _manifest_head(folder)
    theirs = [
        (
            f"{split['config']}/{split['split']}",
            split["fingerprint"]["records"],
            split["fingerprint"]["records_sha256"],
            [[column["name"], column["label_names"] or []] for column in split["columns"]],
        )
        for split in stated["splits"]
    ]
    if ours != theirs:
        raise fault(folder / MANIFEST, "it says something else of the splits or of their columns")
    if any(any((folder / path).iterdir()) for path in stated["empty_folders"]):
        raise fault(folder / MANIFEST, "a folder that it says is empty is not")
    if stated["dataset"] != report.description.document:
        raise fault(folder / MANIFEST, "its description is not the one of the dataset")


def _manifest_head(folder: Path) -> dict[str, Any]:
    """What a manifest says but for the files, of which there may be many."""
    with (folder / MANIFEST).open(encoding="utf-8") as file:
        head = "".join(takewhile(lambda line: line != _FILES, file))
    document: dict[str, Any] = json.loads(head + ' "files": []}')
    return document


def _entries(folder: Path) -> Iterator[str]:
    """The lines of the files that a manifest lists, each a JSON object."""
    with (folder / MANIFEST).open(encoding="utf-8") as file:
        lines = dropwhile(lambda line: line != _FILES, file)
        next(lines, None)
        yield from filterfalse(_END.__contains__, lines)
