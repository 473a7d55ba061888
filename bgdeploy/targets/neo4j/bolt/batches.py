"""Batches: the rows of one stream, each batch one transaction that lands exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import neo4j
import pyarrow as pa
from neo4j.exceptions import DriverError, IncompleteCommit, Neo4jError

from bgdeploy.clock import monotonic
from bgdeploy.errors import TargetError
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.source import Column, DataFile, Snapshot, Table
from bgdeploy.targets.base import Group
from bgdeploy.targets.groups import file_of, find_table, is_split
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.bolt import statements
from bgdeploy.targets.neo4j.bolt.reader import RowReader
from bgdeploy.targets.neo4j.bolt.streams import Stream
from bgdeploy.targets.neo4j.bolt.values import split_by_labels, to_python
from bgdeploy.targets.neo4j.keys import key_of
from bgdeploy.targets.neo4j.names import CYPHER
from bgdeploy.targets.neo4j.refusals import is_memory

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
            text = statements.create_nodes(mine, names)
            yield Part(text, _columns(some, stored, shape.where), some.num_rows)
        return
    names = [column.name for column in table.properties]
    text = statements.create_relationships(shape.group.name, shape.source, shape.target, names)
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
            before = statements.MOVE_ON if number == 0 else ""
            text = f"{CYPHER}{before}{part.statement}"
            counters = tx.run(cast(Any, text), {**part.params, **move}).consume().counters
            if number == 0 and counters.properties_set < statements.MOVED:
                raise Overtaken
            if counters.nodes_created + counters.relationships_created != part.rows:
                raise Lost
        reach("load.batch.written")
        tx.commit()


def _position(work: Work, move: dict[str, Any]) -> int | None:
    """Where the stream's node is, while it is still ours."""
    rows = work.server.read(
        work.database, statements.READ_STREAMS, f"Reading the checkpoint of {work.database}"
    )
    mine = next((row for row in rows if row["id"] == move["stream"]), None)
    return int(mine["at"]) if mine is not None and mine["fence"] == work.fence else None
