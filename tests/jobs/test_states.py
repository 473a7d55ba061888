"""The law: every move of the table works, every other one is refused, in code and by the file itself."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bgdeploy import log
from bgdeploy.errors import LeaseLost
from bgdeploy.jobs.migrate import scripts
from bgdeploy.jobs.states import TRANSITIONS, Actor, State, Transition, find
from bgdeploy.jobs.store import Store
from bgdeploy.jobs.transitions import events, jobs, move
from tests.jobs.tables import add_customer, add_job, opened, read_job

MOVES = [one for one in TRANSITIONS if one.source is not None]
FORBIDDEN = [
    (source, target)
    for source in State
    for target in State
    if source != target and (source, target) not in {(one.source, one.target) for one in TRANSITIONS}
]
QUIET: dict[str, Any] = {"reason": "test"}


@pytest.mark.parametrize("one", MOVES, ids=lambda one: f"{one.source}>{one.target}")
def test_every_move_writes_state_and_event_at_once(store: Store, one: Transition) -> None:
    assert one.source is not None
    add_customer(store, "acme")
    job_id = add_job(store, "acme", 1, one.source)
    actor = sorted(one.actors)[0]
    with opened(store, actor) as tx:
        move(tx, read_job(store, job_id), one.target, "scan.waits", fields=QUIET)
    assert read_job(store, job_id)["state"] == one.target
    with store.read() as connection:
        event = connection.execute(sa.select(events)).mappings().one()
    assert (event["job_id"], event["source"], event["target"], event["actor"]) == (
        job_id,
        one.source,
        one.target,
        actor,
    )


@pytest.mark.parametrize(("source", "target"), FORBIDDEN, ids=lambda state: str(state))
def test_every_other_move_is_refused(store: Store, source: State, target: State) -> None:
    add_customer(store, "acme")
    job_id = add_job(store, "acme", 1, source)
    for actor in Actor:
        with pytest.raises(ValueError, match="no transition"), opened(store, actor) as tx:
            move(tx, read_job(store, job_id), target, "scan.waits", fields=QUIET)
    with pytest.raises(sa.exc.IntegrityError, match="jobs_edges"), store.write() as connection:
        connection.execute(jobs.update().values(state=target))
    assert read_job(store, job_id)["state"] == source


def test_only_the_named_actors_may_move() -> None:
    for one in TRANSITIONS:
        for actor in set(Actor) - one.actors:
            with pytest.raises(ValueError, match="no transition"):
                find(one.source, one.target, actor)


def test_the_file_refuses_a_state_outside_the_seven(store: Store) -> None:
    add_customer(store, "acme")
    with pytest.raises(sa.exc.IntegrityError):
        add_job(store, "acme", 1, "paused")  # type: ignore[arg-type]


def test_a_stale_fence_or_state_moves_nothing(store: Store) -> None:
    add_customer(store, "acme")
    job_id = add_job(store, "acme", 1, State.LOADING, fence=1)
    stale = read_job(store, job_id)
    with store.write() as connection:
        connection.execute(jobs.update().values(fence=2))
    with pytest.raises(LeaseLost), opened(store, Actor.WORKER) as tx:
        move(tx, stale, State.LOADED, "scan.waits", fields=QUIET)
    assert read_job(store, job_id)["state"] == State.LOADING
    with store.read() as connection:
        assert not connection.execute(sa.select(events)).all()


def test_events_and_switches_cannot_be_rewritten(store: Store) -> None:
    add_customer(store, "acme")
    with opened(store, Actor.OPERATOR) as tx:
        tx.say("customer.resumed", customer="acme", by="a test")
    with pytest.raises(sa.exc.IntegrityError, match="job_events_stay"), store.write() as connection:
        connection.execute(events.update().values(message="nothing happened"))


def test_every_event_that_is_said_has_its_wording_and_no_wording_is_left_over() -> None:
    package = Path(log.__file__).parent
    code = "\n".join(path.read_text() for path in package.rglob("*.py") if path.name != "log.py")
    said = set(
        re.findall(
            r'(?:say|say_seldom|emit|move|move_all|insert_jobs?|_set_pause)\([^")]*?"([a-z]+\.[a-z_]+)"', code
        )
    )
    said |= {"scan.unreadable", "scan.skipped", "scan.removed", "load.progress"}  # not by these functions
    assert said == set(log.EVENTS)


def test_the_drawing_in_the_docs_is_up_to_date() -> None:
    script = Path(__file__).parents[2] / "docs" / "render.py"
    checked = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_the_files_own_law_is_the_table() -> None:
    script = next(scripts().glob("versions/0001_*.py"))
    edges = runpy.run_path(str(script))["EDGES"]
    assert sorted(edges) == sorted(f"{one.source}>{one.target}" for one in MOVES)
