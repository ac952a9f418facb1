"""A plan: the shards of all splits of a source, in order."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from converters.dataset.description import Split
from converters.dataset.shard import Shard
from converters.storage.lazy import MadeSequence

# As `datasets`: a shard's output is about as large as its part of the source.
MAX_SHARD_BYTES = 500_000_000


class SplitPlan(Protocol):
    """How one split is cut; its source makes it."""

    @property
    def split(self) -> Split:
        """The split."""
        ...

    @property
    def count(self) -> int:
        """Number of shards."""
        ...

    def shard(self, index: int) -> Shard:
        """Shard ``index`` of the split."""
        ...


class Plan(MadeSequence[Shard]):
    """The shards of all splits, in order. There may be many, so each is only made when it is asked for."""

    def __init__(self, splits: Sequence[SplitPlan]) -> None:
        self.splits = tuple(splits)
        self._by_title = {plan.split.title: plan for plan in self.splits}

    def __len__(self) -> int:
        return sum(plan.count for plan in self.splits)

    def make(self, number: int) -> Shard:
        """Shard ``number`` of all."""
        for plan in self.splits:
            if number < plan.count:
                return plan.shard(number)
            number -= plan.count
        raise IndexError(number)

    def __iter__(self) -> Iterator[Shard]:
        for plan in self.splits:
            yield from map(plan.shard, range(plan.count))

    def find(self, key: str) -> Shard | None:
        """The shard that has this :attr:`~converters.dataset.shard.Shard.key`; None where none has."""
        config, _, name = key.partition("/")
        head, _, _ = name.rpartition("-of-")
        split, _, index = head.rpartition("-")
        plan = self._by_title.get(f"{config}/{split}")
        if plan is None or not (index.isascii() and index.isdigit()) or int(index) >= plan.count:
            return None
        shard = plan.shard(int(index))
        return shard if shard.key == key else None

    def of(self, split: Split) -> Iterator[Shard]:
        """The shards of one split."""
        plan = self._by_title[split.title]
        return map(plan.shard, range(plan.count))

    def without(self, keys: Collection[str]) -> Sequence[Shard]:
        """The shards but those of these keys, in order."""
        numbers = (number for number, shard in enumerate(self) if shard.key not in keys)
        return _Chosen(self, array("q", numbers if keys else range(len(self))))


class _Chosen(MadeSequence[Shard]):
    """Some shards of a plan, by their numbers."""

    def __init__(self, plan: Plan, numbers: array[int]) -> None:
        self._plan = plan
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def make(self, number: int) -> Shard:
        """Shard ``number`` of those chosen."""
        return self._plan[self._numbers[number]]
