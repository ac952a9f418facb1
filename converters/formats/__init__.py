"""Formats: modules that can write one layout and read it back.

What cannot be read back cannot be verified, so it is no format. A format is registered through the entry-point
group ``kfer_convert.formats``, this package's own as much as anybody's::

    [project.entry-points."kfer_convert.formats"]
    name = "package.module:FormatClass"
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from converters.errors import CallError
from converters.plugins import construct, load, registered

if TYPE_CHECKING:
    import pyarrow as pa

    from converters.dataset.description import Split
    from converters.dataset.report import Report
    from converters.dataset.shard import Shard
    from converters.storage.hashing_reader import FileReader

GROUP = "kfer_convert.formats"


class Format(Protocol):
    """A layout that can be written and read back.

    ``name`` is what ``--to`` takes. The first line of the class's docstring is what ``kfer-convert formats``
    shows. Options are the keyword arguments of the constructor and are checked there, before any work.
    """

    name: str

    def write(
        self, batches: Iterable[pa.RecordBatch], shard: Shard, folder: Path
    ) -> Sequence[str | os.PathLike[str]]:
        """Write a shard's records below ``folder`` and return the files, all new; by their paths, or those below it.

        ``batches`` hold the columns of :mod:`converters.dataset.arrays`, in record order; every one has to be taken.
        The paths below ``folder`` must differ between shards: they are put together to one output.
        """
        ...

    def read(self, folder: Path, split: Split, first: int = 0) -> Iterator[pa.RecordBatch]:
        """Read back the records of ``split`` below ``folder``, in order, as batches of the same columns.

        ``folder`` is an output, or the folder that one shard was written to; then ``first`` is the index in the split
        of its first record.
        """
        ...


@runtime_checkable
class Finishes(Protocol):
    """What a format has in addition to :class:`Format` if files of its own describe the whole dataset."""

    def finish(self, report: Report, folder: Path) -> None:
        """Write the files that describe the whole dataset (a card, an index).

        Called once, when all shards are written and compared. ``folder`` is empty; what is written there goes into the
        output, beside the files of the shards, none of which it may replace.
        """
        ...


@runtime_checkable
class Summarizes(Protocol):
    """What a format has in addition to :class:`Finishes` if these files tell of what is in the shards.

    There may be more shards than one machine holds, so ``finish`` gets these summaries and need not read them.
    """

    def summarize(self, folder: Path, shard: Shard) -> Any:  # noqa: ANN401  # JSON
        """Something small about a shard that was written to ``folder``, as JSON: see ``SplitReport.summaries``."""
        ...


@runtime_checkable
class Joins(Protocol):
    """What a format has in addition to :class:`Format` if a file of the output is made of parts that shards write."""

    def joins(self, split: Split, shards: int) -> Mapping[str, Sequence[str]]:
        """The files of a split of so many shards that are parts of these, one after the other: the parts by the file.

        The shards write the parts, one each. The output has the file in their place, once all are compared.
        """
        ...


@runtime_checkable
class NamesFiles(Protocol):
    """What a format may have in addition to :class:`Format`. Then a shard's files can have no other names, nor more."""

    def places(self, shard: Shard) -> Sequence[str]:
        """The files that ``shard`` is written to, or folders that they are in, with a slash at the end."""
        ...


@runtime_checkable
class ReadsThrough(Protocol):
    """What a format may have in addition to :class:`Format`.

    Then each file is read back once for both its records and its digest; without it, files are read twice.
    """

    def read_through(
        self, files: FileReader, folder: Path, split: Split, first: int = 0
    ) -> Iterator[pa.RecordBatch]:
        """As ``read``; the files are read through ``files``, which knows their digests then, where it can."""
        ...


@runtime_checkable
class Refuses(Protocol):
    """What a format has in addition to :class:`Format` if there are datasets that it cannot hold."""

    def refuse(self, splits: Sequence[Split]) -> None:
        """Refuse what the layout cannot hold, by its names and columns. Called before anything is written.

        Raises:
            CallError: with the config, split or column, and what to do: rename it, or ``--without COLUMN``.
        """
        ...


def available_formats() -> dict[str, EntryPoint]:
    """The registered formats by name, sorted; none of them is imported."""
    return registered(GROUP)


def load_format(name: str, **options: object) -> Format:
    """The format called ``name``, with ``options`` for its constructor.

    Raises:
        CallError: no such format is installed, it cannot be imported, or it does not take these options.
    """
    return cast("Format", construct("format", name, load(GROUP, "format", name), options))


def options_of(formats: Sequence[str], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Which of the options that are set each format takes.

    Raises:
        CallError: none takes one of them.
    """
    chosen = {option: value for option, value in given.items() if value}
    taken = {name: _parameters(name) for name in formats}
    if lost := next(
        (option for option in chosen if not any(option in names for names in taken.values())), None
    ):
        raise CallError(f"the format {formats[0]!r} does not take --{lost.replace('_', '-')}.")
    return {
        name: {option: value for option, value in chosen.items() if option in taken[name]} for name in formats
    }


def _parameters(name: str) -> frozenset[str]:
    """The options that a format's constructor takes."""
    target = load(GROUP, "format", name)
    return (
        frozenset(signature(target).parameters)
        if isinstance(target, type) and "__init__" in vars(target)
        else frozenset()
    )


def describe_format(name: str) -> str:
    """One line about a format, for people; what is wrong with it where it cannot be loaded."""
    try:
        target = available_formats()[name].load()
    except Exception as error:  # noqa: BLE001  # a broken plug-in must not break the listing
        return f"cannot be loaded: {error}"
    return next(iter((target.__doc__ or "").strip().splitlines()), "")
