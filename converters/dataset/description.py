"""What is known about a dataset: its configs, label names in stored order, splits and published counts.

KFER's description is ``kfer.json`` beside this module. A ``dataset.json`` beside the source files takes its
place. Both have one form: ``kfer-convert docs description``. No code holds a fact about a particular dataset.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Annotated, Any, Literal

from converters.dataset.decode import Count, DecodeError, Sha256, decode, load_json
from converters.dataset.filenames import MAX_NAME_BYTES, first_collision, unsafe_name
from converters.errors import CallError
from converters.storage.files import is_folder, is_there, read_bounded
from converters.storage.object_store import Place

Kind = Literal["single-label", "multi-label"]

DESCRIPTION_FILE = "dataset.json"
MAX_DESCRIPTION_BYTES = 4 << 20  # KFER's has 20 kB

# Column names of the outputs that a label must not take.
RESERVED_COLUMNS = frozenset({"file_name", "img_id", "clip_id"})

_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")  # what Hugging Face allows


@dataclass(frozen=True)
class Features:
    """Names of the ``tf.train.Example`` features that hold a record's parts."""

    image: str = "image_raw"
    label: str = "label"
    height: str = "height"
    width: str = "width"
    depth: str = "depth"

    def __post_init__(self) -> None:
        if len(set(self.names())) != 5:
            raise ValueError("expected five different feature names")

    def names(self) -> tuple[str, str, str, str, str]:
        """The five names: image, label, height, width, depth."""
        return (self.image, self.label, self.height, self.width, self.depth)


@dataclass(frozen=True)
class Published:
    """The facts published with a split. ``None`` is a fact that was not published and cannot be checked."""

    records: int | None = None
    label_counts: tuple[int, ...] | None = None
    labels_per_image: Mapping[int, int] | None = None
    distinct_label_sets: int | None = None
    labels_sha256: str | None = None
    clips: int | None = None
    identities_sha256: str | None = None


@dataclass(frozen=True)
class Split:
    """One split of one config.

    ``file`` and ``index`` are file names in the source folder; ``file`` may be a glob pattern (``train-*``),
    whose matches are read in the order of their names. ``labels_csv`` is the name of the authors' label file.
    """

    config: str
    name: str
    kind: Kind
    label_names: tuple[str, ...]
    file: str
    index: str | None = None
    labels_csv: str | None = None
    published: Published = field(default_factory=Published, hash=False)

    @property
    def title(self) -> str:
        """How messages name the split: ``config/split``."""
        return f"{self.config}/{self.name}"


@dataclass(frozen=True)
class Config:
    """A configuration of a dataset: its label names in stored order, and its splits."""

    name: str
    kind: Kind
    label_names: tuple[str, ...]
    splits: tuple[Split, ...]


@dataclass(frozen=True)
class Licence:
    """The terms the data is under. ``link`` points to the full terms, where they are on the web."""

    name: str = "unknown"
    text: str = "The description of this dataset states no licence. Ask whoever gave you the data."
    link: str | None = None

    def __str__(self) -> str:
        return f"{self.name}: {' '.join(self.text.split())}"

    @property
    def stated(self) -> bool:
        """Whether the description says anything about it."""
        return self != Licence()


@dataclass(frozen=True)
class Gating:
    """What the Hub asks of those who want access: a text, and fields with their kinds."""

    prompt: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """What people should know about the dataset; it goes into the dataset card."""

    title: str = ""
    description: str = ""
    homepage: str | None = None
    paper: str | None = None
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    annotations_creators: tuple[str, ...] = ()
    citation: str | None = None
    licence: Licence = field(default_factory=Licence)
    gating: Gating = field(default_factory=Gating)
    personal_data: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """The description of a dataset.

    ``document`` is the JSON object it was read from; manifests carry it, so that an output can be verified
    without the package knowing the dataset.
    """

    name: str
    about: About
    features: Features
    configs: tuple[Config, ...]
    document: Mapping[str, Any]

    @classmethod
    def from_json(cls, document: Any) -> Description:  # noqa: ANN401  # JSON
        """See :func:`parse_description`; for :func:`~converters.dataset.decode.decode`."""
        bare = isinstance(document, dict) and all(
            isinstance(value, dict) and "label_names" in value for value in document.values()
        )
        if bare and "configs" not in document:
            document = {"configs": document}
        form = decode(_Form, document, "")
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise DecodeError("a text has half of a surrogate pair, which UTF-8 cannot hold") from None
        return cls(
            form.name,
            replace(form.about, title=form.about.title or form.name),
            form.features,
            tuple(_config(name, config) for name, config in form.configs.items()),
            document,
        )

    def config(self, name: str) -> Config:
        """The config called ``name``.

        Raises:
            CallError: there is none.
        """
        for config in self.configs:
            if config.name == name:
                return config
        raise CallError(f"no config {name!r} in dataset {self.name!r}; it has {_listed(self.configs)}.")

    def splits(self) -> tuple[Split, ...]:
        """All splits of all configs, in the description's order."""
        return tuple(split for config in self.configs for split in config.splits)


