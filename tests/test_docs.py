"""The documentation speaks of what is there: tests, files, commands, settings."""

from __future__ import annotations

import ast
import json
import logging
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bgdeploy.cli.app import app
from bgdeploy.config import SCHEMA
from bgdeploy.config_file import leaves
from bgdeploy.errors import ExitCode
from bgdeploy.log import EVENTS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_every_test_a_promise_rests_on_exists() -> None:
    named = re.findall(r"`([a-z0-9/_]+\.py)::(test_[a-z0-9_]+)`", (ROOT / "docs/guarantees.md").read_text())
    assert len(named) > 50
    missing = [
        (file, name) for file, name in named if f"def {name}(" not in (ROOT / "tests" / file).read_text()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page: Path) -> None:
    known = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    known |= {group.name for group in app.registered_groups}
    shown = re.findall(r"(?:^|`)bgdeploy ([a-z]+)", page.read_text(), re.MULTILINE)
    assert set(shown) <= known


def test_every_alarm_has_a_row_that_says_what_to_do() -> None:
    page = (ROOT / "docs/alarms.md").read_text()
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| (warning|error) \| (.{10,}) \|$", page, re.MULTILINE)
    alarms = [
        (event, logging.getLevelName(level).lower())
        for event, (level, _) in EVENTS.items()
        if level >= logging.WARNING
    ]
    assert len(alarms) > 20
    assert sorted((event, level) for event, level, _ in rows) == sorted(alarms)


def test_every_event_that_a_page_names_exists() -> None:
    kinds = {event.partition(".")[0] for event in EVENTS}
    for page in PAGES:
        named = {name for name in re.findall(r"`([a-z]+\.[a-z_]+)`", page.read_text()) if name[-3:] != ".py"}
        named -= {".".join(path) for path in leaves(SCHEMA)}  # settings are written alike
        assert {name for name in named - set(EVENTS) if name.partition(".")[0] in kinds} == set(), page


def test_exit_codes_stand_once_in_the_docs_and_are_those_in_the_code() -> None:
    shown = {
        page.name: re.findall(r"^\| (\d+) \| (.+) \|$", page.read_text(), re.MULTILINE)
        for page in PAGES
        if "| exit code |" in page.read_text()
    }
    assert shown == {"cli.md": [(str(code.value), code.meaning) for code in sorted(ExitCode)]}


def test_every_command_ends_with_a_code_of_the_enum() -> None:
    for path in (ROOT / "bgdeploy").rglob("*.py"):
        bare = re.findall(r"(?:typer\.Exit|SystemExit|sys\.exit)\(\s*\d", path.read_text())
        assert bare == [], path


def test_nothing_of_this_machine_is_in_the_repository() -> None:
    pages = [
        *PAGES,
        *(ROOT / "bgdeploy").rglob("*.py"),
        ROOT / "config.yaml",
        *ROOT.glob("requirements*.lock"),
    ]
    for page in pages:
        text = page.read_text()
        assert "index-url" not in text, page
        assert "find-links" not in text, page
        assert str(Path.home()) not in text, page


def test_every_message_in_troubleshooting_is_one_that_is_said() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    quoted = re.findall(r"^\| > (.+?) \| ", page, re.MULTILINE)
    assert len(quoted) > 50
    said = "\n".join(
        _texts(path) for folder in ("bgdeploy", "tests/bad_input") for path in (ROOT / folder).rglob("*.py")
    )
    missing = [one for one in quoted if not all(part.strip() in said for part in one.split("..."))]
    assert missing == []


def _texts(path: Path) -> str:
    """Every text in a module, with what is filled in left out."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return "\n".join(found)


def test_the_documented_alarm_fires_for_trouble_and_not_for_customers_that_were_removed() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    asked = re.search(r"bgdeploy customers --json \| jq -r '([^']+)'", page)
    assert asked is not None
    if (jq := shutil.which("jq")) is None:
        pytest.skip("no jq")
    fine = {"trouble": None, "live": "x-1", "snapshot_age_seconds": 60, "removed": False}
    shown = [
        {**fine, "customer": "fine"},
        {**fine, "customer": "gone", "live": None, "removed": True},
        {**fine, "customer": "empty", "live": None},
        {**fine, "customer": "old", "snapshot_age_seconds": 999_999},
        {**fine, "customer": "troubled", "trouble": "the alias points at nothing"},
    ]
    done = subprocess.run(
        [jq, "-r", asked[1]], input=json.dumps(shown), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["empty", "old", "troubled"]
