"""Where everything lies below the state folder, and how it is moved so that it survives a power cut."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bgdeploy.durable import PRIVATE, keep_private
from bgdeploy.errors import BuildLocked

GRAPH = "graph.lbug"
FACTS = "facts.json"
NEED = "need.json"  # bytes a running build may take in all
LOCK_PATIENCE = 5.0  # seconds a build's lock is waited for


@dataclass(frozen=True)
class Paths:
    """The folders of one installation; ``root`` is its state folder."""

    root: Path

    @property
    def databases(self) -> Path:
        """Published databases, one read-only folder each."""
        return self.root / "databases"

    @property
    def builds(self) -> Path:
        """Databases being built, private to one load each."""
        return self.root / "builds"

    @property
    def aliases(self) -> Path:
        """Links that readers follow, one for each customer."""
        return self.root / "aliases"

    @property
    def trash(self) -> Path:
        """What is being dropped, out of everybody's sight."""
        return self.root / "trash"

    def create(self) -> None:
        """Make the folders that are missing."""
        for folder in (self.databases, self.builds, self.aliases, self.trash):
            folder.mkdir(parents=True, exist_ok=True)

    def find(self, database: str) -> Path | None:
        """The folder a database is in, published or not, or None."""
        for home in (self.databases, self.builds):
            if (home / database).is_dir():
                return home / database
        return None

    @contextmanager
    def hold(self, database: str) -> Iterator[None]:
        """Hold a build's lock; raises BuildLocked when a living process keeps it for five seconds."""
        self.create()
        path = self.builds / f"{database}.lock"
        with locked(path, LOCK_PATIENCE):
            yield

    def forget_lock(self, database: str) -> None:
        """Remove a build's lock file; only its holder may, since others wait on the file itself."""
        (self.builds / f"{database}.lock").unlink(missing_ok=True)


@contextmanager
def locked(path: Path, patience: float) -> Iterator[int]:
    """Hold an exclusive lock on a file made for it; the kernel frees it when the holder dies."""
    handle = _take(path, patience)
    try:
        yield handle
    finally:
        os.close(handle)


def _take(path: Path, patience: float) -> int:
    deadline = time.monotonic() + patience
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        keep_private(path)  # whoever may read it could hold it for ever
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, handle):
                return handle
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(handle)
                raise BuildLocked(
                    f"A living process holds {path}.",
                    kept="Nothing was changed.",
                    cure="See who it is with: fuser " + str(path),
                ) from None
        os.close(handle)
        time.sleep(0.01)


def _is_still(path: Path, handle: int) -> bool:
    """False when the file was removed between opening and locking it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def allocated(path: Path | str) -> int | None:
    """Bytes a file really takes on disk, or None when it is not there; holes cost nothing."""
    try:
        return os.stat(path).st_blocks * 512
    except FileNotFoundError:
        return None
