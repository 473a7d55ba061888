"""The doctor: each finding provoked on a real installation, and nothing changed by looking."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bgdeploy.config import load_settings
from bgdeploy.finding import Check, Finding, ok, warning
from bgdeploy.jobs.lease import this_host, this_process
from bgdeploy.memory import find_whole
from bgdeploy.service.doctor import host, table
from bgdeploy.service.doctor.examine import examine, find_checks, looking, make_rounds
from bgdeploy.worker.processes import is_bgdeploy
from tests.house import House, copy_house, make_house, make_removable
from tests.tmpfs import small_disk

FIRST, SECOND = 1700000001, 1700000002
LIVE, STANDBY = f"acme-{SECOND}", f"acme-{FIRST}"
DEAD = f"{this_host()}/4194999/1.00/ab"  # a pid that no Linux gives out
ALIVE = f"{this_host()}/{os.getpid()}/{this_process().born}/ab"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A customer with a standby, made once; every test gets a copy."""
    house = make_house(tmp_path_factory.mktemp("template"))
    for timestamp in (FIRST, SECOND):  # at once, the first might be overtaken before it was ever live
        house.drop("acme", timestamp)
        house.run("run", "--timeout", "60")
    (house.folder / "log").unlink(missing_ok=True)
    yield house.folder
    make_removable(house.folder)


@pytest.fixture
def lived_in(template: Path, tmp_path: Path) -> Iterator[House]:
    yield copy_house(template, tmp_path / "house")
    make_removable(tmp_path)


def sql(house: House, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(house.folder / "state/jobs.db")) as connection, connection:
        connection.execute("DROP TRIGGER IF EXISTS jobs_edges")  # the law: a hand in the table goes round it
        connection.execute(statement, values)


def look(house: House, **more: Any) -> list[Finding]:
    """All that is found, after it was seen that looking changed nothing."""
    before = listing(house.folder)
    found = list(examine(house.folder / "config.yaml", {}, **more))
    assert listing(house.folder) == before
    return found


def listing(folder: Path) -> dict[str, str]:
    """Every path below a folder with what it is and holds."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            found[str(path.relative_to(folder))] = f"{os.lstat(path).st_mode:o} {_content(path)}"
    return found


def _content(path: Path) -> str:
    if path.is_symlink():
        return os.readlink(path)
    if path.name.startswith("jobs.db"):  # reading it here would take the locks of this process away
        return str(path.stat().st_size) if path.suffix != ".db-shm" else ""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def pick(found: list[Finding], subject: str, verdict: str, part: str) -> Finding:
    """The finding with these words, or a failure that shows all of its subject."""
    fit = [one for one in found if one.subject == subject and one.verdict == verdict and part in one.what]
    shown = "\n".join(f"{one.verdict}: {one.what} > {one.cure}" for one in found if one.subject == subject)
    assert fit, f"no {verdict} with {part!r} under {subject}:\n{shown}"
    return fit[0]


def test_a_healthy_installation_has_no_error_and_is_left_as_it_was(lived_in: House) -> None:
    found = look(lived_in)
    told = [one for one in found if one.verdict != "ok" and "WAL-reset" not in one.what]
    assert [one.what[:51] for one in told] == ["no bgdeploy that scans and loads is running here, a"]
    assert {one.subject for one in found} == {
        "configuration", "job table", "state folder", "base folder", "clock", "databases", "aliases", "workers",
        "jobs", "limits",
    }  # fmt: skip
    assert all(not one.cure for one in found if one.verdict == "ok")


# What somebody does to an installation; ``acme`` has FIRST as standby and SECOND live.


def write_config(**changes: Any) -> Callable[[House], None]:
    def change(house: House) -> None:
        path = house.folder / "config.yaml"
        config = json.loads(path.read_text())
        for section, values in changes.items():
            config[section] = {**config.get(section, {}), **values} if isinstance(values, dict) else values
        path.write_text(json.dumps(config, indent=1))

    return change


def run_sql(statement: str, *values: Any) -> Callable[[House], None]:
    return lambda house: sql(house, statement, *values)


def make(path: str, text: str = "") -> Callable[[House], None]:
    """Make a file, or a folder where the path ends in a slash, even where all is read-only."""

    def act(house: House) -> None:
        place = house.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.parent.chmod(0o755)
        place.mkdir() if path.endswith("/") else place.write_text(text)

    return act


def remove(path: str) -> Callable[[House], None]:
    def act(house: House) -> None:
        place = house.folder / path
        make_removable(place) if place.is_dir() else None
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()

    return act


def point(target: str) -> Callable[[House], None]:
    def act(house: House) -> None:
        alias = house.folder / "state/aliases/acme"
        alias.unlink()
        os.symlink(target, alias)

    return act


def cut(name: str) -> Callable[[House], None]:
    def act(house: House) -> None:
        graph = house.folder / "state/databases" / name / "graph.lbug"
        graph.chmod(0o644)
        os.truncate(graph, 4096)
        graph.chmod(0o444)

    return act


def write_facts(name: str, **facts: Any) -> Callable[[House], None]:
    def act(house: House) -> None:
        path = house.folder / "state/databases" / name / "facts.json"
        path.parent.chmod(0o755)
        path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
        path.parent.chmod(0o555)

    return act


def damage_a_page(house: House) -> None:
    """Overwrite the end of one table's page, where its rows are."""
    path = house.folder / "state/jobs.db"
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'switches'"
        page = connection.execute(query).fetchone()[0]
    with open(path, "r+b") as file:
        file.seek(page * 4096 - 200)
        file.write(b"\xff" * 200)