def kfer() -> Description:
    """The description of KFER, from the package's own ``kfer.json``."""
    resource = resources.files("converters.dataset").joinpath("kfer.json")
    return parse_description(load_json(resource.read_bytes(), "kfer.json"), "kfer.json")


def load_description(folder: Place) -> Description:
    """The description that applies to a source folder: its ``dataset.json``, or else KFER's.

    Raises:
        CallError: ``dataset.json`` cannot be read, is not JSON, or is not of the form.
    """
    if not is_folder(folder):
        problem = "this is a file" if is_there(folder) else "there is no such folder"
        raise CallError(f"{folder}: {problem}. Name the folder that holds the TFRecord files.")
    path = folder / DESCRIPTION_FILE
    try:
        return parse_description(load_json(read_bounded(path, MAX_DESCRIPTION_BYTES), str(path)), str(path))
    except FileNotFoundError:
        return kfer()
    except OSError as error:
        raise CallError(f"{path}: cannot be read: {error.strerror}.") from error
    except DecodeError as error:
        raise CallError(f"{error}.") from None


def parse_description(document: object, origin: str) -> Description:
    """A description from its JSON object; ``origin`` names it in errors.

    The object has ``configs`` and, where they differ from KFER's, ``name``, ``features`` and ``about``. An
    object that is itself a mapping of configs is taken as such.

    Raises:
        CallError: something in it is missing, unknown, of the wrong type, or contradicts itself.
    """
    try:
        return decode(Description, document, origin)
    except DecodeError as error:
        raise CallError(f"{error}.") from None


# What stands in a description, where it is not what the classes above have.


def _split_name(name: str) -> str | None:
    if _SPLIT_NAME.fullmatch(name) and not unsafe_name(name):
        return None
    return f"{name!r} cannot name a split: letters, digits, _ and single dots only"


def _config_name(name: str) -> str | None:
    return f"the config name {problem}" if (problem := unsafe_name(name)) else None


def _file_name(name: str) -> str | None:
    if name in ("", ".", "..") or not name.isprintable() or {"/", "\\"} & set(name):
        return f"expected the name of a file in the same folder, found {name[:300]!r}"
    too_long = len(name.encode()) > MAX_NAME_BYTES
    return f"the name is longer than {MAX_NAME_BYTES} bytes" if too_long else None


def _label_name(name: str) -> str | None:
    usable = name and name.isprintable() and name not in RESERVED_COLUMNS
    return None if usable else f"{name!r} cannot name a label"


def _distinct(names: Sequence[str]) -> str | None:
    distinct = names and len(set(names)) == len(names)
    return None if distinct else "expected at least one name, and no name twice"


def _folders(names: Mapping[str, object]) -> str | None:
    """Config and split names become folder names, which some file systems compare without case."""
    if not names:
        return "at least one is needed"
    if first_collision(names):
        return "two names are one where case or Unicode form does not count, as on some file systems"
    return None


_FileName = Annotated[str, _file_name]


@dataclass(frozen=True)
class _SplitForm:
    file: _FileName
    index: _FileName | None = None
    labels_csv: _FileName | None = None
    records: Count | None = None
    label_counts: Mapping[str, Count] | None = None
    labels_per_image: Mapping[int, Count] | None = None
    distinct_label_sets: Count | None = None
    labels_sha256: Sha256 | None = None
    clips: Count | None = None
    identities_sha256: Sha256 | None = None


@dataclass(frozen=True)
class _ConfigForm:
    kind: Kind
    label_names: Annotated[tuple[Annotated[str, _label_name], ...], _distinct]
    splits: Annotated[Mapping[Annotated[str, _split_name], _SplitForm], _folders]

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            if split.label_counts is not None and split.label_counts.keys() != set(self.label_names):
                message = "expected one count for each of the config's label names"
                raise DecodeError(message, "splits", name, "label_counts")


@dataclass(frozen=True)
class _Form:
    configs: Annotated[Mapping[Annotated[str, _config_name], _ConfigForm], _folders]
    name: str = "dataset"
    features: Features = field(default_factory=Features)
    about: About = field(default_factory=About)


def _config(name: str, form: _ConfigForm) -> Config:
    splits = tuple(_split(name, split, form) for split in form.splits)
    return Config(name, form.kind, form.label_names, splits)


def _split(config: str, name: str, form: _ConfigForm) -> Split:
    split, counts = form.splits[name], form.splits[name].label_counts
    published = Published(
        split.records,
        None if counts is None else tuple(counts[label] for label in form.label_names),
        split.labels_per_image,
        split.distinct_label_sets,
        split.labels_sha256,
        split.clips,
        split.identities_sha256,
    )
    labels_csv = split.labels_csv or f"label_{config}_{name}.csv"
    return Split(config, name, form.kind, form.label_names, split.file, split.index, labels_csv, published)


def _listed(configs: Sequence[Config]) -> str:
    return ", ".join(config.name for config in configs)
