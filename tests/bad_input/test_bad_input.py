"""Every bad input ends in a clear error, and nothing is lost: the table of them, with the words a user sees."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bgdeploy.cli.app import app
from bgdeploy.naming import alias_name
from tests.bad_input.snapshots import BAD, GOOD, KNOWS, PEOPLE
from tests.bad_input.table import BASE, COMMANDS, ODD_NAMES, RIGHT, SKIPPED, WAITING, place
from tests.house import House, make_house, make_removable
from tests.snapshots.folders import write

PERSONS = [{"id": "p1", "name": "Ada"}, {"id": "p2", "name": "Bo"}]
ASK = "MATCH (n:Person) RETURN n.id AS id, n.name AS name ORDER BY id"


@dataclass(frozen=True)
class Seen:
    """What an installation says after all of this was dropped on it."""

    house: House
    stderr: str  # of the run
    jobs: dict[tuple[str, int], dict[str, Any]]
    skipped: dict[str, str]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """One installation: something good is live, then come all that is bad, odd, unready or misnamed."""
    house = make_house(tmp_path_factory.mktemp("town"), num_workers=2)
    data = house.folder / "data"
    write(data / f"acme/{BASE}", GOOD)
    house.run("run", "--timeout", "60")
    for number, (make, _) in enumerate(BAD.values(), 1):
        make(data / f"acme/{BASE + number}")
    for name in ODD_NAMES:
        write(data / name / str(BASE), GOOD)
    for name, (make, *_) in RIGHT.items():
        make(data / f"{name}/{BASE}")
    write(data / f"none/{BASE}", KNOWS)
    for number, content in enumerate((GOOD, GOOD, PEOPLE)):
        write(data / f"two/{BASE + number}", content)
    done = house.run("run", "--timeout", "85", ok=False)
    assert done.returncode == 1, done.stderr
    for number, (make, _) in enumerate(WAITING.values(), 500):
        make(data / f"acme/{BASE + number}")
    (data / "hollow").mkdir()
    write(data / f"hollow/{BASE}", {"README": b"x"}).joinpath("README").unlink()
    shown = {place(data, name): name for name in SKIPPED}
    house.run("scan", "--once")
    reports: list[Any] = []

    def settled() -> bool:
        reports.append(house.json("scan", "--once"))
        there = house.json("jobs", "list", "--limit", "1000")
        reasons = " ".join(str(job["reason"]) for job in there)
        return "settling: unchanged" not in reasons and any(
            job["customer"] == "hollow" and job["state"] == "failed" for job in there
        )

    house.await_("all that was written has settled", settled)
    report = reports[-1]
    jobs = {(job["customer"], job["timestamp"]): job for job in house.json("jobs", "list", "--limit", "1000")}
    assert len(jobs) == len(house.json("jobs", "list", "--limit", "1000")), "a snapshot has one job"
    skipped = {shown.get(one["name"], one["name"]): one["reason"] for one in report["skipped"]}
    yield Seen(house, done.stderr, jobs, skipped)
    make_removable(house.folder)


def agree(said: str, wanted: str, folder: Path) -> None:
    """Fail unless a text is the one wanted, where ``{n}`` is any number, ``{here}`` this folder, ``{more}`` anything."""
    said = said.replace(str(folder), "{here}")
    pattern = re.escape(wanted).replace(re.escape("{n}"), r"[\d.,]+").replace(re.escape("{more}"), "(?s:.*)")
    assert re.fullmatch(pattern, said), f"\n{said}\nis not\n{wanted}"


def lives(house: House) -> dict[str, str]:
    """Every alias with what it points at, and every job with its state, as they lie there."""
    links = {path.name: str(path.readlink()) for path in (house.folder / "state/aliases").glob("[!.]*")}
    with closing(sqlite3.connect(house.folder / "state/jobs.db")) as connection:
        states = connection.execute("SELECT id, state FROM jobs").fetchall()
    return links | {f"job {number}": state for number, state in states}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_snapshot_fails_with_these_words_and_what_is_live_stays_live(town: Seen, name: str) -> None:
    job = town.jobs["acme", BASE + list(BAD).index(name) + 1]
    assert job["state"] == "failed", job
    agree(job["error"], BAD[name][1], town.house.folder)
    assert job["attempt"] <= 1, "what cannot become right is not tried again"
    assert town.stderr.count(f"acme/{job['timestamp']} failed: {job['error']}\n") == 1
    assert (
        f"failed: job {job['id']} acme/{job['timestamp']}; why: bgdeploy jobs show {job['id']}\n"
        in town.stderr
    )


def test_what_was_live_is_live_and_whole_and_nothing_was_left_behind(town: Seen) -> None:
    house = town.house
    assert house.live("acme") == f"acme-{BASE}"
    assert house.target().query("acme", ASK) == PERSONS
    assert house.leftovers() == []
    owned = {job["database"] for job in town.jobs.values() if job["state"] in ("switched", "loaded")}
    assert {path.name for path in (house.folder / "state/databases").iterdir()} == owned
    assert "Traceback" not in town.stderr


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_is_odd_and_allowed_works_under_this_alias(town: Seen, name: str) -> None:
    assert town.jobs[name, BASE]["state"] == "switched"
    assert alias_name(name, "neo4j") == ODD_NAMES[name]
    assert town.house.target().query(name, ASK) == PERSONS


@pytest.mark.parametrize("name", RIGHT)
def test_a_snapshot_that_looks_wrong_and_is_right_arrives_whole(town: Seen, name: str) -> None:
    _, question, answer = RIGHT[name]
    assert sorted(town.house.target().query(name, question), key=str) == sorted(answer, key=str)


@pytest.mark.parametrize("name", WAITING)
def test_a_snapshot_that_is_not_ready_says_why(town: Seen, name: str) -> None:
    job = town.jobs["acme", BASE + 500 + list(WAITING).index(name)]
    assert job["state"] == "discovered", job
    agree(job["reason"], WAITING[name][1], town.house.folder)


def test_a_snapshot_that_claims_to_be_whole_and_holds_nothing_fails_when_it_has_settled(town: Seen) -> None:
    job = town.jobs["hollow", BASE]
    assert job["state"] == "failed", job
    agree(
        job["error"],
        "{here}/data/hollow/1700000000 has no folder nodes/. Nothing of it was loaded. Lay the files out as "
        "nodes/<Label>/*.parquet, relationships/<TYPE>/*.parquet and "
        "relationships/<TYPE>/from=<Label>/to=<Label>/*.parquet.",
        town.house.folder,
    )


@pytest.mark.parametrize("name", SKIPPED)
def test_a_name_that_is_no_snapshots_is_skipped_with_its_reason(town: Seen, name: str) -> None:
    assert town.skipped[name] == SKIPPED[name]


def say(house: House, *words: str) -> tuple[int, str]:
    """Run a command in this process; return its exit code and its stderr."""
    config = str(house.folder / "config.yaml")
    done = CliRunner().invoke(app, ["--config", config, *words], prog_name="bgdeploy")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    COMMANDS,
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_command_that_cannot_be_done_says_why_and_changes_nothing(
    town: Seen, words: list[str], code: int, said: str
) -> None:
    ids = {"{live}": town.jobs["acme", BASE]["id"], "{failed}": town.jobs["none", BASE]["id"]}
    before = lives(town.house)
    found, stderr = say(town.house, *[str(ids.get(word, word)) for word in words])
    agree(stderr, said, town.house.folder)
    assert found == code
    assert lives(town.house) == before
