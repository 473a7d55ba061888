"""What scripts rely on: JSON keys, exit codes, and errors that go to stderr with their cure."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bgdeploy.cli.jobs import _why
from bgdeploy.config import load_settings
from bgdeploy.errors import NotReadable
from bgdeploy.jobs.states import State
from bgdeploy.pipeline.scan import scan
from bgdeploy.service.results import Job
from bgdeploy.site import open_site
from bgdeploy.snapshots import folders
from tests.house import House, make_house, make_removable, stop

FIRST, SECOND = 1700000001, 1700000002
JOB = {
    "id", "customer", "timestamp", "build", "state", "database", "attempt", "interruptions", "rows_expected",
    "rows_confirmed", "reason", "error", "lease_owner", "created_at", "updated_at",
}  # fmt: skip
CUSTOMER = {
    "customer", "live", "standby", "candidate", "rolled_back", "paused", "pinned", "live_since",
    "snapshot_timestamp", "failed",
}  # fmt: skip
TABLE = {"kind", "name", "files", "rows_expected", "rows_confirmed"}


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two customers, one of them with a standby, and one snapshot that failed. Read only."""
    house = make_house(tmp_path_factory.mktemp("house"))
    house.drop("acme", FIRST)
    house.drop("acme", SECOND)
    house.drop("borealis", FIRST, broken="duplicate-id")
    house.run("run", "--timeout", "60", ok=False)
    yield house
    make_removable(house.folder)


def test_jobs_list_has_its_keys_newest_first_and_its_filters(lived_in: House) -> None:
    jobs = lived_in.json("jobs", "list")
    assert all(set(job) >= JOB for job in jobs)
    assert [job["id"] for job in jobs] == sorted((job["id"] for job in jobs), reverse=True)
    assert {job["state"] for job in lived_in.json("jobs", "list", "--state", "failed")} == {"failed"}
    assert {job["customer"] for job in lived_in.json("jobs", "list", "--customer", "acme")} == {"acme"}
    assert len(lived_in.json("jobs", "list", "--limit", "1")) == 1
    assert lived_in.json("jobs", "list", "--customer", "nobody") == []


def test_customers_have_their_keys(lived_in: House) -> None:
    acme, borealis = lived_in.json("customers")
    assert set(acme) >= CUSTOMER
    assert (acme["live"], acme["standby"], acme["candidate"]) == (f"acme-{SECOND}", f"acme-{FIRST}", None)
    assert (borealis["live"], borealis["standby"], borealis["candidate"]) == (None, None, None)
    assert (acme["snapshot_timestamp"], borealis["snapshot_timestamp"]) == (SECOND, None)
    assert acme["failed"] is None
    assert borealis["failed"]["timestamp"] == FIRST and "repeats an id" in borealis["failed"]["error"]
    shown = lived_in.run("customers").stdout
    assert f"newest FAILED: {FIRST}" in shown
    assert f"why it failed: bgdeploy jobs show {borealis['failed']['job']}" in shown
    failed = lived_in.json("customers", "--state", "failed")
    assert [one["customer"] for one in failed] == ["borealis"]


def test_jobs_show_tells_the_whole_story(lived_in: House) -> None:
    job = lived_in.json("jobs", "show", "1")
    assert set(job) >= JOB | {"tables", "events"}
    assert all(set(table) >= TABLE for table in job["tables"])
    path = [event["target"] for event in job["events"] if event["target"]]
    assert path == ["discovered", "queued", "loading", "loaded", "switched"]
    readable = lived_in.run("jobs", "show", "1").stdout
    assert "HAS_ADDRESS" in readable
    assert "Entity -> Address" in readable


def test_query_gives_one_object_per_row(lived_in: House) -> None:
    rows = lived_in.json(
        "query", "acme", "MATCH (n:Entity) RETURN count(*) AS entities, min(n.nodeId) AS first"
    )
    assert rows == [{"entities": 200, "first": "E0"}]
    assert lived_in.json("query", "acme", "MATCH (n:Entity) WHERE n.nodeId = 'no' RETURN n.name") == []


