"""A worker's life: take back what is lost, claim the next job that has room, and take it to loaded or to where its failure belongs.

One claimed job is a ``Run``. Its files are read and its database is built in child processes, which may die of it; they
ask for each entry in the ledger, and this process alone writes to the job table, by fence. What fails ends in ``_end``, the
one place that says whether a load is tried again, waits, or is over.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from bgdeploy import log
from bgdeploy.actions import Hint, do
from bgdeploy.clock import monotonic
from bgdeploy.errors import (
    BadInput,
    BgdeployError,
    BuildLocked,
    FolderAway,
    LeaseLost,
    NameTaken,
    NotReadable,
    SnapshotChanged,
    StoreError,
    StoreFull,
    StoreLost,
    TargetAway,
    TargetError,
    TargetFull,
)
from bgdeploy.failpoints import reach
from bgdeploy.jobs import ledger
from bgdeploy.jobs.lease import KILL_CHILD, Lease, rescue
from bgdeploy.jobs.reasons import Code, Reason, because, read
from bgdeploy.jobs.states import Actor
from bgdeploy.jobs.store import free_ballast
from bgdeploy.jobs.transitions import Row, Tx, get_job, jobs, rewrite, title, write
from bgdeploy.pipeline import admit, load
from bgdeploy.pipeline.alias import settle
from bgdeploy.pipeline.claim import Rules, claim, find_needs, peek
from bgdeploy.site import Site, read_identity
from bgdeploy.snapshots.readiness import Fingerprint, find_rewritten
from bgdeploy.targets.base import Health
from bgdeploy.worker import child as children
from bgdeploy.worker.shutdown import Stop
from bgdeploy.worker.supervisor import Heartbeat, may_claim

Result = TypeVar("Result")
LOG_EVERY = 5.0  # seconds between two lines about one load
NOTE_EVERY = 2.0  # seconds between two notes of rows on their way


class Cancelled(BgdeployError):
    """An operator cancelled the job."""

    code = "cancelled"


class Stopped(BgdeployError):
    """The service stops; the load goes back unfinished."""

    code = "stopped"


def work_once(site: Site, stop: Stop, only: int | None = None) -> bool:
    """Rescue, claim and load one job, the next one or ``only`` that; False when there is nothing to do now."""
    orchestrator = site.settings.orchestrator
    most, base = orchestrator.max_service_deaths, orchestrator.retry_backoff_base
    rescue(site.store, now=site.clock(), owner=site.owner, most=most, base=base)
    if not may_claim():
        return False
    rules = claim_rules(site)
    next_one = peek(site.store, rules, now=site.clock(), only=only)
    health = None if next_one is None or stop.asked.is_set() else _may_start(site, next_one)
    if next_one is None or health is None:
        return False
    job = claim(
        site.store,
        rules,
        job_id=next_one["id"],
        owner=site.owner,
        now=site.clock(),
        lease_seconds=orchestrator.lease_seconds,
        settings=site.settings.target_settings(),
        existing={found.name for found in site.target.databases()},
    )
    if job is not None:
        log.emit("health.fine", job=title(job), reason="; ".join(health.figures))
        for figure in health.untold:
            log.emit("health.unknown", job=title(job), figure=figure)
        reach("claim.done")
        run_job(site, job, stop)
    return True


def claim_rules(site: Site) -> Rules:
    """What the configuration says about taking work."""
    orchestrator = site.settings.orchestrator
    return Rules(
        keep_databases=orchestrator.keep_databases,
        latest_only=orchestrator.backlog == "latest",
        settle_seconds=site.settings.dataset.settle_seconds,
        max_concurrent_loads=orchestrator.max_concurrent_loads,
    )


def _may_start(site: Site, job: Row) -> Health | None:
    """Return every figure that was found to be enough, or None: the row then says what is missing.

    The target has to be well, the folder as it was, and there has to be room.
    """
    health = site.target.health()
    if health.state != "ok":
        _wait(site, job, because(Code.TARGET_UNHEALTHY, reasons=health.reasons), TargetAway.code)
        return None
    try:
        settle(site, job["customer"])  # what the alias leads to may forbid this load: the claim sees it
        if not admit.recheck(site, job):
            return None
        snapshot = admit.open_folder(site, job, job["fingerprint"])
    except LeaseLost:
        return None
    except (NotReadable, TargetAway) as error:
        _wait(site, job, because(Code.UNAVAILABLE, error=error.code, said=str(error)), error.code)
        return None
    except OSError as error:  # a disk that fails under this folder keeps no other from being loaded
        said = f"{error.filename or admit.folder_of(site, job)}: {error.strerror or error}"
        _wait(site, job, because(Code.UNAVAILABLE, error=FolderAway.code, said=said), FolderAway.code)
        return None
    except BadInput as error:  # as it was when it was queued, and not acceptable any more
        admit.refuse(site, job, error)
        return None
    needs = find_needs(site, job, snapshot)
    short = [need.sum for need in needs if not need.met]
    if short:
        _wait(site, job, because(Code.NO_ROOM, short=short), TargetFull.code)
        return None
    return replace(health, figures=(*health.figures, *(need.sum for need in needs)))


def _wait(site: Site, job: Row, reason: Reason, code: str) -> None:
    """Put a queued job off without using an attempt; visible in the row and in the log."""
    pause = min(10.0, site.settings.orchestrator.health_check_retry_delay)
    try:
        with site.transaction(Actor.WORKER) as tx:
            write(tx, job, reason=reason, error_code=code, not_before=tx.now + pause)
            if reason != read(job):
                tx.say_seldom("load.waits", job, reason=reason)
    except LeaseLost:
        return  # another worker took it


@dataclass
class Run:
    """One claimed job in this worker's hands; ``job`` is the row as last committed."""

    site: Site
    job: Row
    heart: Heartbeat
    told_at: float = 0.0  # when progress was last logged
    noted_at: float = 0.0  # when rows on their way were last written down
    seen: Fingerprint | None = None  # what the folder looked like when this run began


