"""The entry: bytes that are no text, output that cannot be written, Ctrl+C while all is still being imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bgdeploy.snapshots import generate

BYTES = b"a\xff"


def call(*words: str | bytes, folder: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bgdeploy", *words],
        cwd=folder, stderr=subprocess.PIPE, text=True, timeout=60, check=False, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    "words", [["simulate", "--customer", BYTES], ["pin", BYTES], ["--config", BYTES, "run"]]
)
def test_an_argument_that_is_no_text_is_refused_before_anything_is_done(
    tmp_path: Path, words: list[str | bytes]
) -> None:
    done = call(*words, folder=tmp_path)
    said = "bgdeploy: Not UTF-8 text, an argument: a\\xff\n  Nothing was done.\n  Write it in UTF-8.\n"
    assert (done.returncode, done.stderr) == (2, said)
    assert os.listdir(tmp_path) == []


def test_a_variable_that_is_no_text_is_refused(tmp_path: Path) -> None:
    done = call("config", folder=tmp_path, env={**os.environb, b"BGDEPLOY__STATE_DIR": BYTES})
    said = "bgdeploy: Not UTF-8 text, the variable BGDEPLOY__STATE_DIR: a\\xff\n"
    assert (done.returncode, done.stderr.splitlines(keepends=True)[0]) == (2, said)


@pytest.mark.parametrize("words", [["--help"], ["config"]])
def test_output_that_cannot_be_written_is_told(tmp_path: Path, words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = call(*words, folder=tmp_path, stdout=full)
    said = "bgdeploy: No space left on device.\n  Check that the disk is there, has room, and may be written to.\n"
    assert (done.returncode, done.stderr) == (6, said)


def test_an_interrupt_during_the_imports_ends_quietly(tmp_path: Path) -> None:
    program = """
import os, runpy, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
runpy.run_module("bgdeploy", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (130, "", "")


def test_a_made_up_snapshot_that_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(draft: Path) -> None:
        assert draft.name == ".1700000001.writing"
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "_sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate.write_snapshot(tmp_path, "acme", 1700000001, rows=50, seed=1)
    assert os.listdir(tmp_path / "acme") == []
