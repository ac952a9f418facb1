"""Which images are shown: drawn at random, a few of each label and split, and a few of each pair of labels."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import numpy as np

from converters.verify.survey import Place, record_labels

if TYPE_CHECKING:
    import pyarrow as pa

    from converters.dataset.description import Split

MAX_PICTURES = 2000
MAX_VALUES = 200
"""Labels without names that have more different values than this are texts, and no classes."""

_PER_PAIR = 1
_MAX_PAIRS = 5000  # of one config


class Group(NamedTuple):
    """Images of one config that are drawn together: of a label and a split, or of a pair of labels.

    ``title`` is that of the split; of a pair it is empty. Without labels, a group has all images of the split.
    """

    config: str
    title: str
    labels: tuple[str, ...]


@dataclass
class Draw:
    """Sees every batch once, and keeps for each group the records whose random numbers are the lowest.

    Attributes:
        seed: another seed draws others.
        number: how many images of each label, spread over the splits.
        splits: how many splits each config has.
    """

    seed: int
    number: int
    splits: Counter[str]
    _lowest: dict[Group, list[tuple[float, int, str]]] = field(default_factory=lambda: defaultdict(list))
    _labels: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _pairs: Counter[str] = field(default_factory=Counter)
    _texts: set[str] = field(default_factory=set)
    _random: dict[str, np.random.Generator] = field(default_factory=dict)

    def watch(self, split: Split, first: int, batch: pa.RecordBatch) -> None:
        """Take the next records of a split."""
        if split.schema.image is None:
            return
        config, title, label = split.config, split.title, split.schema.label
        if title not in self._random:
            self._random[title] = np.random.default_rng([self.seed, crc32(title.encode())])
        numbers = self._random[title].random(len(batch)).tolist()
        labels = [()] * len(batch) if label is None else record_labels(label, batch.column(label.name))
        counts, share = self._labels[config], -(-self.number // self.splits[config])
        for row, (number, found) in enumerate(zip(numbers, labels, strict=True)):
            self._offer(Group(config, title, ()), number, title, first + row, 4 * share)
            if config in self._texts:
                continue
            counts.update(found)
            for name in found:
                self._offer(Group(config, title, (name,)), number, title, first + row, share)
            for pair in combinations(found, 2):
                self._offer(Group(config, "", pair), number, title, first + row, _PER_PAIR)
            if label is not None and not label.label_names and len(counts) > MAX_VALUES:
                self._texts.add(config)

    def _offer(self, group: Group, number: float, title: str, record: int, size: int) -> None:
        if len(group.labels) == 2 and group not in self._lowest:
            if self._pairs[group.config] >= _MAX_PAIRS:
                return
            self._pairs[group.config] += 1
        lowest = self._lowest[group]
        # Counted from another number for each set of labels, so that their groups do not all have the same records.
        entry = (-((number + _offset(group.labels)) % 1), record, title)
        if len(lowest) < size:
            heapq.heappush(lowest, entry)
        elif entry > lowest[0]:
            heapq.heapreplace(lowest, entry)

    def by_label(self, config: str) -> bool:
        """Whether the images of a config are drawn by label: there are labels, and they are classes."""
        return config not in self._texts and bool(self._labels[config])

    def chosen(self) -> dict[Place, Group]:
        """The records that are shown, and the group that each was drawn for: of several, that of the rarest label.

        Where they would be more than :data:`MAX_PICTURES`, all groups get equally many, as far as they have them.
        """
        drawn = {
            group: sorted(self._lowest[group], reverse=True)
            for group in sorted(self._lowest, key=self._rarity)
            if bool(group.labels) == self.by_label(group.config)
        }
        found: dict[Place, Group] = {}
        for turn in range(max(map(len, drawn.values()), default=0)):
            for group, entries in drawn.items():
                if turn < len(entries) and len(found) < MAX_PICTURES:
                    _, record, title = entries[turn]
                    found.setdefault((title, record), group)
        return found

    def _rarity(self, group: Group) -> tuple[int, int, Group]:
        """Pairs come last, rare labels first."""
        counts = self._labels[group.config]
        return len(group.labels), min((counts[name] for name in group.labels), default=0), group


@cache
def _offset(labels: tuple[str, ...]) -> float:
    return crc32("\n".join(labels).encode()) / 2**32
