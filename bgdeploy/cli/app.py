"""The ``bgdeploy`` command: its options, and the order in which its commands are shown."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bgdeploy import log
from bgdeploy.cli import customers, doctor, holds, jobs, moves, output, processes, run, setup, steer, wait
from bgdeploy.cli.context import EXAMPLES, Given, read_pairs
from bgdeploy.errors import BadWords

ORDER = (
    "serve", "scan", "work", "run", "wait", "jobs", "retry", "customers", "switches", "query", "switch",
    "rollback", "pin", "unpin", "pause", "resume", "processes", "doctor", "init", "config", "db", "simulate", "demo",
)  # fmt: skip


class Ordered(TyperGroup):
    """Shows its commands in the order of a day's work."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands; one that has no place yet comes last."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    name="bgdeploy",
    cls=Ordered,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    add_completion=True,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"bgdeploy {version('bgdeploy')}")
        raise typer.Exit


@app.callback(epilog=EXAMPLES["bgdeploy"])
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
    log.configure(
        "text", level=logging.WARNING
    )  # `serve`, `work` and `run` say more, in the form that is configured
    context.obj = Given(config, read_pairs(set_ or []))


for group in (run, wait, jobs, steer, customers, moves, holds, processes, doctor, setup):
    group.register(app)


def main() -> None:
    """The command line, whole; see ``bgdeploy.__main__``."""
    _open_output()
    output.guarded(_run)


def _run() -> None:
    _refuse_bytes()
    try:
        app(prog_name="bgdeploy")  # however it was started: completion and examples are for that name
    finally:
        _flush()


def _refuse_bytes() -> None:
    """Refuse text that is no UTF-8 before anything is done with it: no name, file or table could keep it."""
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


def _flush() -> None:
    """Write what is left; where that fails nothing stays to be tried again at the very end, with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _open_output() -> None:
    """Let every name be printed, whatever the terminal's character set, and let output be closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        else:
            stream.reconfigure(errors="backslashreplace")
