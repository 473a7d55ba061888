"""Login: the password once, then the token that the server answers with, for as long as it is good."""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from pyarrow import flight

from bgdeploy.clock import monotonic
from bgdeploy.targets.neo4j.access import Access

_TOKEN = 300.0  # seconds a token is used; the official client holds on to it for 600
_HEADER = "authorization"


class Login:
    """What a call says of who makes it; may be used from several threads."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._token: str | None = None
        self._since = 0.0

    def header(self) -> tuple[bytes, bytes]:
        """The token while it is fresh, else user and password as they are now; raises ConfigError."""
        with self._lock:
            if self._token is not None and monotonic() - self._since < _TOKEN:
                return _HEADER.encode(), f"Bearer {self._token}".encode()
        pair = f"{self._access.user}:{self._access.secret()}".encode()
        return _HEADER.encode(), b"Basic " + base64.b64encode(pair)

    def forget(self) -> None:
        """Show the password again at the next call."""
        with self._lock:
            self._token = None

    def hear(self, headers: Mapping[str, Sequence[str]]) -> None:
        """Keep the token that an answer may bring."""
        for value in headers.get(_HEADER, ()):
            kind, _, token = value.partition(" ")
            if kind == "Bearer" and token:
                with self._lock:
                    self._token, self._since = token, monotonic()


class Listening(flight.ClientMiddlewareFactory):  # type: ignore[misc]
    """Lets a login hear what comes back from each call."""

    def __init__(self, login: Login) -> None:
        super().__init__()
        self._login = login

    def start_call(self, info: Any) -> _Ear:
        """One for each call."""
        return _Ear(self._login)


class _Ear(flight.ClientMiddleware):  # type: ignore[misc]
    def __init__(self, login: Login) -> None:
        super().__init__()
        self._login = login

    def sending_headers(self) -> dict[str, str]:
        return {}

    def received_headers(self, headers: Mapping[str, Sequence[str]]) -> None:
        self._login.hear(headers)
