"""`datasets` as a second opinion on an output: it is loaded as users load it, and compared record by record.

It runs in a process of its own, offline, with its cache in a temporary folder, and takes no code of the current
folder. What it gives is held against what the format reads back, which is held against the manifest elsewhere:
numbers of records, names of labels, every label, and every image's bytes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa

from converters.dataset.description import Split
from converters.dataset.image_names import image_names
from converters.dataset.report import Check, Report, SplitReport
from converters.dataset.shard import Progress
from converters.errors import CallError, ConverterError, MachineError
from converters.formats import Format
from converters.formats.jpeg.metadata import Metadata
from converters.formats.parquet import ParquetFormat
from converters.formats.readme import empty_splits
from converters.formats.table import features, to_table
from converters.plugins import require_extra
from converters.storage.object_store import SCRATCH
from converters.storage.processes import child_command
from converters.verify.datasets_child import row_digest
from converters.verify.read_back import read_back

NAME = "datasets"

FORMATS = ("hf", "jpeg", "parquet")

_PATTERN = re.compile(r"[*?\[\]{}]")


def require_datasets() -> None:
    """Raise a CallError that says what to install where `datasets` is missing; imports nothing."""
    require_extra("hf", "--reader datasets", "datasets")


def require_known_layout(format_name: str) -> None:
    """Raise a CallError where `datasets` does not know the layout of a format."""
    if format_name not in FORMATS:
        raise CallError(
            f"--reader datasets reads outputs of --to {', '.join(FORMATS)}; this is one of --to {format_name}."
        )


def confirm(report: Report, out: Path, target: Format | None, progress: Progress | None) -> Report:
    """The report with one more check a split: whether `datasets` gives what the format reads back.

    Args:
        report: what the verification found so far.
        out: the output.
        target: its format; None where the content must not be read, for files of it were changed.
        progress: called with ("confirmed", records).

    Raises:
        MachineError: there is no room for the cache of `datasets`, or its process died.
    """
    titles = [split.split.title for split in report.splits]
    if target is None:
        checks = dict.fromkeys(titles, Check(NAME, "unverified", "the content of the output was not read"))
    elif _PATTERN.search(path := str(out.resolve())):
        reason = f"`datasets` takes the path {path} for a pattern"
        checks = dict.fromkeys(titles, Check(NAME, "unverified", reason))
    else:
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as name:
            checks = _load_all(report, out, target, Path(name), progress)
    splits = [replace(split, checks=(*split.checks, checks[split.split.title])) for split in report.splits]
    return replace(report, splits=tuple(splits))


def _load_all(
    report: Report, out: Path, target: Format, folder: Path, progress: Progress | None
) -> dict[str, Check]:
    """The checks of all splits, by their titles; ``folder`` is for what is temporary."""
    if report.format != "jpeg":  # of JPEG files the cache holds no bytes
        _require_space(report, folder)
    configs: dict[str, dict[str, SplitReport]] = {}
    checks = {
        split.title: Check(NAME, "unverified", "`datasets` loads no split without records")
        for split in empty_splits(report)
    }
    for split in report.splits:
        if split.split.title not in checks:
            configs.setdefault(split.split.config, {})[_name_there(target, split.split)] = split
    loads: list[dict[str, Any]] = []
    wanted: dict[tuple[str, str], tuple[SplitReport, Path]] = {}
    for config, splits in configs.items():
        digests = {}
        for name, split in splits.items():
            digests[name] = folder / f"{len(wanted)}.arrow"
            wanted[config, name] = (split, digests[name])
        loads.append(
            {
                "config": config,
                # As users load it: the README says where each config's splits are.
                "arguments": {"path": str(out.resolve()), "name": config},
                "splits": list(splits),
                "digests": {name: str(path) for name, path in digests.items()},
                "columns": list(_compared(target, next(iter(splits.values())).split)),
            }
        )
    with closing(_answers(loads, folder)) as answers:
        for answer in answers:
            split, digests_file = wanted[answer["config"], answer["split"]]
            checks[split.split.title] = _check(split, answer, digests_file, out, target, progress)
    return checks


def _name_there(target: Format, split: Split) -> str:
    """What `datasets` calls a split."""
    return target.split_name(split) if isinstance(target, ParquetFormat) else split.name


def _require_space(report: Report, folder: Path) -> None:
    """Check that there is room for the copy that `datasets` makes of all it loads."""
    needed, free = sum(file.size for file in report.files), shutil.disk_usage(folder).free
    if needed > free:
        raise MachineError(
            f"{report.out}: `datasets` copies what it loads to {folder.parent}, which has {free:,} bytes free of "
            f"{needed:,} that it needs. TMPDIR names another folder."
        )


def _compared(target: Format, split: Split) -> dict[str, Any]:
    """The columns that are compared, with their features; a CSV has no types, so of it only images and numbers are."""
    if target.name != "jpeg":
        return features(split.schema)
    fields = Metadata(split).fields
    numbers = [name for name, kind in fields.items() if not _is_text(kind)]
    image = split.schema.image
    images: dict[str, Any] = {"image": {"_type": "Image"}} if image is not None else {}
    return images | {name: {} for name in numbers}


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or (pa.types.is_list(kind) and pa.types.is_string(kind.value_type)))


def _expected(target: Format, split: Split, batch: pa.RecordBatch, first: int) -> list[list[Any]]:
    """The values of the compared columns, as the format's files hold them."""
    images = {image.name: image.name for image in split.schema.images}
    if target.name == "jpeg":  # of whose images `datasets` gives the first
        rows = Metadata(split).rows(batch, {name: [""] * len(batch) for name in images})
        images = {} if split.schema.image is None else {"image": split.schema.image.name}
    else:
        rows = to_table(batch, split, first)
    return [
        (batch.column(images[name]) if name in images else rows.column(name)).to_pylist()
        for name in _compared(target, split)
    ]


