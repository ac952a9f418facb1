"""The program of the process in which `datasets` loads an output; :mod:`datasets_reader` starts it.

One request comes in as JSON: the output, and which splits of each config to load. Lines of JSON go out: what was found
of a split, and how many more of its records are as the format reads them back.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from converters.dataset.description import Split
from converters.dataset.image_names import image_names
from converters.dataset.manifest import read_manifest
from converters.errors import ConverterError
from converters.formats import Format, load_format
from converters.formats.jpeg.metadata import Metadata
from converters.formats.parquet import ParquetFormat
from converters.formats.table import features, to_table
from converters.verify.read_back import read_back

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_ROWS = 1000  # read at once
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE)


def serve() -> None:
    """Answer the request on standard input."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever `datasets` prints must not come between the answers

    def say(**answer: object) -> None:
        pipe.write(json.dumps(answer) + "\n")
        pipe.flush()

    request = json.load(sys.stdin)
    out = Path(request["out"])
    manifest, _ = read_manifest(out)
    target = load_format(manifest.format, **manifest.options.format_options)
    entries = {entry.title: entry for entry in manifest.splits}
    for config, titles in request["configs"].items():
        splits = {title: manifest.split(entries[title]) for title in titles}
        names = {title: _name_there(target, split) for title, split in splits.items()}
        loaded: DatasetDict | None = None
        for title, split in splits.items():
            try:
                loaded = loaded or _load(out, config, sorted(names.values()))
                wanted = entries[title].fingerprint.records
                problem = find_difference(
                    loaded[names[title]], target, out, split, wanted, lambda number: say(confirmed=number)
                )
                say(title=title, problem=problem)
            except ConverterError as error:
                say(title=title, unverified=f"there is nothing to compare with: {error}")
            except Exception as error:  # noqa: BLE001  # whatever it is, the parent must hear of it
                say(title=title, **_described(error))
    # All is said. Threads of `datasets` may still be there when Python tears itself down, which has ended in SIGABRT.
    os._exit(0)


def _load(out: Path, config: str, names: list[str]) -> DatasetDict:
    """Load a config as users do: the README says where its splits are."""
    from datasets import load_dataset

    loaded = load_dataset(str(out), config)
    if sorted(loaded) != names:
        raise ValueError(f"it gives the splits {', '.join(loaded)}, and not {', '.join(names)}")
    return loaded


def _name_there(target: Format, split: Split) -> str:
    """What `datasets` calls a split."""
    return target.split_name(split) if isinstance(target, ParquetFormat) else split.name


def _described(error: BaseException) -> dict[str, Any]:
    """An error in one line, and whether it is the machine's: `datasets` wraps what happens to it in others."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if isinstance(error, MemoryError | ImportError) or getattr(error, "errno", None) in _MACHINE:
        return {"machine": text}
    return {"problem": f"it cannot be loaded: {text}"}


def find_difference(
    rows: Dataset,
    target: Format,
    out: Path,
    split: Split,
    wanted: int,
    confirmed: Callable[[int], None] = lambda _: None,
) -> str | None:
    """Where what `datasets` gives of a split is not what the format reads back; None where it is nowhere.

    Args:
        rows: what it gives.
        target: the format of the output ``out``.
        out: see there.
        split: as the manifest has it; with ``wanted`` records.
        wanted: see there.
        confirmed: called with how many more records are the same.

    Raises:
        ConverterError: the format cannot read the split back.
    """
    if problem := _other_names(rows.features, target, split):
        return problem
    if len(rows) != wanted:
        return f"it gives {len(rows)} records; the manifest says {wanted}"
    columns, image, by_file = _compared(target, split), split.schema.image, target.name == "jpeg"
    rows = rows.with_format("arrow")
    places: dict[str | None, int] = {}
    if by_file:  # imagefolder goes by the names of files, and not by the order of the labels
        files = (
            found
            for table in rows.select_columns("image").iter(_ROWS)
            for found in table["image"].to_pylist()
        )
        places = {Path(found["path"]).name: place for place, found in enumerate(files)}
    first = 0
    for batch in read_back(target, out, split):
        end = first + len(batch)
        names: Sequence[str | None] = [None] * len(batch)
        if image is not None:
            names = image_names(split, image, batch, first, with_split=not by_file)
        if lost := next((name for name in names if by_file and name not in places), None):
            return f"record {first + names.index(lost)} ({lost}): it does not give it"
        found = rows[[places[name] for name in names] if by_file else slice(first, end)]
        theirs = zip(
            *(_values(found.column(name), feature) for name, feature in columns.items()), strict=True
        )
        ours = zip(*_expected(target, split, batch, first), strict=True)
        for record, name, one, other in zip(range(first, end), names, theirs, ours, strict=True):
            if not all(map(_same, one, other)):
                where = f"record {record}" + (f" ({name})" if name else "")
                return f"{where}: its image, its labels or another value differ"
        first = end
        confirmed(len(batch))
    return None


def _compared(target: Format, split: Split) -> dict[str, Any]:
    """The columns that are compared, with their features; a CSV has no types, so of it only images and numbers are."""
    if target.name != "jpeg":
        return features(split.schema)
    numbers = [name for name, kind in Metadata(split).fields.items() if not _is_text(kind)]
    return {"image": {"_type": "Image"}} | {name: {} for name in numbers}


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or (pa.types.is_list(kind) and pa.types.is_string(kind.value_type)))


def _expected(target: Format, split: Split, batch: pa.RecordBatch, first: int) -> list[list[Any]]:
    """The values of the compared columns, as the format's files hold them."""
    images = {image.name: image.name for image in split.schema.images}
    if target.name == "jpeg":  # of whose images `datasets` gives the first
        rows = Metadata(split).rows(batch, {name: [""] * len(batch) for name in images})
        images = {"image": next(iter(images))}
    else:
        rows = to_table(batch, split, first)
    return [
        (batch.column(images[name]) if name in images else rows.column(name)).to_pylist()
        for name in _compared(target, split)
    ]


def _values(column: pa.ChunkedArray, feature: Mapping[str, Any]) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if feature.get("_type") != "Image":
        return values
    return [value and (value["bytes"] or Path(value["path"]).read_bytes()) for value in values]


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401  # as Python has them: bytes, texts, numbers, lists, None
    return bool(
        one == other if isinstance(one, bytes) else repr(one) == repr(other)
    )  # NaN is NaN, and -0.0 not 0.0


def _other_names(found: Mapping[str, Any], target: Format, split: Split) -> str | None:
    """What is wrong with the names of labels, or the kinds of columns, that `datasets` gives."""
    for name, feature in _compared(target, split).items():
        theirs = found[name]
        if (feature.get("_type") == "Image") != (type(theirs).__name__ == "Image"):
            return f"the column {name} is an image only on one side"
        ours = feature.get("feature", feature).get("names", [])
        stated = getattr(getattr(theirs, "feature", theirs), "names", [])
        if target.name != "jpeg" and ours != stated:
            pairs = enumerate(zip_longest(stated, ours))
            number, (their, our) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
            return f"the name of label {number} is {their!r}; the manifest says {our!r}"
    return None
