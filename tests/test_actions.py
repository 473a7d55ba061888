"""An action is a verb that exists, and its command is one that the command line understands."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import bgdeploy
from bgdeploy.actions import COMMANDS, Action, Hint, do, page
from bgdeploy.cli.app import app
from bgdeploy.service.api import Deployments

PACKAGE = Path(bgdeploy.__file__).parent
ONLY_A_SHELL = {"serve", "run", "init", "config"}
EXAMPLES: dict[str, Any] = {"job_id": 7, "customer": "a b", "timestamp": 1700000001}


def parse(command: str) -> dict[str, Any]:
    """What the command line makes of it; an error where it cannot be understood."""
    words = shlex.split(command)
    assert words.pop(0) == "bgdeploy"
    found = typer.main.get_command(app)
    context = typer.Context(found, info_name="bgdeploy")
    while words and hasattr(found, "get_command") and (deeper := found.get_command(context, words[0])):
        found, context = deeper, typer.Context(deeper, context, info_name=words.pop(0))
    found.parse_args(context, words)
    return dict(context.params)


@pytest.mark.parametrize("verb", COMMANDS)
def test_each_verb_is_one_of_the_api_and_its_command_is_understood(verb: str) -> None:
    placed = COMMANDS[verb][1]
    if verb not in ONLY_A_SHELL:
        assert set(placed) <= set(inspect.signature(getattr(Deployments, verb)).parameters)
    parse(str(Action(verb, {name: EXAMPLES[name] for name in placed})))


@pytest.mark.parametrize(
    ("action", "command"),
    [
        (do("reload", job_id=7), "bgdeploy retry 7 --reload"),
        (do("reload", job_id=None), "bgdeploy retry <id> --reload"),
        (do("switch", customer="a b", to="a-b-1"), "bgdeploy switch 'a b' --to a-b-1"),
        (do("rollback", customer="acme", why=None), 'bgdeploy rollback acme --reason "..."'),
        (do("jobs", states=["queued", "loaded"], customer="a"), "bgdeploy jobs list --state queued --state loaded --customer a"),
        (do("init", rebind=True), "bgdeploy init --rebind"),
    ],
)  # fmt: skip
def test_an_action_is_written_as_a_command(action: Action, command: str) -> None:
    assert str(action) == command
    if "<" not in command:
        parse(command)


def test_a_hint_is_its_text_with_its_actions_beside_it() -> None:
    again = Hint("Load it again: ", do("reload", job_id=7))
    both = Hint("First: ", do("customers"), ". ", again)
    assert both == "First: bgdeploy customers. Load it again: bgdeploy retry 7 --reload"
    assert [action.verb for action in both.actions] == ["customers", "reload"]
    assert again.shown() == {
        "text": str(again),
        "actions": [{"verb": "reload", "arguments": {"job_id": 7}, "command": "bgdeploy retry 7 --reload"}],
    }
    assert Hint("Set it {in} config.yaml").actions == ()
    assert Hint("").shown() is None


def test_a_page_that_a_message_names_can_be_opened() -> None:
    assert Path(page("neo4j.md")).read_text().startswith("# On a Neo4j server")
    named = {
        name
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(r"page\(['\"]([a-z0-9-]+\.md)", path.read_text())
    }
    assert len(named) > 0
    assert [name for name in named if not Path(page(name)).is_file()] == []
