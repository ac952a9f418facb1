"""A plan: the shards of all splits of a source, in order."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

from converters.dataset.description import Split
from converters.dataset.shard import Shard

# As `datasets`: a shard's output is about as large as its part of the source.
MAX_SHARD_BYTES = 500_000_000


class Plan(tuple[Shard, ...]):
    """The shards of all splits, in order."""

    @cached_property
    def _by_key(self) -> dict[str, Shard]:
        return {shard.key: shard for shard in self}

    def find(self, key: str) -> Shard | None:
        """The shard that has this :attr:`~converters.dataset.shard.Shard.key`; None where none has."""
        return self._by_key.get(key)

    def of(self, split: Split) -> list[Shard]:
        """The shards of one split."""
        return [shard for shard in self if shard.split.title == split.title]

    def without(self, keys: Collection[str]) -> list[Shard]:
        """The shards but those of these keys, in order."""
        return [shard for shard in self if shard.key not in keys]
