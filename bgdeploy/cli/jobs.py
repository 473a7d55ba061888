"""Commands about jobs: list, show, log; what changes one is in steer.py, offenders has a file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgdeploy.cli import complete, listing, options, output
from bgdeploy.cli.context import EXAMPLES
from bgdeploy.cli.offenders import offenders
from bgdeploy.cli.options import AsJson, Asked
from bgdeploy.cli.output import Table
from bgdeploy.cli.tables import Shape
from bgdeploy.errors import CODES
from bgdeploy.jobs.states import State

if TYPE_CHECKING:
    from bgdeploy.service.api import Page
    from bgdeploy.service.results import Event, Job

FOLLOWED = 1000  # events told at one look
_LEFT = {
    State.LOADED: "verified; whether it goes live is decided by a running bgdeploy serve, or by: bgdeploy run"
}
LONGEST = 160  # letters of a reason in the list
NARROW = Shape(text=("why",), spare=("tries", "rows", "database", "date (UTC)"))
jobs_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Jobs: list, show, log, cancel, offenders.",
    epilog=EXAMPLES["jobs"],
)
_AnyState = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STATE",
        help="Only discovered, queued, loading, loaded, switched, cleaned or failed; may be given again.",
        autocompletion=complete.states,
    ),
]
_ErrorCode = Annotated[
    str | None,
    typer.Option(
        metavar="CODE",
        help="Only failed ones with this code, such as bad-input or cancelled.",
        autocompletion=complete.error_codes,
    ),
]
_Of = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only of this customer.", autocompletion=complete.customers)
]
_Sort = Annotated[
    str,
    typer.Option(
        metavar="COLUMN", help="By created, updated, customer, snapshot or rows; -rows begins with the most."
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(jobs_app, name="jobs")
    jobs_app.command(epilog=EXAMPLES["offenders"])(offenders)


@jobs_app.command("list", cls=options.Listing, epilog=EXAMPLES["list"])
def list_jobs(
    context: typer.Context,
    state: _AnyState = None,
    customer: _Of = None,
    since: options.Since = None,
    until: options.Until = None,
    error: _ErrorCode = None,
    blocked: Annotated[
        bool, typer.Option("--blocked", help="Only jobs that wait for a person's decision.")
    ] = False,
    sort: _Sort = "-created",
    reverse: options.Reverse = False,
    limit: options.Limit = 50,
    before: options.Before = None,
    watch: options.Watch = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first.

    --since and --until look at a job's last change. "is" says what a snapshot is by now: live, standby (the way
    back), bad (left by a rollback), pinned, cancelled (the state is failed then). tries are failed runs +
    interrupted runs since the last progress.
    """
    wanted = {"states": state or [], "customer": customer, "error": error, "blocked": blocked}
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
    output.guarded(lambda: _list(context, wanted, asked))


def _list(context: typer.Context, wanted: dict[str, Any], asked: Asked) -> None:
    from bgdeploy.service.api import JOB_ORDERS

    for state in wanted["states"]:
        options.one_of(state, tuple(State), "--state")
    if wanted["error"] is not None:
        options.one_of(wanted["error"], CODES, "--error")
    page, api = asked.page(JOB_ORDERS), context.obj.api()
    listing.check_customer(api, wanted["customer"], asked)
    listing.tell_absence(api)
    picky = any(wanted.values()) or asked.picky
    empty = "All there are: bgdeploy jobs list" if picky else "Find snapshots with: bgdeploy scan --once"
    listing.show(
        lambda: api.jobs(**wanted, page=page),
        lambda found, more: _table(found, f"No such jobs. {empty}", listing.next_page(context, found, more)),
        asked,
    )


def _table(found: listing.Lines, empty: str, foot: str) -> Table:
    columns = ("id", "customer", "snapshot", "date (UTC)", "state", "is", "database", "rows", "tries", "why")
    cut = next((job.id for job in found if _why(job)[1] or job.blocked), None)
    failed = next((job.id for job in found if job.state == State.FAILED), cut)
    hint = f"all of it, and what helps: bgdeploy jobs show {failed}" if failed is not None else ""
    return Table(
        columns,
        [_row(job) for job in found],
        empty=empty,
        foot="\n".join(line for line in (hint, foot) if line),
        shape=NARROW,
    )


