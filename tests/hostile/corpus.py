"""Hostile sources, made by code: each case spoils a small sound dataset in one way.

A case is a function that gets the folder of a sound source (``t.tfrecords`` of three records, ``dataset.json``
beside it) and spoils it; what it gives back are further arguments for the command.
"""

import json
import os
import socket
import stat
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import google_crc32c
from conftest import Record, encode_record
from helpers.examples import encode_features, field, framed, masked_crc, to_varint, write_frames
from PIL import Image

MIB = 1 << 20

Case = Callable[[Path], list[str] | None]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def add(function: Case) -> Case:
        assert name not in CASES
        CASES[name] = function
        return function

    return add


def cases(names_and_values: dict) -> Callable:
    """One case for each name, made by the function with the value."""

    def add(function):
        for name, value in names_and_values.items():
            case(name)(lambda folder, value=value: function(folder, value))
        return function

    return add


def jpeg(mode: str = "L", size: tuple[int, int] = (8, 8), shade: int = 50, **options) -> bytes:
    file = BytesIO()
    Image.new(mode, size, shade).save(file, "JPEG", **({"quality": 5, "optimize": True} | options))
    return file.getvalue()


JPEG = jpeg()
RECORDS = [Record(jpeg(shade=50 + 40 * number), (number % 2, 1 - number % 2), 8, 8, 1) for number in range(3)]
GOOD = encode_record(RECORDS[0])
DESCRIPTION = {
    "configs": {
        "c": {
            "kind": "single-label",
            "label_names": ["a", "b"],
            "splits": {"train": {"file": "t.tfrecords", "index": "t.idx", "labels_csv": "l.csv"}},
        }
    }
}


def make_source(folder: Path) -> Path:
    """A sound source, with an index and no published facts."""
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(DESCRIPTION))
    write_frames(tfrecord(folder), [encode_record(record) for record in RECORDS])
    return folder


def tfrecord(folder: Path) -> Path:
    return folder / "t.tfrecords"


def header(size: int) -> bytes:
    length = struct.pack("<Q", size)
    return length + masked_crc(length)


def masked_crc_of_zeros(size: int, after: int = 0) -> bytes:
    crc = after
    for _ in range(size // MIB):
        crc = google_crc32c.extend(crc, bytes(MIB))
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def put(folder: Path, data: bytes) -> None:
    """The TFRecord file's bytes; there is no index then."""
    tfrecord(folder).write_bytes(data)
    (folder / "t.idx").unlink()


def gz(data: bytes, level: int = 6, window_bits: int = 31) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, window_bits)
    return packer.compress(data) + packer.flush()


# --- Lengths ------------------------------------------------------------------------------------------


@cases({f"a length of {size}": size for size in (2**33, 2**62, 2**63, 2**64 - 1, 256 * MIB + 1)})
def _(folder, size):
    put(folder, framed(GOOD) + header(size) + b"something")


@case("255 MiB claimed, the file ends")
def _(folder):
    put(folder, framed(GOOD) + header(255 * MIB) + b"something")


@case("255 MiB claimed, 200 are there")
def _(folder):
    put(folder, header(255 * MIB))
    os.truncate(tfrecord(folder), 200 * MIB)


@case("255 MiB of zeros as a record")
def _(folder):
    put(folder, header(255 * MIB))
    os.truncate(tfrecord(folder), 12 + 255 * MIB)
    with tfrecord(folder).open("ab") as file:
        file.write(masked_crc_of_zeros(255 * MIB))


@case("a million empty records")
def _(folder):
    put(folder, framed(b"") * 1_000_000)


@cases({f"{size} zero bytes appended": size for size in (1, 11, 12, 16, 4096)})
def _(folder, size):
    with tfrecord(folder).open("ab") as file:
        file.write(bytes(size))


@case("cut inside a record")
def _(folder):
    os.truncate(tfrecord(folder), 300)


@case("an empty file")
def _(folder):
    put(folder, b"")


# --- Compression --------------------------------------------------------------------------------------


@cases({"a gzip bomb": 31, "a zlib bomb": 15})
def _(folder, window_bits):
    packer = zlib.compressobj(1, zlib.DEFLATED, window_bits)
    parts = [packer.compress(framed(GOOD) + header(255 * MIB))]
    parts += [packer.compress(bytes(MIB)) for _ in range(255)]
    put(folder, b"".join([*parts, packer.flush()]))


