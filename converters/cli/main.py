"""The command line: arguments, progress, exit statuses. What is done, the library does."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from converters.cli.tables import inspection_lines, push_lines, report_lines, work_lines
from converters.dataset.report import CheckError
from converters.engines import available_engines
from converters.errors import OUT_OF_MEMORY, ConverterError
from converters.formats import available_formats, describe_format

if TYPE_CHECKING:
    from converters.dataset.report import Report
    from converters.hub import Destination

SAMPLE_FOLDER = "kfer-sample"
EXIT_FAILED = 1
EXIT_QUARANTINED = 3
EXIT_INTERRUPTED = 130

_LICENCE_NOTE = "The data keeps its licence: KFER is for non-commercial research only; do not pass it on."

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
_quiet = click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
_reader = click.option(
    "--reader",
    type=click.Choice(["native", "tensorflow"]),
    default="native",
    show_default=True,
    help="Who reads the TFRecords; tensorflow has TensorFlow confirm every record (an extra to install).",
)


class _PlaceType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A path, or the URL of a place in a store."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """See click."""
        from converters.storage.object_store import place

        return place(value) if isinstance(value, str) else value


_HUB_OPTIONS = (
    click.option(
        "--revision", default="main", show_default=True, metavar="BRANCH", help="Branch to commit to."
    ),
    click.option("--commit-message", metavar="TEXT", help="First line of the commits."),
    click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing to main."),
    click.option(
        "--private/--public",
        "private",
        default=True,
        help="Who may see the repo.  [default: private; --public takes --i-have-the-right-to-publish too]",
    ),
    click.option(
        "--i-have-the-right-to-publish",
        "has_right",
        is_flag=True,
        help="Needed, and only taken, with --public.",
    ),
    click.option(
        "--gated",
        "gating",
        type=click.Choice(["manual", "auto", "no"]),
        default="manual",
        show_default=True,
        help="Who is let in: each asker once you approve, each asker, or all without asking.",
    ),
    click.option("--delete-extra", is_flag=True, help="Delete files of the repo that the output has not."),
    click.option("--dry-run", is_flag=True, help="Show what would be sent and where to; send nothing."),
    click.option("--verbose", "-v", is_flag=True, help="Show every request to the Hub; never the token."),
)


def _hub_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of an upload, for ``push`` and ``--push-to-hub``."""
    for option in reversed(_HUB_OPTIONS):
        command = option(command)
    return command


def _may_be_there(text: str) -> bool:
    """Whether something can be called so: a file or folder that is there, or anything in a store."""
    return "://" in text or Path(text).exists()


class _DefaultsToConvert(click.Group):
    """A group whose command ``convert`` need not be named; its options stand in the group's own help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``convert`` before arguments that name no command."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h", "--version"):
            if "--to" not in args and not args[0].startswith("-") and not _may_be_there(args[0]):
                raise click.UsageError(
                    f"No command and no folder is called {args[0]!r}. Commands: {', '.join(sorted(self.commands))}."
                )
            args = ["convert", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Both forms of a call."""
        formatter.write_usage(ctx.command_path, "[SOURCE] --to FORMAT [--out DIR] [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...", prefix="   or: ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The conversion's options, then the commands."""
        records = [(option.name, option.get_help_record(ctx)) for option in convert_command.get_params(ctx)]
        hub = {option.name for option in _upload_options()}
        with formatter.section("Options"):
            formatter.write_dl([record for name, record in records if record and name not in hub])
        with formatter.section("Options of push and --push-to-hub"):
            formatter.write_dl([record for name, record in records if record and name in hub])
        self.format_commands(ctx, formatter)


@click.group(
    cls=_DefaultsToConvert,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit status: 0 all there and verified; 1 the data failed a check, nothing was published; 2 the call or "
    "the environment is wrong, nothing was touched; 3 published, with damaged records left out and in quarantine "
    "(--on-error quarantine); 130 interrupted; finished shards are kept for the next run.",
)
@click.version_option(package_name="kfer-convert")
def cli() -> None:
    """Convert KFER, or another image dataset in TFRecords, and prove that nothing was lost or changed.

    SOURCE is the folder that holds the TFRecord files, ./tfrecords by default.
    """


_CONVERSION_OPTIONS = (
    click.argument("source", required=False, type=_PlaceType()),
    click.option("--to", "format_name", metavar="FORMAT", help=f"One of: {', '.join(available_formats())}."),
    click.option(
        "--out", type=_PlaceType(), metavar="DIR", help="Folder to make, or a URL.  [default: ./kfer-FORMAT]"
    ),
    click.option(
        "--config", "configs", multiple=True, metavar="NAME", help="Only this config; may be repeated."
    ),
    click.option(
        "--split", "splits", multiple=True, metavar="NAME", help="Only this split; may be repeated."
    ),
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder of the authors' label CSVs; recovers img_id and clip_id.",
    ),
    _reader,
    click.option("--decode", is_flag=True, help="Decode every image fully, not only its header."),
    click.option(
        "--class-folders", is_flag=True, help="jpeg: one folder per class, for torchvision's ImageFolder."
    ),
    click.option(
        "--allow-mismatch", is_flag=True, help="Publish although published counts differ; recorded."
    ),
    click.option("--overwrite", is_flag=True, help="Replace an existing output, once the new one is proven."),
    click.option(
        "--max-record-size",
        "max_record_bytes",
        type=click.IntRange(1),
        default=256 << 20,
        metavar="BYTES",
        help="Longest record that is accepted.  [default: 256 MiB]",
    ),
    click.option(
        "--max-shard-size",
        "max_shard_bytes",
        type=click.IntRange(1),
        default=500_000_000,
        metavar="BYTES",
        help="Most source bytes in one output file.  [default: 500 MB]",
    ),
)


