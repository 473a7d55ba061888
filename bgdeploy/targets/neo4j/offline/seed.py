"""Seed: a dump of the store in a folder that every member of a cluster reads, where the configuration names one.

The store itself goes once the dump is whole: a server makes a database of a seed only where none lies.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bgdeploy.durable import sync
from bgdeploy.errors import ConfigError, NameTaken, TargetAway, TargetError, TargetFull
from bgdeploy.failpoints import reach
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.offline import store
from bgdeploy.targets.neo4j.offline.tool import Failed, Tool, run

_SETTING = "dbms.databases.seed_from_uri_providers"
PROVIDERS = f"SHOW SETTINGS YIELD name, value WHERE name = '{_SETTING}' RETURN value"
_KEPT = "What is live stays live."
STORE_KEPT = "The store that was imported is kept, and what is live stays live."


def folder_of(address: str | None, kept: str = "Nothing was imported.") -> Path | None:
    """Where dumps are written, or None where members copy the store from the one that has it.

    Raises ConfigError for a folder that is not here or cannot be written to.
    """
    if address is None:
        return None
    folder = Path(unquote(urlsplit(address).path))
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(
            f"neo4j.seed_uri leads to {folder}, which is no folder that bgdeploy may write to.",
            kept=kept,
            cure="Mount it here as on every member of the cluster, or leave neo4j.seed_uri out.",
        )
    return folder


def check(server: Server) -> Path | None:
    """Return the folder of dumps; raises ConfigError too where the server would not make a database of one."""
    folder = folder_of(server.access.seed_uri)
    if folder is None:
        return None
    told = server.ask(PROVIDERS, "Asking which seeds the server takes")
    if not any("FileSeedProvider" in str(row["value"]) for row in told):
        raise ConfigError(
            f"The server makes no database of a file: {_SETTING} is {told[0]['value'] if told else 'unknown'}.",
            kept="Nothing was imported.",
            cure=f"Set {_SETTING}=FileSeedProvider,CloudSeedProvider on every member and restart it, or leave neo4j.seed_uri out.",
        )
    return folder


def prepare(server: Server, database: str, needed: int) -> None:
    """Look hours ahead whether a dump can be made: raises ConfigError, NameTaken for another's, TargetFull."""
    folder = check(server)
    if folder is None:
        return
    if (place := _place(folder, database)).exists():
        raise NameTaken(
            f"{place} lies there already, and bgdeploy did not make it.",
            kept="It was not touched; the load goes on under another name.",
        )
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = f"Too little room for a dump in {folder}: up to {needed >> 20:,} MiB, {free >> 20:,} MiB free."
        raise TargetFull(what, kept=_KEPT, cure="Make room there.")


def _place(folder: Path, database: str) -> Path:
    return folder / f"{database}.dump"


def address_of(note: store.Note) -> str:
    """What the members read; raises TargetAway where it is not there."""
    place = Path(note.dump)
    if not place.is_file():
        raise TargetAway(
            f"The dump {place} is not there; its folder may not be mounted.",
            kept=_KEPT,
            cure="Mount it. Where it is lost for good: bgdeploy jobs cancel, then bgdeploy retry --reload.",
        )
    return place.as_uri()


def dump(
    tool: Tool, note: store.Note, folder: Path, into: Path, config: Path, tell: Callable[[str], None]
) -> store.Note:
    """Dump the store that ``note`` speaks of and remove it; an earlier run may have got anywhere on this way.

    That no other lay there was looked at before the import. Returns the note as it is then; raises
    TargetFull or TargetError.
    """
    if note.phase in ("imported", "dumping"):
        place = _place(into, note.database)
        note = store.move_on(folder, note, "dumping", dump=str(place))
        reach("load.seed.before")
        tell("dumping the store for the other members")
        _run(tool, note, folder, config)
        sync(place)
        sync(place.parent)
        note = store.move_on(folder, note, "dumped")
        reach("load.seed.after")
    if note.phase == "dumped":
        store.remove_folders(note)
    return note


def _run(tool: Tool, note: store.Note, folder: Path, config: Path) -> None:
    place = Path(note.dump)
    words = ["database", "dump", note.database, "--verbose", f"--additional-config={config}"]
    words += [f"--to-path={place.parent}", "--overwrite-destination=true"]
    try:
        run(tool, words, folder, note.mark, lambda phase: None)
    except (Failed, TargetError) as failed:
        with suppress(OSError):  # what stays is written over by the next try
            place.unlink(missing_ok=True)
        kind = TargetFull if isinstance(failed, TargetFull) else TargetError
        cure = failed.cure if isinstance(failed, TargetError) else ""
        raise kind(
            f"The store could not be dumped to {place}: {failed}", kept=STORE_KEPT, cure=cure
        ) from failed
    if not place.is_file():
        what = f"The tool ended well, but {place} is not there: it wrote somewhere else."
        raise TargetError(what, kept=STORE_KEPT)
