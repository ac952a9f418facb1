"""A damaged output is mended in its place: what of it is lost or changed is made again, and nothing else.

Its manifest stays, and says what each file must be: a shard that is made again must have the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

from converters.convert.shard_task import ShardTask
from converters.dataset.decode import encode
from converters.dataset.manifest import MANIFEST, SUMS, Manifest
from converters.dataset.report import CheckError, Report
from converters.dataset.shard import Progress
from converters.dataset.source import Source
from converters.dataset.source_facts import SourceFacts
from converters.engines import Engine
from converters.errors import CallError, DataError, Location, MachineError
from converters.formats import Joins
from converters.formats.fetch import stated_manifest
from converters.staging import Staging
from converters.staging.mending import Mending, put_files
from converters.storage.file_list import OutputFile
from converters.storage.files import read_bounded
from converters.storage.object_store import Place
from converters.storage.tree import hash_file, hash_ranges, join_files
from converters.verify.output import Verification
from converters.verify.shards import files_of, shards_with

_GOES_ON = "What was mended stays so; the same command goes on from there."
_ANEW = "Make all of it anew, with --overwrite or to another --out."


def repair(
    source: Source,
    format_name: str,
    recorded: Mapping[str, Any],
    engine: Engine,
    staging: Staging,
    progress: Progress | None,
) -> Report:
    """Verify the output at ``staging.destination``, make again what of it is damaged, and prove the whole.

    Args:
        source: what it was made from.
        format_name: its format.
        recorded: the options of this call, as a manifest states them.
        engine: where the work runs.
        staging: what keeps other runs away from it.
        progress: see :func:`converters.convert`.

    Raises:
        CallError: there is no output, or it was made otherwise.
        DataError: what was made again is not what the manifest says.
        CheckError: the output is damaged in a way that cannot be mended. It carries the report.
        MachineError: the machine failed; what was mended stays so.
    """
    out = staging.destination
    _refuse_other(stated_manifest(out)[0], source, format_name, recorded, str(out))
    try:
        with staging:
            staging.begin()
            verification = Verification(out)
            verification.read(verification.shards, engine, progress)
            remade = shards_with(verification.manifest, verification.damaged)
            if remade:
                _make_again(verification, source, remade, engine, staging, progress)
            if verification.damaged and verification.readable:
                _write_again(verification, source, staging)
                verification.check_files()
            report = replace(verification.report(), remade_shards=remade)
    except KeyboardInterrupt as error:
        error.add_note(f"interrupted. {_GOES_ON}")
        raise
    except OSError as error:
        raise MachineError(f"{out}: {error.strerror or error}. {_GOES_ON}") from error
    if failures := report.failures():
        raise CheckError(f"{out}: it cannot be mended: {failures[0]}. {_ANEW}", report)
    return report


def _refuse_other(
    manifest: Manifest, source: Source, format_name: str, recorded: Mapping[str, Any], out: str
) -> None:
    """Only the command that made an output mends it."""
    pairs = {
        "format": (format_name, manifest.format),
        "description of the source": (source.description.document, manifest.dataset.document),
        **{name: (recorded[name], value) for name, value in encode(manifest.options).items()},
    }
    if not manifest.origin:
        pairs["source"] = (
            {found.split.title: [[file.name, file.size] for file in found.files] for found in source.splits},
            {
                entry.title: [[facts.name, facts.bytes] for facts in entry.sources]
                for entry in manifest.splits
            },
        )
    differs = [name for name, (ours, theirs) in pairs.items() if json.dumps(ours) != json.dumps(theirs)]
    if differs:
        raise CallError(
            f"{out}: how it was made differs in {' and '.join(differs)}. Repeat the command that made it, with "
            "--repair; or make all of it anew, with --overwrite or to another --out."
        )


def _make_again(
    verification: Verification,
    source: Source,
    keys: Sequence[str],
    engine: Engine,
    staging: Staging,
    progress: Progress | None,
) -> None:
    """Make shards again, put what the output lacks of them into its place, and verify these shards again."""
    options, stated, damaged = verification.manifest.options, verification.stated, verification.damaged
    plan = source.plan(options.max_shard_bytes)
    shards = [shard for shard in map(plan.find, keys) if shard is not None]
    if len(shards) < len(keys):
        raise DataError(
            "it is cut into other shards than the source is now.", Location(str(verification.out)), _ANEW
        )
    joins: dict[str, Sequence[str]] = {}
    if isinstance(verification.format, Joins):
        for found in source.splits:
            joins |= verification.format.joins(found.split, len(plan.of(found.split)))
    joins = {path: parts for path, parts in joins.items() if path in damaged}
    lacking = {path: stated[path] for path in damaged if path in stated}
    parts = frozenset(chain.from_iterable(joins.values()))
    workspace = Mending(staging.workspace(durable=True), verification.out, lacking, parts, staging.scratch)
    task = ShardTask(source.reading, workspace, verification.manifest.format, options.format_options)
    results = list(engine.run(task, shards, progress))
    for path, names in joins.items():
        own = [file for result in results for file in result.files if file.path in names]
        joined = OutputFile(path, *join_files(staging.scratch, own, staging.output / path))
        put_files(staging.output, verification.out, [joined] if joined == stated[path] else [])
    verification.read(
        [shard for shard in verification.shards if any(file.path in lacking for file in files_of(shard))],
        engine,
        progress,
    )


def _write_again(verification: Verification, source: Source, staging: Staging) -> None:
    """Put what is no shard's into its place, once the shards are sound: cards, what is in quarantine, the sums."""
    folder, report, stated = staging.output / "again", verification.report(), verification.stated
    folder.mkdir()
    verification.write_descriptions(report, folder)
    source.write_lost(report, folder)
    written = [
        OutputFile(path, *hash_file(folder / path))
        for path in verification.damaged
        if (folder / path).is_file()
    ]
    mended = [file for file in written if file == stated.get(file.path)]
    if SUMS in verification.damaged and _is_the_manifest(verification, source):
        (folder / SUMS).write_bytes(verification.sums())
        mended.append(OutputFile(SUMS, *hash_file(folder / SUMS)))
    put_files(folder, verification.out, mended)


def _is_the_manifest(verification: Verification, source: Source) -> bool:
    """Whether nothing speaks against the manifest: the damaged sums list it, or it lists the files of the source."""
    expected = verification.sums()
    found = b""
    with suppress(OSError):
        found = read_bounded(verification.out / SUMS, 2 * len(expected), follow_links=False)
    stated = {line for line in found.splitlines() if line.endswith(f"  {MANIFEST}".encode())}
    if stated or verification.manifest.origin:
        return stated.issubset(expected.splitlines())
    files = {(found.split.title, file.name): file.path for found in source.splits for file in found.files}
    return all(
        _is_unchanged(files[entry.title, facts.name], facts)
        for entry in verification.manifest.splits
        for facts in entry.sources
    )


def _is_unchanged(path: Place, facts: SourceFacts) -> bool:
    ends, digests = zip(*facts.ranges, strict=True) if facts.ranges else ((facts.bytes,), (facts.sha256,))
    return tuple(hash_ranges(path, ends)[1]) == digests
