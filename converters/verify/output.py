"""Verification: proves an output again from its manifest, and against its source where that is given.

Works from the output alone, with no knowledge of how it was written: the manifest names every file and every
fingerprint, the files are hashed, and the fingerprints are recomputed from what the format reads back. Nothing
in an output is trusted: names are checked before they are used, and no link is followed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

from converters.dataset.decode import encode
from converters.dataset.description import IDENTITIES, Split
from converters.dataset.fingerprint import Fingerprint, Part, PartBuilder, merge
from converters.dataset.known_answer import check_known_answer
from converters.dataset.manifest import MANIFEST, SUMS, Manifest, StatedSplit, sums_text
from converters.dataset.quarantine import FOLDER, LIST, Quarantine, list_text
from converters.dataset.report import Check, Report, ShardFacts, SplitReport
from converters.dataset.shard import Progress, Shard, SliceFacts
from converters.dataset.source import Source, SourceSplit
from converters.dataset.source_facts import SourceFacts
from converters.engines import load_engine
from converters.errors import CallError, ConverterError, DataError, Location
from converters.formats import Finishes, Format, load_format
from converters.formats.fetch import fetch, stated_manifest
from converters.formats.output_source import is_output, stated_options
from converters.formats.sources import open_source
from converters.formats.tfrecord.source import Reader, TFRecordSource
from converters.formats.tfrecord.tensorflow import require_tensorflow
from converters.storage.files import read_bounded
from converters.storage.object_store import SCRATCH, ObjectPath, Place, hash_object, list_objects
from converters.storage.tree import hash_file, walk_empty_folders, walk_files
from converters.verify import compare
from converters.verify.datasets_reader import confirm, require_datasets, require_known_layout
from converters.verify.shards import VerifiedShard, VerifyTask, changed_files, files_of, shards_of

SOURCE = "source"

_SHOWN = 200


OutputReader = Reader | Literal["datasets"]
"""Who gives a second opinion: TensorFlow on the source, or `datasets` on the output."""


def verify_output(
    out: Place,
    source: Place | None,
    reader: OutputReader,
    progress: Progress | None,
    *,
    workers: int | None = 1,
    engine: str = "local",
    engine_options: Mapping[str, Any] | None = None,
    sample: int | None = None,
) -> Report:
    """See :func:`converters.api.verify`."""
    check_known_answer()
    if reader == "datasets":
        require_datasets()
    if reader == "tensorflow":
        if source is None:
            raise CallError("--reader tensorflow reads the originals, so --source is needed with it.")
        require_tensorflow()
    if isinstance(out, ObjectPath) and (reader == "datasets" or source is not None):
        with fetch(out) as folder:  # these go over the whole output more than once
            report = verify_output(
                Path(folder),
                source,
                reader,
                progress,
                workers=workers,
                engine=engine,
                engine_options=engine_options,
            )
        return replace(report, out=str(out))
    manifest, data = stated_manifest(out)
    if reader == "tensorflow" and any(
        entry.quarantine and entry.quarantine.ranges for entry in manifest.splits
    ):
        raise CallError(
            "this output has records in quarantine, and TensorFlow stops at the first damage: leave --reader out."
        )
    if reader == "datasets":
        require_known_layout(manifest.format)
    shards = shards_of(out, manifest)
    try:
        problems = _check_files(out, manifest, data, shards) + _check_list(manifest)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}.", Location(error.filename or str(out))) from error
    target = None
    unread = "files of the output are missing or extra, so its content was not read" if problems else None
    if unread is None:
        try:
            target = load_format(manifest.format, **manifest.options.format_options)
        except CallError as error:
            unread = str(error)
            problems.append(f"its content is unverified: {error}")
    chosen = _chosen(shards, sample)
    found: dict[str, VerifiedShard] = {}
    if target is not None:
        if isinstance(out, Path):
            problems += _unlisted_records(out, target, manifest)
        task = VerifyTask(out, manifest.format, manifest.options.format_options)
        runs = load_engine(engine, workers, **(engine_options or {}))
        results = runs.run(cast(Any, task), chosen, progress)
        found = {result.shard.key: cast(Any, result) for result in results}
        problems += [problem for shard in found.values() for problem in shard.problems]
    read = [_split_report(manifest, entry, shards, found, unread) for entry in manifest.splits]
    splits = tuple(split for split, _ in read)
    report = Report(
        description=manifest.dataset,
        format=manifest.format,
        out=str(out),
        splits=splits,
        warnings=manifest.warnings,
        files=manifest.files,
        problems=tuple(problems),
        allow_mismatch=manifest.allow_mismatch,
        options=encode(manifest.options),
        origin=manifest.origin,
    )
    if target is not None and not report.problems and sample is None and isinstance(out, Path):
        report = replace(report, problems=tuple(_of_no_record(report, manifest, target, out, shards, found)))
    if not isinstance(out, Path):
        return report
    if reader == "datasets":
        report = confirm(report, out, target if not problems else None, progress)
        reader = "native"  # of the source
    if source is None:
        return report
    return _verify_source(report, manifest, [stored for _, stored in read], source, reader, progress)


def _chosen(shards: Sequence[Shard], sample: int | None) -> Sequence[Shard]:
    """The shards to read: all, or some by chance."""
    if sample is None or sample >= len(shards):
        return shards
    numbers = sorted(random.SystemRandom().sample(range(len(shards)), sample))
    return [shards[number] for number in numbers]


def _check_files(out: Place, stated: Manifest, manifest: bytes, shards: Sequence[Shard]) -> list[str]:
    """What is missing or extra, and what is changed of the files that are no shard's; a sentence each."""
    problems = []
    files = stated.files
    if isinstance(out, Path):
        empty, known_empty = set(walk_empty_folders(out)), set(stated.empty_folders)
        problems += [
            f"{path}: this empty folder is not in the manifest" for path in sorted(empty - known_empty)
        ]
        problems += [f"{path}: this folder is missing" for path in sorted(known_empty - empty)]
    there = set(walk_files(out)) if isinstance(out, Path) else set(list_objects(out))
    known = {file.path for file in files} | {MANIFEST, SUMS}
    problems += [f"{path}: this file is not in the manifest" for path in sorted(there - known)]
    problems += [f"{path}: this file is missing" for path in sorted(known - there)]
    in_shards = {file.path for shard in shards for file in files_of(shard)}
    others = [file for file in files if file.path in there and file.path not in in_shards]
    problems += changed_files(
        others, lambda path: hash_object(out / path) if isinstance(out, ObjectPath) else hash_file(out / path)
    )
    if SUMS in there:
        expected = sums_text(files, manifest).encode()
        try:
            agrees = read_bounded(out / SUMS, len(expected), follow_links=False) == expected
        except OSError as error:
            problems.append(f"{SUMS}: cannot be read, or is not what it must be: {error.strerror}")
        else:
            if not agrees:
                problems.append(f"{MANIFEST} and {SUMS} contradict each other: one of them was changed")
    return problems


