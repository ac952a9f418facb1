"""Resuming: what an interrupted run finished stays in its staging folder, and the next run takes it up.

A shard is finished when its result stands beside its folder, written after its files were read back. A result
counts only for a run of the same version, options and source (:func:`claim`), for a shard of the same plan, and
while every file of it still has its size and digest. So no fsync is needed for it to be safe: what a power cut
lost is done again. Nothing in a staging folder leads out of it; but someone who makes up files and the result
that fits them is believed, until ``verify --source``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from converters.dataset.decode import Count, DecodeError, Sha256, decode, encode, load_json
from converters.dataset.description import Description
from converters.dataset.filenames import safe_path
from converters.dataset.fingerprint import Part
from converters.dataset.plan import Plan
from converters.dataset.shard import Shard, ShardResult, SliceFacts
from converters.dataset.source import FileState
from converters.errors import CallError, MachineError
from converters.storage.file_list import OutputFile, OutputFiles, in_columns
from converters.storage.files import read_bounded
from converters.storage.object_store import ObjectPath, Place, put_bytes
from converters.storage.signals import held_interrupts, until
from converters.storage.tree import hash_file, walk_files

KEPT_AFTER = (KeyboardInterrupt, OSError, MemoryError, MachineError, CallError)
"""What the environment ends a run with, after which finished shards stay."""

RUN = "run.json"
RESULT = ".json"
_MAX_BYTES = 1 << 30


def describe_run(
    description: Description, inputs: Mapping[str, FileState], format_name: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """All that a finished shard depends on, as JSON; a run takes up only the shards of a run of the same."""
    return {
        "version": {name: version(name) for name in ("kfer-convert", "pyarrow")},
        "format": format_name,
        "options": dict(options),
        "dataset": description.document,
        "source": {path: list(state) for path, state in inputs.items()},
    }


def claim(place: Place, run: Mapping[str, Any], *, finished: bool, remove: str) -> object:
    """Make a staging this run's; what describes the run, as JSON has it.

    Args:
        place: the staging.
        run: see :func:`describe_run`.
        finished: whether there are finished shards.
        remove: how to get rid of them.

    Raises:
        CallError: there are, and of another run.
    """
    text = json.dumps(run, indent=1, default=str)  # in ASCII: names of folders may be no UTF-8
    ours, stated = json.loads(text), read_json(place / RUN)
    if stated == ours:
        return ours
    if finished:
        theirs = stated if isinstance(stated, dict) else {}
        differs = [name for name in ours if theirs.get(name) != ours[name]]
        raise CallError(
            f"{place}: this holds the finished shards of an interrupted run that differs in "
            f"{' and '.join(differs)}, which this run cannot take up. Repeat that run to complete it, or "
            f"remove what it left: {remove}"
        )
    if isinstance(place, ObjectPath):
        put_bytes(text.encode(), place / RUN)
    else:
        temporary = place / f"{RUN}.new"
        temporary.write_text(text, encoding="utf-8")
        temporary.rename(place / RUN)
    return ours


def kept_sentence(count: int, place: Place) -> str:
    """What is said of so many finished shards that stay at a place."""
    if not count:
        return ""
    shards = "1 finished shard is" if count == 1 else f"{count} finished shards are"
    return f"{shards} kept in {place}, and the same command goes on from there."


def save_result(result: ShardResult) -> None:
    """Put a shard's result beside its folder, at once or not at all: from now on the shard is finished."""
    path = _result_path(result.folder)
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(result_text(result))
    temporary.rename(path)


def finished_shards(shards: Path, output: Path, plan: Plan) -> dict[str, Path]:
    """The folders of the shards of ``plan`` that earlier runs finished, by their keys; each verified again.

    Files that were moved to ``output`` before the run was interrupted are moved back to their shard's folder.
    All else that lies in ``shards`` is removed.
    """
    moved = _files_in(output)

    def intact(folder: Path) -> str | None:
        result = load_result(folder, plan.find)
        if result is None:
            return None
        _move_back(result, output, moved)
        return result.shard.key if _intact(result) else None

    kept: dict[str, Path] = {}
    folders = finished_folders(shards)
    # Hashing lets other threads run.
    with held_interrupts() as stop, ThreadPoolExecutor(os.cpu_count()) as pool:
        for folder, key in zip(folders, pool.map(until(stop, intact), folders), strict=True):
            if key is not None and kept.setdefault(key, folder) == folder:
                continue
            _result_path(folder).unlink(missing_ok=True)
    remove_unfinished(shards)
    return kept