def run_job(site: Site, job: Row, stop: Stop) -> None:
    """Take a claimed job to loaded, or to wherever its failure belongs; never raises what belongs to the job."""
    seconds = site.settings.orchestrator.lease_seconds
    lease = Lease(site.store, job["id"], job["fence"], site.owner, seconds, monotonic())
    with Heartbeat(lease, stop, title(job)) as heart:
        run = Run(site, job, heart)
        try:
            run.seen = admit.look_for_sure(site, job)
            done = _build(run)
            _check_unchanged(run)
            persist(
                run,
                lambda tx: load.finish(tx, run.job, counts=done["counts"], proof=done["proof"]),
                ends=True,
            )
        except LeaseLost as error:
            log.emit("service.trouble", what=f"loading {title(job)}", error=error)
        except BgdeployError as error:
            _end(run, _find_blame(run, error))
        except Exception as error:  # the edge of a job: what nobody foresaw must not leave it loading
            what = f"Loading {title(job)} met what nobody foresaw: {type(error).__name__}: {error}"
            _end(run, TargetError(what, kept="What is live stays live."))


def persist(run: Run, act: Callable[[Tx], Result], *, ends: bool = False) -> Result:
    """Write with patience: a locked or full job table is waited for until the lease runs out.

    ``act`` may be called several times, since a commit may fail: it changes nothing but the job table, and
    the caller takes over what it returns. Only the write that ``ends`` a load gives the reserve up: all that a load notes on its way would
    soon use it up, and a rollback lives on it.
    """
    while True:
        try:
            with run.site.transaction(Actor.WORKER) as tx:
                return act(tx)
        except StoreLost:
            raise  # waiting brings nothing back
        except StoreError as error:
            if ends and isinstance(error, StoreFull) and free_ballast(run.site.store.path.parent):
                log.emit("store.full")
            if run.heart.lease.share_used() >= KILL_CHILD or run.heart.lost:
                raise LeaseLost(f"The job table was out of reach for too long: {error.what}") from error
            run.heart.stop.hurry.wait(0.2)


def _build(run: Run) -> dict[str, Any]:
    """Build, then verify and publish in a fresh process; return the counts and the proof.

    The one that verifies is started first: it reads what to expect from the files meanwhile, and bad input
    that it finds there ends the load at once.
    """
    if not children.end_recorded(run.job["child_pid"], run.job["child_born"]):
        _rename(run)
    # This run's own: one that lost its lease must not take the folder of the next.
    scratch = Path(run.site.settings.state_dir, "scratch", f"{run.job['id']}-{run.job['fence']}")
    try:
        with children.started() as verifier:
            run.heart.adopt(verifier)
            verifier.send(_ticket(run, "verify"))
            early = children.Early(verifier)
            try:
                _load(run, early)
            except BuildLocked as error:
                _rename(run, error)
                _load(run, early)
            return _converse(run, verifier, _ticket(run, "verify"), early.messages())
    finally:  # what the one that verifies left on disk goes with it, however it ended
        shutil.rmtree(scratch, ignore_errors=True)


