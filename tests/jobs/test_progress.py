"""How far a load is: rows, rate, share and what is left, per table and in all."""

from __future__ import annotations

from typing import Any

from bgdeploy.jobs.ledger import of_load, of_tables

NOW = 1000.0


def group(name: str, expected: int, **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("rows_confirmed", "rows_seen", "started_at", "confirmed_at", "confirmed_fence"))
    return {"name": name, "rows_expected": expected, "found": False, "starts": 1, **empty, **more}


def done(name: str, rows: int, start: float, end: float, fence: int = 2, **more: Any) -> dict[str, Any]:
    times = {"started_at": start, "confirmed_at": end, "confirmed_fence": fence}
    return group(name, rows, rows_confirmed=rows, **times, **more)


def test_before_anything_is_started_nothing_is_claimed() -> None:
    (one,) = of_tables([group("A", 100)], 2, NOW)
    assert (one.rows, one.share, one.rate, one.left, one.running) == (0, 0.0, None, None, False)


def test_a_table_that_is_over_keeps_its_own_rate() -> None:
    (one,) = of_tables([done("A", 100, 900, 910)], 2, NOW)
    assert (one.rows, one.share, one.rate, one.left, one.running) == (100, 1.0, 10.0, None, False)


def test_rows_on_their_way_count_and_give_the_time_that_is_left() -> None:
    groups = [done("A", 100, 980, 990), group("A", 300, started_at=990.0, rows_seen=100)]
    (one,) = of_tables(groups, 2, NOW)
    assert (one.rows, one.expected, one.rate, one.left, one.running) == (200, 400, 10.0, 20.0, True)


def test_what_earlier_runs_did_counts_as_rows_and_not_for_the_rate() -> None:
    groups = [
        done("A", 1000, 100, 110, fence=1),
        done("B", 500, 100, 110, found=True),
        group("C", 100, started_at=990.0, rows_confirmed=50),
    ]
    whole = of_load(groups, 2, NOW)
    assert (whole.rows, whole.expected, whole.rate, whole.left) == (1550, 1600, 5.0, 10.0)
    assert [one.rate for one in of_tables(groups, 2, NOW)] == [None, None, 5.0]


def test_rows_that_an_earlier_run_left_in_a_group_make_no_rate() -> None:
    resumed = group("A", 1000, started_at=999.0, rows_confirmed=900, starts=2)
    assert of_load([resumed], 2, NOW).rate is None
    fresh = group("B", 100, started_at=990.0, rows_confirmed=50)
    assert of_load([resumed, fresh], 2, NOW).rate == 5.0


def test_between_two_groups_the_rest_still_has_its_time() -> None:
    whole = of_load([done("A", 100, 980, 990), group("B", 100)], 2, NOW)
    assert (whole.rate, whole.left, whole.running) == (5.0, 20.0, False)


def test_an_empty_table_is_complete() -> None:
    assert of_load([], 1, NOW).share == 1.0
