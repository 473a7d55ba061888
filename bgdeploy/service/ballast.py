"""A reserve on the disk of the job table, given up so that an ending can still be written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

SIZE = 16 * 2**20  # bytes
_PLENTY = 4 * SIZE  # free bytes beside it before it is made again


def keep_ballast(state_dir: Path) -> None:
    """Make the reserve where it is missing and there is plenty of room."""
    path = state_dir / "ballast"
    if path.exists() or shutil.disk_usage(state_dir).free < _PLENTY:
        return
    aside = state_dir / f".ballast.{os.getpid()}"
    with open(aside, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, SIZE)
    os.replace(aside, path)


def free_ballast(state_dir: Path) -> bool:
    """Give the reserve up; False when it was given up before."""
    try:
        (state_dir / "ballast").unlink()
    except FileNotFoundError:
        return False
    return True
