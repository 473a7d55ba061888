"""Compare the disk space a load is said to need with what it takes at its peak, as a ratio (never below 1).

With a folder of a snapshot as argument that one is measured, else snapshots of three sizes made here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bgdeploy.snapshots.generate import write_snapshot
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.targets.ladybug.target import MIB, disk_needed

SIZES = (3_000, 100_000, 1_000_000)


def allocated(folder: Path) -> int:
    """Bytes a folder takes on the disk now; what vanishes meanwhile takes none."""
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def peak(folder: Path) -> int:
    """Run a load to its end and return the most bytes seen below the builds and the databases."""
    (folder / "config.yaml").write_text("state_dir: state\ndataset: {settle_seconds: 0}\n")
    command = [sys.executable, "-m", "bgdeploy", "--config", str(folder / "config.yaml"), "run"]
    highest = 0
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            highest = max(
                highest, sum(allocated(folder / "state" / part) for part in ("builds", "databases"))
            )
            try:
                process.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
    assert process.returncode == 0
    return highest


def measure(source: Path | None, rows: int) -> tuple[int, int, int]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data/acme/1700000001"
        if source is None:
            write_snapshot(folder / "data", "acme", 1700000001, rows=rows, seed=1)
        else:
            shutil.copytree(source, data)
        snapshot = open_snapshot("acme", 1700000001, data, {}, "")
        found = snapshot.rows, disk_needed(snapshot), peak(folder)
        for path, _, _ in os.walk(folder):
            Path(path).chmod(0o755)
        return found


if __name__ == "__main__":
    sources = [(Path(name), 0) for name in sys.argv[1:]] or [(None, size) for size in SIZES]
    for source, size in sources:
        rows, said, most = measure(source, size)
        print(
            f"{rows:>12,} rows: said {said / MIB:,.0f} MiB, peak {most / MIB:,.0f} MiB, {said / most:.2f} x"
        )