def alias_folder(house: House) -> None:
    (house.folder / "state/aliases/acme").unlink()
    (house.folder / "state/aliases/acme").mkdir()


def chmod(path: str, mode: int) -> Callable[[House], None]:
    return lambda house: (house.folder / path).chmod(mode)


def touch_later(house: House) -> None:
    os.utime(house.folder / "data", (time.time() + 500, time.time() + 500))


def both(*acts: Callable[[House], None]) -> Callable[[House], None]:
    def act(house: House) -> None:
        for one in acts:
            one(house)

    return act


def run(*words: str) -> Callable[[House], None]:
    return lambda house: house.run(*words)


def drop_folder(name: str, **more: Any) -> Callable[[House], None]:
    return lambda house: (house.folder / "data" / name).mkdir(parents=True)


LEASE = "UPDATE jobs SET lease_owner = ?, lease_expires = ? WHERE timestamp = ?"
STATE = "UPDATE jobs SET state = ?, {} WHERE timestamp = ?"
TOMORROW = int(time.time()) + 40_000
NOW = time.time()

CASES: dict[str, tuple[Callable[[House], None], str, str, str, str]] = {
    # name: (what is done, subject, verdict, part of what is found, part of the cure)
    "config: a key that nothing reads": (
        write_config(target="ladybug", neo4j={"uri": "bolt://there"}), "configuration", "warning", "neo4j.uri is set (", "change target"),
    "config: a web page that is not there": (
        write_config(web={"port": 8484}), "configuration", "warning", "web.port is set (", "Remove it"),
    "config: no standby is ever kept": (
        write_config(orchestrator={"keep_databases": 1}), "configuration", "warning", "keep_databases is 1", "2 or more"),
    "config: more than max_databases": (
        write_config(orchestrator={"max_databases": 2}), "limits", "warning",
        "1 customers x 2 kept + 0 pinned, bad or waiting + 1 loading = 3", "Raise orchestrator.max_databases"),
    "table: never made": (
        remove("state"), "job table", "warning", "jobs.db does not exist yet", "bgdeploy init"),
    "table: lost": (
        remove("state/jobs.db"), "job table", "error", "is gone, though", "what is live stays live"),
    "table: not a database": (
        make("state/jobs.db", "no database" * 900), "job table", "error", "file is not a database", "put a copy back"),
    "table: a page is damaged": (
        damage_a_page, "job table", "error", "quick_check found damage", "put a copy back"),
    "table: older": (
        run_sql("UPDATE alembic_version SET version_num = '0001'"), "job table", "warning",
        "is at revision 0001", "bgdeploy db upgrade"),
    "table: newer": (
        run_sql("UPDATE alembic_version SET version_num = '9999'"), "job table", "error",
        "is at revision 9999", "Install the newer bgdeploy"),
    "table: empty": (
        both(remove("state/jobs.db"), make("state/jobs.db")), "job table", "warning",
        "holds no job table yet", "bgdeploy init"),
    "table: of another base folder": (
        run_sql("UPDATE identity SET base_path = '/elsewhere'"), "job table", "error",
        "base_path: '/elsewhere' there", "init --rebind"),
    "table: of another place": (
        run_sql("UPDATE identity SET place = '/elsewhere'"), "aliases", "error",
        "are at /elsewhere", "init --rebind"),
    "state: a stranger's file": (
        make("state/notes.txt"), "state folder", "warning", "notes.txt is not bgdeploy's", "when you know what it is"),
    "state: scratch of a killed doctor": (
        make("state/.bgdeploy-doctor-x/probe.db"), "state folder", "warning", "scratch of a bgdeploy doctor", "rm -r"),
    "base: gone": (
        remove("data"), "base folder", "error", "cannot be listed: No such file", "disk is mounted"),
    "base: a customer is gone": (
        remove("data/acme"), "base folder", "warning", "no folder is there of 1 known customer: acme", "stays live"),
    "base: milliseconds": (
        drop_folder("acme/1700000001000"), "base folder", "warning",
        "acme/1700000001000 is skipped: looks like milliseconds", "Rename it"),
    "base: a link that leads out": (
        lambda house: os.symlink("/tmp", house.folder / "data/out"), "base folder", "warning",
        "out is skipped: this is a link that leads out", "Rename it"),
    "base: nobody scanned": (
        drop_folder("borealis/1700000001"), "base folder", "warning",
        "1 snapshot not in the job table yet (of borealis)", "bgdeploy scan --once"),
    "base: tomorrow": (
        drop_folder(f"acme/{TOMORROW}"), "base folder", "warning", f"the latest acme/{TOMORROW}", "clock of the ETL job"),
    "base: changed in the future": (
        touch_later, "base folder", "warning", "s in the future, by this machine's clock", "Set the clock"),
    "base: incomplete": (
        both(drop_folder(f"acme/{SECOND + 1}"), run("scan", "--once")), "base folder", "warning",
        f"acme/{SECOND + 1} waits: no data files yet", "_SUCCESS last"),
    "clock: events of the future": (
        run_sql("INSERT INTO job_events (at, kind, actor, message) VALUES (?, 'x', 'scan', 'x')", NOW + 7200),
        "clock", "error", "before the newest event of the job table", "timedatectl"),
    "files: live was written by an older engine": (
        write_facts(LIVE, engine="0.11.3", storage=39), "databases", "error",
        f"{LIVE} was written by ladybug 0.11.3 in storage format 39", "bgdeploy retry 2 --reload"),
    "files: a standby was": (
        write_facts(STANDBY, engine="0.11.3", storage=39), "databases", "warning",
        f"{STANDBY} was written by", "bgdeploy retry 1 --reload"),
    "files: nobody knows by whom": (
        make(f"state/databases/{STANDBY}/facts.json", "{"), "databases", "warning",
        f"nobody knows which engine wrote {STANDBY}", "retry 1 --reload"),
    "files: live is damaged": (
        cut(LIVE), "databases", "error", f"{LIVE}, which is live, was published with", "bgdeploy rollback"),
    "files: a standby is damaged": (
        cut(STANDBY), "databases", "warning", "and has 4,096 now", "bgdeploy retry 1 --reload"),
    "files: the graph is gone": (
        both(chmod(f"state/databases/{LIVE}", 0o755), remove(f"state/databases/{LIVE}/graph.lbug")), "databases",
        "error", "has no graph.lbug any more", "bgdeploy rollback"),
    "files: may be written to": (
        chmod(f"state/databases/{LIVE}/graph.lbug", 0o664), "databases", "warning", "graph.lbug may be written to", "chmod 444"),
    "files: a client wrote": (
        make(f"state/databases/{LIVE}/graph.lbug.wal"), "databases", "warning", "also holds graph.lbug.wal", "read-only"),
    "files: a lock nobody owns": (
        make("state/builds/acme-1.lock"), "databases", "warning", "acme-1.lock is a lock that no job owns", "rm "),
    "files: no build": (
        make("state/builds/notes"), "databases", "warning", "notes is no build", "rm "),
    "files: not removed to the end": (
        make("state/trash/acme-1.7/"), "databases", "warning", "acme-1.7 was to be removed", "bgdeploy serve"),
    "alias: a folder in its place": (
        alias_folder, "databases", "error", "aliases/acme is no link", "Put it away"),
    "alias: its memory is no number": (
        make("state/aliases/.acme.generation", "seven"), "databases", "error", "does not hold a number", "bgdeploy switches acme"),
    "alias: missing": (
        remove("state/aliases/acme"), "aliases", "error", f"acme is missing; it should point at {LIVE}",
        f"bgdeploy switch acme --to {LIVE}"),
    "alias: moved by hand": (
        point(f"../databases/{STANDBY}"), "aliases", "warning", "moved by someone else's hand", "To undo: bgdeploy switch acme"),
    "alias: at nothing": (
        point("../databases/acme-999"), "aliases", "error", "points at acme-999, not at", "at its next scan"),
    "alias: elsewhere": (
        point("/tmp"), "aliases", "error", "points at /tmp, not at", "at its next scan"),
    "alias: of nothing live": (
        run_sql("UPDATE customers SET live = NULL"), "aliases", "warning", "knows of nothing live", "bgdeploy customers"),
    "alias: a move was cut off": (
        run_sql("UPDATE customers SET intent = ?, intent_by = ?, intent_at = ?", STANDBY, DEAD, NOW), "aliases", "warning",
        f"a move of the alias acme to {STANDBY} was cut off", "bgdeploy serve"),
    "database: live is gone": (
        remove(f"state/databases/{LIVE}"), "aliases", "error", f"{LIVE}, which the alias acme points at, is gone",
        "bgdeploy rollback acme"),
    "database: the standby is gone": (
        remove(f"state/databases/{STANDBY}"), "aliases", "warning", f"{STANDBY} of acme, kept for the way back, is gone",
        "bgdeploy retry 1 --reload"),
    "database: nobody owns it": (
        make("state/databases/acme-77/"), "aliases", "warning", "acme-77 belongs to no job", "left alone"),
    "database: left by a killed doctor": (
        make("state/databases/bgdeploy-doctor-1/"), "aliases", "warning", "doctor that was killed", "DROP DATABASE"),
    "database: should have gone": (
        run_sql("UPDATE databases SET drop_at = 1, drop_why = 'old' WHERE name = ?", STANDBY), "aliases", "warning",
        f"{STANDBY} is to be dropped since 1970", "bgdeploy jobs log 1"),
    "lease: of a dead process": (
        run_sql(LEASE, DEAD, NOW + 90_000, SECOND), "workers", "warning", "and that process is gone", "takes it back at once"),
    "lease: over, of a living one": (
        run_sql(LEASE, ALIVE, NOW - 900, SECOND), "workers", "error", "though that process lives", f"kill -9 {os.getpid()}"),
    "lease: of another host": (
        run_sql(LEASE, "otherhost~1/7/1.00/ab", NOW + 90_000, SECOND), "workers", "unknown", "on another host", "Look there"),
    "lease: of another host, over": (
        run_sql(LEASE, "otherhost~1/7/1.00/ab", NOW - 900, SECOND), "workers", "warning", "it is over for", "takes it back"),
    "workers: none, and work waits": (
        both(lambda house: house.drop("acme", SECOND + 1), run("scan", "--once")), "workers", "warning",
        "no bgdeploy that scans and loads is running here, and 1 job waiting", "bgdeploy serve"),
    "jobs: loading by nobody": (
        run_sql(STATE.format("reason = NULL"), "loading", SECOND), "jobs", "error", "held by nobody", "Somebody changed"),
    "jobs: queued for long": (
        run_sql(STATE.format("queued_at = 1, reason = 'databases: 9 exist'"), "queued", SECOND), "jobs", "warning",
        "databases: 9 exist", "once the reason is gone"),
    "jobs: between two tries": (
        run_sql(STATE.format(f"not_before = {NOW + 90_000}, queued_at = {NOW}"), "queued", SECOND), "jobs", "warning",
        "and is tried again in", "bgdeploy serve"),
    "jobs: blocked": (
        run_sql(STATE.format("blocked = 1, reason = 'too few rows'"), "loaded", SECOND), "jobs", "warning",
        "stays loaded: too few rows", f"bgdeploy switch acme --to {LIVE}"),
    "jobs: failed": (
        both(run_sql("UPDATE customers SET floor_timestamp = 0"), run_sql(STATE.format("error = 'bad id'"), "failed", SECOND)),
        "jobs", "warning", "failed: bad id", "bgdeploy retry 2"),
    "jobs: paused": (
        run_sql("UPDATE customers SET paused_at = 1, paused_why = 'a freeze'"), "jobs", "warning",
        "acme is paused since 1970", "bgdeploy resume acme"),
    "limits: more memory than there is": (
        write_config(ladybug={"buffer_pool_mb": 16_000_000}), "limits", "error", "1 worker x 16,000,000 MiB",
        "Lower ladybug.buffer_pool_mb"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_found_with_its_cure(lived_in: House, name: str) -> None:
    act, subject, verdict, part, cure = CASES[name]
    act(lived_in)
    found = look(lived_in)
    assert cure in pick(found, subject, verdict, part).cure
    assert all(one.cure for one in found if one.verdict in ("warning", "error"))


def test_all_faults_of_a_configuration_are_told_and_nothing_else_is_looked_at(lived_in: House) -> None:
    (lived_in.folder / "config.yaml").write_text("orchestrator: {num_workers: none}\nnonsense: 1\n")
    found = look(lived_in)
    assert [one.verdict for one in found] == ["error", "error", "unknown"]
    assert "config.yaml:1" in found[0].what
    assert "config.yaml:2" in found[1].what
    assert "docs/configuration.md" in found[0].cure


def test_without_a_file_the_defaults_and_what_is_set_otherwise_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BGDEPLOY__DATASET__SETTLE_SECONDS", "7")
    found = list(examine(None, {"state_dir": "elsewhere"}))
    told = pick(found, "configuration", "warning", "there is no file config.yaml")
    assert "dataset.settle_seconds by environment BGDEPLOY__DATASET__SETTLE_SECONDS" in told.what
    assert "state_dir by option" in told.what
    assert "bgdeploy init" in told.cure
    assert os.listdir(tmp_path) == [], "nothing was made"


@contextmanager
def holding(house: House, *statements: str) -> Iterator[None]:
    """A rude visitor's connection to the job table."""
    with closing(sqlite3.connect(house.folder / "state/jobs.db", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()
        yield
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def test_a_lock_that_stays_is_told(lived_in: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_PATIENCE", 0.2)
    with holding(lived_in, "BEGIN IMMEDIATE"):
        found = look(lived_in)
    assert "fuser" in pick(found, "job table", "error", "nobody can write to it").cure
    pick(found, "aliases", "ok", "each alias points at what it should")


def test_a_table_that_nobody_may_even_read_is_told(lived_in: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_PATIENCE", 0.2)
    with holding(lived_in, "PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE"):
        found = look(lived_in)
    assert "fuser" in pick(found, "job table", "error", "database is locked").cure
    pick(found, "aliases", "unknown", "not looked at, since the job table cannot be used as it is")
    pick(found, "databases", "ok", "all with the size they were published with")


def test_a_log_that_is_not_folded_in_is_told_and_left(
    lived_in: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "LARGEST_LOG", 1 << 20)
    path = lived_in.folder / "state/jobs.db"
    killed = (
        f"import os, sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('PRAGMA wal_autocheckpoint=0'); "
        "c.execute('CREATE TABLE big (x)'); c.execute('INSERT INTO big VALUES (zeroblob(2000000))'); "
        "c.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", killed], check=True)
    log = Path(f"{path}-wal")
    before = log.read_bytes()
    told = pick(look(lived_in), "job table", "warning", "its write-ahead log has 2 MiB")
    assert "bgdeploy serve" in told.cure
    assert log.read_bytes() == before, "a log that a crash left is not folded in by looking"


def test_a_killed_service_is_looked_at_as_it_lies(lived_in: House) -> None:
    """A write-ahead log, a lease and a build of a service that was killed in the middle of a load."""
    lived_in.drop("acme", SECOND + 1)
    done = lived_in.run("run", "--timeout", "60", failpoint="switch.intended:1:kill", ok=False)
    assert done.returncode == -9, done.stderr
    found = look(lived_in)
    assert "bgdeploy serve" in pick(found, "aliases", "warning", "was cut off").cure
    pick(found, "workers", "warning", "and that process is gone")


def test_who_has_the_job_table_open_is_named(lived_in: House) -> None:
    path = lived_in.folder / "state/jobs.db"
    hold = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('SELECT * FROM jobs').fetchone(); print(); input()"
    stranger = subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert stranger.stdout is not None and stranger.stdout.readline() == "\n"
    try:
        told = pick(look(lived_in), "workers", "warning", f"process {stranger.pid} (")
        assert "is not bgdeploy" in told.what
    finally:
        stranger.communicate("\n")


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ("/usr/bin/python3 /opt/bgdeploy/bin/bgdeploy serve", True),
        ("/opt/bgdeploy/bin/bgdeploy run", True),
        ("/opt/bgdeploy/bin/python -u -m bgdeploy --config a.yaml serve", True),
        ("python3 -m bgdeploy.worker.loader", True),
        ("/usr/bin/python3.12 -E /opt/bgdeploy/bin/bgdeploy serve", True),
        ("sqlite3 /srv/bgdeploy/jobs.db", False),
        ("cp -r /srv/bgdeploy /backup", False),
        ("rsync /srv/bgdeploy /backup", False),
        ("/srv/bgdeploy/.venv/bin/python copy.py /srv/bgdeploy", False),
    ],
)
def test_a_process_is_known_by_what_it_runs_and_not_by_its_folders(words: str, ours: bool) -> None:
    assert is_bgdeploy(words.split()) is ours


def test_workers_of_several_processes_are_added_up(lived_in: House) -> None:
    lived_in.start("serve", "--workers", "2")
    lived_in.start("work", "-w", "3")
    said = "2 processes that load, with 5 workers together"

    def told() -> str:
        return "".join(one["what"] for one in lived_in.json("doctor"))

    lived_in.await_("both are seen", lambda: said in told())
    assert "5 workers x 64 MiB" in told()


def test_a_running_service_is_named_and_no_trouble(lived_in: House) -> None:
    service = lived_in.start("serve")
    lived_in.await_("it has scanned", lambda: "is up" in (lived_in.folder / "log").read_text())
    try:
        found = list(examine(lived_in.folder / "config.yaml", {}))
        pick(found, "workers", "ok", f"process {service.pid} (")
        assert [one for one in found if one.verdict == "error"] == []
    finally:
        service.terminate()
        assert service.wait(60) == 0


def test_a_clock_that_was_set_back_is_told(lived_in: House) -> None:
    found = look(lived_in, clock=lambda: time.time() - 3600)
    assert "timedatectl" in pick(found, "clock", "error", "s before the newest event").cure
    pick(found, "clock", "warning", "off this machine's clock")


def test_a_clock_that_is_being_set_is_told() -> None:
    times = iter([100.0] * 5 + [107.0] * 6)
    told = host.watch(lambda: next(times), time.monotonic)
    assert told.verdict == "warning"
    assert "the clock was moved by +6." in told.what


def test_a_full_disk_and_a_read_only_one_are_told(template: Path) -> None:
    with small_disk(40) as disk:
        house = copy_house(template, disk / "house")
        (house.folder / "state/ballast").unlink()
        room = os.statvfs(disk)
        with open(disk / "filler", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - (2 << 20))
        found = look(house)
        assert "Make room" in pick(found, "state folder", "error", " MiB are free under").cure
        assert "Make room" in pick(found, "state folder", "warning", "was given up").cure
        assert "Make room" in pick(found, "limits", "warning", "the largest snapshot, acme/").cure
        pick(found, "job table", "warning", "lies on tmpfs, which lies in memory")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        found = list(examine(house.folder / "config.yaml", {}))
        assert "chown" in pick(found, "state folder", "error", "may not write to").cure
        assert "rights" in pick(found, "job table", "error", "takes no commit").cure


def test_another_disk_below_the_state_folder_is_told(lived_in: House) -> None:
    builds = lived_in.folder / "state/builds"
    with small_disk(4):
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(builds)], check=False).returncode:
            pytest.skip("mounting needs root")
        try:
            found = list(examine(lived_in.folder / "config.yaml", {}))
        finally:
            subprocess.run(["umount", str(builds)], check=True)
    assert "Mount one disk" in pick(found, "databases", "error", "do not lie on one disk").cure


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 0:25 / /data ro shared:1 master:2 - nfs4 server:/export rw
29 28 0:26 / /data/local rw - xfs /dev/vdb rw
30 27 0:27 / /with\\040space rw - fuse.sshfs me@there:/ rw
31 27 0:28 / /home/share rw - cifs //there/share rw
32 27 0:29 / /run rw - tmpfs tmpfs rw
33 32 0:30 / /run rw - 9p host rw
34 27 0:31 / /box rw - overlay overlay rw
not a line of mountinfo
"""


@pytest.mark.parametrize(
    ("place", "kind", "verdict"),
    [
        ("/var/lib/bgdeploy/jobs.db", "ext4", "ok"),
        ("/data", "nfs4", "error"),
        ("/data/state/jobs.db", "nfs4", "error"),
        ("/database/jobs.db", "ext4", "ok"),
        ("/data/local/jobs.db", "xfs", "ok"),
        ("/with space/jobs.db", "fuse.sshfs", "error"),
        ("/home/share/x/jobs.db", "cifs", "error"),
        ("/run/jobs.db", "9p", "error"),
        ("/box/jobs.db", "overlay", "warning"),
    ],
)
def test_the_kind_of_file_system_under_a_place(place: str, kind: str, verdict: str) -> None:
    assert host.find_kind(MOUNTS, place) == kind
    assert table.judge_kind(kind, Path(place)).verdict == verdict


@pytest.mark.parametrize(
    ("version", "verdict"),
    [((3, 40, 1), "warning"), ((3, 51, 2), "warning"), ((3, 51, 3), "ok"), ((3, 53, 0), "ok")],
)
def test_an_sqlite_with_the_wal_reset_bug_is_told(version: tuple[int, ...], verdict: str) -> None:
    told = table.judge_library(version)
    assert told.verdict == verdict
    assert ("3.51.3" in told.cure) == (verdict == "warning")


def test_a_slow_disk_is_told() -> None:
    told = table.judge_pace([0.2, 0.3, 0.9])
    assert told.verdict == "warning"
    assert "takes 300.0 ms (the slowest of 3: 900.0 ms)" in told.what


def test_commits_are_timed_on_the_disk_and_leave_nothing(tmp_path: Path) -> None:
    took = table.time_commits(tmp_path)
    assert len(took) == 20
    assert all(seconds > 0 for seconds in took)
    assert os.listdir(tmp_path) == []


def test_the_memory_of_a_container_counts(tmp_path: Path) -> None:
    mine = tmp_path / "cgroup"
    mine.write_text("5:memory:/pod/one\n0::/pod/one\n")
    for place, text in (
        ("pod/one/memory.max", "max"), ("pod/memory.max", str(900 << 20)),
        ("memory/pod/one/memory.limit_in_bytes", str(1 << 62)),
    ):  # fmt: skip
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    assert find_whole(8 << 30, tmp_path, mine) == 900 << 20
    assert find_whole(8 << 30, tmp_path / "nowhere", mine) == 8 << 30


def test_memory_that_is_taken_now_is_a_warning(lived_in: House) -> None:
    settings = load_settings(lived_in.folder / "config.yaml")
    assert host.judge_memory(settings, workers=1, whole=8 << 30, free=1 << 20).verdict == "warning"
    assert host.judge_memory(settings, workers=1, whole=8 << 30, free=4 << 30).verdict == "ok"


@pytest.mark.parametrize(
    ("limit", "said"), [("-n 60", "60 open files are allowed"), ("-v 4000000", "address space is limited")]
)
def test_limits_of_the_process_are_told(lived_in: House, limit: str, said: str) -> None:
    command = ["bash", "-c", f'ulimit {limit} && exec "$@"', "-", *lived_in.command("doctor", "--json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    told = pick([Finding(**one) for one in json.loads(done.stdout)], "limits", "error", said)
    assert f"ulimit {limit.split()[0]}" in told.cure


# The rounds themselves


def boom() -> list[Finding]:
    raise ZeroDivisionError("by accident")


def test_a_check_that_stumbles_is_unknown_and_hides_nothing() -> None:
    checks = [Check("a", "first", boom), Check("a", "second", lambda: [ok("fine")])]
    assert [(one.subject, one.verdict, one.what) for one in make_rounds(checks)] == [
        ("a", "unknown", "first: ZeroDivisionError: by accident"),
        ("a", "ok", "fine"),
    ]


def test_what_needs_something_broken_is_not_looked_at_and_says_so() -> None:
    checks = [
        Check("a", "gate", boom, opens="gate"),
        Check("b", "inner", lambda: [ok("never seen")], needs=("gate",), opens="inner gate"),
        Check("b", "innermost", lambda: [ok("never seen")], needs=("inner gate",)),
        Check("b", "apart", lambda: [ok("seen")]),
    ]
    found = list(make_rounds(checks))[1:]
    assert [one.cure for one in found] == ["", "Mend the gate first.", "Mend the gate first."]
    assert [one.what for one in found] == [
        "seen",
        "not looked at, since the gate cannot be used as it is: inner",
        "not looked at, since the inner gate cannot be used as it is: innermost",
    ]


@pytest.mark.parametrize(
    ("is_command", "said"), [(True, "First: bgdeploy x"), (False, "Mend the gate first.")]
)
def test_whether_a_cure_is_a_command_is_not_read_from_it(is_command: bool, said: str) -> None:
    gate = warning("shut", "bgdeploy x", is_command=is_command)
    checks = [
        Check("a", "gate", lambda: [gate], opens="gate"),
        Check("b", "inner", lambda: [ok("never seen")], needs=("gate",)),
    ]
    found = list(make_rounds(checks))
    assert [(one.cure, one.is_consequence) for one in found] == [("bgdeploy x", False), (said, True)]


def test_a_file_that_hangs_costs_its_subject_and_nothing_else(lived_in: House) -> None:
    """A pipe in the place of a file: whoever opens it waits for ever, as on a dead network disk."""
    facts = lived_in.folder / "state/databases" / LIVE / "facts.json"
    facts.parent.chmod(0o755)
    facts.unlink()
    os.mkfifo(facts)
    with looking(load_settings(lived_in.folder / "config.yaml")) as site:
        quick = [
            Check(one.subject, one.title, one.look, one.needs, one.opens, limit=1.0, left="Look at X.")
            if one.subject == "databases" or one.title == "what is live"
            else one
            for one in find_checks(site)
        ]
        found = list(make_rounds(quick))
    told = pick(found, "databases", "unknown", "who wrote them: did not answer within 1 s")
    assert told.cure.endswith("Look at X.")
    pick(found, "databases", "unknown", "since who wrote them did not answer: sizes, protection")
    pick(found, "aliases", "ok", "each alias points at what it should")
    pick(found, "aliases", "unknown", "what is live: did not answer within 1 s")
    with open(facts, "w") as pipe:  # let the thread that was left behind go
        pipe.write("{}")
