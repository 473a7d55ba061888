"""Commands that move an alias, and the history of its moves: switch, rollback, switches."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgdeploy.cli import complete, listing, options, output
from bgdeploy.cli.context import EXAMPLES, whoami
from bgdeploy.cli.options import AsJson, Asked, Name
from bgdeploy.cli.output import Table
from bgdeploy.cli.tables import Shape

if TYPE_CHECKING:
    from bgdeploy.service.results import Move

NARROW = Shape(text=("why",), spare=("ms", "by", "customer", "from"))  # a database begins with its customer

To = Annotated[
    str | None,
    typer.Option(
        "--to",
        callback=options.filled,
        metavar="DATABASE",
        help="This database; which there are: bgdeploy customers.",
        autocompletion=complete.databases,
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(cls=options.Listing, epilog=EXAMPLES["switches"])(switches)
    for command in (switch, rollback):
        app.command(epilog=EXAMPLES[command.__name__])(command)


def switches(
    context: typer.Context,
    customer: Annotated[
        str | None, typer.Argument(help="Only this customer.", autocompletion=complete.customers)
    ] = None,
    since: options.Since = None,
    until: options.Until = None,
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="By at, customer or took; -at begins with the latest.")
    ] = "-at",
    reverse: options.Reverse = False,
    limit: options.Limit = 50,
    before: options.Before = None,
    watch: options.Watch = None,
    as_json: AsJson = False,
) -> None:
    """Show every move of an alias: from, to, kind, by whom, why."""
    asked = Asked(
        limit=limit,
        every=watch,
        as_json=as_json,
        since=since,
        until=until,
        before=before,
        sort=sort,
        reverse=reverse,
    )
    output.guarded(lambda: _switches(context, customer, asked))


def _switches(context: typer.Context, customer: str | None, asked: Asked) -> None:
    from bgdeploy.service.api import SWITCH_ORDERS

    page, api = asked.page(SWITCH_ORDERS), context.obj.api()
    listing.check_customer(api, customer, asked)
    listing.show(
        lambda: api.switches(customer, page=page),
        lambda found, more: _table(found, listing.next_page(context, found, more)),
        asked,
    )


def _table(found: listing.Lines, foot: str) -> Table:
    columns = ("at", "customer", "from", "to", "kind", "by", "ms", "why")
    empty = "No such move of an alias. What is live: bgdeploy customers"
    return Table(columns, [_row(one) for one in found], empty=empty, foot=foot, shape=NARROW)


def _row(one: Move) -> tuple[Any, ...]:
    took = "" if one.took_ms is None else f"{one.took_ms:.1f}"
    move = (one.source or "-", one.target, one.kind, one.by)
    return one.at, one.customer, *move, took, one.why


def switch(
    context: typer.Context,
    customer: Name,
    to: To = None,
    reason: options.Reason = "asked for",
) -> None:
    """Move the alias to the database that waits, or to that of --to.

    --to is needed for one that was live before, such as the one that a rollback left, and for one that is held
    back for its content, such as too few rows (`bgdeploy jobs list --blocked` says so). Any verified database
    that is still there will do; one that was marked bad is good again then.
    """
    output.guarded(lambda: _switch(context, customer, to, reason))


def _switch(context: typer.Context, customer: str, to: str | None, reason: str) -> None:
    done = context.obj.api().switch(customer, to, who=whoami(), why=reason)
    if not done.moved:
        print(f"{done.database} is live already; nothing was done")
        return
    print(f"{customer} -> {done.database}")
    if done.way_back is None:
        print("there is no way back: nothing else of it that was live is still there")
        return
    print(f"the way back: bgdeploy switch {shlex.quote(customer)} --to {done.way_back}")
    said = f'bgdeploy rollback {shlex.quote(customer)} --reason "..."'
    print(f"or, to mark {done.database} as bad as well: {said}")


def rollback(
    context: typer.Context,
    customer: Name,
    reason: Annotated[
        str | None,
        typer.Option("--reason", metavar="TEXT", help="Why; required, and kept in the history."),
    ] = None,
    to: To = None,
    pause: Annotated[
        bool, typer.Option("--pause", help="Let nothing newer go live until: bgdeploy resume")
    ] = False,
) -> None:
    """Go back to what was live before; mark what it leaves as bad.

    Where that is bad or gone, it goes to the standby. Where something newer goes live at this very moment, it is
    refused: nobody has called that bad. The bad one is kept for a look until something newer is live. It never comes back by itself: `switch --to`
    or `rollback --to` brings it back, and takes the mark away.
    """
    if reason is None:
        example = f'bgdeploy rollback {shlex.quote(customer)} --reason "wrong prices"'
        raise typer.BadParameter(f"say why, for the history: {example}", param_hint="--reason")
    output.guarded(lambda: _rollback(context, customer, to, reason, pause))


def _rollback(context: typer.Context, customer: str, to: str | None, reason: str, pause: bool) -> None:
    done = context.obj.api().rollback(customer, to, who=whoami(), why=reason, pause=pause)
    print(f"{customer} -> {done.database}")
    newer = (
        f"nothing goes live until: bgdeploy resume {shlex.quote(customer)}"
        if pause
        else "the next newer snapshot will go live"
    )
    undo = f"; to undo, and to take the mark of {done.left} away: bgdeploy switch {shlex.quote(customer)} --to {done.left}"
    print(newer + (undo if done.left else ""))
