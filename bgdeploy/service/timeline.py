"""Timeline: where a job's time went, from its events; waiting apart from work. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bgdeploy.jobs.states import State

Event = Mapping[Any, Any]  # a row of the history: ``kind``, ``fields``, and ``at`` in seconds since 1970
_ENDS = (State.SWITCHED, State.CLEANED, State.FAILED)  # nothing is waited for any more
_WORK = {"closed": "verifying", "verified": "publishing"}  # what follows a step of the load


@dataclass(frozen=True)
class Span:
    """One stretch of a job's life; ``end`` is None while it lasts, ``work`` is False for waiting."""

    name: str
    start: float
    end: float | None
    work: bool


def spans(events: Sequence[Event]) -> list[Span]:
    """Return the stretches between two moves of a job, oldest first; a load is told apart by its steps."""
    opened = list(_openings(events))
    ends = [*(start for _, start, _ in opened[1:]), None]
    found = [Span(name, start, end, work) for (name, start, work), end in zip(opened, ends, strict=False)]
    return [span for span in found if span.name]


def _openings(events: Sequence[Event]) -> Iterator[tuple[str, float, bool]]:
    state = ""
    for event in events:
        if event["target"] is not None:
            state = str(event["target"])
            yield ("" if state in _ENDS else state, event["at"], state == State.LOADING)
        elif event["kind"] == "load.step" and state == State.LOADING:
            step = event["fields"]["step"] if event["fields"] else _step_of_old(event)
            if step in _WORK:
                yield (_WORK[step], event["at"], True)


def _step_of_old(event: Event) -> str:
    """The step in an event without fields: versions up to revision 0008 of the job table wrote its sentence alone."""
    return str(event["message"]).rpartition(": ")[2]
