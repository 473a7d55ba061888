"""The loader on real Community servers: exactly once, whatever is cut, lost, overtaken or out of memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import neo4j
import pyarrow as pa
import pytest
from neo4j.time import DateTime, Duration, Time

from bgdeploy.errors import (
    BadInput,
    BuildLocked,
    NameTaken,
    Refused,
    TargetAway,
    TargetError,
    VerifyFailed,
)
from bgdeploy.targets.neo4j.access import open_server
from bgdeploy.targets.neo4j.bolt import batches
from bgdeploy.targets.neo4j.inspection import to_native
from bgdeploy.targets.neo4j.names import CYPHER
from tests.house import make_house, stop
from tests.neo4j.loading import TIMESTAMP, Loading, loading, loading_of
from tests.neo4j.proxy import proxy
from tests.neo4j.servers import LTS, PASSWORD, Community, NoServer, community, do_without

COUNTS = {"labels": {"Entity": 800, "Address": 400}, "types": {"HAS_ADDRESS": 800}}


def ask(server: Community, text: str, **params: Any) -> list[dict[str, Any]]:
    with server.driver() as driver, driver.session(database="neo4j") as session:
        return session.run(text, params).data()  # type: ignore[arg-type]


@pytest.mark.each_version
def test_a_load_is_whole_verified_and_leaves_nothing_of_its_own(real: Community, tmp_path: Path) -> None:
    one = loading(tmp_path, real.uri)
    one.load()
    assert one.verify() == COUNTS
    assert [row["labels"] for row in ask(real, "MATCH (n) RETURN DISTINCT labels(n) AS labels")] in (
        [["Entity"], ["Address"]],
        [["Address"], ["Entity"]],
    )
    names = [row["name"] for row in ask(real, "SHOW CONSTRAINTS YIELD name")]
    assert sorted(names) == ["bgdeploy_key_Address", "bgdeploy_key_Entity"]
    assert not (tmp_path / "state/builds/neo4j").exists()


def test_a_finished_load_is_not_loaded_again(real: Community, tmp_path: Path) -> None:
    one = loading(tmp_path, real.uri)
    one.load()
    before = list(one.ledger.events)
    one.fence = 2
    one.load()
    assert one.ledger.events == [*before, ("step", "closed")]
    assert one.verify() == COUNTS


class Interrupted(Exception):
    """Stands for the end of a process."""


def interrupt(one: Loading, monkeypatch: pytest.MonkeyPatch, moment: str, count: int) -> None:
    """Load until this moment is reached so often, and no further."""
    seen = [0]

    def reach(name: str) -> None:
        if name == moment:
            seen[0] += 1
            if seen[0] == count:
                raise Interrupted

    with monkeypatch.context() as patched:
        for module in ("batches", "load"):
            patched.setattr(f"bgdeploy.targets.neo4j.bolt.{module}.reach", reach)
        with pytest.raises(Interrupted):
            one.load()


@pytest.mark.parametrize(
    ("moment", "count"),
    [
        ("load.created", 1), ("load.streams.before", 1), ("load.group.before", 1), ("load.batch.written", 1),
        ("load.batch.written", 7), ("load.batch.committed", 3), ("load.group.confirmed", 1),
        ("load.group.confirmed", 2), ("load.batch.written", 17), ("load.closing", 1),
    ],
)  # fmt: skip
def test_a_load_cut_off_here_goes_on_at_the_next_batch(
    real: Community, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, count: int
) -> None:
    one = loading(tmp_path, real.uri)
    interrupt(one, monkeypatch, moment, count)
    one.fence, one.options = 2, {"batch_rows": 333}  # another size changes nothing
    one.load()
    assert one.verify() == COUNTS
    assert sum(one.ledger.rows.values()) == 2000


def test_a_batch_that_was_committed_is_never_written_again(
    real: Community, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = loading(tmp_path, real.uri)
    interrupt(one, monkeypatch, "load.batch.committed", 5)
    first = {
        row["id"] for row in ask(real, "MATCH (n) WHERE NOT n:__bgdeploy_stream RETURN elementId(n) AS id")
    }
    assert len(first) >= 400
    one.fence = 2
    one.load()
    after = {row["id"] for row in ask(real, "MATCH (n) RETURN elementId(n) AS id")}
    assert first <= after
    assert one.verify() == COUNTS


@pytest.mark.parametrize("lose", [1, 3])
def test_a_lost_answer_to_a_commit_is_settled_by_reading_the_checkpoint(
    real: Community, tmp_path: Path, lose: int
) -> None:
    with proxy(real.port) as between:
        one = loading(tmp_path, f"bolt://127.0.0.1:{between.port}")
        between.lose = lose
        for fence in range(1, 10):
            one.fence = fence
            try:
                one.load()
                break
            except TargetAway:
                continue
        assert between.lost == lose
    one.uri = real.uri
    assert one.verify() == COUNTS


@pytest.mark.parametrize("after", [20_000, 60_000, 110_000])
def test_a_cut_connection_costs_at_most_one_batch(real: Community, tmp_path: Path, after: int) -> None:
    with proxy(real.port) as between:
        one = loading(tmp_path, f"bolt://127.0.0.1:{between.port}")
        between.cut_after = after
        for fence in (1, 2, 3):
            one.fence = fence
            try:
                one.load()
                break
            except TargetAway:
                continue
        assert between.cut_after is None
    one.uri = real.uri
    assert one.verify() == COUNTS


def test_a_batch_of_an_older_owner_never_lands(
    real: Community, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = loading(tmp_path, real.uri)
    interrupt(old, monkeypatch, "load.batch.committed", 3)
    new = Loading(tmp_path, real.uri, old.snapshot, old.ledger, fence=2)
    interrupt(new, monkeypatch, "load.batch.committed", 2)
    before = ask(real, "MATCH (n) RETURN count(*) AS rows")[0]["rows"]
    with pytest.raises(TargetError, match="newer worker"):
        old.load()
    assert ask(real, "MATCH (n) RETURN count(*) AS rows")[0]["rows"] == before
    new.fence = 3
    new.load()
    assert new.verify() == COUNTS


def test_a_takeover_between_a_batchs_begin_and_its_end_shuts_it_out(real: Community) -> None:
    """The old owner's batch waits for the lock of the takeover, and then finds the new fence."""
    with real.driver() as driver:
        streams = [{"number": 0, "start": 0, "stop": 10}]
        whose = {"fence": 1, "snapshot": "print"}
        driver.execute_query(batches.CREATE_STREAMS, streams=streams, **whose, database_="neo4j")
        id_ = driver.execute_query(batches.READ_STREAMS, database_="neo4j").records[0]["id"]
        moved: list[Any] = []

        def old() -> None:
            with driver.session(database="neo4j") as session:
                move = {"stream": id_, "fence": 1, "at": 0, "next": 5}
                text = f"{CYPHER}{batches.MOVE_ON}RETURN s.__bgdeploy_at"
                moved.append(session.run(text, move).single())

        with driver.session(database="neo4j") as session, session.begin_transaction() as takeover:
            takeover.run(batches.TAKE_OVER, fence=2, snapshot="print").consume()
            thread = threading.Thread(target=old)
            thread.start()
            await_blocked(driver)
            takeover.commit()
        thread.join()
        assert moved == [None]
        found = driver.execute_query(batches.READ_STREAMS, database_="neo4j").records[0]
        assert (found["fence"], found["at"]) == (2, 0)


