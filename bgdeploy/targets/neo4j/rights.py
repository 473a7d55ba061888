"""Rights: each one that bgdeploy needs, tried by itself; what was not tried is unknown, never ok.

The server hides rows from those who lack a right, and refuses nothing: an empty answer proves
nothing. Rights that only use can show are tried on a database made for it, and only when asked for.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from bgdeploy.actions import Hint, do
from bgdeploy.errors import BgdeployError, TargetAway, TargetFull
from bgdeploy.failpoints import reach
from bgdeploy.finding import TRIAL, Check, Finding, error, many, ok, unknown
from bgdeploy.targets.base import Rows
from bgdeploy.targets.neo4j import aliases, databases, health
from bgdeploy.targets.neo4j.access import RightMissing, Server
from bgdeploy.targets.neo4j.names import CYPHER
from bgdeploy.targets.neo4j.schema import create_key

SUBJECT = "rights"
OTHERS = "SHOW TRANSACTIONS YIELD username"
_WRITE = f"{CYPHER}CREATE (n:Trial {{id: 1}}) RETURN n.id AS id"
_TO = "TO <the role of bgdeploy's user>"
_SHOW_TRANSACTIONS = f"GRANT SHOW TRANSACTION (*) ON DATABASE * {_TO}"


class Look(NamedTuple):
    """A statement that only reads, and the right it needs."""

    what: str
    statement: str
    grant: str


LOOKS = (
    Look("seeing databases", databases.SHOW, f"GRANT ACCESS ON DATABASE * {_TO}"),
    Look("seeing aliases", aliases.SHOW, f"GRANT ALIAS MANAGEMENT ON DBMS {_TO}"),
    Look("seeing settings", health.PLACES, f"GRANT SHOW SETTING * ON DBMS {_TO}"),
    Look("admin procedures", health.HEAP, f"GRANT EXECUTE ADMIN PROCEDURES ON DBMS {_TO}"),
)


class Step(NamedTuple):
    """One right that only use can show, on the scratch database ``name``."""

    what: str
    grant: str
    act: Callable[[Server, str], object]


_MANAGE = f"GRANT DATABASE MANAGEMENT ON DBMS {_TO}"
_ALIASES = f"GRANT ALIAS MANAGEMENT ON DBMS {_TO}"
_FILL = f"GRANT ALL ON DATABASE * {_TO}; GRANT ALL GRAPH PRIVILEGES ON GRAPH * {_TO}"


def checks(server: Server, settings: Mapping[str, Any], *, tries: bool) -> list[Check]:
    """Reading rights always; the others on scratch when they are to be tried, on Enterprise only."""
    reached = ("server",)
    found = [
        Check(SUBJECT, look.what, partial(try_look, server, look), needs=reached, limit=30.0)
        for look in LOOKS
    ]
    found.append(
        Check(SUBJECT, "seeing transactions", partial(find_others, server), needs=reached, limit=30.0)
    )
    name, roles = f"{TRIAL}{secrets.token_hex(4)}", settings["reader_roles"]
    steps = list_steps(roles)
    if not tries:
        untried = ", ".join(step.what for step in steps)
        text = f"not tried: {untried}"
        try_them = Hint(do("doctor", try_rights=True))
        return [*found, Check(SUBJECT, "use", lambda: [unknown(text, try_them)])]
    left = f"{name} may be left at the server: DROP DATABASE `{name}`"
    trial = Check(
        SUBJECT,
        "use",
        partial(try_steps, server, name, steps),
        needs=("server", "target"),
        limit=900.0,
        left=left,
    )
    return [*found, trial]


def try_look(server: Server, look: Look) -> Iterator[Finding]:
    """Ask once; rows prove the right, a refusal disproves it, no row proves nothing."""
    try:
        rows = server.ask(look.statement, f"Trying the right of {look.what}")
    except RightMissing as failure:
        yield error(failure.what, look.grant)
        return
    if rows:
        yield ok(f"{look.what}: answered with {many(len(rows), 'row')}")
    else:
        yield unknown(
            f"{look.what}: answered without a row, so there is none, or the right is missing", look.grant
        )


def find_others(server: Server) -> Iterator[Finding]:
    """Everybody sees transactions of his own; only those of others prove the right."""
    names = {str(row["username"]) for row in _others(server)}
    if names - {server.access.user, "", "None"}:
        yield ok("seeing transactions: those of others are seen")
    else:
        what = "seeing transactions: only those of bgdeploy itself are seen; nobody else runs one, or the right is missing"
        yield unknown(what, _SHOW_TRANSACTIONS)


def _others(server: Server) -> Rows:
    return server.ask(OTHERS, "Trying the right of seeing transactions")


def list_steps(roles: Sequence[str]) -> list[Step]:
    """What a database goes through in bgdeploy's hands, in the order in which one needs the other."""
    steps = [
        Step("creating a database", _MANAGE, databases.create),
        Step("read-only and back", f"GRANT SET DATABASE ACCESS ON DBMS {_TO}", _protect),
        Step("writing, keys and reading", _FILL, _fill),
        Step("creating an alias", _ALIASES, partial(_point, generation=1)),
        Step("moving an alias", _ALIASES, partial(_point, generation=2)),
    ]
    if roles:
        cure = f"GRANT PRIVILEGE MANAGEMENT ON DBMS {_TO}"
        steps.append(Step(f"letting {', '.join(roles)} read", cure, partial(_let_in, roles=roles)))
    return [*steps, Step("dropping an alias", _ALIASES, _forget), Step("dropping a database", _MANAGE, _drop)]