@case("a gzip bomb inside a gzip file")
def _(folder):
    inner = gz(bytes(60 * MIB), 9)
    put(folder, gz(framed(inner), 9))


@case("a gzip record of 120 MiB, inside the ratio")
def _(folder):
    noise = os.urandom(2 * MIB)
    crc = google_crc32c.value(noise)
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [packer.compress(header(120 * MIB) + noise)]
    parts += [packer.compress(bytes(MIB)) for _ in range(118)]
    parts += [packer.compress(masked_crc_of_zeros(118 * MIB, crc)), packer.flush()]
    put(folder, b"".join(parts))


@case("half a million empty gzip members, and damage")
def _(folder):
    put(folder, gz(b"") * 500_000 + gz(framed(GOOD))[:-1])


@case("a gzip member for every byte")
def _(folder):
    put(folder, b"".join(gz(bytes([byte])) for byte in framed(GOOD) * 100) + gz(b"x"))


@case("a gzip header with a name of 30 MB that does not end")
def _(folder):
    put(folder, b"\x1f\x8b\x08\x08\0\0\0\0\0\x03" + b"n" * 30_000_000)


@cases(
    {
        "gzip without its trailer": lambda data: gz(data)[:-8],
        "gzip with something after it": lambda data: gz(data) + bytes(512),
        "two zlib streams": lambda data: gz(data, 6, 15) * 2,
        "gzip of nothing": lambda data: gz(b""),
    }
)
def _(folder, spoil):
    put(folder, spoil(tfrecord(folder).read_bytes()))


# --- No file --------------------------------------------------------------------------------------------


def _socket(path: Path) -> None:
    place = os.getcwd()  # noqa: PTH109
    os.chdir(path.parent)  # the name of a socket has at most some hundred bytes
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(place)


