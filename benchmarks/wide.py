"""Time the inspection of snapshots with very many files or columns, and who waits for it.

usage: python -m benchmarks.wide

Goals: at most 5 s each, growing no faster than files and columns do; another customer's snapshot is inspected
within 2 s meanwhile. Processor time is told beside, for a machine that has other work.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from bgdeploy.snapshots.readiness import fingerprint
from bgdeploy.worker.inspector import Inspectors

SHAPES = {  # files, columns
    "1,250 files": (1250, 3),
    "2,500 files": (2500, 3),
    "8,000 columns": (2, 8_000),
    "16,000 columns": (2, 16_000),
    "500 columns x 100 files": (100, 500),
    "500 columns x 200 files": (200, 500),
}


def write(folder: Path, files: int, columns: int) -> None:
    place = folder / "nodes/P"
    place.mkdir(parents=True)
    for number in range(files):
        kind = pa.int32() if number % 2 else pa.int64()  # so that columns have to be widened
        rest = {f"c{column}": pa.array([column], kind) for column in range(columns - 1)}
        pq.write_table(pa.table({"id": [f"p{number}"], **rest}), place / f"{number:05}.parquet")


def request(folder: Path, customer: str) -> dict[str, Any]:
    named = {"op": "open", "customer": customer, "timestamp": 1, "path": str(folder)}
    return {**named, "fingerprint": fingerprint(folder).text, "columns": {}, "target": "ladybug"}


def processor() -> float:
    return sum(sum(one.cpu_times()[:2]) for one in psutil.Process().children())


def main() -> None:
    pool = Inspectors(2)
    with tempfile.TemporaryDirectory() as name:
        for number, shape in enumerate(SHAPES.values()):
            write(Path(name, str(number)), *shape)
        for number in range(2 * len(SHAPES)):
            write(Path(name, f"small{number}"), 1, 3)
        for number in range(2):  # both are started
            pool.ask(request(Path(name, f"small{number}"), f"first{number}"))
        pool.wait_for_fewer(1, 60)
        for number, what in enumerate(SHAPES):
            before, began = processor(), time.perf_counter()
            large = pool.ask(request(Path(name, str(number)), "large"))
            pool.wait(pool.ask(request(Path(name, f"small{number + 2}"), "small")))
            other = time.perf_counter() - began
            packed = len(pool.wait(large)["packed"])
            took = time.perf_counter() - began
            print(
                f"{what:24} {took:5.2f} s, {processor() - before:5.2f} s of processor; "
                f"another customer's after {other:.2f} s; {packed / 1e3:,.0f} kB are kept",
                flush=True,
            )
        pool.close()


if __name__ == "__main__":
    main()
