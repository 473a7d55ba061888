"""Floor: what an alias leads to already bounds what may follow, also where the job table never heard of it.

A job table that was lost leaves aliases behind. A name at the target is never enough to own or to drop
anything; it is enough to keep readers from being taken back to what is older.
"""

from __future__ import annotations

from collections.abc import Mapping

from bgdeploy.errors import ConfigError, TargetError
from bgdeploy.jobs.rows import Row, customers
from bgdeploy.jobs.states import Actor
from bgdeploy.naming import read_timestamp
from bgdeploy.site import Site
from bgdeploy.snapshots.folders import why_skipped


def ask_aliases(site: Site) -> Mapping[str, str]:
    """What every alias leads to; nothing while the target cannot be asked, since a first move asks again."""
    try:
        return site.target.aliases()
    except (TargetError, ConfigError):
        return {}


def inherited(customer: str, database: str | None, *, now: float) -> int:
    """Return the ``floor_timestamp`` of a customer whose alias leads there; 0 where the name says nothing.

    With build 0 it lies just below that snapshot, which is loaded anew; all that is older never follows.
    """
    timestamp = read_timestamp(customer, database or "")
    return 0 if timestamp is None or why_skipped(timestamp, now=now) else timestamp


def raise_floor(site: Site, customer: Row, found: str | None) -> None:
    """Give a customer that never had anything live the floor of what its alias leads to."""
    timestamp = inherited(customer["name"], found, now=site.clock())
    if timestamp <= customer["floor_timestamp"]:
        return
    with site.transaction(Actor.WORKER) as tx:
        same = (customers.c.name == customer["name"], customers.c.generation == customer["generation"])
        tx.connection.execute(customers.update().where(*same).values(floor_timestamp=timestamp))
