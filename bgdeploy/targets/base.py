"""What a place for databases must be able to do; every target passes one conformance suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from bgdeploy.finding import Check
from bgdeploy.snapshots.source import Column, Kind, Snapshot

if TYPE_CHECKING:
    import pyarrow as pa

Status = Literal["building", "online", "dropping", "unknown"]
Rows = list[dict[str, Any]]
KEY = "\x02key"  # stands beside the columns in ``rows_by_key``: no user's column has such a name
Owned = Callable[[], Mapping[str, int]]  # the databases of the job table with their jobs; raises StoreError


@dataclass(frozen=True)
class Health:
    """Whether work may start now. ``unknown`` is never fine: the caller waits."""

    state: Literal["ok", "wait", "unknown"]
    reasons: tuple[str, ...] = ()  # each with the number seen and its threshold
    figures: tuple[str, ...] = ()  # everything that was looked at, well or not
    untold: tuple[str, ...] = ()  # those of the figures that the target does not tell


@dataclass(frozen=True)
class Need:
    """One thing a load needs before it starts, in bytes or in databases."""

    what: str
    needed: int
    available: int
    sum: str  # how ``needed`` was reckoned, for people

    @property
    def met(self) -> bool:
        """True when there is enough."""
        return self.needed <= self.available


@dataclass(frozen=True)
class Ticket:
    """The right to build one database: everything a loading process is told."""

    job_id: int
    database: str
    fence: int
    settings: Mapping[str, Any]  # the target's part of the configuration, as stored with the job


@dataclass(frozen=True)
class Group:
    """What is committed at once: some files of one table, joining one pair of labels.

    Numbers run from 0 in load order. ``files`` are paths relative to the snapshot.
    """

    number: int
    kind: Kind
    name: str
    source_label: str | None
    target_label: str | None
    files: tuple[str, ...]
    rows: int


class Ledger(Protocol):
    """Where a load keeps its plan and its checkpoints; every call is durable when it returns.

    Each raises LeaseLost when the job has another owner by now.
    """

    def plan(self) -> tuple[Group, ...] | None:
        """The plan stored by an earlier run of this job, or None."""

    def done(self) -> frozenset[int]:
        """Numbers of the groups that are confirmed."""

    def store_plan(self, groups: Sequence[Group]) -> None:
        """Store the plan before anything is committed by it."""

    def restart(self, reason: str) -> None:
        """Forget all confirmed groups: the build was deleted and starts again."""

    def chosen(self, loader: str, why: str) -> None:
        """Store with the job by which of several ways it is loaded, so that a later run goes on with it."""

    def owns(self, mark: str) -> None:
        """Store what tells the database from another of its name; the first mark stays."""

    def started(self, group: int) -> None:
        """A group is about to be committed; refused for one that is confirmed already."""

    def confirmed(self, group: int, rows: int, *, found: bool = False) -> None:
        """A group is committed; ``found`` says that an earlier run committed it unseen."""

    def advanced(self, group: int, rows: int) -> None:
        """So many rows of a group are committed so far: for targets that commit less than a group at once."""

    def seen(self, group: int, rows: int) -> None:
        """About so many rows of a group are on their way; for people only, and not waited for."""

    def note(self, doing: str) -> None:
        """Something that takes long is begun; it is shown, and is no progress."""

    def step(self, name: str) -> None:
        """A step other than a group is done: ``closed``, ``verified``, ``published``."""


@dataclass(frozen=True)
class Counts:
    """Rows in a database, asked of the database itself."""

    labels: Mapping[str, int]  # every label a node carries, so a node may count more than once
    types: Mapping[str, int]
    nodes: int = 0
    relationships: int = 0


class TableKey(NamedTuple):
    """One table; for relationships, one pair of labels that it joins."""

    kind: Kind
    name: str
    source_label: str | None
    target_label: str | None


@dataclass(frozen=True)
class TableCount:
    """What the database holds of one table, or of several that it cannot tell apart.

    Where a node may carry the labels of several tables, only their sum can be counted.
    """

    keys: frozenset[TableKey]
    rows: int
    present: Mapping[str, int] = field(
        default_factory=dict
    )  # non-null values per column, where not all are read back


Side = Literal["source", "target"]


class End(NamedTuple):
    """The nodes of one table: its label, and the column that holds their ids."""

    label: str
    key: Column


@dataclass(frozen=True)
class Aggregate:
    """What a target reckoned of one column: values that are not null, the least and the greatest of them, and the length
    of all texts in code points; None where that says nothing of a type. No sums: those of floats depend on the order,
    and those of integers overflow.
    """

    present: int
    least: pa.Scalar | None = None
    most: pa.Scalar | None = None
    length: int | None = None


class Samples(Protocol):
    """What proves a database that is too large to be read back: what it reckons itself, and rows by their keys."""

    def aggregates(
        self, name: str, ends: tuple[End, End] | None, columns: Sequence[Column]
    ) -> tuple[int, list[Aggregate]]:
        """Rows of a label, or of a type between two labels, and what the target reckons of each column.

        Raises VerifyFailed for a value of another type than its column's.
        """

    def rows_by_key(self, group: Group, keys: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> Rows:
        """The rows with these keys, as ``{KEY: (...), "<column>": value, ...}``.

        A node's key is ``(id,)``, a relationship's ``(source id, target id)``; ``columns`` are the
        snapshot's names. Two relationships between one pair give two rows.
        """


class Inspector(Protocol):
    """A read-only look into a finished build or database."""

    @property
    def sides(self) -> tuple[Side, ...]:
        """The ends whose copies of a relationship are kept apart; one where there is one copy."""

    def counts(self) -> Counts:
        """Rows per label and type."""

    def tables(self, groups: Sequence[Group]) -> list[TableCount]:
        """Rows and non-null values of every table the plan names; a table without rows may be left out."""

    def samples(self, rows: int) -> Samples | None:
        """None where so many rows can be read back whole at a bearable price; else what is asked of them instead."""

    def held(self, kind: Kind, name: str) -> Mapping[str, str]:
        """The type of each column of a table in the target's own words; nothing where it has types per value only."""

    def nodes(self, end: End, columns: Sequence[Column], *, labels: bool, width: int) -> Iterator[pa.Table]:
        """Yield every node of a table in pages that fit into memory; ``width`` is about what a row has in bytes.

        ``k0`` is the id, ``c0``, ``c1``, ... are the columns, and with ``labels`` the last of them, or ``l0``, has all
        labels. ``place``, where there is one, is a whole number that names the node, from 0 and with few gaps, in
        rising order from page to page. Raises VerifyFailed for a value of another type than its column's.
        """

    def relationships(
        self, name: str, source: End, target: End, columns: Sequence[Column], *, width: int, side: Side
    ) -> Iterator[pa.Table]:
        """Yield every relationship between two tables, as one of ``sides`` has them: ``p0`` and ``p1``, the places of
        both ends, or ``k0`` and ``k1``, their ids; and the columns as above."""

    def place_of(self, end: End, key: Any) -> int | None:
        """The place of the node with this id, found by the index of ids; None where there is not just one."""

    def incoming(self, name: str, source: End, target: End, key: Any) -> int:
        """How many relationships end at the node with this id, counted from its side."""

    def troubles(self, snapshot: Snapshot) -> list[str]:
        """What else this snapshot was promised and the database lacks, such as a declared index."""


