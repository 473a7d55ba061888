"""Presence: a process that works has a row of its own, renews it while it lives, and says goodbye.

A lease's holder is found by ``owner``, which both have. The rounds of the housekeeping and the supervisors of loads
give a sign of life, each when it comes by: so a process is silent only once all of them hang. No sign is ever in the
way of the work: it waits for a lock but a moment, and one that cannot be written is left out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from bgdeploy.clock import monotonic, since
from bgdeploy.jobs.lease import RENEW_EVERY, known_dead
from bgdeploy.jobs.models import processes
from bgdeploy.jobs.store import update_where
from bgdeploy.jobs.transitions import Row, jobs
from bgdeploy.plain import LONGEST, tidy
from bgdeploy.site import Site

Role = Literal["serve", "work", "run"]
EVERY = 10.0  # seconds between two signs of life at most, where leases are not shorter than a minute
QUICKEST = 1.0  # seconds
PATIENCE = 0.5  # seconds that a sign waits for a lock
GOODBYE = 5.0  # seconds that the last one waits
MOST = 100  # rows of processes that are over
LONG = 7 * 86_400.0  # seconds after which they go; the last one stays, since it tells since when nobody works
GONE = "ended without a word"
_BEAT = update_where(processes, "owner")
_HERE: dict[str, Presence] = {}  # by owner: those of this process


@contextmanager
def present(site: Site, role: Role, workers: int) -> Iterator[None]:
    """Be on record as one that works, for as long as the block lasts; ``beat`` renews it meanwhile."""
    from importlib.metadata import version  # late: commands that look need not pay for it

    host, pid, born, _ = site.owner.split("/")
    told = {"host": host, "pid": int(pid), "born": born, "version": version("bgdeploy")}
    mine = _HERE[site.owner] = Presence(site, {**told, "role": role, "workers": workers})
    mine.beat()
    words = "stopped"
    try:
        yield
    except BaseException as error:
        words = tidy(f"ended by {type(error).__name__}: {error}", LONGEST)
        raise
    finally:
        _HERE.pop(site.owner, None)
        mine.say_goodbye(words)


def beat(owner: str) -> None:
    """Give a sign of life where one is due; never raises, and does nothing for a process that is not on record."""
    mine = _HERE.get(owner)
    if mine is not None:
        mine.beat()


@dataclass
class Presence:
    """The row of one process, in its own hands."""

    site: Site
    about: dict[str, Any]
    beaten: float = float("-inf")  # monotonic
    over: bool = False
    turn: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        orchestrator = self.site.settings.orchestrator
        often = min(EVERY, orchestrator.lease_seconds * RENEW_EVERY)
        self.about["beat_seconds"] = max(QUICKEST, often, orchestrator.watch_interval)
        self.about["started_at"] = self.site.clock()

    def beat(self) -> None:
        """Write that it lives; whichever thread comes first does it, and no other waits for that."""
        if monotonic() - self.beaten < self.about["beat_seconds"] or not self.turn.acquire(blocking=False):
            return
        try:
            if not self.over:
                self.beaten = monotonic()
                self._write(PATIENCE, stopped_at=None, last_words=None)
        finally:
            self.turn.release()

    def say_goodbye(self, words: str) -> None:
        """Write that it ends; no sign of life follows. One that hangs in the disk keeps nobody from ending."""
        self.over = True
        if self.turn.acquire(timeout=GOODBYE):
            self._write(GOODBYE, stopped_at=self.site.clock(), last_words=words)
            self.turn.release()

    def _write(self, patience: float, **changes: Any) -> None:
        changes["seen_at"] = self.site.clock()
        try:
            with self.site.store.write(patience=patience) as connection:
                found = connection.execute(_BEAT, {"of_owner": self.site.owner, **changes})
            if found.rowcount == 0:
                self._register(changes)
        except Exception:  # the edge of a sign of life: whatever fails, a load must not end for it
            return  # who reads the row sees for how long it is silent

    def _register(self, changes: dict[str, Any]) -> None:
        """Be on record; who comes also says so of those of this host that ended without a word, and forgets the oldest."""
        with self.site.store.read() as connection:
            known = connection.execute(sa.select(processes)).mappings().all()
            holders = set(connection.execute(sa.select(jobs.c.lease_owner)).scalars())
        dead = [row["owner"] for row in known if row["stopped_at"] is None and known_dead(row["owner"])]
        past = find_past(known, {*holders} - {*dead}, now=self.site.clock())
        with self.site.store.write() as connection:
            ended = {"stopped_at": processes.c.seen_at, "last_words": GONE}
            connection.execute(processes.update().where(processes.c.owner.in_(dead)).values(**ended))
            connection.execute(processes.delete().where(processes.c.owner.in_(past)))
            connection.execute(processes.insert().values(owner=self.site.owner, **self.about, **changes))


def find_past(known: Sequence[Row], holders: set[str], *, now: float) -> list[str]:
    """The owners of rows that may go: over for long, or beyond the newest of those that are over. Pure."""
    over = [
        row
        for row in sorted(known, key=lambda row: -row["seen_at"])
        if row["owner"] not in holders
        and (row["stopped_at"] is not None or since(row["seen_at"], now) > LONG)
    ]
    return [
        row["owner"]
        for number, row in enumerate(over)
        if number >= MOST or (number and since(row["seen_at"], now) > LONG)
    ]
