"""A Hugging Face dataset repo: Parquet files, the dataset card that configures them, and the licence.

``datasets`` finds configs and splits through the card's front matter. Neither it nor ``huggingface_hub`` is
imported here: both are slow to import, and nothing they would do is needed to write files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from converters.dataset.description import Split
from converters.dataset.manifest import DEFINITION, MANIFEST, SUMS
from converters.dataset.schema import Column, Schema
from converters.dataset.shard import Shard
from converters.errors import CallError
from converters.formats.croissant import write_croissant
from converters.formats.parquet import ParquetFormat
from converters.formats.readme import (
    LICENCE,
    README,
    about_empty_splits,
    cell,
    code,
    column_table,
    config_names,
    configs_yaml,
    default_config,
    empty_splits,
    fence,
    left_out,
    licence_yaml,
    one_line,
    records_word,
    several_labels,
    to_yaml,
    write_terms,
    write_text,
)
from converters.formats.table import features, yaml_features

if TYPE_CHECKING:
    from converters.dataset.report import Report, SplitReport

_TEMPLATE = "card.md.jinja"
_VALIDATION = "validation"
_VALIDATION_NAMES = frozenset({"valid", "val", "dev"})
_FORBIDDEN_CONFIG = "data"
_GLOB_CHARACTERS = frozenset("[]{}")  # `datasets` takes the card's paths for patterns
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_OFFSET_BYTES = 4
_CLIP = "clip_id"
_LABEL_ROWS = 1000  # of a table in the card; the rest stands in the manifest


class HfFormat(ParquetFormat):
    """Hugging Face dataset repo: Parquet as <config>/{train,validation,test}-*.parquet, dataset card, licence."""

    name = "hf"

    def split_name(self, split: Split) -> str:
        """What the files of ``split`` are called: ``validation`` is the Hub's name for valid, val and dev."""
        return _VALIDATION if split.name in _VALIDATION_NAMES else split.name

    def refuse(self, splits: Sequence[Split]) -> None:
        """Refuse names that the Hub or ``datasets`` would not take, and splits that would be one on the Hub.

        Raises:
            CallError: with the config or split, and what to do.
        """
        super().refuse(splits)
        for split in splits:
            if split.config == _FORBIDDEN_CONFIG or _GLOB_CHARACTERS & set(split.config):
                raise CallError(
                    f"{split.title}: Hugging Face takes no config named {split.config!r}: the name `data` and "
                    "the characters [ ] { } have a meaning of their own there. Rename it in dataset.json, or choose "
                    "another format."
                )

    def summarize(self, folder: Path, shard: Shard) -> dict[str, Any]:
        """The size that `datasets` will say the shard has, and how many images each clip has, where that is known."""
        (path,) = self.paths(folder, shard.split)
        clips: Counter[str] = Counter()
        if _has_clips(shard.split):
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for rows in file.iter_batches(columns=[_CLIP], use_threads=False):
                    clips.update(rows[_CLIP].to_pylist())
        return {"num_bytes": arrow_bytes(path, shard.split.schema), "clips": dict(clips)}

    def finish(self, report: Report, folder: Path) -> None:
        """Write the dataset card, the licence, and the description that Croissant readers take."""
        names = self.names([split.split for split in report.splits])
        splits = [
            _SplitCard(
                report=split,
                name=names[split.split.title],
                num_bytes=sum(summary["num_bytes"] for summary in split.summaries)
                + split.fingerprint.image_bytes
                + _OFFSET_BYTES * split.fingerprint.records * len(split.split.schema.images),
            )
            for split in report.splits
        ]
        write_text(folder / README, _card(report, _configs(splits)))
        write_terms(report, folder)
        write_croissant(report, names, folder)


def _has_clips(split: Split) -> bool:
    """Whether the clips of the images were joined from label CSVs."""
    return _CLIP in split.schema and split.schema[_CLIP].feature is None


@dataclass(frozen=True)
class _SplitCard:
    """A split as the card shows it. ``num_bytes`` as :func:`arrow_bytes`, with the images."""

    report: SplitReport
    name: str
    num_bytes: int

    @property
    def split(self) -> Split:
        return self.report.split

    @property
    def records(self) -> int:
        return self.report.fingerprint.records