def await_blocked(driver: neo4j.Driver) -> None:
    """Wait until some transaction waits for a lock."""
    query = "SHOW TRANSACTIONS YIELD status WHERE status STARTS WITH 'Blocked' RETURN count(*) AS n"
    while driver.execute_query(query, database_="neo4j").records[0]["n"] == 0:
        threading.Event().wait(0.02)


@pytest.mark.each_version
def test_the_index_of_a_constraint_that_a_crash_cut_off_is_in_nobodys_way(
    real: Community, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = loading(tmp_path, real.uri)
    interrupt(one, monkeypatch, "load.batch.committed", 3)
    ask(real, "CREATE INDEX bgdeploy_key_Entity FOR (n:Entity) ON (n.nodeId)")  # what the crash leaves
    one.fence = 2
    one.load()
    assert one.verify() == COUNTS
    assert [row["name"] for row in ask(real, "SHOW CONSTRAINTS YIELD name ORDER BY name")] == [
        "bgdeploy_key_Address",
        "bgdeploy_key_Entity",
    ]


def test_the_index_of_a_declared_constraint_that_a_crash_cut_off_is_in_nobodys_way(
    real: Community, tmp_path: Path
) -> None:
    rule = "CREATE CONSTRAINT mine FOR (n:Thing) REQUIRE n.code IS UNIQUE"
    other = "CREATE INDEX kept FOR (n:Thing) ON (n.size)"
    files = {"nodes/Thing/a.parquet": {"id": [1, 2], "code": ["a", "b"], "size": [1, 2]}}
    one = loading_of(tmp_path, real.uri, files, indexes=[other, rule])
    ask(real, "CREATE INDEX mine FOR (n:Thing) ON (n.code)")  # what the crash leaves
    one.load()
    one.verify()
    assert [row["name"] for row in ask(real, "SHOW CONSTRAINTS YIELD name ORDER BY name")] == [
        "bgdeploy_key_Thing",
        "mine",
    ]
    assert "kept" in [row["name"] for row in ask(real, "SHOW INDEXES YIELD name")]


def test_data_that_bgdeploy_did_not_load_is_left_alone(real: Community, tmp_path: Path) -> None:
    ask(real, "CREATE (:Precious {id: 1})")
    one = loading(tmp_path, real.uri)
    with pytest.raises(NameTaken, match="1 nodes that bgdeploy did not load"):
        one.load()
    assert ask(real, "MATCH (n) RETURN labels(n) AS labels") == [{"labels": ["Precious"]}]
    assert ask(real, "SHOW CONSTRAINTS") == []


def test_a_database_emptied_by_someone_else_is_not_continued(
    real: Community, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = loading(tmp_path, real.uri)
    interrupt(one, monkeypatch, "load.group.confirmed", 2)
    real.empty()
    with pytest.raises(BuildLocked, match="somebody changed it"):
        one.load()


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    """A server whose transactions may take 2 MiB."""
    home = tmp_path_factory.mktemp("small") / "home"
    try:
        with community(home, LTS, **{"db.memory.transaction.max": "2m"}) as server:
            yield server
    except NoServer as error:
        do_without(error)


def test_a_transaction_that_never_fits_is_said(small_server: Community, tmp_path: Path) -> None:
    wide = {"id": list(range(50)), "text": ["x" * 60_000] * 50}
    one = loading_of(tmp_path, small_server.uri, {"nodes/Wide/a.parquet": wide})
    with pytest.raises(TargetError, match="too little memory"):
        one.load()


def test_batches_shrink_until_the_server_has_memory_for_them(small_server: Community, tmp_path: Path) -> None:
    small_server.empty()
    one = loading(tmp_path, small_server.uri, rows=60_000, batch_rows=20_000, proof_rows=0)
    one.load()
    assert one.verify()["types"] == {"HAS_ADDRESS": 24_000}
    steps = [event[2] for event in one.ledger.events if event[0] == "advanced"]
    assert all(rows % 20_000 for rows in steps)  # no whole batch of that size fitted


MOMENT = datetime(2026, 1, 7, 12, 30, 15, 123456)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.each_version
def test_neo4js_own_types_arrive_unharmed(real: Community, tmp_path: Path) -> None:
    columns = {
        "half": (pa.array([1.5, None], pa.float16()), 1.5),
        "clock": (pa.array([time(12, 30, 1, 5), None], pa.time64("us")), time(12, 30, 1, 5)),
        "second": (pa.array([time(12, 30, 1), None], pa.time32("s")), time(12, 30, 1)),
        "span": (pa.array([timedelta(days=-1, microseconds=3), None], pa.duration("us")), timedelta(days=-1, microseconds=3)),
        "zoned": (pa.array([MOMENT.replace(tzinfo=UTC), None], pa.timestamp("us", "Europe/Berlin")), MOMENT.replace(tzinfo=UTC)),
        "raw": (pa.array([b"\x00\xff", None], pa.binary()), b"\x00\xff"),
        "days": (pa.array([[date(1, 1, 1), date(9999, 12, 31)], None]), [date(1, 1, 1), date(9999, 12, 31)]),
        "texts": (pa.array([["a", ""], []]), ["a", ""]),
        "nan": (pa.array([float("inf"), None]), float("inf")),
        "big": (pa.array([2**63 - 1, None], pa.uint64()), 2**63 - 1),
    }  # fmt: skip
    table = pa.table({"id": [1, 2], **{name: values for name, (values, _) in columns.items()}})
    table = table.append_column("fine", pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")))
    one = loading_of(tmp_path, real.uri, {"nodes/Thing/a.parquet": table})
    one.load()
    one.verify()
    found = ask(real, "MATCH (n:Thing {id: 1}) RETURN n")[0]["n"]
    for name, (_, expected) in columns.items():
        assert to_native(found[name]) == expected, name
    assert (found["fine"].nanosecond, found["fine"].year) == (123_456_789, 2023)


FINE = [-1, -1_000_000_001, -2_208_988_800_000_000_001, -(2**63), 0, 1, 1_700_000_000_123_456_789, 2**63 - 1]


@pytest.mark.each_version
def test_nanoseconds_arrive_to_the_last_one_also_before_1970(real: Community, tmp_path: Path) -> None:
    clock = [24 * 3600 * 10**9 - 1, 0, 1, 999, 1000, 86_399_000_000_001, 12, 13]
    kinds = {
        "plain": (FINE, pa.timestamp("ns")),
        "utc": (FINE, pa.timestamp("ns", "UTC")),
        "zoned": (FINE, pa.timestamp("ns", "America/New_York")),
        "clock": (clock, pa.time64("ns")),
        "span": (FINE, pa.duration("ns")),
    }
    columns: dict[str, Any] = {name: pa.array(v, pa.int64()).cast(kind) for name, (v, kind) in kinds.items()}
    columns["many"] = pa.array([[one, None, -one][::2] for one in range(8)], pa.list_(pa.timestamp("ns")))
    one = loading_of(tmp_path, real.uri, {"nodes/Fine/a.parquet": {"id": list(range(8)), **columns}})
    one.load()
    one.verify()
    numbers = (  # not epochSeconds, which cuts towards zero
        "MATCH (n:Fine) RETURN datetime({datetime: n.plain, timezone: 'Z'}).epochMillis AS ms, n.plain.nanosecond AS ns, "
        "n.utc.epochMillis AS ums, n.utc.nanosecond AS uns, n.zoned.epochMillis AS zms, n.zoned.nanosecond AS zns, "
        "toString(n.clock) AS clock, n.span AS span, [m IN n.many | m.nanosecond] AS many ORDER BY n.id"
    )
    for number, row in enumerate(ask(real, numbers)):
        want = FINE[number] // 10**6, FINE[number] % 10**9
        assert (row["ms"], row["ns"]) == (row["ums"], row["uns"]) == (row["zms"], row["zns"]) == want
        assert row["span"].seconds * 10**9 + row["span"].nanoseconds == FINE[number]
        assert row["many"] == [number, -number % 10**9]
        assert row["clock"] == text_of(clock[number])


def text_of(since_midnight: int) -> str:
    """A time of day as Neo4j writes it."""
    seconds, fraction = divmod(since_midnight, 10**9)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:09}"
    return text.rstrip("0").removesuffix(".") if fraction else text[:8]


def test_a_query_answers_with_every_nanosecond() -> None:
    late = Time(23, 59, 59, 999_999_999)
    assert to_native([late, Time(1, 2, 3, 4000)]) == ["23:59:59.999999999", time(1, 2, 3, 4)]
    assert to_native(DateTime(1969, 12, 31, 23, 59, 59, 999_999_999)) == "1969-12-31T23:59:59.999999999"
    assert to_native(Duration(months=1, days=2)) == "P1M2D"
    assert to_native(Duration(nanoseconds=-1)) == "PT-0.000000001S"
    assert to_native(Duration(seconds=-1, nanoseconds=-5000)) == timedelta(seconds=-1, microseconds=-5)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"nodes/A/a.parquet": {"id": [1], "l": pa.array([[1, None]])}}, "column 'l' holds a list with a null in it"),
        ({"nodes/A/a.parquet": {"id": [1], "n": pa.array([2**63], pa.uint64())}}, "column 'n' holds the number 9223372036854775808"),
        ({"nodes/A/a.parquet": {"id": [1], "d": pa.array([[[1]]])}}, "column 'd' holds list<"),
        ({"nodes/A/a.parquet": {"id": [1], "s": pa.array([{"a": 1}])}}, "column 's' holds struct<"),
        ({"nodes/A/a.parquet": {"id": [1], "m": pa.array([1], pa.decimal128(9, 2))}}, "column 'm' holds decimal"),
        (
            {"nodes/A/a.parquet": {"id": [1, 2]}, "nodes/B/a.parquet": {"id": [1], "labels": ["A"]}},
            "Write every node once (nodes of other folders that carry the label count too): 1 row of nodes/A repeats an id "
            "(1 in nodes/A/a.parquet row 1 and nodes/B/a.parquet row 1). What is live stays live.",
        ),
        (
            {"nodes/A/a.parquet": {"id": [1]}, "relationships/R/a.parquet": {"source": [1, 1], "target": [1, 9]}},
            "1 row of relationships/R has a target id that no node has, of A (9 in relationships/R/a.parquet row 2).",
        ),
    ],
)  # fmt: skip
def test_what_neo4j_cannot_hold_is_refused_with_the_column(
    lts_server: Community, tmp_path: Path, files: dict[str, Any], said: str
) -> None:
    lts_server.empty()
    with pytest.raises(BadInput) as caught:
        loading_of(tmp_path, lts_server.uri, files).load()
    assert said in str(caught.value)


