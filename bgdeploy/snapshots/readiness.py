"""Readiness: whether a snapshot folder is complete, from two looks at it or from what it says itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, TypeGuard

from bgdeploy.clock import iso
from bgdeploy.snapshots.folders import MANIFEST, MARKER, Entry, is_in_table, is_left_out, is_parquet, walk

# Manifest: what an ETL job says its snapshot consists of, compared with what is there.

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
MOST = 64 << 20  # bytes of a manifest; a list of 300,000 files has about as many
_PIECE = 16 << 20  # bytes of a file between two signs of life


@dataclass(frozen=True)
class Listed:
    """One file as the manifest has it; ``rows`` and ``sha256`` may be left out there."""

    path: str
    size: int
    rows: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The manifest of a snapshot.

    ``digest`` tells one version of the file from another. ``fault`` says what in it does not match
    the files, else None. Where it is not ``read``, only the inspector can tell. ``changed_at``: when it was last
    written or touched, in seconds since 1970, or None where nothing can be said.
    """

    digest: str
    fault: str | None = None
    read: bool = True
    changed_at: float | None = None


def look_at_manifest(root: str) -> Manifest | None:
    """Return what can be said of the manifest below ``root`` without opening it, or None where there is none."""
    try:
        found = os.stat(os.path.join(root, MANIFEST))
    except FileNotFoundError:
        return None
    except OSError as error:
        return Manifest("", f"{MANIFEST} cannot be read: {error.strerror or error}")
    at = max(found.st_mtime, found.st_ctime)
    digest = f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_ino}"
    if not stat.S_ISREG(found.st_mode):
        return Manifest(digest, f"{MANIFEST} is not a file", changed_at=at)  # reading a pipe would never end
    if found.st_size > MOST:
        size = f"{found.st_size / (1 << 20):,.0f} MiB"
        fault = f"{MANIFEST} has {size}; at most {MOST >> 20} MiB of it are read"
        return Manifest(digest, fault, changed_at=at)
    return Manifest(digest, read=False, changed_at=at)


def compare_manifest(root: str, looking: Callable[[str], None]) -> str | None:
    """Return the first thing in which files and manifest below ``root`` differ, or None when all agree.

    Names and sizes first; then every file is read whose rows or checksum the manifest names. ``looking``
    hears which file it is, again and again. Raises OSError for a disk that does not answer.
    """
    path = os.path.join(root, MANIFEST)
    try:
        with open(path, "rb") as file:
            text = file.read(MOST + 1)
    except OSError as error:
        return f"{MANIFEST} cannot be read: {error.strerror or error}"
    if len(text) > MOST:
        return f"{MANIFEST} has over {MOST >> 20} MiB, which is the most that is read"
    try:
        listed = _parse(text)
    except _Malformed as error:
        return f"{MANIFEST} is malformed: {error}"
    fault = _compare(listed, walk(root))
    contents = (one for one in listed if one.sha256 is not None or one.rows is not None)
    return fault or next(
        (fault for one in contents if (fault := _differs(root, one, looking)) is not None), None
    )


def _differs(root: str, listed: Listed, looking: Callable[[str], None]) -> str | None:
    import pyarrow as pa  # late: who only looks at a manifest from outside imports no Arrow

    path = os.path.join(root, listed.path)
    looking(listed.path)
    try:
        if listed.rows is not None and (rows := _count_rows(path)) != listed.rows:
            return f"{MANIFEST} says {listed.rows} rows for {listed.path}, which has {rows}"
    except pa.ArrowNotImplementedError:
        pass  # the footer is whole; a type that nobody reads is told when the snapshot is opened
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not what is in the file
        return f"{listed.path} cannot be compared with {MANIFEST}: {error}"
    if listed.sha256 is not None and _digest(path, lambda: looking(listed.path)) != listed.sha256.lower():
        return f"{MANIFEST} has another sha256 for {listed.path}"
    return None


