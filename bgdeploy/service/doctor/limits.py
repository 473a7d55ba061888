"""Limits of this machine: open files, address space, memory for loads, room for the largest snapshot."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from functools import partial

import psutil
import sqlalchemy as sa

from bgdeploy.config import Settings
from bgdeploy.finding import Check, Finding, error, many, ok, warning
from bgdeploy.jobs.transitions import Row, jobs, title
from bgdeploy.memory import find_whole
from bgdeploy.pipeline.admit import folder_of, open_folder
from bgdeploy.pipeline.claim import find_needs
from bgdeploy.service.customers import capacity_warning
from bgdeploy.site import Site
from bgdeploy.worker.processes import count_workers, find_open

SUBJECT = "limits"
_FILES, _FILES_EACH = 64, 32  # open files of a service, and for each worker: connections, pipes, its child
_MIB = 1 << 20


def checks(site: Site) -> list[Check]:
    """What is looked at of the machine's limits."""
    workers = site.settings.orchestrator.num_workers
    found = [
        Check(
            SUBJECT,
            "open files",
            lambda: [judge_files(workers, resource.getrlimit(resource.RLIMIT_NOFILE)[0])],
        ),
        Check(
            SUBJECT,
            "room for the largest snapshot",
            partial(find_room, site),
            needs=("job table", "target"),
            limit=60.0,
        ),
    ]
    found.append(Check(SUBJECT, "databases to keep", partial(find_capacity, site), needs=("job table",)))
    if site.target.kind == "ladybug":
        found.append(Check(SUBJECT, "address space", find_address_space))
        found.append(Check(SUBJECT, "memory", partial(find_memory, site.settings)))
    return found


def judge_files(workers: int, limit: int) -> Finding:
    """``limit`` is the soft limit; -1 says that there is none."""
    needed = _FILES + _FILES_EACH * workers
    what = f"{'any number of' if limit < 0 else f'{limit:,}'} open files are allowed, {many(workers, 'worker')} may need {needed}"
    if 0 <= limit < needed:
        return error(
            what, f"ulimit -n {4 * needed} in the shell that starts it, or LimitNOFILE= in its unit."
        )
    return ok(what)


def find_capacity(site: Site) -> Iterator[Finding]:
    """All databases that are to be kept fit into ``max_databases``."""
    said, limit = capacity_warning(site, loads=_count_loads(site.settings)), site.settings.max_databases
    if said is not None:
        yield warning(said, "Raise orchestrator.max_databases, or lower keep_databases.")
    elif limit is None:
        yield ok("max_databases sets no limit")
    else:
        yield ok(f"all databases that are to be kept fit into max_databases, which is {limit}")


def find_address_space() -> Iterator[Finding]:
    """The engine keeps at least 16 GiB of addresses for each open database, which costs no memory."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        yield ok("address space is not limited")
        return
    what = f"address space is limited to {limit // _MIB:,} MiB; each open database takes 16,384 MiB of it or more"
    yield (error if limit < 17 << 30 else warning)(what, "ulimit -v unlimited in the shell that starts it.")


def find_memory(settings: Settings) -> Iterator[Finding]:
    """The pools of all loads at once, against what this machine or its container has."""
    memory = psutil.virtual_memory()
    workers = _count_loads(settings)
    yield judge_memory(settings, workers=workers, whole=find_whole(memory.total), free=memory.available)


def _count_loads(settings: Settings) -> int:
    """Loads there may be at once: of the processes that run now, or of the one that will."""
    orchestrator = settings.orchestrator
    _, running = count_workers(find_open(settings.database_path), orchestrator.num_workers)
    workers = running or orchestrator.num_workers
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


def find_room(site: Site) -> Iterator[Finding]:
    """What loading the largest known snapshot would take now, by the sums a load is started by."""
    largest = _find_largest(site)
    if largest is None:
        yield ok("no snapshot is known yet")
        return
    snapshot = open_folder(site, largest, largest["fingerprint"] or "")
    for need in find_needs(site, largest, snapshot):
        what = f"the largest snapshot, {title(largest)}: {need.sum}"
        yield ok(what) if need.met else warning(what, "Make room before the next one of its size comes.")


def _find_largest(site: Site) -> Row | None:
    by_size = sa.select(jobs).where(jobs.c.bytes_expected.is_not(None))
    by_size = by_size.order_by(jobs.c.bytes_expected.desc()).limit(100)  # the largest may be gone from disk
    with site.store.read() as connection:
        rows = connection.execute(by_size).mappings().all()
    return next((row for row in rows if folder_of(site, row).is_dir()), None)
