"""Every statement bgdeploy can send to ``system``, put to real servers: known, and spelled right."""

from __future__ import annotations

import pytest
from neo4j.exceptions import ClientError

from bgdeploy.targets.neo4j import access, aliases, databases, health, rights, schema
from bgdeploy.targets.neo4j.names import CYPHER, quote
from bgdeploy.targets.neo4j.offline import load, store
from tests.house import make_house
from tests.neo4j.servers import Community
from tests.neo4j.standin import StandIn

pytestmark = pytest.mark.each_version

# Community knows these words and says that only Enterprise carries them out.
ENTERPRISE = (
    databases.CREATE,
    databases.creating(databases.Layout(1)),
    databases.creating(databases.Layout(3, 2, seeder="an id")),
    databases.creating(databases.Layout(3, seed="file:///seeds/acme-1.dump")),
    databases.DROP,
    databases.READ_ONLY,
    databases.READ_WRITE,
    databases.STOP,
    databases.START,
    *databases.GRANTS,
    aliases.SHOW,
    aliases.SHOW_ONE,
    aliases.CREATE,
    aliases.ALTER,
    aliases.DROP,
)
EVERYWHERE = (
    access.IDENTITY,
    databases.SHOW,
    databases.BEHIND,
    databases.TRANSACTIONS,
    databases.PROCEDURES,
    databases.LANGUAGES,
    health.COMPONENTS,
    health.HEAP,
    health.PAGE_CACHE,
    health.RUNNING,
    health.LIMIT,
    health.CLOCK,
    rights.OTHERS,
    health.FILES,
    health.PLACES,
    store.PLACES,
    store.MEMBERS,
    load.PROVIDERS,
)
GIVEN = {
    "name": "acme-1",
    "alias": "acme",
    "database": "acme-1",
    "generation": 7,
    "role": "analyst",
    "options": {},
}
UNSUPPORTED = (
    "Neo.ClientError.Statement.UnsupportedAdministrationCommand",
    "Neo.ClientError.Statement.NotSystemDatabaseError",  # 5.26 says this of SHOW ALIASES
)


NEWER = tuple(
    databases.creating(layout, cypher25=True)
    for layout in (databases.Layout(3, 2, seeder="an id"), databases.Layout(seed="file:///seeds/acme-1.dump"))
)


def refused(real: Community, statement: str) -> str | None:
    """The code that a statement is refused with."""
    with (
        real.driver() as driver,
        driver.session(database="system") as session,
        pytest.raises(ClientError) as caught,
    ):
        session.run(statement, GIVEN).consume()  # type: ignore[arg-type]
    return caught.value.code


@pytest.mark.parametrize("statement", ENTERPRISE)
def test_community_knows_the_statement_and_lacks_the_edition(real: Community, statement: str) -> None:
    assert refused(real, statement) in UNSUPPORTED


def test_a_misspelled_statement_would_be_noticed(real: Community) -> None:
    misspelled = "ALTER ALIAS $alias SET DATABASE GOAL $database"
    assert refused(real, misspelled) == "Neo.ClientError.Statement.SyntaxError"


@pytest.mark.parametrize("statement", EVERYWHERE)
def test_what_every_edition_answers_is_answered(real: Community, statement: str) -> None:
    with real.driver() as driver, driver.session(database="system") as session:
        session.run(statement, GIVEN).consume()  # type: ignore[arg-type]


def test_a_whole_life_sends_no_other_statement(enterprise: StandIn, tmp_path) -> None:  # type: ignore[no-untyped-def]
    house = make_house(
        tmp_path, neo4j={**enterprise.settings, "reader_roles": ["analyst"], "read_only": "live"}
    )
    for number in range(3):
        house.drop("acme", 1700000001 + number, rows=50)
        house.run("run", "--timeout", "80")
    house.run("rollback", "acme", "--reason", "a test")
    house.run("customers")
    said = set(enterprise.control()["said"])
    known = {" ".join(text.split()) for text in (*ENTERPRISE, *EVERYWHERE, databases.CHECKPOINT)}
    assert said <= known
    assert {databases.CREATE, databases.DROP, databases.READ_ONLY, *databases.GRANTS, aliases.ALTER} <= said


@pytest.mark.parametrize(
    "name",
    [
        "a`b",
        "a\\u0060b",
        "back\\slash",
        "x\\u005Cy",
        "Grüße 日本 🎈",
        "a'b\"c",
        "$x {y}",
        "drop table",
        "n:m",
    ],
)
def test_a_quoted_name_is_only_a_name(real: Community, name: str) -> None:
    with real.driver() as driver:
        text = f"{CYPHER}CREATE (:{quote(name)} {{{quote(name)}: 1}})-[:{quote(name)}]->()"
        driver.execute_query(text, database_="neo4j")  # type: ignore[arg-type]
        found = driver.execute_query(
            "MATCH (n)-[r]->() RETURN labels(n) AS labels, keys(n) AS keys, type(r) AS type",
            database_="neo4j",
        ).records[0]
    assert (found["labels"], found["keys"], found["type"]) == ([name], [name], name)


def test_the_schema_is_told_by_every_version(real: Community) -> None:
    with real.driver() as driver:
        for statement in (schema.SHOW, schema.SHOW_KEYS):
            driver.execute_query(statement, database_="neo4j")  # type: ignore[arg-type]


@pytest.mark.parametrize("statement", NEWER)
def test_a_server_that_speaks_cypher_25_is_asked_in_it(newest_server: Community, statement: str) -> None:
    assert refused(newest_server, statement) in UNSUPPORTED
    with newest_server.driver() as driver:
        rows = driver.execute_query(databases.LANGUAGES, database_="system").records
    assert any(row["name"] == "Cypher" and "25" in row["versions"] for row in rows)


@pytest.mark.parametrize("statement", health.NEEDED)
def test_a_command_that_a_server_lacks_is_found_by_asking_for_its_plan(
    real: Community, statement: str
) -> None:
    assert refused(real, f"EXPLAIN {statement}") in UNSUPPORTED
