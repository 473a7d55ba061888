"""Aliases: one statement moves one, and a look before and after tells whose move it was.

The server knows no fence. So each move writes its generation beside the target, in the alias's own
properties and by the same statement; a mover that finds a newer one there gives up. What slips
through between its look and its statement is found by the next scan, by that same number.

The move of the alias is what counts. So what is still to be protected is noted beside the build, with
what the server said, before the move; it is taken up again at each scan.

A read-only database whose server crashed may not come back: it may not rebuild an index that was not on
disk yet. So nothing is made read-only before a checkpoint, and what is down all the same is healed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgdeploy.actions import Hint, do
from bgdeploy.clock import wall
from bgdeploy.errors import BgdeployError, Refused, StaleGeneration, TargetAway, TargetError
from bgdeploy.targets.neo4j import databases
from bgdeploy.targets.neo4j.access import EditionLacks, Server
from bgdeploy.targets.neo4j.databases import Found, look, no_such

SHOW = "SHOW ALIASES FOR DATABASE YIELD name, composite, database, location, properties"
SHOW_ONE = f"{SHOW} WHERE name = $alias"
CREATE = "CREATE ALIAS $alias IF NOT EXISTS FOR DATABASE $database PROPERTIES {bgdeploy: $generation}"
ALTER = "ALTER ALIAS $alias SET DATABASE TARGET $database PROPERTIES {bgdeploy: $generation}"
DROP = "DROP ALIAS $alias IF EXISTS FOR DATABASE"
_MARK = "bgdeploy"


@dataclass(frozen=True)
class Alias:
    """One alias as the server tells of it; ``generation`` is None where bgdeploy did not make it."""

    name: str
    database: str
    generation: int | None
    local: bool = True


def list_aliases(server: Server) -> list[Alias]:
    """All aliases of the server; none on an edition that has no aliases."""
    try:
        return [_alias(row) for row in server.ask(SHOW, "Listing the aliases")]
    except EditionLacks:
        return []


def _alias(row: dict[str, Any]) -> Alias:
    mark = (row["properties"] or {}).get(_MARK)
    generation = mark if isinstance(mark, int) else None
    local = row["location"] == "local" and row["composite"] is None
    return Alias(str(row["name"]), str(row["database"]), generation, local)


def find_alias(server: Server, name: str) -> Alias | None:
    """The alias of this name; None too on an edition that has no aliases."""
    try:
        rows = server.ask(SHOW_ONE, f"Looking at the alias {name}", alias=name)
    except EditionLacks:
        return None
    return next((_alias(row) for row in rows), None)


def move_alias(server: Server, name: str, database: str, generation: int) -> None:
    """Point an alias at a database that is online everywhere.

    Raises StaleGeneration for an older wish, Refused for an alias that bgdeploy did not make, and
    TargetError where the server says something else afterwards.
    """
    _check_database(server, name, database)
    before = find_alias(server, name)
    if before is not None:
        _check_alias(before, generation)
    doing = f"Moving the alias {name} to {database}"
    given = {"alias": name, "database": database, "generation": generation}
    server.ask(CREATE if before is None else ALTER, doing, **given)
    after = find_alias(server, name)
    if after is None or after.database != database:
        raise TargetError(
            f"The alias {name} points at {after.database if after else 'nothing'} after it was moved "
            f"to {database}.",
            cure=Hint("See: ", do("customers")),
        )


def remove_alias(server: Server, name: str, generation: int) -> None:
    """Drop an alias that bgdeploy made; raises as ``move_alias`` does."""
    found = find_alias(server, name)
    if found is not None:
        _check_alias(found, generation)
        server.ask(DROP, f"Dropping the alias {name}", alias=name)


def _check_database(server: Server, name: str, database: str) -> None:
    found = look(server, database)
    if found.verdict == "absent":
        raise no_such(database)
    if found.verdict != "online":
        what = f"{database} cannot be read now: {found.text}."
        raise TargetError(what, kept=f"{name} stays where it is.", cure="It is tried again by itself.")
    if look(server, name).verdict != "absent":
        raise Refused(
            f"{name} is a database that bgdeploy did not make, so no alias can have that name.",
            kept="It was not touched.",
            cure="Rename the customer's folder, or that database.",
        )


def _check_alias(found: Alias, generation: int) -> None:
    if not found.local or found.generation is None:
        raise Refused(
            f"The alias {found.name} was not made by bgdeploy; it points at {found.database}.",
            kept="It was not touched.",
            # It stays where it is, without a gap for readers, and carries our mark from then on.
            cure="To let bgdeploy move it from now on, an administrator runs: "
            f"ALTER ALIAS `{found.name}` SET DATABASE TARGET `{found.database}` PROPERTIES {{{_MARK}: 0}}. "
            "Else rename the customer's folder.",
        )
    if generation < found.generation:
        raise StaleGeneration(
            f"The alias {found.name} was moved with generation {found.generation} already; "
            f"{generation} is older.",
            kept="It stays where it is.",
        )


# Standbys: a database that the alias left is made read-only, at once or whenever that works.

_NOTE = "to-protect"
_STOPPED = "stopped"  # we stopped it, and mean to start it again
_HEALING = "healing"  # we made it writable, so that it can start
_HEAL_AGAIN = 600.0  # seconds before one that did not start is tried again


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


def protect(server: Server, builds: Path, live: Callable[[], Collection[str]]) -> None:
    """Make read-only what is owed, but nothing that an alias points at; what cannot be done stays owed.

    ``live`` tells what aliases point at. It is asked again before each step, since one standby may take minutes, and
    a move in another process may lead to the next.
    """
    for database in owed(builds):
        _protect(server, builds, database, live)


def _protect(server: Server, builds: Path, database: str, live: Callable[[], Collection[str]]) -> None:
    note = builds / database / _NOTE

    def unwanted() -> bool:
        return not note.exists() or database in live()

    try:
        if unwanted():
            return
        start_again(server, builds, database)
        found = databases.look(server, database)
        if found.verdict == "online" and found.access != "read-only":
            databases.make_durable(server, database, builds / database / _STOPPED, live=unwanted)
            if unwanted():
                return
            databases.set_access(server, database, read_only=True)
        elif found.verdict not in ("online", "absent"):
            raise TargetAway(f"{database} cannot be made read-only now: {found.text}.")
    except BgdeployError as error:
        _owe_still(note, error)
    else:
        note.unlink(missing_ok=True)
        with suppress(OSError):  # a build's own files are in it
            note.parent.rmdir()


def _owe_still(note: Path, error: BgdeployError) -> None:
    """Keep why it failed in the note, and make none: one that is gone was forgiven, since an alias moved there."""
    with suppress(OSError), note.open("r+", encoding="utf-8") as kept:  # the disk may be full: it stays owed
        kept.truncate()
        kept.write(error.what)


def make_read_only(server: Server, builds: Path, found: Found, *, live: Callable[[], bool]) -> None:
    """Protect a database that is online, once a crash of its server cannot keep it from starting."""
    if found.access != "read-only":
        databases.make_durable(server, found.name, builds / found.name / _STOPPED, live=live)
        databases.set_access(server, found.name, read_only=True)


def start_again(server: Server, builds: Path, database: str) -> None:
    """Start a database that an earlier run stopped for its checkpoint."""
    databases.start_again(server, database, builds / database / _STOPPED)


def find_down(builds: Path, there: Collection[Found]) -> list[Found]:
    """What does not start on some member, or on none, and is read-only, or was when its healing began."""
    return [
        one
        for one in there
        if one.verdict == "stuck"
        and (one.access == "read-only" or _is_healing(builds / one.name / _HEALING))
        and all(row["currentStatus"] in ("offline", "online") for row in one.rows)  # nothing worse
        and any(row["requestedStatus"] == "online" for row in one.rows)
    ]


def _is_healing(note: Path) -> bool:
    """Begun and cut off; or, where the note holds what the server said to it, failed some time ago."""
    try:
        found = note.stat()
    except FileNotFoundError:
        return False
    return found.st_size == 0 or wall() - found.st_mtime > _HEAL_AGAIN


def heal(server: Server, builds: Path, down: Found, *, live: Callable[[], bool]) -> None:
    """Start a database that is down since it is read-only, and protect it again, now or when that works.

    For one that no member has online, since it is stopped on all of them. Raises TargetError, with the server's words,
    where it does not start though it may be written, TargetAway where a member has it by now.
    """
    note = builds / down.name / _HEALING
    with _translated(builds):
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text("")
        (note.parent / _NOTE).touch()
    databases.set_access(server, down.name, read_only=False)
    if (found := databases.look(server, down.name)).serving:  # a member has come back meanwhile
        raise TargetAway(f"{down.name} is not stopped while readers may use it: {found.text}.")
    try:
        databases.restart(server, down.name)
    except TargetError as error:
        _owe_still(note, error)
        raise
    note.unlink(missing_ok=True)
    try:
        make_read_only(server, builds, databases.look(server, down.name), live=live)
    except BgdeployError as error:
        _owe_still(note.parent / _NOTE, error)
    else:
        forgive(builds, down.name)
