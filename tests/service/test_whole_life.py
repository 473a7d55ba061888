"""The main job by its commands: from a dropped folder to what readers see, and back."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

import bgdeploy
from tests.house import House, make_house, stop

FIRST, SECOND, THIRD = 1700000001, 1700000002, 1700000003


def test_two_snapshots_go_live_and_the_older_stands_by(house: House) -> None:
    house.drop("acme", FIRST)
    house.drop("acme", SECOND, rows=600)
    house.run("run", "--timeout", "60")
    one = house.json("customers")[0]
    assert (one["live"], one["standby"], one["candidate"]) == (f"acme-{SECOND}", f"acme-{FIRST}", None)
    assert one["counts"]["labels"] == {"Entity": 240, "Address": 120}
    assert one["counts"]["types"] == {"HAS_ADDRESS": 240}
    assert house.leftovers() == []


def test_every_row_and_every_column_arrives(house: House) -> None:
    import pyarrow.parquet as pq

    folder = house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    expected = pq.read_table(folder / "nodes/Entity").sort_by("nodeId").to_pylist()
    with bgdeploy.connect("acme", config=house.folder / "config.yaml") as reader:
        rows = reader.query("MATCH (n:Entity) RETURN n.* ORDER BY n.nodeId")
    assert len(rows) == len(expected)
    for row, want in zip(rows, expected, strict=True):
        assert row["n.labels"] == [want.pop("labels")]
        for name, value in want.items():
            found = row[f"n.{name}"]
            same = found.timestamp() == value.timestamp() if name == "updatedAt" else found == value
            assert same, (name, found, value)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            "duplicate-id",
            "1 row of nodes/Entity repeats an id ('E0' in nodes/Entity/part-0.parquet rows 1 and 200)",
        ),
        ("dangling", "1 row of relationships/HAS_ADDRESS has a target id that no node has"),
        ("truncated-file", "does not open as a Parquet file"),
        ("mixed-schema", "part-odd.parquet"),
    ],
)
def test_a_broken_snapshot_fails_by_name_and_leaves_what_is_live(
    house: House, broken: str, said: str
) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    house.drop("acme", SECOND, broken=broken)
    assert house.run("run", "--timeout", "60", ok=False).returncode == 1
    job = house.json("jobs", "list")[0]
    assert job["state"] == "failed"
    assert said in job["error"]
    assert job["attempt"] <= 1
    assert house.live("acme") == f"acme-{FIRST}"
    assert house.leftovers() == []


def test_a_relationship_without_an_end_is_bad_input_at_once_and_never_a_crash(house: House) -> None:
    house.drop("acme", FIRST, rows=20_000, broken="dangling")
    assert house.run("run", "--timeout", "60", ok=False).returncode == 1
    job = house.json("jobs", "list")[0]
    assert job["error_code"] == "bad-input"
    assert "signal" not in job["error"]
    events = house.json("jobs", "show", str(job["id"]))["events"]
    assert "load.retry" not in [event["kind"] for event in events]


def test_rollback_and_switch_and_reload(house: House) -> None:
    house.drop("acme", FIRST)
    house.drop("acme", SECOND)
    house.run("run", "--timeout", "60")
    house.run("rollback", "acme", "--reason", "wrong prices")
    assert house.live("acme") == f"acme-{FIRST}"
    assert house.json("customers")[0]["rolled_back"] == [f"acme-{SECOND}"]
    house.run("run", "--timeout", "60")
    assert house.live("acme") == f"acme-{FIRST}", "nothing at or below the bad one comes back by itself"
    house.run("switch", "acme", "--to", f"acme-{SECOND}")
    assert house.live("acme") == f"acme-{SECOND}"
    house.run("rollback", "acme", "--reason", "again", "--pause")
    house.drop("acme", THIRD)
    house.run("scan", "--once")
    assert house.live("acme") == f"acme-{FIRST}"
    house.run("resume", "acme")
    house.run("run", "--timeout", "60")
    assert house.live("acme") == f"acme-{THIRD}"
    reload = next(job for job in house.json("jobs", "list") if job["timestamp"] == THIRD)
    house.run("retry", str(reload["id"]), "--reload")
    house.run("run", "--timeout", "60")
    assert house.live("acme") == f"acme-{THIRD}-r2"
    kinds = [row["kind"] for row in house.json("switches", "acme")]
    assert {"deploy", "rollback", "switch"} <= set(kinds)


def test_without_auto_switch_a_person_decides(tmp_path: Path) -> None:
    house = make_house(tmp_path, auto_switch=False)
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60", ok=False)
    assert house.states() == {FIRST: "loaded"}
    assert house.live("acme") is None
    house.run("switch", "acme")
    assert house.live("acme") == f"acme-{FIRST}"


def test_run_does_not_wait_for_what_a_person_holds_back(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    house.run("pause", "acme")
    house.drop("acme", SECOND)
    house.run("run", "--timeout", "60")
    assert house.states()[SECOND] == "queued"


def test_a_shrunken_snapshot_waits_for_a_person(house: House) -> None:
    house.drop("acme", FIRST, rows=1000)
    house.run("run", "--timeout", "60")
    house.drop("acme", SECOND, rows=100)
    house.run("run", "--timeout", "60", ok=False)
    job = house.json("jobs", "list")[0]
    assert job["state"] == "loaded"
    assert "switch acme --to" in job["reason"]
    assert house.live("acme") == f"acme-{FIRST}"
    house.run("switch", "acme", "--to", job["database"])
    assert house.live("acme") == f"acme-{SECOND}"


def test_names_that_share_a_beginning_never_meet(house: House) -> None:
    house.drop("acme", FIRST)
    house.drop("acme-eu", FIRST)
    house.drop("acme", SECOND)
    house.drop("acme", THIRD)
    house.run("run", "--timeout", "90")
    assert house.live("acme") == f"acme-{THIRD}"
    assert house.live("acme-eu") == f"acme-eu-{FIRST}"


def test_a_first_start_over_many_old_snapshots_loads_two(house: House) -> None:
    for number in range(50):
        house.drop("acme", FIRST + number, rows=20)
    house.run("run", "--timeout", "90")
    states = house.states()
    assert len(states) == 50
    assert [t for t, state in states.items() if state == "switched"] == [FIRST + 49, FIRST + 48]
    assert sum(state == "cleaned" for state in states.values()) == 48
    assert len(list((house.folder / "state/databases").iterdir())) == 2


def test_a_lost_mount_changes_no_job(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    (house.folder / "data").rename(house.folder / "gone")
    house.run("scan", "--once", ok=False)
    told = house.run("run", "--timeout", "60", ok=False)
    assert told.returncode == 1
    assert "not scanned" in told.stderr
    assert house.states() == {FIRST: "switched"}
    assert house.live("acme") == f"acme-{FIRST}"


def test_a_half_copied_snapshot_waits_until_it_is_whole(house: House, tmp_path: Path) -> None:
    whole = house.drop("acme", FIRST, marker=False)
    part = whole / "relationships/HAS_ADDRESS/part-0.parquet"
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    house.run("scan", "--once")
    assert house.states() == {FIRST: "discovered"}
    part.write_bytes(content)
    house.run("run", "--timeout", "60")
    assert house.live("acme") == f"acme-{FIRST}"


def test_serve_takes_ten_drops_in_order_and_stops_cleanly(house: House) -> None:
    service = house.start("serve", "--workers", "2")
    house.drop("acme", FIRST)
    house.await_("the first is live", lambda: house.live("acme") == f"acme-{FIRST}")
    source = house.folder / "data/acme" / str(FIRST)
    for number in range(1, 11):
        shutil.copytree(source, house.folder / "data/acme" / str(FIRST + number))
    house.await_("the last is live", lambda: house.live("acme") == f"acme-{FIRST + 10}")
    assert stop(service) == 0
    targets = [row["target"] for row in house.json("switches", "acme")]
    assert sorted(targets) in (targets, targets[::-1]), "never backwards"
    assert house.leftovers() == []


def test_a_second_ctrl_c_ends_at_once_and_the_load_goes_on_later(house: House) -> None:
    service = house.start("serve", failpoint="load.group.confirmed:1:stop")
    house.drop("acme", FIRST)
    house.await_("a load is running", lambda: house.states().get(FIRST) == "loading")
    service.send_signal(signal.SIGINT)
    house.await_("the first was heard", lambda: "stopping" in (house.folder / "log").read_text())
    service.send_signal(signal.SIGINT)
    service.wait(30)
    house.run("run", "--timeout", "60")
    assert house.live("acme") == f"acme-{FIRST}"
