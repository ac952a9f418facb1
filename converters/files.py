"""Opens files that come from outside: regular ones only, without waiting for any, and bounded."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def open_regular(path: str | os.PathLike[str], *, follow_links: bool = True) -> int:
    """A descriptor of a regular file, for reading.

    A directory, FIFO, device or socket is refused, and none is waited for; so is a link if ``follow_links`` is
    false.

    Raises:
        FileNotFoundError: there is nothing of this name.
        OSError: the file cannot be opened, is no regular file, or is a link that leads nowhere; ``strerror``
            says so in words.
    """
    # O_NONBLOCK: opening a FIFO that nobody writes to must not hang.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError as error:
        if os.path.islink(path):  # noqa: PTH114  # a path-like, not a Path
            raise _refused(path, "it is a link that leads nowhere") from error
        raise
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links:
            raise _refused(path, "it is a link, and none is followed here") from error
        if error.errno == errno.ENXIO:
            raise _refused(path, "it is no regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused(path, "it is no regular file")
    return descriptor


def read_bounded(path: Path, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """The content of a small file.

    Raises:
        OSError: as :func:`open_regular`, or the file is larger than ``max_bytes``.
    """
    with open(open_regular(path, follow_links=follow_links), "rb") as file:  # a descriptor
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise _refused(path, f"it is larger than {max_bytes} bytes")
    return data


def _refused(path: str | os.PathLike[str], reason: str) -> OSError:
    return OSError(errno.EINVAL, reason, os.fspath(path))
