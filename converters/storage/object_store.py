"""Files in an object store, by their fsspec URLs. The one room that asks a store anything.

A store has no rename, no lock and no folders, but an object is there whole or not at all, and what is read right
after it was written is what was written (S3, Google Cloud Storage and their like have promised so for years).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import unquote

from converters.errors import CallError, ConverterError, MachineError
from converters.storage.signals import held_interrupts, until

Item = TypeVar("Item")
Result = TypeVar("Result")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "hf": "hf"}
# fsspec has two names for this machine's files, and RFC 8089 two forms of URLs.
_LOCAL = re.compile(r"(file|local)://(localhost(?=/))?", re.IGNORECASE)
SCRATCH = "kfer-convert-"  # what temporary folders for what goes to or comes from a store begin with
_CHUNK = 4 << 20
_READ_AHEAD = 8 << 20
# Requests wait for the network, so many may be under way at once.
_THREADS = 16
# What stores call that which is another for each version of an object.
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "blob_id", "LastModified", "mtime", "created")


@dataclass(frozen=True, order=True)
class ObjectPath:
    """The URL of an object, or of all that begin with it and a slash.

    Attributes:
        url: without a slash at its end.
    """

    url: str

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.url.rpartition("/")[2]

    def __truediv__(self, path: str) -> ObjectPath:
        return ObjectPath(f"{self.url}/{path}")

    def with_name(self, name: str) -> ObjectPath:
        """What is beside it, called ``name``."""
        return ObjectPath(f"{self.url.rpartition('/')[0]}/{name}")

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class ObjectState:
    """Size in bytes of an object, and what its store says that is another for each version of it."""

    size: int
    version: str


Place = Path | ObjectPath
"""Where a file or a folder is: on this machine, or in a store."""


def place(text: str | os.PathLike[str] | ObjectPath) -> Place:
    """Where a path, or a URL, says that something is.

    Raises:
        CallError: it is a URL that nothing installed reads, or that names no place in a store.
    """
    url = text.url if isinstance(text, ObjectPath) else os.fspath(text)
    if not _URL.match(url):
        return Path(url)
    if local := _LOCAL.match(url):
        return Path(unquote(url[local.end() :]))
    if not _URL.sub("", url).strip("/"):
        raise CallError(f"{url}: this names no place in a store.")
    found = ObjectPath(url.rstrip("/"))
    _file_system(found)
    return found


def _file_system(place: ObjectPath) -> tuple[Any, str]:
    """The fsspec file system of a place, and its path there.

    Raises:
        CallError: it is not installed, or cannot be set up.
    """
    from fsspec.core import url_to_fs

    protocol = place.url.partition("://")[0]
    if "::" in place.url:
        raise CallError(f"{place}: fsspec takes :: for a chain of URLs, so a name with it cannot be reached.")
    try:
        system, path = url_to_fs(place.url)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        install = f"pip install 'kfer-convert[{extra}]'" if extra else str(error)
        raise CallError(f"{place}: {protocol}:// needs a package that is not installed: {install}") from error
    except Exception as error:  # anybody's file system
        raise CallError(f"{place}: this URL cannot be used: {_words(error)}") from error
    return system, path


def store_name(place: ObjectPath) -> str:
    """The same for all URLs of a place: some stores have more than one scheme (``s3://`` and ``s3a://``).

    Raises:
        CallError: nothing installed reads such URLs.
    """
    system, path = _file_system(place)
    return f"{type(system).__name__} {path}"


def list_objects(folder: ObjectPath) -> dict[str, ObjectState]:
    """All objects below a folder, as their paths in it; none where there is nothing."""
    with suppress(FileNotFoundError), _store(folder) as (system, root):
        root = root.strip("/") + "/"
        return {
            path.lstrip("/").removeprefix(root): _state(details)
            for path, details in system.find(root, detail=True).items()
            # S3's consoles make empty objects called "folder/", which hold nothing.
            if details["type"] == "file" and path.lstrip("/").startswith(root) and not path.endswith("/")
        }
    return {}


def object_names(folder: ObjectPath) -> list[str]:
    """The names of what is directly below a folder, sorted; none where there is nothing.

    Raises:
        CallError: the store does not let us look.
    """
    try:
        with _store(folder) as (system, root):
            found = [path.strip("/").rpartition("/") for path in system.ls(root, detail=False)]
    except FileNotFoundError:
        return []
    except MachineError as error:
        if isinstance(error.__cause__, NotADirectoryError):
            return []
        raise CallError(str(error)) from error  # nothing was begun yet
    return sorted({name for parent, _, name in found if parent == root.strip("/")})


def object_state(place: ObjectPath) -> ObjectState:
    """Size and version of an object.

    Raises:
        FileNotFoundError: there is none.
    """
    with _store(place) as (system, path):
        details = system.info(path)
        if details["type"] != "file":
            raise FileNotFoundError(str(place))
        return _state(details)


def _state(details: dict[str, Any]) -> ObjectState:
    versions = [str(details[name]) for name in _VERSIONS if details.get(name) is not None]
    return ObjectState(int(details["size"] or 0), " ".join(versions))


class _ObjectReader(io.RawIOBase):
    """An open object; what its file system raises is put in words."""

    def __init__(self, place: ObjectPath, opened: IO[bytes]) -> None:
        self._place = place
        self._opened = opened

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401  # anything that can be written to
        with store_errors(self._place), memoryview(buffer).cast("B") as view:
            data = self._opened.read(len(view))
            view[: len(data)] = data
            return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._opened.seek(offset, whence)

    def tell(self) -> int:
        return self._opened.tell()

    def close(self) -> None:
        self._opened.close()
        super().close()


def open_object(place: ObjectPath) -> IO[bytes]:
    """An object, opened for reading.

    Raises:
        FileNotFoundError: there is none.
    """
    with _store(place) as (system, path):
        opened = system.open(path, "rb", block_size=_READ_AHEAD, cache_type="readahead")
        return io.BufferedReader(_ObjectReader(place, opened))


def hash_object(place: ObjectPath, copy_to: Path | None = None) -> tuple[int, str]:
    """Size in bytes and hexadecimal SHA-256 of an object as it is read; the bytes also go to the new ``copy_to``.

    Raises:
        FileNotFoundError: there is none.
    """
    digest, size = hashlib.sha256(), 0
    with nullcontext() if copy_to is None else copy_to.open("xb") as target, open_object(place) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if target is not None:
                target.write(chunk)
    return size, digest.hexdigest()


def put_file(path: Path, place: ObjectPath) -> None:
    """Store a file as an object, in the place of one that may be there."""
    with _store(place) as (system, target):
        system.put_file(str(path), target)


def put_bytes(data: bytes, place: ObjectPath) -> None:
    """Store a few bytes as an object, in the place of one that may be there."""
    with _store(place) as (system, target):
        system.pipe_file(target, data)


def put_new(data: bytes, place: ObjectPath) -> bool:
    """Store a few bytes as an object that must not be there yet; False if it is.

    Where the store has conditional writes (S3's ``If-None-Match``), just one of several that try at once succeeds.
    """
    with _store(place) as (system, target):
        try:
            system.pipe_file(target, data, mode="create")
        except FileExistsError:
            return False
        except TypeError:  # no such mode in this file system
            if system.exists(target):
                return False
            system.pipe_file(target, data)
    return True


def delete_object(place: ObjectPath) -> None:
    """Delete an object."""
    with _store(place) as (system, path):
        system.rm_file(path)


def side_by_side(action: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What ``action`` makes of each item, in order; many requests are under way at once."""
    with held_interrupts() as stop, ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(until(stop, action), items))


@contextmanager
def _store(place: ObjectPath) -> Iterator[tuple[Any, str]]:
    """The file system of a place and its path there, asked anew: another process may have written since."""
    with store_errors(place):
        system, path = _file_system(place)
        system.invalidate_cache()
        yield system, path


@contextmanager
def store_errors(place: ObjectPath) -> Iterator[None]:
    """Put what a file system raises, which may be anything, in words.

    Raises:
        FileNotFoundError: as it was.
        CallError: the store does not let us.
        MachineError: all else.
    """
    try:
        yield
    except (ConverterError, FileNotFoundError):
        raise
    except PermissionError as error:
        raise CallError(
            f"{place}: the store refuses this: {_words(error)}. Are the credentials right, where its file system takes "
            "them from?"
        ) from error
    except Exception as error:
        if "credentials" in f"{type(error).__name__} {error}".lower():
            raise CallError(f"{place}: {_words(error)}: the store needs credentials.") from error
        raise MachineError(f"{place}: the store failed: {_words(error)}") from error


def _words(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
