"""What a person is shown: reports, inspections and uploads as lines of text, most of them tables."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from converters.dataset.report import Check, Report
    from converters.errors import ConverterError
    from converters.hub import PushReport
    from converters.verify.source import InspectedSplit, Inspection

_SHOWN_RANGES = 20
_TOP_COMBINATIONS = 10
_SHOWN_LABELS = 100


def show_json(document: object) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(document, indent=1, ensure_ascii=False))


def show_report(report: Report, *, quiet: bool, as_json: bool, error: bool = False) -> None:
    """Print a report, as a table or as one JSON object; ``error``: the table goes to standard error."""
    if as_json:
        show_json(report.to_json())
    elif not quiet:
        click.echo("\n".join(report_lines(report)), err=error)


def reports_json(reports: Mapping[str, Report | ConverterError]) -> dict[str, Any]:
    """The reports of several formats, or what each failed with, as one JSON object."""
    return {
        name: _failure_json(it) if isinstance(it, Exception) else it.to_json() for name, it in reports.items()
    }


def show_reports(reports: Mapping[str, Report]) -> None:
    """Print the reports of several formats: the first one as a table, and a row for each."""
    click.echo("\n".join(report_lines(next(iter(reports.values())))) + "\n")
    rows = [["format", "records", "files", "bytes", "output"]]
    for name, report in reports.items():
        numbers = (report.records, len(report.files), sum(file.size for file in report.files))
        rows.append([name, *(f"{number:,}" for number in numbers), report.out])
    click.echo("\n".join(_table(rows)))


def _failure_json(error: ConverterError) -> Any:  # noqa: ANN401  # JSON
    from converters.dataset.report import CheckError

    return error.report.to_json() if isinstance(error, CheckError) else {"error": str(error)}


def show_error(message: str, *, as_json: bool) -> None:
    """Print a sentence that says what ended a command, on standard error; as the JSON object of standard output too."""
    if as_json and not getattr(sys.stdout, "used", False):  # or one is there, or begun
        click.echo(json.dumps({"error": message}, ensure_ascii=False))
    click.echo(f"kfer-convert: {message}", err=True)


def show_failure(error: ConverterError, *, as_json: bool) -> None:
    """Print what ended a command: the report where a check failed, and on standard error a sentence a failure."""
    from converters.dataset.report import CheckError

    if not isinstance(error, CheckError):
        show_error(str(error), as_json=as_json)
        return
    report = error.report
    show_report(report, quiet=False, as_json=as_json, error=True)
    for failure in report.failures():
        click.echo(f"kfer-convert: {failure}", err=True)
    what = "nothing was published." if report.remade_shards is None else error.message
    click.echo(f"kfer-convert: {what}", err=True)
    if all(check.published for check in _failed(report)) and not report.problems:
        click.echo("If the source is meant to differ from the published dataset: --allow-mismatch.", err=True)


def _failed(report: Report) -> list[Check]:
    return [check for split in report.splits for check in split.checks if check.result == "failed"]


def report_lines(report: Report) -> Iterator[str]:
    """A report: its checks as a table, and the reasons of all that did not pass below it."""
    for table in report.inferred:
        yield f"Columns of {table.name}, inferred from all records:"
        yield from (*map(_printable, table.lines()), "")
    names = list(dict.fromkeys(check.name for split in report.splits for check in split.checks))
    rows = [["config", "split", "found", *names]]
    notes = []
    for split in report.splits:
        results = {check.name: "explained" if check.explained else check.result for check in split.checks}
        cells = (results.get(name, "-") for name in names)
        rows.append([split.split.config, split.split.name, f"{split.fingerprint.records:,}", *cells])
        notes += [
            f"{split.split.title}: {check.name} {check.result}: {check.reason}"
            for check in split.checks
            if check.result != "passed"
        ]
    rows += [[split.config, split.name, "absent", *("-" for _ in names)] for split in report.absent]
    yield from _table(rows)
    yield from notes
    yield from _warning_lines(report.warnings)
    yield from _quarantine_lines(report)
    if report.absent:
        yield f"Absent from the source: {', '.join(split.file for split in report.absent)}"


def published_lines(report: Report) -> Iterator[str]:
    """What a conversion that was published comes to, how to check it, and the terms of its data."""
    if report.resumed_shards:
        yield f"\nTaken up from an interrupted run, and verified again: {_count(report.resumed_shards, 'shard')}."
    allowed = any(not check.explained for check in _failed(report))
    differs = " and with the differences shown, which were allowed" if allowed else ""
    if report.remade_shards is None:
        yield f"\n{report.records:,} records, verified to equal the source{differs}: {report.out}"
    else:
        yield f"\nShards made again: {', '.join(report.remade_shards) or 'none'}"
        yield f"{report.records:,} records, verified{differs}: {report.out}"
    yield from _work_lines(report)
    if "://" in report.out:
        yield f"Prove it again from anywhere: kfer-convert verify {shlex.quote(report.out)}"
    else:
        folder = f"./{report.out}" if report.out.startswith("-") else report.out
        yield f"Check it without this program: (cd {shlex.quote(folder)} && sha256sum -c SHA256SUMS)"
    licence = report.description.about.licence
    if licence.stated:
        yield _printable(f"Licence of the data: {licence}")


def _warning_lines(warnings: Sequence[str]) -> Iterator[str]:
    return (f"Warning: {warning.rstrip('.')}." for warning in warnings)


def _work_lines(report: Report) -> Iterator[str]:
    """How fast a conversion was, and where the time went."""
    work = report.work
    if work is None or not work.records:
        return
    total = sum(work.seconds.values())
    shares = (f"{step.replace('_', ' ')} {part / total:.0%}" for step, part in work.seconds.items())
    workers = _count(work.workers, "worker")
    yield f"{work.records_per_second:,.0f} records a second per worker, {workers}: {', '.join(shares)}"


def _quarantine_lines(report: Report) -> Iterator[str]:
    """How many records are lost, and which."""
    if not report.quarantined:
        return
    lost = "is" if report.lost_records in (None, 1) else "are"
    places = _count(report.quarantined, "damaged range")
    yield f"In quarantine: {places}; {_count(report.lost_records, 'record')} {lost} lost."
    entries = [
        (split.split.title, piece)
        for split in report.splits
        if split.quarantine
        for piece in split.quarantine.ranges
    ]
    for title, piece in entries[:_SHOWN_RANGES]:
        what = _count(piece.records, "record")
        if piece.records and (first := piece.split_record) is not None:
            last = first + piece.records - 1
            what = f"record {first}" if first == last else f"records {first} to {last}"
        if piece.img_ids:
            what += f" ({', '.join(piece.img_ids[:3])}{', …' * (len(piece.img_ids) > 3)})"
        kind = "byte" if piece.inflated is None else "stored byte"
        yield f"  {title}: {what}: {piece.file}, {kind} {piece.offset}, {piece.bytes:,} bytes: {piece.reason}"
    if len(entries) > _SHOWN_RANGES:
        yield f"  and {len(entries) - _SHOWN_RANGES:,} more; all are in quarantine/records.json"


def _count(number: int | None, what: str) -> str:
    """``1 record``, ``2,000 records``."""
    return (
        f"an unknown number of {what}s"
        if number is None
        else f"{number:,} {what}{'s' if number != 1 else ''}"
    )


def inspection_lines(inspection: Inspection) -> Iterator[str]:
    """What was found in a source as tables: the files, and for each config its labels and their combinations."""
    head = ["config", "split", "file", "bytes", "records", "label sets", "index", "is it the published one?"]
    rows = [head]
    for split in inspection.splits:
        where = [split.split.config, split.split.name]
        sets = _number(None if split.combinations is None else len(split.combinations))
        for file in split.files:
            index = "none" if file.index is None else "agrees" if file.indexed else "unverified"
            numbers = (f"{file.bytes:,}", _number(file.records), sets)
            rows.append([*where, file.file, *numbers, index, split.verdict])
    rows += [[split.config, split.name, split.file, *"----", "absent"] for split in inspection.absent]
    yield from _table(rows)
    for split in inspection.splits:
        for text in [split.note, split.error, *(split.reasons if split.verdict != "published" else ())]:
            if text:
                yield f"{split.title}: {text}"
    yield from _warning_lines(inspection.warnings)
    for table in inspection.columns:
        yield from ("", f"Columns of {table.name}:", *map(_printable, table.lines(labels=False)))
        splits = [split for split in inspection.splits if split.split.config == table.name]
        yield from _label_lines(table.name, splits)
    yield from _overlap_lines(inspection)
    yield f"\n{inspection.records:,} records, {inspection.bytes:,} bytes"


def _overlap_lines(inspection: Inspection) -> Iterator[str]:
    """What would spoil an evaluation: images that occur twice, and clips that two splits share."""
    equal = inspection.equal_images
    if equal is None:
        yield "\nEqual images were not looked for: there are too many."
        return
    if equal.within or equal.across or inspection.shared_clips:
        yield ""
    for title, images in equal.within.items():
        yield f"Equal byte for byte: {_count(images, 'image')} more than once in {title}"
    for (one, other), images in equal.across.items():
        yield f"Equal byte for byte: {_count(images, 'image')} both in {one} and in {other}"
    for shared in inspection.shared_clips:
        (one, other), (first, second) = shared.splits, shared.images
        yield f"{one} and {other} share {shared.clips:,} clips: {first:,} and {second:,} of their images are from these"


def _label_lines(config: str, splits: Sequence[InspectedSplit]) -> Iterator[str]:
    """Records per label, labels per image and the most frequent combinations, a column per split."""
    sound = [split for split in splits if split.combinations is not None]
    if not sound:
        return
    yield ""
    counts = [{count.name: count.records for count in split.label_counts} for split in sound]
    names = list(dict.fromkeys(name for found in counts for name in found))
    what = "records" if sound[0].split.schema.image is None else "images"
    sizes = {
        size: f"{what} with {_count(size, 'label')}"
        for size in sorted(set().union(*(split.labels_per_image for split in sound)))
    }
    rows = [[config, *(split.split.name for split in sound)]]
    rows += [[name, *(f"{found.get(name, 0):,}" for found in counts)] for name in names[:_SHOWN_LABELS]]
    rows += [
        [text, *(f"{split.labels_per_image.get(size, 0):,}" for split in sound)]
        for size, text in sizes.items()
    ]
    yield from _table(rows)
    if len(names) > _SHOWN_LABELS:
        yield f"and {len(names) - _SHOWN_LABELS:,} more labels; --json has all"
    if sound[0].split.kind == "multi-label":
        for split in sound:
            top = (split.combinations or ())[:_TOP_COMBINATIONS]
            most = ", ".join(f"{' + '.join(entry.labels)} {entry.records:,}" for entry in top)
            yield f"Most frequent in {split.split.name}: {most}"


def _number(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text in columns, the first row underlined."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _printable(text: str) -> str:
    """``text`` without what would move a terminal's cursor; names of somebody else's files may hold it."""
    return "".join(character if character.isprintable() else "?" for character in text)


def push_lines(report: PushReport, out: Path) -> Iterator[str]:
    """What a push will do, before it does it."""
    changes, destination = report.changes, report.destination
    there = "new repo" if report.state is None else "repo is there"
    yield (
        f"{out} to {destination.url}, {'pull request on ' * destination.create_pr}{destination.revision} "
        f"({there if report.looked else 'not looked at: no token'}): {report.visibility}, gating {destination.gating}"
    )
    extra = "delete" if destination.delete_extra else "extra"
    rows = [
        ["", "file", "bytes"],
        *(["send", file.path, f"{file.size:,}"] for file in changes.new),
        *(["replace", file.path, f"{file.size:,}"] for file in changes.replaced),
        *([extra, _printable(path), "-"] for path in changes.extra),
    ]
    if len(rows) > 1:
        yield from _table(rows)
    sizes = f"{len(changes.pending):,}, {changes.pending_bytes:,} bytes"
    yield f"Files to send: {sizes}; there already: {len(changes.unchanged):,}"
    if changes.extra and not destination.delete_extra:
        yield "Extra files are in the repo and not in the output. They stay; --delete-extra deletes them."
    if report.quarantined:
        yield f"Not all of the source is in it: {report.quarantined:,} damaged ranges are in quarantine; see the card."
    yield f"Licence of the data: {report.licence}"


def pushed_lines(report: PushReport) -> Iterator[str]:
    """What a push did."""
    yield from (f"Warning: the Hub remarks about the card: {warning}" for warning in report.warnings)
    if report.dry_run:
        yield "Dry run: nothing was sent."
        return
    # Not all of it need have been sent: the Hub may have kept large files of an interrupted push.
    sent = (
        f"{len(report.changes.pending):,} files of {report.changes.pending_bytes:,} bytes brought up to date"
        if report.changes.pending
        else "nothing had to be sent"
    )
    yield (
        f"\n{sent}; {report.verified:,} files downloaded again and equal to SHA256SUMS; {report.visibility}, "
        f"gating {report.destination.gating}."
    )
    yield report.url
