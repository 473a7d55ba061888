"""Standbys: a database that the alias left is made read-only, at once or whenever that works.

The move of the alias is what counts. So what is still to be protected is noted beside the build, with
what the server said, before the move; it is taken up again at each scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bgdeploy.errors import BgdeployError, TargetAway, TargetError
from bgdeploy.targets.neo4j import databases
from bgdeploy.targets.neo4j.access import Server

_NOTE = "to-protect"


def owe(builds: Path, database: str) -> None:
    """Note that a database is to be made read-only once no alias points at it."""
    with _translated(builds):
        (builds / database).mkdir(parents=True, exist_ok=True)
        (builds / database / _NOTE).touch()


def forgive(builds: Path, database: str) -> None:
    """Nothing is owed any more to a database that an alias is about to point at."""
    with _translated(builds):
        (builds / database / _NOTE).unlink(missing_ok=True)


@contextmanager
def _translated(builds: Path) -> Iterator[None]:
    """Whatever the system refuses is told before the alias moves, so that the wish is taken back."""
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"{error.filename or builds} cannot be written: {error.strerror or error}.",
            kept="No alias was moved.",
            cure=f"Check owner, rights and room of {builds}.",
        ) from error


def owed(builds: Path) -> dict[str, str]:
    """What is still to be protected, with what the server said when it was tried last."""
    return {note.parent.name: _read(note) for note in sorted(builds.glob(f"*/{_NOTE}"))}


def _read(note: Path) -> str:
    try:
        return note.read_text(encoding="utf-8")
    except FileNotFoundError:  # somebody else was quicker
        return ""


def protect(server: Server, builds: Path, *, live: Sequence[str]) -> None:
    """Make read-only what is owed, but nothing that an alias points at; what cannot be done stays owed."""
    for database in owed(builds):
        if database not in live:
            _protect(server, builds / database / _NOTE, database)


def _protect(server: Server, note: Path, database: str) -> None:
    try:
        found = databases.look(server, database)
        if found.verdict == "online":
            databases.set_access(server, database, read_only=True)
        elif found.verdict != "absent":
            raise TargetAway(f"{database} cannot be made read-only now: {found.text}.")
    except BgdeployError as error:
        with suppress(OSError):  # whoever dropped it was quicker, or the disk is full: it stays owed
            note.write_text(error.what, encoding="utf-8")
    else:
        note.unlink(missing_ok=True)
        with suppress(OSError):  # a build's own files are in it
            note.parent.rmdir()
