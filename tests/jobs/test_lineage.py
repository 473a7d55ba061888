"""Which databases may be dropped: each rule that keeps one, alone and against the others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Any

import pytest
import sqlalchemy as sa

from bgdeploy.jobs.lineage import candidate, crowded, doomed, good, kept_databases, standby
from bgdeploy.jobs.states import State
from bgdeploy.jobs.store import Store
from bgdeploy.jobs.transitions import customers
from tests.jobs.tables import add_customer, add_database, add_job

NOW = 1000.0


def customer(live: int | None, **more: Any) -> Any:
    name = None if live is None else f"acme-{live}"
    row = {"name": "acme", "live": name, "live_timestamp": live, "live_build": live and 1, "intent": None}
    return {**row, "live_since": 500.0, "removed_at": None, **more}


def database(timestamp: int, state: State = State.SWITCHED, **more: Any) -> Any:
    row = {"name": f"acme-{timestamp}", "timestamp": timestamp, "build": 1, "state": state, "left_at": 0.0}
    marks = dict.fromkeys(("pinned_at", "bad_at", "drop_at", "drop_why", "verified_at"))
    return {**row, **marks, "loaded_at": 1.0, "requested": False, **more}


def goes(owner: Any, *kept: Any, keep: int = 2, grace: float = 60.0) -> list[int]:
    newest_first = sorted(kept, key=lambda row: -row["timestamp"])
    found = doomed(owner, newest_first, keep=keep, grace=grace, now=NOW)
    assert all(one.why for one in found)
    return [one.database["timestamp"] for one in found]


def test_the_newest_good_ones_stay_and_older_ones_go() -> None:
    assert goes(customer(4), *map(database, (1, 2, 3, 4))) == [2, 1]
    assert goes(customer(4), *map(database, (1, 2, 3, 4)), keep=1) == [3, 2, 1]
    assert goes(customer(4), *map(database, (3, 4)), keep=9) == []


def test_of_a_customer_that_was_removed_everything_goes_once_its_alias_and_its_grace_are_over() -> None:
    gone = [database(1), database(2, left_at=NOW - 61), database(3, left_at=NOW - 59)]
    assert goes(customer(None, removed_at=NOW - 61), *gone) == [2, 1]
    assert goes(customer(3, removed_at=NOW - 61), *gone) == []


def test_what_is_live_stays_however_old_it_is() -> None:
    assert goes(customer(1), database(1), database(2, bad_at=9.0), keep=1) == []


def test_what_an_intent_names_stays() -> None:
    assert goes(customer(4, intent="acme-1"), *map(database, (1, 2, 3, 4))) == [2]


def test_a_pinned_one_stays_and_costs_nobody_its_place() -> None:
    assert goes(customer(4), database(1, pinned_at=1.0), *map(database, (2, 3, 4))) == [2]


@pytest.mark.parametrize(("left", "expected"), [(NOW - 59, []), (NOW - 60, [1]), (None, [1])])
def test_nothing_goes_before_its_grace_is_over(left: float | None, expected: list[int]) -> None:
    """Without a time of its own the database counts from when the live one went live, here 500 s ago."""
    assert goes(customer(3), database(1, left_at=left), database(2), database(3)) == expected


def test_a_failed_load_never_costs_a_standby() -> None:
    assert goes(customer(2), database(1), database(2), database(3, State.FAILED)) == [3]


def test_a_candidate_never_costs_a_standby() -> None:
    for state in (State.LOADED, State.LOADING, State.QUEUED):
        assert goes(customer(2), database(1), database(2), database(3, state)) == []


def test_a_bad_one_is_kept_until_something_newer_is_live_and_is_no_standby() -> None:
    bad = database(3, bad_at=9.0)
    assert goes(customer(2), database(1), database(2), bad) == []
    assert standby(customer(2), [bad, database(2), database(1)])["timestamp"] == 1  # type: ignore[index]
    assert goes(customer(4), database(1), database(2), bad, database(4)) == [3, 1]


def test_of_several_that_wait_only_the_newest_stays() -> None:
    waiting = [database(number, State.LOADED) for number in (2, 3, 4)]
    assert goes(customer(1), database(1), *waiting) == [3, 2]


def test_what_a_person_asked_for_stays_beside_a_newer_one_that_waits() -> None:
    assert goes(customer(1), database(2, State.LOADED, requested=True), database(3, State.LOADED)) == []


def test_a_waiting_one_that_is_overtaken_goes_but_one_loaded_afterwards_on_purpose_stays() -> None:
    assert goes(customer(3), database(3), database(2, State.LOADED, loaded_at=499.0)) == [2]
    assert goes(customer(3), database(3), database(2, State.LOADED, loaded_at=501.0)) == []


def test_an_intent_to_drop_is_carried_out_whatever_the_state() -> None:
    given_up = database(2, State.QUEUED, drop_at=1.0, drop_why="its load failed")
    assert goes(customer(1), database(1), given_up) == [2]


def test_good_is_switched_not_bad_not_newer_than_live() -> None:
    kept = [database(4), database(3, bad_at=1.0), database(2), database(1, State.LOADED)]
    assert [row["timestamp"] for row in good(customer(2), kept)] == [2]
    assert standby(customer(None), kept) is None


def test_the_candidate_is_what_is_being_made_else_the_newest_that_waits() -> None:
    loading, loaded = database(2, State.LOADING), database(3, State.LOADED)
    assert candidate([loading, loaded])["timestamp"] == 2  # type: ignore[index]
    assert candidate([loaded, database(1, State.LOADED)])["timestamp"] == 3  # type: ignore[index]
    assert candidate([database(1)]) is None


# what a customer's databases may be like: the state of the job, and the marks of the database
KINDS: list[tuple[State, dict[str, Any]]] = [
    (State.SWITCHED, {}),
    (State.SWITCHED, {"bad_at": 1.0}),
    (State.SWITCHED, {"pinned_at": 1.0}),
    (State.SWITCHED, {"drop_at": 1.0, "drop_why": "a test"}),
    (State.SWITCHED, {"dropped_at": 1.0}),
    (State.LOADED, {}),
    (State.LOADING, {}),
    (State.QUEUED, {"drop_at": 1.0, "drop_why": "a test"}),
    (State.FAILED, {}),
    (State.CLEANED, {}),
]

LIVE = ("live", "live_timestamp", "live_build", "live_since")


def test_of_a_customer_that_is_not_crowded_nothing_is_doomed(store: Store) -> None:
    """The cleaner asks for the crowded ones only: all that the rules could doom must be among them."""
    combinations = [*combinations_with_replacement(KINDS, 2), *combinations_with_replacement(KINDS, 3)]
    for number, kinds in enumerate(combinations):
        if sum(state is State.LOADING for state, _ in kinds) < 2:
            _own(store, f"customer-{number}", kinds)
            _own(store, f"leaving-{number}", kinds, removed_at=1.0, **dict.fromkeys(LIVE))
    with store.read() as connection:
        for keep in (1, 2, 3):
            found = set(crowded(connection, keep=keep))
            for owner in connection.execute(sa.select(customers)).mappings().all():
                kept = kept_databases(connection, owner["name"])
                if doomed(owner, kept, keep=keep, grace=0.0, now=NOW):
                    assert owner["name"] in found


def _own(store: Store, name: str, kinds: Sequence[tuple[State, dict[str, Any]]], **more: Any) -> None:
    """The newest that is switched is live."""
    live = max((index for index, (state, _) in enumerate(kinds, 1) if state is State.SWITCHED), default=None)
    of_live = dict(zip(LIVE, (live and f"{name}-{live}", live, live and 1, 0.0), strict=True))
    add_customer(store, name, **{**of_live, **more})
    for index, (state, marks) in enumerate(kinds, 1):
        add_database(store, add_job(store, name, index, state, loaded_at=0.0), f"{name}-{index}", **marks)


def test_a_house_at_rest_has_no_crowded_customer(store: Store) -> None:
    _own(store, "acme", [KINDS[0], KINDS[0]])
    _own(store, "borealis", [KINDS[0], KINDS[6]])
    with store.read() as connection:
        assert crowded(connection, keep=2) == []
        assert crowded(connection, keep=1) == ["acme", "borealis"]
