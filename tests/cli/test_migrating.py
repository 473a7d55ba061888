"""docs/migrating.md: every command that it prints runs as printed, in its order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bgdeploy.cli.app import app
from bgdeploy.config import BECAME
from tests.house import House, make_removable, stop

PAGE = (Path(__file__).parents[2] / "docs/migrating.md").read_text()
COMMANDS = re.findall(r"`bgdeploy ([^`]+)`", PAGE)
ORIGINAL = """\
target: ladybug
dataset: {base_path: ./data}
worker: {concurrency: 10, arrow_table_size: 100000}
orchestrator: {num_workers: 3, max_concurrent_loads: 3, scan_interval: 30, shutdown_timeout: 300}
"""


def test_every_command_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BGDEPLOY_CONFIG", raising=False)
    (tmp_path / "config.yaml").write_text(ORIGINAL)
    (tmp_path / "data").mkdir()
    house, log, said = House(tmp_path), tmp_path / "log", dict[str, str]()
    for command in dict.fromkeys(COMMANDS):
        words = shlex.split(command)
        for timestamp in map(int, re.findall(r"\b1\d{9}\b", command)):
            if not (tmp_path / f"data/acme/{timestamp}").exists():
                house.drop("acme", timestamp, rows=60)
        if words[0] == "serve":
            log.unlink(missing_ok=True)
            service = house.start(*words)
            house.await_("it is up", lambda: "is up: 3 load(s)" in log.read_text())
            assert stop(service) == 0
        elif words[0] == "run":
            said[command] = house.run(*words).stdout
        else:
            done = CliRunner().invoke(app, words, prog_name="bgdeploy")
            assert done.exit_code == 0, (command, done.stderr)
            said[command] = done.stdout
    assert said["run --customer acme --timestamp 1767741427"] == "acme-1767741427 is live\n"
    assert "is loaded and not live" in said["run --customer acme --timestamp 1767827827 --no-switch"]
    assert "live" in said["wait acme 1767741427 --timeout 600"]
    assert len(said) > 12
    make_removable(tmp_path)


def test_every_setting_has_a_row() -> None:
    table = PAGE.partition("## Settings")[2].partition("\n## ")[0]
    named = re.findall(r"[a-z_]+", " ".join(line.split(" | ")[0] for line in table.splitlines()))
    assert [key for key in BECAME if key.rpartition(".")[2] not in named] == []
