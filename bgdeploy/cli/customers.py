"""Commands about customers: what is live and asking it, moving an alias and the history of its moves, and holds."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgdeploy.cli import listing, render
from bgdeploy.cli.context import (
    AsJson,
    Name,
    Reason,
    app,
    complete_among,
    complete_customers,
    complete_databases,
    examples,
    filled,
    whoami,
)
from bgdeploy.cli.listing import Asked
from bgdeploy.cli.render import Shape, Table
from bgdeploy.errors import ExitCode

if TYPE_CHECKING:
    from bgdeploy.service.results import Customer, Move

STATES = (
    "live",
    "standby",
    "none",
    "paused",
    "failed",
    "trouble",
)  # as the API has them, which is heavy to import
NARROW = Shape(text=("rows", "notes"), spare=("rows", "data age", "standby"))
NARROW_MOVES = Shape(
    text=("why",), spare=("ms", "by", "customer", "from")
)  # a database begins with its customer

customers_app = typer.Typer(
    cls=listing.ListingGroup,
    invoke_without_command=True,
    no_args_is_help=False,
    rich_markup_mode=None,
    subcommand_metavar="",
)
app.add_typer(customers_app, name="customers")


@customers_app.callback(
    epilog=examples(
        "bgdeploy customers",
        "bgdeploy customers --state trouble --state none --json",
        "bgdeploy customers --sort -rows --limit 20 --watch 5",
    )
)
def customers(
    context: typer.Context,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help="Only with: live, standby, none (nothing live), paused, failed (the newest snapshot), trouble; may be given again.",
            autocompletion=complete_among(STATES),
        ),
    ] = None,
    customer: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Only names that hold this text.", autocompletion=complete_customers
        ),
    ] = "",
    sort: Annotated[
        str,
        typer.Option(
            metavar="COLUMN", help="By customer, since, snapshot or rows; -rows begins with the most."
        ),
    ] = "customer",
    reverse: listing.Reverse = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many.")] = None,
    watch: listing.Watch = None,
    as_json: AsJson = False,
) -> None:
    """Show every customer: live, standby, candidate, age.

    Standby is the database to go back to, candidate the one that is loaded or waits to go live.
    """
    if context.invoked_subcommand is not None:
        return
    from bgdeploy.service.api import CUSTOMER_ORDERS

    for one in state or []:
        listing.check_one_of(one, STATES, "--state")
    by = listing.order(sort, reverse, CUSTOMER_ORDERS)
    api = context.obj.api()
    render.warn(api.capacity_warning())
    render.warn(api.absence())
    listing.show(
        lambda: api.customers(states=state or [], text=customer, sort=by),
        lambda found, more: _table(found, f"more: {listing.again(context, limit=None)}" if more else ""),
        Asked(limit=limit, every=watch, as_json=as_json),
    )


def _table(found: listing.Lines, foot: str) -> Table:
    columns = ("customer", "live", "data age", "standby", "candidate", "rows", "notes")
    empty = "No such customers. Find snapshots with: bgdeploy scan --once"
    foot = "\n".join([*([foot] if foot else []), *_hints(found)])
    return Table(columns, [_row(one) for one in found], empty=empty, foot=foot, shape=NARROW)


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
    age = render.show_age(one.snapshot_age_seconds)
    slots = (one.live or "-", age, one.standby or "-", one.candidate or "-")
    return one.customer, *slots, rows, "; ".join(notes)


@customers_app.command(
    epilog=examples(
        "bgdeploy customers remove acme", 'bgdeploy customers remove acme --yes --reason "contract ended"'
    )
)
def remove(
    context: typer.Context,
    customer: Name,
    reason: Reason = "asked for",
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without this it is only said what would go.")
    ] = False,
) -> None:
    """Offboard a customer: its alias goes, then its databases.

    Its snapshots on disk and its history stay. Once its databases are gone `bgdeploy resume` takes it back,
    for snapshots that come later.
    """
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


@app.command(
    epilog=examples(
        'bgdeploy query customer1 "MATCH (n:Entity) RETURN count(*) AS entities"',
        'bgdeploy query customer1 "MATCH (a)-[r:HAS_ADDRESS]->(b) RETURN label(b) AS at, count(*) AS n" --json',
    )
)
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
    from concurrent.futures import ThreadPoolExecutor

    # The engine hears of no signal while it makes one value, such as a long list, and its own interrupt was seen to be
    # ignored as long. So Ctrl+C ends this process at once; nothing is closed, since it only reads.
    pool = ThreadPoolExecutor(1)
    try:
        answer = pool.submit(lambda: context.obj.api().query(customer, cypher)).result()
    except KeyboardInterrupt:
        os._exit(ExitCode.INTERRUPTED)
    finally:
        pool.shutdown(wait=False)
    render.warn(answer.warning)
    if as_json:
        render.print_json(answer.rows)
        return
    columns = list(answer.rows[0]) if answer.rows else []
    rows = [[render.show_value(row[name]) for name in columns] for row in answer.rows]
    render.print_table(Table(columns, rows, empty="No rows. What there is, per label: bgdeploy customers"))


@app.command(
    cls=listing.Listing, epilog=examples("bgdeploy switches", "bgdeploy switches acme --since 7d --json")
)
def switches(
    context: typer.Context,
    customer: Annotated[
        str | None, typer.Argument(help="Only this customer.", autocompletion=complete_customers)
    ] = None,
    since: listing.Since = None,
    until: listing.Until = None,
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="By at, customer or took; -at begins with the latest.")
    ] = "-at",
    reverse: listing.Reverse = False,
    limit: listing.Limit = 50,
    before: listing.Before = None,
    watch: listing.Watch = None,
    as_json: AsJson = False,
) -> None:
    """Show every move of an alias: from, to, kind, by whom, why."""
    from bgdeploy.service.api import SWITCH_ORDERS

    asked = Asked(
        limit=limit, every=watch, as_json=as_json, since=since, until=until, before=before, sort=sort, reverse=reverse
    )  # fmt: skip
    page, api = asked.page(SWITCH_ORDERS), context.obj.api()
    listing.check_customer(api, customer, asked)

    def row(one: Move) -> tuple[Any, ...]:
        took = "" if one.took_ms is None else f"{one.took_ms:.1f}"
        return one.at, one.customer, one.source or "-", one.target, one.kind, one.by, took, one.why

    def draw(found: listing.Lines, more: bool) -> Table:
        columns = ("at", "customer", "from", "to", "kind", "by", "ms", "why")
        empty = "No such move of an alias. What is live: bgdeploy customers"
        foot = listing.next_page(context, found, more)
        return Table(columns, [row(one) for one in found], empty=empty, foot=foot, shape=NARROW_MOVES)

    listing.show(lambda: api.switches(customer, page=page), draw, asked)


_To = Annotated[
    str | None,
    typer.Option(
        "--to",
        callback=filled,
        metavar="DATABASE",
        help="This database; which there are: bgdeploy customers.",
        autocompletion=complete_databases,
    ),
]


@app.command(epilog=examples("bgdeploy switch acme", "bgdeploy switch acme --to acme-1767741427"))
def switch(context: typer.Context, customer: Name, to: _To = None, reason: Reason = "asked for") -> None:
    """Move the alias to the database that waits, or to that of --to.

    --to is needed for one that was live before, such as the one that a rollback left, and for one that is held
    back for its content, such as too few rows (`bgdeploy jobs list --blocked` says so). Any verified database
    that is still there will do; one that was marked bad is good again then.
    """
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


@app.command(
    epilog=examples(
        'bgdeploy rollback acme --reason "wrong prices"',
        'bgdeploy rollback acme --to acme-1767741427 --pause --reason "wrong prices"',
    )
)
def rollback(
    context: typer.Context,
    customer: Name,
    reason: Annotated[
        str | None,
        typer.Option("--reason", metavar="TEXT", help="Why; required, and kept in the history."),
    ] = None,
    to: _To = None,
    pause: Annotated[
        bool, typer.Option("--pause", help="Let nothing newer go live until: bgdeploy resume")
    ] = False,
) -> None:
    """Go back to what was live before; mark what it leaves as bad.

    Where that is bad or gone, it goes to the standby. Where something newer goes live at this very moment, it is
    refused: nobody has called that bad. The bad one is kept for a look until something newer is live. It never comes back by itself: `switch --to`
    or `rollback --to` brings it back, and takes the mark away.
    """
    name = shlex.quote(customer)
    if reason is None:
        example = f'bgdeploy rollback {name} --reason "wrong prices"'
        raise typer.BadParameter(f"say why, for the history: {example}", param_hint="--reason")
    done = context.obj.api().rollback(customer, to, who=whoami(), why=reason, pause=pause)
    print(f"{customer} -> {done.database}")
    said = (
        f"nothing goes live until: bgdeploy resume {name}"
        if pause
        else "the next newer snapshot will go live"
    )
    if done.left:
        said += (
            f"; to undo, and to take the mark of {done.left} away: bgdeploy switch {name} --to {done.left}"
        )
    print(said)


_Database = Annotated[
    str | None,
    typer.Option(
        callback=filled,
        metavar="DATABASE",
        help="This one instead of what is live.",
        autocompletion=complete_databases,
    ),
]


@app.command(epilog=examples("bgdeploy pin acme", "bgdeploy pin acme --database acme-1767741427"))
def pin(context: typer.Context, customer: Name, database: _Database = None) -> None:
    """Keep a database for good: never dropped until it is unpinned."""
    name = context.obj.api().pin(customer, database, who=whoami()).database
    print(f"{name} is pinned; let it go with: bgdeploy unpin {shlex.quote(customer)} --database {name}")


@app.command(epilog=examples("bgdeploy unpin acme", "bgdeploy unpin acme --database acme-1767741427"))
def unpin(context: typer.Context, customer: Name, database: _Database = None) -> None:
    """Let a pinned database go the way of the others."""
    name = context.obj.api().unpin(customer, database, who=whoami()).database
    print(f"{name} is not pinned any more, and goes once newer ones are kept; see: bgdeploy customers")


@app.command(epilog=examples('bgdeploy pause acme --reason "freeze until Monday"'))
def pause(context: typer.Context, customer: Name, reason: Reason = "asked for") -> None:
    """Load and switch nothing for this customer until resumed.

    What is live stays live, a load that runs goes on to its end, and new snapshots are still found and queued.
    """
    context.obj.api().pause(customer, who=whoami(), why=reason)
    print(f"{customer} is paused; go on with: bgdeploy resume {shlex.quote(customer)}")


@app.command(epilog=examples("bgdeploy resume acme"))
def resume(context: typer.Context, customer: Name) -> None:
    """End a pause; or take a removed customer back.

    A customer that was removed comes back once its databases are gone, for snapshots that come later.
    """
    context.obj.api().resume(customer, who=whoami())
    waiting = f"bgdeploy jobs list --customer {shlex.quote(customer)} --state queued --state loaded"
    print(f"{customer} goes on; what waits: {waiting}")
