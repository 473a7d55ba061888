"""How the service lives and ends: workers, housekeeping and scheduler in one process."""

from __future__ import annotations

import logging
import os
import threading
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from bgdeploy import log
from bgdeploy.clock import monotonic
from bgdeploy.errors import BgdeployError, ExitCode, StoreError, StoreLost
from bgdeploy.jobs.lease import FREED
from bgdeploy.jobs.transitions import jobs
from bgdeploy.service.doctor import host
from bgdeploy.site import Site
from bgdeploy.targets import describe_target
from bgdeploy.worker.housekeeper import (
    House,
    complain_when_late,
    keep_clean,
    keep_history,
    keep_house,
    keep_scanning,
)
from bgdeploy.worker.presence import Role, present
from bgdeploy.worker.run import work_once
from bgdeploy.worker.shutdown import Stop

IDLE = 0.5  # seconds between two looks for work when there is none
AFTER_TROUBLE = 5.0  # seconds more after one that failed
LAST_WAIT = 10.0  # seconds a thread gets after everything was told to end
JUMP = 1.0  # seconds by which a clock that was set has moved


def serve(site: Site, stop: Stop, *, workers: int, scans: bool = True, role: Role | None = None) -> None:
    """Run until the stop is asked for, and then end whatever runs; leaves no process behind.

    It is on record as ``role``: by itself ``serve``, or ``work`` where it does not scan.

    Raises StoreLost when the job table was deleted, replaced or moved meanwhile.
    """
    with present(site, role or ("serve" if scans else "work"), workers):
        _serve(site, stop, workers, scans)


def _serve(site: Site, stop: Stop, workers: int, scans: bool) -> None:
    orchestrator = site.settings.orchestrator
    house = House(site, stop, scans=scans)
    house.scan_due.set()
    if scans:
        site.inspectors.warm()
    embedded = describe_target(site.target.kind).embedded
    where = site.settings.state_dir if embedded else site.settings.neo4j.address()
    place = f"{site.settings.dataset.base_path} -> {site.target.kind} in {where}"
    started = {"version": version("bgdeploy"), "workers": workers, "interval": orchestrator.scan_interval}
    log.emit("service.started", place=place, **started)
    _tell_of_shared_disk(site.store.path)
    scheduler = _schedule(house) if scans else None
    threads = [_thread("housekeeper", keep_house, house), _thread("cleaner", keep_clean, house)]
    if scans:
        threads += [_thread("scanner", keep_scanning, house), _thread("history", keep_history, house)]
    threads += [_thread(f"worker-{number + 1}", work, house) for number in range(workers)]
    while not stop.asked.wait(1.0):
        complain_when_late(house)
        if scheduler is not None:
            _mind_the_clock(scheduler)
    _end(house, scheduler, threads)


def _tell_of_shared_disk(path: Path) -> None:
    """Say what the doctor would say, since it damages the job table at some bad moment and not at once."""
    try:
        kind = host.read_kind(path)
    except OSError:
        return  # no Linux: nobody knows
    if host.is_shared(kind):
        log.emit("store.shared_disk", path=path, kind=kind)


def _schedule(house: House) -> BackgroundScheduler:
    """The scheduler only pokes: a late or missed poke costs nothing, a scan finds all that is there."""
    # On a busy machine a poke is skipped while the one before still runs: no news, and no line of our log.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    rules = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
    scheduler = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(1)}, job_defaults=rules, timezone="UTC"
    )
    orchestrator = house.site.settings.orchestrator
    scheduler.add_job(house.poke_scan, Every(orchestrator.scan_interval))
    scheduler.add_job(house.poke, Every(orchestrator.watch_interval))
    scheduler.start()
    return scheduler


class Every(BaseTrigger):  # type: ignore[misc]
    """Fires so many seconds after it was looked at last.

    The library's own interval counts every run between then and now, one by one, after a clock jumped ahead.
    """

    def __init__(self, seconds: float) -> None:
        self.span = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Reckoned from now, whatever was missed."""
        return now + self.span


def _thread(name: str, act: object, house: House) -> threading.Thread:
    thread = threading.Thread(target=act, args=(house,), name=name, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def work(house: House) -> None:
    """A worker's life: load what can be loaded, else look again a little later."""
    stop = house.stop
    while not stop.asked.is_set():
        try:
            if work_once(house.site, stop):
                house.poke()  # a finished load may be switched at once
                continue
        except StoreLost as error:
            stop.fail(error)
        except BgdeployError as error:
            log.emit("service.trouble", what="looking for work", error=error)
            stop.asked.wait(AFTER_TROUBLE)
        except Exception as error:  # the thread's edge: one surprise must not end a worker for good
            log.emit("service.trouble", what="a worker", error=f"{type(error).__name__}: {error}")
            stop.asked.wait(AFTER_TROUBLE)
        stop.asked.wait(IDLE)


def _mind_the_clock(scheduler: BackgroundScheduler) -> None:
    """Set anew what a clock that was set back would let sleep until the old time comes again.

    Looked at again and again: the scheduler may have read the clock before it moved, and write what it made of it after.
    """
    now = datetime.now(UTC)
    for job in scheduler.get_jobs():
        if job.next_run_time > now + job.trigger.span + timedelta(seconds=JUMP):
            job.reschedule(job.trigger)


def _end(house: House, scheduler: BackgroundScheduler | None, threads: list[threading.Thread]) -> None:
    stop = house.stop
    running = _running(house.site)
    if running:
        log.emit("service.stopping", running=running, timeout=stop.timeout)
    if scheduler is not None:
        scheduler.shutdown(wait=False)  # waiting can deadlock; it only pokes anyway
    house.poke()
    _join(house.site, stop, threads)
    if stop.failure is not None:
        log.emit("store.lost", path=house.site.store.path)
        raise stop.failure
    _release(house.site)
    log.emit("service.stopped")


def _join(site: Site, stop: Stop, threads: list[threading.Thread]) -> None:
    """Wait for the threads; one that hangs in the system is left behind, with the whole process."""
    last = float("inf")
    while alive := [thread for thread in threads if thread.is_alive()]:
        if stop.must_end() and last == float("inf"):
            last = monotonic() + LAST_WAIT
            if _running(site):
                log.emit("service.hurried")
        if monotonic() > last:
            log.emit("service.abandoned", threads=", ".join(thread.name for thread in alive))
            os._exit(
                ExitCode.INTERRUPTED
            )  # its loading processes end with it, its leases are rescued at once
        alive[0].join(0.2)


def _running(site: Site) -> int:
    try:
        with site.store.read() as connection:
            mine = jobs.c.lease_owner == site.owner
            return len(connection.execute(jobs.select().where(mine, jobs.c.state == "loading")).all())
    except StoreError:
        return 0


def _release(site: Site) -> None:
    """Give back every lease this process still holds, so that a restart waits for nothing."""
    try:
        with site.store.write() as connection:
            mine = jobs.update().where(jobs.c.lease_owner == site.owner, jobs.c.state != "loading")
            connection.execute(mine.values(**FREED))
    except StoreError as error:
        log.emit("service.trouble", what="giving leases back", error=error)
