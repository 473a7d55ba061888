"""Commands that do the work (serve, work, run, scan), ``processes``, which says who does, and ``wait``, which waits for it."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgdeploy.cli import render
from bgdeploy.cli.context import (
    LARGEST_ID,
    LONGEST,
    AsJson,
    Name,
    app,
    complete_customers,
    complete_timestamps,
    examples,
)
from bgdeploy.cli.render import Shape, Table, show_age
from bgdeploy.clock import wall
from bgdeploy.errors import BgdeployError, ExitCode

if TYPE_CHECKING:
    from bgdeploy.service.results import Process, ScanReport, Waiting
    from bgdeploy.site import Site
    from bgdeploy.worker.shutdown import Stop

MOST_TOLD = 10  # customers whose newest snapshot is not live
TOMORROW = 86_400  # seconds from now: what lies later is no snapshot

_Workers = Annotated[
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
_Form = Annotated[
    str | None,
    typer.Option(
        "--log-format", metavar="text|json", help="How the log is written to stderr; else log_format."
    ),
]


@app.command(
    epilog=examples("bgdeploy serve --workers 3 --scan-interval 60", "bgdeploy serve --log-format json")
)
def serve(
    context: typer.Context,
    workers: _Workers = None,
    scan_interval: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="From one scan of all folders to the next; else orchestrator.scan_interval.",
        ),
    ] = None,
    log_format: _Form = None,
) -> None:
    """Scan, load, switch and clean until it is stopped.

    It finds new snapshots, loads each into a database of its own, moves the customer's alias to it, and drops
    databases that are too old. One is enough; see `work` for more workers.

    Ctrl+C or SIGTERM: running loads may end within shutdown_timeout; a second time: at once. Nothing is lost.
    """
    named = {"orchestrator__num_workers": workers, "orchestrator__scan_interval": scan_interval}
    _serve(*_start(context, **named, log_format=log_format), scans=True)


@app.command(epilog=examples("bgdeploy work --workers 2"))
def work(context: typer.Context, workers: _Workers = None, log_format: _Form = None) -> None:
    """Like serve, without scanning: more workers for one job table.

    On the same host, with the same configuration as a `serve` that runs.
    """
    _serve(*_start(context, orchestrator__num_workers=workers, log_format=log_format), scans=False)


def _start(context: typer.Context, **named: Any) -> tuple[Site, Stop]:
    """Open the site with settings that the command line names, None where it does not; log, and listen to signals."""
    from bgdeploy import log
    from bgdeploy.worker.shutdown import Stop, listen

    settings = context.obj.settings(**named)
    log.configure(settings.log_format)
    if settings.target_follows:
        log.emit("service.target", target=settings.target, setting=settings.target_follows)
    stop = Stop(timeout=settings.orchestrator.shutdown_timeout)
    listen(stop)
    return context.obj.site(**named), stop


def _serve(site: Site, stop: Stop, *, scans: bool) -> None:
    from bgdeploy.cli.live import live_loads
    from bgdeploy.service.serve import serve

    with live_loads(site):
        serve(site, stop, workers=site.settings.orchestrator.num_workers, scans=scans)


@app.command(
    epilog=examples(
        "bgdeploy run",
        "bgdeploy run --timeout 600 --workers 2",
        "bgdeploy run --customer acme --timestamp 1767741427",
        "bgdeploy run --customer acme --no-switch",
    )
)
def run(
    context: typer.Context,
    customer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Load only this customer's newest snapshot, now.",
            autocompletion=complete_customers,
        ),
    ] = None,
    timestamp: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=LARGEST_ID,
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
            max=LONGEST,
            metavar="SECONDS",
            help="Until it gives up; loads that run are given back and resume next time.",
        ),
    ] = 3600.0,
    workers: _Workers = None,
    log_format: _Form = None,
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
    if customer is not None:
        _run_one(*_start(context, log_format=log_format), customer, timestamp, not no_switch, timeout)
    else:
        _run_all(*_start(context, orchestrator__num_workers=workers, log_format=log_format), timeout)


def _run_one(
    site: Site, stop: Stop, name: str, timestamp: int | None, switches: bool, timeout: float
) -> None:
    from bgdeploy.cli.live import live_loads
    from bgdeploy.service.run_once import find_snapshot, run_one

    meant = find_snapshot(site, name, timestamp)
    with live_loads(site):
        outcome = run_one(site, stop, name, meant, switches=switches, timeout=timeout)
    if stop.hurry.is_set():
        raise typer.Exit(ExitCode.INTERRUPTED)
    if not outcome.well:
        raise BgdeployError(outcome.said, kept=outcome.kept, cure=outcome.cure)
    print(outcome.said)


def _run_all(site: Site, stop: Stop, timeout: float) -> None:
    from bgdeploy.cli.live import live_loads
    from bgdeploy.service.run_once import list_failed, list_unserved, run, scan_first

    def say(text: str) -> None:
        typer.echo(text, err=True)

    before = list_failed(site)
    unread = scan_first(site)
    with live_loads(site):
        finished = run(site, stop, workers=site.settings.orchestrator.num_workers, timeout=timeout)
    failed = [job for key, job in list_failed(site).items() if key not in before]
    for job in failed:  # the log has just said why
        number = job["id"]
        say(f"failed: job {number} {job['customer']}/{job['timestamp']}; why: bgdeploy jobs show {number}")
    for name, reason in unread:
        say(f"not scanned: {name}: {reason}; look again with: bgdeploy scan --once")
    if stop.hurry.is_set():
        raise typer.Exit(ExitCode.INTERRUPTED)
    if not finished:
        say("not everything could be finished; see: bgdeploy jobs list")
    told = {job["id"] for job in failed}
    unserved = [job for job in list_unserved(site) if job["id"] not in told]
    for job in unserved[:MOST_TOLD]:
        number, name = job["id"], f"{job['customer']}/{job['timestamp']}"
        why = f": {job['reason']}" if job["reason"] else ""
        say(f"not live: {name} is {job['state']}{why}; bgdeploy jobs show {number}")
    if (more := len(unserved) - MOST_TOLD) > 0:
        say(f"not live: the newest of {more} more customers; bgdeploy customers")
    raise typer.Exit(ExitCode.OK if finished and not failed and not unread else ExitCode.FAILED)


@app.command(epilog=examples("bgdeploy scan --once", "bgdeploy scan --once --json"))
def scan(
    context: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="Scan once and end: what scan does anyway.", show_default=False)
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Find new snapshots and queue the ready ones; loads nothing.

    Exit 0 when the scan itself worked, even if it found nothing.
    """
    api = context.obj.api()
    report = api.scan()
    render.print_json(report) if as_json else _print_report(report)
    render.warn(api.capacity_warning())
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
    if report.queued:
        print("load what is queued: bgdeploy run, or bgdeploy serve")
    if report.failed:
        print("why it failed: bgdeploy jobs list --state failed")
    if report.again or report.waiting:
        print("what waits is judged again by: bgdeploy scan --once")


