"""What the job table says and stands on: the file and its disk, who works with it, and which jobs do not move.

``job table's file`` is open where SQLite can look at it, ``job table`` where its rows can be read.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import psutil
import sqlalchemy as sa

from bgdeploy.actions import Hint, do
from bgdeploy.clock import iso, monotonic, since
from bgdeploy.errors import StoreError
from bgdeploy.finding import SCRATCH, Finding, error, many, ok, shorten, unknown, warning
from bgdeploy.jobs import migrate, store
from bgdeploy.jobs.lease import known_alive, known_dead, short, this_host
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.store import RESTORE, is_busy
from bgdeploy.jobs.transitions import Row, customers, events, jobs, select_jobs, title
from bgdeploy.service.doctor import Visit, check
from bgdeploy.service.doctor.host import find_end, is_shared, read_kind
from bgdeploy.service.processes import who_works
from bgdeploy.service.steer import failed_jobs
from bgdeploy.service.views import after_failure
from bgdeploy.site import Site, find_differences, read_identity
from bgdeploy.worker.housekeeper import LARGEST_LOG
from bgdeploy.worker.processes import find_open, has_lost, is_bgdeploy
from bgdeploy.worker.supervisor import SILENT_AFTER

FILE, ROWS = ("job table's file",), ("job table",)
_AGAIN = (
    "Put a copy back (your own, or a jobs.db.backup-* beside it). Without one start again: what is live "
    "stays live, and the newest snapshots are loaded anew."
)
REBIND = Hint("Use another state_dir, or move it on purpose with: ", do("init", rebind=True))
_HOLDER = "Find who holds it, a copy, a backup or a debugger: fuser "
_START = Hint("Start one: ", do("serve"), " (or ", do("run"), " from cron).")
_PATIENCE = 5.0  # seconds a locked file is waited for
_COMMITS, _SLOW = 20, 0.05  # commits that are timed; seconds that are slow for one
_MENDED = (3, 51, 3)  # folding the log in twice at once can damage a file before this SQLite
_LONG = 600.0  # seconds in the queue before it is worth a word
_MIB = 1 << 20


# Job table: the file, in the order in which one look rests on the other


@check("job table", "file", opens=FILE[0])
def find_file(visit: Visit) -> Iterator[Finding]:
    """It is there and SQLite can read it; a file that was lost is told from one that never was."""
    path, state = visit.site.settings.database_path, visit.site.settings.state_dir
    if path.exists():
        try:
            migrate.current(path, _PATIENCE)
        except StoreError as failure:
            yield error(failure.what, f"{_HOLDER}{path}" if is_busy(failure) else failure.cure)
        return
    filled = [
        name
        for name in ("databases", "aliases")
        if (state / name).is_dir() and any(not one.startswith(".") for one in os.listdir(state / name))
    ]
    if filled:
        yield error(f"{path} is gone, though {state} holds {' and '.join(filled)}", _AGAIN)
    else:
        yield warning(f"{path} does not exist yet", Hint(do("init")), is_command=True)


@check("job table", "revision", needs=FILE, opens=ROWS[0])
def find_revision(visit: Visit) -> Iterator[Finding]:
    """Its schema is the one this version reads."""
    path = visit.site.settings.database_path
    found = migrate.current(path)
    if found == migrate.HEAD:
        yield ok(f"{path} is at revision {found}, which is the newest")
    elif found is None:
        yield warning(f"{path} holds no job table yet", Hint(do("init")), is_command=True)
    elif migrate.is_known(found):
        cure = Hint(do("upgrade"), " (any other command does it too; a backup is kept)")
        what = f"{path} is at revision {found}, this version reads {migrate.HEAD}"
        yield warning(what, cure, is_command=True)
    else:
        failure = migrate.newer(path, found)
        yield error(failure.what, failure.cure)


@check("job table", "integrity", needs=FILE, limit=120.0)
def find_damage(visit: Visit) -> Iterator[Finding]:
    """SQLite's own look at every page."""
    began = monotonic()
    try:
        with visit.site.store.read() as connection:
            said = connection.exec_driver_sql("PRAGMA quick_check(5)").scalars().all()
    except StoreError as failure:
        yield error(failure.what, failure.cure)
        return
    if said == ["ok"]:
        yield ok(f"PRAGMA quick_check found no damage in {monotonic() - began:.2f} s")
    else:
        yield error(f"PRAGMA quick_check found damage: {'; '.join(said)}", RESTORE)


