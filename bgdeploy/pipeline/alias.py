"""Aliases: what may follow what they lead to, moving one (intent, act, read back, record), and putting them right.

A job table that was lost, or an old copy of it that was put back, leaves aliases behind that have come
further. A name at the target is never enough to own or to drop anything; it is enough to keep readers
from being taken back to what is older.

One intent and one generation per customer serialise everybody who wants to move its alias. The
side effect and its record cannot share a transaction, so the intent is durable first; whoever
comes after a crash reads the alias and finishes or repeats the move, and never guesses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from bgdeploy import log
from bgdeploy.actions import Hint, do
from bgdeploy.clock import monotonic
from bgdeploy.errors import (
    BgdeployError,
    ConfigError,
    LeaseLost,
    NeedsReload,
    Refused,
    TargetAway,
    TargetError,
)
from bgdeploy.failpoints import reach
from bgdeploy.jobs import lease, lineage
from bgdeploy.jobs.lease import FREED, known_dead
from bgdeploy.jobs.models import switches as switches
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.store import update_where
from bgdeploy.jobs.transitions import (
    Row,
    Tx,
    age,
    customers,
    databases,
    get_customer,
    get_database,
    get_job,
    move,
    title,
)
from bgdeploy.naming import read_age
from bgdeploy.pipeline.clean import find_there
from bgdeploy.site import Site
from bgdeploy.snapshots.folders import why_skipped


def ask_aliases(site: Site) -> Mapping[str, str]:
    """What every alias leads to; nothing while the target cannot be asked, since a first move asks again."""
    try:
        return site.target.aliases()
    except (TargetError, ConfigError):
        return {}


def inherited(customer: str, database: str | None, *, now: float) -> int:
    """Return the ``floor_timestamp`` of a customer whose alias leads there; 0 where the name says nothing.

    With build 0 it lies just below that snapshot, which is loaded anew; all that is older never follows.
    """
    found = _read(customer, database, now)
    return 0 if found is None else found[0]


def mind_aliases(site: Site) -> None:
    """Raise the floor of every customer whose alias leads to what is newer than the job table knows."""
    there = ask_aliases(site)
    with site.store.read() as connection:
        rows = (
            connection.execute(sa.select(customers).where(customers.c.removed_at.is_(None))).mappings().all()
        )
    for row in rows:
        found = there.get(row["alias"])
        if found != row["live"] and leads_ahead(site, row, found):
            raise_floor(site, row, found)


def leads_ahead(site: Site, customer: Row, found: str | None) -> bool:
    """True where an alias leads to a database that is there, is newer by its name than what the job table
    calls live, and is none that the job table knows to be whole."""
    age = _read(customer["name"], found, site.clock())
    live = (customer["live_timestamp"] or 0, customer["live_build"] or 0)
    if age is None or age <= live or is_whole(site, customer["name"], found):
        return False
    return any(one.name == found and one.status in ("online", "unknown") for one in site.target.databases())


def is_whole(site: Site, customer: str, name: str | None) -> bool:
    """True for a database of this customer that the job table knows to be verified and not dropped."""
    query = sa.select(databases.c.name).where(
        databases.c.name == name,
        databases.c.customer == customer,
        databases.c.verified_at.is_not(None),
        databases.c.dropped_at.is_(None),
    )
    with site.store.read() as connection:
        return connection.execute(query).first() is not None


def raise_floor(site: Site, customer: Row, found: str | None) -> None:
    """Let nothing below what an alias leads to follow, whatever the job table remembers.

    That snapshot itself may follow, as the same build or a later one: it is loaded anew, since nobody here
    owns what the alias leads to.
    """
    age = _read(customer["name"], found, site.clock())
    if age is None:
        return
    timestamp, build = age
    known = (customer["floor_timestamp"], customer["floor_build"])
    # Builds are counted by a job table: one that never saw this snapshot live counts them from 1 again.
    floor = (timestamp, build - 1 if timestamp == known[0] and known[1] else 0)
    if floor <= known:
        return
    with site.transaction(Actor.WORKER) as tx:
        same = (customers.c.name == customer["name"], customers.c.generation == customer["generation"])
        raised = customers.update().where(*same)
        tx.connection.execute(raised.values(floor_timestamp=floor[0], floor_build=floor[1]))
        if customer["live"] is not None:
            fields = {"alias": customer["alias"], "database": found, "live": customer["live"]}
            tx.say("switch.ahead", customer=customer["name"], **fields)


def _read(customer: str, database: str | None, now: float) -> tuple[int, int] | None:
    """Timestamp and build in a database's name, unless nobody could have given it."""
    age = read_age(customer, database or "")
    return None if age is None or why_skipped(age[0], now=now) else age


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
            cure=Hint("To take it back: ", do("resume", customer=wish.customer)),
        )
    database = get_database(tx.connection, wish.database)
    if database["customer"] != wish.customer:
        raise Refused(
            f"{wish.database} belongs to customer {database['customer']}.",
            kept="Nothing was changed.",
            cure=Hint("What belongs to whom: ", do("customers", customer=wish.customer)),
        )
    if database["verified_at"] is None:
        raise Refused(
            f"{wish.database} is not verified.",
            kept=f"{customer['alias']} stays where it is.",
            cure=Hint("How far it is: ", do("job", job_id=database["job_id"])),
        )
    if database["drop_at"] is not None:
        raise Refused(
            f"{wish.database} is being dropped ({database['drop_why']}).",
            kept=f"{customer['alias']} stays where it is.",
            cure=Hint("Load its snapshot again: ", do("reload", job_id=database["job_id"])),
        )
    if wish.kind == "rollback" and customer["intent"] is None and customer["live"] == wish.database:
        raise Refused(
            f"{wish.database} is live already.",
            kept="Nothing was changed.",
            cure=Hint("See: ", do("customers")),
        )
    if wish.leaves is not None and (customer["live"] or "") != wish.leaves:
        raise Refused(
            f"{customer['live']} went live in place of {wish.leaves or 'nothing'} at this very moment.",
            kept="Nothing was changed, and nothing is marked bad.",
            cure=Hint(
                "Look at it, then ask again if it is wrong too: ", do(wish.kind, customer=wish.customer)
            ),
        )
    if wish.kind != "deploy":
        return
    if customer["paused_at"] is not None:
        raise Refused(f"{wish.customer} is paused.", cure=Hint(do("resume", customer=wish.customer)))
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
        cure=Hint("Load its snapshot again: ", do("reload", job_id=job)),
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
        # one writer: another store locks customer and database (FOR UPDATE)
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
        # one writer: another store locks customer and database (FOR UPDATE), else two movers could give one generation
        # and a drop could come between check and intent
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
            cure=Hint("See: ", do("customers")),
        )
    return took


