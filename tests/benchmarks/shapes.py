"""The data of the benchmarks, of bytes made up here: KFER's shape, large images, and records of varying length.

    python tests/benchmarks/shapes.py SHAPE FOLDER RECORDS

Imports nothing large: the peak memory of a process is at least that of the one which started it.
"""

import json
import random
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SIDES = ("xmin", "xmax", "ymin", "ymax")
# Start of image; JFIF; a frame of 256 × 256 pixels and three components.
_JPEG_HEADER = bytes.fromhex(
    "ffd8 ffe0 0010 4a46494600 0101 00 0048 0048 0000 ffc0 0011 08 0100 0100 03 012200 021101 031101"
)
_JPEG_END = b"\xff\xd9"


def varint(value: int) -> bytes:
    """A number that is not negative."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def bytes_list(*values: bytes) -> bytes:
    return _field(1, b"".join(_field(1, value) for value in values))


def float_list(*values: float) -> bytes:
    return _field(2, _field(1, struct.pack(f"<{len(values)}f", *values)))


def int64_list(*values: int) -> bytes:
    return _field(3, _field(1, b"".join(map(varint, values))))


def example(features: dict[str, bytes]) -> bytes:
    entries = (_field(1, name.encode()) + _field(2, feature) for name, feature in features.items())
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def jpeg_like(chance: random.Random, size: int) -> bytes:
    """A JPEG by its header, and noise."""
    return _JPEG_HEADER + chance.randbytes(size - len(_JPEG_HEADER) - len(_JPEG_END)) + _JPEG_END


def kfer(chance: random.Random, image_bytes: int) -> dict[str, bytes]:
    """KFER's five features."""
    return {
        "image_raw": bytes_list(jpeg_like(chance, image_bytes)),
        "label": int64_list(*(int(chance.random() < 0.1) for _ in range(24))),
        "height": int64_list(64),
        "width": int64_list(64),
        "depth": int64_list(3),
    }


def labelled(chance: random.Random, image_bytes: int) -> dict[str, bytes]:
    """An image and its label."""
    image = jpeg_like(chance, image_bytes)
    return {"image": bytes_list(image), "label": int64_list(chance.randrange(10))}


def detection(chance: random.Random, image_bytes: int) -> dict[str, bytes]:
    """The Object Detection API's twelve features, six of them lists of varying length."""
    boxes = chance.choice([0, 1, 1, 2, 3, 4, 5, 8])
    sides = {f"image/object/bbox/{s}": float_list(*(chance.random() for _ in range(boxes))) for s in _SIDES}
    return {
        "image/encoded": bytes_list(jpeg_like(chance, image_bytes)),
        "image/filename": bytes_list(b"%06d.jpg" % chance.randrange(10**6)),
        "image/format": bytes_list(b"jpeg"),
        "image/height": int64_list(chance.randrange(100, 700)),
        "image/width": int64_list(chance.randrange(100, 700)),
        "image/source_id": bytes_list(b"%d" % chance.randrange(10**6)),
        **sides,
        "image/object/class/label": int64_list(*(chance.randrange(90) for _ in range(boxes))),
        "image/object/class/text": bytes_list(*(chance.choice([b"cat", b"person"]) for _ in range(boxes))),
    }


@dataclass(frozen=True, eq=False)
class Shape:
    """One shape of data.

    Attributes:
        name: what the tables call it.
        records: how many in full, and how many with ``--quick``.
        image_bytes: size of an image; they vary by a twentieth.
        columns: the type of each feature, as ``dataset.json`` has it.
        make: gives the features of a record; None where ``kfer-convert sample`` makes the records.
    """

    name: str
    records: tuple[int, int]
    image_bytes: int
    columns: dict[str, str]
    make: Callable[[random.Random, int], dict[str, bytes]] | None = None

    def write(self, folder: Path, records: int) -> None:
        """One split in one file, and its description."""
        from converters.formats.tfrecord.writer import TFRecordWriter

        assert self.make is not None
        folder.mkdir()
        image, *others = self.columns
        columns = {image: {"role": "image"}, **{name: self.columns[name] for name in others}}
        configs = {"default": {"columns": columns, "splits": {"train": {"file": "train.tfrecords"}}}}
        (folder / "dataset.json").write_text(json.dumps({"name": "made", "configs": configs}), "utf-8")
        chance = random.Random(1)
        with TFRecordWriter(folder / "train.tfrecords") as file:
            for _ in range(records):
                size = round(chance.gauss(self.image_bytes, self.image_bytes / 20))
                file.write(example(self.make(chance, size)))


_NUMBERS = dict.fromkeys(("height", "width", "depth"), "int64")
_BOXES = {f"image/object/bbox/{side}": "float32[]" for side in _SIDES}
KFER = Shape("KFER", (71_430, 90), 2_500, {"image_raw": "binary", "label": "int64[]", **_NUMBERS})
IMAGES = Shape("80 kB images", (10_000, 40), 80_000, {"image": "binary", "label": "int64"}, labelled)
LARGE = Shape("20 MB images", (50, 2), 20_000_000, {"image": "binary", "label": "int64"}, labelled)
RAGGED = Shape(
    "12 features, 6 ragged",
    (63_000, 200),
    2_400,
    {
        "image/encoded": "binary",
        "image/filename": "string",
        "image/format": "string",
        "image/height": "int64",
        "image/width": "int64",
        "image/source_id": "string",
        **_BOXES,
        "image/object/class/label": "int64[]",
        "image/object/class/text": "string[]",
    },
    detection,
)
SHAPES = {shape.name: shape for shape in (KFER, IMAGES, RAGGED, LARGE)}

if __name__ == "__main__":
    SHAPES[sys.argv[1]].write(Path(sys.argv[2]), int(sys.argv[3]))