@check("job table", "write lock", needs=FILE)
def find_lock(visit: Visit) -> Iterator[Finding]:
    """The lock that every writer needs is to be had; it is taken and given back, nothing is written."""
    path = visit.site.store.path
    # A reader stays, so that closing the writer, the last to leave, folds no log in.
    with visit.site.store.read() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM sqlite_master").all()
        began = monotonic()
        try:
            with closing(store.connect(path, mode="rw", timeout=_PATIENCE)) as writer:
                writer.execute("BEGIN IMMEDIATE")
                writer.execute("ROLLBACK")
            found = ok(f"the lock for writing was free within {(monotonic() - began) * 1000:.0f} ms")
        except sqlite3.OperationalError as failure:  # told here: the store would make it an error of its own
            if is_busy(failure):
                what = f"nobody can write to it: it stayed locked for {monotonic() - began:.0f} s"
                found = error(what, f"{_HOLDER}{path}")
            else:
                found = error(f"it cannot be written to: {failure}", f"Check owner and rights of {path}.")
    yield found


@check("job table", "log", needs=FILE)
def find_log(visit: Visit) -> Iterator[Finding]:
    """The write-ahead log, which a running scan folds in."""
    path = visit.site.settings.database_path
    try:
        size = os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        size = 0
    if size <= LARGEST_LOG:
        yield ok(f"its write-ahead log has {size / _MIB:.1f} MiB")
        return
    what = f"its write-ahead log has {size / _MIB:,.0f} MiB, and above {LARGEST_LOG // _MIB} MiB it slows readers"
    held = f". If one runs, a long reader holds it back: fuser {path}"
    yield warning(what, Hint("Scanning folds it in: ", do("serve"), held))


@check("job table", "size", needs=ROWS)
def find_size(visit: Visit) -> Iterator[Finding]:
    """How much it holds, for whoever plans its disk."""
    with visit.site.store.read() as connection:
        pages, each, free = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("page_count", "page_size", "freelist_count")
        )
        counted = [
            connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one() for t in (jobs, events)
        ]
    yield ok(
        f"{pages * each / _MIB:,.1f} MiB ({free * each / _MIB:,.1f} MiB of it free) hold "
        f"{many(counted[0], 'job')} and {many(counted[1], 'event')}"
    )


@check("job table", "identity", needs=ROWS)
def find_owner(visit: Visit) -> Iterator[Finding]:
    """It speaks of this base folder and this kind of target; which place of it, the target has to say."""
    row = read_identity(visit.site)
    if row is None:
        yield ok("it was never used, so it belongs to whoever uses it first")
    elif differing := find_differences(visit.site, row):
        yield error(f"it belongs to another set-up ({'; '.join(differing)})", REBIND)
    else:
        yield ok(f"it speaks of {row['base_path']} and target {row['target']}")


# Job table: its disk and its SQLite, also where there is no file yet


@check("job table", "file system")
def find_disk(visit: Visit) -> Iterator[Finding]:
    """What the kernel says of the disk under the file."""
    path = visit.site.settings.database_path
    kind = read_kind(path)
    yield judge_kind(kind, path) if kind else unknown(f"the kernel does not tell what {path} lies on")


def judge_kind(kind: str, path: Path) -> Finding:
    """SQLite's log needs locks and memory that all its users share, so all of them on one host."""
    place = "Put it on a disk of this host: database_url or state_dir."
    if is_shared(kind):
        return error(f"{path} lies on {kind}, where SQLite's write-ahead log is not safe", place)
    if end := find_end(kind):
        return warning(f"{path} lies on {kind}, which {end}", place)
    return ok(f"{path} lies on {kind}")


