"""The loading process: builds or verifies one database, or looks for offenders, and dies with its parent.

It gets a ticket on standard input (``worker/run`` writes it; the one that verifies gets another when the load is
over) and speaks lines of JSON: ``{"op": ...}`` asks the parent to write to the ledger and waits for ``{"ok": true}``,
the last line is ``{"done": ...}`` or ``{"error": ...}``. It never opens the job table. Libraries are imported late: the
inspector, which has the same pipe to its parent, needs few of them.
"""

from __future__ import annotations

import csv
import ctypes
import errno
import json
import os
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from bgdeploy.actions import do
from bgdeploy.errors import BadInput, BgdeployError, TargetError
from bgdeploy.failpoints import reach
from bgdeploy.memory import put_off
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Group, Target, Ticket

_PR_SET_PDEATHSIG = 1
_COLUMNS = ("kind", "table", "problem", "id", "file", "row")  # of a list of offenders


def main() -> int:
    """Run the stage the ticket names; every failure is one line with its kind, never a traceback."""
    put_off()
    line = open_line()
    ticket = json.loads(line.replies.get())
    reach("child.started")
    try:
        line.tell({"done": _run(ticket, line)})
    except BgdeployError as error:
        line.tell({"error": told(error)})
        return 1
    except MemoryError:
        line.tell({"error": {"code": "target", "what": "The loading process ran out of memory."}})
        return 1
    except Exception as error:  # the process's edge: whatever it is, the parent must hear of it
        what = f"The loading process met an unexpected {type(error).__name__}: {error}"
        line.tell({"error": {"code": _kind_of(error), "what": what}, "unforeseen": True})
        return 1
    return 0


def told(error: BgdeployError) -> dict[str, str]:
    """An error as the parent hears of it."""
    return {"code": error.code, "what": error.what, "kept": error.kept, "cure": error.cure}


def _kind_of(error: Exception) -> str:
    import pyarrow as pa

    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "full"
    # Arrow tells of damaged Parquet by its own errors, and by system errors without a number.
    damaged = isinstance(error, pa.ArrowException) or (isinstance(error, OSError) and error.errno is None)
    return "damaged" if damaged else "target"


def _run(ticket: dict[str, Any], line: Line) -> dict[str, Any]:
    from bgdeploy.snapshots.parquet import find_bad_text
    from bgdeploy.targets import open_target_by_kind

    target = open_target_by_kind(ticket["target"], ticket["settings"], ticket["access"])
    if ticket["place"]:
        target.expect(ticket["place"])
    snapshot = _open_snapshot(ticket, target)
    try:
        if ticket["stage"] == "load":
            return _load(target, *_right(ticket, line), snapshot)
        if ticket["stage"] == "offenders":
            return _list_offenders(target, ticket, snapshot, line.tell)
        return _verify(target, ticket, line, snapshot)
    except UnicodeDecodeError as error:
        raise find_bad_text(snapshot) or error from error


def _open_snapshot(ticket: dict[str, Any], target: Target) -> Snapshot:
    from bgdeploy.snapshots.readiness import fingerprint
    from bgdeploy.snapshots.schema import open_snapshot
    from bgdeploy.snapshots.source import mark, recall

    wanted = ticket["snapshot"]
    path = Path(wanted["path"])
    found = fingerprint(path).text if path.is_dir() else None
    if found is None or found != wanted["fingerprint"]:
        raise BadInput(
            f"The snapshot {path} {'changed' if found else 'was removed'} after it was queued.",
            kept="What is live stays live.",
            cure="It is taken up again by itself when the folder has settled.",
        )
    named, columns = (wanted["customer"], wanted["timestamp"], path), ticket["settings"]["columns"]
    known = recall(ticket["inspection"], mark(found, columns, ticket["target"]), types=True)
    if known is not None:  # the inspector has read the footers, and nothing has changed since
        return replace(known, path=path)
    return open_snapshot(*named, columns, found, target.refuses)


def _load(target: Target, right: Ticket, ledger: PipeLedger, snapshot: Snapshot) -> dict[str, Any]:
    from bgdeploy.snapshots.offenders import BadKeys
    from bgdeploy.snapshots.schema import check_types

    check_types(snapshot)
    try:
        target.load(right, snapshot, ledger)
    except BadKeys as error:
        listing = do("offenders", job_id=right.job_id, output="offenders.csv")
        raise error.listed_by(listing) from error
    return {}


def _verify(target: Target, ticket: dict[str, Any], line: Line, snapshot: Snapshot) -> dict[str, Any]:
    """Read what to expect while the load still runs; its end brings a second ticket, which names the database."""
    import pyarrow as pa

    from bgdeploy.pipeline.verify import expecting, verify

    with (
        _scratch(ticket) as folder,
        expecting(snapshot, folder, across=target.keys_cross_folders) as expected,
    ):
        right, ledger = _right(json.loads(line.replies.get()), line)
        try:
            done = verify(target, right.database, expected, ledger.stored or ())
        except pa.ArrowException as error:  # of what the database gave back: the files were read before
            what = f"{right.database} cannot be compared: {type(error).__name__}: {error}"
            raise TargetError(what, kept="It was not published.") from error
    ledger.step("verified")
    reach("child.verified")
    facts = {"snapshot": f"{snapshot.customer}/{snapshot.timestamp}", "fingerprint": snapshot.fingerprint}
    target.publish(right, {**facts, "counts": done.counts, "proof": done.proof})
    ledger.step("published")
    return {"counts": done.counts, "proof": done.proof}


