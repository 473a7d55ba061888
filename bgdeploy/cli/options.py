"""Options that several commands share, how their values are read, and how a call is written down again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from bgdeploy.cli import complete
from bgdeploy.clock import wall

if TYPE_CHECKING:
    from bgdeploy.service.api import Page

MOST = 1_000_000  # lines of a listing
LARGEST_ID = 2**63 - 1  # that the job table can compare with
LONGEST = 365 * 86_400  # seconds that a command may be told to wait; a bound keeps nan away too
WATCH_EVERY = "2"  # seconds, where --watch names none
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Name = Annotated[str, typer.Argument(help="A customer's name.", autocompletion=complete.customers)]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.", show_default=False)
]
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

    @property
    def picky(self) -> bool:
        """True where only lines of some time are wanted, or those behind another one."""
        return any(one is not None for one in (self.since, self.until, self.before))

    def page(self, orders: Collection[str]) -> Page:
        """Return the page, with one line more than is shown: it tells whether there is another page."""
        from bgdeploy.service.api import Page

        since, until = moment(self.since, "--since"), moment(self.until, "--until")
        by = order(self.sort, self.reverse, orders)
        return Page(limit=(self.limit or 0) + 1, since=since, until=until, before=self.before, sort=by)


class _Watching:
    """Lets ``--watch`` stand without its number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what was given, with the number put in where it is missing."""
        return super().parse_args(ctx, list(_with_numbers(args)))  # type: ignore[misc,no-any-return]


class Listing(_Watching, TyperCommand):
    """A command that lists."""


class ListingGroup(_Watching, TyperGroup):
    """A group that lists where no command of it is named."""


def _with_numbers(args: list[str]) -> Iterator[str]:
    for word, following in zip(args, [*args, ""][1:], strict=True):
        yield word
        if word == "--watch" and not re.fullmatch(r"[0-9.]+", following):
            yield WATCH_EVERY


def filled(text: str | None) -> str | None:
    """Return it, or raise a usage error for an empty one, which is most often a variable that was not set."""
    if text == "":
        raise typer.BadParameter("it is empty; give a name, or leave the option out")
    return text


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
    one_of(sort.removeprefix("-"), known, "--sort")
    if not reverse:
        return sort
    return sort.removeprefix("-") if sort.startswith("-") else f"-{sort}"


def one_of(value: str, known: Collection[str], option: str) -> str:
    """Return the value, or raise a usage error that lists the known ones."""
    if value not in known:
        word = option.removeprefix("--")
        raise typer.BadParameter(f"no {word} {value!r}; there are: {', '.join(known)}", param_hint=option)
    return value


def again(context: typer.Context, **changes: Any) -> str:
    """Return this call as it would be typed, with other values for some options."""
    words = ["bgdeploy"]
    for one in _path(context):
        words += [] if one.parent is None else [str(one.info_name)]
        values = {**one.params, **(changes if one is context else {})}
        words += [word for parameter in one.command.params for word in _typed(one, parameter, values)]
    return shlex.join(words)


def _path(context: Any) -> list[Any]:
    return ([*_path(context.parent)] if context.parent is not None else []) + [context]


def _typed(context: Any, parameter: Any, values: Mapping[str, Any]) -> list[str]:
    value = values.get(parameter.name)
    if value in (None, False, (), []) or value == parameter.get_default(context):
        return []
    many = value if isinstance(value, list | tuple) else [value]
    if parameter.param_type_name == "argument":
        return [str(one) for one in many]
    option = max(parameter.opts, key=len)
    return [option] if value is True else [word for one in many for word in (option, str(one))]
