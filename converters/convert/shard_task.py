"""The task: convert one shard and read it back. Runs wherever an engine runs it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from converters.convert.timing import Stopwatch
from converters.dataset.checks import RecordChecker
from converters.dataset.description import Features, Split
from converters.dataset.filenames import safe_path
from converters.dataset.fingerprint import Part, PartBuilder
from converters.dataset.identity import Identities, Rows, read_identities
from converters.dataset.manifest import MANIFEST, SUMS
from converters.dataset.schema import conform
from converters.dataset.shard import Effort, Progress, RangeFacts, Shard, ShardResult
from converters.errors import ConverterError, Location
from converters.formats import Format, ReadsThrough, Summarizes, load_format
from converters.formats.tfrecord.fast_parser import ExampleParser
from converters.formats.tfrecord.framing import MAX_RECORD_BYTES
from converters.formats.tfrecord.reader import RangeReader, frame_location, parse_frames
from converters.formats.tfrecord.tensorflow import SecondReader
from converters.staging.scratch import Workspace
from converters.storage.file_list import OutputFile, OutputFiles
from converters.storage.files import file_state
from converters.storage.hashing_reader import HashingReader
from converters.storage.tree import hash_file, walk_files

Reader = Literal["native", "tensorflow"]


@dataclass(frozen=True)
class Job:
    """What all shards of a run share; frozen and picklable.

    Attributes:
        format: name of the format; ``format_options`` are for its constructor.
        features: names of the features in the source.
        workspace: where shards are written; None where nothing is.
        labels: folder of the authors' label CSVs, where given.
        reader: who reads the TFRecords.
        decode: whether every image is decoded.
        max_record_bytes: the longest record that is accepted.
        lost_rows: rows of label CSVs whose records are lost, by the split's title: first row and number of rows.
    """

    format: str
    features: Features
    workspace: Workspace | None = None
    format_options: dict[str, Any] = field(default_factory=dict)
    labels: Path | None = None
    reader: Reader = "native"
    decode: bool = False
    max_record_bytes: int = MAX_RECORD_BYTES
    lost_rows: Mapping[str, Rows] = field(default_factory=dict)


def convert_shard(job: Job, shard: Shard, progress: Progress | None = None) -> ShardResult:
    """Read a shard's records, check and write them, read the written files back, and fingerprint both.

    Raises:
        DataError: the source is damaged, or a record fails a check.
        ConverterError: the format failed, or did something other than its contract says.
    """
    if job.workspace is None:
        raise ValueError("this job has nowhere to write to")
    with job.workspace.attempt(shard) as folder:
        result = _convert(job, shard, folder, progress)
        job.workspace.deliver(result)
    return result


def _convert(job: Job, shard: Shard, folder: Path, progress: Progress | None) -> ShardResult:
    target = load_format(job.format, **job.format_options)
    source = PartBuilder(shard.first_record, len(shard.split.label_names))
    facts: list[RangeFacts] = []
    reading, writing = Stopwatch(), Stopwatch()
    batches = _counted(reading.watch(source.watch(read_shard(job, shard, facts))), "read", progress)
    with writing, format_errors(job.format, f"writing {shard.split.title}"):
        paths = target.write(batches, shard, folder)
    if next(batches, None) is not None:
        raise ConverterError(f"the format {job.format!r} stopped before it had taken every batch.")
    with writing:
        assert job.workspace is not None
        job.workspace.settle(folder)
    verifying = Stopwatch()
    with verifying, format_errors(job.format, f"reading back {shard.split.title}"):
        reader = HashingReader(folder)
        output = _read_back(target, reader, shard, folder, progress)
        files = _output_files(folder, paths, reader.files, job.format)
        summary = target.summarize(folder, shard) if isinstance(target, Summarizes) else None
    effort = Effort(
        f"{socket.gethostname()}:{os.getpid()}",
        reading.seconds,
        writing.seconds - reading.seconds,
        verifying.seconds,
    )
    return ShardResult(shard, folder, files, tuple(facts), source.part(), output, summary, effort)


def _read_back(
    target: Format, reader: HashingReader, shard: Shard, folder: Path, progress: Progress | None
) -> Part:
    """The fingerprint of a shard's records as they are read back from its written files.

    A format of many small files reads them through ``reader``, which then knows their digests too.
    """
    if isinstance(target, ReadsThrough):
        batches = target.read_through(reader.read, folder, shard.split)
    else:
        batches = target.read(folder, shard.split)
    label_count = len(shard.split.label_names)
    builder = PartBuilder(shard.first_record, label_count)
    checker = RecordChecker(shard.split)
    for batch in _counted(batches, "verified", progress):
        batch = conform(batch, label_count)
        # The sizes of the images are checked against their headers on both sides, so they survived too.
        checker.check(batch, output_location(shard.split, shard.first_record + builder.records))
        builder.add(batch)
    return builder.part()


@contextmanager
def format_errors(name: str, doing: str) -> Iterator[None]:
    """Turn what a format raises into an error that names it; a format may be anybody's code."""
    try:
        yield
    except (ConverterError, OSError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise ConverterError(
            f"the format {name!r} failed while {doing}: {type(error).__name__}: {error}; nothing was published."
        ) from error


def read_shard(job: Job, shard: Shard, facts: list[RangeFacts]) -> Iterator[pa.RecordBatch]:
    """The checked records of a shard, with their identities where label CSVs are given.

    ``facts`` is filled with what was found in each range, once it is read through.

    Raises:
        DataError: the source is damaged, or a record fails a check.
    """
    identities = _identities(job, shard.split)
    record = shard.first_record
    for batch in _read_ranges(job, shard, facts):
        yield batch if identities is None else identities.join(batch, record)
        record += len(batch)
    if identities is not None and shard.index == shard.count - 1:
        identities.finish(record)


def output_location(split: Split, done: int) -> Callable[[int], Location]:
    """Says where a row read back from an output comes from, after ``done`` records of the split."""
    return lambda row: Location(f"output of {split.title}", done + row)


def clips(job: Job, split: Split) -> int | None:
    """Number of distinct clips in the label CSV of a split; None without label CSVs."""
    identities = _identities(job, split)
    return None if identities is None else identities.clips()


def _identities(job: Job, split: Split) -> Identities | None:
    """The rows of the label CSV that belong to the records that are there; None without label CSVs."""
    if job.labels is None:
        return None
    return read_identities(job.labels, split).without(job.lost_rows.get(split.title, ()))


def _read_ranges(job: Job, shard: Shard, facts: list[RangeFacts]) -> Iterator[pa.RecordBatch]:
    label_count = len(shard.split.label_names)
    checker = RecordChecker(shard.split, decode=job.decode)
    parser = ExampleParser(job.features, label_count)
    for source in shard.ranges:
        reader = RangeReader(source, job.max_record_bytes)
        path = str(source.path)
        second = None
        for frames in reader.frames():
            batch = parse_frames(parser, path, frames)
            checker.check(batch, partial(frame_location, path, frames))
            if job.reader == "tensorflow":
                # Started only when a first batch was found sound: TensorFlow crashes on some files that are not.
                second = second or SecondReader(source, job.features, label_count, len(batch))
                second.confirm(batch, frames.first_record)
            yield batch
        if second is not None and source.end == file_state(source.path)[0]:
            second.finish(reader.records)
        indexed = None if source.index is None else True
        facts.append(
            RangeFacts(
                path, source.start, source.end, reader.records, reader.sha256, indexed, reader.record_bytes
            )
        )


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
    odd = "a path twice" if len(expected) < len(written) else None
    for path in walk_files(folder):
        there += 1
        odd = odd or (None if path in expected else path)
    if there < len(expected):
        odd = odd or min(expected - set(walk_files(folder)))
    if odd is not None:
        raise ConverterError(f"the format {name!r} did not write the files it says it wrote: {odd}.")
    if taken := expected & {MANIFEST, SUMS}:
        raise ConverterError(f"{min(taken)}: the format wrote a file of this name, which is kfer-convert's.")
    del expected
    if unsafe := next((path for path in written if not safe_path(path)), None):
        raise ConverterError(f"{unsafe!r}: the format {name!r} wrote a file of a name that is not safe.")
    files = OutputFiles()
    known = iter(seen.in_order())
    beyond = OutputFile("", 0, "")  # behind the last one
    next_known = next(known, beyond)
    for path in written:
        while next_known is not beyond and next_known.path < path:
            next_known = next(known, beyond)
        if next_known.path == path:
            files.add(*next_known)
        else:
            files.add(path, *hash_file(root + path))
    return files
