"""Aliases: one statement moves one, and a look before and after tells whose move it was.

The server knows no fence. So each move writes its generation beside the target, in the alias's own
properties and by the same statement; a mover that finds a newer one there gives up. What slips
through between its look and its statement is found by the next scan, by that same number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bgdeploy.errors import Refused, StaleGeneration, TargetError
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.databases import look, no_such
from bgdeploy.targets.neo4j.refusals import EditionLacks

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
            cure="See: bgdeploy customers",
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
