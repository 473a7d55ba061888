"""A worker that looks before it claims: what it cannot look at waits, and nothing else waits for it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgdeploy.jobs.transitions import Row
from bgdeploy.pipeline import admit, scan
from bgdeploy.site import Site
from bgdeploy.targets.base import Health
from bgdeploy.worker import run
from bgdeploy.worker.run import Run, work_once
from bgdeploy.worker.shutdown import Stop
from tests.pipeline.place import OLD, Place, jobs

MakePlace = Callable[..., Place]


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The customers whose jobs were claimed; nothing is loaded."""
    names: list[str] = []

    def note(site: Site, job: Row, stop: Stop) -> None:
        names.append(job["customer"])

    monkeypatch.setattr(run, "run_job", note)
    return names


def failing(monkeypatch: pytest.MonkeyPatch, name: str, below: Path) -> None:
    """Let the disk fail under one folder, at one of the looks at it."""
    real = getattr(admit, name)

    def fail(*given: Any) -> Any:
        if any(str(below) in str(one) for one in given):
            raise OSError(errno.EIO, "Input/output error", str(below))
        return real(*given)

    monkeypatch.setattr(admit, name, fail)


def test_a_disk_that_fails_under_one_customer_keeps_no_other_from_being_loaded(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch, claimed: list[str]
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    place.drop("beta", OLD + 1)
    scan.scan(place.site)
    failing(monkeypatch, "fingerprint", place.path("acme", OLD))
    assert not work_once(place.site, Stop())
    assert work_once(place.site, Stop())
    assert claimed == ["beta"]
    waiting = place.rows(jobs, jobs.c.customer == "acme")[0]
    assert (waiting["state"], waiting["attempt"]) == ("queued", 0)
    assert "Input/output error" in waiting["reason"]


def test_a_load_goes_on_where_the_state_folder_is_now(make_place: MakePlace) -> None:
    place = make_place()
    place.drop("acme", OLD)
    scan.scan(place.site)
    job = place.take()
    assert job is not None
    job = {**job, "settings": {"threads": 3, "state_dir": "/where/it/was"}}
    ticket = run._ticket(Run(place.site, job, heart=None), "load")  # type: ignore[arg-type]
    assert ticket["settings"] == {"threads": 3, "state_dir": str(place.folder / "state")}


def test_a_figure_that_is_not_told_is_named_by_its_flag_and_not_by_its_words(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch, claimed: list[str]
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    scan.scan(place.site)
    told: list[tuple[str, Any]] = []
    monkeypatch.setattr(
        run.log,
        "emit",
        lambda name, **fields: told.append((name, fields.get("figure") or fields.get("reason"))),
    )
    health = Health("ok", figures=("heap ?", "databases of unknown owners 3"), untold=("heap ?",))
    monkeypatch.setattr(place.target, "health", lambda: health)
    assert work_once(place.site, Stop())
    assert claimed == ["acme"]
    about_room = [(name, said) for name, said in told if name.startswith("health.")]
    assert about_room[0][1].startswith("heap ?; databases of unknown owners 3")
    assert about_room[1:] == [("health.unknown", "heap ?")]
