"""Blue/green on Neo4j: the stand-in for Enterprise, real databases behind it, and readers in Neo4j's driver."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from neo4j import GraphDatabase

from tests.house import House, make_house, stop
from tests.neo4j.proxy import proxy
from tests.neo4j.servers import PASSWORD, free_port
from tests.neo4j.standin import StandIn

FIRST = 1700000001
RUN = ("run", "--timeout", "80")


@pytest.fixture
def house(enterprise: StandIn, tmp_path: Path) -> House:
    return make_house(tmp_path, neo4j=enterprise.settings)


def name(number: int = 0, mark: str = "") -> str:
    return f"acme-{FIRST + number}{mark}"


def deploy(house: House, *numbers: int) -> None:
    for number in numbers:
        house.drop("acme", FIRST + number, rows=100)
        house.run(*RUN)


def alias(server: StandIn) -> str | None:
    rows = server.system("SHOW ALIASES FOR DATABASE YIELD name, database WHERE name = $alias", alias="acme")
    return rows[0]["database"] if rows else None


def names(server: StandIn) -> set[str]:
    return {row["name"] for row in server.system("SHOW DATABASES YIELD name")} - {"system", "neo4j"}


def reason(house: House) -> str:
    jobs = house.json("jobs", "list")
    return str(jobs[0]["reason"]) if jobs else ""


@contextmanager
def serving(house: House) -> Iterator[None]:
    service = house.start("serve")
    try:
        yield
    finally:
        assert stop(service) == 0


class Readers:
    """Readers of an alias in a loop, two queries in each transaction, as applications do it."""

    def __init__(self, server: StandIn, count: int = 4) -> None:
        self.driver = server.driver()
        self.over = threading.Event()
        self.reads, self.faults = 0, list[Any]()
        self.threads = [threading.Thread(target=self._loop) for _ in range(count)]

    def _loop(self) -> None:
        while not self.over.is_set():
            try:
                with self.driver.session(database="acme") as session:
                    nodes, again = session.execute_read(self._look)
            except Exception as error:
                self.faults.append(error)
                return
            if nodes != again:
                self.faults.append((nodes, again))
            self.reads += 1
            self.over.wait(0.01)  # the gateway is Python, and two cores are few

    @staticmethod
    def _look(tx: Any) -> tuple[int, int]:
        count = "MATCH (n) RETURN count(*) AS n"
        return tx.run(count).single()["n"], tx.run(count).single()["n"]

    def __enter__(self) -> Readers:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()
        self.driver.close()


def test_readers_see_neither_error_nor_mixture_through_a_whole_life(
    enterprise: StandIn, house: House
) -> None:
    deploy(house, 0)
    with Readers(enterprise, count=2) as readers:
        deploy(house, 1, 2)
        house.run("rollback", "acme", "--reason", "a test")
        house.run("switch", "acme", "--to", name(2))
    assert readers.faults == []
    assert readers.reads > 20
    assert house.states() == {FIRST: "cleaned", FIRST + 1: "switched", FIRST + 2: "switched"}
    assert names(enterprise) == {name(1), name(2)}


def test_two_hundred_moves_under_readers(enterprise: StandIn, house: House) -> None:
    deploy(house, 0, 1)
    target = house.target()
    with Readers(enterprise) as readers:
        for generation in range(200):
            target.switch("acme", name(generation % 2), 2**40 + generation)
    assert readers.faults == []
    assert readers.reads > 20


def test_a_database_of_the_customers_name_is_not_ours_to_touch(enterprise: StandIn, house: House) -> None:
    enterprise.control(foreign="acme")
    house.drop("acme", FIRST, rows=100)
    with serving(house):
        house.await_("it says so", lambda: "is a database that bgdeploy did not make" in reason(house))
    assert house.states() == {FIRST: "loaded"}
    assert "acme" in names(enterprise)


def test_an_alias_of_the_customers_name_is_not_ours_to_touch(enterprise: StandIn, house: House) -> None:
    enterprise.control(aliases={"acme": {"database": "neo4j", "properties": {}}})
    house.drop("acme", FIRST, rows=100)
    with serving(house):
        house.await_("it says so", lambda: "was not made by bgdeploy; it points at neo4j" in reason(house))
    assert alias(enterprise) == "neo4j"


def test_a_database_that_somebody_put_in_the_place_of_ours_is_never_dropped(
    enterprise: StandIn, house: House
) -> None:
    deploy(house, 0, 1)
    enterprise.system(f"DROP DATABASE `{name(0)}` IF EXISTS DESTROY DATA WAIT 60 SECONDS")
    enterprise.control(foreign=name(0))
    deploy(house, 2)
    assert house.states() == {FIRST: "cleaned", FIRST + 1: "switched", FIRST + 2: "switched"}
    assert names(enterprise) == {name(0), name(1), name(2)}
    events = [event["message"] for event in house.json("jobs", "show", "1")["events"]]
    assert any("somebody has put another in its place" in message for message in events)


@pytest.mark.parametrize("what", ["database", "alias"])
def test_a_builds_name_that_somebody_else_uses_is_stepped_around(
    enterprise: StandIn, house: House, what: str
) -> None:
    if what == "database":
        enterprise.control(foreign=name())
    else:
        enterprise.control(aliases={name(): {"database": "neo4j", "properties": {}}})
    deploy(house, 0)
    assert house.live("acme") == alias(enterprise) == name(0, "-f1")
    found = {row["name"] for row in enterprise.system("SHOW ALIASES FOR DATABASE YIELD name")} | names(
        enterprise
    )
    assert name() in found
    deploy(house, 1, 2)  # and when everything of its time is cleaned, it is still there
    found = {row["name"] for row in enterprise.system("SHOW ALIASES FOR DATABASE YIELD name")} | names(
        enterprise
    )
    assert found - {"acme"} == {name(), name(1), name(2)}


def test_a_database_stuck_offline_is_stepped_around_and_reported(enterprise: StandIn, house: House) -> None:
    enterprise.control(stuck=[name()])
    house.drop("acme", FIRST, rows=100)
    with serving(house):
        house.await_("it is live under another name", lambda: house.live("acme") == name(0, "-f1"))
        house.await_("it is reported", lambda: "clean.waits" in kinds(house))
    events = [event["message"] for event in house.json("jobs", "show", "1")["events"]]
    assert any("Transaction logs are missing" in message for message in events)
    assert name() in names(enterprise)


def kinds(house: House) -> list[str]:
    return [event["kind"] for event in house.json("jobs", "show", "1")["events"]]


def test_an_alias_moved_by_hand_to_good_data_is_taken_as_it_is(enterprise: StandIn, house: House) -> None:
    deploy(house, 0, 1)
    enterprise.system("ALTER ALIAS acme SET DATABASE TARGET $name", name=name(0))
    with serving(house):
        house.await_("it is recorded", lambda: house.live("acme") == name(0))
    assert house.json("switches")[0]["kind"] == "found"


def test_a_late_move_of_a_void_intent_is_undone(enterprise: StandIn, house: House) -> None:
    deploy(house, 0, 1)
    moves = house.json("switches")
    late = max(move["generation"] for move in moves)
    house.run("switch", "acme", "--to", name(0))
    house.run("switch", "acme", "--to", name(1))  # the late mover's generation is an old one now
    text = "ALTER ALIAS acme SET DATABASE TARGET $name PROPERTIES {bgdeploy: $generation}"
    assert late - 7 not in [move["generation"] for move in moves]
    enterprise.system(text, name=name(0), generation=late - 7)
    with serving(house):
        house.await_("it is put back", lambda: alias(enterprise) == name(1))
    assert house.live("acme") == name(1)
    assert house.json("switches")[0]["kind"] == "repair"


@pytest.mark.parametrize(
    "hand", ["DROP ALIAS acme FOR DATABASE", "ALTER ALIAS acme SET DATABASE TARGET neo4j"]
)
def test_an_alias_that_leads_astray_is_put_back(enterprise: StandIn, house: House, hand: str) -> None:
    deploy(house, 0)
    enterprise.system(hand)
    with serving(house):
        house.await_("it is back", lambda: alias(enterprise) == name(0))
    assert house.live("acme") == name(0)


def test_a_live_database_dropped_by_someone_else_is_shown(enterprise: StandIn, house: House) -> None:
    deploy(house, 0)
    enterprise.system("DROP ALIAS acme FOR DATABASE")
    enterprise.system("DROP DATABASE $name WAIT", name=name(0))
    with serving(house):
        said = f"There is no database {name(0)}"
        house.await_("it is said", lambda: said in (house.folder / "log").read_text())
    assert "points at nothing" in str(house.json("customers")[0]["trouble"])
    deploy(house, 1)
    assert house.live("acme") == alias(enterprise) == name(1)


def test_the_limit_of_databases_is_waited_for_without_an_attempt(enterprise: StandIn, house: House) -> None:
    enterprise.control(limit=2)
    house.drop("acme", FIRST, rows=100)
    with serving(house):
        said = "databases at the server: 2 exist (with system) + 1 to load, its limit is 2"
        house.await_("it waits with the sum", lambda: said in reason(house))
        assert house.json("jobs", "list")[0]["attempt"] == 0
        enterprise.control(limit=3)
        house.await_("it is live", lambda: house.live("acme") == name())


@pytest.mark.parametrize(
    ("bad", "good", "said", "options"),
    [
        ({"heap": {"used": 95, "max": 100}}, {"heap": {"used": 20, "max": 100}}, "heap 95 % (at most 85 %)", {}),
        ({"heap": {}}, {"heap": {"used": 20, "max": 100}}, "heap unknown (at most 85 %)", {}),
    ],
)  # fmt: skip
def test_an_unwell_server_is_waited_for_with_the_figure(
    enterprise: StandIn, tmp_path: Path, bad: Any, good: Any, said: str, options: Any
) -> None:
    house = make_house(tmp_path, neo4j={**enterprise.settings, **options})
    enterprise.control(told=bad)
    house.drop("acme", FIRST, rows=100)
    with serving(house):
        house.await_("it waits", lambda: said in reason(house))
        assert house.json("jobs", "list")[0]["attempt"] == 0
        assert names(enterprise) == set()
        enterprise.control(told=good)
        house.await_("it is live", lambda: house.live("acme") == name())
    log = (house.folder / "log").read_text()
    assert "running transactions" in log
    assert said in log


def test_an_enterprise_that_lacks_commands_is_not_loaded_into(enterprise: StandIn, house: House) -> None:
    enterprise.control(told={"lacks": ["ALTER DATABASE", "CREATE ALIAS", "ALTER ALIAS"]})
    house.drop("acme", FIRST, rows=100)
    with serving(house):
        said = "lacks commands that a switch needs, so nothing is loaded there: Unsupported administration command: ALTER"
        house.await_("it waits", lambda: said in reason(house))
    assert names(enterprise) == set()
    assert said in house.run("doctor", "--json", ok=False).stdout
    assert "dropped" not in (house.folder / "log").read_text()


def test_a_full_page_cache_keeps_nothing_waiting(enterprise: StandIn, house: House) -> None:
    enterprise.control(told={"page_cache": 0.99, "page_hits": 0.998})
    health = house.target().health()
    assert health.state == "ok"
    assert {"page cache used 99 %", "page cache hits 99.8 %"} <= set(health.figures)


@pytest.mark.parametrize("missing", ["CREATE DATABASE", "GRANT ACCESS"])
def test_a_missing_right_is_named(enterprise: StandIn, tmp_path: Path, missing: str) -> None:
    users = {"limited": {"password": PASSWORD, "denied": [missing]}}
    enterprise.control(users=users)
    mine = {**enterprise.settings, "user": "limited", "reader_roles": ["analyst"]}
    house = make_house(tmp_path, neo4j=mine)
    house.drop("acme", FIRST, rows=100)
    with serving(house):
        said = f"not been granted for user 'limited' to {missing}"
        house.await_("it is said", lambda: said in (house.folder / "log").read_text())
    assert house.states()[FIRST] in ("discovered", "queued", "loading", "loaded")
    assert alias(enterprise) is None


def test_a_wrong_password_waits_and_a_rotated_one_is_read_anew(enterprise: StandIn, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("not-yet-the-password\n")
    mine = {"uri": enterprise.uri, "password_file": str(secret), "concurrency": 2}
    house = make_house(tmp_path, neo4j=mine)
    house.drop("acme", FIRST, rows=100)
    with serving(house):
        house.await_("it waits", lambda: "refused user or password" in reason(house))
        secret.write_text(PASSWORD)
        house.await_("it is live", lambda: house.live("acme") == name(0))
        enterprise.control(users={"neo4j": {"password": "another-password", "denied": []}})
        secret.write_text("another-password")
        house.drop("acme", FIRST + 1, rows=100)
        house.await_("the next one too", lambda: house.states().get(FIRST + 1) == "switched")
        with GraphDatabase.driver(enterprise.uri, auth=("neo4j", "another-password")) as driver:
            login = {"neo4j": {"password": PASSWORD, "denied": []}}
            with driver.session(database="system") as session:
                session.run("STANDIN", users=login).consume()
            secret.write_text(PASSWORD)
    text = (house.folder / "log").read_text() + str(house.json("jobs", "list")) + house.run("config").stdout
    assert PASSWORD not in text
    assert "another-password" not in text
    assert PASSWORD.encode() not in (house.folder / "state/jobs.db").read_bytes()


@pytest.mark.parametrize(
    ("scheme", "tls", "ca", "said"),
    [
        ("neo4j+s", True, False, "does not speak TLS as asked for"),
        ("bolt+s", False, False, "does not speak TLS as asked for|broke the connection off"),
        ("bolt", True, False, "broke the connection off|cannot be reached"),
        ("neo4j+ssc", True, False, ""),
        ("neo4j", True, True, ""),
    ],
)
def test_tls_means_tls_or_a_sentence(
    enterprise: StandIn, tmp_path: Path, scheme: str, tls: bool, ca: bool, said: str
) -> None:
    if not enterprise.certificate.exists():
        pytest.skip("no openssl to make a certificate with")
    port = enterprise.tls_port if tls else enterprise.port
    more = {"ca_file": str(enterprise.certificate)} if ca else {}
    uri = f"{scheme}{'+s' if ca else ''}://127.0.0.1:{port}"
    house = make_house(tmp_path, neo4j={"uri": uri, "password": PASSWORD, **more})
    health = house.target().health()
    if not said:
        assert health.state == "ok"
        return
    assert health.state == "wait"
    assert any(part in health.reasons[0] for part in said.split("|")), health


@pytest.mark.parametrize("scheme", ["neo4j", "neo4j+s", "bolt+s"])
def test_with_a_ca_file_nothing_is_ever_sent_in_the_clear(
    enterprise: StandIn, tmp_path: Path, scheme: str
) -> None:
    """Not even when the cause of a failed connection is looked for."""
    if not enterprise.certificate.exists():
        pytest.skip("no openssl to make a certificate with")
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as door:

        def listen() -> None:
            while True:
                try:
                    connection, _ = door.accept()
                except OSError:
                    return
                heard.append(connection.recv(4096))
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        uri = f"{scheme}://127.0.0.1:{door.getsockname()[1]}"
        mine = {"uri": uri, "password": PASSWORD, "ca_file": str(enterprise.certificate)}
        assert make_house(tmp_path, neo4j=mine).target().health().state == "wait"
    assert heard
    assert all(data[:1] == b"\x16" for data in heard)  # the first byte of a TLS handshake


@pytest.mark.parametrize(
    ("read_only", "live", "standby"),
    [
        ("standby", "read-write", "read-only"),
        ("live", "read-only", "read-only"),
        ("none", "read-write", "read-write"),
    ],
)
def test_live_and_standby_are_protected_as_configured(
    enterprise: StandIn, tmp_path: Path, read_only: str, live: str, standby: str
) -> None:
    house = make_house(tmp_path, neo4j={**enterprise.settings, "read_only": read_only})
    deploy(house, 0, 1)
    for _ in range(2):
        access = {
            row["name"]: row["access"] for row in enterprise.system("SHOW DATABASES YIELD name, access")
        }
        other = {name(0): name(1), name(1): name(0)}[str(alias(enterprise))]
        assert (access[str(alias(enterprise))], access[other]) == (live, standby)
        house.run("rollback", "acme", "--reason", "a test") if _ == 0 else None


def test_what_was_written_to_live_is_told_before_a_way_back_leads_to_it(
    enterprise: StandIn, house: House
) -> None:
    deploy(house, 0)
    enterprise.rows("acme", "CREATE (:Entity {nodeId: 'written by a reader'})")
    deploy(house, 1)
    done = house.run("rollback", "acme", "--reason", "a test")
    assert f"{name(0)} is not as it was verified" in done.stderr
    assert alias(enterprise) == name(0)
    done = house.run("rollback", "acme", "--to", name(1), "--reason", "a test")
    assert "not as it was verified" not in done.stderr


def test_a_move_that_worked_is_done_though_the_left_one_cannot_be_protected_yet(
    enterprise: StandIn, house: House
) -> None:
    denied = ["ALTER DATABASE $name SET ACCESS READ ONLY"]
    deploy(house, 0)
    enterprise.control(users={"neo4j": {"password": PASSWORD, "denied": denied}})
    deploy(house, 1)
    assert (alias(enterprise), house.states()[FIRST + 1]) == (name(1), "switched")
    assert len(house.json("switches", "acme")) == 2
    assert access_of(enterprise, name(0)) == "read-write"
    told = house.run("doctor", "--json", ok=False).stdout
    assert f"{name(0)} is no longer live and still not read-only" in told
    assert "Permission has not been granted" in told
    enterprise.control(users={"neo4j": {"password": PASSWORD, "denied": []}})
    house.run("run", "--timeout", "60")
    assert [access_of(enterprise, name(n)) for n in (0, 1)] == ["read-only", "read-write"]
    assert "still not read-only" not in house.run("doctor", "--json", ok=False).stdout


def access_of(enterprise: StandIn, database: str) -> str:
    rows = enterprise.system("SHOW DATABASES YIELD name, access")
    return next(str(row["access"]) for row in rows if row["name"] == database)


def test_readers_roles_are_let_in_and_queries_run_before_the_switch(
    enterprise: StandIn, tmp_path: Path
) -> None:
    warm = "MATCH (n:Entity) RETURN count(n)"
    house = make_house(
        tmp_path, neo4j={**enterprise.settings, "reader_roles": ["analyst"], "warm_up": [warm]}
    )
    deploy(house, 0)
    state = enterprise.control()
    assert state["granted"] == [f"ACCESS {name()} TO analyst", f"MATCH {{*}} {name()} TO analyst"]
    order = [text.split(" ")[0] + " " + text.split(" ")[1] for text in state["said"]]
    assert order.index("GRANT ACCESS") < order.index("CREATE ALIAS")


def test_a_warm_up_query_that_cannot_run_fails_the_load_by_name(enterprise: StandIn, tmp_path: Path) -> None:
    house = make_house(tmp_path, neo4j={**enterprise.settings, "warm_up": ["MATCH (n RETURN n"]})
    house.drop("acme", FIRST, rows=100)
    house.run(*RUN, ok=False)
    job = house.json("jobs", "show", "1")
    assert (job["state"], job["error_code"]) == ("failed", "bad-input")
    assert "Warming up" in job["error"]
    assert "neo4j.warm_up" in job["error"]


def test_a_drop_waits_for_the_last_reader(enterprise: StandIn, house: House) -> None:
    deploy(house, 0, 1)
    with enterprise.driver() as driver, driver.session(database=name(0)) as session:
        tx = session.begin_transaction()
        tx.run("MATCH (n) RETURN count(*)").consume()
        house.drop("acme", FIRST + 2, rows=100)
        with serving(house):
            house.await_(
                "it is waited for", lambda: "transactions still run on" in (house.folder / "log").read_text()
            )
            assert name(0) in names(enterprise)
            tx.rollback()
            house.await_("it is gone", lambda: name(0) not in names(enterprise))


def test_a_server_that_is_away_is_waited_for_and_lists_still_work(
    enterprise: StandIn, tmp_path: Path
) -> None:
    port = free_port()
    house = make_house(tmp_path, neo4j={**enterprise.settings, "uri": f"bolt://127.0.0.1:{port}"})
    house.drop("acme", FIRST, rows=100)
    with serving(house):
        house.await_("it waits", lambda: "cannot be reached" in reason(house))
        assert house.json("customers")[0]["trouble"].startswith("unknown: The Neo4j server")
        assert house.json("jobs", "list")[0]["attempt"] == 0
        with proxy(enterprise.port, port):
            house.await_("it is live", lambda: house.live("acme") == name())


def test_a_job_table_of_another_server_is_refused(enterprise: StandIn, house: House, tmp_path: Path) -> None:
    deploy(house, 0)
    house.run("jobs", "list")
    import sqlite3

    with sqlite3.connect(house.folder / "state/jobs.db") as table:
        table.execute("UPDATE identity SET place = 'another server'")
    done = house.run("switch", "acme", "--to", name(0), ok=False)
    assert done.returncode == 5
    assert "belongs to another set-up" in done.stderr
    assert "init --rebind" in done.stderr


def test_connect_says_what_to_use_instead(house: House) -> None:
    import bgdeploy
    from bgdeploy.errors import Refused

    with pytest.raises(Refused, match="own driver"):
        bgdeploy.connect("acme", config=house.folder / "config.yaml")
