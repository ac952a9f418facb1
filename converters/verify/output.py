"""Verification: proves an output again from its manifest, and against its source where that is given.

Works from the output alone, with no knowledge of how it was written: the manifest names every file and every
fingerprint, the files are hashed, and the fingerprints are recomputed from what the format reads back. Nothing
in an output is trusted: names are checked before they are used, and no link is followed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.dataset.description import DatasetSpec, Split, parse_spec
from converters.dataset.filenames import safe_path, unsafe_name
from converters.dataset.fingerprint import Fingerprint, Part, PartBuilder, merge
from converters.dataset.manifest import MANIFEST, SUMS, read_manifest, sums_text
from converters.dataset.quarantine import LIST, Quarantine, list_text, parse_quarantine
from converters.dataset.report import Check, Report, SourceFacts, SplitReport
from converters.dataset.shard import Progress
from converters.dataset.source import SourceSplit
from converters.errors import CallError, ConverterError, DataError, Location
from converters.formats import Format, load_format
from converters.formats.tfrecord.source import Reader, TFRecordSource, open_tfrecords
from converters.formats.tfrecord.tensorflow import require_tensorflow
from converters.storage.file_list import OutputFile
from converters.storage.files import read_bounded
from converters.storage.object_store import Place
from converters.storage.tree import hash_file, walk_empty_folders, walk_files
from converters.verify import compare
from converters.verify.download import fetched
from converters.verify.read_back import read_back

SOURCE = "source"

_SHA256 = re.compile(r"[0-9a-f]{64}")


def verify_output(out: Place, source: Place | None, reader: Reader, progress: Progress | None) -> Report:
    """See :func:`converters.api.verify`."""
    if isinstance(out, Path):
        return _verify_folder(out, source, reader, progress)
    with fetched(out) as folder:
        report = _verify_folder(folder, source, reader, progress)
    return replace(report, out=str(out))


def _verify_folder(out: Path, source: Place | None, reader: Reader, progress: Progress | None) -> Report:
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
            target = load_format(manifest.format, **manifest.format_options)
        except CallError as error:
            unread = str(error)
            problems.append(f"its content is unverified: {error}")
    if target is not None:
        problems += _unlisted_records(out, target, manifest)
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
    """What a manifest says of one split; ``results`` are names and results of its checks at conversion."""

    split: Split
    expected: Fingerprint
    sources: tuple[SourceFacts, ...]
    quarantine: Quarantine | None
    results: tuple[tuple[str, str, bool], ...]


class _Manifest:
    """The parts of a manifest, each checked for its form and against the others. It is data from outside."""

    def __init__(self, document: Mapping[str, Any], path: Path) -> None:
        try:
            self.format = _typed(document["format"], str)
            self.options = _options(document["options"])
            self.format_options = self.options["format_options"]
            self.max_record_bytes = self.options["max_record_bytes"]
            for package, version in _typed(document["written_by"], dict).items():
                _typed(package, str), _typed(version, str)
            _typed(document["fingerprint_definition"], str)
            self.allow_mismatch = _typed(document["allow_mismatch"], bool)
            self.warnings = [_typed(text, str) for text in _typed(document["warnings"], list)]
            self.files = tuple(_files(document["files"]))
            self.empty_folders = set(_texts(document["empty_folders"]))
            self.spec: DatasetSpec = parse_spec(document["dataset"], f"{path} dataset")
            self.splits = [self._split(entry) for entry in _typed(document["splits"], list)]
            self._refuse_other_splits(_texts(document["absent"]))
        except CallError as error:
            raise DataError(str(error), Location(str(path))) from None
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"this is no manifest that kfer-convert writes: {type(error).__name__}: {error}.",
                Location(str(path)),
            ) from None

    def _refuse_other_splits(self, absent: list[str]) -> None:
        """What was converted and what was absent are, in order, what was asked for."""
        configs, names = self.options["configs"], self.options["splits"]
        asked = [
            split.title
            for split in self.spec.splits()
            if (not configs or split.config in configs) and (not names or split.name in names)
        ]
        stated = [entry.split.title for entry in self.splits]
        if [title for title in asked if title not in absent] != stated or not stated:
            raise ValueError(f"splits {stated} and absent {absent} are not what was asked for, {asked}")
        if [title for title in asked if title not in stated] != absent:
            raise ValueError(f"absent {absent} is not what was asked for and is not in splits")

    def _split(self, entry: object) -> _Entry:
        fields = _typed(entry, dict)
        for split in self.spec.splits():
            if (split.config, split.name) == (fields["config"], fields["split"]):
                break
        else:
            raise ValueError("a split that is not in the dataset's description")
        if (fields["kind"], fields["label_names"]) != (split.kind, list(split.label_names)):
            raise ValueError(
                f"kind and label_names of {split.title} are not those of the dataset's description"
            )
        stated = dict(_typed(fields["fingerprint"], dict))
        per_image = {int(key): _typed(count, int) for key, count in stated["labels_per_image"].items()}
        if list(map(str, per_image)) != list(stated["labels_per_image"]):
            raise ValueError("a key of labels_per_image is not a plain number")
        counts = tuple(_typed(count, int) for count in _typed(stated["label_counts"], list))
        for name in ("records", "distinct_label_sets", "image_bytes"):
            _typed(stated[name], int)
        fingerprint = Fingerprint(**(stated | {"label_counts": counts, "labels_per_image": per_image}))
        sources = tuple(_source(facts) for facts in _typed(fields["sources"], list))
        if (fingerprint.identities_sha256 is not None) != self.options["labels"]:
            raise ValueError(f"the option labels and the identities of {split.title} contradict each other")
        quarantine = None
        if "quarantine" in fields:
            by_name = {
                _typed(facts.file, str): (_typed(facts.bytes, int), facts.compression) for facts in sources
            }
            output = {file.path: file.size for file in self.files}
            quarantine = parse_quarantine(_typed(fields["quarantine"], dict), by_name, output)
        checks = [_check(check) for check in _typed(fields["checks"], list)]
        return _Entry(split, fingerprint, sources, quarantine, _results(checks))


def _options(value: object) -> dict[str, Any]:
    options: dict[str, Any] = _typed(value, dict)
    for name in ("configs", "splits"):
        _texts(options[name])
    for name in ("labels", "decode"):
        _typed(options[name], bool)
    if options["reader"] not in ("native", "tensorflow"):
        raise ValueError("the option reader is unknown")
    if options["on_error"] not in ("fail", "quarantine"):
        raise ValueError("the option on_error is unknown")
    for name in ("max_record_bytes", "max_shard_bytes"):
        if _typed(options[name], int) < 1:
            raise ValueError(f"the option {name} is {options[name]}")
    for name, setting in _typed(options["format_options"], dict).items():
        if not isinstance(setting, bool | int | str):
            raise TypeError(f"the format option {name} is a {type(setting).__name__}")
    return options


def _source(value: object) -> SourceFacts:
    facts = SourceFacts(**_typed(value, dict))
    if unsafe_name(_typed(facts.file, str)):
        raise ValueError(f"{facts.file!r} is no name of a source file")
    if min(_typed(facts.bytes, int), _typed(facts.records, int)) < 0:
        raise ValueError(f"{facts.file} has {facts.bytes} bytes and {facts.records} records")
    if not _SHA256.fullmatch(_typed(facts.sha256, str)):
        raise ValueError(f"the sha256 of {facts.file} is none")
    if facts.compression not in ("none", "gzip", "zlib") or facts.indexed not in (None, True):
        raise ValueError(f"compression or index of {facts.file} is unknown")
    return facts


def _check(value: object) -> Check:
    fields = _typed(value, dict)
    name, result, reason = (_typed(fields[key], str) for key in ("name", "result", "reason"))
    return Check(name, result, reason, _typed(fields["published"], bool))


def _results(checks: Iterable[Check]) -> tuple[tuple[str, str, bool], ...]:
    return tuple((check.name, check.result, check.published) for check in checks)


def _texts(value: object) -> list[str]:
    return [_typed(text, str) for text in _typed(value, list)]


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
        if _typed(file.size, int) < 0 or not _SHA256.fullmatch(_typed(file.sha256, str)):
            raise ValueError(f"the size or the sha256 of {path!r} is none")
        yield file


def _typed(value: Any, kind: type) -> Any:  # noqa: ANN401  # JSON
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
    return value


def _check_files(out: Path, stated: _Manifest, manifest: bytes) -> list[str]:
    """What is missing, extra or changed; a sentence each."""
    problems = []
    files = stated.files
    empty = set(walk_empty_folders(out))
    problems += [
        f"{path}: this empty folder is not in the manifest" for path in sorted(empty - stated.empty_folders)
    ]
    problems += [f"{path}: this folder is missing" for path in sorted(stated.empty_folders - empty)]
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
        size, sha256 = hash_file(path)
    except OSError as error:
        return f"{file.path}: cannot be read: {error.strerror}"
    if size != file.size:
        return f"{file.path}: has {size} bytes, the manifest says {file.size}"
    if sha256 != file.sha256:
        return f"{file.path}: its SHA-256 is not the manifest's; it was changed"
    return None


def _unlisted_records(out: Path, target: Format, manifest: _Manifest) -> list[str]:
    """Splits that the manifest does not list, and of which there are records nevertheless; a sentence each."""
    listed = {entry.split.title for entry in manifest.splits}
    problems = []
    for split in manifest.spec.splits():
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
    entry: _Entry,
    progress: Progress | None,
) -> SplitReport:
    """Recompute a split's fingerprint from its content and compare it with the manifest's."""
    split, expected, sources, quarantine = entry.split, entry.expected, entry.sources, entry.quarantine
    identified = expected.identities_sha256 is not None
    if target is None:
        check = Check(compare.RECORDS, "unverified", unread or "")
        return SplitReport(split, sources, 0, expected, (check,), quarantine)
    builder = PartBuilder(0, len(split.label_names))
    clips: set[str] = set()
    try:
        for batch in read_back(target, out, split):
            builder.add(batch)
            if builder.records > expected.records:
                raise ValueError(f"there are more than the {expected.records} records that the manifest says")
            if identified:
                clips.update(batch.column("clip_id").unique().to_pylist())
            if progress is not None:
                progress("verified", len(batch))
    except Exception as error:  # noqa: BLE001  # a format meeting damaged files, and maybe somebody else's
        check = Check("content", "failed", f"cannot be read back: {error}")
        return SplitReport(split, sources, 0, expected, (check,), quarantine)
    found = merge([builder.part()], len(split.label_names))
    checks = compare.compare(split, expected, found, sources, identified=identified, clips=len(clips) or None)
    if quarantine is not None:
        checks = compare.explain(split, found, checks, quarantine)
    if found != expected:
        checks += (Check("fingerprint", "failed", "what was read back is not what the manifest says"),)
    elif sum(source.records for source in sources) != expected.records:
        checks += (
            Check("checks", "failed", "the records of the sources in the manifest are not the split's"),
        )
    elif _results(checks) != entry.results:
        checks += (Check("checks", "failed", "the results in the manifest are not those of these checks"),)
    return SplitReport(split, sources, 0, found, checks, quarantine)


def _verify_source(
    report: Report, manifest: _Manifest, folder: Place, reader: Reader, progress: Progress | None
) -> Report:
    """Read the originals again and compare them with the output, file by file and record by record."""
    source = open_tfrecords(
        folder,
        spec=manifest.spec,
        configs=tuple(dict.fromkeys(entry.split.config for entry in manifest.splits)),
        reader=reader,
        max_record_bytes=manifest.max_record_bytes,
    )
    found = {found.split.title: found for found in source.splits}
    digests = {file.path: file.sha256 for file in report.files}
    splits = []
    for split in report.splits:
        original = found.get(split.split.title)
        if original is None:
            check = Check(SOURCE, "failed", f"{split.split.file} is not in {folder}")
        else:
            try:
                check = _compare_source(source, original, split, progress)
                if check.result == "passed" and split.quarantine is not None:
                    check = _compare_quarantine(source, original, split.quarantine, digests, check)
            except ConverterError as error:
                check = Check(SOURCE, "failed", str(error))
        splits.append(replace(split, checks=(*split.checks, check)))
    return replace(report, splits=tuple(splits))


def _compare_quarantine(
    source: TFRecordSource,
    original: SourceSplit,
    quarantine: Quarantine,
    digests: Mapping[str, str],
    passed: Check,
) -> Check:
    """The bytes in quarantine must be the originals'."""
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
    source: TFRecordSource, original: SourceSplit, split: SplitReport, progress: Progress | None
) -> Check:
    def parts() -> Iterator[Part]:
        for shard in source.plan_around(original, split.quarantine, split.sources):
            builder = PartBuilder(shard.first_record, len(shard.split.label_names))
            for batch in source.reading.read(shard):
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
