"""A Hugging Face dataset repo: Parquet files, the dataset card that configures them, and the licence.

``datasets`` finds configs and splits through the card's front matter. Neither it nor ``huggingface_hub`` is
imported here: both are slow to import, and nothing they would do is needed to write files.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from converters.dataset.description import Kind, Licence, Split
from converters.dataset.manifest import DEFINITION, MANIFEST, SUMS
from converters.dataset.shard import Shard
from converters.errors import CallError
from converters.formats.image_table import features
from converters.formats.parquet import ParquetFormat

if TYPE_CHECKING:
    from converters.dataset.report import Report, SplitReport

CARD = "README.md"
LICENCE = "LICENSE"

_TEMPLATE = "card.md.jinja"
_VALIDATION = "validation"
_VALIDATION_NAMES = frozenset({"valid", "val", "dev"})
_FORBIDDEN_CONFIG = "data"
_GLOB_CHARACTERS = frozenset("[]{}")  # `datasets` takes the card's paths for patterns
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_IMAGE_DATA = "image.bytes"
_OFFSET_BYTES = 4
_WIDTH = 100


class HfFormat(ParquetFormat):
    """Hugging Face dataset repo: Parquet as <config>/{train,validation,test}-*.parquet, dataset card, licence."""

    name = "hf"

    def split_name(self, split: Split) -> str:
        """What the files of ``split`` are called: ``validation`` is the Hub's name for valid, val and dev."""
        return _VALIDATION if split.name in _VALIDATION_NAMES else split.name

    def write(self, batches: Iterable[pa.RecordBatch], shard: Shard, folder: Path) -> list[Path]:
        """Write a shard's records to one file.

        Raises:
            CallError: the Hub does not take the config's name.
        """
        if shard.config == _FORBIDDEN_CONFIG or _GLOB_CHARACTERS & set(shard.config):
            raise CallError(
                f"{shard.split.title}: Hugging Face takes no config named {shard.config!r}: the name `data` and "
                "the characters [ ] { } have a meaning of their own there. Rename it in dataset.json, or choose "
                "another format."
            )
        return super().write(batches, shard, folder)

    def summarize(self, folder: Path, shard: Shard) -> dict[str, Any]:
        """The size that `datasets` will say the shard has, and how many images each clip has, where that is known."""
        (path,) = self.paths(folder, shard.split)
        clips: Counter[str] = Counter()
        with pq.ParquetFile(path, pre_buffer=False) as file:
            if "clip_id" in file.schema_arrow.names:
                for rows in file.iter_batches(columns=["clip_id"], use_threads=False):
                    clips.update(rows["clip_id"].to_pylist())
        return {"num_bytes": arrow_bytes(path), "clips": dict(clips)}

    def finish(self, report: Report, folder: Path) -> None:
        """Write the dataset card, the licence, and the description that Croissant readers take.

        Raises:
            CallError: two splits of a config would be one on the Hub.
        """
        self._refuse_one_name([split.split for split in report.splits])
        splits = [
            _SplitCard(
                report=split,
                name=self.split_name(split.split),
                num_bytes=sum(summary["num_bytes"] for summary in split.summaries)
                + split.fingerprint.image_bytes
                + _OFFSET_BYTES * split.fingerprint.records,
                file_bytes=split.output_bytes,
            )
            for split in report.splits
        ]
        configs = _configs(splits)
        shared = [row for config in configs if config.identified for row in _shared_clips(config)]
        _write(folder / CARD, _card(report, configs, shared))
        _write(
            folder / LICENCE, licence_text(report.description.about.title, report.description.about.licence)
        )
        super().finish(report, folder)

    def _refuse_one_name(self, splits: Sequence[Split]) -> None:
        seen: dict[tuple[str, str], Split] = {}
        for split in splits:
            other = seen.setdefault((split.config, self.split_name(split)), split)
            if other != split:
                raise CallError(
                    f"{split.config}: the splits {other.name!r} and {split.name!r} would both be "
                    f"{self.split_name(split)!r} on the Hub. Rename one in dataset.json, or convert only one."
                )


@dataclass(frozen=True)
class _SplitCard:
    """A split as the card shows it. ``num_bytes`` as :func:`arrow_bytes`, with the images."""

    report: SplitReport
    name: str
    num_bytes: int
    file_bytes: int

    @property
    def records(self) -> int:
        return self.report.fingerprint.records


