"""Somebody else's hand in the state folder: aliases moved, links removed, folders nobody knows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.house import House, make_house, make_removable, stop

FIRST, SECOND = 1700000001, 1700000002


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    house = make_house(tmp_path_factory.mktemp("template"))
    for timestamp in (FIRST, SECOND):
        house.drop("acme", timestamp)
    house.run("run", "--timeout", "60")
    yield house.folder
    make_removable(house.folder)


@pytest.fixture
def lived_in(copied: House) -> House:
    return copied


def alias(house: House) -> Path:
    return house.folder / "state/aliases/acme"


def test_an_alias_moved_to_a_good_database_by_hand_is_recorded(lived_in: House) -> None:
    alias(lived_in).unlink()
    os.symlink(f"../databases/acme-{FIRST}", alias(lived_in))
    lived_in.run("rollback", "acme", "--to", f"acme-{SECOND}", "--reason", "again")
    kinds = [row["kind"] for row in lived_in.json("switches", "acme")]
    assert kinds[:2] == ["rollback", "found"]


@pytest.mark.parametrize("damage", ["removed", "nowhere", "elsewhere", "a folder"])
def test_an_alias_that_leads_nowhere_good_is_put_back_by_the_next_move(lived_in: House, damage: str) -> None:
    alias(lived_in).unlink()
    if damage == "nowhere":
        os.symlink("../databases/acme-999", alias(lived_in))
    elif damage == "elsewhere":
        os.symlink("/tmp", alias(lived_in))
    elif damage == "a folder":
        alias(lived_in).mkdir()
    done = lived_in.run("rollback", "acme", "--reason", "wrong", ok=False)
    if damage == "a folder":
        assert done.returncode == 6
        assert "aliases/acme" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert lived_in.live("acme") == f"acme-{FIRST}"
    assert os.readlink(alias(lived_in)) == f"../databases/acme-{FIRST}"


@pytest.mark.parametrize("damage", ["removed", "nowhere"])
def test_a_service_puts_back_an_alias_that_leads_nowhere(lived_in: House, damage: str) -> None:
    alias(lived_in).unlink()
    if damage == "nowhere":
        os.symlink("../databases/acme-999", alias(lived_in))
    assert "the alias points at" in lived_in.run("customers").stdout
    service = lived_in.start("serve")
    lived_in.await_("it is put back", lambda: lived_in.json("customers")[0]["trouble"] is None)
    assert stop(service) == 0
    assert os.readlink(alias(lived_in)) == f"../databases/acme-{SECOND}"
    assert [row["kind"] for row in lived_in.json("switches", "acme")].count("repair") == 1


def test_a_database_that_cannot_go_live_again_holds_up_nobody(lived_in: House) -> None:
    graph = lived_in.folder / "state/databases" / f"acme-{FIRST}" / "graph.lbug"
    graph.chmod(0o644)
    graph.write_bytes(b"damaged")
    done = lived_in.run("rollback", "acme", "--reason", "wrong", ok=False)
    assert done.returncode == 5
    assert "is damaged" in done.stderr
    assert f"acme stays at acme-{SECOND}." in done.stderr
    lived_in.drop("borealis", FIRST)
    lived_in.drop("acme", SECOND + 1)
    lived_in.run("run", "--timeout", "60")
    assert lived_in.live("borealis") == f"borealis-{FIRST}"
    assert lived_in.live("acme") == f"acme-{SECOND + 1}"


def test_what_bgdeploy_did_not_make_is_reported_and_never_touched(lived_in: House) -> None:
    databases, builds = lived_in.folder / "state/databases", lived_in.folder / "state/builds"
    shutil.copytree(databases / f"acme-{FIRST}", databases / "acme-1600000000")
    (builds / "acme-1600000001").mkdir()
    for number in range(3):
        lived_in.drop("acme", SECOND + 1 + number)
    lived_in.run("run", "--timeout", "60")
    names = sorted(path.name for path in databases.iterdir())
    assert names == ["acme-1600000000", f"acme-{SECOND + 2}", f"acme-{SECOND + 3}"]
    assert (builds / "acme-1600000001").is_dir()


def test_a_live_database_that_was_removed_by_hand_is_said_and_can_be_left(lived_in: House) -> None:
    place = lived_in.folder / "state/databases" / f"acme-{SECOND}"
    place.chmod(0o755)
    shutil.rmtree(place)
    assert lived_in.json("customers")[0]["trouble"] == f"acme-{SECOND} is gone"
    asked = lived_in.run("query", "acme", "MATCH (n) RETURN count(*)", ok=False)
    assert asked.returncode == 6
    assert f"acme-{SECOND}" in asked.stderr
    assert "rollback" in asked.stderr
    lived_in.run("rollback", "acme", "--reason", "it is gone")
    assert lived_in.json("query", "acme", "MATCH (n) RETURN count(*) AS n") == [{"n": 300}]


def test_without_its_job_table_what_is_live_stays_live_and_the_newest_are_loaded_anew(
    lived_in: House,
) -> None:
    for path in (lived_in.folder / "state").glob("jobs.db*"):
        path.unlink()
    (lived_in.folder / "state/databases/acme-1600000000").mkdir()
    lived_in.run("scan", "--once")
    assert os.readlink(alias(lived_in)) == f"../databases/acme-{SECOND}", "readers go on"
    lived_in.run("run", "--timeout", "60")
    assert str(lived_in.live("acme")).startswith(f"acme-{SECOND}-f"), "no name is used twice"
    names = sorted(path.name for path in (lived_in.folder / "state/databases").iterdir())
    assert {f"acme-{FIRST}", f"acme-{SECOND}", "acme-1600000000"} <= set(names), (
        "nothing it does not own is dropped"
    )
    assert len(names) == 4, "what is older than live is not loaded anew"
    assert [row["target"] for row in lived_in.json("switches", "acme")] == [lived_in.live("acme")]
    assert lived_in.json("query", "acme", "MATCH (n) RETURN count(*) AS n") == [{"n": 300}]


@pytest.mark.parametrize("command", [("serve",), ("run", "--timeout", "60")])
def test_who_works_ends_when_the_job_table_goes_away(house: House, command: tuple[str, ...]) -> None:
    house.drop("acme", FIRST)
    process = house.start(*command, failpoint="load.group.before:1:stop")
    children = psutil.Process(process.pid).children
    house.await_("it loads", lambda: any(one.status() == "stopped" for one in children()))
    loading = children()
    (house.folder / "state").rename(house.folder / "gone")
    assert process.wait(60) == 6
    log = (house.folder / "log").read_text()
    assert "was deleted, replaced or moved" in log
    assert "Traceback" not in log
    assert not [one for one in loading if one.is_running()], "no load goes on"
    assert not (house.folder / "state/jobs.db").exists(), "there are never two"


def test_a_frozen_service_with_a_deleted_job_table_is_named_by_the_doctor(lived_in: House) -> None:
    service = lived_in.start("serve")
    lived_in.await_("it is up", lambda: "is up" in (lived_in.folder / "log").read_text())
    service.send_signal(signal.SIGSTOP)
    for path in (lived_in.folder / "state").glob("jobs.db*"):
        path.unlink()
    lived_in.run("scan", "--once")
    found = lived_in.run("doctor", ok=False).stdout
    assert f"process {service.pid} " in found
    assert "works with a job table that was deleted" in found
    assert f"kill {service.pid}" in found


def overwrite(folder: Path) -> None:
    graph = folder / "graph.lbug"
    graph.chmod(0o644)
    with open(graph, "r+b") as file:
        file.write(os.urandom(8192))
    graph.chmod(0o444)


def leave_a_log(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "graph.lbug.wal").write_bytes(b"left by a client")
    folder.chmod(0o555)


@pytest.mark.parametrize(
    ("damage", "said"),
    [(overwrite, "does not begin as a database of ladybug does"), (leave_a_log, "was opened for writing")],
)
def test_a_damaged_database_is_told_where_it_is_live_and_gets_no_alias(
    lived_in: House, damage: Callable[[Path], None], said: str
) -> None:
    for timestamp in (FIRST, SECOND):
        damage(lived_in.folder / f"state/databases/acme-{timestamp}")
    assert said in lived_in.json("customers")[0]["trouble"]
    found = [one for one in examine(lived_in) if one["subject"] == "aliases"]
    assert [one["verdict"] for one in found if said in one["what"]] == ["error"]
    done = lived_in.run("switch", "acme", "--to", f"acme-{FIRST}", ok=False)
    assert done.returncode == 5
    assert said in done.stderr
    assert "bgdeploy retry 1 --reload" in done.stderr
    assert os.readlink(alias(lived_in)) == f"../databases/acme-{SECOND}"


def examine(house: House) -> list[dict[str, str]]:
    return list(json.loads(house.run("doctor", "--json", ok=False).stdout))


@pytest.mark.parametrize("place", [".lock", ".acme.generation.new"])
def test_a_rollback_that_the_disk_refused_is_not_carried_out_later(lived_in: House, place: str) -> None:
    (lived_in.folder / "state/aliases" / place).unlink(missing_ok=True)
    (lived_in.folder / "state/aliases" / place).mkdir()  # what even root cannot open as a file
    done = lived_in.run("rollback", "acme", "--reason", "wrong", ok=False)
    assert done.returncode == 6
    assert f"aliases/{place}" in done.stderr
    assert f"acme stays at acme-{SECOND}." in done.stderr
    (lived_in.folder / "state/aliases" / place).rmdir()
    lived_in.run("run", "--timeout", "60")
    assert lived_in.live("acme") == f"acme-{SECOND}"
    assert os.readlink(alias(lived_in)) == f"../databases/acme-{SECOND}"
    assert [row["kind"] for row in lived_in.json("switches", "acme")] == ["deploy", "deploy"]


def test_a_generation_that_is_no_number_is_told_with_its_cure(lived_in: House) -> None:
    (lived_in.folder / "state/aliases/.acme.generation").write_text("seven")
    done = lived_in.run("rollback", "acme", "--reason", "wrong", ok=False)
    assert done.returncode == 6
    assert ".acme.generation does not hold a number" in done.stderr
    assert "bgdeploy switches acme" in done.stderr
    assert lived_in.live("acme") == f"acme-{SECOND}"


def put_back(house: House, copy: Path) -> None:
    """Restore a copy of the job table as docs/backups.md says."""
    for path in (house.folder / "state").glob("jobs.db*"):
        path.unlink()
    shutil.copy(copy, house.folder / "state/jobs.db")


def test_an_older_copy_of_the_job_table_leaves_readers_where_they_are(lived_in: House) -> None:
    copy = lived_in.folder / "copy.db"
    with closing(sqlite3.connect(lived_in.folder / "state/jobs.db")) as table:
        table.execute("VACUUM INTO ?", (str(copy),))
    lived_in.drop("acme", SECOND + 1)
    lived_in.run("run", "--timeout", "60")
    put_back(lived_in, copy)
    lived_in.run("run", "--timeout", "60")
    moves = [(row["kind"], row["target"]) for row in reversed(lived_in.json("switches", "acme"))]
    assert moves[-2:] == [("deploy", f"acme-{SECOND}"), ("deploy", f"acme-{SECOND + 1}-f1")]
    assert (lived_in.folder / f"state/databases/acme-{SECOND + 1}").is_dir(), "it has no owner any more"
    assert lived_in.json("query", "acme", "MATCH (n) RETURN count(*) AS n") == [{"n": 300}]


def test_a_lost_job_table_forgets_what_was_bad(lived_in: House) -> None:
    lived_in.run("rollback", "acme", "--reason", "wrong prices")
    for path in (lived_in.folder / "state").glob("jobs.db*"):
        path.unlink()
    lived_in.run("--set", "orchestrator.auto_switch=false", "run", "--timeout", "60", ok=False)
    assert os.readlink(alias(lived_in)) == f"../databases/acme-{FIRST}", "nothing moves by itself"
    lived_in.run("run", "--timeout", "60")
    assert str(lived_in.live("acme")).startswith(f"acme-{SECOND}-f"), "and else the bad one comes back"