def _of_no_record(
    report: Report,
    manifest: Manifest,
    target: Format,
    out: Path,
    shards: Sequence[Shard],
    found: Mapping[str, VerifiedShard],
) -> Iterator[str]:
    """What is wrong with files that hold no records: what the format writes about the dataset is written again.

    Sums that were renewed do not help what was changed by hand: a card, the terms, a description.
    """
    accounted = {file.path for shard in shards for file in files_of(shard)}
    accounted |= {file.path for file in manifest.files if file.path.startswith(f"{FOLDER}/")}
    if not isinstance(target, Finishes):
        return
    sizes = {file.path: file.size for file in manifest.files}
    splits = []
    for split in report.splits:
        own = [shard for shard in shards if shard.split.title == split.split.title]
        facts = tuple(ShardFacts(0, (), (), found[shard.key].summary) for shard in own)
        size = sum(file.size for shard in own for file in files_of(shard))
        # What the label CSVs said when it was converted is in the reasons; the results were compared.
        stated = next(entry.checks for entry in manifest.splits if entry.title == split.split.title)
        splits.append(replace(split, shards=facts, output_bytes=size, checks=stated))
    files = tuple(file for file in manifest.files if file.path in accounted)
    again = replace(report, splits=tuple(splits), absent=_absent(manifest), files=files)
    with TemporaryDirectory(prefix=SCRATCH) as name:
        try:
            target.finish(again, Path(name))
        except Exception as error:  # noqa: BLE001  # a format, and maybe somebody else's
            yield f"what describes the dataset cannot be written again: {error}"
            return
        written = sorted(walk_files(name))
        for path in written:
            if path not in sizes:
                yield f"{path}: this file, which the format writes, is missing"
            elif hash_file(Path(name, path)) != hash_file(out / path):
                yield f"{path}: it is not what this version writes about this dataset; it was changed"
    accounted |= set(written)
    yield from (
        f"{path}: no record and no format accounts for this file" for path in sizes if path not in accounted
    )