@dataclass(frozen=True)
class _ConfigCard:
    """A config as the card shows it; ``splits`` are those that were converted."""

    name: str
    kind: Kind
    label_names: tuple[str, ...]
    splits: tuple[_SplitCard, ...]
    default: bool

    @property
    def identified(self) -> bool:
        return any(split.report.fingerprint.identities_sha256 is not None for split in self.splits)

    @property
    def labels_per_image(self) -> list[int]:
        return sorted(
            {number for split in self.splits for number in split.report.fingerprint.labels_per_image}
        )


@dataclass(frozen=True)
class _SharedClips:
    """How many of a split's images are of a clip that the config's ``first`` split has images of too."""

    config: str
    split: str
    first: str
    images: int
    shared: int


def _shared_clips(config: _ConfigCard) -> list[_SharedClips]:
    clips = {split.name: _images_of_clips(split.report.summaries) for split in config.splits}
    first, *others = clips
    return [
        _SharedClips(
            config.name,
            name,
            first,
            clips[name].total(),
            sum(images for clip, images in clips[name].items() if clip in clips[first]),
        )
        for name in others
    ]


def _images_of_clips(summaries: Sequence[Any]) -> Counter[str]:
    """How many images each clip has."""
    images: Counter[str] = Counter()
    for summary in summaries:
        images.update(summary["clips"])
    return images


def arrow_bytes(path: Path) -> int:
    """``num_bytes`` as `datasets` counts a Parquet file, without the images' bytes and offsets.

    That is the size of the Arrow tables it makes of the file: one for each row group, cut to the number of rows
    of the first. The images are left unread: they add their bytes and four a row for the offsets.
    """
    total = 0
    with pq.ParquetFile(path) as file:
        columns = [file.schema.column(index).path for index in range(len(file.schema))]
        columns.remove(_IMAGE_DATA)
        rows = 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns, use_threads=False)
            rows = rows or len(table)
            total += sum(table.slice(start, rows).nbytes for start in range(0, len(table), rows or 1))
    return total


def licence_text(title: str, licence: Licence) -> str:
    """The licence file: plain text."""
    paragraphs = [title, f"Licence: {licence.name}", *re.split(r"\n\s*\n", licence.text)]
    if licence.link:
        paragraphs.append(f"Full terms: {licence.link}")
    return (
        "\n\n".join(
            textwrap.fill(one_line(text), _WIDTH, break_long_words=False, break_on_hyphens=False)
            for text in paragraphs
        )
        + "\n"
    )


def size_category(records: int) -> str:
    """The Hub's name for a number of records."""
    lower = ""
    for exponent, name in enumerate(_SIZES, 3):
        if records < 10**exponent:
            return f"{lower}n<{name}"
        lower = f"{name}<"
    return f"n>{_SIZES[-1]}"


def slug(name: str) -> str:
    """A licence name in the characters that the Hub takes."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or "unknown"


def yaml_features(split: Split, *, identified: bool) -> list[dict[str, Any]]:
    """A split's features in the form of a dataset card; ``sequence`` is read by all versions of `datasets`."""
    return [
        {"name": name, **_yaml_feature(feature)}
        for name, feature in features(split, identified=identified).items()
    ]


def one_line(text: str) -> str:
    """``text`` with all white space, line ends among it, made single spaces."""
    return " ".join(text.split())


def cell(text: object) -> str:
    """``text`` for a cell of a Markdown table."""
    return one_line(str(text)).replace("|", "\\|")


def code(text: object) -> str:
    """``text`` as a Markdown code span, also in a table."""
    content = cell(text)
    if "`" not in content:
        return f"`{content}`"
    fence = "`" * (_longest_run(content) + 1)
    return f"{fence} {content} {fence}"


def fence(text: str) -> str:
    """A fence for a Markdown code block that holds ``text``."""
    return "`" * max(3, _longest_run(text) + 1)


