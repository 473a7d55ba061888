"""The ``bgdeploy`` command: the options that stand before a command, and how the process begins and ends."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from bgdeploy import log
from bgdeploy.cli import customers, jobs, run, setup  # noqa: F401 - each adds its commands
from bgdeploy.cli.context import Given, app, examples, read_pairs
from bgdeploy.cli.render import guarded
from bgdeploy.errors import BadWords


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"bgdeploy {version('bgdeploy')}")
        raise typer.Exit


@app.callback(epilog=examples("bgdeploy demo", "bgdeploy serve --workers 3", "bgdeploy customers"))
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Configuration file [default: $BGDEPLOY_CONFIG, ./config.yaml]"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Set one key for this call, e.g. dataset.settle_seconds=5"
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Deploy whole graphs blue/green: find snapshots, load, verify, switch the alias, retire old ones."""
    # `serve`, `work` and `run` say more, in the form that is configured.
    log.configure("bare", level=logging.WARNING)
    context.obj = Given(config, read_pairs(set_ or []))


def main() -> None:
    """The command line, whole; see ``bgdeploy.__main__``."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        else:
            stream.reconfigure(errors="backslashreplace")  # every name can be printed in any character set
    guarded(_run)


def _run() -> None:
    # Text that is no UTF-8 is refused before anything is done with it: no name, file or table could keep it.
    variables = {name: value for name, value in os.environ.items() if name.startswith("BGDEPLOY")}
    given = [("an argument", text) for text in sys.argv[1:]]
    given += [(f"the variable {name}", value) for name, value in variables.items()]
    for place, text in given:
        try:
            f"{place}{text}".encode()
        except UnicodeEncodeError:
            shown = os.fsencode(f"{place}: {text}").decode("utf-8", "backslashreplace")
            raise BadWords(
                f"Not UTF-8 text, {shown}", kept="Nothing was done.", cure="Write it in UTF-8."
            ) from None
    try:
        app(prog_name="bgdeploy")  # however it was started: completion and examples are for that name
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            # Nothing may stay to be written at the very end, where a failure would be a traceback.
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise
