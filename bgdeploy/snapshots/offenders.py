"""Offenders: every row whose id or end does not fit, found from the files alone, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from bgdeploy.snapshots.ends import candidates
from bgdeploy.snapshots.ids import column_of, family
from bgdeploy.snapshots.index import Ids, Index, Listing, Place, Source, carriers
from bgdeploy.snapshots.source import Kind, Role, Table
from bgdeploy.snapshots.spill import IDS

Problem = Literal[
    "null id", "double id", "null source", "null target",
    "dangling source", "dangling target", "shared source", "shared target",
]  # fmt: skip
Windows = Iterable[pa.Table]  # rows as ``IDS``, never more than fit into memory
FIRST = 10  # offenders named one by one
_PLACES = 3  # places named of each
_SPOKEN = 8192  # rows turned into Python's own objects at a time
_NONE = pa.array([], IDS.field("id").type)


@dataclass(frozen=True)
class Offender:
    """One id that does not fit, None for none at all, with the first places where it stands."""

    id: str | int | None
    places: tuple[Place, ...]
    more: int  # places beside these


@dataclass(frozen=True)
class Subject:
    """Whose ids are looked at: a label, or one end of a relationship table; ``labels`` are where it is looked up."""

    kind: Kind
    table: str
    folder: str
    numeric: bool
    labels: tuple[str, ...]

    def read(self, id_: str | None) -> str | int | None:
        """An id as its file has it."""
        return int(id_) if self.numeric and id_ is not None else id_


@dataclass(frozen=True)
class Finding:
    """All rows of one subject with one problem.

    ``rows`` counts those to be changed: of a double id all but one. ``ids`` are distinct. ``first`` is in the
    order of the files. ``listing`` has every row, each place of a double id among them, while the index is open.
    """

    about: Subject
    problem: Problem
    rows: int
    ids: int
    first: tuple[Offender, ...]
    listing: Listing

    def lines(self) -> Iterator[tuple[str | int | None, Place]]:
        """Yield every row of the listing: its id and where it stands."""
        for rows in self.listing.tables():
            for some in rows.to_batches(max_chunksize=_SPOKEN):
                for id_, place in zip(*(column.to_pylist() for column in some.columns), strict=True):
                    yield self.about.read(id_), self.listing.places.at(place)


def find_all(index: Index, *, across: bool, tell: Callable[[str, int], None]) -> Iterator[Finding]:
    """Yield what is wrong in a snapshot, nodes first; ``tell`` hears each folder and its rows beforehand.

    ``across``: an id must be unique among all nodes that carry the label, whatever folder they are in.
    A finding's listing is gone when the next one is asked for.
    """
    nodes = index.snapshot.nodes
    for name in dict.fromkeys(table.name for table in nodes):
        tell(f"nodes/{name}", sum(table.rows for table in nodes if table.name == name))
        yield from _passing(find_in_label(index, name, across=across))
    for table in index.snapshot.relationships:
        tell(folder_of(table), table.rows)
        yield from _passing(find_in_ends(index, table))


def folder_of(table: Table) -> str:
    """The folder a table's files are in, relative to the snapshot, without those of columns inside."""
    parts = table.files[0].path.split("/")[:-1]
    ends = [part for part in parts[2:] if part.startswith(("from=", "to=")) and table.kind == "relationship"]
    return "/".join([*parts[:2], *ends])


def is_numeric(table: Table, role: Role) -> bool:
    """True where the ids of this role are integers."""
    return family(column_of(table, role)) == "integer"


def _passing(findings: Iterable[Finding]) -> Iterator[Finding]:
    for finding in findings:
        yield finding
        finding.listing.spill.remove()


def find_in_label(index: Index, label: str, *, across: bool) -> Iterator[Finding]:
    """Yield the rows of a label without an id, and those that repeat one."""
    own = index.label(label)
    mine = [table for table in index.snapshot.nodes if table.name == label]
    yield from _told(_of_label(label, mine), "null id", _Pile(own.nulls, 1))
    sources = carriers(index.snapshot, label) if across else []
    if {source.table.name for source in sources} <= {label}:
        yield from _find_doubles(index, _of_label(label, mine), own)
        return
    for numeric in (False, True):  # 1 and '1' are two ids
        some = [source for source in sources if is_numeric(source.table, "id") == numeric]
        if some:
            about = _of_label(label, [source.table for source in some])
            yield from _find_doubles(index, about, index.read(some))


def _of_label(label: str, tables: Sequence[Table]) -> Subject:
    names = tuple(dict.fromkeys(table.name for table in tables))
    return Subject("node", label, f"nodes/{label}", is_numeric(tables[0], "id"), names)


def _find_doubles(index: Index, about: Subject, ids: Ids) -> Iterator[Finding]:
    doubles, surplus = _pile_doubles(index, ids)
    yield from _told(about, "double id", doubles, surplus)


def _pile_doubles(index: Index, ids: Ids) -> tuple[_Pile, int]:
    """Every row whose id is there more than once, and how many of them are one too many."""
    doubles = _Pile(index.listing(ids.places))
    for part in ids.rows.parts():
        again = repeated(ids.rows.windows(part))
        if len(again):
            doubles.take(ids.rows.windows(part), partial(pc.is_in, value_set=again))
    doubles.listing.spill.close()
    return doubles, doubles.listing.spill.rows - doubles.ids


