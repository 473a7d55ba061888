"""A load of 4 M rows, claim to switched, against the engine's bare COPY by name of the same files.

    python benchmarks/load.py [rounds]

Three snapshots of the same size: ends declared by folders, ends proven by the footers, and ends that
must be looked up id by id. Interleaved; medians of the ratios.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

NODES, RELATIONSHIPS, FILE = 2_000_000, 2_000_000, 500_000
TIMESTAMP = 1700000001
GOALS = {"declared": 1.35, "footers": 1.35, "looked-up": 1.50}
BARE = """
import glob, sys, ladybug
c = ladybug.Connection(ladybug.Database(sys.argv[2] + "/bare.lbug", buffer_pool_size=1 << 30, max_db_size=1 << 34))
def files(part): return "[" + ", ".join(repr(f) for f in sorted(glob.glob(sys.argv[1] + part + "/**/*.parquet", recursive=True))) + "]"
for label in ("Person", "Firm"):
    c.execute(f"CREATE NODE TABLE {label}(id STRING, name STRING, value DOUBLE, day DATE, PRIMARY KEY(id))")
    c.execute(f"COPY {label} FROM (LOAD FROM {files('/nodes/' + label)} RETURN id, name, value, day)")
c.execute("CREATE REL TABLE OWNS(FROM Person TO Firm, weight INT64, since DATE)")
c.execute(f"COPY OWNS FROM (LOAD FROM {files('/relationships/OWNS')} RETURN source, target, weight, since)")
"""


def write(folder: Path, kind: str) -> Path:
    """Write half of the nodes as Person and half as Firm, joined by as many relationships as asked for."""
    half = NODES // 2
    # Prefixes that keep the ranges of ids apart, or the same one, so that only looking them up tells.
    marks = ("n", "n") if kind == "looked-up" else ("f", "p")
    for label, mark, first in (("Firm", marks[0], 0), ("Person", marks[1], 1)):
        for number, start in enumerate(range(0, half, FILE)):
            ids = range(start, min(start + FILE, half))
            save(folder / "nodes" / label / f"{number}.parquet", nodes(ids, mark, first))
    ends = "from=Person/to=Firm" if kind == "declared" else ""
    for number, start in enumerate(range(0, RELATIONSHIPS, FILE)):
        rows = range(start, min(start + FILE, RELATIONSHIPS))
        save(folder / "relationships/OWNS" / ends / f"{number}.parquet", owns(rows, marks, half))
    (folder / "_SUCCESS").touch()
    return folder


def key(mark: str, number: int, place: int) -> str:
    return f"{mark}{2 * number + place:08}"


def nodes(ids: range, mark: str, place: int) -> pa.Table:
    return pa.table(
        {
            "id": [key(mark, i, place) for i in ids],
            "name": [f"name of {i}" for i in ids],
            "value": [i * 0.5 if i % 10 else None for i in ids],
            "day": pa.array([i % 20_000 for i in ids], pa.int32()).cast(pa.date32()),
        }
    )


def owns(rows: range, marks: tuple[str, str], half: int) -> pa.Table:
    return pa.table(
        {
            "source": [key(marks[1], i * 7919 % half, 1) for i in rows],
            "target": [key(marks[0], i * 104_729 % half, 0) for i in rows],
            "weight": list(rows),
            "since": pa.array([i % 20_000 for i in rows], pa.int32()).cast(pa.date32()),
        }
    )


def save(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def bare(data: Path, folder: Path) -> float:
    return timed([sys.executable, "-c", BARE, str(data), str(folder)])


def timed(command: list[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return time.perf_counter() - began


def ours(data: Path, folder: Path) -> tuple[float, float]:
    """Return seconds from claim to switched, and of the whole command."""
    home = folder / "data/acme" / str(TIMESTAMP)
    home.parent.mkdir(parents=True)
    shutil.copytree(data, home)  # a copy has another inode and times than any before it
    (folder / "config.yaml").write_text("state_dir: state\n")
    command = [sys.executable, "-m", "bgdeploy", "--config", str(folder / "config.yaml")]
    whole = timed([*command, "run"])
    return claim_to_switched(folder / "state/jobs.db"), whole


def claim_to_switched(table: Path) -> float:
    with sqlite3.connect(table) as connection:
        moves = connection.execute("SELECT target, at FROM job_events WHERE target IS NOT NULL").fetchall()
    at = dict(moves)
    return float(at["switched"] - at["loading"])


def fresh(root: Path) -> Iterator[Path]:
    number = 0
    while True:
        number += 1
        folder = root / str(number)
        folder.mkdir()
        yield folder
        for path, _, _ in os.walk(folder):
            Path(path).chmod(0o755)  # published folders are read-only
        shutil.rmtree(folder)


def compare(kind: str, root: Path, rounds: int) -> None:
    data = write(root / kind, kind)
    folders = fresh(root)
    found = []
    for _ in range(rounds):
        plain = bare(data, next(folders))
        mine, whole = ours(data, next(folders))
        found.append((mine / plain, mine, plain, whole - mine))
    folders.close()
    ratio, mine, plain, above = (statistics.median(column) for column in zip(*found, strict=True))
    spread = f"{min(one[0] for one in found):.2f} to {max(one[0] for one in found):.2f}"
    print(
        f"{kind:>10}: claim to switched {mine:.2f} s, bare COPY {plain:.2f} s: {ratio:.2f} x ({spread}; goal {GOALS[kind]:.2f}); "
        f"the whole command {above:.2f} s above (goal 1.00)",
        flush=True,
    )


def main(compare_one: Callable[[str, Path, int], None] = compare) -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else 5
    print(f"{NODES:,} nodes, {RELATIONSHIPS:,} relationships, {rounds} rounds")
    for kind in GOALS:
        with tempfile.TemporaryDirectory() as name:
            compare_one(kind, Path(name), rounds)


if __name__ == "__main__":
    main()
