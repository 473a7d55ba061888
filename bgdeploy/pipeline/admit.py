"""Admit: a discovered folder is judged, and queued when it is ready; a queued one is judged again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bgdeploy.errors import BadInput, LeaseLost, NotReadable
from bgdeploy.jobs.rows import Row, Tx, age, move, title, write
from bgdeploy.jobs.states import Actor, State
from bgdeploy.pipeline.load import fail, intend_drop
from bgdeploy.site import Site
from bgdeploy.snapshots.readiness import Fingerprint, Readiness, assess, fingerprint
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.snapshots.source import Snapshot

BATCH = 50  # rows a transaction, so that nobody waits long for the job table
Ready = tuple[Row, Fingerprint, Snapshot]


@dataclass
class Report:
    """What one scan saw and did; each list is for people, in the order it happened."""

    customers: int = 0
    discovered: list[str] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)
    waiting: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    look_again: bool = False  # a marker was seen once; half a second later it counts


def admit(site: Site, customer: Row, waiting: Sequence[Row], report: Report) -> None:
    """Judge the discovered and queued jobs of one customer, and queue those that are ready."""
    floor = (customer["floor_timestamp"], customer["floor_build"])
    for_each([job for job in waiting if _is_overtaken(job, floor)], lambda job: _overtake(site, job, floor))
    current = [job for job in waiting if not _is_overtaken(job, floor)]
    for_each([job for job in current if job["state"] == State.QUEUED], lambda job: recheck(site, job))
    ready: list[Ready] = []
    discovered = [job for job in current if job["state"] == State.DISCOVERED]
    for_each(discovered, lambda job: ready.extend(_judge(site, job, report)))
    # Where only the newest count, they go first: a worker must not take an old one in between.
    newest_first = customer["live"] is None or site.settings.orchestrator.backlog == "latest"
    ready.sort(key=lambda one: age(one[0]), reverse=newest_first)
    for start in range(0, len(ready), BATCH):
        _queue(site, ready[start : start + BATCH], report)


def _is_overtaken(job: Row, floor: tuple[int, int]) -> bool:
    return age(job) <= floor and not job["requested"]


def for_each(rows: Iterable[Row], act: Callable[[Row], object]) -> None:
    """Do it for every row; one that another process took further meanwhile is left to it."""
    for row in rows:
        try:
            act(row)
        except LeaseLost:
            continue


def folder_of(site: Site, job: Row) -> Path:
    """The snapshot's folder."""
    return site.settings.dataset.base_path / str(job["customer"]) / str(job["timestamp"])


def _overtake(site: Site, job: Row, floor: tuple[int, int]) -> None:
    with site.transaction(Actor.SCAN) as tx:
        reason = f"{floor[0]} went live, and older ones never follow by themselves"
        changes = {"ended_at": tx.now, "reason": reason}
        move(tx, job, State.CLEANED, "scan.overtaken", fields={"reason": reason}, **changes)


def recheck(site: Site, job: Row) -> bool:
    """A queued folder that changed or went away goes back to discovered; return whether it is as it was."""
    found = look_at(site, job)
    if found is not None and found.text == job["fingerprint"]:
        return True
    reason = "folder gone" if found is None else "changed, settling"
    with site.transaction(Actor.SCAN) as tx:
        intend_drop(tx, job, "its snapshot changed before it was loaded")
        seen = {"fingerprint": found.text if found else None, "fingerprint_at": tx.now, "settings": None}
        move(tx, job, State.DISCOVERED, "scan.unsettled", fields={"reason": reason}, reason=reason, **seen)
    return False


def look_at(site: Site, job: Row) -> Fingerprint | None:
    """Return what the folder looks like now, or None where it is gone."""
    try:
        return fingerprint(folder_of(site, job))
    except FileNotFoundError:
        return None


def _judge(site: Site, job: Row, report: Report) -> list[Ready]:
    """Return the job with its opened snapshot when it is ready; else write down why it is not."""
    found = look_at(site, job)
    if found is None:
        return _not_yet(site, job, "folder gone", report, fingerprint=None)
    verdict = _readiness(site, job, found)
    if verdict.state != "ready":
        report.look_again |= verdict.marker
        new = {"fingerprint": found.text, "fingerprint_at": site.clock()} if verdict.first else {}
        quiet = verdict.marker or (verdict.state == "settling" and not verdict.first)
        return _not_yet(site, job, verdict.reason, report, quiet=quiet, **new)
    try:
        snapshot = open_folder(site, job, found.text)
    except NotReadable as error:
        if not verdict.marker:
            return _not_yet(site, job, str(error), report)
        cure = "Write it anew; the snapshot is looked at again by itself when it has changed."
        return _refuse(site, job, BadInput(error.what, kept=error.kept, cure=cure), found, report)
    except BadInput as error:
        return _refuse(site, job, error, found, report)
    return [(job, found, snapshot)]


def _readiness(site: Site, job: Row, found: Fingerprint) -> Readiness:
    return assess(
        folder_of(site, job),
        found,
        now=site.clock(),
        seen=job["fingerprint"],
        seen_at=job["fingerprint_at"],
        settle_seconds=site.settings.dataset.settle_seconds,
    )


def open_folder(site: Site, job: Row, found: str) -> Snapshot:
    """Read layout and footers of a job's folder."""
    columns = site.settings.dataset.columns.model_dump()
    name, timestamp, folder = job["customer"], job["timestamp"], folder_of(site, job)
    return open_snapshot(name, timestamp, folder, columns, found, site.target.refuses)


def _not_yet(
    site: Site, job: Row, reason: str, report: Report, *, quiet: bool = False, **changes: Any
) -> list[Any]:
    """Write the reason down; it is told too, unless it goes on settling as was told before."""
    report.waiting.append((title(job), reason))
    if reason != job["reason"] or changes:
        with site.transaction(Actor.SCAN) as tx:
            write(tx, job, reason=reason, **changes)
            if reason != job["reason"] and not quiet:
                tx.say("scan.waits", job, reason=reason)
    return []


def _refuse(site: Site, job: Row, error: BadInput, found: Fingerprint, report: Report) -> list[Any]:
    report.failed.append((title(job), error.what))
    with site.transaction(Actor.SCAN) as tx:
        write(tx, job, fingerprint=found.text)
        fail(tx, job, error)
    return []


def _queue(site: Site, ready: Sequence[Ready], report: Report) -> None:
    """Queue a batch in one transaction, so that a worker never sees half a backlog."""
    queued: list[str] = []
    with site.transaction(Actor.SCAN) as tx:
        for job, found, snapshot in ready:
            if _queue_one(tx, job, found, snapshot):
                queued.append(title(job))
    report.queued.extend(queued)


def _queue_one(tx: Tx, job: Row, found: Fingerprint, snapshot: Snapshot) -> bool:
    size = f"{snapshot.size / 1e6:,.1f} MB"
    fields = {"tables": len(snapshot.tables), "rows": snapshot.rows, "size": size}
    expected = {"rows_expected": snapshot.rows, "bytes_expected": snapshot.size}
    changes = {"queued_at": tx.now, "fingerprint": found.text, "reason": None, **expected}
    try:
        move(tx, job, State.QUEUED, "scan.queued", fields=fields, **changes)
    except LeaseLost:
        return False  # another scanner queued it
    return True
