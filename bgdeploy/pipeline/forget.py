"""Forget: old snapshot folders are removed, and the job table forgets what is over, where the configuration says so.

``expire`` removes folders, ``prune`` rows, a little at a time; switches stay for ever. A folder first gets a hidden name beside it, which can be taken back; then the job table is asked once
more, and only what is still over is removed. So neither a reload that comes in between nor a crash at
any moment can cost a snapshot that somebody needs.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from bgdeploy.clock import iso
from bgdeploy.errors import NotReadable
from bgdeploy.failpoints import reach
from bgdeploy.jobs.lineage import FINISHED, find_old, find_old_jobs, find_over, forget
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.transitions import Row, Tx, databases, events, get_job, jobs, load_tables
from bgdeploy.pipeline.scan import read_known
from bgdeploy.site import Site
from bgdeploy.snapshots.folders import list_customers, list_names, list_timestamps, remove_tree
from bgdeploy.snapshots.readiness import fingerprint

_DAY = 86_400.0
_HIDDEN = re.compile(r"\.([1-9][0-9]*)\.expired")
_TOLD = sa.select(events.c.id).where(
    events.c.job_id == sa.bindparam("job_id"), events.c.kind == "expire.removed"
)


@dataclass
class Expired:
    """What went, and what was old enough and stays, with the reason."""

    removed: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Home:
    """One customer's folder, held open: nothing in it is reached by a path that a link could bend."""

    site: Site
    customer: str
    path: Path
    handle: int
    expired: Expired
    go_on: Callable[[], bool]


def expire(site: Site, go_on: Callable[[], bool] = lambda: True) -> Expired:
    """Remove the snapshot folders that are older than ``dataset.expire_days`` and needed by nothing.

    Only folders named by a timestamp, never the newest of a customer, never one through a link, and
    only those whose jobs all have ended and of which no database is kept. Any number of processes may
    do it at once; ``go_on`` is asked before each file. A customer that cannot be listed keeps all.
    """
    expired, days = Expired(), site.settings.dataset.expire_days
    if days is None:
        return expired
    base = site.settings.dataset.base_path
    try:
        names = [found.name for found in list_customers(base) if found.skipped is None]
    except NotReadable as error:
        expired.left.append((str(base), error.what))
        return expired
    for name in names:
        if go_on():
            _expire_customer(site, name, site.clock() - days * _DAY, expired, go_on)
    return expired


def _expire_customer(
    site: Site, name: str, before: float, expired: Expired, go_on: Callable[[], bool]
) -> None:
    path = site.settings.dataset.base_path / name
    try:
        with _opened(path) as handle:
            home = Home(site, name, path, handle, expired, go_on)
            for leftover in filter(None, map(_HIDDEN.fullmatch, list_names(path))):
                _settle(home, int(leftover[1]))
            for over in _find_expired(home, before):
                _remove(home, over)
    except (OSError, NotReadable) as error:
        expired.left.append((name, str(error)))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A folder, but not what a link leads to."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


def _find_expired(home: Home, before: float) -> list[Row]:
    """The snapshots that may go, oldest first; never the newest."""
    site = home.site
    timestamps = sorted(list_timestamps(home.path, now=site.clock()).timestamps)[:-1]
    old = [timestamp for timestamp in timestamps if timestamp < before]
    if not old:
        return []
    with site.store.read() as connection:
        over = find_over(connection, home.customer, old)
    return sorted(over, key=lambda row: row["timestamp"])


def _remove(home: Home, over: Row) -> None:
    timestamp = over["timestamp"]
    try:
        obstacle = _obstacle(home, over)
        if obstacle is None:
            reach("expire.decided")
            if home.go_on() and _move(home, str(timestamp), _hidden(timestamp)):
                reach("expire.hidden")
                _settle(home, timestamp)
    except OSError as error:
        obstacle = str(error)
    if obstacle is not None:
        home.expired.left.append((f"{home.customer}/{timestamp}", obstacle))


def _obstacle(home: Home, over: Row) -> str | None:
    """Why a folder stays although it is old and over: it is no plain folder, or somebody changed it."""
    path = home.path / str(over["timestamp"])
    status = os.stat(path.name, dir_fd=home.handle, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        return "it is a link"
    look = fingerprint(path)
    with home.site.store.read() as connection:
        job = get_job(connection, over["newest"])
    is_other = job["loaded_at"] is not None and look.text != job["fingerprint"]
    is_newer = max(status.st_mtime, look.newest_mtime / 1e9) > over["ended_at"]
    if over["changed"] or is_other or is_newer:
        return "it is not as it was when its job ended; remove it by hand"
    return None


def _hidden(timestamp: int) -> str:
    return f".{timestamp}.expired"


def _move(home: Home, name: str, to: str) -> bool:
    """Rename a folder inside its home, durably; False where another process was faster."""
    try:
        os.rename(name, to, src_dir_fd=home.handle, dst_dir_fd=home.handle)
    except FileNotFoundError:
        return False
    os.fsync(home.handle)
    return True


def _settle(home: Home, timestamp: int) -> None:
    """Remove a hidden folder where its snapshot is still over, else give it its name back."""
    name = f"{home.customer}/{timestamp}"
    hidden = _hidden(timestamp)
    if not _is_folder(home, hidden):
        return
    with home.site.transaction(Actor.CLEANER) as tx:
        # one writer: another store needs a lock on the snapshot that a reload takes too
        over = find_over(tx.connection, home.customer, [timestamp])
        if over:
            _record(tx, get_job(tx.connection, over[0]["newest"]), home.site.settings.dataset.expire_days)
    if over:
        reach("expire.recorded")
        if remove_tree(hidden, home.handle, home.go_on):
            home.expired.removed.append(name)
    elif _is_folder(home, str(timestamp)):
        home.expired.left.append(
            (f"{home.customer}/{hidden}", f"{timestamp} is there anew; remove it by hand")
        )
    elif _move(home, hidden, str(timestamp)):
        home.expired.left.append((name, "it is needed again"))


def _is_folder(home: Home, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=home.handle, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _record(tx: Tx, job: Row, days: int | None) -> None:
    """Say it once, also where two processes remove one folder."""
    if tx.connection.execute(_TOLD, {"job_id": job["id"]}).first() is None:
        tx.say("expire.removed", job, days=days)


AT_ONCE = 500  # rows that go in one transaction, so that nobody waits long for the job table
_SNAPSHOTS = 20  # snapshots whose jobs go in one transaction

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