def _record(site: Site, wish: Move, generation: int, took: float | None) -> None:
    """Record switch, floor, live and state in one transaction, if this intent is still the one."""

    def record(tx: Tx) -> None:
        # one writer: another store locks the customer (FOR UPDATE), so that no newer intent comes before the record
        customer = get_customer(tx.connection, wish.customer)
        if customer["generation"] != generation or customer["intent"] != wish.database:
            if customer["live"] == wish.database and customer["intent"] is None:
                return  # another process finished this very move
            raise LeaseLost(
                f"A newer move of {customer['alias']} replaced this one.",
                kept="Nothing was written.",
                cure=Hint("See: ", do("switches", customer=wish.customer)),
            )
        if took is None:
            tx.say("switch.finished", customer=wish.customer, alias=customer["alias"], database=wish.database)
        write_move(tx, customer, wish, generation, took)

    site.persist(wish.actor, record)


_INTENDED = sa.select(customers).where(customers.c.intent.is_not(None))
LIVE = (
    sa.select(customers, databases.c.job_id)
    .join(databases, databases.c.name == customers.c.live)
    .where(customers.c.intent.is_(None), customers.c.removed_at.is_(None))
)
INTENT_TRUST = 10.0  # seconds a living mover is left alone with its intent


def watch_aliases(site: Site) -> list[tuple[str, str]]:
    """Put back every alias that points at nothing good; return (alias, trouble) where that failed."""
    site.target.catch_up(lambda: read_owned(site))
    there = site.target.aliases()  # all at once: a server is not asked a thousand times
    with site.store.read() as connection:
        mine = (customers.c.live.is_not(None), customers.c.removed_at.is_(None))
        owners = connection.execute(sa.select(customers).where(*mine)).mappings().all()
    troubles = []
    for customer in owners:
        if customer["intent"] is None and there.get(customer["alias"]) == customer["live"]:
            continue
        try:
            settle(site, customer["name"])
            _put_back(site, customer["name"])
        except TargetAway:
            raise  # it concerns all of them
        except BgdeployError as error:
            troubles.append((customer["alias"], str(error)))
    return troubles


def find_unreadable(site: Site) -> list[tuple[str, str]]:
    """Return (alias, trouble) where an alias points at what is gone or damaged; nothing is written of it.

    A disk that was not mounted must cost no database its owner.
    """
    there, pointing = find_there(site), site.target.aliases()
    down = {one.name: one.trouble for one in site.target.databases() if one.trouble}
    with site.store.read() as connection:
        owners = connection.execute(LIVE).mappings().all()
    found = []
    for owner in owners:
        live = owner["live"]
        if pointing.get(owner["alias"], live) != live:
            continue  # readers have something else, which is told apart
        if live in down:
            look = "Its server says more: bgdeploy doctor"
            found.append((owner["alias"], f"{live} is {down[live]}. {look}"))
            continue
        what = site.target.outdated(live) if live in there else f"{live} is gone"
        if what is not None:
            found.append((owner["alias"], f"{what}. {cure_of(site, owner['name'], there)}"))
    return found


