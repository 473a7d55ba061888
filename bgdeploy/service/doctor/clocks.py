"""Clocks: this machine's against itself, against what the job table remembers, and against its disk."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from bgdeploy.clock import Clock, iso, monotonic
from bgdeploy.finding import SCRATCH, Check, Finding, error, ok, warning
from bgdeploy.jobs.transitions import events
from bgdeploy.site import Site

SUBJECT = "clock"
_WATCHED, _STEP = 0.2, 0.05  # seconds that both clocks are watched, and may differ by
_LOOKS = 5
_BEHIND, _SKEW = 1.0, 2.0  # seconds behind the newest event; seconds between disk and machine
_SET = "Set this machine's clock and keep it set (chrony, systemd-timesyncd): timedatectl"


def checks(site: Site) -> list[Check]:
    """What is looked at about time; all of it is in seconds since 1970, so zones play no part."""
    return [
        Check(SUBJECT, "pace", partial(find_step, site.clock, monotonic)),
        Check(SUBJECT, "history", partial(find_history, site), needs=("job table",)),
        Check(SUBJECT, "disk", partial(find_skew, site.clock, site.settings.state_dir)),
    ]


def find_step(wall: Clock, steady: Clock) -> Iterator[Finding]:
    """The wall clock goes as fast as the monotonic one, which nobody can set."""
    before = _gap(wall, steady)
    threading.Event().wait(_WATCHED)
    moved = _gap(wall, steady) - before
    if abs(moved) > _STEP:
        what = f"the clock was moved by {moved:+.2f} s within {_WATCHED} s: somebody sets it at this moment"
        yield warning(what, _SET)
    else:
        yield ok(f"it is {iso(wall())}, and the clock goes evenly")


def _gap(wall: Clock, steady: Clock) -> float:
    """Wall clock less monotonic clock, by the tightest of some looks: a busy machine may pause between both."""
    looks = []
    for _ in range(_LOOKS):
        before, now, after = steady(), wall(), steady()
        looks.append((after - before, now - before))
    return min(looks)[1]


def find_history(site: Site) -> Iterator[Finding]:
    """No event of the past lies in the future."""
    with site.store.read() as connection:
        newest = connection.execute(sa.select(sa.func.max(events.c.at))).scalar_one()
    behind = (newest or 0.0) - site.clock()
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


def find_skew(wall: Clock, folder: Path) -> Iterator[Finding]:
    """A file made now has the time of now."""
    if not folder.is_dir():
        return
    with tempfile.NamedTemporaryFile(prefix=SCRATCH, dir=folder) as scratch:
        ahead = round(os.stat(scratch.name).st_mtime - wall(), 2) + 0.0  # never -0.00
    what = f"a file made now in {folder} is {ahead:+.2f} s off this machine's clock"
    yield warning(what, _SET) if abs(ahead) > _SKEW else ok(what)
