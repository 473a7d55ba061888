"""What scripts rely on: the keys of every JSON answer, each of them, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from bgdeploy.service.results import Held
from tests.house import House, make_house, make_removable

FIRST, SECOND = 1700000001, 1700000002

FACTS = [
    "id", "customer", "timestamp", "build", "state", "database", "attempt", "interruptions", "rows_expected",
    "rows_confirmed", "bytes_expected", "blocked", "requested", "changed", "step", "reason", "reason_code", "reason_fields", "error", "error_code", "fence",
    "lease_owner", "lease_expires", "created_at", "updated_at", "queued_at", "loading_at", "loaded_at", "switched_at", "ended_at", "hint",
]  # fmt: skip
JOB = [*FACTS, "snapshot_at", "marks"]
STORY = [*JOB, "by_position", "progress", "tables", "proof", "timeline", "events"]
EVENT = ["id", "job_id", "customer", "kind", "source", "target", "actor", "fence", "message", "at", "by"]
PROGRESS = ["table", "rows", "expected", "rows_per_second", "seconds_left"]
GROUP = [
    "number", "kind", "name", "source_label", "target_label", "files", "rows_expected", "rows_confirmed", "rows_seen",
    "starts", "found", "confirmed_fence", "started_at", "confirmed_at",
]  # fmt: skip
SPAN = ["name", "kind", "from", "to", "seconds"]
CUSTOMER = [
    "customer", "alias", "live", "standby", "candidate", "undecided", "rolled_back", "paused", "removed", "pinned", "live_since",
    "snapshot_timestamp", "snapshot_age_seconds", "counts", "failed", "trouble", "trouble_code",
]  # fmt: skip
FAILURE = ["job", "timestamp", "error_code", "error", "hint"]
MOVE = [
    "id", "customer", "at", "source", "target", "kind", "by", "why", "generation", "took_ms", "job_id"
]  # fmt: skip
SCAN = ["customers", "discovered", "again", "queued", "waiting", "skipped", "failed", "errors"]
WAIT = ["customer", "timestamp", "waited_seconds", "verdict", "live", "why", "next", "hint", "job"]
HINT = ["text", "actions"]
ACTION = ["verb", "arguments", "command"]
PROCESS = [
    "id", "host", "pid", "role", "version", "workers", "state", "alive", "jobs", "started_at", "seen_at", "silent_seconds",
    "stopped_at", "last_words",
]  # fmt: skip
HELD = ["job", "customer", "timestamp", "build", "state", "lease_expires"]
OFFENDERS = ["job", "customer", "timestamp", "folder", "rows", "findings", "output"]


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """acme: live and standby; borealis: failed. Read only, but for scans that find nothing to do."""
    house = make_house(tmp_path_factory.mktemp("house"))
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    house.drop("acme", SECOND)
    house.drop("borealis", FIRST, broken="duplicate-id")
    house.run("run", "--timeout", "60", ok=False)
    yield house
    make_removable(house.folder)


def ask(house: House, *words: str) -> Any:
    """The answer of a command, whether it ends with 0 or with 1."""
    return json.loads(house.run(*words, "--json", ok=False).stdout)


def test_the_keys_of_jobs(lived_in: House) -> None:
    listed = ask(lived_in, "jobs", "list")
    assert len(listed) == 3
    assert [list(job) for job in listed] == [JOB] * 3
    story = ask(lived_in, "jobs", "show", "1")
    assert sorted(story) == sorted(STORY)
    assert {tuple(one) for one in story["events"]} == {tuple(EVENT)}
    assert {tuple(one) for one in story["progress"]} == {tuple(PROGRESS)}
    assert {tuple(one) for one in story["tables"]} == {tuple(GROUP)}
    assert {tuple(one) for one in story["timeline"]} == {tuple(SPAN)}
    assert {key: story[key] for key in JOB} == next(job for job in listed if job["id"] == 1)
    assert story["events"] == ask(lived_in, "jobs", "log", "1")
    assert story["marks"] == ["standby"]
    assert [action["verb"] for action in story["hint"]["actions"]] == ["customers", "pin"]


def test_the_keys_of_a_log(lived_in: House) -> None:
    assert {tuple(one) for one in ask(lived_in, "jobs", "log")} == {tuple(EVENT)}


def test_the_keys_of_customers_and_moves(lived_in: House) -> None:
    acme, borealis = ask(lived_in, "customers")
    assert list(acme) == list(borealis) == CUSTOMER
    assert list(borealis["failed"]) == FAILURE
    assert [action["verb"] for action in borealis["failed"]["hint"]["actions"]] == ["retry"]
    assert list(acme["counts"]) == ["labels", "types"]
    assert [list(move) for move in ask(lived_in, "switches")] == [MOVE] * 2


def test_the_keys_of_processes(lived_in: House) -> None:
    found = ask(lived_in, "processes")
    assert [list(one) for one in found] == [PROCESS] * 2
    assert {(one["role"], one["state"], one["last_words"]) for one in found} == {
        ("run", "stopped", "stopped")
    }
    assert [one.name for one in fields(Held)] == HELD


def test_the_keys_of_a_scan(lived_in: House) -> None:
    (lived_in.folder / "data/acme/12ab").mkdir(exist_ok=True)
    found = ask(lived_in, "scan", "--once")
    assert list(found) == SCAN
    assert list(found["skipped"][0]) == ["name", "reason"]


def test_the_keys_of_the_doctor(lived_in: House) -> None:
    assert {tuple(one) for one in ask(lived_in, "doctor")} == {("subject", "verdict", "what", "cure")}


@pytest.mark.parametrize(
    ("customer", "verdict"), [("acme", "live"), ("borealis", "failed"), ("nobody", "timeout")]
)
def test_the_keys_of_a_wait(lived_in: House, customer: str, verdict: str) -> None:
    found = ask(lived_in, "wait", customer, str(FIRST), "--timeout", "0")
    assert list(found) == WAIT
    assert found["verdict"] == verdict
    assert found["job"] is None if customer == "nobody" else list(found["job"]) == FACTS
    assert (found["hint"] or {"text": ""})["text"] == found["next"]
    if found["hint"] is not None:
        assert list(found["hint"]) == HINT
        assert {tuple(action) for action in found["hint"]["actions"]} == {tuple(ACTION)}


def test_the_keys_of_offenders(lived_in: House) -> None:
    failed = next(job["id"] for job in ask(lived_in, "jobs", "list") if job["state"] == "failed")
    found = ask(lived_in, "jobs", "offenders", str(failed))
    assert list(found) == OFFENDERS
    assert list(found["findings"][0]) == ["kind", "table", "problem", "rows", "ids", "first"]
    assert list(found["findings"][0]["first"][0]) == ["id", "places", "more"]
    assert list(found["findings"][0]["first"][0]["places"][0]) == ["file", "row"]
