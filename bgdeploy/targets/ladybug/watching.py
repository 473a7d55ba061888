"""Watching: how far a COPY has read, as the engine prints it on standard output.

The engine has no other way to tell. It counts row groups it has begun to read, and builds the key's
index after the last one: a sign of life and a rough share, never a checkpoint.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TURN_ON = "CALL progress_bar=true"
_EVERY = 1.0  # seconds between two notes
_LAST = re.compile(rb"Pipelines Finished: (\d+)/|Progress: (\d+)%")


@contextmanager
def watched(tell: Callable[[float], None]) -> Iterator[None]:
    """Call ``tell`` each second, from a thread, with the share (0 to 1) of its rows that a statement has read."""
    reading, writing = os.pipe()
    kept = os.dup(1)
    os.dup2(writing, 1)
    os.close(writing)
    seen, over = _Seen(), threading.Event()
    threads = [
        threading.Thread(target=_read, args=(reading, seen), daemon=True),
        threading.Thread(target=_tell, args=(seen, over, tell), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        os.dup2(kept, 1)  # the last end for writing is closed by this, which ends the reader
        os.close(kept)
        over.set()
        for thread in threads:
            thread.join()
        os.close(reading)


class _Seen:
    share = 0.0


def _read(reading: int, seen: _Seen) -> None:
    text = b""
    while piece := os.read(reading, 65_536):
        text = (text + piece)[-4096:]
        seen.share = max(
            seen.share, _share(text)
        )  # the end of the first pipeline may have left the text by now


def _share(text: bytes) -> float:
    """What the last lines say; once its first pipeline is over a COPY has read everything."""
    share = 0.0
    for finished, percent in _LAST.findall(text):
        share = min(int(finished), 1) * 1.0 if finished else max(share == 1.0, int(percent) / 100)
    return share


def _tell(seen: _Seen, over: threading.Event, tell: Callable[[float], None]) -> None:
    while not over.wait(_EVERY):
        tell(seen.share)
