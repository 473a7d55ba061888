"""Load: a snapshot as streams of Arrow batches from which the server builds the database.

The server cannot go on with an import that was cut off, so a load that did not come to its end
begins anew under another name; what it left behind is aborted, and dropped by the cleaner.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from bgdeploy.clock import monotonic
from bgdeploy.errors import BgdeployError, BuildLocked, NameTaken, VerifyFailed
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.source import Kind, Snapshot
from bgdeploy.targets.base import Group, Ledger, Ticket
from bgdeploy.targets.groups import file_of, is_split, keep_plan
from bgdeploy.targets.neo4j import databases, schema
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.aliases import list_aliases
from bgdeploy.targets.neo4j.arrow import begun
from bgdeploy.targets.neo4j.arrow.client import RENEW, Client, Put, find_address
from bgdeploy.targets.neo4j.arrow.proof import prove
from bgdeploy.targets.neo4j.arrow.wire import Identity, Shape, find_identity, shape_of, to_batches
from bgdeploy.targets.neo4j.bolt.batches import RowReader
from bgdeploy.targets.neo4j.schema import complete

GROUP_ROWS = 1_000_000  # a line of the ledger stands for so many
_BATCH = 16_384  # rows sent at once, where nothing else is configured
_SMALLEST = 50_000  # rows; shorter groups are not split among streams
_TELL_EVERY = 1.0  # seconds between two notes of progress
_LEFT = "It was left as it is; the load goes on under another name."


class Range(NamedTuple):
    """Rows ``start`` to ``stop`` of a group."""

    group: Group
    start: int
    stop: int


@dataclass
class Work:
    """What every stream of a load shares; the folder holds split files."""

    client: Client
    database: str
    snapshot: Snapshot
    folder: Path
    identity: Identity
    ledger: Ledger
    width: int
    batch: int  # rows sent at once, as many as are decoded at once
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    sent: dict[int, int] = field(default_factory=dict)  # rows acknowledged per group
    told: float = 0.0


def load(server: Server, ticket: Ticket, snapshot: Snapshot, ledger: Ledger, folder: Path) -> None:
    """Build the database and close it; ``folder`` is for files made on the way.

    Raises BadInput, ConfigError, TargetFull, TargetAway, BuildLocked, NameTaken or TargetError.
    """
    declared = schema.declared(ticket.settings, snapshot.path)
    stored = ledger.plan()
    if stored is None or ledger.done() != {group.number for group in stored}:
        _import(server, ticket, snapshot, ledger, folder)
    databases.create(server, ticket.database)  # mounts what was imported, where the server has not done so
    complete(server, ticket.database, snapshot, ledger, folder, declared)


def _import(server: Server, ticket: Ticket, snapshot: Snapshot, ledger: Ledger, folder: Path) -> None:
    database, settings = ticket.database, ticket.settings
    # A job that was claimed by an earlier version has neither of the two.
    streams = int(settings.get("arrow_streams") or settings["concurrency"])
    batch = int(settings.get("arrow_rows") or _BATCH)
    with closing(Client(server.access, find_address(server))) as client:
        client.abort(database)  # what a dead client left would keep the name
        if ledger.plan() is not None:
            what = f"The Arrow import of {database} was cut off, and the server cannot go on with it."
            raise BuildLocked(what, kept="It is dropped; the load begins anew under another name.")
        _refuse_taken(server, database)
        identity = find_identity(snapshot)
        folder.mkdir(parents=True, exist_ok=True)
        prove(snapshot, ledger, folder)
        groups = keep_plan(snapshot, ledger, lambda *_: GROUP_ROWS, folder)
        _send_all(
            Work(client, database, snapshot, folder, identity, ledger, streams, batch),
            int(settings["concurrency"]),
            groups,
        )
    # Only now: nothing of an import is kept when it is cut off, so nothing before its end is progress.
    for group in groups:
        ledger.confirmed(group.number, group.rows)
    reach("load.group.confirmed")


def _refuse_taken(server: Server, database: str) -> None:
    """The name must be free: the plan is stored before the server hears of it, so what has it is not ours."""
    found = databases.look(server, database)
    if found.verdict != "absent":
        raise NameTaken(
            f"There is a database {database} that bgdeploy did not make ({found.text}).", kept=_LEFT
        )
    if any(alias.name == database for alias in list_aliases(server)):
        raise NameTaken(f"{database} is an alias that somebody else made.", kept=_LEFT)


def _send_all(work: Work, concurrency: int, groups: Sequence[Group]) -> None:
    """Send everything; ``concurrency`` is how much the server does at once."""
    settings = {
        "id_type": work.identity.type,
        "id_property": work.identity.property,
        "concurrency": concurrency,
    }
    begun.note(work.folder)
    reach("load.creating")
    work.client.create(work.database, settings)
    try:
        reach("load.created")
        _send(work, "node", groups)
        _compare(work, "node", groups, work.client.end_nodes(work.database))
        reach("load.nodes.done")
        _send(work, "relationship", groups)
        reach("load.relationships.sent")
        _compare(work, "relationship", groups, work.client.end_relationships(work.database))
        reach("load.relationships.done")
    except BaseException:
        with suppress(BgdeployError):
            work.client.abort(work.database)
            begun.over(work.folder)
        raise


def _compare(work: Work, kind: Kind, groups: Sequence[Group], counted: int) -> None:
    expected = sum(group.rows for group in groups if group.kind == kind)
    if counted != expected:
        what = f"{work.database}: {expected:,} {kind}s were sent, and the server counts {counted:,}."
        raise VerifyFailed(what, kept="What is live stays live.", cure="Look into the server's log.")


def _send(work: Work, kind: Kind, groups: Sequence[Group]) -> None:
    """Send all rows of one kind, ``width`` streams at a time; the first error ends them all."""
    running: set[Future[None]] = set()
    with ThreadPoolExecutor(work.width) as pool:
        try:
            for group in groups:
                if group.kind == kind:
                    work.ledger.started(group.number)
                    for some in _split(group, work.width):
                        running = _reap(running, work.width)
                        running.add(pool.submit(_send_range, work, some))
            while running:
                running = _reap(running, 1)
        except BaseException:
            work.stop.set()  # the streams end after the batch they are at
            raise


def _reap(running: set[Future[None]], width: int) -> set[Future[None]]:
    """Wait until fewer than ``width`` run; raises what one of them met."""
    while len(running) >= width:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for one in done:
            one.result()
    return running


def _split(group: Group, width: int) -> Iterator[Range]:
    parts = max(1, min(width, group.rows // _SMALLEST))
    cuts = [group.rows * part // parts for part in range(parts + 1)]
    yield from (Range(group, start, stop) for start, stop in pairwise(cuts))


def _send_range(work: Work, some: Range) -> None:
    """Send some rows of a group, over as many streams one after the other as their time takes."""
    shape = shape_of(work.snapshot, some.group, work.identity)
    reader = _open_rows(work, shape, some)
    doing = f"Sending {some.group.name} to {work.database}"
    rows = reader.take(work.batch)
    while rows is not None and not work.stop.is_set():
        with work.client.put(work.database, some.group.kind, shape.schema, doing) as put:
            while rows is not None and not work.stop.is_set() and monotonic() - put.began < RENEW:
                _send_rows(work, shape, put, rows)
                rows = reader.take(work.batch)


def _open_rows(work: Work, shape: Shape, some: Range) -> RowReader:
    homes = ((work.folder if is_split(file) else work.snapshot.path, file) for file in some.group.files)
    files = [(home / file, file_of(shape.table, file)) for home, file in homes]
    return RowReader(files, shape.read, (some.start, some.stop), some.start)


def _send_rows(work: Work, shape: Shape, put: Put, rows: object) -> None:
    for batch in to_batches(shape, rows):
        put.send(batch)
        reach("load.batch.sent")
        _tell(work, shape.group, batch.num_rows)


def _tell(work: Work, group: Group, rows: int) -> None:
    with work.lock:
        work.sent[group.number] = work.sent.get(group.number, 0) + rows
        if monotonic() - work.told > _TELL_EVERY:
            work.told = monotonic()
            work.ledger.seen(group.number, work.sent[group.number])
