"""Infers the columns of a dataset that nothing describes, from all its records.

A role is only given where all records bear it out, and label names are never guessed. What a feature was taken for,
and why, is told for people (:class:`~converters.dataset.column_table.ColumnRow`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from converters.dataset.column_table import ColumnRow, ColumnTable, image_words
from converters.dataset.description import MAX_COLUMN_NAME_BYTES
from converters.dataset.labels import UNLABELLED
from converters.dataset.schema import (
    FIRST_IMAGES,
    SIZES,
    Column,
    Kind,
    Role,
    with_derived_label,
)
from converters.errors import DataError
from converters.formats.tfrecord.feature_facts import Claim, FactsBuilder, FeatureFacts
from converters.formats.tfrecord.label_maps import LabelMap
from converters.formats.tfrecord.strict_parser import FeatureKind

_LABELS = ("image/class/label", "image/object/class/label", "objects/label", "label", "class")
_MAX_LABEL = 1 << 31
_BASES: Mapping[FeatureKind, pa.DataType] = {
    "float_list": pa.float32(),
    "int64_list": pa.int64(),
    "bytes_list": pa.binary(),
}
_SHOWN_LABELS = 12


@dataclass
class _Taken:
    """A feature, and the column that it is taken for so far."""

    facts: FeatureFacts
    column: Column
    why: str = ""
    nearly: Role | None = None

    def give(self, role: Role, why: str) -> None:
        """Give the column a role."""
        self.column, self.why = replace(self.column, role=role), why

    def call(self, name: str) -> None:
        """Give the column a name."""
        self.column = replace(self.column, name=name)

    def name_labels(self, names: Mapping[int, str], kind: Kind | None = None) -> None:
        """Give the labels names, by their numbers; of a 0/1 vector of some kind, by their places."""
        ids = tuple(names) if list(names) != list(range(len(names))) else ()
        self.column = replace(self.column, label_names=tuple(names.values()), label_ids=ids, kind=kind)


def infer_columns(
    config: str,
    facts: FactsBuilder,
    label_maps: Sequence[LabelMap],
) -> ColumnTable:
    """Decide what the features of a config are.

    Args:
        config: its name.
        facts: what all its records show.
        label_maps: the files of label names beside them.

    Raises:
        DataError: no record has a value, or a feature's name cannot be that of a column.
    """
    for name, kind in facts.left_out.items():
        facts.features[name] = FeatureFacts(name, kind, most=2)
    names = sorted(facts.features, key=lambda name: name.encode("utf-8", "surrogatepass"))
    records = sum(facts.records.values())
    taken = {
        name: _Taken(own, Column(name, _type(own), None, name, nullable=sum(own.present.values()) < records))
        for name, own in ((name, facts.features[name]) for name in names)
        if own.kind
    }
    if not taken:
        raise DataError(f"no record of {config} has a value.", advice="There is nothing to convert.")
    for name in taken:
        if name not in facts.without and (problem := _unusable(name)):
            shell = "$" if "\\" in repr(name) else ""  # bash reads $'\n' as Python does
            raise DataError(
                f"the feature {name[:100]!r} {problem}, so no column can be called so.",
                taken[name].facts.first,
                f"--without {shell}{name[:100]!r} leaves it out.",
            )
    notes: list[str] = []
    image = _take_images(taken)
    _take_sizes(taken, image)
    _take_file_name(taken, image)
    label = _take_label(taken)
    if label is not None:
        notes += _name_labels(label, label_maps, facts)
    elif label_maps:
        notes.append(f"{label_maps[0].path} was not used: no feature is known to be the label")
    _call(taken, image, label)
    ordered = _in_order(taken, image, label)
    schema = with_derived_label(tuple(feature.column for feature in ordered))
    columns = [_inferred(feature, facts) for feature in ordered]
    lost = [_nothing(facts.features[name], facts) for name in names if name not in taken]
    notes += [f"{column.feature}: no record has a value of it, so there is no column" for column in lost]
    return ColumnTable(config, schema, (*columns, *lost), dict(facts.records), tuple(notes))


def _type(facts: FeatureFacts) -> pa.DataType:
    base = _BASES[facts.kind or "bytes_list"]
    if facts.kind == "bytes_list" and facts.text.holds:
        base = pa.string()
    if facts.least != facts.most or not facts.most:
        return pa.list_(base)
    return base if facts.most == 1 else pa.list_(base, facts.most)


def _unusable(name: str) -> str | None:
    if not name:
        return "has no name"
    if not name.isprintable():
        return "has characters that are not printable"
    return "has too long a name" if len(name.encode()) > MAX_COLUMN_NAME_BYTES else None


def _contradicted(claim: Claim) -> str:
    """Why a role that some values bear out was not given."""
    return f"{claim.against:,} of {claim.against + claim.borne:,} do not, first {claim.first}: {claim.found}"


# ---- Roles --------------------------------------------------------------------------------------------


def _take_images(taken: Mapping[str, _Taken]) -> _Taken | None:
    """Give the role of images; the one that is *the* image."""
    for feature in taken.values():
        facts = feature.facts
        if facts.kind != "bytes_list" or not facts.single or not facts.image.borne:
            continue
        if facts.image.holds:
            feature.column = replace(feature.column, type=pa.binary())
            feature.give("image", "every value is an encoded image")
        elif facts.image.nearly:
            feature.nearly = "image"
            feature.why = f"nearly every value is an encoded image: {_contradicted(facts.image)}"
    images = [
        name for name in (*FIRST_IMAGES, *taken) if name in taken and taken[name].column.role == "image"
    ]
    return taken[images[0]] if images else None


def _take_sizes(taken: Mapping[str, _Taken], image: _Taken | None) -> None:
    if image is None:
        return
    for role in SIZES:
        found = False
        for feature in taken.values():
            claim = feature.facts.sizes.get(image.facts.name)
            if feature.facts.size_role != role or not feature.facts.single or claim is None:
                continue
            if claim.holds and not found:
                feature.give(role, f"equals the {role} of every image")
                found = True
            elif claim.holds:
                feature.why = f"equals the {role} of every image, as another does"
            elif claim.nearly:
                feature.nearly = role
                feature.why = f"nearly always equals the {role} of the image: {_contradicted(claim)}"
            elif claim.borne:
                feature.why = f"is not the {role} of every image: {_contradicted(claim)}"


def _take_file_name(taken: Mapping[str, _Taken], image: _Taken | None) -> None:
    """Give the role of file names to the likeliest feature of those whose values can name files."""
    if image is None:
        return
    candidates = [feature for feature in taken.values() if feature.facts.names is not None]
    for feature in sorted(candidates, key=lambda feature: (feature.facts.name_rank or 0, feature.facts.name)):
        facts, names = feature.facts, feature.facts.names
        if names is None or not facts.single or feature.column.role is not None:
            continue
        if (facts.kind == "bytes_list" and not facts.text.holds) or sum(facts.present.values()) > names.count:
            continue
        if sum(facts.present.values()) < sum(image.facts.present.values()):
            feature.why = "names files, but not all"
        elif not names.claim.holds:
            feature.why = f"cannot name files: {_contradicted(names.claim)}"
        elif not names.unique:
            feature.why = "cannot name files: two are one where case and suffix do not count"
        else:
            feature.give("file_name", "unique and safe as a file name in each split")
            return


def _take_label(taken: Mapping[str, _Taken]) -> _Taken | None:
    """Give the role of the label, by known conventions."""
    both = {"label", "class"} <= taken.keys() and all(
        taken[name].facts.kind == "int64_list" for name in ("label", "class")
    )
    for name in _LABELS:
        feature = taken.get(name)
        if feature is None or feature.column.role is not None or (both and name in ("label", "class")):
            continue
        facts = feature.facts
        if facts.kind != "int64_list":
            feature.why = "called as labels are, but its values are no integers"
        elif facts.low is None or facts.high is None:
            feature.why = "called as labels are, but no record has a value"
        elif facts.low < UNLABELLED or facts.high >= _MAX_LABEL:
            feature.why = f"called as labels are, but its values are no indices: {facts.low} to {facts.high}"
        else:
            feature.give("label", "called as labels are, and its values are indices")
            return feature
    return None


def _name_labels(label: _Taken, label_maps: Sequence[LabelMap], facts: FactsBuilder) -> Iterator[str]:
    """Find the names of labels: in a file beside the data, or else in the texts beside the labels."""
    occurring = None if label.facts.labels is None else set(label.facts.labels) - {UNLABELLED}
    fixed = label.facts.least == label.facts.most > 1
    if label_maps and len(label_maps) > 1:
        paths = ", ".join(label_map.path for label_map in label_maps)
        yield f"{paths} name labels differently, so none of them was used"
    elif label_maps and occurring is not None:
        (label_map,) = label_maps
        names = list(label_map.names.values())
        if fixed and len(names) == label.facts.most and label.facts.sums is not None and occurring <= {0, 1}:
            least, most = label.facts.sums
            label.name_labels(dict(enumerate(names)), "single-label" if most <= 1 else "multi-label")
            label.column = replace(label.column, unlabelled=least == 0)
        elif (fitting := label_map.fitting(occurring)) is not None:
            label.name_labels(fitting)
        else:
            yield f"{label_map.path} was not used: its names do not fit the labels that occur"
        if label.column.label_names:
            label.why += f"; names from {label_map.path}"
    pairs = facts.pairs.get(label.facts.name)
    texts = None if pairs is None else pairs.label_names
    if texts is None or pairs is None:
        return
    known = label.column.names_by_number
    if not known and (occurring is None or occurring <= texts.keys()):
        label.name_labels(texts)
        label.why += f"; names from {pairs.feature}, one-to-one"
    elif known and any(known.get(number, name) != name for number, name in texts.items()):
        yield f"{pairs.feature} has other names than {label_maps[0].path}, which counts"


# ---- Columns ------------------------------------------------------------------------------------------


def _call(taken: Mapping[str, _Taken], image: _Taken | None, label: _Taken | None) -> None:
    """Find the columns' names: the features' own, but for the first image and the label."""
    for number, (name, feature) in enumerate(taken.items()):
        if _unusable(name):
            feature.call(f"left_out_{number}")
    if image is not None and "image" not in taken:
        image.call("image")
    if label is None:
        return
    column = label.column
    if not column.label_names or not (column.label_ids or column.kind):
        if "label" not in taken:
            label.call("label")
        return
    # A column ``label`` is derived from it, so no stored one can be called so.
    wanted = "label_vector" if column.kind else "label_id"
    if column.kind or column.name == "label":
        label.call(wanted if wanted not in taken else f"{wanted}_stored")
    if "label" in taken and taken["label"] is not label:
        label.name_labels({})
        label.call(label.facts.name)
        label.why += "; not used, for another feature is called label"


def _in_order(taken: Mapping[str, _Taken], image: _Taken | None, label: _Taken | None) -> list[_Taken]:
    """The features in the order of their columns."""
    first = [image, label]
    for role in (*SIZES, "file_name"):
        first.append(next((feature for feature in taken.values() if feature.column.role == role), None))
    order = dict.fromkeys(feature.facts.name for feature in first if feature is not None)
    return [taken[name] for name in order | dict.fromkeys(taken)]


def _absent(facts: FeatureFacts, records: Mapping[str, int]) -> dict[str, int]:
    absent = {split: count - facts.present[split] for split, count in records.items()}
    return {split: count for split, count in absent.items() if count}


def _inferred(feature: _Taken, facts: FactsBuilder) -> ColumnRow:
    own, column = feature.facts, feature.column
    images = ""
    if own.single and own.smallest is not None and own.largest is not None:
        images = image_words(own.encodings, own.smallest.tolist(), own.largest.tolist())
    labels = _labels(own.labels, column) if column.role == "label" else ""
    return ColumnRow(
        own.name, column, own.kind, own.least, own.most, _absent(own, facts.records), own.example,
        feature.why, images, labels, feature.nearly,
    )  # fmt: skip


def _nothing(facts: FeatureFacts, builder: FactsBuilder) -> ColumnRow:
    return ColumnRow(
        facts.name, None, None, 0, 0, _absent(facts, builder.records), "", "no record has a value"
    )


def _labels(counts: Counter[int] | None, column: Column) -> str:
    if counts is None:
        return "very many different labels"
    if column.kind is not None:
        return f"0/1 vectors of {', '.join(column.label_names[:_SHOWN_LABELS])}"
    names = column.names_by_number
    shown = [
        f"{number}{' ' + names[number] if number in names else ''}: {counts[number]:,}"
        for number in sorted(counts)
    ]
    more = f" … ({len(shown)} labels)" if len(shown) > _SHOWN_LABELS else ""
    return ", ".join(shown[:_SHOWN_LABELS]) + more