def _count_rows(path: str) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _digest(path: str, alive: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            alive()
    return digest.hexdigest()


class _Malformed(Exception):
    """What is wrong with the manifest's text."""


def _parse(text: bytes) -> list[Listed]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Malformed("not JSON") from error
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, list):
        raise _Malformed('it needs a list "files"')
    listed = [_parse_file(file, number) for number, file in enumerate(files, 1)]
    path, times = max(Counter(one.path for one in listed).items(), key=itemgetter(1), default=("", 0))
    if times > 1:
        raise _Malformed(f"it lists {path} twice")
    return [one for one in listed if not is_left_out(one.path)]


def _parse_file(file: Any, number: int) -> Listed:
    if not isinstance(file, dict) or not _is_relative(file.get("path")):
        raise _Malformed(f"file {number} has no path relative to the snapshot")
    path, size, rows, digest = file["path"], file.get("size"), file.get("rows"), file.get("sha256")
    if not _is_count(size):
        raise _Malformed(f"{path} has no size in bytes")
    if rows is not None and not _is_count(rows):
        raise _Malformed(f"{path} has rows that are no number")
    if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        raise _Malformed(f"{path} has a sha256 that is not 64 hexadecimal digits")
    return Listed(path, size, rows, digest)


def _is_relative(path: Any) -> bool:
    if not isinstance(path, str) or not path.isprintable():
        return False
    return not {"", ".", ".."} & set(path.split("/"))


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _compare(listed: Sequence[Listed], entries: Sequence[Entry]) -> str | None:
    found = {entry.path: entry for entry in entries if entry.sign is None}
    for one in listed:
        entry = found.get(one.path)
        if entry is None:
            return f"{MANIFEST} lists {one.path}, which is missing"
        if entry.size != one.size:
            return f"{MANIFEST} says {one.size} bytes for {one.path}, which has {entry.size}"
    names = {one.path for one in listed}
    data = (path for path in found if is_in_table(path) or is_parquet(path))
    extra = next((path for path in data if path not in names), None)
    return None if extra is None else f"{extra} is not in {MANIFEST}"


# Readiness: whether a snapshot folder is complete, from two looks at it or from what it says itself.

_SECOND_LOOK = 0.5  # seconds between two looks that must agree: a plain copy writes the marker in any order


@dataclass(frozen=True)
class Fingerprint:
    """What a folder looks like at one moment.

    ``text`` changes with any data file's path, size, time or inode. Times are nanoseconds since
    1970; ``files`` counts data files; ``unreadable`` names a folder that cannot be listed, and ``unfinished`` says
    what its writer has left to do. ``entries`` are the files as they were seen.
    """

    text: str
    newest_mtime: int
    files: int
    marker_mtime: int | None = None
    manifest: Manifest | None = None
    newest: str = ""
    unreadable: str | None = None
    unfinished: str | None = None
    entries: Sequence[Entry] = ()

    @property
    def claim(self) -> str:
        """Changes with the files or with the manifest."""
        return f"{self.text}:{self.manifest.digest if self.manifest else ''}"


@dataclass(frozen=True)
class Readiness:
    """The verdict on one look, with its reason: a code of jobs/reasons.py and its fields (the same until something changes).

    ``marker``: the folder says of itself that it is complete, so a file that does not open is an
    error; while it is not ready, a second look half a second later may settle it. ``first``: this
    look starts the waiting anew, so its fingerprint and its time are to be stored. ``unread``: the
    manifest decides, and the inspector has not read it yet. ``contradicted``: the folder says of itself
    that it is complete, its manifest says otherwise, and nothing changes any more.
    """

    state: Literal["ready", "settling", "waiting", "gone", "contradicted"]
    code: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    marker: bool = False
    first: bool = False
    unread: bool = False


def fingerprint(path: Path) -> Fingerprint:
    """Return what the folder looks like now; no file is opened.

    Raises FileNotFoundError when the folder is gone.
    """
    root = str(path)
    entries = walk(root)
    newest = max(entries, key=lambda entry: entry.mtime_ns, default=Entry(""))
    return Fingerprint(
        text=_hash(entries),
        newest_mtime=newest.mtime_ns,
        files=sum(not e.sign and (is_in_table(e.path) or is_parquet(e.path)) for e in entries),
        marker_mtime=_read_marker(root),
        manifest=look_at_manifest(root),
        newest=newest.path,
        unreadable=next((entry.path for entry in entries if entry.fault == "cannot be listed"), None),
        unfinished=next((f"{e.path} {e.fault}" for e in entries if e.sign == "unfinished"), None),
        entries=entries,
    )


