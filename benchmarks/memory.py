"""Watch how much memory the service and its loading processes take as the data grows fivefold.

    python benchmarks/memory.py

Goal: the loading processes <= 900 MB, the service <= 150 MB, both flat from 4 M to 20 M rows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import load

SIZES, POOL_MB = (4_000_000, 20_000_000), 512


def resident(process: psutil.Process) -> int:
    """Bytes in memory; 0 for a process that has just ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def highest(folder: Path) -> tuple[int, int]:
    """Run a load to its end; return the most bytes the service and a loading process had."""
    command = [sys.executable, "-m", "bgdeploy", "--config", str(folder / "config.yaml"), "run"]
    service, child = 0, 0
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            service = max(service, resident(watched))
            child = max([child, *map(resident, watched.children())])
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
    assert process.returncode == 0
    return service, child


if __name__ == "__main__":
    for rows in SIZES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            load.NODES = load.RELATIONSHIPS = rows // 2
            load.write(folder / "data/acme/1700000001", "declared")
            config = f"state_dir: state\nladybug: {{buffer_pool_mb: {POOL_MB}}}\n"
            (folder / "config.yaml").write_text(config)
            service, child = highest(folder)
            print(
                f"{rows:>10,} rows: service {service >> 20} MiB, loading process {child >> 20} MiB, pool {POOL_MB}"
            )
            for path, _, _ in os.walk(folder):
                Path(path).chmod(0o755)
