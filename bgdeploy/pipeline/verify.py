"""Verify: what the database holds must be what the Parquet files say; any difference fails the load."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from bgdeploy.errors import VerifyFailed
from bgdeploy.snapshots.sample import Sample, present, sample
from bgdeploy.snapshots.schema import label_counts
from bgdeploy.snapshots.source import Snapshot, Table
from bgdeploy.targets.base import KEY, Counts, Group, Inspector, TableCount, TableKey, Target

SAMPLED = 100  # keys compared per table


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

    labels: Mapping[str, int]
    present: Mapping[str, Mapping[str, int]]  # label or type -> column -> values that are not null
    samples: Sequence[tuple[Table, Sequence[Sample]]]


def expect(snapshot: Snapshot) -> Expected:
    """Read from the files what a database must hold; raises BadInput for labels that cannot be right."""
    present_: dict[str, Counter[str]] = {}
    for table in snapshot.tables:
        present_.setdefault(table.name, Counter()).update(present(snapshot, table))
    samples = [(table, sample(snapshot, table, SAMPLED)) for table in snapshot.tables]
    return Expected(label_counts(snapshot), present_, samples)


def verify(
    target: Target,
    database: str,
    snapshot: Snapshot,
    groups: Sequence[Group],
    expected: Expected | None = None,
) -> dict[str, dict[str, int]]:
    """Return rows per label and type as asked of the database; raises VerifyFailed on any difference.

    Call it in a process that did not build the database: what it sees is what readers will see.
    """
    expected = expected or expect(snapshot)
    with target.inspect(database) as inspector:
        tables = inspector.tables(groups)
        counts = inspector.counts()
        differences = [
            *_compare_rows(groups, tables),
            *_compare_labels(snapshot, expected, counts),
            *_compare_columns(expected, tables),
            *_compare_samples(expected, groups, inspector),
            *(
                Difference("schema", trouble, "there", "not there")
                for trouble in inspector.troubles(snapshot)
            ),
        ]
    if differences:
        raise VerifyFailed(
            f"{database} does not hold what its snapshot says:\n{tabulate(differences)}",
            kept="It was not published; what is live stays live.",
            cure="It is loaded again from zero; if it happens again, the files or the engine are at fault.",
        )
    return {"labels": dict(counts.labels), "types": dict(counts.types)}


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


def _compare_columns(expected: Expected, tables: Sequence[TableCount]) -> Iterator[Difference]:
    for names, found in _present_together(tables):
        wanted: Counter[str] = Counter()
        for name in names:
            wanted.update(expected.present.get(name, {}))
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


def _compare_samples(
    expected: Expected, groups: Sequence[Group], inspector: Inspector
) -> Iterator[Difference]:
    for table, samples in expected.samples:
        if samples:
            yield from _compare_rows_by_key(table, samples, groups, inspector)


def _compare_rows_by_key(
    table: Table, samples: Sequence[Sample], groups: Sequence[Group], inspector: Inspector
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