@check("job table", "time of a commit")
def find_pace(visit: Visit) -> Iterator[Finding]:
    """How long a commit takes on this disk, measured in a scratch file beside the job table."""
    folder = visit.site.settings.database_path.parent
    if not folder.is_dir():
        what = f"the time of a commit cannot be measured: {folder} does not exist yet"
        yield unknown(what, Hint(do("init")))
        return
    try:
        yield judge_pace(time_commits(folder))
    except (OSError, sqlite3.Error) as failure:
        cure = "Make room, or check owner and rights of the folder."
        yield error(f"{folder} takes no commit: {failure}", cure)


def time_commits(folder: Path) -> list[float]:
    """Return the seconds that each of some small durable commits took; what was written is removed."""
    took = []
    with (
        tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder) as scratch,
        closing(sqlite3.connect(Path(scratch) / "probe.db", isolation_level=None)) as probe,
    ):
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            probe.execute(f"PRAGMA {pragma}").fetchall()
        probe.execute("CREATE TABLE probe (number)")
        for number in range(_COMMITS):
            began = monotonic()
            probe.execute("INSERT INTO probe VALUES (?)", (number,))
            took.append(monotonic() - began)
    return took


def judge_pace(took: Sequence[float]) -> Finding:
    """A load commits a few times a group, so only a very slow disk matters."""
    median, worst = statistics.median(took), max(took)
    what = (
        f"a durable commit takes {median * 1000:.1f} ms (the slowest of {len(took)}: {worst * 1000:.1f} ms)"
    )
    if median <= _SLOW:
        return ok(what)
    cure = "Put the job table on a faster disk: database_url."
    return warning(f"{what}, {_SLOW * 1000:.0f} ms is slow", cure)


@check("job table", "SQLite")
def find_library(visit: Visit) -> Iterator[Finding]:
    """The library that Python brings along."""
    yield judge_library(sqlite3.sqlite_version_info)


def judge_library(version: tuple[int, ...]) -> Finding:
    """Whether this version has the WAL-reset bug."""
    shown = ".".join(map(str, version))
    if version >= _MENDED:
        return ok(f"SQLite is {shown}")
    what = (
        f"SQLite is {shown}; before 3.51.3 it can, very rarely, damage a file when two connections fold its "
        "write-ahead log in at the same moment (the WAL-reset bug)"
    )
    cure = "Use a Python linked with SQLite 3.51.3 or newer; until then keep copies of the job table."
    return warning(what, cure)


# Workers


@check("workers", "processes", needs=ROWS)
def find_processes(visit: Visit) -> Iterator[Finding]:
    """Who works, as the processes have put on record; strangers that have the job table open, as the system tells it.

    Others' open files only root may see.
    """
    works, path = who_works(visit.site), visit.site.settings.database_path
    alive = [one.workers for one in works.here if one.alive]  # what lives is seen on this host only
    visit.workers = sum(alive)
    found = find_open(path)
    yield from (_judge_process(one, path) for one in found)
    if found:
        yield ok(f"{many(len(alive), 'process')} that load, with {many(visit.workers, 'worker')} together")
    # What stands still; who_works also counts folders that are not complete yet.
    waiting = sum(len(_select(visit.site, state)) for state in (State.QUEUED, State.LOADING))
    waits = f"{many(waiting, 'job')} waiting"
    if works.nobody:
        rest = waits if waiting else "nothing moves until one does"
        yield warning(f"no bgdeploy that scans and loads is running here, and {rest}", _START)
    elif not found and waiting:
        seen = "no process of this host that may be seen has the job table open"
        yield warning(f"{waits}, and {seen}", _START)
    elif not found:
        yield ok("no process of this host that may be seen has the job table open, and no job waits for one")