@dataclass(frozen=True)
class DatabaseInfo:
    """One database as the target sees it; ``size`` in bytes, None when the target cannot tell."""

    name: str
    status: Status
    size: int | None = None
    trouble: str = ""  # why nobody can read it now, in the target's own words: "offline on a:7687 (...)"


class Loader(Protocol):
    """What makes a database of a snapshot: judge types, reckon room, build, publish."""

    keys_cross_folders: (
        bool  # an id is unique among all nodes that carry its label, not only in the label's folder
    )

    def held(self, kind: pa.DataType) -> str | None:
        """How values of an Arrow type are held, in the words of ``Inspector.held``; None where only values have types."""

    def refuses(self, kind: pa.DataType, written_by: str) -> str | None:
        """What to write instead of a column of this type, or None when it arrives unharmed.

        ``written_by`` is the program that the file's footer names.
        """

    def plan(self, snapshot: Snapshot, running: Sequence[str]) -> tuple[Need, ...]:
        """What loading this snapshot needs beside the loads that run into ``running`` databases."""

    def load(self, ticket: Ticket, snapshot: Snapshot, ledger: Ledger) -> None:
        """Build the database and close it: idempotent, resumed from the last confirmed group.

        Raises BadInput, TargetFull, TargetAway, TargetError, BuildLocked for a build that cannot be
        continued and NameTaken for one that is not ours: the load then goes on under another name.
        """

    def publish(self, ticket: Ticket, facts: Mapping[str, Any]) -> None:
        """Make a verified build a database that an alias may point at; idempotent."""


