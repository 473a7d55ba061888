"""Time finding the labels of ends that only their ids tell, against the engine's bare COPY of the same files.

``python benchmarks/ends.py [rounds]``: the snapshot of ``load.py`` that is looked up, 2 M nodes and 2 M relationships.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import load

FIND = """
import sys
from pathlib import Path
from bgdeploy.snapshots.ends import find_parts
from bgdeploy.snapshots.schema import open_snapshot
snapshot = open_snapshot("acme", 1, Path(sys.argv[1]), {}, "")
assert {(part.source, part.target) for part in find_parts(snapshot, Path(sys.argv[2]))[0]} == {("Person", "Firm")}
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) >> 10)
"""


def measure(code: str, data: Path, folder: Path) -> tuple[float, float, str]:
    """Return seconds, seconds of processor, and what was printed."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, str(data), str(folder)], capture_output=True, text=True, check=True
    )
    took, after = time.perf_counter() - began, os.times()
    work = after.children_user + after.children_system - before.children_user - before.children_system
    return took, work, done.stdout.strip()


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if sys.argv[1:] else 3
    with tempfile.TemporaryDirectory() as name:
        data = load.write(Path(name, "data"), "looked-up")
        found = []
        for number in range(rounds):
            folder = Path(name, str(number))
            folder.mkdir()
            bare, find = measure(load.BARE, data, folder), measure(FIND, data, folder)
            found.append((find[0] / bare[0], find[1] / bare[1]))
            print(
                f"bare COPY {bare[0]:.2f} s ({bare[1]:.2f} of processors); ends found {find[0]:.2f} s ({find[1]:.2f}), "
                f"{find[2]} MiB at the peak",
                flush=True,
            )
        time_, work = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{time_:.2f} x in time, {work:.2f} x in processors (0.25 is wanted)")
