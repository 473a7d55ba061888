"""Verify: what the database holds must be what the Parquet files say; any difference fails the load."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bgdeploy.errors import VerifyFailed
from bgdeploy.snapshots.sample import Sample, present, sample
from bgdeploy.snapshots.schema import label_counts
from bgdeploy.snapshots.source import Kind, Snapshot, Table
from bgdeploy.targets.base import Counts, Group, Inspector, TableCount, Target

SAMPLED = 100  # keys compared per table


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the files say."""

    where: str
    what: str
    expected: Any
    found: Any


def verify(
    target: Target, database: str, snapshot: Snapshot, groups: Sequence[Group]
) -> dict[str, dict[str, int]]:
    """Return rows per label and type as asked of the database; raises VerifyFailed on any difference.

    Call it in a process that did not build the database: what it sees is what readers will see.
    """
    with target.inspect(database) as inspector:
        tables = inspector.tables(groups)
        counts = inspector.counts()
        differences = [
            *_compare_rows(groups, tables),
            *_compare_labels(snapshot, counts),
            *_compare_columns(snapshot, tables),
            *_compare_samples(snapshot, groups, inspector),
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
    expected: Counter[tuple[Kind, str, str | None, str | None]] = Counter()
    for group in groups:
        expected[group.kind, group.name, group.source_label, group.target_label] += group.rows
    found = {(one.kind, one.name, one.source_label, one.target_label): one.rows for one in tables}
    for key in sorted({*expected, *found}, key=str):
        if expected[key] != found.get(key, 0):
            yield Difference(_name(*key), "rows", expected[key], found.get(key, "no such table"))


def _compare_labels(snapshot: Snapshot, counts: Counts) -> Iterator[Difference]:
    types: Counter[str] = Counter()
    for table in snapshot.relationships:
        types[table.name] += table.rows
    yield from _compare_maps("label", label_counts(snapshot), counts.labels)
    yield from _compare_maps("type", types, counts.types)


def _compare_maps(what: str, expected: Mapping[str, int], found: Mapping[str, int]) -> Iterator[Difference]:
    for name in sorted({*expected, *found}):
        if expected.get(name, 0) != found.get(name, 0):
            yield Difference(name, f"rows of this {what}", expected.get(name, 0), found.get(name, 0))


def _compare_columns(snapshot: Snapshot, tables: Sequence[TableCount]) -> Iterator[Difference]:
    expected: dict[str, Counter[str]] = {}
    for table in snapshot.tables:
        expected.setdefault(table.name, Counter()).update(present(snapshot, table))
    found: dict[str, Counter[str]] = {}
    for one in tables:
        found.setdefault(one.name, Counter()).update(one.present)
    for name, columns in expected.items():
        for column, values in columns.items():
            there = found.get(name, Counter()).get(column, 0)
            if there != values:
                yield Difference(f"{name}.{column}", "non-null values", values, there)


def _compare_samples(
    snapshot: Snapshot, groups: Sequence[Group], inspector: Inspector
) -> Iterator[Difference]:
    for table in snapshot.tables:
        samples = sample(snapshot, table, SAMPLED)
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
            found.setdefault(tuple(row["key"]), []).append(row)
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
    """One form for values that two readers spell differently: zones, NaN, nested lists."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
