"""What a listing of jobs says of each: live, standby, bad, pinned, cancelled, and from when its snapshot is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bgdeploy.cli import render
from bgdeploy.cli.jobs import _table
from bgdeploy.pipeline import scan, switch
from bgdeploy.service import steer
from bgdeploy.service.views import find_job, list_jobs
from tests.pipeline.place import OLD, Place


def test_jobs_are_marked_and_dated_and_fit_into_80_columns(
    make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(orchestrator__keep_databases=3)
    name = "one-of-17-letters"
    place.live_through(name, OLD, OLD + 1, OLD + 2)
    switch.roll_back(place.site, name, to=None, why="a test", by="me", pause=False)
    steer.pin(place.site, name, f"{name}-{OLD}", by="me")
    place.drop("other", OLD + 3)
    scan.scan(place.site)
    steer.cancel(place.site, 4, by="me")
    found = {job.id: job for job in list_jobs(place.site)}
    marks = {number: job.marks for number, job in found.items()}
    assert marks == {4: ["cancelled"], 3: ["bad"], 2: ["live"], 1: ["standby", "pinned"]}
    assert found[1].snapshot_at == "2023-11-14T22:13:20Z"
    assert find_job(place.site, 1).marks == ["standby", "pinned"]
    assert list_jobs(place.site, customer=name)[0].marks == ["bad"]
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    lines = render.lines(_table(list(found.values()), "", ""), on_terminal=True)
    assert max(map(len, lines[:-1])) <= 80
    for text in (str(OLD), "2023-11-14 22:13", "standby pinned", "cancelled"):
        assert any(text in line for line in lines), (text, lines)
