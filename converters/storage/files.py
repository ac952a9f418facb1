"""Opens files that come from outside, here or in a store: regular ones only, without waiting for any, and bounded."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO, TypeVar

from converters.storage import object_store as objects
from converters.storage.object_store import ObjectPath, Place

AnyPlace = TypeVar("AnyPlace", Path, ObjectPath)


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


def open_file(place: Place, *, follow_links: bool = True) -> IO[bytes]:
    """A file, opened for reading.

    Raises:
        OSError: as :func:`open_regular`; FileNotFoundError of an object that is not there.
    """
    if isinstance(place, ObjectPath):
        return objects.open_object(place)
    return open(open_regular(place, follow_links=follow_links), "rb")  # a descriptor


def read_bounded(place: Place, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """The content of a small file.

    Raises:
        OSError: as :func:`open_file`, or the file is larger than ``max_bytes``.
    """
    with open_file(place, follow_links=follow_links) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise _refused(str(place), f"it is larger than {max_bytes} bytes")
    return data


def write_whole(path: Path, text: str) -> None:
    """Write a file of this machine in one step, so that what was there is whole whatever happens.

    Raises:
        OSError: it cannot be written; ``filename`` is its path.
    """
    unfinished = path.with_name(f".{path.name}.incomplete")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        unfinished.replace(path)
    except OSError as error:
        error.filename = os.fspath(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def is_folder(place: Place) -> bool:
    """Whether there is a folder, or in a store anything below it."""
    return place.is_dir() if isinstance(place, Path) else bool(objects.object_names(place))


def names_in(folder: Place) -> list[str]:
    """The names of what is directly in a folder, sorted.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(folder, ObjectPath):
        return objects.object_names(folder)
    return sorted(entry.name for entry in folder.iterdir())


def is_there(place: Place) -> bool:
    """Whether there is anything of this name, be it a link that leads nowhere."""
    if isinstance(place, Path):
        return os.path.lexists(place)
    try:
        objects.object_state(place)
    except FileNotFoundError:
        return False
    return True


def file_state(place: Place) -> tuple[int, int | str]:
    """The size of a file in bytes, and a token that changes whenever the file does.

    That is its inode and its times in nanoseconds, of which no program can set that of the last change; or its version
    in a store.

    Raises:
        OSError: there is none.
    """
    if isinstance(place, ObjectPath):
        state = objects.object_state(place)
        return state.size, state.version
    status = place.stat()
    return status.st_size, f"{status.st_ino}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def _refused(path: str | os.PathLike[str], reason: str) -> OSError:
    return OSError(errno.EINVAL, reason, os.fspath(path))


def staging_place(destination: AnyPlace) -> AnyPlace:
    """Where the output for ``destination`` grows."""
    return destination.with_name(destination.name + ".incomplete")
