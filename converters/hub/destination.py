"""Where a push goes and who may see it there; what is wrong with either is said before any request."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from converters.errors import CallError

Gating = Literal["manual", "auto", "no"]

OFFICIAL = "https://huggingface.co"
MAIN = "main"

# What git allows in no branch's name (git check-ref-format); some of it would be another address on the Hub.
_NO_BRANCH = re.compile(r"^@?$|^[-/]|[\s~^:?*\[\\]|\.\.|//|@\{|(^|/)\.|\.(lock)?(/|$)|/$")

RIGHT_NEEDED = (
    "A public repo lets anybody copy the data, and that cannot be undone. --public is taken only together with "
    "--i-have-the-right-to-publish, by somebody who holds that right (a written permission from whoever hands out "
    "the data). Without either, the repo is private. Nothing was sent."
)


@dataclass(frozen=True)
class Destination:
    """A dataset repo on a Hub, and how it is to be.

    Attributes:
        repo: ``NAMESPACE/NAME``.
        endpoint: the Hub's address, without a slash at its end. No request goes anywhere else; only the official
            Hub may name further addresses for its storage.
        revision: branch to commit to (``refs/pr/N``: a pull request that is there).
        public: whether everybody may see it; it takes ``has_right`` to say so.
        has_right: whether the user said to hold the right to publish the data.
        gating: who is let in: ``manual`` (each asker is approved), ``auto`` (each asker), ``no`` (no asking).
        commit_message: the first line of the commits; None for one that says what was converted.
        create_pr: open a pull request instead of committing to the branch.
        delete_extra: delete remote files that the output has not.

    Raises:
        CallError: these contradict each other, or are not allowed.
    """

    repo: str
    endpoint: str = OFFICIAL
    revision: str = MAIN
    public: bool = False
    has_right: bool = False
    gating: Gating = "manual"
    commit_message: str | None = None
    create_pr: bool = False
    delete_extra: bool = False

    @classmethod
    def configured(cls, repo: str, **options: Any) -> Destination:  # noqa: ANN401  # the fields
        """A repo on the Hub of this environment: the one at ``HF_ENDPOINT``, or the official one."""
        return cls(repo, configured_endpoint(), **options)

    def __post_init__(self) -> None:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        if self.public and not self.has_right:
            raise CallError(f"{self.repo}: {RIGHT_NEEDED}")
        if self.has_right and not self.public:
            raise CallError(
                "--i-have-the-right-to-publish means nothing without --public; the repo stays private without "
                "both. Leave it out, or give both. Nothing was sent."
            )
        if self.gating not in ("manual", "auto", "no"):
            raise CallError(f"no gating {self.gating!r}; there are manual, auto and no.")
        try:
            validate_repo_id(self.repo)
            namespace, name = self.repo.split("/")
            validate_repo_id(namespace)
            validate_repo_id(name)
        except (HFValidationError, ValueError):
            raise CallError(
                f"{self.repo!r} names no repo on the Hub. Expected NAMESPACE/NAME: the user or organisation, a "
                "slash, the name; letters, digits, '-', '_' and '.', no '--', no '..', none of these at an end."
            ) from None
        if self.create_pr and self.revision != MAIN:
            raise CallError(
                "--create-pr opens a pull request on main, so it goes without --revision. To go on with a pull "
                "request that is there, give --revision refs/pr/N and no --create-pr."
            )
        if not self.revision.isprintable() or _NO_BRANCH.search(self.revision):
            raise CallError(f"--revision: {self.revision!r} names no branch; git takes no such name.")
        if self.commit_message is not None and not self.commit_message.strip():
            raise CallError("--commit-message: the message is empty.")
        check_endpoint(self.endpoint)

    @property
    def official(self) -> bool:
        """Whether this is the official Hub, which keeps large files at other addresses."""
        return self.endpoint == OFFICIAL

    @property
    def url(self) -> str:
        """The repo's page."""
        return f"{self.endpoint}/datasets/{self.repo}"


def configured_endpoint() -> str:
    """The address of this environment's Hub: the one at ``HF_ENDPOINT``, or the official one."""
    return (os.environ.get("HF_ENDPOINT") or OFFICIAL).rstrip("/")


def check_endpoint(endpoint: str) -> None:
    """Refuse what is no address of a Hub, without repeating it: it may hold a password.

    Raises:
        CallError: it is none.
    """
    try:
        parts = urlsplit(endpoint)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.username or parts.password or parts.query or parts.fragment:
        raise CallError(
            "HF_ENDPOINT is no address of a Hub: expected https://HOST, without a name, password or query in it."
        )
