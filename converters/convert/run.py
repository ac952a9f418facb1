"""The way of a conversion: plan, run the shards, compare, publish."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.convert.finish import finish
from converters.convert.shard_task import ShardTask
from converters.dataset.plan import Plan
from converters.dataset.report import Report
from converters.dataset.shard import Progress, Shard, ShardResult, Task
from converters.dataset.source import Source
from converters.engines import Engine, load_engine
from converters.errors import OUT_OF_MEMORY, CallError, ConverterError, MachineError
from converters.formats import Format, Refuses, load_format
from converters.formats.sources import open_source
from converters.formats.tfrecord.source import OnError, Reader
from converters.staging import Staging, make_staging
from converters.staging.checkpoint import describe_run
from converters.staging.disk_space import DISK_ERRORS
from converters.staging.overlap import refuse_nesting
from converters.storage.object_store import Place


@dataclass(frozen=True)
class Options:
    """How a source is converted; see :func:`converters.convert` for each."""

    configs: tuple[str, ...]
    splits: tuple[str, ...]
    without: tuple[str, ...]
    labels: Path | None
    reader: Reader
    on_error: OnError
    decode: bool
    allow_mismatch: bool
    format_options: Mapping[str, Any]
    max_record_bytes: int
    max_shard_bytes: int
    paranoid: bool
    workers: int | None
    engine: str
    engine_options: Mapping[str, Any]

    def recorded(self, source: Source) -> dict[str, Any]:
        """Those that the output may depend on, for the manifest. It claims nothing that no output can show."""
        return {
            "configs": list(self.configs),
            "splits": list(self.splits),
            "without": list(source.without),
            "labels": source.identified,
            "on_error": self.on_error,
            "format_options": dict(self.format_options),
            "max_record_bytes": self.max_record_bytes,
            "max_shard_bytes": self.max_shard_bytes,
        }


def run(
    source_folder: Place,
    format_name: str,
    out: Place,
    options: Options,
    *,
    overwrite: bool = False,
    repair: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Convert a source folder and publish the output at ``out``, proven equal to its source; or ``repair`` it there.

    Raises:
        CallError: the call or the environment is wrong; nothing was touched.
        DataError: the source is damaged; nothing was published.
        CheckError: a check failed; nothing was published. It carries the report.
    """
    if overwrite and repair:
        raise CallError(
            "--overwrite makes all of an output anew, and --repair only what is damaged: choose one."
        )
    refuse_nesting(out, [source_folder, *([options.labels] if options.labels else [])])
    target = load_format(format_name, **options.format_options)
    source = open_source(
        source_folder,
        configs=options.configs,
        splits=options.splits,
        labels=options.labels,
        reader=options.reader,
        on_error=options.on_error,
        decode=options.decode,
        max_record_bytes=options.max_record_bytes,
        without=options.without,
        paranoid=options.paranoid,
        allow_mismatch=options.allow_mismatch,
        progress=progress,
    )
    if isinstance(target, Refuses):
        target.refuse([found.split for found in source.splits])
    engine = load_engine(options.engine, options.workers, **options.engine_options)
    staging = make_staging(out, overwrite=overwrite, repair=repair)
    if repair:
        # Here, as it brings all that verifies outputs.
        from converters.convert.repair import repair as repair_output

        return repair_output(source, format_name, options.recorded(source), engine, staging, progress)
    conversion = _Conversion(source, format_name, target, str(out), options)
    return _published(staging, source, lambda: _convert(conversion, engine, staging, progress))


@dataclass(frozen=True)
class _Conversion:
    """A conversion that was rightly called for."""

    source: Source
    format: str
    target: Format
    out: str
    options: Options


def _published(staging: Staging, source: Source, fill: Callable[[], Report]) -> Report:
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
            raise _machine_error(error, source, staging) from error
    return report


def _machine_error(
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


def _convert(conversion: _Conversion, engine: Engine, staging: Staging, progress: Progress | None) -> Report:
    """Fill the staging with a complete output, compared with its source."""
    source, options = conversion.source, conversion.options
    inputs = source.inputs()
    recorded = options.recorded(source)
    claimed = recorded | {"reader": options.reader, "decode": options.decode}
    staging.claim(describe_run(source.description, inputs, conversion.format, claimed))
    plan = source.plan(options.max_shard_bytes)
    finished = staging.finished(plan)
    staging.require_space(source)
    staging.begin()
    workspace = staging.workspace(durable=options.engine != "local")
    task = ShardTask(source.reading, workspace, conversion.format, options.format_options)
    report = Report(
        description=source.description,
        format=conversion.format,
        out=conversion.out,
        splits=(),
        absent=source.absent,
        allow_mismatch=options.allow_mismatch,
        options=recorded,
        origin=source.origin,
        resumed_shards=len(finished),
    )
    # Closed whatever happens, so that no task goes on when the staging is tidied up.
    with closing(_results(engine, task, plan.without(finished), progress)) as new:
        results = _in_order(plan, finished, new, options.engine, staging, progress)
        report = finish(report, source, inputs, conversion.target, plan, results, staging)
        if next(new, None) is not None:
            raise ConverterError(
                f"the engine {options.engine!r} returned more results than there are shards."
            )
    return report


def _results(
    engine: Engine, task: Task, shards: Sequence[Shard], progress: Progress | None
) -> Generator[ShardResult, None, None]:
    yield from engine.run(task, shards, progress)


def _in_order(
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
