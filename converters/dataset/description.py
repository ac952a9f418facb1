"""What is known about a dataset: its configs, label names in stored order, splits and published counts.

KFER's description is ``kfer.json`` beside this module. A ``dataset.json`` beside the source files takes its
place. Both have one form: ``kfer-convert docs description``. No code holds a fact about a particular dataset.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

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
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Features:
    """Names of the ``tf.train.Example`` features that hold a record's parts."""

    image: str = "image_raw"
    label: str = "label"
    height: str = "height"
    width: str = "width"
    depth: str = "depth"

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
class About:
    """What people should know about the dataset; it goes into the dataset card."""

    title: str
    description: str = ""
    homepage: str | None = None
    paper: str | None = None
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    annotations_creators: tuple[str, ...] = ()
    citation: str | None = None
    licence: Licence = field(default_factory=Licence)
    gating_prompt: str | None = None
    gating_fields: Mapping[str, str] = field(default_factory=dict)
    personal_data: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSpec:
    """The description of a dataset.

    ``document`` is the JSON object it was read from; manifests carry it, so that an output can be verified
    without the package knowing the dataset.
    """

    name: str
    about: About
    features: Features
    configs: tuple[Config, ...]
    document: Mapping[str, Any]

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


def kfer() -> DatasetSpec:
    """The description of KFER, from the package's own ``kfer.json``."""
    resource = resources.files("converters.dataset").joinpath("kfer.json")
    return parse_spec(json.loads(resource.read_text("utf-8")), "kfer.json")


def load_spec(folder: Place) -> DatasetSpec:
    """The description that applies to a source folder: its ``dataset.json``, or else KFER's.

    Raises:
        CallError: ``dataset.json`` cannot be read, is not JSON, or is not of the form.
    """
    if not is_folder(folder):
        problem = "this is a file" if is_there(folder) else "there is no such folder"
        raise CallError(f"{folder}: {problem}. Name the folder that holds the TFRecord files.")
    path = folder / DESCRIPTION_FILE
    try:
        text = read_bounded(path, MAX_DESCRIPTION_BYTES).decode()
    except FileNotFoundError:
        return kfer()
    except UnicodeDecodeError as error:
        raise CallError(f"{path}: cannot be read: {error}.") from error
    except OSError as error:
        raise CallError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        document = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise CallError(f"{path}: not valid JSON: {error}.") from error
    return parse_spec(document, str(path))


def parse_spec(document: object, origin: str) -> DatasetSpec:
    """A description from its JSON object; ``origin`` names it in errors.

    The object has ``configs`` and, where they differ from KFER's, ``name``, ``features`` and ``about``. An
    object that is itself a mapping of configs is taken as such.

    Raises:
        CallError: something in it is missing, unknown, of the wrong type, or contradicts itself.
    """
    top = _Reader(document, origin)
    if "configs" not in top.value and all(
        isinstance(value, dict) and "label_names" in value for value in top.value.values()
    ):
        top = _Reader({"configs": document}, origin)
    configs = top.section("configs")
    spec = DatasetSpec(
        name=top.text("name", "dataset"),
        about=_about(top.section("about"), top.text("name", "dataset")),
        features=_features(top.section("features")),
        configs=tuple(_config(name, configs.section(name)) for name in configs.value),
        document=top.value,
    )
    top.finish()
    if not spec.configs:
        top.fail("configs", "at least one config is needed")
    _refuse_collisions(top, "configs", [config.name for config in spec.configs])
    return spec


def _config(name: str, reader: _Reader) -> Config:
    if problem := unsafe_name(name):
        reader.fail("", f"the config name {problem}")
    kind = reader.text("kind")
    if kind not in ("single-label", "multi-label"):
        reader.fail("kind", f"expected 'single-label' or 'multi-label', found {kind!r}")
    names = reader.texts("label_names")
    if not names or len(set(names)) != len(names):
        reader.fail("label_names", "expected at least one name, and no name twice")
    for label in names:
        if not label or not label.isprintable() or label in RESERVED_COLUMNS:
            reader.fail("label_names", f"{label!r} cannot name a label")
    splits = reader.section("splits")
    config = Config(
        name=name,
        kind=kind,
        label_names=names,
        splits=tuple(_split(name, split, kind, names, splits.section(split)) for split in splits.value),
    )
    if not config.splits:
        reader.fail("splits", "at least one split is needed")
    _refuse_collisions(reader, "splits", [split.name for split in config.splits])
    reader.finish()
    return config


