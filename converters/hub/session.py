"""The way to the Hub: to its address alone, quietly, and never with the token in sight.

``huggingface_hub`` sends everything through one client. For the time of a push it has a guard before each request,
and a watch on its connections, so that Ctrl-C can cut them.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakSet

import httpx2
from huggingface_hub import constants, get_session, get_token, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
from huggingface_hub.utils import logging as hub_logging

from converters.errors import CallError
from converters.hub.destination import Destination
from converters.hub.failures import HubError, asked_wait, clean, rate_limited

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_TIMEOUT_SECONDS = 300.0
_CONNECT_SECONDS = 30.0
# A longer wait is the user's to decide about.
_LONGEST_WAIT_SECONDS = 60
_WAITS_SECONDS = (1, 2, 4, 8)
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_CUT_SECONDS = 10.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!-~]+")


def find_token() -> str:
    """The token, from ``HF_TOKEN`` or the login cache.

    To be called in a :func:`hub_session`: huggingface_hub may have the Hub renew a token that has expired.

    Raises:
        CallError: there is none, or it cannot be one. The text does not hold it.
    """
    try:
        token = get_token()
    except HubError:
        raise
    except Exception as error:  # noqa: BLE001  # a file that is none, a renewal that fails; its text may hold the token
        raise CallError(
            f"the token cannot be read ({type(error).__name__}). Set HF_TOKEN, or run `hf auth login` again. Nothing "
            "was sent."
        ) from None
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


class Unreachable(httpx2.TransportError):
    """No connection could be opened. Unlike httpx2's own error, it has huggingface_hub neither wait nor reconnect."""


