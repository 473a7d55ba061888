"""Commands about jobs: list, show, log, retry; offenders has a file of its own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bgdeploy.cli import output
from bgdeploy.cli.context import EXAMPLES, whoami
from bgdeploy.cli.offenders import offenders

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
jobs_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Jobs: list, show, log, offenders.",
    epilog=EXAMPLES["jobs"],
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(jobs_app, name="jobs")
    jobs_app.command(epilog=EXAMPLES["offenders"])(offenders)
    app.command(epilog=EXAMPLES["retry"])(retry)


@jobs_app.command("list", epilog=EXAMPLES["list"])
def list_jobs(
    context: typer.Context,
    state: Annotated[
        list[str] | None, typer.Option(help="Only jobs in this state; may be given again.")
    ] = None,
    customer: Annotated[str | None, typer.Option(help="Only jobs of this customer.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    output.guarded(lambda: _list(context, state or [], customer, limit, as_json))


def _list(context: typer.Context, states: list[str], customer: str | None, limit: int, as_json: bool) -> None:
    from bgdeploy.jobs.states import State
    from bgdeploy.service.views import list_jobs as find

    unknown = sorted(set(states) - set(State))
    if unknown:
        raise typer.BadParameter(
            f"no state {unknown[0]!r}; there are: {', '.join(State)}", param_hint="--state"
        )
    found = find(context.obj.site(), states=states, customer=customer, limit=limit)
    if as_json:
        output.print_json(found)
        return
    columns = ("id", "customer", "snapshot", "state", "database", "rows", "tries", "why")
    output.print_table(
        columns, [_row(job) for job in found], empty="No jobs. Find snapshots with: bgdeploy scan --once"
    )


def _row(job: dict[str, Any]) -> tuple[Any, ...]:
    snapshot = f"{job['timestamp']}" + (f" r{job['build']}" if job["build"] > 1 else "")
    expected = job["rows_expected"]
    rows = "" if expected is None else f"{job['rows_confirmed']:,} / {expected:,}"
    tries = f"{job['attempt']}+{job['interruptions']}" if job["attempt"] or job["interruptions"] else ""
    why = job["error"] if job["state"] == "failed" else job["reason"]
    first = (why or "").split("\n")[0]
    short = first if len(first) <= 110 else first[:107] + "..."
    return job["id"], job["customer"], snapshot, job["state"], job["database"], rows, tries, short


@jobs_app.command(epilog=EXAMPLES["show"])
def show(
    context: typer.Context, job: Annotated[int, typer.Argument(help="A job's id.")], as_json: AsJson = False
) -> None:
    """Show one job: its state, the ledger of its load, its history."""
    output.guarded(lambda: _show(context, job, as_json))


def _show(context: typer.Context, job_id: int, as_json: bool) -> None:
    from bgdeploy.service.views import find_job

    job = find_job(context.obj.site(), job_id)
    if as_json:
        output.print_json(job)
        return
    for key, value in job.items():
        if key not in ("tables", "events") and value not in (None, False):
            print(f"{key:<16} {value}")
    print()
    columns = ("group", "table", "joins", "files", "expected", "confirmed", "starts", "run")
    output.print_table(
        columns, [_group_row(group) for group in job["tables"]], empty="Nothing is planned yet."
    )
    print()
    _print_events(job["events"])


def _group_row(group: dict[str, Any]) -> tuple[Any, ...]:
    joins = f"{group['source_label']} -> {group['target_label']}" if group["kind"] == "relationship" else ""
    confirmed = f"{group['rows_confirmed']:,}" if group["confirmed_at"] else ""
    run = f"{group['confirmed_fence']}{' found' if group['found'] else ''}" if group["confirmed_at"] else ""
    files = len(group["files"])
    return (
        group["number"],
        group["name"],
        joins,
        files,
        f"{group['rows_expected']:,}",
        confirmed,
        group["starts"],
        run,
    )


def _print_events(events: list[dict[str, Any]]) -> None:
    for event in events:
        print(f"{event['at']}  {event['message']}")


@jobs_app.command(epilog=EXAMPLES["log"])
def log(
    context: typer.Context,
    job: Annotated[int | None, typer.Argument(help="A job's id; without it, the events of all jobs.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many of the newest.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Show what happened, oldest first."""
    output.guarded(lambda: _log(context, job, limit, as_json))


def _log(context: typer.Context, job_id: int | None, limit: int, as_json: bool) -> None:
    from bgdeploy.service.views import find_job, list_events

    site = context.obj.site()
    if job_id is not None:
        find_job(site, job_id)
    found = list_events(site, job_id, limit=limit)
    output.print_json(found) if as_json else _print_events(found)


def retry(
    context: typer.Context,
    job: Annotated[list[int] | None, typer.Argument(help="Ids of jobs.")] = None,
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
    """Queue failed jobs again; with --reload build a good one anew."""
    if bool(job) == all_failed or (all_failed and reload):
        raise typer.BadParameter("give ids of jobs, or --all-failed", param_hint="JOB")
    output.guarded(lambda: _retry(context, job, reload))


def _retry(context: typer.Context, ids: list[int] | None, again: bool) -> None:
    from bgdeploy.service import operate

    site = context.obj.site()
    found = operate.failed_jobs(site) if ids is None else ids
    if not found:
        print("No failed job to queue again. See: bgdeploy jobs list --state failed")
    for job_id in found:
        if again:
            row = operate.reload(site, job_id, by=whoami())
            print(f"queued: job {row['id']}, build {row['build']} of {row['customer']}/{row['timestamp']}")
        else:
            print(f"queued: job {job_id}, {operate.retry(site, job_id, by=whoami())}")
