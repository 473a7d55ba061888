"""What this machine gives: room and rights in the state folder, clocks that go evenly, and limits that suffice.

The kind of a file system is read from the kernel's table of mounts (``proc_pid_mountinfo(5)``). All times are seconds
since 1970, so zones play no part.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import resource
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import sqlalchemy as sa

from bgdeploy.actions import Hint, do
from bgdeploy.clock import Clock, iso, monotonic
from bgdeploy.config import Settings
from bgdeploy.durable import is_open_to_others
from bgdeploy.finding import SCRATCH, Finding, error, many, ok, shorten, warning
from bgdeploy.jobs.migrate import files
from bgdeploy.jobs.store import PLENTY, SIZE
from bgdeploy.jobs.transitions import events, jobs, title
from bgdeploy.memory import find_whole
from bgdeploy.pipeline.admit import folder_of, open_folder
from bgdeploy.pipeline.claim import find_needs
from bgdeploy.service.customers import capacity_warning
from bgdeploy.service.doctor import Visit, check

MOUNTS = Path("/proc/self/mountinfo")
# Their locks or their shared memory reach one host at a time, or nobody.
_SHARED = ("nfs", "cifs", "smb", "fuse", "9p", "afs", "ceph", "gluster", "lustre", "vboxsf", "virtiofs")
_FLEETING = {
    "tmpfs": "lies in memory and is gone after a restart of the machine",
    "ramfs": "lies in memory and is gone after a restart of the machine",
    "overlay": "is a container's own layer and goes with the container",
}
_MIB = 1 << 20
_TIGHT, _FEW = 0.05, 1000  # share of a disk, and files on it, that are little to have left
_FOLDERS = ("databases", "builds", "aliases", "trash", "scratch")
# What bgdeploy keeps in the state folder; whatever its job table is called.
_TABLE = r"(-wal|-shm|-journal|\.migrate\.lock|\.backup-\w+-\w+)?"
_WATCHED, _STEP = 0.2, 0.05  # seconds that both clocks are watched, and may differ by
_BEHIND, _SKEW = 1.0, 2.0  # seconds behind the newest event; seconds between disk and machine
_SET = "Set this machine's clock and keep it set (chrony, systemd-timesyncd): timedatectl"
_FILES, _FILES_EACH = 64, 32  # open files of a service, and for each worker: connections, pipes, its child


# State folder


@check("state folder", "rights")
def find_rights(visit: Visit) -> Iterator[Finding]:
    """This user may write wherever bgdeploy has to."""
    folder, table = visit.site.settings.state_dir, visit.site.settings.database_path
    if not folder.is_dir():
        yield warning(f"{folder} does not exist yet", Hint(do("init")))
        return
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    closed = set()
    for place in (folder, table.parent, table, *(folder / name for name in _FOLDERS)):
        needed = os.R_OK | os.W_OK | (os.X_OK if place.is_dir() else 0)
        if place.exists() and not os.access(place, needed):
            closed.add(str(place))
    if closed:
        cure = f"Run it as the user who owns them, or: chown -R {user} {folder}"
        yield error(f"the user {user} may not write to {', '.join(sorted(closed))}", cure)
    else:
        yield ok(f"the user {user} may write to {folder}")


@check("state folder", "privacy")
def find_open_files(visit: Visit) -> Iterator[Finding]:
    """Nobody else may read the job table and its copies, or lock them or the aliases; each start closes what is ours."""
    table = visit.site.settings.database_path
    copies = sorted(table.parent.glob(f"{glob.escape(table.name)}.backup-*"))
    places = [*files(table), *copies, visit.site.settings.state_dir / "aliases" / ".lock"]
    found = [
        warning(f"{place} may be opened by other users, who can lock or read it", f"chmod 600 {place}")
        for place in places
        if is_open_to_others(place)
    ]
    yield from found or [ok("nobody else may read or lock the job table, or lock the aliases")]


@check("state folder", "room")
def find_space(visit: Visit) -> Iterator[Finding]:
    """Bytes and files that the disks of databases and job table still take, and the reserve."""
    beside = visit.site.settings.database_path.parent
    for place in sorted({visit.site.settings.state_dir, beside}):
        if not place.is_dir():
            continue
        disk = os.statvfs(place)
        free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        what = f"{free / _MIB:,.0f} MiB of {whole / _MIB:,.0f} MiB are free under {place}"
        if disk.f_files:
            what += f", and {disk.f_favail:,} files"
        cure = "Make room, lower keep_databases, or move state_dir to a larger disk."
        if free < SIZE or (disk.f_files and not disk.f_favail):
            yield error(what, cure)
        elif free < _TIGHT * whole or (disk.f_files and disk.f_favail < _FEW):
            yield warning(what, cure)
        else:
            yield ok(what)
    if not beside.is_dir():
        return
    what = f"the reserve of {SIZE // _MIB} MiB, given up for a rollback on a full disk,"
    if (beside / "ballast").exists():
        yield ok(f"{what} is there")
    elif shutil.disk_usage(beside).free < PLENTY:
        cure = "Make room; a running bgdeploy serve makes it again at its next scan."
        yield warning(f"{what} was given up", cure)
    else:
        yield ok(f"{what} is made by the next scan of bgdeploy serve")


@check("state folder", "file system")
def find_file_system(visit: Visit) -> Iterator[Finding]:
    """Databases and aliases need a disk that stays; job table and its locks are judged apart."""
    folder = visit.site.settings.state_dir
    kind = read_kind(folder)
    cure = "Set state_dir to a folder on a disk of this host."
    if is_shared(kind):
        what = f"{folder} lies on {kind}, where locks on builds and aliases may not reach other hosts"
        yield warning(what, cure)
    elif end := find_end(kind):
        yield warning(f"{folder} lies on {kind}, which {end}", cure)
    else:
        yield ok(f"{folder} lies on {kind or 'a disk of a kind that the kernel does not tell'}")


@check("state folder", "what does not belong there")
def find_strangers(visit: Visit) -> Iterator[Finding]:
    """Files that bgdeploy did not make, and scratch of a doctor that was killed."""
    folder, table = visit.site.settings.state_dir, visit.site.settings.database_path
    if not folder.is_dir():
        return
    known = [*map(re.escape, (*_FOLDERS, "ballast")), r"\.ballast\.\d+"]
    if table.parent == folder:
        known.append(re.escape(table.name) + _TABLE)
    ours = re.compile("|".join(known))
    found = []
    for name in sorted(os.listdir(folder)):
        place = folder / name
        if name.startswith(SCRATCH):
            what = f"{place} is scratch of a bgdeploy doctor that runs now, or that was killed"
            found.append(warning(what, f"When none runs: rm -r {place}"))
        elif not ours.fullmatch(name):
            cure = "It is left alone; remove it when you know what it is."
            found.append(warning(f"{place} is not bgdeploy's", cure))
    yield from shorten(found, f"ls -A {folder}") or [
        ok(f"nothing lies in {folder} that does not belong there")
    ]


# Disks


def read_kind(place: Path) -> str:
    """The kind of file system under a place, or under the nearest folder above it that exists; raises OSError."""
    return find_kind(MOUNTS.read_text(encoding="utf-8", errors="replace"), os.path.realpath(place))


def find_kind(mounts: str, place: str) -> str:
    """Return the kind of file system under an absolute path, given the text of ``mountinfo``.

    The longest mount point above it counts, and of several on one point the last; empty where
    nothing fits.
    """
    found = ("", "")
    for line in mounts.splitlines():
        front, _, back = line.partition(" - ")
        fields, behind = front.split(), back.split()
        if len(fields) < 5 or not behind:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        is_above = point == "/" or place == point or place.startswith(f"{point}/")
        if is_above and len(point) >= len(found[0]):
            found = (point, behind[0])
    return found[1]


def is_shared(kind: str) -> bool:
    """True for a file system that several hosts see, or that a program stands behind."""
    return kind.startswith(_SHARED)


def find_end(kind: str) -> str | None:
    """How a file system of this kind comes to its end by itself, or None."""
    return _FLEETING.get(kind)


# Clock


@check("clock", "pace")
def find_step(visit: Visit) -> Iterator[Finding]:
    """The wall clock goes as fast as the monotonic one, which nobody can set."""
    yield watch(visit.site.clock, monotonic)


def watch(wall: Clock, steady: Clock) -> Finding:
    """Whether one clock moved against the other while both were watched."""

    def gap() -> float:  # by the tightest of some looks: a busy machine may pause between both
        looks = []
        for _ in range(5):
            before, now, after = steady(), wall(), steady()
            looks.append((after - before, now - before))
        return min(looks)[1]

    first = gap()
    threading.Event().wait(_WATCHED)
    moved = gap() - first
    if abs(moved) > _STEP:
        what = f"the clock was moved by {moved:+.2f} s within {_WATCHED} s: somebody sets it at this moment"
        return warning(what, _SET)
    return ok(f"it is {iso(wall())}, and the clock goes evenly")


@check("clock", "history", needs=("job table",))
def find_history(visit: Visit) -> Iterator[Finding]:
    """No event of the past lies in the future."""
    with visit.site.store.read() as connection:
        newest = connection.execute(sa.select(sa.func.max(events.c.at))).scalar_one()
    behind = (newest or 0.0) - visit.site.clock()
    if behind > _BEHIND:
        what = (
            f"the clock stands {behind:,.0f} s before the newest event of the job table ({iso(newest)}); "
            "leases last longer than they should, and new snapshots may look older than what is live"
        )
        yield error(what, _SET)
    elif newest:
        yield ok(f"the newest event of the job table is {-behind:,.0f} s old")
    else:
        yield ok("the job table has no event yet")


@check("clock", "disk")
def find_skew(visit: Visit) -> Iterator[Finding]:
    """A file made now has the time of now."""
    folder = visit.site.settings.state_dir
    if not folder.is_dir():
        return
    with tempfile.NamedTemporaryFile(prefix=SCRATCH, dir=folder) as scratch:
        ahead = round(os.stat(scratch.name).st_mtime - visit.site.clock(), 2) + 0.0  # never -0.00
    what = f"a file made now in {folder} is {ahead:+.2f} s off this machine's clock"
    yield warning(what, _SET) if abs(ahead) > _SKEW else ok(what)


# Limits


@check("limits", "open files")
def find_files(visit: Visit) -> Iterator[Finding]:
    """All workers may open what they need; the soft limit counts, and -1 says that there is none."""
    workers, limit = (
        visit.site.settings.orchestrator.num_workers,
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )
    needed = _FILES + _FILES_EACH * workers
    what = f"{'any number of' if limit < 0 else f'{limit:,}'} open files are allowed, {many(workers, 'worker')} may need {needed}"
    if 0 <= limit < needed:
        yield error(what, f"ulimit -n {4 * needed} in the shell that starts it, or LimitNOFILE= in its unit.")
    else:
        yield ok(what)


@check("limits", "room for the largest snapshot", needs=("job table", "target"), limit=60.0)
def find_room(visit: Visit) -> Iterator[Finding]:
    """What loading the largest known snapshot would take now, by the sums a load is started by."""
    site = visit.site
    by_size = sa.select(jobs).where(jobs.c.bytes_expected.is_not(None))
    by_size = by_size.order_by(jobs.c.bytes_expected.desc()).limit(100)  # the largest may be gone from disk
    with site.store.read() as connection:
        rows = connection.execute(by_size).mappings().all()
    largest = next((row for row in rows if folder_of(site, row).is_dir()), None)
    if largest is None:
        yield ok("no snapshot is known yet")
        return
    snapshot = open_folder(site, largest, largest["fingerprint"] or "")
    for need in find_needs(site, largest, snapshot):
        what = f"the largest snapshot, {title(largest)}: {need.sum}"
        yield ok(what) if need.met else warning(what, "Make room before the next one of its size comes.")


@check("limits", "databases to keep", needs=("job table",))
def find_capacity(visit: Visit) -> Iterator[Finding]:
    """All databases that are to be kept fit into ``max_databases``."""
    said, limit = capacity_warning(visit.site, loads=_count_loads(visit)), visit.site.settings.max_databases
    if said is not None:
        yield warning(said, "Raise orchestrator.max_databases, or lower keep_databases.")
    elif limit is None:
        yield ok("max_databases sets no limit")
    else:
        yield ok(f"all databases that are to be kept fit into max_databases, which is {limit}")


@check("limits", "address space", embedded=True)
def find_address_space(visit: Visit) -> Iterator[Finding]:
    """The embedded engine keeps at least 16 GiB of addresses for each open database, which costs no memory."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        yield ok("address space is not limited")
        return
    what = f"address space is limited to {limit // _MIB:,} MiB; each open database takes 16,384 MiB of it or more"
    yield (error if limit < 17 << 30 else warning)(what, "ulimit -v unlimited in the shell that starts it.")


