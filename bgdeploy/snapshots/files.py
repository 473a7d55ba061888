"""Walk: every file below a snapshot, each with what tells its versions apart, and the signs that its files are not the whole story."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Set
from operator import attrgetter
from typing import Literal, NamedTuple

MANIFEST = "manifest.json"
MARKER = "_SUCCESS"
TABLES = ("nodes/", "relationships/")
_PARQUET = (".parquet", ".parq", ".pq")
# What writers leave beside their files and every reader leaves out.
_BOOKKEEPING = frozenset(
    {MARKER, "_metadata", "_common_metadata", "_symlink_format_manifest", "_impala_insert_staging", "_logs"}
)
_STARTED, _COMMITTED = "_started_", "_committed_"
LOGS = {"_delta_log": "Delta Lake", ".hoodie": "Hudi", "_spark_metadata": "Spark streaming"}
_UNFINISHED_STARTS = ("_temporary", "__magic", ".hive-staging", ".spark-staging")
_UNFINISHED_ENDS = (".tmp", ".temp", ".inprogress", "._copying_")
_UNFINISHED_FILES = (".part", ".partial", ".filepart", ".crdownload")
_RSYNC = re.compile(r"\..+\.[A-Za-z0-9]{6}")  # .part-0.parquet.Xy12Zz


class Entry(NamedTuple):
    """One file, its path relative to the snapshot with ``/`` between the parts.

    ``fault`` says why it cannot be used although it is there: a link that leads out of the
    snapshot, a link to a folder, something that is no file, or a folder that cannot be listed.
    ``sign``: a file or folder that is no data but says something of it: ``unfinished`` (its writer
    is not done) or ``foreign`` (a table format whose log decides which files count; ``fault`` names it).
    """

    path: str
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0
    fault: str | None = None
    sign: Literal["unfinished", "foreign"] | None = None
    ctime_ns: int = 0
    rights: tuple[int, int, int, int] = (0, 0, 0, 0)  # mode, owner, group, number of links


def is_parquet(path: str) -> bool:
    """True for a name that ends as Parquet files do."""
    return path.lower().endswith(_PARQUET)


def is_packed(path: str) -> bool:
    """True for a Parquet file's name with something behind it, as of one that is packed or half copied."""
    name = os.path.basename(path).lower()
    return any(f"{end}." in name for end in _PARQUET)


def is_in_table(path: str) -> bool:
    """True for what lies below nodes/ or relationships/."""
    return path.startswith(TABLES)


def is_left_out(path: str) -> bool:
    """True for a path that is never data: hidden, a checksum, or a writer's bookkeeping, or in such a folder.

    Below nodes/ and relationships/ ``_`` alone hides nothing: only the names that are known do.
    """
    inside = is_in_table(path)
    return any(_is_bookkeeping(part, inside) for part in path.split("/"))


def _is_bookkeeping(name: str, inside: bool) -> bool:
    if name[0] == "." or name.endswith(".crc"):
        return True
    if name[0] != "_":
        return False
    return not inside or name in _BOOKKEEPING or name.startswith((_STARTED, _COMMITTED))


def walk(root: str) -> list[Entry]:
    """Return all files below ``root`` that are not left out, and all signs, sorted by path.

    Links are followed to files inside the snapshot only. A folder that cannot be listed gives an
    entry with its fault; one that vanishes meanwhile gives nothing. Raises FileNotFoundError when
    ``root`` is gone.
    """
    entries: list[Entry] = []
    folders = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        inside = is_in_table(prefix)
        items = _list(folder, prefix, entries)
        committed = {item.name for item in items if item.name.startswith(_COMMITTED)}
        for item in items:
            path = prefix + item.name
            # Nearly all names are such, and there may be millions of them.
            plain = item.name.endswith(".parquet") and item.name[0] not in "._"
            if not plain and (sign := _read_sign(item, path, committed)) is not None:
                entries.append(sign)
            elif not plain and (_is_bookkeeping(item.name, inside) or path == MANIFEST):
                continue
            elif item.is_dir(follow_symlinks=False):
                folders.append((item.path, f"{path}/"))
            elif (entry := _look(item, path, root)) is not None:
                entries.append(entry)
    return sorted(entries, key=attrgetter("path"))


def _read_sign(item: os.DirEntry[str], path: str, committed: Set[str]) -> Entry | None:
    name = item.name
    if (log := find_log(path)) is not None:
        return Entry(path, fault=log, sign="foreign")
    low = name.lower()
    if name.startswith(_STARTED):
        end = _COMMITTED + name.removeprefix(_STARTED)
        if end not in committed:
            return Entry(path, fault=f"has no {end}", sign="unfinished")
    elif (
        low.endswith(_UNFINISHED_ENDS)
        or name.startswith(_UNFINISHED_STARTS)
        or ".inprogress." in low
        or (low.endswith(_UNFINISHED_FILES) and not item.is_dir(follow_symlinks=False))
        or (name[0] == "." and is_packed(name) and _RSYNC.fullmatch(name))
    ):
        return Entry(path, fault="is still there", sign="unfinished")
    return None


def find_log(path: str) -> str | None:
    """Return the table format whose log this file or folder is, or None."""
    folder, _, name = path.rpartition("/")
    if name in LOGS:
        return LOGS[name]
    if folder == "metadata" or folder.endswith("/metadata"):
        low = name.lower()
        iceberg = low == "version-hint.text" or low.endswith((".metadata.json", ".metadata.json.gz", ".avro"))
        return "Iceberg" if iceberg else None
    return None


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
    rights = status.st_mode, status.st_uid, status.st_gid, status.st_nlink
    seen = status.st_size, status.st_mtime_ns, status.st_ino
    return Entry(path, *seen, fault, ctime_ns=status.st_ctime_ns, rights=rights)


def _follow(link: str, root: str, status: os.stat_result) -> tuple[os.stat_result, str | None]:
    real, home = os.path.realpath(link), os.path.realpath(root)
    if not real.startswith(home.rstrip("/") + "/"):
        return status, "is a link that leads out of the snapshot"
    try:
        behind = os.stat(real)
    except OSError:
        return status, "is a link that leads nowhere"
    return behind, None if stat.S_ISREG(behind.st_mode) else "is a link to a folder"


def starts_as_parquet(path: str) -> bool:
    """True for a regular file that begins with Parquet's magic bytes; reads four of them and never waits.

    Raises OSError where it does not open.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return stat.S_ISREG(os.fstat(handle).st_mode) and os.read(handle, 4) in (b"PAR1", b"PARE")
    finally:
        os.close(handle)
