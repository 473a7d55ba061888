"""Admit: a discovered folder is judged, inspected and queued when it is ready; a queued one is judged again.

What only a snapshot's files can tell, the inspector is asked: the scan goes on meanwhile, and takes its
answers up at a later look. What was found out is written at the end, many rows in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import sqlalchemy as sa

from bgdeploy.actions import Hint, do
from bgdeploy.clock import monotonic
from bgdeploy.errors import BadInput, BgdeployError, FolderAway, LeaseLost, NotReadable
from bgdeploy.jobs import reasons
from bgdeploy.jobs.reasons import Code, Reason, because, read
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.transitions import Row, Tx, age, as_read, jobs, move, move_all, title, write, write_all
from bgdeploy.pipeline.load import fail, intend_drop
from bgdeploy.site import Site
from bgdeploy.snapshots import readiness
from bgdeploy.snapshots.folders import MANIFEST, MARKER, leads_astray, list_names
from bgdeploy.snapshots.readiness import Fingerprint, Readiness, fingerprint
from bgdeploy.snapshots.source import Snapshot, mark, recall, tell_positions, unpack

if TYPE_CHECKING:
    from bgdeploy.site import Inquiry


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


_LONG = 5.0  # seconds after which people are told that a snapshot is still being read
_LONGEST = 1.0  # seconds for which what is known is kept back, so that many are written at once
_LOOK = 0.2  # seconds between two looks at answers, where somebody waits for them
_CURE = "Write it anew; the snapshot is looked at again by itself when it has changed."


class Judged(NamedTuple):
    """A discovered job with one look at its folder and the verdict on it; ``look`` is None where it is gone."""

    job: Row
    look: Fingerprint | None
    verdict: Readiness
    again: bool = False  # it was found earlier, and what is seen now is to be written


def admit(
    site: Site,
    customer: Row,
    waiting: Sequence[Row],
    notes: Notes,
    pending: Pending,
    judged: Sequence[Judged] = (),
) -> None:
    """Judge the discovered and queued jobs of one customer; those that may be ready become pending.

    ``judged`` are those that were looked at when they were found; their rows say what was seen.
    """
    floor = (customer["floor_timestamp"], customer["floor_build"])
    for job in [*waiting, *(one.job for one in judged)]:
        if _is_overtaken(job, floor):
            notes.act(partial(_overtake, job=job, floor=floor))
    current = [job for job in waiting if not _is_overtaken(job, floor) and not pending.holds(job)]
    for job in current:
        if job["state"] == State.QUEUED:
            _look_again(site, job, notes)
    again = (_judge(site, job) for job in current if job["state"] == State.DISCOVERED)
    first = (one for one in judged if not _is_overtaken(one.job, floor))
    asked = [one for one in (*first, *again) if _may_be_ready(one, notes)]
    # Where only the newest count, they go first: a worker must not take an old one in between.
    newest_first = customer["live"] is None or site.settings.orchestrator.backlog == "latest"
    pending.add(site, asked, newest_first=newest_first)


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
    reason = because(Code.OVERTAKEN, timestamp=floor[0])
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
        cure=Hint(
            "Bring its disk back, and it goes on by itself; if it shall not: ", do("cancel", job_id=job["id"])
        ),
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
    return job["fingerprint"] if judge_now(site, job, look).state == "ready" else None


def _unsettle(tx: Tx, job: Row, look: Fingerprint | None) -> None:
    again = Code.CHANGED if job["fingerprint"] is not None else Code.JUDGED_AGAIN
    reason = because(Code.FOLDER_GONE if look is None else again)
    seen = {
        "fingerprint": look.text if look else None,
        "fingerprint_at": tx.now,
        "settings": None,
        "furthest": 0,
    }
    move(tx, job, State.DISCOVERED, "scan.unsettled", fields={"reason": reason}, reason=reason, **seen)
    intend_drop(tx, job, "its snapshot changed before it was loaded")


def judge(site: Site, look: Fingerprint | None, seen: Row | None = None) -> Readiness:
    """Return the verdict on one look; ``seen`` is the job as it was written at an earlier one."""
    return readiness.judge(
        look,
        now=site.clock(),
        seen=seen["fingerprint"] if seen is not None else None,
        seen_at=seen["fingerprint_at"] if seen is not None else None,
        settle_seconds=site.settings.dataset.settle_seconds,
    )


def judge_now(site: Site, job: Row, look: Fingerprint | None) -> Readiness:
    """The same, where the inspector is waited for when a manifest decides."""
    if look is not None and look.manifest is not None and not look.manifest.read:
        inquiry = site.inspectors.ask(_about_manifest(site, job, look))
        try:
            look = _with_manifest(look, site.inspectors.wait(inquiry))
        except NotReadable as error:
            return Readiness("waiting", "not-readable", {"error": error.code, "said": error.what})
    return judge(site, look, job)


def reason_of(verdict: Readiness) -> Reason | None:
    """Return why a snapshot is not ready; None where it is."""
    return because(verdict.code, **verdict.fields) if verdict.code else None


def _judge(site: Site, job: Row) -> Judged:
    """Look at a discovered folder again."""
    look = look_into(folder_of(site, job))
    return Judged(job, look, judge(site, look, job), again=True)


def _may_be_ready(judged: Judged, notes: Notes) -> bool:
    """Note why a snapshot is not ready, where a look from outside tells."""
    job, look, verdict, again = judged
    if look is not None and (verdict.state == "ready" or verdict.unread):
        return True
    if look is not None and verdict.state == "contradicted":
        what = f"The snapshot is not what its manifest says, though {MARKER} is there: {verdict.fields['fault']}."
        cure = f"Write the file or the manifest again, or remove {MANIFEST}; it is looked at again by itself when either has changed."
        fault = BadInput(what, kept="Nothing of the snapshot was loaded.", cure=cure)
        notes.report.failed.append((title(job), fault.what))
        # With the manifest's text: it alone may be mended.
        notes.act(partial(_refuse, job=job, seen=look.claim, fault=fault))
        return False
    reason = because(verdict.code, **verdict.fields)
    if again:
        quiet = verdict.marker or (verdict.state == "settling" and not verdict.first)
        seen: dict[str, Any] = {"fingerprint": look.text if look else None}
        if verdict.first:
            seen["fingerprint_at"] = notes.site.clock()
        _wait(job, reason, notes, quiet=quiet, **seen)
    notes.report.waiting.append((title(job), str(reason)))
    notes.report.look_again |= verdict.marker
    return False


def _wait(job: Row, reason: Reason, notes: Notes, *, quiet: bool = False, **seen: Any) -> None:
    """Note the reason; it is told too, unless it goes on settling as was told before."""
    before = {"reason": read(job), **{name: job[name] for name in ("fingerprint", "fingerprint_at")}}
    after = {**before, "reason": reason, **seen}
    if after != before:
        notes.wait(Wait(job, after, told=reason != before["reason"] and not quiet))


@dataclass(eq=False)
class _Entry:
    """One snapshot that the inspector is asked about: first its manifest, where it has one, then its files."""

    job: Row
    look: Fingerprint
    verdict: Readiness
    inquiry: Inquiry
    told: bool = False  # that it takes long


@dataclass
class Pending:
    """What the inspector is asked, by customer, from one look to the next; ``tell`` is called at each answer.

    Of one customer, snapshots are queued in the order in which they are to be loaded.
    """

    tell: Callable[[], None] | None = None
    _entries: dict[str, list[_Entry]] = field(default_factory=dict)
    _jobs: set[int] = field(default_factory=set)

    def holds(self, job: Row) -> bool:
        """True while the inspector is asked about it."""
        return job["id"] in self._jobs

    def add(self, site: Site, asked: Sequence[Judged], *, newest_first: bool) -> None:
        """Ask about snapshots of one customer that may be ready."""
        for job, look, verdict, _ in sorted(asked, key=lambda one: age(one.job), reverse=newest_first):
            assert look is not None
            request = (
                _about_manifest(site, job, look) if verdict.unread else _about_files(site, job, look.text)
            )
            entry = _Entry(job, look, verdict, site.inspectors.ask(request, self.tell))
            self._entries.setdefault(job["customer"], []).append(entry)
            self._jobs.add(job["id"])
        if asked:
            mine = self._entries[asked[0].job["customer"]]
            mine.sort(key=lambda entry: age(entry.job), reverse=newest_first)

    def take_up(self, site: Site, notes: Notes) -> None:
        """Note what was answered since the last time."""
        for customer, entries in [*self._entries.items()]:
            left: list[_Entry] = []
            for entry in entries:
                over = True  # whatever is wrong with it: it is looked at again
                with standing_alone(customer, notes.report):
                    over = self._advance(site, notes, entry, behind=bool(left))
                if over:
                    self._jobs.discard(entry.job["id"])
                else:
                    left.append(entry)
            self._entries[customer] = left
            if not left:
                del self._entries[customer]

    def finish(self, site: Site, notes: Notes, most: int = 0) -> None:
        """Wait until no more than so many are left, and write meanwhile what is known."""
        self.take_up(site, notes)
        written = monotonic()
        while len(self._jobs) > most:
            if monotonic() - written > _LONGEST:
                notes.write()
                written = monotonic()
            now = site.inspectors.open_requests()
            site.inspectors.wait_for_fewer(now - now // 10, _LOOK)
            self.take_up(site, notes)

    def _advance(self, site: Site, notes: Notes, entry: _Entry, *, behind: bool) -> bool:
        """Go on with one where it was answered; True where it is done with, one way or another."""
        if entry.inquiry.answer is None:
            if not entry.told and monotonic() - entry.inquiry.since > _LONG:
                entry.told, slow = True, because(Code.BEING_READ)
                _wait(entry.job, slow, notes, quiet=True)
                # As it is written now, so that the reason it had before is written again.
                entry.job = cast(Row, {**entry.job, **reasons.columns(slow)})
            return False
        try:
            found = entry.inquiry.result()
            if found.get("changed"):
                return True  # the next look judges it
            if entry.verdict.unread:
                return self._go_on(site, notes, entry, found)
        except FolderAway as error:
            return _put_off(entry, error, notes)
        except NotReadable as error:
            if not entry.verdict.marker:
                return _put_off(entry, error, notes)
            _fail(entry, BadInput(error.what, kept=error.kept, cure=_CURE), notes)
        except BadInput as error:
            _fail(entry, error, notes)
        else:
            if behind:
                return False
            columns = site.settings.dataset.columns.model_dump()
            made_for = mark(entry.look.text, columns, site.target.kind)
            notes.queue(Ready(entry.job, entry.look, {"mark": made_for, **found}))
        return True

    def _go_on(self, site: Site, notes: Notes, entry: _Entry, found: Mapping[str, Any]) -> bool:
        """The manifest was compared: now its files are read, or it waits."""
        entry.look = _with_manifest(entry.look, found)
        entry.verdict = judge(site, entry.look, entry.job)
        if not _may_be_ready(Judged(entry.job, entry.look, entry.verdict, again=True), notes):
            return True
        entry.inquiry = site.inspectors.ask(_about_files(site, entry.job, entry.look.text), self.tell)
        return False


def _put_off(entry: _Entry, error: NotReadable, notes: Notes) -> bool:
    notes.report.waiting.append((title(entry.job), str(error)))
    _wait(entry.job, because(Code.NOT_READABLE, error=error.code, said=str(error)), notes)
    return True


def _fail(entry: _Entry, fault: BadInput, notes: Notes) -> None:
    notes.report.failed.append((title(entry.job), fault.what))
    notes.act(partial(_refuse, job=entry.job, seen=entry.look.text, fault=fault))


def _about_files(site: Site, job: Row, found: str) -> dict[str, Any]:
    """The question what the files of a job's folder say."""
    return {
        "op": "open",
        "customer": job["customer"],
        "timestamp": job["timestamp"],
        "path": str(folder_of(site, job)),
        "fingerprint": found,
        "columns": site.settings.dataset.columns.model_dump(),
        "target": site.target.kind,
    }


