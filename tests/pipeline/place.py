"""An installation whose databases are names in memory, with a clock in the test's hands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bgdeploy.config import load_settings
from bgdeploy.errors import BadInput
from bgdeploy.jobs.states import Actor
from bgdeploy.jobs.transitions import Row, customers, databases, jobs
from bgdeploy.pipeline import clean, load, scan, switch
from bgdeploy.pipeline.claim import Rules, claim, peek
from bgdeploy.site import Site, open_site
from tests.pipeline.fake import FakeTarget
from tests.snapshots.folders import PEOPLE, write

DAY = 86_400.0
START = 1_800_000_000.0
OLD = 1_700_000_000  # timestamps from here on are years old at the start
RULES = Rules(keep_databases=2, latest_only=False, settle_seconds=0, max_concurrent_loads=None)


@dataclass
class Place:
    """``now`` is the clock of all its processes."""

    folder: Path
    options: dict[str, Any]
    now: float = START
    target: FakeTarget = field(default_factory=FakeTarget)
    counts: dict[str, Any] = field(default_factory=lambda: {"labels": {"Person": 2}, "types": {}})

    def __post_init__(self) -> None:
        (self.folder / "data").mkdir()
        self.site = self.new_process()

    def new_process(self) -> Site:
        options = {
            "state_dir": str(self.folder / "state"),
            "dataset.base_path": str(self.folder / "data"),
            "dataset.settle_seconds": 0,
            "orchestrator.drop_grace_seconds": 0,
            **self.options,
        }
        real = open_site(load_settings(None, options, {}), clock=lambda: self.now)
        return Site(real.settings, real.store, self.target, real.owner, real.clock)

    def path(self, customer: str, timestamp: int) -> Path:
        return self.folder / "data" / customer / str(timestamp)

    def drop(self, customer: str, *timestamps: int) -> None:
        """Write snapshots that look as old as their names say."""
        for timestamp in timestamps:
            folder = write(self.path(customer, timestamp), PEOPLE, marker=False)
            for path in [*folder.rglob("*"), folder]:
                os.utime(path, (timestamp, timestamp))

    def run(self, *, bad: Sequence[int] = ()) -> None:
        """Scan, then load, switch and clean until nothing is left to do; ``bad`` snapshots fail."""
        scan.scan(self.site)
        while self.load_next(bad):
            switch.switch_ready(self.site)
            clean.clean(self.site)

    def load_next(self, bad: Sequence[int] = ()) -> bool:
        job = self.take()
        if job is None:
            return False
        with self.site.transaction(Actor.WORKER) as tx:
            if job["timestamp"] in bad:
                load.fail(tx, job, BadInput("a test says so"))
            else:
                self.target.whole.add(job["database"])
                load.finish(tx, job, counts=self.counts, proof={"compared": "nothing"})
        return True

    def take(self) -> Row | None:
        """Claim what is next."""
        found = peek(self.site.store, RULES, now=self.now)
        if found is None:
            return None
        who = {"owner": self.site.owner, "now": self.now, "lease_seconds": 60.0}
        there = {one.name for one in self.target.databases()}
        return claim(self.site.store, RULES, job_id=found["id"], settings={}, existing=there, **who)

    def live_through(self, customer: str, *timestamps: int) -> None:
        """Drop snapshots one after the other and let each go live: all but the last two are cleaned."""
        for timestamp in timestamps:
            self.drop(customer, timestamp)
            self.run()

    def rows(self, table: sa.Table = jobs, *where: Any) -> list[Row]:
        with self.site.store.read() as connection:
            return list(connection.execute(sa.select(table).where(*where)).mappings().all())

    def states(self, customer: str) -> dict[int, str]:
        return {row["timestamp"]: row["state"] for row in self.rows(jobs, jobs.c.customer == customer)}

    def names(self, customer: str) -> set[str]:
        return {path.name for path in (self.folder / "data" / customer).iterdir()}


__all__ = ["DAY", "OLD", "START", "Place", "customers", "databases", "jobs"]
