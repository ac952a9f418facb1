"""The rows of the synthetic dataset: ids and labels, invented in KFER's proportions or taken from its CSVs."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from converters.dataset.description import Config, Description, Split
from converters.dataset.fingerprint import identity_digest, tree_root
from converters.dataset.label_csv import read_label_csv
from converters.errors import DataError, Location

_FIRST_SERIES = 7  # KFER's ids start with 03, 06, 12, 16 or 22: no invented id is one of KFER's


class Row(NamedTuple):
    """A record without its picture. ``label`` has one byte per label, 0 or 1."""

    img_id: str
    clip_id: str
    label: bytes


class Part(NamedTuple):
    """The rows of one split."""

    split: Split
    rows: list[Row]


def full_rows(description: Description, seed: int) -> list[Part]:
    """Invented rows with exactly the published records, label counts and labels per image of each split."""
    parts = []
    for series, config in enumerate(description.configs, _FIRST_SERIES):
        label_counts = [list(split.published.label_counts or ()) for split in config.splits]
        sizes = [_sizes(split.published.labels_per_image or {}) for split in config.splits]
        parts += _invent(config, sizes, label_counts, series, seed)
    return parts


def small_rows(description: Description, records: int, seed: int) -> list[Part]:
    """Invented rows, so many over all splits, proportional to the published counts.

    Every label of a config occurs in one of its splits at least, even a label that KFER never uses, and so
    does every number of labels per image: as far as there are rows enough.
    """
    per_split = iter(_apportion(records, published_records(description), at_least=1))
    parts = []
    for series, config in enumerate(description.configs, _FIRST_SERIES):
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


def read_label_files(folder: Path, description: Description) -> list[Part]:
    """The rows of the authors' label files, in their order.

    Raises:
        DataError: a file is missing or malformed, or its rows are not the published ones.
    """
    parts = []
    for split in description.splits():
        path = folder / split.labels_csv
        texts, labels = read_label_csv(path, ("img_id", "clip_id"), split.label_names)
        img_ids, clip_ids = (texts[name].to_pylist() for name in ("img_id", "clip_id"))
        rows = list(map(Row, img_ids, clip_ids, (row.tobytes() for row in labels)))
        published = split.published
        if published.labels_sha256 not in (None, labels_sha256(rows)) or (
            published.identities_sha256 not in (None, identities_sha256(rows))
        ):
            raise DataError(
                f"its {len(rows)} rows are not the {published.records} published ones (their SHA-256 differs).",
                Location(str(path)),
                "Take the file from the authors' repository again.",
            )
        parts.append(Part(split, rows))
    return parts


def _invent(
    config: Config, sizes: list[list[int]], label_counts: list[list[int]], series: int, seed: int
) -> list[Part]:
    """Rows with invented ids for each split of a config; clips go across splits, as KFER's do."""
    chance = random.Random(f"rows {seed} {config.name}")
    ids = iter(_invent_ids(sum(map(len, sizes)), series, chance))
    parts = []
    for split, split_sizes, counts in zip(config.splits, sizes, label_counts, strict=True):
        matrix = deal(split_sizes, counts, chance)
        rows = [Row(*next(ids), bytes(label in row for label in range(len(counts)))) for row in matrix]
        parts.append(Part(split, rows))
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


def published_records(description: Description) -> list[int]:
    """The published number of records of each split."""
    return [split.published.records or 0 for split in description.splits()]


def emotions_of(label: bytes, names: Sequence[str]) -> list[str]:
    """The names of the labels that are set."""
    return [name for name, value in zip(names, label, strict=True) if value]


def labels_sha256(rows: Sequence[Row]) -> str:
    """SHA-256 of the label matrix, as it is published."""
    return hashlib.sha256(b"".join(row.label for row in rows)).hexdigest()


def identities_sha256(rows: Sequence[Row]) -> str:
    """SHA-256 of the ids of all rows, as it is published."""
    return tree_root((identity_digest(row.img_id, row.clip_id) for row in rows), b"")
