"""``run --customer``: one snapshot now, by the command, whatever else waits."""

from __future__ import annotations

from tests.house import House

FIRST, SECOND, THIRD = 1700000001, 1700000002, 1700000003
SOON = ("--timeout", "60")


def test_only_the_one_that_is_named_is_loaded_even_where_older_ones_wait(house: House) -> None:
    for number in (FIRST, SECOND, THIRD):
        house.drop("acme", number, rows=100)
    house.drop("other", FIRST, rows=100)
    done = house.run("run", "--customer", "acme", "--timestamp", str(SECOND), *SOON)
    assert done.stdout == f"acme-{SECOND} is live\n"
    assert house.live("acme") == f"acme-{SECOND}"
    assert house.states() == {FIRST: "queued", SECOND: "switched", THIRD: "queued"}
    assert house.json("jobs", "list", "--customer", "other") == []
    house.run("run", *SOON)  # what is newer follows as ever; what is older was overtaken
    assert house.live("acme") == f"acme-{THIRD}"
    assert house.json("jobs", "list", "--customer", "acme", "--sort", "snapshot")[0]["database"] is None


def test_no_switch_leaves_the_alias_alone_until_a_person_says_so(house: House) -> None:
    house.drop("acme", FIRST, rows=100)
    house.drop("acme", SECOND, rows=100)
    done = house.run("run", "--customer", "acme", "--no-switch", *SOON)  # of the newest, which nobody named
    command = f"bgdeploy switch acme --to acme-{SECOND}"
    assert done.stdout == f"acme-{SECOND} is loaded and not live; to use it: {command}\n"
    house.run("run", *SOON)  # automation comes by, and holds still
    assert house.live("acme") is None
    assert [job["blocked"] for job in house.json("jobs", "list", "--state", "loaded")] == [True]
    house.run("run", "--customer", "acme", *SOON)
    assert house.live("acme") == f"acme-{SECOND}"


def test_whatever_keeps_it_from_going_live_has_an_exit_code_and_a_command(house: House) -> None:
    def refused(code: int, *words: str) -> str:
        done = house.run("run", *words, ok=False)
        assert done.returncode == code, done.stderr
        return done.stderr

    assert "say whose, with --customer" in refused(2, "--timestamp", "5")
    assert "There is no folder" in refused(4, "--customer", "nobody")
    house.drop("acme", FIRST, rows=100)
    assert f"The newest there is: {FIRST}" in refused(4, "--customer", "acme", "--timestamp", str(SECOND))
    (house.folder / "data/acme" / f"{FIRST}000").mkdir()
    said = refused(5, "--customer", "acme", "--timestamp", f"{FIRST}000")
    assert "looks like milliseconds; seconds are expected" in said
    house.run("pause", "acme")
    assert "bgdeploy resume acme" in refused(1, "--customer", "acme")
    house.run("resume", "acme")
    house.drop("acme", SECOND, rows=100, broken="duplicate-id")
    assert "bgdeploy retry 2" in refused(1, "--customer", "acme", *SOON)
    house.run("run", "--customer", "acme", "--timestamp", str(FIRST), *SOON)
    house.drop("acme", FIRST - 1, rows=100)
    older = refused(1, "--customer", "acme", "--timestamp", str(FIRST - 1))
    assert "To load it all the same: bgdeploy retry 3 --reload" in older


def test_a_snapshot_that_is_not_complete_is_waited_for_until_the_time_is_over(house: House) -> None:
    folder = house.drop("acme", FIRST, rows=100)
    (folder / "manifest.json").unlink(missing_ok=True)
    (folder / "_SUCCESS").unlink(missing_ok=True)
    slow = ("--set", "dataset.settle_seconds=600")
    done = house.run(*slow, "run", "--customer", "acme", "--timeout", "1", ok=False)
    assert done.returncode == 1
    assert f"acme/{FIRST} is discovered, and the time is over: settling" in done.stderr
    assert "Nothing is live yet." in done.stderr


def test_when_the_time_is_over_a_load_is_given_back_and_the_same_command_goes_on(house: House) -> None:
    house.drop("acme", FIRST, rows=100)
    words = ("run", "--customer", "acme")
    late = house.run(*words, "--timeout", "3", failpoint="load.group.confirmed:1:stop", ok=False)
    assert late.returncode == 1
    assert "the time is over: " in late.stderr
    assert house.states() == {FIRST: "queued"}
    house.run(*words, *SOON)
    assert house.live("acme") == f"acme-{FIRST}"
