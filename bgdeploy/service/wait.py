"""Wait until a snapshot or a newer one is live, and know when that can never be so by itself.

All is told from the job table, and by the folder of what failed: no service is asked. What waits is told with the reason
that keeps it, also where nobody is there to go on with it, or nobody has gone on though somebody could have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import sqlalchemy as sa

from bgdeploy.actions import Hint, do, join
from bgdeploy.clock import monotonic
from bgdeploy.config import Settings
from bgdeploy.errors import BadInput, NotFound
from bgdeploy.jobs.lease import is_free
from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import CODE, Row, age, get_customer, get_database, jobs, select_jobs, title
from bgdeploy.pipeline.admit import is_as_it_was, judge_now, look_at
from bgdeploy.pipeline.claim import peek
from bgdeploy.service.processes import list_processes, name, say_nobody, say_silent, who_works
from bgdeploy.service.results import Waited, Waiting, advice
from bgdeploy.service.views import after_failure, show_job, use_anyway
from bgdeploy.site import Site
from bgdeploy.worker.run import claim_rules

IDLE = 5.0  # seconds for which a worker that runs lets no claimable job lie untouched
LOOK_EVERY = 0.5  # seconds
PATIENCE = 5.0  # seconds of silence before it is said that nobody works
_START = Hint("nobody has started bgdeploy here so far. Start it with: ", do("serve"))
Answer = Literal["live", "waits", "failed", "cancelled", "blocked", "never", "timeout"]
_MOVING = (State.LOADED, State.LOADING, State.QUEUED, State.DISCOVERED)  # the furthest first


@dataclass(frozen=True)
class Verdict:
    """Where a snapshot stands: ``why`` for people, ``cure`` the command that decides, starts or shows more."""

    answer: Answer
    why: str
    cure: Hint = field(default_factory=Hint)
    job: Row | None = None
    live: str | None = None


def wait_for(
    settings: Settings,
    open_site: Callable[[], Site],
    customer: str,
    timestamp: int,
    *,
    configured: bool,
    timeout: float,
    tell: Callable[[Waiting], None],
) -> Waited:
    """Return what became of a snapshot as ``await_live`` does; a job table that is configured is waited for as well."""
    began = monotonic()
    _await_table(settings, began, timeout if configured else 0.0, tell)
    site = open_site()
    every = max(PATIENCE, settings.orchestrator.scan_interval)
    due = began + every

    def pass_on(verdict: Verdict) -> None:
        nonlocal due
        said = Hint()
        if monotonic() >= due:  # said once, and looked for again while there was nothing to say
            works = who_works(site)
            said = say_nobody(works) or join("; ", say_silent(works))
            due = float("inf") if said else monotonic() + every
        job, share = verdict.job, None
        if job is not None and job["state"] == State.LOADING and job["rows_expected"]:
            share = rows_so_far(job) / job["rows_expected"]
        waited = monotonic() - began
        hint = advice(said if said.actions else verdict.cure)
        tell(Waiting(waited_seconds=waited, why=verdict.why, share=share, warning=said or None, hint=hint))

    left = max(0.0, timeout - (monotonic() - began))
    verdict = await_live(site, customer, timestamp, timeout=left, tell=pass_on)
    return Waited(
        customer=customer,
        timestamp=timestamp,
        waited_seconds=round(monotonic() - began, 1),
        verdict=verdict.answer,
        live=verdict.live,
        why=verdict.why,
        next=verdict.cure,
        hint=advice(verdict.cure),
        job=None if verdict.job is None else show_job(verdict.job),
    )


def _await_table(settings: Settings, began: float, timeout: float, tell: Callable[[Waiting], None]) -> None:
    table, said = settings.database_path, False
    why = f"{table} does not exist yet"
    while not table.exists() and (waited := monotonic() - began) < timeout:
        warns = waited > PATIENCE and not said
        said = said or warns
        warning = Hint(f"{why}: ", _START) if warns else None
        tell(Waiting(waited_seconds=waited, why=why, share=None, warning=warning, hint=advice(_START)))
        time.sleep(min(LOOK_EVERY, timeout))


def await_live(
    site: Site, customer: str, timestamp: int, *, timeout: float, tell: Callable[[Verdict], None]
) -> Verdict:
    """Return what became of a snapshot: at once when that is settled, else after ``timeout`` seconds.

    ``tell`` hears of every look in between. A customer or a snapshot that nobody has found yet is
    waited for.
    """
    deadline = monotonic() + timeout
    while (verdict := look(site, customer, timestamp)).answer == "waits":
        tell(verdict)
        left = deadline - monotonic()
        if left <= 0:
            return replace(verdict, answer="timeout")
        time.sleep(min(LOOK_EVERY, left))
    return verdict


def look(site: Site, name: str, timestamp: int) -> Verdict:
    """Judge what the job table says now."""
    with site.store.read() as connection:
        try:
            customer = get_customer(connection, name)
        except NotFound:
            return _unfound(site, name, timestamp, None)
        newest = (jobs.c.timestamp.desc(), jobs.c.build.desc())
        heirs = select_jobs(connection, jobs.c.customer == name, jobs.c.timestamp >= timestamp, order=newest)
        held = connection.execute(sa.select(jobs).where(jobs.c.lease_owner.is_not(None))).mappings().all()
        verdict = judge(customer, heirs, timestamp)
        own = None if verdict is None else verdict.job
        if verdict is not None and verdict.answer == "never" and own is not None and own["database"]:
            there = get_database(connection, own["database"])
            if own["state"] in (State.SWITCHED, State.LOADED) and there["dropped_at"] is None:
                # What may be used by hand all the same is told as such only where nobody has called it bad.
                verdict = replace(verdict, cure=use_anyway(connection, own))
    if verdict is None:
        return _unfound(site, name, timestamp, customer["live"])
    if verdict.answer == "failed":
        verdict = _mind_mending(site, verdict)
    if verdict.answer != "waits" or verdict.job is None:
        return verdict
    if any(not is_free(row, site.clock()) for row in held):  # whoever loads something else has no hand free
        return _name_worker(site, verdict, verdict.job)
    idle = _find_idleness(site, verdict.job)
    if idle is None:
        return verdict
    cure = Hint("Is one running? See: ", do("processes"), ". Start one with: ", do("serve"))
    return replace(verdict, why=f"{verdict.why}; {idle}", cure=cure)


def judge(customer: Row, heirs: Sequence[Row], timestamp: int) -> Verdict | None:
    """Decide from the rows; ``heirs`` are the jobs of this timestamp and newer, newest first. Pure.

    None: nobody has found the snapshot yet, and nothing newer is on its way.
    """
    live = customer["live"]
    own = next((row for row in heirs if row["timestamp"] == timestamp), None)
    if (customer["live_timestamp"] or 0) >= timestamp:
        return Verdict("live", f"{live} is live.", job=own, live=live)
    found = _ended(own) or _held(customer, heirs) or _on_its_way(customer, heirs, own)
    if found is None and own is not None:
        found = _left_behind(customer, own)
    if found is None and timestamp <= customer["floor_timestamp"]:
        moves = Hint("See: ", do("switches", customer=customer["name"]))
        found = Verdict("never", _overtaken(customer), cure=moves)
    return found and replace(found, job=found.job or own, live=live)


def _ended(own: Row | None) -> Verdict | None:
    if own is None or own["state"] != State.FAILED:
        return None
    if own["error_code"] == CODE:
        return Verdict("cancelled", f"{title(own)} was cancelled.", cure=after_failure(own))
    return Verdict("failed", f"{title(own)} failed: {own['error']}", cure=after_failure(own))


def _held(customer: Row, heirs: Sequence[Row]) -> Verdict | None:
    """Something that only a person takes away: the customer leaves, is paused, or what waits is blocked."""
    name = customer["name"]
    if customer["removed_at"] is not None:
        why = f"{name} was removed ({customer['removed_why']}): nothing of it is loaded any more."
        return Verdict("never", why, cure=Hint("To take it back: ", do("resume", customer=name)))
    if customer["intent"] is not None and customer["intent"] in [row["database"] for row in heirs]:
        return None
    if customer["paused_at"] is not None:
        why = f"{name} is paused ({customer['paused_why']})."
        return Verdict("blocked", why, cure=Hint("Go on with: ", do("resume", customer=name)))
    waiting = next((row for row in heirs if row["state"] == State.LOADED), None)
    if waiting is None or not waiting["blocked"]:
        return None
    why = f"{title(waiting)} is loaded, and a person has to decide: {waiting['reason']}"
    return Verdict("blocked", why, cure=_see(waiting), job=waiting)


def _see(job: Row) -> Hint:
    return Hint("See: ", do("job", job_id=job["id"]))


def _on_its_way(customer: Row, heirs: Sequence[Row], own: Row | None) -> Verdict | None:
    floor = (customer["floor_timestamp"], customer["floor_build"])
    moving = [row for row in heirs if row["state"] in _MOVING and age(row) > floor]
    moving += [row for row in heirs if row["database"] == customer["intent"] and row["database"]]
    if not moving:
        return None
    job = own if own in moving else min(moving, key=lambda row: _MOVING.index(row["state"]))
    cure = _see(job)
    if job["state"] == State.QUEUED:
        cure = Hint("It is loaded by: ", do("serve"), ", or ", do("run"), ". ", cure)
    return Verdict("waits", _standing(job), cure=cure, job=job)


def _standing(job: Row) -> str:
    rows = f", {rows_so_far(job):,} of {job['rows_expected']:,} rows" if job["rows_expected"] else ""
    reason = f": {job['reason']}" if job["reason"] else ""
    return f"{title(job)} is {job['state']}{rows if job['state'] == State.LOADING else ''}{reason}"


def rows_so_far(job: Row) -> int:
    """Rows that are committed or, where the target tells, on their way."""
    return max(int(job["rows_confirmed"]), job["rows_seen"] or 0)


def _left_behind(customer: Row, own: Row) -> Verdict:
    """It cannot go live by itself any more: it was live, or something newer was."""
    name = customer["name"]
    use = Hint("To use it: ", do("switch", customer=name, to=own["database"]))
    if own["state"] == State.SWITCHED:
        why = f"{title(own)} was live, and {name} was moved away from it."
        return Verdict("never", why, cure=use)
    if own["state"] == State.LOADED:
        cure = use
    elif own["state"] == State.CLEANED:
        cure = Hint("To load it all the same: ", do("reload", job_id=own["id"]))
    else:
        cure = _see(own)
    return Verdict("never", f"{title(own)} is {own['state']}. {_overtaken(customer)}", cure=cure)


def _overtaken(customer: Row) -> str:
    newest = customer["floor_timestamp"]
    return f"{newest} was live already, and nothing that is not newer follows by itself."


def _unfound(site: Site, name: str, timestamp: int, live: str | None) -> Verdict:
    """Nobody has found it: say where it is looked for."""
    base = site.settings.dataset.base_path
    folder = base / name / str(timestamp)
    if folder.is_dir():
        why = f"{folder} is there, and nobody has scanned since."
        cure = Hint("Scan and load it with: ", do("run"), ", or let ", do("serve"), " run.")
    elif not (base / name).is_dir() and live is None:
        why = f"There is no snapshot {folder} yet, and no customer {name} so far."
        known = Hint("Is the name right? Customers there are: ", do("customers"))
        cure = Hint(known, f". Snapshots are looked for in {base}")
    else:
        why = f"There is no snapshot {folder} yet."
        cure = Hint(f"It is looked for in {base / name}. What was found there: ", do("jobs", customer=name))
    return Verdict("waits", why, cure=cure, live=live)


def _mind_mending(site: Site, verdict: Verdict) -> Verdict:
    """A snapshot that failed for its content is taken up again once its folder has changed, which is for a scan to see."""
    job = verdict.job
    if job is None or job["error_code"] != BadInput.code:
        return verdict
    try:
        look = look_at(site, job)
    except OSError:  # nothing can be said of its disk now, and what failed stays failed
        return verdict
    if look is None or is_as_it_was(job, look):
        return verdict
    why = f"{title(job)} failed, and its folder has changed since; the next scan looks at it anew"
    return replace(verdict, answer="waits", why=why, cure=Hint("To look at once: ", do("scan")))


def _name_worker(site: Site, verdict: Verdict, job: Row) -> Verdict:
    """Who loads it; and since when nothing is heard of that one, which nobody can tell from a load that takes long."""
    found = next(
        (one for one in list_processes(site) if any(held.job == job["id"] for held in one.jobs)), None
    )
    if found is None:
        return verdict
    seen = f", last seen {found.silent_seconds} s ago" if found.state == "silent" else ""
    return replace(verdict, why=f"{verdict.why}; {name(found)} loads it{seen}")


def _find_idleness(site: Site, job: Row) -> str | None:
    """Return in words that nobody has done what could have been done; None where the job rightly waits."""
    state, now = State(job["state"]), site.clock()
    untouched = now - job["updated_at"]
    if now - max(job["updated_at"], job["not_before"]) < IDLE:
        return None
    if state == State.DISCOVERED:
        return _find_late_scan(site, job)
    if state == State.QUEUED:  # would the next worker to come by take any job, and could have for a while?
        due = now - IDLE
        found = peek(site.store, claim_rules(site), now=due)
        if found is None or found["updated_at"] > due:
            return None  # it waits its turn, behind one that is put off or still settles
    if state == State.LOADED and job["reason_code"] is not None:
        return None  # the reason says why it does not go live
    return f"no worker has touched it for {untouched:,.0f} s"


def _find_late_scan(site: Site, job: Row) -> str | None:
    """A folder that is complete, and that nobody has looked at since it is."""
    settle = site.settings.dataset.settle_seconds
    late = site.clock() - max(job["updated_at"], (job["fingerprint_at"] or 0.0) + settle)
    if late < max(IDLE, site.settings.orchestrator.scan_interval):
        return None
    if judge_now(site, job, look_at(site, job)).state != "ready":
        return None
    return f"it is complete by now, and nobody has scanned for {late:,.0f} s"
