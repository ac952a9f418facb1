"""The images that are shown: read from the source, made small where they are not, with their labels and boxes."""

from __future__ import annotations

import io
import math
import warnings
from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from converters.dataset.description import Split
from converters.dataset.image_header import MAX_DECODED_PIXELS, read_header
from converters.dataset.image_names import image_names
from converters.dataset.jpeg_header import ImageError
from converters.errors import DataError
from converters.verify.survey import Place, record_labels

if TYPE_CHECKING:
    from converters.dataset.plan import Plan
    from converters.dataset.source import Source

MAX_IMAGE_BYTES = 9_000_000
"""Of all images of a page as they are stored; as text in it they take a third more."""

_MAX_BYTES = 100_000  # of one
_EDGES = (640, 480, 400, 320, 240, 160, 96)
_SHOWN_BY_BROWSERS = ("jpeg", "png", "webp", "bmp")
_MAX_BOXES = 100
_TILE = 112  # pixels that an image takes at most on the contact sheet
_MAX_VALUES = 4
_DETECTION = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Box:
    """A box in an image, in hundredths of its width and height, and the name of what is in it."""

    left: float
    top: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class Picture:
    """An image as it is shown.

    Attributes:
        config: name of its config; ``split`` likewise.
        split: see there.
        record: its index in the split.
        name: of its file, as outputs call it.
        labels: their names; ``labelled``: whether there is a column of labels.
        labelled: see there.
        data: the image as a ``data:`` URI; empty where it cannot be shown, and ``problem`` says why.
        problem: see there.
        size: width and height in pixels, as stored.
        encoding: as stored; ``reduced``: whether ``data`` is smaller than the original.
        reduced: see there.
        boxes: where known.
        values: of other columns: short texts and numbers.
    """

    config: str
    split: str
    record: int
    name: str
    labels: tuple[str, ...]
    labelled: bool
    data: str
    problem: str
    size: tuple[int, int]
    encoding: str
    reduced: bool
    boxes: tuple[Box, ...]
    values: Mapping[str, str]

    @property
    def tile(self) -> tuple[int, int]:
        """Width and height on the contact sheet."""
        width, height = self.size
        scale = _TILE / max(width, height, 1)
        return max(1, round(width * scale)), max(1, round(height * scale))


def read_pictures(source: Source, plan: Plan, wanted: Mapping[str, Collection[int]]) -> dict[Place, Picture]:
    """Read records from a source.

    Args:
        source: the source.
        plan: with one shard a split.
        wanted: the indices of the records in each split, by its title.
    """
    number = sum(map(len, wanted.values()))
    budget = min(_MAX_BYTES, MAX_IMAGE_BYTES // max(1, number))
    found: dict[Place, Picture] = {}
    for shard in plan:
        title = shard.split.title
        records = sorted(wanted.get(title, ()))
        first = 0
        try:
            for batch in source.reading.read(shard) if records else ():
                rows = [record - first for record in records if first <= record < first + len(batch)]
                for row in rows:
                    picture = _picture(shard.split, batch.slice(row, 1), first + row, budget)
                    found[title, first + row] = picture
                first += len(batch)
                if first > records[-1]:
                    break
        except DataError:
            continue  # the inspection says what is damaged
    return found


def _picture(split: Split, record: pa.RecordBatch, number: int, budget: int) -> Picture:
    schema = split.schema
    column = schema.image
    assert column is not None
    value = record.column(column.name)[0].as_py()
    (name,) = image_names(split, column, record, number, with_split=True)
    label = schema.label
    (labels,) = [()] if label is None else record_labels(label, record.column(label.name))
    data, problem, encoding, size, reduced = "", "", "", (0, 0), False
    try:
        encoding, (height, width, _) = read_header(value or b"")
        size = (width, height)
        data, reduced = _embedded(value, encoding, size, budget)
    except ImageError as error:
        problem = "no image" if value is None else str(error)
    return Picture(
        split.config,
        split.name,
        number,
        name,
        labels,
        label is not None,
        data,
        problem,
        size,
        encoding,
        reduced,
        tuple(_boxes(split, record))[:_MAX_BOXES],
        dict(_values(split, record)),
    )


def _embedded(data: bytes, encoding: str, size: tuple[int, int], budget: int) -> tuple[str, bool]:
    """A ``data:`` URI of an image, and whether it was made smaller: to at most ``budget`` bytes, as far as that goes.

    Raises:
        ImageError: it cannot be decoded.
    """
    if encoding in _SHOWN_BY_BROWSERS and len(data) <= budget:
        return f"data:image/{encoding};base64,{b64encode(data).decode()}", False
    if math.prod(size) > MAX_DECODED_PIXELS:
        raise ImageError(f"too large to be shown: {size[0]} × {size[1]} pixels.")
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=[encoding]) as image:
                image.draft("RGB", (_EDGES[0], _EDGES[0]))
                small = image.convert(
                    "RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"
                )
        if small.mode == "RGBA":
            small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")
        for edge in _EDGES:
            small.thumbnail((edge, edge))
            file = io.BytesIO()
            small.save(file, "jpeg", quality=80, optimize=True)
            if file.tell() <= budget:
                break
    except Exception as error:  # a decoder that meets hostile data may raise anything
        raise ImageError(f"cannot be decoded: {error}.") from error
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}", True