def find_damage(site: Site, job: Row, found: str) -> BadInput | None:
    """Return the error for a file of a job's snapshot that cannot be read to its end; an inspector reads every page."""
    request = {**_about_files(site, job, found), "op": "read"}
    try:
        site.inspectors.wait(site.inspectors.ask(request))
    except FolderAway:
        return None
    except (BadInput, NotReadable) as error:
        return BadInput(error.what, kept="What is live stays live.", cure=_CURE)
    return None


def _about_manifest(site: Site, job: Row, look: Fingerprint) -> dict[str, Any]:
    """The question whether files and manifest agree; an answer holds for both as they were seen."""
    assert look.manifest is not None
    path, seen = str(folder_of(site, job)), {"fingerprint": look.text, "digest": look.manifest.digest}
    return {"op": "manifest", "customer": job["customer"], "path": path, **seen}


def _with_manifest(look: Fingerprint, found: Mapping[str, Any]) -> Fingerprint:
    assert look.manifest is not None
    # A disk that did not answer contradicts nobody.
    at = None if found.get("again") else look.manifest.changed_at
    return replace(look, manifest=replace(look.manifest, fault=found["fault"], read=True, changed_at=at))


def open_folder(site: Site, job: Row, found: str) -> Snapshot:
    """Return what is known of a job's snapshot: what was found when it was queued, else the inspector is waited for.

    ``found`` is the fingerprint of its folder as it is. The types of columns are their texts.
    """
    wanted = mark(found, site.settings.dataset.columns.model_dump(), site.target.kind)
    with site.store.read() as connection:
        kept = connection.execute(
            sa.select(jobs.c.inspection).where(jobs.c.id == job["id"])
        ).scalar_one_or_none()
    snapshot = recall(kept, wanted, types=False)
    if snapshot is None:
        told = site.inspectors.wait(site.inspectors.ask(_about_files(site, job, found)))
        if told.get("changed"):
            what = f"The snapshot {title(job)} changed while it was read."
            raise NotReadable(what, kept="Nothing of it was loaded.", cure="It is looked at again by itself.")
        snapshot = unpack(told["packed"], types=False)
    return replace(snapshot, path=folder_of(site, job))


def _refuse(tx: Tx, job: Row, seen: str, fault: BadInput) -> None:
    write(tx, job, fingerprint=seen)
    fail(tx, job, fault)
