"""Prune: the job table forgets what is over and old enough, a little at a time; switches stay for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from bgdeploy.clock import iso
from bgdeploy.errors import NotReadable
from bgdeploy.failpoints import reach
from bgdeploy.jobs.over import FINISHED, find_old, find_old_jobs, forget
from bgdeploy.jobs.rows import databases, events, jobs, load_tables
from bgdeploy.jobs.states import Actor, State
from bgdeploy.pipeline.known import read_known
from bgdeploy.site import Site
from bgdeploy.snapshots.folders import list_names

AT_ONCE = 500  # rows that go in one transaction, so that nobody waits long for the job table
_SNAPSHOTS = 20  # snapshots whose jobs go in one transaction
_DAY = 86_400.0

# The moves of what is loaded or switched stay, however old: they tell how it came to be there.
_IN_PLACE = (State.LOADED, State.SWITCHED)
_OLDEST = (
    sa.select(
        events.c.id,
        events.c.at,
        sa.and_(events.c.target.is_not(None), sa.func.coalesce(jobs.c.state.in_(_IN_PLACE), False)).label(
            "stays"
        ),
    )
    .join(jobs, jobs.c.id == events.c.job_id, isouter=True)
    .where(events.c.id > sa.bindparam("after"))
    .order_by(events.c.id)
    .limit(AT_ONCE)
)
# No database's name is used twice: what was loaded into a dropped one is never looked up again.
_PAST_LEDGERS = (
    sa.select(load_tables.c.id)
    .join(jobs, jobs.c.id == load_tables.c.job_id)
    .where(
        jobs.c.state.in_(FINISHED),
        jobs.c.ended_at < sa.bindparam("before"),
        ~sa.exists().where(databases.c.job_id == jobs.c.id, databases.c.dropped_at.is_(None)),
    )
    .limit(AT_ONCE)
)


@dataclass
class Pruned:
    """How many rows went; a snapshot's jobs count one each."""

    events: int = 0
    ledgers: int = 0
    jobs: int = 0


def prune(site: Site, go_on: Callable[[], bool] = lambda: True) -> Pruned:
    """Forget what is older than ``history`` says, until all is gone or ``go_on`` says no.

    Any number of processes may do it at once. The file keeps its size: freed pages are used again.
    """
    history, pruned = site.settings.history, Pruned()
    if history.events_days is not None:
        before = site.clock() - history.events_days * _DAY
        _prune_events(site, before, pruned, go_on)
        _prune_ledgers(site, before, pruned, go_on)
    if history.jobs_days is not None:
        _prune_jobs(site, site.clock() - history.jobs_days * _DAY, pruned, go_on)
    return pruned


def _prune_events(site: Site, before: float, pruned: Pruned, go_on: Callable[[], bool]) -> None:
    """Oldest first, by number: clocks may be set back, numbers are not."""
    after = 0
    while go_on():
        with site.store.read() as connection:
            page = connection.execute(_OLDEST, {"after": after}).mappings().all()
        old = [row["id"] for row in page if row["at"] < before]
        gone = [row["id"] for row in page if row["at"] < before and not row["stays"]]
        if gone:
            with site.transaction(Actor.CLEANER) as tx:
                done = tx.connection.execute(sa.delete(events).where(events.c.id.in_(gone))).rowcount
                tx.say("history.events", count=done, before=iso(before))
            pruned.events += done
        if len(page) < AT_ONCE or not old:
            return
        after = page[-1]["id"]


def _prune_ledgers(site: Site, before: float, pruned: Pruned, go_on: Callable[[], bool]) -> None:
    while go_on():
        with site.store.read() as connection:
            past = connection.execute(_PAST_LEDGERS, {"before": before}).scalars().all()
        if not past:
            return
        with site.transaction(Actor.CLEANER) as tx:
            tx.connection.execute(sa.delete(load_tables).where(load_tables.c.id.in_(past)))
            tx.say("history.ledgers", count=len(past), before=iso(before))
        pruned.ledgers += len(past)


def _prune_jobs(site: Site, before: float, pruned: Pruned, go_on: Callable[[], bool]) -> None:
    for customer, timestamps in _gone(site, before):
        reach("prune.decided")
        done: int | None = None
        while go_on() and done is None:
            done = _forget(site, customer, timestamps, before)
        pruned.jobs += done or 0


def _forget(site: Site, customer: str, timestamps: Sequence[int], before: float) -> int | None:
    """Forget those that are still over, all at once; None where so much was written about them that it goes on."""
    with site.transaction(Actor.CLEANER) as tx:
        ids = find_old_jobs(tx.connection, before, customer, timestamps)
        if not forget(tx, ids, most=AT_ONCE):
            return None
        if ids:
            tx.say("history.jobs", customer=customer, count=len(ids), before=iso(before))
    return len(ids)


def _gone(site: Site, before: float) -> Iterator[tuple[str, list[int]]]:
    """Snapshots that were over before that time and whose folder is seen not to be there, some at a time."""
    with site.store.read() as connection:
        old = find_old(connection, before)
    by_customer: dict[str, list[int]] = {}
    for row in old:
        by_customer.setdefault(row["customer"], []).append(row["timestamp"])
    for customer, timestamps in by_customer.items():
        there = _names_there(site, customer)
        gone = [timestamp for timestamp in timestamps if str(timestamp) not in there]
        for start in range(0, len(gone) if there else 0, _SNAPSHOTS):
            yield customer, gone[start : start + _SNAPSHOTS]


def _names_there(site: Site, customer: str) -> frozenset[str]:
    """The folders of known snapshots that are there; none when nothing can be said.

    A folder without a single known snapshot proves nothing: it may be where a disk is not mounted.
    """
    try:
        names = list_names(site.settings.dataset.base_path / customer)
    except NotReadable:
        return frozenset()
    return names & read_known(site, [customer]).timestamps.get(customer, set())
