"""Verify: what the database holds must be what the Parquet files say, value by value; any difference fails the load."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgdeploy.errors import VerifyFailed
from bgdeploy.memory import find_free
from bgdeploy.snapshots.checksums import check_checksums
from bgdeploy.snapshots.proof import (
    ALGORITHM,
    Digest,
    Files,
    Found,
    Subject,
    Unfit,
    end_labels,
    explain,
    may_carry,
    opened_files,
    overlap,
    subjects,
)
from bgdeploy.snapshots.rows import Sample, present, sample
from bgdeploy.snapshots.schema import label_counts, simple
from bgdeploy.snapshots.source import Role, Snapshot, Table
from bgdeploy.targets.base import (
    KEY,
    Counts,
    End,
    Group,
    Inspector,
    Samples,
    Side,
    TableCount,
    TableKey,
    Target,
)

if TYPE_CHECKING:
    import pyarrow as pa

_ENDLESS = 1 << 62  # rows that no target reads back
SAMPLED = 100  # keys compared per table, where a database is too large to be read back
Pages = Callable[[], Iterable[tuple[Subject, "pa.Table"]]]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the files say."""

    where: str
    what: str
    expected: Any
    found: Any


@dataclass(frozen=True)
class Expected:
    """What the files alone say, read while the database is still being filled."""

    files: Files
    folder: Path  # private to this process
    labels: Mapping[str, int]
    digests: Mapping[Subject, Digest]
    ends: Mapping[Subject, Mapping[Any, int]]  # some targets of a type, and how many relationships end there
    unfit: Unfit | None = None  # why there are no digests: raised unless the load refuses the files itself


@contextmanager
def expecting(snapshot: Snapshot, folder: Path, *, across: bool = False) -> Iterator[Expected]:
    """Read from the files what a database must hold; ``folder`` is emptied, and gone at the end. ``across`` as in ``subjects``.

    For a child process: DuckDB is opened on the files, and its folder becomes the current one. Raises BadInput for what
    cannot be right in the files, TargetFull where they take more memory than there is.
    """
    for file in snapshot.files:
        check_checksums(snapshot.path / file.path, file.path)
    with opened_files(snapshot, folder, available=find_free()) as duck:
        files = Files(snapshot, duck)
        labels = label_counts(snapshot)
        wanted = subjects(snapshot, across=across)
        digests, ends, unfit = {}, {}, None
        try:
            digests = {subject: files.digest(subject) for subject in wanted}
            ends = {subject: files.ends(subject) for subject in wanted if subject.kind == "relationship"}
        except Unfit as error:
            unfit = error
        yield Expected(files, folder, labels, digests, ends, unfit)


@dataclass(frozen=True)
class Verified:
    """Rows per label and type as asked of the database, and what was proven of them."""

    counts: dict[str, dict[str, int]]
    proof: dict[str, Any]


def verify(target: Target, database: str, expected: Expected, groups: Sequence[Group]) -> Verified:
    """Compare a closed database with the files; raises VerifyFailed, naming rows and columns, on any difference.

    Call it in a process that did not build the database: what it sees is what readers will see. Every value of
    every row is compared where the target can be read back, else counts of values and sampled rows.
    """
    snapshot = expected.files.snapshot
    if expected.unfit is not None:
        raise expected.unfit
    with target.inspect(database) as inspector:
        tables = inspector.tables(groups)
        counts = inspector.counts()
        differences = [
            *_compare_rows(groups, tables),
            *_compare_labels(snapshot, expected, counts),
            *_compare_names(snapshot, tables),
            *(
                Difference("schema", trouble, "there", "not there")
                for trouble in inspector.troubles(snapshot)
            ),
        ]
        samples = inspector.samples(snapshot.rows if _can_read_back(expected, groups) else _ENDLESS)
        if samples is not None:
            differences += _compare_some(snapshot, tables, groups, samples)
            differences += _compare_aggregates(expected, groups, samples)
        elif not differences:  # else the pages may not even have the shape that is compared
            differences = _compare_all(target, inspector, expected, groups)
            # A page has only the columns of its label, so a property too many beside another label's is seen by its count.
            differences = differences or [*_compare_columns(snapshot, tables, together=True)]
    if differences:
        raise VerifyFailed(
            f"{database} does not hold what its snapshot says:\n{tabulate(differences)}",
            kept="It was not published; what is live stays live.",
            cure="It is loaded again from zero; if it happens again, the files or the engine are at fault.",
        )
    record = _record(expected, snapshot.rows, complete=samples is None)
    return Verified({"labels": dict(counts.labels), "types": dict(counts.types)}, record)


