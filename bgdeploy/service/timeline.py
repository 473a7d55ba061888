"""Where a job's time went, waiting apart from work, and how far the running loads are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bgdeploy.jobs import ledger
from bgdeploy.jobs.ledger import Progress, of_load, of_tables
from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import jobs, select_jobs, title
from bgdeploy.site import Site

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
            # Versions up to revision 0008 of the job table wrote an event's sentence alone, without fields.
            fields = event["fields"]
            step = fields["step"] if fields else str(event["message"]).rpartition(": ")[2]
            if step in _WORK:
                yield (_WORK[step], event["at"], True)


@dataclass(frozen=True)
class Load:
    """One running load: the job as people call it, all of it, and its tables in load order."""

    title: str
    step: str | None
    whole: Progress
    tables: list[Progress]


def running_loads(site: Site) -> list[Load]:
    """Return every running load, by whatever process that shares the job table, oldest job first."""
    now = site.clock()
    with site.store.read() as connection:
        found = [
            (job, ledger.read(connection, job["id"], job["database"]))
            for job in select_jobs(connection, jobs.c.state == State.LOADING, order=(jobs.c.id,))
        ]
    return [
        Load(
            title(job), job["step"], of_load(groups, job["fence"], now), of_tables(groups, job["fence"], now)
        )
        for job, groups in found
    ]
