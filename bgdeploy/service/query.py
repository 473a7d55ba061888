"""Asking a live database: rows of a read-only query, and for every refusal what to write instead."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from bgdeploy.actions import Hint, do
from bgdeploy.config import Settings
from bgdeploy.errors import BgdeployError, NeedsReload, NotFound, TargetError
from bgdeploy.jobs.transitions import customers, databases
from bgdeploy.naming import known_alias
from bgdeploy.site import Site
from bgdeploy.targets import describe_target, open_target
from bgdeploy.targets.base import Rows

_MOST = 12  # names of labels or types that are listed


@dataclass(frozen=True)
class Asked:
    """Whose database was asked: its customer, and the rows per label and type that it holds."""

    customer: str
    counts: Mapping[str, Mapping[str, int]]
    cypher: str = ""
    said: str = ""

    def command(self, cypher: str) -> str:
        """A query of this customer as it can be pasted."""
        plain = "'" in cypher and not set(cypher) & set('"$`\\\\!')
        quoted = f'"{cypher}"' if plain else shlex.quote(cypher)
        return f"bgdeploy query {shlex.quote(self.customer)} {quoted}"

    def names(self, kind: str) -> str:
        """``Address, Entity``, at most a dozen."""
        names = sorted(self.counts.get(kind, {}))
        more = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
        return ", ".join(names[:_MOST]) + more


def ask(site: Site, customer: str, cypher: str) -> Rows:
    """Return the rows of a read-only query; an error says what to write instead, or names the job of what is live."""
    alias = _alias_of(site, customer)
    try:
        return site.target.query(alias, cypher)
    except NotFound:
        raise
    except BgdeployError as error:
        raise _mended(site, customer, alias, error, cypher) from error


def ask_without_table(settings: Settings, customer: str, cypher: str) -> Rows | None:
    """Return the rows where files alone are needed and something is live; None where the job table is."""
    if not describe_target(settings.target).embedded:
        return None
    target = open_target(settings)
    alias = known_alias(customer, settings.target, target.aliases())
    return None if target.alias(alias) is None else target.query(alias, cypher)


def _alias_of(site: Site, customer: str) -> str:
    """Return the alias of a customer, or raise NotFound naming the customers there are."""
    with site.store.read() as connection:
        either = sa.or_(customers.c.name == customer, customers.c.alias == customer)
        found = sa.select(customers.c.alias).where(either).order_by(customers.c.name != customer)
        alias = connection.execute(found).scalars().first()
        if alias is None:
            raise _no_customer(connection, customer)
    return str(alias)


def check_customer(site: Site, customer: str) -> None:
    """Raise NotFound naming the customers there are, where this is none: an empty listing would look like an answer."""
    with site.store.read() as connection:
        found = connection.execute(sa.select(customers.c.name).where(customers.c.name == customer))
        if found.scalars().first() is None:
            raise _no_customer(connection, customer)


def _no_customer(connection: sa.Connection, customer: str) -> NotFound:
    known = connection.execute(sa.select(customers.c.name).limit(10)).scalars().all()
    return NotFound(
        f"There is no customer {customer!r}.",
        cure=Hint(f"There are: {', '.join(known) or 'none yet'}. See: ", do("customers")),
    )


def _mended(site: Site, customer: str, alias: str, error: BgdeployError, cypher: str) -> BgdeployError:
    live = _find_live(site, alias, error)
    found = Asked(customer, live.get("counts") or {}, cypher, error.what)
    cure = next((cure(found) for words, cure in _CURES if re.search(words, error.what, re.IGNORECASE)), None)
    kept = error.kept or "Nothing was changed."
    what = error.what.partition("\n")[0]  # a server draws the statement and a mark below it
    if cure is None and isinstance(error, NeedsReload):
        error = error.of_job(live.get("job_id"), customer=customer)
    return type(error)(what, kept=kept, cure=cure or error.cure)


def _find_live(site: Site, alias: str, error: BgdeployError) -> Mapping[Any, Any]:
    """The row of the database that was asked, or nothing where it is not known."""
    try:
        name = site.target.alias(alias)
    except TargetError:
        raise error from None
    with site.store.read() as connection:
        of_live = sa.select(databases).where(databases.c.name == name)
        return connection.execute(of_live).mappings().one_or_none() or {}


def _tell_read_only(asked: Asked) -> str:
    return f"What is live is only read. Its data changes by a new snapshot of {asked.customer}."


def _tell_names(asked: Asked) -> str:
    missing = re.search(r"table (\S+) does not exist", asked.said, re.IGNORECASE)
    if missing is not None and missing[1] in asked.counts.get("labels", {}):
        # A further label: the engine keeps a node in one table, that of its folder.
        look = f"MATCH (n) WHERE '{missing[1]}' IN n.labels RETURN n LIMIT 5"
        return f"{missing[1]} is a further label of nodes: {asked.command(look)}"
    return f"There are the labels {asked.names('labels') or '(none)'}; the types {asked.names('types') or '(none)'}."


def _tell_properties(asked: Asked) -> str:
    named = re.search(r"\(\s*\w*\s*:\s*(`[^`]+`|\w+)", asked.cypher)
    return f"What a node has: {asked.command(f'MATCH (n:{named[1]}) RETURN n LIMIT 1' if named else 'MATCH (n) RETURN n LIMIT 1')}"


def _tell_all(asked: Asked) -> str:
    return f"{_tell_names(asked)} {_tell_properties(asked)}"


def _tell_types(asked: Asked) -> str:
    found = re.search(r": (\w+) does not take \((?:DISTINCT )?DECIMAL\(\d+, (\d+)\)", asked.said)
    if found is not None:
        name, digits = found[1].lower(), 10 ** int(found[2])
        return f"Cast the decimals: {name}(CAST(n.price AS DOUBLE)), or exactly: {name}(CAST(n.price * {digits} AS INT128))"
    return f"Cast what it is given: CAST(n.price AS INT64), ... AS DOUBLE, ... AS STRING. {_tell_properties(asked)}"


def _tell_words(asked: Asked) -> str:
    if "at ':'" in asked.said:
        return "Behind WHERE a label is asked for by: label(n) = 'Person', a further label by: 'Manager' IN n.labels"
    order = asked.command("MATCH (n:`Order`) RETURN n LIMIT 1")
    return (
        "A name that is also a word of the language (Order, Group), or has other signs than letters, digits and _, "
        f"is written in backticks, the statement then in single quotes: {order}"
    )


def _tell_functions(asked: Asked) -> str:
    found = re.search(r"function (\S+) does not exist", asked.said, re.IGNORECASE)
    other = _OTHERS.get(found[1].upper() if found else "")
    return f"{f'Here it is {other}. ' if other else ''}All there are: {asked.command('CALL show_functions() RETURN *')}"


def _tell_empty(asked: Asked) -> str:
    return f"Such as: {asked.command('MATCH (n) RETURN n LIMIT 5')}"


# What the other dialect calls a function, and how it is called by the embedded engine.
_OTHERS = {
    "TYPE": "label(r)", "ELEMENTID": "id(n)", "DATETIME": "timestamp('2026-01-31T12:00:00'), and now: current_timestamp()",
    "LOCALDATETIME": "timestamp('2026-01-31T12:00:00')", "TOINTEGER": "CAST(x AS INT64)", "TOFLOAT": "CAST(x AS DOUBLE)",
    "TOSTRING": "CAST(x AS STRING)", "TOBOOLEAN": "CAST(x AS BOOL)", "DURATION": "interval('2 days')",
    "RANDOMUUID": "gen_random_uuid()", "PERCENTILECONT": "no such function: collect the values and choose",
}  # fmt: skip
# What an engine says, and what helps the one who asked; the first that fits counts.
_CURES: tuple[tuple[str, Callable[[Asked], str]], ...] = (
    (r"read-only database|read access mode|writ\w+ .*not allowed", _tell_read_only),
    (
        r"buffer pool is full|unable to allocate memory",
        lambda asked: (
            "It takes more memory than queries may have: raise ladybug.buffer_pool_mb, in config.yaml or with --set."
        ),
    ),
    (r"table \S+ does not exist", _tell_names),
    (r"cannot find property", _tell_properties),
    (r"query is empty|unexpected end of input: expected", _tell_empty),
    (r"does not take \(", _tell_types),
    (r"parser exception|invalid input", _tell_words),
    (
        r"not in scope|variable `?\w+`? not defined",
        lambda asked: "Name it in a MATCH or WITH before it is used.",
    ),
    (r"function \S+ does not exist", _tell_functions),
    (r"1-based", lambda asked: "Lists begin at 1 here: list[1] is the first."),
    (
        r"divide by zero",
        lambda asked: "Leave such rows out with WHERE, or divide a DOUBLE: CAST(x AS DOUBLE) / y",
    ),
    (
        r"internal_id",
        lambda asked: (
            f"id(n) is the engine's own; compare the id that the files have. {_tell_properties(asked)}"
        ),
    ),
    (
        r"could not convert|conversion exception|overflow exception",
        lambda asked: f"A value does not fit that type. {_tell_properties(asked)}",
    ),
    (r"exception: ", _tell_all),
)
