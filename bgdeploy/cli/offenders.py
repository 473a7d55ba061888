"""The command that lists every row of a job's snapshot whose id or end does not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bgdeploy.cli import complete, output
from bgdeploy.cli.options import AsJson
from bgdeploy.errors import ExitCode

if TYPE_CHECKING:
    from bgdeploy.service.results import Offenders

_LONG = 1_000_000  # rows; looking through more takes a while


def offenders(
    context: typer.Context,
    job: Annotated[int, typer.Argument(help="A job's id.", autocompletion=complete.any_job)],
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
    found = output.guarded(lambda: _offenders(context, job, file, as_json))
    raise typer.Exit(ExitCode.FAILED if found else ExitCode.OK)


def _offenders(context: typer.Context, job_id: int, file: Path | None, as_json: bool) -> int:
    found: Offenders = context.obj.api().offenders(job_id, file, tell=_tell_where)
    output.print_json(found) if as_json else _print_report(found)
    return found.rows


def _tell_where(folder: str, rows: int) -> None:
    if rows > _LONG:
        print(f"looking through {rows:,} rows of {folder}", file=sys.stderr)


def _print_report(found: Offenders) -> None:
    if not found.findings:
        print(f"Every id and every end fits in {found.folder}.")
    for finding in found.findings:
        print(f"{finding.said}:")
        for line in finding.told:
            print(f"  {line}")
    if found.output is not None:
        print(f"Written to {found.output}; its files are relative to {found.folder}.")
