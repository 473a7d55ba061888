"""Completion as a shell asks for it: names from the job table, and silence whatever is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import House, make_house, make_removable

FIRST, SECOND = 1700000001, 1700000002


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = make_house(tmp_path_factory.mktemp("house"))
    for customer, timestamp in (("acme", FIRST), ("acme", SECOND), ("acme-eu", FIRST)):
        house.drop(customer, timestamp)
    house.drop("borealis", FIRST, broken="duplicate-id")
    house.run("run", "--timeout", "60", ok=False)
    house.drop("borealis", SECOND)
    house.run("scan", "--once")
    yield house
    make_removable(house.folder)


def complete(folder: Path, line: str, *options: str, shell: str = "bash") -> list[str]:
    """Return what a shell would propose for the last word of a line."""
    words = ["bgdeploy", *options, *line.split(" ")]
    asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    asked |= {"_TYPER_COMPLETE_ARGS": " ".join(words), "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    environ = {**os.environ, **asked, "_BGDEPLOY_COMPLETE": f"complete_{shell}"}
    code = "import sys; sys.argv = ['bgdeploy']; from bgdeploy.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environ, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


@pytest.mark.parametrize(
    ("line", "proposed"),
    [
        ("rollback ", ["acme", "acme-eu", "borealis"]),
        ("pin ac", ["acme", "acme-eu"]),
        ("wait b", ["borealis"]),
        ("wait acme 17", [str(SECOND), str(FIRST)]),
        ("query x", []),
        ("jobs list --customer b", ["borealis"]),
        ("customers --customer acme-", ["acme-eu"]),
        ("switch acme --to ", [f"acme-{SECOND}", f"acme-{FIRST}"]),
        ("rollback acme-eu --to a", [f"acme-eu-{FIRST}"]),
        ("pin acme --database ", [f"acme-{SECOND}", f"acme-{FIRST}"]),
        ("jobs show ", ["5", "4", "3", "2", "1"]),
        ("jobs log 4", ["4"]),
        ("retry ", ["4"]),
        ("jobs cancel ", ["5"]),
        ("jobs list --state lo", ["loading", "loaded"]),
        ("jobs list --error ", ["bad-input"]),
        ("customers --state p", ["paused"]),
        ("jobs ca", ["cancel"]),
        ("unp", ["unpin"]),
    ],
)
def test_each_argument_proposes_what_fits(lived_in: House, line: str, proposed: list[str]) -> None:
    assert complete(lived_in.folder, line) == proposed


def test_the_configuration_that_stands_before_is_the_one_that_counts(lived_in: House, tmp_path: Path) -> None:
    given = ("--config", str(lived_in.folder / "config.yaml"))
    assert complete(tmp_path, "rollback b", *given) == ["borealis"]
    elsewhere = ("--set", f"database_url=sqlite:///{lived_in.folder}/state/jobs.db")
    assert complete(tmp_path, "rollback b", *elsewhere) == ["borealis"]


def test_jobs_are_told_apart_by_what_they_stand_for(lived_in: House) -> None:
    assert complete(lived_in.folder, "retry ", shell="fish") == [f"4\tborealis/{FIRST} failed"]


@pytest.mark.parametrize("line", ["rollback ", "jobs show ", "switch acme --to ", "jobs list --error "])
def test_whatever_is_wrong_nothing_is_said_and_nothing_is_made(tmp_path: Path, line: str) -> None:
    assert complete(tmp_path, line) == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "config.yaml").write_text("nonsense: [")
    assert complete(tmp_path, line) == []
    (tmp_path / "config.yaml").write_text("state_dir: state\n")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/jobs.db").write_text("this is no job table")
    assert complete(tmp_path, line) == []
    assert complete(tmp_path, line, "--set", "nonsense") == []


def test_completion_installs_itself(tmp_path: Path) -> None:
    environ = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "bgdeploy", "--install-completion", "bash"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "_COMPLETE=complete_bash" in "".join(
        path.read_text() for path in tmp_path.rglob("*") if path.is_file()
    )
