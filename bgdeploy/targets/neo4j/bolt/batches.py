"""Batches: the rows of one stream, each batch one transaction that lands exactly once.

Columns as parameters, and a row made by its place in them, load twice as fast as a list of maps.

Each stream is a range of rows of one group. Its node has the owner's fence and the row it has come
to; a batch moves that node on in its own transaction, so it lands exactly once, and a batch of an
older owner lands never.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import neo4j
import pyarrow as pa
import pyarrow.compute as pc
from neo4j.exceptions import DriverError, IncompleteCommit, Neo4jError

from bgdeploy.clock import monotonic
from bgdeploy.errors import BadInput, BuildLocked, NameTaken, TargetError
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.parquet import Parquet
from bgdeploy.snapshots.rows import iterate
from bgdeploy.snapshots.source import Column, DataFile, Snapshot, Table
from bgdeploy.targets.base import Group, Ledger, Rows, Ticket
from bgdeploy.targets.groups import file_of, find_table, is_split
from bgdeploy.targets.neo4j.access import Server, is_memory
from bgdeploy.targets.neo4j.bolt.values import split_by_labels, to_python
from bgdeploy.targets.neo4j.names import CYPHER, MARK, STREAM, quote
from bgdeploy.targets.neo4j.schema import clear_orphan, key_of

# Statements that load rows: columns travel as parameters, names stand quoted, nothing else is pasted in.

GUARD = "bgdeploy_stream"
CREATE_GUARD = (
    f"{CYPHER}CREATE CONSTRAINT {GUARD} IF NOT EXISTS FOR (s:{STREAM}) REQUIRE s.{MARK}range IS UNIQUE"
)
DROP_GUARD = f"{CYPHER}DROP CONSTRAINT {GUARD} IF EXISTS"

# Only into an empty database: an owner that was frozen before it must find what others loaded meanwhile,
# whose streams and guard are gone by then. Two that come at once are told apart by the guard.
CREATE_STREAMS = (
    f"{CYPHER}MATCH (n) WITH count(n) AS found WHERE found = 0 UNWIND $streams AS one CREATE (s:{STREAM}) "
    f"SET s.{MARK}range = [one.number, one.start, one.stop], s.{MARK}at = one.start, s.{MARK}fence = $fence, "
    f"s.{MARK}snapshot = $snapshot"
)
READ_STREAMS = (
    f"{CYPHER}MATCH (s:{STREAM}) RETURN elementId(s) AS id, s.{MARK}range[0] AS number, "
    f"s.{MARK}range[1] AS start, s.{MARK}range[2] AS stop, s.{MARK}at AS at, s.{MARK}fence AS fence, "
    f"s.{MARK}snapshot AS snapshot ORDER BY number, start"
)
# The first SET takes the node's lock, so what is read after it is what the last owner committed.
TAKE_OVER = (
    f"{CYPHER}MATCH (s:{STREAM}) WHERE s.{MARK}snapshot = $snapshot SET s.{MARK}touched = $fence "
    f"WITH s WHERE s.{MARK}fence <= $fence SET s.{MARK}fence = $fence"
)
# Stands before the first statement of a batch, which then does nothing where the fence or the row is another.
MOVE_ON = (
    f"MATCH (s:{STREAM}) WHERE elementId(s) = $stream SET s.{MARK}touched = $fence "
    f"WITH s WHERE s.{MARK}fence = $fence AND s.{MARK}at = $at SET s.{MARK}at = $next WITH s "
)
MOVED = 2  # properties that MOVE_ON sets; fewer when it found another fence or row
REMOVE_STREAMS = (
    f"{CYPHER}MATCH (s:{STREAM}) SET s.{MARK}touched = $fence WITH s WHERE s.{MARK}fence = $fence DELETE s"
)
COUNT_NODES = f"{CYPHER}MATCH (n) RETURN count(*) AS rows"


def create_nodes(labels: Sequence[str], columns: Sequence[str]) -> str:
    """Make ``$rows`` nodes of the columns ``$c0``, ``$c1`` ..."""
    marks = "".join(f":{quote(label)}" for label in labels)
    return f"UNWIND range(0, $rows - 1) AS i CREATE ({marks} {_properties(columns)})"


def create_relationships(
    kind: str, source: tuple[str, str], target: tuple[str, str], columns: Sequence[str]
) -> str:
    """Join the nodes with the keys in ``$source`` and ``$target``; each end is (label, key property)."""
    return (
        f"UNWIND range(0, $rows - 1) AS i {_find('a', source, '$source[i]')}{_find('b', target, '$target[i]')}"
        f"CREATE (a)-[:{quote(kind)} {_properties(columns)}]->(b)"
    )


def _find(node: str, end: tuple[str, str], key: str) -> str:
    """Find a node by its key, as a range of one value.

    For ``=`` a statement that writes locks the key in the unique index: a tenth of the server's work.
    """
    label, name = quote(end[0]), f"{node}.{quote(end[1])}"
    hint = f"USING INDEX SEEK {node}:{label}({quote(end[1])})"
    return f"MATCH ({node}:{label}) {hint} WHERE {name} >= {key} AND {name} <= {key} "


def _properties(columns: Sequence[str]) -> str:
    pairs = (f"{quote(name)}: $c{number}[i]" for number, name in enumerate(columns))
    return f"{{{', '.join(pairs)}}}"


# Rows of Parquet files from any place on, in pieces of any size, with little memory.

Files = Sequence[tuple[Path, DataFile]]
WINDOW = 32_768  # rows that are sorted together; never change it while a load is half done
_DECODED = 16_384  # rows decoded at a time


class RowReader:
    """The rows of a table's files from ``at`` on, with these of its columns, handed out in order.

    The files are read as one long table; row numbers count from the first row of the first file.
    With ``sort_by`` each window of ``WINDOW`` rows, counted from ``start``, is in the order of that
    column: always the same order, so that a row number means the same row at every try.
    """

    def __init__(
        self,
        files: Files,
        columns: Sequence[Column],
        span: tuple[int, int],
        at: int,
        sort_by: str | None = None,
    ) -> None:
        start, stop = span
        first = start + (at - start) // WINDOW * WINDOW if sort_by else at  # a window is sorted whole
        pieces = _read(files, columns, first, stop)
        self._pieces = _sorted(pieces, sort_by, at - first) if sort_by else pieces
        self._held: list[pa.RecordBatch] = []
        self._rows = 0

    def take(self, most: int) -> pa.Table | None:
        """Return the next ``most`` rows (fewer at the end), or None when there are no more."""
        while self._rows < most and (batch := next(self._pieces, None)) is not None:
            self._held.append(batch)
            self._rows += batch.num_rows
        if not self._rows:
            return None
        table = pa.Table.from_batches(self._held)
        taken, rest = table.slice(0, most), table.slice(most)
        self._held, self._rows = rest.to_batches(), rest.num_rows
        return taken

    def put_back(self, table: pa.Table) -> None:
        """Take rows back that could not be used in one piece; they are the next ones again."""
        self._held = [*table.to_batches(), *self._held]
        self._rows += table.num_rows


def _sorted(pieces: Iterable[pa.RecordBatch], sort_by: str, skip: int) -> Iterator[pa.RecordBatch]:
    """The same rows, each window of them in order, without the first ``skip`` of the first window."""
    for rows in _windows(pieces):
        ordered = rows.take(pc.sort_indices(rows.column(sort_by))).combine_chunks()
        yield from ordered.slice(skip).to_batches()
        skip = 0


def _windows(pieces: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for piece in pieces:
        held.append(piece)
        while sum(one.num_rows for one in held) >= WINDOW:
            rows = pa.Table.from_batches(held)
            yield rows.slice(0, WINDOW)
            held = rows.slice(WINDOW).to_batches()
    if held:
        yield pa.Table.from_batches(held)


def _read(files: Files, columns: Sequence[Column], start: int, stop: int) -> Iterator[pa.RecordBatch]:
    """Rows ``start`` to ``stop`` in one go; raises BadInput, with file and column, where a file is damaged."""
    place = 0  # row number at which what comes next begins
    for path, file in files:
        with _telling(path, file, columns), Parquet(path, file.path) as parquet:
            for group in range(parquet.metadata.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if place < stop and place + rows > start:
                    found = iterate(parquet, file, columns, _DECODED, [group])
                    yield from _cut(found, place, start, stop)
                place += rows
        if place >= stop:
            return


@contextmanager
def _telling(path: Path, file: DataFile, columns: Sequence[Column]) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if not _is_damage(error):
            raise
        found = (file.find(column) for column in columns)
        own = [one.name for one in found if one is not None and one.constant is None]
        bad = next((f"column {name!r}" for name in own if not _reads(path, name)), "the file")
        what = f"{file.path}: {bad} cannot be read, it is damaged: {str(error).splitlines()[0]}"
        raise BadInput(what, kept="What is live stays live.", cure="Write it again.") from error


def _is_damage(error: Exception) -> bool:
    """Not the system's own errors, which have a number: the file is gone, or the disk fails."""
    return not isinstance(error, MemoryError) and getattr(error, "errno", None) is None


