"""Finding: what one look at an installation found, and the command or change that helps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from bgdeploy.plain import NOT_SHOWN

Verdict = Literal["ok", "warning", "error", "unknown"]
# What a check makes for a moment begins so; one that is killed may leave it.
SCRATCH = ".bgdeploy-doctor-"  # files and folders
TRIAL = "bgdeploy-doctor-"  # databases that rights are tried on


@dataclass(frozen=True)
class Finding:
    """One sentence about one thing.

    ``subject`` is the part of the installation it belongs to, filled in by whoever runs the check;
    ``what`` has the numbers; ``cure`` is empty where nothing needs to be done. ``is_command``: the cure begins with the
    command that is it; ``is_consequence``: it goes once another finding is mended.
    """

    subject: str
    verdict: Verdict
    what: str
    cure: str = ""
    is_command: bool = field(default=False, metadata=NOT_SHOWN)
    is_consequence: bool = field(default=False, metadata=NOT_SHOWN)


@dataclass(frozen=True)
class Check:
    """One look that stands on its own: it may fail or hang, and hides nothing that others find.

    ``title`` says what is looked at, for the case that no answer comes. A check that ``opens``
    something lets those that need it run only when all it found is ok. ``limit`` is in seconds;
    ``left`` says what a check that is given up on may leave behind.
    """

    subject: str
    title: str
    look: Callable[[], Iterable[Finding]]
    needs: tuple[str, ...] = ()
    opens: str = ""
    limit: float = 10.0
    left: str = ""


def ok(what: str) -> Finding:
    """All is well."""
    return Finding("", "ok", what)


def warning(what: str, cure: str, *, is_command: bool = False) -> Finding:
    """It works, and somebody should know."""
    return Finding("", "warning", what, cure, is_command)


def error(what: str, cure: str) -> Finding:
    """Something that should work does not."""
    return Finding("", "error", what, cure)


def unknown(what: str, cure: str = "") -> Finding:
    """It cannot be told, which is never the same as well."""
    return Finding("", "unknown", what, cure)


def shorten(found: list[Finding], rest: str, most: int = 5) -> list[Finding]:
    """Return the first few of many findings alike, and one that counts the rest and names where they are."""
    left = len(found) - most
    if left <= 0:
        return found
    return [*found[:most], Finding("", found[-1].verdict, f"and {left:,} more like these", rest)]


def many(count: int, noun: str) -> str:
    """Return ``1 job`` or ``2 jobs``, ``2 processes``."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"
