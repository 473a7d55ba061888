"""Commands that hold something, and let it go again: pin, unpin, pause, resume."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from bgdeploy.cli import complete, options, output
from bgdeploy.cli.context import EXAMPLES, whoami
from bgdeploy.cli.options import Name

Database = Annotated[
    str | None,
    typer.Option(
        callback=options.filled,
        metavar="DATABASE",
        help="This one instead of what is live.",
        autocompletion=complete.databases,
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (pin, unpin, pause, resume):
        app.command(epilog=EXAMPLES[command.__name__])(command)


def pin(context: typer.Context, customer: Name, database: Database = None) -> None:
    """Keep a database for good: never dropped until it is unpinned."""
    output.guarded(lambda: _pin(context, customer, database))


def _pin(context: typer.Context, customer: str, database: str | None) -> None:
    name = context.obj.api().pin(customer, database, who=whoami()).database
    print(f"{name} is pinned; let it go with: bgdeploy unpin {shlex.quote(customer)} --database {name}")


def unpin(context: typer.Context, customer: Name, database: Database = None) -> None:
    """Let a pinned database go the way of the others."""
    output.guarded(lambda: _unpin(context, customer, database))


def _unpin(context: typer.Context, customer: str, database: str | None) -> None:
    name = context.obj.api().unpin(customer, database, who=whoami()).database
    print(f"{name} is not pinned any more, and goes once newer ones are kept; see: bgdeploy customers")


def pause(
    context: typer.Context,
    customer: Name,
    reason: options.Reason = "asked for",
) -> None:
    """Load and switch nothing for this customer until resumed.

    What is live stays live, a load that runs goes on to its end, and new snapshots are still found and queued.
    """
    output.guarded(lambda: _pause(context, customer, reason))


def _pause(context: typer.Context, customer: str, reason: str) -> None:
    context.obj.api().pause(customer, who=whoami(), why=reason)
    print(f"{customer} is paused; go on with: bgdeploy resume {shlex.quote(customer)}")


def resume(context: typer.Context, customer: Name) -> None:
    """End a pause; or take a removed customer back.

    A customer that was removed comes back once its databases are gone, for snapshots that come later.
    """
    output.guarded(lambda: _resume(context, customer))


def _resume(context: typer.Context, customer: str) -> None:
    context.obj.api().resume(customer, who=whoami())
    waiting = f"bgdeploy jobs list --customer {shlex.quote(customer)} --state queued --state loaded"
    print(f"{customer} goes on; what waits: {waiting}")
