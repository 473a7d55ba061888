"""Memory: how much this process may have, of the machine's and of its container's.

Both make many objects and hardly one to collect; a fifth of the time of a short command went into looking
through them again and again.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")


def find_free() -> int:
    """Return the bytes that may still be taken: what the machine has to spare, and no more than the container's limit."""
    machine = psutil.virtual_memory()
    return min(machine.available, find_whole(machine.total))


def find_whole(machine: int, groups: Path = GROUPS, mine: Path = Path("/proc/self/cgroup")) -> int:
    """Return the bytes of memory this process may ever have: the machine's, or its control group's limit."""
    found = [machine]
    for line in mine.read_text(encoding="ascii").splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            found += _read_limits(groups, path, "memory.max")
        elif kinds == "memory":
            found += _read_limits(groups / "memory", path, "memory.limit_in_bytes")
    return min(found)


def _read_limits(root: Path, path: str, name: str) -> Iterator[int]:
    """The limit of a group and of every group above it; ``max`` is none."""
    place = root / path.lstrip("/")
    for folder in (place, *place.parents):
        if not folder.is_relative_to(root):
            return
        try:
            yield int((folder / name).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue


# Garbage: collected seldom while modules are imported, and by processes that load and end.

_SELDOM = 200_000  # objects made between two looks
_USUAL = gc.get_threshold()


def put_off() -> None:
    """Look seldom from now on."""
    gc.set_threshold(_SELDOM)


def take_up() -> None:
    """Look as often as usual again, and never again through what is there now."""
    gc.freeze()
    gc.set_threshold(*_USUAL)
