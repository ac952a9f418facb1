"""What is known about a dataset: its configs, label names in stored order, splits and published counts.

KFER's description is ``kfer.json`` beside this module. A ``dataset.json`` beside the source files takes its
place. Both have one form: ``kfer-convert docs description``. No code holds a fact about a particular dataset.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from typing import Annotated, Any, cast

import pyarrow as pa

from converters.dataset.decode import Count, DecodeError, Sha256, decode, load_json
from converters.dataset.filenames import MAX_NAME_BYTES, first_collision, unsafe_name
from converters.dataset.schema import (
    SIZES,
    Column,
    Kind,
    Role,
    Schema,
    parse_type,
    type_name,
    with_derived_label,
)
from converters.errors import CallError
from converters.storage.files import is_folder, is_there, read_bounded
from converters.storage.object_store import Place

DESCRIPTION_FILE = "dataset.json"
MAX_DESCRIPTION_BYTES = 4 << 20  # KFER's has 20 kB

MAX_COLUMN_NAME_BYTES = 1000

IDENTITIES: Mapping[str, str] = {
    "img_id": "name of the image in the dataset's label files",
    "clip_id": "the video clip that the image was cut from",
}
"""The columns that label CSVs join to the records, and what they mean."""

# Column names of the outputs that a label must not take.
RESERVED_COLUMNS = frozenset({"file_name", "img_id", "clip_id"})

_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")  # what Hugging Face allows


FEATURES: Mapping[Role, str] = {"image": "image_raw", "label": "label", **{size: size for size in SIZES}}
"""The features of an Example that hold a record's parts in the short form, where a description does not name others."""


@dataclass(frozen=True)
class Published:
    """The facts published with a split. ``None`` is a fact that was not published and cannot be checked.

    Attributes:
        records: number of records; ``clips``: of different clips.
        label_counts: how many records have each label, in stored order.
        labels_per_image: how many records have so many labels, by that number.
        distinct_label_sets: number of different sets of labels.
        labels_sha256: see :mod:`converters.dataset.fingerprint`; likewise ``identities_sha256``.
        shard_lengths: number of records of each source file, in order.
        num_bytes: size of all Examples without their framing.
    """

    records: Count | None = None
    label_counts: tuple[int, ...] | None = None
    labels_per_image: Mapping[int, Count] | None = None
    distinct_label_sets: Count | None = None
    labels_sha256: Sha256 | None = None
    clips: Count | None = None
    identities_sha256: Sha256 | None = None
    shard_lengths: tuple[Count, ...] | None = None
    num_bytes: Count | None = None


@dataclass(frozen=True)
class Split:
    """One split of one config.

    Attributes:
        config: name of the config.
        name: name of the split.
        schema: its columns.
        files: names of its files, relative to the source folder, or glob patterns (``train-*``), whose matches are
            read in the order of their names.
        index: name of the index of its file.
        labels_csv: name of the authors' label file.
        published: the facts published with it.
    """

    config: str
    name: str
    schema: Schema = field(hash=False)
    files: tuple[str, ...]
    index: str | None = None
    labels_csv: str = ""
    published: Published = field(default_factory=Published, hash=False)

    @property
    def title(self) -> str:
        """How messages name the split: ``config/split``."""
        return f"{self.config}/{self.name}"

    @property
    def file(self) -> str:
        """How messages name its files."""
        return ", ".join(self.files)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of its labels, in stored order; none where they are not known, or there are no labels."""
        return self.schema.label.label_names if self.schema.label else ()

    @property
    def kind(self) -> Kind | None:
        """Whether its label vectors have one label or several; None where it has none."""
        return self.schema.label.kind if self.schema.label else None


@dataclass(frozen=True)
class Config:
    """A configuration of a dataset: its columns, which may have to be inferred, and its splits."""

    name: str
    schema: Schema
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
    configs: tuple[Config, ...]
    document: Mapping[str, Any]

    @classmethod
    def from_json(cls, document: Any) -> Description:  # noqa: ANN401  # JSON
        """See :func:`parse_description`; for :func:`~converters.dataset.decode.decode`."""
        bare = isinstance(document, dict) and all(
            isinstance(value, dict) and value.keys() & {"label_names", "splits"}
            for value in document.values()
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
            tuple(_config(name, form) for name in form.configs),
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
    return read_description(path) if is_there(path) else kfer()


def read_description(path: Place) -> Description:
    """The description that a file holds.

    Raises:
        CallError: it cannot be read, is not JSON, or is not of the form.
    """
    return parse_description(read_json(path, MAX_DESCRIPTION_BYTES), str(path))


def read_json(path: Place, most: int) -> Any:  # noqa: ANN401  # JSON
    """What a JSON file of at most so many bytes holds.

    Raises:
        CallError: it cannot be read, or is not JSON.
    """
    try:
        return load_json(read_bounded(path, most), str(path))
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
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or {"", ".", ".."} & set(parts):
        return f"expected the name of a file in the source folder, found {name[:300]!r}"
    too_long = max(len(part.encode()) for part in parts) > MAX_NAME_BYTES
    return f"the name is longer than {MAX_NAME_BYTES} bytes" if too_long else None


def can_name_label(name: str) -> bool:
    """Whether a label can be called so: the name is printable, and no column of the outputs has it."""
    return bool(name) and name.isprintable() and name not in RESERVED_COLUMNS


def _label_name(name: str) -> str | None:
    return None if can_name_label(name) else f"{name!r} cannot name a label"


def _not_distinct(names: tuple[str, ...]) -> str | None:
    distinct = names and len(set(names)) == len(names)
    return None if distinct else "expected at least one name, and no name twice"


def _column_name(name: str) -> str | None:
    usable = name and name.isprintable() and len(name.encode()) <= MAX_COLUMN_NAME_BYTES
    return None if usable else f"{name[:300]!r} cannot name a column"


def _five(features: Mapping[Role, str]) -> str | None:
    distinct = len({*{**FEATURES, **features}.values()}) == len(FEATURES)
    return None if distinct else "expected five different feature names"


def _folders(names: Mapping[str, object]) -> str | None:
    """Config and split names become folder names, which some file systems compare without case."""
    if not names:
        return "at least one is needed"
    if first_collision(names):
        return "two names are one where case or Unicode form does not count, as on some file systems"
    return None


_FileName = Annotated[str, _file_name]
_LabelName = Annotated[str, _label_name]
_LabelNames = Annotated[tuple[_LabelName, ...], _not_distinct]


class _Files(tuple[str, ...]):
    """The names of a split's files, of which there may be one or several."""

    @classmethod
    def from_json(cls, value: Any) -> _Files:  # noqa: ANN401  # JSON
        """See :func:`~converters.dataset.decode.decode`."""
        several = tuple[_FileName, ...] if isinstance(value, list) else _FileName
        files = decode(cast(Any, several), value, "")
        return cls(files if isinstance(value, list) else [files])


