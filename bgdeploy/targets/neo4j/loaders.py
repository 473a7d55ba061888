"""Loaders: the ways a snapshot gets into a database, and which one a load takes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Ledger, Ticket
from bgdeploy.targets.neo4j.access import Server


class Load(Protocol):
    """Create the ticket's database and fill it with the snapshot; ``folder`` is for files made on the way.

    Returns when every row is in, every key and declared index is online, and nothing but the snapshot
    is in the database. Raises BadInput, TargetFull, TargetAway, BuildLocked, NameTaken or TargetError.
    """

    def __call__(
        self, server: Server, ticket: Ticket, snapshot: Snapshot, ledger: Ledger, folder: Path
    ) -> None:
        """See above."""


def find_loader(name: str) -> Load:
    """The loader of this name, imported when it is used."""
    from bgdeploy.targets.neo4j.bolt.load import load

    return load
