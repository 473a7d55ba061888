"""The shape of the package: imports run one way, a file can be read in one sitting, every command shows examples."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bgdeploy

ROOT = Path(bgdeploy.__file__).parent
LAYERS = ["cli", "service", "worker", "pipeline"]  # above what they may import, from the top down
BASE = {"jobs", "snapshots", "targets"}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bgdeploy."):
            found.add((node.module or "").split(".")[1])
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way_and_files_can_be_read_in_one_sitting(path: Path) -> None:
    place = path.relative_to(ROOT).parts[0]
    used = _imports(path)
    if place in LAYERS:
        assert not used & set(LAYERS[: LAYERS.index(place)])
    elif place in BASE:
        allowed = {"targets": {"snapshots"}}.get(place, set())
        assert not used & ({*LAYERS, *BASE} - {place} - allowed)
    assert len(path.read_text().splitlines()) <= 900


def _names(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (f"{module}.{one.name}" for one in node.names)


RUNNERS = {  # commands that are the service themselves
    "run.py": ("bgdeploy.service.serve.", "bgdeploy.service.run_once.", "bgdeploy.worker.shutdown."),
    "live.py": ("bgdeploy.service.timeline.", "bgdeploy.jobs.ledger."),
}


@pytest.mark.parametrize("path", sorted((ROOT / "cli").glob("*.py")), ids=lambda path: path.name)
def test_a_command_calls_the_api_and_nothing_below_it(path: Path) -> None:
    below = ("bgdeploy.service", "bgdeploy.pipeline", "bgdeploy.jobs")
    may = ("bgdeploy.service.api.", "bgdeploy.service.results.", "bgdeploy.jobs.states.State")
    used = {name for name in _names(path) if name.startswith(below)}
    assert {name for name in used if not name.startswith((*may, *RUNNERS.get(path.name, ())))} == set()


COMMANDS = [
    "serve", "scan", "work", "run", "wait", "jobs", "jobs list", "jobs show", "jobs log", "jobs cancel", "jobs offenders",
    "retry",
    "customers", "customers remove", "switches", "query", "switch", "rollback", "pin", "unpin", "pause", "resume", "processes", "doctor", "simulate", "demo",
    "db", "db upgrade", "db current", "config", "init",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_ends_with_examples(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bgdeploy", *command.split(), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "bgdeploy" in done.stdout.split("Examples:")[1]


def test_the_overview_cuts_no_command_short() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bgdeploy", "--help"],
        capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert "..." not in done.stdout.split("Commands:")[1]
