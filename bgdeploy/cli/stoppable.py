"""Stoppable: work inside an engine that Ctrl+C ends at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from bgdeploy.errors import ExitCode

Result = TypeVar("Result")


def stoppable(act: Callable[[], Result]) -> Result:
    """Return what it returns; Ctrl+C ends this process with its exit code, whatever the engine is doing.

    For work that only reads: nothing is closed. The engine hears of no signal while it makes
    one value, such as a long list, and its own interrupt was seen to be ignored as long.
    """
    from concurrent.futures import ThreadPoolExecutor  # late: other commands must not pay for it

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(act).result()
    except KeyboardInterrupt:
        os._exit(ExitCode.INTERRUPTED)
    finally:
        pool.shutdown(wait=False)
