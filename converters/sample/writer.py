"""The synthetic dataset: KFER's shape, with drawn faces of nobody, for trying things out and for tests."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from converters.dataset.description import DESCRIPTION_FILE, FEATURES, Description, Split, kfer
from converters.engines.local import LocalEngine
from converters.errors import CallError, MachineError
from converters.formats.tfrecord.encoder import encode_example
from converters.formats.tfrecord.writer import TFRecordWriter
from converters.sample.faces import SIZE, draw_face
from converters.sample.rows import (
    Part,
    Row,
    emotions_of,
    full_rows,
    identities_sha256,
    labels_sha256,
    published_records,
    read_label_files,
    small_rows,
)

LABELS_FOLDER = "labels"

_SMALL_SHARE = 100  # the small sample has one record for so many of KFER's
_CHUNK_RECORDS = 250  # drawn at once by one worker
_POOL_PAYS_FROM = 2_000  # records; below, starting processes takes longer than drawing

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
    description = kfer()
    splits = description.splits()
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
        parts = read_label_files(labels, description)
    elif full:
        parts = full_rows(description, seed)
    else:
        parts = small_rows(description, records or sum(published_records(description)) // _SMALL_SHARE, seed)
    number = sum(len(part.rows) for part in parts)
    if workers is None:
        workers = 1 if number < _POOL_PAYS_FROM else os.cpu_count() or 1
    try:
        files = _write_records(folder, parts, seed, workers, progress or (lambda _: None))
        if labels is None:
            files += _write_label_files(folder, parts)
        files.append(folder / DESCRIPTION_FILE)
        document = _describe(description, parts, authors_rows=labels is not None)
        files[-1].write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")
        size = sum(file.stat().st_size for file in files)
    except OSError as error:
        raise CallError(
            f"{folder}: the sample cannot be written: {error}. Choose a folder with enough room that you may "
            "write to; what is in this one is not finished, delete it."
        ) from error
    except MachineError as error:
        raise CallError(f"{folder}: the sample is not finished, delete it: {error}.") from error
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    return SampleSummary(folder, number, names, size)


def _refuse_used(folder: Path) -> None:
    try:
        used = next(folder.iterdir(), None) is not None
    except FileNotFoundError:
        used = False
    except OSError as error:
        raise CallError(f"{folder}: cannot be used for the sample: {error}. Choose a new folder.") from error
    if used:
        raise CallError(f"{folder} is not empty. Choose a new folder for the sample, or delete this one.")


class _Chunk(NamedTuple):
    """Rows that are drawn at once."""

    label_names: Sequence[str]
    seed: int
    rows: Sequence[Row]

    @property
    def source_bytes(self) -> int:
        """What the engine takes for its size."""
        return len(self.rows)


def _write_records(
    folder: Path, parts: Sequence[Part], seed: int, workers: int, progress: Callable[[int], None]
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    chunks = [
        [
            _Chunk(split.label_names, seed, rows[start : start + _CHUNK_RECORDS])
            for start in range(0, len(rows), _CHUNK_RECORDS)
        ]
        for split, rows in parts
    ]
    engine: Any = LocalEngine(workers)  # of a shard it asks for nothing but the size
    # Drawing takes a hundred times as long as writing, so what is drawn does not pile up.
    with closing(engine.run(_draw, list(chain.from_iterable(chunks)))) as drawn:
        for (split, _), own in zip(parts, chunks, strict=True):
            path = folder / split.file
            index = None if split.index is None else folder / split.index
            with TFRecordWriter(path, index) as writer:
                for examples in islice(drawn, len(own)):
                    for example in examples:
                        writer.write(example)
                    progress(len(examples))
            files += [path] if index is None else [path, index]
    return files


def _draw(chunk: _Chunk, _progress: object) -> list[bytes]:
    """A serialised ``tf.train.Example`` for each row; runs in a worker."""
    examples = []
    for row in chunk.rows:
        emotions = emotions_of(row.label, chunk.label_names)
        features = {
            FEATURES["height"]: [SIZE],
            FEATURES["width"]: [SIZE],
            FEATURES["depth"]: [3],
            FEATURES["label"]: list(row.label),
            FEATURES["image"]: draw_face(
                f"{chunk.seed} {row.clip_id}", f"{chunk.seed} {row.img_id}", emotions
            ),
        }
        examples.append(encode_example(features))
    return examples


def _write_label_files(folder: Path, parts: Sequence[Part]) -> list[Path]:
    (folder / LABELS_FOLDER).mkdir()
    files = []
    for split, rows in parts:
        path = folder / LABELS_FOLDER / split.labels_csv
        with path.open("x", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["img_id", "clip_id", *split.label_names])
            writer.writerows([row.img_id, row.clip_id, *row.label] for row in rows)
        files.append(path)
    return files


def _describe(description: Description, parts: Sequence[Part], *, authors_rows: bool) -> dict[str, Any]:
    return {
        "name": f"{description.name}-sample",
        "about": {
            "title": f"Synthetic sample of the shape of {description.name.upper()}",
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
                "kind": config.splits[0].kind,
                "label_names": list(config.splits[0].label_names),
                "splits": {
                    split.name: _describe_split(split, rows)
                    for split, rows in parts
                    if split.config == config.name
                },
            }
            for config in description.configs
        },
    }


def _describe_split(split: Split, rows: Sequence[Row]) -> dict[str, Any]:
    """What is published with a split, computed from its rows."""
    columns = zip(*(row.label for row in rows), strict=True)
    per_image = Counter(sum(row.label) for row in rows)
    return {
        "file": split.file,
        "index": split.index,
        "labels_csv": split.labels_csv,
        "records": len(rows),
        "label_counts": dict(zip(split.label_names, map(sum, columns), strict=True)),
        "labels_per_image": {str(number): per_image[number] for number in sorted(per_image)},
        "distinct_label_sets": len({row.label for row in rows}),
        "labels_sha256": labels_sha256(rows),
        "clips": len({row.clip_id for row in rows}),
        "identities_sha256": identities_sha256(rows),
    }
