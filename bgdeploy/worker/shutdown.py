"""Stopping: first politely, then at once."""

from __future__ import annotations

import queue
import signal
import threading
from dataclasses import dataclass, field

from bgdeploy.clock import monotonic
from bgdeploy.errors import StoreLost


@dataclass
class Stop:
    """What every thread of the service looks at before it starts anything."""

    asked: threading.Event = field(default_factory=threading.Event)
    hurry: threading.Event = field(default_factory=threading.Event)
    timeout: float = 300.0
    deadline: float = float("inf")
    failure: StoreLost | None = None  # why nobody here may go on

    def ask(self) -> None:
        """The first time: no new claims, running loads get ``timeout`` s. The second: end at once."""
        if self.asked.is_set():
            self.hurry.set()
        self.deadline = min(self.deadline, monotonic() + self.timeout)
        self.asked.set()

    def fail(self, failure: StoreLost) -> None:
        """End at once and for good; who waits for the end raises it."""
        self.failure = failure
        self.hurry.set()
        self.asked.set()

    def must_end(self) -> bool:
        """True when running loads have to be given back now."""
        return self.hurry.is_set() or monotonic() > self.deadline


def listen(stop: Stop) -> None:
    """Let Ctrl+C and SIGTERM ask for the stop.

    A handler runs in the middle of whatever the main thread does, which may hold the lock of the very
    event it waits for: so it only puts a word into a queue that is made for that, and a thread asks.
    """
    heard: queue.SimpleQueue[None] = queue.SimpleQueue()

    def relay() -> None:
        while True:
            heard.get()
            stop.ask()

    threading.Thread(target=relay, name="signals", daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: heard.put(None))