def _right(ticket: dict[str, Any], line: Line) -> tuple[Ticket, PipeLedger]:
    stored = (
        None
        if ticket["plan"] is None
        else tuple(Group(**{**row, "files": tuple(row["files"])}) for row in ticket["plan"])
    )
    ledger = PipeLedger(line, stored, set(ticket["done"]))
    return Ticket(ticket["job_id"], ticket["database"], ticket["fence"], ticket["settings"]), ledger


@contextmanager
def _scratch(ticket: dict[str, Any]) -> Iterator[Path]:
    """A folder for this process alone; what earlier runs of its job left behind goes."""
    home = Path(ticket["settings"]["state_dir"], "scratch")
    for left in home.glob(f"{ticket['job_id']}-*"):
        if int(left.name.rpartition("-")[2]) <= ticket["fence"]:
            shutil.rmtree(left, ignore_errors=True)
    folder = home / f"{ticket['job_id']}-{ticket['fence']}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _list_offenders(
    target: Target, ticket: dict[str, Any], snapshot: Snapshot, send: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Send every finding, and write all its lines as CSV or JSON lines."""
    from bgdeploy.snapshots.keys import opened_keys
    from bgdeploy.snapshots.offenders import find_in_ends, find_in_labels

    def tell(folder: str, rows: int) -> None:
        send({"folder": folder, "rows": rows})

    names = ("kind", "table", "folder", "labels", "problem", "rows", "ids")
    with (
        open(ticket["output"] or os.devnull, "w", encoding="utf-8", newline="") as file,
        opened_keys(snapshot, Path(ticket["folder"])) as keys,
    ):
        writer = csv.writer(file)
        if ticket["table"]:
            writer.writerow(_COLUMNS)
        for find in (
            find_in_labels(keys, across=target.keys_cross_folders, tell=tell),
            find_in_ends(keys, snapshot.relationships, tell=tell),
        ):
            for finding in find:
                first = [
                    {"id": one.id, "places": [[*place] for place in one.places], "more": one.more}
                    for one in finding.first
                ]
                send({"found": {**{name: getattr(finding, name) for name in names}, "first": first}})
                for id_, place in finding.lines() if ticket["output"] else ():
                    row = (finding.kind, finding.table, finding.problem, id_, place.file, place.row)
                    if ticket["table"]:
                        writer.writerow(row)
                    else:
                        said = json.dumps(dict(zip(_COLUMNS, row, strict=True)), ensure_ascii=False)
                        file.write(said + "\n")
    return {}


@dataclass(frozen=True)
class Line:
    """The pipe to the parent: one question at a time, each answered before the work goes on."""

    out: TextIO
    replies: queue.Queue[str]
    turn: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, message: dict[str, Any]) -> None:
        """Send a line without waiting; from any thread."""
        with self.turn:
            self.out.write(json.dumps(message, default=str) + "\n")
            self.out.flush()

    def ask(self, op: str, **fields: Any) -> Any:
        """Send a line and wait until the parent has made it durable."""
        self.tell({"op": op, **fields})
        return json.loads(self.replies.get())["ok"]


@dataclass(frozen=True)
class PipeLedger:
    """The ledger as the loading process sees it; the parent alone writes to the job table."""

    line: Line
    stored: tuple[Group, ...] | None
    known: set[int]

    def done(self) -> frozenset[int]:
        """The groups that are confirmed."""
        return frozenset(self.known)

    def plan(self) -> tuple[Group, ...] | None:
        """The plan of an earlier run."""
        return self.stored

    def store_plan(self, groups: Sequence[Group]) -> None:
        """Make the plan durable."""
        self.line.ask("plan", groups=[asdict(group) for group in groups])

    def restart(self, reason: str) -> None:
        """Say that the build starts from zero."""
        self.known.clear()
        self.line.ask("restart", reason=reason)

    def chosen(self, loader: str, why: str) -> None:
        """Make the choice durable."""
        self.line.ask("chosen", loader=loader, why=why)

    def owns(self, mark: str) -> None:
        """Make the mark durable."""
        self.line.ask("owns", mark=mark)

    def started(self, group: int) -> None:
        """Say that a group is about to be committed."""
        self.line.ask("started", group=group)

    def confirmed(self, group: int, rows: int, *, found: bool = False) -> None:
        """Say that a group is committed."""
        self.line.ask("confirmed", group=group, rows=rows, found=found)

    def advanced(self, group: int, rows: int) -> None:
        """Say how far a group has come."""
        self.line.ask("advanced", group=group, rows=rows)

    def seen(self, group: int, rows: int) -> None:
        """Say about how many rows are on their way; nobody answers that."""
        self.line.tell({"seen": rows, "group": group})

    def note(self, doing: str) -> None:
        """Say what takes long."""
        self.line.ask("note", doing=doing)

    def step(self, name: str) -> None:
        """Say that a step is done."""
        self.line.ask("step", name=name)


def open_line() -> Line:
    """Take standard input and output as the pipe to the parent; from here on this process dies with it."""
    # Whatever the engine prints must not mix with the lines: standard output moves elsewhere.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Where memory runs out, the system shall take this process and not the service: it only costs a retry.
    with suppress(OSError):  # no Linux, or not allowed: the system then chooses for itself
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    replies: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(replies,), daemon=True).start()
    return Line(out, replies)


def _listen(replies: queue.Queue[str]) -> None:
    for text in sys.stdin:
        replies.put(text)
    os._exit(3)  # end of file: the parent is gone, and with it the right to go on


if __name__ == "__main__":
    code = main()
    # An engine that refused a statement may have harmed its memory: leave without its clean-up.
    sys.stdout.flush()
    os._exit(code)
