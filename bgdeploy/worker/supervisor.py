"""The supervisor of one load: renews its lease, and ends its children when it has to.

``jobs/lease`` draws when that is: a lease that was not renewed for four fifths of its time is given up by its holder
before anybody else may take it. Also at a cancel, and at a stop whose time is over.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import TracebackType

import sqlalchemy as sa

from bgdeploy import log
from bgdeploy.clock import monotonic
from bgdeploy.errors import LeaseLost, StoreError
from bgdeploy.jobs.lease import KILL_CHILD, RENEW_EVERY, STOP_CLAIMING, Lease
from bgdeploy.jobs.transitions import jobs
from bgdeploy.worker.child import Child
from bgdeploy.worker.shutdown import Stop

LOOK_EVERY = 1.0  # seconds between two looks at cancel and stop
SILENT_AFTER = 600.0  # seconds without a word from a loading process until that is told
_BEATING: set[Heartbeat] = set()  # every load of this process


def may_claim() -> bool:
    """False while any load of this process has not been renewed for half its lease: the job table is out of reach."""
    return all(heart.lease.share_used() < STOP_CLAIMING for heart in tuple(_BEATING))


@dataclass(eq=False)
class Heartbeat:
    """Runs beside a load, on a thread and a connection of its own.

    After it ended a child, exactly one of ``lost``, ``cancelled`` and ``stopped`` says why.
    """

    lease: Lease
    stop: Stop
    job: str = ""  # as people call it
    children: list[Child] = field(default_factory=list)
    lost: bool = False
    cancelled: bool = False
    stopped: bool = False
    _heard: float = field(default_factory=monotonic)
    _told: bool = False
    _done: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Heartbeat:
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{self.lease.job_id}", daemon=True)
        self._thread.start()
        _BEATING.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _BEATING.discard(self)
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def adopt(self, child: Child) -> None:
        """Watch over this child too from now on; one that must not run any more is ended at once."""
        self.children.append(child)
        if self.ended:
            child.kill()

    def hear(self) -> None:
        """Take note that a child has said something."""
        self._heard, self._told = monotonic(), False

    @property
    def ended(self) -> bool:
        """True once it has given the load up."""
        return self.lost or self.cancelled or self.stopped

    def _run(self) -> None:
        pause = min(LOOK_EVERY, self.lease.seconds * RENEW_EVERY)
        while not self._done.wait(pause):
            if not self.ended:
                self._look()
                # Said once: it is ended by nobody but a person, since a huge file may take that long.
                if not self._told and monotonic() - self._heard >= SILENT_AFTER:
                    self._told = True
                    log.emit("load.silent", job=self.job, id=self.lease.job_id, minutes=SILENT_AFTER / 60)
            if self.ended:
                for child in tuple(self.children):
                    child.kill()

    def _look(self) -> None:
        try:
            if self.lease.share_used() >= RENEW_EVERY:
                self.lease.renew()
            with self.lease.store.read() as connection:
                asked = sa.select(jobs.c.cancel_at).where(jobs.c.id == self.lease.job_id)
                self.cancelled = connection.execute(asked).scalar_one() is not None
        except LeaseLost:
            self.lost = True
        except StoreError:
            pass  # not renewed; the share below decides how long that may go on
        except Exception as error:
            # The thread's edge: without it nobody would renew, and nobody end the child.
            log.emit("service.trouble", what=f"holding {self.job}", error=f"{type(error).__name__}: {error}")
            self.lost = True
        if self.lease.share_used() >= KILL_CHILD:
            self.lost = True
        if not self.lost and not self.cancelled:
            self.stopped = self.stop.must_end()
