"""Picking: which lines of a listing are wanted, in which order, and from where on.

Long listings are paged by key: a page begins after the line that the page before ended with, so a line
that is added or removed meanwhile moves no other, and the thousandth page costs what the first does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from bgdeploy.errors import NotFound
from bgdeploy.jobs.rows import Row, jobs
from bgdeploy.pipeline.moves import switches
from bgdeploy.service.results import Customer

Columns = Mapping[str, sa.ColumnElement[Any]]

# What each listing can be sorted by; ids are given in the order of creation.
JOB_ORDERS: Columns = {
    "created": jobs.c.id,
    "updated": jobs.c.updated_at,
    "customer": jobs.c.customer,
    "snapshot": jobs.c.timestamp,
    "rows": sa.func.coalesce(jobs.c.rows_expected, 0),
}
SWITCH_ORDERS: Columns = {
    "at": switches.c.id,
    "customer": switches.c.customer,
    "took": sa.func.coalesce(switches.c.took_ms, 0.0),
}


def _rows(one: Customer) -> int | None:
    if one.counts is None:
        return None
    return sum(sum(one.counts.get(kind, {}).values()) for kind in ("labels", "types"))


CUSTOMER_ORDERS: Mapping[str, Callable[[Customer], Any]] = {
    "customer": lambda one: one.customer,
    "since": lambda one: one.live_since,
    "snapshot": lambda one: one.snapshot_timestamp,
    "rows": _rows,
}
CUSTOMER_STATES = ("live", "standby", "none", "paused", "failed", "trouble")


@dataclass(frozen=True)
class Page:
    """What is wanted of a listing: ``since`` <= time < ``until`` (seconds since 1970), ``before``: id of the
    line that the page before ended with, ``sort``: a name of its orders, with ``-`` from the greatest down."""

    limit: int = 50
    since: float | None = None
    until: float | None = None
    before: int | None = None
    sort: str = ""


def select_page(
    connection: sa.Connection,
    table: sa.Table,
    page: Page,
    *where: sa.ColumnElement[bool],
    time: sa.ColumnElement[Any],
    orders: Columns,
) -> Sequence[Row]:
    """Return the rows of one page; raises NotFound where the line it goes on from is no more."""
    down = page.sort.startswith("-")
    column = orders[page.sort.removeprefix("-")]
    keys = [column] if column is table.c.id else [column, table.c.id]
    wanted = sa.select(table).where(*where, *_times(time, page))
    if page.before is not None:
        last = _key_of(connection, table, keys, page.before)
        here = sa.tuple_(*keys)
        wanted = wanted.where(here < last if down else here > last)
    order = [key.desc() if down else key.asc() for key in keys]
    return connection.execute(wanted.order_by(*order).limit(page.limit)).mappings().all()


def _times(time: sa.ColumnElement[Any], page: Page) -> list[sa.ColumnElement[bool]]:
    since = [] if page.since is None else [time >= page.since]
    return since + ([] if page.until is None else [time < page.until])


def _key_of(connection: sa.Connection, table: sa.Table, keys: Sequence[Any], line: int) -> Sequence[Any]:
    if len(keys) == 1:
        return (line,)
    found = connection.execute(sa.select(*keys).where(table.c.id == line)).one_or_none()
    if found is None:
        raise NotFound(f"There is no line {line} to go on from.", cure="Begin anew, without --before.")
    return tuple(found)


def pick_customers(
    found: Sequence[Customer], *, states: Sequence[str] = (), text: str = "", sort: str = "customer"
) -> list[Customer]:
    """Return those in any of these states whose name holds ``text``, sorted; who has no value comes last."""
    picked = [one for one in found if text in one.customer and (not states or _is_any(one, states))]
    down, key = sort.startswith("-"), CUSTOMER_ORDERS[sort.removeprefix("-")]
    with_value = [one for one in picked if key(one) is not None]
    with_value.sort(key=key, reverse=down)
    return with_value + [one for one in picked if key(one) is None]


def _is_any(one: Customer, states: Sequence[str]) -> bool:
    is_in = {
        "live": one.live is not None,
        "standby": one.standby is not None,
        "none": one.live is None,
        "paused": one.paused,
        "failed": one.failed is not None,
        "trouble": one.trouble is not None,
    }
    return any(is_in[state] for state in states)
