"""What is read back from a database in pages is what the files hold: every type, nulls, hubs; and what is not is found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bgdeploy.errors import VerifyFailed
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import End
from bgdeploy.targets.neo4j.inspection import Inspection
from bgdeploy.targets.neo4j.pages import Ask, Form, form_of, node_pages, relationship_pages
from bgdeploy.targets.neo4j.target import Neo4j
from tests.neo4j.loading import Loading, loading_of
from tests.neo4j.servers import Community
from tests.neo4j.test_loader import FINE

DAY = 24 * 3600
COARSE = [-1, -62_135_596_800, 0, 253_402_300_799, None, -DAY, 1_700_000_000, -2_717_650_800]
VALUES: dict[str, Any] = {
    "i8": pa.array([-128, None, 127, 0, 1, 2, 3, 4], pa.int8()),
    "i64": pa.array([-(2**63), None, 2**63 - 1, 0, 1, 2**53 + 1, -1, 4]),
    "u64": pa.array([0, None, 2**63 - 1, 7, 1, 2, 3, 4], pa.uint64()),
    "half": pa.array([1.5, None, -2.0, 0.0, 1, 2, 3, 4], pa.float16()),
    "f32": pa.array([1.01, None, float("inf"), -0.0, 1, 2, 3, 4], pa.float32()),
    "f64": pa.array([5e-324, None, float("nan"), 0.1, -0.0, 0.0, float("-inf"), 1.7976931348623157e308]),
    "truth": pa.array([True, None, False, True, False, True, None, None]),
    "text": pa.array(["", None, "Grüße 'q' \\ \"z\"\n日本 🎈", " ", "a", "\x00", "`", "null"]),
    "large": pa.array(["a", None, "", "b", "c", "d", "e", "f"], pa.large_string()),
    "coded": pa.array(["a", None, "a", "", "b", "b", "b", "c"]).dictionary_encode(),
    "raw": pa.array([b"", None, b"\x00\xff", b"a", b"b", b"c", b"d", b"e"], pa.binary()),
    "day": pa.array([date(1, 1, 1), None, date(9999, 12, 31), date(1969, 12, 31), date(1970, 1, 1), None, None, None]),
    "seconds": pa.array(COARSE, pa.int64()).cast(pa.timestamp("s")),
    "millis": pa.array([None if n is None else n * 1000 - 1 for n in COARSE[2:] + COARSE[:1] * 2], pa.int64()).cast(pa.timestamp("ms")),
    "micros": pa.array([None if n is None else n * 10**6 + 1 for n in COARSE], pa.int64()).cast(pa.timestamp("us")),
    "fine": pa.array([*FINE[:4], None, *FINE[5:]], pa.int64()).cast(pa.timestamp("ns")),
    "utc": pa.array(FINE, pa.int64()).cast(pa.timestamp("ns", "UTC")),
    "york": pa.array(FINE, pa.int64()).cast(pa.timestamp("ns", "America/New_York")),
    "offset": pa.array([None if n is None else n * 1000 for n in COARSE[4:] * 2], pa.int64()).cast(pa.timestamp("ms", "+05:30")),
    "clock": pa.array([DAY * 10**9 - 1, None, 0, 1, 999, 1000, 86_399_000_000_001, 12], pa.int64()).cast(pa.time64("ns")),
    "second": pa.array([time(12, 30, 1), None, time(0), time(23, 59, 59)] * 2, pa.time32("s")),
    "span": pa.array(FINE, pa.int64()).cast(pa.duration("ns")),
    "long": pa.array([-1, None, 0, 400 * DAY, 10**12, -(10**12), 59, -60], pa.int64()).cast(pa.duration("s")),
    "texts": pa.array([["a", ""], None, [], ["b,c", "d"], ["e"], [], None, ["f"]]),
    "numbers": pa.array([[1, -(2**63)], None, [], [3], [4, 5], [], None, [6]]),
    "floats": pa.array([[1.5, float("nan")], None, [], [float("-inf"), 1e300], [-0.0], [], None, [0.0]]),
    "truths": pa.array([[True], None, [], [False, True], [], None, [True], []]),
    "days": pa.array([[date(1, 1, 1)], None, [], [date(9999, 12, 31), date(1969, 12, 31)], [], [], None, []]),
    "moments": pa.array([[-1, 0], None, [], [1], [], [], None, [2**62]], pa.list_(pa.int64())).cast(pa.list_(pa.timestamp("ns"))),
    "zoned": pa.array([[-1, 0], None, [], [1, 2], [], [], None, [2**50]], pa.list_(pa.int64())).cast(pa.list_(pa.timestamp("us", "Europe/Berlin"))),
    "nothing": pa.nulls(8),
}  # fmt: skip
FILES: dict[str, Any] = {
    "nodes/Thing/a.parquet": pa.table({"id": [-(2**63), -1, 0, 1, 2, 3, 2**53 + 1, 2**63 - 1], **VALUES}),
    "nodes/Other:Two/a.parquet": pa.table({"id": ["x", "y", "Ö", "🎈", "\uffff"], "labels": [["Three"], [], ["A", "Z"], [], []]}),
    "relationships/JOINS/from=Thing/to=Other/a.parquet": pa.table({
        "src": [0, 0, 0, 0, 0, 1, 2, -1], "dst": ["x", "x", "y", "🎈", "\uffff", "x", "y", "Ö"], **VALUES,
    }),
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded(
    lts_server: Community, tmp_path_factory: pytest.TempPathFactory, record_testsuite_property: Any
) -> Iterator[Loading]:
    lts_server.empty()
    one = loading_of(tmp_path_factory.mktemp("pages"), lts_server.uri, FILES)
    one.load()
    yield one
    lts_server.empty()


def asking(one: Loading) -> Ask:
    target = one.target()
    assert isinstance(target, Neo4j)
    server = target._server
    return lambda text, **params: server.read("neo4j", text, "Reading back", **params)


def end(snapshot: Snapshot, label: str) -> End:
    table = next(table for table in snapshot.nodes if table.name == label)
    key = table.column("id")
    assert key is not None
    return End(label, key)


def read(one: Loading, name: str, rows: int) -> list[tuple[Any, ...]]:
    """All rows as they come back, in an order of their own; no page may be larger than asked for."""
    table = next(table for table in one.snapshot.tables if table.name == name)
    if table.kind == "node":
        pages = node_pages(asking(one), end(one.snapshot, name), table.properties, rows=rows)
    else:
        ends = end(one.snapshot, "Thing"), end(one.snapshot, "Other")
        pages = relationship_pages(asking(one), name, *ends, table.properties, rows=rows)
    found = list(pages)
    assert all(0 < page.num_rows <= rows for page in found)
    return sorted(row for page in found for row in exact(page))


def exact(table: pa.Table) -> list[tuple[Any, ...]]:
    """Rows as text that tells every value from every other: -0.0 from 0.0, NULL from [], NaN as itself."""
    columns = [  # with the column's place, which tells where two rows differ
        [f"{number}: {value!r}" for value in numbered(column).to_pylist()]
        for number, column in enumerate(table.columns)
    ]
    return list(zip(*columns, strict=True))


def numbered(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    inner = kind.value_type if pa.types.is_list(kind) else kind
    if pa.types.is_date(inner):
        number = pa.int32()
    elif pa.types.is_temporal(inner):
        number = pa.int64()
    else:
        return column
    return column.cast(pa.list_(number) if pa.types.is_list(kind) else number)


def expected(path: str, keys: list[str], labels: list[pa.Array]) -> list[tuple[Any, ...]]:
    """What the files hold, in the types in which it comes back."""
    table = FILES[path]
    columns = {
        name: table[name].cast(wide(table[name].type))
        for name in (*keys, *VALUES)
        if name in table.column_names
    }
    return sorted(exact(pa.table({**columns, **{f"l{n}": values for n, values in enumerate(labels)}})))


def wide(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind) or pa.types.is_large_string(kind):
        return pa.string()
    if kind == pa.timestamp("s"):
        return pa.timestamp("ms")  # Parquet has no seconds
    if pa.types.is_time(kind):
        return pa.time64("ns")
    if pa.types.is_list(kind):
        return pa.list_(wide(kind.value_type))
    return pa.int64() if pa.types.is_integer(kind) else pa.float64() if pa.types.is_floating(kind) else kind


@pytest.mark.parametrize("rows", [3, 1000])
def test_every_value_of_every_type_comes_back(loaded: Loading, rows: int) -> None:
    things = pa.array([["Thing"]] * 8)
    assert read(loaded, "Thing", rows) == expected("nodes/Thing/a.parquet", ["id"], [things])
    others = pa.array(
        [["Other", "Three", "Two"], ["Other", "Two"], ["A", "Other", "Two", "Z"], *[["Other", "Two"]] * 2]
    )
    assert read(loaded, "Other", rows) == expected("nodes/Other:Two/a.parquet", ["id"], [others])
    three, plain, many = (pa.scalar(one, pa.list_(pa.string())) for one in others.to_pylist()[:3])
    reached = pa.array([x.as_py() for x in (three, three, plain, plain, plain, three, plain, many)])
    joins = expected("relationships/JOINS/from=Thing/to=Other/a.parquet", ["src", "dst"], [things, reached])
    assert read(loaded, "JOINS", rows) == joins  # one node has five of them, and a page three rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("n.i64 = 1.0", "values of another type"),
        ("n.f64 = 1", "values of another type"),
        ("n.truth = 'true'", "values of another type"),
        ("n.text = 5", "values of another type"),
        ("n.numbers = [1.0]", "values of another type"),
        ("n.nothing = 1", "values of another type"),
        ("n.day = '1969-12-31'", "no DATE"),
        ("n.fine = date('1970-01-01')", "no LOCAL DATETIME"),
        ("n.days = ['1969-12-31']", "no LIST<DATE>|no DATE"),
        ("n.clock = time('12:00:00Z')", "no LOCAL TIME"),
        ("n.utc = localdatetime('1970-01-01T00:00:00')", "no ZONED DATETIME"),
        ("n.micros = localdatetime('1970-01-01T00:00:00.000000001')", "cannot have"),
        ("n.offset = datetime('1970-01-01T00:00:00.0000001+05:30')", "finer than ms"),
        ("n.span = duration({months: 1})", "days or months"),
        (
            "n.york = datetime({datetime: n.york, timezone: 'Europe/Berlin'})",
            "another zone than America/New_York",
        ),
        ("n.utc = datetime({datetime: n.utc, timezone: 'Europe/London'})", "another zone than UTC"),
        ("n.utc = datetime({datetime: n.utc, timezone: '+00:00'})", None),
        ("n.offset = datetime({datetime: n.offset, timezone: 'Asia/Kolkata'})", r"another zone than \+05:30"),
        (
            "n.zoned = [m IN n.zoned | datetime({datetime: m, timezone: 'UTC'})]",
            "another zone than Europe/Berlin",
        ),
        ("n.i64 = 2", ""),
        ("n.texts = null", ""),
        ("n.texts = []", ""),
        ("n.floats = [0.0]", ""),
        ("n.fine = localdatetime('1969-12-31T23:59:59.999999998')", ""),
    ],
)
def test_one_changed_value_is_found(
    loaded: Loading, lts_server: Community, change: str, said: str | None
) -> None:
    """``said`` is empty where another value is read instead, None where the same is."""
    before = read(loaded, "Thing", 1000)
    name = change.split(" ")[0].removeprefix("n.")
    with lts_server.driver() as driver, driver.session(database="neo4j") as session:
        number = {"n.texts = null": 3, "n.texts = []": -1}.get(change, 2)
        number = {"zoned": 1, "offset": 3}.get(name, number)  # which have some
        tx = session.begin_transaction()
        kept = tx.run("MATCH (n:Thing {id: $id}) RETURN n AS n", id=number).single(strict=True)["n"].get(name)
        tx.run(f"MATCH (n:Thing {{id: $id}}) SET {change}", id=number).consume()  # type: ignore[arg-type]
        tx.commit()
        try:
            if said:
                with pytest.raises(VerifyFailed, match=said):
                    read(loaded, "Thing", 1000)
            else:
                assert (read(loaded, "Thing", 1000) != before) == (said is not None)
        finally:
            session.run(f"MATCH (n:Thing {{id: $id}}) SET n.{name} = $kept", id=number, kept=kept).consume()  # type: ignore[arg-type]
    assert read(loaded, "Thing", 1000) == before


def test_every_value_is_proven_and_one_that_differs_is_told(loaded: Loading, lts_server: Community) -> None:
    assert loaded.prove().proof["compared"] == "every value"
    with lts_server.driver() as driver, driver.session(database="neo4j") as session:
        one = session.run("MATCH (n:Thing {id: 2}) RETURN n.i64, n.span").single(strict=True).values()
        two = session.run("MATCH (:Thing {id: 1})-[r:JOINS]->() RETURN r.text").single(strict=True).value()
        session.run("MATCH (n:Thing {id: 2}) SET n.i64 = 77, n.span = null").consume()
        session.run("MATCH (:Thing {id: 1})-[r:JOINS]->() SET r.text = 'x'").consume()
        with pytest.raises(VerifyFailed) as caught:
            loaded.verify()
        kept = {"i64": one[0], "span": one[1], "text": two}
        session.run("MATCH (n:Thing {id: 2}) SET n.i64 = $i64, n.span = $span", kept).consume()
        session.run("MATCH (:Thing {id: 1})-[r:JOINS]->() SET r.text = $text", kept).consume()
    said = caught.value.what
    assert re.search(r"Thing +columns that differ +none +i64, span\n", said), said
    assert re.search(r"a.parquet row \d +i64 +-?\d+ +77\n", said), said
    assert re.search(r"JOINS\S+ +columns that differ +none +text\n", said), said
    assert loaded.prove().proof["compared"] == "every value"


def test_the_server_reckons_what_the_files_hold(loaded: Loading) -> None:
    with loaded.target().inspect("neo4j") as inspector:
        assert isinstance(inspector, Inspection)
        assert loaded.ledger.groups is not None
        for group in loaded.ledger.groups:
            got = read(loaded, group.name, 1000)
            table = next(table for table in loaded.snapshot.tables if table.name == group.name)
            ends = (end(loaded.snapshot, "Thing"), end(loaded.snapshot, "Other"))
            pair = ends if group.kind == "relationship" else None
            rows, found = inspector.aggregates(group.name, pair, table.properties)
            assert rows == len(got) == group.rows
            for column, one in zip(table.properties, found, strict=True):
                values = VALUES[column.name].cast(wide(VALUES[column.name].type))
                assert one.present == len(values) - values.null_count, column.name
                if one.length is not None:
                    texts = values.drop_null().to_pylist()
                    assert one.length == sum(map(len, texts)), column.name
                if one.least is not None and column.name != "f64":  # Arrow leaves NaN out
                    ends = pc.min_max(
                        values.cast(pa.int64()) if pa.types.is_duration(values.type) else values
                    )
                    for got, wanted in ((one.least, ends["min"]), (one.most, ends["max"])):
                        assert got.cast(wanted.type) == wanted, column.name  # type: ignore[union-attr]
                if column.name == "f64":
                    assert (one.least.as_py(), repr(one.most.as_py())) == (float("-inf"), "nan")  # type: ignore[union-attr]


def test_every_type_that_is_loaded_has_a_form() -> None:
    for kind in (values.type for values in VALUES.values()):
        inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_dictionary(kind) else kind
        plain = pa.string() if pa.types.is_large_string(inner) else inner
        assert isinstance(form_of(plain), Form)
    with pytest.raises(KeyError):
        form_of(pa.decimal128(9, 2))


def test_beyond_what_is_read_back_the_server_reckons_and_rows_are_sampled(
    loaded: Loading, lts_server: Community
) -> None:
    few = replace(loaded, options={"proof_rows": 5})
    assert few.prove().proof["compared"] == "samples"
    with lts_server.driver() as driver, driver.session(database="neo4j") as session:
        old = session.run("MATCH (:Thing)-[r:JOINS]->() WHERE r.i64 = 2 ^ 63 - 1 RETURN max(r.i64)").single()
        assert old is not None
        moved = "MATCH (n:Thing {id: 2}) SET n.utc = datetime({datetime: n.utc, timezone: $zone})"
        session.run(moved, zone="Europe/London").consume()
        with pytest.raises(VerifyFailed, match="'utc' holds 1 values of another zone than UTC"):
            few.verify()
        session.run(moved, zone="UTC").consume()
        session.run(
            "MATCH (:Thing)-[r:JOINS]->() WHERE r.i64 = $old SET r.i64 = 5", old=old.value()
        ).consume()
        try:
            with pytest.raises(VerifyFailed, match=r"JOINS\S+\.i64 +values, letters, least and greatest"):
                few.verify()
        finally:
            session.run(
                "MATCH (:Thing)-[r:JOINS]->() WHERE r.i64 = 5 SET r.i64 = $old", old=old.value()
            ).consume()


def test_nodes_that_carry_the_labels_of_two_folders_are_proven_once_for_each(
    lts_server: Community, tmp_path: Path
) -> None:
    lts_server.empty()
    one = loading_of(
        tmp_path,
        lts_server.uri,
        {
            "nodes/Person/a.parquet": {"id": ["a", "b"], "labels": ["Boss", None], "age": [1, 2]},
            "nodes/Boss/a.parquet": {"id": ["c"], "age": [3], "car": ["red"]},
            "relationships/KNOWS/from=Person/to=Boss/a.parquet": {"source": ["b"], "target": ["c"]},
        },
    )
    one.load()
    try:
        assert one.prove().proof["compared"] == "every value"
        with lts_server.driver() as driver, driver.session(database="neo4j") as session:
            session.run("MATCH (n {id: 'a'}) SET n.car = 'blue'").consume()
        with pytest.raises(VerifyFailed, match="car"):
            one.verify()
    finally:
        lts_server.empty()


SHARED = {
    "nodes/A/a.parquet": {"id": ["a", "b"], "x": [1, 2]},
    "nodes/B:A/a.parquet": {"id": ["y", "z"], "x": [3, 4], "w": [5, None]},
}


@pytest.mark.parametrize("rows", [1000, 0])
def test_a_property_too_many_is_found_where_labels_overlap(
    lts_server: Community, tmp_path: Path, rows: int
) -> None:
    lts_server.empty()
    one = loading_of(tmp_path, lts_server.uri, SHARED, proof_rows=rows)
    one.load()
    try:
        assert one.prove().proof["compared"] == ("every value" if rows else "samples")
        with lts_server.driver() as driver:
            driver.execute_query("MATCH (n:A {id: 'a'}) SET n.w = 7")
        with pytest.raises(VerifyFailed, match=r"A\+B\.w +non-null values +1 +2"):
            one.verify()
    finally:
        lts_server.empty()


CLASHES: list[dict[str, Any]] = [
    {
        "nodes/A/a.parquet": {"id": ["a", "b"], "x": [1, 2]},
        "nodes/B:A/a.parquet": {"id": [1, 2], "x": [3, 4]},
        "relationships/R/from=A/to=B/a.parquet": {"source": ["a"], "target": [1], "since": [7]},
    },
    {
        "nodes/A/a.parquet": {"id": ["a", "b"], "x": [1, 2]},
        "nodes/B/a.parquet": {"nodeId": ["y", "z"], "id": ["p", "q"], "x": [3, 4], "labels": ["A", None]},
        "relationships/R/from=A/to=B/a.parquet": {"source": ["a"], "target": ["y"], "since": [7]},
    },
]


@pytest.mark.parametrize("files", CLASHES)
def test_ids_that_a_labels_pages_cannot_tell_apart_are_sampled(
    lts_server: Community, tmp_path: Path, files: dict[str, Any]
) -> None:
    """Nodes that carry another folder's label with a value of another kind, or no id at all, under its id's name."""
    lts_server.empty()
    one = loading_of(tmp_path, lts_server.uri, files)
    one.load()
    try:
        assert one.prove().proof["compared"] == "samples"
        with lts_server.driver() as driver:
            driver.execute_query("MATCH (n:B) SET n.x = 9")
        with pytest.raises(VerifyFailed):
            one.verify()
    finally:
        lts_server.empty()


def test_a_folder_that_might_carry_a_label_and_does_not_changes_nothing(
    lts_server: Community, tmp_path: Path
) -> None:
    lts_server.empty()
    apart = {**CLASHES[1], "nodes/B/a.parquet": {**CLASHES[1]["nodes/B/a.parquet"], "labels": ["C", None]}}
    one = loading_of(tmp_path, lts_server.uri, apart)
    one.load()
    try:
        assert one.prove().proof["compared"] == "every value"
    finally:
        lts_server.empty()