def _boxes(split: Split, record: pa.RecordBatch) -> Iterator[Box]:
    """The boxes of a record: as the Object Detection API or TensorFlow Datasets have them, in parts of the image."""
    columns = {column.feature or column.name: column.name for column in split.schema.stored}
    for feature, name in columns.items():
        before, _, last = feature.rpartition("bbox")
        if last == "" and (not before or before.endswith("/")):  # ymin, xmin, ymax, xmax
            values = _list(record, name)
            corners = [
                (left, top, right, bottom)
                for top, left, bottom, right in zip(*[iter(values)] * 4, strict=False)
            ]
        elif last == "/xmin" and all(f"{before}bbox/{side}" in columns for side in _DETECTION):
            sides = [_list(record, columns[f"{before}bbox/{side}"]) for side in _DETECTION]
            corners = list(zip(*sides, strict=False))
        else:
            continue
        names = _box_names(split, record, columns, before, len(corners))
        for (left, top, right, bottom), label in zip(corners, names, strict=True):
            if all(isinstance(edge, float) and -0.01 <= edge <= 1.01 for edge in (left, top, right, bottom)):
                sizes = (left, top, max(0, right - left), max(0, bottom - top))
                x, y, width, height = (round(100 * size, 2) for size in sizes)
                yield Box(x, y, width, height, label)


def _box_names(
    split: Split, record: pa.RecordBatch, columns: Mapping[str, str], before: str, number: int
) -> Sequence[str]:
    """What is in each box of a record; nothing where that is not known."""
    label = split.schema.label
    for feature in (f"{before}class/text", f"{before}class/label", f"{before}label"):
        if feature not in columns or len(found := _list(record, columns[feature])) != number:
            continue
        if label is not None and label.name == columns[feature] and label.label_names:
            ids = label.label_ids or range(len(label.label_names))
            names = dict(zip(ids, label.label_names, strict=True))
            return [names.get(value, str(value)) for value in found]
        return [_short(value) for value in found]
    return [""] * number


def _values(split: Split, record: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    """A few short values of columns that have no role."""
    shown = 0
    for column in split.schema.stored:
        plain = not column.is_list and not pa.types.is_binary(column.type)
        if column.role is None and plain and column.name != "img_id" and shown < _MAX_VALUES:
            value = record.column(column.name)[0].as_py()
            if value not in (None, ""):
                shown += 1
                yield column.name, _short(value)


def _list(record: pa.RecordBatch, name: str) -> list[Any]:
    value = record.column(name)[0].as_py()
    return value if isinstance(value, list) else [] if value is None else [value]


def _short(value: object) -> str:
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
