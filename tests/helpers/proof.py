"""The fingerprint of a split by its public definition, as plainly as that can be written."""

import struct
from hashlib import sha256


def rfc9162_root(leaves: list[bytes], prefix: bytes = b"\x01") -> str:
    """RFC 9162, 2.1.1, over the digests of the leaves: the left subtree has the largest power of two below n."""

    def root(part: list[bytes]) -> bytes:
        if len(part) == 1:
            return part[0]
        power = 1
        while power * 2 < len(part):
            power *= 2
        return sha256(prefix + root(part[:power]) + root(part[power:])).digest()

    return root(leaves).hex() if leaves else sha256(b"").hexdigest()


def encoded_value(value: object, *, is_list: bool, is_float: bool = False, image: bool = False) -> bytes:
    """A value of a column: how many there are, and each of them."""
    if value is None:
        return struct.pack("<Q", 2**64 - 1)
    values = list(value) if is_list else [value]
    out = struct.pack("<Q", len(values))
    for one in values:
        if image:
            out += sha256(one).digest()
        elif isinstance(one, bytes | str):
            text = one.encode() if isinstance(one, str) else one
            out += struct.pack("<Q", len(text)) + text
        else:
            out += struct.pack("<f" if is_float else "<q", one)
    return out


def record_leaf(values: list[bytes]) -> bytes:
    """The leaf of a record from its encoded values."""
    return sha256(b"\x00" + b"".join(values)).digest()


def kfer_leaf(record) -> bytes:
    """The leaf of a record of KFER: the image, the label vector, three sizes; then the identity, where it has one."""
    values = [
        encoded_value(record.image, is_list=False, image=True),
        encoded_value(record.label, is_list=True),
        *(encoded_value(size, is_list=False) for size in (record.height, record.width, record.depth)),
    ]
    if record.img_id:
        values += [encoded_value(name, is_list=False) for name in (record.img_id, record.clip_id)]
    return record_leaf(values)
