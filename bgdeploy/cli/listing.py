"""Listings: shown once, or again whenever something in them has changed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from bgdeploy.cli import output
from bgdeploy.cli.options import Asked, again
from bgdeploy.cli.output import Table
from bgdeploy.clock import iso, wall

if TYPE_CHECKING:
    from bgdeploy.service.api import Deployments

Lines = Sequence[Any]  # results, each with an ``id`` where they have pages
Draw = Callable[[Lines, bool], Table]  # lines, and whether there are more


def show(look: Callable[[], Lines], draw: Draw, asked: Asked) -> None:
    """Show what ``look`` finds, up to the limit; where it was asked for, again and again until Ctrl+C.

    On a terminal a table is drawn over the one before; elsewhere a fresh one, or a JSON document, follows
    each change. ``look`` finds a line more than the limit where there is one.
    """

    def table(found: Lines) -> Table:
        return draw(found[: asked.limit], asked.limit is not None and len(found) > asked.limit)

    def tell(found: Lines) -> None:
        output.print_json(found[: asked.limit]) if asked.as_json else output.print_it(table(found))

    if asked.every is None:
        tell(look())
    elif sys.stdout.isatty() and not asked.as_json:
        _redraw(lambda: table(look()), asked.every)
    else:
        _repeat(look, tell, asked.every)


def _repeat(look: Callable[[], Lines], tell: Callable[[Lines], None], every: float) -> None:
    last: Lines | None = None
    while True:
        found = look()
        if last is None or _settled(found) != _settled(last):
            tell(found)
            sys.stdout.flush()
            last = found
        time.sleep(every)


def _settled(found: Lines) -> Lines:
    """Without what changes by itself: getting older is no news."""
    return [
        replace(line, snapshot_age_seconds=None) if hasattr(line, "snapshot_age_seconds") else line
        for line in found
    ]


def _redraw(look: Callable[[], Table], every: float) -> None:
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        while True:
            live.update(_picture(look(), every), refresh=True)
            time.sleep(every)


def _picture(table: Table, every: float) -> Any:
    from rich.text import Text

    head = f"every {every:g} s, now {iso(wall())}; Ctrl+C ends"
    return Text.from_ansi("\n".join([head, *output.lines(table, on_terminal=True)]))


def check_customer(api: Deployments, customer: str | None, asked: Asked) -> None:
    """Say so where people ask for a customer that does not exist; scripts get an empty list, as for a new one."""
    if customer is not None and not asked.as_json:
        api.check_customer(customer)


def tell_absence(api: Deployments) -> None:
    """Say on stderr that nobody works, which no listing would show: all in it stands still."""
    if said := api.absence():
        typer.echo(f"warning: {said}", err=True)


def follow(last: int, look: Callable[[int], Lines], tell: Callable[[Lines], None], every: float) -> None:
    """Tell whatever ``look`` finds after the id that was told last, until Ctrl+C."""
    while True:
        sys.stdout.flush()
        time.sleep(every)
        if found := look(last):
            tell(found)
            last = found[-1].id


def next_page(context: typer.Context, shown: Lines, more: bool) -> str:
    """Return the line that names the next page's command, or nothing where there is none."""
    return f"more: {again(context, before=shown[-1].id)}" if more else ""
