"""The end of a conversion: all shards are merged, compared, and put together to a complete output."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from converters.convert.merge import merge_split
from converters.dataset.filenames import safe_path
from converters.dataset.known_answer import check_known_answer
from converters.dataset.manifest import MANIFEST, SUMS, write_manifest
from converters.dataset.plan import Plan
from converters.dataset.report import CheckError, Report, Work
from converters.dataset.shard import ShardResult
from converters.dataset.source import FileState, Source, changed_input
from converters.errors import ConverterError
from converters.formats import Finishes, Format, Joins
from converters.formats.output_source import OutputSource
from converters.formats.tfrecord.source import TFRecordSource
from converters.staging import Staging
from converters.staging.folder import FolderStaging
from converters.storage.file_list import OutputFile, merged_runs, with_added
from converters.storage.tree import hash_file, walk_files
from converters.verify.asked import check_asked, check_inferred
from converters.verify.complete import check_descriptions, check_joined, check_sources, check_sums
from converters.verify.read_back import format_errors


def finish(
    report: Report,
    source: Source,
    inputs: Mapping[str, FileState],
    target: Format,
    plan: Plan,
    results: Iterator[ShardResult],
    staging: Staging,
) -> Report:
    """Merge the results of all shards of the plan, and fill ``staging.output`` with an output that equals its source.

    ``report`` is what is known beforehand, ``inputs`` the state of the source's files when the run began.

    Raises:
        CheckError: the output is not its source, or not as published.
        DataError: a source file changed.
    """
    check_known_answer()
    work = Work()
    merged = [
        merge_split(
            found,
            islice(results, count),
            work,
            target.joins(found.split, count) if isinstance(target, Joins) else {},
        )
        for found, count in ((found, len(plan.of(found.split))) for found in source.splits)
    ]
    accounts = source.account([split.slices for split in merged])
    splits = tuple(split.report(account) for split, account in zip(merged, accounts, strict=True))
    report = replace(
        report,
        splits=splits,
        warnings=tuple(source.warnings),
        inferred=tuple(source.inferred),
        files=merged_runs(chain.from_iterable(split.files for split in merged)),
        work=work,
    )
    if failures := report.failures():
        raise CheckError(f"nothing was published: {failures[0]}.", report)
    check_asked(report)
    if isinstance(source, TFRecordSource):
        check_sources(report, source)
        if source.named_after_place:
            check_inferred(report, source)
    if isinstance(source, OutputSource):
        source.check_copied(report)
    for folder in chain.from_iterable(split.folders for split in merged):
        staging.collect(Path(folder))
    parts = {path: parts for split in merged for path, parts in split.parts.items()}
    joined = [staging.join(path, own) for path, own in parts.items()]
    for path, own in parts.items():
        check_joined(staging.output, path, own)
    lost = source.write_lost(report, staging.output)
    report = replace(report, files=with_added(report.files, [*joined, *lost]))
    report = replace(report, files=with_added(report.files, _finish(target, report, staging.output)))
    # Indexes and label CSVs too: shards that read different ones would not belong together.
    if (changed := changed_input(source, inputs)) is not None:
        raise changed
    check_descriptions(report, staging.output)
    write_manifest(report, staging.output)
    check_sums(report, staging.output, all_here=isinstance(staging, FolderStaging))
    return report


def _finish(target: Format, report: Report, folder: Path) -> list[OutputFile]:
    """Have the format write its dataset-level files, if it has any; the files.

    Raises:
        ConverterError: the format failed, or touched a file of a shard, or took a name that is kfer-convert's.
    """
    if not isinstance(target, Finishes):
        return []
    # In a folder of its own, so that it cannot touch a file of a shard.
    with TemporaryDirectory(dir=folder, prefix=".finish-") as name:
        with format_errors(report.format, "finishing"):
            target.finish(report, Path(name))
        files = [OutputFile(path, *hash_file(Path(name, path))) for path in sorted(walk_files(name))]
        for file in files:
            place = folder / file.path
            problems = {
                "of a name that is not safe": not safe_path(file.path),
                "of a name that is kfer-convert's": file.path in (MANIFEST, SUMS),
                "twice": os.path.lexists(place),
            }
            if problem := next((problem for problem, found in problems.items() if found), None):
                raise ConverterError(f"{file.path!r}: the format {report.format!r} wrote a file {problem}.")
            place.parent.mkdir(parents=True, exist_ok=True)
            Path(name, file.path).rename(place)
    return files
