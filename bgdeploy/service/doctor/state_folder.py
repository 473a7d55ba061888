"""The state folder: room, rights, and what lies in it that should not."""

from __future__ import annotations

import glob
import os
import pwd
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bgdeploy.durable import is_open_to_others
from bgdeploy.finding import SCRATCH, Check, Finding, error, ok, shorten, warning
from bgdeploy.jobs.migrate import files
from bgdeploy.jobs.store import PLENTY, SIZE
from bgdeploy.service.doctor import disks
from bgdeploy.site import Site

SUBJECT = "state folder"
_MIB = 1 << 20
_TIGHT, _FEW = 0.05, 1000  # share of a disk, and files on it, that are little to have left
_FOLDERS = ("databases", "builds", "aliases", "trash", "scratch")
# What bgdeploy keeps in it; whatever its job table is called.
_TABLE = r"(-wal|-shm|-journal|\.migrate\.lock|\.backup-\w+-\w+)?"


def checks(site: Site) -> list[Check]:
    """What is looked at in the folder that holds everything of bgdeploy's own."""
    folder, table = site.settings.state_dir, site.settings.database_path
    return [
        Check(SUBJECT, "rights", partial(find_rights, folder, table)),
        Check(SUBJECT, "privacy", partial(find_open_files, folder, table)),
        Check(SUBJECT, "room", partial(find_room, folder, table.parent)),
        Check(SUBJECT, "file system", partial(find_kind, folder)),
        Check(SUBJECT, "what does not belong there", partial(find_strangers, folder, table)),
    ]


def find_rights(folder: Path, table: Path) -> Iterator[Finding]:
    """This user may write wherever bgdeploy has to."""
    if not folder.is_dir():
        yield warning(f"{folder} does not exist yet", "bgdeploy init")
        return
    places = [folder, table.parent, table, *(folder / name for name in _FOLDERS)]
    closed = sorted({str(one) for one in places if one.exists() and not _is_open(one)})
    if closed:
        cure = f"Run it as the user who owns them, or: chown -R {_whoami()} {folder}"
        yield error(f"the user {_whoami()} may not write to {', '.join(closed)}", cure)
    else:
        yield ok(f"the user {_whoami()} may write to {folder}")


def find_open_files(folder: Path, table: Path) -> Iterator[Finding]:
    """Nobody else may read the job table and its copies, or lock them or the aliases; each start closes what is ours."""
    copies = sorted(table.parent.glob(f"{glob.escape(table.name)}.backup-*"))
    places = [*files(table), *copies, folder / "aliases" / ".lock"]
    found = [
        warning(f"{place} may be opened by other users, who can lock or read it", f"chmod 600 {place}")
        for place in places
        if is_open_to_others(place)
    ]
    yield from found
    if not found:
        yield ok("nobody else may read or lock the job table, or lock the aliases")


def _is_open(place: Path) -> bool:
    return os.access(place, os.R_OK | os.W_OK | (os.X_OK if place.is_dir() else 0))


def _whoami() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def find_room(folder: Path, beside: Path) -> Iterator[Finding]:
    """Bytes and files that the disks of databases and job table still take, and the reserve."""
    for place in sorted({folder, beside}):
        if place.is_dir():
            yield _judge_room(place, os.statvfs(place))
    if beside.is_dir():
        yield _judge_reserve(beside)


def _judge_reserve(folder: Path) -> Finding:
    what = f"the reserve of {SIZE // _MIB} MiB, given up for a rollback on a full disk,"
    if (folder / "ballast").exists():
        return ok(f"{what} is there")
    cure = "Make room; a running bgdeploy serve makes it again at its next scan."
    if shutil.disk_usage(folder).free < PLENTY:
        return warning(f"{what} was given up", cure)
    return ok(f"{what} is made by the next scan of bgdeploy serve")


def _judge_room(place: Path, disk: os.statvfs_result) -> Finding:
    free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    what = f"{free / _MIB:,.0f} MiB of {whole / _MIB:,.0f} MiB are free under {place}"
    if disk.f_files:
        what += f", and {disk.f_favail:,} files"
    cure = "Make room, lower keep_databases, or move state_dir to a larger disk."
    if free < SIZE or (disk.f_files and not disk.f_favail):
        return error(what, cure)
    if free < _TIGHT * whole or (disk.f_files and disk.f_favail < _FEW):
        return warning(what, cure)
    return ok(what)


def find_kind(folder: Path) -> Iterator[Finding]:
    """Databases and aliases need a disk that stays; job table and locks are judged apart."""
    kind = disks.read_kind(folder)
    cure = "Set state_dir to a folder on a disk of this host."
    if disks.is_shared(kind):
        what = f"{folder} lies on {kind}, where locks on builds and aliases may not reach other hosts"
        yield warning(what, cure)
    elif end := disks.find_end(kind):
        yield warning(f"{folder} lies on {kind}, which {end}", cure)
    else:
        yield ok(f"{folder} lies on {kind or 'a disk of a kind that the kernel does not tell'}")


def find_strangers(folder: Path, table: Path) -> Iterator[Finding]:
    """Files that bgdeploy did not make, and scratch of a doctor that was killed."""
    if not folder.is_dir():
        return
    known = [*map(re.escape, (*_FOLDERS, "ballast")), r"\.ballast\.\d+"]
    if table.parent == folder:
        known.append(re.escape(table.name) + _TABLE)
    ours = re.compile("|".join(known))
    strange = sorted(name for name in os.listdir(folder) if not ours.fullmatch(name))
    yield from shorten([_judge_stranger(folder / name) for name in strange], f"ls -A {folder}")
    if not strange:
        yield ok(f"nothing lies in {folder} that does not belong there")


def _judge_stranger(place: Path) -> Finding:
    if place.name.startswith(SCRATCH):
        what = f"{place} is scratch of a bgdeploy doctor that runs now, or that was killed"
        return warning(what, f"When none runs: rm -r {place}")
    return warning(f"{place} is not bgdeploy's", "It is left alone; remove it when you know what it is.")
