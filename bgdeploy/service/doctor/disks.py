"""Disks: what kind of file system a place lies on, as the kernel tells it; pure functions."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
# Their locks or their shared memory reach one host at a time, or nobody.
_SHARED = ("nfs", "cifs", "smb", "fuse", "9p", "afs", "ceph", "gluster", "lustre", "vboxsf", "virtiofs")
_FLEETING = {
    "tmpfs": "lies in memory and is gone after a restart of the machine",
    "ramfs": "lies in memory and is gone after a restart of the machine",
    "overlay": "is a container's own layer and goes with the container",
}


def find_kind(mounts: str, place: str) -> str:
    """Return the kind of file system under an absolute path, given the text of ``mountinfo``.

    The longest mount point above it counts, and of several on one point the last; empty where
    nothing fits.
    """
    found = ("", "")
    for line in mounts.splitlines():
        front, _, back = line.partition(" - ")
        fields, behind = front.split(), back.split()
        if len(fields) < 5 or not behind:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        if _is_above(point, place) and len(point) >= len(found[0]):
            found = (point, behind[0])
    return found[1]


def _is_above(point: str, place: str) -> bool:
    return point == "/" or place == point or place.startswith(f"{point}/")


def is_shared(kind: str) -> bool:
    """True for a file system that several hosts see, or that a program stands behind."""
    return kind.startswith(_SHARED)


def find_end(kind: str) -> str | None:
    """How a file system of this kind comes to its end by itself, or None."""
    return _FLEETING.get(kind)


def read_kind(place: Path) -> str:
    """The kind under a place, or under the nearest folder above it that exists; raises OSError."""
    return find_kind(MOUNTS.read_text(encoding="utf-8", errors="replace"), os.path.realpath(place))