def _judge_process(process: psutil.Process, table: Path) -> Finding:
    try:
        words, born = process.cmdline(), iso(process.create_time())
    except psutil.Error:
        return ok(f"process {process.pid} had the job table open and has ended")
    shown = " ".join([Path(words[0]).name, *words[1:]])[:120] if words else "without a name"
    who = f"process {process.pid} ({shown})"
    if has_lost(process, table):
        cure = f"It must not go on beside the new one. End it: kill {process.pid}"
        return error(
            f"{who} works with a job table that was deleted, or replaced by the one at {table}", cure
        )
    what = f"{who} has the job table open, it runs since {born}"
    if is_bgdeploy(words):
        return ok(what)
    return warning(
        f"{what}, and is not bgdeploy", "What copies or edits that file can lock or damage it; end it."
    )


@check("workers", "leases", needs=ROWS)
def find_leases(visit: Visit) -> Iterator[Finding]:
    """Every held job, with its holder."""
    with visit.site.store.read() as connection:
        held = select_jobs(connection, jobs.c.lease_owner.is_not(None), order=(jobs.c.id,))
    found = [_judge_lease(row, visit.site.clock()) for row in held]
    yield from shorten(found, Hint(do("jobs")), most=20) or [ok("no job is held by anybody")]


def _judge_lease(row: Row, now: float) -> Finding:
    """Whether the holder lives, as far as it can be told from here."""
    owner, left = row["lease_owner"], row["lease_expires"] - now
    what = f"{_name(row, row['state'])} is held by {short(owner)} until {iso(row['lease_expires'])}"
    if known_dead(owner):
        again = Hint("The next worker takes it back at once. ", _START)
        return warning(f"{what}, and that process is gone", again)
    if left < 0 and known_alive(owner):
        pid = owner.split("/")[1]
        cure = f"It hangs or was stopped. End it: kill -9 {pid}; the next worker goes on with the job."
        return error(f"{what}; it is over for {-left:,.0f} s, though that process lives", cure)
    if left < 0:
        return warning(
            f"{what}; it is over for {-left:,.0f} s", Hint("The next worker takes it back. ", _START)
        )
    if known_alive(owner):
        return ok(f"{what}, and that process lives")
    is_here = owner.startswith(f"{this_host()}/")
    where = "hidden from this user" if is_here else "on another host or in another container"
    return unknown(f"{what}, {where}", "Look there whether that process lives.")


@check("workers", "last scan", needs=ROWS)
def find_last_scan(visit: Visit) -> Iterator[Finding]:
    """When a scan last had something to write; one that finds nothing new leaves no trace."""
    with visit.site.store.read() as connection:
        newest = sa.select(sa.func.max(events.c.at)).where(events.c.actor == Actor.SCAN)
        at = connection.execute(newest).scalar_one()
    if at is None:
        yield ok("no scan has found anything so far")
    else:
        yield ok(f"a scan last found something new {since(at, visit.site.clock()):,.0f} s ago ({iso(at)})")


# Jobs that do not move by themselves


@check("jobs", "loading", needs=ROWS)
def find_loading(visit: Visit) -> Iterator[Finding]:
    """A load without a lease is seen by no rescue: only a hand in the job table makes one. One that hangs keeps its lease."""
    rows, now = _select(visit.site, State.LOADING), visit.site.clock()
    lost = [row for row in rows if row["lease_owner"] is None]
    silent = [row for row in rows if row not in lost and now - row["updated_at"] > SILENT_AFTER]
    for row in lost:
        cure = "Somebody changed the job table by hand; put a copy of it back, or let the job run out: a support case."
        yield error(f"{_name(row)} is loading and held by nobody, so nobody rescues it", cure)
    for row in silent:
        minutes, job = (now - row["updated_at"]) / 60, row["id"]
        yield warning(
            f"{_name(row)} is loading, and nothing was heard of it for {minutes:,.0f} min",
            Hint(
                "A huge file may take that long. If it hangs: ",
                do("cancel", job_id=job),
                ", then ",
                do("retry", job_id=job),
            ),
        )
    if not lost and not silent:
        yield ok(f"{many(len(rows), 'job')} loading, each held by a worker")