def _conversion_options(command: Callable[..., None]) -> Callable[..., None]:
    """What a conversion and the plan of one take."""
    for option in reversed(_CONVERSION_OPTIONS):
        command = option(command)
    return command


@cli.command("convert", hidden=True, short_help="Convert TFRecords (the default command).")
@_conversion_options
@click.option(
    "--on-error",
    type=click.Choice(["fail", "quarantine"]),
    default="fail",
    show_default=True,
    help="What damage means: nothing is published, or damaged records are left out and listed (exit status 3).",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Number of processes.  [default: one per core, or one where little is to do]",
)
@click.option(
    "--engine",
    type=click.Choice(list(available_engines())),
    default="local",
    show_default=True,
    help="Where the work runs.",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="ray: the cluster.  [default: RAY_ADDRESS, or one started on this machine]",
)
@click.option(
    "--sample", is_flag=True, help=f"Make the synthetic sample in SOURCE (./{SAMPLE_FOLDER}) first."
)
@click.option(
    "--push-to-hub",
    metavar="NAMESPACE/NAME",
    help="hf: upload the verified output to this repo on the Hugging Face Hub, as `push` does.",
)
@_hub_options
@_quiet
@_json
def convert_command(
    source: Any,  # noqa: ANN401  # a place
    format_name: str | None,
    *,
    push_to_hub: str | None,
    revision: str,
    commit_message: str | None,
    create_pr: bool,
    private: bool,
    has_right: bool,
    gating: Any,  # noqa: ANN401
    delete_extra: bool,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
    as_json: bool,
    sample: bool,
    ray_address: str | None,
    **options: Any,  # noqa: ANN401  # handed on as they are
) -> None:
    """Convert a folder of TFRecords."""
    format_name = _required_format(format_name)
    if ray_address is not None and options["engine"] != "ray":
        raise click.UsageError("--ray-address needs --engine ray.")
    if options["engine"] == "ray":
        ray_address = ray_address or os.environ.get("RAY_ADDRESS")  # as Ray itself has it
    from converters.api import convert
    from converters.formats import load_format

    hub = {
        "revision": revision,
        "commit_message": commit_message,
        "create_pr": create_pr,
        "public": not private,
        "has_right": has_right,
        "gating": gating,
        "delete_extra": delete_extra,
    }
    destination = _destination_of_conversion(push_to_hub, format_name, hub, dry_run=dry_run)
    if sample:
        load_format(format_name)  # before anything is written
        source = source or Path(SAMPLE_FOLDER)
        _sample_once(source, quiet=quiet or as_json)
    source = source or Path("tfrecords")
    total = _expected_records(source, options)
    with _progress(quiet=quiet, as_json=as_json, total=total) as progress:
        report = convert(
            source,
            to=format_name,
            engine_options={} if ray_address is None else {"address": ray_address},
            progress=progress,
            **options,
        )
    _show(
        report, quiet=quiet or (as_json and destination is not None), as_json=as_json and destination is None
    )
    if not quiet and not as_json:
        _echo_published(report)
    if destination is not None:
        facts = {"conversion": report.to_json()}
        _push(
            Path(report.out),
            destination,
            dry_run=dry_run,
            verbose=verbose,
            quiet=quiet,
            as_json=as_json,
            facts=facts,
        )
    if report.quarantined:
        sys.exit(EXIT_QUARANTINED)


