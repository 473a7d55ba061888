"""Where everything lies below the state folder, and how it is moved so that it survives a power cut."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from bgdeploy.actions import Hint, do
from bgdeploy.durable import PRIVATE, keep_private, sync, write_durably
from bgdeploy.errors import BuildLocked, NeedsReload, Refused, StaleGeneration, TargetError
from bgdeploy.targets.ladybug.engine import version

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


# Facts: what was written down beside a database at its publication, and whether it can still be read.

_MAGIC = b"LBUG"
_LEFTOVERS = tuple(f"{GRAPH}.{kind}" for kind in ("wal", "shadow"))


def read_facts(folder: Path) -> dict[str, Any]:
    """What was written down at publication; nothing where that cannot be read."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def tell_unfit(folder: Path) -> str | None:
    """Say why a published database cannot be read: it is damaged, or another engine's; None where nothing is seen.

    The database is not opened: a move of an alias must not wait for the engine.
    """
    return _tell_damage(folder) or tell_outdated(folder)


def _tell_damage(folder: Path) -> str | None:
    try:
        with open(folder / GRAPH, "rb") as file:
            begins, size = file.read(len(_MAGIC)), os.fstat(file.fileno()).st_size
    except FileNotFoundError:  # that its folder is gone is told elsewhere
        return f"{folder.name} has no {GRAPH} any more" if folder.is_dir() else None
    except OSError as error:
        return f"{folder.name} cannot be read: {error.strerror}"
    if begins != _MAGIC:
        return f"{folder.name} is damaged: {GRAPH} does not begin as a database of ladybug does"
    if (resized := tell_resized(folder, size)) is not None:
        return resized
    left = [name for name in _LEFTOVERS if os.path.exists(folder / name)]
    return f"{folder.name} was opened for writing: {' and '.join(left)} lies beside it" if left else None


def tell_resized(folder: Path, size: int) -> str | None:
    """Say that a database has not the size it was published with; a size that nobody knows is never right."""
    published = read_facts(folder).get("bytes")
    if size == published:
        return None
    if not isinstance(published, int):
        return f"{folder.name} was published with nobody knows how many bytes: its {FACTS} does not say"
    return f"{folder.name} is damaged: it was published with {published:,} bytes and has {size:,} now"


@cache
def _installed() -> str:
    return metadata.version("ladybug")  # reads a file each time


def tell_outdated(folder: Path) -> str | None:
    """Say that another engine wrote a database in another storage format, or None where ours did.

    The engine is loaded only where its version differs: one version has one format, and a move of an
    alias must not wait for it. Which of the older formats an engine reads is not promised anywhere.
    """
    facts = read_facts(folder)
    if "engine" not in facts or facts["engine"] == _installed():
        return None
    here = version()
    return None if facts.get("storage") == here["storage"] else describe(folder.name, facts, here)