def _other_names(split: Split, target: Format, answer: Mapping[str, Any]) -> str | None:
    """What is wrong with the names of labels, or the kinds of columns, that `datasets` gives."""
    for name, feature in _compared(target, split).items():
        inner = feature.get("feature", feature)
        if (feature.get("_type") == "Image") != (name in answer["images"]):
            return f"the column {name} is an image only on one side"
        expected, found = inner.get("names", []), answer["label_names"].get(name, [])
        if target.name != "jpeg" and expected != found:
            number, (their, our) = next(
                entry for entry in enumerate(zip_longest(found, expected)) if entry[1][0] != entry[1][1]
            )
            return f"the name of label {number} is {their!r}; the manifest says {our!r}"
    return None


def _answers(loads: Sequence[Mapping[str, Any]], folder: Path) -> Generator[dict[str, Any], None, None]:
    """What the process of `datasets` answers, split by split.

    Raises:
        MachineError: it died, or the machine failed it.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_HOME": str(folder / "home"),
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    program = child_command("converters.verify.datasets_child", "serve")
    with subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=environment,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError), process.stdin:
                json.dump(loads, process.stdin)
            for line in process.stdout:
                answer = json.loads(line)
                if answer.get("machine"):
                    raise MachineError(f"`datasets` could not load {answer['config']}: {answer['error']}.")
                yield answer
        except BaseException:
            process.kill()
            raise
    if status := process.returncode:
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise MachineError(f"the process of `datasets` died ({how}), so it confirms nothing.")


def _check(
    split: SplitReport,
    answer: Mapping[str, Any],
    digests: Path,
    out: Path,
    target: Format,
    progress: Progress | None,
) -> Check:
    """Hold what `datasets` gives of a split against the manifest, and against what the format reads back."""
    wanted = split.fingerprint.records
    if error := answer.get("error"):
        return Check(NAME, "failed", f"it cannot be loaded: {error}")
    if problem := _other_names(split.split, target, answer):
        return Check(NAME, "failed", problem)
    if answer["records"] != wanted:
        return Check(NAME, "failed", f"it gives {answer['records']} records; the manifest says {wanted}")
    with pa.memory_map(str(digests)) as file, pa.ipc.open_file(file) as reader:
        theirs = reader.read_all()
    # imagefolder goes by the names of files, and not by the order of the labels.
    by_file = target.name == "jpeg"
    places = dict(zip(theirs["file"].to_pylist(), range(len(theirs)), strict=True)) if by_file else {}
    first = 0
    try:
        for batch in read_back(target, out, split.split):
            image = split.split.schema.image
            files = (
                None
                if image is None
                else image_names(split.split, image, batch, first, with_split=not by_file)
            )
            for row, values in enumerate(zip(*_expected(target, split.split, batch, first), strict=True)):
                place = places.get(files[row]) if by_file and files else first + row
                name = f" ({files[row]})" if files else ""
                if place is None or place >= wanted:
                    return Check(NAME, "failed", f"record {first + row}{name}: it does not give it")
                if theirs["digest"][place].as_py() != row_digest(values):
                    reason = f"record {first + row}{name}: its image, its labels or another value differ"
                    return Check(NAME, "failed", reason)
            first += len(batch)
            if progress is not None:
                progress("confirmed", len(batch))
    except (ConverterError, ValueError) as error:
        return Check(NAME, "unverified", f"there is nothing to compare with: {error}")
    return Check(
        NAME,
        "passed",
        f"{wanted} records as datasets {version('datasets')} loads them: every image's bytes, every label and its name",
    )
