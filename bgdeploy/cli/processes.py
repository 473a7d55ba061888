"""``processes``: who works, on any host that shares the job table, what each does, and who did before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from bgdeploy.cli import listing, output
from bgdeploy.cli.context import EXAMPLES
from bgdeploy.cli.options import AsJson
from bgdeploy.cli.output import Table, ago
from bgdeploy.cli.tables import Shape

if TYPE_CHECKING:
    from bgdeploy.service.results import Process

COLUMNS = ("process", "runs", "state", "last seen", "started", "version", "what")
NARROW = Shape(text=("what",), spare=("version", "started"))
_HERE = {True: "it lives", False: "it is gone", None: "not to be seen from here"}


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog=EXAMPLES["processes"])(processes)


def processes(context: typer.Context, as_json: AsJson = False) -> None:
    """Show who works: each serve, work and run, newest first.

    working holds jobs, idle waits for one. silent has missed three signs of life: it hangs, is frozen, or ended where
    that cannot be seen from here; its jobs are its own until their leases end. stopped is over, "what" says how.
    """
    output.guarded(lambda: _processes(context, as_json))


def _processes(context: typer.Context, as_json: bool) -> None:
    api = context.obj.api()
    listing.tell_absence(api)
    found = api.processes()
    if as_json:
        output.print_json(found)
        return
    empty = "Nobody has worked here so far. Start with: bgdeploy serve, or once: bgdeploy run"
    output.print_it(Table(COLUMNS, [_row(one) for one in found], empty, shape=NARROW))


def _row(one: Process) -> tuple[Any, ...]:
    loads = f"{one.role}, {one.workers} load(s) at a time"
    seen = one.stopped_at if one.silent_seconds is None else f"{ago(one.silent_seconds)} ago"
    what = [f"job {job.job} {job.title} ({job.state}) until {job.lease_expires}" for job in one.jobs]
    what += [one.last_words] if one.last_words else []
    what += [_HERE[one.alive]] if one.state == "silent" else []
    return f"{one.host} pid {one.pid}", loads, one.state, seen, one.started_at, one.version, "; ".join(what)
