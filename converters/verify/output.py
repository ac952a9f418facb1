"""Verification: proves an output again from its manifest, and against its source where that is given.

Works from the output alone, with no knowledge of how it was written: the manifest names every file and every
fingerprint, the files are hashed, and the fingerprints are recomputed from what the format reads back. Nothing
in an output is trusted: names are checked before they are used, and no link is followed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from converters.dataset.decode import encode
from converters.dataset.description import IDENTITIES, Split
from converters.dataset.fingerprint import Fingerprint, Part, PartBuilder, merge
from converters.dataset.manifest import MANIFEST, SUMS, Manifest, StatedSplit, read_manifest, sums_text
from converters.dataset.quarantine import LIST, Quarantine, list_text
from converters.dataset.report import Check, Report, SplitReport
from converters.dataset.shard import Progress, SliceFacts
from converters.dataset.source import Source, SourceSplit
from converters.dataset.source_facts import SourceFacts
from converters.errors import CallError, ConverterError, DataError, Location
from converters.formats import Format, load_format
from converters.formats.fetch import fetch
from converters.formats.output_source import is_output, stated_options
from converters.formats.sources import open_source
from converters.formats.tfrecord.source import Reader, TFRecordSource
from converters.formats.tfrecord.tensorflow import require_tensorflow
from converters.storage.file_list import OutputFile
from converters.storage.files import read_bounded
from converters.storage.object_store import Place
from converters.storage.tree import hash_file, walk_empty_folders, walk_files
from converters.verify import compare
from converters.verify.datasets_reader import confirm, require_datasets, require_known_layout
from converters.verify.read_back import read_back

SOURCE = "source"

_SHOWN = 200


OutputReader = Reader | Literal["datasets"]
"""Who gives a second opinion: TensorFlow on the source, or `datasets` on the output."""


def verify_output(
    out: Place, source: Place | None, reader: OutputReader, progress: Progress | None
) -> Report:
    """See :func:`converters.api.verify`."""
    if reader == "datasets":
        require_datasets()
    if isinstance(out, Path):
        return _verify_folder(out, source, reader, progress)
    with fetch(out) as folder:
        report = _verify_folder(Path(folder), source, reader, progress)
    return replace(report, out=str(out))


def _verify_folder(
    out: Path, source: Place | None, reader: OutputReader, progress: Progress | None
) -> Report:
    if reader == "tensorflow":
        if source is None:
            raise CallError("--reader tensorflow reads the originals, so --source is needed with it.")
        require_tensorflow()
    manifest, data = read_manifest(out)
    if reader == "tensorflow" and any(
        entry.quarantine and entry.quarantine.ranges for entry in manifest.splits
    ):
        raise CallError(
            "this output has records in quarantine, and TensorFlow stops at the first damage: leave --reader out."
        )
    if reader == "datasets":
        require_known_layout(manifest.format)
    try:
        problems = _check_files(out, manifest, data) + _check_list(manifest)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}.", Location(error.filename or str(out))) from error
    target = None
    # What was tampered with is not read any further: its content could lead anywhere.
    unread = (
        "files of the output are missing, extra or changed, so its content was not read" if problems else None
    )
    if unread is None:
        try:
            target = load_format(manifest.format, **manifest.options.format_options)
        except CallError as error:
            unread = str(error)
            problems.append(f"its content is unverified: {error}")
    if target is not None:
        problems += _unlisted_records(out, target, manifest)
    read = [
        _verify_split(out, target, unread, manifest.split(entry), entry, progress)
        for entry in manifest.splits
    ]
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
    )
    if reader == "datasets":
        report = confirm(report, out, target, progress)
        reader = "native"  # of the source
    if source is None:
        return report
    return _verify_source(report, manifest, [stored for _, stored in read], source, reader, progress)


def _check_files(out: Path, stated: Manifest, manifest: bytes) -> list[str]:
    """What is missing, extra or changed; a sentence each."""
    problems = []
    files = stated.files
    empty, known_empty = set(walk_empty_folders(out)), set(stated.empty_folders)
    problems += [f"{path}: this empty folder is not in the manifest" for path in sorted(empty - known_empty)]
    problems += [f"{path}: this folder is missing" for path in sorted(known_empty - empty)]
    there = set(walk_files(out))
    known = {file.path for file in files} | {MANIFEST, SUMS}
    problems += [f"{path}: this file is not in the manifest" for path in sorted(there - known)]
    problems += [f"{path}: this file is missing" for path in sorted(known - there)]
    for file in files:
        if file.path in there and (problem := _changed(out, file)):
            problems.append(problem)
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


def _check_list(manifest: Manifest) -> list[str]:
    """The list of quarantined ranges must say what the manifest does."""
    if not any(entry.quarantine and entry.quarantine.ranges for entry in manifest.splits):
        return []
    text = list_text((manifest.split(entry), entry.quarantine) for entry in manifest.splits)
    expected = hashlib.sha256(text.encode()).hexdigest()
    if any(file.path == LIST and file.sha256 == expected for file in manifest.files):
        return []
    return [f"{LIST}: it is not the list that {MANIFEST} has"]


def _changed(out: Path, file: OutputFile) -> str | None:
    """What is wrong with a file that is there; it is in no folder behind a link, for none was walked through."""
    path = out / file.path
    try:
        size, sha256 = hash_file(path)
    except OSError as error:
        return f"{file.path}: cannot be read: {error.strerror}"
    if size != file.size:
        return f"{file.path}: has {size} bytes, the manifest says {file.size}"
    if sha256 != file.sha256:
        return f"{file.path}: its SHA-256 is not the manifest's; it was changed"
    return None


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


def _verify_split(
    out: Path,
    target: Format | None,
    unread: str | None,
    split: Split,
    entry: StatedSplit,
    progress: Progress | None,
) -> tuple[SplitReport, Fingerprint]:
    """Recompute a split's fingerprint from its content and compare it with the manifest's.

    With it comes the fingerprint without joined columns, which is what the source's must be.
    """
    expected, sources, quarantine = entry.fingerprint, entry.sources, entry.quarantine
    identified = expected.identities_sha256 is not None
    if target is None:
        check = Check(compare.RECORDS, "unverified", unread or "")
        return SplitReport(split, sources, 0, expected, (check,), quarantine), expected
    builder = PartBuilder(0, split.schema)
    stored_schema = split.schema.without(IDENTITIES) if identified else split.schema
    stored = PartBuilder(0, stored_schema) if identified else builder
    clips: set[str] = set()
    try:
        for batch in read_back(target, out, split):
            builder.add(batch)
            if builder.records > expected.records:
                raise ValueError(f"there are more than the {expected.records} records that the manifest says")
            if identified:
                clips.update(batch.column("clip_id").unique().to_pylist())
                stored.add(batch.select(stored_schema.arrow.names))
            if progress is not None:
                progress("verified", len(batch))
    except Exception as error:  # noqa: BLE001  # a format meeting damaged files, and maybe somebody else's
        check = Check("content", "failed", f"cannot be read back: {error}")
        return SplitReport(split, sources, 0, expected, (check,), quarantine), expected
    found = merge([builder.part()], split.schema)
    checks = compare.compare(split, expected, found, sources, identified=identified, clips=len(clips) or None)
    if quarantine is not None:
        checks = compare.explain(split, found, checks, quarantine)
    if found != expected:
        checks += (Check("fingerprint", "failed", "what was read back is not what the manifest says"),)
    elif sum(source.records for source in sources) != expected.records:
        checks += (
            Check("checks", "failed", "the records of the sources in the manifest are not the split's"),
        )
    elif _results(checks) != _results(entry.checks):
        checks += (Check("checks", "failed", "the results in the manifest are not those of these checks"),)
    return SplitReport(split, sources, 0, found, checks, quarantine), merge([stored.part()], stored_schema)


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
    )
    problems = list(report.problems)
    if (source.description.document, source.description.name) != (
        manifest.dataset.document,
        manifest.dataset.name,
    ):
        differs = _difference(source.description.document, manifest.dataset.document)
        problems.append(f"the description in {MANIFEST} is not the one of {folder}: {differs}")
    found = {found.split.title: found for found in source.splits}
    digests = {file.path: file.sha256 for file in report.files}
    splits = []
    for split, read, entry in zip(report.splits, stored, manifest.splits, strict=True):
        original = found.get(split.split.title)
        if original is None:
            check = Check(SOURCE, "failed", f"{split.split.file} is not in {folder}")
        else:
            try:
                check = _compare_source(
                    source, original, split, read, manifest.options.max_shard_bytes, progress
                )
                if check.result == "passed" and split.quarantine is not None:
                    check = _compare_quarantine(source, original, split.quarantine, digests, check)
            except ConverterError as error:
                check = Check(SOURCE, "failed", str(error))
        splits.append(replace(split, checks=(*split.checks, check)))
    return replace(report, splits=tuple(splits), problems=tuple(problems))


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
                builder.add(batch)
                if progress is not None:
                    progress("read", len(batch))
            facts.extend(shard_reader.facts)
            yield builder.part()

    found = merge(parts(), original.split.schema)
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
        if now is None or then is None or _identity(now) != _identity(then):
            name = (now or then).name if now or then else ""
            return Check(
                SOURCE, "failed", f"{name}: the manifest states other facts of this file than it has"
            )
    return Check(SOURCE, "passed", f"{found.records:,} records read again from the source equal the output's")


def _identity(facts: SourceFacts) -> SourceFacts:
    """What must be the same of a source file, whether or not its index and its checksum file are still beside it."""
    return replace(facts, indexed=None, published=None, md5=None)
