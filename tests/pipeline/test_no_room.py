"""A snapshot that never finds room, in front of newer ones that would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from bgdeploy.pipeline import admit, claim, clean, scan, switch
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Need
from bgdeploy.worker import run
from tests.pipeline.place import OLD, Place


def work(place: Place) -> None:
    """As workers do, over and over: look whether the next one may start, and load it."""
    for _ in range(6):
        found = run.peek(place.site.store, run.claim_rules(place.site), now=place.now)
        if found is not None and run._may_start(place.site, found) is not None:
            place.load_next()
        switch.switch_ready(place.site)
        clean.clean(place.site)
        place.now += 1


def test_newer_ones_go_live_without_it_and_it_is_overtaken(
    make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(snapshot: Snapshot, running: Sequence[str]) -> tuple[Need, ...]:
        huge = snapshot.timestamp == OLD + 1
        return (Need("disk", 100 if huge else 1, 10, f"disk: {100 if huge else 1} of 10 MiB free"),)

    place = make_place()
    monkeypatch.setattr(place.target, "plan", plan)
    place.live_through("acme", OLD)
    place.drop("acme", OLD + 1, OLD + 2)
    scan.scan(place.site)
    work(place)
    assert place.target.pointing == {"acme": f"acme-{OLD + 2}"}
    place.now += 60
    scan.scan(place.site)
    assert place.states("acme") == {OLD: "switched", OLD + 1: "cleaned", OLD + 2: "switched"}


def test_memory_for_the_proof_is_reckoned_before_the_load(
    make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    scan.scan(place.site)
    job = place.rows()[0]
    snapshot = admit.open_folder(place.site, job, job["fingerprint"])
    table = snapshot.nodes[0]
    file = replace(table.files[0], largest_group=1 << 60)
    huge = replace(snapshot, tables=(replace(table, files=(file,)),))
    (need,) = [need for need in claim.find_needs(place.site, job, huge) if not need.met]
    assert file.path in need.sum, need
    assert all(need.met for need in claim.find_needs(place.site, job, snapshot))


def test_while_the_target_is_away_the_order_is_kept(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.live_through("acme", OLD)
    place.drop("acme", OLD + 1, OLD + 2)
    scan.scan(place.site)
    place.target.well = False
    work(place)
    place.target.well = True
    place.now += 60
    job = place.take()
    assert job is not None and job["timestamp"] == OLD + 1
