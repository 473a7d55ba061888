"""Rounds: each check on a thread of its own with a limit, so that none can hang, crash or hide another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from bgdeploy.errors import BgdeployError
from bgdeploy.finding import Check, Finding, unknown

_HANGS = "Something under it hangs, a network disk or a server: look there, then run it again."


class Obstacle(NamedTuple):
    """Why something is not looked at, and what has to be mended first."""

    why: str
    cure: str


@dataclass
class Round:
    """One walk over all checks: why a need is not met, and what hung in a subject."""

    closed: dict[str, Obstacle] = field(default_factory=dict)
    hung: dict[str, Obstacle] = field(default_factory=dict)

    def look_at(self, subject: str, checks: Iterable[Check]) -> Iterator[Finding]:
        """Yield what is found about one subject; what was not looked at is one sentence for each reason."""
        skipped: dict[Obstacle, list[str]] = {}
        for check in checks:
            obstacle = self._obstacle(check)
            found = self._ask(check) if obstacle is None else []
            if obstacle is not None:
                skipped.setdefault(obstacle, []).append(check.title)
            if check.opens and (obstacle is not None or any(one.verdict != "ok" for one in found)):
                self._close(check.opens, obstacle, found)
            yield from found
        for (why, cure), titles in skipped.items():
            what = f"not looked at, since {why}: {', '.join(titles)}"
            yield replace(unknown(what, cure), is_consequence=True)

    def _close(self, opens: str, obstacle: Obstacle | None, found: list[Finding]) -> None:
        """What rests on something closed needs the same cure: that of the first obstacle."""
        cure = _first(opens, found) if obstacle is None else obstacle.cure
        self.closed.setdefault(opens, Obstacle(f"the {opens} cannot be used as it is", cure))

    def _obstacle(self, check: Check) -> Obstacle | None:
        if check.subject in self.hung:
            return self.hung[check.subject]  # the rest of it would hang too
        return next((self.closed[need] for need in check.needs if need in self.closed), None)

    def _ask(self, check: Check) -> list[Finding]:
        found = _await(check)
        if found is not None:
            return found
        why = f"{check.title} did not answer"
        self.hung[check.subject] = Obstacle(why, f"Find out first why {check.title} does not answer.")
        what = f"{check.title}: did not answer within {check.limit:g} s"
        return [unknown(what, f"{_HANGS} {check.left}".rstrip())]


def _first(opens: str, found: list[Finding]) -> str:
    """``First: bgdeploy init``; a cure that is no command stands where it was found."""
    command = next((one.cure for one in found if one.is_command), "")
    return f"First: {command}" if command else f"Mend the {opens} first."


def make_rounds(checks: Iterable[Check]) -> Iterator[Finding]:
    """Yield what each check finds, in order; where there is no answer, that and why."""
    round_ = Round()
    for subject, some in groupby(checks, key=attrgetter("subject")):
        for found in round_.look_at(subject, some):
            yield replace(found, subject=subject)


def _await(check: Check) -> list[Finding] | None:
    """What it found, or None when its time is over; its thread is then left behind."""
    answer: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()
    look = threading.Thread(target=lambda: answer.put(_look(check)), name=check.title, daemon=True)
    look.start()
    try:
        return answer.get(timeout=check.limit)
    except queue.Empty:
        return None
    except KeyboardInterrupt:
        if check.left:
            look.join(check.limit)  # it takes its scratch away first
        raise


def _look(check: Check) -> list[Finding]:
    try:
        return list(check.look())
    except BgdeployError as error:
        return [unknown(f"{check.title}: {error.what}", error.cure)]
    except Exception as error:  # the thread's edge: a check that stumbles must not hide the others
        return [unknown(f"{check.title}: {type(error).__name__}: {error}")]
