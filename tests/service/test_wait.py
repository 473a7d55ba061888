"""What ``wait`` decides from the rows of the job table: each way a snapshot can stand, and which is final."""

from __future__ import annotations

from typing import Any

import pytest

from bgdeploy.config import load_settings
from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import customers
from bgdeploy.service import wait
from bgdeploy.service.wait import Answer, Verdict, judge
from bgdeploy.site import Site, open_site
from bgdeploy.snapshots.generate import write_snapshot
from bgdeploy.snapshots.readiness import fingerprint
from tests.house import House
from tests.jobs.tables import add_customer, add_job

MINE, NEWER = 20, 30


def customer(live: int | None = 10, floor: int = 10, **more: Any) -> Any:
    row = {
        "name": "acme",
        "live": None if live is None else f"acme-{live}",
        "live_timestamp": live,
        "live_build": live and 1,
        "floor_timestamp": floor,
        "floor_build": 1,
    }
    return {
        **row,
        **dict.fromkeys(("intent", "paused_at", "paused_why", "removed_at", "removed_why")),
        **more,
    }


def job(timestamp: int, state: State, **more: Any) -> Any:
    row = {"id": timestamp, "customer": "acme", "timestamp": timestamp, "build": 1, "state": state}
    marks = {
        "blocked": False,
        "database": f"acme-{timestamp}",
        "rows_expected": 100,
        "rows_confirmed": 40,
        "rows_seen": None,
    }
    return {**row, **marks, **dict.fromkeys(("reason", "error", "error_code")), **more}


def decide(owner: Any, *jobs: Any) -> tuple[Answer | None, str]:
    heirs = sorted(jobs, key=lambda row: (-row["timestamp"], -row["build"]))
    verdict = judge(owner, heirs, MINE)
    return (None, "") if verdict is None else (verdict.answer, f"{verdict.why} {verdict.cure}")


@pytest.mark.parametrize("live", [MINE, NEWER])
def test_live_is_live_whatever_else_there_is(live: int) -> None:
    others = (job(MINE, State.FAILED, error="x"), job(NEWER + 1, State.LOADED, blocked=True, reason="x"))
    assert decide(customer(live, live, paused_at=1.0), *others)[0] == "live"


@pytest.mark.parametrize("state", [State.DISCOVERED, State.QUEUED, State.LOADING, State.LOADED])
def test_what_is_on_its_way_is_waited_for_with_its_reason(state: State) -> None:
    answer, said = decide(customer(), job(MINE, state, reason="not enough room"))
    assert answer == "waits"
    assert f"acme/{MINE} is {state}" in said and "not enough room" in said
    assert f"bgdeploy jobs show {MINE}" in said
    assert ("40 of 100 rows" in said) == (state == State.LOADING)


def test_what_nobody_has_found_is_waited_for() -> None:
    assert decide(customer()) == (None, "")
    assert decide(customer(live=None, floor=0)) == (None, "")
    assert decide(customer(), job(NEWER, State.FAILED, error="x")) == (None, "")


def test_a_newer_one_that_is_on_its_way_will_do() -> None:
    for mine in ((), (job(MINE, State.CLEANED),)):
        answer, said = decide(customer(), job(NEWER, State.LOADING), *mine)
        assert (answer, f"acme/{NEWER} is loading" in said) == ("waits", True)


