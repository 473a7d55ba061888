"""Switch: when a loaded database may go live by itself, and how a person decides.

``CHECKS`` lists what is compared before a switch: what was stored with the new database against what is live
at that moment. To add a check, write a function that takes ``Figures`` and returns a ``Result``, put it
into ``CHECKS`` with a code of its own, and give that code a sentence in ``jobs/reasons.py``. A result that did not
pass keeps the job ``loaded`` until a person names the database (``switch --to``); checks never change anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from bgdeploy.actions import Hint, do
from bgdeploy.clock import iso
from bgdeploy.config import Checks
from bgdeploy.errors import BgdeployError, LeaseLost, NotFound, Refused
from bgdeploy.failpoints import reach
from bgdeploy.finding import many
from bgdeploy.jobs import lineage
from bgdeploy.jobs.lease import FREED
from bgdeploy.jobs.reasons import Code, Reason, because, read
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.transitions import (
    Row,
    age,
    customers,
    get_customer,
    get_database,
    get_job,
    jobs,
    select_jobs,
    write,
)
from bgdeploy.pipeline.alias import (
    Move,
    find_way_back,
    leads_ahead,
    led_ahead,
    move_alias,
    repeat_cut_off_moves,
    settle,
)
from bgdeploy.pipeline.claim import SKEW
from bgdeploy.pipeline.clean import find_there
from bgdeploy.site import Site
from bgdeploy.targets import describe_target

Counts = Mapping[str, Mapping[str, int]]  # rows of each name in "labels" and in "types"


@dataclass(frozen=True)
class Figures:
    """What a check may look at: the counts that were verified, those of what is live, and the limits of the configuration."""

    new: Counts
    live: Counts | None  # None where nothing is live
    limits: Checks


@dataclass(frozen=True)
class Result:
    """The verdict of a check, with the limit and what was measured; both are fields of its reason, by name."""

    passed: bool
    expected: Mapping[str, Any]
    found: Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """One thing that may stop a switch: the reason's code, and how it is judged."""

    code: Code
    judge: Callable[[Figures], Result]


def _judge_shrinking(of: Figures) -> Result:
    most = of.limits.max_shrink_percent
    lost = shrunk(of.new, of.live, most)
    return Result(passed=not lost, expected={"max_percent": most}, found={"lost": lost})


def shrunk(new: Counts, live: Counts | None, limit: float) -> list[dict[str, Any]]:
    """Labels and types that lost more than ``limit`` percent of their rows against live (gone = 100).

    Each with its ``name`` and its rows ``before`` and ``after``.
    """
    found = []
    for kind in ("labels", "types"):
        for name, before in (live or {}).get(kind, {}).items():
            after = new.get(kind, {}).get(name, 0)
            lost = 100 * (before - after) / before if before else 0
            if lost > limit:
                found.append({"name": name, "before": before, "after": after})
    return found


CHECKS = (Check(Code.SHRUNK, _judge_shrinking),)  # in this order; the first that does not pass is the reason

# A person has to name the database: ``switch --to``.
_NAMED = (Code.NOT_NEWER, *(check.code for check in CHECKS))
_DECIDED = (*_NAMED, Code.HELD_FOR_SWITCH)  # a person has to decide
STAYS = {"removed_at": None, "removed_by": None, "removed_why": None}
_WAITING = (
    sa.select(jobs)
    .where(jobs.c.state == sa.literal_column("'loaded'"))
    .order_by(jobs.c.customer, jobs.c.timestamp.desc(), jobs.c.build.desc())
)


def switch_ready(site: Site, customer: str | None = None) -> int:
    """Finish what was cut off, then move every alias whose newest database may go live; or one customer's alone."""
    repeat_cut_off_moves(site)
    with site.store.read() as connection:
        waiting = connection.execute(_WAITING).mappings().all()
    waiting = [job for job in waiting if customer in (None, job["customer"])]
    # The newest is found first: while it is put off, an older one must not take its place.
    newest = {job["customer"]: job for job in reversed(waiting)}
    asked_for = [job for job in waiting if job["requested"] and job is not newest[job["customer"]]]
    due = [job for job in (*newest.values(), *asked_for) if _is_due(job, site.clock())]
    return sum(_consider(site, job) for job in due)


def _is_due(job: Row, now: float) -> bool:
    set_back = job["updated_at"] > now + SKEW  # it was put off by a clock that was ahead
    return job["lease_owner"] is None and (job["not_before"] <= now or set_back)


