"""Aliases are the customers' own names; where they cannot be, nobody meets anybody."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import bgdeploy
from bgdeploy.errors import NotFound
from bgdeploy.naming import LONGEST_FILE, alias_name, database_name, fold, read_age
from bgdeploy.pipeline import scan
from bgdeploy.targets.ladybug.disk import Paths, move_link, read_link
from tests.house import House
from tests.pipeline.place import OLD, Place, customers

MakePlace = Callable[..., Place]
OWN = ("hp", "3m", "Acme_Corp", "a.b", "two words")


@pytest.mark.parametrize("name", OWN)
def test_an_embedded_alias_is_the_customers_name_and_its_database_a_legal_one(name: str) -> None:
    assert alias_name(name, "ladybug") == name
    database = database_name(name, OLD)
    assert fold(database) == database, "legal everywhere"
    assert read_age(name, database) == (OLD, 1)
    assert read_age(name, f"{name}-{OLD}") == (OLD, 1), "as the service before called it"


def test_every_name_has_its_own_alias_and_database() -> None:
    names = ["acme", "Acme", "ACME", "a-b", "a.b", "a_b", "hp", "Hp", "n" * 241, "n" * 242, "system", "x."]
    for target in ("ladybug", "neo4j"):
        alike = {"acme", "hp"} if target == "neo4j" else set()
        kept = [name for name in names if name in alike or name.lower() not in alike]
        assert len({alias_name(name, target) for name in kept}) == len(kept)
    assert len({database_name(name, OLD) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("hp", "hp"),
        ("3m", "3m"),
        ("Acme_Corp", "acme_corp"),
        ("a.b", "a-b-2e7336"),
        ("systems", "c-systems-f338f4"),
    ],
)
def test_on_neo4j_an_alias_is_the_name_in_lower_case_unless_it_is_reserved(name: str, alias: str) -> None:
    assert alias_name(name, "neo4j") == alias


def test_the_longest_alias_leaves_room_for_what_lies_beside_it(tmp_path: Path) -> None:
    name = "ä" * (LONGEST_FILE // 2)
    assert alias_name(name, "ladybug") == name
    assert alias_name(name + "ä", "ladybug") == fold(name + "ä")
    (tmp_path / "databases/db").mkdir(parents=True)
    (tmp_path / "databases/db/graph.lbug").write_bytes(b"")
    (tmp_path / "databases/db/facts.json").write_text('{"bytes": 0}')
    move_link(Paths(tmp_path), name, "db", 1)
    assert read_link(Paths(tmp_path), name) == "db"


def aliases(place: Place) -> dict[str, str]:
    return {row["name"]: row["alias"] for row in place.rows(customers)}


def test_two_that_neo4j_cannot_tell_apart_never_meet(make_place: MakePlace) -> None:
    place = make_place()
    place.target.kind = "neo4j"
    place.drop("acme", OLD)
    place.run()
    place.drop("ACME", OLD)
    report = scan.scan(place.site)
    assert "in use by customer 'acme'" in dict(report.skipped)["ACME"]
    assert aliases(place) == {"acme": "acme"}


def test_a_lost_job_table_gives_neither_of_two_twins_the_alias(make_place: MakePlace) -> None:
    place = make_place()
    place.target.kind = "neo4j"
    for name in ("acme", "ACME", "other"):
        place.drop(name, OLD)
    report = scan.scan(place.site)
    assert "would be that of 'acme' too" in dict(report.skipped)["ACME"]
    assert "would be that of 'ACME' too" in dict(report.skipped)["acme"]
    assert aliases(place) == {"other": "other"}


def test_the_alias_of_an_earlier_version_stays_where_the_job_table_was_lost(make_place: MakePlace) -> None:
    place = make_place()
    earlier = fold("Acme_Corp")
    place.target.whole.add(f"{earlier}-{OLD}")
    place.target.pointing[earlier] = f"{earlier}-{OLD}"
    place.drop("Acme_Corp", OLD - 1, OLD + 1)
    place.run()
    assert aliases(place) == {"Acme_Corp": earlier}
    assert place.states("Acme_Corp") == {OLD - 1: "cleaned", OLD + 1: "switched"}


@pytest.mark.parametrize("names", [("A_b", fold("A_b")), (fold("A_b"), "A_b")])
def test_what_an_earlier_version_called_another_customer_is_nobodys_name(
    make_place: MakePlace, names: tuple[str, str]
) -> None:
    place = make_place()
    for name in names:
        place.drop(name, OLD)
        place.run()
    if names[0] == "A_b":
        assert aliases(place) == {"A_b": "A_b"}
    else:
        assert aliases(place) == {names[0]: names[0]}


def test_readers_find_them_by_their_names_in_every_way(house: House) -> None:
    for name in OWN:
        house.drop(name, OLD, rows=30)
    house.run("run", "--timeout", "60")
    state = house.folder / "state/aliases"
    assert sorted(name for name in os.listdir(state) if name[0] != ".") == sorted(OWN)
    for name in OWN:
        assert (state / name / "graph.lbug").is_file()
        with bgdeploy.connect(name, config=house.folder / "config.yaml") as reader:
            assert reader.query("MATCH (n) RETURN count(*) > 0 AS some") == [{"some": True}]
    house.run("query", "a.b", "MATCH (n) RETURN count(*) AS n")


def test_connect_says_that_there_is_no_configuration_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BGDEPLOY_CONFIG", raising=False)
    with pytest.raises(NotFound, match=f"there is no configuration in {tmp_path}.*config="):
        bgdeploy.connect("acme")
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(NotFound, match="Nothing is live under the alias 'acme'"):
        bgdeploy.connect("acme")


def test_a_live_customer_keeps_the_alias_that_its_row_has_over_an_upgrade(make_place: MakePlace) -> None:
    place, earlier = make_place(), fold("Acme_Corp")
    place.drop("Acme_Corp", OLD)
    scan.scan(place.site)
    with place.site.store.write() as connection:
        connection.execute(customers.update().values(alias=earlier))
    place.run()
    place.drop("Acme_Corp", OLD + 1)
    place.run()
    assert place.target.pointing == {earlier: f"{earlier}-{OLD + 1}"}
