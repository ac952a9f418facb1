"""``kfer-convert verify``: an output against its manifest and against its source."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from converters.cli import EXIT_FAILED
from converters.cli.options import JSON, PLACE, QUIET, WORKERS, choice, option, ray_options
from converters.cli.progress import report_progress
from converters.cli.tables import show_report
from converters.engines import available_engines

if TYPE_CHECKING:
    from converters.storage.object_store import Place

_SHOWN = 20

_READERS = ("native", "tensorflow", "datasets")
_WHO_READS = (
    "Who gives a second opinion: TensorFlow on the TFRecords, or datasets on OUT (each an extra to install)."
)
_SOURCE = "Also prove it against the source: TFRecords, or another output."
_SAMPLE = "Read only N shards, drawn at random; the others are unverified."

PARAMS = (
    click.Argument(["out"], type=PLACE),
    option("--source", type=PLACE, help=_SOURCE),
    option("--sample", type=click.IntRange(1), metavar="N", help=_SAMPLE),
    WORKERS,
    choice("--engine", values=available_engines(), default="local", help="Where the work runs."),
    choice("--reader", values=_READERS, default="native", help=_WHO_READS),
)


@click.command(params=[*PARAMS, QUIET, JSON])
def verify(out: Place, *, quiet: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401  # of the API
    """Prove an output, OUT, again.

    It is held against its manifest and, with --source, against what it was made from.
    """
    from converters import api

    with report_progress(quiet=quiet, as_json=as_json) as progress:
        report = api.verify(out, progress=progress, engine_options=ray_options(options["engine"]), **options)
    show_report(report, quiet=quiet, as_json=as_json)
    failures = report.failures()
    for failure in failures[:_SHOWN]:
        click.echo(f"kfer-convert: {out}: {failure}", err=True)
    if len(failures) > _SHOWN:
        click.echo(f"kfer-convert: {out}: and {len(failures) - _SHOWN} more", err=True)
    if shards := report.damaged_shards:
        more = f" and {len(shards) - _SHOWN} more" if len(shards) > _SHOWN else ""
        click.echo(
            f"Shards to make again: {', '.join(shards[:_SHOWN])}{more}. The command that made {out} does so with "
            "--repair.",
            err=True,
        )
    if failures:
        sys.exit(EXIT_FAILED)
    if not quiet and not as_json and any(len(split.checks) == 1 for split in report.splits):
        click.echo(f"\n{out}: what was read is verified; the rest was not read, as --sample has it")
    elif not quiet and not as_json:
        click.echo(f"\n{report.records:,} records, {len(report.files):,} files, verified: {out}")
