"""Processes of this host that have the job table open, as the system tells it: for the doctor, who looks for strangers.

Who works is on record in the job table itself (``worker/presence``), for every host.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil


def find_open(table: Path) -> list[psutil.Process]:
    """Return the other processes of this host that have the job table open, as far as this user may see."""
    path = os.path.realpath(table)
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it ended meanwhile, or is another user's
            if one.pid != os.getpid() and any(file.path == path for file in one.open_files()):
                found.append(one)
    return found


def has_lost(process: psutil.Process, table: Path) -> bool:
    """True for a process whose open job table had this name once, and is another file than what lies there now."""
    path, here = os.path.realpath(table), os.stat(table)
    try:
        held = [
            os.stat(f"/proc/{process.pid}/fd/{file.fd}") for file in process.open_files() if file.path == path
        ]
    except (psutil.Error, OSError):
        return False  # it ended meanwhile, or this is no Linux
    return bool(held) and not any(os.path.samestat(one, here) for one in held)


def is_bgdeploy(words: list[str]) -> bool:
    """By the program, script or module that runs: a path among the arguments says nothing (``cp -r /srv/bgdeploy``)."""
    program = Path(words[0]).name if words else ""
    if not program.startswith("python"):
        return program == "bgdeploy"
    script = next((Path(word).name for word in words[1:] if not word.startswith("-")), "")
    modules = [after.split(".")[0] for word, after in pairwise(words) if word == "-m"]
    return "bgdeploy" in (script, *modules)
