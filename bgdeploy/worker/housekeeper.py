"""Housekeeping, in four threads per process: one scans, one rescues and switches, one cleans, one forgets.

They are apart because a hanging disk under the snapshots, or a database whose dropping takes long, must
not keep an alias from being moved, and removing a large folder must not keep a new one from being found.
What fails is tried again at the next round; it is told once, until it fails otherwise or was over in between.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from bgdeploy import log
from bgdeploy.clock import monotonic
from bgdeploy.errors import BgdeployError, StoreLost
from bgdeploy.jobs.lease import rescue
from bgdeploy.jobs.store import keep_ballast
from bgdeploy.pipeline import clean, leave, scan, switch
from bgdeploy.pipeline.admit import Pending
from bgdeploy.pipeline.alias import find_unreadable, watch_aliases
from bgdeploy.pipeline.forget import expire, prune
from bgdeploy.pipeline.scan import SECOND_LOOK
from bgdeploy.site import Site
from bgdeploy.worker.shutdown import Stop

Result = TypeVar("Result")
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
    pending: Pending = field(init=False)
    watch: scan.Watch = field(init=False)
    last_scan: float = field(default_factory=monotonic)
    tidied: float = 0.0
    told: dict[str, str] = field(default_factory=dict)  # what was logged already, so it is said once

    def __post_init__(self) -> None:
        self.pending = Pending(self.look.set)  # an answer of the inspector is taken up at once
        self.watch = scan.Watch(self.pending)

    def poke(self) -> None:
        """A round is due; called by the scheduler and by workers, never blocks."""
        self.look.set()
        self.wake.set()

    def poke_scan(self) -> None:
        """A whole scan is due."""
        self.scan_due.set()
        self.look.set()


def keep_scanning(house: House) -> None:
    """Scan and look until the stop is asked for."""
    while not house.stop.asked.is_set():
        marked = _duty(house, "scan", lambda: _scan(house))
        house.wake.set()
        interval = house.site.settings.orchestrator.watch_interval
        house.look.wait(min(interval, SECOND_LOOK) if marked else interval)
        house.look.clear()


def _scan(house: House) -> bool:
    """Look, or scan where that is due; True where a marker was seen once, which counts when it is seen again."""
    site = house.site
    if not house.scan_due.is_set():
        return scan.look(site, house.watch).look_again
    house.scan_due.clear()
    report = scan.scan(site, house.pending)
    if report.listed:  # one customer's folder that is gone is told of; the others were looked at
        house.last_scan = monotonic()
    _tell_new(
        house,
        "folder",
        report.errors,
        lambda folder, why: log.emit("scan.unreadable", folder=folder, reason=why),
    )
    skipped = [one for one in report.skipped if one[0] not in report.removed]
    _tell_new(
        house, "skipped", skipped, lambda folder, why: log.emit("scan.skipped", folder=folder, reason=why)
    )
    removed = [one for one in report.skipped if one[0] in report.removed]
    _tell_new(
        house, "removed", removed, lambda name, why: log.emit("scan.removed", customer=name, reason=why)
    )
    _duty(house, "looking at the target", lambda: _watch_target(house))
    return report.look_again


def _watch_target(house: House) -> None:
    site = house.site
    _tell_troubles(house, "keeping the alias", watch_aliases(site))
    unreadable = find_unreadable(site)
    _tell_new(
        house,
        "live database of",
        unreadable,
        lambda alias, why: log.emit("database.unreadable", alias=alias, reason=why),
    )
    orphans = [(name, "nobody owns it") for name in clean.orphans(site)]
    _tell_new(house, "orphan", orphans, lambda database, _: log.emit("clean.orphan", database=database))


def complain_when_late(house: House) -> None:
    """Say it when no scan has succeeded for three intervals; called by the main thread."""
    interval = house.site.settings.orchestrator.scan_interval
    silent = monotonic() - house.last_scan
    if house.scans and silent > 3 * interval and house.told.get("late") != "said":
        house.told["late"] = "said"
        log.emit("scan.late", seconds=silent, interval=interval)
    elif silent <= 3 * interval:
        house.told.pop("late", None)


def keep_house(house: House) -> None:
    """Rescue and switch until the stop is asked for."""
    site, orchestrator = house.site, house.site.settings.orchestrator
    most, base = orchestrator.max_service_deaths, orchestrator.retry_backoff_base

    def take_back() -> None:
        rescue(site.store, now=site.clock(), owner=site.owner, most=most, base=base)

    while not house.stop.asked.is_set():
        _duty(house, "rescue", take_back)
        _duty(house, "switch", lambda: switch.switch_ready(site))
        house.sweep.set()
        house.wake.wait(orchestrator.watch_interval)
        house.wake.clear()
    house.sweep.set()  # who cleans must see the stop


def keep_clean(house: House) -> None:
    """Take removed customers' aliases away and drop what is over, each time after what may switch has switched.

    Both take the same rows: a cleaner that came first would put a move off.
    """
    site = house.site

    def finish_leaving() -> None:
        _tell_troubles(house, "removing customer", leave.finish_leaving(site))

    while True:
        house.sweep.wait()
        house.sweep.clear()
        if house.stop.asked.is_set():
            return
        _duty(house, "removing customers", finish_leaving)
        _duty(house, "clean", lambda: clean.clean(site))
        if monotonic() - house.tidied >= TIDY_EVERY:
            _duty(house, "tidying the job table", lambda: _tidy(site))
            house.tidied = monotonic()  # behind it, so that one that takes long is not due again at once


def _tidy(site: Site) -> None:
    """The reserve and the write-ahead log."""
    keep_ballast(site.settings.database_path.parent)
    held_back = site.store.truncate_log()
    if held_back > LARGEST_LOG:
        log.emit("store.log_grows", size=held_back >> 20)


def keep_history(house: House) -> None:
    """Forget what is over and remove what has expired; at the stop a round ends early and loses nothing."""
    site, stop = house.site, house.stop.asked

    def remove_expired() -> None:
        left = expire(site, lambda: not stop.is_set()).left
        _tell_new(
            house, "expiring", left, lambda folder, why: log.emit("expire.left", folder=folder, reason=why)
        )

    while not stop.is_set():
        _duty(house, "forgetting what is over", lambda: prune(site, lambda: not stop.is_set()))
        _duty(house, "removing expired snapshots", remove_expired)
        stop.wait(HISTORY_EVERY)


def _duty(house: House, name: str, act: Callable[[], Result]) -> Result | None:
    try:
        done = act()
        house.told.pop(name, None)
        return done
    except StoreLost as error:
        house.stop.fail(error)
    except BgdeployError as error:
        _say_once(house, name, str(error))
    except Exception as error:  # the thread's edge: housekeeping must outlive any single surprise
        _say_once(house, name, f"{type(error).__name__}: {error}")
    return None


def _say_once(house: House, name: str, text: str) -> None:
    if house.told.get(name) != text:
        house.told[name] = text
        log.emit("service.trouble", what=name, error=text)


def _tell_new(
    house: House, kind: str, found: Iterable[tuple[str, str]], tell: Callable[[str, str], None]
) -> None:
    """Tell of each name with its reason once, until it is another reason, or was over and comes again."""
    now = {f"{kind} {name}": (name, reason) for name, reason in found}
    for key, (name, reason) in now.items():
        if house.told.get(key) != reason:
            house.told[key] = reason
            tell(name, reason)
    # A copy, made in one go: other threads tell of other things meanwhile.
    for key in list(house.told):
        if key.startswith(f"{kind} ") and key not in now:
            house.told.pop(key, None)


def _tell_troubles(house: House, doing: str, troubles: Iterable[tuple[str, str]]) -> None:
    _tell_new(
        house,
        doing,
        troubles,
        lambda name, why: log.emit("service.trouble", what=f"{doing} {name}", error=why),
    )
