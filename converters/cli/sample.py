"""``kfer-convert sample``: a synthetic dataset to try everything on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from converters.cli.options import FOLDER, JSON, QUIET, WORKERS, flag, option
from converters.cli.progress import report_progress
from converters.cli.tables import show_json

_ROWS = "With --full: take the label rows from the authors' CSVs in DIR."

PARAMS = (
    click.Argument(["folder"], metavar="DIR", type=FOLDER),
    option("--records", type=click.IntRange(1), help="Number of records over all files."),
    flag("--full", help="As many records as KFER has, with its published counts."),
    option("--labels", type=FOLDER, metavar="DIR", help=_ROWS),
    option("--seed", type=int, default=0, show_default=True, help="Another seed draws other faces."),
    WORKERS,
    QUIET,
    JSON,
)


@click.command(params=[*PARAMS])
def sample(folder: Path, *, quiet: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401  # of make_sample
    """Write a synthetic dataset of KFER's shape to DIR.

    It has drawn faces of nobody.
    """
    from converters.sample.writer import make_sample

    with report_progress(quiet=quiet, as_json=as_json) as progress:
        summary = make_sample(
            folder, progress=lambda count: progress("read", count) if progress else None, **options
        )
    if as_json:
        show_json(asdict(summary) | {"folder": str(folder)})
    elif not quiet:
        click.echo(
            f"{summary.records:,} records in {len(summary.files)} files, {summary.bytes:,} bytes: {folder}"
        )
