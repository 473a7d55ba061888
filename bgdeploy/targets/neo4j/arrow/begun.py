"""Begun: a note beside a build that the server was told of its import, which a killed process cannot abort itself."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

from bgdeploy.durable import write_durably
from bgdeploy.errors import ConfigError
from bgdeploy.targets.neo4j.access import Server

_NOTE = "arrow"


def note(folder: Path) -> None:
    """Write the note, before the server hears of the import."""
    write_durably(folder / _NOTE, "")


def over(folder: Path) -> None:
    """Remove the note: the server has forgotten the import."""
    (folder / _NOTE).unlink(missing_ok=True)


def forget(server: Server, database: str, folder: Path) -> None:
    """Have the server forget an import that was begun; raises TargetAway while it cannot be asked.

    Left alone, an import keeps its name and its disk until the server's own limit of silence.
    """
    if not (folder / _NOTE).exists():
        return
    from bgdeploy.targets.neo4j.arrow.client import Client, find_address

    # A server that takes no Arrow any more was restarted, and knows of no import.
    with suppress(ConfigError), closing(Client(server.access, find_address(server))) as client:
        client.abort(database)
