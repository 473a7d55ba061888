"""Commands about customers: what is live, moving it, asking it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bgdeploy.cli import output
from bgdeploy.cli.context import EXAMPLES, whoami
from bgdeploy.cli.jobs import AsJson

Name = Annotated[str, typer.Argument(help="A customer's name.")]
To = Annotated[
    str | None, typer.Option("--to", metavar="DATABASE", help="This database instead of the obvious one.")
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (customers, switches, switch, rollback, pause, resume, query):
        app.command(epilog=EXAMPLES[command.__name__])(command)


def customers(context: typer.Context, as_json: AsJson = False) -> None:
    """Show every customer: live, standby, candidate, age."""
    output.guarded(lambda: _customers(context, as_json))


def _customers(context: typer.Context, as_json: bool) -> None:
    from bgdeploy.service.views import capacity_warning, list_customers

    site = context.obj.site()
    found = list_customers(site)
    if as_json:
        output.print_json(found)
    else:
        columns = ("customer", "live", "data age", "standby", "candidate", "rows", "notes")
        output.print_table(
            columns, [_row(one) for one in found], empty="No customers yet. See: bgdeploy scan --once"
        )
    warning = capacity_warning(site)
    if warning:
        typer.echo(f"warning: {warning}", err=True)


def _row(one: dict[str, Any]) -> tuple[Any, ...]:
    counts = one["counts"] or {}
    relationships = sum(counts.get("types", {}).values())
    labels = ", ".join(f"{name} {rows:,}" for name, rows in sorted(counts.get("labels", {}).items())[:4])
    rows = f"{labels}; {relationships:,} relationships" if counts else ""
    notes = [f"TROUBLE: {one['trouble']}"] if one["trouble"] else []
    notes += ["paused"] if one["paused"] else []
    notes += [f"bad: {name}" for name in one["rolled_back"]]
    age = output.ago(one["snapshot_age_seconds"])
    return (
        one["customer"],
        one["live"] or "-",
        age,
        one["standby"] or "-",
        one["candidate"] or "-",
        rows,
        "; ".join(notes),
    )


def switches(
    context: typer.Context,
    customer: Annotated[str | None, typer.Argument(help="Only this customer.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show every move of an alias: from, to, kind, by whom, why."""
    output.guarded(lambda: _switches(context, customer, limit, as_json))


def _switches(context: typer.Context, customer: str | None, limit: int, as_json: bool) -> None:
    from bgdeploy.service.views import list_switches

    found = list_switches(context.obj.site(), customer, limit=limit)
    if as_json:
        output.print_json(found)
        return
    columns = ("at", "customer", "from", "to", "kind", "by", "ms", "why")
    rows = [
        (
            one["at"],
            one["customer"],
            one["source"] or "-",
            one["target"],
            one["kind"],
            one["by"],
            _took(one),
            one["why"],
        )
        for one in found
    ]
    output.print_table(columns, rows, empty="No alias was moved yet.")


def _took(one: dict[str, Any]) -> str:
    return "" if one["took_ms"] is None else f"{one['took_ms']:.1f}"


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


def pause(
    context: typer.Context,
    customer: Name,
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = "asked for",
) -> None:
    """Claim and switch nothing for this customer until resumed."""
    output.guarded(lambda: _pause(context, customer, reason))


def _pause(context: typer.Context, customer: str, reason: str) -> None:
    from bgdeploy.pipeline import switch as stage

    stage.pause(context.obj.site(), customer, why=reason)
    print(f"{customer} is paused; go on with: bgdeploy resume {customer}")


def resume(context: typer.Context, customer: Name) -> None:
    """Take a pause back."""
    output.guarded(lambda: _resume(context, customer))


def _resume(context: typer.Context, customer: str) -> None:
    from bgdeploy.pipeline import switch as stage

    stage.resume(context.obj.site(), customer)
    print(f"{customer} goes on")


def query(
    context: typer.Context,
    customer: Name,
    cypher: Annotated[str, typer.Argument(help="A reading Cypher statement.")],
    as_json: AsJson = False,
) -> None:
    """Ask a customer's live database, read-only, through its alias."""
    output.guarded(lambda: _query(context, customer, cypher, as_json))


def _query(context: typer.Context, customer: str, cypher: str, as_json: bool) -> None:
    from bgdeploy.service.views import alias_of

    site = context.obj.site()
    rows = site.target.query(alias_of(site, customer), cypher)
    if as_json:
        output.print_json(rows)
        return
    columns = list(rows[0]) if rows else []
    output.print_table(columns, [[row[name] for name in columns] for row in rows], empty="No rows.")
