"""The inspectors of this process: they parse snapshots' files, so that the service, which must not die, parses none.

One process for each core, kept warm, replaced when it dies. Every answer is about one snapshot as it looked at
one moment; who asks gets it at once or when it is there, and waits for nobody else's.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import psutil

from bgdeploy import log
from bgdeploy.clock import monotonic
from bgdeploy.errors import BadInput, BgdeployError, FolderAway, NotReadable
from bgdeploy.worker.child import Child, started

MODULE = "bgdeploy.worker.inspecting"
LIMIT = 30.0  # seconds without a sign of life; one comes before each file, and while a large one is read
START = 60.0  # seconds a new process gets, on a machine that is busy
_MOST = 8  # inspectors in one process: a disk serves no more
_FEW = 32  # requests handed over at once: a small snapshot takes a millisecond, and so does handing one over
_IDLE = 60.0  # seconds until one that is not needed ends; the last one stays
_REMEMBERED = 10_000  # answers
_STARTS = 3  # tries in a row
_AWAY = 30.0  # seconds until a disk, or a process that could not be started, is tried again

_HANGS = "waits for the disk, which does not answer"
_KILLED = "was killed by signal 9"  # by a person, or by the system for want of memory: no fault of the file
_CURE = "Write it anew; the snapshot is looked at again by itself when it has changed."

Answer = Mapping[str, Any]
Request = Mapping[str, Any]


@dataclass(eq=False)
class Inquiry:
    """One request and, once it is there, its answer; ``since`` is when it was made (monotonic)."""

    request: Request
    key: str
    since: float = field(default_factory=monotonic)
    answer: Answer | None = None
    step: bool = False  # it ended a process, and is asked again file by file
    heard: list[Callable[[], None]] = field(default_factory=list)

    def result(self) -> Answer:
        """What was found, or the error that was met; ``{"changed": True}`` where it is not as it was any more."""
        assert self.answer is not None
        if "error" in self.answer:  # bad input, or a file or disk that may yet become readable
            told = self.answer["error"]
            kinds: dict[str, type[BgdeployError]] = {kind.code: kind for kind in (BadInput, FolderAway)}
            kind = kinds.get(told["code"], NotReadable)
            raise kind(told["what"], kept=told.get("kept", ""), cure=told.get("cure", ""))
        ok: Answer = self.answer["ok"]
        return ok


@cache
def shared() -> Inspectors:
    """The inspectors of this process."""
    mine = getattr(os, "sched_getaffinity", None)
    cores = len(mine(0)) if mine is not None else os.cpu_count() or 1
    inspectors = Inspectors(max(2, min(_MOST, cores)))
    atexit.register(inspectors.close)
    return inspectors


class Inspectors:
    """A pool of ``size`` processes at most; safe to use from any thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._answered = threading.Condition(self._lock)
        self._queues: OrderedDict[str, deque[Inquiry]] = OrderedDict()  # by customer, who take turns
        self._open: dict[str, Inquiry] = {}
        self._known: OrderedDict[str, tuple[float, Answer]] = OrderedDict()  # until when, and what
        self._keepers: list[_Keeper] = []
        self.closed = False

    def ask(self, request: Request, tell: Callable[[], None] | None = None) -> Inquiry:
        """Ask, without waiting; ``tell`` is called from another thread when the answer is there.

        The same request is made once, however many ask; what ended a process is not asked again while the
        files are as they were, and a manifest that was compared is not compared again.
        """
        key = json.dumps(request, sort_keys=True)
        with self._lock:
            known = self._known.get(key)
            if known is not None and known[0] > monotonic():
                return Inquiry(request, key, answer=known[1])
            inquiry = self._open.get(key)
            if inquiry is None:
                inquiry = self._open[key] = Inquiry(request, key)
                self._queues.setdefault(str(request["customer"]), deque()).append(inquiry)
                self._wake()
            if tell is not None and tell not in inquiry.heard:
                inquiry.heard.append(tell)
            return inquiry

    def wait(self, inquiry: Inquiry) -> Answer:
        """Return the result when it is there; raises as ``Inquiry.result`` does."""
        with self._lock:
            self._answered.wait_for(lambda: inquiry.answer is not None or self.closed)
        if inquiry.answer is None:
            raise FolderAway(f"{inquiry.request['path']} was not read, since bgdeploy ends.")
        return inquiry.result()

    def wait_for_fewer(self, count: int, seconds: float) -> None:
        """Return when fewer requests than this have no answer yet, or after so many seconds at most."""
        with self._lock:
            self._answered.wait_for(lambda: len(self._open) < count or self.closed, seconds)

    def open_requests(self) -> int:
        """How many have no answer yet."""
        return len(self._open)

    def warm(self) -> None:
        """Start one, so that the first snapshot need not wait for that."""
        with self._lock:
            if not self._keepers:
                self._keepers.append(_Keeper(self))

    def close(self) -> None:
        """End all of them; whoever waits gets an error."""
        with self._lock:
            self.closed = True
            keepers = [*self._keepers]
            for inquiry in self._open.values():
                inquiry.answer = _told("folder-away", "bgdeploy ends.")
            self._work.notify_all()
            self._answered.notify_all()
        for keeper in keepers:
            keeper.kill()
        for keeper in keepers:
            keeper.thread.join(5.0)

    def _wake(self) -> None:
        """With the lock held: somebody is to take what is queued."""
        self._work.notify()
        starting = sum(not keeper.ready for keeper in self._keepers)
        idle = any(keeper.idle for keeper in self._keepers)
        if self.closed or idle or len(self._keepers) >= self._size or len(self._open) <= _FEW * starting:
            return
        self._keepers.append(_Keeper(self))

    def take(self, keeper: _Keeper) -> list[Inquiry] | None:
        """For a keeper: some requests of the customers whose turn it is, or None when it may end.

        One inspector is always left to the others: a customer whose snapshots take long has all but one.
        """
        with self._lock:
            keeper.customer, keeper.idle, keeper.ready = None, True, True
            while not self._work.wait_for(lambda: self.closed or self._next() is not None, _IDLE):
                if len(self._keepers) > 1:
                    break
            keeper.idle = False
            if self.closed or self._next() is None:
                self._keepers.remove(keeper)
                return None
            taken: list[Inquiry] = []
            share = max(1, min(_FEW, len(self._open) // (2 * self._size)))
            while len(taken) < share and (name := self._next()) is not None:
                taken.append(self._queues[name].popleft())
                self._queues.move_to_end(name)
                if not self._queues[name]:
                    del self._queues[name]
            keeper.customer = str(taken[-1].request["customer"])
            if self._next() is not None:
                self._wake()
            return taken

    def _next(self) -> str | None:
        busy = [keeper.customer for keeper in self._keepers]
        most = max(1, self._size - 1)
        return next((name for name in self._queues if busy.count(name) < most), None)

    def put_back(self, inquiries: Iterable[Inquiry]) -> None:
        """For a keeper: they are asked again, before all others of their customers."""
        with self._lock:
            for inquiry in reversed([*inquiries]):
                self._queues.setdefault(str(inquiry.request["customer"]), deque()).appendleft(inquiry)
                self._wake()

    def settle(self, inquiry: Inquiry, answer: Answer, *, seconds: float = 0.0) -> None:
        """For a keeper: the answer is there, and is remembered for so long."""
        with self._lock:
            inquiry.answer = answer
            self._open.pop(inquiry.key, None)
            if seconds:
                self._known[inquiry.key] = (monotonic() + seconds, answer)
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
            self._answered.notify_all()
        for tell in inquiry.heard:
            tell()

    def give_up(self, keeper: _Keeper, why: str) -> None:
        """For a keeper that cannot start: without any other, nothing can be said of what is asked."""
        with self._lock:
            self._keepers.remove(keeper)
            left: list[Inquiry] = []
            if not any(one.ready for one in self._keepers):
                left = [*self._open.values()]
                self._queues.clear()
        for inquiry in left:
            self.settle(inquiry, _told("folder-away", why), seconds=_AWAY)


class _Keeper:
    """One inspector and the thread that keeps it: a process dies with the thread that started it."""

    def __init__(self, pool: Inspectors) -> None:
        self.idle = self.ready = False
        self.customer: str | None = None
        self._pool = pool
        self._child: Child | None = None
        self.thread = threading.Thread(target=self._keep, name="inspector", daemon=True)
        self.thread.start()

    def kill(self) -> None:
        """End the process; its keeper sees it."""
        child = self._child
        if child is not None:
            child.kill()

    def _keep(self) -> None:
        failed, why = 0, ""
        while failed < _STARTS:
            try:
                with started(MODULE) as child:
                    self._child = child
                    lines = child.messages_within(lambda: LIMIT if self.ready else START)
                    if next(lines, None) is None:
                        failed, why = failed + 1, child.how()
                        continue
                    failed = 0
                    while (taken := self._pool.take(self)) is not None:
                        if not self._converse(child, lines, taken):
                            break
                    else:
                        return
            except (OSError, subprocess.SubprocessError) as error:  # nothing could be started, or it hung
                failed, why = failed + 1, str(error) or f"did not start in {START:g} s"
            finally:
                self._child, self.ready = None, False
        self._pool.give_up(self, f"The process that reads files cannot be started: it {why}")

    def _converse(self, child: Child, lines: Iterator[dict[str, Any]], taken: Sequence[Inquiry]) -> bool:
        """Have requests answered; False when the process ended over one of them."""
        left, file = deque(taken), ""
        child.send([{**one.request, "step": one.step} for one in taken])
        try:
            for message in lines:
                if "alive" in message:
                    file = message["alive"]
                    continue
                # A manifest that was compared is not compared again while nothing changed.
                lasts = message.get("ok", {}).get("again") is False
                self._pool.settle(left.popleft(), message, seconds=float("inf") if lasts else 0.0)
                if not left:
                    return True
            how = child.how()
        except TimeoutError:
            how = _find_hang(child)
            child.kill()
        culprit = left.popleft()
        self._pool.put_back(left)
        self._blame(culprit, file, how)
        return False

    def _blame(self, inquiry: Inquiry, file: str, how: str) -> None:
        """It is asked once more, file by file; what ends a process then is the file that was looked at."""
        if self._pool.closed:
            return
        where = inquiry.request["path"]
        log.emit("inspector.ended", how=how, place=where)
        if not inquiry.step and how != _HANGS:
            inquiry.step = True
            self._pool.put_back([inquiry])
            return
        whose = file or str(where)
        if how in (_HANGS, _KILLED):
            told = _told("folder-away", f"{whose}: the process that reads it {how}")
            self._pool.settle(inquiry, told, seconds=_AWAY)
        else:
            what = f"{whose} cannot be read: the process that reads it {how}."
            self._pool.settle(inquiry, _told(NotReadable.code, what), seconds=float("inf"))


def _find_hang(child: Child) -> str:
    """Why a process is silent: it waits for the disk, or a file keeps it busy for ever."""
    with suppress(psutil.Error):
        if psutil.Process(child.process.pid).status() == psutil.STATUS_DISK_SLEEP:
            return _HANGS
    return f"gave no sign of life for {LIMIT:g} s"


def _told(code: str, what: str) -> Answer:
    return {
        "error": {"code": code, "what": what, "kept": "Nothing of the snapshot was loaded.", "cure": _CURE}
    }
