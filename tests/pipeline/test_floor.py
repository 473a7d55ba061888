"""What an alias leads to bounds what may follow, also for a job table that never heard of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bgdeploy.errors import TargetAway
from bgdeploy.jobs.models import switches
from bgdeploy.naming import database_name, read_age
from bgdeploy.pipeline import scan, switch
from tests.pipeline.place import DAY, OLD, START, Place, customers, jobs

MakePlace = Callable[..., Place]


def lived_before(place: Place, database: str) -> None:
    """An alias that another job table, now lost, has moved."""
    place.target.whole.add(database)
    place.target.pointing["acme"] = database


@pytest.mark.parametrize("suffix", ["", "-f3", "-r2", "-r2-f7"])
def test_a_lost_job_table_never_takes_readers_back(make_place: MakePlace, suffix: str) -> None:
    place = make_place()
    lived_before(place, f"acme-{OLD + 1}{suffix}")
    place.drop("acme", OLD, OLD + 1, OLD + 2)
    place.run()
    moves = [row["target"] for row in place.rows(switches)]
    assert place.states("acme") == {OLD: "cleaned", OLD + 1: "switched", OLD + 2: "switched"}
    assert [name.split("-")[1] for name in moves] == [str(OLD + 1), str(OLD + 2)]
    assert f"acme-{OLD + 1}{suffix}" in place.target.whole, "nothing it does not own is dropped"


@pytest.mark.parametrize(
    "strange",
    ["acme-eu-1700000005", "acmes", f"acme-{int(START + 9 * DAY)}", "acme-17-x", "/tmp", "acme-017"],
)
def test_a_name_that_bgdeploy_would_not_give_is_no_floor(make_place: MakePlace, strange: str) -> None:
    place = make_place()
    lived_before(place, strange)
    place.drop("acme", OLD)
    place.run()
    assert place.states("acme") == {OLD: "switched"}


def test_where_the_target_could_not_be_asked_a_first_move_asks_again(make_place: MakePlace) -> None:
    place = make_place()
    lived_before(place, f"acme-{OLD + 1}")
    place.drop("acme", OLD)

    def away() -> dict[str, str]:
        raise TargetAway("the server is away")

    place.target.aliases = away  # type: ignore[method-assign]
    scan.scan(place.site)
    del place.target.aliases
    assert place.load_next()
    assert switch.switch_ready(place.site) == 0
    assert place.target.pointing == {"acme": f"acme-{OLD + 1}"}
    [row] = place.rows(customers)
    assert (row["floor_timestamp"], row["floor_build"]) == (OLD + 1, 0)
    [job] = place.rows(jobs)
    assert job["blocked"]


@pytest.mark.parametrize(("build", "fence"), [(1, None), (1, 4), (2, None), (3, 5)])
def test_every_name_that_is_given_can_be_read(build: int, fence: int | None) -> None:
    name = database_name("acme", OLD, build, fence)
    assert read_age("acme", name) == (OLD, build)
    assert read_age("acme-eu", name) is None
