"""Looking into a job table as it lies: nothing is made, migrated, folded in or left behind."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import sqlalchemy as sa

from bgdeploy.jobs.store import Store

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
