"""Time: one injected clock, so that tests never wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import overload

Clock = Callable[[], float]  # seconds since 1970, UTC

wall: Clock = time.time
monotonic: Clock = time.monotonic  # spans inside one process; never stored


def since(start: float, now: float) -> float:
    """Return the seconds from one stored time to another; never below 0, whoever has set the clock back between."""
    return max(0.0, now - start)


@overload
def iso(seconds: float) -> str: ...
@overload
def iso(seconds: None) -> None: ...
def iso(seconds: float | None) -> str | None:
    """Return ``2026-01-31T12:00:00Z`` for seconds since 1970; None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
