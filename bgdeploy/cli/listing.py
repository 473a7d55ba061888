"""Listings: what all of them can be asked (filters, orders, pages, ``--watch``), and how they are shown.

A listing is shown once, or again whenever something in it has changed, until Ctrl+C.
"""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from bgdeploy.cli import render
from bgdeploy.cli.context import LARGEST_ID
from bgdeploy.cli.render import Table
from bgdeploy.clock import iso, wall

if TYPE_CHECKING:
    from bgdeploy.service.api import Deployments, Page

MOST = 1_000_000  # lines
WATCH_EVERY = "2"  # seconds, where --watch names none
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}

Lines = Sequence[Any]  # results, each with an ``id`` where they have pages
Draw = Callable[[Lines, bool], Table]  # lines, and whether there are more

Limit = Annotated[int, typer.Option(min=1, max=MOST, metavar="N", help="At most so many.")]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Not before this: 2026-01-31T12:00 (UTC), unix seconds, or an age: 2d, 12h."
    ),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before this time.")]
Before = Annotated[
    int | None,
    typer.Option(max=LARGEST_ID, metavar="ID", help="Go on after the line with this id: the next page."),
]
Reverse = Annotated[bool, typer.Option("--reverse", help="The other way round.")]
Watch = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        max=86_400,
        metavar="[SECONDS]",
        help="Look again every so many seconds [2]; Ctrl+C ends it (exit 130).",
    ),
]


class _Watching:
    """Lets ``--watch`` stand without its number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what was given, with the number put in where it is missing."""

        def whole() -> Iterator[str]:
            for word, following in zip(args, [*args, ""][1:], strict=True):
                yield word
                if word == "--watch" and not re.fullmatch(r"[0-9.]+", following):
                    yield WATCH_EVERY

        return super().parse_args(ctx, list(whole()))  # type: ignore[misc,no-any-return]


class Listing(_Watching, TyperCommand):
    """A command that lists."""


class ListingGroup(_Watching, TyperGroup):
    """A group that lists where no command of it is named."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked of a listing, whatever it lists; ``every`` in seconds, None to look once."""

    limit: int | None
    every: float | None
    as_json: bool
    since: str | None = None
    until: str | None = None
    before: int | None = None
    sort: str = "-at"
    reverse: bool = False

    def page(self, orders: Collection[str]) -> Page:
        """Return the page, with one line more than is shown: it tells whether there is another page."""
        from bgdeploy.service.api import Page

        since, until = moment(self.since, "--since"), moment(self.until, "--until")
        by = order(self.sort, self.reverse, orders)
        return Page(limit=(self.limit or 0) + 1, since=since, until=until, before=self.before, sort=by)


def moment(text: str | None, option: str) -> float | None:
    """Return seconds since 1970 for an ISO time (UTC unless it says otherwise), unix seconds, or an age."""
    if text is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    age = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]+)(?: ago)?", text)
    if age is not None and age[2] in _UNITS:
        return wall() - float(age[1]) * _UNITS[age[2]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        ways = "2026-01-31, 2026-01-31T12:00:00Z, 1767741427, or an age: 30min, 12h, 2d, 1w"
        raise typer.BadParameter(f"{text!r} is no time; write {ways}", param_hint=option) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def order(sort: str, reverse: bool, known: Collection[str]) -> str:
    """Return the order that is wanted, ``-`` first where it goes down; an unknown one is a usage error."""
    check_one_of(sort.removeprefix("-"), known, "--sort")
    if not reverse:
        return sort
    return sort.removeprefix("-") if sort.startswith("-") else f"-{sort}"


def check_one_of(value: str, known: Collection[str], option: str) -> None:
    """Raise a usage error that lists the known values, where this is none of them."""
    if value not in known:
        word = option.removeprefix("--")
        raise typer.BadParameter(f"no {word} {value!r}; there are: {', '.join(known)}", param_hint=option)


def check_customer(api: Deployments, customer: str | None, asked: Asked) -> None:
    """Say so where people ask for a customer that does not exist; scripts get an empty list, as for a new one."""
    if customer is not None and not asked.as_json:
        api.check_customer(customer)


def show(look: Callable[[], Lines], draw: Draw, asked: Asked) -> None:
    """Show what ``look`` finds, up to the limit; where it was asked for, again and again until Ctrl+C.

    On a terminal a table is drawn over the one before; elsewhere a fresh one, or a JSON document, follows
    each change. ``look`` finds a line more than the limit where there is one.
    """

    def table(found: Lines) -> Table:
        return draw(found[: asked.limit], asked.limit is not None and len(found) > asked.limit)

    def settled(found: Lines) -> Lines:
        """Without what changes by itself: getting older is no news."""
        return [
            replace(line, snapshot_age_seconds=None) if hasattr(line, "snapshot_age_seconds") else line
            for line in found
        ]

    if asked.every is not None and sys.stdout.isatty() and not asked.as_json:
        from rich.live import Live
        from rich.text import Text

        with Live(auto_refresh=False) as live:
            while True:
                drawn = render.lines(table(look()), on_terminal=True)
                head = f"every {asked.every:g} s, now {iso(wall())}; Ctrl+C ends"
                live.update(Text.from_ansi("\n".join([head, *drawn])), refresh=True)
                time.sleep(asked.every)
    last: Lines | None = None
    while True:
        found = look()
        if last is None or settled(found) != settled(last):
            render.print_json(found[: asked.limit]) if asked.as_json else render.print_table(table(found))
            last = found
        if asked.every is None:
            return
        sys.stdout.flush()
        time.sleep(asked.every)


def next_page(context: typer.Context, shown: Lines, more: bool) -> str:
    """Return the line that names the next page's command, or nothing where there is none."""
    return f"more: {again(context, before=shown[-1].id)}" if more else ""


def again(context: typer.Context, **changes: Any) -> str:
    """Return this call as it would be typed, with other values for some of the command's own options."""
    path: list[Any] = [context]
    while path[0].parent is not None:
        path.insert(0, path[0].parent)
    words = ["bgdeploy"]
    for one in path:
        if one.parent is not None:
            words.append(one.info_name)
        values = {**one.params, **(changes if one is context else {})}
        for parameter in one.command.params:
            value = values.get(parameter.name)
            if value in (None, False, (), []) or value == parameter.get_default(one):
                continue
            several = value if isinstance(value, list | tuple) else [value]
            option = [] if parameter.param_type_name == "argument" else [max(parameter.opts, key=len)]
            words += option if value is True else [word for each in several for word in (*option, str(each))]
    return shlex.join(words)
