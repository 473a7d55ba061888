"""Manifest: what an ETL job says its snapshot consists of, compared with what is there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeGuard

from bgdeploy.snapshots.files import MANIFEST, Entry, is_in_table, is_left_out, is_parquet, walk

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
