"""What ``run`` says at its end, and what is said of a database that a person has called bad."""

from __future__ import annotations

import shutil

from tests.house import House

FIRST, SECOND = 1700000001, 1700000002


def test_a_database_that_is_marked_bad_is_offered_as_such_only(house: House) -> None:
    for timestamp in (FIRST, SECOND):
        house.drop("acme", timestamp)
        house.run("run")
    house.run("rollback", "acme", "--reason", "wrong prices")
    for words in (["run", "--customer", "acme"], ["wait", "acme", str(SECOND), "--timeout", "0"]):
        said = house.run(*words, ok=False).stderr
        assert "It is marked bad (wrong prices)" in said, words
        assert f"bgdeploy switch acme --to acme-{SECOND}" in said
    told = [event["message"] for event in house.json("jobs", "show", "2")["events"]]
    assert any("is marked bad by " in line and "wrong prices" in line for line in told)


def test_run_ends_where_only_a_writer_can_go_on_and_names_whose_newest_is_not_live(house: House) -> None:
    house.drop("good", FIRST)
    house.drop("shrunk", FIRST, rows=500)
    house.run("run")
    house.drop("shrunk", SECOND, rows=10)
    unfinished = house.drop("dead", FIRST)
    (unfinished / "nodes/Entity/_temporary").mkdir()
    broken = house.drop("broken", FIRST)
    (broken / "nodes/Entity/part-0.parquet").write_bytes(b"PAR1 and nothing")
    (broken / "_SUCCESS").touch()
    house.run("scan", "--once", ok=False)
    with house.connected() as table:
        table.execute("UPDATE jobs SET fingerprint_at = fingerprint_at - 100 WHERE customer = 'dead'")
    for _ in range(2):  # whoever reads the log of one cron job must not need the one before
        done = house.run("run", ok=False)
        told = [line for line in done.stderr.splitlines() if line.startswith("not live: ")]
        assert [line.split("/")[0] for line in told] == [
            "not live: broken",
            "not live: dead",
            "not live: shrunk",
        ]
        assert "not finished: nodes/Entity/_temporary" in told[1]
        assert "not everything" not in done.stderr
    shutil.rmtree(unfinished)


def test_what_failed_in_this_run_is_named_once(house: House) -> None:
    broken = house.drop("broken", FIRST)
    (broken / "nodes/Entity/part-0.parquet").write_bytes(b"PAR1 and nothing")
    (broken / "_SUCCESS").touch()
    told = [
        line
        for line in house.run("run", ok=False).stderr.splitlines()
        if line.startswith(("failed: ", "not live: "))
    ]
    assert told == [f"failed: job 1 broken/{FIRST}; why: bgdeploy jobs show 1"]
    told = [
        line
        for line in house.run("run", ok=False).stderr.splitlines()
        if line.startswith(("failed: ", "not live: "))
    ]
    assert told == [f"not live: broken/{FIRST} is failed; bgdeploy jobs show 1"]


def test_a_rollback_without_a_reason_is_told_how_it_is_written(house: House) -> None:
    done = house.run("rollback", "acme", ok=False)
    assert done.returncode == 2
    assert 'bgdeploy rollback acme --reason "wrong prices"' in " ".join(done.stderr.split()).replace("│ ", "")