def test_nodes_that_somebody_removed_are_no_fault_of_the_files(
    lts_server: Community, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lts_server.empty()
    one = loading(tmp_path, lts_server.uri, rows=400)
    interrupt(one, monkeypatch, "load.group.confirmed", 2)
    ask(lts_server, "MATCH (n:Address) DELETE n")
    one.fence = 2
    with pytest.raises(
        TargetError, match=r"found no node to join.* But in the files every id is right"
    ) as caught:
        one.load()
    assert not isinstance(caught.value, BadInput)
    assert one.ledger.events[-1] == ("note", "looking for all offenders in relationships/HAS_ADDRESS")
    assert not list((tmp_path / "state/builds/neo4j").glob("*"))


@pytest.mark.each_version
def test_odd_names_ids_of_both_kinds_and_properties_called_id_and_labels(
    real: Community, tmp_path: Path
) -> None:
    odd = "a`b'c \\u0060 日本"
    files = {
        f"nodes/{odd}/a.parquet": {"nodeId": ["x", "y"], "id": [7, None], odd: ["v", None]},
        "nodes/City/a.parquet": {"id": [1, 2], "name": ["Paris", None]},
        "relationships/LIVES `IN`/a.parquet": {"source": ["x", "y"], "target": [1, 2], "id": [5, 6], "labels": ["p", None]},
    }  # fmt: skip
    one = loading_of(tmp_path, real.uri, files)
    one.load()
    assert one.verify() == {"labels": {odd: 2, "City": 2}, "types": {"LIVES `IN`": 2}}
    found = ask(real, "MATCH (a)-[r]->(b) RETURN a.nodeId AS a, a.id AS own, r.id AS r, b.id AS b ORDER BY a")
    assert found == [{"a": "x", "own": 7, "r": 5, "b": 1}, {"a": "y", "own": None, "r": 6, "b": 2}]


def test_ends_are_found_by_the_very_key_and_no_neighbour(real: Community, tmp_path: Path) -> None:
    near = [2**53, 2**53 + 1, -(2**63), 2**63 - 1, 0]
    texts = ["", "a", "a\x00", "A", "ä", "a\u0308", "1", "x" * 3000]
    files = {
        "nodes/Number/a.parquet": {"id": near},
        "nodes/Text/a.parquet": {"id": texts},
        "relationships/N/from=Number/to=Number/a.parquet": {"source": near, "target": near},
        "relationships/T/from=Text/to=Text/a.parquet": {"source": texts, "target": texts},
    }
    one = loading_of(tmp_path, real.uri, files)
    one.load()
    assert one.verify()["types"] == {"N": 5, "T": 8}
    assert ask(real, "MATCH (a)-->(b) WHERE a <> b RETURN count(*) AS n") == [{"n": 0}]


def test_tables_whose_nodes_carry_each_others_labels_are_verified_together(
    real: Community, tmp_path: Path
) -> None:
    files = {
        "nodes/Person/a.parquet": {
            "id": ["p1", "p2"],
            "labels": [["Person", " Boss "], ["Person"]],
            "name": ["A", None],
        },
        "nodes/Boss/a.parquet": {"id": ["b1"], "name": ["B"]},
        "nodes/City/a.parquet": {"id": ["c1"]},
        "relationships/KNOWS/a.parquet": {"source": ["p1", "b1"], "target": ["b1", "p2"], "w": [1, None]},
        "relationships/IN/a.parquet": {"source": ["p1", "p2"], "target": ["c1", "c1"]},
    }
    one = loading_of(tmp_path, real.uri, files)
    one.load()
    assert one.verify()["labels"] == {"Person": 2, "Boss": 2, "City": 1}
    ask(real, "MATCH (n:Person {id: 'p1'}) REMOVE n.name")
    with pytest.raises(VerifyFailed, match="name"):
        one.verify()


SCHEMA = """// what readers search by
CREATE INDEX entity_name IF NOT EXISTS FOR (n:Entity) ON (n.name);
CREATE TEXT INDEX FOR (n:Address) ON (n.city);
"""


@pytest.mark.each_version
def test_declared_indexes_are_made_awaited_and_verified(real: Community, tmp_path: Path) -> None:
    one = loading(
        tmp_path, real.uri, indexes=["CREATE CONSTRAINT one_name FOR (n:Address) REQUIRE n.nodeId IS UNIQUE"]
    )
    one.options["indexes"] = ["CREATE INDEX FOR ()-[r:HAS_ADDRESS]-() ON (r.since)"]
    (one.snapshot.path / "schema.cypher").write_text(SCHEMA)
    one.load()
    assert one.verify() == COUNTS
    rows = ask(real, "SHOW INDEXES YIELD name, state, labelsOrTypes, properties WHERE properties IS NOT NULL")
    assert {(row["labelsOrTypes"][0], row["properties"][0], row["state"]) for row in rows} == {
        ("Entity", "nodeId", "ONLINE"), ("Address", "nodeId", "ONLINE"), ("Entity", "name", "ONLINE"),
        ("Address", "city", "ONLINE"), ("HAS_ADDRESS", "since", "ONLINE"),
    }  # fmt: skip
    ask(real, "DROP INDEX entity_name")
    with pytest.raises(VerifyFailed, match="was missing"):
        one.verify()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("MATCH (n) DETACH DELETE n", "may only hold CREATE INDEX"),
        ("CREATE (n:Index)", "may only hold CREATE INDEX"),
        ("CREATE USER index SET PASSWORD 'secret-1' CHANGE NOT REQUIRED", "may only hold CREATE INDEX"),
        ("CREATE ROLE constraint AS COPY OF admin", "may only hold CREATE INDEX"),
        ("CREATE DATABASE index", "may only hold CREATE INDEX"),
        ("CREATE INDEX nonsense", "refused the schema"),
        ("CREATE CONSTRAINT FOR (n:Entity) REQUIRE n.country IS UNIQUE", "does not hold"),
        ("CREATE CONSTRAINT FOR (n:Entity) REQUIRE n.name IS NODE KEY", "refused the schema"),
        ("CREATE CONSTRAINT FOR (n:Entity) REQUIRE n.nodeId IS NODE KEY", "refused the schema"),
    ],
)
def test_a_schema_that_cannot_be_is_bad_input(
    lts_server: Community, tmp_path: Path, text: str, said: str
) -> None:
    lts_server.empty()
    one = loading(tmp_path, lts_server.uri, rows=400)
    (one.snapshot.path / "schema.cypher").write_text(text)
    with pytest.raises(BadInput, match=said):
        one.load()


