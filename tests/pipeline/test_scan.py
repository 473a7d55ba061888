"""Scans of many customers at once, of folders that never settle, and of what others do in between."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import customers as customer_rows
from bgdeploy.jobs.transitions import events
from bgdeploy.pipeline import admit, scan
from bgdeploy.pipeline.admit import BATCH
from bgdeploy.pipeline.scan import read_known
from bgdeploy.pipeline.scan import scan as scan_once
from bgdeploy.service import steer
from bgdeploy.service.views import find_job
from tests.pipeline.place import OLD, Place, jobs
from tests.snapshots.folders import PEOPLE, write

MakePlace = Callable[..., Place]


def commits(place: Place, act: Callable[[], object]) -> int:
    """How many write transactions it took."""
    count = [0]

    def add(_: object) -> None:
        count[0] += 1

    sa.event.listen(place.site.store._writer, "commit", add)
    act()
    sa.event.remove(place.site.store._writer, "commit", add)
    return count[0]


def touch(place: Place, customer: str, timestamp: int, when: float) -> None:
    part = next(place.path(customer, timestamp).rglob("*.parquet"))
    os.utime(part, (when, when))


def said(place: Place, kind: str) -> list[str]:
    return [row["message"] for row in place.rows(events, events.c.kind == kind)]


def test_a_thousand_new_customers_take_few_transactions(make_place: MakePlace) -> None:
    place = make_place()
    for number in range(250):
        place.drop(f"customer-{number:03d}", OLD)
    took = commits(place, lambda: scan_once(place.site))
    assert {row["state"] for row in place.rows()} == {"queued"}
    assert len(place.rows()) == len(place.rows(customer_rows)) == 250
    most = 2 * (250 // BATCH + 1) + 2  # and one for each second that the inspector takes
    assert took <= most, "one for each batch of discoveries, and of admissions"
    assert commits(place, lambda: scan_once(place.site)) == 0


def test_each_batch_of_newcomers_is_queued_with_its_own_figures(make_place: MakePlace) -> None:
    place = make_place()
    for number in range(BATCH + 20):
        people = {"nodes/Person/a.parquet": {"id": [f"p{one}" for one in range(number + 1)]}}
        write(place.path("acme", OLD + number), people, marker=False)
    report = scan_once(place.site)
    assert [row["rows_expected"] for row in place.rows(jobs)] == list(range(1, BATCH + 21))
    assert sorted(report.queued) == [f"acme/{OLD + number}" for number in range(BATCH + 20)]
    assert len(said(place, "scan.queued")) == len(said(place, "scan.discovered")) == BATCH + 20


def test_a_folder_that_never_settles_does_not_fill_the_job_table(make_place: MakePlace) -> None:
    place = make_place(dataset__settle_seconds=30)
    place.drop("acme", OLD)
    scan_once(place.site)
    for second in range(1, 500):
        touch(place, "acme", OLD, OLD + second)
        place.now += 1
        scan.look(place.site, scan.Watch())
    assert place.states("acme") == {OLD: "discovered"}
    assert len(place.rows(events)) < 20


def test_what_keeps_a_snapshot_waiting_is_in_its_row_although_it_is_told_seldom(
    make_place: MakePlace,
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    part = next(place.path("acme", OLD).rglob("*.parquet"))
    for size in range(1, 40):
        part.write_bytes(b"x" * size)
        (place.path("acme", OLD) / f"half-{size}.parquet").write_bytes(b"")
        (place.path("acme", OLD) / f"half-{size - 1}.parquet").unlink(missing_ok=True)
        (place.path("acme", OLD) / "manifest.json").write_text(
            f'{{"files": [{{"path": "{size}", "size": 1}}]}}'
        )
        place.now += 1
        scan_once(place.site)
        assert f"lists {size}," in place.rows()[0]["reason"]
    assert len(said(place, "scan.waits")) < 8


def test_discovered_says_at_once_what_is_missing(make_place: MakePlace) -> None:
    place = make_place(dataset__settle_seconds=30)
    place.drop("acme", OLD)
    (place.path("borealis", OLD) / "nodes").mkdir(parents=True)
    write(place.path("ceres", OLD), PEOPLE)
    report = scan_once(place.site)
    assert report.look_again, "a marker counts at the second look"
    assert said(place, "scan.discovered") == [
        f"discovered acme/{OLD}: settling: it just changed, ready when unchanged for 30 s",
        f"discovered borealis/{OLD}: no data files yet",
        f"discovered ceres/{OLD}: _SUCCESS is there; looking once more",
    ]
    assert said(place, "scan.waits") == []


def test_a_customer_whose_alias_is_taken_stops_none_of_its_batch(make_place: MakePlace) -> None:
    place = make_place()
    place.drop("acme", OLD)
    scan_once(place.site)
    with place.site.store.write() as connection:
        connection.execute(customer_rows.update().values(alias="borealis"))
    for customer in ("aurora", "borealis", "ceres"):
        place.drop(customer, OLD)
    report = scan_once(place.site)
    assert report.discovered == [f"aurora/{OLD}", f"ceres/{OLD}"]
    assert [name for name, reason in report.skipped if "in use by customer 'acme'" in reason] == ["borealis"]


def test_what_another_process_did_in_between_is_left_to_it(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan has judged five jobs, and writes; another process was faster with three of them."""
    place = make_place(dataset__settle_seconds=30)
    place.drop("acme", *range(OLD, OLD + 5))
    scan_once(place.site)
    place.now += 31
    real = admit.Notes.write

    def write_late(page: admit.Notes) -> None:
        monkeypatch.setattr(admit.Notes, "write", real)
        with place.site.store.write() as connection:
            for timestamp, values in (
                (OLD, {"state": "queued"}),
                (OLD + 1, {"state": "failed"}),
                (OLD + 2, {"fence": 5}),
            ):
                connection.execute(jobs.update().where(jobs.c.timestamp == timestamp).values(**values))
        real(page)

    monkeypatch.setattr(admit.Notes, "write", write_late)
    report = scan_once(place.site)
    assert sorted(report.queued) == [f"acme/{OLD + 3}", f"acme/{OLD + 4}"]
    assert list(place.states("acme").values()) == ["queued", "failed", "discovered", "queued", "queued"]
    assert len(said(place, "scan.queued")) == 2


