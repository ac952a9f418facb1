"""A conversion by many processes that know nothing of each other but a shared file system: plan, run, merge.

For clusters whose scheduler starts the same command many times, each with its rank, as Slurm does. The plan, the
task and the merge are those of a conversion in one go; only where they run differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from converters.convert.finish import complete
from converters.convert.run import (
    Conversion,
    Options,
    in_order,
    machine_error,
    plan_conversion,
    prepare,
    published,
)
from converters.convert.shard_task import convert_shard
from converters.dataset.report import Report
from converters.dataset.shard import Progress
from converters.engines.local import LocalEngine
from converters.errors import CallError, MachineError
from converters.formats.tfrecord.plan import Plan, restored_plan
from converters.staging.checkpoint import key_of, run_text
from converters.staging.disk_space import source_bytes
from converters.staging.folder import FolderStaging
from converters.storage.object_store import Place, place

_SHOWN = 3


@dataclass(frozen=True)
class Planned:
    """What a plan comes to: number of shards, and bytes of source."""

    shards: int
    source_bytes: int


def plan(source: Place, format_name: str, out: Path, options: Options, *, overwrite: bool = False) -> Planned:
    """Plan a conversion, and leave the plan beside the destination, where :func:`run_shards` finds it.

    Raises:
        CallError: the call is wrong, or another run has begun there.
        DataError: the source is damaged.
    """
    if options.on_error != "fail":
        raise CallError("a plan for many processes does not take --on-error quarantine.")
    if isinstance(source, Path):
        source = source.absolute()
    conversion = prepare(source, format_name, out, options)
    staging = FolderStaging(out, overwrite=overwrite)
    try:
        with staging:
            shards, _ = plan_conversion(conversion, conversion.description(), staging)
            staging.finished(shards)
            staging.require_space(conversion.source)
            staging.begin()
            staging.save_plan(
                {
                    "source": str(conversion.source.folder),
                    "format": format_name,
                    "options": asdict(options) | {"labels": _absolute(options.labels)},
                    "overwrite": overwrite,
                    "shards": shards.to_json(),
                }
            )
    except (OSError, MachineError, MemoryError) as error:
        raise machine_error(error, conversion.source, staging) from error
    return Planned(len(shards), source_bytes(conversion.source))


def run_shards(
    out: Path, rank: int, world_size: int, *, workers: int = 1, progress: Progress | None = None
) -> tuple[int, int]:
    """Convert the shards of one rank: every ``world_size``-th, from shard ``rank`` on, but for the finished ones.

    Returns:
        How many were converted, and how many had been finished before.

    Raises:
        CallError: nothing is planned there, the source is not what was planned, or the rank is none.
        DataError: the source is damaged.
    """
    if not 0 <= rank < world_size:
        raise CallError(f"rank {rank} of {world_size}: ranks are numbered from 0 to {world_size - 1}.")
    staging = FolderStaging(out, overwrite=_overwrites(_peek(out)), shared=True)
    with staging:
        conversion, _, shards = _planned(staging, staging.read_plan())
        mine = shards.share(rank, world_size)
        finished = {
            key_of(folder)
            for folder in staging.finished_folders()
            if (shard := shards.find(key_of(folder))) is not None and staging.load(folder, shard) is not None
        }
        left = shards.share(rank, world_size, without=finished)
        task = partial(convert_shard, conversion.job(staging, None, durable=True))
        try:
            for _ in LocalEngine(workers).run(task, left, progress):
                pass
        except (OSError, MachineError, MemoryError) as error:
            raise machine_error(error, conversion.source, staging) from error
        return len(left), len(mine) - len(left)


def merge(out: Path, *, progress: Progress | None = None) -> Report:
    """Merge what all ranks converted, prove it, and publish it.

    Raises:
        CallError: nothing is planned there, or shards are missing.
        DataError: the source changed.
        CheckError: a check failed; nothing was published, and the shards are kept.
    """
    document = _peek(out)
    staging = FolderStaging(out, overwrite=_overwrites(document))
    conversion, described, shards = _planned(staging, document)

    def fill() -> Report:
        staging.claim(described)
        finished = staging.finished(shards)
        _refuse_missing(shards, finished, out)
        staging.begin()
        return complete(
            conversion.report(0),
            conversion.source,
            described,
            conversion.job(staging, None, durable=True),
            conversion.target,
            shards,
            None,
            in_order(shards, finished, iter(()), "none", staging, progress),
            staging,
        )

    return published(staging, conversion.source, fill)


def _peek(out: Path) -> dict[str, Any]:
    """The plan, before the staging is entered: it says how."""
    return FolderStaging(out).read_plan()


def _overwrites(document: Mapping[str, Any]) -> bool:
    return document.get("overwrite") is True


def _planned(staging: FolderStaging, document: Mapping[str, Any]) -> tuple[Conversion, dict[str, Any], Plan]:
    """The conversion that was planned, of a source that is still the same; its description; and the plan.

    Raises:
        CallError: the source is not, or this is no plan of this version.
    """
    try:
        options = Options(
            **{
                **document["options"],
                "configs": tuple(document["options"]["configs"]),
                "splits": tuple(document["options"]["splits"]),
                "labels": None
                if document["options"]["labels"] is None
                else Path(document["options"]["labels"]),
            }
        )
        if not isinstance(options.allow_mismatch, bool):
            raise TypeError("allow_mismatch")
        conversion = prepare(
            place(document["source"]), document["format"], Path(str(staging.destination)), options
        )
        described = conversion.description()
        if run_text(described) != staging.stated_run():
            raise CallError(
                f"{staging.destination}: the source, the version or the options are not those of the plan. "
                "Plan again: kfer-convert plan"
            )
        return conversion, described, restored_plan(conversion.source.splits, document["shards"])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CallError(
            f"{staging.destination}: the plan is none of this version ({error}). Plan again: kfer-convert plan"
        ) from error


def _refuse_missing(shards: Plan, finished: Mapping[str, object], out: Path) -> None:
    missing = [number for number, shard in enumerate(shards) if shard.key not in finished]
    if missing:
        names = ", ".join(f"{number} ({shards[number].key})" for number in missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise CallError(
            f"{out}: {len(missing)} of {len(shards)} shards are not finished: {names}{more}. Run run-shards again for "
            "these; shard i is of rank i modulo the world size."
        )


def _absolute(labels: Path | None) -> str | None:
    return None if labels is None else str(labels.absolute())
