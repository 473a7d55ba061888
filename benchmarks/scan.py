"""Time scans of many small snapshots, each beside its goal and beside a bare look at the same folders.

usage: scan.py [--customers 1000] [--snapshots 100] [--rounds 5]

Every snapshot has small Parquet files of its own. Times are of whole commands, with those of the same
command over an empty folder taken off ("process start").
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FIRST = 1_700_000_000
GOALS = {"known": 0.30, "without footers": 15.0, "with footers": 60.0}
# As a house looks that has run for long: two databases are kept of each customer, the others are retired.
LONG_RUN = """
UPDATE jobs SET state = 'cleaned' WHERE timestamp < (
  SELECT max(n.timestamp) - 1 FROM jobs AS n WHERE n.customer = jobs.customer);
UPDATE jobs SET state = 'loading', database = customer || '-' || timestamp
  WHERE state = 'queued' AND timestamp % 2 = 0;
UPDATE jobs SET state = 'loaded' WHERE state = 'loading';
UPDATE jobs SET state = 'switched' WHERE state = 'loaded';
UPDATE jobs SET state = 'loading', database = customer || '-' || timestamp WHERE state = 'queued';
UPDATE jobs SET state = 'loaded' WHERE state = 'loading';
UPDATE jobs SET state = 'switched' WHERE state = 'loaded';
UPDATE customers SET floor_build = 1, live_build = 1, live_timestamp = (
  SELECT max(timestamp) FROM jobs WHERE customer = customers.name);
UPDATE customers SET floor_timestamp = live_timestamp, live = name || '-' || live_timestamp;
"""


@dataclass(frozen=True)
class Place:
    """One installation; ``bare`` has an empty base folder and tells what the start costs."""

    folder: Path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "bgdeploy", "--config", str(self.folder / "config.yaml"), *words]

    def seconds(self, *words: str) -> float:
        began = time.perf_counter()
        subprocess.run(self.command(*words), check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    def run_sql(self, script: str) -> None:
        with closing(sqlite3.connect(self.folder / "state/jobs.db")) as connection:
            connection.executescript(script)


def make_place(folder: Path, data: Path) -> Place:
    (folder / "data").mkdir(parents=True) if data == folder / "data" else folder.mkdir()
    (folder / "config.yaml").write_text(f"state_dir: state\ndataset: {{base_path: {data}}}\n")
    place = Place(folder)
    place.seconds("init")
    return place


def small_files() -> dict[str, bytes]:
    """One node file and one relationship file, as bytes."""
    tables = {
        "nodes/Person/part-0.parquet": {
            "nodeId": ["p1", "p2"],
            "labels": ["Person"] * 2,
            "name": ["Ada", "Bo"],
        },
        "relationships/KNOWS/part-0.parquet": {
            "sourceNodeId": ["p1"],
            "targetNodeId": ["p2"],
            "relationshipType": ["KNOWS"],
        },
    }
    content = {}
    for path, table in tables.items():
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(table), sink)
        content[path] = sink.getvalue().to_pybytes()
    return content


def write_snapshots(data: Path, customers: int, snapshots: int) -> Iterator[Path]:
    files = small_files()
    for customer in range(customers):
        for number in range(snapshots):
            folder = data / f"customer-{customer:04d}" / str(FIRST + number)
            for path, content in files.items():
                place = folder / path
                place.parent.mkdir(parents=True)
                place.write_bytes(content)
            yield folder


def list_bare(data: Path) -> int:
    """What no scan can do without: every customer's folder listed once."""
    count = 0
    for customer in os.scandir(data):
        with os.scandir(customer) as items:
            count += sum(item.is_dir(follow_symlinks=False) for item in items)
    return count


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="bgdeploy-scan-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def show(what: str, seconds: list[float], start: float) -> None:
    above = sorted(one - start for one in seconds)
    middle, goal = statistics.median(above), GOALS[what]
    verdict = "met" if middle <= goal else "MISSED"
    print(
        f"{what:<16} {middle:7.2f} s above process start ({above[0]:.2f} to {above[-1]:.2f}); goal {goal:g}: {verdict}"
    )


def measure(folder: Path, customers: int, snapshots: int, rounds: int) -> None:
    empty = make_place(folder / "empty", folder / "empty" / "data")
    place = make_place(folder / "place", folder / "place" / "data")
    data = place.folder / "data"
    took = timed(lambda: list(write_snapshots(data, customers, snapshots)))
    print(
        f"{customers * snapshots:,} snapshots of {customers:,} customers, written in {took:.0f} s", flush=True
    )
    empty.seconds("scan", "--once")
    start = statistics.median([empty.seconds("scan", "--once") for _ in range(rounds)])
    version = statistics.median([empty.seconds("--version") for _ in range(rounds)])
    print(f"process start: scan of an empty folder {start:.2f} s, --version {version:.2f} s", flush=True)
    show("without footers", [place.seconds("scan", "--once")], start)
    again = place.seconds("scan", "--once")
    print(f"  and looked at again, still not settled: {again - start:.2f} s", flush=True)
    settled = make_place(folder / "settled", data)
    for customer in data.iterdir():
        for snapshot in customer.iterdir():
            (snapshot / "_SUCCESS").touch()
    show("with footers", [settled.seconds("scan", "--once")], start)
    again = settled.seconds("scan", "--once")
    print(f"  and all {customers * snapshots:,} queued looked at again: {again - start:.2f} s", flush=True)
    settled.run_sql(LONG_RUN)
    settled.seconds("scan", "--once")
    bare, known, starts = [], [], []
    for _ in range(rounds):
        bare.append(timed(lambda: list_bare(data)))
        starts.append(empty.seconds("scan", "--once"))
        known.append(settled.seconds("scan", "--once"))
    show("known", known, statistics.median(starts))
    print(f"  beside a bare scandir of the same tree: {statistics.median(bare):.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--customers", type=int, default=1000)
    parser.add_argument("--snapshots", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with scratch() as folder:
        measure(folder, given.customers, given.snapshots, given.rounds)


if __name__ == "__main__":
    main()
