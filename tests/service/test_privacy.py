"""Other users of the host can neither read the job table nor hold its locks or that of the aliases."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from bgdeploy.durable import is_open_to_others
from tests.house import House

FIRST, SECOND = 1700000001, 1700000002
NOBODY = 65534


@pytest.fixture(autouse=True)
def _usual_umask() -> object:
    before = os.umask(0o022)
    yield
    os.umask(before)


def closed(house: House) -> list[Path]:
    state = house.folder / "state"
    return [state / "jobs.db", state / "jobs.db.migrate.lock", state / "aliases/.lock"]


def test_they_are_private_from_the_start_and_are_made_so_again(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    assert [path for path in closed(house) if is_open_to_others(path)] == []
    database = house.folder / f"state/databases/acme-{FIRST}/graph.lbug"
    assert stat.S_IMODE(database.stat().st_mode) == 0o444, "readers need it"
    for path in closed(house):
        path.chmod(0o644)  # as an older version made them
    told = house.run("doctor", ok=False).stdout
    for path in closed(house):
        assert f"chmod 600 {path}" in told
        assert is_open_to_others(path), "a doctor changes nothing"
    house.drop("acme", SECOND)
    house.run("run", "--timeout", "60")
    assert [path for path in closed(house) if is_open_to_others(path)] == []
    assert "chmod 600" not in house.run("doctor", ok=False).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_user_cannot_hold_the_lock_of_the_aliases(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    for path in [house.folder, *house.folder.parents][:-2]:
        path.chmod(path.stat().st_mode | 0o055)
    graph = house.folder / "state/aliases/acme/graph.lbug"
    assert opens(graph), "readers of other users need it"
    assert [path for path in closed(house) if opens(path)] == []


def opens(path: Path) -> bool:
    """Whether another user may open a file at all: then it could lock it too."""
    tried = subprocess.run(
        ["/bin/sh", "-c", 'exec 9<"$1"', "sh", str(path)], user=NOBODY, cwd="/", check=False
    )
    return tried.returncode == 0