@pytest.mark.each_version
def test_community_is_recognised_in_one_sentence(real: Community, tmp_path: Path) -> None:
    health = loading(tmp_path, real.uri).target().health()
    assert health.state == "ok"
    assert "Neo4j Community Edition, which has one database and no aliases" in health.figures[0]
    assert "target: ladybug" in health.figures[0]


def test_nothing_is_switched_on_community(real: Community, tmp_path: Path) -> None:
    target = loading(tmp_path, real.uri).target()
    with pytest.raises(Refused, match="Community Edition"):
        target.switch("acme", "neo4j", 1)
    assert target.alias("acme") is None
    assert target.generation("acme") is None


def test_community_takes_one_snapshot_by_commands_and_waits_with_the_next(
    real: Community, tmp_path: Path
) -> None:
    house = make_house(tmp_path, neo4j={"uri": real.uri, "password": PASSWORD, "concurrency": 2})
    house.drop("acme", TIMESTAMP, rows=500)
    done = house.run("run", "--timeout", "80")
    assert "which has one database and no aliases" in done.stderr
    (job,) = house.json("jobs", "list")
    assert (job["state"], job["blocked"], job["rows_confirmed"]) == ("loaded", True, 500)
    assert "Community Edition" in job["reason"]
    assert ask(real, "MATCH (n) RETURN count(*) AS n") == [{"n": 300}]
    house.drop("acme", TIMESTAMP + 1, rows=1000)
    running = house.start("run", "--timeout", "80")
    said = "holds 300 nodes that bgdeploy did not load"
    house.await_(said, lambda: said in str(house.json("jobs", "list", "--state", "queued")))
    stop(running)
    waiting = house.json("jobs", "list", "--state", "queued")[0]
    assert (waiting["attempt"], ask(real, "MATCH (n) RETURN count(*) AS n")) == (0, [{"n": 300}])
    real.empty()
    house.run("run", "--timeout", "80")
    assert house.states() == {TIMESTAMP: "cleaned", TIMESTAMP + 1: "loaded"}
    assert ask(real, "MATCH (n) RETURN count(*) AS n") == [{"n": 600}]


def test_a_password_is_in_no_message(real: Community) -> None:
    for uri in (real.uri, "bolt://127.0.0.1:1"):
        login = {"user": "neo4j", "password": "hunter2-hunter2", "password_file": None, "ca_file": None}
        with pytest.raises(TargetAway) as caught:
            open_server({"uri": uri, **login}).identity()
        assert "hunter2" not in str(caught.value)
        assert PASSWORD not in repr(caught.value)
