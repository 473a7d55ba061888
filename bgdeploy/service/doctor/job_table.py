"""The job table: whether it is there, of this version, whole, ours, and free to be written to."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from bgdeploy.clock import monotonic
from bgdeploy.errors import StoreError
from bgdeploy.finding import Check, Finding, error, many, ok, warning
from bgdeploy.jobs import migrate, store
from bgdeploy.jobs.store import RESTORE, is_busy
from bgdeploy.jobs.transitions import events, jobs
from bgdeploy.site import Site, find_differences, read_identity
from bgdeploy.worker.housekeeper import LARGEST_LOG

SUBJECT = "job table"
FILE, ROWS = "job table's file", "job table"  # what opens: for SQLite to look at, and for reading rows
_AGAIN = (
    "Put a copy back (your own, or a jobs.db.backup-* beside it). Without one start again: what is live "
    "stays live, and the newest snapshots are loaded anew."
)
REBIND = "Use another state_dir, or move it on purpose with: bgdeploy init --rebind"
_HOLDER = "Find who holds it, a copy, a backup or a debugger: fuser "
_PATIENCE = 5.0  # seconds a locked file is waited for
_MIB = 1 << 20


def checks(site: Site) -> list[Check]:
    """What is looked at, in the order in which one rests on the other."""
    path, there = site.settings.database_path, (FILE,)
    return [
        Check(SUBJECT, "file", partial(find_file, path, site.settings.state_dir), opens=FILE),
        Check(SUBJECT, "revision", partial(find_revision, path), needs=there, opens=ROWS),
        Check(SUBJECT, "integrity", partial(find_damage, site), needs=there, limit=120.0),
        Check(SUBJECT, "write lock", partial(find_lock, site), needs=there),
        Check(SUBJECT, "log", partial(find_log, path), needs=there),
        Check(SUBJECT, "size", partial(find_size, site), needs=(ROWS,)),
        Check(SUBJECT, "identity", partial(find_owner, site), needs=(ROWS,)),
    ]


def find_file(path: Path, state: Path) -> Iterator[Finding]:
    """It is there and SQLite can read it; a file that was lost is told from one that never was."""
    if not path.exists():
        left = [name for name in ("databases", "aliases") if _is_filled(state / name)]
        if left:
            yield error(f"{path} is gone, though {state} holds {' and '.join(left)}", _AGAIN)
        else:
            yield warning(f"{path} does not exist yet", "bgdeploy init", is_command=True)
        return
    try:
        migrate.current(path, _PATIENCE)
    except StoreError as failure:
        locked = is_busy(failure)
        yield error(failure.what, f"{_HOLDER}{path}" if locked else failure.cure)


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(not name.startswith(".") for name in os.listdir(folder))


def find_revision(path: Path) -> Iterator[Finding]:
    """Its schema is the one this version reads."""
    found = migrate.current(path)
    if found == migrate.HEAD:
        yield ok(f"{path} is at revision {found}, which is the newest")
    elif found is None:
        yield warning(f"{path} holds no job table yet", "bgdeploy init", is_command=True)
    elif migrate.is_known(found):
        what = f"{path} is at revision {found}, this version reads {migrate.HEAD}"
        yield warning(
            what, "bgdeploy db upgrade (any other command does it too; a backup is kept)", is_command=True
        )
    else:
        failure = migrate.newer(path, found)
        yield error(failure.what, failure.cure)


def find_damage(site: Site) -> Iterator[Finding]:
    """SQLite's own look at every page."""
    began = monotonic()
    try:
        with site.store.read() as connection:
            said = connection.exec_driver_sql("PRAGMA quick_check(5)").scalars().all()
    except StoreError as failure:
        yield error(failure.what, failure.cure)
        return
    if said == ["ok"]:
        yield ok(f"PRAGMA quick_check found no damage in {monotonic() - began:.2f} s")
    else:
        yield error(f"PRAGMA quick_check found damage: {'; '.join(said)}", RESTORE)


def find_lock(site: Site) -> Iterator[Finding]:
    """The lock that every writer needs is to be had; it is taken and given back, nothing is written."""
    # A reader stays, so that closing the writer, the last to leave, folds no log in.
    with site.store.read() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM sqlite_master").all()
        found = _try_lock(site.store.path)
    yield found


def _try_lock(path: Path) -> Finding:
    began = monotonic()
    try:
        with closing(store.connect(path, mode="rw", timeout=_PATIENCE)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("ROLLBACK")
    except sqlite3.OperationalError as failure:  # told here: the store would turn it into an error of its own
        if is_busy(failure):
            waited = monotonic() - began
            return error(f"nobody can write to it: it stayed locked for {waited:.0f} s", f"{_HOLDER}{path}")
        return error(f"it cannot be written to: {failure}", f"Check owner and rights of {path}.")
    return ok(f"the lock for writing was free within {(monotonic() - began) * 1000:.0f} ms")


def find_log(path: Path) -> Iterator[Finding]:
    """The write-ahead log, which a running scan folds in."""
    try:
        size = os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        size = 0
    if size <= LARGEST_LOG:
        yield ok(f"its write-ahead log has {size / _MIB:.1f} MiB")
        return
    what = f"its write-ahead log has {size / _MIB:,.0f} MiB, and above {LARGEST_LOG // _MIB} MiB it slows readers"
    cure = "Scanning folds it in: bgdeploy serve. If one runs, a long reader holds it back: fuser "
    yield warning(what, f"{cure}{path}")


def find_size(site: Site) -> Iterator[Finding]:
    """How much it holds, for whoever plans its disk."""
    with site.store.read() as connection:
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


def find_owner(site: Site) -> Iterator[Finding]:
    """It speaks of this base folder and this kind of target; which place of it, the target has to say."""
    row = read_identity(site)
    if row is None:
        yield ok("it was never used, so it belongs to whoever uses it first")
    elif differing := find_differences(site, row):
        yield error(f"it belongs to another set-up ({'; '.join(differing)})", REBIND)
    else:
        yield ok(f"it speaks of {row['base_path']} and target {row['target']}")