@app.command(
    epilog=examples(
        "bgdeploy wait acme 1767741427 --timeout 600", "bgdeploy wait acme 1767741427 --timeout 0 --json"
    )
)
def wait(
    context: typer.Context,
    customer: Name,
    timestamp: Annotated[
        int, typer.Argument(min=1, help="The snapshot's timestamp.", autocompletion=complete_timestamps)
    ],
    timeout: Annotated[
        float,
        typer.Option(min=0, max=LONGEST, metavar="SECONDS", help="How long to wait before giving up."),
    ] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Wait until this snapshot or a newer one is live (ETL scripts).

    Exit 0 when it is. Exit 1 at once when its job failed, was cancelled, or waits for a person; and when the
    time is over. A snapshot that nobody has found yet is waited for.
    """
    if timestamp > wall() + TOMORROW:
        what = f"{timestamp} is later than tomorrow; seconds since 1970 are expected"
        raise typer.BadParameter(what, param_hint="TIMESTAMP")
    clear = render.CLEAR if sys.stderr.isatty() else ""

    def tell(look: Waiting) -> None:
        if look.warning:
            print(f"{clear}bgdeploy: {look.warning}", file=sys.stderr, flush=True)
        if clear:
            share = "" if look.share is None else f"{look.share:4.0%}  "
            line = f"{look.waited_seconds:5.0f} s  {share}{look.why}"
            print(clear + line[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr, flush=True)

    try:
        found = context.obj.api().wait(customer, timestamp, timeout=timeout, tell=tell)
    finally:
        print(clear, end="", file=sys.stderr, flush=True)
    live = found.verdict == "live"
    if as_json:
        render.print_json(found)
        raise typer.Exit(ExitCode.OK if live else ExitCode.FAILED)
    if not live:
        over = f"Not live after {timeout:g} s: " if found.verdict == "timeout" else ""
        stays = f"{found.live} stays live." if found.live else "Nothing is live yet."
        raise BgdeployError(f"{over}{found.why}", kept=stays, cure=found.next)
    print(found.why)


@app.command(epilog=examples("bgdeploy processes", "bgdeploy processes --json"))
def processes(context: typer.Context, as_json: AsJson = False) -> None:
    """Show who works: each serve, work and run, newest first.

    working holds jobs, idle waits for one. silent has missed three signs of life: it hangs, is frozen, or ended where
    that cannot be seen from here; its jobs are its own until their leases end. stopped is over, "what" says how.
    """
    api = context.obj.api()
    render.warn(api.absence())
    found = api.processes()
    if as_json:
        render.print_json(found)
        return
    empty = "Nobody has worked here so far. Start with: bgdeploy serve, or once: bgdeploy run"
    columns = ("process", "runs", "state", "last seen", "started", "version", "what")
    narrow = Shape(text=("what",), spare=("version", "started"))
    render.print_table(Table(columns, [_process(one) for one in found], empty, shape=narrow))


def _process(one: Process) -> tuple[Any, ...]:
    here = {True: "it lives", False: "it is gone", None: "not to be seen from here"}
    seen = one.stopped_at if one.silent_seconds is None else f"{show_age(one.silent_seconds)} ago"
    until = [f"until {job.lease_expires}" if one.state != "stopped" else "is free" for job in one.jobs]
    what = [
        f"job {job.job} {job.title} ({job.state}) {end}" for job, end in zip(one.jobs, until, strict=True)
    ]
    what += [one.last_words] if one.last_words else []
    what += [here[one.alive]] if one.state == "silent" else []
    loads = f"{one.role}, {one.workers} load(s) at a time"
    return f"{one.host} pid {one.pid}", loads, one.state, seen, one.started_at, one.version, "; ".join(what)
