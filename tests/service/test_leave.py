"""A customer leaves: first it is said what goes, then it goes, whatever dies meanwhile."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from datetime import datetime

import pytest

from tests.house import House, stop

FIRST = 1700000001


def run(house: House, ok: bool = True) -> None:
    house.run("run", "--timeout", "60", ok=ok)


@pytest.fixture
def served(house: House) -> House:
    return serve(house)


def serve(house: House) -> House:
    for number in range(2):
        house.drop("acme", FIRST + number, rows=50)
        house.drop("acme-eu", FIRST + number, rows=50)
    run(house)
    return house


def databases(house: House) -> set[str]:
    return {found.name for found in house.target().databases()}


def test_it_is_said_first_and_nothing_is_done(served: House) -> None:
    said = served.run("customers", "remove", "acme").stdout
    assert f"acme-{FIRST}" in said
    assert f"acme-{FIRST + 1}" in said
    assert "nothing was done; to do it: bgdeploy customers remove acme --yes" in said
    assert served.live("acme") == f"acme-{FIRST + 1}"


def test_alias_and_databases_go_and_the_neighbour_stays(any_house: House) -> None:
    served = serve(any_house)
    served.run("pin", "acme")
    said = served.run("customers", "remove", "acme", "--yes", "--reason", "contract ended").stdout
    assert "to take it back once they are gone: bgdeploy resume acme" in said
    assert served.target().alias("acme") is None
    run(served)
    assert databases(served) == {f"acme-eu-{FIRST}", f"acme-eu-{FIRST + 1}"}
    assert served.target().alias("acme-eu") == f"acme-eu-{FIRST + 1}"
    assert {job["state"] for job in served.json("jobs", "list", "--customer", "acme")} == {"cleaned"}
    newest = served.json("switches", "acme")[0]
    assert (newest["kind"], newest["source"], newest["target"], newest["why"]) == (
        "remove", f"acme-{FIRST + 1}", None, "contract ended",
    )  # fmt: skip


def test_nothing_of_it_comes_back_until_a_person_says_so(served: House) -> None:
    served.run("customers", "remove", "acme", "--yes")
    served.drop("acme", FIRST + 2, rows=50)
    said = served.run("run", "--timeout", "60").stderr
    assert "nothing of acme is loaded: it was removed; to take it back: bgdeploy resume acme" in said
    assert "skipped acme" not in said
    assert "warning" not in {
        one["verdict"] for one in served.json("doctor") if one["subject"] in ("jobs", "base folder")
    }
    assert "it was removed; to take it back: bgdeploy resume acme" in served.run("scan").stdout
    assert served.target().alias("acme") is None
    for words in (("switch", "acme", "--to", f"acme-{FIRST + 1}"), ("rollback", "acme", "--reason", "x")):
        assert served.run(*words, ok=False).returncode in (4, 5)
    served.run("resume", "acme")
    run(served)
    assert served.live("acme") == f"acme-{FIRST + 2}"


def test_nobody_comes_back_while_databases_of_it_are_still_to_go(served: House) -> None:
    """One that is doomed would become the way back of what is live next."""
    served.run("customers", "remove", "acme", "--yes")
    refused = served.run("resume", "acme", ok=False)
    assert refused.returncode == 5
    assert "acme is leaving: 2 databases of it still to be dropped" in refused.stderr
    assert "stays until" not in refused.stderr, "there is no grace here"
    patient = served.run("--set", "orchestrator.drop_grace_seconds=3600", "resume", "acme", ok=False)
    until = re.search(r"stays until (\S+): bgdeploy run does not drop it before\.", patient.stderr)
    assert until is not None, patient.stderr
    assert 3500 < datetime.fromisoformat(until[1]).timestamp() - time.time() <= 3601
    assert "It stays removed." in refused.stderr and "bgdeploy run" in refused.stderr
    run(served)
    served.run("resume", "acme")
    served.drop("acme", FIRST + 2, rows=50)
    run(served)
    (acme,) = (one for one in served.json("customers") if one["customer"] == "acme")
    assert (acme["live"], acme["standby"]) == (f"acme-{FIRST + 2}", None)


@pytest.mark.parametrize("moment", ["leave.said", "leave.retired"])
def test_a_kill_while_it_leaves_is_finished_later(any_house: House, moment: str) -> None:
    served = serve(any_house)
    done = served.run("customers", "remove", "acme", "--yes", failpoint=f"{moment}:1:kill", ok=False)
    assert done.returncode == -signal.SIGKILL
    run(served)
    assert served.target().alias("acme") is None
    assert databases(served) == {f"acme-eu-{FIRST}", f"acme-eu-{FIRST + 1}"}


def test_a_load_that_runs_is_ended(house: House) -> None:
    house.drop("acme", FIRST, rows=20_000)
    service: subprocess.Popen[bytes] = house.start("serve", failpoint="load.group.confirmed:1:stop")
    house.await_("it loads", lambda: house.states().get(FIRST) == "loading")
    house.run("customers", "remove", "acme", "--yes")
    house.await_("it ended", lambda: house.states()[FIRST] == "failed")
    house.await_("its build is gone", lambda: databases(house) == set())
    assert stop(service) == 0
    assert house.json("jobs", "list")[0]["error_code"] == "cancelled"
