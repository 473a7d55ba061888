"""Folders: which customers and which snapshots lie below the base folder, and which files in a snapshot.

Listing says of each name that is no snapshot why it is passed over; ``walk`` gives every file of one with what tells its
versions apart, and the signs that its files are not the whole story. Links are followed only to where they may lead. No file is
opened but by ``starts_as_parquet``.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple

from bgdeploy.clock import iso
from bgdeploy.errors import NotReadable

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
_DAY = 86_400
_UNITS = ((1_000, "milliseconds"), (1_000_000, "microseconds"), (1_000_000_000, "nanoseconds"))


@dataclass(frozen=True, slots=True)
class Found:
    """One folder: a customer, or a snapshot with its timestamp in seconds.

    ``skipped`` is the reason, for people, why it is not loaded, else None. ``name`` is fit to be
    printed: in a skipped name what is no text is escaped.
    """

    name: str
    folder: str  # what it lies in; text, since a hundred thousand paths are slow to make
    timestamp: int | None = None
    skipped: str | None = None

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.folder, self.name)


@dataclass(frozen=True)
class Listing:
    """The snapshots of one customer in the shortest form: timestamps, and the names that are skipped.

    ``there`` are those of the known names that are still there; the other two tell of new ones only.
    """

    timestamps: frozenset[int]
    skipped: tuple[Found, ...]
    there: frozenset[str] = frozenset()


def list_customers(base: Path) -> list[Found]:
    """Return the folders in ``base``, by name; files and names that begin with ``.`` or ``_`` are left out.

    Raises NotReadable when ``base`` cannot be listed.
    """
    folder = str(base)
    found: list[Found] = []
    for item in _visible(folder):
        if item.is_symlink() or item.is_dir(follow_symlinks=False):
            fault = _fault_of_link(item.path, folder) if item.is_symlink() else None
            if not item.name.isprintable():
                fault = "the name holds characters that cannot be printed; rename the folder"
            found.append(Found(_printable(item.name), folder, skipped=fault))
    return sorted(found, key=attrgetter("name"))


def list_timestamps(customer_dir: Path, *, now: float, known: Set[str] = frozenset()) -> Listing:
    """Return a customer's snapshots and what is skipped among them, without an object for each snapshot.

    ``now`` is seconds since 1970. Names in ``known`` were judged before; they are only looked for, which is several times as fast.
    Raises NotReadable when the folder cannot be listed.
    """
    folder, latest = str(customer_dir), int(now) + _DAY
    names = list_names(customer_dir)
    if (log := _find_log(customer_dir, names)) is not None:
        return Listing(frozenset(), (log,), names & known)
    new = {name for name in names - known if name[0] not in "._"}
    timestamps: set[int] = set()
    skipped: list[Found] = []
    for item in _visible(folder) if new else ():
        name = item.name
        if name not in new:
            continue
        fault = None if _is_canonical(name) and int(name) <= latest else _fault_of_name(name, latest)
        if item.is_symlink():
            fault = fault or _fault_of_link(item.path, os.path.dirname(os.path.abspath(folder)))
        elif not item.is_dir(follow_symlinks=False):
            if fault is not None:
                continue  # whatever else it is
            fault = "this is a file; a snapshot is a folder"
        if fault is None:
            timestamps.add(int(name))
        else:
            skipped.append(Found(_printable(name), folder, skipped=fault))
    shown = tuple(sorted(skipped, key=attrgetter("name")))
    return Listing(frozenset(timestamps), shown, names & known)


def _find_log(customer_dir: Path, names: Set[str]) -> Found | None:
    """A customer's folder that is a table of another format, of which no file may be read alone."""
    inside = (
        list_names(customer_dir / "metadata")
        if "metadata" in names and (customer_dir / "metadata").is_dir()
        else ()
    )
    for name in sorted([*(names & LOGS.keys()), *(f"metadata/{one}" for one in inside)]):
        if (form := find_log(name)) is not None:
            fault = f"the customer's folder is a {form} table ({name}): its files alone are not the table, so nothing in it is loaded; export snapshots as plain folders"
            return Found(name.partition("/")[0], str(customer_dir), skipped=fault)
    return None


def list_names(folder: Path) -> frozenset[str]:
    """Return every name in a folder, whatever it is; raises NotReadable when it cannot be listed."""
    try:
        return frozenset(os.listdir(folder))
    except OSError as error:
        raise _unlisted(str(folder), error) from error


