"""Verification: proves an output again from its manifest, and against its source where that is given.

Works from the output alone, with no knowledge of how it was written: the manifest names every file and every
fingerprint, the files are hashed, and the fingerprints are recomputed from what the format reads back. Nothing
in an output is trusted: names are checked before they are used, and no link is followed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

from converters.dataset.decode import encode
from converters.dataset.fingerprint import merge
from converters.dataset.known_answer import check_known_answer
from converters.dataset.manifest import MANIFEST, SUMS, StatedSplit, sums_text
from converters.dataset.quarantine import LIST, list_text
from converters.dataset.report import Check, Report, SplitReport
from converters.dataset.shard import Progress, Shard
from converters.engines import Engine, load_engine
from converters.errors import CallError, ConverterError, DataError, Location
from converters.formats import Finishes, Format, Joins, NamesFiles, load_format
from converters.formats.fetch import fetch, stated_manifest
from converters.storage.file_list import OutputFile
from converters.storage.files import read_bounded
from converters.storage.object_store import SCRATCH, ObjectPath, Place, list_objects
from converters.storage.tree import hash_file, walk_empty_folders, walk_files
from converters.verify import compare
from converters.verify.shards import (
    MISSING,
    VerifiedShard,
    VerifyTask,
    changed_files,
    files_of,
    hash_of,
    shards_of,
    shards_with,
    stated_files,
)

DESCRIPTIONS = "descriptions"

_UNREAD = "files of the output are missing, extra or changed, so its content was not read"

OutputReader = Literal["native", "tensorflow", "datasets"]
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
    # What reads sources, and what runs `datasets`, is imported only where it is needed.
    if reader == "datasets":
        from converters.verify.datasets_reader import confirm, require_datasets, require_known_layout

        require_datasets()
    if reader == "tensorflow":
        from converters.formats.tfrecord.tensorflow import require_tensorflow

        if source is None:
            raise CallError("--reader tensorflow reads the originals, so --source is needed with it.")
        require_tensorflow()
    runs = load_engine(engine, workers, **(engine_options or {}))
    with ExitStack() as scratch:
        place = out
        if isinstance(out, ObjectPath) and (reader == "datasets" or source is not None):
            place = Path(scratch.enter_context(fetch(out)))  # these go over the whole output more than once
        verification = Verification(place)
        manifest = verification.manifest
        if reader == "tensorflow" and verification.quarantined:
            raise CallError(
                "this output has records in quarantine, and TensorFlow stops at the first damage: leave --reader out."
            )
        if reader == "datasets":
            require_known_layout(manifest.format)
        verification.read(_chosen(verification.shards, sample), runs, progress)
        report = verification.report()
        if not report.failures() and (problem := verification.contradiction()):
            raise ConverterError(f"{out}: {problem}, and nothing failed: a fault of kfer-convert.")
        if reader == "datasets":
            assert isinstance(place, Path)
            report = confirm(report, place, verification.sound, progress)
            reader = "native"  # of the source
        if source is not None:
            from converters.verify.against_source import compare_with_source

            assert isinstance(place, Path)
            target = verification.format if verification.readable else None
            report = compare_with_source(report, manifest, place, target, source, reader, progress)
    return replace(report, out=str(out))


def _chosen(shards: Sequence[Shard], sample: int | None) -> Sequence[Shard]:
    """The shards to read: all, or some by chance."""
    if sample is None or sample >= len(shards):
        return shards
    numbers = sorted(random.SystemRandom().sample(range(len(shards)), sample))
    return [shards[number] for number in numbers]


class Verification:
    """An output that is being verified, and what was found of it so far.

    Attributes:
        out: the output.
        manifest: what it says of itself.
        shards: its shards.
        format: its format; None where that is not installed.
        found: what was found of the shards that were read, by their keys.

    Raises:
        CallError: there is no finished output.
        DataError: its manifest is damaged, or a folder of it cannot be read.
    """

    def __init__(self, out: Place) -> None:
        check_known_answer()
        self.out = out
        self.manifest, self._data = stated_manifest(out)
        self.shards = shards_of(out, self.manifest)
        self.format: Format | None = None
        self.found: dict[str, VerifiedShard] = {}
        self._extra: list[str] = []
        self._damaged: dict[str, str] = {}
        self.check_files()
        self._unread = "there are files that are not the output's, so its content was not read"
        if not self._extra:
            try:
                self.format = load_format(self.manifest.format, **self.manifest.options.format_options)
            except CallError as error:
                self._unread = str(error)

    @property
    def damaged(self) -> dict[str, str]:
        """What is wrong with files that the manifest lists, or with ``SHA256SUMS``, by their paths."""
        found = dict(self._damaged)
        for shard in self.found.values():
            found |= shard.damaged
        return found

    @property
    def quarantined(self) -> bool:
        """Whether records are in quarantine."""
        return any(entry.quarantine and entry.quarantine.ranges for entry in self.manifest.splits)

    @property
    def readable(self) -> bool:
        """Whether all shards were read, each to its end."""
        return sum(shard.part is not None for shard in self.found.values()) == len(self.shards)

    @property
    def sound(self) -> bool:
        """Whether the format is there, and the files are those of the manifest, as far as they were hashed."""
        return self.format is not None and not self._extra and not self.damaged

    @property
    def stated(self) -> dict[str, OutputFile]:
        """The files that the manifest lists, by their paths."""
        return {file.path: file for file in self.manifest.files}

    def read(self, shards: Sequence[Shard], runs: Engine, progress: Progress | None) -> None:
        """Hash and read shards, where nothing forbids to read."""
        if self.format is None:
            return
        task = VerifyTask(self.out, self.manifest.format, self.manifest.options.format_options)
        for result in cast(Iterator[VerifiedShard], runs.run(cast(Any, task), shards, progress)):
            self.found[result.shard.key] = result

    def check_files(self) -> None:
        """Look what is there, and hash what is no shard's.

        Raises:
            DataError: a folder cannot be read.
        """
        out, stated = self.out, self.stated
        self._extra = []
        try:
            there = set(walk_files(out)) if isinstance(out, Path) else set(list_objects(out))
            if isinstance(out, Path):
                empty, known = set(walk_empty_folders(out)), set(self.manifest.empty_folders)
                self._extra += [
                    f"{path}: this empty folder is not in the manifest"
                    for path in sorted(empty - known)
                    if not any(file.startswith(f"{path}/") for file in stated)  # or these are missing
                ]
                self._extra += [f"{path}: this folder is missing" for path in sorted(known - empty)]
        except OSError as error:
            raise DataError(
                f"cannot be read: {error.strerror}.", Location(error.filename or str(out))
            ) from error
        extra = sorted(there - stated.keys() - {MANIFEST, SUMS})
        self._extra += [f"{path}: this file is not in the manifest" for path in extra]
        in_shards = {file.path for shard in self.shards for file in files_of(shard)}
        others = [file for path, file in stated.items() if path not in in_shards]
        self._damaged = changed_files(others, hash_of(out), at_once=True)
        if self.quarantined and LIST not in self._damaged:
            text = list_text((self.manifest.split(entry), entry.quarantine) for entry in self.manifest.splits)
            if LIST not in stated or stated[LIST].sha256 != hashlib.sha256(text.encode()).hexdigest():
                self._damaged[LIST] = f"it is not the list that {MANIFEST} has"
        expected = self.sums()
        try:
            if read_bounded(out / SUMS, len(expected), follow_links=False) != expected:
                self._damaged[SUMS] = f"it and {MANIFEST} contradict each other: one of them was changed"
        except FileNotFoundError:
            self._damaged[SUMS] = MISSING
        except OSError as error:
            self._damaged[SUMS] = f"cannot be read, or is not what it must be: {error.strerror}"

    def report(self) -> Report:
        """What was found of all that was read."""
        problems = self._extra + [f"{path}: {problem}" for path, problem in self.damaged.items()]
        if self.format is None and not self._extra:
            problems.append(f"its content is unverified: {self._unread}")
        report = Report(
            description=self.manifest.dataset,
            format=self.manifest.format,
            out=str(self.out),
            splits=tuple(self._split_report(entry) for entry in self.manifest.splits),
            absent=tuple(
                split for split in self.manifest.dataset.splits() if split.title in self.manifest.absent
            ),
            warnings=self.manifest.warnings,
            files=self.manifest.files,
            problems=tuple(problems),
            allow_mismatch=self.manifest.allow_mismatch,
            options=encode(self.manifest.options),
            origin=self.manifest.origin,
            damaged_shards=shards_with(self.manifest, self.damaged),
        )
        if not report.problems and len(self.found) == len(self.shards):
            report = self._with_descriptions(report)
        misnamed = (f"{path}: no shard of this output has this name" for path in self._misnamed())
        return replace(report, problems=(*misnamed, *report.problems))

    def contradiction(self) -> str | None:
        """What cannot be where nothing failed; by other code than the report's."""
        if self._extra or self.damaged:
            return "files are missing, extra or changed"
        for entry in self.manifest.splits:
            own = self._shards_of(entry)
            parts = [self.found[shard.key].part for shard in own if shard.key in self.found]
            there = [part for part in parts if part is not None]
            other = (
                len(parts) == len(own)
                and merge(there, self.manifest.split(entry).schema) != entry.fingerprint
            )
            if len(there) < len(parts) or other:
                return f"{entry.title} was not read back as its manifest says"
        return None

    def write_descriptions(self, report: Report, folder: Path) -> dict[str, tuple[int, str]]:
        """Write what the format says of the dataset again; size and SHA-256 of each file. All shards were read."""
        if not isinstance(self.format, Finishes):
            return {}
        splits = []
        for split, entry in zip(report.splits, self.manifest.splits, strict=True):
            own = self._shards_of(entry)
            summaries = tuple(self.found[shard.key].summary for shard in own)
            size = sum(file.size for shard in own for file in files_of(shard))
            # What the label CSVs said when it was converted is in the reasons; the results were compared.
            splits.append(replace(split, summaries=summaries, output_bytes=size, checks=entry.checks))
        manifest = self.manifest
        records = self._of_records()
        files = tuple(file for file in manifest.files if file.path in records)
        self.format.finish(replace(report, splits=tuple(splits), files=files), folder)
        return {path: hash_file(folder / path) for path in sorted(walk_files(folder))}

    def sums(self) -> bytes:
        """What ``SHA256SUMS`` must hold."""
        return sums_text(self.manifest.files, self._data).encode()

    def _misnamed(self) -> Iterator[str]:
        """The files and the empty folders that the manifest lists and no shard would write."""
        target, stated = self.format, self.stated
        empty = {f"{path}/" for path in self.manifest.empty_folders}
        if not isinstance(target, NamesFiles):
            return
        for entry in self.manifest.splits:
            split, count = self.manifest.split(entry), len(entry.shards)
            for index, facts in enumerate(entry.shards):
                places = target.places(Shard(split, index, count, 0, (), 0))
                folders = tuple(place for place in places if place.endswith("/"))
                yield from (
                    file.path
                    for file in stated_files(facts, stated)
                    if file.path not in places and not file.path.startswith(folders)
                )
                empty.difference_update(folders)
            joined = target.joins(split, count) if isinstance(target, Joins) else ()
            yield from (path for path in entry.joined if path not in joined)
        yield from sorted(empty)

    def _shards_of(self, entry: StatedSplit) -> list[Shard]:
        return [shard for shard in self.shards if shard.split.title == entry.title]

    def _of_records(self) -> set[str]:
        """The paths of the files that hold records, or what is in quarantine."""
        files = {file.path for shard in self.shards for file in files_of(shard)}
        lost = [entry.quarantine.ranges for entry in self.manifest.splits if entry.quarantine]
        raw = {piece.raw for ranges in lost for piece in ranges if piece.raw}
        return files | raw | ({LIST} if self.quarantined else set())

    def _with_descriptions(self, report: Report) -> Report:
        """What is wrong with files that hold no records: what the format writes about the dataset is written again.

        Sums that were renewed do not help what was changed by hand: a card, the terms, a description.
        """
        writer, this = self.manifest.written_by.get("kfer-convert"), version("kfer-convert")
        problems = tuple(self._changed_descriptions(report, same_version=writer == this))
        if writer == this:
            return replace(report, problems=problems)
        # Another version may say the same in other words.
        reason = f"not compared: they were written by kfer-convert {writer}, and this is {this}"
        check = Check(DESCRIPTIONS, "unverified", reason)
        splits = tuple(replace(split, checks=(*split.checks, check)) for split in report.splits)
        return replace(report, splits=splits, problems=problems)

    def _changed_descriptions(self, report: Report, *, same_version: bool) -> Iterator[str]:
        stated = self.stated
        with TemporaryDirectory(prefix=SCRATCH) as name:
            try:
                written = self.write_descriptions(report, Path(name))
            except Exception as error:  # noqa: BLE001  # a format, and maybe somebody else's
                if self.readable:  # or what was not read is the reason
                    yield f"what describes the dataset cannot be written again: {error}"
                return
        for path, found in written.items() if same_version else ():
            if path not in stated:
                yield f"{path}: this file, which the format writes, is missing"
            elif found != stated[path][1:]:
                yield f"{path}: it is not what this version writes about this dataset; it was changed"
        for path in stated.keys() - self._of_records() - written.keys():
            yield f"{path}: no record and no format accounts for this file"

    def _split_report(self, entry: StatedSplit) -> SplitReport:
        """What was found of a split."""
        split, expected, own = self.manifest.split(entry), entry.fingerprint, self._shards_of(entry)
        found, checks = expected, self._checks_of_shards(entry, own)
        if not checks:
            read = [self.found[shard.key] for shard in own]
            found = merge((result.part for result in read if result.part is not None), split.schema)
            clips = len(frozenset().union(*(result.clips for result in read))) or None
            joined = found.identities_sha256 is not None
            checks = compare.compare(split, expected, found, entry.sources, identified=joined, clips=clips)
            if entry.quarantine is not None:
                checks = compare.explain(split, found, checks, entry.quarantine)
            if found != expected:
                checks += (
                    Check("fingerprint", "failed", "what was read back is not what the manifest says"),
                )
            elif sum(source.records for source in entry.sources) != expected.records:
                reason = "the records of the sources in the manifest are not the split's"
                checks += (Check("checks", "failed", reason),)
            elif _results(checks) != _results(entry.checks):
                reason = "the results in the manifest are not those of these checks"
                checks += (Check("checks", "failed", reason),)
        return SplitReport(split, entry.sources, 0, found, checks, entry.quarantine)

    def _checks_of_shards(self, entry: StatedSplit, own: Sequence[Shard]) -> tuple[Check, ...]:
        """The one check of a split that was not read as a whole, or not as its manifest says; none of others."""
        if self.format is None:
            return (Check(compare.RECORDS, "unverified", self._unread),)
        read = 0
        for shard in own:
            where = (
                f"shard {shard.index} of {len(own)}, from record {shard.first_record} on: "
                if len(own) > 1
                else ""
            )
            result = self.found.get(shard.key)
            if result is None:
                continue
            read += 1
            if result.damaged:
                return (Check(compare.RECORDS, "unverified", where + _UNREAD),)
            if result.error is not None:
                return (Check("content", "failed", where + result.error),)
            stated, part = entry.shards[shard.index], result.part
            if len(own) > 1 and (
                part is None or (part.records, part.nodes) != (stated.records, stated.nodes)
            ):
                reason = "what was read back is not what the manifest says"
                return (Check("fingerprint", "failed", where + reason),)
        if read < len(own):
            reason = f"{read} of {len(own)} shards were read, by chance; these are what the manifest says"
            return (Check(compare.RECORDS, "unverified", reason),)
        return ()


def _results(checks: Iterable[Check]) -> list[tuple[str, str, bool]]:
    return [(check.name, check.result, check.published) for check in checks]
