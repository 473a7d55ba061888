"""Readiness: whether a snapshot folder is complete, from two looks at it or from what it says itself.

``fingerprint`` looks, without opening a file, and ``judge`` says from two looks what is true of the folder. A manifest
decides where there is one, and since a manifest is what somebody wrote, the service only looks at it from outside;
``compare_manifest`` reads it, in the inspector.
"""

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
from typing import Any, Literal, NamedTuple, TypeGuard

from bgdeploy.clock import iso
from bgdeploy.snapshots.folders import MANIFEST, MARKER, Entry, is_in_table, is_left_out, is_parquet, walk

_SECOND_LOOK = 0.5  # seconds between two looks that must agree: a plain copy writes the marker in any order


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
    digest = hashlib.sha256()
    for one in entries:
        line = f"{one.path}\0{one.size}\0{one.mtime_ns}\0{one.inode}\0{one.sign or one.fault or ''}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    try:
        marker_mtime = os.stat(os.path.join(root, MARKER)).st_mtime_ns
    except OSError:
        marker_mtime = None
    newest = max(entries, key=lambda entry: entry.mtime_ns, default=Entry(""))
    return Fingerprint(
        text=digest.hexdigest(),
        newest_mtime=newest.mtime_ns,
        files=sum(not e.sign and (is_in_table(e.path) or is_parquet(e.path)) for e in entries),
        marker_mtime=marker_mtime,
        manifest=look_at_manifest(root),
        newest=newest.path,
        unreadable=next((entry.path for entry in entries if entry.fault == "cannot be listed"), None),
        unfinished=next((f"{e.path} {e.fault}" for e in entries if e.sign == "unfinished"), None),
        entries=entries,
    )


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
    since = None if current.text != seen or seen_at is None or seen_at > now else seen_at
    first, age = since is None, 0.0 if since is None else now - since
    manifest, marked = current.manifest, current.marker_mtime is not None
    if current.unreadable is not None:
        return Readiness("waiting", "unlisted", {"folder": current.unreadable}, first=first)
    if current.unfinished is not None:
        return Readiness("waiting", "not-finished", {"sign": current.unfinished}, first=first)
    if manifest is not None:
        if not manifest.read:
            return Readiness("waiting", "manifest-unread", first=first, unread=True)
        if manifest.fault is not None:
            # It waits, or is an error where a marker says that all is there and nothing has changed for long enough.
            steady = manifest.changed_at is not None and now - manifest.changed_at >= settle_seconds
            differs = "manifest-differs", {"fault": manifest.fault}
            if marked and steady and age >= settle_seconds and not first:
                return Readiness("contradicted", *differs, marker=True)
            return Readiness("waiting", *differs, first=first)
        if not current.files:
            return Readiness("waiting", "no-files", first=first)
        return Readiness("ready", marker=True, first=first)
    if not current.files and (not marked or age < settle_seconds):
        return Readiness("waiting", "no-files", first=first)
    if current.marker_mtime is not None and current.marker_mtime >= current.newest_mtime:
        if age >= _SECOND_LOOK:
            return Readiness("ready", marker=True)
        return Readiness("settling", "marked", {"marker": MARKER}, marker=True, first=first)
    if age >= settle_seconds:
        return Readiness("ready", marker=marked, first=first)
    older = {"marker": MARKER if marked else None, "newest": current.newest if marked else None}
    fields = {**older, "since": iso(since), "settle_seconds": settle_seconds}
    return Readiness("settling", "settling", fields, first=first)


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


# The manifest: what an ETL job says its snapshot consists of

MOST = 64 << 20  # bytes of a manifest; a list of 300,000 files has about as many
_PIECE = 16 << 20  # bytes of a file between two signs of life
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class _Listed(NamedTuple):
    """One file as the manifest has it; ``rows`` and ``sha256`` may be left out there."""

    path: str
    size: int
    rows: int | None
    sha256: str | None


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
    faults = (_differs(root, one, looking) for one in listed if (one.sha256, one.rows) != (None, None))
    return _compare(listed, walk(root)) or next(filter(None, faults), None)


class _Malformed(Exception):
    """What is wrong with the manifest's text."""


def _parse(text: bytes) -> list[_Listed]:
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


def _parse_file(file: Any, number: int) -> _Listed:
    path, size, rows, digest = (
        file.get(name) if isinstance(file, dict) else None for name in ("path", "size", "rows", "sha256")
    )
    if not (isinstance(path, str) and path.isprintable() and not {"", ".", ".."} & set(path.split("/"))):
        raise _Malformed(f"file {number} has no path relative to the snapshot")
    if not _is_count(size):
        raise _Malformed(f"{path} has no size in bytes")
    if rows is not None and not _is_count(rows):
        raise _Malformed(f"{path} has rows that are no number")
    if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        raise _Malformed(f"{path} has a sha256 that is not 64 hexadecimal digits")
    return _Listed(path, size, rows, digest)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _compare(listed: Sequence[_Listed], entries: Sequence[Entry]) -> str | None:
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


def _differs(root: str, listed: _Listed, looking: Callable[[str], None]) -> str | None:
    import pyarrow as pa  # late: who only looks at a manifest from outside imports no Arrow
    import pyarrow.parquet as pq

    path = os.path.join(root, listed.path)
    looking(listed.path)
    try:
        if listed.rows is not None and (rows := int(pq.read_metadata(path).num_rows)) != listed.rows:
            return f"{MANIFEST} says {listed.rows} rows for {listed.path}, which has {rows}"
    except pa.ArrowNotImplementedError:
        pass  # the footer is whole; a type that nobody reads is told when the snapshot is opened
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not what is in the file
        return f"{listed.path} cannot be compared with {MANIFEST}: {error}"
    if listed.sha256 is None:
        return None
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            looking(listed.path)
    same = digest.hexdigest() == listed.sha256.lower()
    return None if same else f"{MANIFEST} has another sha256 for {listed.path}"
