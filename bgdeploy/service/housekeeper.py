"""Housekeeping, in four threads per process: one scans, one rescues and switches, one cleans, one forgets.

They are apart because a hanging disk under the snapshots, or a database whose dropping takes long, must
not keep an alias from being moved, and removing a large folder must not keep a new one from being found.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from bgdeploy import log
from bgdeploy.clock import monotonic
from bgdeploy.errors import BgdeployError, StoreLost
from bgdeploy.jobs.ballast import keep_ballast
from bgdeploy.jobs.rescue import rescue
from bgdeploy.pipeline import clean, leave, repair, scan, switch, watch
from bgdeploy.pipeline.expire import expire
from bgdeploy.pipeline.notes import Report
from bgdeploy.pipeline.prune import prune
from bgdeploy.service.shutdown import Stop
from bgdeploy.site import Site

HISTORY_EVERY = 3600.0  # seconds between two rounds of forgetting
TIDY_EVERY = 30.0  # seconds between two looks at the reserve and the write-ahead log
LARGEST_LOG = 64 << 20  # bytes of the job table's write-ahead log


@dataclass
class House:
    """What the housekeeping remembers between two rounds; the job table remembers all that matters."""

    site: Site
    stop: Stop
    scans: bool = True
    wake: threading.Event = field(default_factory=threading.Event)
    look: threading.Event = field(default_factory=threading.Event)
    sweep: threading.Event = field(default_factory=threading.Event)
    scan_due: threading.Event = field(default_factory=threading.Event)
    watch: watch.Watch = field(default_factory=watch.Watch)
    last_scan: float = field(default_factory=monotonic)
    tidied: float = 0.0
    told: dict[str, str] = field(default_factory=dict)  # what was logged already, so it is said once

    def poke(self) -> None:
        """A round is due; called by the scheduler and by workers, never blocks."""
        self.look.set()
        self.wake.set()

    def poke_scan(self) -> None:
        """A whole scan is due."""
        self.scan_due.set()
        self.look.set()


def keep_scanning(house: House) -> None:
    """Scan and look until the stop is asked for; what fails is tried again at the next poke."""
    while not house.stop.asked.is_set():
        _duty(house, "scan", lambda: _scan(house))
        house.wake.set()
        house.look.wait(house.site.settings.orchestrator.watch_interval)
        house.look.clear()


def keep_house(house: House) -> None:
    """Rescue and switch until the stop is asked for; what fails is tried again at the next poke."""
    site = house.site
    limit = site.settings.orchestrator.max_interruptions
    while not house.stop.asked.is_set():
        _duty(
            house,
            "rescue",
            lambda: rescue(site.store, now=site.clock(), owner=site.owner, max_interruptions=limit),
        )
        _duty(house, "switch", lambda: switch.switch_ready(site))
        _tidy(house)
        house.sweep.set()
        house.wake.wait(site.settings.orchestrator.watch_interval)
        house.wake.clear()
    house.sweep.set()  # who cleans must see the stop


def keep_clean(house: House) -> None:
    """Take removed customers' aliases away and drop what is over, each time after what may switch has switched.

    Both take the same rows: a cleaner that came first would put a move off.
    """
    site = house.site
    while True:
        house.sweep.wait()
        house.sweep.clear()
        if house.stop.asked.is_set():
            return
        _duty(house, "removing customers", lambda: _say_each(house, "removing", leave.finish_leaving(site)))
        _duty(house, "clean", lambda: clean.clean(site))


def keep_history(house: House) -> None:
    """Forget what is over and remove what has expired; at the stop a round ends early and loses nothing."""
    site, stop = house.site, house.stop.asked
    while not stop.is_set():
        _duty(house, "forgetting what is over", lambda: prune(site, lambda: not stop.is_set()))
        _duty(house, "removing expired snapshots", lambda: _expire(house))
        stop.wait(HISTORY_EVERY)


def _expire(house: House) -> None:
    for folder, reason in expire(house.site, lambda: not house.stop.asked.is_set()).left:
        if house.told.get(f"expire {folder}") != reason:
            house.told[f"expire {folder}"] = reason
            log.emit("expire.left", folder=folder, reason=reason)


def _duty(house: House, name: str, act: Callable[[], object]) -> None:
    try:
        act()
        house.told.pop(name, None)
    except StoreLost as error:
        house.stop.fail(error)
    except BgdeployError as error:
        _say_once(house, name, str(error))
    except Exception as error:  # the thread's edge: housekeeping must outlive any single surprise
        _say_once(house, name, f"{type(error).__name__}: {error}")


def _say_once(house: House, name: str, text: str) -> None:
    if house.told.get(name) != text:
        house.told[name] = text
        log.emit("service.trouble", what=name, error=text)


def _scan(house: House) -> None:
    if not house.scan_due.is_set():
        watch.look(house.site, house.watch)
        return
    house.scan_due.clear()
    report = scan.scan(house.site)
    if report.listed:  # one customer's folder that is gone is told of; the others were looked at
        house.last_scan = monotonic()
    _tell(house, report)
    _duty(house, "looking at the target", lambda: _watch_target(house))


def _tell(house: House, report: Report) -> None:
    """Log what a scan could not use: each once, until it changes or is well for a while."""
    found = {f"scan.unreadable {folder}": reason for folder, reason in report.errors}
    found |= {f"scan.skipped {folder}": reason for folder, reason in report.skipped}
    for what, reason in found.items():
        if house.told.get(what) != reason:
            house.told[what] = reason
            event, folder = what.split(" ", 1)
            log.emit(event, folder=folder, reason=reason)
    _forget_others(house, "scan.", found)


def _say_each(house: House, doing: str, troubles: Sequence[tuple[str, str]]) -> None:
    """Log the trouble with each of several: once, until it is another or was over."""
    for name, trouble in troubles:
        _say_once(house, f"{doing} {name}", trouble)
    _forget_others(house, f"{doing} ", {f"{doing} {name}" for name, _ in troubles})


def _forget_others(house: House, kind: str, found: Collection[str]) -> None:
    for over in [what for what in house.told if what.startswith(kind) and what not in found]:
        house.told.pop(over, None)


def _tidy(house: House) -> None:
    """Now and then: the reserve and the write-ahead log."""
    if monotonic() - house.tidied < TIDY_EVERY:
        return
    house.tidied = monotonic()
    _duty(house, "tidying the job table", lambda: _fold(house.site))


def _fold(site: Site) -> None:
    keep_ballast(site.settings.database_path.parent)
    held_back = site.store.truncate_log()
    if held_back > LARGEST_LOG:
        log.emit("store.log_grows", size=held_back >> 20)


def _watch_target(house: House) -> None:
    _say_each(house, "keeping the alias", repair.watch_aliases(house.site))
    unreadable = {f"unreadable {alias}": (alias, what) for alias, what in repair.find_unreadable(house.site)}
    for key, (alias, what) in unreadable.items():
        if house.told.get(key) != what:
            house.told[key] = what
            log.emit("database.unreadable", alias=alias, reason=what)
    _forget_others(house, "unreadable ", unreadable)
    for name in clean.orphans(house.site):
        if house.told.get(name) != "orphan":
            house.told[name] = "orphan"
            log.emit("clean.orphan", database=name)


def complain_when_late(house: House) -> None:
    """Say it when no scan has succeeded for three intervals; called by the main thread."""
    interval = house.site.settings.orchestrator.scan_interval
    silent = monotonic() - house.last_scan
    if house.scans and silent > 3 * interval and house.told.get("late") != "said":
        house.told["late"] = "said"
        log.emit("scan.late", seconds=silent, interval=interval)
    elif silent <= 3 * interval:
        house.told.pop("late", None)
