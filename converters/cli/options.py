"""Options that several commands take, and what their values become."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from converters.storage.object_store import Place


class PlaceType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A path, or the URL of a place in a store."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:  # noqa: ANN401
        """The place that a text names."""
        from converters.storage.object_store import place

        return place(value)


PLACE = PlaceType()
FOLDER = click.Path(path_type=Path)

JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object instead of a table.")
QUIET = click.Option(["--quiet", "-q"], is_flag=True, help="Print nothing but errors.")
READER = click.Option(
    ["--reader"],
    type=click.Choice(["native", "tensorflow"]),
    default="native",
    show_default=True,
    help="Who reads the TFRecords; tensorflow has TensorFlow confirm every record (an extra to install).",
)
WORKERS = click.Option(
    ["--workers"],
    type=click.IntRange(1),
    metavar="N",
    help="Number of processes.  [default: one per core, or one where little is to do]",
)

UPLOAD = (
    click.Option(
        ["--revision"], default="main", show_default=True, metavar="BRANCH", help="Branch to commit to."
    ),
    click.Option(["--commit-message"], metavar="TEXT", help="First line of the commits."),
    click.Option(["--create-pr"], is_flag=True, help="Open a pull request instead of committing to main."),
    click.Option(
        ["--private/--public", "private"],
        default=True,
        help="Who may see the repo.  [default: private; --public takes --i-have-the-right-to-publish too]",
    ),
    click.Option(
        ["--i-have-the-right-to-publish", "has_right"],
        is_flag=True,
        help="Needed, and only taken, with --public.",
    ),
    click.Option(
        ["--gated", "gating"],
        type=click.Choice(["manual", "auto", "no"]),
        default="manual",
        show_default=True,
        help="Who is let in: each asker once you approve, each asker, or all without asking.",
    ),
    click.Option(["--delete-extra"], is_flag=True, help="Delete files of the repo that the output has not."),
    click.Option(["--dry-run"], is_flag=True, help="Show what would be sent and where to; send nothing."),
    click.Option(["--verbose", "-v"], is_flag=True, help="Show every request to the Hub; never the token."),
)
"""The options of an upload, for ``push`` and ``--push-to-hub``."""
UPLOAD_NAMES = [str(option.name) for option in UPLOAD]