def repeated(windows: Windows) -> pa.Array:
    """Return the ids that come more than once; memory grows with distinct ids, not with rows."""
    seen, again = _NONE, _NONE
    for rows in windows:
        counts = pc.value_counts(rows["id"])
        values, several = counts.field("values"), pc.greater(counts.field("counts"), 1)
        known = pc.is_in(values, value_set=seen)
        again = _union(again, values.filter(pc.or_(several, known)))
        seen = pa.concat_arrays([seen, values.filter(pc.invert(known))])
    return again


def find_in_ends(index: Index, table: Table) -> Iterator[Finding]:
    """Yield the rows with an end that is null, that no node has, or that several labels share."""
    yield from _find_in_end(index, table, "source", table.source_label)
    yield from _find_in_end(index, table, "target", table.target_label)


def _find_in_end(
    index: Index, table: Table, role: Literal["source", "target"], declared: str | None
) -> Iterator[Finding]:
    names = candidates(index.snapshot, table, role, declared)
    about = Subject("relationship", table.name, folder_of(table), is_numeric(table, role), tuple(names))
    ends = index.read([Source(table, file, role) for file in table.files])
    lost, shared = _pile_ends(index, ends, [index.label(name) for name in names])
    ends.rows.remove()
    null, dangling, several = _PROBLEMS[role]
    yield from _told(about, null, _Pile(ends.nulls, 1))
    yield from _told(about, dangling, lost)
    yield from _told(about, several, shared)


_PROBLEMS: dict[Role, tuple[Problem, Problem, Problem]] = {
    "source": ("null source", "dangling source", "shared source"),
    "target": ("null target", "dangling target", "shared target"),
}


def _pile_ends(index: Index, ends: Ids, labels: list[Ids]) -> tuple[_Pile, _Pile]:
    """The rows whose id no label has, and those whose id several have."""
    lost, shared = _Pile(index.listing(ends.places)), _Pile(index.listing(ends.places))
    for part in ends.rows.parts():
        held = [_distinct(label.rows.windows(part)) for label in labels]
        lost.take(ends.rows.windows(part), partial(_is_lost, held))
        if len(held) > 1:
            shared.take(ends.rows.windows(part), partial(_is_shared, held))
    lost.listing.spill.close()
    shared.listing.spill.close()
    return lost, shared


def _is_lost(held: list[pa.Array], ids: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.equal(_hits(held, ids), 0)


def _is_shared(held: list[pa.Array], ids: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.greater(_hits(held, ids), 1)


def _hits(held: list[pa.Array], ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """In how many of these sets each id is."""
    hits = pa.chunked_array([pa.nulls(len(ids), pa.int32()).fill_null(0)])
    for known in held:
        hits = pc.add(hits, pc.is_in(ids, value_set=known).cast(pa.int32()))
    return hits


def _distinct(windows: Windows) -> pa.Array:
    known = _NONE
    for rows in windows:
        known = _union(known, pc.unique(rows["id"]))
    return known


def _union(one: pa.Array, more: pa.Array) -> pa.Array:
    """What is in either of two arrays of distinct ids."""
    return pc.unique(pa.chunked_array([one, more])) if len(one) else more


@dataclass
class _Pile:
    """Offending rows while they are gathered, and how many distinct ids they have."""

    listing: Listing
    ids: int = 0

    def take(self, windows: Windows, offends: Callable[[pa.ChunkedArray], pa.ChunkedArray]) -> None:
        """Add what offends of one part; no other part has the same ids."""
        known = _NONE
        for rows in windows:
            some = rows.filter(offends(rows["id"]))
            self.listing.spill.add(some)
            known = _union(known, pc.unique(some["id"]))
        self.ids += len(known)


def _told(about: Subject, problem: Problem, pile: _Pile, rows: int | None = None) -> Iterator[Finding]:
    """Yield what is to be said of a pile, unless it is empty."""
    listing = pile.listing
    if listing.spill.rows:
        wanted = _first_ids(listing)
        first = _first_nulls(listing) if wanted == [None] else _first_of(listing, wanted, about)
        count = listing.spill.rows if rows is None else rows
        yield Finding(about, problem, count, pile.ids, tuple(first), listing)


def _first_ids(listing: Listing) -> list[str | None]:
    wanted: dict[str | None, None] = {}
    for rows in listing.tables():
        wanted |= dict.fromkeys(pc.unique(rows["id"])[:FIRST].to_pylist())
        if len(wanted) >= FIRST:
            break
    return list(wanted)[:FIRST]


def _first_nulls(listing: Listing) -> Iterator[Offender]:
    places: list[int] = []
    for rows in listing.tables():
        places += rows["place"][: FIRST - len(places)].to_pylist()
    yield _offender(None, places, listing.spill.rows, listing)


def _first_of(listing: Listing, wanted: list[str | None], about: Subject) -> Iterator[Offender]:
    places: dict[str | None, list[int]] = {id_: [] for id_ in wanted}
    counts = dict.fromkeys(wanted, 0)
    for rows in listing.tables():
        some = rows.filter(pc.is_in(rows["id"], value_set=pa.array(wanted, _NONE.type)))
        for id_ in wanted:
            mine = some.filter(pc.equal(some["id"], id_))["place"]
            counts[id_] += len(mine)
            places[id_] += mine[: _PLACES - len(places[id_])].to_pylist()
    for id_ in wanted:
        yield _offender(about.read(id_), places[id_], counts[id_], listing)


def _offender(id_: str | int | None, places: list[int], rows: int, listing: Listing) -> Offender:
    found = tuple(listing.places.at(place) for place in places)
    return Offender(id_, found, rows - len(found))
