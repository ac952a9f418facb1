"""The way of a conversion: plan, run the shards, compare, publish."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from converters import proof
from converters.conversion import Job, Progress, Reader, clips, convert_shard, format_errors
from converters.engines import Engine, load_engine, suitable_workers
from converters.errors import CallError, CheckError, ConverterError, DataError, Location, MachineError
from converters.examination import ExaminedSource, examine_source
from converters.fingerprint import merge
from converters.formats import Finishes, Format, load_format
from converters.manifest import MANIFEST, SUMS, file_states, hash_file, hash_ranges, write_manifest
from converters.names import safe_path
from converters.quarantine_folder import write_quarantine
from converters.report import Report, SourceFacts, SplitReport
from converters.resume import claim, describe_run, finished_shards
from converters.shards import MAX_SHARD_BYTES, OutputFile, RangeFacts, ShardResult, plan_shards
from converters.sources import Source, SourceFile, SourceSplit, find_source
from converters.space import describe_space, require_space, source_bytes
from converters.spec import load_spec
from converters.staging import DISK_ERRORS, Staging, staging_folder
from converters.tfrecord.framing import MAX_RECORD_BYTES
from converters.tfrecord.second_reader import require_tensorflow

OnError = Literal["fail", "quarantine"]
"""What damage in the source means: an error, or that it is left out and put into quarantine."""


@dataclass(frozen=True)
class Options:
    """How a source is converted; see :func:`converters.convert` for each."""

    configs: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    labels: Path | None = None
    reader: Reader = "native"
    on_error: OnError = "fail"
    decode: bool = False
    allow_mismatch: bool = False
    format_options: Mapping[str, Any] = field(default_factory=dict)
    max_record_bytes: int = MAX_RECORD_BYTES
    max_shard_bytes: int = MAX_SHARD_BYTES
    workers: int | None = 1
    engine: str = "local"

    def recorded(self) -> dict[str, Any]:
        """Those that the output may depend on, for the manifest."""
        return {
            "configs": list(self.configs),
            "splits": list(self.splits),
            "labels": self.labels is not None,
            "reader": self.reader,
            "on_error": self.on_error,
            "decode": self.decode,
            "format_options": dict(self.format_options),
            "max_record_bytes": self.max_record_bytes,
            "max_shard_bytes": self.max_shard_bytes,
        }


def run(
    source_folder: Path,
    format_name: str,
    out: Path,
    options: Options,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Convert a source folder and publish the output at ``out``, proven equal to its source.

    Raises:
        CallError: the call or the environment is wrong; nothing was touched.
        DataError: the source is damaged; nothing was published.
        CheckError: a check failed; nothing was published. It carries the report.
    """
    _refuse_nesting(out, [source_folder, *([options.labels] if options.labels else [])])
    if options.reader not in ("native", "tensorflow"):
        raise CallError(f"no reader {options.reader!r}; there are native and tensorflow.")
    if options.on_error not in ("fail", "quarantine"):
        raise CallError(f"on_error is {options.on_error!r}; it can be fail or quarantine.")
    if options.reader == "tensorflow":
        if options.on_error == "quarantine":
            raise CallError(
                "--reader tensorflow does not go with --on-error quarantine: TensorFlow stops at the first damage."
            )
        require_tensorflow()
    target = load_format(format_name, **options.format_options)
    spec = load_spec(source_folder)
    source = find_source(source_folder, spec, options.configs, options.splits)
    workers = suitable_workers(source_bytes(source)) if options.workers is None else options.workers
    options = replace(options, workers=workers)
    engine = load_engine(options.engine, workers)
    _refuse_missing_labels(source, options.labels)
    staging = Staging(out, overwrite=overwrite)
    report: Report | None = None
    try:
        with staging:
            report = _convert(source, format_name, target, engine, out, options, staging, progress)
            staging.publish()
    except KeyboardInterrupt as error:
        if not staging.published or report is None:
            error.add_note(f"interrupted; nothing was published. {staging.kept()}".rstrip())
            raise
        # Complete and in place; only the old output's remains were still being cleared away.
    except (OSError, MachineError) as error:
        if not staging.published or report is None:
            raise _machine_error(error, source, staging) from error
    return report


def _machine_error(error: OSError | MachineError, source: Source, staging: Staging) -> MachineError:
    """The same, with all that a user needs to know to go on."""
    what = str(error).rstrip(".")
    if isinstance(error, OSError):
        what = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
        if error.errno in DISK_ERRORS:
            what += f". {describe_space(staging.destination, source, staging.kept_bytes())}"
    return MachineError(
        f"{staging.destination}: {what}. Nothing was published, and the source is as it was. {staging.kept()}".rstrip()
    )


