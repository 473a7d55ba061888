"""Time full lives of jobs on a target that does nothing, beside bare commits and DBOS's durable workflows.

usage: python -m benchmarks.jobs [--customers 10] [--snapshots 5] [--rounds 15] [--profile FILE]

A life goes from discovered to cleaned, each transition with its event, through the functions that
``serve`` calls; the job table commits with ``synchronous=FULL``. Beside it, in the same rounds: as many
bare commits of sqlite3 with the same settings, and workflows of five steps of DBOS on SQLite (which
needs ``pip install --group bench``). Ratios count; the machine does not.
"""

from __future__ import annotations

import argparse
import cProfile
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from bgdeploy.config import load_settings
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.transitions import jobs
from bgdeploy.pipeline import clean, load, scan, switch
from bgdeploy.pipeline.claim import Rules, claim, peek
from bgdeploy.site import Site, open_site
from tests.pipeline.fake import FakeTarget

FIRST = 1_700_000_000
RULES = Rules(keep_databases=2, latest_only=False, settle_seconds=0, max_concurrent_loads=None)
PEOPLE = pa.table({"nodeId": ["p1", "p2"], "labels": ["Person", "Person"], "name": ["Ada", "Bo"]})
COUNTS: dict[str, Any] = {"labels": {"Person": 2}, "types": {}}


def make_site(folder: Path) -> Site:
    """An installation whose databases are names in memory; a folder is ready at the first look."""
    (folder / "data").mkdir(parents=True)
    settings = load_settings(overrides={
        "state_dir": str(folder / "state"),
        "dataset.base_path": str(folder / "data"),
        "dataset.settle_seconds": 0,
        "orchestrator.drop_grace_seconds": 0,
    })  # fmt: skip
    site = open_site(settings)
    return Site(settings, site.store, FakeTarget(), site.owner)


def drop(site: Site, customers: int, first: int, snapshots: int) -> None:
    for customer in range(customers):
        for number in range(snapshots):
            folder = (
                site.settings.dataset.base_path / f"customer-{customer:03d}" / str(FIRST + first + number)
            )
            place = folder / "nodes/Person/part-0.parquet"
            place.parent.mkdir(parents=True)
            pq.write_table(PEOPLE, place)


def load_next(site: Site) -> bool:
    """What a worker does, without a process for the load."""
    job = peek(site.store, RULES, now=site.clock())
    if job is None:
        return False
    taken = claim(
        site.store, RULES, job_id=job["id"], owner=site.owner, now=site.clock(), lease_seconds=60,
        settings={}, existing={found.name for found in site.target.databases()},
    )  # fmt: skip
    assert taken is not None
    site.target.whole.add(taken["database"])  # type: ignore[attr-defined]
    with site.transaction(Actor.WORKER) as tx:
        load.finish(tx, taken, counts=COUNTS)
    return True


def live(site: Site) -> None:
    """Scan once, then load, switch and clean until nothing is left to do."""
    scan.scan(site)
    while load_next(site):
        switch.switch_ready(site)
        clean.clean(site)


def count_lives(site: Site) -> int:
    with site.store.read() as connection:
        return len(connection.execute(sa.select(jobs.c.id).where(jobs.c.state == State.CLEANED)).all())


def warm_up(folder: Path, customers: int) -> Site:
    """An installation in which every customer has something live and a standby."""
    site = make_site(folder)
    drop(site, customers, 0, 2)
    live(site)
    return site


def measure_lives(site: Site, customers: int, number: int, snapshots: int) -> tuple[float, int, int]:
    """Return seconds, lives that ended, and commits, of one round."""
    drop(site, customers, 2 + number * snapshots, snapshots)
    before, commits = count_lives(site), count_commits(site)
    took = timed(lambda: live(site))
    lives = count_lives(site) - before
    assert lives == customers * snapshots, lives
    return took, lives, commits[0]


def count_commits(site: Site) -> list[int]:
    """A list whose only member counts the write transactions from now on."""
    count = [0]

    def add(_: object) -> None:
        count[0] += 1

    sa.event.listen(site.store._writer, "commit", add)
    return count


def open_bare(path: Path) -> Callable[[int], float]:
    """Return what makes so many commits of one small row each and says how long it took."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")

    def commit(count: int) -> None:
        for _ in range(count):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO rows (text) VALUES ('x')")
            connection.execute("COMMIT")

    return lambda count: timed(lambda: commit(count))


def open_dbos(folder: Path) -> Callable[[int], float] | None:
    """Return what runs so many workflows of five steps and says how long; None without DBOS."""
    try:
        from dbos import DBOS
    except ImportError:
        return None
    url = f"sqlite:///{folder}/dbos.sqlite"
    DBOS(
        config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "run_admin_server": False}
    )

    @DBOS.step()
    def step(number: int) -> int:
        return number

    @DBOS.workflow()
    def workflow() -> int:
        return sum(step(number) for number in range(5))

    DBOS.launch()
    workflow()
    return lambda count: timed(lambda: [workflow() for _ in range(count)])


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def show(what: str, ratios: list[float], goal: float) -> None:
    middle = statistics.median(ratios)
    verdict = "met" if middle >= goal else "MISSED"
    print(f"{what}: {middle:.2f} x ({min(ratios):.2f} to {max(ratios):.2f}); goal >= {goal:g}: {verdict}")


def measure(folder: Path, customers: int, snapshots: int, rounds: int) -> None:
    """Short rounds in turn: what else the machine does meets all of them alike."""
    site, bare, workflows = (
        warm_up(folder / "site", customers),
        open_bare(folder / "bare.db"),
        open_dbos(folder),
    )
    against_bare, against_dbos = [], []
    for number in range(rounds):
        took, lives, commits = measure_lives(site, customers, number, snapshots)
        alone = bare(commits)
        against_bare.append(alone / took)
        line = f"{lives} lives {lives / took:.0f}/s, {commits / lives:.2f} commits each; bare {commits / alone:.0f}/s"
        if workflows is not None:
            rate = lives / workflows(lives)
            against_dbos.append(lives / took / rate)
            line += f"; DBOS {rate:.0f} workflows/s"
        print(line, flush=True)
    show("lives against as many bare commits", against_bare, 0.4)
    if against_dbos:
        show("lives against DBOS's five-step workflows", against_dbos, 2.5)
    else:
        print("DBOS is not installed: pip install --group bench")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--customers", type=int, default=10)
    parser.add_argument("--snapshots", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--profile", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bgdeploy-jobs-"))
    try:
        if given.profile:
            profile = cProfile.Profile()
            site = warm_up(folder / "site", given.customers)
            drop(site, given.customers, 2, given.snapshots)
            profile.runcall(live, site)
            profile.dump_stats(given.profile)
        else:
            measure(folder, given.customers, given.snapshots, given.rounds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
