"""The way to the Hub: to its address alone, quietly, and never with the token in sight.

``huggingface_hub`` sends everything through one client, which anybody may replace. For the time of a push it is
the user's own client with a guard before each request.
"""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants, get_token, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    _http,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from huggingface_hub.utils import logging as hub_logging

from converters.errors import CallError
from converters.hub.destination import Destination
from converters.hub.failures import HubError, rate_limited

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_TIMEOUT_SECONDS = 300.0
_CONNECT_SECONDS = 30.0
# A longer wait is the user's to decide about.
_LONGEST_WAIT_SECONDS = 60
_TRIES = 5
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!-~]+")


def find_token() -> str:
    """The token, from ``HF_TOKEN`` or the login cache.

    Raises:
        CallError: there is none, or it cannot be one. The text does not hold it.
    """
    token = get_token()
    if not token:
        raise CallError(
            "there is no token. Make one with write access on the Hub's settings page and set HF_TOKEN, or run "
            "`hf auth login`. It is no argument, so that it ends up in no history. Nothing was sent."
        )
    if not _TOKEN.fullmatch(token):
        raise CallError(
            "what HF_TOKEN or the login cache holds is no token: it has characters that none has. Set HF_TOKEN "
            "again, or run `hf auth login`. Nothing was sent."
        )
    return token


@contextmanager
def hub_session(destination: Destination, *, bars: bool = False) -> Iterator[None]:
    """Within it, huggingface_hub reaches ``destination`` alone, logs nothing of its own, and waits with limits.

    ``bars`` lets it show how far an upload is.
    """
    factory = _http._GLOBAL_CLIENT_FACTORY  # there is no public way to learn what is set
    verbosity = hub_logging.get_verbosity()
    no_xet, no_telemetry = constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY

    def guarded() -> httpx2.Client:
        client = factory()
        client.timeout = httpx2.Timeout(_TIMEOUT_SECONDS, connect=_CONNECT_SECONDS)
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [_guard(destination), *hooks["request"]],
            "response": [*hooks["response"], _watch],
        }
        return client

    set_client_factory(guarded)
    hub_logging.set_verbosity(logging.CRITICAL)
    silenced = not bars and not are_progress_bars_disabled()
    if silenced:
        disable_progress_bars()
    constants.HF_HUB_DISABLE_TELEMETRY = True
    # Xet is a protocol of the official Hub's storage, at addresses of its own, spoken by a library that no guard of
    # ours sees. Other Hubs get the files at their own address by the large file protocol.
    constants.HF_HUB_DISABLE_XET = no_xet or not destination.official
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY = no_xet, no_telemetry
        if silenced:
            enable_progress_bars()
        hub_logging.set_verbosity(verbosity)
        set_client_factory(factory)


def patiently(call: Callable[[], _T]) -> _T:
    """The result of a request, made again after the wait that the Hub asks for when it limits the rate."""
    for last in [False] * (_TRIES - 1) + [True]:
        try:
            return call()
        except HfHubHTTPError as error:
            wait = str(error.response.headers.get("retry-after", ""))
            if last or error.response.status_code != 429 or not wait.isdigit():
                raise
            time.sleep(int(wait))
    raise AssertionError


def _guard(destination: Destination) -> Callable[[httpx2.Request], None]:
    home = _origin(destination.endpoint)

    def check(request: httpx2.Request) -> None:
        url = str(request.url)
        if _origin(url) != home:
            if not destination.official or request.url.scheme != "https":
                raise HubError(
                    f"{destination.repo}: {destination.endpoint} sends us to another address, "
                    f"{request.url.scheme}://{request.url.host}. Nothing was sent there: no request goes "
                    "anywhere but to the configured endpoint. If that address is right, set HF_ENDPOINT to a Hub that "
                    "keeps its files itself."
                )
            if "authorization" in request.headers:
                raise HubError(
                    f"{destination.repo}: a request with the token would have gone to {request.url.host}, which is not "
                    "the Hub. It was not sent."
                )
        _log.debug("%s %s%s", request.method, request.url.host, request.url.path)

    return check


def _watch(response: httpx2.Response) -> None:
    _log.debug("%s %s%s", response.status_code, response.request.url.host, response.request.url.path)
    if response.status_code == 429:
        wait = response.headers.get("retry-after", "")
        if wait.isdigit() and int(wait) > _LONGEST_WAIT_SECONDS:
            raise HubError(f"the Hub limits the rate of requests (429). {rate_limited(wait)}")
        _log.warning(
            "The Hub limits the rate of requests (429)%s.",
            f"; waiting {wait} seconds" if wait.isdigit() else "",
        )


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    return parts.scheme, "loopback" if host in _LOOPBACK else host, parts.port or _PORTS.get(parts.scheme)
