"""Adds up the results of shards to what they say of each split: what was read, what was read back, which files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converters.dataset.description import IDENTITIES
from converters.dataset.fingerprint import Fingerprint, Merger
from converters.dataset.report import ShardFacts, SplitReport, Work
from converters.dataset.shard import ShardResult, SliceFacts
from converters.dataset.source import Account, SourceSplit
from converters.errors import ConverterError
from converters.storage.file_list import OutputFile, OutputFiles, add_run
from converters.verify import compare

_MANY_FILES = 64


@dataclass(frozen=True)
class MergedSplit:
    """What the results of a split's shards add up to.

    Attributes:
        found: what the source has of the split.
        expected: the fingerprint of the records as they were read from the source; ``output``: as they were read back.
        slices: what was found in each slice of the source, in order.
        files: the files of the output, in runs that are each in the order of the paths.
        folders: paths of the folders in staging that hold them, in the order of the shards.
        shards: what the output has of each shard, in order.
        parts: the files of the shards that the output has one file in the place of, by that file's path.
        summaries: what the format said of each shard, as far as it said anything.
    """

    found: SourceSplit
    expected: Fingerprint
    output: Fingerprint
    slices: tuple[SliceFacts, ...]
    files: tuple[OutputFiles, ...]
    folders: tuple[str, ...]
    shards: tuple[ShardFacts, ...]
    parts: Mapping[str, Sequence[OutputFile]]
    summaries: tuple[Any, ...]

    def report(self, account: Account) -> SplitReport:
        """Compare the output with its source, and with what is published."""
        split = self.found.split
        identified = split.schema.joined_names >= IDENTITIES.keys()
        checks = compare.compare(
            split, self.expected, self.output, account.files, identified=identified, clips=account.clips
        )
        if account.quarantine is not None:
            checks = compare.explain(
                split,
                self.output,
                checks,
                account.quarantine,
                csv_labels=account.csv_labels,
                csv_identities=account.csv_identities,
            )
        output_bytes = sum(run.total_bytes() for run in self.files)
        output_bytes += sum(part.size for parts in self.parts.values() for part in parts)
        return SplitReport(
            split,
            account.files,
            output_bytes,
            self.output,
            checks,
            account.quarantine,
            self.shards,
            tuple(self.parts),
            self.summaries,
        )


def merge_split(
    found: SourceSplit,
    results: Iterable[ShardResult],
    work: Work,
    joins: Mapping[str, Sequence[str]],
) -> MergedSplit:
    """Add up the results of a split's shards, which come in order; ``joins``: see :class:`~converters.formats.Joins`.

    Raises:
        ConverterError: a shard did not write its part of a file.
    """
    schema = found.split.schema
    expected, output = Merger(schema), Merger(schema)
    slices: list[SliceFacts] = []
    files: list[OutputFiles] = []
    folders: list[str] = []
    shards: list[ShardFacts] = []
    summaries: list[Any] = []
    parts: dict[str, list[OutputFile]] = {path: [] for path in joins}
    for number, result in enumerate(results):
        expected.add(result.source)
        output.add(result.output)
        slices += result.slices
        own = {names[number]: path for path, names in joins.items()}
        whole, others = result.files, result.files.take_out(own)
        if len(others) < len(own):
            raise ConverterError(f"{result.shard.key}: the format did not write all of {', '.join(own)}.")
        add_run(files, whole)
        for part in others:
            parts[own[part.path]].append(part)
        folders.append(str(result.folder))
        shards.append(ShardFacts(result.output.records, result.output.nodes, _places(whole)))
        if result.summary is not None:
            summaries.append(result.summary)
        if result.effort is not None:
            work.add(result.source.records, result.effort)
    return MergedSplit(
        found,
        expected.fingerprint(),
        output.fingerprint(),
        tuple(slices),
        tuple(files),
        tuple(folders),
        tuple(shards),
        parts,
        tuple(summaries),
    )


def _places(files: OutputFiles) -> tuple[str, ...]:
    """The paths of a shard's files; of many, those of the folders that they are in, which no other shard's are in."""
    if len(files) <= _MANY_FILES:
        return tuple(files.paths())
    return tuple(f"{folder}/" for folder in dict.fromkeys(path.rpartition("/")[0] for path in files.paths()))
