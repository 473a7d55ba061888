"""Moving an alias: intent, act, read back, record.

One intent and one generation per customer serialise everybody who wants to move its alias. The
side effect and its record cannot share a transaction, so the intent is durable first; whoever
comes after a crash reads the alias and finishes or repeats the move, and never guesses.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from bgdeploy.clock import monotonic
from bgdeploy.errors import LeaseLost, NeedsReload, Refused, TargetError
from bgdeploy.failpoints import reach
from bgdeploy.jobs import lease
from bgdeploy.jobs.rows import Row, Tx, customers, databases, get_customer, get_database, title
from bgdeploy.jobs.statements import update_where
from bgdeploy.jobs.states import Actor
from bgdeploy.pipeline.floor import is_whole, leads_ahead, raise_floor
from bgdeploy.pipeline.moves import NO_INTENT, Move, check, switches, write_move
from bgdeploy.site import Site


def move_alias(site: Site, wish: Move, *, leased: Row | None = None) -> float:
    """Move an alias and record it; return the milliseconds the target took.

    ``leased`` is a job whose lease is taken with the intent; LeaseLost where somebody else has it.

    Raises Refused where the move would break a promise, TargetError where the target failed (where
    it then still points elsewhere the intent is void, else it is finished later), LeaseLost where a
    newer wish replaced this one.
    """
    alias = settle(site, wish.customer)
    _check_engine(site, wish)
    return carry_out(site, alias, wish, intend(site, wish, leased=leased))


def _check_engine(site: Site, wish: Move) -> None:
    """No wish leads to what is damaged or the installed engine may not read; what is live already is left alone."""
    outdated = site.target.outdated(wish.database)
    if outdated is None or wish.kind == "repair":
        return
    with site.store.read() as connection:
        customer = get_customer(connection, wish.customer)
        job = get_database(connection, wish.database)["job_id"]
    raise Refused(
        f"{outdated}.",
        kept=f"{customer['alias']} stays at {customer['live'] or 'nothing'}.",
        cure=f"Load its snapshot again: bgdeploy retry {job} --reload",
    )


def carry_out(site: Site, alias: str, wish: Move, generation: int) -> float:
    """Move an alias whose intent is written, and record it; return the milliseconds the target took."""
    reach("switch.intended")
    try:
        took = _act(site, alias, wish, generation)
    except (TargetError, Refused) as error:
        raise _take_back(site, wish, generation, error) from error
    reach("switch.moved")
    _record(site, wish, generation, took)
    return took


def _take_back(
    site: Site, wish: Move, generation: int, error: TargetError | Refused
) -> TargetError | Refused:
    """The target failed: where the alias is seen not to have moved, nobody shall try this move again."""
    with site.store.read() as connection:
        customer = get_customer(connection, wish.customer)
        job = get_database(connection, wish.database)["job_id"]
    found = site.target.alias(customer["alias"])
    if found == wish.database or customer["generation"] != generation:
        return error
    forget_intent(site, customer)
    stays = f"{customer['alias']} stays at {found or 'nothing'}."
    if wish.pause:
        stays += f" {wish.customer} is paused; to go on: bgdeploy resume {wish.customer}."
    kept = " ".join(part for part in (error.kept, stays) if part)
    if isinstance(error, NeedsReload):
        return error.of_job(job, kept=kept)
    return type(error)(error.what, kept=kept, cure=error.cure)


def settle(site: Site, name: str) -> str:
    """Make the row tell the truth about the alias: finish a cut-off move, record a foreign one; return its name."""
    with site.store.read() as connection:
        customer = get_customer(connection, name)
    found = site.target.alias(customer["alias"])
    if customer["removed_at"] is not None:
        return str(customer["alias"])
    if customer["intent"] is not None and found == customer["intent"]:
        _finish(site, customer)
        return str(customer["alias"])
    foreign = customer["intent"] is None and found != customer["live"] and is_whole(site, name, found)
    if foreign and not _is_void(site, customer):
        _accept(site, customer, str(found))
    elif found != customer["live"] and (customer["live"] is None or leads_ahead(site, customer, found)):
        raise_floor(site, customer, found)
    return str(customer["alias"])


def _is_void(site: Site, customer: Row) -> bool:
    """The alias was moved last by a mover of ours whose wish nobody has any more.

    A target without a lock of its own lets a mover that was frozen finish long after its intent was
    taken back; no person meant that, and the alias is put back where it belongs.
    """
    last = site.target.generation(customer["alias"])
    if last is None or last >= customer["generation"]:
        return False
    recorded = sa.select(switches.c.id).where(
        switches.c.customer == customer["name"], switches.c.generation == last
    )
    with site.store.read() as connection:
        return connection.execute(recorded).first() is None


def forget_intent(site: Site, customer: Row) -> None:
    """Make a customer's intent void, unless a newer one stands there by now."""
    with site.transaction(Actor.WORKER) as tx:
        same = (customers.c.name == customer["name"], customers.c.generation == customer["generation"])
        void = customers.update().where(*same).values(generation=customers.c.generation + 1, **NO_INTENT)
        tx.connection.execute(void)


