"""Walk: every file below a snapshot that could be data, each with what tells its versions apart."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from operator import attrgetter

MANIFEST = "manifest.json"
MARKER = "_SUCCESS"
_IGNORED_ENDS = (".tmp", ".crc")


@dataclass(frozen=True)
class Entry:
    """One file, its path relative to the snapshot with ``/`` between the parts.

    ``fault`` says why it cannot be used although it is there: a link that leads out of the
    snapshot, a link to a folder, something that is no file, or a folder that cannot be listed.
    """

    path: str
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0
    fault: str | None = None


def is_ignored(name: str) -> bool:
    """True for hidden, temporary and bookkeeping names, which are never data."""
    return name[0] in "._" or name.endswith(_IGNORED_ENDS)


def is_parquet(path: str) -> bool:
    """True for a name that ends as Parquet files do."""
    return path.lower().endswith(".parquet")


def walk(root: str) -> list[Entry]:
    """Return all files below ``root`` that are not ignored, sorted by path.

    Links are followed to files inside the snapshot only. A folder that cannot be listed gives an
    entry with its fault; one that vanishes meanwhile gives nothing. Raises FileNotFoundError when
    ``root`` is gone.
    """
    entries: list[Entry] = []
    folders = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        for item in _list(folder, prefix, entries):
            path = prefix + item.name
            if is_ignored(item.name) or path == MANIFEST:
                continue
            if item.is_dir(follow_symlinks=False):
                folders.append((item.path, f"{path}/"))
            elif (entry := _look(item, path, root)) is not None:
                entries.append(entry)
    return sorted(entries, key=attrgetter("path"))


def _list(folder: str, prefix: str, entries: list[Entry]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return list(items)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not prefix:
            raise FileNotFoundError(error.errno, error.strerror, folder) from error
    except OSError:
        entries.append(Entry(prefix.rstrip("/") or ".", fault="cannot be listed"))
    return []


def _look(item: os.DirEntry[str], path: str, root: str) -> Entry | None:
    try:
        status = item.stat(follow_symlinks=False)
        fault = None
        if stat.S_ISLNK(status.st_mode):
            status, fault = _follow(item.path, root, status)
        elif not stat.S_ISREG(status.st_mode):
            fault = "is not a file"
    except FileNotFoundError:
        return None
    return Entry(path, status.st_size, status.st_mtime_ns, status.st_ino, fault)


def _follow(link: str, root: str, status: os.stat_result) -> tuple[os.stat_result, str | None]:
    real, home = os.path.realpath(link), os.path.realpath(root)
    if not real.startswith(home.rstrip("/") + "/"):
        return status, "is a link that leads out of the snapshot"
    try:
        behind = os.stat(real)
    except OSError:
        return status, "is a link that leads nowhere"
    return behind, None if stat.S_ISREG(behind.st_mode) else "is a link to a folder"
