"""``run``: scan, then finish all that is or becomes ready, and say how it ended."""

from __future__ import annotations

import threading
from typing import Any

from bgdeploy.clock import monotonic
from bgdeploy.jobs import lineage
from bgdeploy.jobs.rows import Row, customers, jobs, select_jobs
from bgdeploy.jobs.states import State
from bgdeploy.service.serve import serve
from bgdeploy.service.shutdown import Stop
from bgdeploy.site import Site

_MOVING = (State.QUEUED, State.LOADING)


def run(site: Site, stop: Stop, *, workers: int, timeout: float) -> bool:
    """Work until nothing is left that could move by itself; False when the time ran out first."""
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
    if any(_still_moves(row) for row in open_jobs) or any(row["intent"] for row in owners):
        return False
    orchestrator = site.settings.orchestrator
    for customer in owners:
        mine = [row for row in kept if row["customer"] == customer["name"]]
        rules: dict[str, Any] = {
            "keep": orchestrator.keep_databases,
            "grace": orchestrator.drop_grace_seconds,
            "now": site.clock(),
        }
        if lineage.doomed(customer, mine, **rules):
            return False
    return True


def _still_moves(row: Row) -> bool:
    state = State(row["state"])
    if row["lease_owner"] is not None or state in _MOVING:
        return True
    if state is State.DISCOVERED:
        return bool(row["reason"] != "folder gone")
    return (
        state is State.LOADED
        and not row["blocked"]
        and not str(row["reason"]).endswith(f"resume {row['customer']}")
    )
