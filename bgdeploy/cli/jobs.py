"""Commands about jobs: list, show, log, cancel, offenders, and retry."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgdeploy.cli import listing, render
from bgdeploy.cli.context import (
    AJob,
    AsJson,
    app,
    complete_any_job,
    complete_customers,
    complete_error_codes,
    complete_failed_job,
    complete_open_job,
    complete_states,
    examples,
    whoami,
)
from bgdeploy.cli.listing import Asked
from bgdeploy.cli.render import Shape, Table
from bgdeploy.errors import CODES, BgdeployError, ExitCode
from bgdeploy.jobs.states import State

if TYPE_CHECKING:
    from bgdeploy.service.api import Page
    from bgdeploy.service.results import Event, Job, JobRow, Queued

FOLLOWED = 1000  # events told at one look
LONGEST = 160  # letters of a reason in the list
LONG = 1_000_000  # rows of a snapshot; looking through more takes a while
NARROW = Shape(text=("why",), spare=("tries", "rows", "database", "date (UTC)"))
_LEFT = {
    State.LOADED: "verified; whether it goes live is decided by a running bgdeploy serve, or by: bgdeploy run"
}

jobs_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Jobs: list, show, log, cancel, offenders.",
    epilog=examples("bgdeploy jobs list", "bgdeploy jobs show 7"),
)
app.add_typer(jobs_app, name="jobs")

_OfCustomer = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Only of this customer.", autocompletion=complete_customers),
]


@jobs_app.command(
    "list",
    cls=listing.Listing,
    epilog=examples(
        "bgdeploy jobs list --state failed --since 2d",
        "bgdeploy jobs list --customer acme --sort -rows --limit 10 --json",
        "bgdeploy jobs list --state loading --watch",
    ),
)
def list_jobs(
    context: typer.Context,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE",
            help="Only discovered, queued, loading, loaded, switched, cleaned or failed; may be given again.",
            autocompletion=complete_states,
        ),
    ] = None,
    customer: _OfCustomer = None,
    since: listing.Since = None,
    until: listing.Until = None,
    error: Annotated[
        str | None,
        typer.Option(
            metavar="CODE",
            help="Only failed ones with this code, such as bad-input or cancelled.",
            autocompletion=complete_error_codes,
        ),
    ] = None,
    blocked: Annotated[
        bool, typer.Option("--blocked", help="Only jobs that wait for a person's decision.")
    ] = False,
    sort: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="By created, updated, customer, snapshot or rows; -rows begins with the most.",
        ),
    ] = "-created",
    reverse: listing.Reverse = False,
    limit: listing.Limit = 50,
    before: listing.Before = None,
    watch: listing.Watch = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first.

    --since and --until look at a job's last change. "is" says what a snapshot is by now: live, standby (the way
    back), bad (left by a rollback), pinned, cancelled (the state is failed then). tries are failed runs +
    interrupted runs since the last progress.
    """
    from bgdeploy.service.api import JOB_ORDERS

    for one in state or []:
        listing.check_one_of(one, tuple(State), "--state")
    if error is not None:
        listing.check_one_of(error, CODES, "--error")
    asked = Asked(
        limit=limit, every=watch, as_json=as_json, since=since, until=until, before=before, sort=sort, reverse=reverse
    )  # fmt: skip
    page, api = asked.page(JOB_ORDERS), context.obj.api()
    listing.check_customer(api, customer, asked)
    render.warn(api.absence())
    picky = bool(state or customer or error or blocked) or (since, until, before) != (None, None, None)
    empty = "All there are: bgdeploy jobs list" if picky else "Find snapshots with: bgdeploy scan --once"
    listing.show(
        lambda: api.jobs(states=state or [], customer=customer, error=error, blocked=blocked, page=page),
        lambda found, more: _table(found, f"No such jobs. {empty}", listing.next_page(context, found, more)),
        asked,
    )


def _table(found: listing.Lines, empty: str, foot: str) -> Table:
    columns = ("id", "customer", "snapshot", "date (UTC)", "state", "is", "database", "rows", "tries", "why")
    cut = next((job.id for job in found if _why(job)[1] or job.blocked), None)
    failed = next((job.id for job in found if job.state == State.FAILED), cut)
    hint = f"all of it, and what helps: bgdeploy jobs show {failed}" if failed is not None else ""
    foot = "\n".join(line for line in (hint, foot) if line)
    return Table(columns, [_row(job) for job in found], empty=empty, foot=foot, shape=NARROW)