def _finish(site: Site, customer: Row) -> None:
    """The alias is where the intent wanted it; only the record is missing."""
    kind, why = customer["intent_kind"], customer["intent_why"]
    wish = Move(customer["name"], customer["intent"], kind, why, customer["intent_who"])
    try:
        _record(site, wish, customer["generation"], None)
    except LeaseLost:
        return  # its mover lives and was faster


def _accept(site: Site, customer: Row, found: str) -> None:
    """Somebody else moved the alias to good data: it is taken as it is."""
    by_hand = Move(customer["name"], found, "found", "moved by someone else", "unknown")
    with site.transaction(Actor.OPERATOR) as tx:
        if not _is_undisturbed(get_customer(tx.connection, customer["name"]), customer["generation"]):
            return  # it was one of us, between the look at the row and the look at the alias
        fields = {"alias": customer["alias"], "database": found, "expected": customer["live"]}
        tx.say("switch.found", customer=customer["name"], **fields)
        write_move(tx, customer, by_hand, customer["generation"], None)
        rescued = databases.update().where(databases.c.name == found, databases.c.dropped_at.is_(None))
        tx.connection.execute(rescued.values(drop_at=None, drop_why=None))


def _is_undisturbed(customer: Row, generation: int) -> bool:
    return customer["generation"] == generation and customer["intent"] is None


def intend(site: Site, wish: Move, *, seen: int | None = None, leased: Row | None = None) -> int:
    """Write the intent with the next generation, or refuse; nothing can drop its database from here on.

    With ``seen`` it is written only if nobody has moved or means to since that generation. What the
    target remembers counts too: a job table that was lost may have come further than this one.
    """
    with site.store.read() as connection:
        alias = get_customer(connection, wish.customer)["alias"]
    reached = site.target.generation(alias) or 0  # before the lock: a server may take its time

    def intend(tx: Tx) -> int:
        customer = get_customer(tx.connection, wish.customer)
        if seen is not None and not _is_undisturbed(customer, seen):
            raise LeaseLost(
                f"{customer['alias']} is being moved by someone else.", kept="Nothing was written."
            )
        if leased is not None and lease.take(tx.connection, leased, now=tx.now, **site.terms) is None:
            raise LeaseLost(f"{title(leased)} is in other hands.", kept="Nothing was written.")
        check(tx, customer, wish)
        generation: int = max(customer["generation"], reached) + 1
        intent = {
            "intent": wish.database,
            "intent_kind": wish.kind,
            "intent_who": wish.by,
            "intent_by": site.owner,
            "intent_why": wish.why,
            "intent_at": tx.now,
        }
        changes: dict[str, Any] = {"generation": generation, **intent}
        if wish.pause:
            changes.update(paused_at=tx.now, paused_why=wish.why)
            tx.say("customer.paused", customer=wish.customer, by=wish.by, why=wish.why)
        tx.connection.execute(update_where(customers, "name"), {"of_name": wish.customer, **changes})
        return generation

    return site.persist(wish.actor, intend)


def _act(site: Site, alias: str, wish: Move, generation: int) -> float:
    """Move the alias and read it back; return milliseconds."""
    began = monotonic()
    site.target.switch(alias, wish.database, generation)
    took = (monotonic() - began) * 1000
    found = site.target.alias(alias)
    if found != wish.database:
        raise TargetError(
            f"The alias {alias} points at {found} right after it was moved to {wish.database}.",
            cure="See: bgdeploy customers",
        )
    return took


def _record(site: Site, wish: Move, generation: int, took: float | None) -> None:
    """Record switch, floor, live and state in one transaction, if this intent is still the one."""

    def record(tx: Tx) -> None:
        customer = get_customer(tx.connection, wish.customer)
        if customer["generation"] != generation or customer["intent"] != wish.database:
            if customer["live"] == wish.database and customer["intent"] is None:
                return  # another process finished this very move
            raise LeaseLost(
                f"A newer move of {customer['alias']} replaced this one.",
                kept="Nothing was written.",
                cure=f"See: bgdeploy switches {wish.customer}",
            )
        if took is None:
            tx.say("switch.finished", customer=wish.customer, alias=customer["alias"], database=wish.database)
        write_move(tx, customer, wish, generation, took)

    site.persist(wish.actor, record)