def _record(expected: Expected, rows: int, *, complete: bool) -> dict[str, Any]:
    """What is kept with the database, ``complete`` where every value was compared: digests as hexadecimal text, comparable only for one algorithm and version."""
    import duckdb

    how = "every value" if complete else "samples"
    tables = [
        {
            "kind": subject.kind,
            "name": subject.name,
            "source_label": subject.source,
            "target_label": subject.target,
            "rows": digest.rows,
            "digest": f"{digest.total:032x}",
            "columns": {name: f"{total:032x}" for name, total in digest.columns.items()},
        }
        for subject, digest in expected.digests.items()
    ]
    made = {"algorithm": ALGORITHM, "duckdb": duckdb.__version__}
    return {"compared": how, "complete": complete, "rows": rows, **made, "tables": tables}


# Every value


def _can_read_back(expected: Expected, groups: Sequence[Group]) -> bool:
    """False where nodes carry the labels of several folders in a way that pages by label cannot tell apart.

    Their columns must be of one type, and all that carry a label must have their ids under one name and of one kind; a
    type that joins several pairs of labels would come more than once. Nodes whose ids have another name are left out of a
    label's pages only where they have nothing else of the name that the label's own ids have.
    """
    mixed, snapshot = overlap(expected.digests), expected.files.snapshot
    for subject in _carried_elsewhere(expected):
        key = _end(snapshot, subject.name).key.name
        others = (table for table in snapshot.nodes if table not in subject.folders)
        if subject in mixed or any(
            may_carry(table, subject.name) and key in _stored(table) for table in others
        ):
            return False
    for subject in mixed:
        for folder in subject.folders:
            kinds = {column.name: simple(column.kind) for column in folder.properties}
            if any(kinds.get(own.name, simple(own.kind)) != simple(own.kind) for own in subject.properties):
                return False
    return not mixed or not _joining_several(expected, groups)


def _carried_elsewhere(expected: Expected) -> list[Subject]:
    """Labels that more nodes carry than are compared as theirs: those have their ids under another name, or of another kind."""
    return [
        one
        for one, digest in expected.digests.items()
        if one.kind == "node" and expected.labels.get(one.name) != digest.rows
    ]


def _stored(table: Table) -> set[str]:
    """Names of what a node or relationship of a folder keeps."""
    return {column.name for column in table.columns if column.role in ("id", "property")}


def _joining_several(expected: Expected, groups: Sequence[Group]) -> set[str]:
    """Types that join several pairs of labels; where a node carries the labels of two, a row is in several of them."""
    pairs: dict[str, set[tuple[str, str]]] = {}
    for subject in expected.digests:
        if subject.kind == "relationship":
            pairs.setdefault(subject.name, set()).update(_pairs_of(subject, groups))
    return {name for name, some in pairs.items() if len(some) > 1}


def _compare_all(
    target: Target, inspector: Inspector, expected: Expected, groups: Sequence[Group]
) -> list[Difference]:
    """Types first, then every row, of both copies where there are two; where a sum differs, the columns and rows that made it so."""
    wanted = expected.digests
    found = Found(expected.files.duck, expected.folder)
    open_ends = [subject for subject in wanted if subject.kind == "relationship" and subject.source is None]
    ends = {label for group in groups for label in (group.source_label, group.target_label) if label}
    # A footer that lies may have kept a label out of the plan: its ids are needed to see that.
    open_labels = {one: _open_labels(expected, one) for one in open_ends}
    ends |= {label for named in open_labels.values() for _, labels in named for label in labels}
    differences: list[Difference] = []
    for subject in {(one.kind, one.name): one for one in wanted}.values():
        differences += _compare_types(target, inspector, subject)
    if differences:
        return differences
    for subject, digest in wanted.items():
        for side in inspector.sides if subject.kind == "relationship" else (None,):
            pages = _pages(inspector, expected.files.snapshot, subject, groups, side)
            there = found.digest(subject, pages(), ends=subject.kind == "node" and subject.name in ends)
            if (there.rows, there.total) != (digest.rows, digest.total):
                differences += _tell(expected.files, found, subject, pages, side)
                break
    if not differences:
        for subject, named in open_labels.items() if not overlap(wanted) else ():
            differences += _compare_shared(found, subject, named)
        differences += _look_up(inspector, expected, found, groups)
    return differences


