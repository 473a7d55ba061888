"""The embedded engine, filled by its own build in this process: what a snapshot's files become there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from bgdeploy.pipeline.verify import expecting, verify
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.targets.base import Group
from bgdeploy.targets.ladybug.build import Build, build
from bgdeploy.targets.ladybug.engine import Engine, open_engine
from bgdeploy.targets.ladybug.inspection import inspected
from bgdeploy.targets.ladybug.reading import engine_type, refuses

SETTINGS = {"buffer_pool_mb": 64, "threads": 1, "group_rows": 8_000_000}


class Memory:
    """A ledger that forgets everything with the test."""

    def __init__(self) -> None:
        self.groups: tuple[Group, ...] | None = None
        self.seen_: set[int] = set()

    def plan(self) -> tuple[Group, ...] | None:
        return self.groups

    def done(self) -> frozenset[int]:
        return frozenset(self.seen_)

    def store_plan(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)

    def confirmed(self, group: int, rows: int, *, found: bool = False) -> None:
        self.seen_.add(group)

    def restart(self, reason: str) -> None:
        self.seen_.clear()

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def work_on(folder: Path, build_in: Path) -> Build:
    """The build of a snapshot in ``folder``."""
    snapshot = open_snapshot("acme", 1700000001, folder, {}, "print", refuses)
    return Build(build_in, snapshot, Memory(), SETTINGS)  # type: ignore[arg-type]


class At:
    """As much of a target as the proof asks of one."""

    def __init__(self, work: Build) -> None:
        self.work = work

    def held(self, kind: Any) -> str | None:
        return engine_type(kind)

    def inspect(self, database: str) -> AbstractContextManager[Any]:
        return inspected(self.work.graph, pool_mb=64, threads=1)


def prove(work: Build) -> None:
    """Compare every value of what was built with the files; raises VerifyFailed."""
    with expecting(work.snapshot, work.folder / "proof") as expected:
        verify(At(work), "it", expected, work.ledger.plan() or ())  # type: ignore[arg-type]


@contextmanager
def loaded(folder: Path, build_in: Path) -> Iterator[Engine]:
    """Load the snapshot in ``folder``, prove every value of it, and open what became of it."""
    work = work_on(folder, build_in)
    build(work)
    prove(work)
    with opened(work) as engine:
        yield engine


def opened(work: Build) -> AbstractContextManager[Engine]:
    """Open what was built, as a reader does."""
    return open_engine(work.graph, pool_mb=64, threads=1, read_only=True, room=1 << 28)
