"""Columns and schemas: what every record of a config has.

A column is one value of every record. Those that are *stored* stand in record batches, in the schema's order; a
*derived* column follows from a stored one and stands only in outputs: it is the ``label`` of a dataset whose labels
are 0/1 vectors, or numbers that do not count from 0.

=================  ===========================================================================================
type               values of a record
=================  ===========================================================================================
``binary``         one value; likewise ``string``, ``int64``, ``float32``, and the narrower integers
``int64[4]``       four values; likewise of any type
``int64[]``        any number of values, none among them; likewise of any type
=================  ===========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import pyarrow as pa

from converters.errors import CallError

Role = Literal["image", "label", "height", "width", "depth", "file_name"]
"""What a column is to people and programs; a promise that is checked on every record."""

Kind = Literal["single-label", "multi-label"]
"""Of a label that is a 0/1 vector: whether exactly one label is set, or any number of at least one."""

SIZES: tuple[Role, ...] = ("height", "width", "depth")

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
BASE_TYPES: Mapping[str, pa.DataType] = {
    "binary": pa.binary(),
    "string": pa.string(),
    "float32": pa.float32(),
    **{name: getattr(pa, name)() for name in _INTEGERS},
}
_TYPE = re.compile(r"(\w+)(?:\[([1-9]\d{0,8})?\])?")
FIRST_IMAGES = ("image", "image/encoded", "image_raw", "img_raw")
"""Which of several images is *the* image, by the names of columns and features."""


def parse_type(text: str) -> pa.DataType:
    """The Arrow type of batches that ``text`` names; see the module's text.

    Raises:
        ValueError: it names none.
    """
    match = _TYPE.fullmatch(text)
    if match is None or match[1] not in BASE_TYPES:
        raise ValueError(
            f"{text!r} is no type; there are {', '.join(BASE_TYPES)}, and lists as in int64[4], int64[]"
        )
    base = BASE_TYPES[match[1]]
    if not text.endswith("]"):
        return base
    return pa.list_(base, int(match[2])) if match[2] else pa.list_(base)


def type_name(kind: pa.DataType) -> str:
    """The text that :func:`parse_type` takes."""
    if pa.types.is_fixed_size_list(kind):
        return f"{type_name(kind.value_type)}[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"{type_name(kind.value_type)}[]"
    return "float32" if pa.types.is_float32(kind) else str(kind)


@dataclass(frozen=True)
class Column:
    """One value of every record.

    Attributes:
        name: what outputs call it.
        type: its Arrow type in batches.
        role: what it is to people and programs, where it is anything.
        feature: the feature of the Example that holds it; None where it is joined or derived.
        label_names: of a label: the names of its numbers, in the order of the numbers.
        label_ids: the numbers that have these names, where they are not 0, 1, 2 ….
        kind: of a label that is a 0/1 vector.
        unlabelled: whether such a vector may be all zero.
        nullable: whether a record may lack it.
        derived: whether it follows from the stored label.
        meaning: a sentence for cards.
    """

    name: str
    type: pa.DataType
    role: Role | None = None
    feature: str | None = None
    label_names: tuple[str, ...] = ()
    label_ids: tuple[int, ...] = ()
    kind: Kind | None = None
    unlabelled: bool = False
    nullable: bool = False
    derived: bool = False
    meaning: str = ""

    @property
    def value_type(self) -> pa.DataType:
        """The type of a single value."""
        return self.type.value_type if self.is_list else self.type

    @property
    def is_list(self) -> bool:
        """Whether a record has several values, or may have none."""
        return bool(pa.types.is_list(self.type) or pa.types.is_fixed_size_list(self.type))

    @property
    def size(self) -> int | None:
        """Number of values of each record: 1, n, or None where it varies."""
        if pa.types.is_fixed_size_list(self.type):
            return int(self.type.list_size)
        return None if self.is_list else 1

    @property
    def names_by_number(self) -> dict[int, str]:
        """The label names by their numbers."""
        return dict(zip(self.label_ids or range(len(self.label_names)), self.label_names, strict=True))

    def to_json(self) -> dict[str, Any]:
        """The column as a manifest lists it."""
        return {
            "name": self.name,
            "feature": self.feature,
            "derived": self.derived,
            "type": type_name(self.type),
            "role": self.role,
            "label_names": list(self.label_names) or None,
            "label_ids": list(self.label_ids) or None,
            "kind": self.kind,
            "nullable": self.nullable,
        }


@dataclass(frozen=True)
class Schema:
    """The columns of a config, in their order; none where they are not known before the records are.

    Raises:
        ValueError: two columns have one name or hold one feature, or a role contradicts its column's type or another.
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if problem := next(_problems(self.columns), None):
            raise ValueError(problem)

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __getitem__(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def __contains__(self, name: object) -> bool:
        return any(column.name == name for column in self.columns)

    @cached_property
    def stored(self) -> tuple[Column, ...]:
        """The columns that batches have."""
        return tuple(column for column in self.columns if not column.derived)

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of batches."""
        return pa.schema([pa.field(column.name, column.type) for column in self.stored])

    @cached_property
    def images(self) -> tuple[Column, ...]:
        """The columns of encoded images; the first one is *the* image."""
        images = [column for column in self.columns if column.role == "image"]
        order = {name: rank for rank, name in enumerate(FIRST_IMAGES)}
        return tuple(
            sorted(
                images, key=lambda column: min(order.get(column.name, 9), order.get(column.feature or "", 9))
            )
        )

    @property
    def image(self) -> Column | None:
        """The image whose size the columns of sizes say, and whose file the file name names."""
        return self.images[0] if self.images else None

    def role(self, role: Role) -> Column | None:
        """The stored column that has a role no two columns can have; None where none has."""
        return next((column for column in self.stored if column.role == role), None)

    @cached_property
    def label(self) -> Column | None:
        """The stored column of labels."""
        return self.role("label")

    @cached_property
    def derived(self) -> Column | None:
        """The column that follows from the stored label; None where there is none."""
        return next((column for column in self.columns if column.derived), None)

    @cached_property
    def sparse(self) -> tuple[Column, ...]:
        """The columns of which a record may have null or an empty list, so that values may not tell their type."""
        labelled = self.label is not None and not self.label.unlabelled
        return tuple(
            column
            for column in self.columns
            if column.nullable or (pa.types.is_list(column.type) and not (column.derived and labelled))
        )

    def without(self, names: Collection[str]) -> Schema:
        """The schema but for some columns; without a label, what is derived from it goes too.

        Raises:
            CallError: there is no such column, or none is left.
        """
        known = {column.name for column in self.columns} | {column.feature for column in self.columns}
        if missing := next((name for name in names if name not in known), None):
            have = ", ".join(column.name for column in self.stored)
            raise CallError(f"--without {missing}: there is no such column; there are {have}.")
        gone = {column.name for column in self.columns if column.name in names or column.feature in names}
        label = self.label
        if label is not None and label.name in gone:
            gone |= {column.name for column in self.columns if column.derived}
        elif self.derived is not None and self.derived.name in gone:
            raise CallError(
                f"--without {self.derived.name}: it follows from {label.name if label else ''}; name that instead."
            )
        left = tuple(column for column in self.columns if column.name not in gone)
        if not left:
            raise CallError("--without leaves no column.")
        return Schema(left)

    @cached_property
    def joined_names(self) -> frozenset[str]:
        """The names of the columns that were joined: no feature holds them, and they follow from no other."""
        return frozenset(column.name for column in self.stored if column.feature is None)

    def joined(self, meanings: Mapping[str, str]) -> Schema:
        """The schema with further columns of text at its end, which no feature holds; ``meanings`` by their names.

        Raises:
            CallError: there is a column of such a name.
        """
        if taken := next((name for name in meanings if name in self), None):
            raise CallError(
                f"--labels joins a column {taken!r}; the dataset has one already: leave --labels out."
            )
        columns = (Column(name, pa.string(), meaning=meaning) for name, meaning in meanings.items())
        return Schema((*self.columns, *columns))


def with_derived_label(columns: tuple[Column, ...]) -> Schema:
    """The schema of stored columns, and of the ``label`` that follows from a label that is not the plain number."""
    schema = Schema(columns)
    label = schema.label
    if label is None or not label.label_names or (label.kind is None and not label.label_ids):
        return schema
    if "label" in schema:
        raise ValueError("the column 'label' is derived from the labels; give the stored one another name")
    multi = label.kind == "multi-label" or (label.kind is None and label.is_list)
    derived = Column(
        "label",
        pa.list_(pa.int64()) if multi else pa.int64(),
        role="label",
        label_names=label.label_names,
        nullable=label.nullable or label.unlabelled,
        derived=True,
        meaning="number of the label, from 0, in stored order"
        if not multi
        else "numbers of the labels that are set",
    )
    place = columns.index(label)
    return Schema((*columns[:place], derived, *columns[place:]))


def _problems(columns: tuple[Column, ...]) -> Iterator[str]:
    for part in ("name", "feature"):
        seen: set[str] = set()
        for value in (getattr(column, part) for column in columns):
            if value in seen:
                yield f"two columns have the {part} {value!r}"
            seen |= {value} - {None}
    for role in get_args(Role):
        stored = [column.name for column in columns if column.role == role and not column.derived]
        if len(stored) > 1 and role != "image":
            yield f"{' and '.join(map(repr, stored))} have the role {role}, which one column can have"
    for column in columns:
        if problem := _role_problem(column):
            yield f"the column {column.name!r} {problem}"


def _role_problem(column: Column) -> str | None:
    kind = column.value_type
    integer = pa.types.is_integer(kind)
    text = pa.types.is_string(kind)
    fits = {
        None: True,
        "image": pa.types.is_binary(column.type),
        "label": integer or text or (pa.types.is_binary(kind) and not column.label_names),
        "file_name": not column.is_list and (integer or text),
    }.get(column.role, integer and not column.is_list)
    if not fits:
        return f"is {type_name(column.type)}, which cannot have the role {column.role}"
    if column.role != "label" and (column.label_names or column.kind):
        return "has label names, and not the role label"
    if column.label_names and not integer:
        return "has label names, and its values are no numbers"
    if column.label_ids and len(column.label_ids) != len(column.label_names):
        return f"has {len(column.label_names)} label names and {len(column.label_ids)} numbers"
    if column.kind is not None and column.size != len(column.label_names):
        return f"has {column.size} values in each record and {len(column.label_names)} label names"
    return None
