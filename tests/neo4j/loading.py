"""Loads without a job table: a target on one database, and a ledger that remembers what it was told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bgdeploy.pipeline.verify import Verified, expecting, verify
from bgdeploy.snapshots.generate import write_snapshot
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Group, Target, Ticket
from bgdeploy.targets.neo4j.target import open_target
from tests.neo4j.servers import PASSWORD
from tests.snapshots.folders import write

TIMESTAMP = 1700000001


@dataclass
class Memory:
    """A ledger in memory; ``events`` are what it was told, in order."""

    groups: tuple[Group, ...] | None = None
    rows: dict[int, int] = field(default_factory=dict)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    mark: str = ""

    def plan(self) -> tuple[Group, ...] | None:
        return self.groups

    def done(self) -> frozenset[int]:
        return frozenset(self.rows)

    def store_plan(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)

    def restart(self, reason: str) -> None:
        raise AssertionError(f"nothing is started again: {reason}")

    def chosen(self, loader: str, why: str) -> None:
        self.events.append(("chosen", loader))

    def owns(self, mark: str) -> None:
        self.mark = mark

    def started(self, group: int) -> None:
        assert group not in self.rows
        self.events.append(("started", group))

    def advanced(self, group: int, rows: int) -> None:
        self.events.append(("advanced", group, rows))

    def confirmed(self, group: int, rows: int, *, found: bool = False) -> None:
        assert group not in self.rows
        self.rows[group] = rows
        self.events.append(("confirmed", group, rows, found))

    def seen(self, group: int, rows: int) -> None:
        raise AssertionError("what is committed is told by advanced")

    def note(self, doing: str) -> None:
        self.events.append(("note", doing))

    def step(self, name: str) -> None:
        self.events.append(("step", name))


@dataclass
class Loading:
    """One snapshot on its way into the database ``neo4j`` of a server."""

    folder: Path
    uri: str
    snapshot: Snapshot
    ledger: Memory = field(default_factory=Memory)
    options: dict[str, Any] = field(default_factory=dict)
    fence: int = 1

    def settings(self) -> dict[str, Any]:
        plain = {
            "state_dir": str(self.folder / "state"), "concurrency": 2, "batch_rows": 100, "read_only": "none",
            "health_unknown": None, "heap_percent": 85, "indexes": [], "warm_up": [],
            "reader_roles": [], "proof_rows": 1_000_000,
        }  # fmt: skip
        return {**plain, **self.options}

    def target(self) -> Target:
        login = {"user": "neo4j", "password": PASSWORD, "password_file": None, "ca_file": None}
        return open_target(self.settings(), {"uri": self.uri, **login})

    def load(self) -> None:
        ticket = Ticket(1, "neo4j", self.fence, self.settings())
        self.target().load(ticket, self.snapshot, self.ledger)

    def verify(self) -> dict[str, dict[str, int]]:
        assert self.ledger.groups is not None
        return self.prove().counts

    def prove(self) -> Verified:
        assert self.ledger.groups is not None
        with expecting(self.snapshot, self.folder / "scratch", across=True) as expected:
            return verify(self.target(), "neo4j", expected, self.ledger.groups)


def loading(folder: Path, uri: str, rows: int = 2000, **options: Any) -> Loading:
    """A made-up snapshot of about so many rows."""
    path = write_snapshot(folder / "data", "acme", TIMESTAMP, rows=rows, seed=7)
    return Loading(folder, uri, _open(path), options=options)


def loading_of(folder: Path, uri: str, files: dict[str, Any], **options: Any) -> Loading:
    """A snapshot of these files."""
    return Loading(folder, uri, _open(write(folder / "data/acme" / str(TIMESTAMP), files)), options=options)


def _open(path: Path) -> Snapshot:
    from bgdeploy.targets.neo4j.bolt.values import find_fault

    return open_snapshot("acme", TIMESTAMP, path, {}, "print", lambda kind, _: find_fault(kind))
