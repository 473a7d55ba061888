"""A whole installation in a temporary folder, driven as a user would: by commands and signals."""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgdeploy.cli.app import app
from bgdeploy.cli.render import guarded
from bgdeploy.config import load_settings
from bgdeploy.errors import ConfigError
from bgdeploy.snapshots.generate import write_snapshot
from bgdeploy.targets import open_target
from bgdeploy.targets.base import Target

# Short times, and as many tries as a slow machine may need: a test that counts them says so itself.
ORCHESTRATOR: dict[str, Any] = {
    "scan_interval": 0.5, "watch_interval": 0.1, "lease_seconds": 2, "drop_grace_seconds": 0,
    "retry_backoff_base": 1, "health_check_retry_delay": 1, "max_retries": 100, "max_service_deaths": 100,
}  # fmt: skip
PATIENCE = 90.0
STARTED: list[subprocess.Popen[bytes]] = []  # every service of the test at hand


@contextmanager
def own_log() -> Iterator[None]:
    """A command says where its log goes; the test's own is as before afterwards."""
    logger = logging.getLogger("bgdeploy")
    told = (logger.handlers[:], logger.level, logger.propagate)
    try:
        yield
    finally:
        logger.handlers[:], logger.level, logger.propagate = told


def run_here(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, from its arguments to its exit code."""
    out, err, ended = io.StringIO(), io.StringIO(), 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with redirect_stdout(out), redirect_stderr(err), own_log():
            guarded(lambda: app(words, prog_name="bgdeploy"))
    except SystemExit as end:
        ended = int(end.code or 0)
    except Exception:
        err.write(traceback.format_exc())
        ended = 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        gc.unfreeze()
        gc.collect()  # a process that ends has no file open any more
    return subprocess.CompletedProcess(words, ended, out.getvalue(), err.getvalue())


def end_started() -> None:
    """End what a test that failed has left running, frozen or not."""
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class House:
    """``folder`` holds config.yaml, data/ and state/; ``kind`` says where its databases live."""

    folder: Path
    kind: str = "ladybug"

    def target(self) -> Target:
        """The target that its configuration names."""
        return open_target(load_settings(self.folder / "config.yaml"))

    def run(
        self, *words: str, failpoint: str = "", ok: bool = True, apart: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; with ``ok`` it must succeed.

        It runs in this process unless a failpoint may kill it, it never ends by itself, another thread's output would
        be taken for its own, or ``apart`` says so: to start a process takes longer than most commands.
        """
        alone = threading.current_thread() is threading.main_thread() and not (failpoint or apart)
        if alone and words[0] not in ("serve", "work", "demo"):
            done = run_here([*self.words(), *words])
        else:
            done = subprocess.run(
                self.command(*words), capture_output=True, text=True, timeout=PATIENCE, env=environ(failpoint)
            )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr + done.stdout
        assert not ok or done.returncode == 0, done.stderr + done.stdout
        return done

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "bgdeploy", *self.words(), *words]

    def words(self) -> list[str]:
        return ["--config", str(self.folder / "config.yaml")]

    def start(self, *words: str, failpoint: str = "") -> subprocess.Popen[bytes]:
        with open(self.folder / "log", "ab") as log:
            quiet = {"BGDEPLOY_FAILPOINT_QUIET": str(self.folder / "state/jobs.db")}
            process = subprocess.Popen(
                self.command(*words),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environ(failpoint) | quiet,
            )
        STARTED.append(process)
        self._await_table(process)
        return process

    def _await_table(self, process: subprocess.Popen[bytes]) -> None:
        """Commands that look are refused until the service has made its job table."""
        try:
            table = load_settings(self.folder / "config.yaml").database_path
        except ConfigError:
            return
        deadline, pause = time.monotonic() + PATIENCE, threading.Event()
        while not table.exists() and process.poll() is None and time.monotonic() < deadline:
            pause.wait(0.05)

    def json(self, *words: str) -> Any:
        """Ask in this process: to start one takes many times as long, and slows down what is looked at."""
        answer = io.StringIO()
        with redirect_stdout(answer), own_log():
            ended = app([*self.words(), *words, "--json"], prog_name="bgdeploy", standalone_mode=False)
        assert not ended, f"{words} ended with {ended}: {answer.getvalue()}"
        return json.loads(answer.getvalue())

    def states(self) -> dict[int, str]:
        return {job["timestamp"]: job["state"] for job in self.json("jobs", "list")}

    def live(self, customer: str) -> str | None:
        return next((c["live"] for c in self.json("customers") if c["customer"] == customer), None)

    def database(self) -> str:
        """The database of the newest job."""
        return str(self.json("jobs", "list", "--limit", "1")[0]["database"])

    def drop(self, customer: str, timestamp: int, rows: int = 500, **more: Any) -> Path:
        return write_snapshot(self.folder / "data", customer, timestamp, rows=rows, seed=timestamp, **more)

    def await_(self, what: str, done: Callable[[], bool]) -> None:
        """Wait for a condition; the log is shown when it never comes true."""
        deadline = time.monotonic() + PATIENCE
        pause = threading.Event()
        while not done():
            log = (self.folder / "log").read_text() if (self.folder / "log").exists() else ""
            assert time.monotonic() < deadline, f"{what} never came true:\n{log[-3000:]}"
            pause.wait(0.2)  # looking all the time would slow down what is looked at

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """The job table, for what no command can do; committed at the end."""
        with closing(sqlite3.connect(self.folder / "state/jobs.db")) as connection, connection:
            yield connection

    def leftovers(self) -> list[str]:
        return [path.name for path in (self.folder / "state/builds").iterdir()]


def make_removable(folder: Path) -> None:
    """Published folders are read-only; let the temporary folder be removed all the same."""
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o755)


def copy_house(template: Path, folder: Path) -> House:
    """An installation as it was in the template, bound to its new place; many times as quick as living it again."""
    shutil.copytree(template, folder, symlinks=True, dirs_exist_ok=True)
    with closing(sqlite3.connect(folder / "state/jobs.db")) as connection, connection:
        here = (str(folder / "data"), str(folder / "state"))
        connection.execute("UPDATE identity SET base_path = ?, place = ?", here)
    return House(folder)


def environ(failpoint: str) -> dict[str, str]:
    return {**os.environ, "BGDEPLOY_FAILPOINT": failpoint}


def make_house(
    folder: Path,
    *,
    state: str = "state",
    database_url: str = "sqlite:///state/jobs.db",
    neo4j: dict[str, Any] | None = None,
    **orchestrator: Any,
) -> House:
    """Make an installation; keywords are settings of the orchestrator, ``neo4j`` leads to a server."""
    (folder / "data").mkdir()
    config = {
        "state_dir": state,
        "database_url": database_url,
        "dataset": {"base_path": "data", "settle_seconds": 0.2},
        "ladybug": {"buffer_pool_mb": 64, "threads": 1},
        "orchestrator": {**ORCHESTRATOR, **orchestrator},
    }
    if neo4j is not None:
        config |= {"target": "neo4j", "neo4j": neo4j}
    (folder / "config.yaml").write_text(json.dumps(config, indent=1))
    return House(folder, "ladybug" if neo4j is None else "neo4j")


def stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(PATIENCE)
