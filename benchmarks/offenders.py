"""Time the search for 1,000 double ids and 1,000 dangling ends, and watch the memory it takes.

``python benchmarks/offenders.py [rows]``: as many nodes and as many relationships, ids of text such as E0000000042.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bgdeploy.snapshots.keys import opened_keys
from bgdeploy.snapshots.offenders import find_in_ends, find_in_labels
from bgdeploy.snapshots.schema import open_snapshot

ROWS, FAULTY, FILE = 10_000_000, 1_000, 2_000_000


def ids(start: int, stop: int, step: int, rows: int) -> pa.Array:
    """Ids in an order that follows no other: ``step`` and ``rows`` have no common factor."""
    numbers = pa.array(((number * step) % rows for number in range(start, stop)), pa.int64())
    text = pc.utf8_lpad(numbers.cast(pa.string()), 10, "0")
    return pc.binary_join_element_wise(pa.scalar("E"), text, "")


def write(folder: Path, rows: int) -> None:
    """Every node once and 1,000 of them again; 1,000 relationships lead to a node that is not there."""
    for part, start in enumerate(range(0, rows, FILE)):
        stop = min(start + FILE, rows)
        last = stop == rows
        nodes = [ids(start, stop, 7_368_787, rows), *([ids(0, FAULTY, 7_368_787, rows)] if last else [])]
        save(folder / f"nodes/Thing/{part}.parquet", {"id": pa.concat_arrays(nodes)})
        targets = ids(start, stop, 15_485_863, rows)
        if last:
            lost = pa.array([f"lost-{number}" for number in range(FAULTY)])
            targets = pa.concat_arrays([targets[:-FAULTY], lost])
        ends = {"source": ids(start, stop, 9_999_991, rows), "target": targets}
        save(folder / f"relationships/LINKS/{part}.parquet", ends)


def save(file: Path, columns: dict[str, pa.Array]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)


def search(folder: Path, what: str) -> dict[str, object]:
    """One search in this process: what it found, how long it took, the most memory it had."""
    snapshot = open_snapshot("acme", 1, folder / "data", {}, "")
    before, began, worked = highest(), time.perf_counter(), time.process_time()
    with opened_keys(snapshot, folder / "search") as keys:
        if what == "double ids":
            found = [finding.rows for finding in find_in_labels(keys, across=False)]
        else:
            found = [finding.rows for finding in find_in_ends(keys, snapshot.relationships)]
    took, work = time.perf_counter() - began, time.process_time() - worked
    times = {"seconds": round(took, 1), "of processors": round(work, 1)}
    return {"found": found, **times, "MiB before": before, "at the peak": highest()}


def highest() -> int:
    """MiB of memory this process had at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10


if __name__ == "__main__":
    if sys.argv[1:2] == ["search"]:
        print(json.dumps(search(Path(sys.argv[2]), sys.argv[3])))
        raise SystemExit
    rows = int(sys.argv[1]) if sys.argv[1:] else ROWS
    with tempfile.TemporaryDirectory() as name:
        write(Path(name, "data"), rows)
        for what in ("double ids", "dangling ends"):
            done = subprocess.run(
                [sys.executable, __file__, "search", name, what], check=True, capture_output=True, text=True
            )
            print(f"{rows:,} rows, {what}: {done.stdout.strip()}")
