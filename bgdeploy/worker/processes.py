"""Processes of this host that have the job table open, as the system tells it: for the doctor, who looks for strangers.

Who works is on record in the job table itself (``worker/presence``), for every host.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil

WORKS = ("serve", "work", "run")  # load, switch and clean
_TAKE_A_VALUE = ("--config", "-c", "--set")  # options before the command


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


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def is_bgdeploy(words: list[str]) -> bool:
    """By the program, script or module that runs: a path among the arguments says nothing (``cp -r /srv/bgdeploy``)."""
    program = Path(words[0]).name if words else ""
    if not program.startswith("python"):
        return program == "bgdeploy"
    script = next((Path(word).name for word in words[1:] if not word.startswith("-")), "")
    modules = [after.split(".")[0] for word, after in pairwise(words) if word == "-m"]
    return "bgdeploy" in (script, *modules)


def find_command(words: list[str]) -> str | None:
    """Return the command of a bgdeploy that runs, such as ``serve``; None for every other program."""
    if not is_bgdeploy(words):
        return None
    at = next((place for place, word in enumerate(words) if Path(word).name == "bgdeploy"), len(words))
    after = words[at + 1 :]  # the first word that is no option and no option's value
    return next(
        (
            word
            for last, word in zip(["", *after], after, strict=False)
            if not word.startswith("-") and last not in _TAKE_A_VALUE
        ),
        None,
    )


def count_workers(processes: Iterable[psutil.Process], configured: int) -> tuple[int, int]:
    """Return how many processes load, and how many workers they have together.

    What a command line does not say, the configuration says.
    """
    lines = [words for words in map(_words, processes) if find_command(words) in WORKS]
    asked = [re.search(r" (?:--workers[= ]|-w ?)(\d+)", " ".join(words)) for words in lines]
    return len(lines), sum(int(found[1]) if found else configured for found in asked)
