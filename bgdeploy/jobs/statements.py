"""Statements, made once: making one takes several times as long as running it."""

from __future__ import annotations

from functools import cache

import sqlalchemy as sa


@cache
def select_where(table: sa.Table, *names: str) -> sa.Select[tuple[object, ...]]:
    """Rows whose columns have the values that are bound as ``<name>``."""
    return sa.select(table).where(*(table.c[name] == sa.bindparam(name) for name in names))


@cache
def update_where(table: sa.Table, *names: str) -> sa.Update:
    """An UPDATE of the rows whose columns have the values bound as ``of_<name>``.

    What else is bound is what changes, by the names of the columns.
    """
    return sa.update(table).where(*(table.c[name] == sa.bindparam(f"of_{name}") for name in names))
