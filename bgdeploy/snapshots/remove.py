"""Remove: a folder with all that is in it, without following a link, in any number of steps."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress


def remove_tree(name: str, home: int, go_on: Callable[[], bool]) -> bool:
    """Remove the folder ``name`` in the open folder ``home``; False where ``go_on`` said no before the end.

    What is left is removed by another call. Links are removed themselves, never what they lead to; what
    another process removes meanwhile is no error.
    """
    for _, folders, files, handle in os.fwalk(name, topdown=False, follow_symlinks=False, dir_fd=home):
        for file in files:
            if not go_on():
                return False
            with suppress(FileNotFoundError):
                os.unlink(file, dir_fd=handle)
        for folder in folders:
            _remove(folder, handle)
    _remove(name, home)
    return True


def _remove(name: str, home: int) -> None:
    with suppress(FileNotFoundError):
        is_link = stat.S_ISLNK(os.stat(name, dir_fd=home, follow_symlinks=False).st_mode)
        (os.unlink if is_link else os.rmdir)(name, dir_fd=home)