def _convert(
    source: Source,
    format_name: str,
    target: Format,
    engine: Engine,
    out: Path,
    options: Options,
    staging: Staging,
    progress: Progress | None,
) -> Report:
    """Fill the staging folder with a complete output, compared with its source."""
    claim(
        staging.folder,
        staging.shards,
        describe_run(source, format_name, options.recorded(), options.labels),
    )
    examined: ExaminedSource | None = None
    if options.on_error == "quarantine":
        examined = examine_source(
            source, options.labels, decode=options.decode, max_record_bytes=options.max_record_bytes
        )
    shards = plan_shards(source.splits, options.max_shard_bytes, examined.damage if examined else None)
    finished = finished_shards(staging.shards, staging.output, shards)
    require_space(staging.destination, source, staging.kept_bytes())
    staging.begin()
    job = Job(
        format_name,
        staging.attempt,
        source.spec.features,
        dict(options.format_options),
        options.labels,
        options.reader,
        options.decode,
        options.max_record_bytes,
        {} if examined is None else examined.lost_rows(),
    )
    # A callback cannot go to other processes; from there, progress comes shard by shard.
    in_process = options.workers == 1 and options.engine == "local"
    task = partial(convert_shard, job, progress=progress if in_process else None)
    new = engine.run(task, [shard for shard in shards if shard.key not in finished])
    results: dict[str, list[ShardResult]] = defaultdict(list)
    for shard in shards:
        result = finished.get(shard.key) or next(new)
        if result.shard != shard:
            raise ConverterError(f"the engine {options.engine!r} returned results out of order.")
        results[shard.split.title].append(result)
        if progress is not None and (shard.key in finished or not in_process):
            progress("read", result.source.records)
            progress("verified", result.output.records)
    if next(new, None) is not None:
        raise ConverterError(f"the engine {options.engine!r} returned more results than there are shards.")
    report = _report(source, examined, job, options, format_name, out, results)
    report = replace(report, resumed_shards=len(finished))
    if failures := report.failures():
        raise CheckError(f"nothing was published: {failures[0]}.", report)
    for result in chain.from_iterable(results.values()):
        staging.collect(result.folder)
    report = replace(report, files=(*report.files, *write_quarantine(source, report, staging.output)))
    report = _finish(target, report, staging.output)
    for file in chain.from_iterable(found.files for found in source.splits):
        _refuse_changed(file)
    write_manifest(report, staging.output)
    return report


def _report(
    source: Source,
    examined: ExaminedSource | None,
    job: Job,
    options: Options,
    format_name: str,
    out: Path,
    results: Mapping[str, Sequence[ShardResult]],
) -> Report:
    # The source files are read again and hashed in here, which other threads do meanwhile.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        splits = list(
            pool.map(
                lambda found: _split_report(found, examined, job, results[found.split.title]), source.splits
            )
        )
    warnings = [found.note for found in source.splits if found.note]
    warnings += examined.warnings if examined else ()
    for split in splits:
        for check in split.checks:
            if check.name == proof.LABEL_ORDER and check.reason.startswith(proof.REORDERED):
                warnings.append(
                    f"{split.split.title}: {proof.REORDERED}. The images keep their labels, but img_id and clip_id "
                    "cannot be recovered from the CSVs."
                )
    return Report(
        spec=source.spec,
        format=format_name,
        out=str(out),
        splits=tuple(splits),
        absent=source.absent,
        warnings=tuple(warnings),
        files=tuple(file for split in results.values() for result in split for file in result.files),
        allow_mismatch=options.allow_mismatch,
        options=options.recorded(),
    )


def _split_report(
    found: SourceSplit, examined: ExaminedSource | None, job: Job, results: Sequence[ShardResult]
) -> SplitReport:
    split = found.split
    ranges = [facts for result in results for facts in result.ranges]
    sources = _tiled(found, ranges)
    label_count = len(split.label_names)
    expected = merge((result.source for result in results), label_count)
    output = merge((result.output for result in results), label_count)
    checks = proof.compare(
        split, expected, output, sources, identified=job.labels is not None, clips=clips(job, split)
    )
    quarantine = None
    if examined is not None:
        there = examined.splits[split.title]
        quarantine = there.quarantine(found, ranges)
        checks = proof.explain(
            split,
            output,
            checks,
            quarantine,
            csv_labels=there.csv_labels,
            csv_identities=there.csv_identities,
        )
    files = tuple(file.path for result in results for file in result.files)
    return SplitReport(split, sources, files, output, checks, quarantine)