def _pages(
    inspector: Inspector, snapshot: Snapshot, subject: Subject, groups: Sequence[Group], side: Side | None
) -> Pages:
    """Return what reads a subject back, relationships as one side has them: every page with the part that it holds."""

    files = [file for folder in subject.folders for file in folder.files]
    width = sum(file.raw_size for file in files) // max(1, subject.rows)

    def read() -> Iterator[tuple[Subject, pa.Table]]:
        if side is None:
            end = _end(snapshot, subject.name)
            for page in inspector.nodes(end, subject.properties, labels=subject.labels, width=width):
                yield subject, page
            return
        for source, target in _pairs_of(subject, groups):
            part = replace(subject, source=source, target=target)
            ends = _end(snapshot, source), _end(snapshot, target)
            for page in inspector.relationships(
                subject.name, *ends, subject.properties, width=width, side=side
            ):
                yield part, page

    return read


def _end(snapshot: Snapshot, label: str) -> End:
    return End(label, next(node.key("id") for node in snapshot.nodes if node.name == label))


def _pairs_of(subject: Subject, groups: Sequence[Group]) -> list[tuple[str, str]]:
    """The pairs of labels that a type's rows join; the plan knows them where the folders leave them open."""
    if subject.source is not None and subject.target is not None:
        return [(subject.source, subject.target)]
    mine = (group for group in groups if group.kind == "relationship" and group.name == subject.name)
    return list(dict.fromkeys((str(group.source_label), str(group.target_label)) for group in mine))


def _compare_types(target: Target, inspector: Inspector, subject: Subject) -> Iterator[Difference]:
    """Names and types of columns: the digest itself cannot tell true from 1."""
    there = inspector.held(subject.kind, subject.name)
    wanted = {column.name: target.held(column.kind) for column in subject.properties}
    if subject.kind == "node":
        key = subject.folders[0].column("id")
        wanted |= {key.name: target.held(key.kind)} if key is not None else {}
    if subject.labels:
        wanted["labels"] = there.get("labels")
    for name in sorted({*wanted, *there} if there else ()):
        if wanted.get(name) != there.get(name):
            yield Difference(f"{subject.name}.{name}", "type", wanted.get(name), there.get(name))


def _tell(
    files: Files, found: Found, subject: Subject, pages: Pages, side: Side | None
) -> Iterator[Difference]:
    """Say what differs: the columns, then rows with both values, then how many rows in all."""
    told = explain(files, found, subject, pages)
    where = f"{subject}, read from its targets" if side == "target" else str(subject)
    yield Difference(where, "columns that differ", "none", ", ".join(told.columns) or "the ids alone")
    for row in told.rows:
        yield Difference(f"{subject} {row.where}", row.column, row.in_file, row.in_database)
    yield Difference(str(subject), "rows that only one side has", told.only_in_files, told.only_in_database)


def _open_labels(expected: Expected, subject: Subject) -> set[tuple[Role, tuple[str, ...]]]:
    """The labels with nodes that either end of a type's rows may join, by what its folders declare alone."""
    snapshot, held = expected.files.snapshot, {one.name for one in expected.digests if one.kind == "node"}
    roles: tuple[Role, Role] = ("source", "target")
    return {
        (role, tuple(label for label in end_labels(snapshot, table, role) if label in held))
        for table in subject.folders
        for role in roles
    }


