"""``kfer-convert inspect``: what is in a source or an output, of which shape, and whether it is as published."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli import EXIT_FAILED
from converters.cli.options import FOLDER, JSON, LABELS, PLACE, option
from converters.cli.progress import report_progress
from converters.cli.tables import inspection_lines, show_json
from converters.errors import CallError

if TYPE_CHECKING:
    from converters.storage.object_store import Place

_DESCRIBE = (
    "Also write the description to FILE, complete with all columns, to be edited (see `docs description`)."
)

PARAMS = (
    click.Argument(["source"], type=PLACE, default="tfrecords"),
    LABELS,
    option("--describe", type=FOLDER, metavar="FILE", help=_DESCRIBE),
    JSON,
)


@click.command(params=[*PARAMS])
def inspect(source: Place, *, labels: Path | None, describe: Path | None, as_json: bool) -> None:
    """Show what is in SOURCE, and whether it is as published.

    SOURCE is TFRecords or an output; shown are its columns, labels and images.
    """
    from converters import api
    from converters.storage.files import write_whole

    if describe is not None and (describe.exists() or not describe.parent.is_dir()):
        problem = "exists already" if describe.exists() else "there is no such folder"
        raise CallError(f"{describe}: {problem}. --describe writes a new file.")
    with report_progress(quiet=False, as_json=as_json) as progress:
        inspection = api.inspect(source, labels=labels, progress=progress)
    if describe is not None:
        text = json.dumps(inspection.document, indent=1, ensure_ascii=False) + "\n"
        write_whole(describe, text)
    if as_json:
        show_json(inspection.to_json())
    else:
        click.echo("\n".join(inspection_lines(inspection)))
    if inspection.failed:
        sys.exit(EXIT_FAILED)
