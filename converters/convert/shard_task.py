"""The task: convert one shard and read it back. Runs wherever an engine runs it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from converters.convert.timing import Stopwatch
from converters.dataset.ahead import ahead
from converters.dataset.filenames import safe_path
from converters.dataset.fingerprint import Part, PartBuilder
from converters.dataset.known_answer import check_known_answer
from converters.dataset.manifest import MANIFEST, SUMS
from converters.dataset.shard import Effort, Progress, Shard, ShardResult
from converters.dataset.source import Reading
from converters.errors import ConverterError
from converters.formats import Summarizes, load_format
from converters.staging.scratch import Workspace
from converters.storage.file_list import OutputFile, OutputFiles
from converters.storage.hashing_reader import HashingReader
from converters.storage.tree import hash_file, walk_files, walk_many_files
from converters.verify.compare import check_witnesses
from converters.verify.read_back import format_errors, read_back


@dataclass(frozen=True)
class ShardTask:
    """Converts shards of one run: reads their records, writes and reads them back, and fingerprints both.

    Frozen and picklable.

    Attributes:
        reading: how shards are read.
        workspace: where they are written.
        format: name of the format; ``format_options`` are for its constructor.
    """

    reading: Reading
    workspace: Workspace
    format: str
    format_options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, shard: Shard, progress: Progress | None = None) -> ShardResult:
        """Convert one shard.

        Raises:
            DataError: the source is damaged, or a record fails a check.
            ConverterError: the format failed, or did something other than its contract says.
        """
        with self.workspace.attempt() as folder:
            result = self._convert(shard, folder, progress)
            self.workspace.deliver(result)
        return result

    def _convert(self, shard: Shard, folder: Path, progress: Progress | None) -> ShardResult:
        check_known_answer()
        target = load_format(self.format, **self.format_options)
        source = PartBuilder(shard.first_record, shard.split.schema)
        records = self.reading.read(shard)
        reading, writing, verifying = Stopwatch(), Stopwatch(), Stopwatch()
        with closing(ahead(source.watch(records))) as made:
            batches = _counted(reading.watch(made), "read", progress)
            with writing, format_errors(self.format, f"writing {shard.split.title}"):
                paths = target.write(batches, shard, folder)
            if next(batches, None) is not None:
                raise ConverterError(f"the format {self.format!r} stopped before it had taken every batch.")
        with writing:
            self.workspace.settle(folder)
        with verifying, format_errors(self.format, f"reading back {shard.split.title}"):
            reader = HashingReader(folder)
            found = read_back(target, folder, shard.split, shard.first_record, reader)
            with closing(ahead(found)) as batches:
                output = _fingerprint(
                    _counted(batches, "verified", progress), shard, records.witnesses, reader
                )
            files = _output_files(folder, paths, reader.files, self.format)
            summary = target.summarize(folder, shard) if isinstance(target, Summarizes) else None
        effort = Effort(
            f"{socket.gethostname()}:{os.getpid()}",
            reading.seconds,
            writing.seconds - reading.seconds,
            verifying.seconds,
        )
        return ShardResult(shard, folder, files, records.facts, source.part(), output, summary, effort)


def _fingerprint(
    batches: Iterable[pa.RecordBatch], shard: Shard, witnesses: Mapping[int, bytes], reader: HashingReader
) -> Part:
    builder = PartBuilder(shard.first_record, shard.split.schema)
    for batch in batches:
        first = shard.first_record + builder.records
        leaves = builder.add(batch, reader.image_digests(len(batch), builder.images))
        check_witnesses(witnesses, leaves, first, shard.split)
    return builder.part()


def _counted(
    batches: Iterator[pa.RecordBatch], stage: str, progress: Progress | None
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        if progress is not None:
            progress(stage, len(batch))


def _output_files(
    folder: Path, paths: Sequence[str | os.PathLike[str]], seen: OutputFiles, name: str
) -> OutputFiles:
    """The written files, in the order of their paths; they must be all that is in the shard's folder.

    Their sizes and SHA-256 are of what was read back from disk: those of ``seen`` were already, others are now.
    """
    root = os.fspath(folder) + os.sep
    written = sorted(os.fspath(path).removeprefix(root).replace(os.sep, "/") for path in paths)
    expected = set(written)
    there = 0
    unsafe: list[str] = []
    odd = "a path twice" if len(expected) < len(written) else None
    for found in walk_many_files(folder):
        there += len(found)
        odd = odd or min(set(found) - expected, default=None)
        if not safe_path("/".join(found)):  # or all are safe
            unsafe += [path for path in found if not safe_path(path)]
    if there < len(expected):
        odd = odd or min(expected - set(walk_files(folder)))
    if odd is not None:
        raise ConverterError(f"the format {name!r} did not write the files it says it wrote: {odd}.")
    if taken := expected & {MANIFEST, SUMS}:
        raise ConverterError(f"{min(taken)}: the format wrote a file of this name, which is kfer-convert's.")
    if unsafe:
        raise ConverterError(f"{min(unsafe)!r}: the format {name!r} wrote a file of a name that is not safe.")
    del expected
    return seen.of_paths(written, lambda path: OutputFile(path, *hash_file(root + path)))
