"""An old copy of the job table is put back: readers stay where they are, or go on to what is newer."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from bgdeploy.errors import Refused
from bgdeploy.pipeline import alias as repair
from bgdeploy.pipeline import clean, scan, switch
from bgdeploy.pipeline.alias import Move, carry_out, intend
from bgdeploy.worker import run
from tests.pipeline.place import OLD, Place, customers, jobs

MakePlace = Callable[..., Place]
NOW = OLD + 6  # what is live when the copy is put back


def copy(place: Place) -> Callable[[], None]:
    """Copy the job table; return what puts the copy back under another process."""
    table = place.site.store.path
    assert place.site.store.truncate_log() == 0
    shutil.copy(table, table.with_name("copy"))

    def put_back() -> None:
        place.site.store.close()
        for name in (f"{table.name}-wal", f"{table.name}-shm"):
            table.with_name(name).unlink(missing_ok=True)
        shutil.copy(table.with_name("copy"), table)
        place.site = place.new_process()

    return put_back


def live_on(place: Place, put_back: Callable[[], None], *through: int) -> None:
    """Let others go live, of which only the last two are kept, then put the copy back."""
    place.live_through("acme", *(through or range(OLD + 3, NOW + 1)))
    assert place.target.pointing == {"acme": f"acme-{NOW}"}
    put_back()


def rounds(place: Place) -> list[str]:
    """What a service does, again and again; return every database that readers were given."""
    seen = []
    for _ in range(12):
        scan.scan(place.site)
        for act in (switch.switch_ready, repair.watch_aliases, clean.clean):
            act(place.site)
            seen.append(place.target.pointing["acme"])
        place.load_next()
        place.now += 60
    return list(dict.fromkeys(seen))


@pytest.mark.parametrize("waits", ["nothing", "one is queued", "one is loaded"])
def test_readers_are_never_taken_back(make_place: MakePlace, waits: str) -> None:
    place = make_place()
    place.live_through("acme", OLD, OLD + 1, OLD + 2)
    if waits != "nothing":
        place.drop("acme", OLD + 3)
        scan.scan(place.site)
    if waits == "one is loaded":
        assert place.load_next()
    live_on(place, copy(place))
    assert f"acme-{OLD + 2}" not in place.target.whole, "what the copy calls live is gone"
    assert rounds(place) == [f"acme-{NOW}", f"acme-{NOW}-f1"]
    begun = [row["timestamp"] for row in place.rows(jobs, jobs.c.loading_at.is_not(None))]
    assert set(begun) & set(range(OLD + 4, NOW)) == set(), "what could never go live is not loaded"


def test_what_the_copy_calls_live_is_not_put_back_though_it_is_there(make_place: MakePlace) -> None:
    place = make_place()
    place.live_through("acme", OLD, NOW - 1)
    live_on(place, copy(place), NOW)
    shutil.rmtree(place.path("acme", NOW))  # so nothing newer will come
    [(alias, trouble)] = repair.watch_aliases(place.site)
    assert alias == "acme"
    assert f"bgdeploy switch acme --to acme-{NOW - 1}" in trouble
    assert rounds(place) == [f"acme-{NOW}"]
    with pytest.raises(Refused, match=f"points at acme-{NOW}"):
        switch.roll_back(place.site, "acme", to=None, why="wrong", by="a test", pause=False)
    assert place.target.pointing == {"acme": f"acme-{NOW}"}
    switch.switch_by_hand(place.site, "acme", to=f"acme-{NOW - 1}", why="on purpose", by="a test")
    assert place.target.pointing == {"acme": f"acme-{NOW - 1}"}, "a person may do it"


@pytest.mark.parametrize("kind", ["deploy", "repair", "rollback", "switch"])
def test_a_move_that_was_in_the_copy_is_made_void(make_place: MakePlace, kind: str) -> None:
    place = make_place()
    place.live_through("acme", OLD, OLD + 1)
    place.drop("acme", OLD + 2)
    scan.scan(place.site)
    assert place.load_next()
    goal = f"acme-{OLD + {'deploy': 2, 'rollback': 0}.get(kind, 1)}"
    generation = intend(place.site, Move("acme", goal, kind, "a test", "a test"))
    put_back = copy(place)
    carry_out(place.site, "acme", Move("acme", goal, kind, "a test", "a test"), generation)
    place.live_through("acme", NOW)
    put_back()
    for _ in range(3):
        place.now += 60
        repair.repeat_cut_off_moves(place.site)
    assert place.target.pointing == {"acme": f"acme-{NOW}"}
    assert place.rows(customers)[0]["intent"] is None


def test_a_worker_that_is_quicker_than_the_first_scan_begins_nothing(make_place: MakePlace) -> None:
    place = make_place()
    place.live_through("acme", OLD, OLD + 1, OLD + 2)
    place.drop("acme", OLD + 3)
    scan.scan(place.site)
    live_on(place, copy(place), OLD + 3, NOW)
    [queued] = place.rows(jobs, jobs.c.state == "queued")
    run._may_start(place.site, queued)
    assert place.take() is None


def test_builds_of_one_snapshot_are_compared_too(make_place: MakePlace) -> None:
    place = make_place()
    place.live_through("acme", OLD, NOW)
    put_back = copy(place)
    for name in (f"acme-{NOW}-r2", f"acme-{NOW}-r3"):  # reloads that the copy knows nothing of
        place.target.whole.add(name)
        place.target.switch("acme", name, int(place.target.generations["acme"]) + 1)
    put_back()
    scan.scan(place.site)
    [customer] = place.rows(customers)
    assert (customer["floor_timestamp"], customer["floor_build"]) == (NOW, 2)
    repair.watch_aliases(place.site)
    assert place.target.pointing == {"acme": f"acme-{NOW}-r3"}


def test_an_alias_that_leads_nowhere_is_put_back_whatever_its_name(make_place: MakePlace) -> None:
    place = make_place()
    place.live_through("acme", OLD, OLD + 1)
    place.target.pointing["acme"] = f"acme-{NOW}"  # by hand, and no such database
    assert repair.watch_aliases(place.site) == []
    assert place.target.pointing == {"acme": f"acme-{OLD + 1}"}
    place.drop("acme", OLD + 2)
    place.run()
    assert place.target.pointing == {"acme": f"acme-{OLD + 2}"}, "and it holds up nothing"
