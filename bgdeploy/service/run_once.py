"""``run``: scan, then finish all that is or becomes ready, and say how it ended."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bgdeploy.clock import monotonic
from bgdeploy.jobs import lineage
from bgdeploy.jobs.rows import Row, age, customers, jobs, select_jobs
from bgdeploy.jobs.states import State
from bgdeploy.service.serve import serve
from bgdeploy.service.shutdown import Stop
from bgdeploy.site import Site


def run(site: Site, stop: Stop, *, workers: int, timeout: float) -> bool:
    """Work until nothing is left that could move by itself; False when the time ran out first.

    Call it after a scan: what nobody has found yet is not waited for.
    """
    deadline = monotonic() + timeout
    service = threading.Thread(target=serve, args=(site, stop), kwargs={"workers": workers}, name="serve")
    service.start()
    done = False
    while not done and monotonic() < deadline and service.is_alive():
        stop.asked.wait(0.3)
        done = stop.asked.is_set() or _is_finished(site)
    finished = _is_finished(site)
    stop.ask()
    service.join()
    return finished


def _is_finished(site: Site) -> bool:
    with site.store.read() as connection:
        open_jobs = [
            row
            for state in State
            if state != State.CLEANED
            for row in select_jobs(connection, jobs.c.state == state)
        ]
        kept = lineage.kept_databases(connection)
        owners = connection.execute(customers.select()).mappings().all()
    return not any(
        customer["intent"]
        or (customer["removed_at"] and customer["live"])
        or _moves(customer, [row for row in open_jobs if row["customer"] == customer["name"]])
        or _drops(site, customer, [row for row in kept if row["customer"] == customer["name"]])
        for customer in owners
    )


def _moves(customer: Row, open_jobs: Sequence[Row]) -> bool:
    """True while any job of a customer can still get further without a person."""
    paused = customer["paused_at"] is not None
    newest = max((age(row) for row in open_jobs if row["state"] == State.LOADED), default=(0, 0))
    for row in open_jobs:
        match State(row["state"]):
            case State.LOADING:
                return True
            case State.DISCOVERED if row["reason"] != "folder gone":
                return True
            case State.QUEUED if not paused and (row["requested"] or age(row) > newest):
                return True
            case State.LOADED if not paused and not row["blocked"] and age(row) == newest:
                return True  # an older one is dropped, or stays because it is pinned
        if row["lease_owner"] is not None:
            return True
    return False


def _drops(site: Site, customer: Row, kept: Sequence[Row]) -> bool:
    orchestrator = site.settings.orchestrator
    keep, grace = orchestrator.keep_databases, orchestrator.drop_grace_seconds
    return bool(lineage.doomed(customer, kept, keep=keep, grace=grace, now=site.clock()))
