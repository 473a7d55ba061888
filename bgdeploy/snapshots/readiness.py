"""Readiness: whether a snapshot folder is complete, from two looks at it or from what it says itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bgdeploy.clock import iso
from bgdeploy.snapshots.files import MARKER, Entry, is_in_table, is_parquet, walk
from bgdeploy.snapshots.manifest import Manifest, look_at_manifest

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
