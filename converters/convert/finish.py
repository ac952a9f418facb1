"""The end of a conversion: all shards are merged, compared, and put together to a complete output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from converters.convert.merge import WorkDone, changed_file, merge_split, split_reports
from converters.convert.shard_task import Job, clips, format_errors
from converters.dataset.filenames import safe_path
from converters.dataset.manifest import MANIFEST, SUMS, write_manifest
from converters.dataset.report import CheckError, Report, SplitReport
from converters.dataset.shard import ShardResult
from converters.errors import ConverterError
from converters.formats import Finishes, Format
from converters.formats.tfrecord.damage_scan import ExaminedSource
from converters.formats.tfrecord.discovery import Source
from converters.formats.tfrecord.plan import Plan
from converters.formats.tfrecord.quarantine_folder import write_quarantine
from converters.staging.base import Staging
from converters.staging.checkpoint import changed_input
from converters.storage.file_list import OutputFile, OutputFiles, by_path, merged_runs
from converters.storage.tree import file_states, hash_file
from converters.verify import compare as proof


def complete(
    report: Report,
    source: Source,
    described: Mapping[str, Any],
    job: Job,
    target: Format,
    plan: Plan,
    examined: ExaminedSource | None,
    results: Iterator[ShardResult],
    staging: Staging,
) -> Report:
    """Merge the results of all shards, and fill ``staging.output`` with an output that equals its source.

    Args:
        report: what is known beforehand.
        source: what was converted.
        described: what all it depends on was when it was found; see :func:`converters.staging.checkpoint.describe_run`.
        job: how.
        target: the format.
        plan: the shards.
        examined: what is damaged, where that is passed over.
        results: of all shards of the plan, in order.
        staging: where they are.

    Raises:
        CheckError: the output is not its source, or not as published.
        DataError: a source file changed.
    """
    done = WorkDone()
    merged = [
        merge_split(found, islice(results, split.count), done)
        for found, split in zip(source.splits, plan.splits, strict=True)
    ]
    reports = split_reports(
        merged, examined, identified=job.labels is not None, clips=lambda found: clips(job, found.split)
    )
    report = replace(
        report,
        splits=tuple(reports),
        warnings=tuple(_warnings(source, examined, reports)),
        files=merged_runs(chain.from_iterable(split.files for split in merged)),
        work=done.work(),
    )
    if failures := report.failures():
        raise CheckError(f"nothing was published: {failures[0]}.", report)
    for folder in chain.from_iterable(split.folders for split in merged):
        staging.collect(Path(folder))
    report = _with_files(report, write_quarantine(source, report, staging.output))
    report = _finish(target, report, staging.output)
    # Indexes and label CSVs too: shards that read different ones would not belong together.
    if (changed := changed_input(described)) is not None:
        raise changed_file(changed)
    write_manifest(report, staging.output)
    return report


def _warnings(
    source: Source, examined: ExaminedSource | None, reports: Sequence[SplitReport]
) -> Iterator[str]:
    yield from (found.note for found in source.splits if found.note)
    yield from examined.warnings if examined else ()
    for split in reports:
        for check in split.checks:
            if check.name == proof.LABEL_ORDER and check.reason.startswith(proof.REORDERED):
                yield (
                    f"{split.split.title}: {proof.REORDERED}. The images keep their labels, but img_id and clip_id "
                    "cannot be recovered from the CSVs."
                )


def _finish(target: Format, report: Report, folder: Path) -> Report:
    """Have the format write its dataset-level files, if it has any; the report with these added.

    Raises:
        ConverterError: the format failed, or touched a file of a shard, or took a name that is kfer-convert's.
    """
    added = _files_of_finish(target, report, folder) if isinstance(target, Finishes) else []
    if taken := next((file.path for file in added if file.path in (MANIFEST, SUMS)), None):
        raise ConverterError(f"{taken}: the format wrote a file of this name, which is kfer-convert's.")
    return _with_files(report, added)


def _with_files(report: Report, added: Sequence[OutputFile]) -> Report:
    """The report with more files."""
    if not added:
        return report
    return replace(
        report, files=merged_runs([OutputFiles(report.files), OutputFiles(sorted(added, key=by_path))])
    )


def _files_of_finish(target: Finishes, report: Report, folder: Path) -> list[OutputFile]:
    before = file_states(folder)
    with format_errors(report.format, "finishing"):
        target.finish(report, folder)
    after = file_states(folder)
    for path, state in before.items():
        if after.get(path) != state:
            raise ConverterError(f"{path}: the format {report.format!r} changed this file when it finished.")
    new = after.keys() - before.keys()
    if unsafe := next((path for path in sorted(new) if not safe_path(path)), None):
        raise ConverterError(
            f"{unsafe!r}: the format {report.format!r} wrote a file of a name that is not safe."
        )
    return [OutputFile(path, *hash_file(folder / path)) for path in new]
