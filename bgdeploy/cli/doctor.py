"""The command that looks at everything and changes nothing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bgdeploy.cli import output
from bgdeploy.cli.context import EXAMPLES
from bgdeploy.cli.options import AsJson
from bgdeploy.errors import ExitCode

if TYPE_CHECKING:
    from bgdeploy.finding import Finding

TOLD = ("error", "unknown", "warning", "ok")  # the worst first
CLEAR = "\r\x1b[K"
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
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line for each thing that is well, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at everything bgdeploy rests on, and say what helps.

    What is wrong comes first, then a line for each area. It changes nothing, and works when little else does.
    Exit 1 when something is an error; a warning or something that cannot be told (unknown) leaves it at 0.
    """
    show = _show_json if as_json else _show_all if verbose else _show_briefly
    output.guarded(lambda: _doctor(context, try_rights, show))


def _doctor(
    context: typer.Context, try_rights: bool, show: Callable[[Iterable[Finding]], Counter[str]]
) -> None:
    verdicts = show(context.obj.api().doctor(try_rights=try_rights))
    raise typer.Exit(ExitCode.FAILED if verdicts["error"] else ExitCode.OK)


def _show_json(findings: Iterable[Finding]) -> Counter[str]:
    found = list(findings)
    output.print_json(found)
    return Counter(one.verdict for one in found)


def _show_all(findings: Iterable[Finding]) -> Counter[str]:
    """Print each finding as soon as it is there, below its subject; then the sum."""
    verdicts: Counter[str] = Counter()
    subject = ""
    for one in findings:
        if one.subject != subject:
            subject = one.subject
            typer.secho(subject, bold=True)
        _show_one(one, one.what)
        verdicts[one.verdict] += 1
    typer.echo(_sum_up(verdicts))
    return verdicts


def _show_briefly(findings: Iterable[Finding]) -> Counter[str]:
    """Print what is wrong in the order of its urgency, then each area with what is well in it, then the sum."""
    found = list(_told_meanwhile(findings))
    verdicts: Counter[str] = Counter(one.verdict for one in found)
    for one in sorted((one for one in found if one.verdict != "ok"), key=_urgency):
        _show_one(one, f"{one.subject}: {one.what}")
    areas: dict[str, Counter[str]] = {}
    for one in found:
        areas.setdefault(one.subject, Counter())[one.verdict] += 1
    for subject, some in areas.items():
        _show_area(subject, some)
    typer.echo(f"{_sum_up(verdicts)}; all of it: bgdeploy doctor --verbose")
    return verdicts


def _urgency(one: Finding) -> tuple[bool, int]:
    """The worst first; what only rests on another finding goes with it, and comes last."""
    return one.is_consequence, TOLD.index(one.verdict)


def _show_area(subject: str, some: Counter[str]) -> None:
    troubles = [f"{some[verdict]} {verdict}" for verdict in TOLD[:-1] if some[verdict]]
    above = f"; see above: {', '.join(troubles)}" if troubles else ""
    typer.echo(f"  {_styled('-' if troubles else 'ok')} {subject}: {some['ok']} ok{above}")


def _told_meanwhile(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The same; a terminal shows meanwhile what was looked at last, since something may hang."""
    shows = sys.stderr.isatty()
    for one in findings:
        if shows:
            print(f"{CLEAR}looked at: {one.subject}", end="", file=sys.stderr, flush=True)
        yield one
    if shows:
        print(CLEAR, end="", file=sys.stderr, flush=True)


def _sum_up(verdicts: Counter[str]) -> str:
    return ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in TOLD)


def _show_one(one: Finding, what: str) -> None:
    lines = what.splitlines() or [""]
    typer.echo("\n           ".join([f"  {_styled(one.verdict)} {lines[0]}", *lines[1:]]))
    for line in one.cure.splitlines():
        typer.echo(f"           > {line}")


def _styled(verdict: str) -> str:
    return typer.style(f"{verdict:<8}", fg=_COLOURS.get(verdict, typer.colors.MAGENTA))