def test_a_snapshot_that_was_found_by_another_process_meanwhile_is_found_once(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place()
    place.drop("acme", OLD, OLD + 1)
    rival = place.new_process()
    real = scan._discover

    def late(*given: Any) -> Any:
        monkeypatch.setattr(scan, "_discover", real)
        scan_once(rival)
        return real(*given)

    monkeypatch.setattr(scan, "_discover", late)
    assert scan_once(place.site).discovered == []
    assert list(place.states("acme").values()) == ["queued", "queued"]
    assert len(said(place, "scan.discovered")) == 2


def test_a_folder_that_became_a_link_out_of_the_base_is_gone(make_place: MakePlace) -> None:
    place = make_place()
    place.drop("acme", OLD, OLD + 1)
    scan_once(place.site)
    shutil.move(place.path("acme", OLD), place.folder / "outside")
    place.path("acme", OLD).symlink_to(place.folder / "outside")
    scan_once(place.site)
    assert place.states("acme") == {OLD: "discovered", OLD + 1: "queued"}
    assert place.rows()[0]["reason"] == "folder gone"
    assert admit.look_at(place.site, place.rows()[0]) is None


def test_a_link_inside_the_base_is_read_as_before(make_place: MakePlace) -> None:
    place = make_place()
    place.drop("acme", OLD)
    place.path("acme", OLD + 1).symlink_to(place.path("acme", OLD))
    scan_once(place.site)
    assert place.states("acme") == {OLD: "queued", OLD + 1: "queued"}


def test_a_queued_one_that_changed_goes_back_and_its_build_is_dropped(make_place: MakePlace) -> None:
    place = make_place(dataset__settle_seconds=1)
    place.drop("acme", OLD)
    scan_once(place.site)
    place.now += 2
    scan_once(place.site)
    touch(place, "acme", OLD, OLD + 7)
    scan_once(place.site)
    assert place.rows()[0]["reason"] == "changed, settling"
    place.now += 2
    scan_once(place.site)
    assert place.states("acme") == {OLD: "queued"}


def test_what_is_known_is_asked_for_some_customers_or_for_all(make_place: MakePlace) -> None:
    place = make_place()
    place.live_through("acme", *range(OLD, OLD + 4))
    steer.reload(place.site, 1, by="a test")
    place.drop("borealis", OLD)
    scan_once(place.site)
    everything = read_known(place.site)
    some = read_known(place.site, ["acme"])
    assert everything.timestamps == {
        "acme": {str(OLD + number) for number in range(4)},
        "borealis": {str(OLD)},
    }
    assert some.timestamps == {"acme": everything.timestamps["acme"]}
    assert [(row["timestamp"], row["build"]) for row in some.open["acme"]] == [
        (OLD, 2),
        (OLD + 2, 1),
        (OLD + 3, 1),
    ]
    assert set(some.customers) == {"acme"}
    assert read_known(place.site, ["nobody"]).customers == {}


def test_between_scans_every_snapshot_that_waits_has_its_turn(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(dataset__settle_seconds=30)
    monkeypatch.setattr(scan, "_DISCOVERED", scan._DISCOVERED.limit(3))
    monkeypatch.setattr(scan, "_MOST_WATCHED", 3)
    for customer in ("acme", "borealis", "ceres"):
        place.drop(customer, OLD, OLD + 1, OLD + 2)
    watched = scan.Watch()
    scan.look(place.site, watched)
    assert len(place.rows()) == 9, "a folder that changed is scanned whole"
    place.now += 31
    for name in watched.customers:
        os.utime(place.folder / "data" / name, (OLD, OLD))
        watched.customers[name] = OLD * 10**9
    queued = []
    for _ in range(4):
        scan.look(place.site, watched)
        queued.append(len(place.rows(jobs, jobs.c.state == State.QUEUED)))
    assert queued == [3, 6, 6, 9], "the third round found the end of the list"


def test_a_manifest_that_contradicts_a_marker_fails_and_is_looked_at_again_when_it_is_mended(
    make_place: MakePlace,
) -> None:
    place = make_place(**{"dataset.settle_seconds": 10})
    folder = write(place.path("acme", OLD), PEOPLE)
    file = folder / "nodes/Person/a.parquet"
    for size, verdict in ((1, "failed"), (2, "failed"), (file.stat().st_size, "queued")):
        wrong = {"files": [{"path": "nodes/Person/a.parquet", "size": size}]}
        (folder / "manifest.json").write_text(json.dumps(wrong))
        os.utime(folder / "manifest.json", (place.now, place.now))
        seen = []
        for _ in range(4):
            scan_once(place.site)
            seen.append(place.states("acme")[OLD])
            place.now += 9
        assert seen[-1] == verdict
        assert seen[1] != "failed"  # unchanged for 9 seconds so far
    failed = said(place, "load.failed")
    assert len(failed) == 2, "what did not change is not looked at again and again"
    assert "says 1 bytes for nodes/Person/a.parquet" in failed[0]


def test_what_was_taken_by_its_position_is_logged_shown_and_told_to_scripts(make_place: MakePlace) -> None:
    place = make_place()
    write(place.path("acme", OLD), {"nodes/Person/a.parquet": {"KEY": ["p1"], "LABELS": ["Person"]}})
    write(place.path("named", OLD), PEOPLE)
    for _ in range(2):
        scan_once(place.site)
        place.now += 1
    assert said(place, "scan.by_position") == [
        f"acme/{OLD}: columns taken by their position, since no name matches: nodes/Person: id is 'KEY', labels is 'LABELS'"
    ]
    (number,) = [row["id"] for row in place.rows(jobs, jobs.c.customer == "acme")]
    found = [{"table": "nodes/Person", "columns": {"id": ["KEY"], "labels": ["LABELS"]}}]
    assert find_job(place.site, number).by_position == found
    (other,) = [row["id"] for row in place.rows(jobs, jobs.c.customer == "named")]
    assert find_job(place.site, other).by_position == []
