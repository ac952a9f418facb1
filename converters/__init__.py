"""kfer-convert: TFRecords, and any other layout it knows, to any of these layouts, with proof that nothing changed.

    from converters import convert
    report = convert("tfrecords", to="parquet", out="out")

The names below are imported when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.api import convert, inspect, push, verify
    from converters.dataset.description import Description, Split, load_description
    from converters.dataset.report import Check, CheckError, Report, SplitReport
    from converters.dataset.shard import Shard
    from converters.errors import CallError, ConverterError, DataError, Location
    from converters.formats import Format
    from converters.hub import PushReport
    from converters.sample.writer import SampleSummary, make_sample
    from converters.show.page import Page, show
    from converters.verify.source import Inspection

_HOMES = {
    "converters.api": ("convert", "inspect", "push", "verify"),
    "converters.errors": ("CallError", "ConverterError", "DataError", "Location"),
    "converters.formats": ("Format",),
    "converters.hub": ("PushReport",),
    "converters.show.page": ("Page", "show"),
    "converters.verify.source": ("Inspection",),
    "converters.dataset.report": ("Check", "CheckError", "Report", "SplitReport"),
    "converters.sample.writer": ("SampleSummary", "make_sample"),
    "converters.dataset.shard": ("Shard",),
    "converters.dataset.description": ("Description", "Split", "load_description"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CallError",
    "Check",
    "CheckError",
    "ConverterError",
    "DataError",
    "Description",
    "Format",
    "Inspection",
    "Location",
    "Page",
    "PushReport",
    "Report",
    "SampleSummary",
    "Shard",
    "Split",
    "SplitReport",
    "convert",
    "inspect",
    "load_description",
    "make_sample",
    "push",
    "show",
    "verify",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # any of the above
    if name == "__version__":
        return import_module("importlib.metadata").version("kfer-convert")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(ModuleType):
    """``converters.convert`` stays the function when the room of this name is imported; so do the others."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
