"""Drop snapshots with a few wrong bytes in a file, and see what becomes of each.

usage: python -m benchmarks.fuzz [snapshots] [--loads N] [--seed N]

Half of them are mutated in a footer, half in a page; half have a marker. All are found by one `scan --once`; the
first N of those that pass it are loaded by `run`, each for a customer of its own. None may end a process of the
service; each must end live with the values that pyarrow reads, waiting, or failed, both with the file's name.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bgdeploy.config import load_settings
from bgdeploy.targets import open_target
from tests.mutants import write_mutant

FIRST = 1_700_000_001
FILE = "nodes/Person/a.parquet"


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "bgdeploy", "--config", str(folder / "config.yaml"), *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), f"{words} died ({done.returncode}):\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done


def install(folder: Path, data: Path) -> None:
    folder.mkdir(exist_ok=True)
    settings = {
        "state_dir": "state",
        "dataset": {"base_path": str(data), "settle_seconds": 0},
        "ladybug": {"buffer_pool_mb": 64, "threads": 1},
        "orchestrator": {"max_retries": 2, "retry_backoff_base": 1, "num_workers": 2},
        "log_format": "json",
    }
    (folder / "config.yaml").write_text(json.dumps(settings))


def jobs(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        command(folder, "jobs", "list", "--limit", "1000000", "--json").stdout
    )
    return found


def judge(job: dict[str, Any]) -> str:
    """What became of it, or an error that says what it may not be."""
    said = str(job["error"] if job["state"] == "failed" else job["reason"])
    match job["state"]:
        case "queued" | "switched":
            return str(job["state"])
        case "failed" | "discovered" if FILE in said or "label Person" in said:
            if "was killed" in said or "no sign of life" in said:
                return f"{job['state']}, it ends its process"
            return str(job["state"])
        case "failed" if "id" in said and "nodes/Person" in said:
            return "failed"
    return f"WRONG: {job['state']}: {said[:300]}"


def compare(folder: Path, data: Path, job: dict[str, Any]) -> str:
    """Whether what is live has the values of its file, as another reader reads them."""
    target = open_target(load_settings(folder / "config.yaml"))
    try:
        columns = pq.read_table(data / job["customer"] / str(job["timestamp"]) / FILE)
    except (OSError, ValueError) as error:
        return f"live, and pyarrow cannot read its file ({str(error).splitlines()[0][:80]})"
    names = [name for name in columns.column_names if name in ("n", "x", "ok", "day")]
    key = "id" if "id" in columns.column_names else columns.column_names[0]
    asked = ", ".join(f"p.`{name}` AS `{name}`" for name in names)
    rows = target.query(
        job["customer"], f"MATCH (p:Person) RETURN {', '.join(filter(None, [f'p.`{key}` AS key', asked]))}"
    )
    live = {row.pop("key"): repr(row) for row in rows}
    wanted = {row[key]: repr({name: row[name] for name in names}) for row in columns.to_pylist()}
    return "live and right" if live == wanted else "WRONG: live with other values"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("--loads", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bgdeploy-fuzz-"))
    try:
        fuzz(folder, given.count, given.loads, given.seed)
    finally:
        for path, _, _ in os.walk(folder):
            Path(path).chmod(0o755)
        shutil.rmtree(folder)


def fuzz(folder: Path, count: int, loads: int, seed: int) -> None:
    data = folder / "data"
    for number in range(count):
        place = data / f"c{number % 1000}" / str(FIRST + number)
        write_mutant(place, seed + number, pages=number % 2 == 1, marker=number % 4 < 2)
    install(folder / "scanned", data)
    began = time.perf_counter()
    done = command(folder / "scanned", "scan", "--once")
    died = done.stderr.count("inspector.ended") + done.stderr.count("the process that read the files")
    found = jobs(folder / "scanned")
    print(
        f"{count:,} snapshots scanned in {time.perf_counter() - began:.0f} s; {died} inspectors ended",
        flush=True,
    )
    tally = collections.Counter(map(judge, found))
    for name, number in tally.most_common():
        print(f"  {number:6,} {name}")
    assert len(found) == count
    if loads:
        load(folder, data, [job for job in found if job["state"] == "queued"][:loads])


def load(folder: Path, data: Path, queued: list[dict[str, Any]]) -> None:
    some = folder / "some"
    for number, job in enumerate(queued):
        shutil.copytree(
            data / job["customer"] / str(job["timestamp"]), some / f"mutant-{number}" / str(job["timestamp"])
        )
    install(folder / "loaded", some)
    began = time.perf_counter()
    command(folder / "loaded", "run", "--timeout", "3600")
    ended = jobs(folder / "loaded")
    tally: collections.Counter[str] = collections.Counter()
    for job in ended:
        became = judge(job)
        became = compare(folder / "loaded", some, job) if became == "switched" else became
        tally[became] += 1
        if "WRONG" in became or "live, and" in became:
            print(f"  {job['customer']}/{job['timestamp']}: {became}")
    print(f"{len(ended):,} loaded in {time.perf_counter() - began:.0f} s")
    for name, number in tally.most_common():
        print(f"  {number:6,} {name}")


if __name__ == "__main__":
    main()
