"""The synthetic dataset: KFER's shape, with drawn faces of nobody, for trying things out and for tests."""

from __future__ import annotations

import csv
import hashlib
import heapq
import json
import os
import random
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from converters.errors import CallError
from converters.faces import SIZE, draw_face
from converters.spec import DESCRIPTION_FILE, Config, DatasetSpec, Features, Split, kfer
from converters.tfrecord.writer import TFRecordWriter, encode_example

LABELS_FOLDER = "labels"

_SMALL_SHARE = 100  # the small sample has one record for so many of KFER's
_CHUNK_RECORDS = 250  # drawn at once by one worker
_CHUNKS_IN_FLIGHT = 3  # per worker
_POOL_PAYS_FROM = 2_000  # records; below, starting processes takes longer than drawing
_FIRST_SERIES = 7  # KFER's ids start with 03, 06, 12, 16 or 22: no invented id is one of KFER's

_DESCRIPTION = (
    "Synthetic. The faces are cartoons drawn by a program: they show nobody. Files, features, label names "
    "and proportions are those of KFER, so that whatever reads KFER can be tried without it."
)
_LICENCE = (
    "The pictures were made by a program and are dedicated to the public domain under CC0 1.0: you may copy, "
    "change and distribute them, for any purpose, without asking."
)
_AUTHORS_ROWS = "The rows of labels are those of KFER's published label files, and under the terms of these."


@dataclass(frozen=True)
class SampleSummary:
    """What was written.

    Attributes:
        folder: where.
        records: how many records over all ``.tfrecords`` files.
        files: every file, relative to ``folder``, with ``/`` between folders.
        bytes: size of all these files.
    """

    folder: Path
    records: int
    files: tuple[str, ...]
    bytes: int


class Row(NamedTuple):
    """A record without its picture. ``label`` has one byte per label, 0 or 1."""

    img_id: str
    clip_id: str
    label: bytes


class Part(NamedTuple):
    """The rows of one split."""

    split: Split
    rows: list[Row]


class _Chunk(NamedTuple):
    """Rows to draw: what a worker is sent."""

    rows: list[Row]
    label_names: tuple[str, ...]
    features: Features
    seed: int


