"""What has expired is removed; what anybody needs, or could need, is not, whatever happens in between."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgdeploy.config import Settings
from bgdeploy.jobs.states import Actor
from bgdeploy.jobs.transitions import events
from bgdeploy.pipeline import forget as expiring
from bgdeploy.pipeline import load, scan
from bgdeploy.pipeline.forget import expire
from bgdeploy.service import steer
from bgdeploy.site import open_site
from tests.pipeline.place import DAY, OLD, Place, customers, databases, jobs
from tests.snapshots.folders import PEOPLE, write

MakePlace = Callable[..., Place]
ALL = {str(OLD + number) for number in range(5)}


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def place(make_place: MakePlace) -> Place:
    """Five snapshots, three years old, went live one after the other: three are cleaned, two are kept."""
    made = make_place(dataset__expire_days=30)
    made.live_through("acme", *range(OLD, OLD + 5))
    return made


def at(monkeypatch: pytest.MonkeyPatch, moment: str, act: Callable[[], object]) -> None:
    """Act once when the moment is reached."""

    def reach(name: str) -> None:
        if name == moment:
            monkeypatch.setattr(expiring, "reach", lambda name: None)
            act()

    monkeypatch.setattr(expiring, "reach", reach)


def crash() -> None:
    raise Crash


def removed(place: Place) -> list[int]:
    """Of which jobs it was said that their folder was removed."""
    return sorted(row["job_id"] for row in place.rows(events, events.c.kind == "expire.removed"))


def test_the_folders_of_retired_snapshots_go_with_an_event_each(place: Place) -> None:
    assert expire(place.site).removed == [f"acme/{OLD + number}" for number in range(3)]
    assert place.names("acme") == {str(OLD + 3), str(OLD + 4)}
    assert removed(place) == [1, 2, 3]
    said = place.rows(events, events.c.kind == "expire.removed")[0]["message"]
    assert said == f"removed the folder of acme/{OLD}: older than 30 days, and nothing of it is kept"
    scan.scan(place.site)
    assert list(place.states("acme").values()) == ["cleaned"] * 3 + ["switched"] * 2
    assert expire(place.site) == expiring.Expired()


def test_nothing_goes_unless_it_is_asked_for(make_place: MakePlace) -> None:
    place = make_place()
    assert place.site.settings.dataset.expire_days is None
    place.live_through("acme", *range(OLD, OLD + 5))
    assert expire(place.site) == expiring.Expired()
    assert place.names("acme") == ALL


def test_what_is_not_old_enough_stays(make_place: MakePlace) -> None:
    place = make_place(dataset__expire_days=30)
    young = int(place.now) - 29 * int(DAY)
    place.live_through("acme", OLD, young, young + 1, young + 2)
    assert expire(place.site).removed == [f"acme/{OLD}"]
    assert place.names("acme") == {str(young), str(young + 1), str(young + 2)}


def test_live_standby_and_pinned_stay_and_so_does_what_waits_to_be_dropped(place: Place) -> None:
    with place.site.store.write() as connection:
        connection.execute(
            databases.update().where(databases.c.timestamp == OLD + 3).values(pinned_at=place.now)
        )
    place.live_through("acme", OLD + 5, OLD + 6)
    place.target.drain = lambda name: pytest.fail("nothing may be dropped now")  # type: ignore[method-assign,assignment]
    with place.site.transaction(Actor.OPERATOR) as tx:
        standby = next(row for row in place.rows() if row["timestamp"] == OLD + 5)
        load.intend_drop(tx, standby, "a test")
    expire(place.site)
    assert place.names("acme") == {str(OLD + number) for number in (3, 5, 6)}


@pytest.mark.parametrize("state", ["discovered", "queued", "loading", "loaded"])
def test_what_is_on_its_way_stays(place: Place, state: str) -> None:
    steer.reload(place.site, 1, by="a test")
    if state == "discovered":
        part = next(place.path("acme", OLD).rglob("*.parquet"))
        shutil.copy(part, part.with_name("b.parquet"))
        scan.scan(place.site)
    elif state == "loading":
        assert place.take() is not None
    elif state == "loaded":
        assert place.load_next()
    assert place.rows(jobs, jobs.c.build == 2)[0]["state"] == state
    expire(place.site)
    assert place.names("acme") == {str(OLD), str(OLD + 3), str(OLD + 4)}


def test_the_newest_stays_although_nothing_is_kept_of_it(make_place: MakePlace) -> None:
    place = make_place(dataset__expire_days=30)
    place.drop("acme", OLD, OLD + 1)
    place.run(bad=[OLD, OLD + 1])
    assert set(place.states("acme").values()) == {"failed"}
    (place.folder / "data/acme/9999999999").mkdir()
    assert expire(place.site).removed == [f"acme/{OLD}"], "a name in the future is nobody's newest"
    assert place.names("acme") == {str(OLD + 1), "9999999999"}


def test_a_folder_that_no_job_knows_stays_and_so_does_what_is_no_snapshot(place: Place) -> None:
    others = ["1600000000", "0160000000", "16e8", "notes", "1600000000000", ".1600000000", "_1600000000"]
    for name in others:
        (place.folder / "data/acme" / name / "nodes").mkdir(parents=True)
    (place.folder / "data/acme" / "1600000001").touch()
    expire(place.site)
    assert place.names("acme") == {*others, "1600000001", str(OLD + 3), str(OLD + 4)}


def test_links_are_never_followed(make_place: MakePlace) -> None:
    place = make_place(dataset__expire_days=30)
    outside = write(place.folder / "outside", PEOPLE)
    place.drop("acme", *range(OLD, OLD + 3))
    inside = place.path("acme", OLD)
    os.symlink(outside / "nodes", inside / "folder")
    os.symlink(next(outside.rglob("*.parquet")), inside / "file")
    os.utime(inside, (OLD, OLD))
    place.run(bad=[OLD, OLD + 1])
    for timestamp, goal in ((OLD + 1, place.path("acme", OLD + 2)), (OLD + 2, outside)):
        place.path("acme", timestamp).rename(place.folder / str(timestamp))
        place.path("acme", timestamp).symlink_to(goal)
    place.drop("acme", OLD + 3)
    found = expire(place.site)
    assert found.removed == [f"acme/{OLD}"], "links in it are removed, and nothing else"
    assert len(list(outside.rglob("*.parquet"))) == 1
    assert place.names("acme") == {str(OLD + number) for number in (1, 2, 3)}


def test_a_link_to_another_snapshot_is_not_removed_and_told(place: Place) -> None:
    shutil.rmtree(place.path("acme", OLD))
    place.path("acme", OLD).symlink_to(place.path("acme", OLD + 4))
    assert (f"acme/{OLD}", "it is a link") in expire(place.site).left
    assert place.path("acme", OLD).is_symlink()
    assert list(place.path("acme", OLD + 4).rglob("*.parquet"))


def test_a_customer_that_is_a_link_is_left_alone(place: Place) -> None:
    home = place.folder / "data/acme"
    home.rename(place.folder / "data/.moved")
    home.symlink_to(place.folder / "data/.moved")
    found = expire(place.site)
    assert found.removed == []
    assert [name for name, _ in found.left] == ["acme"]
    assert place.names("acme") == ALL


@pytest.mark.parametrize("how", ["newer", "as old", "more", "told"])
def test_a_folder_that_was_changed_stays(place: Place, how: str) -> None:
    folder = place.path("acme", OLD)
    part = next(folder.rglob("*.parquet"))
    if how == "newer":
        os.utime(part, (place.now + 1, place.now + 1))
    elif how == "as old":
        shutil.copy2(part, part.with_name("b.parquet"))
        os.utime(part.parent, (OLD, OLD))
    elif how == "more":
        (folder / "_notes").touch()
        os.utime(folder, (place.now + 1, place.now + 1))
    else:
        with place.site.store.write() as connection:
            connection.execute(jobs.update().where(jobs.c.timestamp == OLD).values(changed=True))
    found = expire(place.site)
    assert found.left == [(f"acme/{OLD}", "it is not as it was when its job ended; remove it by hand")]
    assert place.names("acme") == {str(OLD), str(OLD + 3), str(OLD + 4)}


@pytest.mark.parametrize("lost", ["base", "customer", "emptied"])
def test_a_lost_mount_removes_nothing(place: Place, lost: str) -> None:
    home, away = place.folder / "data/acme", place.folder / "away"
    if lost == "base":
        (place.folder / "data").rename(away)
    else:
        home.rename(away)
    if lost == "emptied":
        home.mkdir()
    assert expire(place.site).removed == []
    assert len(removed(place)) == 0
    assert len(list(away.rglob("*.parquet"))) == 5


def test_a_folder_that_may_not_be_removed_is_told_and_stops_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def refuse(name: Any, to: Any, **more: Any) -> None:
        if name == str(OLD + 1):
            raise PermissionError(13, "Permission denied", name)
        rename(name, to, **more)

    monkeypatch.setattr(os, "rename", refuse)
    found = expire(place.site)
    assert found.removed == [f"acme/{OLD}", f"acme/{OLD + 2}"]
    assert "Permission denied" in dict(found.left)[f"acme/{OLD + 1}"]


@pytest.mark.parametrize("moment", ["expire.decided", "expire.hidden", "expire.recorded"])
def test_a_crash_at_this_moment_is_finished_by_whoever_comes_next(
    place: Place, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    at(monkeypatch, moment, crash)
    with pytest.raises(Crash):
        expire(place.site)
    expire(place.new_process())
    assert place.names("acme") == {str(OLD + 3), str(OLD + 4)}
    assert removed(place) == [1, 2, 3]


def test_a_stop_in_the_middle_of_a_folder_is_finished_later(place: Place) -> None:
    asked = iter([True] * 4)
    expire(place.site, lambda: next(asked, False))
    assert any(name.endswith(".expired") for name in place.names("acme"))
    expire(place.site)
    assert place.names("acme") == {str(OLD + 3), str(OLD + 4)}
    assert removed(place) == [1, 2, 3]


@pytest.mark.parametrize("moment", ["expire.decided", "expire.hidden", "expire.recorded"])
def test_a_reload_that_comes_in_between_wins_or_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    answers = []

    def reload() -> None:
        try:
            steer.reload(place.site, 1, by="a test")
            answers.append("taken")
        except Exception as error:
            answers.append(str(error))

    at(monkeypatch, moment, reload)
    found = expire(place.site)
    if moment == "expire.decided":
        assert answers == ["taken"]
        assert (f"acme/{OLD}", "it is needed again") in found.left
        assert str(OLD) in place.names("acme"), "it has its name back"
        assert place.load_next(), "and can be loaded"
    else:
        assert f"The folder of acme/{OLD} is gone" in answers[0]
        assert str(OLD) not in place.names("acme")


def test_a_snapshot_that_comes_anew_under_the_name_of_a_hidden_one_is_not_touched(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again() -> None:
        place.drop("acme", OLD)
        steer.reload(place.site, 1, by="a test")

    at(monkeypatch, "expire.hidden", again)
    found = expire(place.site)
    assert (f"acme/.{OLD}.expired", f"{OLD} is there anew; remove it by hand") in found.left
    assert {str(OLD), f".{OLD}.expired"} <= place.names("acme")
    assert place.load_next()


def test_a_hidden_name_that_is_a_link_is_left_alone(place: Place) -> None:
    outside = place.folder / "outside"
    shutil.copytree(place.path("acme", OLD), outside)
    (place.folder / f"data/acme/.{OLD}.expired").symlink_to(outside)
    expire(place.site)
    assert len(list(outside.rglob("*.parquet"))) == 1


def _expire_all(settings: Settings, said: Any) -> None:
    real = open_site(settings)
    said.put(expire(real).removed)


@pytest.mark.timeout(120)
def test_processes_at_once_remove_each_folder_once(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place(dataset__expire_days=30)
    for customer in ("acme", "borealis", "ceres"):
        place.drop(customer, *range(OLD, OLD + 12))
    place.run(bad=range(OLD, OLD + 11))
    kept = {
        (row["customer"], row["timestamp"]) for row in place.rows(databases, databases.c.dropped_at.is_(None))
    }
    spawn = multiprocessing.get_context("spawn")
    said = spawn.Queue()
    settings = place.site.settings
    crowd = [spawn.Process(target=_expire_all, args=(settings, said)) for _ in range(3)]
    for process in crowd:
        process.start()
    for _ in crowd:
        said.get(timeout=100)
    for process in crowd:
        process.join()
        assert process.exitcode == 0
    for customer in ("acme", "borealis", "ceres"):
        assert place.names(customer) == {str(OLD + 11), *(str(t) for name, t in kept if name == customer)}
    told = removed(place)
    assert len(told) == len(set(told)) == 33


def test_nothing_that_a_kept_database_came_from_is_ever_without_its_folder(place: Place) -> None:
    """The promise in one look, over all customers."""
    place.live_through("borealis", *range(OLD, OLD + 4))
    expire(place.site)
    for row in place.rows(databases, databases.c.dropped_at.is_(None)):
        assert place.path(row["customer"], row["timestamp"]).is_dir()
    for row in place.rows(customers):
        assert place.path(row["name"], row["live_timestamp"]).is_dir()