NO_FILE = {
    "a directory": lambda path: path.mkdir(),
    "a FIFO": os.mkfifo,
    "a socket": _socket,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link that leads nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@cases(
    {
        f"{what} as {name}": (make, name)
        for what, make in NO_FILE.items()
        for name in ("t.tfrecords", "t.idx", "dataset.json", "l.csv")
        if (what, name) != ("a directory", "t.idx")  # it is no file, so there is no index
    }
)
def _(folder, make_and_name):
    make, name = make_and_name
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    return ["--labels", str(labels_of(folder, name))] if name == "l.csv" else None


def labels_of(folder: Path, name: str = "l.csv") -> Path:
    """A folder of label CSVs beside the source, with what ``name`` is in the source moved there."""
    labels = folder.with_name("labels")
    labels.mkdir()
    (folder / name).rename(labels / name)
    return labels


if os.geteuid():  # nothing is unreadable to the superuser

    @cases({f"{name} that may not be read": name for name in ("t.tfrecords", "t.idx", "dataset.json")})
    def _(folder, name):
        (folder / name).chmod(0)


# --- Examples -------------------------------------------------------------------------------------------


def features(**changes) -> dict[str, bytes | list[int]]:
    return {"image_raw": JPEG, "label": [1, 0], "height": [8], "width": [8], "depth": [1]} | changes


def entry(name: str, feature: bytes) -> bytes:
    return field(1, field(1, name.encode()) + field(2, feature))


def with_label(feature: bytes) -> bytes:
    """A sound Example but for the feature ``label``."""
    others = {name: value for name, value in features().items() if name != "label"}
    inner = encode_features(others)
    _, start = to_varint(0), 1
    while inner[start] & 0x80:
        start += 1
    return field(1, inner[start + 1 :] + entry("label", feature))


ONE_ZERO = field(1, b"\x01\x00")
EXAMPLES = {
    "no bytes": b"",
    "no feature": b"\x0a\x00",
    "text": b"this is no Example at all, but a line of text",
    "a key twice": with_label(field(3, ONE_ZERO))[:0]
    + field(1, b"".join(entry(n, field(3, ONE_ZERO)) for n in ("label", "label"))),
    "features twice": encode_features(features()) * 2,
    "two kinds": with_label(field(1, b"") + field(3, ONE_ZERO)),
    "labels as floats": with_label(field(2, field(1, struct.pack("<2f", 1, 0)))),
    "labels as bytes": with_label(field(1, field(1, b"\x01") + field(1, b"\x00"))),
    "labels as fixed64": with_label(field(3, b"\x09" + bytes(8) + b"\x09" + bytes(8))),
    "labels as fixed32": with_label(field(3, b"\x0d" + bytes(4) + b"\x0d" + bytes(4))),
    "an unknown field in a list": with_label(field(3, ONE_ZERO + b"\x10\x01")),
    "an unknown field in a feature": with_label(field(3, ONE_ZERO) + field(9, b"")),
    "an unknown field in an entry": field(
        1, field(1, field(1, b"label") + field(2, field(3, ONE_ZERO)) + field(3, b""))
    ),
    "an unknown field after": encode_features(features()) + field(2, b"x"),
    "a value before its key": field(1, field(1, field(2, field(3, ONE_ZERO)) + field(1, b"label"))),
    "a value of eleven bytes": with_label(field(3, field(1, b"\x80" * 10 + b"\x01\x00"))),
    "a value of 70 bits": with_label(field(3, field(1, b"\xff" * 9 + b"\x7f\x00"))),
    "an overlong length": b"\x0a\xff\x80\x00" + bytes(127),
    "a length of 2**64 - 1": b"\x0a" + b"\xff" * 9 + b"\x01",
    "a million open groups": b"\x0a" + to_varint(1_000_000) + b"\x0b" * 1_000_000,
    "a hundred thousand submessages in each other": b"\x0a\xff\xff\xff\x7f" * 100_000,
    "300,000 features": lambda: field(
        1, entry("#######", field(3, b"\x0a\0")).replace(b"#######", b"%07d") * 300_000 % (*range(300_000),)
    ),
    "a feature's name of 20 MB": lambda: field(1, entry("n" * 20_000_000, field(3, ONE_ZERO))),
    "a feature's name that is not UTF-8": field(1, field(1, field(1, b"\xff\xfe"))),
    "a feature's name with a NUL": encode_features(features() | {"label\0": [1]}),
    "fifty million labels": lambda: with_label(field(3, field(1, bytes(50_000_000)))),
    "ten million unpacked labels": lambda: with_label(field(3, b"\x08\x00" * 10_000_000)),
    "ten million images": lambda: field(1, entry("image_raw", field(1, b"\x0a\x00" * 10_000_000))),
    "no label": encode_features({name: value for name, value in features().items() if name != "label"}),
    "another feature": encode_features(features(extra=[1])),
    "three labels": encode_features(features(label=[1, 0, 0])),
    "a label of 2": encode_features(features(label=[2, 0])),
    "a label of -1": encode_features(features(label=[1, -1])),
    "a label of 2**63 - 1": encode_features(features(label=[1, 2**63 - 1])),
    "a label of -2**63": encode_features(features(label=[1, -(2**63)])),
    "a label of 257": encode_features(features(label=[257, 0])),
    "no label set": encode_features(features(label=[0, 0])),
    "two labels set": encode_features(features(label=[1, 1])),
    "a height of -8": encode_features(features(height=[-8])),
    "a height of 2**32 + 8": encode_features(features(height=[2**32 + 8])),
    "a height of 2**63 - 1": encode_features(features(height=[2**63 - 1])),
    "a height of -2**63": encode_features(features(height=[-(2**63)])),
    "two heights": encode_features(features(height=[8, 8])),
    "no height": encode_features(features(height=[])),
}
# Protobuf reads these whole; no known writer writes them.
SOUND_EXAMPLES = {
    "an empty features after": encode_features(features()) + b"\x0a\x00",
    "two int64_lists": with_label(field(3, field(1, b"\x01")) + field(3, field(1, b"\x00"))),
    "packed, then unpacked": with_label(field(3, field(1, b"\x01") + b"\x08\x00")),
    "unpacked, then packed": with_label(field(3, b"\x08\x01" + field(1, b"\x00"))),
    "two packed runs": with_label(field(3, field(1, b"\x01") + field(1, b"\x00"))),
    "an overlong value": with_label(field(3, field(1, b"\x81\x00\x00"))),
    "unpacked labels": with_label(field(3, b"\x08\x01\x08\x00")),
}


@cases({f"Example: {name}": data for name, data in EXAMPLES.items()})
def _(folder, data):
    put(folder, framed(GOOD) + framed(data if isinstance(data, bytes) else data()) + framed(GOOD))


@cases({f"first Example: {name}": EXAMPLES[name] for name in ("no bytes", "text")})
def _(folder, data):
    put(folder, framed(data if isinstance(data, bytes) else data()))


@case("a file of unknown name, and fifty million labels")
def _(folder):
    (folder / "train.tfrecord").write_bytes(framed(EXAMPLES["fifty million labels"]()))
    tfrecord(folder).unlink()


# --- Indexes ---------------------------------------------------------------------------------------------

SIZES = [len(encode_record(record)) + 16 for record in RECORDS]
OFFSETS = [0, SIZES[0], SIZES[0] + SIZES[1]]
INDEXES = {
    "empty": b"",
    "not contiguous": f"0 {SIZES[0]}\n{OFFSETS[1] + 1} {SIZES[1]}\n{OFFSETS[2]} {SIZES[2]}\n",
    "overlapping": f"0 {SIZES[0] + 5}\n{OFFSETS[1]} {SIZES[1]}\n{OFFSETS[2]} {SIZES[2]}\n",
    "negative": f"0 {SIZES[0]}\n-{OFFSETS[1]} {SIZES[1]}\n{OFFSETS[2]} {SIZES[2]}\n",
    "a line too many": f"0 {SIZES[0]}\n{OFFSETS[1]} {SIZES[1]}\n{OFFSETS[2]} {SIZES[2]}\n{sum(SIZES)} 0\n",
    "a line too few": f"0 {SIZES[0]}\n{OFFSETS[1]} {SIZES[1]}\n",
    "not ending at the end": f"0 {SIZES[0]}\n{OFFSETS[1]} {SIZES[1]}\n{OFFSETS[2]} {SIZES[2] - 1}\n",
    "huge numbers": b"0 " + b"9" * 5000 + b"\n",
    "2**64": f"0 {2**64 + SIZES[0]}\n",
    "NULs": bytes(500),
    "other digits": "0 ٣\n",
    "a line of 64 MB": b"1" * (64 * MIB),
    "a million lines": b"0 0\n" * 1_000_000,
    "twice the same": f"0 {SIZES[0]}\n" * 3,
    "no line break": f"0 {SIZES[0]} {OFFSETS[1]} {SIZES[1]} {OFFSETS[2]} {SIZES[2]}",
    "a tab": f"0\t{SIZES[0]}\n",
}


@cases({f"index: {name}": data for name, data in INDEXES.items()})
def _(folder, data):
    (folder / "t.idx").write_bytes(data if isinstance(data, bytes) else data.encode())


@case("index: a gigabyte without a line break")
def _(folder):
    os.truncate(folder / "t.idx", 1 << 30)


# --- Images -----------------------------------------------------------------------------------------------


def with_size(data: bytes, height: int, width: int) -> bytes:
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


def image(folder: Path, data: bytes, height: int = 8, width: int = 8, depth: int = 1) -> None:
    write_frames(tfrecord(folder), [GOOD, encode_record(Record(data, (1, 0), height, width, depth)), GOOD])


IMAGES = {
    "none": b"",
    "text": b"no image",
    "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "only the markers": b"\xff\xd8\xff\xd9",
    "no end marker": JPEG[:-2],
    "cut": JPEG[:100],
    "another height": with_size(JPEG, 9, 8),
    "another width": with_size(JPEG, 8, 65535),
    "a segment longer than the image": JPEG[:2] + b"\xff\xe0\xff\xff" + JPEG[2:],
    "a segment of length 0": JPEG[:2] + b"\xff\xe0\x00\x00" + JPEG[2:],
    "a segment of length 1": JPEG[:2] + b"\xff\xe0\x00\x01" + JPEG[2:],
    "a frame header that is too short": JPEG.replace(b"\xff\xc0\x00\x0b", b"\xff\xc0\x00\x08"),
    "ten million fill bytes": JPEG[:2] + b"\xff" * 10_000_000 + JPEG[2:],
    "a million segments": JPEG[:2] + b"\xff\xfe\x00\x02" * 1_000_000 + JPEG[2:],
    "colours": jpeg("RGB", shade=(1, 2, 3)),
}


@cases({f"image: {name}": data for name, data in IMAGES.items()})
def _(folder, data):
    image(folder, data)


@case("image: 65535 x 65535, decoded")
def _(folder):
    image(folder, with_size(JPEG, 65535, 65535), 65535, 65535)
    return ["--decode"]


@case("image: 5001 x 5000, decoded")
def _(folder):
    image(folder, jpeg(size=(5000, 5001)), 5001, 5000)
    return ["--decode"]


@case("image: 25 million pixels, progressive, a thousand scans, decoded")
def _(folder):
    data = jpeg(size=(5000, 5000), progressive=True)
    scan = data.index(b"\xff\xda", data.rindex(b"\xff\xc4"))
    image(folder, data[:scan] + data[scan:-2] * 1000 + data[-2:], 5000, 5000)
    return ["--decode"]


@case("image: 12 bits, decoded")
def _(folder):
    image(folder, JPEG.replace(b"\xff\xc0\x00\x0b\x08", b"\xff\xc0\x00\x0b\x0c"))
    return ["--decode"]


# --- Descriptions -----------------------------------------------------------------------------------------


def described(**changes) -> dict:
    document = json.loads(json.dumps(DESCRIPTION))
    document["configs"]["c"]["splits"]["train"] |= changes
    return document


DESCRIPTIONS = {
    "empty": b"",
    "deep nesting": b"[" * 1_000_000,
    "deep objects": b'{"a":' * 200_000,
    "a million lists": b'{"configs": [' + b"[]," * 1_000_000 + b"[]]}",
    "a huge number": json.dumps(described(records="N")).replace('"N"', "9" * 100_000).encode(),
    "1e400": json.dumps(described(records="N")).replace('"N"', "1e400").encode(),
    "NaN": json.dumps(described(records="N")).replace('"N"', "NaN").encode(),
    "true": json.dumps(described(records=True)).encode(),
    "a negative count": json.dumps(described(records=-1)).encode(),
    "a key twice": b'{"configs": {}, "configs": {}}',
    "not UTF-8": b"\xff\xfe{}",
    "a surrogate": b'{"configs": {"\\ud800": {}}}',
    "NULs": bytes(1000),
    "a file elsewhere": json.dumps(described(file="../t.tfrecords")).encode(),
    "an absolute file": json.dumps(described(file="/etc/passwd")).encode(),
    "a pattern elsewhere": json.dumps(described(file="../*")).encode(),
    "a pattern that takes long": json.dumps(described(file="*t" * 2000 + "*x")).encode(),
    "a pattern of brackets": json.dumps(described(file="[" * 5000)).encode(),
    "a file name of 5,000 bytes": json.dumps(described(file="t" * 5000)).encode(),
    "an index elsewhere": json.dumps(described(index="../t.idx")).encode(),
    "an index name of 5,000 bytes": json.dumps(described(index="t" * 5000)).encode(),
    "labels elsewhere": json.dumps(described(labels_csv="../l.csv")).encode(),
    "a config that leaves": json.dumps({"configs": {"../c": DESCRIPTION["configs"]["c"]}}).encode(),
    "a split that leaves": json.dumps(DESCRIPTION).replace('"train"', '"../train"').encode(),
    "a digest that is none": json.dumps(described(labels_sha256="x" * 64)).encode(),
    "wrong counts": json.dumps(described(records=2)).encode(),
    "counts of no label": json.dumps(described(label_counts={"a": 1, "c": 2})).encode(),
    "a list": b"[]",
    "a number": b"1",
}


@cases({f"dataset.json: {name}": data for name, data in DESCRIPTIONS.items()})
def _(folder, data):
    (folder / "dataset.json").write_bytes(data)


@case("dataset.json: a gigabyte")
def _(folder):
    os.truncate(folder / "dataset.json", 1 << 30)


# --- Label CSVs ---------------------------------------------------------------------------------------------

ROWS = ["img_id,clip_id,a,b", "one,c,0,1", "two,c,1,0", "three,c,0,1"]


def rows(**changes: str) -> bytes:
    lines = [changes.get(line.split(",")[0], line) for line in ROWS]
    return ("\n".join(lines) + "\n").encode()


LABELS = {
    "empty": b"",
    "NULs": bytes(1000),
    "a path": rows(one="../../one,c,0,1"),
    "an absolute path": rows(one="/etc/one,c,0,1"),
    "a backslash": rows(one="..\\one,c,0,1"),
    "a NUL": rows(one="o\0ne,c,0,1"),
    "a drive": rows(one="C:one,c,0,1"),
    "a device": rows(one="NUL.jpg,c,0,1"),
    "dots": rows(one="..,c,0,1"),
    "no name": rows(one=",c,0,1"),
    "a name of 300 bytes": rows(one="o" * 300 + ",c,0,1"),
    "a clip that leaves": rows(one="one,../c,0,1"),
    "a name twice": rows(two="one,c,1,0"),
    "a name twice but for case": rows(two="ONE,c,1,0"),
    "a name twice but for the extension": rows(two="one.jpg,c,1,0"),
    "a line break in a name": rows(one='"on\ne",c,0,1'),
    "an open quote": rows(one='"one,c,0,1'),
    "not UTF-8": rows().replace(b"one", b"\xff\xfe"),
    "a label of 2": rows(one="one,c,0,2"),
    "a label of -1": rows(one="one,c,0,-1"),
    "a label of 257": rows(one="one,c,0,257"),
    "other labels": rows(one="one,c,1,0"),
    "a row too few": b"\n".join(rows().splitlines()[:-1]),
    "a row too many": rows() + b"four,c,1,0\n",
    "an empty line": rows().replace(b"\ntwo", b"\n\ntwo"),
    "columns exchanged": rows().replace(b"a,b", b"b,a"),
    "a column too many": rows().replace(b"a,b", b"a,b,c"),
    "a column twice": rows().replace(b"a,b", b"a,a"),
    "a field of 64 MB": rows(one="o" * (64 * MIB) + ",c,0,1"),
    "a header of 64 MB": b"i" * (64 * MIB),
}


@cases({f"label CSV: {name}": data for name, data in LABELS.items()})
def _(folder, data):
    (folder / "l.csv").write_bytes(data)
    return ["--labels", str(labels_of(folder))]


@case("label CSV: a field of a gigabyte")
def _(folder):
    (folder / "l.csv").write_bytes(b"img_id,clip_id,a,b\n")
    os.truncate(folder / "l.csv", 1 << 30)
    return ["--labels", str(labels_of(folder))]


@cases({"label CSV: 16 MB of rows": 1_000_000, "label CSV: three million rows": 3_000_000})
def _(folder, count):
    with (folder / "l.csv").open("w") as file:
        file.write("img_id,clip_id,a,b\n")
        file.writelines(f"{number},c,0,1\n" for number in range(count))
    return ["--labels", str(labels_of(folder))]


@case("label CSV: compressed, by its name")
def _(folder):
    (folder / "dataset.json").write_text(json.dumps(described(labels_csv="l.csv.gz")))
    (folder / "l.csv.gz").write_bytes(gz(rows()))
    return ["--labels", str(labels_of(folder, "l.csv.gz"))]


# --- Parts of a source that are sound, and unusual -------------------------------------------------------------

SOUND: dict[str, Case] = {
    "as it is": lambda folder: None,
    "no index": lambda folder: (folder / "t.idx").unlink(),
    "a directory as an index": lambda folder: ((folder / "t.idx").unlink(), (folder / "t.idx").mkdir())[-1],
    "gzip members": lambda folder: put(
        folder, b"".join(gz(framed(encode_record(record))) for record in RECORDS) + gz(b"")
    ),
    "half a million empty gzip members": lambda folder: put(
        folder, gz(b"") * 500_000 + gz(tfrecord(folder).read_bytes())
    ),
    "zlib": lambda folder: put(folder, gz(tfrecord(folder).read_bytes(), 9, 15)),
    "a link as a file": lambda folder: (
        tfrecord(folder).rename(folder.with_name("elsewhere")),
        tfrecord(folder).symlink_to("../elsewhere"),
        None,
    )[-1],
    "CMYK, decoded": lambda folder: (
        image(folder, jpeg("CMYK", shade=(1, 2, 3, 4)), depth=4),
        ["--decode"],
    )[-1],
    # What is missing, libjpeg takes for grey and Pillow does not say; its bytes are kept as they are.
    "25 million pixels of which most are missing, decoded": lambda folder: (
        image(folder, with_size(JPEG, 5000, 5000), 5000, 5000),
        ["--decode"],
    )[-1],
    "bytes after the image": lambda folder: image(folder, JPEG + bytes(100)),
    **{name: lambda folder, data=data: put(folder, framed(data)) for name, data in SOUND_EXAMPLES.items()},
}


def is_regular(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)
