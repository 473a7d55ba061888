"""Notes: what a scan has found out and still has to write, many rows in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bgdeploy.errors import BgdeployError, LeaseLost, NotReadable
from bgdeploy.jobs.rows import Row, Tx, as_read, move_all, title, write_all
from bgdeploy.jobs.states import Actor, State
from bgdeploy.site import Site
from bgdeploy.snapshots.readiness import Fingerprint
from bgdeploy.snapshots.source import tell_positions

BATCH = 100  # rows a transaction, so that nobody waits long for the job table


@dataclass
class Report:
    """What one scan saw and did; each list is for people, in the order it happened."""

    listed: bool = False  # the base folder could be looked at
    customers: int = 0
    discovered: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)  # failed before, changed since
    queued: list[str] = field(default_factory=list)
    waiting: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)  # those of the skipped that a person removed: no news
    failed: list[tuple[str, str]] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    look_again: bool = False  # a marker was seen once; half a second later it counts


@contextmanager
def standing_alone(name: str, report: Report) -> Iterator[None]:
    """Whatever is wrong with one customer is told of it alone, and the others are looked at all the same."""
    try:
        yield
    except NotReadable as error:
        report.errors.append((name, error.what))
    except OSError as error:  # a disk that fails under one customer
        report.errors.append((name, f"{error.filename or name}: {error.strerror or error}"))
    except BgdeployError:
        raise  # the job table or the target: it concerns all of them
    except Exception as error:  # the edge of a customer: what nobody foresaw in its files stops nobody else
        report.errors.append((name, f"it cannot be judged ({type(error).__name__}: {error})"))


class Ready(NamedTuple):
    """A job whose snapshot is complete, and what the inspector found in it."""

    job: Row
    look: Fingerprint
    found: Mapping[str, Any]


class Wait(NamedTuple):
    """A job that is not ready: what its row is to say, and whether it is told too."""

    job: Row
    changes: dict[str, Any]
    told: bool


@dataclass
class Notes:
    """A job of which another process knows better by now is left to it."""

    site: Site
    report: Report
    _waits: list[Wait] = field(default_factory=list)
    _ready: list[Ready] = field(default_factory=list)
    _acts: list[Callable[[Tx], None]] = field(default_factory=list)

    def wait(self, wait: Wait) -> None:
        """A job waits."""
        self._waits.append(wait)
        self._write_when_full()

    def queue(self, ready: Ready) -> None:
        """A job is ready. Those noted first are queued first: a worker may see half of a backlog."""
        self._ready.append(ready)
        self._write_when_full()

    def act(self, act: Callable[[Tx], None]) -> None:
        """Something rarer, as a function whose first statement is guarded."""
        self._acts.append(act)
        self._write_when_full()

    def write(self) -> None:
        """Write what is noted, and begin a new page."""
        waits, ready, acts = self._waits, self._ready, self._acts
        self._waits, self._ready, self._acts = [], [], []
        if not (waits or ready or acts):
            return
        with self.site.transaction(Actor.SCAN) as tx:
            _write_waits(tx, waits)
            queued = _queue(tx, ready)
            for act in acts:
                _try(act, tx)
        self.report.queued.extend(title(job) for job in queued)

    def _write_when_full(self) -> None:
        if len(self._waits) + len(self._ready) + len(self._acts) >= BATCH:
            self.write()


def _write_waits(tx: Tx, waits: list[Wait]) -> None:
    mine = as_read(tx, [wait.job for wait in waits])
    waits = [wait for wait in waits if wait.job["id"] in mine]
    write_all(tx, [(wait.job, wait.changes) for wait in waits])
    for wait in waits:
        if wait.told:
            tx.say_seldom("scan.waits", wait.job, reason=wait.changes["reason"])


def _queue(tx: Tx, ready: list[Ready]) -> list[Row]:
    moves = []
    for job, look, found in ready:
        size = f"{found['bytes'] / 1e6:,.1f} MB"
        fields = {
            "tables": found["tables"],
            "rows": found["rows"],
            "bytes": found["bytes"],
            "_size": size,
        }
        expected = {"rows_expected": found["rows"], "bytes_expected": found["bytes"], "inspection": found}
        changes = {"queued_at": tx.now, "fingerprint": look.text, "reason": None, **expected}
        moves.append((job, fields, changes))
    queued = move_all(tx, State.QUEUED, "scan.queued", moves)
    numbers = {job["id"] for job in queued}
    for job, _, found in ready:
        if job["id"] in numbers and found["by_position"]:
            tx.say("scan.by_position", job, columns=tell_positions(found["by_position"]))
    return queued


def _try(act: Callable[[Tx], None], tx: Tx) -> None:
    try:
        act(tx)
    except LeaseLost:
        return  # another process took it further meanwhile
