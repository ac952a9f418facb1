"""What the features of a config are, or were taken for, as people and programs are told it: a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from converters.dataset.description import described_columns
from converters.dataset.schema import Column, Role, Schema, type_name


@dataclass(frozen=True)
class ColumnRow:
    """What a feature is, or was taken for.

    Attributes:
        feature: its name.
        column: the column that it became; None where no record has a value of it.
        kind: which list holds its values; None where no record has one.
        least: the least number of values of a record that has it; ``most``: the most.
        absent: in how many records it has no kind, or is not there at all, by the split's name.
        example: a value, in words.
        why: what the role, or that there is none, follows from.
        images: encodings and sizes of its images, in words.
        labels: how many values have which label, in words.
        nearly: the role that all but a few values bear out.
    """

    feature: str
    column: Column | None
    kind: str | None
    least: int
    most: int
    absent: Mapping[str, int]
    example: str
    why: str
    images: str = ""
    labels: str = ""
    nearly: Role | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        column = self.column
        return {field.name: getattr(self, field.name) for field in fields(self)} | {
            "column": None if column is None else column.name,
            "type": None if column is None else type_name(column.type),
            "role": None if column is None else column.role,
            "absent": dict(self.absent),
        }


@dataclass(frozen=True)
class ColumnTable:
    """What the features of one config are, or were taken for.

    Attributes:
        name: of the config.
        schema: its columns.
        columns: what each feature was taken for: those of the columns, in their order, and then those without one.
        records: how many records of each split were read.
        notes: what else people should know.
    """

    name: str
    schema: Schema
    columns: tuple[ColumnRow, ...]
    records: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """The columns as a description has them."""
        return described_columns(self.schema)

    def to_edit(self) -> dict[str, Any]:
        """The same for people who edit it: with the roles that all but a few values bear out, as promises."""
        columns = self.described()
        for inferred in self.columns:
            if inferred.column is not None and inferred.nearly is not None:
                columns[inferred.column.name]["role"] = inferred.nearly
        return columns

    def lines(self, *, labels: bool = True) -> list[str]:
        """The same for people: a table, what the images are, with ``labels`` how many are which, and the notes."""
        rows = [("feature", "kind", "column", "type", "role", "values", "absent in", "example", "why")]
        for inferred in self.columns:
            column = inferred.column
            values = (
                f"{inferred.least}"
                if inferred.least == inferred.most
                else f"{inferred.least}–{inferred.most}"
            )
            absent = sum(inferred.absent.values())
            rows.append(
                (
                    inferred.feature,
                    inferred.kind or "–",
                    "–" if column is None else column.name,
                    "–" if column is None else type_name(column.type),
                    (column.role if column else None) or "",
                    values if inferred.kind else "–",
                    f"{absent:,}" if absent else "",
                    inferred.example[:40],
                    inferred.why,
                )
            )
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        for inferred in self.columns:
            words = (inferred.images, inferred.labels if labels else "")
            lines += [f"{inferred.feature}: {text}" for text in words if text]
        return [*lines, *self.notes]

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {
            "config": self.name,
            "records": dict(self.records),
            "columns": [column.to_json() for column in self.columns],
            "notes": list(self.notes),
        }


def image_words(encodings: Counter[str], smallest: Sequence[int], largest: Sequence[int]) -> str:
    """What images are: how many of which encoding, and their least and greatest height, width and depth."""
    kinds = ", ".join(f"{count:,} {encoding}" for encoding, count in encodings.most_common())
    height, width, depth = (
        f"{least}" if least == most else f"{least}–{most}"
        for least, most in zip(smallest, largest, strict=True)
    )
    return f"{kinds}; width {width}, height {height}, depth {depth}"
