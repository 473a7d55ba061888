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
    from bgdeploy.service.offenders import Report

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
    from bgdeploy.service.offenders import list_offenders, show_report

    report = list_offenders(context.obj.site(), job_id, file, _tell_where)
    if as_json:
        output.print_json({**show_report(report), "output": file})
    else:
        _print_report(report, file)
    return report.rows


def _tell_where(folder: str, rows: int) -> None:
    if rows > _LONG:
        print(f"looking through {rows:,} rows of {folder}", file=sys.stderr)


def _print_report(report: Report, file: Path | None) -> None:
    if not report.found:
        print(f"Every id and every end fits in {report.folder}.")
    for one in report.found:
        print(f"{one['said']}:")
        for line in one["lines"]:
            print(f"  {line}")
    if file is not None:
        print(f"Written to {file}; its files are relative to {report.folder}.")