def test_query_shows_values_as_people_read_them(lived_in: House) -> None:
    asked = "MATCH p=(a:Entity)-[r]->(b) RETURN p, [1, null] AS l, {a: date('2024-01-31'), b: null} AS m, null AS z, true AS t LIMIT 1"
    shown = lived_in.run("query", "acme", asked).stdout
    assert "{a: 2024-01-31, b: null}" in shown and "[1, null]" in shown and "true" in shown
    assert "(:Entity {nodeId: 'E" in shown and "-[:HAS_ADDRESS" in shown and "->(:Address {" in shown
    assert "datetime" not in shown and "None" not in shown and "_ID" not in shown
    assert lived_in.json("query", "acme", asked)[0]["m"] == {"a": "2024-01-31", "b": None}


def test_a_long_reason_is_cut_where_the_job_is_named_and_a_decision_is_not(lived_in: House) -> None:
    (failed,) = lived_in.json("jobs", "list", "--state", "failed")
    line = lived_in.run("jobs", "list", "--state", "failed").stdout.splitlines()[1]
    assert line.endswith(f" ... (jobs show {failed['id']})")
    whole = lived_in.run("jobs", "show", str(failed["id"])).stdout
    assert failed["error"] in whole
    assert whole.splitlines()[-1].startswith("Mend its folder, and a running bgdeploy serve")
    long = "fewer rows than live: " + "Entity 1,000 -> 10; " * 20 + "bgdeploy switch acme --to x"
    asked = Job(**{**failed, "state": State.LOADED, "blocked": True, "reason": long})
    assert _why(asked) == (long, False)
    assert _why(replace(asked, blocked=False, reason=None))[0].endswith("by: bgdeploy run")


def test_config_shows_value_and_origin_of_each_key(lived_in: House) -> None:
    rows = {row["key"]: row for row in lived_in.json("config")}
    assert rows["dataset.settle_seconds"]["value"] == "0.2"
    assert ":" in rows["dataset.settle_seconds"]["origin"].rpartition("config.yaml")[2]
    assert rows["orchestrator.num_workers"]["origin"] == "default"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["jobs", "show", "999"], 4, "There is no job 999"),
        (["jobs", "log", "999"], 4, "There is no job 999"),
        (["retry", "999"], 4, "There is no job 999"),
        (["retry", "1"], 5, "is switched, not failed"),
        (["retry"], 2, "give ids of jobs, or --all-failed"),
        (["retry", "1", "--all-failed"], 2, "give ids of jobs, or --all-failed"),
        (["retry", "3", "--reload"], 5, "is failed; only a loaded, switched or cleaned one is reloaded"),
        (["jobs", "list", "--state", "loadign"], 2, "no state 'loadign'"),
        (["query", "acm", "MATCH (n) RETURN n"], 4, "There are: acme, borealis"),
        (["query", "borealis", "MATCH (n) RETURN n"], 4, "Nothing is live"),
        (["query", "acme", "MATCH (n"], 1, "Parser exception"),
        (["query", "acme", "MATCH (n:Order) RETURN n"], 1, "'MATCH (n:`Order`) RETURN n LIMIT 1'"),
        (
            ["query", "acme", "MATCH (n:Nope) RETURN n"],
            1,
            "There are the labels Address, Entity; the types HAS_ADDRESS.",
        ),
        (["query", "acme", "MATCH (n:Entity) RETURN n.nope"], 1, "What a node has: bgdeploy query acme"),
        (["query", "acme", "RETURN m"], 1, "Name it in a MATCH or WITH"),
        (["query", "acme", ""], 1, "Such as: bgdeploy query acme"),
        (["query", "acme", "CREATE (:Entity {nodeId: 'x'})"], 1, "what is live is only read"),
        (
            ["query", "acme", "MATCH (n) DETACH DELETE n"],
            1,
            "Its data changes by a new snapshot of acme",
        ),
        (["query", "acme", "MATCH (n) DETACH DELETE n"], 1, "read-only"),
        (["switch", "acme"], 4, "no loaded database that waits"),
        (["switch", "acme"], 4, f"bgdeploy switch acme --to acme-{FIRST}  (the standby)"),
        (
            ["rollback", "acme", "--to", f"acme-{SECOND}", "--reason", "x"],
            5,
            f"switch acme --to acme-{FIRST}",
        ),
        (["switch", "acme", "--to", "nonsense"], 4, "There is no database 'nonsense'"),
        (["switch", "nobody"], 4, "There is no customer 'nobody'"),
        (["rollback", "borealis", "--reason", "x"], 5, "nothing to go back to"),
        (["rollback", "acme"], 2, "--reason"),
        (["rollback", "acme", "--to", f"acme-{SECOND}", "--reason", "x"], 5, "is live already"),
        (["pause", "nobody"], 4, "There is no customer 'nobody'"),
        (["simulate", "--customer", "../etc"], 5, "cannot be a customer's folder"),
        (["simulate", "--customer", "acme", "--timestamp", str(FIRST)], 5, "exists"),
        (["serve", "--workers", "0"], 2, "--workers"),
        (["--set", "orchestrator.num_workers=0", "customers"], 3, "must be at least 1"),
        (["--set", "nonsense=0", "customers"], 3, "unknown key"),
        (["--set", "nonsense", "customers"], 2, "not KEY=VALUE"),
        (["nonsense"], 2, "No such command"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else None,
)
def test_a_refusal_has_its_exit_code_and_says_why_on_stderr(
    lived_in: House, words: list[str], code: int, said: str
) -> None:
    done = lived_in.run(*words, ok=False)
    assert done.returncode == code, done.stderr + done.stdout
    assert said in done.stderr
    assert done.stdout == ""


