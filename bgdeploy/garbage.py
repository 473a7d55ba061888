"""Garbage: collected seldom while modules are imported, and by processes that load and end.

Both make many objects and hardly one to collect; a fifth of the time of a short command went into looking
through them again and again.
"""

from __future__ import annotations

import gc

_SELDOM = 200_000  # objects made between two looks
_USUAL = gc.get_threshold()


def put_off() -> None:
    """Look seldom from now on."""
    gc.set_threshold(_SELDOM)


def take_up() -> None:
    """Look as often as usual again, and never again through what is there now."""
    gc.freeze()
    gc.set_threshold(*_USUAL)
