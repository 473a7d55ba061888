"""Where a job's time went, drawn from its history."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from bgdeploy.cli.job_page import draw
from bgdeploy.config import load_settings
from bgdeploy.jobs.transitions import events
from bgdeploy.service.customers import list_customers
from bgdeploy.service.doctor import Visit
from bgdeploy.service.doctor.table import find_last_scan
from bgdeploy.service.timeline import Span, spans
from bgdeploy.service.views import find_job
from bgdeploy.site import open_site
from tests.house import House


def move(at: float, target: str) -> dict[str, Any]:
    return {"at": at, "kind": "x", "target": target, "message": "", "fields": {}}


def step(at: float, name: str) -> dict[str, Any]:
    return {"at": at, "kind": "load.step", "target": None, "message": "", "fields": {"step": name}}


def old_step(at: float, name: str) -> dict[str, Any]:
    """As the version before wrote it."""
    return {**step(at, name), "message": f"acme/1 build 2: {name}", "fields": None}


LIFE = [
    move(0, "discovered"), move(30, "queued"), move(40, "loading"), move(50, "queued"), move(52, "loading"),
    step(60, "closed"), step(64, "verified"), step(65, "published"), move(66, "loaded"), move(70, "switched"), move(900, "cleaned"),
]  # fmt: skip


def test_a_life_is_waiting_and_work_until_it_is_live() -> None:
    assert spans(LIFE) == [
        Span("discovered", 0, 30, work=False),
        Span("queued", 30, 40, work=False),
        Span("loading", 40, 50, work=True),
        Span("queued", 50, 52, work=False),
        Span("loading", 52, 60, work=True),
        Span("verifying", 60, 64, work=True),
        Span("publishing", 64, 66, work=True),
        Span("loaded", 66, 70, work=False),
    ]


def test_what_an_earlier_version_wrote_is_told_apart_as_well() -> None:
    older = [
        old_step(one["at"], one["fields"]["step"]) if one["kind"] == "load.step" else one for one in LIFE
    ]
    assert spans(older) == spans(LIFE)


def test_a_step_is_known_whatever_its_sentence_says() -> None:
    told = [{**one, "message": "Schritt getan: closed"} for one in LIFE]
    assert spans(told) == spans(LIFE)


def test_what_lasts_has_no_end() -> None:
    assert spans(LIFE[:3])[-1] == Span("loading", 40, None, work=True)


def test_bars_follow_each_other_on_one_scale() -> None:
    assert draw([(30, False), (10, False), (40, True)], width=8) == ["░░░", "   ░", "    ████"]


def test_short_stretches_are_still_seen_and_nothing_is_drawn_of_nothing() -> None:
    assert draw([(0.001, True), (1000, False)], width=10) == ["█", "░░░░░░░░░░"]
    assert draw([(1000, False), (0.001, True)], width=10) == ["░░░░░░░░░░", "         █"]
    assert draw([]) == []
    assert draw([(0, False)]) == ["░"]


def test_a_job_without_history_has_no_timeline() -> None:
    assert spans([]) == []
    assert spans([{"at": 1, "kind": "scan.waits", "target": None, "message": "", "fields": {}}]) == []


def test_a_clock_that_was_set_back_makes_no_time_negative(house: House) -> None:
    house.drop("acme", 1700000001, rows=50)
    house.run("run", "--timeout", "60")
    site = open_site(load_settings(house.folder / "config.yaml"), clock=lambda: 1600000000.0)
    assert list_customers(site)[0].snapshot_age_seconds == 0
    with closing(sqlite3.connect(site.store.path)) as connection, connection:
        connection.execute(f"DROP TRIGGER {events.name}_stay")
        connection.execute(f"UPDATE {events.name} SET at = at - 86400 WHERE target = 'loaded'")
        connection.execute(f"UPDATE {events.name} SET at = at + 86400 WHERE target = 'queued'")
    lengths = [span.seconds for span in find_job(site, 1).timeline]
    assert min(lengths) == 0.0
    assert "a scan last found something new 0 s ago" in [
        found.what.split(" (")[0] for found in find_last_scan(Visit(site))
    ]
