"""Holds an output against what it was made from: read again, and nothing taken on the manifest's word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from converters.dataset.description import Split
from converters.dataset.fingerprint import Fingerprint, Merger, Part, PartBuilder, merge
from converters.dataset.manifest import MANIFEST, Manifest, StatedSplit
from converters.dataset.quarantine import Quarantine
from converters.dataset.report import Check, Report, SplitReport
from converters.dataset.shard import Progress, SliceFacts
from converters.dataset.source import Source, SourceSplit
from converters.dataset.source_facts import SourceFacts
from converters.errors import ConverterError
from converters.formats import Format
from converters.formats.output_source import is_output, stated_options
from converters.formats.sources import open_source
from converters.formats.tfrecord.quarantine_folder import differing_range
from converters.formats.tfrecord.source import Reader, TFRecordSource
from converters.storage.object_store import Place
from converters.verify import compare
from converters.verify.read_back import read_back

SOURCE = "source"

_SHOWN = 200


def compare_with_source(
    report: Report,
    manifest: Manifest,
    out: Path,
    target: Format | None,
    folder: Place,
    reader: Reader,
    progress: Progress | None,
) -> Report:
    """Read the originals again and compare them with the output, file by file and record by record.

    They are opened by their own description: names, columns and splits are not taken from the manifest. ``target`` is
    the format of the output ``out``; None where not all of that could be read.
    """
    # What was absent from an output that this one was made from may well be in the originals.
    absent = () if manifest.origin else report.absent
    configs = [entry.config for entry in manifest.splits] if manifest.origin else manifest.options.configs
    quarantined = any(split.quarantine and split.quarantine.ranges for split in report.splits)
    source = open_source(
        folder,
        configs=() if is_output(folder) else tuple(dict.fromkeys(configs)),
        reader=reader,
        max_record_bytes=manifest.options.max_record_bytes,
        without=_left_out(manifest, folder),
        allow_mismatch=True,
        # What was inferred was so without the records in quarantine.
        on_error="quarantine" if quarantined and not is_output(folder) else "fail",
    )
    problems, warnings = list(report.problems), report.warnings
    theirs, stated = source.description.document, manifest.dataset.document
    name = source.description.name
    if name != manifest.dataset.name and isinstance(source, TFRecordSource) and source.named_after_place:
        warnings += (f"the dataset is called {manifest.dataset.name}, and its source {name} now",)
        theirs = {**theirs, "name": manifest.dataset.name}
        name = manifest.dataset.name
    if (theirs, name) != (stated, manifest.dataset.name):
        problems.append(
            f"the description in {MANIFEST} is not the one of {folder}: {_difference(theirs, stated)}"
        )
    found = {found.split.title: found for found in source.splits}
    problems += [
        f"{split.title} is in {folder}, and {MANIFEST} says that it was absent"
        for split in absent
        if split.title in found
    ]
    digests = {file.path: file.sha256 for file in report.files}
    splits = []
    for split, entry in zip(report.splits, manifest.splits, strict=True):
        original = found.get(split.split.title)
        if original is None:
            check = Check(SOURCE, "failed", f"{split.split.file} is not in {folder}")
        else:
            try:
                expected = split.fingerprint
                if target is not None and split.split.schema.joined_names and not source.identified:
                    expected = _without_joined(target, out, split.split)
                check = _compare_source(source, original, split, expected, manifest, entry, progress)
                if check.result == "passed" and split.quarantine is not None:
                    check = _compare_quarantine(source, original, split, split.quarantine, digests, check)
            except ConverterError as error:
                check = Check(SOURCE, "failed", str(error))
        splits.append(replace(split, checks=(*split.checks, check)))
    return replace(report, splits=tuple(splits), problems=tuple(problems), warnings=warnings)


def _without_joined(target: Format, out: Path, split: Split) -> Fingerprint:
    """The fingerprint of an output's split without the columns that label CSVs joined, which originals do not have."""
    schema = split.schema.without(sorted(split.schema.joined_names))
    merger, first = Merger(schema), 0
    for batch in read_back(target, out, split):
        builder = PartBuilder(first, schema)
        builder.add(batch.select(schema.arrow.names))
        merger.add(builder.part())
        first += len(batch)
    return merger.fingerprint()


def _left_out(manifest: Manifest, folder: Place) -> tuple[str, ...]:
    """The columns to leave out of a source, so that it has those of an output: of another output, what it still has."""
    if not is_output(folder):
        return manifest.options.without
    return tuple(name for name in manifest.options.without if name not in stated_options(folder).without)


