"""Links: aliases as symbolic links to folders, moved in one step and fenced by a generation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bgdeploy.durable import sync, write_durably
from bgdeploy.errors import NeedsReload, Refused, StaleGeneration, TargetError
from bgdeploy.targets.ladybug.facts import tell_resized
from bgdeploy.targets.ladybug.paths import GRAPH, Paths, locked

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
        cure = f"Write a number into it, the one of the last move: bgdeploy switches {alias} --json"
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
                cure="See: bgdeploy customers",
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
