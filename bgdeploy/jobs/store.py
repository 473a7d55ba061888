"""The job table's connections: short immediate transactions, fair waiting, durable commits.

Statements are made once, since making one takes several times as long as running it. A reserve on the disk is
given up when it is full, so that an ending can still be written. ``looking_into`` leaves a file as it lies.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.dml import ReturningInsert

from bgdeploy import log
from bgdeploy.errors import StoreError, StoreFull, StoreLost


@cache
def select_where(table: sa.Table, *names: str) -> sa.Select[tuple[object, ...]]:
    """Rows whose columns have the values that are bound as ``<name>``."""
    return sa.select(table).where(*(table.c[name] == sa.bindparam(name) for name in names))


@cache
def update_where(table: sa.Table, *names: str) -> sa.Update:
    """An UPDATE of the rows whose columns have the values bound as ``of_<name>``.

    What else is bound is what changes, by the names of the columns.
    """
    return sa.update(table).where(*(table.c[name] == sa.bindparam(f"of_{name}") for name in names))


# What is written in SQLite's own dialect. Code that looks first and writes then, and is right because only one
# transaction writes at a time, is marked "one writer:" where it stands, with what another store would need.


def insert_new(table: sa.Table) -> ReturningInsert[Any]:
    """Insert rows and return those that met no unique key; the others are left out silently."""
    return sqlite.insert(table).on_conflict_do_nothing().returning(*table.c)


def joined(column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """All values of a group as one text, with commas between them, in no order."""
    return sa.func.group_concat(column)


Result = TypeVar("Result")

SIZE = 16 * 2**20  # bytes
PLENTY = 4 * SIZE  # free bytes beside it before it is made again


def keep_ballast(folder: Path) -> None:
    """Make the reserve where it is missing and there is plenty of room."""
    path = folder / "ballast"
    if path.exists() or shutil.disk_usage(folder).free < PLENTY:
        return
    aside = folder / f".ballast.{os.getpid()}"
    with open(aside, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, SIZE)
    os.replace(aside, path)


def free_ballast(folder: Path) -> bool:
    """Give the reserve up; False when it was given up before."""
    try:
        (folder / "ballast").unlink()
    except FileNotFoundError:
        return False
    return True


def with_reserve(folder: Path, act: Callable[[], Result]) -> Result:
    """Act, and where the disk is full give the reserve up and act once more; for acts that failed whole."""
    try:
        return act()
    except StoreFull:
        if not free_ballast(folder):
            raise
    log.emit("store.full")
    return act()


LOCK_DEADLINE = 30.0  # seconds a writer waits for its turn before it says so
PAUSE = 0.001  # seconds, on average, between two tries to begin
FOLDS = 50  # tries to fold the write-ahead log in between other people's short looks
RESTORE = (
    "Stop bgdeploy and put a copy back (your own, or a jobs.db.backup-* beside it). Without one, move it "
    "away and start again: what is live stays live, and the newest snapshots are loaded anew."
)
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA wal_autocheckpoint=0",
)


@dataclass(frozen=True)
class Store:
    """An open job table: ``write`` begins immediately, ``read`` never blocks a writer.

    Every transaction first looks whether the path still leads to the file that was opened, and raises
    StoreLost where it does not. ``_opened`` is None for a short look, which asks nothing.
    """

    path: Path
    _writer: sa.Engine
    _reader: sa.Engine
    _opened: tuple[int, int] | None = None

    @contextmanager
    def write(self, *, urgent: bool = False, patience: float | None = None) -> Iterator[sa.Connection]:
        """One short transaction that holds the write lock from its first instruction.

        An ``urgent`` one asks for the lock ten times as often as others, so that it hardly ever loses;
        ``patience`` is how many seconds it asks at most, where that is less than others do.
        """
        self._check_file()
        pause = PAUSE / 10 if urgent else PAUSE
        with translated(self.path), self._writer.connect() as connection:
            _patiently(lambda: _driver(connection).execute("BEGIN IMMEDIATE"), pause, patience)
            with connection.begin():
                yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent look; keep it short and never hand its cursor to anybody."""
        self._check_file()
        with translated(self.path), self._reader.connect() as connection:
            _driver(connection).execute("BEGIN")
            with connection.begin():
                yield connection

    def truncate_log(self) -> int:
        """Fold the write-ahead log into the file; return the bytes of it that a reader or writer held back.

        By the connections that wait for nobody: while SQLite waits for readers, it lets nobody write.
        """
        self._check_file()
        with translated(self.path), self._writer.connect() as connection:
            page = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
            for _ in range(FOLDS):
                busy, pages, folded = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
                if not busy:
                    return 0
                time.sleep(random.uniform(0.5, 1.5) * PAUSE)
        return int(pages - folded) * int(page)

    def _check_file(self) -> None:
        # SQLite goes on with a file that has no name any more; the next process would make another.
        if self._opened is not None and _identify(self.path, self._opened) != self._opened:
            raise StoreLost(
                f"The job table {self.path} was deleted, replaced or moved while it was open here.",
                kept="Nothing more was written to either; what is live stays live.",
                cure="Put it back if you can, then start again. It is moved or restored only while nothing runs.",
            )

    def close(self) -> None:
        """Close every connection of this process."""
        self._writer.dispose()
        self._reader.dispose()


