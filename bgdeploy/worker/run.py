"""Telling: how far a load is, in the job table every two seconds and in the log every five."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from bgdeploy import log
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
from bgdeploy.jobs.ledger import Progress, of_load, of_tables
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

LOG_EVERY = 5.0  # seconds between two lines about one load
NOTE_EVERY = 2.0  # seconds between two notes of rows on their way


def note_seen(run: Run, message: dict[str, Any]) -> None:
    """Rows on their way: written down every few seconds, for people, and where that cannot be done left out."""
    if monotonic() - run.noted_at < NOTE_EVERY:
        return
    run.noted_at = monotonic()
    try:
        with run.site.transaction(Actor.WORKER) as tx:
            row = ledger.seen(tx, run.job, run.job["database"], message["group"], message["seen"])
            job = tell_progress(run, tx, row)
        run.job = job
    except StoreLost:
        raise
    except StoreError:
        return  # full or locked: the next write that counts waits for it


def tell_progress(run: Run, tx: Tx, group: Row) -> Row:
    """Log every few seconds how far the load is, and when its last group is in; return the job as it is now.

    Small tables must not fill the log.
    """
    job = get_job(tx.connection, run.job["id"])
    last = job["rows_confirmed"] == job["rows_expected"]
    if not last and monotonic() - run.told_at < LOG_EVERY:
        return job
    run.told_at = monotonic()
    groups = ledger.read(tx.connection, job["id"], job["database"])
    whole = of_load(groups, job["fence"], tx.now)
    table = next(one for one in of_tables(groups, job["fence"], tx.now) if one.name == group["name"])
    tx.said.append(("load.progress", _progress(job, whole, table)))
    return job


def _progress(job: Row, whole: Progress, table: Progress) -> dict[str, Any]:
    rate = f"{whole.rate:,.0f} rows/s" if whole.rate else "rate unknown"
    left = "all in" if whole.rows == whole.expected else _left(whole.left)
    shown: dict[str, Any] = {"rows": whole.rows, "expected": whole.expected, "share": round(whole.share, 4)}
    shown |= {
        "rows_per_second": _round(whole.rate),
        "seconds_left": _round(whole.left),
        "_rate": rate,
        "_left": left,
    }
    of_table = {"table": table.name, "table_rows": table.rows, "table_expected": table.expected}
    return {"job": title(job), **shown, **of_table}


def _round(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 1)


def _left(seconds: float | None) -> str:
    return "time left unknown" if seconds is None else f"about {seconds:,.0f} s left"


# One claimed job in a worker's hands, and how it is written to the job table with patience.

Result = TypeVar("Result")


@dataclass
class Run:
    """One claimed job in this worker's hands; ``job`` is the row as last committed."""

    site: Site
    job: Row
    heart: Heartbeat
    told_at: float = 0.0  # when progress was last logged
    noted_at: float = 0.0  # when rows on their way were last written down
    seen: Fingerprint | None = None  # what the folder looked like when this run began


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


# One claimed job in a worker's hands: load, verify, publish, each in a process of its own; and how it ends.


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
            _end_badly(run, _find_blame(run, error))
        except Exception as error:  # the edge of a job: what nobody foresaw must not leave it loading
            what = f"Loading {title(job)} met what nobody foresaw: {type(error).__name__}: {error}"
            _end_badly(run, TargetError(what, kept="What is live stays live."))


def _build(run: Run) -> dict[str, Any]:
    """Build, then verify and publish in a fresh process; return the counts and the proof.

    The one that verifies is started first: it reads what to expect from the files meanwhile, and bad input
    that it finds there ends the load at once.
    """
    if not children.end_recorded(run.job["child_pid"], run.job["child_born"]):
        _rename(run)
    with _scratched(run), children.started() as verifier:
        run.heart.adopt(verifier)
        verifier.send(_ticket(run, "verify"))
        early = children.Early(verifier)
        try:
            _load(run, early)
        except BuildLocked as error:
            _rename(run, error)
            _load(run, early)
        ticket = _ticket(run, "verify")
        return _converse(run, verifier, ticket, early.messages())


@contextmanager
def _scratched(run: Run) -> Iterator[None]:
    """What the one that verifies left on disk goes with it, however it ended."""
    # This run's own: one that lost its lease must not take the folder of the next.
    own = Path(run.site.settings.state_dir, "scratch", f"{run.job['id']}-{run.job['fence']}")
    try:
        yield
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _load(run: Run, early: children.Early) -> None:
    with children.started() as child:
        run.heart.adopt(child)
        early.ends(child)
        ticket = _ticket(run, "load")
        if ticket["done"]:
            _tell_resume(run, ticket)
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


