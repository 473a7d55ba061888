"""Time a whole ``bgdeploy run`` against the engine's bare COPY of the same files, in one run, as a ratio."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bgdeploy.snapshots.generate import write_snapshot

ROWS, ROUNDS = 500_000, 3
BARE = """
import glob, sys, ladybug
c = ladybug.Connection(ladybug.Database(sys.argv[2] + "/bare.lbug", buffer_pool_size=1 << 30))
def files(part): return "[" + ", ".join(repr(f) for f in sorted(glob.glob(sys.argv[1] + part + "/*.parquet"))) + "]"
c.execute("CREATE NODE TABLE Entity(nodeId STRING, name STRING, country STRING, founded DATE, employees INT32, revenue DOUBLE, active BOOL, tags STRING[], PRIMARY KEY(nodeId))")
c.execute("CREATE NODE TABLE Address(nodeId STRING, street STRING, city STRING, postcode STRING, latitude DOUBLE, longitude DOUBLE, floors INT64, PRIMARY KEY(nodeId))")
c.execute("CREATE REL TABLE HAS_ADDRESS(FROM Entity TO Address, since DATE, confidence FLOAT)")
c.execute("COPY Entity FROM (LOAD FROM " + files("/nodes/Entity") + " RETURN nodeId, name, country, founded, employees, revenue, active, tags)")
c.execute("COPY Address FROM (LOAD FROM " + files("/nodes/Address") + " RETURN nodeId, street, city, postcode, latitude, longitude, floors)")
c.execute("COPY HAS_ADDRESS FROM (LOAD FROM " + files("/relationships/HAS_ADDRESS") + " RETURN sourceNodeId, targetNodeId, since, confidence)")
"""


def timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def one_round() -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_snapshot(folder / "data", "acme", 1700000001, rows=ROWS, seed=1)
        (folder / "config.yaml").write_text("state_dir: state\n")
        config = str(folder / "config.yaml")
        whole = timed([sys.executable, "-m", "bgdeploy", "--config", config, "run"])
        bare = timed([sys.executable, "-c", BARE, str(data), name])
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        return whole, bare


if __name__ == "__main__":
    rounds = [one_round() for _ in range(ROUNDS)]
    whole, bare = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"{ROWS:,} rows: whole run {whole:.1f} s, bare COPY {bare:.1f} s, {whole / bare:.2f} x, {whole - bare:.1f} s above"
    )
