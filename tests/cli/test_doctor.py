"""How the doctor tells what it found: for people, for scripts, by its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cli.test_commands import on_a_terminal
from tests.house import House, make_house, make_removable

FIRST = 1700000001


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = make_house(tmp_path_factory.mktemp("house"))
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    yield house
    make_removable(house.folder)


def test_people_get_a_line_for_each_finding_below_its_subject_and_the_sum(lived_in: House) -> None:
    (lived_in.folder / "state/stranger").touch()
    lines = lived_in.run("doctor", "--verbose").stdout.splitlines()
    (lived_in.folder / "state/stranger").unlink()
    assert lines[0] == "configuration"
    assert lines[1].startswith("  ok       read from ")
    at = next(number for number, line in enumerate(lines) if "stranger is not bgdeploy's" in line)
    assert lines[at].startswith("  warning  ")
    assert lines[at + 1] == "           > It is left alone; remove it when you know what it is."
    assert lines[-1].startswith("0 error, ")
    assert "\x1b" not in "".join(lines)
    assert "\x1b[" in on_a_terminal(lived_in.command("doctor"))


def test_what_is_wrong_comes_first_and_what_is_well_takes_a_line_for_each_area(lived_in: House) -> None:
    (lived_in.folder / "state/stranger").touch()
    (lived_in.folder / "state/aliases/acme").rename(lived_in.folder / "state/aliases/gone")
    try:
        lines = lived_in.run("doctor", ok=False).stdout.splitlines()
    finally:
        (lived_in.folder / "state/aliases/gone").rename(lived_in.folder / "state/aliases/acme")
        (lived_in.folder / "state/stranger").unlink()
    assert lines[0].startswith("  error    aliases: the alias acme is missing")
    assert lines[1].startswith("           > ")
    told = [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert told == sorted(
        told, key=lambda word: ["error", "unknown", "warning"].index(word) if word[0] not in "o-" else 3
    )
    areas = [line for line in lines if line.startswith(("  ok  ", "  -  "))]
    assert len(areas) == 10 and lines[-len(areas) - 1 : -1] == areas, "last, and none in between"
    assert any("state folder: 5 ok; see above: 1 warning" in line for line in areas)
    assert len(lines) < 25
    assert lines[-1].endswith("all of it: bgdeploy doctor --verbose")


def test_before_the_first_start_what_others_rest_on_comes_first(house: House) -> None:
    lines = house.run("doctor").stdout.splitlines()
    told = [line for line in lines if line.startswith(("  unknown", "  warning"))]
    missing = next(number for number, line in enumerate(told) if "jobs.db does not exist yet" in line)
    resting = [number for number, line in enumerate(told) if "not looked at, since" in line]
    assert resting == list(range(resting[0], len(told))) and missing < resting[0]
    assert lines.count("           > First: bgdeploy init") == len(resting) > 5


def test_scripts_get_four_keys_for_each_finding(lived_in: House) -> None:
    found = lived_in.json("doctor")
    assert len(found) > 40
    assert {tuple(one) for one in found} == {("subject", "verdict", "what", "cure")}
    assert {one["verdict"] for one in found} <= {"ok", "warning", "error", "unknown"}


def test_an_error_ends_with_1_and_a_warning_with_0(lived_in: House) -> None:
    (lived_in.folder / "state/aliases/acme").rename(lived_in.folder / "state/aliases/gone")
    try:
        done = lived_in.run("doctor", "--json", ok=False)
    finally:
        (lived_in.folder / "state/aliases/gone").rename(lived_in.folder / "state/aliases/acme")
    assert done.returncode == 1
    told = [one for one in json.loads(done.stdout) if one["verdict"] == "error"]
    assert [one["subject"] for one in told] == ["aliases"]
    assert f"bgdeploy switch acme --to acme-{FIRST}" in told[0]["cure"]
    assert lived_in.run("doctor").returncode == 0


def test_the_cure_it_names_works(lived_in: House) -> None:
    (lived_in.folder / "state/aliases/acme").unlink()
    assert lived_in.run("doctor", ok=False).returncode == 1
    lived_in.run("switch", "acme", "--to", f"acme-{FIRST}")
    assert lived_in.run("doctor").returncode == 0


@pytest.mark.parametrize("words", [["--config", "nowhere.yaml"], ["--set", "nonsense=1"]])
def test_a_configuration_that_cannot_be_read_is_a_finding(lived_in: House, words: list[str]) -> None:
    command = lived_in.command()[:3]
    import subprocess

    done = subprocess.run(
        [*command, *words, "doctor"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "error    " in done.stdout
    assert "Mend the configuration first." in done.stdout