def _absent(manifest: Manifest) -> tuple[Split, ...]:
    return tuple(split for split in manifest.dataset.splits() if split.title in manifest.absent)


def _check_list(manifest: Manifest) -> list[str]:
    """The list of quarantined ranges must say what the manifest does."""
    if not any(entry.quarantine and entry.quarantine.ranges for entry in manifest.splits):
        return []
    text = list_text((manifest.split(entry), entry.quarantine) for entry in manifest.splits)
    expected = hashlib.sha256(text.encode()).hexdigest()
    if any(file.path == LIST and file.sha256 == expected for file in manifest.files):
        return []
    return [f"{LIST}: it is not the list that {MANIFEST} has"]


def _unlisted_records(out: Path, target: Format, manifest: Manifest) -> list[str]:
    """Splits that the manifest does not list, and of which there are records nevertheless; a sentence each."""
    listed = {entry.title for entry in manifest.splits}
    problems = []
    for split in manifest.dataset.splits():
        if split.title in listed:
            continue
        try:
            found = any(len(batch) for batch in target.read(out, split))
        except Exception:  # noqa: BLE001  # nothing is there, which formats say in different ways
            found = False
        if found:
            problems.append(
                f"{split.title}: there are records of this split, which the manifest does not list"
            )
    return problems


def _split_report(
    manifest: Manifest,
    entry: StatedSplit,
    shards: Sequence[Shard],
    found: Mapping[str, VerifiedShard],
    unread: str | None,
) -> tuple[SplitReport, Fingerprint]:
    """What was found of a split, and the fingerprint without joined columns, which is what the source's must be."""
    split, expected = manifest.split(entry), entry.fingerprint
    own = [shard for shard in shards if shard.split.title == entry.title]
    results = [found.get(shard.key) for shard in own]

    def ended(
        name: str, result: Literal["failed", "unverified"], reason: str
    ) -> tuple[SplitReport, Fingerprint]:
        check = Check(name, result, reason)
        return SplitReport(split, entry.sources, 0, expected, (check,), entry.quarantine), expected

    if unread is not None:
        return ended(compare.RECORDS, "unverified", unread)
    for shard, result in zip(own, results, strict=True):
        where = (
            ""
            if len(own) == 1
            else f"shard {shard.index} of {len(own)}, from record {shard.first_record} on: "
        )
        if result is not None and result.problems:
            reason = "files of the output are missing, extra or changed, so its content was not read"
            return ended(compare.RECORDS, "unverified", where + reason)
        if result is not None and result.error is not None:
            return ended("content", "failed", where + result.error)
    read = [result for result in results if result is not None]
    if len(own) > 1 and (other := _other_shard(entry, read)) is not None:
        where = f"shard {other.shard.index} of {len(own)}, from record {other.shard.first_record} on: "
        return ended("fingerprint", "failed", where + "what was read back is not what the manifest says")
    if len(read) < len(own):
        reason = f"{len(read)} of {len(own)} shards were read, by chance; these are what the manifest says"
        return ended(compare.RECORDS, "unverified", reason)
    found_now = merge((result.part for result in read if result.part is not None), split.schema)
    joined = found_now.identities_sha256 is not None
    unjoined = (
        split.schema.without([name for name in IDENTITIES if split.schema[name].feature is None])
        if joined
        else split.schema
    )
    stored = merge((result.stored for result in read if result.stored is not None), unjoined)
    clips = len(frozenset().union(*(result.clips for result in read))) or None
    checks = compare.compare(split, expected, found_now, entry.sources, identified=joined, clips=clips)
    if entry.quarantine is not None:
        checks = compare.explain(split, found_now, checks, entry.quarantine)
    if found_now != expected:
        checks += (Check("fingerprint", "failed", "what was read back is not what the manifest says"),)
    elif sum(source.records for source in entry.sources) != expected.records:
        checks += (
            Check("checks", "failed", "the records of the sources in the manifest are not the split's"),
        )
    elif _results(checks) != _results(entry.checks):
        checks += (Check("checks", "failed", "the results in the manifest are not those of these checks"),)
    return SplitReport(split, entry.sources, 0, found_now, checks, entry.quarantine), stored


