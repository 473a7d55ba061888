"""What a user sees when the configuration, the job table, the disk or the engine is wrong; what is live stays live."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from bgdeploy.actions import page
from bgdeploy.config import load_settings
from bgdeploy.jobs import store
from bgdeploy.log import word
from bgdeploy.pipeline import scan
from bgdeploy.pipeline.scan import Watch, look, scan_once
from bgdeploy.service import serve
from bgdeploy.service.doctor import host, table
from bgdeploy.site import open_site
from tests.bad_input.places import CONFIGS, JOB_TABLES, SHUT
from tests.bad_input.snapshots import GOOD, PEOPLE
from tests.bad_input.table import BASE
from tests.bad_input.test_bad_input import ASK, PERSONS, agree, lives, say
from tests.house import House, make_house, make_removable, stop
from tests.snapshots.folders import write
from tests.tmpfs import small_disk

SETS = (["customers"], ["scan", "--once"], ["rollback", "acme", "--reason", "x"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """``acme`` has a standby and something live."""
    house = make_house(tmp_path_factory.mktemp("home"))
    for number in range(2):
        write(house.folder / f"data/acme/{BASE + number}", GOOD)
    house.run("run", "--timeout", "60")
    yield house
    make_removable(house.folder)


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Put the job table back at the end."""
    aside = folder / "kept"
    aside.mkdir()
    shutil.copy(folder / "state/jobs.db", aside)
    try:
        yield
    finally:
        for path in (folder / "state").glob("jobs.db*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copy(aside / "jobs.db", folder / "state")
        shutil.rmtree(aside)


@pytest.mark.parametrize("name", JOB_TABLES)
def test_a_job_table_that_cannot_be_used_is_told_and_left(home: House, name: str) -> None:
    damage, code, said = JOB_TABLES[name]
    path = home.folder / "state/jobs.db"
    with kept(home.folder):
        damage(path)
        before = path.read_bytes() if path.is_file() else b""
        for words in SETS:
            found, stderr = say(home, *words)
            agree(stderr, said, home.folder)
            assert found == code, words
        assert (path.read_bytes() if path.is_file() else b"") == before
    assert home.target().query("acme", ASK) == PERSONS
    assert lives(home)["acme"] == f"../databases/acme-{BASE + 1}"


@pytest.mark.parametrize("name", ["no database", "cut off", "a folder", "of another program"])
def test_what_is_live_is_answered_without_the_job_table_and_that_is_said(home: House, name: str) -> None:
    damage, _, said = JOB_TABLES[name]
    with kept(home.folder):
        damage(home.folder / "state/jobs.db")
        done = home.run("query", "acme", ASK, "--json")
        assert json.loads(done.stdout) == PERSONS
        agree(done.stderr, f"warning: {' '.join(said.removeprefix('bgdeploy: ').split())}\n", home.folder)
        code, refused = say(home, "query", "nobody", ASK)
        agree(refused, said, home.folder)
        assert code == 6


def test_serve_does_not_start_over_such_a_job_table(home: House) -> None:
    with kept(home.folder):
        (home.folder / "state/jobs.db").write_bytes(b"\0\1" * 5000)
        done = home.run("serve", ok=False)
        _, code, said = JOB_TABLES["no database"]
        agree(done.stderr, said, home.folder)
        assert done.returncode == code


def test_a_job_table_that_was_emptied_is_made_anew_and_that_is_said(home: House) -> None:
    with kept(home.folder):
        (home.folder / "state/jobs.db").write_bytes(b"")
        said = word("store.anew", path=home.folder / "state/jobs.db", count=1)
        assert home.run("customers", apart=True).stderr.startswith(f"{said}\n")
        assert home.target().query("acme", ASK) == PERSONS


def test_a_job_table_that_stays_locked_is_told(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_DEADLINE", 1.0)
    with closing(sqlite3.connect(home.folder / "state/jobs.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        code, said = say(home, "pause", "acme", "--reason", "x")
        holder.execute("ROLLBACK")
    agree(
        said,
        "bgdeploy: The job table {here}/state/jobs.db stayed locked for 1 s.\n  Nothing was changed.\n"
        "  Look for a process that holds it (a copy, a backup, a debugger).\n",
        home.folder,
    )
    assert code == 6
    assert not home.json("customers")[0]["paused"]


def test_a_job_table_on_a_network_disk_is_told_by_the_doctor_and_by_serve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = table.judge_kind("nfs4", Path("/srv/jobs.db"))
    assert (found.verdict, found.what, found.cure) == (
        "error",
        "/srv/jobs.db lies on nfs4, where SQLite's write-ahead log is not safe",
        "Put it on a disk of this host: database_url or state_dir.",
    )
    told: list[str] = []
    monkeypatch.setattr(host, "read_kind", lambda place: "nfs4")
    monkeypatch.setattr(serve.log, "emit", lambda name, **fields: told.append(word(name, **fields)))
    serve._tell_of_shared_disk(Path("/srv/jobs.db"))
    assert told == [
        "the job table /srv/jobs.db lies on nfs4, where SQLite's write-ahead log is not safe; put it on a disk "
        "of this host: database_url or state_dir"
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_makes_no_sense_is_told_with_its_lines(tmp_path: Path, name: str) -> None:
    text, said = CONFIGS[name]
    (tmp_path / "config.yaml").write_text(text)
    for words in (["serve"], ["customers"], ["init"]):
        code, stderr = say(House(tmp_path), *words)
        agree(stderr, said, tmp_path)
        assert code == 3
    assert os.listdir(tmp_path) == ["config.yaml"], "nothing was made"


def test_a_configuration_that_is_not_there_is_told(tmp_path: Path) -> None:
    code, said = say(House(tmp_path), "customers")
    wanted = (
        "bgdeploy: {here}/config.yaml: cannot be read: No such file or directory\n"
        f"  Nothing was started.\n  Every key is explained in {page('configuration.md')}.\n"
    )
    agree(said, wanted, tmp_path)
    assert code == 3


def test_a_file_where_the_state_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("state_dir: config.yaml\n")
    code, said = say(House(tmp_path), "run")
    agree(
        said,
        "bgdeploy: {here}/config.yaml: File exists.\n  A folder is needed there: move the file away, or name another "
        "place; all there are: bgdeploy config\n",
        tmp_path,
    )
    assert code == 6


# The engine


def written_by_another(house: House, database: str) -> None:
    """Make a database one of another storage format, in what is written beside it and in the file itself."""
    folder = house.folder / "state/databases" / database
    folder.chmod(0o755)
    facts = json.loads((folder / "facts.json").read_text())
    (folder / "facts.json").write_text(json.dumps({**facts, "engine": "0.1.0", "storage": 99}))
    graph = folder / "graph.lbug"
    graph.chmod(0o644)
    content = bytearray(graph.read_bytes())
    content[4:12] = (99).to_bytes(8, "little")
    graph.write_bytes(content)


def test_after_an_upgrade_of_the_engine_old_databases_are_told_and_loaded_anew(tmp_path: Path) -> None:
    house = make_house(tmp_path)
    for number in range(2):
        write(house.folder / f"data/acme/{BASE + number}", GOOD)
    house.run("run", "--timeout", "60")
    before = lives(house)
    for number in range(2):
        written_by_another(house, f"acme-{BASE + number}")
    standby = (
        "bgdeploy: acme-1700000000 was written by ladybug 0.1.0 in storage format 99; {n} with format {n} is installed.\n"
        "  acme stays at acme-1700000001.\n  Load its snapshot again: bgdeploy retry {n} --reload\n"
    )
    for words in (["rollback", "acme", "--reason", "x"], ["switch", "acme", "--to", f"acme-{BASE}"]):
        code, said = say(house, *words)
        agree(said, standby, tmp_path)
        assert code == 5
    code, said = say(house, "query", "acme", ASK)
    agree(
        said,
        "bgdeploy: acme-1700000001 was written by ladybug 0.1.0 in storage format 99; {n} with format {n} is installed "
        "and cannot open it.\n  Nothing was changed.\n  Load its snapshot again: bgdeploy retry {n} --reload\n",
        tmp_path,
    )
    assert code == 6
    assert "written by ladybug 0.1.0" in house.run("doctor", ok=False).stdout
    assert lives(house) == before
    live = next(job["id"] for job in house.json("jobs", "list") if job["timestamp"] == BASE + 1)
    house.run("retry", str(live), "--reload")
    house.run("run", "--timeout", "60")
    assert house.live("acme") == f"acme-{BASE + 1}-r2"
    assert house.target().query("acme", ASK) == PERSONS
    make_removable(tmp_path)


def test_a_surprise_in_one_customers_files_stops_nobody_else(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for customer in ("acme", "bad", "zebra"):
        write(house.folder / f"data/{customer}/{BASE}", GOOD)
    site = open_site(load_settings(house.folder / "config.yaml"))
    looked = scan.look_into

    def stumble(folder: Path) -> Any:
        if folder.parent.name == "bad":
            raise ZeroDivisionError("of a library")
        return looked(folder)

    monkeypatch.setattr(scan, "look_into", stumble)
    report = scan_once(site)
    assert sorted(report.queued) == [f"acme/{BASE}", f"zebra/{BASE}"]
    assert report.errors == [("bad", "it cannot be judged (ZeroDivisionError: of a library)")]
    watched = look(site, Watch())
    assert watched.errors == report.errors, "nor the cheap look between two scans"


# Disks


def remount(disk: Path, way: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{way}", str(disk)], check=True)


def test_a_read_only_base_folder_is_all_that_is_needed(tmp_path: Path) -> None:
    with small_disk(16) as disk:
        house = make_house(tmp_path)
        (tmp_path / "data").rmdir()
        (tmp_path / "data").symlink_to(disk)
        write(disk / f"acme/{BASE}", GOOD)
        remount(disk, "ro")
        house.run("run", "--timeout", "60")
        assert house.target().query("acme", ASK) == PERSONS
    make_removable(tmp_path)


def fill(disk: Path) -> None:
    """Take every byte there is, those of the reserve too."""
    (disk / "state/ballast").unlink(missing_ok=True)
    with open(disk / "filler", "ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))


def test_a_state_folder_that_is_read_only_or_full_is_told_and_what_is_live_can_be_read(
    tmp_path: Path,
) -> None:
    with small_disk(120) as disk:
        house = make_house(tmp_path, state=f"{disk}/state", database_url=f"sqlite:///{disk}/state/jobs.db")
        write(tmp_path / f"data/acme/{BASE}", GOOD)
        house.run("run", "--timeout", "60")
        write(tmp_path / f"data/acme/{BASE + 1}", PEOPLE)
        shut = (
            "bgdeploy: The job table {here}/state/jobs.db cannot be opened for writing (unable to open database "
            f"file).\n{SHUT}"
        )
        full = (
            "bgdeploy: The disk under the job table {here}/state/jobs.db is full or fails (disk I/O error).\n"
            "  Nothing was changed.\n  Free some space; work goes on by itself.\n"
        )
        for way, said in (("ro", shut), ("rw", full)):
            remount(disk, way)
            if said is full:
                fill(disk)
            for words in (["run"], ["rollback", "acme", "--reason", "x"]):
                done = house.run(*words, ok=False)
                agree(done.stderr, said, disk)
                assert done.returncode == 6
            assert house.target().query("acme", ASK) == PERSONS
        (disk / "filler").unlink()
        house.run("run", "--timeout", "60")
        assert house.states() == {BASE: "switched", BASE + 1: "loaded"}, "nothing was lost"


# Snapshots that change, and workers beside each other


def children(parent: int) -> list[psutil.Process]:
    return [one for one in psutil.Process(parent).children() if one.status() == "stopped"]


def errors(house: House) -> dict[str, str | None]:
    return {job["customer"]: job["error"] for job in house.json("jobs", "list")}


def test_a_snapshot_that_goes_away_while_it_loads_and_a_second_serve_beside_the_first(house: House) -> None:
    data = house.folder / "data"
    write(data / f"away/{BASE}", GOOD)
    first = house.start("serve", failpoint="load.group.before:2:stop")
    house.await_("the child holds still", lambda: bool(children(first.pid)))
    code, said = say(house, "retry", "1")
    assert (code, said) == (
        5,
        "bgdeploy: Job 1 (away/1700000000) is loading, not failed.\n  Nothing was changed.\n"
        "  It goes on by itself; see: bgdeploy jobs show 1, or stop it: bgdeploy jobs cancel 1\n",
    )
    second = house.start("serve")  # on the same folder: simply more workers
    write(data / f"beside/{BASE}", GOOD)
    house.await_("the second loads beside the first", lambda: house.live("beside") == f"beside-{BASE}")
    (data / f"away/{BASE}").rename(house.folder / "aside")
    children(first.pid)[0].send_signal(signal.SIGCONT)
    house.await_("it failed", lambda: errors(house)["away"] is not None)
    assert errors(house)["away"] == (
        "The snapshot away/1700000000 was removed while it was loaded. What is live stays live. "
        "It is taken up again by itself when the folder has settled."
    )
    assert stop(first) == 0
    (house.folder / "aside").rename(data / f"away/{BASE}")
    house.await_("it is live", lambda: (house.live("away") or "").startswith(f"away-{BASE}"))
    assert stop(second) == 0
    assert (house.folder / "log").read_text().count("is up:") == 2
    assert len(house.json("jobs", "list")) == 2, "one job for each snapshot"
    assert house.target().query("away", ASK) == PERSONS
    assert "Traceback" not in (house.folder / "log").read_text()


def test_a_snapshot_that_changes_or_goes_before_and_after_it_loads_is_told(house: House) -> None:
    before, after = house.folder / f"data/before/{BASE}", house.folder / f"data/after/{BASE}"
    write(after, GOOD)
    house.run("run", "--timeout", "60")
    write(before, GOOD)
    house.run("scan", "--once")
    before.rename(house.folder / "aside")
    write(after, PEOPLE)
    house.run("scan", "--once")
    told = {job["customer"]: (job["state"], job["reason"]) for job in house.json("jobs", "list")}
    assert told == {"before": ("discovered", "folder gone"), "after": ("switched", None)}
    log = house.run("jobs", "log", "1").stdout
    assert (
        word("scan.changed", job=f"after/{BASE}", cure="To load it again: bgdeploy retry 1 --reload") in log
    )
    shutil.rmtree(after)
    house.run("scan", "--once")
    code, said = say(house, "retry", "1", "--reload")
    agree(
        said,
        "bgdeploy: The folder of after/1700000000 is gone.\n  Nothing was changed.\n"
        "  Put {here}/data/after/1700000000 back, or drop the snapshot anew under a newer timestamp.\n",
        house.folder,
    )
    assert code == 5
    assert house.target().query("after", ASK) == PERSONS
    (house.folder / "aside").rename(before)
    house.run("run", "--timeout", "60")
    assert house.live("before") == f"before-{BASE}"
