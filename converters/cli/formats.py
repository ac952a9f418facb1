"""``kfer-convert formats``: what can be written."""

from __future__ import annotations

import click

from converters.cli.options import JSON
from converters.cli.tables import show_json
from converters.formats import available_formats, describe_format


@click.command(params=[JSON])
def formats(*, as_json: bool) -> None:
    """List the formats that are installed."""
    lines = {name: describe_format(name) for name in available_formats()}
    if as_json:
        show_json(lines)
        return
    width = max(map(len, lines), default=0)
    for name, line in lines.items():
        click.echo(f"{name:{width}}  {line}")
