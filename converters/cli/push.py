"""``kfer-convert push``: a verified output onto the Hugging Face Hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converters.cli.options import FOLDER, JSON, QUIET, UPLOAD
from converters.cli.progress import report_progress
from converters.cli.tables import push_lines, pushed_lines, show_json

if TYPE_CHECKING:
    from converters.hub import Destination


PARAMS = (click.Argument(["out"], type=FOLDER), click.Argument(["repo"], metavar="NAMESPACE/NAME"), *UPLOAD)


@click.command(params=[*PARAMS, QUIET, JSON])
def push(
    out: Path,
    repo: str,
    *,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
    as_json: bool,
    **upload: Any,  # noqa: ANN401  # the others of UPLOAD
) -> None:
    """Upload an hf output, OUT, to the Hugging Face Hub.

    OUT is verified first; the repo is made private and gated before any data is sent, and all of it is downloaded
    and compared afterwards. The token comes from HF_TOKEN or the login cache, the Hub's address from HF_ENDPOINT.
    """
    from converters.hub import Destination

    destination = Destination.configured(repo, **upload)
    show_push(out, destination, dry_run=dry_run, verbose=verbose, quiet=quiet, as_json=as_json)


def show_push(
    out: Path,
    destination: Destination,
    *,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
    as_json: bool,
    facts: dict[str, Any] | None = None,
) -> None:
    """Push an output, and show what is done; ``facts`` go into the JSON object too."""
    from converters.hub import push

    silent = quiet or as_json
    try:
        with (
            _hub_log(verbose=verbose, quiet=quiet),
            report_progress(quiet=silent, as_json=False) as progress,  # it turns the uploads' bars on
        ):
            report = push(
                out,
                destination,
                dry_run=dry_run,
                announce=None if silent else lambda intent: click.echo("\n".join(push_lines(intent, out))),
                progress=progress,
            )
    except KeyboardInterrupt as stop:
        stop.add_note(
            "interrupted; what was uploaded stays on the Hub, and the same command goes on from there."
        )
        raise
    if as_json:
        show_json(report.to_json() | (facts or {}))
    elif not quiet:
        click.echo("\n".join(pushed_lines(report)))


@contextmanager
def _hub_log(*, verbose: bool, quiet: bool) -> Iterator[None]:
    """What the hub's part logs, on standard error: waits, and with ``verbose`` every request."""
    logger = logging.getLogger("converters.hub")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("kfer-convert: %(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
