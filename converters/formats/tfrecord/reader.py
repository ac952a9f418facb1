"""Reads a range of a TFRecord file as checked record batches."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pyarrow as pa

from converters.dataset.damage import LostRange
from converters.dataset.shard import SliceFacts
from converters.dataset.source import MAX_RECORD_BYTES, SourceFile
from converters.dataset.source_facts import Compression
from converters.errors import DataError, Location
from converters.formats.tfrecord.columns import ColumnReader
from converters.formats.tfrecord.compression import DecompressedStream, StoredFile
from converters.formats.tfrecord.damage import drain, sound_parts, stored_stream
from converters.formats.tfrecord.fast_parser import RecordError
from converters.formats.tfrecord.foreign import is_sequence_example
from converters.formats.tfrecord.framing import (
    HEADER_BYTES,
    OVERHEAD_BYTES,
    ByteStream,
    Frames,
    read_frames,
)
from converters.formats.tfrecord.index import IndexChecker
from converters.formats.tfrecord.strict_parser import ExampleError, parse_example
from converters.storage.files import file_state
from converters.storage.object_store import Place

# Of a longer record it is not told whether it is another message: that takes as much memory again.
_MAX_TOLD_BYTES = 16 << 20


@dataclass(frozen=True)
class SourceRange:
    """A range of a source file that holds whole records.

    Attributes:
        path: the file.
        start: first byte, as stored; ``end``: one past the last.
        first_record: index in the file of the range's first record.
        compression: of the file; a compressed file is one range.
        index: the file's ``.idx``, where there is one.
        lost: damaged ranges in it, in order, that are passed over; what lies between them is read as strictly.
        may_be_empty: whether it may hold no record.
    """

    path: Place
    start: int
    end: int
    first_record: int
    compression: Compression = "none"
    index: Place | None = None
    lost: tuple[LostRange, ...] = ()
    may_be_empty: bool = False


def whole_file(file: SourceFile) -> SourceRange:
    """All of a source file."""
    return SourceRange(
        file.path, 0, file.size, 0, file.compression, file.index, file.lost, may_be_empty=file.may_be_empty
    )


class RangeReader:
    """Finds the records of one range: framing, checksums, index.

    After the last record, ``records``, ``record_bytes`` (their size with headers and checksums) and ``sha256``
    tell of the whole range; ``sha256`` only if it is ``hashed``.
    """

    def __init__(
        self, source: SourceRange, max_record_bytes: int = MAX_RECORD_BYTES, *, hashed: bool = True
    ) -> None:
        self.source = source
        self.records = 0
        self.record_bytes = 0
        self.sha256 = ""
        self._max_record_bytes = max_record_bytes
        self._hashed = hashed

    def frames(self) -> Generator[Frames, None, None]:
        """The records, checksums verified and held against the index.

        Raises:
            DataError: the file is damaged, or disagrees with its index.
        """
        source = self.source
        with ExitStack() as stack:
            file = stack.enter_context(StoredFile(source.path, source.start, source.end, hashed=self._hashed))
            checker = None
            if source.index is not None:
                checker = stack.enter_context(
                    IndexChecker(source.index, str(source.path), source.first_record)
                )
            stream: ByteStream = file
            if source.compression != "none":
                stored = stored_stream(file, source.lost, file.path)
                stream = DecompressedStream(stored, source.compression, file.path)
            lost = 0
            for part in sound_parts(stream, source.start, source.lost, file.path):
                if checker is not None:
                    checker.skip(part.lost_records - lost)
                lost = part.lost_records
                for frames in read_frames(
                    part.stream,
                    file.path,
                    first_record=source.first_record + self.records + lost,
                    first_offset=part.offset,
                    end=source.end if source.compression == "none" else None,
                    max_record_bytes=self._max_record_bytes,
                ):
                    if checker is not None:
                        checker.check(frames)
                    self.records += len(frames.starts)
                    self.record_bytes += int(frames.sizes.sum()) + OVERHEAD_BYTES * len(frames.sizes)
                    yield frames
            if checker is not None and source.end == file.size:
                everywhere = sum(piece.records or 0 for piece in source.lost)
                checker.skip(everywhere - lost)
                checker.finish(source.first_record + self.records + everywhere)
            if not self.records and not source.lost and not source.may_be_empty:
                raise DataError("the file holds no record.", Location(file.path), "Copy it again.")
            drain(file)
            self.sha256 = file.sha256()

    def facts(self) -> SliceFacts:
        """What was found in the range, once it was read through."""
        source = self.source
        indexed = None if source.index is None else True
        return SliceFacts(
            str(source.path), source.start, source.end, self.records, self.sha256, indexed, self.record_bytes
        )


def frame_location(path: str, frames: Frames, row: int, position: int | None = None) -> Location:
    """Where record ``row`` of ``frames`` starts, or byte ``position`` of its data lies."""
    offset = int(frames.starts[row] - frames.starts[0]) + frames.first_offset
    if position is not None:
        offset += HEADER_BYTES + position
    return Location(path, frames.first_record + row, offset)


def read_columns(columns: ColumnReader, path: str, frames: Frames) -> pa.RecordBatch:
    """The records of ``frames`` as a batch.

    Raises:
        DataError: a record is malformed or not what the dataset's description says.
    """
    try:
        return columns.read(frames)
    except RecordError as error:
        first = frames.first_record + error.row == 0 and frames.sizes[0] <= _MAX_TOLD_BYTES
        if first and is_sequence_example(bytes(frames.data(0))):
            raise DataError(
                "the records are no tf.train.Example: the first is a tf.train.SequenceExample.",
                Location(path, 0, 0),
            ) from None
        raise DataError(error.message, frame_location(path, frames, error.row, error.position)) from None


def first_label_count(path: Place, compression: Compression, feature: str) -> int:
    """How many values the file's first record has of a feature.

    Raises:
        DataError: the file is damaged, or its first record has no such feature.
    """
    with closing(RangeReader(SourceRange(path, 0, file_state(path)[0], 0, compression)).frames()) as reader:
        frames = next(reader)
    try:
        label = parse_example(frames.data(0)).get(feature)
    except ExampleError as error:
        raise DataError(f"{error.message}.", frame_location(str(path), frames, 0, error.position)) from None
    if label is None:
        raise DataError(f"the feature {feature!r} is missing.", frame_location(str(path), frames, 0))
    return label.count
