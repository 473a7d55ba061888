"""A disk under the snapshots that is lost or fails: no job is changed by it, and no build dropped."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from bgdeploy.errors import BadInput, TargetError
from bgdeploy.jobs.states import Actor
from bgdeploy.pipeline import admit, load, scan
from bgdeploy.snapshots.readiness import Fingerprint
from bgdeploy.worker import run
from bgdeploy.worker.run import work_once
from bgdeploy.worker.shutdown import Stop
from tests.pipeline.place import DAY, OLD, Place, databases

MakePlace = Callable[..., Place]
Lose = Callable[[Place], None]


@pytest.fixture(params=["an empty mount point", "a disk that fails", "a folder that cannot be listed"])
def lose(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Lose:
    def away(_: object) -> Fingerprint:
        if request.param == "a disk that fails":
            raise OSError(errno.EIO, "Input/output error")
        return Fingerprint("other", 0, 0, unreadable="nodes")

    def unmount(place: Place) -> None:
        if request.param == "an empty mount point":
            (place.folder / "data").rename(place.folder / "elsewhere")
            (place.folder / "data").mkdir()
        else:
            monkeypatch.setattr(admit, "fingerprint", away)

    return unmount


@pytest.fixture
def place(make_place: MakePlace) -> Place:
    """One queued job with a build that an earlier run began."""
    made = make_place()
    made.drop("acme", OLD)
    scan.scan(made.site)
    job = made.take()
    assert job is not None
    with made.site.transaction(Actor.WORKER) as tx:
        load.give_back(tx, job, "the service was stopped")
    return made


def untouched(place: Place) -> bool:
    job, build = place.rows()[0], place.rows(databases)[0]
    return (job["state"], job["attempt"], build["drop_at"]) == ("queued", 0, None)


def test_a_queued_job_waits_and_keeps_its_build(place: Place, lose: Lose) -> None:
    lose(place)
    report = scan.scan(place.site)
    assert report.errors
    assert not work_once(place.site, Stop())
    assert untouched(place)
    assert "Nothing can be said of the snapshot acme" in place.rows()[0]["reason"]


@pytest.mark.parametrize("end", [None, BadInput("a file is damaged"), TargetError("it cannot read a file")])
def test_a_running_load_goes_back_without_an_attempt_and_keeps_its_build(
    place: Place, lose: Lose, monkeypatch: pytest.MonkeyPatch, end: Exception | None
) -> None:
    def build(_: object) -> dict[str, Any]:
        lose(place)
        if end is not None:
            raise end
        return place.counts

    monkeypatch.setattr(run, "_build", build)
    place.now += DAY
    job = place.take()
    assert job is not None
    run.run_job(place.site, job, Stop(timeout=1.0))
    assert untouched(place)
    assert "Nothing can be said of the snapshot acme" in place.rows()[0]["reason"]
