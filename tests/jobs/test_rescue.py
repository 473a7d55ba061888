"""Rescue, leases and fences: a dead holder's row comes back, a living one's never does."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from bgdeploy.clock import monotonic
from bgdeploy.errors import LeaseLost, StoreError
from bgdeploy.jobs import lease as leases
from bgdeploy.jobs.lease import Lease, Process, find_process, known_dead, new_owner, rescue, take, this_host
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.store import LOCK_DEADLINE, Store
from bgdeploy.jobs.transitions import events, get_job, jobs, write
from bgdeploy.worker.child import end_recorded
from bgdeploy.worker.shutdown import Stop
from bgdeploy.worker.supervisor import Heartbeat
from tests.jobs.tables import OWNER, add_customer, add_job, opened, read_job

ELSEWHERE = "elsewhere~1/7/1.00/" + "a" * 32


@pytest.fixture
def loading(store: Store) -> int:
    add_customer(store, "acme")
    held = {"lease_owner": ELSEWHERE, "lease_expires": 100.0, "fence": 3}
    return add_job(store, "acme", 1, State.LOADING, **held)


def run(store: Store, now: float) -> int:
    return rescue(store, now=now, owner=OWNER, most=3, base=2.0)


def test_a_lease_is_left_alone_until_it_expires(store: Store, loading: int) -> None:
    assert run(store, now=99.9) == 0
    assert run(store, now=100.1) == 1
    job = read_job(store, loading)
    assert (job["state"], job["interruptions"], job["attempt"], job["lease_owner"]) == (
        State.QUEUED,
        1,
        0,
        None,
    )
    assert job["fence"] == 3  # only a claim raises it


def test_the_last_death_in_a_row_fails_the_job_and_names_the_step(store: Store, loading: int) -> None:
    with store.write() as connection:
        connection.execute(jobs.update().values(interruptions=2, step="group 4"))
    run(store, now=200.0)
    job = read_job(store, loading)
    assert job["state"] == State.FAILED and job["error_code"] == "interrupted"
    assert "group 4" in job["error"] and f"bgdeploy retry {loading}" in job["error"]


def test_deaths_of_the_service_count_apart_and_each_rests_longer(store: Store, loading: int) -> None:
    rests = []
    for death in range(1, 20):
        with store.write() as connection:
            held = {"state": State.LOADING, "lease_owner": ELSEWHERE, "lease_expires": 100.0}
            connection.execute(jobs.update().values(**held))
        assert rescue(store, now=200.0, owner=OWNER, most=20, base=2.0) == 1
        job = read_job(store, loading)
        assert (job["state"], job["interruptions"]) == (State.QUEUED, death)
        assert job["attempt"] == 0
        rests.append(job["not_before"] - 200.0)
    assert rests[0] == 0, "who is killed once goes on at once"
    assert all(1 <= rest <= 60 for rest in rests[1:])
    assert min(rests[10:]) >= 30, "a load that takes its container along is not tried again and again at once"


def test_a_holder_on_this_host_whose_process_is_gone_is_rescued_at_once(store: Store) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    add_customer(store, "acme")
    owner = f"{this_host()}/{gone.pid}/1.00/{'b' * 32}"
    job_id = add_job(store, "acme", 1, State.LOADING, lease_owner=owner, lease_expires=1e12)
    assert known_dead(owner)
    assert run(store, now=1.0) == 1
    assert read_job(store, job_id)["state"] == State.QUEUED


@pytest.mark.parametrize("state", [State.LOADING, State.LOADED])
def test_a_living_worker_that_could_not_prolong_its_lease_is_no_interruption(
    store: Store, state: State
) -> None:
    add_customer(store, "acme")
    held = {"lease_owner": new_owner(), "lease_expires": 100.0, "interruptions": 2}
    job_id = add_job(store, "acme", 1, state, **held)
    assert run(store, now=100.1) == 1
    job = read_job(store, job_id)
    assert job["state"] == (State.QUEUED if state == State.LOADING else state)
    assert (job["interruptions"], job["lease_owner"]) == (2, None)
    with store.read() as connection:
        assert connection.execute(sa.select(events.c.kind)).scalars().all() == ["rescue.late"]


def test_a_living_holder_and_one_of_another_host_are_not_taken_for_dead() -> None:
    assert not known_dead(new_owner())
    assert not known_dead(ELSEWHERE)


def hide_processes(monkeypatch: pytest.MonkeyPatch, folder: Path, *, me: int) -> None:
    """A /proc that shows nobody but whom it takes this process for, as with hidepid or of another namespace."""
    (folder / "self").symlink_to(str(me))
    shown = folder / str(me)
    shown.mkdir()
    (shown / "stat").write_bytes(Path("/proc/1/stat").read_bytes())
    monkeypatch.setattr(leases, "PROC", folder)


@pytest.mark.parametrize("namespace", ["this one", "another"])
def test_a_living_holder_that_proc_hides_keeps_its_lease_until_it_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, namespace: str
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    seen = find_process(child.pid)
    owner = f"{this_host()}/{seen.pid}/{seen.born}/{'b' * 32}"
    hide_processes(monkeypatch, tmp_path, me=os.getpid() if namespace == "this one" else child.pid)
    add_customer(store, "acme")
    job_id = add_job(store, "acme", 1, State.LOADING, lease_owner=owner, lease_expires=100.0)
    assert not known_dead(owner)
    assert seen.alive() is None
    assert not end_recorded(seen.pid, seen.born), "nobody knows whose process that is"
    assert child.poll() is None
    assert run(store, now=99.0) == 0
    assert run(store, now=100.1) == 1
    assert read_job(store, job_id)["state"] == State.QUEUED
    child.communicate()
    assert known_dead(owner), "what the kernel does not know is gone, whatever /proc shows"
    assert end_recorded(seen.pid, seen.born)


def test_a_reused_pid_is_another_process() -> None:
    assert Process(os.getpid(), "1-00000000").alive() is False


def test_a_clock_that_is_set_makes_no_holder_look_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    owner = new_owner()
    booted = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: booted + 3600)  # what Linux tells after a step
    assert psutil.Process(os.getpid()).create_time() > booted + 3600
    assert not known_dead(owner) and find_process(os.getpid()).alive()


def test_a_process_may_be_named_by_anything(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"a) \xff (b")
    odd.symlink_to("/bin/cat")
    child = subprocess.Popen([odd], stdin=subprocess.PIPE)
    process = find_process(child.pid)
    assert process.alive()
    child.communicate()
    assert not process.alive()


def test_a_killed_process_that_nobody_waited_for_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = find_process(child.pid)
    assert process.alive()
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.alive()
    child.communicate()


def test_a_row_held_for_a_switch_is_only_released(store: Store) -> None:
    add_customer(store, "acme")
    job_id = add_job(store, "acme", 1, State.LOADED, lease_owner=ELSEWHERE, lease_expires=1.0)
    assert run(store, now=2.0) == 1
    job = read_job(store, job_id)
    assert (job["state"], job["lease_owner"], job["interruptions"]) == (State.LOADED, None, 0)


def test_renewing_fails_once_another_claim_has_the_row(store: Store, loading: int) -> None:
    lease = Lease(store, loading, 3, ELSEWHERE, 60.0, 0.0)
    lease.renew()
    with store.write() as connection:
        connection.execute(jobs.update().values(fence=4))
    with pytest.raises(LeaseLost):
        lease.renew()


def test_renewing_waits_for_a_lock_no_longer_than_the_lease_is_trusted(
    store: Store, path: Path, loading: int
) -> None:
    rival = sqlite3.connect(path)
    rival.execute("BEGIN IMMEDIATE")
    began = monotonic()
    with pytest.raises(StoreError, match="locked"):
        Lease(store, loading, 3, ELSEWHERE, 0.5, began).renew()
    rival.close()
    assert monotonic() - began < LOCK_DEADLINE / 2


def test_a_heartbeat_that_meets_what_nobody_foresaw_ends_its_load(
    store: Store, loading: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_: Lease) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Lease, "renew", stumble)
    lease = Lease(store, loading, 3, ELSEWHERE, 60.0, monotonic() - 30)
    heart = Heartbeat(lease, Stop(), "acme/1")
    heart._look()
    assert heart.lost


def test_every_write_of_a_stale_worker_is_refused(store: Store, loading: int) -> None:
    from bgdeploy.jobs import ledger
    from bgdeploy.pipeline import load

    stale = read_job(store, loading)
    group = {"number": 0, "kind": "node", "name": "A", "source_label": None, "target_label": None}
    with opened(store, Actor.WORKER) as tx:
        ledger.store_plan(tx, stale, "acme-1", [{**group, "files": ["a"], "rows_expected": 3}])
    with store.write() as connection:
        connection.execute(jobs.update().values(fence=4))
    writes = {
        "plan": lambda tx: ledger.store_plan(tx, stale, "acme-1", []),
        "restart": lambda tx: ledger.restart(tx, stale, "acme-1", "test"),
        "started": lambda tx: ledger.started(tx, stale, "acme-1", 0),
        "confirmed": lambda tx: ledger.confirmed(tx, stale, "acme-1", 0, 3, found=False),
        "finish": lambda tx: load.finish(tx, stale, counts={}, proof={"compared": "nothing"}),
        "give back": lambda tx: load.give_back(tx, stale, "test"),
        "fail": lambda tx: load.fail(tx, stale, LeaseLost("test")),
        "child": lambda tx: write(tx, stale, child_pid=1),
    }
    with store.read() as connection:
        before = connection.execute(sa.select(events)).all()
    for name, act in writes.items():
        with pytest.raises(LeaseLost), opened(store, Actor.WORKER) as tx:
            act(tx)
        assert read_job(store, loading)["fence"] == 4, name
    with store.read() as connection:
        assert connection.execute(sa.select(events)).all() == before


def test_a_group_that_is_committed_is_never_started_again(store: Store, loading: int) -> None:
    from bgdeploy.jobs import ledger

    job = read_job(store, loading)
    group = {"number": 0, "kind": "node", "name": "A", "source_label": None, "target_label": None}
    with opened(store, Actor.WORKER) as tx:
        ledger.store_plan(tx, job, "acme-1", [{**group, "files": ["a"], "rows_expected": 3}])
        ledger.started(tx, job, "acme-1", 0)
        ledger.confirmed(tx, job, "acme-1", 0, 3, found=False)
    with pytest.raises(LeaseLost, match="committed already"), opened(store, Actor.WORKER) as tx:
        ledger.started(tx, job, "acme-1", 0)


def test_a_plan_gives_way_until_something_is_committed_by_it(store: Store, loading: int) -> None:
    from bgdeploy.jobs import ledger

    job = read_job(store, loading)
    group = {"number": 0, "kind": "node", "name": "A", "source_label": None, "target_label": None}
    plans = [[{**group, "files": files, "rows_expected": 3}] for files in (["a"], ["a", "b"], ["c"])]

    def stored() -> list[list[str]]:
        with store.read() as connection:
            return [row["files"] for row in ledger.read(connection, loading, "acme-1")]

    with opened(store, Actor.WORKER) as tx:
        ledger.store_plan(tx, job, "acme-1", plans[0])
        ledger.started(tx, job, "acme-1", 0)
        ledger.store_plan(tx, job, "acme-1", plans[0])
        assert ledger.read(tx.connection, loading, "acme-1")[0]["starts"] == 1, "the same one stays as it is"
        ledger.store_plan(tx, job, "acme-1", plans[1])
    assert stored() == [["a", "b"]]
    with opened(store, Actor.WORKER) as tx:
        ledger.advanced(tx, job, "acme-1", 0, 1)
        ledger.store_plan(tx, job, "acme-1", plans[2])
    assert stored() == [["a", "b"]]


def test_a_confirmed_group_clears_both_counters(store: Store, loading: int) -> None:
    from bgdeploy.jobs import ledger

    with store.write() as connection:
        connection.execute(jobs.update().values(attempt=2, interruptions=2))
    job = read_job(store, loading)
    group = {"number": 0, "kind": "node", "name": "A", "source_label": None, "target_label": None}
    with opened(store, Actor.WORKER) as tx:
        ledger.store_plan(tx, job, "acme-1", [{**group, "files": ["a"], "rows_expected": 3}])
        ledger.confirmed(tx, job, "acme-1", 0, 3, found=True)
        after = get_job(tx.connection, loading)
    assert (after["attempt"], after["interruptions"], after["rows_confirmed"]) == (0, 0, 3)


def test_a_free_row_is_taken_once(store: Store) -> None:
    add_customer(store, "acme")
    job_id = add_job(store, "acme", 1, State.SWITCHED)
    row = read_job(store, job_id)
    with store.write() as connection:
        assert take(connection, row, owner=OWNER, now=1.0, seconds=60) == 1
    with store.write() as connection:
        assert take(connection, row, owner=ELSEWHERE, now=1.0, seconds=60) is None
