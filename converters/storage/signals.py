"""Ctrl-C and its like, held back where they would do harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_interrupts() -> Iterator[Sequence[int]]:
    """Only note the signals that interrupt a program, in the sequence that this gives, and raise the first at the end.

    Around the use of a thread pool: an exception that strikes within it may leave a lock of it taken, for which all
    would wait for ever. What runs inside must end soon when something is noted.
    """
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted  # signals do not come here
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    own = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in own:
        signal.signal(number, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)
        if noted:
            signal.raise_signal(noted[0])


def until(stop: Sequence[int], action: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """``action``, which raises KeyboardInterrupt instead of beginning once ``stop`` is no longer empty."""

    def attempt(item: Item) -> Result:
        if stop:
            raise KeyboardInterrupt
        return action(item)

    return attempt