@check("limits", "memory", embedded=True)
def find_memory(visit: Visit) -> Iterator[Finding]:
    """The embedded engine's pools of all loads at once, against what this machine or its container has."""
    memory, workers = psutil.virtual_memory(), _count_loads(visit)
    whole = find_whole(memory.total)
    yield judge_memory(visit.site.settings, workers=workers, whole=whole, free=memory.available)


def _count_loads(visit: Visit) -> int:
    """Loads there may be at once: of the processes that run now, or of the one that will."""
    orchestrator = visit.site.settings.orchestrator
    workers = visit.workers or orchestrator.num_workers
    return min(workers, orchestrator.max_concurrent_loads or workers)


def judge_memory(settings: Settings, *, workers: int, whole: int, free: int) -> Finding:
    """Compare in bytes; ``whole`` is what may ever be had, ``free`` what is to be had now."""
    pool = settings.ladybug.buffer_pool_mb
    needed = workers * pool * _MIB
    what = (
        f"{many(workers, 'worker')} x {pool:,} MiB of buffer_pool_mb = {workers * pool:,} MiB of memory; "
        f"{whole // _MIB:,} MiB are there, {min(free, whole) // _MIB:,} MiB of them free"
    )
    cure = "Lower ladybug.buffer_pool_mb or orchestrator.num_workers."
    if needed > whole:
        return error(what, cure)
    return warning(what, f"{cure} Or see what else takes memory.") if needed > min(free, whole) else ok(what)
