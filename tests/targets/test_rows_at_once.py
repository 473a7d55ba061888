"""How many rows one COPY of the embedded engine is given: what was seen to fit, and not what was seen to fail."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from bgdeploy.snapshots.source import Column, DataFile, Snapshot, Table
from bgdeploy.targets.ladybug.target import rows_at_once

SETTINGS = {"group_rows": 100_000_000, "threads": 2}


def table(kind: str, name: str, rows: int, types: list[pa.DataType], raw: int) -> Table:
    roles = ["id"] if kind == "node" else ["source", "target"]
    columns = [Column(role, pa.int64(), role) for role in roles]
    columns += [Column(f"p{number}", one, "property") for number, one in enumerate(types)]
    file = DataFile(f"{name}.parquet", rows, raw, raw, tuple(columns), "")
    labels = (name,) if kind == "node" else ()
    return Table(kind, name, labels, None, None, (file,), tuple(columns))  # type: ignore[arg-type]


def most(nodes: int, rows: int, types: list[pa.DataType], pool: int, share: int = 1, raw: int = 20) -> int:
    """Rows at once of a relationship table within one label."""
    tables = (table("node", "A", nodes, [], 8 * nodes), table("relationship", "R", rows, types, raw * rows))
    snapshot = Snapshot("acme", 1, Path(), tables, "")
    return rows_at_once(snapshot, SETTINGS, pool, share)(tables[1], "A", "A")


@pytest.mark.parametrize(
    ("nodes", "types", "pool", "fits", "fails"),
    [
        (200_000, [pa.float64()] * 4, 256, 1_000_000, 3_000_000),
        (200_000, [pa.float64()] * 10, 256, 500_000, 1_000_000),
        (200_000, [pa.float64()], 256, 1_000_000, 7_000_000),
        (200_000, [pa.string()], 256, 250_000, 1_000_000),
        (1_000_000, [pa.float64()] * 2, 256, 6_000_000, 100_000_000),
        (5_000_000, [pa.int64(), pa.date32()], 512, 10_000_000, 100_000_000),
    ],
)
def test_what_fits_is_copied_at_once_and_what_failed_is_not(
    nodes: int, types: list[pa.DataType], pool: int, fits: int, fails: int
) -> None:
    raw = 60 if pa.string() in types else 20
    assert fits <= most(nodes, fails, types, pool, raw=raw) < fails


def test_more_memory_and_smaller_shares_count_in_proportion() -> None:
    one = most(200_000, 10**7, [pa.float64()], 256)
    assert most(200_000, 10**7, [pa.float64()], 1024) // 4 == one
    assert most(200_000, 10**7, [pa.float64()], 256, share=8) == one // 8
    assert most(200_000, 10**7, [pa.float64()], 16, share=8**9) == 1


@pytest.mark.parametrize(
    ("types", "fits", "fails"), [([pa.string()] * 4, 250_000, 1_000_000), ([], 1_000_000, 4_000_000)]
)
def test_nodes_are_counted_by_their_texts(types: list[pa.DataType], fits: int, fails: int) -> None:
    one = table("node", "A", fails, types, 100)
    snapshot = Snapshot("acme", 1, Path(), (one,), "")
    assert fits <= rows_at_once(snapshot, SETTINGS, 256, 1)(one, "", "") < fails
