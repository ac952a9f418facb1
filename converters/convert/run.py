"""The way of a conversion: plan, run the shards, compare, publish."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from converters.convert.finish import complete
from converters.convert.shard_task import Job, Reader, convert_shard
from converters.dataset.description import load_spec
from converters.dataset.report import Report
from converters.dataset.shard import Progress, Shard, ShardResult, Task
from converters.engines import Engine, load_engine
from converters.errors import OUT_OF_MEMORY, CallError, ConverterError, DataError, Location, MachineError
from converters.formats import Format, load_format
from converters.formats.tfrecord.damage_scan import ExaminedSource, examine_source
from converters.formats.tfrecord.discovery import Source, find_source
from converters.formats.tfrecord.framing import MAX_RECORD_BYTES
from converters.formats.tfrecord.plan import MAX_SHARD_BYTES, Plan, plan_shards
from converters.formats.tfrecord.tensorflow import require_tensorflow
from converters.staging.base import Staging, make_staging
from converters.staging.checkpoint import describe_run
from converters.staging.disk_space import DISK_ERRORS
from converters.staging.overlap import refuse_nesting
from converters.storage.object_store import Place

_FREE_LABEL_BYTES = 16 << 20

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
    engine_options: Mapping[str, Any] = field(default_factory=dict)

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


@dataclass(frozen=True)
class Conversion:
    """A conversion that was rightly called for."""

    source: Source
    format: str
    target: Format
    out: Place
    options: Options

    def description(self) -> dict[str, Any]:
        """What finished shards depend on; see :func:`converters.staging.checkpoint.describe_run`."""
        return describe_run(self.source, self.format, self.options.recorded(), self.options.labels)

    def job(self, staging: Staging, examined: ExaminedSource | None, *, durable: bool) -> Job:
        """What its tasks share."""
        options = self.options
        return Job(
            self.format,
            self.source.spec.features,
            staging.workspace(durable=durable),
            dict(options.format_options),
            options.labels,
            options.reader,
            options.decode,
            options.max_record_bytes,
            {} if examined is None else examined.lost_rows(),
        )

    def report(self, resumed_shards: int) -> Report:
        """What is known of it before it is done."""
        return Report(
            spec=self.source.spec,
            format=self.format,
            out=str(self.out),
            splits=(),
            absent=self.source.absent,
            allow_mismatch=self.options.allow_mismatch,
            options=self.options.recorded(),
            resumed_shards=resumed_shards,
        )


def prepare(source_folder: Place, format_name: str, out: Place, options: Options) -> Conversion:
    """Check a call, and find its source.

    Raises:
        CallError: the call or the environment is wrong.
        DataError: a source file cannot be matched to the dataset.
    """
    refuse_nesting(out, [source_folder, *([options.labels] if options.labels else [])])
    if options.reader not in ("native", "tensorflow"):
        raise CallError(f"no reader {options.reader!r}; there are native and tensorflow.")
    if options.on_error not in ("fail", "quarantine"):
        raise CallError(f"on_error is {options.on_error!r}; it can be fail or quarantine.")
    if options.reader == "tensorflow":
        if options.on_error == "quarantine":
            raise CallError(
                "--reader tensorflow does not go with --on-error quarantine: TensorFlow stops at the first damage."
            )
        if not isinstance(source_folder, Path):
            raise CallError("--reader tensorflow reads files of this machine: copy the source here first.")
        require_tensorflow()
    target = load_format(format_name, **options.format_options)
    spec = load_spec(source_folder)
    source = find_source(source_folder, spec, options.configs, options.splits)
    _check_label_files(source, options.labels)
    return Conversion(source, format_name, target, out, options)


def run(
    source_folder: Place,
    format_name: str,
    out: Place,
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
    conversion = prepare(source_folder, format_name, out, options)
    engine = load_engine(options.engine, options.workers, **options.engine_options)
    staging = make_staging(out, overwrite=overwrite)
    return published(
        staging, conversion.source, lambda: _convert(conversion, engine, staging, progress=progress)
    )


def published(staging: Staging, source: Source, fill: Callable[[], Report]) -> Report:
    """Publish what ``fill`` makes in the staging, and say what is kept where the environment prevents it.

    Raises:
        MachineError: a full disk, a failing one, or a worker that died.
    """
    report: Report | None = None
    try:
        with staging:
            report = fill()
            staging.publish(report.files)
    except KeyboardInterrupt as error:
        if not staging.published or report is None:
            error.add_note(f"interrupted; nothing was published. {staging.kept()}".rstrip())
            raise
        # Complete and in place; only the old output's remains were still being cleared away.
    except (OSError, MachineError, MemoryError) as error:
        if not staging.published or report is None:
            raise machine_error(error, source, staging) from error
    return report


def machine_error(
    error: OSError | MachineError | MemoryError, source: Source, staging: Staging
) -> MachineError:
    """The same, with all that a user needs to know to go on."""
    what = OUT_OF_MEMORY if isinstance(error, MemoryError) else str(error).rstrip(".")
    if isinstance(error, OSError):
        what = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
        if error.errno in DISK_ERRORS:
            what += f". {staging.describe_space(source)}"
    return MachineError(
        f"{staging.destination}: {what}. Nothing was published, and the source is as it was. {staging.kept()}".rstrip()
    )


def plan_conversion(
    conversion: Conversion, described: Mapping[str, Any], staging: Staging
) -> tuple[Plan, ExaminedSource | None]:
    """Make the staging this conversion's, and cut its source into shards; what is damaged, where that is passed over.

    Raises:
        CallError: the staging holds finished shards of another run.
        DataError: the source is damaged.
    """
    source, options = conversion.source, conversion.options
    staging.claim(described)
    examined: ExaminedSource | None = None
    if options.on_error == "quarantine":
        examined = examine_source(
            source, options.labels, decode=options.decode, max_record_bytes=options.max_record_bytes
        )
    damage = examined.damage if examined else None
    return plan_shards(source.splits, options.max_shard_bytes, damage, options.max_record_bytes), examined


def _convert(conversion: Conversion, engine: Engine, staging: Staging, progress: Progress | None) -> Report:
    """Fill the staging with a complete output, compared with its source."""
    source, options = conversion.source, conversion.options
    described = conversion.description()
    plan, examined = plan_conversion(conversion, described, staging)
    finished = staging.finished(plan)
    staging.require_space(source)
    staging.begin()
    job = conversion.job(staging, examined, durable=options.engine != "local")
    # Closed whatever happens, so that no task goes on when the staging is tidied up.
    with closing(_results(engine, partial(convert_shard, job), plan.without(finished), progress)) as new:
        report = complete(
            conversion.report(len(finished)),
            source,
            described,
            job,
            conversion.target,
            plan,
            examined,
            in_order(plan, finished, new, options.engine, staging, progress),
            staging,
        )
        if next(new, None) is not None:
            raise ConverterError(
                f"the engine {options.engine!r} returned more results than there are shards."
            )
    return report


def _results(
    engine: Engine, task: Task, shards: Sequence[Shard], progress: Progress | None
) -> Generator[ShardResult, None, None]:
    yield from engine.run(task, shards, progress)


def in_order(
    plan: Plan,
    finished: Mapping[str, Place],
    new: Iterator[ShardResult],
    engine: str,
    staging: Staging,
    progress: Progress | None,
) -> Iterator[ShardResult]:
    """The result of every shard of the plan: of those that are ``finished``, and the ``new`` ones.

    Raises:
        MachineError: a result that was there is gone.
        ConverterError: an engine returned something else than the next result.
    """
    for shard in plan:
        place = finished.get(shard.key)
        if place is None:
            result = next(new, None)
            if result is None or result.shard != shard:
                raise ConverterError(f"the engine {engine!r} returned results out of order.")
        else:
            result = staging.load(place, shard)
            if result is None:
                raise MachineError(f"{place}: the result of this shard is gone. Run the same command again")
            if progress is not None:
                progress("read", result.source.records)
                progress("verified", result.output.records)
        yield result


def _check_label_files(source: Source, labels: Path | None) -> None:
    """The label CSVs must be there, and none so large that it cannot belong to its TFRecords.

    A row is far shorter than the record it names, and all rows are held in memory.
    """
    if labels is None:
        return
    if not labels.is_dir():
        raise CallError(f"{labels}: there is no such folder. --labels takes the folder of the label CSVs.")
    for found in source.splits:
        path = labels / (found.split.labels_csv or "")
        if not path.is_file():
            raise CallError(f"{path}: there is no such label CSV, which {found.split.title} needs.")
        largest = _FREE_LABEL_BYTES + sum(file.size for file in found.files)
        if (size := path.stat().st_size) > largest:
            raise DataError(
                f"the label CSV has {size} bytes; at most {largest} are accepted for TFRecords as large as those of "
                f"{found.split.title}.",
                Location(str(path)),
                "Is it the right file?",
            )
