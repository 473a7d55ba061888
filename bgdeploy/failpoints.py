"""Named moments at which a test may kill, stop or fail a process; inert in production.

``BGDEPLOY_FAILPOINT=name:count:action`` acts the ``count``-th time ``name`` is reached. Actions:
``kill`` (SIGKILL to itself), ``stop`` (SIGSTOP), ``fail`` (raises OSError), ``full`` (raises
OSError with ENOSPC). ``BGDEPLOY_FAILPOINT_QUIET`` names a SQLite file that a ``stop`` leaves unlocked.
"""

from __future__ import annotations

import errno
import os
import signal
import threading

_hits: dict[str, int] = {}


def reach(name: str) -> None:
    """Do what the environment asks for at this moment, which is nothing outside of tests."""
    asked = os.environ.get("BGDEPLOY_FAILPOINT")
    if not asked:
        return
    wanted, count, action = asked.split(":")
    if wanted != name:
        return
    _hits[name] = _hits.get(name, 0) + 1
    if _hits[name] == int(count):
        _act(action)


def _act(action: str) -> None:
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            _stop(os.environ.get("BGDEPLOY_FAILPOINT_QUIET"))
        case "full":
            raise OSError(errno.ENOSPC, "No space left on device (failpoint)")
        case _:
            raise OSError(errno.EIO, "failpoint")


def _stop(table: str | None) -> None:
    """Stop the whole process, at a moment when none of its threads is in a write to ``table``.

    A thread that was stopped in one would keep the lock, and nobody else could do what the test is about.
    """
    import sqlite3

    quiet = (
        sqlite3.connect(f"file:{table}?mode=rw", uri=True, timeout=5, isolation_level=None) if table else None
    )
    if quiet is not None:
        quiet.execute("BEGIN IMMEDIATE")
        quiet.execute("ROLLBACK")
    # To this very thread: another one could take the signal a little later.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    if quiet is not None:
        quiet.close()
