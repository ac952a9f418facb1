"""Reads all records of a config once, to infer its columns from what they show."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from converters.dataset.column_table import ColumnTable
from converters.dataset.shard import Progress
from converters.dataset.source import MAX_RECORD_BYTES, SourceFile, SourceSplit, changed_file
from converters.errors import DataError, Location
from converters.formats.tfrecord.fast_parser import BatchParser, FeatureValues, KindError, RecordError
from converters.formats.tfrecord.feature_facts import FactsBuilder, TwoKindsError
from converters.formats.tfrecord.foreign import record_words
from converters.formats.tfrecord.framing import Frames
from converters.formats.tfrecord.inference import infer_columns
from converters.formats.tfrecord.label_maps import LabelMap
from converters.formats.tfrecord.reader import RangeReader, frame_location, whole_file
from converters.formats.tfrecord.recovery import examine
from converters.formats.tfrecord.strict_parser import FeatureKind
from converters.storage.files import file_state

INFERRED = "inferred"
"""The step of which progress is told."""


@dataclass(frozen=True)
class InferencePass:
    """How records are read that nothing describes.

    Attributes:
        label_maps: the files of label names beside them.
        without: features that are left out, which may have two kinds.
        max_record_bytes: the longest record that is accepted.
        quarantine: whether damaged records are passed over.
        progress: told of the records.
    """

    label_maps: Sequence[LabelMap] = ()
    without: Collection[str] = ()
    max_record_bytes: int = MAX_RECORD_BYTES
    quarantine: bool = False
    progress: Progress | None = None

    def infer(self, config: str, splits: Sequence[SourceSplit]) -> ColumnTable:
        """Read all splits of a config.

        Raises:
            DataError: a file is damaged or changes, its records are no Examples, or a feature is of two kinds.
        """
        builder = FactsBuilder(self.without)
        for split in splits:
            for file in split.files:
                self._read(file, split.split.name, builder)
        return infer_columns(config, builder, self.label_maps)

    def _read(self, file: SourceFile, split: str, builder: FactsBuilder) -> None:
        path = str(file.path)
        for frames in self._frames(file):
            values = _parse(path, builder.left_out, frames, self.without)
            builder.add(split, values, frames, partial(frame_location, path, frames))
            if self.progress is not None:
                self.progress(INFERRED, len(frames.starts))
        if file_state(file.path) != (file.size, file.version):
            raise changed_file(file.path)

    def _frames(self, file: SourceFile) -> Iterator[Frames]:
        if not file.size:
            return
        if self.quarantine and not file.may_be_empty:
            check = partial(_parse, str(file.path), {})
            found = examine(file.path, file.compression, file.index, check, self.max_record_bytes)
            file = replace(file, lost=found.lost, index=None if found.index_problem else file.index)
        with closing(RangeReader(whole_file(file), self.max_record_bytes, hashed=False).frames()) as frames:
            yield from frames


def _parse(
    path: str, left_out: dict[str, FeatureKind], frames: Frames, without: Collection[str] | None = None
) -> dict[str, FeatureValues]:
    """The values of each feature but those left out, which are added to where a feature has two kinds.

    Args:
        path: the file.
        left_out: features that are left out because they have two kinds, and one of these.
        frames: the records.
        without: which features may have two kinds; None: all, for that is no damage.

    Raises:
        DataError: a record is malformed, or another feature has two kinds.
    """
    while True:
        try:
            return BatchParser(left_out).parse(frames)
        except KindError as error:
            if without is not None and error.name not in without:
                here, before = (frame_location(path, frames, row) for row in (error.row, error.first_row))
                raise TwoKindsError(error.name, error.kind, here, error.first_kind, before) from None
            left_out[error.name] = error.kind
        except RecordError as error:
            if error.row == frames.first_offset == 0 and (words := record_words(frames.data(0))):
                raise DataError(
                    f"the records are no tf.train.Example: the first is {words}.",
                    Location(path, 0, 0),
                    "Only files of tf.train.Example can be converted.",
                ) from None
            raise DataError(error.message, frame_location(path, frames, error.row, error.position)) from None
