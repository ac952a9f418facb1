"""A source whose configs are like KFER in nothing, with the values of its records; written by hand."""

import io
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.examples import BYTES, FLOATS, INTEGERS, field, to_varint, write_frames


def picture(kind: str, seed: int, size: tuple[int, int] = (9, 7)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def encode(record: dict, columns: dict) -> bytes:
    """An Example; a value of None is a feature that is absent."""
    entries = b""
    for name, value in record.items():
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        column = columns[name]
        kind = column if isinstance(column, str) else column.get("type", "")
        if kind.startswith("float32"):
            feature = field(FLOATS, field(1, struct.pack(f"<{len(values)}f", *values)))
        elif kind.startswith(("binary", "string")) or isinstance(value, (bytes, str)):
            texts = [text.encode() if isinstance(text, str) else text for text in values]
            feature = field(BYTES, b"".join(field(1, text) for text in texts))
        else:
            feature = field(INTEGERS, field(1, b"".join(map(to_varint, values))))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def _detection(number: int) -> dict:
    boxes = number % 4
    return {
        "picture": picture("PNG" if number % 2 else "JPEG", number),
        "name": f"scene {number}",
        "classes": [(number + box) % 3 for box in range(boxes)],
        "image/object/bbox/xmin": [0.25 * box + 0.1 * number for box in range(boxes)],
        "texts": [f"얼굴 {box}" for box in range(boxes)],
        "masks": [bytes([255, box]) for box in range(boxes)],
        "corners": [number, -number, 2**40, 0],
        "maybe": None if number % 3 == 0 else number * 2**33,
        "maybe_text": None if number % 5 else "text",
        "maybe_list": None if number % 4 == 1 else [float(number)] * boxes,
        "maybe_corners": None if number % 2 else [1.5, -0.0, number * 0.1],
        "small": number % 200,
        "raw": bytes([0xFF, number]),
        "a.b": number,
        "image.bytes": number + 0.5,
        "split": f"s{number}",
        'q"uote': "x",
        "pi|pe `x`": 1,
        "naïve 한": 2,
        "order": 3,
    }


_DETECTION = {
    "picture": {"role": "image"},
    "name": {"role": "file_name"},
    "classes": {"type": "int64[]", "role": "label", "label_names": ["car", "cat", "no"]},
    "image/object/bbox/xmin": "float32[]",
    "texts": "string[]",
    "masks": "binary[]",
    "corners": "int64[4]",
    "maybe": {"type": "int64", "nullable": True, "meaning": "a number | that may be missing."},
    "maybe_text": {"type": "string", "nullable": True},
    "maybe_list": {"type": "float32[]", "nullable": True},
    "maybe_corners": {"type": "float32[3]", "nullable": True},
    "small": "uint8",
    "raw": "binary",
    "a.b": "int32",
    "image.bytes": "float32",
    "split": "string",
    'q"uote': "string",
    "pi|pe `x`": "int64",
    "naïve 한": "int16",
    "order": "int64",
}


def _words(number: int) -> dict:
    return {"text": f"word {number}", "mood": "good" if number % 2 else "bad", "score": number / 3}


def _pairs(number: int) -> dict:
    return {
        "before": picture("PNG", number),
        "after": None if number % 3 else picture("WEBP", number),
        "label": number % 2,
    }


def _numbered(number: int) -> dict:
    return {"image": picture("JPEG", number), "animal": None if number == 2 else [7, 3, -1][number % 3]}


def _tagged(number: int) -> dict:
    return {"image": picture("PNG", number), "tags": [number & 1, number >> 1 & 1]}


def _plain(number: int) -> dict:
    return {"image": picture("PNG", number), "class": number % 3}


CONFIGS = {
    "detection": (_DETECTION, _detection),
    "words": ({"text": "string", "mood": {"type": "string", "role": "label"}, "score": "float32"}, _words),
    "pairs": (
        {
            "before": {"role": "image"},
            "after": {"role": "image", "nullable": True},
            "label": {"role": "label"},
        },
        _pairs,
    ),
    "numbered": (
        {
            "image": {"role": "image"},
            "animal": {"role": "label", "label_names": {"7": "dog", "3": "cat"}, "nullable": True},
        },
        _numbered,
    ),
    "tagged": (
        {
            "image": {"role": "image"},
            "tags": {
                "type": "uint8[2]",
                "role": "label",
                "label_names": ["a", "b"],
                "kind": "multi-label",
                "unlabelled": True,
            },
        },
        _tagged,
    ),
    "plain": (
        {"image": {"role": "image"}, "class": {"role": "label", "label_names": ["null", "1.0", "~"]}},
        _plain,
    ),
}

SPLITS = {"train": 23, "holdout": 5}


def make(folder: Path) -> dict[tuple[str, str], list[dict]]:
    """Write the source; its records by config and split."""
    folder.mkdir(parents=True)
    truth = {}
    configs = {}
    for config, (columns, record) in CONFIGS.items():
        splits = {}
        for split, count in SPLITS.items():
            truth[config, split] = [record(number) for number in range(count)]
            name = f"{config}_{split}.tfrecord"
            write_frames(folder / name, [encode(row, columns) for row in truth[config, split]], index=False)
            splits[split] = {"file": name}
        configs[config] = {"columns": columns, "splits": splits}
    about = {"licence": {"name": "CC BY 4.0", "text": "Name the authors.", "link": "https://example.org/by"}}
    document = {"name": "odds", "about": about, "configs": configs}
    (folder / "dataset.json").write_text(json.dumps(document, ensure_ascii=False), "utf-8")
    return truth
