"""The way back is computed from what happened, and leaves just what a person saw live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bgdeploy.errors import Refused
from bgdeploy.jobs.models import switches
from bgdeploy.pipeline import alias, clean, scan, switch
from bgdeploy.service.customers import way_back
from bgdeploy.service.steer import reload
from tests.pipeline.place import OLD, Place, customers, databases, jobs

MakePlace = Callable[..., Place]
A, B, C, D = (f"acme-{OLD + number}" for number in range(4))
PERSON: dict[str, Any] = {"why": "a test", "by": "a person"}


def three(make_place: MakePlace) -> Place:
    """C is live, B and A were before it, and nothing is dropped."""
    place = make_place(orchestrator__keep_databases=3)
    place.live_through("acme", OLD, OLD + 1, OLD + 2)
    assert place.target.pointing == {"acme": C}
    return place


def bad(place: Place) -> set[str]:
    return {row["name"] for row in place.rows(databases, databases.c.bad_at.is_not(None))}


def test_after_a_switch_to_an_older_one_a_rollback_goes_to_where_it_came_from(make_place: MakePlace) -> None:
    place = three(make_place)
    switch.switch_by_hand(place.site, "acme", to=B, **PERSON)
    assert way_back(place.site, "acme") == C
    wish, left = switch.roll_back(place.site, "acme", to=None, pause=False, **PERSON)
    assert (wish.database, left, bad(place)) == (C, B, {B})


def test_from_the_oldest_one_too(make_place: MakePlace) -> None:
    place = three(make_place)
    switch.switch_by_hand(place.site, "acme", to=A, **PERSON)
    assert way_back(place.site, "acme") == C
    switch.roll_back(place.site, "acme", to=None, pause=False, **PERSON)
    assert place.target.pointing == {"acme": C}


def test_a_rollback_never_goes_to_what_a_rollback_left(make_place: MakePlace) -> None:
    place = three(make_place)
    for goes in (B, A):
        assert way_back(place.site, "acme") == goes
        switch.roll_back(place.site, "acme", to=None, pause=False, **PERSON)
    assert bad(place) == {B, C}
    assert way_back(place.site, "acme") is None


def test_an_alias_that_was_put_back_is_no_move_to_go_back_from(make_place: MakePlace) -> None:
    place = three(make_place)
    switch.switch_by_hand(place.site, "acme", to=B, **PERSON)
    del place.target.pointing["acme"]
    assert alias.watch_aliases(place.site) == []
    assert place.rows(switches)[-1]["kind"] == "repair"
    assert way_back(place.site, "acme") == C


@pytest.mark.parametrize("to", [None, A])
def test_what_goes_live_while_a_person_decides_is_not_marked_bad(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch, to: str | None
) -> None:
    place = three(make_place)
    place.drop("acme", OLD + 3)
    scan.scan(place.site)
    assert place.load_next()

    def deploy_between(moment: str) -> None:
        if moment == "rollback.decided":
            monkeypatch.undo()
            assert switch.switch_ready(place.new_process()) == 1

    monkeypatch.setattr(switch, "reach", deploy_between)
    with pytest.raises(Refused, match=f"{D} went live in place of {C}"):
        switch.roll_back(place.site, "acme", to=to, pause=False, **PERSON)
    assert place.target.pointing == {"acme": D}
    assert bad(place) == set()
    assert place.rows(customers)[0]["intent"] is None


def test_putting_a_lost_alias_back_overtakes_nothing_that_waits(make_place: MakePlace) -> None:
    place = three(make_place)
    since = place.rows(customers)[0]["live_since"]
    place.now += 60
    reload(place.site, place.rows(jobs, jobs.c.database == A)[0]["id"], by="a person")
    place.run()
    [asked] = place.rows(jobs, jobs.c.build == 2)
    assert (asked["state"], asked["blocked"]) == ("loaded", True)
    place.now += 60
    del place.target.pointing["acme"]
    assert alias.watch_aliases(place.site) == []
    assert place.target.pointing == {"acme": C}
    assert place.rows(customers)[0]["live_since"] == since
    clean.clean(place.site)
    assert place.rows(jobs, jobs.c.build == 2)[0]["state"] == "loaded", "a person asked for it, and decides"
    assert asked["database"] in place.target.whole