def _row(job: Job) -> tuple[Any, ...]:
    snapshot = f"{job.timestamp}" + (f" r{job.build}" if job.build > 1 else "")
    date = str(job.snapshot_at)[:16].replace("T", " ")
    expected = job.rows_expected
    rows = "" if expected is None else f"{job.rows_confirmed:,} / {expected:,}"
    tries = f"{job.attempt}+{job.interruptions}" if job.attempt or job.interruptions else ""
    of_snapshot = (job.id, job.customer, snapshot, date, job.state, " ".join(job.marks))
    return *of_snapshot, job.database, rows, tries, _why(job)[0]


def _why(job: Job) -> tuple[str, bool]:
    """Why it stands where it stands, and whether that was cut; what a person has to decide is never cut."""
    why = job.error if job.state == State.FAILED else job.reason or _LEFT.get(job.state)
    first, _, rest = (why or "").partition("\n")
    if job.blocked or (len(first) <= LONGEST and not rest):
        return first, False
    short = first if len(first) <= LONGEST else first[:LONGEST].rpartition(" ")[0]
    return f"{short} ... (jobs show {job.id})", True


@jobs_app.command(epilog=examples("bgdeploy jobs show 7", "bgdeploy jobs show 7 --json"))
def show(context: typer.Context, job: AJob, as_json: AsJson = False) -> None:
    """Show one job: its state, where its time went, its tables, its history."""
    from bgdeploy.cli.job_page import print_job

    story = context.obj.api().job(job)
    render.print_json(story) if as_json else print_job(story)


@jobs_app.command(
    cls=listing.Listing,
    epilog=examples("bgdeploy jobs log 7", "bgdeploy jobs log --customer acme --since 12h --watch"),
)
def log(
    context: typer.Context,
    job: Annotated[
        int | None,
        typer.Argument(
            help="A job's id; without it, the events of all jobs.", autocompletion=complete_any_job
        ),
    ] = None,
    customer: _OfCustomer = None,
    since: listing.Since = None,
    until: listing.Until = None,
    limit: Annotated[
        int, typer.Option(min=1, max=listing.MOST, metavar="N", help="At most so many of the newest.")
    ] = 200,
    before: listing.Before = None,
    watch: listing.Watch = None,
    as_json: AsJson = False,
) -> None:
    """Show what happened, oldest first; with --watch, what happens from now on too."""
    from bgdeploy.service.api import EVENT_ORDERS

    asked = Asked(limit=limit, every=watch, as_json=as_json, since=since, until=until, before=before)
    page, api = asked.page(EVENT_ORDERS), context.obj.api()
    listing.check_customer(api, customer, asked)

    def look(page: Page) -> Sequence[Event]:
        found: list[Event] = api.events(job, customer=customer, page=page)
        return found

    def tell(events: Sequence[Event]) -> None:
        if as_json:
            render.print_json(events)
            return
        for event in events:
            print(f"{event.at}  {event.message}")

    found = look(page)
    shown = found[-limit:]
    tell(shown)
    if watch is not None:
        last = shown[-1].id if shown else 0
        while True:
            sys.stdout.flush()
            time.sleep(watch)
            if later := look(replace(page, sort="at", limit=FOLLOWED, before=last)):
                tell(later)
                last = later[-1].id
    if not as_json and not shown:
        print("No such events. All there are: bgdeploy jobs log")
    elif not as_json and len(found) > len(shown):
        print(f"older: {listing.again(context, before=shown[0].id)}")