@pytest.mark.parametrize(
    ("owner", "mine", "answer", "said", "helps"),
    [
        (customer(), job(MINE, State.FAILED, error="no ids", error_code="bad-input"), "failed", "no ids", "Mend its folder"),
        (customer(), job(MINE, State.FAILED, error="no room", error_code="target"), "failed", "no room", "not tried again by itself. When the reason is gone: bgdeploy retry 20"),
        (customer(), job(MINE, State.FAILED, error="x", error_code="cancelled"), "cancelled", "was cancelled", "bgdeploy retry 20"),
        (customer(), job(MINE, State.LOADED, blocked=True, reason="fewer rows"), "blocked", "fewer rows", "bgdeploy jobs show 20"),
        (customer(paused_at=1.0, paused_why="frozen"), job(MINE, State.QUEUED), "blocked", "paused (frozen)", "bgdeploy resume acme"),
        (customer(paused_at=1.0, paused_why="frozen"), job(MINE, State.LOADED), "blocked", "paused (frozen)", "bgdeploy resume acme"),
        (customer(10, NEWER), job(MINE, State.SWITCHED), "never", "was moved away", "bgdeploy switch acme --to acme-20"),
        (customer(10, NEWER), job(MINE, State.QUEUED), "never", "30 was live already", "bgdeploy jobs show 20"),
        (customer(10, NEWER), job(MINE, State.CLEANED), "never", "30 was live already", "bgdeploy retry 20 --reload"),
        (customer(10, NEWER), job(MINE, State.LOADED), "never", "30 was live already", "bgdeploy switch acme --to acme-20"),
        (customer(10, MINE), job(MINE, State.LOADING, build=1), "never", "20 was live already", "bgdeploy jobs show 20"),
        (customer(removed_at=1.0, removed_why="left"), job(MINE, State.QUEUED), "never", "was removed (left)", "bgdeploy resume acme"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)  # fmt: skip
def test_what_can_never_be_by_itself_is_said_at_once(
    owner: Any, mine: Any, answer: str, said: str, helps: str
) -> None:
    found, told = decide(owner, mine)
    assert found == answer
    assert said in told and helps in told


def test_nobody_waits_for_an_unfound_one_that_is_overtaken() -> None:
    answer, said = decide(customer(10, NEWER))
    assert (answer, "30 was live already" in said) == ("never", True)


def test_a_newer_one_that_is_blocked_decides_for_the_older_ones() -> None:
    newer = job(NEWER, State.LOADED, blocked=True, reason="fewer rows")
    for state in (State.QUEUED, State.CLEANED):
        answer, said = decide(customer(), newer, job(MINE, state))
        assert (answer, "fewer rows" in said) == ("blocked", True)


def test_a_failed_one_is_final_though_a_newer_one_is_on_its_way() -> None:
    assert decide(customer(), job(NEWER, State.LOADING), job(MINE, State.FAILED, error="x"))[0] == "failed"


def test_a_move_that_has_begun_is_waited_for() -> None:
    back = customer(10, NEWER, intent=f"acme-{MINE}")
    assert decide(back, job(MINE, State.SWITCHED))[0] == "waits"
    mid_move = customer(intent=f"acme-{MINE}", paused_at=1.0)
    assert decide(mid_move, job(MINE, State.LOADED))[0] == "waits"


def test_the_newest_build_stands_for_its_snapshot() -> None:
    again = job(MINE, State.QUEUED, build=2, id=77)
    assert decide(customer(), job(MINE, State.FAILED, error="x"), again)[0] == "waits"


@pytest.fixture
def site(house: House) -> Site:
    return open_site(load_settings(house.folder / "config.yaml"), clock=lambda: 1000.0)


def test_everything_that_has_yet_to_come_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder, the customer, the job and its move come one after the other, each between two looks."""

    def go_live() -> None:
        with site.store.write() as connection:
            connection.execute(customers.update().values(live="acme-20", live_timestamp=MINE, live_build=1))

    steps = [
        lambda: (site.settings.dataset.base_path / "acme" / str(MINE)).mkdir(parents=True),
        lambda: add_customer(site.store, "acme"),
        lambda: add_job(site.store, "acme", MINE, reason="no room", not_before=990.0),
        go_live,
    ]
    monkeypatch.setattr(wait.time, "sleep", lambda _: steps.pop(0)())
    told: list[Verdict] = []
    found = wait.await_live(site, "acme", MINE, timeout=1e9, tell=told.append)
    assert (found.answer, found.live, steps) == ("live", "acme-20", [])
    assert [one.answer for one in told] == ["waits"] * 4
    for one, said in zip(
        told, ("There is no snapshot", "nobody has scanned", "nobody has scanned", "no room"), strict=True
    ):
        assert said in one.why
    assert "no worker has touched it for 1,000 s" in told[3].why


def test_a_worker_that_holds_any_lease_is_at_work(site: Site) -> None:
    add_customer(site.store, "acme")
    add_job(site.store, "acme", MINE)
    add_customer(site.store, "borealis")
    add_job(site.store, "borealis", MINE, State.LOADING, lease_owner="a~1/1/1.0/x", lease_expires=1001.0)
    assert "no worker" not in wait.look(site, "acme", MINE).why


def test_a_job_that_waits_its_turn_is_nobodys_idleness(site: Site) -> None:
    """The older one of its customer is put off, and nothing else could be taken."""
    add_customer(site.store, "acme")
    add_job(site.store, "acme", MINE - 5, not_before=1200.0)
    add_job(site.store, "acme", MINE)
    assert "no worker" not in wait.look(site, "acme", MINE).why
    add_customer(site.store, "borealis")
    add_job(site.store, "borealis", MINE)
    assert "no worker has touched it" in wait.look(site, "acme", MINE).why, "that one could be taken"


def test_a_complete_snapshot_that_nobody_looks_at_is_told(site: Site) -> None:
    folder = write_snapshot(site.settings.dataset.base_path, "acme", MINE, rows=30, seed=1)
    look = fingerprint(folder)
    add_customer(site.store, "acme")
    seen = {"fingerprint": look.text, "fingerprint_at": 900.0, "reason": "settling"}
    add_job(site.store, "acme", MINE, State.DISCOVERED, **seen)
    assert "it is complete by now, and nobody has scanned for 100 s" in wait.look(site, "acme", MINE).why
    (folder / "nodes/Entity/part-0.parquet").touch()
    assert "nobody has scanned" not in wait.look(site, "acme", MINE).why, "it changed, and settles anew"


def test_a_snapshot_that_failed_and_is_mended_is_waited_for_until_a_scan_sees_it(site: Site) -> None:
    folder = write_snapshot(site.settings.dataset.base_path, "acme", MINE, rows=30, seed=1)
    add_customer(site.store, "acme")
    failed = {"fingerprint": fingerprint(folder).text, "error": "no ids", "error_code": "bad-input"}
    add_job(site.store, "acme", MINE, State.FAILED, **failed)
    assert wait.look(site, "acme", MINE).answer == "failed"
    (folder / "nodes/Entity/part-0.parquet").touch()
    mended = wait.look(site, "acme", MINE)
    assert mended.answer == "waits"
    assert "its folder has changed since" in mended.why


def test_the_time_is_over_after_the_last_look(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(wait, "monotonic", lambda: now[0])
    monkeypatch.setattr(wait.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    found = wait.await_live(site, "acme", MINE, timeout=1.2, tell=lambda _: None)
    assert (found.answer, round(now[0], 3)) == ("timeout", 1.2)