def _consider(site: Site, job: Row) -> bool:
    obstacle = _obstacle(site, job)
    if obstacle is None:
        health = site.target.health()
        if health.state == "ok":
            return _deploy(site, job)
        obstacle = because(Code.TARGET_UNHEALTHY, reasons=health.reasons)
    if read(job) != obstacle:
        _hold(site, job, obstacle)
    return False


def _obstacle(site: Site, job: Row) -> Reason | None:
    """Why this job may not go live by itself; ``_DECIDED`` are the reasons that wait for a person."""
    with site.store.read() as connection:
        customer = get_customer(connection, job["customer"])
        database = get_database(connection, job["database"])
        live = get_database(connection, customer["live"]) if customer["live"] else None
    goal = {"customer": customer["name"], "database": job["database"]}
    if database["drop_at"] is not None:
        return because(Code.BEING_DROPPED, why=database["drop_why"])
    if customer["paused_at"] is not None:
        return because(Code.PAUSED, customer=customer["name"])
    if age(job) <= (customer["floor_timestamp"], customer["floor_build"]):
        return because(Code.NOT_NEWER, **goal)
    figures = Figures(database["counts"], live["counts"] if live else None, site.settings.checks)
    for check in CHECKS:
        result = check.judge(figures)
        if not result.passed:
            return because(check.code, **goal, job=job["id"], **result.expected, **result.found)
    held = (job["settings"] or {}).get("auto_switch") is False  # whoever asked for the load said so
    if held or not site.settings.orchestrator.auto_switch:
        return because(Code.HELD_FOR_SWITCH, customer=customer["name"])
    return None


def _hold(site: Site, job: Row, obstacle: Reason) -> None:
    try:
        with site.transaction(Actor.WORKER) as tx:
            write(tx, job, reason=obstacle, blocked=obstacle.code in _DECIDED)
            tx.say_seldom("switch.blocked", job, reason=obstacle)
    except LeaseLost:
        return  # somebody moved or dropped it in between


def _deploy(site: Site, job: Row) -> bool:
    """Claim the row, move the alias; a failure leaves the job loaded and is tried again later."""
    why = "newest verified snapshot"
    try:
        move_alias(site, Move(job["customer"], job["database"], "deploy", why, "bgdeploy"), leased=job)
    except BgdeployError as error:
        _postpone(site, job, error)
        return False
    return True


def _postpone(site: Site, job: Row, error: BgdeployError) -> None:
    pause = min(10.0, site.settings.orchestrator.health_check_retry_delay)
    with site.transaction(Actor.WORKER) as tx:
        now = get_job(tx.connection, job["id"])
        if now["state"] != State.LOADED or now["lease_owner"] not in (None, site.owner):
            return
        decides = isinstance(error, Refused)  # only a person can put that right
        failed = because(Code.SWITCH_FAILED, error=error.code, said=str(error))
        write(tx, now, reason=failed, blocked=decides, not_before=tx.now + pause, **FREED)
        if read(now) != failed:
            about = {"alias": job["customer"], "database": job["database"], "reason": str(error)}
            tx.say_seldom("switch.failed", now, **about)


def switch_by_hand(site: Site, name: str, *, to: str | None, why: str, by: str) -> Move:
    """Move an alias because a person says so: to the newest that waits, or anywhere among the verified."""
    settle(site, name)
    goal = to or _waiting(site, name)["database"]
    wish = Move(name, goal, "switch", why, by)
    move_alias(site, wish)
    return wish


def _waiting(site: Site, name: str) -> Row:
    with site.store.read() as connection:
        get_customer(connection, name)
        newest = (jobs.c.timestamp.desc(), jobs.c.build.desc())
        waiting = select_jobs(connection, jobs.c.customer == name, jobs.c.state == State.LOADED, order=newest)
    if not waiting:
        raise NotFound(f"{name} has no loaded database that waits.", cure=Hint("See: ", do("customers")))
    obstacle = _obstacle(site, waiting[0])
    if obstacle is not None and obstacle.code in _NAMED:
        raise Refused(
            f"{waiting[0]['database']}: {obstacle}",
            kept="The alias stays where it is.",
            cure=Hint("Its whole story: ", do("job", job_id=waiting[0]["id"])),
        )
    return waiting[0]


