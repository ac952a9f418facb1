"""Options that several commands take, and what their values become."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from converters.storage.object_store import Place


def option(*names: str, help: str, **more: Any) -> click.Option:  # noqa: ANN401  # what click takes
    """An option that takes a value."""
    return click.Option(names, help=help, **more)


def flag(*names: str, help: str) -> click.Option:
    """An option that takes no value."""
    return click.Option(names, is_flag=True, help=help)


def choice(*names: str, values: Iterable[str], default: str, help: str) -> click.Option:
    """An option that takes one of a few values."""
    return click.Option(names, type=click.Choice(list(values)), default=default, show_default=True, help=help)


class PlaceType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A path, or the URL of a place in a store."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:  # noqa: ANN401
        """The place that a text names."""
        from converters.storage.object_store import place

        return place(value)


class LocalType(click.Path):
    """A path on this machine; the URL of a place in a store is refused, and not taken for the name of a folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """The path that a text names."""
        found = PLACE.convert(value, param, ctx)
        if not isinstance(found, Path):
            self.fail(f"{found} is in a store, and this must be on this machine.", param, ctx)
        return super().convert(found, param, ctx)


class FormatsType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Names of formats, in any case, separated by commas."""

    name = "formats"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The names as they are registered."""
        from converters.formats import available_formats

        known = {name.casefold(): name for name in available_formats()}
        names = []
        for name in value.split(","):
            if (found := known.get(name.strip().casefold())) is None:
                near = get_close_matches(name.strip().casefold(), known, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                self.fail(
                    f"there is no format {name!r}.{hint} There are {', '.join(known.values())}.", param, ctx
                )
            names.append(found)
        return tuple(names)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The formats that begin as what was typed does."""
        from converters.formats import available_formats

        before, comma, begun = incomplete.rpartition(",")
        names = (name for name in available_formats() if name.startswith(begun.casefold()))
        return [CompletionItem(f"{before}{comma}{name}") for name in names]


def ray_options(engine: str, address: str | None = None) -> dict[str, str]:
    """The options of an engine: of Ray its cluster, for which it looks as Ray itself does."""
    address = address or os.environ.get("RAY_ADDRESS") if engine == "ray" else None
    return {"address": address} if address else {}


PLACE = PlaceType()
FOLDER = LocalType(path_type=Path)

_LABELS = "Folder of the authors' label CSVs; recovers img_id and clip_id."
LABELS = option("--labels", type=FOLDER, metavar="DIR", help=_LABELS)
JSON = flag("--json", "as_json", help="Print one JSON object instead of a table.")
QUIET = flag("--quiet", "-q", help="Print nothing but errors.")
_WHO_READS = "Who reads the TFRecords; tensorflow has TensorFlow confirm every record (an extra to install)."
READER = choice("--reader", values=["native", "tensorflow"], default="native", help=_WHO_READS)
_ONE_PER_CORE = "Number of processes.  [default: one per core, or one where little is to do]"
WORKERS = option("--workers", type=click.IntRange(1), metavar="N", help=_ONE_PER_CORE)

_VISIBILITY = "Who may see the repo.  [default: private; --public takes --i-have-the-right-to-publish too]"
_GATING = "Who is let in: each asker once you approve, each asker, or all without asking."
UPLOAD = (
    option("--revision", default="main", show_default=True, metavar="BRANCH", help="Branch to commit to."),
    option("--commit-message", metavar="TEXT", help="First line of the commits."),
    flag("--create-pr", help="Open a pull request instead of committing to main."),
    option("--public/--private", default=False, help=_VISIBILITY),
    flag("--i-have-the-right-to-publish", "has_right", help="Needed, and only taken, with --public."),
    choice("--gated", "gating", values=["manual", "auto", "no"], default="manual", help=_GATING),
    flag("--delete-extra", help="Delete files of the repo that the output has not."),
    flag("--dry-run", help="Show what would be sent and where to; send nothing."),
    flag("--verbose", "-v", help="Show every request to the Hub; never the token."),
)
"""The options of an upload, for ``push`` and ``--push-to-hub``."""
UPLOAD_NAMES = [str(option.name) for option in UPLOAD]