def _difference(theirs: Any, stated: Any, place: str = "") -> str:  # noqa: ANN401  # JSON
    """Where two JSON documents first differ, and how."""
    if isinstance(theirs, dict) and isinstance(stated, dict):
        for key in [*theirs, *stated]:
            if theirs.get(key) != stated.get(key):
                return _difference(theirs.get(key), stated.get(key), f"{place} {key}".strip())
    if isinstance(theirs, list) and isinstance(stated, list):
        for number, (their, our) in enumerate(zip_longest(theirs, stated)):
            if their != our:
                return _difference(their, our, f"{place} {number}".strip())
    return f"{place or 'it'} is {theirs!r:.{_SHOWN}} there and {stated!r:.{_SHOWN}} in the manifest"


def _compare_quarantine(
    source: Source,
    original: SourceSplit,
    split: SplitReport,
    quarantine: Quarantine,
    digests: Mapping[str, str],
    passed: Check,
) -> Check:
    """The bytes in quarantine must be the originals', and damaged there."""
    if not isinstance(source, TFRecordSource):
        return passed  # the ranges are the originals'; another output has copies of them
    piece = differing_range(original, quarantine, digests)
    if piece is not None:
        return Check(
            SOURCE, "failed", f"the bytes of {piece.file} at byte {piece.offset} are not those in {piece.raw}"
        )
    if not quarantine.ranges:
        return passed
    piece = source.sound_range(original, quarantine, split.sources)
    if piece is not None:
        where = f"the {piece.bytes} bytes in quarantine from byte {piece.offset} on"
        return Check(SOURCE, "failed", f"{piece.file}: not all of {where} are damaged")
    return replace(
        passed, reason=f"{passed.reason}, and so do the {len(quarantine.ranges)} quarantined ranges"
    )


def _compare_source(
    source: Source,
    original: SourceSplit,
    split: SplitReport,
    stored: Fingerprint,
    manifest: Manifest,
    entry: StatedSplit,
    progress: Progress | None,
) -> Check:
    """Read a split of the source, and compare its columns, its records and its files with what the output says."""
    theirs = [column.to_json() for column in original.split.schema]
    ours = [column.to_json() for column in split.split.schema]
    joined = {"img_id", "clip_id"} - {column["name"] for column in theirs}
    if theirs != [column for column in ours if column["name"] not in joined]:
        return Check(SOURCE, "failed", f"the columns are others: {_difference(theirs, ours)}")
    facts: list[SliceFacts] = []
    shards: list[int] = []
    max_shard_bytes = manifest.options.max_shard_bytes

    def parts() -> Iterator[Part]:
        if isinstance(source, TFRecordSource):
            plan = source.plan_around(original, split.quarantine, split.sources, max_shard_bytes)
        else:
            plan = source.plan(max_shard_bytes)
        for shard in plan.of(original.split):
            builder = PartBuilder(shard.first_record, original.split.schema)
            shard_reader = source.reading.read(shard)
            for batch in shard_reader:
                first = shard.first_record + builder.records
                compare.check_witnesses(shard_reader.witnesses, builder.add(batch), first, original.split)
                if progress is not None:
                    progress("read", len(batch))
            facts.extend(shard_reader.facts)
            shards.append(builder.records)
            yield builder.part()

    found = merge(parts(), original.split.schema)
    if found != stored:
        names = [
            name for name in ("records", "labels_sha256") if getattr(found, name) != getattr(stored, name)
        ]
        return Check(
            SOURCE, "failed", f"the source's {', '.join(names) or 'records_sha256'} is not the output's"
        )
    # What an output was made from was cut at its own size, and damage that is passed over may move a cut.
    cut = isinstance(source, TFRecordSource) and not manifest.origin and split.quarantine is None
    if cut and shards != [shard.records for shard in entry.shards]:
        reason = f"shards of max_shard_bytes {max_shard_bytes} have other records than the manifest says"
        return Check(SOURCE, "failed", reason)
    account = source.account_of(original, facts)
    for now, then in zip_longest(account.files, split.sources):
        if now and then and isinstance(source, TFRecordSource) and _cuts(now) != _cuts(then):
            now = source.cut_like(original, now, then)
        if now is None or then is None or _identity(now) != _identity(then):
            name = (now or then).name if now or then else ""
            return Check(
                SOURCE, "failed", f"{name}: the manifest states other facts of this file than it has"
            )
    return Check(SOURCE, "passed", f"{found.records:,} records read again from the source equal the output's")


def _cuts(facts: SourceFacts) -> list[int]:
    """Where the ranges end in which a file was read."""
    return [end for end, _ in facts.ranges]


def _identity(facts: SourceFacts) -> SourceFacts:
    """What must be the same of a source file, whether or not its index and its checksum file are still beside it."""
    return replace(facts, indexed=None, published=None, md5=None)