def _required_format(name: str | None) -> str:
    if name is None:
        raise click.UsageError(f"Missing option '--to'. Choose from: {', '.join(available_formats())}.")
    return name


def _echo_published(report: Report) -> None:
    """What a conversion that was published comes to."""
    if report.resumed_shards:
        click.echo(f"\nTaken up from an interrupted run, and verified again: {report.resumed_shards} shards.")
    allowed = any(not check.explained for check in _failed(report))
    differs = " and with the differences shown, which were allowed" if allowed else ""
    click.echo(f"\n{report.records:,} records, verified to equal the source{differs}: {report.out}")
    _echo(work_lines(report))
    if "://" in report.out:
        click.echo(f"Prove it again from anywhere: kfer-convert verify {report.out}")
    else:
        click.echo(f"Check it without this program: (cd {report.out} && sha256sum -c SHA256SUMS)")
    if report.description.about.personal_data:
        click.echo(_LICENCE_NOTE)


@cli.command("push")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("repo", metavar="NAMESPACE/NAME")
@_hub_options
@_quiet
@_json
def push_command(
    out: Path,
    repo: str,
    *,
    private: bool,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401  # handed on as they are
) -> None:
    """Upload the hf output OUT to the repo NAMESPACE/NAME on the Hugging Face Hub.

    OUT is verified first; the repo is made private and gated before any data is sent, and all of it is downloaded
    and compared afterwards. The token comes from HF_TOKEN or the login cache, the Hub's address from HF_ENDPOINT.
    """
    from converters.hub import Destination

    destination = Destination.configured(repo, public=not private, **options)
    _push(out, destination, dry_run=dry_run, verbose=verbose, quiet=quiet, as_json=as_json)


@cli.command("verify")
@click.argument("out", type=_PlaceType())
@click.option("--source", type=_PlaceType(), help="Also prove it against these TFRecords.")
@_reader
@_quiet
@_json
def verify_command(out: Any, source: Any, reader: Any, *, quiet: bool, as_json: bool) -> None:  # noqa: ANN401
    """Prove the output OUT again, from its manifest and, with --source, against the originals."""
    from converters.api import verify

    with _progress(quiet=quiet, as_json=as_json, total=None) as progress:
        report = verify(out, source=source, reader=reader, progress=progress)
    failures = report.failures()
    _show(report, quiet=quiet, as_json=as_json)
    if failures:
        for failure in failures[:20]:
            click.echo(f"kfer-convert: {out}: {failure}", err=True)
        if len(failures) > 20:
            click.echo(f"kfer-convert: {out}: and {len(failures) - 20} more", err=True)
        sys.exit(EXIT_FAILED)
    if not quiet and not as_json:
        click.echo(f"\n{report.records:,} records, {len(report.files):,} files, verified: {out}")


@cli.command("inspect")
@click.argument("source", type=_PlaceType(), default="tfrecords")
@_json
def inspect_command(source: Any, *, as_json: bool) -> None:  # noqa: ANN401  # a place
    """Show what is in the folder SOURCE, and whether it is the published dataset."""
    from converters.api import inspect

    with _progress(quiet=False, as_json=as_json, total=None) as progress:
        inspection = inspect(source, progress=progress)
    if as_json:
        click.echo(json.dumps(inspection.to_json(), indent=1, ensure_ascii=False))
    else:
        _echo(inspection_lines(inspection))
    if inspection.failed:
        sys.exit(EXIT_FAILED)


