"""Memory: how much this process may have, of the machine's and of its container's."""

from __future__ import annotations

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