def _other_shard(entry: StatedSplit, read: Sequence[VerifiedShard]) -> VerifiedShard | None:
    """The first shard whose records are not those that the manifest states of it."""
    for result in read:
        stated = entry.shards[result.shard.index]
        if result.part is None or (result.part.records, result.part.nodes) != (stated.records, stated.nodes):
            return result
    return None


def _results(checks: Iterable[Check]) -> list[tuple[str, str, bool]]:
    return [(check.name, check.result, check.published) for check in checks]


def _verify_source(
    report: Report,
    manifest: Manifest,
    stored: Sequence[Fingerprint],
    folder: Place,
    reader: Reader,
    progress: Progress | None,
) -> Report:
    """Read the originals again and compare them with the output, file by file and record by record.

    They are opened by their own description: names, columns and splits are not taken from the manifest.
    """
    source = open_source(
        folder,
        configs=tuple(dict.fromkeys(entry.config for entry in manifest.splits)),
        reader=reader,
        max_record_bytes=manifest.options.max_record_bytes,
        without=_left_out(manifest, folder),
        allow_mismatch=True,
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
    digests = {file.path: file.sha256 for file in report.files}
    splits = []
    for split, read in zip(report.splits, stored, strict=True):
        original = found.get(split.split.title)
        if original is None:
            check = Check(SOURCE, "failed", f"{split.split.file} is not in {folder}")
        else:
            try:
                expected = (
                    split.fingerprint if source.identified else read
                )  # an output has joined columns, too
                check = _compare_source(
                    source, original, split, expected, manifest.options.max_shard_bytes, progress
                )
                if check.result == "passed" and split.quarantine is not None:
                    check = _compare_quarantine(source, original, split.quarantine, digests, check)
            except ConverterError as error:
                check = Check(SOURCE, "failed", str(error))
        splits.append(replace(split, checks=(*split.checks, check)))
    return replace(report, splits=tuple(splits), problems=tuple(problems), warnings=warnings)


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
    if isinstance(theirs, list) and isinstance(stated, list) and len(theirs) == len(stated):
        for number, (their, our) in enumerate(zip(theirs, stated, strict=True)):
            if their != our:
                return _difference(their, our, f"{place} {number}".strip())
    return f"{place or 'it'} is {theirs!r:.{_SHOWN}} there and {stated!r:.{_SHOWN}} in the manifest"


def _compare_quarantine(
    source: Source,
    original: SourceSplit,
    quarantine: Quarantine,
    digests: Mapping[str, str],
    passed: Check,
) -> Check:
    """The bytes in quarantine must be the originals'."""
    if not isinstance(source, TFRecordSource):
        return passed  # the ranges are the originals'; another output has copies of them
    piece = source.differing_range(original, quarantine, digests)
    if piece is not None:
        return Check(
            SOURCE, "failed", f"the bytes of {piece.file} at byte {piece.offset} are not those in {piece.raw}"
        )
    if not quarantine.ranges:
        return passed
    return replace(
        passed, reason=f"{passed.reason}, and so do the {len(quarantine.ranges)} quarantined ranges"
    )


def _compare_source(
    source: Source,
    original: SourceSplit,
    split: SplitReport,
    stored: Fingerprint,
    max_shard_bytes: int,
    progress: Progress | None,
) -> Check:
    """Read a split of the source, and compare its columns, its records and its files with what the output says."""
    theirs = [column.to_json() for column in original.split.schema]
    ours = [column.to_json() for column in split.split.schema]
    joined = {"img_id", "clip_id"} - {column["name"] for column in theirs}
    if theirs != [column for column in ours if column["name"] not in joined]:
        return Check(SOURCE, "failed", f"the columns are others: {_difference(theirs, ours)}")
    facts: list[SliceFacts] = []

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
            yield builder.part()

    found = merge(parts(), original.split.schema)
    if not joined:
        stored = split.fingerprint  # the source has all columns: it is an output, too, or nothing was joined
    if joined or found.identities_sha256 is None:
        found, stored = replace(found, identities_sha256=None), replace(stored, identities_sha256=None)
    if found != stored:
        names = [
            name for name in ("records", "labels_sha256") if getattr(found, name) != getattr(stored, name)
        ]
        return Check(
            SOURCE, "failed", f"the source's {', '.join(names) or 'records_sha256'} is not the output's"
        )
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