class Databases(Protocol):
    """What exists, built or published, and how it is looked into and removed."""

    def databases(self) -> list[DatabaseInfo]:
        """Every database and build that exists, owned by bgdeploy or not."""

    def inspect(self, database: str) -> AbstractContextManager[Inspector]:
        """Open a closed build or a published database read-only, in a process that did not build it."""

    def outdated(self, database: str) -> str | None:
        """Say why no reader should be led to a database that was whole, or None; no alias moves to one.

        It is damaged as far as can be seen at once, or the installed engine should not read it.
        """

    def drain(self, database: str) -> Health:
        """Whether readers have left the database, so that it may be dropped."""

    def drop(self, database: str, fence: int, mark: str | None = None) -> None:
        """Remove a database or build and all it left behind; idempotent.

        Raises Refused while any alias points at it, NotOurs where ``mark`` is that of another of its name.
        """


class Aliases(Protocol):
    """The names readers use; each resolves in one step, and moves in one.

    A target without aliases of its own keeps a durable record of (name, database, generation) and resolves it in
    ``query``, at each call: a name must never be cached longer than a database is kept after the alias left it
    (``drop_grace_seconds``). The embedded target does so with a link that every opening of a file follows.
    """

    def alias(self, name: str) -> str | None:
        """The database this alias points at now, or None when there is no such alias."""

    def aliases(self) -> dict[str, str]:
        """What every alias points at now, keyed by its name; all of them at the price of one."""

    def generation(self, name: str) -> int | None:
        """With which generation bgdeploy moved this alias last, or None when it never did."""

    def switch(self, name: str, database: str, generation: int) -> None:
        """Move the alias in one step and read it back.

        Raises StaleGeneration when the alias has seen a newer generation, on targets that can tell.
        """

    def remove_alias(self, name: str, generation: int) -> None:
        """Take an alias away, because its customer leaves; idempotent, and never one that bgdeploy did not make.

        Raises StaleGeneration when the alias has seen a newer generation, on targets that can tell.
        """


class Target(Loader, Databases, Aliases, Protocol):
    """Where databases live.

    Everything here may be called again after a crash at any instruction: decide from what the
    target says. ``load`` and ``publish`` run in a child process that holds the build's lock; all
    else runs in the service or a command. A target whose commands are asynchronous returns only
    when it has seen the effect, or raises TargetError.
    """

    kind: str

    def identity(self) -> str:
        """What tells this target from another of its kind: a folder, or a DBMS id.

        Raises TargetAway when it cannot be asked now.
        """

    def expect(self, place: str) -> None:
        """Refuse to work at any other place than this one, at the latest when it is first asked.

        Raises Refused there and then, or from whatever is called first.
        """

    def health(self) -> Health:
        """Whether loads and switches may start now, with the numbers."""

    def catch_up(self, owned: Owned) -> None:
        """Do what an earlier call had to leave, and start databases of ours that a crash left down; idempotent, at each scan."""

    def query(self, alias: str, cypher: str, params: Mapping[str, Any] | None = None) -> Rows:
        """Rows of a read-only query through the alias, keyed by column name."""

    def checks(self, owned: Owned, *, try_rights: bool = False) -> Sequence[Check]:
        """What a doctor may look at here, each look on its own; none of them changes anything.

        The first that must succeed for all the others opens ``target``. With ``try_rights``, rights that
        only use can show are tried on scratch of its own, which is removed again.
        """


@dataclass(frozen=True)
class Description:
    """What the rest needs to know of a kind of target without opening one; an entry point names it.

    Nothing here connects or creates anything. The doctor asks an opened target for its ``checks``; those of
    this process's own memory are wanted where the engine is ``embedded`` in it.
    """

    kind: str
    # From the settings stored with a job, and the way to reach it, which is stored nowhere.
    open: Callable[[Mapping[str, Any], Mapping[str, Any]], Target]
    # ``Loader.refuses``, for who has no way to reach a target.
    refuses: Callable[[pa.DataType, str], str | None]
    # From settings and alias; None where clients read by a driver of the target's own.
    open_reader: Callable[[Mapping[str, Any], str], Any] | None
    embedded: bool  # the engine runs in this process, on files that nobody may write to
    folds_case: bool  # names that differ only in case are one name
    less_memory: str  # the setting that a load which ran out of memory should lower
    max_databases: int | None  # where nobody set a limit