def _compare_shared(
    found: Found, subject: Subject, named: Iterable[tuple[Role, tuple[str, ...]]]
) -> Iterator[Difference]:
    """Where nothing declares an end, no two labels it may join may have an id in common: else the row could join either."""
    for role, labels in sorted(named):
        shared = found.shared(labels)
        if shared:
            where = f"{subject.name}, {role} ids of {', '.join(labels)}"
            yield Difference(where, "ids that several labels have", 0, shared)


def _look_up(
    inspector: Inspector, expected: Expected, found: Found, groups: Sequence[Group]
) -> Iterator[Difference]:
    """A scan touches neither the index of ids nor the relationships as their targets see them: try some."""
    snapshot = expected.files.snapshot
    for subject in expected.digests:
        for place, key in found.keys.get(subject.name, ()) if subject.kind == "node" else ():
            there = inspector.place_of(_end(snapshot, subject.name), key)
            if there != place:
                yield Difference(f"{subject.name} {key}", "place by its id", place, there)
        for key, rows in expected.ends.get(subject, {}).items():
            pairs = _pairs_of(subject, groups)
            there = sum(
                inspector.incoming(subject.name, _end(snapshot, source), _end(snapshot, end), key)
                for source, end in pairs
            )
            if there != rows:
                yield Difference(f"{subject} to {key}", "rows from the target's side", rows, there)


