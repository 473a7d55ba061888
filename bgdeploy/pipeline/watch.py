"""The cheap look between two scans: folders that changed, and snapshots that are not ready yet."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import sqlalchemy as sa

from bgdeploy.errors import NotReadable
from bgdeploy.jobs.rows import Row, customers, jobs
from bgdeploy.pipeline.admit import Pending, admit
from bgdeploy.pipeline.known import read_known
from bgdeploy.pipeline.notes import Notes, Report, standing_alone
from bgdeploy.pipeline.scan import scan_customers
from bgdeploy.site import Site
from bgdeploy.snapshots import folders

_RECENT = 2_000_000_000  # ns; within one tick of its clock a folder can change again unseen
_MOST = 1_000  # snapshots that are not ready, looked at in one round; the next round goes on behind them
_DISCOVERED = (
    sa.select(jobs)
    .where(
        jobs.c.state == sa.literal_column("'discovered'"),
        sa.tuple_(jobs.c.customer, jobs.c.timestamp) > sa.tuple_(sa.bindparam("name"), sa.bindparam("after")),
    )
    .order_by(jobs.c.customer, jobs.c.timestamp)
    .limit(_MOST)
)


@dataclass
class Watch:
    """When each folder was last seen to change, and how far the last round came; lives as long as the process.

    Snapshots whose files are still being read stay in ``pending`` until the next look; without it a look waits.
    """

    pending: Pending | None = None
    base: int = 0
    customers: dict[str, int] = field(default_factory=dict)
    behind: tuple[str, int] = ("", 0)


def look(site: Site, watch: Watch) -> Report:
    """Scan the customers whose folder changed, and judge the snapshots that are not ready.

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
    changed = [name for name in watch.customers if _customer_changed(site, watch, name)]
    if changed:
        scan_customers(site, changed, read_known(site, changed), report, watch.pending)
    _judge(site, watch, set(changed), report)
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


def _judge(site: Site, watch: Watch, done: set[str], report: Report) -> None:
    """Look again at what is not ready, but for customers that were scanned just now."""
    notes, pending = Notes(site, report), watch.pending or Pending()
    for customer, waiting in _read_discovered(site, watch):
        if customer["name"] in watch.customers and customer["name"] not in done:
            with standing_alone(customer["name"], report):
                admit(site, customer, waiting, notes, pending)
    pending.take_up(site, notes) if watch.pending else pending.finish(site, notes)
    notes.write()


def _read_discovered(site: Site, watch: Watch) -> Iterable[tuple[Row, list[Row]]]:
    """Some snapshots that are not ready, by customer, beginning behind those of the last round."""
    name, after = watch.behind
    with site.store.read() as connection:
        rows = connection.execute(_DISCOVERED, {"name": name, "after": after}).mappings().all()
        of_them = customers.c.name.in_({row["customer"] for row in rows})
        owners = connection.execute(sa.select(customers).where(of_them)).mappings().all()
    last = rows[-1] if len(rows) == _MOST else None
    watch.behind = ("", 0) if last is None else (last["customer"], last["timestamp"])
    waiting: dict[str, list[Row]] = {}
    for row in rows:
        waiting.setdefault(row["customer"], []).append(row)
    return [(owner, waiting[owner["name"]]) for owner in owners]
