"""Verification: proves an output again from its manifest, and against its source where that is given.

Works from the output alone, with no knowledge of how it was written: the manifest names every file and every
fingerprint, the files are hashed, and the fingerprints are recomputed from what the format reads back. Nothing
in an output is trusted: names are checked before they are used, and no link is followed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters import proof
from converters.checks import RecordChecker
from converters.conversion import Job, Progress, Reader, output_location, read_shard
from converters.errors import CallError, ConverterError, DataError, Location
from converters.fingerprint import Fingerprint, PartBuilder, merge
from converters.formats import Format, load_format
from converters.manifest import MANIFEST, SUMS, hash_file, read_manifest, sums_text, walk_files
from converters.names import safe_path
from converters.quarantine import LIST, Quarantine, list_text, parse_quarantine
from converters.quarantine_folder import differing_range
from converters.records import conform
from converters.report import Check, Report, SourceFacts, SplitReport
from converters.shards import FileDamage, OutputFile, RangeFacts, plan_shards
from converters.sources import SourceSplit, find_source
from converters.spec import DatasetSpec, Split, parse_spec
from converters.tfrecord.second_reader import require_tensorflow

SOURCE = "source"


def verify_output(out: Path, source: Path | None, reader: Reader, progress: Progress | None) -> Report:
    """See :func:`converters.api.verify`."""
    if reader == "tensorflow":
        if source is None:
            raise CallError("--reader tensorflow reads the originals, so --source is needed with it.")
        require_tensorflow()
    document, data = read_manifest(out)
    manifest = _Manifest(document, out / MANIFEST)
    if reader == "tensorflow" and any(
        entry.quarantine and entry.quarantine.ranges for entry in manifest.splits
    ):
        raise CallError(
            "this output has records in quarantine, and TensorFlow stops at the first damage: leave --reader out."
        )
    problems = _check_files(out, manifest.files, data) + _check_list(manifest)
    target = None
    # What was tampered with is not read any further: its content could lead anywhere.
    unread = (
        "files of the output are missing, extra or changed, so its content was not read" if problems else None
    )
    if unread is None:
        try:
            target = load_format(manifest.format, **manifest.format_options)
        except CallError as error:
            unread = str(error)
            problems.append(f"its content is unverified: {error}")
    splits = tuple(_verify_split(out, target, unread, entry, progress) for entry in manifest.splits)
    report = Report(
        spec=manifest.spec,
        format=manifest.format,
        out=str(out),
        splits=splits,
        warnings=tuple(manifest.warnings),
        files=manifest.files,
        problems=tuple(problems),
        allow_mismatch=manifest.allow_mismatch,
        options=manifest.options,
    )
    if source is None:
        return report
    return _verify_source(report, manifest, source, reader, progress)


@dataclass(frozen=True)
class _Entry:
    """What a manifest says of one split."""

    split: Split
    expected: Fingerprint
    sources: tuple[SourceFacts, ...]
    quarantine: Quarantine | None


class _Manifest:
    """The parts of a manifest, each checked for its form. The manifest is data from outside."""

    def __init__(self, document: Mapping[str, Any], path: Path) -> None:
        try:
            self.format = _typed(document["format"], str)
            self.options = _typed(document["options"], dict)
            self.format_options = _typed(self.options["format_options"], dict)
            self.max_record_bytes = _typed(self.options["max_record_bytes"], int)
            self.allow_mismatch = _typed(document["allow_mismatch"], bool)
            self.warnings = [_typed(text, str) for text in _typed(document["warnings"], list)]
            self.files = tuple(_files(document["files"]))
            self.spec: DatasetSpec = parse_spec(document["dataset"], f"{path} dataset")
            self.splits = [self._split(entry) for entry in _typed(document["splits"], list)]
        except CallError as error:
            raise DataError(str(error), Location(str(path))) from None
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"this is no manifest that kfer-convert writes: {type(error).__name__}: {error}.",
                Location(str(path)),
            ) from None

    def _split(self, entry: object) -> _Entry:
        fields = _typed(entry, dict)
        for split in self.spec.splits():
            if (split.config, split.name) == (fields["config"], fields["split"]):
                break
        else:
            raise ValueError("a split that is not in the dataset's description")
        stated = dict(_typed(fields["fingerprint"], dict))
        per_image = {int(key): _typed(count, int) for key, count in stated["labels_per_image"].items()}
        counts = tuple(_typed(count, int) for count in _typed(stated["label_counts"], list))
        for name in ("records", "distinct_label_sets", "image_bytes"):
            _typed(stated[name], int)
        fingerprint = Fingerprint(**(stated | {"label_counts": counts, "labels_per_image": per_image}))
        sources = tuple(SourceFacts(**_typed(facts, dict)) for facts in _typed(fields["sources"], list))
        quarantine = None
        if "quarantine" in fields:
            by_name = {
                _typed(facts.file, str): (_typed(facts.bytes, int), facts.compression) for facts in sources
            }
            output = {file.path: file.size for file in self.files}
            quarantine = parse_quarantine(_typed(fields["quarantine"], dict), by_name, output)
        return _Entry(split, fingerprint, sources, quarantine)


def _files(entries: object) -> Iterator[OutputFile]:
    seen = set()
    for entry in _typed(entries, list):
        file = OutputFile(**_typed(entry, dict))
        path = _typed(file.path, str)
        if not safe_path(path):
            raise ValueError(f"the file name {path!r} leaves the output")
        if path in seen or path in (MANIFEST, SUMS):
            raise ValueError(f"the file {path!r} stands twice")
        seen.add(path)
        _typed(file.size, int)
        _typed(file.sha256, str)
        yield file


def _typed(value: Any, kind: type) -> Any:  # noqa: ANN401  # JSON
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
    return value


def _check_files(out: Path, files: tuple[OutputFile, ...], manifest: bytes) -> list[str]:
    """What is missing, extra or changed; a sentence each."""
    problems = []
    there = set(walk_files(out))
    known = {file.path for file in files} | {MANIFEST, SUMS}
    problems += [f"{path}: this file is not in the manifest" for path in sorted(there - known)]
    problems += [f"{path}: this file is missing" for path in sorted(known - there)]
    for file in files:
        if file.path in there and (problem := _changed(out, file)):
            problems.append(problem)
    if SUMS in there:
        try:
            agrees = (
                _plain_file(out / SUMS) and (out / SUMS).read_bytes() == sums_text(files, manifest).encode()
            )
        except OSError as error:
            problems.append(f"{SUMS}: cannot be read: {error.strerror}")
        else:
            if not agrees:
                problems.append(f"{MANIFEST} and {SUMS} contradict each other: one of them was changed")
    return problems


def _check_list(manifest: _Manifest) -> list[str]:
    """The list of quarantined ranges must say what the manifest does."""
    if not any(entry.quarantine and entry.quarantine.ranges for entry in manifest.splits):
        return []
    text = list_text((entry.split, entry.quarantine) for entry in manifest.splits)
    expected = hashlib.sha256(text.encode()).hexdigest()
    if any(file.path == LIST and file.sha256 == expected for file in manifest.files):
        return []
    return [f"{LIST}: it is not the list that {MANIFEST} has"]


def _changed(out: Path, file: OutputFile) -> str | None:
    """What is wrong with a file that is there; it is in no folder behind a link, for none was walked through."""
    path = out / file.path
    try:
        if not _plain_file(path):
            return f"{file.path}: is no regular file"
        size, sha256 = hash_file(path)
    except OSError as error:
        return f"{file.path}: cannot be read: {error.strerror}"
    if size != file.size:
        return f"{file.path}: has {size} bytes, the manifest says {file.size}"
    if sha256 != file.sha256:
        return f"{file.path}: its SHA-256 is not the manifest's; it was changed"
    return None


def _plain_file(path: Path) -> bool:
    return stat.S_ISREG(os.lstat(path).st_mode)


def _verify_split(
    out: Path,
    target: Format | None,
    unread: str | None,
    entry: _Entry,
    progress: Progress | None,
) -> SplitReport:
    """Recompute a split's fingerprint from its content and compare it with the manifest's."""
    split, expected, sources, quarantine = entry.split, entry.expected, entry.sources, entry.quarantine
    identified = expected.identities_sha256 is not None
    if target is None:
        check = Check(proof.RECORDS, "unverified", unread or "")
        return SplitReport(split, sources, (), expected, (check,), quarantine)
    builder = PartBuilder(0, len(split.label_names))
    checker = RecordChecker(split)
    clips: set[str] = set()
    try:
        for found_batch in target.read(out, split):
            batch = conform(found_batch, len(split.label_names))
            checker.check(batch, output_location(split, builder.records))
            builder.add(batch)
            if identified:
                clips.update(batch.column("clip_id").unique().to_pylist())
            if progress is not None:
                progress("verified", len(batch))
    except Exception as error:  # noqa: BLE001  # a format meeting damaged files, and maybe somebody else's
        check = Check("content", "failed", f"cannot be read back: {error}")
        return SplitReport(split, sources, (), expected, (check,), quarantine)
    found = merge([builder.part()], len(split.label_names))
    checks = proof.compare(split, expected, found, sources, identified=identified, clips=len(clips) or None)
    if quarantine is not None:
        checks = proof.explain(split, found, checks, quarantine)
    if found != expected:
        checks += (Check("fingerprint", "failed", "what was read back is not what the manifest says"),)
    return SplitReport(split, sources, (), found, checks, quarantine)


def _verify_source(
    report: Report, manifest: _Manifest, folder: Path, reader: Reader, progress: Progress | None
) -> Report:
    """Read the originals again and compare them with the output, file by file and record by record."""
    configs = tuple(dict.fromkeys(entry.split.config for entry in manifest.splits))
    source = find_source(folder, manifest.spec, configs)
    job = Job(
        format=manifest.format,
        folder=Path(),
        features=manifest.spec.features,
        reader=reader,
        max_record_bytes=manifest.max_record_bytes,
    )
    found = {found.split.title: found for found in source.splits}
    splits = []
    for split in report.splits:
        original = found.get(split.split.title)
        if original is None:
            check = Check(SOURCE, "failed", f"{split.split.file} is not in {folder}")
        else:
            try:
                check = _compare_source(job, original, split, progress)
                if check.result == "passed" and split.quarantine is not None:
                    check = _compare_quarantine(original, split.quarantine, report, check)
            except ConverterError as error:
                check = Check(SOURCE, "failed", str(error))
        splits.append(replace(split, checks=(*split.checks, check)))
    return replace(report, splits=tuple(splits))


def _damage(original: SourceSplit, split: SplitReport) -> dict[Path, FileDamage]:
    """Which ranges of the originals are to be passed over, by what the manifest says.

    Raises:
        DataError: the originals are other files, or have other sizes.
    """
    if split.quarantine is None:
        return {}
    stated = {facts.file: facts for facts in split.sources}
    damage = {}
    for file in original.files:
        facts = stated.get(file.path.name)
        if facts is None or (facts.bytes, facts.compression) != (file.size, file.compression):
            raise DataError(
                "this is not the file that was converted: its name, size or compression is another.",
                Location(str(file.path)),
            )
        damage[file.path] = FileDamage(split.quarantine.of_file(facts.file), facts.indexed is True)
    return damage


def _compare_quarantine(
    original: SourceSplit, quarantine: Quarantine, report: Report, passed: Check
) -> Check:
    """The bytes in quarantine must be the originals'."""
    digests = {file.path: file.sha256 for file in report.files}
    piece = differing_range(original, quarantine, digests)
    if piece is not None:
        return Check(
            SOURCE, "failed", f"the bytes of {piece.file} at byte {piece.offset} are not those in {piece.raw}"
        )
    if not quarantine.ranges:
        return passed
    return replace(
        passed, reason=f"{passed.reason}, and so do the {len(quarantine.ranges)} quarantined ranges"
    )


def _compare_source(job: Job, original: SourceSplit, split: SplitReport, progress: Progress | None) -> Check:
    facts: list[RangeFacts] = []
    shards = plan_shards([original], damage=_damage(original, split))

    def parts() -> Iterator[Any]:
        for shard in shards:
            builder = PartBuilder(shard.first_record, len(shard.split.label_names))
            for batch in read_shard(job, shard, facts):
                builder.add(batch)
                if progress is not None:
                    progress("read", len(batch))
            yield builder.part()

    found = merge(parts(), len(split.split.label_names))
    stated = replace(split.fingerprint, identities_sha256=None)
    if found != stated:
        names = [
            name
            for name in ("records", "labels_sha256", "images_sha256")
            if getattr(found, name) != getattr(stated, name)
        ]
        return Check(
            SOURCE, "failed", f"the source's {', '.join(names) or 'fingerprint'} is not the output's"
        )
    return Check(SOURCE, "passed", f"{found.records:,} records read again from the source equal the output's")
