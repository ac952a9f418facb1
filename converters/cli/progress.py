"""Progress on standard error: a bar for people, events for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Advance = Callable[[str, int], None]
"""Called with what was done to records ("read", "verified") and to how many."""


@contextmanager
def report_progress(*, quiet: bool, as_json: bool, total: int | None = None) -> Iterator[Advance | None]:
    """A progress callback: on a terminal a bar over records, with ``as_json`` a JSON object a line.

    Every record passes twice, once read and once read back; the bar shows it done when it was read back.
    """
    if as_json and not quiet:
        events = _Events(total)
        yield events.advance
        events.print()
    elif quiet or not sys.stderr.isatty():
        yield None
    else:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread of its own: workers are forked where there is none
        with tqdm(total=total, unit=" records", unit_scale=True, leave=False) as bar:

            def advance(stage: str, count: int) -> None:
                bar.set_description(stage, refresh=False)
                bar.update(count if stage == "verified" or total is None else 0)

            yield advance


class _Events:
    """Prints how many records are done, at most once a second."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._counts: dict[str, int] = {}
        self._started = self._printed = time.monotonic()

    def advance(self, stage: str, count: int) -> None:
        self._counts[stage] = self._counts.get(stage, 0) + count
        if time.monotonic() - self._printed >= 1:
            self.print()

    def print(self) -> None:
        self._printed = time.monotonic()
        seconds = round(self._printed - self._started, 3)
        event = {"event": "progress", **self._counts, "total": self._total, "seconds": seconds}
        click.echo(json.dumps(event), err=True)
