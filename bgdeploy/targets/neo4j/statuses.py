"""Statuses: what the rows of SHOW DATABASES say about one database; pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bgdeploy.targets.base import DatabaseInfo, Rows, Status

Verdict = Literal["absent", "online", "coming", "stuck", "going"]

# What each status means for somebody who wants to use the database. One that is not listed, such as
# one of a newer server, means "coming": wait, and never drop.
_MEANING: dict[str, Verdict] = {
    "online": "online",
    "offline": "stuck",
    "dirty": "stuck",
    "quarantined": "stuck",
    "deallocating": "going",
}
_NOT_OURS = ("system", "composite")


@dataclass(frozen=True)
class Found:
    """One database with the row of every server that has it."""

    name: str
    rows: tuple[dict[str, Any], ...]

    @property
    def verdict(self) -> Verdict:
        """Whether it can be used: the worst that any server says of it."""
        if not self.rows:
            return "absent"
        said = {_read(row) for row in self.rows}
        if said == {"going"}:
            return "going"
        worst: tuple[Verdict, ...] = ("stuck", "coming")  # one that gives its copy up is in nobody's way
        return next((one for one in worst if one in said), "online")

    @property
    def serving(self) -> bool:
        """Whether any server has it online, and readers with it."""
        return any(_read(row) == "online" for row in self.rows)

    @property
    def leaving(self) -> bool:
        """Whether any server is about to give it up."""
        return any(_read(row) == "going" for row in self.rows)

    @property
    def text(self) -> str:
        """Status of each server with its message, for people."""
        said = []
        for row in self.rows:
            message = f" ({row['statusMessage']})" if row.get("statusMessage") else ""
            said.append(f"{row['currentStatus']} on {row.get('address') or 'the server'}{message}")
        return ", ".join(said) or "not there"

    @property
    def access(self) -> str:
        """``read-only`` or ``read-write``, as the first server tells it."""
        return str(self.rows[0]["access"]) if self.rows else ""

    @property
    def created(self) -> str:
        """When it was made, which tells it from another of its name; empty where it is not there."""
        return str(self.rows[0].get("creationTime") or "") if self.rows else ""


def _read(row: dict[str, Any]) -> Verdict:
    status = str(row["currentStatus"])
    if status == "offline" and row.get("requestedStatus") == "online" and not row.get("statusMessage"):
        return "coming"  # it was made and has not been started yet
    return _MEANING.get(status, "coming")


def gather(rows: Iterable[dict[str, Any]]) -> list[Found]:
    """Put the rows of one database together, whatever order the servers answered in; by name."""
    named: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        named.setdefault(str(row["name"]), []).append(row)
    return [Found(name, tuple(named[name])) for name in sorted(named)]


def find(rows: Rows, name: str) -> Found:
    """The database of this name, with no rows where there is none."""
    return next((one for one in gather(rows) if one.name == name), Found(name, ()))


def list_databases(rows: Rows) -> list[DatabaseInfo]:
    """Every database but the server's own: ``system``, the default one, and composites."""
    own = {str(row["name"]) for row in rows if row["type"] in _NOT_OURS or row["default"] or row["home"]}
    return [
        DatabaseInfo(one.name, _status(one), trouble="" if one.verdict == "online" else one.text)
        for one in gather(rows)
        if one.name not in own
    ]


def _status(one: Found) -> Status:
    known: dict[Verdict, Status] = {"online": "online", "going": "dropping"}
    return known.get(one.verdict, "unknown")


def failures(rows: Sequence[dict[str, Any]]) -> str:
    """What the rows of a command with WAIT say went wrong; empty when every server succeeded."""
    return "; ".join(
        f"{row.get('address')}: {row.get('message') or row.get('state')}"
        for row in rows
        if row.get("success") is False
    )
