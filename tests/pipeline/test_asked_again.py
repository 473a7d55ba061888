"""What a person asks for again is loaded, whatever it shares its timestamp with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bgdeploy.pipeline import scan
from bgdeploy.service import steer
from tests.pipeline.place import OLD, Place, jobs


def look_twice(place: Place) -> None:
    """A folder that was just found, or just changed, is judged at the second look."""
    scan.scan(place.site)
    scan.scan(place.site)


def spoil(place: Place) -> Path:
    """Add a file of relationships without ends."""
    path = place.path("acme", OLD) / "relationships/KNOWS/part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"since": [1]}), path)
    return path


def test_a_scan_says_what_it_takes_up_again_and_its_load_counts_from_its_own_start(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    look_twice(place)
    place.run(bad=[OLD])
    assert place.rows(jobs)[0]["loading_at"] is not None
    path = spoil(place)
    found = scan.scan(place.site)
    assert found.again == [f"acme/{OLD}"]
    row = place.rows(jobs)[0]
    assert (row["state"], row["loading_at"]) == ("discovered", None)
    path.unlink()


def test_a_reload_of_what_is_live_that_failed_can_be_retried(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.live_through("acme", OLD, OLD + 1)
    again = steer.reload(place.site, 2, by="a test")
    place.run(bad=[OLD + 1])
    assert place.rows(jobs, jobs.c.id == again["id"])[0]["state"] == "failed"
    steer.retry(place.site, again["id"], by="a test")
    assert place.load_next()
    assert place.rows(jobs, jobs.c.id == again["id"])[0]["state"] == "loaded"


def test_a_retry_of_what_was_not_mended_fails_again_and_holds_nothing_up(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    bad = spoil(place)
    look_twice(place)
    assert place.states("acme") == {OLD: "failed"}
    steer.retry(place.site, 1, by="a test")
    place.drop("acme", OLD + 1)
    look_twice(place)
    place.run()
    assert place.states("acme") == {OLD: "failed", OLD + 1: "switched"}
    assert str(bad.relative_to(place.path("acme", OLD))) in place.rows()[0]["error"]


def test_a_retry_of_what_was_mended_knows_its_rows(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.drop("acme", OLD)
    bad = spoil(place)
    look_twice(place)
    bad.unlink()
    steer.retry(place.site, 1, by="a test")
    look_twice(place)
    place.run()
    job = place.rows()[0]
    assert (job["state"], job["rows_expected"]) == ("switched", 2)


@pytest.mark.parametrize("again", ["retry", "reload"])
def test_what_is_incomplete_by_now_is_not_loaded_because_a_person_asks(
    make_place: Callable[..., Place], again: str
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    place.run(bad=[OLD] if again == "retry" else [])
    lost = {"files": [{"path": "nodes/Person/part-9.parquet", "size": 10}]}
    (place.path("acme", OLD) / "manifest.json").write_text(json.dumps(lost))
    getattr(steer, again)(place.site, 1, by="a test")
    for _ in range(3):
        place.run()
    job = place.rows()[-1]
    assert job["state"] == "discovered" and "part-9.parquet, which is missing" in job["reason"]


def test_a_reload_that_was_asked_for_stays_beside_a_newer_one_that_waits_for_a_decision(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    place.live_through("acme", OLD)
    place.drop("acme", OLD + 1)
    place.counts = {"labels": {"Person": 0}, "types": {}}
    place.run()
    place.counts = {"labels": {"Person": 2}, "types": {}}
    steer.reload(place.site, 1, by="a test")
    place.run()
    assert [(row["timestamp"], row["build"], row["state"]) for row in place.rows()] == [
        (OLD, 1, "switched"), (OLD + 1, 1, "loaded"), (OLD, 2, "switched"),
    ]  # fmt: skip
    assert place.rows()[1]["blocked"]