def open_store(path: Path) -> Store:
    """Open the job table in a file that ``migrate.ensure`` has made."""
    opened = _identify(path)
    if opened is None:
        raise shut(path, "it is not there any more")
    writer = _engine(path, timeout=0.0)
    reader = _engine(path, timeout=LOCK_DEADLINE)
    return Store(path, writer, reader, opened)


def _identify(path: Path, unseen: tuple[int, int] | None = None) -> tuple[int, int] | None:
    """Device and inode of what lies there, None where nothing does; ``unseen`` where nobody can tell."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return unseen  # SQLite says what is wrong
    return found.st_dev, found.st_ino


def _engine(path: Path, *, timeout: float) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": timeout, "check_same_thread": False},
        pool_size=8,
        max_overflow=24,
    )
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "checkout", _refuse_fork)
    return engine


def _prepare(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    # The driver's own transaction handling starts too late and ends too early; ours is explicit.
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        _patiently(lambda pragma=pragma: connection.execute(pragma).fetchall())  # type: ignore
    entry.info["pid"] = os.getpid()


def _refuse_fork(_: DBAPIConnection, entry: ConnectionPoolEntry, *__: Any) -> None:
    # A connection carried over a fork corrupts the file.
    if entry.info["pid"] != os.getpid():
        raise sa.exc.DisconnectionError("connection belongs to another process")


def _driver(connection: sa.Connection) -> sqlite3.Connection:
    # Transactions begin here and not in a listener: with one, every single statement looks for others.
    return connection.connection.driver_connection  # type: ignore[return-value]


def _patiently(act: Callable[[], object], pause: float = PAUSE, patience: float | None = None) -> None:
    """Retry after about ``pause`` seconds: SQLite's own growing wait starves whoever came first."""
    deadline = time.monotonic() + min(LOCK_DEADLINE, LOCK_DEADLINE if patience is None else patience)
    while True:
        try:
            act()
            return
        except (OperationalError, sqlite3.OperationalError) as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.5, 1.5) * pause)


def is_busy(error: Exception) -> bool:
    """True for a lock that somebody else holds at this moment."""
    text = str(error)
    return "database is locked" in text or "database table is locked" in text


def is_full(error: object) -> bool:
    """True for a disk that is full; SQLite calls it an I/O error where its shared memory finds no room."""
    return "disk is full" in str(error) or "disk I/O error" in str(error)


def shut(path: Path, said: object) -> StoreError:
    """The error for a file that SQLite may not open, or not write to."""
    return StoreError(
        f"The job table {path} cannot be opened for writing ({said}).",
        kept="Nothing was changed; what is live stays live.",
        cure="Check that it is a file, that its disk is not read-only, and owner and rights of its folder.",
    )


def disk_full(path: Path, error: object) -> StoreFull:
    """The error for a disk that takes no more."""
    return StoreFull(
        f"The disk under the job table {path} is full or fails ({error}).",
        kept="Nothing was changed.",
        cure="Free some space; work goes on by itself.",
    )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn the driver's errors into ones that name the file and the cure."""
    try:
        yield
    except (DatabaseError, sqlite3.DatabaseError) as error:
        text = str(getattr(error, "orig", error))
        if is_full(text):
            raise disk_full(path, text) from error
        if is_busy(error):
            raise StoreError(
                f"The job table {path} stayed locked for {LOCK_DEADLINE:.0f} s.",
                kept="Nothing was changed.",
                cure="Look for a process that holds it (a copy, a backup, a debugger).",
            ) from error
        if "not a database" in text or "malformed" in text:
            raise StoreError(
                f"The job table {path} is damaged ({text}).",
                kept="Nothing was changed; databases and aliases are untouched.",
                cure=RESTORE,
            ) from error
        if "unable to open" in text or "readonly" in text:
            raise shut(path, text) from error
        raise


Mode = Literal["ro", "rw"]
_PATIENCE = 2.0  # seconds; readers wait for nobody but a visitor who locks all others out


def connect(path: Path, *, mode: Mode | None = None, timeout: float = _PATIENCE) -> sqlite3.Connection:
    """Open a file that exists, never to make one; the caller closes it. Raises sqlite3's own errors."""
    address = f"file:{quote(str(path))}?mode={mode or pick_mode(path)}"
    return sqlite3.connect(address, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)


def pick_mode(path: Path) -> Mode:
    """How to open a file so that it lies there afterwards as before.

    Closing the last connection that can write folds a write-ahead log in, so a log that is there is
    opened read-only. Where there is none, a connection that cannot write leaves an empty one behind.
    """
    return "ro" if os.path.exists(f"{path}-wal") else "rw"


@contextmanager
def looking_into(path: Path) -> Iterator[Store]:
    """Lend a job table whose writes are refused; every connection is closed at the end.

    Nothing is touched before the first look, since the disk may hang. One mode serves all connections:
    the first one makes a log, which must not make the next ones read-only.
    """
    first_mode = cache(pick_mode)

    def prepared() -> sqlite3.Connection:
        connection = connect(path, mode=first_mode(path))
        connection.execute("PRAGMA query_only=ON")
        return connection

    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), creator=prepared)
    store = Store(path, engine, engine)
    try:
        yield store
    finally:
        store.close()
