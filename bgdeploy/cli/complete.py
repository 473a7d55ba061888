"""Shell completion: names from the job table, read quickly, changing nothing, and silent whatever is wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import typer

from bgdeploy.cli.context import Given, read_pairs
from bgdeploy.jobs.states import State

MOST = 200  # proposals
_PATIENCE = 0.5  # seconds
_BEGINS = "substr({column}, 1, length(:begun)) = :begun"
_CUSTOMERS = f"SELECT name, NULL FROM customers WHERE {_BEGINS.format(column='name')} ORDER BY name"
_DATABASES = (
    "SELECT name, NULL FROM databases WHERE dropped_at IS NULL AND drop_at IS NULL AND verified_at IS NOT NULL "
    f"AND (:customer IS NULL OR customer = :customer) AND {_BEGINS.format(column='name')} ORDER BY name DESC"
)
_TIMESTAMPS = (
    "SELECT timestamp, max(state) FROM jobs WHERE (:customer IS NULL OR customer = :customer) "
    f"AND {_BEGINS.format(column='timestamp')} GROUP BY timestamp ORDER BY timestamp DESC"
)
_JOBS = (
    "SELECT id, customer || '/' || timestamp || ' ' || state FROM jobs "
    f"WHERE {_BEGINS.format(column='id')} {{which}} ORDER BY id DESC"
)
_CODES = f"SELECT DISTINCT error_code, NULL FROM jobs WHERE {_BEGINS.format(column='error_code')} ORDER BY 1"

Proposals = list[tuple[str, str]]
Completer = Callable[[typer.Context, str], Proposals]


def _asking(query: str) -> Completer:
    def complete(ctx: typer.Context, incomplete: str) -> Proposals:
        try:
            return _ask(ctx, query, incomplete)
        except (
            Exception
        ):  # the edge of the shell: whatever is wrong, a person in the middle of a line must not see it
            return []

    return complete


def _ask(context: typer.Context, query: str, begun: str) -> Proposals:
    root = context.find_root().params
    given = Given(root.get("config"), read_pairs(root.get("set_") or []))
    path = given.settings().database_path
    # A line that ends in an option without its value is not parsed to its end: what stood there is left over.
    customer = context.params.get("customer") or next(iter(context.args), None)
    binds: dict[str, Any] = {"begun": begun, "customer": customer}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_PATIENCE)) as connection:
        rows = connection.execute(f"{query} LIMIT {MOST}", binds).fetchall()
    return [(str(value), what or "") for value, what in rows]


def among(words: tuple[str, ...]) -> Completer:
    """Return a completer of fixed words."""
    return lambda ctx, incomplete: [(word, "") for word in words if word.startswith(incomplete)]


customers = _asking(_CUSTOMERS)
databases = _asking(_DATABASES)
timestamps = _asking(_TIMESTAMPS)
error_codes = _asking(_CODES)
any_job = _asking(_JOBS.format(which=""))
failed_job = _asking(_JOBS.format(which="AND state = 'failed'"))
open_job = _asking(_JOBS.format(which="AND state IN ('discovered', 'queued', 'loading', 'loaded')"))
states = among(tuple(State))
