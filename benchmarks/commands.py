"""Time whole commands over a job table of 100,000 jobs and 1,000 customers, each beside its goal.

The table is made up: every customer has a live database, a standby and 98 snapshots that are over. Times
are of whole processes, medians over rounds that take the commands in turn; beside the clock's there is
the processor's, which other work on the machine disturbs less.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bgdeploy.config import load_settings
from bgdeploy.jobs.reasons import Code, because, columns
from bgdeploy.jobs.transitions import customers, databases, events, jobs
from bgdeploy.site import Site, open_site

CUSTOMERS, SNAPSHOTS, ROUNDS = 1_000, 100, 15
FIRST = 1_700_000_000
GOALS: dict[tuple[str, ...], float | None] = {
    ("--help",): 0.30,
    ("jobs", "list"): 0.60,
    ("customers",): 0.60,
    ("jobs", "list", "--json"): 0.60,
    ("customers", "--json"): 0.60,
    ("jobs", "list", "--state", "failed"): None,
    ("jobs", "list", "--sort", "-rows"): None,
    ("jobs", "list", "--since", "2d"): None,
    ("jobs", "list", "--before", "50000"): None,
    ("jobs", "log"): None,
    ("switches",): None,
}
COUNTS = {"labels": {"Entity": 1_200, "Address": 600}, "types": {"HAS_ADDRESS": 1_200}}


def make_table(folder: Path) -> None:
    (folder / "config.yaml").write_text("state_dir: state\n")
    (folder / "data").mkdir()
    site = open_site(load_settings(folder / "config.yaml"))
    for number in range(CUSTOMERS):
        make_customer(site, number)
    site.store.truncate_log()
    site.store.close()


def make_customer(site: Site, number: int) -> None:
    name, live = f"customer-{number:04d}", SNAPSHOTS - 1
    owner = {
        "name": name,
        "alias": name,
        "created_at": 0.0,
        "live": f"{name}-{FIRST + live}",
        "live_build": 1,
    }
    since = {"live_timestamp": FIRST + live, "live_since": time.time(), "floor_timestamp": FIRST + live}
    first = number * SNAPSHOTS + 1
    rows = [_job(name, first + index, index) for index in range(SNAPSHOTS)]
    with site.store.write() as connection:
        connection.execute(customers.insert().values(**owner, **since, floor_build=1))
        connection.execute(jobs.insert(), rows)
        connection.execute(databases.insert(), [_database(row) for row in rows])
        connection.execute(events.insert(), [_event(row) for row in rows for _ in range(5)])
    for row in rows[-2:]:
        place = site.settings.state_dir / "databases" / row["database"]
        place.mkdir(parents=True)
        (place / "graph.lbug").touch()
    aliases = site.settings.state_dir / "aliases"
    aliases.mkdir(exist_ok=True)
    os.symlink(f"../databases/{rows[-1]['database']}", aliases / name)


def _job(customer: str, job_id: int, index: int) -> dict[str, object]:
    over = index < SNAPSHOTS - 2
    failed = over and index % 20 == 7
    state = "failed" if failed else "cleaned" if over else "switched"
    at = time.time() - (SNAPSHOTS - index) * 86_400
    times = {
        "created_at": at,
        "updated_at": at,
        "queued_at": at,
        "loading_at": at,
        "ended_at": at if over else None,
    }
    wrong = {"error": "The ids of nodes/Entity repeat.", "error_code": "bad-input"} if failed else {}
    settings = {"target": "ladybug", "columns": {"id": ["nodeId", "id", ":ID"]}, "buffer_pool_mb": 1024}
    named = {"id": job_id, "customer": customer, "timestamp": FIRST + index, "state": state, "build": 1}
    sizes = {"rows_expected": 3_000 + index, "rows_confirmed": 3_000, "bytes_expected": 70_000}
    blank = {"error": None, "error_code": None}
    seen = {
        "fingerprint": "0123456789abcdef" * 4,
        "fingerprint_at": at,
        **columns(because(Code.RETIRED, why="retired") if over else None),
    }
    database = f"{customer}-{FIRST + index}"
    return {**named, **times, **sizes, **seen, "settings": settings, "database": database, **blank, **wrong}


def _database(row: dict[str, object]) -> dict[str, object]:
    gone = row["ended_at"]
    owned = {key: row[key] for key in ("customer", "timestamp", "build", "created_at")}
    marks = {"verified_at": row["updated_at"], "drop_at": gone, "dropped_at": gone}
    return {"name": row["database"], "job_id": row["id"], **owned, **marks, "counts": COUNTS}


def _event(row: dict[str, object]) -> dict[str, object]:
    said = {"kind": "load.step", "actor": "worker", "message": f"{row['customer']}: a step"}
    return {"job_id": row["id"], "customer": row["customer"], "at": row["updated_at"], **said}


def measure(folder: Path, words: tuple[str, ...]) -> tuple[float, float]:
    """Return seconds by the clock and of the processor."""
    command = [
        str(Path(sys.executable).with_name("bgdeploy")),
        "--config",
        str(folder / "config.yaml"),
        *words,
    ]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        make_table(Path(name))
        found: dict[tuple[str, ...], list[tuple[float, float]]] = {words: [] for words in GOALS}
        for _ in range(ROUNDS):
            for words, times in found.items():
                times.append(measure(Path(name), words))
        for words, times in found.items():
            took, busy = sorted(one[0] for one in times), statistics.median(one[1] for one in times)
            goal = GOALS[words]
            wanted = f"goal {goal:.2f} s" if goal else "no goal"
            print(
                f"{' '.join(words):<30} {statistics.median(took):.2f} s ({took[0]:.2f} to {took[-1]:.2f}), "
                f"{wanted}; processor {busy:.2f} s"
            )
