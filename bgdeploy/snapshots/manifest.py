"""Manifest: what an ETL job says its snapshot consists of, compared with what is there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeGuard

import pyarrow as pa
import pyarrow.parquet as pq

from bgdeploy.errors import NotReadable
from bgdeploy.snapshots.files import MANIFEST, Entry, is_in_table, is_left_out, is_parquet

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class Listed:
    """One file as the manifest has it; ``rows`` and ``sha256`` may be left out there."""

    path: str
    size: int
    rows: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The manifest of a snapshot, compared with names and sizes only.

    ``fault`` says what does not match, else None. ``contents`` are the files whose rows or
    checksum the manifest names too, which only reading them can confirm. ``digest`` tells one
    text of the manifest from another. ``changed_at``: when its file was last written or touched, in
    seconds since 1970, or None where it could not be read and nothing can be said.
    """

    digest: str
    fault: str | None
    contents: tuple[Listed, ...] = ()
    changed_at: float | None = None


def read_manifest(root: str, entries: Sequence[Entry]) -> Manifest | None:
    """Return the manifest below ``root`` compared with the files found, or None where there is none."""
    path = os.path.join(root, MANIFEST)
    try:
        status = os.stat(path)
        at = max(status.st_mtime, status.st_ctime)
        if not stat.S_ISREG(status.st_mode):
            return Manifest("", f"{MANIFEST} is not a file", changed_at=at)  # a pipe would never end
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        return Manifest("", f"{MANIFEST} cannot be read: {error.strerror or error}")
    digest = hashlib.sha256(text).hexdigest()
    try:
        listed = _parse(text)
    except _Malformed as error:
        return Manifest(digest, f"{MANIFEST} is malformed: {error}", changed_at=at)
    contents = tuple(one for one in listed if one.sha256 is not None or one.rows is not None)
    return Manifest(digest, _compare(listed, entries), contents, at)


def compare_contents(root: str, claim: str, contents: tuple[Listed, ...]) -> str | None:
    """Return the first file whose rows or checksum differ from the manifest, or None when all agree.

    Reads every file once; what came out is remembered for as long as ``claim`` (files and manifest
    as they were seen) is the same. Raises NotReadable where a disk did not answer, which is asked again.
    """
    try:
        return _compare_once(root, claim, contents)
    except OSError as error:
        path = os.path.relpath(error.filename, root) if error.filename else "a file"
        what = f"{path} cannot be compared with {MANIFEST}: {error.strerror or error}"
        raise NotReadable(what) from error


@lru_cache(maxsize=256)
def _compare_once(root: str, claim: str, contents: tuple[Listed, ...]) -> str | None:
    return next((fault for one in contents if (fault := _differs(root, one)) is not None), None)


def _differs(root: str, listed: Listed) -> str | None:
    path = os.path.join(root, listed.path)
    try:
        if listed.rows is not None and (rows := _count_rows(path)) != listed.rows:
            return f"{MANIFEST} says {listed.rows} rows for {listed.path}, which has {rows}"
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not what is in the file
        return f"{listed.path} cannot be compared with {MANIFEST}: {error}"
    if listed.sha256 is not None and _digest(path) != listed.sha256.lower():
        return f"{MANIFEST} has another sha256 for {listed.path}"
    return None


def _count_rows(path: str) -> int:
    return int(pq.read_metadata(path).num_rows)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