def _row(job: Job) -> tuple[Any, ...]:
    snapshot = f"{job.timestamp}" + (f" r{job.build}" if job.build > 1 else "")
    expected = job.rows_expected
    rows = "" if expected is None else f"{job.rows_confirmed:,} / {expected:,}"
    tries = f"{job.attempt}+{job.interruptions}" if job.attempt or job.interruptions else ""
    date = str(job.snapshot_at)[:16].replace("T", " ")
    marks = " ".join(job.marks)
    of_snapshot = (job.id, job.customer, snapshot, date, job.state, marks)
    return *of_snapshot, job.database, rows, tries, _why(job)[0]


def _why(job: Job) -> tuple[str, bool]:
    """Why it stands where it stands, and whether that was cut; what a person has to decide is never cut."""
    why = job.error if job.state == State.FAILED else job.reason or _LEFT.get(job.state)
    first, _, rest = (why or "").partition("\n")
    if job.blocked or (len(first) <= LONGEST and not rest):
        return first, False
    short = first if len(first) <= LONGEST else first[:LONGEST].rpartition(" ")[0]
    return f"{short} ... (jobs show {job.id})", True


@jobs_app.command(epilog=EXAMPLES["show"])
def show(
    context: typer.Context,
    job: Annotated[int, typer.Argument(help="A job's id.", autocompletion=complete.any_job)],
    as_json: AsJson = False,
) -> None:
    """Show one job: its state, where its time went, its tables, its history."""
    output.guarded(lambda: _show(context, job, as_json))


def _show(context: typer.Context, job_id: int, as_json: bool) -> None:
    from bgdeploy.cli.job_page import print_job

    job = context.obj.api().job(job_id)
    output.print_json(job) if as_json else print_job(job)


def _print_events(events: Sequence[Event]) -> None:
    for event in events:
        print(f"{event.at}  {event.message}")


@jobs_app.command(cls=options.Listing, epilog=EXAMPLES["log"])
def log(
    context: typer.Context,
    job: Annotated[
        int | None,
        typer.Argument(
            help="A job's id; without it, the events of all jobs.", autocompletion=complete.any_job
        ),
    ] = None,
    customer: _Of = None,
    since: options.Since = None,
    until: options.Until = None,
    limit: Annotated[
        int, typer.Option(min=1, max=options.MOST, metavar="N", help="At most so many of the newest.")
    ] = 200,
    before: options.Before = None,
    watch: options.Watch = None,
    as_json: AsJson = False,
) -> None:
    """Show what happened, oldest first; with --watch, what happens from now on too."""
    asked = Asked(limit=limit, every=watch, as_json=as_json, since=since, until=until, before=before)
    output.guarded(lambda: _log(context, job, customer, asked))


def _log(context: typer.Context, job_id: int | None, customer: str | None, asked: Asked) -> None:
    from bgdeploy.service.api import EVENT_ORDERS

    page, api = asked.page(EVENT_ORDERS), context.obj.api()
    listing.check_customer(api, customer, asked)

    def look(page: Page) -> Sequence[Event]:
        found: list[Event] = api.events(job_id, customer=customer, page=page)
        return found

    found = look(page)
    shown = found[-(asked.limit or 0) :]
    tell = output.print_json if asked.as_json else _print_events
    tell(shown)
    if asked.every is not None:
        later = replace(page, sort="at", limit=FOLLOWED)
        last = shown[-1].id if shown else 0
        listing.follow(last, lambda last: look(replace(later, before=last)), tell, asked.every)
    elif not asked.as_json:
        _print_older(context, shown, more=len(found) > len(shown))


def _print_older(context: typer.Context, shown: listing.Lines, *, more: bool) -> None:
    if not shown:
        print("No such events. All there are: bgdeploy jobs log")
    elif more:
        print(f"older: {options.again(context, before=shown[0].id)}")