def _tiled(found: SourceSplit, ranges: Sequence[RangeFacts]) -> tuple[SourceFacts, ...]:
    """The facts of each source file; its ranges must follow each other from its first byte to its last.

    Raises:
        DataError: they do not, or the file is not what it was when it was read.
    """
    facts = []
    remaining = list(ranges)
    for file in found.files:
        own = [piece for piece in remaining if piece.path == str(file.path)]
        remaining = [piece for piece in remaining if piece.path != str(file.path)]
        end = 0
        for piece in own:
            if piece.start != end:
                break
            end = piece.end
        if end != file.size or not own:
            raise DataError(
                f"bytes {end} to {file.size} of the file were not converted.",
                Location(str(file.path)),
                "Try again.",
            )
        sha256 = _unchanged(file, own)
        indexed = own[0].indexed if all(piece.indexed == own[0].indexed for piece in own) else None
        records = sum(piece.records for piece in own)
        facts.append(SourceFacts(file.path.name, file.size, sha256, records, file.compression, indexed))
    if remaining:
        raise DataError("a file was converted that is not in the plan.", Location(remaining[0].path))
    return tuple(facts)


def _unchanged(file: SourceFile, ranges: Sequence[RangeFacts]) -> str:
    """SHA-256 of a source file, read again: it must still be the bytes that were converted.

    Raises:
        DataError: its size, its time or a byte of it changed.
    """
    whole, parts = hash_ranges(file.path, [piece.end for piece in ranges])
    if parts != [piece.sha256 for piece in ranges]:
        raise _changed(file)
    _refuse_changed(file)
    return whole


def _refuse_changed(file: SourceFile) -> None:
    status = file.path.stat()
    if (status.st_size, status.st_mtime_ns) != (file.size, file.modified):
        raise _changed(file)


def _changed(file: SourceFile) -> DataError:
    return DataError(
        "the file changed while it was converted.",
        Location(str(file.path)),
        "Convert again when nothing writes to it.",
    )


def _finish(target: Format, report: Report, folder: Path) -> Report:
    """Have the format write its dataset-level files, if it has any; the report with these added.

    Raises:
        ConverterError: the format failed, or touched a file of a shard, or took a name that is kfer-convert's.
    """
    added = _files_of_finish(target, report, folder) if isinstance(target, Finishes) else []
    files = tuple(sorted((*report.files, *added), key=_path))
    for file in files:
        if file.path in (MANIFEST, SUMS):
            raise ConverterError(
                f"{file.path}: the format wrote a file of this name, which is kfer-convert's."
            )
    return replace(report, files=files)


def _files_of_finish(target: Finishes, report: Report, folder: Path) -> list[OutputFile]:
    before = file_states(folder)
    with format_errors(report.format, "finishing"):
        target.finish(report, folder)
    after = file_states(folder)
    for file in report.files:
        if file.path not in after or after[file.path] != before[file.path]:
            raise ConverterError(
                f"{file.path}: the format {report.format!r} changed this file when it finished."
            )
    new = after.keys() - before.keys()
    if unsafe := next((path for path in sorted(new) if not safe_path(path)), None):
        raise ConverterError(
            f"{unsafe!r}: the format {report.format!r} wrote a file of a name that is not safe."
        )
    return [OutputFile(path, *hash_file(folder / path)) for path in new]


def _path(file: OutputFile) -> str:
    return file.path


def _refuse_nesting(out: Path, inputs: Sequence[Path]) -> None:
    """Neither the output nor its staging folder may be, hold or lie in a folder that is read."""
    try:
        os.fspath(out).encode()
    except UnicodeEncodeError:
        raise CallError(f"{os.fspath(out)!r}: this path is not UTF-8. Choose another --out.") from None
    try:
        place = out.resolve()
        if not place.name:
            raise CallError(f"{out}: this cannot be an output folder.")
        folders = [place, staging_folder(place).resolve()]
        others = [path.resolve() for path in inputs]
    except (OSError, RuntimeError) as error:  # Python before 3.13 raises RuntimeError for a loop of links
        raise CallError(f"{out}: this cannot be an output folder: {error}. Choose another --out.") from None
    for folder in folders:
        for other in others:
            if _lies_in(folder, other) or _lies_in(other, folder):
                raise CallError(
                    f"{out}: the output, which grows in {staging_folder(out)}, and {other}, which is read, must not "
                    "lie in each other. Choose another --out."
                )


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or below it, by name or by what the system says is the same folder.

    One folder has several names where case does not count, and where it is mounted twice.
    """
    if path == folder or folder in path.parents:
        return True
    try:
        status = folder.stat()
    except OSError:
        return False
    for ancestor in (path, *path.parents):
        try:
            if os.path.samestat(ancestor.stat(), status):
                return True
        except OSError:
            continue  # not there yet
    return False


def _refuse_missing_labels(source: Source, labels: Path | None) -> None:
    if labels is None:
        return
    if not labels.is_dir():
        raise CallError(f"{labels}: there is no such folder. --labels takes the folder of the label CSVs.")
    for found in source.splits:
        name = found.split.labels_csv or ""
        if not (labels / name).is_file():
            raise CallError(f"{labels / name}: there is no such label CSV, which {found.split.title} needs.")