@dataclass(frozen=True)
class _ConfigCard:
    """A config as the card shows it; ``splits`` are those that were converted."""

    name: str
    splits: tuple[_SplitCard, ...]
    default: bool

    @property
    def split(self) -> Split:
        return self.splits[0].split

    @property
    def schema(self) -> Schema:
        return self.split.schema

    @property
    def word(self) -> str:
        return records_word([self.split])

    @property
    def several(self) -> bool:
        """Whether a record may have several labels."""
        return several_labels(self.schema.label)

    @property
    def labels_found(self) -> list[int]:
        """The numbers of labels that records have."""
        counts = [split.report.fingerprint.labels_per_image for split in self.splits]
        return sorted({number for count in counts for number in count or ()})

    @property
    def columns(self) -> str:
        """A Markdown table of the columns."""
        described = features(self.schema)
        return column_table(self.schema, {name: _type(feature) for name, feature in described.items()})

    @property
    def class_label(self) -> Column | None:
        """The column whose numbers have names."""
        described = features(self.schema)
        named = (column for column in self.schema if "names" in _value(described[column.name]))
        return next(named, None)

    @property
    def label_counts(self) -> list[tuple[str, list[int]]]:
        """Each label, and how many records of each split have it; only so many."""
        counts = [split.report.fingerprint.label_counts or () for split in self.splits]
        return list(zip(self.split.label_names, map(list, zip(*counts, strict=True)), strict=True))[
            :_LABEL_ROWS
        ]

    @property
    def about_labels(self) -> str:
        """How many labels each record has, and how many there are; a sentence."""
        label, found = self.schema.label, self.labels_found
        if label is None or not label.label_names:
            return ""
        if self.several:
            often = "One or more labels" if label.kind and not label.unlabelled else "Any number of labels"
        else:
            often = "At most one label" if 0 in found or label.unlabelled else "One label"
        return f"{often} per {self.word[:-1]}, {len(label.label_names):,} labels."


def _shared_clips(config: _ConfigCard) -> Iterator[dict[str, Any]]:
    """How many images each split but the first has of clips that the first one has images of too."""
    clips: dict[str, Counter[str]] = {split.name: Counter() for split in config.splits}
    for split in config.splits:
        for summary in split.report.summaries:
            clips[split.name].update(summary["clips"])
    first, *others = clips
    for name in others:
        shared = sum(images for clip, images in clips[name].items() if clip in clips[first])
        row = {"config": config.name, "split": name, "first": first}
        yield row | {"images": clips[name].total(), "shared": shared}


def arrow_bytes(path: Path, schema: Schema) -> int:
    """``num_bytes`` as `datasets` counts a Parquet file, without the images' bytes and offsets.

    That is the size of the Arrow tables it makes of the file: one for each row group, cut to the number of rows
    of the first. The images are left unread: they add their bytes and four a row for the offsets; and a bitmap
    where some are missing, which is that of their paths. (Tables of a single row are gathered by `datasets`, also
    from several files, so that bitmaps of columns that lack values may come out some bytes smaller there.)
    """
    images = {image.name for image in schema.images}
    total = 0
    with pq.ParquetFile(path) as file:
        unread = {f"{name}.bytes" for name in images}
        read = [index for index in range(len(file.schema)) if file.schema.column(index).path not in unread]
        rows = 0
        for group in range(file.num_row_groups):
            table = file.reader.read_row_group(group, column_indices=read, use_threads=False)
            rows = rows or len(table)
            for start in range(0, len(table), rows or 1):
                part = table.slice(start, rows)
                total += part.nbytes + sum(_bitmap_bytes(part.column(name)) for name in images)
    return total


def _bitmap_bytes(images: pa.ChunkedArray) -> int:
    """The size of the bitmap that says which paths of images, and so which bytes, are missing."""
    paths = [chunk.field("path") for chunk in images.chunks]
    return sum(
        path.nbytes
        - pa.Array.from_buffers(path.type, len(path), [None, *path.buffers()[1:]], offset=path.offset).nbytes
        for path in paths
        if path.buffers()[0] is not None
    )


def size_category(records: int) -> str:
    """The Hub's name for a number of records."""
    lower = ""
    for exponent, name in enumerate(_SIZES, 3):
        if records < 10**exponent:
            return f"{lower}n<{name}"
        lower = f"{name}<"
    return f"n>{_SIZES[-1]}"


