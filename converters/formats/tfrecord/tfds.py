"""The files that TensorFlow Datasets writes beside its TFRecords, as a description.

``dataset_info.json`` and ``features.json`` are protobuf messages as JSON (``dataset_info.proto``, ``feature.proto`` of
TensorFlow Datasets); older versions have ``type`` and ``content`` in place of the latter. How features become those of
an Example is what ``example_serializer.py`` there does: nested names are joined by ``/``, arrays are flattened,
booleans are integers, and sequences in sequences are ``…/ragged_flat_values`` and ``…/ragged_row_lengths_0``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converters.dataset.description import read_json
from converters.dataset.members import same_name
from converters.errors import CallError
from converters.storage.files import read_bounded
from converters.storage.object_store import Place

INFO_FILE, FEATURES_FILE = "dataset_info.json", "features.json"
LABELS_SUFFIX = ".labels.txt"
_MAX_BYTES = 8 << 20
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_SHOWN_NAMES = 20

# The types of columns by TensorFlow's; TensorFlow Datasets stores all floats as float32.
_TYPES = {
    **{name: name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")},
    **dict.fromkeys(("bool", "uint64"), "int64"),
    **dict.fromkeys(("float16", "bfloat16", "float32", "float64"), "float32"),
    **dict.fromkeys(("string", "object", "bytes", "str"), "binary"),
}

_Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class _Leaf:
    """A feature of an Example: what it is, and its dimensions; those of sequences come first."""

    kind: str  # image, label, text, or the type of a column
    shape: _Shape = ()


class _UnknownFeatureError(Exception):
    """A feature of a kind that is not known here; the columns are inferred then."""


def tfds_folders(names: Collection[str]) -> list[str]:
    """The folders, with ``/`` at their end, that have both files."""
    ends = f"/{INFO_FILE}", f"/{FEATURES_FILE}"
    infos, features = (
        {name.removesuffix(end[1:]) for name in names if f"/{name}".endswith(end)} for end in ends
    )
    return sorted(infos & features)


def tfds_description(folder: Place, names: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """The description that the files say, as ``dataset.json`` has it; without columns where a feature is not known.

    Args:
        folder: the source.
        names: all files in it.

    Returns:
        The description, and the files.

    Raises:
        CallError: a file cannot be read, is not of the form, or the files in several folders contradict each other.
    """
    configs: dict[str, Any] = {}
    document: dict[str, Any] = {}
    files: list[str] = []
    for prefix in tfds_folders(names):
        info = _read(folder / f"{prefix}{INFO_FILE}")
        features = _read(folder / f"{prefix}{FEATURES_FILE}")
        stored = info.get("fileFormat") or "tfrecord"
        if stored != "tfrecord":
            raise CallError(
                f"{folder / prefix}: TensorFlow Datasets stored this as {stored}, and not as TFRecords."
            )
        name = str(info.get("configName") or "default")
        if name in configs or document.get("name", info.get("name")) != info.get("name"):
            raise CallError(
                f"{folder}: there are several datasets of TensorFlow Datasets, or several versions of one. Name the "
                f"folder of one, such as {folder / prefix}."
            )
        try:
            document |= {"name": str(info["name"]), "about": _about(info)}
            configs[name] = {"splits": dict(_splits(info, prefix))}
        except (KeyError, TypeError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise CallError(
                f"{folder / (prefix + INFO_FILE)}: not what TensorFlow Datasets writes: {problem}."
            ) from error
        columns = _columns(info, features, folder, prefix, names)
        files += [
            name
            for name in names
            if name.startswith(prefix) and name.endswith((INFO_FILE, FEATURES_FILE, LABELS_SUFFIX))
        ]
        if columns is not None:
            configs[name]["columns"] = columns
    return document | {"configs": configs}, files


def _read(path: Place) -> dict[str, Any]:
    document = read_json(path, _MAX_BYTES)
    if not isinstance(document, dict):
        raise CallError(f"{path}: not what TensorFlow Datasets writes: expected an object.")
    return document


def _about(info: Mapping[str, Any]) -> dict[str, Any]:
    location = info.get("location") or {}
    homepage = next(iter(location.get("urls") or []), None)
    stated = {
        "description": info.get("description"),
        "citation": info.get("citation"),
        "homepage": homepage,
    }
    about: dict[str, Any] = {key: value for key, value in stated.items() if isinstance(value, str) and value}
    terms = (info.get("redistributionInfo") or {}).get("license")
    if isinstance(terms, str) and terms:
        about["licence"] = {"name": "other", "text": terms}
    return about


def _splits(info: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for split in info["splits"]:
        lengths = [int(length) for length in split.get("shardLengths") or ()]
        if not lengths:
            continue
        names = {
            "DATASET": info["name"],
            "SPLIT": split["name"],
            "FILEFORMAT": info.get("fileFormat") or "tfrecord",
        }
        template = split.get("filepathTemplate") or _TEMPLATE
        stated: dict[str, Any] = {
            "file": [
                prefix + _file_name(template, names, number, len(lengths)) for number in range(len(lengths))
            ],
            "shard_lengths": lengths,
        }
        if split.get("numBytes") is not None:
            stated["num_bytes"] = int(split["numBytes"])
        yield str(split["name"]), stated


def _file_name(template: str, names: Mapping[str, str], number: int, count: int) -> str:
    width = max(5, len(str(count)))
    index, total = f"{number:0{width}d}", f"{count:0{width}d}"
    values = {**names, "SHARD_INDEX": index, "NUM_SHARDS": total, "SHARD_X_OF_Y": f"{index}-of-{total}"}
    return re.sub(r"\{(\w+)\}", lambda match: str(values[match[1]]), template)


# ---- Features -----------------------------------------------------------------------------------------


def _columns(
    info: Mapping[str, Any], features: Mapping[str, Any], folder: Place, prefix: str, names: Collection[str]
) -> dict[str, Any] | None:
    """The columns as a description has them; None where a feature is of a kind that is not known here."""
    try:
        leaves = dict(_leaves("", features, ()))
    except (_UnknownFeatureError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None
    label = _label(info, leaves)
    image = next((name for name in ("image", *leaves) if name in leaves and _is_image(leaves[name])), None)
    first = [name for name in (image, label) if name is not None]
    columns: dict[str, Any] = {}
    for name in (*first, *(name for name in leaves if name not in first)):
        column: dict[str, Any] = {"type": _type(leaves[name]), "feature": name}
        if _is_image(leaves[name]):
            column["role"] = "image"
        if leaves[name].kind == "label":
            label_names = _label_names(folder, prefix, name, names)
            if name == label:
                column |= {"role": "label"} | ({"label_names": label_names} if label_names else {})
            elif label_names:
                shown = ", ".join(
                    f"{number} {text}" for number, text in enumerate(label_names[:_SHOWN_NAMES])
                )
                more = "" if len(label_names) <= _SHOWN_NAMES else f" … ({len(label_names)})"
                column["meaning"] = f"label: {shown}{more}"
        called = {image: "image", label: "label"}.get(name, name)
        columns[name if called in leaves else called] = column
    return columns


def _label(info: Mapping[str, Any], leaves: Mapping[str, _Leaf]) -> str | None:
    """The feature of labels: the supervised one, or the only one that there is."""
    labels = [name for name, leaf in leaves.items() if leaf.kind == "label"]
    items = ((info.get("supervisedKeys") or {}).get("tuple") or {}).get("items") or ()
    supervised = [item.get("featureKey") for item in items]
    chosen = (
        [name for name in labels if name in supervised]
        or [name for name in labels if name == "label"]
        or labels
    )
    return chosen[0] if len(chosen) == 1 else None


def _is_image(leaf: _Leaf) -> bool:
    return leaf.kind == "image" and leaf.shape == ()


def _type(leaf: _Leaf) -> str:
    base = {"image": "binary", "label": "int64", "text": "string"}.get(leaf.kind, leaf.kind)
    if None in leaf.shape:
        return f"{base}[]"
    count = math.prod(size for size in leaf.shape if size is not None)
    return base if count == 1 else f"{base}[{count}]" if count else f"{base}[]"


def _label_names(folder: Place, prefix: str, feature: str, names: Collection[str]) -> list[str] | None:
    """The names of a feature's labels, in order; None where no file says them all, each once."""
    there = {same_name(name): name for name in names}
    path = there.get(same_name(f"{prefix}{feature.replace('/', '-')}{LABELS_SUFFIX}"))
    if path is None:
        return None
    try:
        text = read_bounded(folder / path, _MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return None
    found = [line for line in text.split("\n") if line.strip()]
    return found if found and len(set(found)) == len(found) else None


def _leaves(name: str, feature: Mapping[str, Any], outer: _Shape) -> Iterator[tuple[str, _Leaf]]:
    """The features of an Example that a feature is stored as, by their names; ``outer`` are the sequences around it."""
    kind = str(feature.get("pythonClassName") or feature.get("type")).rpartition(".")[2]
    if "jsonFeature" in feature or "json_feature" in feature:
        content = json.loads((feature.get("jsonFeature") or feature["json_feature"])["json"])
    else:
        content = feature.get("content")
    if kind == "FeaturesDict":
        inner = (feature["featuresDict"]["features"] if "featuresDict" in feature else content) or {}
        for own, entry in inner.items():
            yield from _leaves(f"{name}/{own}" if name else own, entry, outer)
    elif kind == "Sequence":
        stated = feature.get("sequence") or content
        length = int(stated["length"]) if stated.get("length") is not None else -1
        yield from _leaves(name, stated["feature"], (*outer, None if length < 0 else length))
    elif len(outer) < 2:
        leaf = _leaf(kind, feature, content)
        yield name, _Leaf(leaf.kind, (*outer, *leaf.shape))
    else:
        leaf = _leaf(kind, feature, content)
        yield f"{name}/ragged_flat_values", _Leaf(leaf.kind, (None, *leaf.shape))
        for number in range(len(outer) - 1):
            yield f"{name}/ragged_row_lengths_{number}", _Leaf("int64", (None,))


def _leaf(kind: str, feature: Mapping[str, Any], content: Any) -> _Leaf:  # noqa: ANN401  # JSON
    stated = next((feature[key] for key in _CONTENT if key in feature), content) or {}
    if kind in ("Image", "LabeledImage"):
        return _Leaf("image")
    if kind == "ClassLabel":
        return _Leaf("label")
    if kind == "Text" and feature.get("text", content) in ({}, None):
        return _Leaf("text")
    if kind == "BBoxFeature":
        return _Leaf("float32", (4,))
    if kind in ("Tensor", "Scalar", "TensorInfo"):
        encoding = str(stated.get("encoding") or "none").lower()
        if encoding != "none":
            return _Leaf("binary")
        return _Leaf(_TYPES[str(stated["dtype"])], _shape(stated.get("shape") or ()))
    raise _UnknownFeatureError(kind)


_CONTENT = ("tensor", "image", "classLabel", "boundingBox", "text")


def _shape(stated: Any) -> _Shape:  # noqa: ANN401  # JSON
    sizes: Sequence[Any] = stated.get("dimensions") or () if isinstance(stated, dict) else stated
    return tuple(None if size is None or int(size) < 0 else int(size) for size in sizes)
