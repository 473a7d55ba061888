"""Known: what the job table knows at the start of a scan, read at once and no more than a scan needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from bgdeploy.jobs.rows import Row, customers, jobs
from bgdeploy.site import Site

_CUSTOMERS = sa.select(
    customers.c.name,
    customers.c.live,
    customers.c.floor_timestamp,
    customers.c.floor_build,
    customers.c.removed_at,
)
# One text for each customer: a hundred thousand rows would take several times as long to hand over.
_TIMESTAMPS = sa.select(jobs.c.customer, sa.func.group_concat(jobs.c.timestamp).label("names")).group_by(
    jobs.c.customer
)
_COLUMNS = (
    "id", "customer", "timestamp", "build", "state", "fence", "attempt", "requested", "reason_code", "reason_fields",
    "fingerprint", "fingerprint_at", "changed", "error_code",
)  # fmt: skip
_OPEN = sa.select(*(jobs.c[name] for name in _COLUMNS)).where(sa.text("jobs.state <> 'cleaned'"))
_FEW = 100  # customers that are asked for by name


@dataclass(frozen=True)
class Known:
    """Customers, the names of all folders that have a job, and the jobs that are not over."""

    customers: dict[str, Row]
    timestamps: dict[str, set[str]]
    open: dict[str, list[Row]]


def read_known(site: Site, names: Collection[str] | None = None) -> Known:
    """Read what is known of all customers, or of some."""
    if names is not None and len(names) > _FEW:
        names = None
    with site.store.read() as connection:
        people, texts, rows = (
            connection.execute(_of(statement, column, names)).mappings().all()
            for statement, column in (
                (_CUSTOMERS, customers.c.name),
                (_TIMESTAMPS, jobs.c.customer),
                (_OPEN, jobs.c.customer),
            )
        )
    known = Known({row["name"]: row for row in people}, {}, {})
    for row in texts:
        known.timestamps[row["customer"]] = set(row["names"].split(","))
    for row in rows:
        known.open.setdefault(row["customer"], []).append(row)
    return known


def _of(
    statement: sa.Select[tuple[object, ...]], column: sa.ColumnElement[str], names: Collection[str] | None
) -> sa.Select[tuple[object, ...]]:
    return statement if names is None else statement.where(column.in_(names))
