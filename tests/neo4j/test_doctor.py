"""The doctor at a Neo4j server: what it is told, which rights it tries, and that nothing stays behind."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from bgdeploy.errors import ExitCode
from bgdeploy.finding import TRIAL, Finding
from bgdeploy.targets.neo4j import databases
from bgdeploy.targets.neo4j.access import Access
from bgdeploy.targets.neo4j.checks import judge_tls
from tests.house import House, make_house
from tests.neo4j.servers import PASSWORD, Community, free_port
from tests.neo4j.standin import StandIn
from tests.neo4j.test_statements import ENTERPRISE, EVERYWHERE
from tests.service.test_doctor import pick

FIRST = 1700000001


@pytest.fixture
def empty(enterprise: StandIn, tmp_path: Path) -> House:
    """An installation whose job table knows its server, and nothing else."""
    house = make_house(tmp_path, neo4j={**enterprise.settings, "reader_roles": ["analyst"]})
    house.run("init")
    return house


@pytest.fixture
def house(empty: House) -> House:
    """The same with a customer live."""
    empty.drop("acme", FIRST, rows=60)
    empty.run("run", "--timeout", "80")
    return empty


def look(house: House, *words: str, code: int = 0) -> list[Finding]:
    done = house.run("doctor", "--json", *words, ok=False)
    assert done.returncode == code, done.stdout
    assert done.stderr == ""
    assert PASSWORD not in done.stdout
    return [Finding(**one) for one in json.loads(done.stdout)]


def there(server: StandIn) -> tuple[set[str], set[str]]:
    databases = {row["name"] for row in server.system("SHOW DATABASES YIELD name")}
    aliases = {row["name"] for row in server.system("SHOW ALIASES FOR DATABASE YIELD name")}
    return databases, aliases


def refuse(server: StandIn, *statements: str) -> None:
    server.control(users={"neo4j": {"password": PASSWORD, "denied": list(statements)}})


def test_a_healthy_server_and_every_right_tried(enterprise: StandIn, house: House) -> None:
    before = there(enterprise)
    untried = look(house)
    assert "bgdeploy doctor --try-rights" in pick(untried, "rights", "unknown", "not tried: creating").cure
    assert not any("CREATE" in text for text in enterprise.control()["said"][-20:]), (
        "nothing is tried unasked"
    )
    tried = look(house, "--try-rights")
    assert there(enterprise) == before
    for right in ("creating a database", "read-only and back", "writing, keys", "creating an alias", "moving an alias",
                  "letting analyst read", "dropping an alias", "dropping a database", "seeing settings", "admin"):  # fmt: skip
        pick(tried, "rights", "ok", right)
    for part in (
        "answers 'neo4j' in",
        "it is Neo4j Enterprise",
        "it is Neo4j 5.",
        "its clock is",
        "databases 3 (at most",
    ):
        pick(tried, "server", "ok", part)
    pick(tried, "aliases", "ok", "the databases of the job table are at ")
    known = {" ".join(text.split()) for text in (*ENTERPRISE, *EVERYWHERE, databases.CHECKPOINT)}
    ours = {"SHOW DATABASES YIELD name", "SHOW ALIASES FOR DATABASE YIELD name"}  # this test's own looks
    assert set(enterprise.control()["said"]) - ours <= known


def test_a_missing_right_is_told_with_its_grant_and_the_scratch_goes_all_the_same(
    enterprise: StandIn, house: House
) -> None:
    before = there(enterprise)
    refuse(enterprise, "CREATE ALIAS", "SHOW SETTINGS", "CALL dbms.queryJmx('java.lang:type=Memory')")
    found = look(house, "--try-rights", code=1)
    for right, grant in (
        ("creating an alias: ", "ALIAS MANAGEMENT"),
        ("right of seeing settings: ", "SHOW SETTING"),
        ("right of admin procedures: ", "EXECUTE ADMIN PROCEDURES"),
    ):
        assert f"GRANT {grant}" in pick(found, "rights", "error", right).cure
    pick(found, "rights", "ok", "dropping a database")
    assert there(enterprise) == before
    refuse(enterprise, "CREATE DATABASE")
    found = look(house, "--try-rights", code=1)
    assert "GRANT DATABASE MANAGEMENT" in pick(found, "rights", "error", "creating a database: ").cure
    pick(found, "rights", "unknown", "not tried without a database: read-only and back")
    assert there(enterprise) == before


def test_a_doctor_that_is_interrupted_takes_its_scratch_away_first(enterprise: StandIn, empty: House) -> None:
    before = there(enterprise)
    doctor = empty.start("doctor", "--try-rights", failpoint="rights.created:1:stop")
    empty.await_("it is trying", lambda: psutil.Process(doctor.pid).status() == psutil.STATUS_STOPPED)
    assert any(TRIAL in name for name in there(enterprise)[0])
    doctor.send_signal(signal.SIGINT)
    doctor.send_signal(signal.SIGCONT)
    assert doctor.wait(90) == ExitCode.INTERRUPTED
    assert there(enterprise) == before


def test_figures_a_clock_and_databases_that_are_not_well(enterprise: StandIn, house: House) -> None:
    enterprise.control(limit=2, told={"clock": 90, "heap": {"used": 97, "max": 100}, "page_cache": 0.5})
    enterprise.control(status={"name": f"acme-{FIRST}", "status": "quarantined", "message": "out of luck"})
    found = look(house, "--try-rights", code=1)
    assert "heap.max_size" in pick(found, "server", "warning", "heap 97 % (at most 85 %)").cure
    assert "Set both clocks" in pick(found, "server", "warning", "its clock is +").cure
    pick(found, "server", "ok", "page cache used 50 %")
    pick(found, "server", "warning", f"acme-{FIRST} is quarantined on 127.0.0.1")
    pick(found, "rights", "unknown", "as many databases as it may hold")
    assert "retry 1 --reload" in pick(found, "aliases", "error", f"acme-{FIRST}, which the alias acme").cure


@pytest.mark.parametrize("wrong", ["password", "port", "file"])
def test_a_server_that_cannot_be_asked(empty: House, wrong: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "password": {"password": "not it"},
        "port": {"uri": f"neo4j://127.0.0.1:{free_port()}"},
        "file": {"password_file": "nowhere"},
    }
    path = empty.folder / "config.yaml"
    config = json.loads(path.read_text())
    config["neo4j"] |= changes[wrong]
    path.write_text(json.dumps(config))
    found = look(empty, "--try-rights", code=1)
    said = {"password": "refused user or password", "port": "cannot be reached", "file": "cannot be read"}
    assert pick(found, "server", "error", said[wrong]).cure
    for subject in ("server", "rights", "aliases"):
        pick(found, subject, "unknown", "not looked at, since the ")
    pick(found, "job table", "ok", "quick_check found no damage")


def test_community_is_told_and_nothing_is_ever_tried_there(lts_server: Community, tmp_path: Path) -> None:
    house = make_house(tmp_path, neo4j={"uri": f"bolt://127.0.0.1:{lts_server.port}", "password": PASSWORD})
    house.run("init")
    found = look(house, "--try-rights", code=1)
    pick(found, "server", "error", "Neo4j Community Edition, which has one database")
    pick(found, "rights", "unknown", "since the target cannot be used as it is: use")
    pick(found, "server", "ok", "its clock is")


@pytest.mark.parametrize(
    ("uri", "more", "verdict", "said"),
    [
        ("neo4j://127.0.0.1:7687", {}, "ok", "do not leave this machine"),
        ("bolt://localhost", {}, "ok", "do not leave this machine"),
        ("neo4j://graph.example.com", {}, "warning", "can be read on the way"),
        ("neo4j+ssc://graph.example.com", {}, "warning", "any certificate is taken"),
        ("neo4j+s://graph.example.com", {}, "ok", "the certificate is checked"),
        ("bolt+ssc://graph.example.com", {"ca_file": "/ca.pem"}, "ok", "checked against /ca.pem"),
    ],
)
def test_whether_others_can_read_along(uri: str, more: dict[str, str], verdict: str, said: str) -> None:
    told = judge_tls(Access(uri, "neo4j", **more))
    assert (told.verdict, said in told.what) == (verdict, True)
    assert bool(told.cure) == (verdict == "warning")
