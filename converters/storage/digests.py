"""SHA-256 of many small pieces of data at once.

A processor with wide registers hashes sixteen independent messages in the time of six. stringzilla does that; where
it is not installed, hashlib does it one by one. Of every call, the first digest is computed by hashlib too and
compared, so that a fault of the library is an error and not a wrong proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from converters.errors import MachineError

try:
    from stringzilla import Sha256s
except ImportError:  # no wheel for this machine
    Sha256s = None

_LANES = 256


def sha256_each(pieces: Sequence[bytes | memoryview]) -> list[bytes]:
    """The SHA-256 of each piece of data, as 32 bytes."""
    if Sha256s is None or len(pieces) < 2:
        return [sha256(piece).digest() for piece in pieces]
    digests: list[bytes] = []
    lanes: Any = None
    for start in range(0, len(pieces), _LANES):
        chunk = pieces[start : start + _LANES]
        lanes = lanes.reset() if lanes is not None and len(lanes) == len(chunk) else Sha256s(len(chunk))
        digests += lanes.update(chunk).digest()
    if digests[0] != sha256(pieces[0]).digest():
        raise MachineError("the library stringzilla computes a wrong SHA-256 here: pip uninstall stringzilla")
    return digests