def find_rewritten(before: Fingerprint, after: Fingerprint) -> str | None:
    """Return the first file that was written to between two looks although its size and time are as they were, or None.

    Its time of change (ctime) tells, which nobody can set. That moves too when a file's mode, owner or number of
    links changes, as backups do; where one of these is another than it was, it explains the change.
    """
    then = {entry.path: entry for entry in before.entries}
    for now in after.entries:
        was = then.get(now.path)
        if was is not None and was.ctime_ns != now.ctime_ns and was.rights == now.rights:
            return now.path
    return None


def _hash(entries: list[Entry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        line = f"{entry.path}\0{entry.size}\0{entry.mtime_ns}\0{entry.inode}\0{entry.sign or entry.fault or ''}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _read_marker(root: str) -> int | None:
    try:
        return os.stat(os.path.join(root, MARKER)).st_mtime_ns
    except OSError:
        return None


def judge(
    current: Fingerprint | None,
    *,
    now: float,
    seen: str | None,
    seen_at: float | None,
    settle_seconds: float,
) -> Readiness:
    """Judge one look at a folder against what was seen before; pure.

    ``current`` is None when the folder is gone. ``seen`` is the fingerprint's text stored at
    ``seen_at`` (seconds since 1970), when it was first seen like that.
    """
    if current is None:
        return Readiness("gone", "folder-gone")
    first = current.text != seen or seen_at is None or seen_at > now
    if current.unreadable is not None:
        return Readiness("waiting", "unlisted", {"folder": current.unreadable}, first=first)
    if current.unfinished is not None:
        return Readiness("waiting", "not-finished", {"sign": current.unfinished}, first=first)
    age = 0.0 if first or seen_at is None else now - seen_at
    if current.manifest is not None:
        return _judge_manifest(current, current.manifest, first, now, age, settle_seconds)
    if not current.files and (current.marker_mtime is None or age < settle_seconds):
        return Readiness("waiting", "no-files", first=first)
    if current.marker_mtime is not None and current.marker_mtime >= current.newest_mtime:
        return _judge_marker(age, first)
    return _judge_settling(current, age, None if first else seen_at, settle_seconds)


def _judge_manifest(
    current: Fingerprint, manifest: Manifest, first: bool, now: float, age: float, settle: float
) -> Readiness:
    if not manifest.read:
        return Readiness("waiting", "manifest-unread", first=first, unread=True)
    if manifest.fault is not None:
        return _judge_fault(current, manifest, manifest.fault, now, age, settle, first=first)
    if not current.files:
        return Readiness("waiting", "no-files", first=first)
    return Readiness("ready", marker=True, first=first)


def _judge_fault(
    current: Fingerprint,
    manifest: Manifest,
    fault: str,
    now: float,
    age: float,
    settle: float,
    *,
    first: bool = False,
) -> Readiness:
    """The manifest does not match: it waits, or is told as an error where a marker says that all is there."""
    steady = manifest.changed_at is not None and min(age, now - manifest.changed_at) >= settle
    if current.marker_mtime is not None and steady and not first:
        return Readiness("contradicted", "manifest-differs", {"fault": fault}, marker=True)
    return Readiness("waiting", "manifest-differs", {"fault": fault}, first=first)


def _judge_marker(age: float, first: bool) -> Readiness:
    if not first and age >= _SECOND_LOOK:
        return Readiness("ready", marker=True)
    return Readiness("settling", "marked", {"marker": MARKER}, marker=True, first=first)


def _judge_settling(current: Fingerprint, age: float, since: float | None, settle: float) -> Readiness:
    claimed = current.marker_mtime is not None
    if age >= settle:
        return Readiness("ready", marker=claimed, first=since is None)
    older = {"marker": MARKER if claimed else None, "newest": current.newest if claimed else None}
    fields = {**older, "since": iso(since), "settle_seconds": settle}
    return Readiness("settling", "settling", fields, first=since is None)
