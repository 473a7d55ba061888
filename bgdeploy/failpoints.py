"""Named moments at which a test may kill, stop or fail a process; inert in production.

``BGDEPLOY_FAILPOINT=name:count:action`` acts the ``count``-th time ``name`` is reached. Actions:
``kill`` (SIGKILL to itself), ``stop`` (SIGSTOP), ``fail`` (raises OSError), ``full`` (raises
OSError with ENOSPC).
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
            # To this very thread: another one could take the signal a little later.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        case "full":
            raise OSError(errno.ENOSPC, "No space left on device (failpoint)")
        case _:
            raise OSError(errno.EIO, "failpoint")
