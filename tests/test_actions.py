"""An action is a verb that exists, and its command is one that the command line understands."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import bgdeploy
from bgdeploy.actions import COMMANDS, Action, Hint, do, page
from bgdeploy.cli.app import app
from bgdeploy.service.api import Deployments
from bgdeploy.service.results import advice, to_json

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
        (do("pause", customer="-rf", why="a test"), "bgdeploy pause --reason 'a test' -- -rf"),
        (do("doctor", try_rights=False), "bgdeploy doctor"),
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
    assert to_json(advice(again)) == {
        "text": str(again),
        "actions": [{"verb": "reload", "arguments": {"job_id": 7}, "command": "bgdeploy retry 7 --reload"}],
    }
    assert Hint("Set it {in} config.yaml").actions == ()
    assert advice(Hint("")) is None


def test_a_page_that_a_message_names_can_be_opened() -> None:
    assert Path(page("neo4j.md")).read_text().startswith("# On a Neo4j server")
    named = {
        name
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(r"page\(['\"]([a-z0-9-]+\.md)", path.read_text())
    }
    assert len(named) > 0
    assert [name for name in named if not Path(page(name)).is_file()] == []


TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
# Hints that still hold commands as text: of what is not reworked yet, and the terminal's own feet of tables.
AS_TEXT = (
    "cli/",  # the terminal's own
    "pipeline/",
    "jobs/",
    "service/doctor/",
    "finding.py",
    "log.py",  # lines of the log: text
    "actions.py",  # its own examples
)
# A command that stands in a sentence as the name of what runs, or that no action can quote as people type it.
IN_SENTENCES = {
    "service/views.py": "a running bgdeploy serve or the next bgdeploy scan",
    "targets/ladybug/checks.py": "A running bgdeploy serve removes it.",
    "service/query.py": "bgdeploy query ",  # a statement is quoted so that it can be read
    "service/api.py": "bgdeploy --config FILE",
}


def calls_of_do() -> list[tuple[str, ast.Call]]:
    return [
        (name, node)
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "do"
    ]


@cache
def parameters(verb: str) -> set[str]:
    """What a verb takes: in the API, or as a command."""
    words = COMMANDS[verb][0].split(" --")[0].split()
    found: Any = typer.main.get_command(app)
    for word in words:
        found = found.commands[word]
    taken = {one.name for one in found.params} | {
        one.removeprefix("--") for p in found.params for one in p.opts
    }
    if verb not in ONLY_A_SHELL:
        taken |= set(inspect.signature(getattr(Deployments, verb)).parameters)
    return taken


def test_every_action_that_the_source_makes_is_a_verb_with_arguments_that_it_takes() -> None:
    made = calls_of_do()
    assert len(made) > 50
    wrong = []
    for name, call in made:
        if not isinstance(call.args[0], ast.Constant):
            continue  # one of two verbs, each of which is made elsewhere too
        verb = call.args[0].value
        if verb not in COMMANDS:
            wrong.append(f"{name}:{call.lineno}: there is no verb {verb}")
        elif strange := {str(one.arg) for one in call.keywords} - parameters(verb):
            wrong.append(f"{name}:{call.lineno}: {verb} takes no {', '.join(sorted(strange))}")
    assert wrong == []


def test_no_hint_holds_a_command_as_text() -> None:
    command = re.compile(
        rf"bgdeploy (?:--|(?:{'|'.join({words.split()[0] for words, _ in COMMANDS.values()})}|query)\b)"
    )
    found = []
    for name, tree in TREES.items():
        if name.startswith(AS_TEXT):
            continue
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
            if is_text and command.search(node.value) and IN_SENTENCES.get(name, "\0") not in node.value:
                found.append(f"{name}:{node.lineno}: {node.value}")
    assert found == []