def sql(text: str) -> str:
    """``text`` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _yaml_feature(feature: Mapping[str, Any]) -> dict[str, Any]:
    kind = feature["_type"]
    if kind == "Value":
        return {"dtype": feature["dtype"]}
    if kind == "ClassLabel":
        # The Hub wants strings for keys.
        names = {str(number): name for number, name in enumerate(feature["names"])}
        return {"dtype": {"class_label": {"names": names}}}
    if kind == "Sequence":
        length = {"length": feature["length"]} if "length" in feature else {}
        return {"sequence": _yaml_feature(feature["feature"])["dtype"], **length}
    return {"dtype": str(kind).lower()}


def _configs(splits: Sequence[_SplitCard]) -> list[_ConfigCard]:
    """The converted configs. The default is the multi-label one, of several the last; else the last of all."""
    by_name: dict[str, list[_SplitCard]] = {}
    for split in splits:
        by_name.setdefault(split.report.split.config, []).append(split)
    first = {name: group[0].report.split for name, group in by_name.items()}
    multi = [name for name, split in first.items() if split.kind == "multi-label"]
    default = (multi or list(by_name))[-1]
    return [
        _ConfigCard(name, first[name].kind, first[name].label_names, tuple(group), name == default)
        for name, group in by_name.items()
    ]


def _card(report: Report, configs: Sequence[_ConfigCard], shared: Sequence[_SharedClips]) -> str:
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
        "python": partial(json.dumps, ensure_ascii=False),
        "sql": sql,
        "number": lambda value: f"{value:,}",
    }
    template = resources.files("converters.formats").joinpath(_TEMPLATE).read_text("utf-8")
    default = next(config for config in configs if config.default)
    return environment.from_string(template).render(
        front_matter=_front_matter(report, configs),
        about=report.description.about,
        report=report,
        configs=configs,
        default=default,
        shared=shared,
        unnamed_clips=_has_unnamed_clips(configs),
        features={config.name: _described(config) for config in configs},
        pattern=f"{default.name}/{default.splits[0].name}-*.parquet",
        version=version("kfer-convert"),
        definition=DEFINITION,
        manifest=MANIFEST,
        sums=SUMS,
        licence_file=LICENCE,
    )


def _has_unnamed_clips(configs: Sequence[_ConfigCard]) -> bool:
    """Whether the images were cut from clips, as far as is published, and their names were not joined."""
    splits = [split.report.split for config in configs for split in config.splits]
    return any(split.published.clips is not None for split in splits) and not any(
        config.identified for config in configs
    )


def _described(config: _ConfigCard) -> list[tuple[str, str, str]]:
    """Name, type and meaning of each of a config's columns."""
    width = len(config.label_names)
    multi = config.kind == "multi-label"
    types = {
        "image": ("Image", "the JPEG file as it is stored in the source, byte for byte"),
        "label": (
            "list of ClassLabel" if multi else "ClassLabel",
            "numbers of the labels that the image has" if multi else "number of the image's label",
        ),
        "label_vector": (f"uint8[{width}]", "0 or 1 for each label, in stored order, as in the source"),
        "height": ("int32", "height in pixels"),
        "width": ("int32", "width in pixels"),
        "depth": ("int32", "number of colour channels"),
        "img_id": ("string", "name of the image in the dataset's label files"),
        "clip_id": ("string", "the video clip that the image was cut from"),
    }
    columns = features(config.splits[0].report.split, identified=config.identified)
    return [(name, *types[name]) for name in columns]


def _front_matter(report: Report, configs: Sequence[_ConfigCard]) -> str:
    import yaml

    about = report.description.about
    link = about.licence.link
    kinds = {config.kind for config in configs}
    task_ids = {
        "single-label": "multi-class-image-classification",
        "multi-label": "multi-label-image-classification",
    }
    gating: dict[str, Any] = {}
    if about.gating.prompt:
        gating["extra_gated_prompt"] = about.gating.prompt
    if about.gating.fields:
        gating["extra_gated_fields"] = dict(about.gating.fields)
    optional = {
        "language": list(about.languages),
        "annotations_creators": list(about.annotations_creators),
        "tags": list(about.tags),
    }
    document = {
        "pretty_name": one_line(about.title),
        "license": "other",
        "license_name": slug(about.licence.name),
        "license_link": link if link and link.startswith(("https://", "http://")) else LICENCE,
        **{key: values for key, values in optional.items() if values},
        "task_categories": ["image-classification"],
        "task_ids": [task for kind, task in task_ids.items() if kind in kinds],
        "size_categories": [size_category(report.records)],
        **gating,
        "configs": [_yaml_config(config) for config in configs],
        "dataset_info": [_yaml_info(config) for config in configs],
    }
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=_WIDTH))


def _yaml_config(config: _ConfigCard) -> dict[str, Any]:
    files = [{"split": split.name, "path": f"{config.name}/{split.name}-*"} for split in config.splits]
    return {"config_name": config.name, "data_files": files, **({"default": True} if config.default else {})}


def _yaml_info(config: _ConfigCard) -> dict[str, Any]:
    return {
        "config_name": config.name,
        "features": yaml_features(config.splits[0].report.split, identified=config.identified),
        "splits": [
            {"name": split.name, "num_bytes": split.num_bytes, "num_examples": split.records}
            for split in config.splits
        ],
        "download_size": sum(split.file_bytes for split in config.splits),
        "dataset_size": sum(split.num_bytes for split in config.splits),
    }


def _write(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
