"""Leases: a worker's time-limited right to advance a job, and the rescue of rows whose holder is gone.

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

Who kills services (a deployment, a spot node, a reboot) does not mean the job, so the deaths of a whole
service count apart from what a load does by itself: many of them in a row without progress, each after a
longer rest, end a job at last, since it may be its memory that takes the whole container along.
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
from bgdeploy.jobs.reasons import Code, because
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.store import Store, update_where
from bgdeploy.jobs.transitions import Row, Tx, delay, end_cancelled, is_asked, jobs, move, transaction, write

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


FREED = {"lease_owner": None, "lease_expires": None}
LONGEST_REST = 60.0  # seconds; twenty deaths are over in less than half an hour


def rescue(store: Store, *, now: float, owner: str, most: int, base: float) -> int:
    """Take back every expired lease, and those of dead processes of this host; return how many.

    A job under which the whole service died ``most`` times in a row without progress fails; from the second
    time on it rests before it is claimed again, by powers of ``base``.
    """
    rescued = 0
    for row in _lost(store, now):
        with transaction(store, now=now, actor=Actor.RESCUE, owner=owner) as tx:
            rescued += _take_back(tx, row, most, base)
    return rescued


def _lost(store: Store, now: float) -> list[Row]:
    with store.read() as connection:
        held = connection.execute(sa.select(jobs).where(jobs.c.lease_owner.is_not(None))).mappings().all()
    return [row for row in held if is_free(row, now)]


def is_free(row: Row, now: float) -> bool:
    """True when nobody holds this row any more: never leased, expired, or a dead process of this host."""
    owner = row["lease_owner"]
    return owner is None or row["lease_expires"] < now or known_dead(owner)


def _take_back(tx: Tx, row: Row, most: int, base: float) -> bool:
    if not _still_lost(tx, row):
        return False
    if row["state"] != State.LOADING:
        _release(tx, row)
    elif is_asked(tx, row):
        end_cancelled(tx, row)  # else it would be loaded again, against what a person said
    elif known_alive(row["lease_owner"]):
        _return_late(tx, row)
    elif (count := row["interruptions"] + 1) < most:
        rest = min(LONGEST_REST, delay(count - 1, base)) if count > 1 else 0.0
        _return(tx, row, count, most, rest)
    else:
        _give_up(tx, row, count)
    return True


def _release(tx: Tx, row: Row) -> None:
    write(tx, row, **FREED)
    holder = short(row["lease_owner"])
    if known_alive(row["lease_owner"]):
        tx.say("rescue.late", row, holder=holder)
    else:
        tx.say("rescue.released", row, holder=holder)


def _return_late(tx: Tx, row: Row) -> None:
    """Its worker lives and could not prolong the lease: no fault of the job, so nothing is counted."""
    holder = short(row["lease_owner"])
    reason = because(Code.LEASE_EXPIRED, holder=holder)
    move(tx, row, State.QUEUED, "rescue.late", fields={"holder": holder}, reason=reason, **FREED)


def _return(tx: Tx, row: Row, count: int, most: int, rest: float) -> None:
    holder = short(row["lease_owner"])
    fields = {"holder": holder, "deaths": count, "limit": most, "rest": rest}
    # The code keeps its place before newer ones while it rests: most of it may be loaded already.
    changes = {
        "interruptions": count,
        "not_before": tx.now + rest,
        "reason": because(Code.HOLDER_LOST, holder=holder),
        "error_code": "interrupted",
    }
    move(tx, row, State.QUEUED, "rescue.returned", fields=fields, **changes, **FREED)


def _still_lost(tx: Tx, row: Row) -> bool:
    """Look again inside the transaction: the holder may have renewed in between."""
    # one writer: another store locks the row (FOR UPDATE): a renewal changes no fence, so the write would not see it
    held = (jobs.c.id == row["id"], jobs.c.fence == row["fence"], jobs.c.lease_owner == row["lease_owner"])
    now_held = tx.connection.execute(sa.select(jobs).where(*held)).mappings().one_or_none()
    return now_held is not None and is_free(now_held, tx.now)


def _give_up(tx: Tx, row: Row, count: int) -> None:
    step = row["step"] or "none"
    error = (
        f"The service died {count} times in a row while it loaded this, without progress (last step: {step}). "
        f"Probably memory or the machine: see bgdeploy jobs log {row['id']}, then bgdeploy retry {row['id']}."
    )
    fields = {"limit": count, "step": step}
    changes = {
        "interruptions": count,
        "error": error,
        "error_code": "interrupted",
        "reason": None,
        "ended_at": tx.now,
    }
    move(tx, row, State.FAILED, "rescue.failed", fields=fields, **changes, **FREED)
