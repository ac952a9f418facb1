"""TFRecords of ``tf.train.Example``, read and written by hand."""

import struct
from pathlib import Path

import google_crc32c

BYTES, FLOATS, INTEGERS = 1, 2, 3
"""Field numbers of a Feature: which list holds its values."""

# --- Reading -------------------------------------------------------------------------------------------


def varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at a position, and where it ends."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def fields(data: bytes) -> list[tuple[int, bytes]]:
    """Field numbers and contents of a message that has only delimited fields."""
    found, position = [], 0
    while position < len(data):
        tag, position = varint(data, position)
        assert tag & 7 == 2
        size, position = varint(data, position)
        found.append((tag >> 3, data[position : position + size]))
        position += size
    assert position == len(data)
    return found


def decode_example(data: bytes) -> dict[str, bytes | list[int]]:
    """The features of an Example that has single texts and packed integers, as KFER's have."""
    features: dict[str, bytes | list[int]] = {}
    ((_, entries),) = fields(data)
    for _, entry in fields(entries):
        parts = dict(fields(entry))
        ((kind, values),) = fields(parts[2])
        ((_, content),) = fields(values) or [(1, b"")]
        if kind == BYTES:
            features[parts[1].decode()] = content
        else:
            numbers, position = [], 0
            while position < len(content):
                number, position = varint(content, position)
                numbers.append(number)
            features[parts[1].decode()] = numbers
    return features


def read_frames(path: Path) -> list[bytes]:
    """The data of each record of a TFRecord file; lengths only, no checks."""
    stored = path.read_bytes()
    data, position = [], 0
    while position < len(stored):
        (size,) = struct.unpack_from("<Q", stored, position)
        data.append(stored[position + 12 : position + 12 + size])
        position += size + 16
    assert position == len(stored)
    return data


# --- Writing -------------------------------------------------------------------------------------------


def to_varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, payload: bytes) -> bytes:
    return to_varint(number << 3 | 2) + to_varint(len(payload)) + payload


def encode_value(value: object) -> bytes:
    """A Feature: of one text, of a list of texts, integers or floats (none: integers); of None, without a list."""
    if value is None:
        return b""
    values = [value] if isinstance(value, bytes) else list(value)
    if values and isinstance(values[0], bytes):
        return field(BYTES, b"".join(field(1, text) for text in values))
    if values and isinstance(values[0], float):
        return field(FLOATS, field(1, struct.pack(f"<{len(values)}f", *values)))
    return field(INTEGERS, field(1, b"".join(map(to_varint, values))))


def encode_features(features: dict[str, object]) -> bytes:
    """An Example; see :func:`encode_value` for the values."""
    entries = (
        field(1, field(1, name.encode()) + field(2, encode_value(value))) for name, value in features.items()
    )
    return field(1, b"".join(entries))


def masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(record: bytes) -> bytes:
    """A record as a TFRecord file has it."""
    length = struct.pack("<Q", len(record))
    return length + masked_crc(length) + record + masked_crc(record)


def write_frames(path: Path, data: list[bytes], *, index: bool = True) -> None:
    """Write a TFRecord file with valid checksums; its index is written, or removed."""
    stored, lines = b"", ""
    for record in data:
        lines += f"{len(stored)} {len(record) + 16}\n"
        stored += framed(record)
    path.write_bytes(stored)
    if index:
        path.with_suffix(".idx").write_text(lines)
    else:
        path.with_suffix(".idx").unlink(missing_ok=True)
