"""``kfer-convert docs``: the chapters of the manual."""

from __future__ import annotations

from importlib import resources

import click

_CHAPTERS = {
    file.name.removesuffix(".md"): file
    for file in sorted(resources.files("converters").joinpath("docs").iterdir(), key=lambda file: file.name)
    if file.name.endswith(".md")
}


@click.command(params=[click.Argument(["topic"], required=False, type=click.Choice(list(_CHAPTERS)))])
def docs(topic: str | None) -> None:
    """List the chapters of the manual, or show one, TOPIC."""
    if topic is not None:
        click.echo(_CHAPTERS[topic].read_text("utf-8"), nl=False)
        return
    width = max(map(len, _CHAPTERS))
    for name, file in _CHAPTERS.items():
        title = file.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        click.echo(f"{name:{width}}  {title}")
    click.echo("\nShow one: kfer-convert docs TOPIC")
