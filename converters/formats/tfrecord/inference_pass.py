"""Reads all records of a config once, to infer its columns from what they show."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

from converters.dataset.shard import Progress
from converters.dataset.source import MAX_RECORD_BYTES, SourceFile, SourceSplit, changed_file
from converters.errors import DataError, Location
from converters.formats.tfrecord.fast_parser import BatchParser, FeatureValues, KindError, RecordError
from converters.formats.tfrecord.feature_facts import FactsBuilder, TwoKindsError
from converters.formats.tfrecord.foreign import record_words
from converters.formats.tfrecord.framing import Frames
from converters.formats.tfrecord.inference import InferredConfig, infer_columns
from converters.formats.tfrecord.label_maps import LabelMap
from converters.formats.tfrecord.reader import RangeReader, SourceRange, frame_location
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

    def infer(self, config: str, splits: Sequence[SourceSplit]) -> InferredConfig:
        """Read all splits of a config.

        Raises:
            DataError: a file is damaged or changes, its records are no Examples, or a feature is of two kinds.
        """
        builder, parser = FactsBuilder(), _Parser(frozenset(self.without))
        for split in splits:
            for file in split.files:
                self._read(file, split.split.name, builder, parser)
        return infer_columns(config, builder, self.label_maps, parser.left_out, self.without)

    def _read(self, file: SourceFile, split: str, builder: FactsBuilder, parser: _Parser) -> None:
        path = str(file.path)
        for frames in self._frames(file):
            while True:
                try:
                    values = parser.parse(path, frames)
                    builder.add(split, values, frames, partial(frame_location, path, frames))
                except TwoKindsError as error:
                    if error.name not in self.without:
                        raise
                    parser.leave_out(error.name, error.kind)
                    builder.features.pop(error.name, None)
                else:
                    break
            if self.progress is not None:
                self.progress(INFERRED, len(frames.starts))
        if file_state(file.path) != (file.size, file.version):
            raise changed_file(file.path)

    def _frames(self, file: SourceFile) -> Iterator[Frames]:
        if not file.size:
            return
        source = SourceRange(
            file.path, 0, file.size, 0, file.compression, file.index, may_be_empty=file.may_be_empty
        )
        if self.quarantine and not file.may_be_empty:
            self._refuse_other_records(source)
            parser = _Parser(frozenset(self.without))
            found = examine(
                file.path,
                file.compression,
                file.index,
                partial(parser.check, str(file.path)),
                self.max_record_bytes,
            )
            index = None if found.index_problem else file.index
            source = replace(source, lost=found.lost, index=index)
        with closing(RangeReader(source, self.max_record_bytes, hashed=False).frames()) as frames:
            yield from frames

    def _refuse_other_records(self, source: SourceRange) -> None:
        """Where damage is passed over, what no record is of must not pass for damage."""
        try:
            with closing(RangeReader(source, self.max_record_bytes).frames()) as all_frames:
                frames = next(all_frames)
        except (DataError, StopIteration):
            return
        refuse_other_records(str(source.path), frames)


def refuse_other_records(path: str, frames: Frames) -> None:
    """Refuse a file whose first record is no Example, but something that can be told.

    Raises:
        DataError: it is.
    """
    if frames.first_record:
        return
    first = replace(frames, starts=frames.starts[:1], sizes=frames.sizes[:1])
    try:
        BatchParser().parse(first)
    except RecordError:
        if words := record_words(first.data(0)):
            raise DataError(
                f"the records are no tf.train.Example: the first is {words}.",
                Location(path, 0, 0),
                "Only files of tf.train.Example can be converted.",
            ) from None


@dataclass
class _Parser:
    """Parses records, whose features may be of two kinds if they are left out."""

    without: frozenset[str]
    left_out: dict[str, FeatureKind] = field(default_factory=dict)
    _parser: BatchParser = field(default_factory=BatchParser)

    def leave_out(self, name: str, kind: FeatureKind) -> None:
        """Leave a feature of two kinds out from now on."""
        self.left_out[name] = kind
        self._parser = BatchParser(self.left_out)

    def parse(self, path: str, frames: Frames) -> dict[str, FeatureValues]:
        """The values of each feature.

        Raises:
            DataError: a record is malformed, or a feature has two kinds.
        """
        while True:
            try:
                return self._parser.parse(frames)
            except KindError as error:
                if error.name in self.without:
                    self.leave_out(error.name, error.kind)
                    continue
                here, before = (frame_location(path, frames, row) for row in (error.row, error.first_row))
                raise TwoKindsError(error.name, error.kind, here, error.first_kind, before) from None
            except RecordError as error:
                if frames.first_record + error.row == 0:
                    refuse_other_records(path, frames)
                at = frame_location(path, frames, error.row, error.position)
                raise DataError(error.message, at) from None

    def check(self, path: str, frames: Frames) -> None:
        """See :data:`converters.formats.tfrecord.recovery.Check`; a feature of two kinds is no damage."""
        try:
            self.parse(path, frames)
        except TwoKindsError as error:
            self.leave_out(error.name, error.kind)
            self.check(path, frames)
