"""What the job table stands on: file system, pace of the disk, and the SQLite that writes it."""

from __future__ import annotations

import sqlite3
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from bgdeploy.clock import monotonic
from bgdeploy.finding import SCRATCH, Check, Finding, error, ok, unknown, warning
from bgdeploy.service.doctor import disks

SUBJECT = "job table"
_COMMITS, _SLOW = 20, 0.05  # commits that are timed; seconds that are slow for one
_MENDED = (3, 51, 3)  # folding the log in twice at once can damage a file before this SQLite


def checks(path: Path) -> list[Check]:
    """What is looked at below the job table's file, also where there is none yet."""
    return [
        Check(SUBJECT, "file system", partial(find_kind, path)),
        Check(SUBJECT, "time of a commit", partial(find_pace, path.parent)),
        Check(SUBJECT, "SQLite", lambda: [judge_library(sqlite3.sqlite_version_info)]),
    ]


def find_kind(path: Path) -> Iterator[Finding]:
    """What the kernel says of the disk under the file."""
    kind = disks.read_kind(path)
    yield judge_kind(kind, path) if kind else unknown(f"the kernel does not tell what {path} lies on")


def judge_kind(kind: str, path: Path) -> Finding:
    """SQLite's log needs locks and memory that all its users share, so all of them on one host."""
    place = "Put it on a disk of this host: database_url or state_dir."
    if disks.is_shared(kind):
        return error(f"{path} lies on {kind}, where SQLite's write-ahead log is not safe", place)
    if end := disks.find_end(kind):
        return warning(f"{path} lies on {kind}, which {end}", place)
    return ok(f"{path} lies on {kind}")


def find_pace(folder: Path) -> Iterator[Finding]:
    """How long a commit takes on this disk, measured in a scratch file beside the job table."""
    if not folder.is_dir():
        yield unknown(
            f"the time of a commit cannot be measured: {folder} does not exist yet", "bgdeploy init"
        )
        return
    try:
        yield judge_pace(time_commits(folder))
    except (OSError, sqlite3.Error) as failure:
        yield error(
            f"{folder} takes no commit: {failure}", "Make room, or check owner and rights of the folder."
        )


def time_commits(folder: Path) -> list[float]:
    """Return the seconds that each of some small durable commits took; what was written is removed."""
    took = []
    with (
        tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder) as scratch,
        closing(sqlite3.connect(Path(scratch) / "probe.db", isolation_level=None)) as probe,
    ):
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            probe.execute(f"PRAGMA {pragma}").fetchall()
        probe.execute("CREATE TABLE probe (number)")
        for number in range(_COMMITS):
            began = monotonic()
            probe.execute("INSERT INTO probe VALUES (?)", (number,))
            took.append(monotonic() - began)
    return took


def judge_pace(took: Sequence[float]) -> Finding:
    """A load commits a few times a group, so only a very slow disk matters."""
    median, worst = statistics.median(took), max(took)
    what = (
        f"a durable commit takes {median * 1000:.1f} ms (the slowest of {len(took)}: {worst * 1000:.1f} ms)"
    )
    if median <= _SLOW:
        return ok(what)
    return warning(
        f"{what}, {_SLOW * 1000:.0f} ms is slow", "Put the job table on a faster disk: database_url."
    )


def judge_library(version: tuple[int, ...]) -> Finding:
    """The library that Python brings along."""
    shown = ".".join(map(str, version))
    if version >= _MENDED:
        return ok(f"SQLite is {shown}")
    what = (
        f"SQLite is {shown}; before 3.51.3 it can, very rarely, damage a file when two connections fold its "
        "write-ahead log in at the same moment (the WAL-reset bug)"
    )
    return warning(
        what, "Use a Python linked with SQLite 3.51.3 or newer; until then keep copies of the job table."
    )
