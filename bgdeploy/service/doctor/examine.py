"""Run the checks, subject by subject: none can hang, crash or hide another.

Each runs on a thread of its own with a limit, since a dead disk or server can be waited for without end; that thread is
then left behind. What hangs closes the rest of its subject, so that it is waited for once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bgdeploy.actions import Hint
from bgdeploy.clock import Clock, wall
from bgdeploy.config import Settings
from bgdeploy.errors import BgdeployError, StoreError
from bgdeploy.finding import Check, Finding, unknown
from bgdeploy.jobs.store import looking_into
from bgdeploy.jobs.transitions import databases
from bgdeploy.service.doctor import CHECKS, Visit, data, host, table  # noqa: F401 - each adds its checks
from bgdeploy.site import Site
from bgdeploy.targets import open_target


def examine(
    file: Path | None, overrides: Mapping[str, Any], *, try_rights: bool = False, clock: Clock = wall
) -> Iterator[Finding]:
    """Yield what is found, subject by subject; never raises, and leaves everything as it was."""
    kept: list[Settings] = []
    yield from make_rounds([Check("configuration", "faults", lambda: data.read(file, overrides, kept))])
    if not kept:
        why = "nothing else was looked at: it is not known where everything is"
        yield Finding("configuration", "unknown", why, "Mend the configuration first.")
        return
    with looking(kept[0], clock) as site:
        yield from make_rounds(find_checks(site, try_rights=try_rights))


@contextmanager
def looking(settings: Settings, clock: Clock = wall) -> Iterator[Site]:
    """An installation to look at: nothing is made, bound, migrated or connected."""
    with looking_into(settings.database_path) as store:
        yield Site(settings, store, open_target(settings), "doctor", clock)


def find_checks(site: Site, *, try_rights: bool = False) -> list[Check]:
    """All checks; those of the target stand where what they open is needed next."""

    def owned() -> dict[str, int]:
        kept = sa.select(databases.c.name, databases.c.job_id).where(databases.c.dropped_at.is_(None))
        try:
            with site.store.read() as connection:
                return {row["name"]: row["job_id"] for row in connection.execute(kept).mappings().all()}
        except sa.exc.SQLAlchemyError as error:  # such as a table that is missing
            raise StoreError(f"The job table {site.store.path} cannot be read ({error}).") from error

    visit, found = Visit(site), list[Check]()
    for subject, makers in CHECKS.items():
        if subject == "aliases":
            found += site.target.checks(owned, try_rights=try_rights)
        found += [one for make in makers for one in make(visit)]
    return found


def make_rounds(checks: Iterable[Check]) -> Iterator[Finding]:
    """Yield what each check finds, in order; what was not looked at is one sentence for each reason and subject."""
    closed: dict[
        str, tuple[str, str]
    ] = {}  # what a check opens -> why it is not open, and what to mend first
    for subject, some in groupby(checks, key=attrgetter("subject")):
        hung: tuple[str, str] | None = None
        skipped: dict[tuple[str, str], list[str]] = {}
        for check in some:
            found: list[Finding] = []
            obstacle = hung or next((closed[need] for need in check.needs if need in closed), None)
            if obstacle is not None:
                skipped.setdefault(obstacle, []).append(check.title)
            elif (answer := _await(check)) is not None:
                found = answer
            else:
                hung = (
                    f"{check.title} did not answer",
                    f"Find out first why {check.title} does not answer.",
                )
                cure = "Something under it hangs, a network disk or a server: look there, then run it again."
                what = f"{check.title}: did not answer within {check.limit:g} s"
                found = [unknown(what, f"{cure} {check.left}".rstrip())]
            if check.opens and (obstacle is not None or any(one.verdict != "ok" for one in found)):
                # What rests on something closed needs the same cure: that of the first obstacle.
                mend = _first(check.opens, found) if obstacle is None else obstacle[1]
                closed.setdefault(check.opens, (f"the {check.opens} cannot be used as it is", mend))
            yield from (replace(one, subject=subject) for one in found)
        for (why, cure), titles in skipped.items():
            what = f"not looked at, since {why}: {', '.join(titles)}"
            yield Finding(subject, "unknown", what, cure, is_consequence=True)


def _first(opens: str, found: list[Finding]) -> str:
    """``First: bgdeploy init``; a cure that is no command stands where it was found."""
    command = next((one.cure for one in found if one.is_command), "")
    return Hint("First: ", command) if command else f"Mend the {opens} first."


def _await(check: Check) -> list[Finding] | None:
    """What it found, or None when its time is over."""
    answer: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()

    def look() -> None:
        try:
            answer.put(list(check.look()))
        except BgdeployError as error:
            answer.put([unknown(f"{check.title}: {error.what}", error.cure)])
        except Exception as error:  # the thread's edge: a check that stumbles must not hide the others
            answer.put([unknown(f"{check.title}: {type(error).__name__}: {error}")])

    thread = threading.Thread(target=look, name=check.title, daemon=True)
    thread.start()
    try:
        return answer.get(timeout=check.limit)
    except queue.Empty:
        return None
    except KeyboardInterrupt:
        if check.left:
            thread.join(check.limit)  # it takes its scratch away first
        raise