@check("jobs", "queued", needs=ROWS)
def find_queued(visit: Visit) -> Iterator[Finding]:
    """Jobs that were to be tried again, or that stand in the queue for long, with the reason they have.

    Those of a paused customer are left out: they are told by its pause.
    """
    held = sa.select(customers.c.name).where(customers.c.paused_at.is_not(None))
    rows, now = _select(visit.site, State.QUEUED, jobs.c.customer.not_in(held)), visit.site.clock()
    found = []
    for row in rows:
        queued_at, due = row["queued_at"] or now, row["not_before"] - now
        if due <= 0 and now - queued_at <= _LONG:
            continue
        again = f", and is tried again in {due:,.0f} s" if due > 0 else ""
        why = row["reason"] or "no worker has taken it"
        what = f"{_name(row)} is queued for {since(queued_at, now):,.0f} s{again}: {why}"
        look = Hint("Is a worker running? ", do("serve"))
        found.append(
            warning(what, "It goes on by itself once the reason is gone." if row["reason"] else look)
        )
    yield from shorten(found, Hint(do("jobs", states=["queued"]))) or [
        ok(f"{many(len(rows), 'job')} queued, none for long")
    ]


@check("jobs", "loaded", needs=ROWS)
def find_loaded(visit: Visit) -> Iterator[Finding]:
    """Databases that wait for a person, or that could not be switched to."""
    rows, found = _select(visit.site, State.LOADED), []
    for row in rows:
        what, use = (
            f"{_name(row)} stays loaded: {row['reason']}",
            do("switch", customer=row["customer"], to=row["database"]),
        )
        if row["blocked"]:
            found.append(warning(what, Hint("Decide: ", use, ", or drop a newer snapshot.")))
        elif row["reason"]:
            found.append(warning(what, "It is tried again by itself once the reason is gone."))
    yield from shorten(found, Hint(do("jobs", states=["loaded"]))) or [
        ok(f"{many(len(rows), 'job')} loaded and waiting, none for a person")
    ]


@check("jobs", "failed", needs=ROWS)
def find_failed(visit: Visit) -> Iterator[Finding]:
    """Failed jobs worth another try: not cancelled, and newer than all that was ever live."""
    wanted = set(failed_jobs(visit.site))
    found = []
    for row in _select(visit.site, State.FAILED):
        if row["id"] in wanted:
            first = (row["error"] or "no error is known").splitlines()[0]
            cure = Hint(after_failure(row), ". All of it: ", do("job", job_id=row["id"]))
            found.append(warning(f"{_name(row)} failed: {first}", cure))
    yield from shorten(found, Hint(do("jobs", states=["failed"]))) or [
        ok("no job failed that is newer than what is live")
    ]


@check("jobs", "paused customers", needs=ROWS)
def find_paused(visit: Visit) -> Iterator[Finding]:
    """Customers for whom nothing is claimed or switched; a person who removed one knows it."""
    with visit.site.store.read() as connection:
        held = sa.select(customers).where(customers.c.paused_at.is_not(None))
        rows = connection.execute(held.where(customers.c.removed_at.is_(None))).mappings().all()
    found = [
        warning(
            f"{row['name']} is paused since {iso(row['paused_at'])}: {row['paused_why']}",
            Hint(do("resume", customer=row["name"])),
        )
        for row in rows
    ]
    yield from shorten(found, Hint(do("customers"))) or [ok("no customer is paused")]


def _select(site: Site, state: State, *where: sa.ColumnElement[bool]) -> list[Row]:
    with site.store.read() as connection:
        return list(select_jobs(connection, jobs.c.state == state, *where, order=(jobs.c.id,)))


def _name(row: Row, *more: str) -> str:
    return f"job {row['id']} ({', '.join([title(row), *more])})"
