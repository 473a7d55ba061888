"""Community Edition: one database and no aliases. A snapshot can be loaded and verified there, never switched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bgdeploy.errors import BuildLocked, Refused, TargetAway
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.databases import show
from bgdeploy.targets.neo4j.health import edition
from bgdeploy.targets.neo4j.refusals import COMMUNITY

_EMPTY_IT = "Empty it yourself (MATCH (n) DETACH DELETE n), or use Neo4j Enterprise."


def is_community(server: Server) -> bool:
    """True for an edition that has one database only."""
    return edition(server) == "community"


def place_of(server: Server, database: str) -> str:
    """The database that a name stands for: itself, or on Community the only one there is."""
    if not is_community(server):
        return database
    return next(str(row["name"]) for row in show(server) if row["default"])


@contextmanager
def only_where_empty(database: str, place: str) -> Iterator[None]:
    """Where no other name can be taken, data that is not this load's is waited for until a person removes it."""
    try:
        yield
    except BuildLocked as error:
        if place == database:
            raise
        what = f"Neo4j Community Edition has one database, {place}, which is in use: {error.what}"
        raise TargetAway(what, kept="It was left as it is.", cure=_EMPTY_IT) from error


def refuse_to_switch(server: Server, alias: str) -> None:
    """Raise Refused on an edition without aliases."""
    if is_community(server):
        raise Refused(f"{COMMUNITY}.", kept=f"No alias {alias} was made; what was loaded stays.")
