"""Admit: a discovered folder is judged, and queued when it is ready; a queued one is judged again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bgdeploy.errors import BadInput, FolderAway, LeaseLost, NotReadable
from bgdeploy.jobs.rows import Row, Tx, age, move, title, write
from bgdeploy.jobs.states import Actor, State
from bgdeploy.pipeline.load import fail, intend_drop
from bgdeploy.pipeline.notes import Notes, Ready, Wait
from bgdeploy.site import Site
from bgdeploy.snapshots.files import MANIFEST, MARKER
from bgdeploy.snapshots.folders import leads_astray, list_names
from bgdeploy.snapshots.readiness import Fingerprint, Readiness, assess, fingerprint
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.snapshots.source import Snapshot

GONE = Readiness("gone", "folder gone")


class Judged(NamedTuple):
    """A discovered job with one look at its folder and the verdict on it; ``look`` is None where it is gone."""

    job: Row
    look: Fingerprint | None
    verdict: Readiness


def admit(
    site: Site, customer: Row, waiting: Sequence[Row], notes: Notes, judged: Sequence[Judged] = ()
) -> None:
    """Judge the discovered and queued jobs of one customer, and note which are ready.

    ``judged`` are those that were looked at when they were found; their rows say what was seen.
    """
    floor = (customer["floor_timestamp"], customer["floor_build"])
    for job in [*waiting, *(one.job for one in judged)]:
        if _is_overtaken(job, floor):
            notes.act(partial(_overtake, job=job, floor=floor))
    current = [job for job in waiting if not _is_overtaken(job, floor)]
    for job in current:
        if job["state"] == State.QUEUED:
            _look_again(site, job, notes)
    again = (_judge(site, job, notes) for job in current if job["state"] == State.DISCOVERED)
    first = (one for one in judged if not _is_overtaken(one.job, floor))
    ready = _open_all(site, [*first, *again], notes)
    # Where only the newest count, they go first: a worker must not take an old one in between.
    newest_first = customer["live"] is None or site.settings.orchestrator.backlog == "latest"
    for one in sorted(ready, key=lambda one: age(one.job), reverse=newest_first):
        notes.queue(one)


def _look_again(site: Site, job: Row, notes: Notes) -> None:
    """Note that a queued folder is not as it was; one of which nothing can be said changes nothing."""
    try:
        look = look_for_sure(site, job)
    except FolderAway as error:
        notes.report.errors.append((title(job), error.what))
        return
    if not is_as_it_was(job, look):
        notes.act(partial(_unsettle, job=job, look=look))


def _is_overtaken(job: Row, floor: tuple[int, int]) -> bool:
    return age(job) <= floor and not job["requested"]


def _overtake(tx: Tx, job: Row, floor: tuple[int, int]) -> None:
    reason = f"{floor[0]} went live, and older ones never follow by themselves"
    changes = {"ended_at": tx.now, "reason": reason}
    move(tx, job, State.CLEANED, "scan.overtaken", fields={"reason": reason}, **changes)


def folder_of(site: Site, job: Row) -> Path:
    """The snapshot's folder."""
    return Path(site.settings.dataset.base_path, job["customer"], str(job["timestamp"]))


def look_at(site: Site, job: Row) -> Fingerprint | None:
    """Return what the folder looks like now, or None where it is gone."""
    return look_into(folder_of(site, job))


def look_into(folder: Path) -> Fingerprint | None:
    """Return what a folder looks like now; None where it is gone, or a link that leads elsewhere by now."""
    try:
        return None if leads_astray(folder) else fingerprint(folder)
    except FileNotFoundError:
        return None


def look_for_sure(site: Site, job: Row) -> Fingerprint | None:
    """Return what a known folder looks like now, and None only where it is seen to be gone.

    Raises FolderAway where nothing can be said: a disk that is lost or fails looks like a removal, and
    what follows from one must not follow from the other. As for a scan, the customer's folder tells.
    """
    folder = folder_of(site, job)
    try:
        look = look_into(folder)
        if look is None:
            list_names(folder.parent)
    except OSError as error:
        raise _away(job, f"{error.filename or folder}: {error.strerror or error}") from error
    except NotReadable as error:
        raise _away(job, error.what) from error
    if look is not None and look.unreadable is not None:
        raise _away(job, f"{folder / look.unreadable} cannot be listed")
    return look


def _away(job: Row, why: str) -> FolderAway:
    return FolderAway(
        f"Nothing can be said of the snapshot {title(job)}: {why}",
        kept="Its job stays as it is, and so does what it built.",
        cure=f"Bring its disk back, and it goes on by itself; if it shall not: bgdeploy jobs cancel {job['id']}",
    )


def is_as_it_was(job: Row, look: Fingerprint | None) -> bool:
    """True while the folder looks as it did when the job was queued, or failed."""
    return look is not None and job["fingerprint"] in (look.text, look.claim)


def recheck(site: Site, job: Row) -> bool:
    """A queued folder that changed or went away goes back to discovered; return whether it is as it was.

    Raises FolderAway where nothing can be said of it.
    """
    look = look_for_sure(site, job)
    if is_as_it_was(job, look):
        return True
    with site.transaction(Actor.SCAN) as tx:
        _unsettle(tx, job, look)
    return False


