"""``kfer-convert show``: a source or an output for the eye, as one HTML file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converters.cli.options import FOLDER, JSON, LABELS, PLACE, QUIET, flag, option
from converters.cli.progress import report_progress

if TYPE_CHECKING:
    from converters.storage.object_store import Place

_PER_LABEL = "How many images of each label are shown, over all splits."
_NUMBER: Any = {"show_default": True}

PARAMS = (
    click.Argument(["source"], type=PLACE, default="tfrecords"),
    option("--out", type=FOLDER, metavar="PAGE.html", help="The file to write.  [default: ./NAME.html]"),
    LABELS,
    option("--per-label", type=click.IntRange(1), metavar="N", default=12, help=_PER_LABEL, **_NUMBER),
    option("--seed", type=click.IntRange(0), default=0, help="Another seed draws others.", **_NUMBER),
    option(
        "--images/--no-images", default=True, help="Whether there are images in the page.  [default: yes]"
    ),
    flag("--overwrite", help="Replace a page that is there."),
    QUIET,
    JSON,
)


@click.command(params=[*PARAMS])
def show(source: Place, *, out: Path | None, quiet: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401  # the API's
    """Write a page of pictures and plots of SOURCE.

    SOURCE is TFRecords or an output; the page is one HTML file that needs no network.
    """
    from converters.formats.sources import name_of
    from converters.show.page import show as make_page

    out = out or Path(f"{name_of(source)}.html")
    with report_progress(quiet=quiet, as_json=as_json) as progress:
        page = make_page(source, out=out, progress=progress, **options)
    size = len(page.html.encode())
    if as_json:
        click.echo(json.dumps({"page": str(out), "bytes": size}, ensure_ascii=False))
    elif not quiet:
        click.echo(f"{page.inspection.records:,} records: {out} ({size:,} bytes); open it in a browser.")
        if page.inspection.description.about.personal_data:
            click.echo("It shows people: keep it as you keep the dataset.")