def load_result(folder: Path, find: Callable[[str], Shard | None]) -> ShardResult | None:
    """The result that stands beside a shard's folder; None where there is none of a shard that ``find`` gives."""
    return result_from_json(read_json(_result_path(folder)), find, folder)


def remove_unfinished(shards: Path) -> None:
    """Remove the folders of shards that have no result."""
    finished = set(finished_folders(shards))
    for entry in os.scandir(shards) if shards.is_dir() else ():
        if entry.is_dir(follow_symlinks=False) and Path(entry.path) not in finished:
            shutil.rmtree(entry.path)


def finished_folders(shards: Path) -> list[Path]:
    """The folders of the shards that have a result. One itself may have been moved to the output already."""
    return sorted(
        Path(entry.path.removesuffix(RESULT))
        for entry in (os.scandir(shards) if shards.is_dir() else ())
        if entry.name.endswith(RESULT) and entry.is_file(follow_symlinks=False)
    )


def _result_path(folder: Path) -> Path:
    return folder.with_name(folder.name + RESULT)


def _files_in(folder: Path) -> set[str]:
    """What is below a folder, if that is there; nothing behind a link."""
    return set(walk_files(folder)) if folder.is_dir() else set()


def read_json(file: Place) -> Any:  # noqa: ANN401  # JSON
    """What a file of a staging holds; None where there is none, or no JSON in it."""
    try:
        return load_json(read_bounded(file, _MAX_BYTES, follow_links=False), "")
    except (FileNotFoundError, DecodeError):
        return None


def _move_back(result: ShardResult, output: Path, moved: Collection[str]) -> None:
    """Undo what of a shard was ``moved`` to the output; not into a folder with anything else in it, like a link."""
    names = {file.path for file in result.files}
    there = _files_in(result.folder)
    if there <= names:
        for name in (names - there).intersection(moved):
            place = result.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            (output / name).rename(place)


def _intact(result: ShardResult) -> bool:
    """Whether a shard's folder holds its files and no others, each with its size and digest."""
    if _files_in(result.folder) != {file.path for file in result.files}:
        return False
    try:
        return all(hash_file(result.folder / file.path) == (file.size, file.sha256) for file in result.files)
    except OSError:
        return False


@dataclass(frozen=True)
class _StatedResult:
    """A result as it is stored, with the key of its shard and without its effort."""

    shard: str
    slices: tuple[SliceFacts, ...]
    source: Part
    output: Part
    summary: Any
    files: tuple[tuple[str, Count, Sha256], ...]


def result_text(result: ShardResult) -> Iterator[str]:
    """A result as the text of a JSON object, in pieces."""
    stated = _StatedResult(result.shard.key, result.slices, result.source, result.output, result.summary, ())
    yield json.dumps(encode(stated)).removesuffix("]}")
    separator = ""
    for some in in_columns(result.files):  # there may be tens of thousands
        yield separator + json.dumps(list(zip(*some, strict=True)))[1:-1]
        separator = ", "
    yield "]}"


def result_from_json(
    document: object, find: Callable[[str], Shard | None], folder: Path
) -> ShardResult | None:
    """The result that ``document`` says; None where it is none of a shard that ``find`` gives by its key."""
    try:
        stated = decode(_StatedResult, document, "")
    except DecodeError:
        return None
    if (shard := find(stated.shard)) is None:
        return None
    files = OutputFiles(OutputFile(*file) for file in stated.files)
    result = ShardResult(shard, folder, files, stated.slices, stated.source, stated.output, stated.summary)
    return result if _fits(result) else None


def _fits(result: ShardResult) -> bool:
    """Whether a result can be that of its shard: of its ranges, with safe names, and equal on both sides."""
    shard, part = result.shard, result.source
    planned = [(str(piece.path), piece.start, piece.end) for piece in shard.slices]
    row_bytes = -(-len(shard.split.label_names) // 8)
    return (
        [(facts.path, facts.start, facts.end) for facts in result.slices] == planned
        and all(safe_path(file.path) for file in result.files)
        and part == result.output
        and part.records == sum(facts.records for facts in result.slices)
        and part.first == shard.first_record
        and len(part.labels) in (0, part.records * row_bytes)
        and len(part.label_counts or ()) == len(shard.split.label_names)
    )