def refuse(site: Site, job: Row, fault: BadInput) -> None:
    """Fail a queued job whose folder is as it was and cannot be loaded all the same; nothing where another has it."""
    with suppress(LeaseLost), site.transaction(Actor.SCAN) as tx:
        fail(tx, job, fault)


def find_settled(site: Site, job: Row) -> str | None:
    """Return the fingerprint of a folder that is as it was when the job was queued and still complete.

    None where it is not, or never was: it is judged anew before anything is loaded from it.
    """
    look = look_at(site, job)
    if job["rows_expected"] is None or not is_as_it_was(job, look):
        return None
    return job["fingerprint"] if judge(site, folder_of(site, job), look, job).state == "ready" else None


def _unsettle(tx: Tx, job: Row, look: Fingerprint | None) -> None:
    again = "changed, settling" if job["fingerprint"] is not None else "looked at anew"
    reason = "folder gone" if look is None else again
    seen = {
        "fingerprint": look.text if look else None,
        "fingerprint_at": tx.now,
        "settings": None,
        "furthest": 0,
    }
    move(tx, job, State.DISCOVERED, "scan.unsettled", fields={"reason": reason}, reason=reason, **seen)
    intend_drop(tx, job, "its snapshot changed before it was loaded")


def judge(site: Site, folder: Path, look: Fingerprint | None, seen: Row | None = None) -> Readiness:
    """Return the verdict on one look; ``seen`` is the job as it was written at an earlier one."""
    if look is None:
        return GONE
    return assess(
        folder,
        look,
        now=site.clock(),
        seen=seen["fingerprint"] if seen is not None else None,
        seen_at=seen["fingerprint_at"] if seen is not None else None,
        settle_seconds=site.settings.dataset.settle_seconds,
    )


def _judge(site: Site, job: Row, notes: Notes) -> Judged:
    """Look at a discovered folder again, and note why it is not ready where it is not."""
    folder = folder_of(site, job)
    look = look_into(folder)
    verdict = judge(site, folder, look, job)
    if verdict.state not in ("ready", "contradicted"):
        quiet = verdict.marker or (verdict.state == "settling" and not verdict.first)
        seen: dict[str, Any] = {"fingerprint": look.text if look else None}
        if verdict.first:
            seen["fingerprint_at"] = site.clock()
        _wait(job, verdict.reason, notes, quiet=quiet, **seen)
    return Judged(job, look, verdict)


def _wait(job: Row, reason: str, notes: Notes, *, quiet: bool = False, **seen: Any) -> None:
    """Note the reason; it is told too, unless it goes on settling as was told before."""
    before = {name: job[name] for name in ("reason", "fingerprint", "fingerprint_at")}
    after = {**before, "reason": reason, **seen}
    if after != before:
        notes.wait(Wait(job, after, told=reason != job["reason"] and not quiet))


def _open_all(site: Site, judged: Iterable[Judged], notes: Notes) -> list[Ready]:
    """Open the snapshots that are ready, and report the others."""
    ready = []
    for job, look, verdict in judged:
        if verdict.state == "contradicted" and look is not None:
            what = f"The snapshot is not what its manifest says, though {MARKER} is there: {verdict.reason}."
            cure = f"Write the file or the manifest again, or remove {MANIFEST}; it is looked at again by itself when either has changed."
            fault = BadInput(what, kept="Nothing of the snapshot was loaded.", cure=cure)
            notes.report.failed.append((title(job), fault.what))
            # With the manifest's text: it alone may be mended.
            notes.act(partial(_refuse, job=job, seen=look.claim, fault=fault))
        elif verdict.state != "ready" or look is None:
            notes.report.waiting.append((title(job), verdict.reason))
            notes.report.look_again |= verdict.marker
        elif (snapshot := _open(site, job, look, verdict, notes)) is not None:
            ready.append(Ready(job, look, snapshot))
    return ready


def _open(site: Site, job: Row, look: Fingerprint, verdict: Readiness, notes: Notes) -> Snapshot | None:
    try:
        return open_folder(site, job, look.text)
    except NotReadable as error:
        if not verdict.marker:
            notes.report.waiting.append((title(job), str(error)))
            _wait(job, str(error), notes)
            return None
        cure = "Write it anew; the snapshot is looked at again by itself when it has changed."
        fault = BadInput(error.what, kept=error.kept, cure=cure)
    except BadInput as error:
        fault = error
    notes.report.failed.append((title(job), fault.what))
    notes.act(partial(_refuse, job=job, seen=look.text, fault=fault))
    return None


def open_folder(site: Site, job: Row, found: str) -> Snapshot:
    """Read layout and footers of a job's folder."""
    columns = site.settings.dataset.columns.model_dump()
    name, timestamp, folder = job["customer"], job["timestamp"], folder_of(site, job)
    return open_snapshot(name, timestamp, folder, columns, found, site.target.refuses)


def _refuse(tx: Tx, job: Row, seen: str, fault: BadInput) -> None:
    write(tx, job, fingerprint=seen)
    fail(tx, job, fault)
