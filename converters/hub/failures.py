"""Errors of the Hub, the network and ``huggingface_hub`` in words: what happened, and what to do.

Nothing that huggingface_hub raises reaches a user as it is: its texts may repeat a request's headers or a
pre-signed address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, quote_plus

import httpx2
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

from converters.errors import CallError, ConverterError, DataError, Location
from converters.formats.readme import README
from converters.hub.destination import Destination

_SECRET = re.compile(r"\bhf_[A-Za-z0-9]{8,}|\b[Bb]earer\s+\S+|(?<=\?)[^\s'\">]+")
_RESUME = "What was uploaded stays there: run the same command again, and it goes on from where it was."
_MORE_SPACE = (
    "There is no more room for it there: free some, or have the account's storage raised, then run the same "
    "command again."
)
_MOST_CHARACTERS = 400
_NO_SPACE = re.compile(r"storage|quota|too large|space", re.IGNORECASE)


class HubError(CallError):
    """The Hub, the token or the network does not allow what was asked for."""


@contextmanager
def in_words(doing: str, destination: Destination, token: str | None = None) -> Iterator[None]:
    """Turn whatever goes wrong while ``doing`` something into one of this package's errors.

    Raises:
        HubError: the Hub, the token or the network.
        DataError: the Hub's validator rejects the card.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001  # of the Hub's library anything, and none of it may get out
        chain = list(_chain(error))
        if own := next((link for link in chain if isinstance(link, ConverterError)), None):
            raise own from None
        # Neither the error nor what it was raised from goes on: both may hold the token.
        raise _explained(chain, doing, destination, token) from None


def clean(text: object, *secrets: str | None) -> str:
    """``text`` on one line, short, without what looks like a secret."""
    line = str(text)
    for secret in filter(None, secrets):
        # As it is, and as it stands in addresses and in JSON.
        forms = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
        for form in sorted(forms, key=len, reverse=True):
            line = line.replace(form, "[secret]")
    line = " ".join(_SECRET.sub("[secret]", line).split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= _MOST_CHARACTERS else line[:_MOST_CHARACTERS] + " …"


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _explained(
    chain: list[BaseException], doing: str, destination: Destination, token: str | None
) -> ConverterError:
    where = f"{destination.repo}: {doing}"
    for link in chain:
        if isinstance(link, HfHubHTTPError) and link.response is not None:
            return _answered(link, where, destination, token)
        if isinstance(link, OfflineModeIsEnabled):
            return HubError(f"{where}: HF_HUB_OFFLINE is set, which forbids every request. Unset it to push.")
        if isinstance(link, httpx2.TransportError):
            return HubError(
                f"{where}: the connection to {destination.endpoint} failed "
                f"({type(link).__name__}: {clean(link, token)}). {_RESUME}"
            )
    error = chain[0]
    text = clean(error, token)
    if isinstance(error, ValueError) and str(error).startswith("Invalid metadata in"):
        return _rejected_card(text.split(README, 1)[-1])
    if isinstance(error, ValueError) and str(error).startswith("LFS batch"):
        advice = _MORE_SPACE if _NO_SPACE.search(text) else _RESUME
        return HubError(f"{where}: the Hub does not take a file: {text}. {advice}")
    if isinstance(error, OSError):
        return HubError(f"{where}: {type(error).__name__}: {text}. {_RESUME}")
    return HubError(
        f"{where}: {destination.endpoint} gave an answer that huggingface_hub does not understand "
        f"({type(error).__name__}: {text}). Is HF_ENDPOINT the address of a Hub? {_RESUME}"
    )


def _rejected_card(said: str) -> DataError:
    return DataError(
        f"the Hub's validator rejects the card's front matter: {said.strip(' .')}.",
        Location(README),
        "Nothing of this push was committed. Correct what the dataset's description (dataset.json, `about`) says "
        "there, convert again, and push that.",
    )


def _answered(
    error: HfHubHTTPError, where: str, destination: Destination, token: str | None
) -> ConverterError:
    """The Hub's answer, in words; its own words are added, for it may know more."""
    status = error.response.status_code
    said = clean(error.server_message or "", token)
    if status == 400 and "validate-yaml" in error.response.request.url.path:
        return _rejected_card(said)
    namespace = destination.repo.split("/")[0]
    changed = (
        f"the repo was changed by somebody else in the meantime ({status}). Run the same command again: it "
        "shows what would be replaced, and goes on from there."
    )
    texts = {
        401: "the Hub does not accept the token (401): it is wrong or has expired. Make a new one with write "
        "access, and set HF_TOKEN or run `hf auth login`.",
        403: f"the token has no permission for this (403). It needs write access to repos of {namespace!r}.",
        404: f"not found (404). Either there is no namespace {namespace!r}, no repo or no revision "
        f"{destination.revision!r} of this name, or the token may not see it.",
        409: changed,
        412: changed,
        429: f"too many requests (429). {rate_limited(asked_wait(error.response))}",
    }
    if status in (402, 413, 507) or (status == 403 and _NO_SPACE.search(said)):
        text = f"the Hub has no room for this ({status}). {_MORE_SPACE}"
    elif status >= 500:
        text = f"the Hub has trouble of its own ({status}). Try later. {_RESUME}"
    else:
        text = texts.get(status, f"the Hub refused it ({status}).")
    added = f" The Hub says: {said.rstrip('.')}." if said else ""
    return HubError(f"{where}: {text}{added}")


def asked_wait(response: httpx2.Response) -> int | None:
    """For how many seconds the Hub asks to wait, in either way of saying it; None where it does not."""
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    wait = response.headers.get("retry-after", "").strip()
    return int(wait) if wait.isdigit() else None


def rate_limited(seconds: int | None) -> str:
    """What to do about a rate limit."""
    wait = "a while" if seconds is None else "1 second" if seconds == 1 else f"{seconds} seconds"
    return f"Wait {wait}, then run the same command again: it goes on from where it was."
