"""How soon a finished snapshot is live: `_SUCCESS` written -> alias moved, with `serve` running.

    python benchmarks/latency.py [snapshots]

1,000 rows each, dropped by a rename after the one before is live. Goal: p95 <= 2.5 s.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bgdeploy.snapshots.generate import write_snapshot

FIRST = 1700000001
PATIENCE = 60.0


def live(folder: Path) -> str:
    try:
        return os.path.basename(os.readlink(folder / "state/aliases/acme"))
    except FileNotFoundError:
        return ""


def drop(folder: Path, number: int) -> float:
    """Drop a snapshot and return the seconds from its marker to the alias."""
    path = write_snapshot(folder / "data", "acme", FIRST + number, rows=1000, seed=number, marker=False)
    began = time.perf_counter()
    (path / "_SUCCESS").touch()
    while live(folder) != f"acme-{FIRST + number}":
        assert time.perf_counter() - began < PATIENCE, (folder / "log").read_text()[-2000:]
        time.sleep(0.005)
    return time.perf_counter() - began


def main() -> None:
    count = int(sys.argv[1]) if sys.argv[1:] else 40
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text("state_dir: state\norchestrator: {drop_grace_seconds: 1}\n")
        command = [sys.executable, "-m", "bgdeploy", "--config", str(folder / "config.yaml"), "serve"]
        (folder / "data").mkdir()
        with open(folder / "log", "wb") as log, subprocess.Popen(command, stderr=log) as service:
            took = sorted(
                [drop(folder, number) for number in range(count + 1)][1:]
            )  # the first waits for the start
            service.send_signal(signal.SIGTERM)
        for path, _, _ in os.walk(folder):
            Path(path).chmod(0o755)
    p95 = took[int(0.95 * (len(took) - 1))]
    print(
        f"{count} snapshots of 1,000 rows: median {statistics.median(took):.2f} s, p95 {p95:.2f} s (goal 2.5), max {took[-1]:.2f} s"
    )


if __name__ == "__main__":
    main()
