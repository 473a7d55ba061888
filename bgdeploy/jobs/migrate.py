"""Bring the job table to this version's schema: under a lock, with a backup, or not at all."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bgdeploy import log
from bgdeploy.durable import keep_private, make_private, sync
from bgdeploy.errors import StoreError
from bgdeploy.jobs.store import RESTORE, connect, disk_full, is_full, shut, translated

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0010"  # a test compares it with the newest file in migrations/versions


def current(path: Path, patience: float = 30.0) -> str | None:
    """Return the revision the file is at; None for a new file. Reads it through SQLite only.

    ``patience`` is how many seconds a locked file is waited for.
    """
    if not path.exists():
        return None
    try:
        with closing(connect(path, timeout=patience)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise _unusable(path, error) from error
    except sqlite3.DatabaseError as error:
        raise _unusable(path, error) from error
    return None if row is None else str(row[0])


def ensure(path: Path) -> bool:
    """Upgrade where the file is older, do nothing where it is right, refuse where it is newer.

    True where there was no job table, so that this one is empty. Nobody but its owner may read it afterwards.
    """
    for part in files(path):
        keep_private(part)
    found = current(path)
    if found == HEAD:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        found = current(path)
        if found != HEAD:
            upgrade(path, found)
    return found is None


def files(path: Path) -> tuple[Path, ...]:
    """The job table and what lies beside it while it is used; SQLite gives them the rights of the table."""
    return tuple(path.with_name(path.name + more) for more in ("", "-wal", "-shm", ".migrate.lock"))


def upgrade(path: Path, found: str | None) -> None:
    """Run the missing migrations; the caller holds the lock. The old file is kept as a backup.

    Raises StoreError where it stayed locked, and StoreFull; nothing is changed then.
    """
    from alembic import command

    if found is not None and not is_known(found):
        raise newer(path, found)
    if found is None:
        _refuse_foreign(path)
    make_private(path)
    with translated(path):
        backup = _back_up(path, found) if found is not None else None
        command.upgrade(_alembic(path), "head")
    if backup:
        log.emit("store.migrated", old=found, new=HEAD, backup=backup.name)


def _refuse_foreign(path: Path) -> None:
    """A database that some other program made is left alone."""
    if not path.exists():
        return
    with closing(connect(path)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name LIMIT 4")
        tables = [row[0] for row in rows]
    if tables:
        raise StoreError(
            f"{path} is no job table: another program keeps {', '.join(tables)} in it.",
            kept="Nothing was changed.",
            cure="Use another state_dir or database_url.",
        )


def is_known(revision: str) -> bool:
    """True for a revision that this version can upgrade from."""
    from alembic.script import ScriptDirectory

    found = ScriptDirectory.from_config(_alembic()).walk_revisions()
    return revision in {script.revision for script in found}


def newer(path: Path, found: str) -> StoreError:
    """The error for a file that a later version wrote."""
    return StoreError(
        f"The job table {path} is at revision {found}, which this version (up to {HEAD}) does not know.",
        kept="Nothing was changed.",
        cure="Install the newer bgdeploy that wrote it, or use another state_dir.",
    )


def _alembic(path: Path | None = None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.attributes["path"] = path
    return config


def scripts() -> Path:
    """Return the folder of the migrations: in the wheel beside this package, else in the checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def _back_up(path: Path, found: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    backup = path.with_name(f"{path.name}.backup-{found}-{stamp}")
    # What is cut off must not look like a copy to put back.
    aside = path.with_name(f"{path.name}.backup.part")
    aside.unlink(missing_ok=True)
    make_private(aside)
    try:
        with closing(sqlite3.connect(path, timeout=30)) as source, closing(sqlite3.connect(aside)) as copy:
            # Nothing may lie beside it that a later copy could be rolled back by.
            copy.execute("PRAGMA journal_mode=OFF")
            source.backup(copy)
    except sqlite3.Error:
        aside.unlink(missing_ok=True)  # where the disk is full its room is needed
        raise
    sync(aside)
    os.replace(aside, backup)
    sync(backup.parent)
    return backup


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # A file of its own: closing a descriptor of the job table itself would drop SQLite's locks.
    place = path.with_name(f"{path.name}.migrate.lock")
    make_private(place)
    with open(place, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unusable(path: Path, error: Exception) -> StoreError:
    if is_full(error):
        return disk_full(path, error)
    if "unable to open" in str(error) or "readonly" in str(error):
        return shut(path, error)
    return StoreError(
        f"The job table {path} cannot be read ({error}).",
        kept="Nothing was changed; databases and aliases are untouched.",
        cure=RESTORE,
    )
