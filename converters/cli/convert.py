"""``kfer-convert [SOURCE] --to FORMAT``: the default command."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converters.cli import EXIT_QUARANTINED
from converters.cli.options import (
    JSON,
    LABELS,
    PLACE,
    QUIET,
    READER,
    UPLOAD,
    UPLOAD_NAMES,
    WORKERS,
    FormatsType,
    choice,
    flag,
    option,
    ray_options,
)
from converters.cli.progress import report_progress
from converters.cli.push import show_push
from converters.cli.tables import published_lines, reports_json, show_json, show_report, show_reports
from converters.engines import available_engines
from converters.errors import ConverterError
from converters.formats import available_formats

if TYPE_CHECKING:
    from converters.dataset.report import Report
    from converters.hub import Destination
    from converters.storage.object_store import Place

SAMPLE_FOLDER = "kfer-sample"

_FORMAT_OPTIONS = ("class_folders", "index", "image_suffix")

_TO = f"One or more of: {', '.join(available_formats())}."
_OUT = "Folder to make, or a URL; of several formats, the folder of their folders.  [default: ./kfer-FORMAT]"
_WITHOUT = "Leave this column out; may be repeated, and is recorded."
_RECORD_SIZE = "Longest record that is accepted.  [default: 256 MiB]"
_SHARD_SIZE = "Most source bytes in one output file.  [default: 500 MB]"
_SUFFIX = "webdataset: what the names of images end in, such as jpg; by default what is in them."
_SEVERAL: Any = {"multiple": True}
_SIZE: Any = {"type": click.IntRange(1), "metavar": "BYTES"}
_DAMAGE = "What damage means: nothing is published, or damaged records are left out and listed (status 3)."
_CLUSTER = "ray: the cluster.  [default: RAY_ADDRESS, or one started on this machine]"
_SAMPLE = f"Make the synthetic sample in SOURCE (./{SAMPLE_FOLDER}) first."
_PUSH = "hf: upload the verified output to this repo on the Hugging Face Hub, as `push` does."

PARAMS = (
    click.Argument(["source"], required=False, type=PLACE),
    option("--to", "format_names", type=FormatsType(), metavar="FORMAT[,FORMAT…]", help=_TO, **_SEVERAL),
    option("--out", type=PLACE, metavar="DIR", help=_OUT),
    option("--config", "configs", metavar="NAME", help="Only this config; may be repeated.", **_SEVERAL),
    option("--split", "splits", metavar="NAME", help="Only this split; may be repeated.", **_SEVERAL),
    option("--without", metavar="COLUMN", help=_WITHOUT, **_SEVERAL),
    LABELS,
    READER,
    flag("--decode", help="Decode every image fully, not only its header."),
    flag("--class-folders", help="jpeg: one folder per class, as ImageFolder and Keras read it."),
    flag("--index", help="tfrecord: an index for DALI beside each file."),
    option("--image-suffix", metavar="SUFFIX", help=_SUFFIX),
    choice("--on-error", values=["fail", "quarantine"], default="fail", help=_DAMAGE),
    flag("--allow-mismatch", help="Publish although published facts differ; recorded."),
    flag("--paranoid", help="Hash every source file once more at the end."),
    flag("--overwrite", help="Replace an existing output, once the new one is proven."),
    flag("--repair", help="Make again only what of an existing output is damaged."),
    option("--max-record-size", "max_record_bytes", default=256 << 20, help=_RECORD_SIZE, **_SIZE),
    option("--max-shard-size", "max_shard_bytes", default=500_000_000, help=_SHARD_SIZE, **_SIZE),
    WORKERS,
    choice("--engine", values=available_engines(), default="local", help="Where the work runs."),
    option("--ray-address", metavar="ADDRESS", help=_CLUSTER),
    flag("--sample", help=_SAMPLE),
    option("--push-to-hub", metavar="NAMESPACE/NAME", help=_PUSH),
    *UPLOAD,
    QUIET,
    JSON,
)


@click.command(hidden=True, params=[*PARAMS])
def convert(
    source: Place | None,
    format_names: tuple[tuple[str, ...], ...],
    *,
    out: Place | None,
    ray_address: str | None,
    sample: bool,
    push_to_hub: str | None,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401  # those of the upload, and what the API takes by the same names
) -> None:
    """Convert a source, prove the output equal to it, and publish the output."""
    formats = list(dict.fromkeys(chain.from_iterable(format_names)))
    if not formats:
        raise click.UsageError(f"Missing option '--to'. Choose from: {', '.join(available_formats())}.")
    if options["engine"] != "ray" and ray_address is not None:
        raise click.UsageError("--ray-address needs --engine ray.")
    upload = {name: options.pop(name) for name in UPLOAD_NAMES if name in options}
    target = _upload_target(push_to_hub, formats, upload, dry_run=dry_run)
    from converters import api
    from converters.formats import load_format, options_of
    from converters.formats.sources import name_of

    by_format = options_of(formats, {name: options.pop(name) for name in _FORMAT_OPTIONS})
    for name in formats:  # before anything is written
        load_format(name, **by_format[name])
    if sample:
        source = source or Path(SAMPLE_FOLDER)
        if not isinstance(source, Path):
            raise click.UsageError(f"--sample makes a folder on this machine, which {source} is not.")
        _sample_once(source, quiet=quiet or as_json)
    source = source or Path("tfrecords")
    total = _expected_records(source, options["configs"], options["splits"])
    options["engine_options"] = ray_options(options["engine"], ray_address)
    results: dict[str, Report | ConverterError] = {}
    for name in formats:
        where = out if out is None or len(formats) == 1 else out / f"{name_of(source)}-{name}"
        try:
            with report_progress(quiet=quiet, as_json=as_json, total=total) as progress:
                results[name] = api.convert(
                    source, to=name, out=where, progress=progress, **by_format[name], **options
                )
        except ConverterError as error:
            if len(formats) == 1:
                raise
            # The others may well succeed; the first failure is the exit status.
            click.echo(f"kfer-convert: {name}: {error}", err=True)
            results[name] = error
    reports = {name: result for name, result in results.items() if not isinstance(result, ConverterError)}
    failed = next((result for result in results.values() if isinstance(result, ConverterError)), None)
    facts: dict[str, Any] = {}
    if as_json:
        document = reports_json(results) if len(formats) > 1 else reports[formats[0]].to_json()
        facts = {"conversion": document}
        if target is None or failed is not None:  # or it is part of what the push prints
            show_json(document)
    elif not quiet and len(formats) == 1:
        show_report(reports[formats[0]], quiet=False, as_json=False)
    elif not quiet and reports:
        show_reports(reports)
    if failed is not None:
        sys.exit(failed.exit_status)
    if not quiet and not as_json:
        click.echo("\n".join(line for report in reports.values() for line in published_lines(report)))
    if target is not None:
        show_push(
            Path(reports["hf"].out),
            target,
            dry_run=dry_run,
            verbose=verbose,
            quiet=quiet,
            as_json=as_json,
            facts=facts,
        )
    if any(report.quarantined for report in reports.values()):
        sys.exit(EXIT_QUARANTINED)


def _upload_target(
    repo: str | None, formats: list[str], upload: dict[str, Any], *, dry_run: bool
) -> Destination | None:
    """Where the output is pushed; what a push would refuse is refused before the conversion.

    Raises:
        CallError, click.UsageError: it would be refused.
    """
    if repo is None:
        source_of = click.get_current_context().get_parameter_source
        for given in UPLOAD:
            if source_of(str(given.name)) == click.core.ParameterSource.COMMANDLINE:
                name = "/".join(given.opts[:1] + given.secondary_opts)
                raise click.UsageError(f"{name} is an option of an upload and needs --push-to-hub.")
        return None
    if "hf" not in formats:
        raise click.UsageError("--push-to-hub uploads an output of --to hf, and no other.")
    from converters.hub import Destination, check

    target = Destination.configured(repo, **upload)
    if not dry_run:
        check(target)
    return target


def _sample_once(folder: Path, *, quiet: bool) -> None:
    """Make the sample, or go on with the one that is there already."""
    from converters.dataset.description import DESCRIPTION_FILE, load_description
    from converters.sample.writer import make_sample

    if (folder / DESCRIPTION_FILE).is_file() and load_description(folder).name == SAMPLE_FOLDER:
        return
    summary = make_sample(folder)
    if not quiet:
        click.echo(f"Sample of {summary.records:,} synthetic records: {folder}")


def _expected_records(source: Place, configs: tuple[str, ...], splits: tuple[str, ...]) -> int | None:
    """How many records the description promises, for the progress bar; None where it does not say."""
    from converters.dataset.description import load_description
    from converters.storage.files import is_folder, names_in

    try:
        if not is_folder(source):
            return None
        names = set(names_in(source))
    except OSError:
        return None  # whoever opens the source says so
    wanted = [
        split.published.records
        for split in load_description(source).splits()
        if (not configs or split.config in configs)
        and (not splits or split.name in splits)
        and split.file in names
    ]
    return None if not wanted or None in wanted else sum(filter(None, wanted))
