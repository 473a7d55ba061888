"""``wait``: for ETL scripts, until a snapshot or a newer one is live."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from bgdeploy.cli import complete, options, output
from bgdeploy.cli.context import EXAMPLES
from bgdeploy.cli.options import AsJson, Name
from bgdeploy.clock import wall
from bgdeploy.errors import BgdeployError, ExitCode

if TYPE_CHECKING:
    from bgdeploy.service.results import Waited, Waiting

TOMORROW = 86_400  # seconds from now: what lies later is no snapshot
CLEAR = "\r\x1b[K"


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
    clear = CLEAR if sys.stderr.isatty() else ""

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
    if as_json:
        output.print_json(found)
        raise typer.Exit(ExitCode.OK if found.verdict == "live" else ExitCode.FAILED)
    _say(found, timeout)


def _say(found: Waited, timeout: float) -> None:
    if found.verdict == "live":
        print(found.why)
        return
    over = f"Not live after {timeout:g} s: " if found.verdict == "timeout" else ""
    stays = f"{found.live} stays live." if found.live else "Nothing is live yet."
    output.fail(BgdeployError(f"{over}{found.why}", kept=stays, cure=found.next))
