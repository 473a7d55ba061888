"""Load: a snapshot into a database of its own over Bolt, resumed after any crash at the next batch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bgdeploy.clock import monotonic
from bgdeploy.errors import BuildLocked
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.parquet import find_bad_text
from bgdeploy.snapshots.source import Kind, Snapshot
from bgdeploy.targets.base import Group, Ledger, Ticket
from bgdeploy.targets.groups import Doubt, keep_plan
from bgdeploy.targets.neo4j import schema
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.bolt.batches import Stream, Work, close_streams, open_streams, run_stream
from bgdeploy.targets.neo4j.databases import create, layout_of
from bgdeploy.targets.neo4j.schema import create_keys, explain_misfit

GROUP_ROWS = 1_000_000  # a line of the ledger stands for so many; batches are much smaller
_TELL_EVERY = 1.0  # seconds between two notes of progress in one group


def load(server: Server, ticket: Ticket, snapshot: Snapshot, ledger: Ledger, folder: Path) -> None:
    """Create the database and fill it; ``folder`` is for files made on the way.

    Raises BadInput, TargetFull, TargetAway, BuildLocked, NameTaken or TargetError.
    """
    declared = schema.declared(ticket.settings, snapshot.path)
    ledger.owns(create(server, ticket.database, layout_of(ticket.settings)).created)
    reach("load.created")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        groups = keep_plan(snapshot, ledger, lambda *_: GROUP_ROWS, folder)
    except Doubt as doubt:
        raise BuildLocked(f"{ticket.database} cannot be continued: {doubt}.") from doubt
    width = int(ticket.settings["concurrency"])
    streams = open_streams(server, ticket, snapshot, groups, ledger)
    if streams is not None:
        work = Work(
            server,
            ticket.database,
            ticket.fence,
            snapshot,
            folder,
            int(ticket.settings["batch_rows"]),
            threading.Event(),
        )
        try:
            _fill(work, groups, streams, ledger, width, declared)
        except Misfit as misfit:
            raise explain_misfit(work.database, snapshot, folder, ledger, misfit) from misfit
        except UnicodeDecodeError as error:
            raise find_bad_text(snapshot) or error from error
    ledger.step("closed")


def _fill(
    work: Work,
    groups: Sequence[Group],
    streams: Sequence[Stream],
    ledger: Ledger,
    width: int,
    declared: Sequence[str],
) -> None:
    _run_phase(work, "node", groups, streams, ledger, width)
    create_keys(work.server, work.database, work.snapshot)
    _run_phase(work, "relationship", groups, streams, ledger, width)
    schema.apply(work.server, work.database, declared)
    reach("load.closing")
    close_streams(work.server, work.database, work.fence)


@dataclass
class Phase:
    """All groups of one kind on their way: what runs, and how far each has come."""

    work: Work
    ledger: Ledger
    groups: Mapping[int, Group]
    done: dict[int, int]  # rows committed per group
    news: queue.SimpleQueue[Callable[[], None]] = field(default_factory=queue.SimpleQueue)
    running: int = 0
    told: float = 0.0
    error: BaseException | None = None


def _run_phase(
    work: Work, kind: Kind, groups: Sequence[Group], streams: Sequence[Stream], ledger: Ledger, width: int
) -> None:
    """Run the streams of one kind, ``width`` at a time; the ledger is written by this thread alone."""
    mine = {group.number: group for group in groups if group.kind == kind}
    here = [stream for stream in streams if stream.number in mine]
    done = {number: sum(one.done for one in here if one.number == number) for number in mine}
    phase = Phase(work, ledger, mine, done)
    _settle(phase)
    with ThreadPoolExecutor(width) as pool:
        try:
            _feed(phase, pool, [one for one in here if one.at < one.stop], width)
        except BaseException:
            work.stop.set()  # the streams end after the batch they are at
            raise
    if phase.error is not None:
        raise phase.error


def _feed(phase: Phase, pool: ThreadPoolExecutor, waiting: Sequence[Stream], width: int) -> None:
    """Give streams to the pool as it has room, and carry out what the running ones have to say."""
    started: set[int] = set()
    for stream in waiting:
        while phase.running >= width:
            phase.news.get()()
        if phase.error is not None:
            break
        if stream.number not in started:
            started.add(stream.number)
            reach("load.group.before")
            phase.ledger.started(stream.number)
        phase.running += 1
        pool.submit(_run_one, phase, stream)
    while phase.running:
        phase.news.get()()


def _settle(phase: Phase) -> None:
    """Tell the ledger of groups that an earlier run completed and could not say so."""
    known = phase.ledger.done()
    for number, group in phase.groups.items():
        complete = phase.done[number] == group.rows
        if number in known and not complete:
            raise BuildLocked(f"{phase.work.database} lacks rows that were confirmed: somebody changed it.")
        if complete and number not in known:
            phase.ledger.confirmed(number, group.rows, found=True)


def _run_one(phase: Phase, stream: Stream) -> None:
    """One stream in a thread of its own; what it has to say is carried out by the main thread."""

    def tell(number: int, rows: int) -> None:
        phase.news.put(partial(_advance, phase, number, rows))

    error: BaseException | None = None
    try:
        run_stream(phase.work, phase.groups[stream.number], stream, tell)
    except BaseException as caught:  # carried to the main thread, which raises it
        error = caught
    phase.news.put(partial(_end, phase, error))


def _advance(phase: Phase, number: int, rows: int) -> None:
    phase.done[number] += rows
    done, expected = phase.done[number], phase.groups[number].rows
    if done == expected:
        phase.ledger.confirmed(number, expected)
        reach("load.group.confirmed")
    elif monotonic() - phase.told > _TELL_EVERY:
        phase.told = monotonic()
        phase.ledger.advanced(number, done)


def _end(phase: Phase, error: BaseException | None) -> None:
    phase.running -= 1
    if error is not None:
        phase.work.stop.set()
        phase.error = phase.error or error
