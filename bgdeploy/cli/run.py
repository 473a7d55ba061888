"""Commands that do the work: serve, work, run, scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bgdeploy.cli import complete, options, output
from bgdeploy.cli.context import EXAMPLES, Given
from bgdeploy.errors import BgdeployError, ExitCode

if TYPE_CHECKING:
    from bgdeploy.service.results import ScanReport
    from bgdeploy.site import Site
    from bgdeploy.worker.shutdown import Stop

_MOST_TOLD = 10
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-w",
        metavar="N",
        min=1,
        max=64,
        help="Loads at a time in this process; else orchestrator.num_workers.",
    ),
]
Form = Annotated[
    str | None,
    typer.Option(
        "--log-format", metavar="text|json", help="How the log is written to stderr; else log_format."
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog=EXAMPLES["serve"])(serve)
    app.command(epilog=EXAMPLES["scan"])(scan)
    app.command(epilog=EXAMPLES["work"])(work)
    app.command(epilog=EXAMPLES["run"])(run)


def _start(
    context: typer.Context, workers: int | None, interval: float | None, form: str | None
) -> tuple[Site, Stop]:
    from bgdeploy import log
    from bgdeploy.worker.shutdown import Stop, listen

    given: Given = context.obj
    named = {
        "orchestrator__num_workers": workers,
        "orchestrator__scan_interval": interval,
        "log_format": form,
    }
    settings = given.settings(**named)
    log.configure(settings.log_format)
    if settings.target_follows:
        log.emit("service.target", target=settings.target, setting=settings.target_follows)
    stop = Stop(timeout=settings.orchestrator.shutdown_timeout)
    listen(stop)
    return given.site(**named), stop


def serve(
    context: typer.Context,
    workers: Workers = None,
    scan_interval: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="From one scan of all folders to the next; else orchestrator.scan_interval.",
        ),
    ] = None,
    log_format: Form = None,
) -> None:
    """Scan, load, switch and clean until it is stopped.

    It finds new snapshots, loads each into a database of its own, moves the customer's alias to it, and drops
    databases that are too old. One is enough; see `work` for more workers.

    Ctrl+C or SIGTERM: running loads may end within shutdown_timeout; a second time: at once. Nothing is lost.
    """
    output.guarded(lambda: _serve(context, workers, scan_interval, log_format, scans=True))


def work(context: typer.Context, workers: Workers = None, log_format: Form = None) -> None:
    """Like serve, without scanning: more workers for one job table.

    On the same host, with the same configuration as a `serve` that runs.
    """
    output.guarded(lambda: _serve(context, workers, None, log_format, scans=False))


def _serve(
    context: typer.Context, workers: int | None, interval: float | None, form: str | None, *, scans: bool
) -> None:
    from bgdeploy.cli.live import live_loads
    from bgdeploy.service.serve import serve as run_service

    site, stop = _start(context, workers, interval, form)
    with live_loads(site):
        run_service(site, stop, workers=site.settings.orchestrator.num_workers, scans=scans)


def run(
    context: typer.Context,
    customer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Load only this customer's newest snapshot, now.",
            autocompletion=complete.customers,
        ),
    ] = None,
    timestamp: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=options.LARGEST_ID,
            metavar="T",
            help="With --customer: that snapshot, and not the newest.",
        ),
    ] = None,
    no_switch: Annotated[
        bool,
        typer.Option("--no-switch", help="With --customer: load and verify it; `bgdeploy switch` decides."),
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            min=0,
            max=options.LONGEST,
            metavar="SECONDS",
            help="Until it gives up; loads that run are given back and resume next time.",
        ),
    ] = 3600.0,
    workers: Workers = None,
    log_format: Form = None,
) -> None:
    """Scan, then finish all that is or becomes ready (cron, CI).

    Exit 0 when nothing failed and nothing is left that could go on by itself.

    With --customer one snapshot alone, even where older ones wait, which are overtaken then. Exit 0 when it is
    live, or loaded with --no-switch; 1 when it failed, waits for a person, or the time is over; 4 when there is
    no such snapshot.
    """
    if customer is None and (timestamp is not None or no_switch):
        option = "--no-switch" if timestamp is None else "--timestamp"
        raise typer.BadParameter("it is for one snapshot: say whose, with --customer", param_hint=option)
    if customer is None:
        output.guarded(lambda: _run(context, timeout, workers, log_format))
    else:
        output.guarded(lambda: _run_one(context, customer, timestamp, not no_switch, timeout, log_format))


def _run_one(
    context: typer.Context, name: str, timestamp: int | None, switches: bool, timeout: float, form: str | None
) -> None:
    from bgdeploy.cli.live import live_loads
    from bgdeploy.service.run_once import find_snapshot, run_one

    site, stop = _start(context, None, None, form)
    meant = find_snapshot(site, name, timestamp)
    with live_loads(site):
        outcome = run_one(site, stop, name, meant, switches=switches, timeout=timeout)
    if stop.hurry.is_set():
        raise typer.Exit(ExitCode.INTERRUPTED)
    if not outcome.well:
        output.fail(BgdeployError(outcome.said, kept=outcome.kept, cure=outcome.cure))
    print(outcome.said)


def _run(context: typer.Context, timeout: float, workers: int | None, form: str | None) -> None:
    from bgdeploy.cli.live import live_loads
    from bgdeploy.service.run_once import list_failed, list_unserved, scan_first
    from bgdeploy.service.run_once import run as run_all

    site, stop = _start(context, workers, None, form)
    before = list_failed(site)
    unread = scan_first(site)
    with live_loads(site):
        finished = run_all(site, stop, workers=site.settings.orchestrator.num_workers, timeout=timeout)
    failed = [job for key, job in list_failed(site).items() if key not in before]
    for job in failed:
        number, name = job["id"], f"{job['customer']}/{job['timestamp']}"  # the log has just said why
        typer.echo(f"failed: job {number} {name}; why: bgdeploy jobs show {number}", err=True)
    for name, reason in unread:
        typer.echo(f"not scanned: {name}: {reason}; look again with: bgdeploy scan --once", err=True)
    if stop.hurry.is_set():
        raise typer.Exit(ExitCode.INTERRUPTED)
    if not finished:
        typer.echo("not everything could be finished; see: bgdeploy jobs list", err=True)
    told = {job["id"] for job in failed}
    unserved = [job for job in list_unserved(site) if job["id"] not in told]
    for job in unserved[:_MOST_TOLD]:
        number, name = job["id"], f"{job['customer']}/{job['timestamp']}"
        why = f": {job['reason']}" if job["reason"] else ""
        typer.echo(f"not live: {name} is {job['state']}{why}; bgdeploy jobs show {number}", err=True)
    if (more := len(unserved) - _MOST_TOLD) > 0:
        typer.echo(f"not live: the newest of {more} more customers; bgdeploy customers", err=True)
    raise typer.Exit(ExitCode.OK if finished and not failed and not unread else ExitCode.FAILED)


def scan(
    context: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="Scan once and end: what scan does anyway.", show_default=False)
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Find new snapshots and queue the ready ones; loads nothing.

    Exit 0 when the scan itself worked, even if it found nothing.
    """
    output.guarded(lambda: _scan(context, as_json))


