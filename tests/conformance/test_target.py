"""What every target must do, tried on each one there is."""

from __future__ import annotations

import pytest

from bgdeploy.errors import BgdeployError, Refused, StaleGeneration, TargetError
from bgdeploy.targets.base import Target
from tests.house import House

FIRST = 1700000001
LATER = 2**40  # generations that no run has come to


@pytest.fixture
def loaded(any_house: House) -> House:
    for number in (1, 2):
        any_house.drop("acme", FIRST + number, rows=50 + 50 * number)
        any_house.run("run", "--timeout", "80")  # one by one: of two that wait the older is dropped
    return any_house


@pytest.fixture
def target(loaded: House) -> Target:
    return loaded.target()


def test_the_alias_moves_and_reads_back(target: Target) -> None:
    assert target.alias("acme") == f"acme-{FIRST + 2}"
    target.switch("acme", f"acme-{FIRST + 1}", LATER)
    assert target.alias("acme") == f"acme-{FIRST + 1}"
    assert target.alias("nobody") is None


def test_all_aliases_are_told_at_once(loaded: House, target: Target) -> None:
    loaded.drop("borealis", FIRST, rows=50)
    loaded.run("run", "--timeout", "80")
    assert target.aliases() == {"acme": f"acme-{FIRST + 2}", "borealis": f"borealis-{FIRST}"}
    target.switch("acme", f"acme-{FIRST + 1}", LATER)
    assert target.aliases() == {name: target.alias(name) for name in ("acme", "borealis")}


def test_an_older_generation_is_refused_and_changes_nothing(target: Target) -> None:
    target.switch("acme", f"acme-{FIRST + 1}", LATER)
    with pytest.raises(StaleGeneration):
        target.switch("acme", f"acme-{FIRST + 2}", LATER - 1)
    assert target.alias("acme") == f"acme-{FIRST + 1}"


def test_an_alias_never_points_at_what_is_not_there(target: Target) -> None:
    with pytest.raises(TargetError):
        target.switch("acme", "acme-1", LATER)
    assert target.alias("acme") == f"acme-{FIRST + 2}"


def test_what_an_alias_points_at_is_not_dropped(target: Target) -> None:
    with pytest.raises(Refused):
        target.drop(f"acme-{FIRST + 2}", 1)
    assert target.query("acme", "MATCH (n) RETURN count(*) AS n")[0]["n"] == 90


def test_drop_is_idempotent_and_seen(target: Target) -> None:
    target.drop(f"acme-{FIRST + 1}", 1)
    target.drop(f"acme-{FIRST + 1}", 1)
    assert [info.name for info in target.databases()] == [f"acme-{FIRST + 2}"]


def test_a_query_cannot_write(target: Target) -> None:
    with pytest.raises(BgdeployError):
        target.query("acme", "CREATE (:Entity {nodeId: 'x'})")


def test_the_generation_of_the_last_move_is_remembered(target: Target) -> None:
    target.switch("acme", f"acme-{FIRST + 1}", LATER)
    assert target.generation("acme") == LATER
    assert target.generation("nobody") is None


def test_an_alias_is_removed_once_and_never_by_an_older_mover(target: Target) -> None:
    target.switch("acme", f"acme-{FIRST + 1}", LATER)
    with pytest.raises(StaleGeneration):
        target.remove_alias("acme", LATER - 1)
    assert target.alias("acme") == f"acme-{FIRST + 1}"
    target.remove_alias("acme", LATER + 1)
    target.remove_alias("acme", LATER + 1)
    assert target.alias("acme") is None
    assert target.aliases() == {}


def test_databases_and_their_counts_agree_with_the_files(loaded: House, target: Target) -> None:
    assert {info.name: info.status for info in target.databases()} == {
        f"acme-{FIRST + 1}": "online",
        f"acme-{FIRST + 2}": "online",
    }
    with target.inspect(f"acme-{FIRST + 2}") as inspector:
        counts = inspector.counts()
    assert (counts.labels, counts.types) == ({"Entity": 60, "Address": 30}, {"HAS_ADDRESS": 60})
    assert loaded.json("customers")[0]["counts"] == {"labels": counts.labels, "types": counts.types}


def test_the_way_back_and_forth_by_commands(loaded: House, target: Target) -> None:
    loaded.run("rollback", "acme", "--reason", "a test")
    assert target.alias("acme") == f"acme-{FIRST + 1}" == loaded.live("acme")
    loaded.run("switch", "acme", "--to", f"acme-{FIRST + 2}")
    assert target.query("acme", "MATCH (n) RETURN count(*) AS n") == [{"n": 90}]


def test_a_job_table_of_another_place_is_refused(loaded: House) -> None:
    target = loaded.target()
    target.expect(target.identity())
    with pytest.raises(Refused, match="another set-up"):
        target.expect("elsewhere")
        target.health()
