"""The command that looks at everything and changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from bgdeploy.cli import output
from bgdeploy.cli.context import EXAMPLES
from bgdeploy.cli.options import AsJson
from bgdeploy.errors import ExitCode

if TYPE_CHECKING:
    from bgdeploy.finding import Finding

_COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "error": typer.colors.RED}


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog=EXAMPLES["doctor"])(doctor)


def doctor(
    context: typer.Context,
    try_rights: Annotated[
        bool,
        typer.Option(
            "--try-rights", help="On Neo4j, try rights on a scratch database that is dropped again."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at everything bgdeploy rests on, and say what helps.

    It changes nothing, and works when little else does. Exit 1 when something is an error; a warning or
    something that cannot be told (unknown) leaves it at 0.
    """
    output.guarded(lambda: _doctor(context, try_rights, as_json))


def _doctor(context: typer.Context, try_rights: bool, as_json: bool) -> None:
    from bgdeploy.service.doctor.examine import examine

    findings = examine(context.obj.config, context.obj.overrides, try_rights=try_rights)
    verdicts = _show_json(findings) if as_json else _show(findings)
    raise typer.Exit(ExitCode.FAILED if verdicts["error"] else ExitCode.OK)


def _show_json(findings: Iterable[Finding]) -> Counter[str]:
    from dataclasses import asdict

    found = [asdict(one) for one in findings]
    output.print_json(found)
    return Counter(one["verdict"] for one in found)


def _show(findings: Iterable[Finding]) -> Counter[str]:
    """Print each finding as soon as it is there, below its subject; then the sum."""
    verdicts: Counter[str] = Counter()
    subject = ""
    for one in findings:
        if one.subject != subject:
            subject = one.subject
            typer.secho(subject, bold=True)
        _show_one(one)
        verdicts[one.verdict] += 1
    told = ("error", "warning", "unknown", "ok")
    typer.echo(", ".join(f"{verdicts[verdict]} {verdict}" for verdict in told))
    return verdicts


def _show_one(one: Finding) -> None:
    word = typer.style(f"{one.verdict:<8}", fg=_COLOURS.get(one.verdict, typer.colors.MAGENTA))
    lines = one.what.splitlines() or [""]
    typer.echo("\n           ".join([f"  {word} {lines[0]}", *lines[1:]]))
    for line in one.cure.splitlines():
        typer.echo(f"           > {line}")
