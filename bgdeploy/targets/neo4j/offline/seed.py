"""Seed: a dump of the store in a folder that every member of a cluster reads, where the configuration names one.

The store itself goes once the dump is whole: a server makes a database of a seed only where none lies.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bgdeploy.durable import sync
from bgdeploy.errors import ConfigError, NameTaken, TargetError, TargetFull
from bgdeploy.failpoints import reach
from bgdeploy.targets.neo4j.offline import store
from bgdeploy.targets.neo4j.offline.tool import Failed, Tool, run

_STORE_KEPT = "The store that was imported is kept, and what is live stays live."


def folder_of(address: str | None) -> Path | None:
    """Where dumps are written, or None where members copy the store from the one that has it.

    Raises ConfigError for a folder that is not here or cannot be written to.
    """
    if address is None:
        return None
    folder = Path(unquote(urlsplit(address).path))
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(
            f"neo4j.seed_uri leads to {folder}, which is no folder that bgdeploy may write to.",
            kept="Nothing was imported.",
            cure="Mount it here as on every member of the cluster, or leave neo4j.seed_uri out.",
        )
    return folder


def check(address: str | None, database: str) -> None:
    """Raise ConfigError for a folder of no use, NameTaken where another's dump of that name lies in it."""
    folder = folder_of(address)
    if folder is not None and (place := _place(folder, database)).exists():
        raise NameTaken(
            f"{place} lies there already, and bgdeploy did not make it.",
            kept="It was not touched; the load goes on under another name.",
        )


def _place(folder: Path, database: str) -> Path:
    return folder / f"{database}.dump"


def dump(
    tool: Tool, note: store.Note, folder: Path, into: Path, config: Path, tell: Callable[[str], None]
) -> None:
    """Dump the store that ``note`` speaks of and remove it; an earlier run may have got anywhere on this way.

    That no other lay there was looked at before the import. Raises TargetFull or TargetError.
    """
    if note.phase in ("imported", "dumping"):
        place = _place(into, note.database)
        note = store.move_on(folder, note, "dumping", dump=str(place))
        reach("load.seed.before")
        tell("dumping the store for the other members")
        _run(tool, note, folder, config)
        sync(place)
        note = store.move_on(folder, note, "dumped")
        reach("load.seed.after")
    if note.phase == "dumped":
        store.remove_folders(note)


def _run(tool: Tool, note: store.Note, folder: Path, config: Path) -> None:
    place = Path(note.dump)
    words = ["database", "dump", note.database, "--verbose", f"--additional-config={config}"]
    words += [f"--to-path={place.parent}", "--overwrite-destination=true"]
    try:
        run(tool, words, folder, note.mark, lambda phase: None)
    except (Failed, TargetError) as failed:
        place.unlink(missing_ok=True)
        kind = TargetFull if isinstance(failed, TargetFull) else TargetError
        cure = failed.cure if isinstance(failed, TargetError) else ""
        raise kind(
            f"The store could not be dumped to {place}: {failed}", kept=_STORE_KEPT, cure=cure
        ) from failed
    if not place.is_file():
        what = f"The tool ended well, but {place} is not there: it wrote somewhere else."
        raise TargetError(what, kept=_STORE_KEPT)


def room(address: str | None) -> int | None:
    """Bytes free where dumps are written; None where none is."""
    folder = folder_of(address)
    return None if folder is None else shutil.disk_usage(folder).free
