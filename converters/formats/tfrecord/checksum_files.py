"""Files of checksums beside the data: what they state of files that are here is a published fact."""

from __future__ import annotations

import re
from collections.abc import Collection

from converters.storage.files import read_bounded
from converters.storage.object_store import Place

_MAX_BYTES = 16 << 20

_NAMES = re.compile(
    r"(sha256|md5)sums?(\.txt)?|(sha256|md5)?checksums?(\.(txt|sha256|md5))?|.*\.(sha256|md5)(sums?)?(\.txt)?",
    re.IGNORECASE,
)
_COREUTILS = re.compile(r"\\?([0-9a-fA-F]{32}|[0-9a-fA-F]{64})(?:\s+\*?(\S.*))?")
_BSD = re.compile(r"(SHA256|MD5) ?\((.+)\) ?= ?([0-9a-fA-F]{32}|[0-9a-fA-F]{64})")


def published_digests(folder: Place, names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """The digests that checksum files state of files in a folder.

    A checksum file that does not parse, or names no file that is here, says nothing.

    Args:
        folder: holds them.
        names: all files in it, with ``/``.

    Returns:
        ``sha256:…`` or ``md5:…`` of each file of which one is stated (SHA-256 where both are); and the checksum files
        that state one, sorted.
    """
    stated: dict[str, str] = {}
    used = []
    for name in sorted(names):
        if not _NAMES.fullmatch(name.rpartition("/")[2]):
            continue
        try:
            text = read_bounded(folder / name, _MAX_BYTES).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError):
            continue
        prefix = name[: name.rfind("/") + 1]
        found = {
            prefix + own: digest
            for own, digest in (parse_checksums(text, name[len(prefix) :]) or {}).items()
            if prefix + own in names
        }
        if found:
            used.append(name)
        for own, digest in found.items():
            if not stated.get(own, "md5").startswith("sha256"):
                stated[own] = digest
    return stated, used


def parse_checksums(text: str, name: str) -> dict[str, str] | None:
    """What a checksum file states, by the names of the files; None if it is none.

    Lines are those of ``sha256sum`` and ``md5sum``, those of BSD's tools, or one digest alone, which is of the file
    that the checksum file is named after.
    """
    stated = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if match := _BSD.fullmatch(line.strip()):
            own, digest = match[2], match[3]
        elif match := _COREUTILS.fullmatch(line.strip()):
            own, digest = (
                match[2] or re.sub(r"\.(sha256|md5)(sums?)?(\.txt)?$", "", name, flags=re.IGNORECASE),
                match[1],
            )
        else:
            return None
        algorithm = "sha256" if len(digest) == 64 else "md5"
        stated[own.removeprefix("./")] = f"{algorithm}:{digest.lower()}"
    return stated
