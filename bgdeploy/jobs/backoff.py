"""How long to wait before another try."""

from __future__ import annotations

import random

LONGEST = 3600.0


def delay(attempt: int, base: float, *, jitter: float | None = None) -> float:
    """Return seconds before try ``attempt`` + 1: base to the power of attempt, half of it by chance.

    The chance keeps customers that failed together from coming back together.
    """
    whole = min(LONGEST, base**attempt)
    return whole * (0.5 + 0.5 * (random.random() if jitter is None else jitter))
