"""What the import tool is given, so that every value arrives: real tools and servers of both versions."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bgdeploy.targets.groups import plan_groups
from bgdeploy.targets.neo4j.inspection import to_native
from bgdeploy.targets.neo4j.offline.sources import FOLDER, lay_out
from tests.neo4j.importing import imported
from tests.neo4j.servers import LTS, NEWEST, NoServer, do_without, fetch
from tests.snapshots.folders import opened

MOMENT = datetime(2026, 1, 7, 12, 30, 15, 123456)
OLD = datetime(1922, 1, 7, 12, 30, 15, 123456)
THINGS: dict[str, Any] = {
    "text": pa.array(["", None, "Grüße 'quoted' \\ \"zwei\"\n日本 🎈", " "]),
    "large": pa.array(["a", None, "", "b"], pa.large_string()),
    "coded": pa.array(["a", None, "a", ""]).dictionary_encode(),
    "i8": pa.array([-128, None, 127, 0], pa.int8()),
    "i64": pa.array([-(2**63), None, 2**63 - 1, 0]),
    "u32": pa.array([0, None, 2**32 - 1, 7], pa.uint32()),
    "u64": pa.array([0, None, 2**63 - 1, 7], pa.uint64()),
    "half": pa.array([1.5, None, -2.0, 0.0], pa.float16()),
    "f32": pa.array([1.01, None, float("inf"), 0.0], pa.float32()),
    "f64": pa.array([5e-324, None, 1.7976931348623157e308, 0.1]),
    "truth": pa.array([True, None, False, True]),
    "day": pa.array([date(1, 1, 1), None, date(9999, 12, 31), date(1969, 12, 31)]),
    "new": pa.array([MOMENT, None, MOMENT, MOMENT], pa.timestamp("us")),
    "old": pa.array([OLD, None, MOMENT, datetime(1, 1, 1)], pa.timestamp("us")),
    "fine": pa.array([OLD, None, MOMENT, MOMENT], pa.timestamp("ns")),
    "zulu": pa.array([OLD, None, MOMENT, MOMENT], pa.timestamp("ms", "UTC"), safe=False),
    "berlin": pa.array([OLD, None, MOMENT, MOMENT], pa.timestamp("us", "Europe/Berlin")),
    "offset": pa.array([OLD, None, MOMENT, MOMENT], pa.timestamp("us", "+05:30")),
    "clock": pa.array([time(1, 2, 3, 4), None, time(23, 59, 59, 999_999), time(0)], pa.time64("us")),
    "span": pa.array([timedelta(days=-3, microseconds=5), None, timedelta(20_000), timedelta(0)], pa.duration("us")),
    "texts": pa.array([["a", ""], None, [], ["b,c", "d"]]),
    "numbers": pa.array([[1, -(2**63)], [], None, [3]]),
    "small": pa.array([[1, -2], [], None, [3]], pa.list_(pa.int16())),
    "floats": pa.array([[1.5, float("nan")], None, [], [float("-inf"), 1e300]]),
    "singles": pa.array([[1.01], [], None, [2.0]], pa.list_(pa.float32())),
    "a.b": pa.array([1, 2, 3, 4]),
    "odd, name": pa.array(["x", None, "y", "z"]),
    "nothing": pa.nulls(4),
}  # fmt: skip


@pytest.fixture(params=[LTS, NEWEST])
def tool_version(request: pytest.FixtureRequest, record_property: Any) -> str:
    try:
        fetch(request.param)
    except NoServer as error:
        do_without(error)
    record_property("server", f"Neo4j Community {request.param}, on a store that its import tool wrote")
    return str(request.param)


def test_every_value_arrives_as_over_bolt(tool_version: str, tmp_path: Path) -> None:
    things = pa.table({"id": [10, 20, 30, 40], **THINGS})
    joins = pa.table({"src": [10, 20, 30, 40], "dst": ["x", "y", "x", "x"], **THINGS})
    files = {
        "nodes/Thing/a.parquet": things,
        "nodes/Other:Two/a.parquet": pa.table({"id": ["x", "y"], "labels": [["Three ", "Other"], []]}),
        "nodes/Third/a.parquet": pa.table({"id": [10, 11], "labels": [" Third , Four,,", "Third"]}),
        "relationships/JOINS/from=Thing/to=Other/a.parquet": joins,
        "relationships/NEXT/from=Third/to=Thing/a.parquet": pa.table({"src": [10, 11], "dst": [40, 30]}),
    }
    with imported(tmp_path, tool_version, files) as (one, server):
        found = one.verify()
        assert found["labels"] == {"Thing": 4, "Other": 2, "Two": 2, "Three": 1, "Third": 2, "Four": 1}
        assert found["types"] == {"JOINS": 4, "NEXT": 2}
        with server.driver() as driver:
            kinds = "MATCH (n:Thing) RETURN n {.*} AS x ORDER BY n.id"
            nodes = [to_native(r["x"]) for r in driver.execute_query(kinds, database_="neo4j").records]
            kinds = "MATCH (a)-[r:JOINS]->(b) RETURN r {.*} AS x, a.id AS id, b.id AS other ORDER BY a.id"
            rows = driver.execute_query(kinds, database_="neo4j").records
        assert [(row["id"], row["other"]) for row in rows] == [(10, "x"), (20, "y"), (30, "x"), (40, "x")]
        for number, (node, row) in enumerate(zip(nodes, rows, strict=True)):
            wanted = {name: values[number].as_py() for name, values in THINGS.items()}
            wanted = {name: plain(value) for name, value in wanted.items() if value is not None}
            assert {n: plain(v) for n, v in node.items() if n != "id"} == wanted
            assert {n: plain(v) for n, v in to_native(row["x"]).items()} == wanted


def test_the_columns_of_folders_are_written_into_the_copies(tmp_path: Path) -> None:
    files = {f"nodes/P/k=a%2Fb/n={n}/d=2024-01-0{n}/part-0.parquet": {"id": [n]} for n in (1, 2)}
    snapshot = opened(tmp_path / "data", files)
    groups = plan_groups(snapshot, lambda *_: 1000, tmp_path)
    lay_out(snapshot, groups, tmp_path)
    headers = [path.read_text() for path in sorted((tmp_path / FOLDER).glob("*.csv"))]
    assert headers == ['"id:ID(g0)","k","n","d"\n"c0","c1","c2","c3"\n']
    copies = [pq.read_table(path) for path in sorted((tmp_path / FOLDER).glob("*.parquet"))]
    assert [row for one in copies for row in one.to_pylist()] == [
        {"c0": 1, "c1": "a/b", "c2": 1, "c3": date(2024, 1, 1)},
        {"c0": 2, "c1": "a/b", "c2": 2, "c3": date(2024, 1, 2)},
    ]


def plain(value: Any) -> Any:
    """Values that compare: NaN as text, moments with a zone by their instant, fine ones as their text."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, datetime):
        value = value.replace(tzinfo=None) if value.tzinfo is None else value.astimezone(UTC)
        return str(value)
    return "NaN" if isinstance(value, float) and value != value else value