def _visible(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            for item in items:
                if item.name[0] not in "._":
                    yield item
    except OSError as error:
        raise _unlisted(folder, error) from error


def _unlisted(folder: str, error: OSError) -> NotReadable:
    return NotReadable(
        f"The folder {folder} cannot be listed: {error.strerror or error}.",
        kept="No job was changed.",
        cure="Check that it exists, that its disk is mounted and that bgdeploy may read it.",
    )


def why_skipped(timestamp: int, *, now: float) -> str | None:
    """Return why a folder of this name would be skipped, or None."""
    name, latest = str(timestamp), int(now) + _DAY
    return None if _is_canonical(name) and timestamp <= latest else _fault_of_name(name, latest)


def _is_canonical(name: str) -> bool:
    return name.isascii() and name.isdigit() and name[0] != "0"


def _fault_of_name(name: str, latest: int) -> str:
    if not name.isprintable():
        return "the name holds characters that cannot be printed"
    if not (name.isascii() and name.isdigit()):
        return "the name is not a number of seconds since 1970"
    if not _is_canonical(name):
        return "the number begins with a zero; the name must be plain seconds since 1970"
    # The largest unit that gives a moment of this century; smaller numbers are late, not fine-grained.
    number = int(name)
    for factor, unit in _UNITS:
        if latest // 3 < number // factor <= latest:
            return f"looks like {unit}; seconds are expected"
    moment = f" ({iso(number)})" if number < 200_000_000_000 else ""
    return f"lies in the future{moment}; a snapshot may not be later than tomorrow"


def leads_astray(path: Path) -> str | None:
    """Say why a snapshot's folder may not be read where it is a link by now, else None."""
    if not os.path.islink(path):
        return None
    return _fault_of_link(str(path), os.path.dirname(os.path.dirname(os.path.abspath(path))))


def _fault_of_link(link: str, base: str) -> str | None:
    if not _is_inside(link, base):
        return "this is a link that leads out of the base folder; copy the folder instead"
    return None if os.path.isdir(link) else "this is a link that does not lead to a folder"


def _is_inside(link: str, home: str) -> bool:
    return os.path.realpath(link).startswith(os.path.realpath(home).rstrip("/") + "/")


def _printable(name: str) -> str:
    return name if name.isprintable() else name.encode("unicode_escape", "backslashreplace").decode("ascii")


# The files of a snapshot


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
        try:
            with os.scandir(folder) as listed:
                items = list(listed)
        except (FileNotFoundError, NotADirectoryError) as error:
            if not prefix:
                raise FileNotFoundError(error.errno, error.strerror, folder) from error
            continue
        except OSError:
            entries.append(Entry(prefix.rstrip("/") or ".", fault="cannot be listed"))
            continue
        inside = is_in_table(prefix)
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


def _look(item: os.DirEntry[str], path: str, root: str) -> Entry | None:
    try:
        status = item.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    fault = None
    if stat.S_ISLNK(status.st_mode):
        if not _is_inside(item.path, root):
            fault = "is a link that leads out of the snapshot"
        else:
            try:
                status = os.stat(item.path)
                fault = None if stat.S_ISREG(status.st_mode) else "is a link to a folder"
            except OSError:
                fault = "is a link that leads nowhere"
    elif not stat.S_ISREG(status.st_mode):
        fault = "is not a file"
    rights = status.st_mode, status.st_uid, status.st_gid, status.st_nlink
    seen = status.st_size, status.st_mtime_ns, status.st_ino
    return Entry(path, *seen, fault, ctime_ns=status.st_ctime_ns, rights=rights)


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


def starts_as_parquet(path: str) -> bool:
    """True for a regular file that begins with Parquet's magic bytes; reads four of them and never waits.

    Raises OSError where it does not open.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return stat.S_ISREG(os.fstat(handle).st_mode) and os.read(handle, 4) in (b"PAR1", b"PARE")
    finally:
        os.close(handle)


def remove_tree(name: str, home: int, go_on: Callable[[], bool]) -> bool:
    """Remove the folder ``name`` in the open folder ``home``; False where ``go_on`` said no before the end.

    What is left is removed by another call. Links are removed themselves, never what they lead to; what
    another process removes meanwhile is no error.
    """

    def remove(folder: str, handle: int) -> None:
        with suppress(FileNotFoundError):
            is_link = stat.S_ISLNK(os.stat(folder, dir_fd=handle, follow_symlinks=False).st_mode)
            (os.unlink if is_link else os.rmdir)(folder, dir_fd=handle)

    for _, folders, files, handle in os.fwalk(name, topdown=False, follow_symlinks=False, dir_fd=home):
        for file in files:
            if not go_on():
                return False
            with suppress(FileNotFoundError):
                os.unlink(file, dir_fd=handle)
        for folder in folders:
            remove(folder, handle)
    remove(name, home)
    return True