class _Names:
    """Label names: a list where their numbers are 0, 1, 2 …, or an object by number."""

    def __init__(self, names: tuple[str, ...], ids: tuple[int, ...]) -> None:
        self.names = names
        self.ids = ids

    @classmethod
    def from_json(cls, value: Any) -> _Names:  # noqa: ANN401  # JSON
        """See :func:`~converters.dataset.decode.decode`."""
        ids: tuple[int, ...] = ()
        if isinstance(value, dict):
            by_id = sorted(decode(cast(Any, Mapping[int, _LabelName]), value, "").items())
            ids, value = tuple(number for number, _ in by_id), [name for _, name in by_id]
        return cls(decode(cast(Any, _LabelNames), value, ""), () if ids == tuple(range(len(ids))) else ids)


@dataclass(frozen=True)
class _ColumnForm:
    type: str | None = None
    feature: str | None = None
    role: Role | None = None
    label_names: _Names | None = None
    kind: Kind | None = None
    unlabelled: bool = False
    nullable: bool = False
    meaning: str = ""

    @classmethod
    def parse(cls, value: Any) -> _ColumnForm:  # noqa: ANN401  # JSON
        """A form, or the type alone."""
        return cls(type=value) if isinstance(value, str) else decode(cls, value, "")

    def column(self, name: str) -> Column:
        """The column; its type follows from its role where none is given."""
        usual = {"image": "binary", "file_name": "string", None: None}.get(self.role, "int64")
        stated = self.type or usual
        if stated is None:
            raise DecodeError("is missing", "type")
        names = self.label_names or _Names((), ())
        kind = parse_type(stated)
        feature = name if self.feature is None else self.feature
        return Column(
            name, kind, self.role, feature, names.names, names.ids, self.kind, self.unlabelled, self.nullable,
            meaning=self.meaning,
        )  # fmt: skip


