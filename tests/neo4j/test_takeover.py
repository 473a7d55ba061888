"""Who may fill a database: a frozen owner that wakes up, and what a crash at the very end leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bgdeploy.errors import BuildLocked, TargetError
from bgdeploy.targets.neo4j.bolt import batches
from tests.neo4j.loading import Loading, loading
from tests.neo4j.servers import Community
from tests.neo4j.test_loader import COUNTS, Interrupted, ask, interrupt

OURS = "SHOW CONSTRAINTS YIELD name WHERE name STARTS WITH 'bgdeploy_stream' RETURN name"


@pytest.mark.parametrize("finishes", [True, False])
def test_an_owner_frozen_before_it_made_its_streams_makes_none_after_another_did(
    real: Community, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finishes: bool
) -> None:
    frozen = loading(tmp_path, real.uri)
    newer = Loading(tmp_path, real.uri, frozen.snapshot, fence=2)

    def thaw(moment: str) -> None:
        if moment == "load.streams.before":
            monkeypatch.undo()
            if finishes:
                newer.load()
            else:
                interrupt(newer, monkeypatch, "load.batch.committed", 3)

    monkeypatch.setattr("bgdeploy.targets.neo4j.bolt.batches.reach", thaw)
    with pytest.raises(TargetError, match=r"newer worker|already exists"):
        frozen.load()
    newer.fence = 3
    newer.load()
    assert newer.verify() == COUNTS
    assert ask(real, "MATCH (n) RETURN count(*) AS n") == [{"n": 1200}]
    assert ask(real, OURS) == []


def test_another_jobs_load_of_the_one_database_is_left_alone(
    real: Community, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    one, other = loading(tmp_path, real.uri), loading(tmp_path / "other", real.uri, rows=200)
    other.fence, other.snapshot = 9, replace(other.snapshot, fingerprint="another print")
    interrupt(one, monkeypatch, "load.batch.committed", 3)
    with pytest.raises(BuildLocked, match="begun with other files"):
        other.load()
    assert {row["fence"] for row in ask(real, batches.READ_STREAMS)} == {1}
    one.fence = 2
    one.load()
    assert one.verify() == COUNTS


def test_streams_are_made_in_an_empty_database_only(real: Community) -> None:
    whose = {"fence": 1, "snapshot": "print", "streams": [{"number": 0, "start": 0, "stop": 10}]}
    ask(real, batches.CREATE_STREAMS, **whose)
    assert len(ask(real, batches.READ_STREAMS)) == 1
    ask(real, batches.CREATE_STREAMS, **whose)
    assert len(ask(real, batches.READ_STREAMS)) == 1
    ask(real, batches.REMOVE_STREAMS, fence=1)
    ask(real, "CREATE (:Thing)")
    ask(real, batches.CREATE_STREAMS, **whose)
    assert ask(real, batches.READ_STREAMS) == []


def test_the_guard_that_a_crash_at_the_very_end_left_is_removed(
    real: Community, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = loading(tmp_path, real.uri)
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr("bgdeploy.targets.neo4j.bolt.load.close_streams", _close_half)
        one.load()
    assert ask(real, batches.READ_STREAMS) == []
    assert ask(real, OURS) == [{"name": "bgdeploy_stream"}]
    one.fence = 2
    one.load()
    assert ask(real, OURS) == []
    assert one.verify() == COUNTS


def _close_half(server: Any, database: str, fence: int) -> None:
    server.write(database, batches.REMOVE_STREAMS, "Closing", fence=fence)
    raise Interrupted
