"""docs/migrating.md on a server: an alias that somebody else made is taken over, and readers never notice."""

from __future__ import annotations

import re
from pathlib import Path

from tests.house import make_house, stop
from tests.neo4j.standin import StandIn
from tests.neo4j.test_enterprise import FIRST, Readers, alias, name, names, reason

PAGE = Path(__file__).parents[2] / "docs/migrating.md"


def test_an_alias_of_the_service_before_is_taken_over_without_a_gap(
    enterprise: StandIn, tmp_path: Path
) -> None:
    enterprise.system(f"CREATE DATABASE `{name(1)}` WAIT")
    enterprise.rows(
        name(1), "UNWIND range(1, 50) AS i CREATE (:Entity {nodeId: 'entity-' + i}) RETURN count(*)"
    )
    enterprise.system(f"CREATE ALIAS `acme` FOR DATABASE `{name(1)}`")
    host, port = enterprise.uri.removeprefix("neo4j://").split(":")
    place = {key: value for key, value in enterprise.settings.items() if key != "uri"}
    house = make_house(tmp_path, neo4j={**place, "host": host, "bolt_port": int(port)})
    for number in range(2):
        house.drop("acme", FIRST + number, rows=100)
    with Readers(enterprise, count=2) as readers:
        service = house.start("serve")
        house.await_("it asks for the mark", lambda: "ALTER ALIAS" in reason(house))
        assert alias(enterprise) == name(1)
        found = re.search(r"an administrator runs: (ALTER ALIAS .*?\})\.", reason(house))
        assert found is not None
        written = re.search(r"ALTER ALIAS .*", PAGE.read_text())
        assert written is not None
        assert written[0].replace("1767741427", str(FIRST + 1)) == found[1]
        enterprise.system(found[1])
        assert alias(enterprise) == name(1)
        house.await_("it is taken over", lambda: alias(enterprise) == name(1, "-f1"))
        house.drop("acme", FIRST + 2, rows=100)
        house.await_("the next one follows", lambda: alias(enterprise) == name(2))
        assert stop(service) == 0
    assert readers.faults == []
    assert readers.reads > 20
    assert house.states() == {FIRST: "cleaned", FIRST + 1: "switched", FIRST + 2: "switched"}
    assert name(1) in names(enterprise), "what bgdeploy did not make stays"
