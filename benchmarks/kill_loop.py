"""Kill ``bgdeploy serve`` at random moments over one customer's snapshots; say where, and what was left.

usage: kill_loop.py FOLDER_WITH_SNAPSHOTS [--kills 50] [--seed 1] [--out docs/kill-loop.md]

Ends with 0 only if every job ended where it would have been, every count is right, no build file is
left, and no committed group was copied again.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CONFIG = """\
state_dir: state
dataset: {base_path: data, settle_seconds: 0.5}
orchestrator: {max_service_deaths: 100, max_retries: 100, retry_backoff_base: 1, drop_grace_seconds: 1,
               scan_interval: 2, watch_interval: 0.2, lease_seconds: 10}
"""
PATIENCE = 180.0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    dice = random.Random(given.seed)
    where: collections.Counter[str] = collections.Counter()
    rounds, found_unseen = 0, 0
    while where.total() < given.kills:
        rounds += 1
        with tempfile.TemporaryDirectory(prefix="bgdeploy-kill-") as name:
            folder = Path(name)
            shutil.copytree(given.source, folder / "data" / "customer")
            (folder / "config.yaml").write_text(CONFIG)
            play(folder, dice, where, min(12, given.kills - where.total()))
            found_unseen += check(folder)
            for path in folder.rglob("*"):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)
        print(f"round {rounds}: right; {where.total()} kills so far", flush=True)
    text = report(where, rounds, found_unseen, given.seed)
    print(text)
    if given.out:
        given.out.write_text(text)
    return 0


def play(folder: Path, dice: random.Random, where: collections.Counter[str], kills: int) -> None:
    for _ in range(kills):
        service = start(folder)
        moment = dice.uniform(0.8, 4.0)
        threading.Event().wait(moment)
        where[stage(folder)] += 1
        os.kill(service.pid, signal.SIGKILL)
        service.wait()
        if ended(folder):
            break
    service = start(folder)
    deadline = time.monotonic() + PATIENCE
    while not ended(folder):
        if time.monotonic() > deadline or service.poll() is not None:
            sys.exit(f"it did not end: {rows(folder, 'SELECT id, state, step, error FROM jobs')}")
        threading.Event().wait(0.1)
    service.send_signal(signal.SIGTERM)
    service.wait(60)


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bgdeploy", "--config", str(folder / "config.yaml"), "serve"]
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def rows(folder: Path, query: str) -> list[tuple]:
    # Read in a process of its own: closing a descriptor here must not disturb anybody's locks.
    connection = sqlite3.connect(f"file:{folder}/state/jobs.db?mode=ro", uri=True, timeout=5)
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def stage(folder: Path) -> str:
    if not (folder / "state/jobs.db").exists():
        return "before anything"
    found = rows(folder, "SELECT state, step FROM jobs ORDER BY timestamp")
    for state, step in found:
        if state == "loading":
            kind = "a group" if (step or "").startswith("group") else step or "the first group"
            return f"loading, after {kind}" if step else "loading, before the first group"
        if state == "loaded":
            return "loaded"
    return "before loading" if any(s in ("discovered", "queued") for s, _ in found) else "after switched"


def ended(folder: Path) -> bool:
    found = rows(folder, "SELECT state FROM jobs") if (folder / "state/jobs.db").exists() else []
    snapshots = [p for p in (folder / "data/customer").iterdir() if p.name.isdigit()]
    return len(found) == len(snapshots) and all(state == "switched" for (state,) in found)


def check(folder: Path) -> int:
    left = [p.name for p in (folder / "state/builds").iterdir()]
    restarts = rows(folder, "SELECT count(*) FROM job_events WHERE kind = 'load.restarted'")
    short = rows(folder, "SELECT id FROM jobs WHERE rows_confirmed <> rows_expected")
    open_groups = rows(folder, "SELECT number FROM load_tables WHERE confirmed_at IS NULL")
    wrong = rows(folder, "SELECT number FROM load_tables WHERE rows_confirmed <> rows_expected")
    live = rows(folder, "SELECT live FROM customers")[0][0]
    newest = max(p.name for p in (folder / "data/customer").iterdir() if p.name.isdigit())
    aliased = os.readlink(folder / "state/aliases/customer")
    problems = [left, short, open_groups, wrong]
    if any(problems) or restarts != [(0,)] or newest not in live or not aliased.endswith(live):
        sys.exit(f"wrong: {problems} restarts {restarts} live {live} alias {aliased}")
    return rows(folder, "SELECT count(*) FROM load_tables WHERE found")[0][0]


def report(where: collections.Counter[str], rounds: int, unseen: int, seed: int) -> str:
    inside = sum(n for stage, n in where.items() if stage.startswith("load"))
    lines = [
        "# The kill loop",
        "",
        f"`python benchmarks/kill_loop.py SNAPSHOTS --kills {where.total()} --seed {seed}` over two snapshots of one",
        f"customer (1.5 and 1.7 M rows): {where.total()} times `kill -9` of `bgdeploy serve` (its loading process dies",
        f"with it), {inside} of them between loading and switched, in {rounds} rounds. In every round both jobs ended",
        "`switched` with the newer one live, all counts as in the footers, no leftover build; no build was started",
        f"again and no committed group copied again. {unseen} groups were committed by a process that died before it",
        "could say so; they were found by their row counts.",
        "",
        "| the kill fell | times |",
        "|---|---|",
        *(f"| {stage} | {n} {'#' * n} |" for stage, n in where.most_common()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
