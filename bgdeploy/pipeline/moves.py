"""Moves: a wish to move an alias, and what it leaves in the job table once it has come true."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from bgdeploy.errors import Refused
from bgdeploy.jobs import lineage
from bgdeploy.jobs.models import switches as switches
from bgdeploy.jobs.rescue import FREED
from bgdeploy.jobs.rows import Row, Tx, age, customers, databases, get_database, get_job, move
from bgdeploy.jobs.statements import update_where
from bgdeploy.jobs.states import Actor, State

_INTENT = ("intent", "intent_kind", "intent_who", "intent_why", "intent_by", "intent_at")
NO_INTENT = dict.fromkeys(_INTENT)


@dataclass(frozen=True)
class Move:
    """One wish to move an alias; ``kind`` is deploy, switch, rollback or repair.

    ``leaves`` is what a person saw live who wants to leave just that; empty where that was nothing.
    """

    customer: str
    database: str
    kind: str
    why: str
    by: str  # the person, or "bgdeploy"
    pause: bool = False
    leaves: str | None = None

    @property
    def actor(self) -> Actor:
        """Automation moves as a worker, people as operators."""
        return Actor.WORKER if self.kind == "deploy" else Actor.OPERATOR


def check(tx: Tx, customer: Row, wish: Move) -> None:
    """Raise Refused where the move would break a promise."""
    if customer["removed_at"] is not None:
        raise Refused(
            f"Customer {wish.customer} was removed.",
            kept="Nothing was changed.",
            cure=f"To take it back: bgdeploy resume {wish.customer}",
        )
    database = get_database(tx.connection, wish.database)
    if database["customer"] != wish.customer:
        raise Refused(
            f"{wish.database} belongs to customer {database['customer']}.",
            kept="Nothing was changed.",
            cure=f"What belongs to whom: bgdeploy customers --customer {wish.customer}",
        )
    if database["verified_at"] is None:
        raise Refused(
            f"{wish.database} is not verified.",
            kept=f"{customer['alias']} stays where it is.",
            cure=f"How far it is: bgdeploy jobs show {database['job_id']}",
        )
    if database["drop_at"] is not None:
        raise Refused(
            f"{wish.database} is being dropped ({database['drop_why']}).",
            kept=f"{customer['alias']} stays where it is.",
            cure=f"Load its snapshot again: bgdeploy retry {database['job_id']} --reload",
        )
    if wish.kind == "rollback" and customer["intent"] is None and customer["live"] == wish.database:
        raise Refused(
            f"{wish.database} is live already.", kept="Nothing was changed.", cure="See: bgdeploy customers"
        )
    if wish.leaves is not None and (customer["live"] or "") != wish.leaves:
        raise Refused(
            f"{customer['live']} went live in place of {wish.leaves or 'nothing'} at this very moment.",
            kept="Nothing was changed, and nothing is marked bad.",
            cure=f"Look at it, then ask again if it is wrong too: bgdeploy {wish.kind} {wish.customer}",
        )
    if wish.kind != "deploy":
        return
    if customer["paused_at"] is not None:
        raise Refused(f"{wish.customer} is paused.", cure=f"bgdeploy resume {wish.customer}")
    if age(database) <= (customer["floor_timestamp"], customer["floor_build"]):
        raise Refused(f"{wish.database} is not newer than what was live already.")


def write_move(tx: Tx, customer: Row, wish: Move, generation: int, took: float | None) -> None:
    """Write switch, floor, live, the marks of both databases and the job's state in this transaction.

    ``customer`` is the row before the move; ``took`` milliseconds, None where nobody measured.
    """
    database = get_database(tx.connection, wish.database)
    floor = max(age(database), (customer["floor_timestamp"], customer["floor_build"]))
    live = {"live": wish.database, "live_timestamp": database["timestamp"], "live_build": database["build"]}
    # Putting back what was live all the time is no news: what waits is judged by when something newer came.
    since = customer["live_since"] if customer["live"] == wish.database else tx.now
    changes = {
        "live_since": since,
        "floor_timestamp": floor[0],
        "floor_build": floor[1],
        **live,
        **NO_INTENT,
    }
    tx.connection.execute(update_where(customers, "name"), {"of_name": wish.customer, **changes})
    _mark_databases(tx, customer, wish, database)
    record = {
        "source": customer["live"],
        "target": wish.database,
        "kind": wish.kind,
        "by": wish.by,
        "why": wish.why,
    }
    row = {"customer": wish.customer, "at": tx.now, "generation": generation, "took_ms": took, **record}
    tx.connection.execute(switches.insert(), {"job_id": database["job_id"], **row})
    fields = {"alias": customer["alias"], "database": wish.database, "source": customer["live"] or "nothing"}
    _tell(tx, database["job_id"], {"kind": wish.kind, "why": wish.why, "took": took or 0.0, **fields})


def find_way_back(
    connection: sa.Connection,
    customer: Row,
    kept: Sequence[Row],
    there: Collection[str] | None,
) -> Row | None:
    """Where a rollback goes: to what was live before, where that is whole and not bad, else to the standby."""
    latest = switches.c.id.desc()
    came = (switches.c.customer == customer["name"], switches.c.target == customer["live"])
    from_another = switches.c.source.is_distinct_from(switches.c.target)
    moves = connection.execute(
        sa.select(switches.c.source).where(*came, from_another).order_by(latest).limit(1)
    )
    before = moves.scalars().first()
    for row in kept:
        is_good = row["verified_at"] is not None and row["bad_at"] is None and row["drop_at"] is None
        if row["name"] == before and is_good and (there is None or before in there):
            return row
    return lineage.standby(customer, kept, there)


def _mark_databases(tx: Tx, customer: Row, wish: Move, database: Row) -> None:
    left, reached = customer["live"], wish.database
    if left is not None and left != reached:
        bad = {"bad_at": tx.now, "bad_why": wish.why} if wish.kind == "rollback" else {}
        tx.connection.execute(update_where(databases, "name"), {"of_name": left, "left_at": tx.now, **bad})
        if bad:
            gone = get_job(tx.connection, get_database(tx.connection, left)["job_id"])
            tx.say("database.bad", gone, database=left, by=wish.by, why=wish.why)
    cleared = {"bad_at": None, "bad_why": None} if wish.kind in ("switch", "found", "rollback") else {}
    if cleared and database["bad_at"] is not None:
        tx.say("database.cleared", customer=wish.customer, database=reached)
    if cleared or database["left_at"] is not None:
        here = {"of_name": reached, "left_at": None, **cleared}
        tx.connection.execute(update_where(databases, "name"), here)


def _tell(tx: Tx, job_id: int, fields: dict[str, Any]) -> None:
    job = get_job(tx.connection, job_id)
    if job["state"] == State.LOADED:
        changes = {"switched_at": tx.now, "blocked": False, "reason": None, "error": None, "error_code": None}
        move(tx, job, State.SWITCHED, "switch.moved", fields=fields, **changes, **FREED)
    else:
        tx.say("switch.moved", job, **fields)