def _load(run: Run, early: children.Early) -> None:
    with children.started() as child:
        run.heart.adopt(child)
        early.ends(child)
        ticket = _ticket(run, "load")
        if ticket["done"]:
            done, groups = len(ticket["done"]), len(ticket["plan"])

            def tell_resume(tx: Tx) -> None:
                write(tx, run.job)
                tx.say("load.resumed", run.job, done=done, groups=groups, rows=run.job["rows_confirmed"])

            persist(run, tell_resume)
        try:
            _converse(run, child, ticket, child.messages())
        except (TargetError, BadInput) as error:
            raise early.fault or error from None


def _rename(run: Run, error: BuildLocked | None = None) -> None:
    """Go on under another name; what is not ours is left alone for good."""
    existing = {found.name for found in run.site.target.databases()}
    why = error.what if error is not None else "a living process holds it"
    ours = not isinstance(error, NameTaken)
    run.job = persist(run, lambda tx: load.rename_build(tx, run.job, existing, why=why, ours=ours))


def _ticket(run: Run, stage: str) -> dict[str, Any]:
    """All that a child process is told of its job; ``worker/loader`` reads it."""
    job, site = run.job, run.site
    with site.store.read() as connection:
        groups = ledger.read(connection, job["id"], job["database"])
        inspection = connection.execute(sa.select(jobs.c.inspection).where(jobs.c.id == job["id"])).scalar()
    names = ("number", "kind", "name", "source_label", "target_label", "files")
    bound = read_identity(site)
    return {
        "stage": stage,
        "job_id": job["id"],
        "database": job["database"],
        "fence": job["fence"],
        "target": site.target.kind,
        # An earlier run's settings, but for the place: the folder may have been moved since.
        "settings": {**job["settings"], "state_dir": str(site.settings.state_dir)},
        "access": site.settings.target_access(),  # for the child's ears only: it is stored nowhere
        "place": "" if bound is None else str(bound["place"]),
        "snapshot": {
            **{name: job[name] for name in ("customer", "timestamp", "fingerprint")},
            "path": str(admit.folder_of(site, job)),
        },
        "inspection": inspection,  # so that the footers are not read again
        "plan": [{**{name: row[name] for name in names}, "rows": row["rows_expected"]} for row in groups]
        or None,
        "done": [row["number"] for row in groups if row["confirmed_at"] is not None],
    }