@cli.command("sample")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--records", type=click.IntRange(1), help="Number of records over all files.")
@click.option("--full", is_flag=True, help="All 71,430 records, with the published counts.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="With --full: take the label rows from the authors' CSVs in DIR.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed draws other faces.")
@click.option("--workers", type=click.IntRange(1), help="Number of processes.  [default: one per core]")
@_quiet
@_json
def sample_command(folder: Path, *, quiet: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Write a synthetic dataset of KFER's shape, with drawn faces of nobody, to DIR."""
    from converters.sample.writer import make_sample

    with _progress(quiet=quiet, as_json=as_json, total=None) as progress:
        summary = make_sample(
            folder, progress=lambda count: progress("read", count) if progress else None, **options
        )
    if as_json:
        facts = {
            "folder": str(folder),
            "records": summary.records,
            "bytes": summary.bytes,
            "files": summary.files,
        }
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    elif not quiet:
        click.echo(
            f"{summary.records:,} records in {len(summary.files)} files, {summary.bytes:,} bytes: {folder}"
        )


@cli.command("formats")
@_json
def formats_command(*, as_json: bool) -> None:
    """List the formats that are installed."""
    lines = {name: describe_format(name) for name in available_formats()}
    if as_json:
        click.echo(json.dumps(lines, indent=1, ensure_ascii=False))
        return
    width = max(map(len, lines), default=0)
    for name, line in lines.items():
        click.echo(f"{name:{width}}  {line}")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    # Arrow's own allocators keep what was freed; the system's takes a fifth less memory here, in the same time.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        cli.main(arguments, prog_name="kfer-convert", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        if as_json:
            click.echo(json.dumps({"error": error.format_message()}, ensure_ascii=False))
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as stop:
        # click turns what interrupts it into an Abort.
        signalled = stop if isinstance(stop, _Terminated) else stop.__cause__
        notes = getattr(stop.__cause__ or stop, "__notes__", ["interrupted; nothing was published."])
        click.echo(f"kfer-convert: {notes[0]}", err=True)
        sys.exit(128 + signalled.args[0] if isinstance(signalled, _Terminated) else EXIT_INTERRUPTED)
    except CheckError as error:
        _show(error.report, quiet=False, as_json=as_json, error=not as_json)
        failures = error.report.failures()
        for failure in failures:
            click.echo(f"kfer-convert: {failure}", err=True)
        click.echo("kfer-convert: nothing was published.", err=True)
        if all(check.published for check in _failed(error.report)) and not error.report.problems:
            click.echo(
                "If the source is meant to differ from the published dataset: --allow-mismatch.", err=True
            )
        sys.exit(error.exit_status)
    except ConverterError as error:
        if as_json:
            click.echo(json.dumps({"error": str(error)}, ensure_ascii=False))
        click.echo(f"kfer-convert: {error}", err=True)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # The reader of our output has gone; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except MemoryError:
        click.echo(f"kfer-convert: {OUT_OF_MEMORY}.", err=True)
        sys.exit(EXIT_FAILED)
    except OSError as error:
        click.echo(f"kfer-convert: {error.filename or 'output'}: {error.strerror or error}.", err=True)
        sys.exit(EXIT_FAILED)
    sys.exit(0)


class _Terminated(KeyboardInterrupt):
    """A signal that ends programs; like Ctrl-C, it leaves time to clean up."""


def _interrupt(number: int, _frame: object) -> NoReturn:
    raise _Terminated(number)


def _upload_options() -> list[click.Parameter]:
    """The options of ``push`` that a conversion takes with ``--push-to-hub`` only."""
    common = ("quiet", "as_json")
    return [p for p in push_command.params if isinstance(p, click.Option) and p.name not in common]


def _destination_of_conversion(
    repo: str | None, format_name: str, options: dict[str, Any], *, dry_run: bool
) -> Destination | None:
    """Where a conversion's output is pushed; what a push would refuse is refused before the conversion."""
    context = click.get_current_context()
    if repo is None:
        given = [
            f"--{option.name.replace('_', '-')}"
            for option in _upload_options()
            if option.name
            and context.get_parameter_source(option.name) == click.core.ParameterSource.COMMANDLINE
        ]
        if given:
            raise click.UsageError(f"{given[0]} is an option of an upload and needs --push-to-hub.")
        return None
    if format_name != "hf":
        raise click.UsageError("--push-to-hub uploads an output of --to hf, and no other.")
    from converters.hub import Destination, check

    destination = Destination.configured(repo, **options)
    if not dry_run:
        check(destination)
    return destination


def _push(
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
            _progress(quiet=silent, as_json=False, total=None) as progress,  # it turns the uploads' bars on
        ):
            report = push(
                out,
                destination,
                dry_run=dry_run,
                announce=None if silent else lambda intent: _echo(push_lines(intent, out)),
                progress=progress,
            )
    except KeyboardInterrupt as stop:
        stop.add_note(
            "interrupted; what was uploaded stays on the Hub, and the same command goes on from there."
        )
        raise
    if as_json:
        click.echo(json.dumps(report.to_json() | (facts or {}), indent=1, ensure_ascii=False))
    elif not quiet:
        for warning in report.warnings:
            click.echo(f"Warning: the Hub remarks about the card: {warning}")
        if dry_run:
            click.echo("Dry run: nothing was sent.")
        else:
            # Not all of it need have been sent: the Hub may have kept large files of an interrupted push.
            sent = (
                f"{len(report.plan.pending):,} files of {report.plan.pending_bytes:,} bytes brought up to date"
                if report.plan.pending
                else "nothing had to be sent"
            )
            click.echo(
                f"\n{sent}; {report.verified:,} files downloaded again and equal to SHA256SUMS; {report.visibility}, "
                f"gating {destination.gating}."
            )
            click.echo(report.url)


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


def _failed(report: Report) -> list[Any]:
    return [check for split in report.splits for check in split.checks if check.result == "failed"]


def _sample_once(folder: Path, *, quiet: bool) -> None:
    """Make the sample, or go on with the one that is there already."""
    from converters.dataset.description import DESCRIPTION_FILE, load_description
    from converters.sample.writer import make_sample

    if (folder / DESCRIPTION_FILE).is_file() and load_description(folder).name == "kfer-sample":
        return
    summary = make_sample(folder)
    if not quiet:
        click.echo(f"Sample of {summary.records:,} synthetic records: {folder}")


def _expected_records(source: Any, options: dict[str, Any]) -> int | None:  # noqa: ANN401  # a place
    """How many records the description promises, for the progress bar; None where it does not say."""
    from converters.dataset.description import load_description
    from converters.storage.files import is_folder, names_in

    if not is_folder(source):
        return None
    names = set(names_in(source))
    wanted = [
        split.published.records
        for split in load_description(source).splits()
        if (not options["configs"] or split.config in options["configs"])
        and (not options["splits"] or split.name in options["splits"])
        and split.file in names
    ]
    return None if not wanted or None in wanted else sum(filter(None, wanted))


@contextmanager
def _progress(
    *, quiet: bool, as_json: bool, total: int | None
) -> Iterator[Callable[[str, int], None] | None]:
    """A progress callback: for people a bar over records, on a terminal; for programs events, as lines of JSON.

    Both go to standard error. Every record passes twice, once read and once read back.
    """
    if as_json and not quiet:
        events = _Events(total)
        yield events.advance
        events.tell()
        return
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    # The bar shows a record done when it was read back.
    with tqdm(total=total, unit=" records", unit_scale=True, leave=False) as bar:

        def advance(stage: str, count: int) -> None:
            bar.set_description(stage, refresh=False)
            bar.update(count if stage == "verified" or total is None else 0)

        yield advance


class _Events:
    """Tells programs of the progress, at most once a second."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._counts: dict[str, int] = {}
        self._started = self._told = time.monotonic()

    def advance(self, stage: str, count: int) -> None:
        self._counts[stage] = self._counts.get(stage, 0) + count
        if time.monotonic() - self._told >= 1:
            self.tell()

    def tell(self) -> None:
        self._told = time.monotonic()
        seconds = round(self._told - self._started, 3)
        event = {"event": "progress", **self._counts, "total": self._total, "seconds": seconds}
        click.echo(json.dumps(event), err=True)


def _echo(lines: Iterable[str], *, error: bool = False) -> None:
    for line in lines:
        click.echo(line, err=error)


def _show(report: Report, *, quiet: bool, as_json: bool, error: bool = False) -> None:
    """The report as a table or as JSON."""
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    elif not quiet:
        _echo(report_lines(report), error=error)
