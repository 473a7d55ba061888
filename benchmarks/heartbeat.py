"""Time the renewal of a lease beside eight processes that write to the same job table without a pause.

usage: python -m benchmarks.heartbeat [--processes 8] [--beats 200]

Each of the eight commits events as fast as it can, with ``synchronous=FULL``; the ninth renews the lease
of one load twenty times a second, as the supervisor of a load does (there: every sixth of ``lease_seconds``).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

from bgdeploy.clock import monotonic
from bgdeploy.jobs import migrate
from bgdeploy.jobs.lease import Lease, new_owner
from bgdeploy.jobs.states import Actor
from bgdeploy.jobs.store import Store, open_store
from bgdeploy.jobs.transitions import customers, jobs, transaction

GOAL = 0.25  # seconds, at most, for 99 of 100
PAUSE = 0.05


def saturate(path: str, ready: Barrier, stop: Event, written: Any) -> None:
    """Commit one event after the other, the next at once after the last."""
    store, owner, count = open_store(Path(path)), new_owner(), 0
    ready.wait()
    while not stop.is_set():
        with transaction(store, now=time.time(), actor=Actor.OPERATOR, owner=owner) as tx:
            tx.say("customer.resumed", customer=f"customer-{count % 100}")
        count += 1
    written.put(count)


def leased_job(store: Store, owner: str) -> int:
    """A job in the hands of this process."""
    held = {"state": "loading", "fence": 1, "lease_owner": owner, "lease_expires": time.time() + 60}
    with store.write() as connection:
        connection.execute(customers.insert(), {"name": "acme", "alias": "acme", "created_at": 0.0})
        row = {"customer": "acme", "timestamp": 1, "created_at": 0.0, "updated_at": 0.0, **held}
        return int(connection.execute(jobs.insert().returning(jobs.c.id), row).scalar_one())


def beat(store: Store, beats: int) -> list[float]:
    """Seconds that each renewal took."""
    owner = new_owner()
    lease = Lease(store, leased_job(store, owner), 1, owner, 60.0, monotonic())
    took, pause = [], threading.Event()
    for _ in range(beats):
        began = time.perf_counter()
        lease.renew()
        took.append(time.perf_counter() - began)
        pause.wait(PAUSE)
    return sorted(took)


def measure(folder: Path, processes: int, beats: int) -> None:
    path = folder / "jobs.db"
    migrate.ensure(path)
    spawn = multiprocessing.get_context("spawn")
    ready, stop, written = spawn.Barrier(processes + 1), spawn.Event(), spawn.Queue()
    crowd = [spawn.Process(target=saturate, args=(str(path), ready, stop, written)) for _ in range(processes)]
    for process in crowd:
        process.start()
    ready.wait()
    began = time.perf_counter()
    took = beat(open_store(path), beats)
    seconds = time.perf_counter() - began
    stop.set()
    rate = sum(written.get() for _ in crowd) / seconds
    for process in crowd:
        process.join()
    at = {share: took[min(len(took) - 1, int(len(took) * share / 100))] for share in (50, 90, 99)}
    verdict = "met" if at[99] <= GOAL else "MISSED"
    print(
        f"beside {processes} processes with {rate:,.0f} commits/s on {os.cpu_count()} cores, {beats} renewals: ",
        end="",
    )
    print(
        f"p50 {at[50]:.3f}, p90 {at[90]:.3f}, p99 {at[99]:.3f}, most {took[-1]:.3f} s; goal {GOAL:g}: {verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--beats", type=int, default=200)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bgdeploy-heartbeat-"))
    try:
        measure(folder, given.processes, given.beats)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
