"""Progress: how far a load has come, how fast it goes and when it may be over; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Group = Mapping[Any, Any]  # a row of the ledger


@dataclass(frozen=True)
class Progress:
    """One table's part of a load, or all of it.

    ``rows`` are committed or, where the target tells, on their way. ``rate`` is rows per second of
    this run, ``left`` the seconds it still needs at that rate; both None while nobody can tell.
    """

    name: str
    rows: int
    expected: int
    rate: float | None = None
    left: float | None = None
    running: bool = False

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.rows / self.expected if self.expected else 1.0


def of_tables(groups: Sequence[Group], fence: int, now: float) -> list[Progress]:
    """Return the progress of every table of a build, in load order."""
    names = dict.fromkeys(group["name"] for group in groups)
    return [_measure(name, [one for one in groups if one["name"] == name], fence, now) for name in names]


def of_load(groups: Sequence[Group], fence: int, now: float) -> Progress:
    """Return the progress of the whole load."""
    return _measure("", groups, fence, now)


def _measure(name: str, groups: Sequence[Group], fence: int, now: float) -> Progress:
    rows, expected = sum(map(_rows, groups)), sum(group["rows_expected"] for group in groups)
    mine = [one for one in groups if _is_of_this_run(one, fence)]
    over = all(group["confirmed_at"] is not None for group in groups)
    rate = _rate(mine, None if over else now)
    left = (expected - rows) / rate if rate and not over else None
    return Progress(name, rows, expected, rate, left, any(one["confirmed_at"] is None for one in mine))


def _rows(group: Group) -> int:
    return max(group["rows_confirmed"] or 0, group["rows_seen"] or 0)


def _is_of_this_run(group: Group, fence: int) -> bool:
    if group["started_at"] is None or group["found"]:
        return False
    return group["confirmed_at"] is None or group["confirmed_fence"] == fence


def _rate(groups: Iterable[Group], now: float | None) -> float | None:
    """Rows a second between the first start and the last end; None before there is anything to divide.

    A group that was started before may hold rows of an earlier run, and nobody knows how many.
    """
    some = [one for one in groups if one["starts"] <= 1]
    ends = [now] if now is not None else [one["confirmed_at"] for one in some]
    if not some:
        return None
    took = max(ends) - min(one["started_at"] for one in some)
    rows = sum(map(_rows, some))
    return rows / took if took > 0 and rows else None
