"""The cleaner alone, on a real job table and a target that does as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bgdeploy.config import load_settings
from bgdeploy.jobs import migrate
from bgdeploy.jobs.lease import rescue
from bgdeploy.jobs.states import State
from bgdeploy.jobs.store import Store, open_store
from bgdeploy.pipeline.clean import clean
from bgdeploy.site import Site
from tests.jobs.tables import OWNER, add_customer, add_database, add_job, read_job
from tests.pipeline.fake import FakeTarget

NOW = 10_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    migrate.ensure(tmp_path / "jobs.db")
    one = open_store(tmp_path / "jobs.db")
    yield one
    one.close()


def test_a_job_is_retired_also_where_its_lease_ran_out_while_its_database_was_dropped(
    store: Store, tmp_path: Path
) -> None:
    """Seen when a cleaner was frozen for longer than its lease: the job stayed switched for ever."""
    live = {"live": "acme-2", "live_timestamp": 2, "live_build": 1, "live_since": 0.0}
    add_customer(store, "acme", **live)
    old = add_job(store, "acme", 1, State.SWITCHED)
    add_database(store, old, "acme-1", verified_at=1.0, left_at=1.0)
    add_database(store, add_job(store, "acme", 2, State.SWITCHED), "acme-2", verified_at=1.0)
    target = FakeTarget()
    target.whole.update({"acme-1", "acme-2"})
    clock = [NOW]
    settings = load_settings(
        overrides={"state_dir": str(tmp_path), "orchestrator.keep_databases": 1}, environ={}
    )
    site = Site(settings, store, target, OWNER, lambda: clock[0])
    drop = target.drop

    def slow(database: str, fence: int, mark: str | None = None) -> None:
        drop(database, fence)
        clock[0] += 1000
        assert rescue(store, now=clock[0], owner="host~1/2/2.00/" + "1" * 32, most=3, base=2.0) == 1

    target.drop = slow  # type: ignore[method-assign]
    assert clean(site) == 1
    assert (read_job(store, old)["state"], read_job(store, old)["lease_owner"]) == (State.CLEANED, None)
