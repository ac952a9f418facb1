"""SHA-256 of many small pieces of data at once, and of a long stream in a thread beside the one that reads it.

A processor with wide registers hashes sixteen independent messages in the time of six. stringzilla does that; where
it is not installed, hashlib does it one by one. Of every call, the first digest is computed by hashlib too and
compared, so that a fault of the library is an error and not a wrong proof.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import Any

from converters.errors import MachineError

try:
    from stringzilla import Sha256s
except ImportError:  # no wheel for this machine
    Sha256s = None

_LANES = 256
_WAITING_BYTES = 5 << 20  # that were given and are not hashed yet
_SHORT = 1 << 16  # hashed in less time than a thread takes to be told of it


class Sha256Beside:
    """The SHA-256 of bytes that come in pieces; a thread hashes them, so what is given must not change."""

    def __init__(self) -> None:
        self._digest = sha256()
        self._thread = ThreadPoolExecutor(1)  # starts with the first piece that is not short
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._waiting_bytes = 0

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes; waits where many have not been hashed yet."""
        while self._waiting and (
            self._waiting[0][0].done() or self._waiting_bytes + len(data) > _WAITING_BYTES
        ):
            piece, size = self._waiting.popleft()
            piece.result()
            self._waiting_bytes -= size
        if len(data) < _SHORT and not self._waiting:
            self._digest.update(data)
        else:
            self._waiting.append((self._thread.submit(self._digest.update, data), len(data)))
            self._waiting_bytes += len(data)

    def hexdigest(self) -> str:
        """Hexadecimal digest of all that was given."""
        for piece, _ in self._waiting:
            piece.result()
        return self._digest.hexdigest()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


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