def test_a_closed_pipe_is_no_error(lived_in: House) -> None:
    command = lived_in.command("jobs", "list", "--json")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", '"$@" | head -c 1 > /dev/null', "-", *command],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(lived_in: House, redirection: str) -> None:
    command = ["bash", "-c", f'"$@" {redirection}', "-", *lived_in.command("customers")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_are_printed_whatever_the_character_set(house: House) -> None:
    (house.folder / "data/Größe/1700000001").mkdir(parents=True)
    environ = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    for words in (["scan", "--once"], ["customers"], ["jobs", "list"]):
        done = subprocess.run(house.command(*words), capture_output=True, env=environ, timeout=60, check=True)
        assert b"Gr\\xf6\\xdfe" in done.stdout


def test_colours_only_on_a_terminal(lived_in: House) -> None:
    assert "\x1b" not in lived_in.run("jobs", "list").stdout
    assert "\x1b[" in on_a_terminal(lived_in.command("jobs", "list"))


@pytest.mark.parametrize("columns", [80, 44])
def test_the_picture_of_a_job_fits_the_terminal(lived_in: House, columns: int) -> None:
    """A line that the terminal breaks would begin its bar at the left edge."""
    shown = on_a_terminal(lived_in.command("jobs", "show", "1"), columns=columns)
    picture = re.sub(r"\x1b\[\d*m", "", shown).partition("█ work")[2].partition("\r\n\r\n")[0]
    lines = picture.splitlines()[1:]
    assert [line.split()[0] for line in lines[:3]] == ["discovered", "queued", "loading"]
    assert all(line[-1] in "░█" and len(line) <= columns for line in lines)


def on_a_terminal(command: list[str], *, code: int = 0, columns: int = 140) -> str:
    """Return what a command writes to a terminal before it ends with this code."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environ)
    os.close(theirs)
    written = b""
    try:
        while some := os.read(ours, 4096):
            written += some
    except OSError:
        pass  # the other end is closed
    assert process.wait(60) == code
    return written.decode()


def test_scan_says_a_line_for_each_folder_and_leaves_loading_to_others(house: House) -> None:
    house.drop("acme", FIRST)
    for name in ("acme/017000", "acme/1767741427000", "acme/latest"):
        (house.folder / "data" / name).mkdir()
    done = house.run("scan", "--once").stdout
    assert f"discovered  acme/{FIRST}" in done
    assert f"queued      acme/{FIRST}" in done
    for name, reason in (
        ("017000", "begins with a zero"),
        ("1767741427000", "milliseconds"),
        ("latest", "not a number"),
    ):
        assert f"skipped     acme/{name}: " in done
        assert reason in done
    assert house.states() == {FIRST: "queued"}
    again = house.run("scan", "--once").stdout
    assert "1 customer(s): 0 new, 0 queued" in again


def test_scan_as_json_names_what_it_skipped_and_why(house: House) -> None:
    (house.folder / "data/acme/latest").mkdir(parents=True)
    (house.folder / f"data/acme/{FIRST}").mkdir()
    found = house.json("scan", "--once")
    assert [one["name"] for one in found["skipped"]] == ["acme/latest"]
    assert "not a number" in found["skipped"][0]["reason"]
    assert found["discovered"] == [f"acme/{FIRST}"]
    waiting = house.json("scan")["waiting"]
    assert waiting in ([], [{"name": f"acme/{FIRST}", "reason": "no data files yet"}])


@pytest.mark.parametrize(
    "words",
    [
        ["jobs", "list"], ["jobs", "show", "1"], ["jobs", "log"], ["customers"], ["switches"], ["query", "a", "RETURN 1"],
        ["retry", "1"], ["switch", "a"], ["rollback", "a", "--reason", "x"], ["pause", "a"], ["resume", "a"], ["pin", "a"],
        ["wait", "a", "1"], ["customers", "remove", "a"], ["jobs", "cancel", "1"], ["jobs", "offenders", "1"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_looking_where_there_is_nothing_makes_nothing_and_says_so(tmp_path: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "bgdeploy", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (6, "")
    assert f"There is no job table {tmp_path}/.bgdeploy/jobs.db" in done.stderr
    assert "bgdeploy init" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_move_to_what_is_live_already_is_none(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    done = house.run("switch", "acme", "--to", f"acme-{FIRST}")
    assert done.stdout == f"acme-{FIRST} is live already; nothing was done\n"
    assert [one["kind"] for one in house.json("switches")] == ["deploy"]


def test_a_pause_is_the_reason_of_what_it_holds_back(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("scan", "--once")
    house.run("pause", "acme", "--reason", "freeze")
    said = "acme is paused (freeze); go on with: bgdeploy resume acme"
    assert house.json("jobs", "list")[0]["reason"] == said
    assert house.json("jobs", "show", "1")["reason"] == said
    refused = house.run("retry", "1", ok=False)
    assert said in refused.stderr and "by itself" not in refused.stderr
    assert "--state queued" in house.run("resume", "acme").stdout
    assert house.json("jobs", "list")[0]["reason"] is None


def test_what_a_person_cancelled_is_no_failed_delivery(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("scan", "--once")
    house.run("jobs", "cancel", "1")
    assert house.json("customers")[0]["failed"] is None
    assert house.json("customers", "--state", "failed") == []
    assert "job 1" not in house.run("doctor").stdout
    house.run("run", "--timeout", "30")


def test_scan_of_nothing_is_fine_and_of_a_lost_mount_is_not(house: House) -> None:
    assert "0 customer(s)" in house.run("scan", "--once").stdout
    (house.folder / "data").rmdir()
    lost = house.run("scan", "--once", ok=False)
    assert lost.returncode == 1
    assert "cannot be listed" in lost.stderr


def test_one_unreadable_customer_never_stops_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for customer in ("acme", "bad", "zebra"):
        house.drop(customer, FIRST)
    site = open_site(load_settings(house.folder / "config.yaml"))
    scan(site)
    listed = folders.list_timestamps

    def list_timestamps(folder: Path, **asked: Any) -> folders.Listing:
        if folder.name == "bad":
            raise NotReadable(f"The folder {folder} cannot be listed: Input/output error.")
        return listed(folder, **asked)

    monkeypatch.setattr(folders, "list_timestamps", list_timestamps)
    for customer in ("acme", "bad", "zebra"):
        house.drop(customer, SECOND)
    report = scan(site)
    assert report.discovered == [f"acme/{SECOND}", f"zebra/{SECOND}"]
    assert report.errors == [
        ("bad", f"The folder {house.folder}/data/bad cannot be listed: Input/output error.")
    ]
    assert {job["state"] for job in house.json("jobs", "list", "--customer", "bad")} == {"discovered"}


def test_the_log_is_json_lines_when_asked(house: House) -> None:
    service = house.start("serve", "--log-format", "json")
    house.drop("acme", FIRST)
    house.await_("it is live", lambda: house.live("acme") is not None)
    assert stop(service) == 0
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in (house.folder / "log").read_text().splitlines()
    ]
    assert all({"at", "level", "event", "message"} <= set(line) for line in lines)
    told = [line["event"] for line in lines]
    for event in ("service.started", "scan.discovered", "scan.queued", "health.fine", "load.claimed",
                  "load.progress", "load.loaded", "switch.moved", "service.stopped"):  # fmt: skip
        assert event in told
    progress = next(line for line in lines if line["event"] == "load.progress")
    assert progress["rows"] <= progress["expected"] == 500
    assert {"rows_per_second", "seconds_left", "share"} <= set(progress)
    assert not any(name.startswith("_") for line in lines for name in line)
    number = house.json("jobs", "list")[0]["id"]
    of_job = [line for line in lines if line["event"].startswith(("scan.", "load.", "switch.", "health."))]
    assert {(line["customer"], line["timestamp"], line["job"], line["build"]) for line in of_job} == {
        ("acme", FIRST, number, 1)
    }
    assert all(not isinstance(value, str) or not value.isdigit() for line in lines for value in line.values())


def test_a_line_of_the_log_has_date_and_zone(house: House) -> None:
    told = house.run("run", "--timeout", "30").stderr.splitlines()
    assert told
    assert all(re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ (info|warning|error) ", line) for line in told)


def test_run_ends_when_its_time_is_over_and_the_next_one_resumes(house: House) -> None:
    """The load hangs; it would get shutdown_timeout (300 s) more at any other stop."""
    house.drop("acme", FIRST)
    began = time.monotonic()
    done = house.run("run", "--timeout", "6", failpoint="load.group.confirmed:1:stop", ok=False)
    assert done.returncode == 1
    assert time.monotonic() - began < 40
    assert "not everything could be finished" in done.stderr
    assert house.json("jobs", "list")[0]["state"] == "queued"
    house.run("run", "--timeout", "60")
    assert house.live("acme") == f"acme-{FIRST}"


def test_init_makes_a_place_that_works_and_rebind_moves_it(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()

    def run(*words: str, at: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bgdeploy", *words]
        return subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=60, check=False)

    assert run("init", at=first).returncode == 0
    assert (first / "config.yaml").exists()
    assert run("init", at=first).returncode == 0, "twice is fine"
    first.rename(tmp_path / "second")
    moved = run("customers", at=tmp_path / "second")
    assert moved.returncode == 5
    assert "init --rebind" in moved.stderr
    assert run("init", "--rebind", at=tmp_path / "second").returncode == 0
    assert run("customers", at=tmp_path / "second").returncode == 0


def test_nonsense_in_the_configuration_is_told_by_every_command(house: House) -> None:
    (house.folder / "config.yaml").write_text("orchestrator: {num_workers: none}\nnonsense: 1\n")
    for words in (["serve"], ["run"], ["scan"], ["customers"], ["jobs", "list"], ["db", "current"], ["init"]):
        done = house.run(*words, ok=False)
        assert done.returncode == 3, words
        assert "config.yaml:1" in done.stderr
        assert "config.yaml:2" in done.stderr
