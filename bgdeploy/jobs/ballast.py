"""A reserve on the disk of the job table, given up so that an ending can still be written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bgdeploy import log
from bgdeploy.errors import StoreFull

Result = TypeVar("Result")

SIZE = 16 * 2**20  # bytes
PLENTY = 4 * SIZE  # free bytes beside it before it is made again


def keep_ballast(folder: Path) -> None:
    """Make the reserve where it is missing and there is plenty of room."""
    path = folder / "ballast"
    if path.exists() or shutil.disk_usage(folder).free < PLENTY:
        return
    aside = folder / f".ballast.{os.getpid()}"
    with open(aside, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, SIZE)
    os.replace(aside, path)


def free_ballast(folder: Path) -> bool:
    """Give the reserve up; False when it was given up before."""
    try:
        (folder / "ballast").unlink()
    except FileNotFoundError:
        return False
    return True


def with_reserve(folder: Path, act: Callable[[], Result]) -> Result:
    """Act, and where the disk is full give the reserve up and act once more; for acts that failed whole."""
    try:
        return act()
    except StoreFull:
        if not free_ballast(folder):
            raise
    log.emit("store.full")
    return act()
