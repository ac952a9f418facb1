"""kfer-convert: KFER, and other image datasets in TFRecords, to formats that everything reads, with proof.

    from converters import convert
    report = convert("tfrecords", to="parquet", out="out")

The names below are imported when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.api import convert, inspect, push, verify
    from converters.errors import CallError, CheckError, ConverterError, DataError, Location
    from converters.formats import Format
    from converters.hub import PushReport
    from converters.inspection import Inspection
    from converters.report import Check, Report, SplitReport
    from converters.sample import SampleSummary, make_sample
    from converters.shards import Shard
    from converters.spec import DatasetSpec, Split, load_spec

_HOMES = {
    "converters.api": ("convert", "inspect", "push", "verify"),
    "converters.errors": ("CallError", "CheckError", "ConverterError", "DataError", "Location"),
    "converters.formats": ("Format",),
    "converters.hub": ("PushReport",),
    "converters.inspection": ("Inspection",),
    "converters.report": ("Check", "Report", "SplitReport"),
    "converters.sample": ("SampleSummary", "make_sample"),
    "converters.shards": ("Shard",),
    "converters.spec": ("DatasetSpec", "Split", "load_spec"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CallError",
    "Check",
    "CheckError",
    "ConverterError",
    "DataError",
    "DatasetSpec",
    "Format",
    "Inspection",
    "Location",
    "PushReport",
    "Report",
    "SampleSummary",
    "Shard",
    "Split",
    "SplitReport",
    "convert",
    "inspect",
    "load_spec",
    "make_sample",
    "push",
    "verify",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # any of the above
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
