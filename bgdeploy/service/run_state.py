"""One claimed job in a worker's hands, and how it is written to the job table with patience."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bgdeploy import log
from bgdeploy.errors import LeaseLost, StoreError, StoreFull, StoreLost
from bgdeploy.jobs.ballast import free_ballast
from bgdeploy.jobs.lease import KILL_CHILD
from bgdeploy.jobs.rows import Row, Tx
from bgdeploy.jobs.states import Actor
from bgdeploy.service.heartbeat import Heartbeat
from bgdeploy.site import Site
from bgdeploy.snapshots.readiness import Fingerprint

Result = TypeVar("Result")


@dataclass
class Run:
    """One claimed job in this worker's hands; ``job`` is the row as last committed."""

    site: Site
    job: Row
    heart: Heartbeat
    told_at: float = 0.0  # when progress was last logged
    noted_at: float = 0.0  # when rows on their way were last written down
    seen: Fingerprint | None = None  # what the folder looked like when this run began


def persist(run: Run, act: Callable[[Tx], Result], *, ends: bool = False) -> Result:
    """Write with patience: a locked or full job table is waited for until the lease runs out.

    ``act`` may be called several times, since a commit may fail: it changes nothing but the job table, and
    the caller takes over what it returns. Only the write that ``ends`` a load gives the reserve up: all that a load notes on its way would
    soon use it up, and a rollback lives on it.
    """
    while True:
        try:
            with run.site.transaction(Actor.WORKER) as tx:
                return act(tx)
        except StoreLost:
            raise  # waiting brings nothing back
        except StoreError as error:
            if ends and isinstance(error, StoreFull) and free_ballast(run.site.store.path.parent):
                log.emit("store.full")
            if run.heart.lease.share_used() >= KILL_CHILD or run.heart.lost:
                raise LeaseLost(f"The job table was out of reach for too long: {error.what}") from error
            run.heart.stop.hurry.wait(0.2)