def tabulate(differences: Sequence[Difference], most: int = 20) -> str:
    """Return the differences as a table in plain text."""
    rows = [("where", "what", "expected", "found")]
    rows += [(one.where, one.what, str(one.expected), str(one.found)) for one in differences[:most]]
    widths = [max(len(row[index]) for row in rows) for index in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    if len(differences) > most:
        lines.append(f"... and {len(differences) - most} more")
    return "\n".join(f"  {line}" for line in lines)


def _name(kind: str, name: str, source: str | None, target: str | None) -> str:
    return name if kind == "node" else f"({source})-[{name}]->({target})"


def _compare_rows(groups: Sequence[Group], tables: Sequence[TableCount]) -> Iterator[Difference]:
    expected: Counter[TableKey] = Counter()
    for group in groups:
        expected[TableKey(group.kind, group.name, group.source_label, group.target_label)] += group.rows
    seen = {key for one in tables for key in one.keys}
    for one in tables:
        rows = sum(expected[key] for key in one.keys)
        if rows != one.rows:
            yield Difference(" and ".join(sorted(_name(*key) for key in one.keys)), "rows", rows, one.rows)
    for key in sorted({*expected} - seen, key=str):
        if expected[key]:
            yield Difference(_name(*key), "rows", expected[key], "no such table")


def _compare_names(snapshot: Snapshot, tables: Sequence[TableCount]) -> Iterator[Difference]:
    """No table holds a property that its files do not have, where its target counts those that there are."""
    for one in tables:
        names = {key.name for key in one.keys}
        known = set[str]().union(*(_stored(table) for table in snapshot.tables if table.name in names))
        for name in sorted({*one.present} - known):
            yield Difference("+".join(sorted(names)), "property that no file has", "none", name)


def _compare_labels(snapshot: Snapshot, expected: Expected, counts: Counts) -> Iterator[Difference]:
    types: Counter[str] = Counter()
    for table in snapshot.relationships:
        types[table.name] += table.rows
    yield from _compare_maps("label", expected.labels, counts.labels)
    yield from _compare_maps("type", types, counts.types)


def _compare_maps(what: str, expected: Mapping[str, int], found: Mapping[str, int]) -> Iterator[Difference]:
    for name in sorted({*expected, *found}):
        if expected.get(name, 0) != found.get(name, 0):
            yield Difference(name, f"rows of this {what}", expected.get(name, 0), found.get(name, 0))


# Some values


def _compare_some(
    snapshot: Snapshot, tables: Sequence[TableCount], groups: Sequence[Group], samples: Samples
) -> Iterator[Difference]:
    """Values that are not null per column, and sampled rows."""
    yield from _compare_columns(snapshot, tables)
    for table in snapshot.tables:
        rows = sample(snapshot, table, SAMPLED)
        if rows:
            yield from _compare_rows_by_key(table, rows, groups, samples)


def _compare_columns(
    snapshot: Snapshot, tables: Sequence[TableCount], *, together: bool = False
) -> Iterator[Difference]:
    """Values that are not null, ids among them; with ``together`` only where labels are counted as one."""
    for names, found in _present_together(tables):
        if together and len(names) == 1:
            continue
        wanted: Counter[str] = Counter()
        for table in snapshot.tables:
            if table.name in names:
                wanted.update(present(snapshot, table))
                if table.kind == "node":
                    wanted[table.key("id").name] += table.rows
        for column in sorted(wanted):
            if found[column] != wanted[column]:
                where = f"{'+'.join(names)}.{column}"
                yield Difference(where, "non-null values", wanted[column], found[column])


def _present_together(tables: Sequence[TableCount]) -> list[tuple[list[str], Counter[str]]]:
    """Non-null values per column, for the names that the counts speak of together."""
    together: list[tuple[set[str], Counter[str]]] = []
    for one in tables:
        names, found = {key.name for key in one.keys}, Counter(one.present)
        for other in [other for other in together if other[0] & names]:
            together.remove(other)
            names, found = names | other[0], found + other[1]
        together.append((names, found))
    return [(sorted(names), found) for names, found in together]


def _compare_aggregates(
    expected: Expected, groups: Sequence[Group], samples: Samples
) -> Iterator[Difference]:
    """What the target reckons of each column, where a label's nodes lie in folders of its own and a type joins one pair."""
    found = Found(expected.files.duck, expected.folder)
    mixed = [*overlap(expected.digests), *_carried_elsewhere(expected)]
    several = _joining_several(expected, groups)
    for subject in expected.digests:
        pairs = [] if subject.kind == "node" else _pairs_of(subject, groups)
        if subject in mixed or len(pairs) > 1 or (mixed and subject.name in several):
            continue
        ends = [
            (_end(expected.files.snapshot, source), _end(expected.files.snapshot, end))
            for source, end in pairs
        ]
        _, reckoned = samples.aggregates(subject.name, ends[0] if ends else None, subject.properties)
        known = expected.files.aggregates(subject)
        for column, one, (present_, least, most, length) in zip(
            subject.properties, reckoned, known, strict=True
        ):
            there: tuple[Any, ...] = (one.present, one.length)
            mine: tuple[Any, ...] = (present_, None if one.length is None else length)
            if one.least is not None and one.most is not None:
                there += tuple(found.plain(column.kind, [one.least, one.most]))
                mine += (least, most)
            if [_plain(value) for value in there] != [_plain(value) for value in mine]:
                yield Difference(
                    f"{subject}.{column.name}", "values, letters, least and greatest", mine, there
                )


def _compare_rows_by_key(
    table: Table, samples: Sequence[Sample], groups: Sequence[Group], inspector: Samples
) -> Iterator[Difference]:
    columns = [column.name for column in table.properties]
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    keys = sorted({one.key for one in samples}, key=str)
    for group in _pairs(table, groups):
        for row in inspector.rows_by_key(group, keys, columns):
            found.setdefault(tuple(row[KEY]), []).append(row)
    for one in samples:
        rows = found.get(one.key, [])
        if not any(_same_values(one.values, row) for row in rows):
            shown = {name: rows[0][name] for name in columns} if rows else "no such row"
            yield Difference(f"{table.name} {'/'.join(map(str, one.key))}", "values", dict(one.values), shown)


def _pairs(table: Table, groups: Iterable[Group]) -> list[Group]:
    """One group for each pair of labels this table's rows may join."""
    mine = [group for group in groups if group.kind == table.kind and group.name == table.name]
    return list({(group.source_label, group.target_label): group for group in mine}.values())


def _same_values(expected: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    return all(_plain(value) == _plain(found.get(name)) for name, value in expected.items())


def _plain(value: Any) -> Any:
    """One form for values that two readers spell differently: zones, times of day, NaN, nested lists."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if isinstance(value, time):  # where there is no such type it is held as the span since midnight
        since = timedelta(hours=value.hour, minutes=value.minute, seconds=value.second)
        return since + timedelta(microseconds=value.microsecond)
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