def _converse(
    run: Run, child: children.Child, ticket: dict[str, Any], messages: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """Hand a process its ticket, do what it asks, and return what it reports."""
    recorded = {"child_pid": child.process.pid, "child_born": child.process.born}
    persist(run, lambda tx: write(tx, run.job, **recorded))
    child.send(ticket)
    for message in messages:
        run.heart.hear()
        if "done" in message:
            return dict(message["done"])
        if "error" in message:
            _raise_if_ended(run)
            raise children.as_error(message["error"])
        if "seen" in message:
            note_seen(run, message)
            continue
        run.job = persist(run, lambda tx, message=message: _answer(run, tx, message))  # type: ignore[misc]
        child.send({"ok": True})
    _raise_if_ended(run)
    raise child.died(run.site.target.kind)


def _raise_if_ended(run: Run) -> None:
    """The heartbeat ended the child: say why."""
    if run.heart.lost:
        raise LeaseLost(f"The lease on {title(run.job)} is lost.", kept="Nothing more was written.")
    if run.heart.cancelled:
        raise Cancelled(f"{title(run.job)} was cancelled.", cure=Hint(do("retry", job_id=run.job["id"])))
    if run.heart.stopped:
        raise Stopped("the service was stopped")


def _answer(run: Run, tx: Tx, message: dict[str, Any]) -> Row:
    """Write to the ledger what the child has done or is about to do; return the job as it is then."""
    job, database = run.job, run.job["database"]
    match message["op"]:
        case "plan":
            groups = [{**group, "rows_expected": group["rows"]} for group in message["groups"]]
            ledger.store_plan(tx, job, database, groups)
        case "restart":
            ledger.restart(tx, job, database, message["reason"])
        case "chosen":
            settings = {**job["settings"], "loader": message["loader"]}
            tx.say("load.chosen", job, loader=message["loader"], why=message["why"])
            return rewrite(tx, job, settings=settings)
        case "owns":
            ledger.owns(tx, job, database, message["mark"])
        case "started":
            ledger.started(tx, job, database, message["group"])
        case "advanced":
            row = ledger.advanced(tx, job, database, message["group"], message["rows"])
            return _tell_progress(run, tx, row)
        case "confirmed":
            number, found = message["group"], message["found"]
            row = ledger.confirmed(tx, job, database, number, message["rows"], found=found)
            return _tell_progress(run, tx, row)
        case "note":
            write(tx, job, step=message["doing"])
            tx.say("load.note", job, doing=message["doing"])
        case "step":
            ledger.step(tx, job, database, message["name"])
    return job


def note_seen(run: Run, message: dict[str, Any]) -> None:
    """Rows on their way: written down every few seconds, for people, and where that cannot be done left out."""
    if monotonic() - run.noted_at < NOTE_EVERY:
        return
    run.noted_at = monotonic()
    try:
        with run.site.transaction(Actor.WORKER) as tx:
            row = ledger.seen(tx, run.job, run.job["database"], message["group"], message["seen"])
            job = _tell_progress(run, tx, row)
        run.job = job
    except StoreLost:
        raise
    except StoreError:
        return  # full or locked: the next write that counts waits for it


def _tell_progress(run: Run, tx: Tx, group: Row) -> Row:
    """Log every few seconds how far the load is, and when its last group is in; return the job as it is now.

    Small tables must not fill the log.
    """
    job = get_job(tx.connection, run.job["id"])
    last = job["rows_confirmed"] == job["rows_expected"]
    if not last and monotonic() - run.told_at < LOG_EVERY:
        return job
    run.told_at = monotonic()
    groups = ledger.read(tx.connection, job["id"], job["database"])
    whole = ledger.of_load(groups, job["fence"], tx.now)
    table = next(one for one in ledger.of_tables(groups, job["fence"], tx.now) if one.name == group["name"])
    left = "time left unknown" if whole.left is None else f"about {whole.left:,.0f} s left"
    fields = {
        "job": title(job),
        "rows": whole.rows,
        "expected": whole.expected,
        "share": round(whole.share, 4),
        "rows_per_second": None if whole.rate is None else round(whole.rate, 1),
        "seconds_left": None if whole.left is None else round(whole.left, 1),
        "_rate": f"{whole.rate:,.0f} rows/s" if whole.rate else "rate unknown",
        "_left": "all in" if whole.rows == whole.expected else left,
        "table": table.name,
        "table_rows": table.rows,
        "table_expected": table.expected,
    }
    tx.said.append(("load.progress", fields))
    return job


def _check_unchanged(run: Run) -> None:
    found = admit.look_for_sure(run.site, run.job)
    if found is None or found.text != run.job["fingerprint"]:
        raise SnapshotChanged(
            f"The snapshot {title(run.job)} {'changed' if found else 'was removed'} while it was loaded.",
            kept="What is live stays live.",
            cure="It is taken up again by itself when the folder has settled.",
        )
    if run.seen is not None and (file := find_rewritten(run.seen, found)) is not None:
        raise SnapshotChanged(
            f"{file} of the snapshot {title(run.job)} was written to while it was loaded, with its old size and time.",
            kept="What is live stays live.",
            cure="It is loaded again by itself. Write to a new timestamp instead; never into a complete snapshot.",
        )


def _find_blame(run: Run, error: BgdeployError) -> BgdeployError:
    """A file that was taken away looks damaged: say first that the snapshot is not what it was, or out of reach.

    A file over which a process died, or that a library did not name, is looked for.
    """
    if type(error) in (BadInput, TargetError, children.Died, children.Damaged):
        try:
            _check_unchanged(run)
        except (SnapshotChanged, FolderAway) as reason:
            return reason
    nameless = isinstance(error, children.Damaged)
    if isinstance(error, children.Died):  # 9: by a person, or by the system for want of memory
        nameless = error.signal not in (None, signal.SIGKILL)
    if nameless:
        return admit.find_damage(run.site, run.job, run.job["fingerprint"]) or error
    return error


def _end(run: Run, error: BgdeployError) -> None:
    """Write down how a load ended that did not end well."""
    orchestrator = run.site.settings.orchestrator

    def end(tx: Tx) -> None:
        if isinstance(error, Stopped):
            load.give_back(tx, run.job, error.what)
        elif isinstance(error, Cancelled):
            load.cancel(tx, run.job)
        else:
            base, wait = orchestrator.retry_backoff_base, orchestrator.health_check_retry_delay
            load.end_badly(tx, run.job, error, max_retries=orchestrator.max_retries, base=base, wait=wait)

    try:
        persist(run, end, ends=True)
    except LeaseLost as lost:
        log.emit("service.trouble", what=f"ending {title(run.job)}", error=lost)
