"""Durable: what was written survives a power cut, files first, then the folders that name them; and private files."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

PRIVATE = 0o600  # nobody else may read it, or hold a lock on it


def sync(path: Path) -> None:
    """Make a file's content, or a folder's list of names, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, text: str) -> None:
    """Replace a small file in one step."""
    aside = path.with_name(path.name + ".new")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync(path.parent)


def make_private(path: Path) -> None:
    """Make a file that only its owner may open, or close one of ours to all others; one of another owner stays."""
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
    keep_private(path)


def keep_private(path: Path) -> None:
    """Close a file of ours to all others, where there is one."""
    with suppress(OSError):  # another's, or on a disk that knows no rights: the doctor tells
        if is_open_to_others(path):
            path.chmod(PRIVATE)


def is_open_to_others(path: Path) -> bool:
    """True for a file that is there and that others may read, write to or lock."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except FileNotFoundError:
        return False
