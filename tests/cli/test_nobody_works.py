"""Doctor and listings say that nobody works: with the service stopped or killed, all in them stands still."""

from __future__ import annotations

import json

import pytest

from tests.house import House, stop

FIRST, SECOND = 1700000001, 1700000002
SAID = "no bgdeploy that scans and loads is running here"


def said(house: House, *words: str) -> bool:
    """Whether a command says it, once and for people."""
    done = house.run(*words, ok=False)
    if "--json" in words:
        assert isinstance(json.loads(done.stdout), list), "the shape that scripts know"
    return (done.stdout if "doctor" in words else done.stderr).count(SAID) == 1


@pytest.mark.parametrize("killed", [False, True])
def test_they_say_so_when_it_is_stopped_or_killed_and_not_while_it_runs(house: House, killed: bool) -> None:
    house.drop("acme", FIRST)
    service = house.start("serve", failpoint="load.group.confirmed:1:stop" if killed else "")
    if killed:
        house.await_("it is loading", lambda: any(j["rows_confirmed"] for j in house.json("jobs", "list")))
    else:
        house.await_("it is live", lambda: house.live("acme") is not None)
    looks = [["customers", "--json"], ["jobs", "list"], ["doctor"]]
    if not killed:
        looks += [["customers"], ["jobs", "list", "--json"]]
    assert [words for words in looks[:2] if said(house, *words)] == []
    if killed:
        service.kill()
        service.wait()
    else:
        assert stop(service) == 0
    assert [words for words in looks if not said(house, *words)] == []