def cure_of(site: Site, name: str, there: Collection[str]) -> str:
    """What helps where a customer's live database cannot be read: where it could go back to, and a reload."""
    with site.store.read() as connection:
        customer, kept = get_customer(connection, name), lineage.kept_databases(connection, name)
        back = find_way_back(connection, customer, kept, there)
        job = get_database(connection, customer["live"])["job_id"]
    again = f"oad it again: bgdeploy retry {job} --reload"
    if back is None:
        return f"There is nothing to go back to. L{again}"
    return f"Go back to {back['name']}: bgdeploy rollback {name} --reason '...', or l{again}"


def _put_back(site: Site, name: str) -> None:
    with site.store.read() as connection:
        customer = get_customer(connection, name)
    found = site.target.alias(customer["alias"])
    if customer["intent"] is not None or customer["live"] is None or found == customer["live"]:
        return
    if leads_ahead(site, customer, found):
        raise led_ahead(customer, found)
    back = Move(name, customer["live"], "repair", f"it pointed at {found or 'nothing'}", "bgdeploy")
    carry_out(site, customer["alias"], back, intend(site, back, seen=customer["generation"]))


def led_ahead(customer: Row, found: str | None) -> Refused:
    """The error where readers have more than the job table knows, as after an old copy of it was put back."""
    name, live = customer["name"], customer["live"]
    return Refused(
        f"The alias {customer['alias']} points at {found}, which no job here owns and which is newer than {live}, "
        "live by the job table.",
        kept="It stays there; nothing older goes live by itself, and its snapshot is loaded again if it is there.",
        cure=Hint(
            "Was an old copy of the job table put back? To go back all the same: ",
            do("switch", customer=name, to=live),
        ),
    )


def repeat_cut_off_moves(site: Site) -> None:
    """Finish every move whose mover is gone; where a customer is paused by now, or it is refused, make it void."""
    with site.store.read() as connection:
        pending = connection.execute(_INTENDED).mappings().all()
    for customer in pending:
        if known_dead(customer["intent_by"]) or customer["intent_at"] < site.clock() - INTENT_TRUST:
            try:
                _repeat(site, customer)
            except BgdeployError as error:  # one customer's trouble must not hold up the others
                log.emit("service.trouble", what=f"moving {customer['alias']}", error=error)


def _repeat(site: Site, customer: Row) -> None:
    settle(site, customer["name"])
    with site.store.read() as connection:
        fresh = get_customer(connection, customer["name"])
    if fresh["intent"] is None or fresh["generation"] != customer["generation"]:
        return
    if fresh["paused_at"] is not None and fresh["intent_kind"] == "deploy":
        _void(site, fresh)
        return
    why = fresh["intent_why"] or "repeated after a crash"
    wish = Move(fresh["name"], fresh["intent"], fresh["intent_kind"], why, fresh["intent_who"])
    try:
        found = site.target.alias(fresh["alias"])
        if _came_further(site, fresh) or (found != fresh["intent"] and leads_ahead(site, fresh, found)):
            raise Refused(f"{fresh['alias']} was moved since, by a newer job table than this one.")
        move_alias(site, wish)
    except Refused as error:  # what breaks a promise by now would do so at every round
        _give_up(site, fresh, error)


def _give_up(site: Site, customer: Row, error: Refused) -> None:
    with site.store.read() as connection:
        now = get_customer(connection, customer["name"])
    if now["generation"] == customer["generation"]:
        _void(site, customer)
    with site.transaction(Actor.WORKER) as tx:
        about = {"alias": customer["alias"], "database": customer["intent"], "reason": str(error)}
        tx.say("switch.failed", customer=customer["name"], **about)


def _void(site: Site, customer: Row) -> None:
    """Take another process's intent back; raising the generation at the target shuts a frozen mover out."""
    forget_intent(site, customer)
    found = site.target.alias(customer["alias"])
    if found is not None and not _came_further(site, customer):
        site.target.switch(customer["alias"], found, customer["generation"] + 1)


def _came_further(site: Site, customer: Row) -> bool:
    """The alias was moved since by a generation that this job table never gave: it is an old copy."""
    return (site.target.generation(customer["alias"]) or 0) > int(customer["generation"])


def read_owned(site: Site) -> dict[str, int]:
    """Databases that the job table knows of and that were not dropped, with their jobs."""
    with site.store.read() as connection:
        mine = sa.select(databases.c.name, databases.c.job_id).where(databases.c.dropped_at.is_(None))
        return {row.name: row.job_id for row in connection.execute(mine)}
