"""``kfer-convert inspect``: what is in a source, and whether it is as published."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from converters.cli import EXIT_FAILED
from converters.cli.options import JSON, LABELS, PLACE
from converters.cli.progress import report_progress
from converters.cli.tables import inspection_lines

if TYPE_CHECKING:
    from pathlib import Path

    from converters.storage.object_store import Place


@click.command(params=[click.Argument(["source"], type=PLACE, default="tfrecords"), LABELS, JSON])
def inspect(source: Place, *, labels: Path | None, as_json: bool) -> None:
    """Show what is in the folder SOURCE, and whether it is the published dataset."""
    from converters import api

    with report_progress(quiet=False, as_json=as_json) as progress:
        inspection = api.inspect(source, labels=labels, progress=progress)
    if as_json:
        click.echo(json.dumps(inspection.to_json(), indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(inspection_lines(inspection)))
    if inspection.failed:
        sys.exit(EXIT_FAILED)