def _value(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    """The feature of a single value."""
    return cast("Mapping[str, Any]", feature.get("feature", feature))


def _type(feature: Mapping[str, Any]) -> str:
    """A feature in a few words."""
    value = _value(feature)
    if value is feature:
        return str(value.get("dtype") or value["_type"])
    return (
        f"{value['dtype']}[{feature.get('length', '')}]" if "dtype" in value else f"list of {value['_type']}"
    )


def _configs(splits: Sequence[_SplitCard]) -> list[_ConfigCard]:
    """The converted configs."""
    found = [split.split for split in splits]
    default = default_config(found)
    return [
        _ConfigCard(
            name, tuple(split for split in splits if split.split.config == name), default=name == default
        )
        for name in config_names(found)
    ]


def _card(report: Report, configs: Sequence[_ConfigCard]) -> str:
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # this is Markdown, not HTML
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "one_line": one_line,
        "cell": cell,
        "code": code,
        "fence": fence,
        "number": lambda value: f"{value:,}",
        "python": partial(json.dumps, ensure_ascii=False),
    }
    template = resources.files("converters.formats").joinpath(_TEMPLATE).read_text("utf-8")
    default = next(config for config in configs if config.default)
    splits = [split.split for split in report.splits]
    clips_known = [config for config in configs if any(_has_clips(split.split) for split in config.splits)]
    return environment.from_string(template).render(
        front_matter=to_yaml(_front_matter(report, configs)),
        about=report.description.about,
        report=report,
        left_out=left_out(report),
        empty=about_empty_splits(report),
        configs=configs,
        example=_example(default),
        word=records_word(splits),
        has_images=any(split.schema.images for split in splits),
        has_labels=any(split.schema.label for split in splits),
        has_vectors=any(split.fingerprint.labels_sha256 for split in report.splits),
        unnamed_clips=not clips_known and any(split.published.clips is not None for split in splits),
        shared=[row for config in clips_known for row in _shared_clips(config)],
        version=version("kfer-convert"),
        definition=DEFINITION,
        manifest=MANIFEST,
        sums=SUMS,
        licence_file=LICENCE,
    )


def _example(config: _ConfigCard) -> dict[str, Any]:
    """What the card's code shows: the first record of a split of a config.

    It is shown by a column of images and another ``value`` that every record has, as far as there are such columns and
    records. ``label`` is the column whose numbers have names, where there is one; ``named``, whether every value of it
    is such a number; ``is_list``, whether a record has several.
    """
    split = next((split for split in config.splits if split.records), None)
    label = config.class_label
    images = (image.name for image in config.schema.images if not image.nullable)
    others = (label, config.schema.label, *config.schema)
    values = (column.name for column in others if column and column.role != "image")
    # A stored list may hold -1, which is no label, among others.
    sure = label is not None and (label.derived or not label.is_list)
    counts = None if split is None else split.report.fingerprint.labels_per_image
    return {
        "config": config.name,
        "split": (split or config.splits[0]).name,
        "image": None if split is None else next(images, None),
        "value": None if split is None else next(values, None),
        "label": None if label is None else label.name,
        "named": sure and counts is not None and 0 not in counts,
        "is_list": label is not None and label.is_list,
    }


def _front_matter(report: Report, configs: Sequence[_ConfigCard]) -> dict[str, Any]:
    about = report.description.about
    splits = [split.split for split in report.splits]
    names = {split.split.title: split.name for config in configs for split in config.splits}
    empty = {split.title for split in empty_splits(report)}
    paths = {
        split.title: f"{split.config}/{names[split.title]}-*" for split in splits if split.title not in empty
    }
    optional = {
        "language": list(about.languages),
        "annotations_creators": list(about.annotations_creators),
        "tags": list(about.tags),
    }
    gating = {
        "extra_gated_prompt": about.gating.prompt or "",
        "extra_gated_fields": dict(about.gating.fields),
    }
    return {
        "pretty_name": one_line(about.title),
        **licence_yaml(about),
        **{key: values for key, values in optional.items() if values},
        **_tasks([config.schema for config in configs]),
        "size_categories": [size_category(report.records)],
        **{key: value for key, value in gating.items() if value},
        "configs": configs_yaml(splits, paths, names),
        "dataset_info": [_yaml_info(config, paths) for config in configs],
    }


def _tasks(schemas: Sequence[Schema]) -> dict[str, list[str]]:
    """The tasks that the data is plainly for: images with labels. A list of labels may be of parts of the image."""
    kinds = {
        label.kind or "single-label"
        for schema in schemas
        if schema.images and (label := schema.label) and (label.kind or not label.is_list)
    }
    task_ids = {
        "single-label": "multi-class-image-classification",
        "multi-label": "multi-label-image-classification",
    }
    return (
        {
            "task_categories": ["image-classification"],
            "task_ids": [task for kind, task in task_ids.items() if kind in kinds],
        }
        if kinds
        else {}
    )


def _yaml_info(config: _ConfigCard, loaded: Collection[str]) -> dict[str, Any]:
    return {
        "config_name": config.name,
        "features": yaml_features(config.schema),
        "splits": [
            {"name": split.name, "num_bytes": split.num_bytes, "num_examples": split.records}
            for split in config.splits
            if split.split.title in loaded
        ],
        "download_size": sum(split.report.output_bytes for split in config.splits),
        "dataset_size": sum(split.num_bytes for split in config.splits),
    }
