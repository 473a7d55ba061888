"""Commands that move an alias, and the history of its moves: switch, rollback, switches."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bgdeploy.cli import complete, listing, options, output
from bgdeploy.cli.context import EXAMPLES, whoami
from bgdeploy.cli.options import AsJson, Asked, Name
from bgdeploy.cli.output import Table

To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="DATABASE",
        help="This database instead of the obvious one.",
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
    sort: Annotated[str, typer.Option(help="By at, customer or took; with - from the top down.")] = "-at",
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
    from bgdeploy.service.picking import SWITCH_ORDERS
    from bgdeploy.service.views import list_switches

    page, site = asked.page(SWITCH_ORDERS), context.obj.site()
    listing.show(
        lambda: list_switches(site, customer, page=page),
        lambda found, more: _table(found, listing.next_page(context, found, more)),
        asked,
    )


def _table(found: listing.Lines, foot: str) -> Table:
    columns = ("at", "customer", "from", "to", "kind", "by", "ms", "why")
    empty = "No such move of an alias. What is live: bgdeploy customers"
    return Table(columns, [_row(one) for one in found], empty=empty, foot=foot)


def _row(one: dict[str, Any]) -> tuple[Any, ...]:
    took = "" if one["took_ms"] is None else f"{one['took_ms']:.1f}"
    move = (one["source"] or "-", one["target"], one["kind"], one["by"])
    return one["at"], one["customer"], *move, took, one["why"]


def switch(
    context: typer.Context,
    customer: Name,
    to: To = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = "asked for",
) -> None:
    """Move the alias to the database that waits, or to any --to."""
    output.guarded(lambda: _switch(context, customer, to, reason))


def _switch(context: typer.Context, customer: str, to: str | None, reason: str) -> None:
    from bgdeploy.pipeline.switch import switch_by_hand

    wish = switch_by_hand(context.obj.site(), customer, to=to, why=reason, by=whoami())
    print(f"{customer} -> {wish.database}")
    print(f'the way back: bgdeploy rollback {customer} --reason "..."')


def rollback(
    context: typer.Context,
    customer: Name,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the history.")],
    to: To = None,
    pause: Annotated[
        bool, typer.Option("--pause", help="Let nothing newer go live until: bgdeploy resume")
    ] = False,
) -> None:
    """Go back to the standby at once, and mark what it leaves as bad.

    The bad one is kept for a look until something newer is live; only `switch --to` brings it back.
    """
    output.guarded(lambda: _rollback(context, customer, to, reason, pause))


def _rollback(context: typer.Context, customer: str, to: str | None, reason: str, pause: bool) -> None:
    from bgdeploy.pipeline.switch import roll_back

    wish, left = roll_back(context.obj.site(), customer, to=to, why=reason, by=whoami(), pause=pause)
    print(f"{customer} -> {wish.database}")
    newer = (
        f"nothing goes live until: bgdeploy resume {customer}"
        if pause
        else "the next newer snapshot will go live"
    )
    print(newer + (f"; to undo: bgdeploy switch {customer} --to {left}" if left else ""))