def _tell_resume(run: Run, ticket: dict[str, Any]) -> None:
    done, groups = len(ticket["done"]), len(ticket["plan"])
    rows = run.job["rows_confirmed"]

    def tell(tx: Tx) -> None:
        write(tx, run.job)
        tx.say("load.resumed", run.job, done=done, groups=groups, rows=rows)

    persist(run, tell)


def _ticket(run: Run, stage: str) -> dict[str, Any]:
    job, site = run.job, run.site
    with site.store.read() as connection:
        groups = ledger.read(connection, job["id"], job["database"])
        inspection = connection.execute(sa.select(jobs.c.inspection).where(jobs.c.id == job["id"])).scalar()
    names = ("number", "kind", "name", "source_label", "target_label", "files")
    plan = [{**{name: row[name] for name in names}, "rows": row["rows_expected"]} for row in groups]
    done = [row["number"] for row in groups if row["confirmed_at"] is not None]
    snapshot = {
        "customer": job["customer"],
        "timestamp": job["timestamp"],
        "path": str(admit.folder_of(site, job)),
        "fingerprint": job["fingerprint"],
    }
    ticket = {"stage": stage, "job_id": job["id"], "database": job["database"], "fence": job["fence"]}
    return {
        **ticket,
        "target": site.target.kind,
        # An earlier run's settings, but for the place: the folder may have been moved since.
        "settings": {**job["settings"], "state_dir": str(site.settings.state_dir)},
        "access": site.settings.target_access(),  # for the child's ears only: it is stored nowhere
        "place": _place(site),
        "snapshot": snapshot,
        "inspection": inspection,  # so that the footers are not read again
        "plan": plan or None,
        "done": done,
    }


def _place(site: Site) -> str:
    bound = read_identity(site)
    return str(bound["place"]) if bound is not None else ""


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
            return tell_progress(run, tx, row)
        case "confirmed":
            number, found = message["group"], message["found"]
            row = ledger.confirmed(tx, job, database, number, message["rows"], found=found)
            return tell_progress(run, tx, row)
        case "note":
            write(tx, job, step=message["doing"])
            tx.say("load.note", job, doing=message["doing"])
        case "step":
            ledger.step(tx, job, database, message["name"])
    return job


def _raise_if_ended(run: Run) -> None:
    """The heartbeat ended the child: say why."""
    if run.heart.lost:
        raise LeaseLost(f"The lease on {title(run.job)} is lost.", kept="Nothing more was written.")
    if run.heart.cancelled:
        raise Cancelled(f"{title(run.job)} was cancelled.", cure=f"bgdeploy retry {run.job['id']}")
    if run.heart.stopped:
        raise Stopped("the service was stopped")


class Cancelled(BgdeployError):
    """An operator cancelled the job."""

    code = "cancelled"


class Stopped(BgdeployError):
    """The service stops; the load goes back unfinished."""

    code = "stopped"


def _end_badly(run: Run, error: BgdeployError) -> None:
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


# A worker: rescues, decides whether the next job may start, claims it and runs it.


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
    settings = site.settings.target_settings()
    job = claim(
        site.store,
        rules,
        job_id=next_one["id"],
        owner=site.owner,
        now=site.clock(),
        lease_seconds=orchestrator.lease_seconds,
        settings=settings,
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
    """Return what was found to be enough, or None: the row then says what is missing."""
    health, missing, code = _look_for_room(site, job)
    if missing is not None:
        _wait(site, job, missing, code)
    return health


def _look_for_room(site: Site, job: Row) -> tuple[Health | None, Reason | None, str]:
    """The target is well, the folder is as it was, and there is room: every figure; else why not, and the error's code."""
    health = site.target.health()
    if health.state != "ok":
        return None, because(Code.TARGET_UNHEALTHY, reasons=health.reasons), TargetAway.code
    try:
        settle(site, job["customer"])  # what the alias leads to may forbid this load: the claim sees it
        if not admit.recheck(site, job):
            return None, None, ""
        snapshot = admit.open_folder(site, job, job["fingerprint"])
    except LeaseLost:
        return None, None, ""
    except (NotReadable, TargetAway) as error:
        return None, because(Code.UNAVAILABLE, error=error.code, said=str(error)), error.code
    except OSError as error:  # a disk that fails under this folder keeps no other from being loaded
        why = f"{error.filename or admit.folder_of(site, job)}: {error.strerror or error}"
        return None, because(Code.UNAVAILABLE, error=FolderAway.code, said=why), FolderAway.code
    except BadInput as error:  # as it was when it was queued, and not acceptable any more
        admit.refuse(site, job, error)
        return None, None, ""
    needs = find_needs(site, job, snapshot)
    shown = [need.sum for need in needs]
    short = [need.sum for need in needs if not need.met]
    if short:
        return None, because(Code.NO_ROOM, short=short), TargetFull.code
    return replace(health, figures=(*health.figures, *shown)), None, ""


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