def _protect(server: Server, name: str) -> None:
    databases.set_access(server, name, read_only=True)
    databases.set_access(server, name, read_only=False)


def _fill(server: Server, name: str) -> None:
    server.write(name, _WRITE, f"Writing to {name}")
    server.change(name, create_key("Trial", "id"), f"Making a key in {name}")
    server.read(name, f"{CYPHER}MATCH (n:Trial) RETURN n.id AS id", f"Reading {name}")


def _point(server: Server, name: str, *, generation: int) -> None:
    aliases.move_alias(server, _alias(name), name, generation)


def _let_in(server: Server, name: str, *, roles: Sequence[str]) -> None:
    databases.grant(server, name, roles)


def _forget(server: Server, name: str) -> None:
    server.ask(aliases.DROP, f"Dropping the alias {_alias(name)}", alias=_alias(name))


def _drop(server: Server, name: str) -> None:
    databases.drop(server, name, ())


def _alias(name: str) -> str:
    return f"{name}-alias"


def try_steps(server: Server, name: str, steps: Sequence[Step]) -> Iterator[Finding]:
    """Go through all steps on a scratch database; whatever happens, it is dropped in the end."""
    first, *others = steps
    made = _try(server, name, first)
    yield made
    if made.verdict != "ok":
        what = f"not tried without a database: {', '.join(step.what for step in others)}"
        yield unknown(what, f"Let this succeed first: {first.what}.")
    else:
        reach("rights.created")
        yield from [_try(server, name, step) for step in others]
    yield from _clear_away(server, name)


def _try(server: Server, name: str, step: Step) -> Finding:
    try:
        step.act(server, name)
    except RightMissing as failure:
        return error(f"{step.what}: {failure.what}", step.grant)
    except (TargetAway, TargetFull) as failure:
        return unknown(f"{step.what}: {failure.what}", failure.cure)
    except BgdeployError as failure:
        return error(f"{step.what}: {failure.what}", failure.cure or step.grant)
    return ok(f"{step.what}: done, on {name}")


def _clear_away(server: Server, name: str) -> Iterator[Finding]:
    """See that nothing is left; a step that failed may have left both."""
    try:
        if databases.look(server, name).verdict != "absent":
            _forget(server, name)
            _drop(server, name)
    except BgdeployError as failure:
        yield error(f"{name} could not be removed: {failure.what}", f"DROP DATABASE `{name}`")
