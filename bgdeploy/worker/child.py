"""The parent's end of a process that reads files: start it, answer it, end it.

It may hang, crash, or be killed for want of memory: then its parent says how it ended, with its last words. A load has
two of them at once, one that loads and one that verifies; ``Early`` hears the second while the first is talked to.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
from bgdeploy.plain import tidy
from bgdeploy.targets import describe_target


class Died(TargetError):
    """A loading process ended without an answer; ``signal`` is what it was killed by, or None."""

    signal: int | None = None


class Damaged(BadInput):
    """A library could not read a file, and did not say which."""


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
} | {"full": TargetFull, "not-readable": BadInput, "refused": TargetAway, "damaged": Damaged}
# What the engine draws while it works is none of its last words.
_DRAWN = re.compile(r"Pipelines Finished: \d+/|Pipeline Progress: \d+%|^\W*\d{1,3}%")
GONE_WITHIN = 5.0  # seconds a killed process gets to disappear


@contextmanager
def started(module: str = "bgdeploy.worker.loader") -> Iterator[Child]:
    """Start a process, by default one that loads, which waits for its ticket; it is gone when the block ends.

    It dies with the thread that started it, which must last as long as it is needed.
    """
    with tempfile.TemporaryFile() as noise:
        popen = subprocess.Popen(
            [sys.executable, "-m", module],
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
            popen.kill()
            for pipe in (popen.stdin, popen.stdout):
                with suppress(BrokenPipeError):
                    if pipe is not None:
                        pipe.close()
            with suppress(subprocess.TimeoutExpired):  # one that hangs in the disk goes when the disk answers
                popen.wait(GONE_WITHIN)


@dataclass(frozen=True)
class Child:
    """A running child process; its standard error is kept for the case that it dies."""

    popen: subprocess.Popen[str]
    process: Process
    noise: IO[bytes]

    def send(self, message: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
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

    def messages_within(self, limit: Callable[[], float]) -> Iterator[dict[str, Any]]:
        """Yield its lines as ``messages`` does; raises TimeoutError after a silence of so many seconds."""
        assert self.popen.stdout is not None
        out, rest = self.popen.stdout.fileno(), b""
        poll = select.poll()
        poll.register(out, select.POLLIN)
        while True:
            if not poll.poll(limit() * 1000):
                raise TimeoutError
            piece = os.read(out, 1 << 20)
            if not piece:
                return
            *lines, rest = (rest + piece).split(b"\n")
            yield from map(json.loads, lines)

    def kill(self) -> None:
        """End it now; safe to call from any thread, also when it is gone."""
        self.popen.kill()

    def how(self) -> str:
        """How it ended, in words."""
        code = self.popen.wait()
        return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"

    def died(self, target: str) -> Died:
        """Say how it ended without an answer, and what takes less memory at this kind of target."""
        how, code = self.how(), self.popen.wait()
        self.noise.seek(max(0, self.noise.seek(0, os.SEEK_END) - (4 << 20)))
        said = tidy(self.noise.read().decode("utf-8", "replace")).splitlines()
        words = [line.strip() for line in said if line.strip() and not _DRAWN.search(line)]
        last = "\n".join(words)[-400:].strip()
        memory = f" Probably memory: lower {describe_target(target).less_memory}." if code == -9 else ""
        error = Died(
            f"The loading process {how}.{memory}",
            kept="Committed groups stay and are not loaded again.",
            cure=f"Its last words: {last}" if last else "",
        )
        error.signal = -code if code < 0 else None
        return error


class Early:
    """Hears a child's first word while its parent talks to another: bad input ends that other at once.

    A load of hours must not go on for a snapshot that is known to be wrong in its first minute.
    """

    def __init__(self, child: Child) -> None:
        self._child = child
        self._other: Child | None = None
        self._word: dict[str, Any] | None = None
        self._thread = threading.Thread(target=self._listen, name="early", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with suppress(ValueError, OSError):  # its pipe was closed: nobody wants to know any more
            self._word = next(self._child.messages(), None)
        if self.fault is not None and self._other is not None:
            self._other.kill()

    @property
    def fault(self) -> BadInput | None:
        """The bad input it told of, if it did so already and knows what it is: the load may say more of the rest."""
        word = self._word or {}
        error = as_error(word["error"]) if "error" in word and "unforeseen" not in word else None
        return error if isinstance(error, BadInput) else None

    def ends(self, other: Child) -> None:
        """Name the child that its bad input ends, from now on."""
        self._other = other
        if self.fault is not None:
            other.kill()

    def messages(self) -> Iterator[dict[str, Any]]:
        """All that it says, the first word too."""
        self._thread.join()
        if self._word is not None:
            yield self._word
            yield from self._child.messages()


def as_error(told: Mapping[str, str]) -> BgdeployError:
    """Return the error a child told of."""
    kind = _ERRORS.get(told["code"], TargetError)
    return kind(told["what"], kept=told.get("kept", ""), cure=told.get("cure", ""))


def end_recorded(pid: int | None, born: str | None) -> bool:
    """Kill the loading process an earlier worker left behind; False when it will not go, or nobody can tell."""
    if pid is None or born is None:
        return True
    alive = Process(pid, born).alive()
    if not alive:
        return alive is False  # what is hidden may be anybody's, so it is not killed either
    try:
        process = psutil.Process(pid)
        process.kill()
        process.wait(GONE_WITHIN)
    except psutil.NoSuchProcess:
        return True
    except (psutil.TimeoutExpired, psutil.AccessDenied):
        return False
    return True
