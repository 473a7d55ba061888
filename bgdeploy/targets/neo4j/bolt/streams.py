"""Streams: the nodes in a database that keep, during its load, whose it is and how far it has come.

Each stream is a range of rows of one group. Its node has the owner's fence and the row it has come
to; a batch moves that node on in its own transaction, so it lands exactly once, and a batch of an
older owner lands never.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bgdeploy.errors import BuildLocked, NameTaken, TargetError
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Group, Ledger, Rows, Ticket
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.bolt import statements
from bgdeploy.targets.neo4j.schema import clear_orphan

SMALLEST = 20_000  # rows; shorter groups are not split among streams
_LEFT = "It was left as it is; the load goes on under another name."


@dataclass(frozen=True)
class Stream:
    """Rows ``start`` to ``stop`` of group ``number``, committed up to row ``at``."""

    id: str
    number: int
    start: int
    stop: int
    at: int

    @property
    def done(self) -> int:
        """Rows of it that are committed."""
        return self.at - self.start


def open_streams(
    server: Server, ticket: Ticket, snapshot: Snapshot, groups: Sequence[Group], ledger: Ledger
) -> list[Stream] | None:
    """Take the database over and return its streams; None when the load was finished before.

    Raises NameTaken for a database with somebody else's data, BuildLocked for one that is ours and
    not what the ledger says, TargetError when a newer owner is at work.
    """
    database, fence = ticket.database, ticket.fence
    doing = f"Preparing the load of {database}"
    if not server.read(database, statements.READ_STREAMS, doing):
        if _is_finished(server, database, groups, ledger):
            server.change(database, statements.DROP_GUARD, doing)  # a crash may have left it
            return None
        _create(server, ticket, snapshot, groups)
    # Where there is one database for all, fences of another job's load must stay as they are.
    server.write(database, statements.TAKE_OVER, doing, fence=fence, snapshot=snapshot.fingerprint)
    rows = server.read(database, statements.READ_STREAMS, doing)
    if groups and not rows:  # others came, loaded and closed it while this process was frozen
        server.change(database, statements.DROP_GUARD, doing)
    if any(row["snapshot"] != snapshot.fingerprint for row in rows):
        raise BuildLocked(f"{database} was begun with other files.", kept=_LEFT)
    if any(row["fence"] != fence for row in rows) or (groups and not rows):
        raise TargetError(f"{database} is loaded by a newer worker.", kept="Nothing was written.")
    return [_check(row, groups, database) for row in rows]


def _create(server: Server, ticket: Ticket, snapshot: Snapshot, groups: Sequence[Group]) -> None:
    """Make the nodes, unless something is in the database by now."""
    database, doing = ticket.database, f"Preparing the load of {ticket.database}"
    clear_orphan(server, database, statements.GUARD)
    server.change(database, statements.CREATE_GUARD, doing)
    width = int(ticket.settings["concurrency"])
    streams = [one for group in groups for one in _split(group, width)]
    whose = {"fence": ticket.fence, "snapshot": snapshot.fingerprint}
    reach("load.streams.before")
    server.write(database, statements.CREATE_STREAMS, doing, streams=streams, **whose)


def _is_finished(server: Server, database: str, groups: Sequence[Group], ledger: Ledger) -> bool:
    """A database without streams is either new and empty, or complete, or not what we think."""
    found = server.read(database, statements.COUNT_NODES, f"Counting the nodes of {database}")[0]["rows"]
    confirmed = ledger.done()
    if found and confirmed == {group.number for group in groups}:
        return True
    if found and not confirmed:
        raise NameTaken(f"{database} holds {found:,} nodes that bgdeploy did not load.", kept=_LEFT)
    if found or confirmed:
        what = f"{database} holds {found:,} nodes without a checkpoint, and {len(confirmed)} groups are confirmed"
        raise BuildLocked(f"{what}: somebody changed it.", kept=_LEFT)
    return False


def _split(group: Group, width: int) -> Rows:
    parts = max(1, min(width, group.rows // SMALLEST))
    cuts = [group.rows * part // parts for part in range(parts + 1)]
    return [{"number": group.number, "start": start, "stop": stop} for start, stop in pairwise(cuts)]


def _check(row: dict[str, Any], groups: Sequence[Group], database: str) -> Stream:
    known = {group.number: group.rows for group in groups}
    if not 0 <= row["start"] <= row["at"] <= row["stop"] <= known.get(row["number"], -1):
        what = f"{database} has a checkpoint that does not fit the plan stored with the job."
        raise BuildLocked(what, kept=_LEFT)
    return Stream(str(row["id"]), row["number"], row["start"], row["stop"], row["at"])


def close_streams(server: Server, database: str, fence: int) -> None:
    """Remove the nodes and their guard, so that the database holds the snapshot alone."""
    doing = f"Closing {database}"
    server.write(database, statements.REMOVE_STREAMS, doing, fence=fence)
    server.change(database, statements.DROP_GUARD, doing)
