"""Room: what a load needs before it may start, each need with its sum, so that it never fails half-way."""

from __future__ import annotations

from bgdeploy.jobs import lineage
from bgdeploy.jobs.rows import Row, jobs, select_jobs
from bgdeploy.jobs.states import State
from bgdeploy.memory import find_free
from bgdeploy.site import Site
from bgdeploy.snapshots.duck import memory_to_compare
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Need


def find_needs(site: Site, job: Row, snapshot: Snapshot) -> list[Need]:
    """Return what loading this job's snapshot takes beside all that exists and all that runs."""
    with site.store.read() as connection:
        running = [row["database"] for row in select_jobs(connection, jobs.c.state == State.LOADING)]
        others = [row for row in lineage.kept_databases(connection) if row["job_id"] != job["id"]]
    return [*site.target.plan(snapshot, running), *_slots(site, len(others)), *_proof(snapshot)]


def _slots(site: Site, others: int) -> list[Need]:
    limit = site.settings.max_databases
    if limit is None:
        return []
    words = f"databases: {others} exist + 1 to load = {others + 1}, max_databases is {limit}"
    return [Need("databases", others + 1, limit, words)]


def _proof(snapshot: Snapshot) -> list[Need]:
    """Memory to compare every value, where a row group is so large that it takes more than is usual."""
    needed, largest = memory_to_compare(snapshot)
    if largest is None:
        return []
    free = find_free()
    words = f"memory to compare {largest.path}, a whole row group at once: {needed:,} MiB, {free >> 20:,} MiB are free"
    return [Need("memory", needed << 20, free, words)]
