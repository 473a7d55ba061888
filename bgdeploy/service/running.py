"""One claimed job in a worker's hands: load, verify, publish, each in a process of its own; and how it ends."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    SnapshotChanged,
    TargetError,
)
from bgdeploy.jobs import ledger
from bgdeploy.jobs.lease import Lease
from bgdeploy.jobs.rows import Row, Tx, jobs, rewrite, title, write
from bgdeploy.pipeline import admit, load
from bgdeploy.service import child as children
from bgdeploy.service.heartbeat import Heartbeat
from bgdeploy.service.run_state import Run, persist
from bgdeploy.service.shutdown import Stop
from bgdeploy.service.telling import note_seen, tell_progress
from bgdeploy.site import Site, read_identity
from bgdeploy.snapshots.readiness import find_rewritten


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
