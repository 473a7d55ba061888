"""A target in memory that keeps the protocol and refuses what a target must refuse; nothing is built in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from bgdeploy.errors import Refused, StaleGeneration, TargetError
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import DatabaseInfo, Health, Inspector, Ledger, Need, Owned, Rows, Ticket


@dataclass
class FakeTarget:
    """``whole`` holds verified databases, ``builds`` unfinished ones."""

    kind: str = "ladybug"
    keys_cross_folders: bool = False
    whole: set[str] = field(default_factory=set)
    builds: set[str] = field(default_factory=set)
    pointing: dict[str, str] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    well: bool = True

    def identity(self) -> str:
        return "memory"

    def expect(self, place: str) -> None:
        assert place == "memory"

    def health(self) -> Health:
        return Health("ok") if self.well else Health("wait", ("told to be unwell",))

    def held(self, kind: Any) -> str | None:
        return None

    def refuses(self, kind: Any, written_by: str) -> str | None:
        return None

    def plan(self, snapshot: Snapshot, running: Sequence[str]) -> tuple[Need, ...]:
        return ()

    def load(self, ticket: Ticket, snapshot: Snapshot, ledger: Ledger) -> None:
        raise AssertionError("the test builds by itself")

    def inspect(self, database: str) -> AbstractContextManager[Inspector]:
        raise AssertionError("nothing is in it")

    def publish(self, ticket: Ticket, facts: Mapping[str, Any]) -> None:
        self.builds.discard(ticket.database)
        self.whole.add(ticket.database)

    def alias(self, name: str) -> str | None:
        return self.pointing.get(name)

    def aliases(self) -> dict[str, str]:
        return dict(self.pointing)

    def generation(self, name: str) -> int | None:
        return self.generations.get(name)

    def switch(self, name: str, database: str, generation: int) -> None:
        if generation < self.generations.get(name, 0):
            raise StaleGeneration(f"{name} has seen a newer generation")
        if database not in self.whole:
            raise TargetError(f"there is no {database}")
        self.generations[name] = generation
        self.pointing[name] = database

    def catch_up(self, owned: Owned) -> None:
        return

    def outdated(self, database: str) -> str | None:
        return None

    def remove_alias(self, name: str, generation: int) -> None:
        if generation < self.generations.get(name, 0):
            raise StaleGeneration(f"{name} has seen a newer generation")
        self.generations[name] = generation
        self.pointing.pop(name, None)

    def databases(self) -> list[DatabaseInfo]:
        return [DatabaseInfo(name, "online") for name in sorted(self.whole | self.builds)]

    def drain(self, database: str) -> Health:
        return Health("ok")

    def drop(self, database: str, fence: int, mark: str | None = None) -> None:
        if database in self.pointing.values():
            raise Refused(f"{database} is live")
        self.whole.discard(database)
        self.builds.discard(database)

    def query(self, alias: str, cypher: str, params: Mapping[str, Any] | None = None) -> Rows:
        raise AssertionError("nothing is in it")

    def checks(self, owned: Any, *, try_rights: bool = False) -> tuple[()]:
        return ()
