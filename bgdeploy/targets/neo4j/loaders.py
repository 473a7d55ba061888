"""Loaders: by which of three ways a snapshot gets into a database, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from bgdeploy.errors import BgdeployError, TargetAway
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Ledger, Need, Ticket
from bgdeploy.targets.neo4j import health, room
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.refusals import RightMissing

FEW = 5_000_000  # rows that Bolt loads in a minute or two, and continues after any crash
MANY = 1_000_000_000  # rows from which the import tool's offline way is worth what it asks for
_PLACES = {"bolt": "bolt", "arrow": "arrow", "import": "offline"}


@dataclass(frozen=True)
class Facts:
    """What the choice rests on; ``no_arrow`` and ``no_import`` say why a way is closed, and are empty where it is open."""

    rows: int
    edition: str
    no_arrow: str
    no_import: str


@dataclass(frozen=True)
class Choice:
    """A loader and the sentence that explains it."""

    loader: str
    why: str


def load(server: Server, ticket: Ticket, snapshot: Snapshot, ledger: Ledger, folder: Path) -> None:
    """Load by the job's loader; where that is ``auto``, choose one and store it with the job first."""
    loader = ticket.settings.get("loader", "bolt")
    if loader == "auto":
        choice = choose(look(server, snapshot))
        ledger.chosen(choice.loader, choice.why)
        loader = choice.loader
    settings = {**ticket.settings, "loader": loader}
    package = import_module(f"bgdeploy.targets.neo4j.{_PLACES[loader]}.load")
    package.load(server, replace(ticket, settings=settings), snapshot, ledger, folder)


def look(server: Server, snapshot: Snapshot) -> Facts:
    """Ask the server and this host for what the choice rests on."""
    edition = health.edition(server)
    if edition == "community" or snapshot.rows < FEW:
        return Facts(snapshot.rows, edition, "not asked", "not asked")
    return Facts(snapshot.rows, edition, find_arrow(server), _find_import(server, snapshot))


def choose(facts: Facts) -> Choice:
    """The fastest way that is open for so many rows; the reason names what spoke against the others."""
    rows = f"{facts.rows:,} rows"
    if facts.edition == "community":
        return Choice("bolt", "Community Edition takes data over Bolt only")
    if facts.rows < FEW:
        return Choice("bolt", f"{rows} are few, and a load over Bolt resumes at its next batch")
    if not facts.no_import and (facts.no_arrow or facts.rows >= MANY):
        against = (
            f"Arrow is closed ({facts.no_arrow})" if facts.no_arrow else "the tool needs least of the server"
        )
        return Choice("import", f"{rows}, the server's import tool is here, and {against}")
    if not facts.no_arrow:
        return Choice(
            "arrow", f"{rows}, and the server takes Arrow; import: {facts.no_import or 'not needed'}"
        )
    return Choice("bolt", f"nothing faster is open (arrow: {facts.no_arrow}; import: {facts.no_import})")


def find_arrow(server: Server) -> str:
    """Why the server takes no Arrow, in one clause; empty where it does."""
    address = import_module("bgdeploy.targets.neo4j.arrow.address")
    try:
        address.find_address(server)
    except BgdeployError as error:
        return _closed(error)
    return ""


def _closed(error: BgdeployError) -> str:
    """Why a way is closed; a server that is away for a moment closes none, and the job waits for it."""
    if isinstance(error, TargetAway) and not isinstance(error, RightMissing):
        raise error
    return error.what.rstrip(".")


def _find_import(server: Server, snapshot: Snapshot) -> str:
    from bgdeploy.targets.neo4j.offline import seed
    from bgdeploy.targets.neo4j.offline.load import check
    from bgdeploy.targets.neo4j.offline.sources import check_fit

    if server.access.import_tool is None:
        return "neo4j.import_tool is not set"
    try:
        check(server)
        seed.check(server)
        check_fit(snapshot)
    except BgdeployError as error:
        return _closed(error)
    return ""


def find_needs(
    server: Server, settings: Mapping[str, Any], snapshot: Snapshot, running: Sequence[str]
) -> Iterator[Need]:
    """What a load of this snapshot needs, whichever way it goes, and what the import tool needs beside."""
    yield from room.find_needs(server, snapshot, running)
    if settings.get("loader") == "import":
        from bgdeploy.targets.neo4j.offline.needs import find_needs as find_more

        yield from find_more(server, snapshot)