def _scan(context: typer.Context, as_json: bool) -> None:
    api = context.obj.api()
    report = api.scan()
    output.print_json(report) if as_json else _print_report(report)
    warning = api.capacity_warning()
    if warning:
        typer.echo(f"warning: {warning}", err=True)
    raise typer.Exit(ExitCode.FAILED if report.errors else ExitCode.OK)


def _print_report(report: ScanReport) -> None:
    for name in report.discovered:
        print(f"discovered  {name}")
    for name in report.again:
        print(f"changed     {name}: it failed, and is looked at anew")
    for name in report.queued:
        print(f"queued      {name}")
    told = (("waiting", report.waiting), ("skipped", report.skipped), ("failed", report.failed))
    for word, found in told:
        for one in found:
            print(f"{word:<11} {one.name}: {one.reason}")
    for one in report.errors:
        typer.echo(f"error       {one.name}: {one.reason}", err=True)
    print(f"{report.customers} customer(s): {len(report.discovered)} new, {len(report.queued)} queued")
    for command in _next_commands(report):
        print(command)


def _next_commands(report: ScanReport) -> list[str]:
    """What a person does next about what a scan has found."""
    hints = (
        (report.queued, "load what is queued: bgdeploy run, or bgdeploy serve"),
        (report.failed, "why it failed: bgdeploy jobs list --state failed"),
        ([*report.again, *report.waiting], "what waits is judged again by: bgdeploy scan --once"),
    )
    return [command for found, command in hints if found]