class _Columns:
    """The columns of a config: an object of forms by name."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    @classmethod
    def from_json(cls, value: Any) -> _Columns:  # noqa: ANN401  # JSON
        """See :func:`~converters.dataset.decode.decode`."""
        columns = []
        for name, entry in decode(cast(Any, Mapping[str, Any]), value, "").items():
            try:
                if problem := _column_name(name):
                    raise DecodeError(problem)
                columns.append(_ColumnForm.parse(entry).column(name))
            except DecodeError as error:
                raise error.below(name) from None
            except ValueError as error:
                raise DecodeError(str(error), name) from None
        if not columns:
            raise DecodeError("at least one column is needed")
        try:
            return cls(with_derived_label(tuple(columns)))
        except ValueError as error:
            raise DecodeError(str(error)) from None


@dataclass(frozen=True, kw_only=True)
class _SplitForm(Published):
    file: _Files
    index: _FileName | None = None
    labels_csv: _FileName | None = None
    label_counts: Mapping[str, Count] | None = None  # type: ignore[assignment]  # by the labels' names


@dataclass(frozen=True)
class _ConfigForm:
    splits: Annotated[Mapping[Annotated[str, _split_name], _SplitForm], _folders]
    kind: Kind | None = None
    label_names: _LabelNames | None = None
    columns: _Columns | None = None

    def __post_init__(self) -> None:
        if (self.kind is None) != (self.label_names is None):
            raise DecodeError("is missing", "label_names" if self.kind else "kind")


@dataclass(frozen=True)
class _Form:
    configs: Annotated[Mapping[Annotated[str, _config_name], _ConfigForm], _folders]
    name: str = "dataset"
    columns: _Columns | None = None
    features: Annotated[Mapping[Role, str], _five] = field(default_factory=dict)
    about: About = field(default_factory=About)


def _schema(form: _ConfigForm, dataset: _Form) -> Schema:
    """The columns of a config: its own or the dataset's; else those that KFER's records have, if it names labels."""
    if form.columns is not None:
        return form.columns.schema
    if form.kind is None or form.label_names is None:
        return dataset.columns.schema if dataset.columns is not None else Schema(())
    names = {**FEATURES, **dataset.features}
    sizes: tuple[Column, ...] = tuple(Column(role, pa.int32(), role, names[role]) for role in SIZES)
    return with_derived_label(
        (
            Column("image", pa.binary(), "image", names["image"]),
            Column(
                "label_vector",
                pa.list_(pa.uint8(), len(form.label_names)),
                "label",
                names["label"],
                form.label_names,
                kind=form.kind,
            ),
            *sizes,
        )
    )


def _config(name: str, form: _Form) -> Config:
    config = form.configs[name]
    try:
        schema = _schema(config, form)
        splits = tuple(_split(name, split, schema, config.splits[split]) for split in config.splits)
    except DecodeError as error:
        raise error.below(name).below("configs") from None
    return Config(name, schema, splits)


def _split(config: str, name: str, schema: Schema, split: _SplitForm) -> Split:
    counts, names = split.label_counts, schema.label.label_names if schema.label else ()
    if not schema.columns:
        counts = None  # of which labels, the records will tell
    if counts is not None and counts.keys() != set(names):
        message = "expected one count for each of the config's label names"
        raise DecodeError(message, "splits", name, "label_counts")
    stated = {field.name: getattr(split, field.name) for field in fields(Published)}
    stated["label_counts"] = None if counts is None else tuple(counts[label] for label in names)
    if split.records is None and split.shard_lengths is not None:
        stated["records"] = sum(split.shard_lengths)
    labels_csv = split.labels_csv or f"label_{config}_{name}.csv"
    return Split(config, name, schema, split.file, split.index, labels_csv, Published(**stated))


def _listed(configs: Sequence[Config]) -> str:
    return ", ".join(config.name for config in configs)


def described_columns(schema: Schema) -> dict[str, Any]:
    """The stored columns of a schema as a description has them; :class:`Description` reads the same from it."""
    return {column.name: _described(column) for column in schema.stored}


def with_all_columns(description: Description, other: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A description's JSON object with the columns of all configs, as far as they are known.

    ``other`` are those of some configs, by their names, that take the place of what is known.
    """
    known = {config.name: described_columns(config.schema) for config in description.configs}
    return with_described_columns(
        description, {name: columns for name, columns in {**known, **(other or {})}.items() if columns}
    )


def with_described_columns(description: Description, columns: Mapping[str, Any]) -> dict[str, Any]:
    """A description's JSON object with the columns of some configs, by their names."""
    configs = {
        name: config | ({"columns": columns[name]} if name in columns else {})
        for name, config in description.document["configs"].items()
    }
    return {**description.document, "configs": configs}


def _described(column: Column) -> dict[str, Any]:
    stated: dict[str, Any] = {"type": type_name(column.type)}
    if column.feature != column.name:
        stated["feature"] = column.feature
    names = column.label_names
    optional = {
        "role": column.role,
        "label_names": dict(zip(map(str, column.label_ids), names, strict=True))
        if column.label_ids
        else list(names),
        "kind": column.kind,
        "unlabelled": column.unlabelled,
        "nullable": column.nullable,
        "meaning": column.meaning,
    }
    return stated | {key: value for key, value in optional.items() if value}


def with_columns(split: Split, without: Collection[str], identified: bool) -> Split:
    """The split with the columns of an output: some are left out, and ``img_id`` and ``clip_id`` may be joined."""
    schema = split.schema.joined(IDENTITIES) if identified else split.schema
    return replace(split, schema=schema.without(without) if without else schema)