class HubSession:
    """The connections of a push, so that Ctrl-C can cut them; :func:`hub_session` makes one."""

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def follow(self, request: httpx2.Request) -> None:
        """Remember the connection that a request opens; none goes out any more after :meth:`cut`."""
        if self._stopped.is_set():
            raise HubError("interrupted.")
        request.extensions["trace"] = self._traced

    def cut(self) -> None:
        """End all requests that are under way, also where another thread waits for one."""
        self._stopped.set()
        with self._lock:
            open_ones = list(self._sockets)
        for connection in open_ones:
            with suppress(OSError):
                # Not the method of an encrypted one, which takes its encryption off first.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def interruptible(self, call: Callable[[], _T]) -> _T:
        """The result of an upload, which Ctrl-C ends.

        By the large file protocol huggingface_hub sends files in threads and, interrupted, waits until each of them
        is through. Xet's uploads it ends itself.
        """
        if not constants.HF_HUB_DISABLE_XET and importlib.util.find_spec("hf_xet"):
            return call()
        done: Future[_T] = Future()

        def run() -> None:
            try:
                done.set_result(call())
            except BaseException as error:  # noqa: BLE001  # is raised below
                done.set_exception(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            return done.result()
        except KeyboardInterrupt:
            self.cut()
            thread.join(_CUT_SECONDS)
            raise

    def _traced(self, event: str, info: Mapping[str, Any]) -> None:
        """What httpx2 tells of a request's connection."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            with self._lock:
                self._sockets.add(info["return_value"].get_extra_info("socket"))
            if self._stopped.is_set():
                self.cut()
        failed = event.endswith(("connect_tcp.failed", "start_tls.failed"))
        if failed and isinstance(error := info["exception"], Exception):
            # At httpx2's own ConnectError huggingface_hub makes a new client, which would have no guard.
            raise Unreachable(str(error)) from None


@contextmanager
def hub_session(destination: Destination, *, bars: bool = False) -> Iterator[HubSession]:
    """Within it, huggingface_hub reaches ``destination`` alone, logs nothing of its own, and waits with limits.

    Its client is the one that all of this process shares, with the user's own proxies and certificates; it is given
    back as it was. ``bars`` lets huggingface_hub show how far an upload is.
    """
    session = HubSession()
    client = get_session()
    hooks, timeout = client.event_hooks, client.timeout
    verbosity = hub_logging.get_verbosity()
    no_xet, no_telemetry = constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY
    client.event_hooks = {
        "request": [_guard(destination), *hooks["request"], session.follow],
        "response": [*hooks["response"], _watch],
    }
    client.timeout = httpx2.Timeout(_TIMEOUT_SECONDS, connect=_CONNECT_SECONDS)
    hub_logging.set_verbosity(logging.CRITICAL)
    constants.HF_HUB_DISABLE_TELEMETRY = True
    # Xet is a protocol of the official Hub's storage, at addresses of its own, spoken by a library that no guard of
    # ours sees. Other Hubs get the files at their own address by the large file protocol.
    constants.HF_HUB_DISABLE_XET = no_xet or not destination.official
    try:
        with warnings.catch_warnings(action="ignore"), nullcontext() if bars else disable_progress_bars():
            yield session
    finally:
        constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY = no_xet, no_telemetry
        hub_logging.set_verbosity(verbosity)
        client.event_hooks, client.timeout = hooks, timeout


def retried(call: Callable[..., _T], *arguments: Any, twice: bool = True, **options: Any) -> _T:  # noqa: ANN401  # of the call
    """The result of a request, made again after a rate limit, and where it may be made ``twice`` after a passing fault.

    A Hub that is not there at all is no passing fault.
    """
    for pause in _WAITS_SECONDS:
        try:
            return call(*arguments, **options)
        except HfHubHTTPError as error:
            status, wait = error.response.status_code, asked_wait(error.response)
            if status not in _TRANSIENT or not (twice or (status == 429 and wait is not None)):
                raise
            time.sleep(pause if wait is None else wait)
        except httpx2.TransportError as error:
            if isinstance(error, Unreachable) or not twice:
                raise
            time.sleep(pause)
    return call(*arguments, **options)


def _guard(destination: Destination) -> Callable[[httpx2.Request], None]:
    home = _origin(destination.endpoint)

    def check(request: httpx2.Request) -> None:
        url = str(request.url)
        if _origin(url) != home:
            if not destination.official or request.url.scheme != "https":
                address = clean(f"{request.url.scheme}://{request.url.host}", _token_of(request))
                raise HubError(
                    f"{destination.repo}: {destination.endpoint} sends us to another address, "
                    f"{address}. Nothing was sent there: no request goes "
                    "anywhere but to the configured endpoint. If that address is right, set HF_ENDPOINT to a Hub that "
                    "keeps its files itself."
                )
            if "authorization" in request.headers:
                raise HubError(
                    f"{destination.repo}: a request with the token would have gone to {request.url.host}, which is not "
                    "the Hub. It was not sent."
                )
        _log.debug("%s %s", request.method, _shown(request))

    return check


def _watch(response: httpx2.Response) -> None:
    _log.debug("%s %s", response.status_code, _shown(response.request))
    if response.status_code == 429:
        wait = asked_wait(response)
        if wait is not None and wait > _LONGEST_WAIT_SECONDS:
            raise HubError(f"the Hub limits the rate of requests (429). {rate_limited(wait)}")
        _log.warning(
            "The Hub limits the rate of requests (429)%s.",
            "" if wait is None else f"; waiting {wait} seconds",
        )
    if response.status_code > 400 and response.request.url.path.endswith("/api/validate-yaml"):
        # huggingface_hub takes this answer for JSON before it looks at the status.
        response.read()
        hf_raise_for_status(response)


def _shown(request: httpx2.Request) -> str:
    """Where a request goes, without its query, and without the token, should the Hub have put it into a path."""
    return clean(f"{request.url.host}{request.url.path}", _token_of(request))


def _token_of(request: httpx2.Request) -> str:
    return str(request.headers.get("authorization", "")).removeprefix("Bearer ")


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    return parts.scheme, "loopback" if host in _LOOPBACK else host, parts.port or _PORTS.get(parts.scheme)
