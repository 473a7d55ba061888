"""Leases: a worker's time-limited right to advance a job.

::

    claim            renew   renew   renew                     rescue by anybody
      |----------------|-------|-------|----------------------------|
      0               1/6     2/6     3/6 last success              |
                                       |---- 1/2: claims nothing new |
                                       |---- 4/5: kills its child    |
                                       |---- 1/1: expired -----------|

The holder stops trusting its lease before anybody else may take it: it counts from its last
*successful* renewal by the monotonic clock, so neither a hanging disk nor a clock that is set can
make two holders. The fence, which grows with every claim, is what correctness rests on; the lease
only decides when a row may be taken over. Every write carries the fence it was claimed with and
changes nothing once a newer claim exists.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from bgdeploy.clock import monotonic, wall
from bgdeploy.errors import LeaseLost
from bgdeploy.jobs.rows import Row, jobs
from bgdeploy.jobs.statements import update_where
from bgdeploy.jobs.store import Store

STOP_CLAIMING, KILL_CHILD = 0.5, 0.8  # shares of the lease since the last renewal
RENEW_EVERY = 1 / 6
PROC = Path("/proc")
UNKNOWN = "unknown"
_RENEW = update_where(jobs, "id", "fence", "lease_owner")
_TAKE = update_where(jobs, "id", "state", "fence").where(jobs.c.lease_owner.is_(None))


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number.

    ``born`` is the tick since the boot at which it started, and which boot that was: unlike a time
    of day it stays the same when somebody sets the clock. It is ``unknown`` where /proc does not tell.
    """

    pid: int
    born: str

    def alive(self) -> bool | None:
        """True while exactly this process exists, False once it is gone; None where nobody here can tell."""
        found = _read_birth(self.pid)
        if found == "gone" or UNKNOWN in (found, self.born):
            return False if found == "gone" else None
        return found == self.born


def find_process(pid: int) -> Process:
    """The process with this number, as it is now; one that has ended is never alive."""
    return Process(pid, _read_birth(pid))


def _read_birth(pid: int) -> str:
    """When a process was born; ``gone`` for one that has ended, whether or not its parent knows yet.

    A process that /proc does not show may live all the same: it can be hidden from this user (hidepid), or
    /proc may be that of another process namespace. Only the kernel's own answer says that it is gone.
    """
    try:
        if int(os.readlink(PROC / "self")) == os.getpid():
            told = (PROC / str(pid) / "stat").read_bytes()
            fields = told.rpartition(b")")[2].decode().split()  # behind its name, which may hold anything
            state, started = fields[0], fields[19]  # fields 3 and 22 of proc(5)
            return "gone" if state in "ZX" else f"{started}-{_boot()}"
    except (OSError, ValueError):
        pass  # it is hidden, or gone
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except OSError:
        return UNKNOWN  # somebody else's
    return UNKNOWN


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]


@cache
def this_process() -> Process:
    """The process that asks."""
    return find_process(os.getpid())


@cache
def this_host() -> str:
    """The host, and the process namespace on it: pids of another container mean nothing here."""
    try:
        namespace = f"~{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        namespace = ""
    return socket.gethostname() + namespace


def new_owner() -> str:
    """Return a holder's name that no one ever had: host, pid, birth and 128 random bits."""
    process = this_process()
    return f"{this_host()}/{process.pid}/{process.born}/{secrets.token_hex(16)}"


def short(owner: str | None) -> str:
    """Return a holder's name as people read it: host and pid."""
    if not owner:
        return "-"
    host, pid, *_ = owner.split("/")
    return f"{host.split('~')[0]} pid {pid}"


def known_dead(owner: str) -> bool:
    """True when the holder ran on this host and its process is seen to be gone; unknown is not dead."""
    return _lives(owner) is False


def known_alive(owner: str) -> bool:
    """True when the holder runs on this host, whatever became of its lease."""
    return _lives(owner) is True


def _lives(owner: str) -> bool | None:
    """None for the holders of other hosts, and for processes that are hidden: nobody here can tell."""
    host, pid, born, _ = owner.split("/")
    return Process(int(pid), born).alive() if host == this_host() else None


@dataclass
class Lease:
    """A claimed row in a worker's hands; ``renewed`` is monotonic time of the last success."""

    store: Store
    job_id: int
    fence: int
    owner: str
    seconds: float
    renewed: float

    def renew(self) -> None:
        """Prolong the lease; raises LeaseLost when the row has another owner.

        A lock is waited for only until the child would have to be ended all the same.
        """
        asked = monotonic()
        left = self.renewed + KILL_CHILD * self.seconds - asked
        mine = {"of_id": self.job_id, "of_fence": self.fence, "of_lease_owner": self.owner}
        with self.store.write(urgent=True, patience=left) as connection:
            done = connection.execute(_RENEW, {**mine, "lease_expires": wall() + self.seconds})
        if done.rowcount != 1:
            raise LeaseLost(f"The lease on job {self.job_id} is lost.", kept="Nothing was written.")
        self.renewed = asked

    def share_used(self) -> float:
        """How much of the lease has passed since the last success; 1.0 means it may be taken."""
        return (monotonic() - self.renewed) / self.seconds


def take(connection: sa.Connection, row: Row, *, owner: str, now: float, seconds: float) -> int | None:
    """Claim a row that nobody holds, without changing its state; return its new fence, or None."""
    as_read = {f"of_{name}": row[name] for name in ("id", "state", "fence")}
    lease = {"fence": row["fence"] + 1, "lease_owner": owner, "lease_expires": now + seconds}
    taken = connection.execute(_TAKE, {**as_read, **lease})
    return row["fence"] + 1 if taken.rowcount == 1 else None
