"""Snapshots of every shape, loaded for real and read back value by value."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bgdeploy.pipeline.verify import _plain
from bgdeploy.targets.neo4j.inspection import to_native
from tests.house import House, make_house, make_removable
from tests.snapshots.folders import write

FIRST = 1700000001
MOMENT = datetime(2026, 1, 7, 12, 30, 15, 123456)


def load(house: House, files: dict[str, Any], ok: bool = True) -> dict[str, Any]:
    """Drop a snapshot, run to the end and return its job."""
    write(house.folder / "data/acme" / str(FIRST), files)
    house.run("run", "--timeout", "60", ok=ok)
    job: dict[str, Any] = house.json("jobs", "show", "1")
    return job


def ask(house: House, cypher: str) -> list[dict[str, Any]]:
    """Ask what is live; on a server without aliases, what was loaded."""
    if house.live("acme") is not None:
        return house.target().query("acme", cypher)
    with house.target().inspect(house.database()) as inspector:
        return [to_native(row) for row in inspector._ask(cypher)]  # type: ignore[attr-defined]


def counts(house: House) -> dict[str, Any]:
    with house.target().inspect(house.database()) as inspector:
        found = inspector.counts()
    return {"labels": dict(found.labels), "types": dict(found.types)}


EVERY_TYPE = {
    "int8": pa.array([-128, None, 127], pa.int8()),
    "int16": pa.array([-32768, None, 32767], pa.int16()),
    "int32": pa.array([-(2**31), None, 2**31 - 1], pa.int32()),
    "int64": pa.array([-(2**63), None, 2**63 - 1], pa.int64()),
    "uint8": pa.array([0, None, 255], pa.uint8()),
    "uint16": pa.array([0, None, 65535], pa.uint16()),
    "uint32": pa.array([0, None, 2**32 - 1], pa.uint32()),
    "uint64": pa.array([0, None, 2**64 - 1], pa.uint64()),
    "float32": pa.array([1.5, None, float("inf")], pa.float32()),
    "float64": pa.array([5e-324, None, 1.7976931348623157e308]),
    "text": pa.array(["", None, "Grüße 'quoted' \\ \"zwei\"\n日本 🎈"]),
    "large": pa.array(["a", None, "b"], pa.large_string()),
    "coded": pa.array(["a", None, "a"]).dictionary_encode(),
    "truth": pa.array([True, None, False]),
    "day": pa.array([date(1, 1, 1), None, date(9999, 12, 31)]),
    "moment_us": pa.array([datetime(1, 1, 1), None, MOMENT], pa.timestamp("us")),
    "moment_ms": pa.array([datetime(1970, 1, 1), None, datetime(2026, 1, 7)], pa.timestamp("ms")),
    "moment_s": pa.array([datetime(1970, 1, 1), None, datetime(2026, 1, 7)], pa.timestamp("s")),
    "texts": pa.array([["a", None, ""], None, []], pa.list_(pa.string())),
    "numbers": pa.array([[1, -2], None, []], pa.list_(pa.int64())),
    "floats": pa.array([[1.5], None, []], pa.list_(pa.float64())),
    "deep": pa.array([[[1], []], None, []], pa.list_(pa.list_(pa.int64()))),
    "half": pa.array([1.5, None, -2.0], pa.float16()),
    "price": pa.array(
        [Decimal("0.0000001"), None, Decimal("-12345678901234567890.1234567")], pa.decimal128(38, 7)
    ),
    "count": pa.array([Decimal("12345"), None, Decimal("-1")], pa.decimal128(9, 0)),
    "clock": pa.array([time(1, 2, 3, 4), None, time(23, 59, 59, 999_999)], pa.time64("us")),
    "hour": pa.array([time(1, 2, 3), None, time(0)], pa.time32("s")),
    "span": pa.array([timedelta(days=-3, microseconds=5), None, timedelta(days=20_000)], pa.duration("us")),
    "long": pa.array([timedelta(seconds=5), None, timedelta(days=-1)], pa.duration("ns")),
    "fine": pa.array([MOMENT, None, datetime(1970, 1, 1)], pa.timestamp("ns")),
    "berlin": pa.array(
        [MOMENT.replace(tzinfo=UTC), None, MOMENT.replace(tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin")
    ),
    "raw": pa.array([b"\x00\xff\\x41", None, b""]),
    "pair": pa.array([b"ab", None, b"\x00\x01"], pa.binary(2)),
    "old_day": pa.array([date(2026, 1, 7), None, date(1, 1, 1)], pa.date64()),
    "bytes": pa.array([[0, 255], None, []], pa.list_(pa.uint8())),
    "two": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2)),
    "moments": pa.array([[MOMENT], None, []], pa.list_(pa.timestamp("us"))),
    "zones": pa.array(
        [[MOMENT.replace(tzinfo=UTC)], None, []], pa.list_(pa.timestamp("ms", "UTC")), safe=False
    ),
    "halves": pa.array([[1.5], None, []], pa.list_(pa.float16())),
    "spans": pa.array([[timedelta(1)], None, []], pa.list_(pa.duration("us"))),
    "codes": pa.array([["a", "a"], None, []], pa.list_(pa.string())),
    "nothing": pa.nulls(3),
    "odd `name` 'x' $1 {y}": pa.array(["a", None, "c"]),
    "MATCH": pa.array([1, None, 3]),
}


# Decimals; beyond its integers; a list of lists; a list with a null in it.
NOT_IN_NEO4J = ("uint64", "deep", "texts", "price", "count")


def test_every_type_on_the_allow_list_arrives_unharmed(any_loader: House) -> None:
    left_out = NOT_IN_NEO4J if any_loader.kind == "neo4j" else ()
    every = {name: values for name, values in EVERY_TYPE.items() if name not in left_out}
    table = pa.table({"key": ["a", "b", "c"], **every})
    zoned = pa.array(
        [MOMENT.replace(tzinfo=UTC), None, MOMENT.replace(tzinfo=UTC)], pa.timestamp("us", "UTC")
    )
    table = table.append_column("zoned", zoned)
    load(any_loader, {"nodes/Thing/a.parquet": table.rename_columns(["id", *table.column_names[1:]])})
    rows = ask(any_loader, "MATCH (n:Thing) RETURN n ORDER BY n.id")
    for number, row in enumerate(rows):
        for name, values in every.items():
            assert _plain(row["n"].get(name)) == _plain(seen_by_python(values[number])), name
    assert [row["n"].get("zoned") for row in rows] == zoned.to_pylist()


def seen_by_python(value: pa.Scalar) -> Any:
    """A value as Python has it, without the nanoseconds that it does not know."""
    kind = value.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        value = value.cast(pa.timestamp("us"))
    if pa.types.is_duration(kind):
        value = value.cast(pa.duration("us"))
    return value.as_py()


MIXED = {
    "a": pa.table({"id": ["p1", "p2"], "first": ["Ada", "Bo"], "last": ["L", "M"], "age": pa.array([1, 2], pa.int8())}),
    "b": pa.table({"last": ["N"], "id": ["p3"], "first": ["Cy"]}),
    "c": pa.table({"nodeId": ["p4"], "first": pa.array(["Di"]).dictionary_encode(), "age": [70_000], "born": ["x"]}),
    "d": pa.table({"id": pa.array(["p5"], pa.large_string()), "price": pa.array([1.5], pa.float16()), "last": pa.nulls(1)}),
    "e": pa.table({"id": pa.array([], pa.int64()), "last": pa.array([], pa.bool_())}),
}  # fmt: skip


def test_files_of_one_table_may_differ_and_every_value_finds_its_column(any_loader: House) -> None:
    knows = {
        "a": pa.table({"source": ["p1"], "target": ["p2"], "since": pa.array([1], pa.int16()), "how": ["x"]}),
        "b": pa.table({"how": ["y"], "target": ["p3"], "source": ["p2"]}),
        "c": pa.table({"since": [2**40], "to": ["p5"], "from": ["p4"]}),
    }
    files = {f"nodes/Person/{name}.parquet": table for name, table in MIXED.items()}
    load(any_loader, {**files, **{f"relationships/KNOWS/{name}.parquet": t for name, t in knows.items()}})
    rows = ask(any_loader, "MATCH (n:Person) RETURN n ORDER BY n.id")
    names = ("id", "first", "last", "age", "born", "price")
    assert [tuple(row["n"].get(name) for name in names) for row in rows] == [
        ("p1", "Ada", "L", 1, None, None),
        ("p2", "Bo", "M", 2, None, None),
        ("p3", "Cy", "N", None, None, None),
        ("p4", "Di", None, 70_000, "x", None),
        ("p5", None, None, None, None, 1.5),
    ]
    found = ask(
        any_loader,
        "MATCH (a)-[r:KNOWS]->(b) RETURN a.id AS one, b.id AS two, r.since AS since, r.how AS how ORDER BY one",
    )
    assert [tuple(row.values()) for row in found] == [
        ("p1", "p2", 1, "x"), ("p2", "p3", None, "y"), ("p4", "p5", 2**40, None),
    ]  # fmt: skip


def test_files_that_differ_and_join_several_labels_keep_their_values(any_loader: House) -> None:
    files = {
        "nodes/Person/a.parquet": {"id": ["p1", "p2"]},
        "nodes/Firm/a.parquet": {"id": ["f1"]},
        "relationships/OWNS/a.parquet": {"source": ["p1", "f1"], "target": ["f1", "p2"], "share": pa.array([Decimal("0.10"), None]), "x": [1, 2]},
        "relationships/OWNS/b.parquet": {"x": [3], "target": ["f1"], "source": ["p2"]},
    }  # fmt: skip
    if any_loader.kind == "neo4j":
        files["relationships/OWNS/a.parquet"]["share"] = pa.array([0.1, None])
    load(any_loader, files)
    found = ask(
        any_loader,
        "MATCH (a)-[r:OWNS]->(b) RETURN a.id AS one, b.id AS two, r.share AS s, r.x AS x ORDER BY x",
    )
    assert [(row["one"], row["two"], None if row["s"] is None else float(row["s"]), row["x"]) for row in found] == [
        ("p1", "f1", 0.1, 1), ("f1", "p2", None, 2), ("p2", "f1", None, 3),
    ]  # fmt: skip


def test_digits_that_the_database_would_lose_fail_by_file_and_column(house: House) -> None:
    fine = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    job = load(house, {"nodes/Thing/a.parquet": {"id": [1], "at": fine}}, ok=False)
    assert (job["state"], job["error_code"]) == ("failed", "bad-input"), job["error"]
    assert (
        "nodes/Thing/a.parquet: column 'at' holds a value that the database cannot hold whole" in job["error"]
    )


@pytest.mark.parametrize("version", ["1.0", "2.6"])
def test_timestamps_arrive_however_they_are_marked(any_loader: House, version: str) -> None:
    folder = any_loader.folder / "data/acme" / str(FIRST)
    (folder / "nodes/Thing").mkdir(parents=True)
    table = pa.table({"id": [1], "at": pa.array([MOMENT], pa.timestamp("us"))})
    pq.write_table(table, folder / "nodes/Thing/a.parquet", version=version, store_schema=False)
    load(any_loader, {})
    assert ask(any_loader, "MATCH (n:Thing) RETURN n.at AS at") == [{"at": MOMENT}]


def test_nodes_keep_all_their_labels(any_loader: House) -> None:
    files = {
        "nodes/Person/a.parquet": {"id": ["p1", "p2"], "labels": ["Person,Boss", "Person"]},
        "nodes/Person:Employee/b.parquet": {"id": ["p3"], "labels": ["Boss"]},
        "nodes/City/a.parquet": {"id": ["c1"], "labels": pa.array([["City", "Capital"]])},
    }
    load(any_loader, files)
    assert counts(any_loader)["labels"] == {"Person": 3, "Boss": 2, "Employee": 1, "City": 1, "Capital": 1}
    labels = "n.labels" if any_loader.kind == "ladybug" else "labels(n)"
    found = ask(any_loader, f"MATCH (n:Person) RETURN n.id AS id, {labels} AS labels ORDER BY id")
    assert [set(row["labels"]) for row in found] == [
        {"Person", "Boss"},
        {"Person"},
        {"Person", "Employee", "Boss"},
    ]


def test_one_type_may_join_several_pairs_of_labels(any_loader: House) -> None:
    files = {
        "nodes/Person/a.parquet": {"id": ["p1", "p2"]},
        "nodes/Firm/a.parquet": {"id": ["f1", "f2"]},
        "nodes/City/a.parquet": {"id": ["c1"]},
        "relationships/LIVES_IN/a.parquet": {
            "source": ["p1", "f1", "p2", "f2", "p1"],
            "target": ["c1", "c1", "f1", "f1", "p2"],
            "since": [1, 2, 3, 4, 5],
        },
    }
    load(any_loader, files)
    assert counts(any_loader)["types"] == {"LIVES_IN": 5}
    found = ask(
        any_loader, "MATCH (a)-[r:LIVES_IN]->(b) RETURN a.id AS a, r.since AS since, b.id AS b ORDER BY since"
    )
    assert [tuple(row.values()) for row in found] == [
        ("p1", 1, "c1"), ("f1", 2, "c1"), ("p2", 3, "f1"), ("f2", 4, "f1"), ("p1", 5, "p2"),
    ]  # fmt: skip


def test_ids_that_two_labels_share_need_declared_ends(any_loader: House) -> None:
    nodes = {
        "nodes/Person/a.parquet": {"id": [1, 2], "name": ["Ada", "Bo"]},
        "nodes/City/a.parquet": {"id": [1, 2], "name": ["Paris", "Rome"]},
    }
    ends = {"source": [1, 2], "target": [2, 1]}
    job = load(any_loader, {**nodes, "relationships/LIVES_IN/a.parquet": ends}, ok=False)
    assert job["state"] == "failed"
    assert "several labels share" in job["error"]
    assert "relationships/LIVES_IN/from=<Label>/to=<Label>" in job["error"]
    folder = any_loader.folder / "data/acme" / str(FIRST)
    (folder / "relationships/LIVES_IN/a.parquet").unlink()
    load(any_loader, {"relationships/LIVES_IN/from=Person/to=City/a.parquet": ends})
    found = ask(any_loader, "MATCH (a)-[:LIVES_IN]->(b) RETURN a.name AS one, b.name AS other ORDER BY one")
    assert found == [{"one": "Ada", "other": "Rome"}, {"one": "Bo", "other": "Paris"}]


def test_two_relationships_between_one_pair_and_a_loop_are_kept(any_loader: House) -> None:
    files = {
        "nodes/Person/a.parquet": {"id": [7]},
        "relationships/KNOWS/a.parquet": {"source": [7, 7], "target": [7, 7], "w": [1, 1]},
    }
    load(any_loader, files)
    assert counts(any_loader) == {"labels": {"Person": 1}, "types": {"KNOWS": 2}}


NULL = "Leave out rows without an id"
LOST = (
    "Write the missing nodes or leave their relationships out: {} of relationships/K {} a target id that no node has, "
    "of {} ({}). "
)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"nodes/Person/a.parquet": {"id": ["p", None]}}, f"{NULL}: 1 row of nodes/Person has no id (nodes/Person/a.parquet row 2). "),
        (
            {"nodes/Person/a.parquet": {"id": ["p", "o", "p"]}},
            "Write every node once: 1 row of nodes/Person repeats an id ('p' in nodes/Person/a.parquet rows 1 and 3). ",
        ),
        (
            {"nodes/Person/a.parquet": {"id": ["o", "p"]}, "nodes/Person/b.parquet": {"id": ["p", "o", "p"]}},
            "Write every node once: 3 rows of nodes/Person repeat an id ('o' in nodes/Person/a.parquet row 1 and "
            "nodes/Person/b.parquet row 2; 'p' in nodes/Person/a.parquet row 2 and nodes/Person/b.parquet rows 1 and 3). ",
        ),
        (
            {"nodes/Person/a.parquet": {"id": ["p", None, "p"]}},
            f"{NULL} and write every node once: 1 row of nodes/Person has no id (nodes/Person/a.parquet row 2) and "
            "1 row of nodes/Person repeats an id ('p' in nodes/Person/a.parquet rows 1 and 3). ",
        ),
        (
            {"nodes/Person/a.parquet": {"id": [7]}, "relationships/K/a.parquet": {"source": [7, 7, 7], "target": [9, 7, 9]}},
            LOST.format("2 rows", "have", "Person", "9 in relationships/K/a.parquet rows 1 and 3"),
        ),
        (
            {"nodes/Person/a.parquet": {"id": ["p"]}, "relationships/K/a.parquet": {"source": ["p"], "target": pa.nulls(1, pa.string())}},
            f"{NULL}: 1 row of relationships/K has no target id (relationships/K/a.parquet row 1). ",
        ),
        (
            {
                "nodes/Person/a.parquet": {"id": ["p"]},
                "nodes/City/a.parquet": {"id": ["c"]},
                "relationships/K/a.parquet": {"source": ["p", "p"], "target": ["c", "q"]},
            },
            LOST.format("1 row", "has", "City, Person", "'q' in relationships/K/a.parquet row 2"),
        ),
        (
            {
                "nodes/Person/a.parquet": {"id": [1, 2]},
                "nodes/City/a.parquet": {"id": [1, 3]},
                "relationships/K/a.parquet": {"source": [2, 1], "target": [3, 3]},
            },
            "Declare the ends (relationships/K/from=<Label>/to=<Label>/*.parquet): 1 row of relationships/K has a source id that "
            "several labels share, of City, Person (1 in relationships/K/a.parquet row 2). ",
        ),
    ],
)  # fmt: skip
def test_keys_that_do_not_fit_fail_by_name_at_once(
    any_loader: House, files: dict[str, Any], said: str
) -> None:
    job = load(any_loader, files, ok=False)
    assert (job["state"], job["error_code"]) == ("failed", "bad-input"), job["error"]
    assert job["error"].startswith(f"{said}What is live stays live"), job["error"]
    assert job["error"].endswith("All of them: bgdeploy jobs offenders 1 --output offenders.csv")
    kinds = [event["kind"] for event in job["events"]]
    assert kinds.count("load.note") == 1
    assert "load.retry" not in kinds


def test_a_type_that_is_not_its_folders_fails_by_name_at_once(any_house: House) -> None:
    ends = {"source": ["p"], "target": ["p"], "type": ["OTHER"]}
    job = load(
        any_house, {"nodes/Person/a.parquet": {"id": ["p"]}, "relationships/K/a.parquet": ends}, ok=False
    )
    assert (job["state"], job["error_code"]) == ("failed", "bad-input"), job["error"]
    assert "the folder says 'K'" in job["error"]
    assert "offenders" not in job["error"]


def test_names_that_are_patterns_or_statements_are_only_names(any_loader: House) -> None:
    folder = any_loader.folder / "data/acme" / str(FIRST)
    for label in ("st*r", "c[1]", "a`b'c", "drop table"):
        write(folder, {f"nodes/{label}/part *[0]?.parquet": {"id": [f"{label}{n}" for n in range(3)]}})
    write(folder, {"nodes/star/a.parquet": {"id": ["s1", "s2"]}})
    load(any_loader, {})
    expected = {"st*r": 3, "c[1]": 3, "a`b'c": 3, "drop table": 3, "star": 2}
    assert counts(any_loader)["labels"] == expected


def test_files_without_rows_are_no_obstacle(any_loader: House) -> None:
    none = pa.table({"source": pa.array([], pa.string()), "target": pa.array([], pa.string())})
    files = {
        "nodes/Person/a.parquet": {"id": ["p"]},
        "nodes/Person/b.parquet": {"id": pa.array([], pa.string())},
        "nodes/City/a.parquet": {"id": pa.array([], pa.string())},
        "relationships/LIVES_IN/a.parquet": none,
    }
    load(any_loader, files)
    assert counts(any_loader)["labels"] == {"Person": 1}


def test_folders_are_columns(any_loader: House) -> None:
    check_folders(any_loader, 3)


def test_folders_are_columns_also_where_the_files_of_many_are_read_together(tmp_path: Path) -> None:
    check_folders(make_house(tmp_path), 9)
    make_removable(tmp_path)


def check_folders(house: House, folders: int) -> None:
    """Files of one name; relationships that join two pairs of labels are split and keep their columns."""
    files: dict[str, Any] = {"nodes/City/c.parquet": {"id": [100]}}
    wanted: dict[int, tuple[str, int | None, date]] = {}
    for n in range(folders):
        wanted[n] = f"it's {n}/%", None if n == 1 else n - 1, date(2024, 1, 1 + n)
        year = "__HIVE_DEFAULT_PARTITION__" if n == 1 else n - 1
        files[f"nodes/Person/k=it's {n}%2F%25/year={year}/day=2024-01-0{1 + n}/part-0.parquet"] = {
            "id": [n],
            "x": [n * 10],
        }
        ends = {"source": [n, n], "target": [n, 100]}
        files[f"relationships/SEES/year={year}/part-0.parquet"] = ends
    load(house, files)
    rows = ask(house, "MATCH (n:Person) RETURN n.id AS id, n.x AS x, n.k AS k, n.year AS year, n.day AS day")
    assert {row["id"]: (row["k"], row["year"], row["day"]) for row in rows} == wanted
    assert [row["x"] for row in sorted(rows, key=lambda row: int(row["id"]))] == [
        n * 10 for n in range(folders)
    ]
    seen = ask(house, "MATCH (a:Person)-[r:SEES]->(b) RETURN a.id AS a, b.id AS b, r.year AS year")
    assert {(row["a"], row["b"]): row["year"] for row in seen} == {
        (n, end): wanted[n][1] for n in range(folders) for end in (n, 100)
    }
