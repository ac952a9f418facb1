"""What is installed: formats and engines of any package, under entry-point groups, and the extras of this one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from converters.errors import CallError, ConverterError


def registered(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name, sorted; none of them is imported."""
    return dict(_installed(group, tuple(sys.path)))


@cache
def _installed(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Those found on the import path; finding them means reading a file of every package that is installed."""
    return {entry.name: entry for entry in sorted(entry_points(group=group))}


def load(group: str, kind: str, name: str) -> Any:  # noqa: ANN401  # a class, or an object
    """What is registered as ``name``; ``kind`` is what the group has, in a word.

    Raises:
        CallError: nothing of this name is installed, or it cannot be imported.
    """
    entries = registered(group)
    if name not in entries:
        raise CallError(f"no {kind} {name!r} is installed; there are {', '.join(entries)}.")
    try:
        return entries[name].load()
    except ConverterError:
        raise
    except Exception as error:  # anything may be wrong with somebody else's module
        raise CallError(
            f"the {kind} {name!r} cannot be loaded: {type(error).__name__}: {error}. Is all it needs installed?"
        ) from error


def construct(kind: str, name: str, target: Any, options: Mapping[str, object]) -> Any:  # noqa: ANN401  # see load
    """The object that a class makes with its options.

    Raises:
        CallError: it does not take these options.
    """
    try:
        return target(**options)
    except TypeError as error:
        wanted = ", ".join(f"--{option.replace('_', '-')}" for option in options)
        raise CallError(f"the {kind} {name!r} does not take {wanted or 'no options'}: {error}.") from error


def import_extra(extra: str, what: str, module: str) -> Any:  # noqa: ANN401  # a module
    """A module that the extra ``extra`` brings, and ``what`` needs.

    Raises:
        CallError: it cannot be imported. The text says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CallError(
            f"{what} need {module.partition('.')[0]}, which cannot be imported: pip install 'kfer-convert[{extra}]'."
        ) from error


def require_extra(extra: str, what: str, *modules: str) -> None:
    """Check that the ``modules`` that ``what`` needs are installed; imports none of them.

    Raises:
        CallError: one is missing. The text says how to install the extra that brings it.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise CallError(
            f"{what} needs {', '.join(missing)}, which is not installed: pip install 'kfer-convert[{extra}]'."
        )
