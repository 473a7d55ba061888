"""The proof alone against the engine's bare COPY by name of the same files, with the memory of the process that proves.

    python -m benchmarks.proof [million rows] [rounds]

Half of the rows are nodes, half relationships, ends declared. Each of bare COPY, load and proof is a process of its own,
one after another, so the proof's part that reads the files, which runs beside a load, counts in full.
"""

from __future__ import annotations

import json
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import load
from benchmarks.mutations import Memory
from bgdeploy.pipeline.verify import expecting, verify
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.targets import open_target_by_kind
from bgdeploy.targets.base import Ticket

SETTINGS = {"buffer_pool_mb": 1024, "threads": 0, "group_rows": 100_000_000}


def act(what: str, root: Path) -> dict[str, Any]:
    """Load, or prove what was loaded, in this process."""
    settings = {**SETTINGS, "state_dir": str(root / "state")}
    target = open_target_by_kind("ladybug", settings, {})
    snapshot = open_snapshot("acme", 1, root / "data", {}, "")
    ledger = Memory()
    began, spent = time.perf_counter(), time.process_time()
    if what == "load":
        target.load(Ticket(1, "acme-1", 1, settings), snapshot, ledger)
        (root / "plan").write_bytes(pickle.dumps(ledger.groups))
    else:
        with expecting(snapshot, root / "scratch") as expected:
            verify(target, "acme-1", expected, pickle.loads((root / "plan").read_bytes()))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {
        "seconds": time.perf_counter() - began,
        "processor": time.process_time() - spent,
        "memory": memory,
    }


def apart(what: str, root: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.proof", what, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, float] = json.loads((root / "figures").read_text())
    return found


def main() -> None:
    if sys.argv[1:2] in (["load"], ["proof"]):
        # In a file: the engine draws its progress on standard output.
        (Path(sys.argv[2]) / "figures").write_text(json.dumps(act(sys.argv[1], Path(sys.argv[2]))))
        return
    millions = float(sys.argv[1]) if sys.argv[1:] else 4
    rounds = int(sys.argv[2]) if sys.argv[2:] else 3
    load.NODES = load.RELATIONSHIPS = int(millions * 500_000)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = load.write(root / "data", "declared")
        loaded = apart("load", root)
        print(
            f"{millions:g} M rows, loaded in {loaded['seconds']:.1f} s with {loaded['memory']} MiB",
            flush=True,
        )
        found = []
        for number in range(rounds):
            plain = load.bare(data, fresh(root / f"bare{number}"))
            proof = apart("proof", root)
            found.append((proof["seconds"] / plain, plain, *proof.values()))
        ratio, plain, seconds, processor, memory = (
            statistics.median(one) for one in zip(*found, strict=True)
        )
        print(
            f"bare COPY {plain:.1f} s, proof {seconds:.1f} s ({processor:.1f} s of processor, {memory:.0f} MiB): "
            f"{ratio:.2f} x ({min(found)[0]:.2f} to {max(found)[0]:.2f})"
        )


def fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
