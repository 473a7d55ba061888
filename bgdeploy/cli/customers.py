"""Commands about customers: what is live, and asking it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgdeploy.cli import complete, listing, options, output
from bgdeploy.cli.context import EXAMPLES, whoami
from bgdeploy.cli.options import AsJson, Asked, Name
from bgdeploy.cli.output import Table
from bgdeploy.cli.tables import Shape

if TYPE_CHECKING:
    from bgdeploy.service.results import Customer

CUSTOMER_STATES = ("live", "standby", "none", "paused", "failed", "trouble")
NARROW = Shape(text=("rows", "notes"), spare=("rows", "data age", "standby"))
customers_app = typer.Typer(
    cls=options.ListingGroup,
    invoke_without_command=True,
    no_args_is_help=False,
    rich_markup_mode=None,
    subcommand_metavar="",
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    customers_app.callback(epilog=EXAMPLES["customers"])(customers)
    customers_app.command(epilog=EXAMPLES["remove"])(remove)
    app.add_typer(customers_app, name="customers")
    app.command(epilog=EXAMPLES["query"])(query)


def customers(
    context: typer.Context,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help="Only with: live, standby, none (nothing live), paused, failed (the newest snapshot), trouble; may be given again.",
            autocompletion=complete.among(CUSTOMER_STATES),
        ),
    ] = None,
    customer: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Only names that hold this text.", autocompletion=complete.customers
        ),
    ] = "",
    sort: Annotated[
        str,
        typer.Option(
            metavar="COLUMN", help="By customer, since, snapshot or rows; -rows begins with the most."
        ),
    ] = "customer",
    reverse: options.Reverse = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many.")] = None,
    watch: options.Watch = None,
    as_json: AsJson = False,
) -> None:
    """Show every customer: live, standby, candidate, age.

    Standby is the database to go back to, candidate the one that is loaded or waits to go live.
    """
    if context.invoked_subcommand is None:
        asked = Asked(limit=limit, every=watch, as_json=as_json, sort=sort, reverse=reverse)
        output.guarded(lambda: _customers(context, state or [], customer, asked))


def _customers(context: typer.Context, states: list[str], text: str, asked: Asked) -> None:
    from bgdeploy.service.api import CUSTOMER_ORDERS

    for state in states:
        options.one_of(state, CUSTOMER_STATES, "--state")
    by = options.order(asked.sort, asked.reverse, CUSTOMER_ORDERS)
    api = context.obj.api()
    warning = api.capacity_warning()
    if warning:
        typer.echo(f"warning: {warning}", err=True)
    listing.tell_absence(api)

    def look() -> Sequence[Customer]:
        found: list[Customer] = api.customers(states=states, text=text, sort=by)
        return found

    listing.show(look, lambda found, more: _table(context, found, more), asked)


def _table(context: typer.Context, found: listing.Lines, more: bool) -> Table:
    columns = ("customer", "live", "data age", "standby", "candidate", "rows", "notes")
    empty = "No such customers. Find snapshots with: bgdeploy scan --once"
    foot = [f"more: {options.again(context, limit=None)}"] if more else []
    foot += _hints(found)
    rows = [_row(one) for one in found]
    return Table(columns, rows, empty=empty, foot="\n".join(foot), shape=NARROW)


def _hints(found: listing.Lines) -> list[str]:
    """The commands that help where something is wrong or waits."""
    troubled = [one for one in found if one.trouble]
    unknown = [str(one.trouble) for one in troubled if one.trouble_code == "unknown"]
    if unknown:  # the same for all, and said once
        return [unknown[0], "where the target is looked for: bgdeploy config"]
    hints = [
        "trouble: a running bgdeploy serve puts an alias back at its next scan; from a database that is gone: "
        'bgdeploy rollback <customer> --reason "..."'
    ]
    failed = [f"why it failed: bgdeploy jobs show {one.failed.job}" for one in found if one.failed]
    waiting = [
        f"what waits, and why: bgdeploy jobs list --customer {shlex.quote(one.customer)}"
        for one in found
        if one.candidate
    ]
    return (hints if troubled else []) + failed[:1] + waiting[:1]


def _row(one: Customer) -> tuple[Any, ...]:
    counts = one.counts or {}
    relationships = sum(counts.get("types", {}).values())
    labels = ", ".join(f"{name} {rows:,}" for name, rows in sorted(counts.get("labels", {}).items())[:4])
    rows = f"{labels}; {relationships:,} relationships" if counts else ""
    trouble = "unknown" if one.trouble_code == "unknown" else one.trouble
    notes = [f"TROUBLE: {trouble}"] if trouble else []
    notes += [f"alias: {one.alias}"] if one.alias != one.customer else []
    notes += ["removed"] if one.removed else ["paused"] if one.paused else []
    undecided = one.undecided
    notes += [f"waits for a decision: bgdeploy jobs show {undecided}"] if undecided is not None else []
    notes += [f"newest FAILED: {one.failed.timestamp}"] if one.failed else []
    notes += [f"bad: {name}" for name in one.rolled_back]
    notes += [f"pinned: {name}" for name in one.pinned]
    age = output.ago(one.snapshot_age_seconds)
    slots = (one.live or "-", age, one.standby or "-", one.candidate or "-")
    return one.customer, *slots, rows, "; ".join(notes)


def remove(
    context: typer.Context,
    customer: Name,
    reason: options.Reason = "asked for",
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without this it is only said what would go.")
    ] = False,
) -> None:
    """Offboard a customer: its alias goes, then its databases.

    Its snapshots on disk and its history stay. Once its databases are gone `bgdeploy resume` takes it back,
    for snapshots that come later.
    """
    output.guarded(lambda: _remove(context, customer, reason, yes))


def _remove(context: typer.Context, customer: str, reason: str, yes: bool) -> None:
    goes = context.obj.api().remove(customer, who=whoami(), why=reason, dry_run=not yes)
    live = f"the alias {goes.alias}, which readers use ({goes.live})" if goes.live else "no alias"
    print(
        f"{'goes' if yes else 'would go'}: {live}; {goes.jobs} jobs that are not over; {len(goes.databases)} databases"
    )
    for name in goes.databases:
        print(f"  {name}")
    print(f"stays: the snapshots in {goes.folder}, and the history")
    if yes:
        print(
            f"its databases are dropped after {goes.grace_seconds:g} s by a running bgdeploy serve or work, or by: bgdeploy run"
        )
        print(f"to take it back once they are gone: bgdeploy resume {shlex.quote(customer)}")
    else:
        print(f"nothing was done; to do it: bgdeploy customers remove {shlex.quote(customer)} --yes")


def query(
    context: typer.Context,
    customer: Name,
    cypher: Annotated[
        str, typer.Argument(help="A Cypher statement that reads; in single quotes where it has backticks.")
    ],
    as_json: AsJson = False,
) -> None:
    """Ask a customer's live database, read-only, through its alias.

    One statement that reads what is live: MATCH, UNWIND, WITH, CALL, RETURN, or EXPLAIN or PROFILE of one.
    """
    output.guarded(lambda: _query(context, customer, cypher, as_json))


def _query(context: typer.Context, customer: str, cypher: str, as_json: bool) -> None:
    from bgdeploy.cli.stoppable import stoppable
    from bgdeploy.cli.values import show

    answer = stoppable(lambda: context.obj.api().query(customer, cypher))
    if answer.warning:
        typer.echo(f"warning: {answer.warning}", err=True)
    rows = answer.rows
    if as_json:
        output.print_json(rows)
        return
    columns = list(rows[0]) if rows else []
    output.print_table(
        columns,
        [[show(row[name]) for name in columns] for row in rows],
        empty="No rows. What there is, per label: bgdeploy customers",
    )