def describe(name: str, facts: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Name both engines."""
    return (
        f"{name} was written by ladybug {facts['engine']} in storage format {facts.get('storage')}; "
        f"{here['engine']} with format {here['storage']} is installed"
    )


# Links: aliases as symbolic links to folders, moved in one step and fenced by a generation.

_LARGEST = 2**62  # a generation that the job table can count on from
_PATIENCE = 10.0  # seconds; a move takes milliseconds


def read_link(paths: Paths, alias: str) -> str | None:
    """Return the database an alias points at, or None when there is no such alias.

    A link made by another hand that leads elsewhere gives its path, which is no database's name.
    """
    return _follow(f"{paths.aliases}/{alias}")


def read_links(paths: Paths) -> dict[str, str]:
    """Return what every alias points at, as ``read_link`` does."""
    folder = str(paths.aliases)
    found = ((name, _follow(f"{folder}/{name}")) for name in aliases(paths))
    return {name: database for name, database in found if database is not None}


def _follow(link: str) -> str | None:
    try:
        place = os.readlink(link)
    except FileNotFoundError:
        return None
    except OSError:
        return link  # something that is no link sits in its place
    parts = place.split("/")
    return parts[2] if len(parts) == 3 and parts[:2] == ["..", "databases"] else place


def move_link(paths: Paths, alias: str, database: str, generation: int) -> None:
    """Point an alias at a published database, durably; raises StaleGeneration for an older wish."""
    with _translated(paths, alias, "moved"):
        paths.create()
        with locked(paths.aliases / ".lock", _PATIENCE):
            _check(paths, alias, database, generation)
            write_durably(_memory(paths, alias), f"{generation}\n")
            _replace(paths, alias, database)
            found = read_link(paths, alias)
    if found != database:
        raise TargetError(f"The alias {alias} points at {found} after it was moved to {database}.")


def remove_link(paths: Paths, alias: str, generation: int) -> None:
    """Remove an alias, durably; its generation is remembered, so that an older mover cannot bring it back."""
    with _translated(paths, alias, "removed"):
        paths.create()
        with locked(paths.aliases / ".lock", _PATIENCE):
            _check_generation(paths, alias, generation)
            write_durably(_memory(paths, alias), f"{generation}\n")
            if (paths.aliases / alias).is_symlink():
                (paths.aliases / alias).unlink()
            sync(paths.aliases)


@contextmanager
def _translated(paths: Paths, alias: str, what: str) -> Iterator[None]:
    """Whatever the system refuses is the target's failure, so that the wish is taken back."""
    try:
        yield
    except OSError as error:
        cure = f"Check owner, rights and room of {paths.aliases}; what lies at {alias} in it must be a link."
        raise TargetError(
            f"The link {paths.aliases / alias} cannot be {what}: {error.strerror or error}"
            + (f" ({error.filename})." if error.filename else "."),
            kept="It stays as it is.",
            cure=cure,
        ) from error


def _replace(paths: Paths, alias: str, database: str) -> None:
    aside = paths.aliases / f".{alias}.new"
    aside.unlink(missing_ok=True)
    os.symlink(f"../databases/{database}", aside)
    os.replace(aside, paths.aliases / alias)
    sync(paths.aliases)


def _check_generation(paths: Paths, alias: str, generation: int) -> None:
    seen = read_generation(paths, alias)
    if generation < seen:
        raise StaleGeneration(
            f"The alias {alias} was moved with generation {seen} already; {generation} is older.",
            kept="It stays where it is.",
        )


def _check(paths: Paths, alias: str, database: str, generation: int) -> None:
    _check_generation(paths, alias, generation)
    folder = paths.databases / database
    if not (folder / GRAPH).is_file():
        what = f"There is no published database {database} to point {alias} at."
        raise NeedsReload(what, kept=f"{alias} stays where it is.")
    resized = tell_resized(folder, (folder / GRAPH).stat().st_size)
    if resized is not None:
        raise NeedsReload(f"{resized}.", kept=f"{alias} stays where it is.")


def _memory(paths: Paths, alias: str) -> Path:
    return paths.aliases / f".{alias}.generation"


def read_generation(paths: Paths, alias: str) -> int:
    """The generation of the last move, 0 before the first; raises TargetError where it cannot be told."""
    memory = _memory(paths, alias)
    kept = "The alias stays where it is."
    try:
        found = int(memory.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except OSError as error:
        cure = "It must be a file; check its owner and rights."
        raise TargetError(f"{memory} cannot be read: {error.strerror}.", kept=kept, cure=cure) from error
    except ValueError:
        found = -1
    if not 0 <= found <= _LARGEST:
        moves = do("switches", customer=alias)
        cure = Hint("Write a number into it, the one of the last move: ", moves, " --json")
        raise TargetError(f"{memory} does not hold a number.", kept=kept, cure=cure)
    return found


def put_away(paths: Paths, folder: Path, place: Path) -> None:
    """Move a database's folder out of sight, unless an alias points at it; raises Refused then."""
    with locked(paths.aliases / ".lock", _PATIENCE):
        pointing = [name for name in aliases(paths) if read_link(paths, name) == folder.name]
        if pointing and folder.parent == paths.databases:
            raise Refused(
                f"{folder.name} is what the alias {', '.join(pointing)} points at.",
                kept="It was not dropped.",
                cure=Hint("See: ", do("customers")),
            )
        if folder.parent == paths.databases:
            folder.chmod(0o755)  # a folder must be writable to be moved
        os.replace(folder, place)
        sync(folder.parent)


def aliases(paths: Paths) -> list[str]:
    """Names of all aliases."""
    if not paths.aliases.is_dir():
        return []
    return sorted(name for name in os.listdir(paths.aliases) if not name.startswith("."))
