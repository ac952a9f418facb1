"""How long things take, to tell at the end where the time went."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

Item = TypeVar("Item")


class Stopwatch:
    """Runs while its ``with`` blocks do; ``seconds`` is the sum."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = 0.0

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_error: object) -> None:
        self.seconds += time.perf_counter() - self._started

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; the watch runs while they are made."""
        iterator = iter(items)
        while True:
            with self:
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
