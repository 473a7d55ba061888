"""How often a job is tried: only what goes beyond every earlier run counts as progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bgdeploy.errors import BgdeployError, StoreError, TargetError, VerifyFailed
from bgdeploy.jobs import ledger
from bgdeploy.jobs.lease import rescue
from bgdeploy.jobs.states import Actor
from bgdeploy.jobs.transitions import Row
from bgdeploy.pipeline import load, scan
from bgdeploy.worker import run as running
from bgdeploy.worker.shutdown import Stop
from tests.pipeline.place import DAY, OLD, Place

GROUP = {"number": 0, "kind": "node", "name": "Person", "source_label": None, "target_label": None}


def build(place: Place, job: Row, *, until: str) -> None:
    """Load all groups, unless an earlier run did, and go through the steps up to one of them."""
    with place.site.transaction(Actor.WORKER) as tx:
        ledger.store_plan(tx, job, job["database"], [{**GROUP, "files": ["a"], "rows_expected": 3}])
        if not ledger.confirmed_rows(tx, job["id"], job["database"]):
            ledger.confirmed(tx, job, job["database"], 0, 3, found=False)
        for name in ("closed", "verified", "published"):
            ledger.step(tx, job, job["database"], name)
            if name == until:
                return


def take(place: Place) -> Row:
    place.now += DAY
    job = place.take()
    assert job is not None
    return job


def end(place: Place, job: Row, error: BgdeployError) -> None:
    with place.site.transaction(Actor.WORKER) as tx:
        load.end_badly(tx, job, error, max_retries=3, base=2.0, wait=1.0)


def test_a_build_that_never_holds_what_it_should_is_not_built_for_ever(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    scan.scan(place.site)
    for run in (1, 2, 3):
        job = take(place)
        build(place, job, until="closed")
        end(place, job, VerifyFailed("a row is missing"))
        assert place.rows()[0]["attempt"] == run
        assert place.rows()[0]["settings"]["rewrite"] or run == 3, "the engine reads no file itself any more"
    assert place.rows()[0]["state"] == "failed"


def test_a_worker_that_always_dies_in_the_verification_fails_at_the_limit_of_its_own(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    place.site = replace(
        place.site, owner="elsewhere~1/7/1.00/" + "a" * 32
    )  # one of this host would be seen alive
    place.drop("acme", OLD)
    scan.scan(place.site)
    for _ in range(3):
        build(place, take(place), until="closed")
        place.now += DAY
        rescue(place.site.store, now=place.now, owner=place.site.owner, most=3, base=2.0)
    assert (place.rows()[0]["state"], place.rows()[0]["error_code"]) == ("failed", "interrupted")


def test_three_kills_in_a_row_before_any_progress_do_not_fail_a_job(make_place: Callable[..., Place]) -> None:
    place = make_place()
    most = place.site.settings.orchestrator.max_service_deaths
    assert most == 20
    place.site = replace(place.site, owner="elsewhere~1/7/1.00/" + "a" * 32)
    place.drop("acme", OLD)
    scan.scan(place.site)
    for deaths in (1, 2, 3):
        take(place)
        place.now += DAY
        rescue(place.site.store, now=place.now, owner=place.site.owner, most=most, base=2.0)
        assert (place.rows()[0]["state"], place.rows()[0]["interruptions"]) == ("queued", deaths)
    job = take(place)
    build(place, job, until="verified")
    assert place.rows()[0]["interruptions"] == 0, "progress clears it"


def test_a_run_that_comes_further_starts_the_count_anew(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.drop("acme", OLD)
    scan.scan(place.site)
    for until, attempts in (("closed", 1), ("closed", 2), ("verified", 1), ("verified", 2)):
        job = take(place)
        build(place, job, until=until)
        end(place, job, TargetError("it fell over"))
        assert place.rows()[0]["attempt"] == attempts, until


def test_waiting_for_the_job_table_uses_no_attempt(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.drop("acme", OLD)
    scan.scan(place.site)
    end(place, take(place), StoreError("it is locked"))
    assert (place.rows()[0]["state"], place.rows()[0]["attempt"]) == ("queued", 0)


def test_what_nobody_foresaw_does_not_leave_a_job_loading(
    make_place: Callable[..., Place], monkeypatch: object
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    scan.scan(place.site)
    job = take(place)

    def stumble(run: object) -> None:
        raise RuntimeError("out of threads")

    monkeypatch.setattr(running, "_build", stumble)  # type: ignore[attr-defined]
    running.run_job(place.site, job, Stop(timeout=1.0))
    left = place.rows()[0]
    assert (left["state"], left["attempt"]) == ("queued", 1)
    assert "nobody foresaw: RuntimeError: out of threads" in left["error"]
