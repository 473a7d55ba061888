"""The ``bgdeploy`` command: its options, and the order in which its commands are shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bgdeploy.cli import customers, doctor, jobs, run, setup
from bgdeploy.cli.context import EXAMPLES, Given

app = typer.Typer(
    name="bgdeploy",
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
    context.obj = Given(config, dict(_pair(text) for text in set_ or []))


def _pair(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    import yaml

    return key, yaml.safe_load(value)


for group in (run, jobs, customers, doctor, setup):
    group.register(app)


def main() -> None:
    """The console script's entry."""
    _open_output()
    app()


def _open_output() -> None:
    """Let every name be printed, whatever the terminal's character set, and let output be closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        else:
            stream.reconfigure(errors="backslashreplace")