def _reads(path: Path, name: str) -> bool:
    try:
        with Parquet(path) as parquet:
            for _ in parquet.iter_batches(_DECODED, columns=[name]):
                pass
    except (OSError, pa.ArrowException):
        return False
    return True


def _cut(batches: Iterator[pa.RecordBatch], place: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if place >= stop:
            return  # the rest of a row group is not decoded for nothing
        first, last = max(0, start - place), min(batch.num_rows, stop - place)
        if first < last:
            yield batch.slice(first, last - first)
        place += batch.num_rows


# Streams: the nodes in a database that keep, during its load, whose it is and how far it has come.

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
    if not server.read(database, READ_STREAMS, doing):
        if _is_finished(server, database, groups, ledger):
            server.change(database, DROP_GUARD, doing)  # a crash may have left it
            return None
        _create(server, ticket, snapshot, groups)
    # Where there is one database for all, fences of another job's load must stay as they are.
    server.write(database, TAKE_OVER, doing, fence=fence, snapshot=snapshot.fingerprint)
    rows = server.read(database, READ_STREAMS, doing)
    if groups and not rows:  # others came, loaded and closed it while this process was frozen
        server.change(database, DROP_GUARD, doing)
    if any(row["snapshot"] != snapshot.fingerprint for row in rows):
        raise BuildLocked(f"{database} was begun with other files.", kept=_LEFT)
    if any(row["fence"] != fence for row in rows) or (groups and not rows):
        raise TargetError(f"{database} is loaded by a newer worker.", kept="Nothing was written.")
    return [_check(row, groups, database) for row in rows]


def _create(server: Server, ticket: Ticket, snapshot: Snapshot, groups: Sequence[Group]) -> None:
    """Make the nodes, unless something is in the database by now."""
    database, doing = ticket.database, f"Preparing the load of {ticket.database}"
    clear_orphan(server, database, GUARD)
    server.change(database, CREATE_GUARD, doing)
    width = int(ticket.settings["concurrency"])
    streams = [one for group in groups for one in _split(group, width)]
    whose = {"fence": ticket.fence, "snapshot": snapshot.fingerprint}
    reach("load.streams.before")
    server.write(database, CREATE_STREAMS, doing, streams=streams, **whose)


def _is_finished(server: Server, database: str, groups: Sequence[Group], ledger: Ledger) -> bool:
    """A database without streams is either new and empty, or complete, or not what we think."""
    found = server.read(database, COUNT_NODES, f"Counting the nodes of {database}")[0]["rows"]
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
    server.write(database, REMOVE_STREAMS, doing, fence=fence)
    server.change(database, DROP_GUARD, doing)


# Batches: the rows of one stream, each batch one transaction that lands exactly once.

_SMALLEST = 50  # rows; a batch that does not fit then is the server's trouble
_TRUST = 8  # batches in a row that must go well before one of twice the size is tried
_PATIENCE = 20.0  # seconds a batch is repeated while the server asks for it
_PAUSE = 0.02  # seconds before a batch is tried again, after a deadlock for instance
Tell = Callable[[int, int], None]  # (group, rows just committed)


class TooLarge(Exception):
    """The server has too little memory for this batch."""


class Overtaken(Exception):
    """The stream's node is not where this batch begins."""


class Lost(Exception):
    """Some rows found no node to join."""


@dataclass(frozen=True)
class Work:
    """What every stream of a load shares; the folder holds split files."""

    server: Server
    database: str
    fence: int
    snapshot: Snapshot
    folder: Path
    batch_rows: int
    stop: threading.Event


@dataclass(frozen=True)
class Part:
    """One statement of a batch, with its parameters and the rows it must make."""

    statement: str
    params: dict[str, Any]
    rows: int


@dataclass(frozen=True)
class Shape:
    """What every batch of a group shares: its table, and for relationships both ends as (label, key)."""

    group: Group
    table: Table
    source: tuple[str, str] | None
    target: tuple[str, str] | None

    @property
    def where(self) -> str:
        """Where a row of the group stands, for messages."""
        first, *more = self.group.files
        return first if not more else f"one of {len(more) + 1} files from {first} on"


def run_stream(work: Work, group: Group, stream: Stream, tell: Tell) -> None:
    """Load what is left of a stream; ends early, between two batches, when ``work.stop`` is set.

    Raises Misfit for rows with an id or an end that cannot be loaded, BadInput for damaged files.
    """
    shape = _shape(work.snapshot, group)
    source = shape.table.column("source")
    columns = [column for column in shape.table.columns if column.role != "type"]
    # By source, so that one node's relationships are written together.
    by = source.name if source else None
    reader = RowReader(_files(work, shape), columns, (stream.start, stream.stop), stream.at, by)
    at, pace = stream.at, Pace(work.batch_rows)
    doing = f"Loading {group.name} into {work.database}"
    # What goes wrong outside of ``asking`` is no fault of the server: the files are read there.
    with work.server.asking(doing) as driver:
        session = driver.session(database=work.database)
    with session:
        while not work.stop.is_set() and (rows := reader.take(pace.rows)) is not None:
            parts = list(_parts(shape, rows))
            move = {"stream": stream.id, "fence": work.fence, "at": at, "next": at + rows.num_rows}
            try:
                with work.server.asking(doing):
                    _commit(session, work, parts, move, shape)
            except TooLarge:
                reader.put_back(rows)
                pace.shrink(rows.num_rows)
                continue
            pace.went_well()
            at += rows.num_rows
            reach("load.batch.committed")
            tell(group.number, rows.num_rows)


@dataclass
class Pace:
    """Rows of the next batch: halved when the server has no memory for one, and slowly back to ``most``."""

    most: int
    rows: int = field(init=False)
    _good: int = 0
    _trust: int = _TRUST
    _grew: bool = False

    def __post_init__(self) -> None:
        self.rows = self.most

    def shrink(self, tried: int) -> None:
        """A batch of so many rows was too large; where it had grown, the next growth waits twice as long."""
        self._trust *= 2 if self._grew else 1
        self.rows, self._good, self._grew = max(_SMALLEST, tried // 2), 0, False

    def went_well(self) -> None:
        """A batch was committed; after some of them in a row one of twice the size is tried."""
        self._good += 1
        if self._good >= self._trust and self.rows < self.most:
            self.rows, self._good, self._grew = min(self.most, 2 * self.rows), 0, True


def _files(work: Work, shape: Shape) -> list[tuple[Path, DataFile]]:
    homes = ((work.folder if is_split(file) else work.snapshot.path, file) for file in shape.group.files)
    return [(home / file, file_of(shape.table, file)) for home, file in homes]


def _shape(snapshot: Snapshot, group: Group) -> Shape:
    table = find_table(snapshot, group)
    if group.kind == "node":
        return Shape(group, table, None, None)
    ends = [(str(label), key_of(snapshot, str(label))) for label in (group.source_label, group.target_label)]
    return Shape(group, table, ends[0], ends[1])


def _parts(shape: Shape, rows: pa.Table) -> Iterator[Part]:
    """The statements of one batch: one for each set of labels, or one for all relationships."""
    table = shape.table
    roles = ("id",) if shape.group.kind == "node" else ("source", "target")
    keys = [column for column in table.columns if column.role in roles]
    _check_keys(rows, keys, shape)
    if shape.source is None or shape.target is None:
        labels = table.column("labels")
        stored = [*keys, *table.properties]
        names = [column.name for column in stored]
        for mine, some in split_by_labels(rows, labels.name if labels else None, table.labels):
            text = create_nodes(mine, names)
            yield Part(text, _columns(some, stored, shape.where), some.num_rows)
        return
    names = [column.name for column in table.properties]
    text = create_relationships(shape.group.name, shape.source, shape.target, names)
    ends: dict[str, Any] = {column.role: to_python(rows, column.name, shape.where) for column in keys}
    yield Part(text, {**_columns(rows, table.properties, shape.where), **ends}, rows.num_rows)


def _check_keys(rows: pa.Table, keys: Sequence[Column], shape: Shape) -> None:
    for column in keys:
        if rows.column(column.name).null_count:
            role = "id" if column.role == "id" else f"{column.role} id"
            said = f"{shape.where} has a row whose {role} ({column.name!r}) is null."
            raise Misfit(shape.group.kind, shape.group.name, said)


def _columns(rows: pa.Table, columns: Sequence[Column], where: str) -> dict[str, Any]:
    named = {f"c{number}": to_python(rows, column.name, where) for number, column in enumerate(columns)}
    return {**named, "rows": rows.num_rows}


def _commit(
    session: neo4j.Session, work: Work, parts: Sequence[Part], move: dict[str, Any], shape: Shape
) -> None:
    """Commit one batch, or find that it was committed when an earlier answer got lost.

    The driver would repeat a batch that is too large for the server as often as one that met a
    deadlock, so it is repeated here.
    """
    deadline = monotonic() + _PATIENCE
    while True:
        try:
            _write(session, parts, move)
            return
        except Lost:
            said = f"{shape.where} has rows that found no node to join, or too many."
            raise Misfit(shape.group.kind, shape.group.name, said) from None
        except (Neo4jError, DriverError) as error:
            if is_memory(error) and move["next"] - move["at"] > _SMALLEST:
                raise TooLarge from error
            if not _may_go_on(error) or monotonic() > deadline:
                raise
        except Overtaken:
            raise TargetError(
                f"{work.database} is loaded by a newer worker.", kept="Nothing was written."
            ) from None
        if _position(work, move) == move["next"]:
            return
        work.stop.wait(_PAUSE)


def _may_go_on(error: Neo4jError | DriverError) -> bool:
    """The server asks to try again, or its answer is lost: where the batch is then is read from its node."""
    return isinstance(error, IncompleteCommit) or error.is_retryable()


def _write(session: neo4j.Session, parts: Sequence[Part], move: dict[str, Any]) -> None:
    with session.begin_transaction() as tx:
        for number, part in enumerate(parts):
            before = MOVE_ON if number == 0 else ""
            text = f"{CYPHER}{before}{part.statement}"
            counters = tx.run(cast(Any, text), {**part.params, **move}).consume().counters
            if number == 0 and counters.properties_set < MOVED:
                raise Overtaken
            if counters.nodes_created + counters.relationships_created != part.rows:
                raise Lost
        reach("load.batch.written")
        tx.commit()


def _position(work: Work, move: dict[str, Any]) -> int | None:
    """Where the stream's node is, while it is still ours."""
    rows = work.server.read(work.database, READ_STREAMS, f"Reading the checkpoint of {work.database}")
    mine = next((row for row in rows if row["id"] == move["stream"]), None)
    return int(mine["at"]) if mine is not None and mine["fence"] == work.fence else None
