"""Every command that the docs, the errors and the hints print can be typed as it stands there."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from bgdeploy.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted((ROOT / "bgdeploy").rglob("*.py"))
GROUP = typer.main.get_command(app)
# What stands for something of the reader's; 1 is a name as well as a number.
_OWN = re.compile(r"<[a-z ]+>|\$\w+|\$\([^)]*\)|\{id\}|KEY=VALUE")
_END = re.compile(
    r"[;,()|`]|:(?= |$)| #|\.(?= |$)|  | 2>>|\n| && | (?:or|and|to|that|from|does|[a-z]+s) (?=[a-z])| run\b| running\b| brings\b"
)
_QUOTED = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'")
_NAMED = {"jobs", "customers", "db"}  # groups: their commands have two words


def parse(words: list[str]) -> None:
    """Let the command line judge the words; raises what a user would see, and runs nothing."""
    context, command = None, GROUP
    while isinstance(command, TyperGroup):
        context = command.make_context("bgdeploy", list(words), parent=context)
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        _, found, words = command.resolve_command(context, rest)
        assert found is not None
        command = found
    command.make_context(command.name, list(words), parent=context)


def commands(text: str) -> Iterator[str]:
    """What stands behind each ``bgdeploy`` up to the end of the command; a fragment that a space ends is none."""
    for found in re.finditer(r"(?:^|[\s`:/])bgdeploy ((?:--[a-z]+ \S+ )*[a-z]+)\b", text, re.MULTILINE):
        rest = _OWN.sub("1", text[found.start(1) :])
        plain = _QUOTED.sub(lambda one: "q" * len(one[0]), rest)  # what is in quotes ends nothing
        end = _END.search(plain)
        command = rest[: end.start() if end else len(rest)]
        if not (end is None and command.endswith(" ")):
            yield command.strip() if _QUOTED.search(command) else command.strip().strip("\"'")


def texts(module: Path) -> Iterator[str]:
    """Every text of a module, with 1 for what is filled in."""
    tree = ast.parse(module.read_text())
    inside = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else "1" for part in node.values)
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


def judge(text: str) -> list[str]:
    """What the command line says of the commands in a text that it does not take."""
    wrong = []
    for command in commands(text):
        first, *rest = command.split()
        is_known = first in GROUP.commands or first[0] == "-"  # type: ignore[attr-defined]
        is_named = len(rest) < 1 + (first in _NAMED)  # and not printed to be typed
        if not is_known or is_named or "[OPTIONS]" in rest:
            continue
        try:
            parse(shlex.split(command))
        except Exception as error:  # whatever the command line says of it
            wrong.append(f"bgdeploy {command}: {getattr(error, 'message', error)}")
    return wrong


def test_a_command_that_cannot_be_typed_is_found() -> None:
    assert judge('see: bgdeploy jobs show <id>, or bgdeploy rollback acme --reason "a, b"') == []
    for wrong in ("bgdeploy retry abc", "bgdeploy rollback --why x", "bgdeploy run --customer acme now"):
        assert len(judge(f"Try: {wrong}")) == 1, wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_docs_can_be_typed(page: Path) -> None:
    assert judge(page.read_text()) == []


def test_commands_in_errors_and_hints_can_be_typed() -> None:
    wrong = [f"{module.name}: {one}" for module in MODULES for text in texts(module) for one in judge(text)]
    assert wrong == []