def roll_back(
    site: Site, name: str, *, to: str | None, why: str, by: str, pause: bool
) -> tuple[Move, str | None]:
    """Go back to what was live before (or to ``to``), with or without workers; return the move and what it left.

    The database it leaves is marked bad; the floor stays, so only something newer comes by itself. Raises
    Refused where something else went live since it looked: nobody has called that bad.
    """
    settle(site, name)
    with site.store.read() as connection:
        customer = get_customer(connection, name)
        kept = lineage.kept_databases(connection, name)
        way_back = None if to else find_way_back(connection, customer, kept, find_there(site))
    live, found = customer["live"], site.target.alias(customer["alias"])
    if customer["intent"] is None and live is not None and leads_ahead(site, customer, found):
        raise led_ahead(customer, found)
    goal = to or (way_back["name"] if way_back is not None else None)
    if goal is None or goal == live:
        raise Refused(
            f"{name} has nothing to go back to" + (f": {goal} is live already." if goal else "."),
            kept=f"{live} stays live." if live else "Nothing is live yet.",
            cure=Hint("See: ", do("customers")),
        )
    reach("rollback.decided")
    _tell_written(site, name, goal)
    wish = Move(name, goal, "rollback", why, by, pause=pause, leaves=live or "")
    move_alias(site, wish)
    return wish, live


def _tell_written(site: Site, name: str, goal: str) -> None:
    """Count again what readers could write to while it was live, and say so; it keeps nobody from going back."""
    if describe_target(site.target.kind).embedded:
        return  # an embedded database is a file that nobody may write to
    with site.store.read() as connection:
        verified = get_database(connection, goal)["counts"] or {"labels": {}, "types": {}}
    try:
        with site.target.inspect(goal) as inspector:
            counts = inspector.counts()
    except BgdeployError:
        return  # the move finds it out, and says it better
    now = {"labels": counts.labels, "types": counts.types}
    changed = [
        f"{label} {before:,} -> {after:,}"
        for kind in ("labels", "types")
        for label in sorted({*verified[kind], *now[kind]})
        if (before := verified[kind].get(label, 0)) != (after := now[kind].get(label, 0))
    ]
    if changed:
        shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        with site.transaction(Actor.OPERATOR) as tx:
            tx.say("switch.written", customer=name, database=goal, changed=shown)


def pause(site: Site, name: str, *, why: str, by: str) -> None:
    """Claim and switch nothing for this customer until it is resumed; running loads end."""
    _set_pause(site, name, "customer.paused", {"customer": name, "by": by, "why": why}, paused=True)


def resume(site: Site, name: str, *, by: str) -> None:
    """Take a pause back, or a removal: the customer's next snapshot is loaded again.

    Raises Refused while a removed customer's databases are still to be dropped: one that is doomed would
    else become the way back of whatever is live next.
    """
    _set_pause(site, name, "customer.resumed", {"customer": name, "by": by}, paused=False)


def _set_pause(site: Site, name: str, event: str, fields: dict[str, Any], *, paused: bool) -> None:
    with site.transaction(Actor.OPERATOR) as tx:
        # one writer: another store locks the customer (FOR UPDATE), since its databases are looked at before it is written
        customer = get_customer(tx.connection, name)
        if customer["removed_at"] is not None and not paused:
            kept = lineage.kept_databases(tx.connection, name)
            _refuse_leaving(customer, kept, tx.now, site.settings.orchestrator.drop_grace_seconds)
        values: dict[str, Any] = {"paused_at": tx.now if paused else None, "paused_why": fields.get("why")}
        if not paused:
            values |= STAYS
        tx.connection.execute(customers.update().where(customers.c.name == name).values(**values))
        tx.say(event, **fields)


def _refuse_leaving(customer: Row, left: Sequence[Row], now: float, grace: float) -> None:
    if not left and not customer["live"]:
        return
    name, shown = customer["name"], ", ".join(row["name"] for row in left[:3])
    raise Refused(
        f"{name} is leaving: {many(len(left), 'database')} of it still to be dropped "
        f"({shown}{', ...' if len(left) > 3 else ''}).",
        kept="It stays removed.",
        cure=Hint(_when_gone(customer, left, now, grace), " Then again: ", do("resume", customer=name)),
    )


def _when_gone(customer: Row, left: Sequence[Row], now: float, grace: float) -> Hint:
    """Who drops a removed customer's databases, and from when on: until then nothing helps but waiting."""
    whole = [row for row in left if row["state"] == State.SWITCHED and row["drop_at"] is None]
    ready = max((row["left_at"] or customer["removed_at"] for row in whole), default=now - grace) + grace
    if ready <= now:
        return Hint("A running bgdeploy serve or work drops them, or: ", do("run"), ".")
    return Hint(
        f"The last of them stays until {iso(math.ceil(ready))}: bgdeploy run does not drop it before. From then on a "
        "running bgdeploy serve or work drops it, or: ",
        do("run"),
        ".",
    )