def make_sample(
    folder: Path,
    *,
    records: int | None = None,
    full: bool = False,
    labels: Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> SampleSummary:
    """Write a synthetic dataset of KFER's shape into ``folder``.

    By default it has about one per cent of KFER's records. The same options and seed give the same bytes,
    whatever the number of workers. ``dataset.json`` is written last: without it the sample is not finished.

    Args:
        folder: created if it does not exist; it must be empty.
        records: number of records over all files, instead of one per cent.
        full: write as many records as KFER has, and exactly its published counts.
        labels: with ``full``, the folder of the authors' label files: their rows are taken, in their order.
        seed: another seed gives other pictures and other rows.
        workers: number of processes. By default one per processor, and only this one for a small sample.
        progress: called with the number of records newly written.

    Raises:
        CallError: the options do not go together, ``folder`` is not empty or cannot be written, or a label
            file is missing or is not the published one.
    """
    spec = kfer()
    splits = spec.splits()
    if full and records is not None:
        raise CallError("full and a number of records exclude each other: give one of them.")
    if labels is not None and not full:
        raise CallError("labels hold the rows of the full dataset: give full as well, or leave labels out.")
    if records is not None and records < len(splits):
        raise CallError(f"records: at least {len(splits)} are needed, one for each file; found {records}.")
    if workers is not None and workers < 1:
        raise CallError(f"workers: at least 1 is needed; found {workers}.")
    _refuse_used(folder)

    if labels is not None:
        parts = read_label_files(labels, spec)
    elif full:
        parts = full_rows(spec, seed)
    else:
        parts = small_rows(spec, records or sum(_scale(spec)) // _SMALL_SHARE, seed)
    number = sum(len(part.rows) for part in parts)
    if workers is None:
        workers = 1 if number < _POOL_PAYS_FROM else os.cpu_count() or 1
    try:
        files = _write_records(folder, parts, spec.features, seed, workers, progress or _no_progress)
        if labels is None:
            files += _write_label_files(folder, parts)
        files.append(_write_description(folder, spec, parts, authors_rows=labels is not None))
        size = sum(file.stat().st_size for file in files)
    except OSError as error:
        raise CallError(
            f"{folder}: the sample cannot be written: {error}. Choose a folder with enough room that you may "
            "write to; what is in this one is not finished, delete it."
        ) from error
    except BrokenProcessPool as error:
        raise CallError(
            f"{folder}: the sample is not finished: a process that draws died, probably for want of memory. "
            "Delete the folder, and ask for fewer workers."
        ) from error
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    return SampleSummary(folder, number, names, size)


# --- The rows ------------------------------------------------------------------------------------------


def full_rows(spec: DatasetSpec, seed: int) -> list[Part]:
    """Invented rows with exactly the published records, label counts and labels per image of each split."""
    parts = []
    for series, config in enumerate(spec.configs, _FIRST_SERIES):
        label_counts = [list(split.published.label_counts or ()) for split in config.splits]
        sizes = [_sizes(split.published.labels_per_image or {}) for split in config.splits]
        parts += _invent(config, sizes, label_counts, series, seed)
    return parts


def small_rows(spec: DatasetSpec, records: int, seed: int) -> list[Part]:
    """Invented rows, so many over all splits, proportional to the published counts.

    Every label of a config occurs in one of its splits at least, even a label that KFER never uses, and so
    does every number of labels per image: as far as there are rows enough.
    """
    per_split = iter(_apportion(records, _scale(spec), at_least=1))
    parts = []
    for series, config in enumerate(spec.configs, _FIRST_SERIES):
        facts = [split.published for split in config.splits]
        numbers = sorted({number for fact in facts for number in fact.labels_per_image or {}})
        frequencies = [
            _apportion(rows, [(fact.labels_per_image or {}).get(number, 0) for number in numbers])
            for fact, rows in zip(facts, islice(per_split, len(facts)), strict=True)
        ]
        _cover(frequencies)
        sizes = [_sizes(dict(zip(numbers, frequency, strict=True))) for frequency in frequencies]
        label_counts = [
            _apportion(sum(size), fact.label_counts or ()) for fact, size in zip(facts, sizes, strict=True)
        ]
        _cover(label_counts)
        parts += _invent(config, sizes, label_counts, series, seed)
    return parts


def read_label_files(folder: Path, spec: DatasetSpec) -> list[Part]:
    """The rows of the authors' label files, in their order.

    Raises:
        CallError: a file is missing or malformed, or its labels are not the published ones.
    """
    seen: dict[str, tuple[str, set[str]]] = {}  # per img_id, for the same picture must show the same labels
    parts = []
    for config in spec.configs:
        ids: set[str] = set()
        for split in config.splits:
            path = folder / _labels_csv(split)
            rows = _read_label_file(path, split)
            for line, row in enumerate(rows, 2):
                shown = (row.clip_id, set(_emotions(row.label, split.label_names)))
                if row.img_id in ids:
                    raise CallError(f"{path}, line {line}: {row.img_id} is in {config.name} twice.")
                if seen.setdefault(row.img_id, shown) != shown:
                    raise CallError(
                        f"{path}, line {line}: {row.img_id} has another clip or other labels than in an "
                        "earlier file. The files do not belong together: take all from one place."
                    )
                ids.add(row.img_id)
            parts.append(Part(split, rows))
    return parts


def _read_label_file(path: Path, split: Split) -> list[Row]:
    header = ["img_id", "clip_id", *split.label_names]
    rows = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file, strict=True)
            if next(lines, None) != header:
                raise CallError(f"{path}: the first line is not {','.join(header)}.")
            for fields in lines:
                if len(fields) != len(header) or not all(fields[:2]) or not {"0", "1"}.issuperset(fields[2:]):
                    raise CallError(
                        f"{path}, line {lines.line_num}: expected an img_id, a clip_id and "
                        f"{len(split.label_names)} labels of 0 or 1."
                    )
                rows.append(Row(fields[0], fields[1], bytes(map(int, fields[2:]))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CallError(
            f"{path}: cannot be read: {error}. Give the folder that holds all of the authors' label files."
        ) from error
    published = split.published.labels_sha256
    if published is not None and _labels_sha256(rows) != published:
        raise CallError(
            f"{path}: its {len(rows)} rows of labels are not the {split.published.records} published ones "
            "(their SHA-256 differs). Take the file from the authors' repository again."
        )
    return rows


def _invent(
    config: Config, sizes: list[list[int]], label_counts: list[list[int]], series: int, seed: int
) -> list[Part]:
    """Rows with invented ids for each split of a config; clips go across splits, as KFER's do."""
    chance = random.Random(f"rows {seed} {config.name}")
    ids = iter(_invent_ids(sum(map(len, sizes)), series, chance))
    parts = []
    for split, split_sizes, counts in zip(config.splits, sizes, label_counts, strict=True):
        matrix = deal(split_sizes, counts, chance)
        parts.append(Part(split, [Row(*next(ids), _vector(row, len(counts))) for row in matrix]))
    return parts


def _invent_ids(number: int, series: int, chance: random.Random) -> list[tuple[str, str]]:
    """Ids of the form of KFER's: ``07_0000123_00002.jpg`` is a picture of the clip ``07_0000123``."""
    ids: list[tuple[str, str]] = []
    for clip in range(1, number + 1):
        clip_id = f"{series:02}_{clip:07}"
        ids += ((f"{clip_id}_{frame:05}.jpg", clip_id) for frame in range(1, chance.randint(4, 16) + 1))
        if len(ids) >= number:
            break
    del ids[number:]
    chance.shuffle(ids)
    return ids


def deal(sizes: Sequence[int], counts: Sequence[int], chance: random.Random) -> list[list[int]]:
    """Rows of these sizes, in random order. Label j occurs ``counts[j]`` times, and in no row twice."""
    left = list(counts)
    rows = []
    # Always taking the labels of which most are left succeeds whenever it is possible at all (Gale-Ryser).
    for size in sorted(sizes, reverse=True):
        row = heapq.nlargest(size, range(len(left)), key=left.__getitem__)
        for label in row:
            left[label] -= 1
        rows.append(row)
    if any(left):
        raise ValueError("no rows have these sizes and these counts of labels")
    # But it pairs the same few labels. Exchanges between two rows mix them, and change no count.
    several = sum(size > 1 for size in sizes)
    for _ in range(8 * several):
        one, other = rows[chance.randrange(several)], rows[chance.randrange(len(rows))]
        mine, theirs = chance.randrange(len(one)), chance.randrange(len(other))
        if one[mine] not in other and other[theirs] not in one:
            one[mine], other[theirs] = other[theirs], one[mine]
    chance.shuffle(rows)
    return rows


def _apportion(total: int, weights: Sequence[int], at_least: int = 0) -> list[int]:
    """``total`` divided in proportion to the weights, by largest remainder."""
    whole = sum(weights)
    shares = [max(at_least, total * weight // whole) for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: total * weights[i] % whole, reverse=True)
    for position in by_remainder[: max(0, total - sum(shares))]:
        shares[position] += 1
    for _ in range(sum(shares) - total):  # what the minimum took too much
        shares[shares.index(max(shares))] -= 1
    return shares


def _cover(tables: list[list[int]]) -> None:
    """Make every column occur in one of the tables, while a column is left that can spare one.

    One is moved within a table, so that its sum stays.
    """
    totals = [sum(column) for column in zip(*tables, strict=True)]
    for missing in [column for column, total in enumerate(totals) if not total]:
        spare = totals.index(max(totals))
        if totals[spare] < 2:
            return
        table = max(tables, key=itemgetter(spare))
        for column, change in ((spare, -1), (missing, 1)):
            table[column] += change
            totals[column] += change


def _sizes(labels_per_image: Mapping[int, int]) -> list[int]:
    return list(Counter(labels_per_image).elements())


def _scale(spec: DatasetSpec) -> list[int]:
    return [split.published.records or 0 for split in spec.splits()]


def _vector(labels: Sequence[int], length: int) -> bytes:
    vector = bytearray(length)
    for label in labels:
        vector[label] = 1
    return bytes(vector)


def _emotions(label: bytes, names: Sequence[str]) -> list[str]:
    return [name for name, value in zip(names, label, strict=True) if value]


def _labels_sha256(rows: Sequence[Row]) -> str:
    return hashlib.sha256(b"".join(row.label for row in rows)).hexdigest()


def _labels_csv(split: Split) -> str:
    return split.labels_csv or f"label_{split.config}_{split.name}.csv"


# --- The files -----------------------------------------------------------------------------------------


def _refuse_used(folder: Path) -> None:
    try:
        used = next(folder.iterdir(), None) is not None
    except FileNotFoundError:
        used = False
    except OSError as error:
        raise CallError(f"{folder}: cannot be used for the sample: {error}. Choose a new folder.") from error
    if used:
        raise CallError(f"{folder} is not empty. Choose a new folder for the sample, or delete this one.")


def _write_records(
    folder: Path,
    parts: Sequence[Part],
    features: Features,
    seed: int,
    workers: int,
    progress: Callable[[int], None],
) -> list[Path]:
    chunks = [
        [
            _Chunk(part.rows[start : start + _CHUNK_RECORDS], part.split.label_names, features, seed)
            for start in range(0, len(part.rows), _CHUNK_RECORDS)
        ]
        for part in parts
    ]
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with closing(_drawn([chunk for of_part in chunks for chunk in of_part], workers)) as drawn:
        for part, of_part in zip(parts, chunks, strict=True):
            path = folder / part.split.file
            index = None if part.split.index is None else folder / part.split.index
            with TFRecordWriter(path, index) as writer:
                for examples in islice(drawn, len(of_part)):
                    for example in examples:
                        writer.write(example)
                    progress(len(examples))
            files += [path] if index is None else [path, index]
    return files


def _drawn(chunks: Sequence[_Chunk], workers: int) -> Generator[list[bytes], None, None]:
    """The chunks' examples, in order. A few chunks are in flight, never all: they would fill the memory."""
    if workers == 1:
        yield from map(_draw, chunks)
        return
    with ProcessPoolExecutor(min(workers, len(chunks))) as pool:
        waiting: deque[Future[list[bytes]]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(_draw, chunk))
            if len(waiting) > _CHUNKS_IN_FLIGHT * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _draw(chunk: _Chunk) -> list[bytes]:
    """A serialised ``tf.train.Example`` for each row; runs in a worker."""
    names = chunk.features
    return [
        encode_example(
            {
                names.height: [SIZE],
                names.width: [SIZE],
                names.depth: [3],
                names.label: list(row.label),
                names.image: draw_face(
                    f"{chunk.seed} {row.clip_id}",
                    f"{chunk.seed} {row.img_id}",
                    _emotions(row.label, chunk.label_names),
                ),
            }
        )
        for row in chunk.rows
    ]


def _write_label_files(folder: Path, parts: Sequence[Part]) -> list[Path]:
    (folder / LABELS_FOLDER).mkdir()
    files = []
    for split, rows in parts:
        path = folder / LABELS_FOLDER / _labels_csv(split)
        with path.open("x", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["img_id", "clip_id", *split.label_names])
            writer.writerows([row.img_id, row.clip_id, *row.label] for row in rows)
        files.append(path)
    return files


def _write_description(folder: Path, spec: DatasetSpec, parts: Sequence[Part], *, authors_rows: bool) -> Path:
    path = folder / DESCRIPTION_FILE
    document = _describe(spec, parts, authors_rows=authors_rows)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")
    return path


def _describe(spec: DatasetSpec, parts: Sequence[Part], *, authors_rows: bool) -> dict[str, Any]:
    return {
        "name": f"{spec.name}-sample",
        "features": {
            part: getattr(spec.features, part) for part in ("image", "label", "height", "width", "depth")
        },
        "about": {
            "title": f"Synthetic sample of the shape of {spec.name.upper()}",
            "description": _DESCRIPTION,
            "tags": ["synthetic", "faces", "emotion"],
            "annotations_creators": ["other" if authors_rows else "machine-generated"],
            "licence": {
                "name": "cc0-1.0-pictures-only" if authors_rows else "cc0-1.0",
                "text": f"{_LICENCE} {_AUTHORS_ROWS}" if authors_rows else _LICENCE,
                "link": "https://creativecommons.org/publicdomain/zero/1.0/",
            },
            "personal_data": False,
        },
        "configs": {
            config.name: {
                "kind": config.kind,
                "label_names": list(config.label_names),
                "splits": {
                    split.name: _describe_split(split, rows)
                    for split, rows in parts
                    if split.config == config.name
                },
            }
            for config in spec.configs
        },
    }


def _describe_split(split: Split, rows: Sequence[Row]) -> dict[str, Any]:
    """What is published with a split, computed from its rows."""
    columns = zip(*(row.label for row in rows), strict=True)
    per_image = Counter(sum(row.label) for row in rows)
    return {
        "file": split.file,
        "index": split.index,
        "labels_csv": _labels_csv(split),
        "records": len(rows),
        "label_counts": dict(zip(split.label_names, map(sum, columns), strict=True)),
        "labels_per_image": {str(number): per_image[number] for number in sorted(per_image)},
        "distinct_label_sets": len({row.label for row in rows}),
        "labels_sha256": _labels_sha256(rows),
        "clips": len({row.clip_id for row in rows}),
    }


def _no_progress(_records: int) -> None:
    pass
