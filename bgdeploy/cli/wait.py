"""``wait``: for ETL scripts, until a snapshot or a newer one is live."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgdeploy.cli import complete, options, output
from bgdeploy.cli.context import EXAMPLES
from bgdeploy.cli.options import AsJson, Name
from bgdeploy.clock import monotonic, wall
from bgdeploy.errors import BgdeployError, ExitCode

if TYPE_CHECKING:
    from bgdeploy.cli.context import Given
    from bgdeploy.service.wait import Verdict
    from bgdeploy.site import Site

TOMORROW = 86_400  # seconds from now: what lies later is no snapshot
LOOK_EVERY = 0.5  # seconds
PATIENCE = 5.0  # seconds of silence before it is said that nobody works
CLEAR = "\r\x1b[K"
_START = "nobody has started bgdeploy here so far. Start it with: bgdeploy serve"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog=EXAMPLES["wait"])(wait)


def wait(
    context: typer.Context,
    customer: Name,
    timestamp: Annotated[
        int, typer.Argument(min=1, help="The snapshot's timestamp.", autocompletion=complete.timestamps)
    ],
    timeout: Annotated[
        float,
        typer.Option(
            min=0,
            max=options.LONGEST,
            metavar="SECONDS",
            help="How long to wait before giving up.",
        ),
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
    output.guarded(lambda: _wait(context, customer, timestamp, timeout, as_json))


def _wait(context: typer.Context, customer: str, timestamp: int, timeout: float, as_json: bool) -> None:
    from bgdeploy.service.wait import await_live

    began, given = monotonic(), context.obj
    on_terminal = sys.stderr.isatty()
    site = _await_table(given, began, timeout)
    mind_absence = _absence(site, began)

    def tell(verdict: Verdict) -> None:
        mind_absence()
        if on_terminal:
            _progress(verdict, monotonic() - began)

    try:
        left = max(0.0, timeout - (monotonic() - began))
        verdict = await_live(site, customer, timestamp, timeout=left, tell=tell)
    finally:
        if on_terminal:
            print(CLEAR, end="", file=sys.stderr, flush=True)
    if as_json:
        named = {
            "customer": customer,
            "timestamp": timestamp,
            "waited_seconds": round(monotonic() - began, 1),
        }
        output.print_json({**named, **_shown(verdict)})
        raise typer.Exit(ExitCode.OK if verdict.answer == "live" else ExitCode.FAILED)
    _say(verdict, timeout)


def _await_table(given: Given, began: float, timeout: float) -> Site:
    """Open the job table; one that is configured and not there yet is waited for, as a snapshot is."""
    table, said = given.settings().database_path, False
    while given.is_configured() and not table.exists() and (waited := monotonic() - began) < timeout:
        if waited > PATIENCE and not said:
            said = True
            print(f"bgdeploy: {table} does not exist yet: {_START}", file=sys.stderr, flush=True)
        time.sleep(min(LOOK_EVERY, timeout))
    return given.site()


def _absence(site: Site, began: float) -> Callable[[], None]:
    """Return what says once, after one scan interval and not before, that nobody scans and loads."""
    from bgdeploy.service.idleness import find_absence

    every = max(PATIENCE, site.settings.orchestrator.scan_interval)
    due = [began + every]

    def look() -> None:
        if monotonic() < due[0]:
            return
        said = find_absence(site)
        due[0] = float("inf") if said else monotonic() + every
        if said:
            print(f"{CLEAR if sys.stderr.isatty() else ''}bgdeploy: {said}", file=sys.stderr, flush=True)

    return look


def _progress(verdict: Verdict, waited: float) -> None:
    from bgdeploy.service.wait import rows_so_far

    job, share = verdict.job, ""
    if job is not None and job["state"] == "loading" and job["rows_expected"]:
        share = f"{rows_so_far(job) / job['rows_expected']:4.0%}  "
    line = f"{waited:5.0f} s  {share}{verdict.why}"
    width = shutil.get_terminal_size().columns - 1
    print(CLEAR + line[:width], end="", file=sys.stderr, flush=True)


def _shown(verdict: Verdict) -> dict[str, Any]:
    from bgdeploy.service.views import show_job

    job = None if verdict.job is None else show_job(verdict.job)
    return {
        "verdict": verdict.answer,
        "live": verdict.live,
        "why": verdict.why,
        "next": verdict.cure,
        "job": job,
    }


def _say(verdict: Verdict, timeout: float) -> None:
    if verdict.answer == "live":
        print(verdict.why)
        return
    over = f"Not live after {timeout:g} s: " if verdict.answer == "timeout" else ""
    stays = f"{verdict.live} stays live." if verdict.live else "Nothing is live yet."
    output.fail(BgdeployError(f"{over}{verdict.why}", kept=stays, cure=verdict.cure))