@jobs_app.command(
    epilog=examples("bgdeploy jobs offenders 7", "bgdeploy jobs offenders 7 --output offenders.csv")
)
def offenders(
    context: typer.Context,
    job: AJob,
    file: Annotated[
        Path | None,
        typer.Option("--output", help="Write them all to this file: .csv, or .jsonl for JSON lines."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the rows whose id or end does not fit.

    An id that is missing or stands twice; an end of a relationship that no node has. The job's snapshot is read
    again, and nothing is changed. Exit 0 where there are none, 1 where there are.
    """
    if file is not None and file.suffix not in (".csv", ".jsonl"):
        raise typer.BadParameter("its name must end in .csv or .jsonl", param_hint="--output")

    def tell(folder: str, rows: int) -> None:
        if rows > LONG:
            print(f"looking through {rows:,} rows of {folder}", file=sys.stderr)

    found = context.obj.api().offenders(job, file, tell=tell)
    if as_json:
        render.print_json(found)
    else:
        if not found.findings:
            print(f"Every id and every end fits in {found.folder}.")
        for finding in found.findings:
            print("\n  ".join([f"{finding.said}:", *finding.told]))
        if found.output is not None:
            print(f"Written to {found.output}; its files are relative to {found.folder}.")
    raise typer.Exit(ExitCode.FAILED if found.rows else ExitCode.OK)


@jobs_app.command(epilog=examples("bgdeploy jobs cancel 7", "bgdeploy jobs cancel 7 8 --no-wait"))
def cancel(
    context: typer.Context,
    job: Annotated[list[int], typer.Argument(help="Ids of jobs.", autocompletion=complete_open_job)],
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait until a running load is seen to have ended.")
    ] = False,
) -> None:
    """Give jobs up that are not live yet; a load that runs is ended.

    Refused once the switch has begun. What is cancelled is loaded again only by: bgdeploy retry <id>
    """
    api = context.obj.api()
    running: list[int] = []

    def tell(one: JobRow) -> None:
        name = f"job {one.id}, {one.title}"
        if one.state == State.FAILED:
            print(f"cancelled: {name}; to load it after all: bgdeploy retry {one.id}", flush=True)
        else:
            how = f"its worker ends the load within seconds; see: bgdeploy jobs show {one.id}"
            print(f"asked: {name}; {how}", flush=True)

    def ask(job_id: int) -> None:
        one = api.cancel(job_id, who=whoami(), wait=False)
        if one.state == State.LOADING:
            running.append(job_id)
        tell(one)

    code = _each(job, ask)
    for job_id in () if no_wait else running:
        tell(api.await_end(job_id))
    raise typer.Exit(code)


def _each(ids: Iterable[int], act: Callable[[int], None]) -> int:
    """Act on every job; what is refused is told, holds up no other, and gives the exit code."""
    code = ExitCode.OK
    for job_id in ids:
        try:
            act(job_id)
        except BgdeployError as error:
            render.tell(error)
            code = code or error.exit_code
    return code


@app.command(epilog=examples("bgdeploy retry 7", "bgdeploy retry --all-failed", "bgdeploy retry 7 --reload"))
def retry(
    context: typer.Context,
    job: Annotated[
        list[int] | None, typer.Argument(help="Ids of jobs.", autocompletion=complete_failed_job)
    ] = None,
    all_failed: Annotated[
        bool,
        typer.Option(
            "--all-failed", help="Every failed one, but those cancelled or older than what was live."
        ),
    ] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Load a loaded, switched or cleaned one again as a new build.")
    ] = False,
) -> None:
    """Queue failed jobs again; with --reload build a good one anew.

    A snapshot that failed for its own content comes back by itself once its folder is mended; try it again by
    hand only to load the very same files.
    """
    if bool(job) == all_failed or (all_failed and reload):
        raise typer.BadParameter("give ids of jobs, or --all-failed", param_hint="JOB")
    from bgdeploy.service.results import Refusal

    api = context.obj.api()

    def tell(one: Queued) -> None:
        name = f"build {one.build} of {one.customer}/{one.timestamp}" if reload else one.title
        print(
            f"queued: job {one.job}, {name}; {one.held_back or 'loaded by: bgdeploy serve, or bgdeploy run'}"
        )

    if job:
        ask = api.reload if reload else api.retry
        raise typer.Exit(_each(job, lambda job_id: tell(ask(job_id, who=whoami()))))
    code, found = int(ExitCode.OK), api.retry_all_failed(who=whoami())
    for one in found:
        if isinstance(one, Refusal):
            render.tell(one)
            code = code or one.exit_code
        else:
            tell(one)
    if not found:
        print("No failed job to queue again. See: bgdeploy jobs list --state failed")
    raise typer.Exit(code)
