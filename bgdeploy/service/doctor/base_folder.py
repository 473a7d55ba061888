"""The base folder: whether snapshots can be seen, which are skipped, and which wait for what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from bgdeploy.clock import iso
from bgdeploy.errors import NotReadable
from bgdeploy.finding import Check, Finding, error, many, ok, shorten, warning
from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import customers, jobs, select_jobs, title
from bgdeploy.site import Site
from bgdeploy.snapshots.folders import list_customers, list_timestamps

SUBJECT = "base folder"
_SKEW = 2.0  # seconds a file's time may lie ahead of the clock


@dataclass
class Seen:
    """What one walk over the base folder found; filled by the first check, read by those after it."""

    snapshots: dict[str, frozenset[int]] = field(default_factory=dict)  # customer -> timestamps
    skipped: list[tuple[str, str]] = field(default_factory=list)  # name, reason


def checks(site: Site) -> list[Check]:
    """What is looked at on the side of the snapshots; no file of theirs is opened."""
    base, seen = site.settings.dataset.base_path, Seen()
    opened, known = (SUBJECT,), (SUBJECT, "job table")
    return [
        Check(SUBJECT, "listing", partial(find_snapshots, site, seen), opens=SUBJECT, limit=60.0),
        Check(SUBJECT, "skipped", partial(find_skipped, seen), needs=opened),
        Check(SUBJECT, "future", partial(find_future, site, seen), needs=opened),
        Check(SUBJECT, "times", partial(find_skew, site, base), needs=opened),
        Check(SUBJECT, "not found yet", partial(find_unscanned, site, seen), needs=known, limit=60.0),
        Check(SUBJECT, "gone", partial(find_gone, site, seen), needs=known),
        Check(SUBJECT, "waiting", partial(find_waiting, site), needs=known),
    ]


def find_snapshots(site: Site, seen: Seen) -> Iterator[Finding]:
    """Every customer's folder can be listed."""
    base = site.settings.dataset.base_path
    try:
        found = list_customers(base)
    except NotReadable as failure:
        yield error(failure.what, failure.cure)
        return
    for one in found:
        if one.skipped:
            seen.skipped.append((one.name, one.skipped))
        else:
            yield from _list_customer(site, one.path, seen)
    count = sum(len(timestamps) for timestamps in seen.snapshots.values())
    yield ok(f"{base} holds {many(count, 'snapshot')} of {many(len(seen.snapshots), 'customer')}")


def _list_customer(site: Site, folder: Path, seen: Seen) -> Iterator[Finding]:
    try:
        listing = list_timestamps(folder, now=site.clock())
    except NotReadable as failure:
        yield error(failure.what, failure.cure)
        return
    seen.snapshots[folder.name] = listing.timestamps
    seen.skipped += [(f"{folder.name}/{one.name}", one.skipped or "") for one in listing.skipped]


def find_skipped(seen: Seen) -> Iterator[Finding]:
    """Folders that are never loaded, each with its reason."""
    cure = "Rename it as <customer>/<seconds since 1970>, or remove it."
    found = [warning(f"{name} is skipped: {reason}", cure) for name, reason in seen.skipped]
    yield from shorten(found, "bgdeploy scan --once names them all.") or [ok("no folder is skipped")]


def find_future(site: Site, seen: Seen) -> Iterator[Finding]:
    """Timestamps up to tomorrow are taken; while one is live, nothing with the time of today follows."""
    now = site.clock()
    ahead = sorted(
        (timestamp, name) for name, some in seen.snapshots.items() for timestamp in some if timestamp > now
    )
    if not ahead:
        yield ok("no timestamp lies in the future")
    for timestamp, name in ahead[-1:]:
        what = (
            f"{many(len(ahead), 'snapshot')} have a timestamp in the future, the latest {name}/{timestamp} "
            f"({iso(timestamp)}); what is dropped before then never goes live after it"
        )
        yield warning(
            what,
            "Set the clock of the ETL job; bgdeploy switch <customer> --to <database> brings an older one back.",
        )


def find_skew(site: Site, base: Path) -> Iterator[Finding]:
    """A disk whose clock is ahead keeps snapshots from settling."""
    ahead = base.stat().st_mtime - site.clock()
    if ahead > _SKEW:
        what = f"{base} was changed {ahead:,.0f} s in the future, by this machine's clock"
        yield warning(what, "Set the clock of this machine and of the file server alike.")
    else:
        yield ok(f"{base} was changed {-ahead:,.0f} s ago, by this machine's clock")


def find_unscanned(site: Site, seen: Seen) -> Iterator[Finding]:
    """Snapshots that no scan has found; of a customer that a person removed none is wanted."""
    with site.store.read() as connection:
        pairs = connection.execute(sa.select(jobs.c.customer, jobs.c.timestamp)).all()
        left = sa.select(customers.c.name).where(customers.c.removed_at.is_not(None))
        removed = set(connection.execute(left).scalars().all())
    known: dict[str, set[int]] = {}
    for name, timestamp in pairs:
        known.setdefault(name, set()).add(timestamp)
    new = [(name, len(some - known.get(name, set()))) for name, some in sorted(seen.snapshots.items())]
    new = [(name, number) for name, number in new if name not in removed]
    count = sum(number for _, number in new)
    if count:
        names = ", ".join(name for name, number in new if number)
        what = f"{many(count, 'snapshot')} not in the job table yet (of {names[:200]})"
        yield warning(what, "No scan has seen them: bgdeploy serve, or bgdeploy scan --once from cron.")
    else:
        yield ok("every snapshot has its job")


def find_gone(site: Site, seen: Seen) -> Iterator[Finding]:
    """Customers whose folder is not there any more; nothing of theirs is changed."""
    with site.store.read() as connection:
        staying = sa.select(customers.c.name).where(customers.c.removed_at.is_(None))
        names = connection.execute(staying).scalars().all()
    gone = sorted(set(names) - set(seen.snapshots) - {name for name, _ in seen.skipped})
    if gone:
        what = f"no folder is there of {many(len(gone), 'known customer')}: {', '.join(gone)[:200]}"
        yield warning(
            what,
            "Mount or restore them; what is live stays live. For good: bgdeploy customers remove <customer>",
        )
    else:
        yield ok(f"every one of {many(len(names), 'known customer')} has a folder")


def find_waiting(site: Site) -> Iterator[Finding]:
    """Snapshots that are not complete, each with what is missing."""
    with site.store.read() as connection:
        rows = select_jobs(connection, jobs.c.state == State.DISCOVERED, order=(jobs.c.id,))
    cure = "It is looked at again by itself; complete the folder, _SUCCESS last."
    found = [warning(f"{title(row)} waits: {row['reason']}", cure) for row in rows]
    yield from shorten(found, "bgdeploy jobs list --state discovered") or [ok("no snapshot is incomplete")]