def _split(config: str, name: str, kind: Kind, label_names: tuple[str, ...], reader: _Reader) -> Split:
    if not _SPLIT_NAME.fullmatch(name) or unsafe_name(name):
        reader.fail("", f"{name!r} cannot name a split: letters, digits, _ and single dots only")
    file = reader.text("file")
    index = reader.text("index", None)
    labels_csv = reader.text("labels_csv", f"label_{config}_{name}.csv")
    for key, value in (("file", file), ("index", index), ("labels_csv", labels_csv)):
        if value is not None and (
            value in ("", ".", "..") or not value.isprintable() or {"/", "\\"} & set(value)
        ):
            reader.fail(key, f"expected the name of a file in the same folder, found {value[:300]!r}")
        if value is not None and len(value.encode()) > MAX_NAME_BYTES:
            reader.fail(key, f"the name is longer than {MAX_NAME_BYTES} bytes")
    counts = reader.section("label_counts", None)
    per_image = reader.section("labels_per_image", None)
    if counts is not None and set(counts.value) != set(label_names):
        reader.fail("label_counts", "expected one count for each of the config's label names")
    if per_image is not None and not all(key.isascii() and key.isdigit() for key in per_image.value):
        reader.fail("labels_per_image", "expected numbers of labels as keys")
    published = Published(
        records=reader.count("records"),
        label_counts=None if counts is None else tuple(counts.count(label) or 0 for label in label_names),
        labels_per_image=None
        if per_image is None
        else {int(key): per_image.count(key) or 0 for key in per_image.value},
        distinct_label_sets=reader.count("distinct_label_sets"),
        labels_sha256=reader.sha256("labels_sha256"),
        clips=reader.count("clips"),
        identities_sha256=reader.sha256("identities_sha256"),
    )
    reader.finish()
    return Split(config, name, kind, label_names, file, index, labels_csv, published)


def _features(reader: _Reader) -> Features:
    default = Features()
    features = Features(
        *(
            reader.text(part, getattr(default, part))
            for part in ("image", "label", "height", "width", "depth")
        )
    )
    if len(set(features.names())) != 5:
        reader.fail("", "expected five different feature names")
    reader.finish()
    return features


def _about(reader: _Reader, name: str) -> About:
    licence = reader.section("licence")
    gating = reader.section("gating")
    fields = gating.section("fields")
    default = Licence()
    about = About(
        title=reader.text("title", name),
        description=reader.text("description", ""),
        homepage=reader.text("homepage", None),
        paper=reader.text("paper", None),
        languages=reader.texts("languages"),
        tags=reader.texts("tags"),
        annotations_creators=reader.texts("annotations_creators"),
        citation=reader.text("citation", None),
        licence=Licence(
            name=licence.text("name", default.name),
            text=licence.text("text", default.text),
            link=licence.text("link", None),
        ),
        gating_prompt=gating.text("prompt", None),
        gating_fields={key: fields.text(key) for key in fields.value},
        personal_data=reader.flag("personal_data"),
        notes=reader.texts("notes"),
    )
    for part in (licence, gating, reader):
        part.finish()
    return about


def _refuse_collisions(reader: _Reader, key: str, names: Sequence[str]) -> None:
    """Config and split names become folder names, which some file systems compare without case."""
    if first_collision(names):
        reader.fail(
            key,
            "two names are one where case or Unicode form does not count, as on some file systems",
        )


def _listed(configs: Sequence[Config]) -> str:
    return ", ".join(config.name for config in configs)


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """For ``json.loads``: an object, unless a key stands twice in it, of which readers would keep either."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


class _Reader:
    """Takes values out of a JSON object by key and type; what nobody took is an error, for it is a typo."""

    def __init__(self, value: object, place: str) -> None:
        self.place = place
        if not isinstance(value, dict):
            raise CallError(f"{place}: expected a JSON object, found {type(value).__name__}.")
        self.value: dict[str, Any] = value
        self.taken: set[str] = set()

    def fail(self, key: str, message: str) -> None:
        raise CallError(f"{self.place}{f' {key}' if key else ''}: {message}.")

    def take(self, key: str, kind: type, default: Any) -> Any:  # noqa: ANN401  # JSON
        self.taken.add(key)
        value = self.value.get(key)
        if value is None:
            if default is ...:
                self.fail(key, "is missing")
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.fail(key, f"expected {kind.__name__}, found {type(value).__name__}")
        return value

    def section(self, key: str, default: Any = ()) -> Any:  # noqa: ANN401  # _Reader, or None by default
        value = self.take(key, dict, default)
        return None if value is None else _Reader(value or {}, f"{self.place} {key}")

    def text(self, key: str, default: Any = ...) -> Any:  # noqa: ANN401
        return self.take(key, str, default)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.take(key, list, [])
        if not all(isinstance(value, str) for value in values):
            self.fail(key, "expected a list of strings")
        return tuple(values)

    def count(self, key: str) -> int | None:
        value = self.take(key, int, None)
        if value is not None and value < 0:
            self.fail(key, f"expected a count, found {value}")
        return value

    def sha256(self, key: str) -> str | None:
        value: str | None = self.take(key, str, None)
        if value is not None and not _SHA256.fullmatch(value):
            self.fail(key, "expected 64 lower-case hexadecimal digits")
        return value

    def flag(self, key: str) -> bool:
        return bool(self.take(key, bool, False))

    def finish(self) -> None:
        if unknown := set(self.value) - self.taken:
            self.fail("", f"unknown key {sorted(unknown)[0]!r}")
