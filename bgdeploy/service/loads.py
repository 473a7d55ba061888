"""Loads: what is being loaded now, by any process that shares the job table, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass

from bgdeploy.jobs import ledger
from bgdeploy.jobs.progress import Progress, of_load, of_tables
from bgdeploy.jobs.rows import jobs, select_jobs, title
from bgdeploy.jobs.states import State
from bgdeploy.site import Site


@dataclass(frozen=True)
class Load:
    """One running load: the job as people call it, all of it, and its tables in load order."""

    title: str
    step: str | None
    whole: Progress
    tables: list[Progress]


def running_loads(site: Site) -> list[Load]:
    """Return every running load, oldest job first."""
    now = site.clock()
    with site.store.read() as connection:
        found = [
            (job, ledger.read(connection, job["id"], job["database"]))
            for job in select_jobs(connection, jobs.c.state == State.LOADING, order=(jobs.c.id,))
        ]
    return [
        Load(
            title(job), job["step"], of_load(groups, job["fence"], now), of_tables(groups, job["fence"], now)
        )
        for job, groups in found
    ]
