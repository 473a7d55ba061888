"""Commands that change a job's way: cancel, retry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from bgdeploy.cli import complete, output
from bgdeploy.cli.context import EXAMPLES, whoami
from bgdeploy.cli.jobs import jobs_app
from bgdeploy.errors import BgdeployError, ExitCode
from bgdeploy.jobs.states import State

if TYPE_CHECKING:
    from bgdeploy.service.results import JobRow, Queued


def register(app: typer.Typer) -> None:
    """Add these commands."""
    jobs_app.command(epilog=EXAMPLES["cancel"])(cancel)
    app.command(epilog=EXAMPLES["retry"])(retry)


def _each(ids: Iterable[int], act: Callable[[int], None]) -> int:
    """Act on every job; what is refused is told, holds up no other, and gives the exit code."""
    code = ExitCode.OK
    for job_id in ids:
        try:
            act(job_id)
        except BgdeployError as error:
            output.tell(error)
            code = code or error.exit_code
    return code


def cancel(
    context: typer.Context,
    job: Annotated[list[int], typer.Argument(help="Ids of jobs.", autocompletion=complete.open_job)],
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait until a running load is seen to have ended.")
    ] = False,
) -> None:
    """Give jobs up that are not live yet; a load that runs is ended.

    Refused once the switch has begun. What is cancelled is loaded again only by: bgdeploy retry <id>
    """
    output.guarded(lambda: _cancel(context, job, wait=not no_wait))


def _cancel(context: typer.Context, ids: list[int], *, wait: bool) -> None:
    api = context.obj.api()
    asked: list[int] = []

    def ask(job_id: int) -> None:
        job = api.cancel(job_id, who=whoami(), wait=False)
        if job.state == State.LOADING:
            asked.append(job_id)
        _tell(job)

    code = _each(ids, ask)
    for job_id in asked if wait else ():
        _tell(api.await_end(job_id))
    raise typer.Exit(code)


def _tell(job: JobRow) -> None:
    name = f"job {job.id}, {job.title}"
    if job.state == State.FAILED:
        print(f"cancelled: {name}; to load it after all: bgdeploy retry {job.id}", flush=True)
    else:
        how = f"its worker ends the load within seconds; see: bgdeploy jobs show {job.id}"
        print(f"asked: {name}; {how}", flush=True)


def retry(
    context: typer.Context,
    job: Annotated[
        list[int] | None, typer.Argument(help="Ids of jobs.", autocompletion=complete.failed_job)
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
    output.guarded(lambda: _retry(context, job, reload))


def _retry(context: typer.Context, ids: list[int] | None, again: bool) -> None:
    from bgdeploy.service.results import Refusal

    api = context.obj.api()
    code = int(ExitCode.OK)
    if ids is not None and again:
        code = _each(ids, lambda job_id: _tell_queued(api.reload(job_id, who=whoami()), again=True))
    elif ids is not None:
        code = _each(ids, lambda job_id: _tell_queued(api.retry(job_id, who=whoami())))
    else:
        found = api.retry_all_failed(who=whoami())
        for one in found:
            if isinstance(one, Refusal):
                output.tell(one)
                code = code or one.exit_code
            else:
                _tell_queued(one)
        if not found:
            print("No failed job to queue again. See: bgdeploy jobs list --state failed")
    raise typer.Exit(code)


def _tell_queued(one: Queued, *, again: bool = False) -> None:
    name = f"build {one.build} of {one.customer}/{one.timestamp}" if again else one.title
    held = one.held_back or "loaded by: bgdeploy serve, or bgdeploy run"
    print(f"queued: job {one.job}, {name}; {held}")
