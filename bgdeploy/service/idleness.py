"""Idleness: telling a job that nobody works on from one that waits for something."""

from __future__ import annotations

import sqlalchemy as sa

from bgdeploy.jobs.rescue import is_free
from bgdeploy.jobs.rows import Row, jobs
from bgdeploy.jobs.states import State
from bgdeploy.pipeline.admit import judge_now, look_at
from bgdeploy.pipeline.claim import peek
from bgdeploy.service.processes import nobody_works
from bgdeploy.service.worker import claim_rules
from bgdeploy.site import Site

IDLE = 5.0  # seconds for which a worker that runs lets no claimable job lie untouched


def find_idleness(site: Site, job: Row) -> str | None:
    """Return in words that nobody has done what could have been done; None where the job rightly waits.

    To be asked while no lease is held: whoever loads something else has no hand free.
    """
    state, now = State(job["state"]), site.clock()
    untouched = now - job["updated_at"]
    if now - max(job["updated_at"], job["not_before"]) < IDLE:
        return None
    if state == State.DISCOVERED:
        return _find_late_scan(site, job)
    if state == State.QUEUED and not _is_claimable(site):
        return None  # it waits its turn, behind one that is put off or still settles
    if state == State.LOADED and job["reason_code"] is not None:
        return None  # the reason says why it does not go live
    return f"no worker has touched it for {untouched:,.0f} s"


def _is_claimable(site: Site) -> bool:
    """True where the next worker to come by would take a job, and could have for a while."""
    due = site.clock() - IDLE
    found = peek(site.store, claim_rules(site), now=due)
    return found is not None and found["updated_at"] <= due


def _find_late_scan(site: Site, job: Row) -> str | None:
    """A folder that is complete, and that nobody has looked at since it is."""
    settle = site.settings.dataset.settle_seconds
    late = site.clock() - max(job["updated_at"], (job["fingerprint_at"] or 0.0) + settle)
    if late < max(IDLE, site.settings.orchestrator.scan_interval):
        return None
    if judge_now(site, job, look_at(site, job)).state != "ready":
        return None
    return f"it is complete by now, and nobody has scanned for {late:,.0f} s"


def find_absence(site: Site) -> str:
    """Say so when nobody is there who would scan and load; nothing where somebody is, or may be."""
    with site.store.read() as connection:
        held = connection.execute(sa.select(jobs).where(jobs.c.lease_owner.is_not(None))).mappings().all()
    if any(not is_free(row, site.clock()) for row in held) or not nobody_works(site.settings.database_path):
        return ""
    return (
        "no bgdeploy that scans and loads is running here, and nothing moves until one does. "
        "Start it with: bgdeploy serve, or once: bgdeploy run"
    )
