"""Presence: a process that works has a row of its own, renews it while it lives, and says goodbye.

A lease's holder is found by ``owner``, which both have. A thread that does nothing else gives the signs of life, so that
none is in the way of the work, or depends on how often that comes by: whoever is frozen, dead or out of reach gives none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from bgdeploy import log
from bgdeploy.clock import since
from bgdeploy.jobs.lease import RENEW_EVERY, known_dead
from bgdeploy.jobs.models import processes
from bgdeploy.jobs.store import update_where
from bgdeploy.jobs.transitions import Row, jobs
from bgdeploy.plain import LONGEST, tidy
from bgdeploy.site import Site

Role = Literal["serve", "work", "run"]
EVERY = 10.0  # seconds between two signs of life at most, where leases are not shorter than a minute
QUICKEST = 1.0  # seconds
PATIENCE = 5.0  # seconds that a sign, the last one too, waits for a lock
MOST = 100  # rows of processes that are over
LONG = 7 * 86_400.0  # seconds after which they go; the last one stays, since it tells since when nobody works
GONE = "ended without a word"
_BEAT = update_where(processes, "owner")


@contextmanager
def present(site: Site, role: Role, workers: int) -> Iterator[Presence]:
    """Be on record as one that works, for as long as the block lasts."""
    from importlib.metadata import version  # late: commands that look need not pay for it

    host, pid, born, _ = site.owner.split("/")
    told = {"host": host, "pid": int(pid), "born": born, "version": version("bgdeploy")}
    orchestrator = site.settings.orchestrator
    often = max(QUICKEST, min(EVERY, orchestrator.lease_seconds * RENEW_EVERY))
    about = {**told, "role": role, "workers": workers, "beat_seconds": often, "started_at": site.clock()}
    mine = Presence(site, about)
    mine.beat()
    mine.thread.start()
    words = "stopped"
    try:
        yield mine
    except BaseException as error:
        words = tidy(f"ended by {type(error).__name__}: {error}", LONGEST)
        raise
    finally:
        mine.say_goodbye(words)


@dataclass
class Presence:
    """The row of one process, in its own hands."""

    site: Site
    about: dict[str, Any]
    done: threading.Event = field(default_factory=threading.Event)
    turn: threading.Lock = field(default_factory=threading.Lock)
    told: str = ""  # the trouble that was logged last

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._keep, name="presence", daemon=True)

    def _keep(self) -> None:
        while not self.done.wait(self.about["beat_seconds"]):
            self.beat()

    def beat(self) -> None:
        """Write that it lives; never raises."""
        with self.turn:
            if not self.done.is_set():
                self._write(stopped_at=None, last_words=None)

    def say_goodbye(self, words: str) -> None:
        """Write that it ends; no sign of life follows. One that hangs in the disk keeps nobody from ending."""
        self.done.set()
        if self.turn.acquire(timeout=PATIENCE):
            self._write(stopped_at=self.site.clock(), last_words=words)
            self.turn.release()

    def _write(self, **changes: Any) -> None:
        changes["seen_at"] = self.site.clock()
        try:
            with self.site.store.write(patience=PATIENCE) as connection:
                found = connection.execute(_BEAT, {"of_owner": self.site.owner, **changes})
                if found.rowcount == 0:
                    connection.execute(
                        processes.insert().values(owner=self.site.owner, **self.about, **changes)
                    )
            if found.rowcount == 0:
                self._tidy()
            self.told = ""
        except Exception as error:  # the edge of a sign of life: whatever fails, a load must not end for it
            trouble = f"{type(error).__name__}: {error}"
            if trouble != self.told:  # who reads the row sees for how long it is silent
                log.emit("service.trouble", what="saying who works", error=trouble)
            self.told = trouble

    def _tidy(self) -> None:
        """Who comes says so of those of this host that ended without a word, and forgets the oldest."""
        with self.site.store.read() as connection:
            known = connection.execute(sa.select(processes)).mappings().all()
            holders = set(connection.execute(sa.select(jobs.c.lease_owner)).scalars())
        dead = [row["owner"] for row in known if row["stopped_at"] is None and known_dead(row["owner"])]
        past = find_past(known, {*holders} - {*dead}, now=self.site.clock())
        # No last words are written over that came meanwhile.
        silent = processes.c.owner.in_(dead) & processes.c.stopped_at.is_(None)
        with self.site.store.write(patience=PATIENCE) as connection:
            ended = {"stopped_at": processes.c.seen_at, "last_words": GONE}
            connection.execute(processes.update().where(silent).values(**ended))
            connection.execute(processes.delete().where(processes.c.owner.in_(past)))


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
