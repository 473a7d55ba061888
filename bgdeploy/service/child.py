"""The parent's end of a loading process: start it, answer it, end it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import psutil

from bgdeploy.errors import (
    BadInput,
    BgdeployError,
    BuildLocked,
    ConfigError,
    NameTaken,
    TargetAway,
    TargetError,
    TargetFull,
    VerifyFailed,
)
from bgdeploy.jobs.lease import Process, find_process

_ERRORS: Mapping[str, type[BgdeployError]] = {
    kind.code: kind
    for kind in (
        BadInput,
        BuildLocked,
        ConfigError,
        NameTaken,
        TargetAway,
        TargetError,
        TargetFull,
        VerifyFailed,
    )
} | {"full": TargetFull, "not-readable": BadInput, "refused": TargetAway}
GONE_WITHIN = 5.0  # seconds a killed process gets to disappear


@dataclass(frozen=True)
class Child:
    """A running loading process; its standard error is kept for the case that it dies."""

    popen: subprocess.Popen[str]
    process: Process
    noise: IO[bytes]

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one line; a dead child shows at the next read instead."""
        assert self.popen.stdin is not None
        try:
            self.popen.stdin.write(json.dumps(message) + "\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            return

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield its lines until it ends; a line cut off by its death is dropped."""
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            if line.endswith("\n"):
                yield json.loads(line)

    def kill(self) -> None:
        """End it now; safe to call from any thread, also when it is gone."""
        self.popen.kill()

    def died(self, target: str) -> TargetError:
        """Say how it ended without an answer, and what takes less memory at this kind of target."""
        code = self.popen.wait()
        self.noise.seek(0)
        last = self.noise.read()[-400:].decode("utf-8", "replace").strip()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        lower = "ladybug.buffer_pool_mb" if target == "ladybug" else "neo4j.batch_rows"
        memory = f" Probably memory: lower {lower}." if code == -9 else ""
        return TargetError(
            f"The loading process {how}.{memory}",
            kept="Committed groups stay and are not loaded again.",
            cure=f"Its last words: {last}" if last else "",
        )


@contextmanager
def started() -> Iterator[Child]:
    """Start a loading process that waits for its ticket; it is gone when the block ends."""
    with tempfile.TemporaryFile() as noise:
        popen = subprocess.Popen(
            [sys.executable, "-m", "bgdeploy.service.loader_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl+C reaches the service only, which then decides
        )
        try:
            yield Child(popen, find_process(popen.pid), noise)
        finally:
            _end(popen)


def _end(popen: subprocess.Popen[str]) -> None:
    popen.kill()
    for pipe in (popen.stdin, popen.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                continue
    popen.wait()


def as_error(told: Mapping[str, str]) -> BgdeployError:
    """Return the error a child told of."""
    kind = _ERRORS.get(told["code"], TargetError)
    return kind(told["what"], kept=told.get("kept", ""), cure=told.get("cure", ""))


def end_recorded(pid: int | None, born: str | None) -> bool:
    """Kill the loading process an earlier worker left behind; False when it will not go."""
    if pid is None or born is None or not Process(pid, born).alive():
        return True
    try:
        process = psutil.Process(pid)
        process.kill()
        process.wait(GONE_WITHIN)
    except psutil.NoSuchProcess:
        return True
    except (psutil.TimeoutExpired, psutil.AccessDenied):
        return False
    return True
