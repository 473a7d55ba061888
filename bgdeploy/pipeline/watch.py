"""The cheap look between two scans: folders that changed, and snapshots that are not ready yet."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import sqlalchemy as sa

from bgdeploy.errors import NotReadable
from bgdeploy.jobs.rows import Row, customers, jobs, select_jobs
from bgdeploy.jobs.states import State
from bgdeploy.pipeline.admit import Report, admit
from bgdeploy.pipeline.scan import Known, read_known, scan_customer, standing_alone
from bgdeploy.site import Site
from bgdeploy.snapshots import folders

_RECENT = 2_000_000_000  # ns; within one tick of its clock a folder can change again unseen


@dataclass
class Watch:
    """When each folder was last seen to change; lives as long as the process."""

    base: int = 0
    customers: dict[str, int] = field(default_factory=dict)


def look(site: Site, watch: Watch) -> Report:
    """Scan the customers whose folder changed, and judge every snapshot that is not ready.

    A folder that cannot be looked at is left to the next scan, which says so.
    """
    report = Report()
    base = site.settings.dataset.base_path
    try:
        if _changed(os.stat(base).st_mtime_ns, watch.base, site.clock()):
            found = {one.name for one in folders.list_customers(base) if not one.skipped}
            watch.customers = {name: watch.customers.get(name, 0) for name in found}
        watch.base = os.stat(base).st_mtime_ns
    except (OSError, NotReadable):
        return report
    waiting = _read_discovered(site)
    known: Known | None = None
    for name in watch.customers:
        if _customer_changed(site, watch, name):
            known = known or read_known(site)
            scan_customer(site, name, known, report)
        elif name in waiting:
            with standing_alone(name, report):
                admit(site, waiting[name][0], waiting[name][1], report)
    return report


def _customer_changed(site: Site, watch: Watch, name: str) -> bool:
    try:
        modified = os.stat(site.settings.dataset.base_path / name).st_mtime_ns
    except OSError:
        return False
    before, watch.customers[name] = watch.customers[name], modified
    return _changed(modified, before, site.clock())


def _changed(modified: int, before: int, now: float) -> bool:
    return modified != before or modified > now * 1e9 - _RECENT


def _read_discovered(site: Site) -> dict[str, tuple[Row, list[Row]]]:
    with site.store.read() as connection:
        rows = select_jobs(connection, jobs.c.state == State.DISCOVERED)
        names = {row["customer"] for row in rows}
        owners = connection.execute(sa.select(customers).where(customers.c.name.in_(names))).mappings().all()
    return {
        owner["name"]: (owner, [row for row in rows if row["customer"] == owner["name"]]) for owner in owners
    }
