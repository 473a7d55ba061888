"""What a refusal becomes: the offenders, or the engine's word against the files', or what was seen first."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bgdeploy.errors import BadInput
from bgdeploy.snapshots import keys
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.offenders import BadKeys
from bgdeploy.targets import groups as diagnosis
from bgdeploy.targets.base import Group
from bgdeploy.targets.groups import Desk, diagnose
from bgdeploy.targets.ladybug.build import Build, Contradicted, PoolTooSmall, build
from bgdeploy.targets.ladybug.engine import Engine, QueryFailed
from tests.snapshots.folders import KNOWS, PEOPLE, opened
from tests.tmpfs import small_disk

SETTINGS = {"buffer_pool_mb": 64, "threads": 2, "group_rows": 1000}
KEPT = "What is live stays live."


@dataclass
class Told:
    """A ledger that remembers what it was told."""

    said: list[tuple[Any, ...]] = field(default_factory=list)
    groups: tuple[Group, ...] | None = None
    known: set[int] = field(default_factory=set)

    def plan(self) -> tuple[Group, ...] | None:
        return self.groups

    def done(self) -> frozenset[int]:
        return frozenset(self.known)

    def store_plan(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)

    def restart(self, reason: str) -> None:
        self.known.clear()
        self.said.append(("restart", reason))

    def started(self, group: int) -> None:
        self.said.append(("started", group))

    def advanced(self, group: int, rows: int) -> None:
        raise AssertionError("the embedded engine commits whole groups")

    def confirmed(self, group: int, rows: int, *, found: bool = False) -> None:
        self.known.add(group)

    def note(self, doing: str) -> None:
        self.said.append(("note", doing))

    def step(self, name: str) -> None:
        self.said.append(("step", name))


REFUSALS = {
    "KNOWS": "Copy exception: Unable to find primary key value p1.",
    "Person": "Copy exception: Found duplicated primary key value p2, which violates the uniqueness constraint of the primary key column.",
}


@pytest.mark.parametrize("table", sorted(REFUSALS))
def test_where_the_files_are_right_the_next_try_runs_on_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    work = Build(tmp_path / "build", opened(tmp_path / "data", {**PEOPLE, **KNOWS}), Told(), SETTINGS)
    run = Engine.run

    def refuse(self: Engine, statement: str) -> None:
        if statement.startswith("COPY") and f"`{table}`" in statement:
            raise QueryFailed(REFUSALS[table])
        run(self, statement)

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "run", refuse)
        with pytest.raises(Contradicted) as caught:
            build(work)
    assert REFUSALS[table] in caught.value.what
    assert "But in the files every id is right." in caught.value.what
    assert json.loads((work.folder / "hints.json").read_text()) == {"threads": 1}
    assert sorted(path.name for path in work.folder.iterdir()) == ["hints.json", "need.json"]
    build(work)
    assert work.ledger.said[-1] == ("step", "closed")


def test_what_does_not_fit_is_copied_in_eighths_by_a_plan_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        f"nodes/Person/{file}.parquet": {"id": list(range(200 * file, 200 * file + 200))} for file in range(4)
    }
    work = Build(tmp_path / "build", opened(tmp_path / "data", files), Told(), SETTINGS)
    run = Engine.run

    def refuse(self: Engine, statement: str) -> None:
        if statement.startswith("COPY"):
            raise QueryFailed("Buffer manager exception: The buffer pool is full.")
        run(self, statement)

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "run", refuse)
        for share in (8, 64):
            with pytest.raises(PoolTooSmall, match="copies less at once"):
                build(work)
            assert json.loads((work.folder / "hints.json").read_text()) == {"pool": 2, "share": share}
    (work.folder / "hints.json").write_text(json.dumps({"pool": 2, "share": 2}))
    work.ledger.groups = work.ledger.groups and work.ledger.groups[:1]  # a plan of before, which is void
    build(work)
    assert [group.rows for group in work.ledger.groups or ()] == [400, 400]
    assert work.ledger.said[-1] == ("step", "closed")


def test_the_build_is_deleted_before_the_search_begins(tmp_path: Path) -> None:
    files = {"nodes/Person/a.parquet": {"id": ["p1", "p1"]}}
    work = Build(tmp_path / "build", opened(tmp_path / "data", files), Told(), SETTINGS)
    with pytest.raises(BadKeys):
        build(work)
    kinds = [what for what, _ in work.ledger.said]
    assert kinds == ["started", "restart", "note"]
    assert work.ledger.said[-1] == ("note", "looking for all offenders in nodes/Person")


def test_without_room_for_the_search_the_error_has_what_was_seen_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MEMORY_MB", 30)
    files = {"nodes/A/a.parquet": {"id": [f"{n:0200}" for n in range(200_000)] + ["x", "x"]}}
    snapshot = opened(tmp_path, files)
    misfit = Misfit("node", "A", "A was refused: x.")
    with small_disk(1) as disk:
        found = diagnose(Desk(snapshot, Told(), disk, across=False), misfit, KEPT)
        assert list(disk.iterdir()) == []
    assert isinstance(found, BadInput)
    assert not isinstance(found, BadKeys)
    assert found.what.startswith("A was refused: x. There is no room to look all ids up: ")
    found = diagnose(Desk(snapshot, Told(), tmp_path, across=False), misfit, KEPT)
    assert isinstance(found, BadKeys)
    assert "'x' in nodes/A/a.parquet rows 200001 and 200002" in found.what


BAD = {
    "nodes/A/a.parquet": {"id": [1, 1, None]},
    "relationships/R/a.parquet": {"source": [1], "target": [2]},
    "relationships/R/from=A/to=A/a.parquet": {"source": [3], "target": [1]},
    "relationships/S/a.parquet": {"source": [4], "target": [1]},
}


@pytest.mark.parametrize("misfit", [Misfit("node", "A", "seen"), Misfit("relationship", "R", "seen")])
def test_all_tables_are_told_of_in_one_sentence_with_the_cure_first(tmp_path: Path, misfit: Misfit) -> None:
    desk = Desk(opened(tmp_path / "data", BAD), Told(), tmp_path, across=False)
    found = diagnose(desk, misfit, KEPT)
    assert str(found) == (
        "Leave out rows without an id, write every node once and write the missing nodes or leave their relationships "
        "out: 1 row of nodes/A has no id (nodes/A/a.parquet row 3), 1 row of nodes/A repeats an id "
        "(1 in nodes/A/a.parquet rows 1 and 2), 1 row of relationships/R has a target id that no node has, of A "
        "(2 in relationships/R/a.parquet row 1), 1 row of relationships/R/from=A/to=A has a source id that no node has, "
        "of A (3 in relationships/R/from=A/to=A/a.parquet row 1) and 1 row of relationships/S has a source id that no "
        f"node has, of A (4 in relationships/S/a.parquet row 1). {KEPT}"
    )


def test_the_tables_that_were_not_refused_are_searched_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "_REST", 0.0)
    monkeypatch.setattr(keys.threading, "Timer", AtOnce)
    desk = Desk(opened(tmp_path / "data", BAD), Told(), tmp_path, across=False)
    found = diagnose(desk, Misfit("node", "A", "seen"), KEPT)
    assert isinstance(found, BadKeys)
    assert found.what == (
        "Leave out rows without an id and write every node once: 1 row of nodes/A has no id (nodes/A/a.parquet row 3) "
        "and 1 row of nodes/A repeats an id (1 in nodes/A/a.parquet rows 1 and 2). Not all of relationships was searched."
    )


class AtOnce(threading.Timer):
    """A timer whose time is over when it starts."""

    def start(self) -> None:
        super().start()
        self.join()


def test_ten_offenders_are_named_over_all_tables(tmp_path: Path) -> None:
    files = {f"nodes/{label}/a.parquet": {"id": [*range(20), *range(20)]} for label in "ABC"}
    desk = Desk(opened(tmp_path / "data", files), Told(), tmp_path, across=False)
    found = diagnose(desk, Misfit("node", "A", "seen"), KEPT)
    assert found is not None
    assert found.what.count(" in nodes/") == 9
    assert found.what.count("and 17 more ids") == 3
    files = {f"nodes/L{number}/a.parquet": {"id": [1, 1]} for number in range(12)}
    found = diagnose(
        Desk(opened(tmp_path / "more", files), Told(), tmp_path, across=False), Misfit("node", "L0", ""), KEPT
    )
    assert found is not None
    assert found.what.count(" in nodes/") == 10
    assert found.what.endswith(" and 2 more faults of this kind.")
