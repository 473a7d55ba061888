"""A target is found by its kind, also where another package brings it, and nothing outside its folder asks for a kind."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bgdeploy
from bgdeploy.errors import ConfigError
from bgdeploy.targets import describe_target, refusals_of

ROOT = Path(bgdeploy.__file__).parent
TOY = """
from dataclasses import replace
from bgdeploy.targets import describe_target

TARGET = replace(describe_target("ladybug"), kind="toy", max_databases=7)
"""


def test_a_package_brings_a_target_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_target.py").write_text(TOY)
    about = tmp_path / "toy_target-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-target\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[bgdeploy.targets]\ntoy = toy_target:TARGET\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = describe_target("toy")
    assert (found.kind, found.max_databases) == ("toy", 7)
    describe_target.cache_clear()


def test_a_kind_that_nobody_brings_is_refused_and_says_which_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"no target of the kind 'nowhere'\. Set target to one of ladybug, neo4j"
    ):
        describe_target("nowhere")
    assert refusals_of("nowhere")(None, "") is None


def test_no_room_but_its_own_asks_which_kind_a_target_is() -> None:
    """The configuration alone knows both: it takes the old service's file, which names a server and no target."""
    asks = [
        (str(path.relative_to(ROOT)), node.lineno)
        for path in sorted(ROOT.rglob("*.py"))
        if path.relative_to(ROOT).parts[0] not in ("targets", "config.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in ("neo4j", "ladybug")
    ]
    assert asks == []


def test_to_open_a_neo4j_target_takes_nothing_that_parses_files() -> None:
    """The driver imports pyarrow where it finds it, and does without; nothing of ours may need it in the service."""
    withheld = (
        "import sys\n"
        "class Withheld:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('pyarrow', 'duckdb'):\n"
        "            raise ImportError(f'{name} is withheld')\n"
        "sys.meta_path.insert(0, Withheld())\n"
        "import bgdeploy.targets.neo4j.target\n"
    )
    done = subprocess.run([sys.executable, "-c", withheld], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
