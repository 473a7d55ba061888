"""1,000 moves of an alias under four readers that open, count and close in a loop.

    python benchmarks/switches.py

Goal: no failed and no mixed read; a move's p99 <= 10 ms.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bgdeploy.snapshots.generate import write_snapshot
from bgdeploy.targets.ladybug import open_reader, open_target

FIRST, MOVES, READERS = 1700000001, 1000, 4
SIZES = {f"acme-{FIRST}": 600, f"acme-{FIRST + 1}": 1200}  # nodes


def read_on(settings: dict[str, Any], over: Any, found: Any) -> None:
    """Read until told to stop; hand back how often, and what was wrong."""
    reads, failed, mixed = 0, 0, 0
    while not over.is_set():
        try:
            with open_reader(settings, "acme") as reader:
                nodes = reader.query("MATCH (n) RETURN count(*) AS n")[0]["n"]
                mixed += nodes != SIZES[reader.database]
        except Exception as error:  # counted, whatever it is
            failed += 1
            print(error, file=sys.stderr)
        reads += 1
    found.put((reads, failed, mixed))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text("state_dir: state\n")
        for number, nodes in enumerate(SIZES.values()):
            write_snapshot(folder / "data", "acme", FIRST + number, rows=nodes * 5 // 3, seed=number)
        run = [sys.executable, "-m", "bgdeploy", "--config", str(folder / "config.yaml"), "run"]
        subprocess.run(run, check=True, capture_output=True)
        settings = {"state_dir": str(folder / "state"), "buffer_pool_mb": 64, "threads": 1}
        spawn = multiprocessing.get_context("spawn")
        over, found = spawn.Event(), spawn.Queue()
        readers = [spawn.Process(target=read_on, args=(settings, over, found)) for _ in range(READERS)]
        for reader in readers:
            reader.start()
        time.sleep(2)
        took = move(settings)
        over.set()
        totals = [sum(column) for column in zip(*(found.get() for _ in readers), strict=True)]
        for reader in readers:
            reader.join()
        print(
            f"{MOVES} moves under {READERS} readers: p50 {took[MOVES // 2]:.1f} ms, p99 {took[int(MOVES * 0.99)]:.1f} ms (goal 10), max {took[-1]:.1f} ms"
        )
        print(f"{totals[0]:,} reads, {totals[1]} failed, {totals[2]} mixed (goal 0 and 0)")
        for path, _, _ in os.walk(folder):
            Path(path).chmod(0o755)


def move(settings: dict[str, Any]) -> list[float]:
    """Move back and forth, 20 ms apart; return milliseconds of each move, sorted."""
    target, names, took = open_target(settings), list(SIZES), []
    for number in range(MOVES):
        began = time.perf_counter()
        target.switch("acme", names[number % 2], 2**40 + number)
        took.append((time.perf_counter() - began) * 1000)
        time.sleep(0.02)
    return sorted(took)


if __name__ == "__main__":
    main()
