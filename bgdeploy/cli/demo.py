"""``demo``: the main job on made-up customers, with everything going wrong that may go wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from bgdeploy.cli.render import Table, print_table
from bgdeploy.clock import monotonic, wall
from bgdeploy.errors import BgdeployError, ExitCode
from bgdeploy.service.api import Deployments
from bgdeploy.service.results import Job
from bgdeploy.snapshots.generate import write_snapshot

# The loading process stops itself after its first group, so that the kill always falls inside the load.
HELD = "load.group.confirmed:1:stop"
ONLY_WHILE_KEPT = " All of them: bgdeploy"  # a command for a folder that is gone by the time it is read
PATIENCE = 300.0  # seconds for any one part of the demo
_CONFIG = """\
state_dir: state
dataset: {base_path: data, settle_seconds: 1}
ladybug: {buffer_pool_mb: 256}
orchestrator: {num_workers: 2, scan_interval: 2, watch_interval: 0.2, lease_seconds: 5, drop_grace_seconds: 1}
"""


@dataclass(frozen=True)
class Drop:
    """One snapshot of the script; ``share`` is its part of all rows."""

    customer: str
    number: int
    share: float
    broken: str | None = None


FIRST = (Drop("acme", 1, 0.08), Drop("borealis", 1, 0.08), Drop("cumulus", 1, 0.08))
VICTIM = Drop("cumulus", 2, 0.40)
REST = (
    Drop("acme", 2, 0.09),
    Drop("borealis", 2, 0.08, broken="duplicate-id"),
    Drop("acme", 3, 0.10),
    Drop("borealis", 3, 0.09),
)


@dataclass
class Reads:
    """What the readers of one customer saw through its alias."""

    made: int = 0
    failed: int = 0
    mixed: int = 0
    seen: list[str] = field(default_factory=list)  # databases in the order they appeared
    last_error: str = ""


def run_demo(*, rows: int, keep: bool) -> int:
    """Run the script and print what happened; return the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="bgdeploy-demo-"))
    try:
        return _play(folder, rows, keep=keep)
    finally:
        if keep:
            print(f"\nkept: {folder} (try: cd {folder} && bgdeploy customers)")
        else:
            for path in folder.rglob("*"):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)  # published folders are read-only
            shutil.rmtree(folder)
            print("\nyour own data: bgdeploy init")


def _play(folder: Path, rows: int, *, keep: bool) -> int:
    config = folder / "config.yaml"
    config.write_text(_CONFIG, encoding="utf-8")
    api = Deployments(config)
    api.init()
    base = int(wall()) - 1000

    def drop(*drops: Drop) -> None:
        for one in drops:
            write_snapshot(
                api.settings.dataset.base_path,
                one.customer,
                base + one.number,
                rows=int(rows * one.share),
                seed=one.number,
                broken=one.broken,
            )

    service = _start(config)
    stop, reads = Event(), {one.customer: Reads() for one in FIRST}
    readers = [
        Thread(target=_read_on, args=(api, *one, stop), name=f"reader-{one[0]}", daemon=True)
        for one in reads.items()
    ]
    try:
        print("1. three customers drop their first snapshot")
        drop(*FIRST)
        _await(api, lambda jobs: sum(job.state == "switched" for job in jobs) == 3, service)
        for reader in readers:
            reader.start()
        print("2. a larger one follows, and the service is killed in the middle of loading it (kill -9)")
        service.send_signal(signal.SIGTERM)
        service.wait()
        service = _start(config, HELD)
        drop(VICTIM)
        _await(api, _is_half_loaded, service)
        os.kill(service.pid, signal.SIGKILL)
        service.wait()
        print("3. it is started again; more snapshots arrive, one of them broken on purpose")
        service = _start(config)
        drop(*REST)
        _await(api, lambda jobs: _is_over(api, jobs), service)
    finally:
        stop.set()
        for reader in readers:
            if reader.ident is not None:
                reader.join()
        service.send_signal(signal.SIGTERM)
        service.wait()
    return _report(api, reads, keep=keep)


def _start(config: Path, failpoint: str = "") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bgdeploy", "--config", str(config), "serve"]
    environ = {**os.environ, "BGDEPLOY_FAILPOINT": failpoint}
    with open(config.parent / "serve.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environ)


def _await(api: Deployments, done: Callable[[list[Job]], bool], service: subprocess.Popen[bytes]) -> None:
    """Show progress until ``done``; a service that died or time that ran out is an error."""
    from rich import progress_bar, table
    from rich.live import Live

    def picture(jobs: list[Job]) -> table.Table:
        drawn = table.Table(box=None, pad_edge=False)
        for name in ("customer", "snapshot", "state", "rows", ""):
            drawn.add_column(name)
        for job in reversed(jobs):
            expected, confirmed = job.rows_expected or 1, job.rows_confirmed
            bar = progress_bar.ProgressBar(total=expected, completed=confirmed, width=30)
            drawn.add_row(job.customer, str(job.timestamp), job.state, f"{confirmed:,}", bar)
        return drawn

    deadline = monotonic() + PATIENCE
    pause = Event()
    with Live(refresh_per_second=8, transient=True) as live:
        while True:
            jobs = api.jobs()
            live.update(picture(jobs) if sys.stdout.isatty() else "")
            if done(jobs):
                return
            if service.poll() is not None or monotonic() > deadline:
                raise BgdeployError(
                    "The demo's service did not get there.", cure="Run it with --keep and read serve.log."
                )
            pause.wait(0.02)


def _is_half_loaded(jobs: list[Job]) -> bool:
    """The victim is loading and at least one group of it is committed."""
    known = [job for job in jobs if job.customer == VICTIM.customer]
    if len(known) < VICTIM.number:
        return False
    victim = max(known, key=lambda job: int(job.timestamp))
    return bool(victim.state == "loading" and victim.rows_confirmed > 0)


def _is_over(api: Deployments, jobs: list[Job]) -> bool:
    expected = len(FIRST) + 1 + len(REST)
    ended = all(job.state in ("switched", "cleaned", "failed") for job in jobs)
    settled = all(one.standby and not one.candidate for one in api.customers())
    return len(jobs) == expected and ended and settled


def _read_on(api: Deployments, customer: str, reads: Reads, stop: Event) -> None:
    """Read as a client does: open what the alias points at, count, compare with what was verified; again and again."""
    from bgdeploy.targets.ladybug import open_reader

    while not stop.is_set():
        reads.made += 1
        try:
            with open_reader(api.settings.target_settings(), customer) as reader:
                nodes = reader.query("MATCH (n) RETURN count(*) AS n")[0]["n"]
                edges = reader.query("MATCH ()-[r]->() RETURN count(*) AS n")[0]["n"]
                database = reader.database
        except BgdeployError as error:
            reads.failed += 1
            reads.last_error = str(error)
            continue
        found = next(one for one in api.databases(customer, dropped=True) if one.name == database)
        counts = found.counts or {"labels": {}, "types": {}}
        reads.mixed += (nodes, edges) != (sum(counts["labels"].values()), sum(counts["types"].values()))
        if not reads.seen or reads.seen[-1] != database:
            reads.seen.append(database)


def _report(api: Deployments, reads: dict[str, Reads], *, keep: bool) -> int:
    print("\nlive")
    columns = ("customer", "live", "standby", "reads", "failed", "mixed", "switches seen")
    rows = []
    for one in api.customers():
        seen = reads[one.customer]
        numbers = (seen.made, seen.failed, seen.mixed, len(seen.seen) - 1)
        rows.append((one.customer, one.live, one.standby, *numbers))
    print_table(Table(columns, rows, empty="nothing"))
    failed = api.jobs(states=["failed"])
    print("\nfailed, and why")
    for job in failed:
        said = job.error or ""
        error = said if keep else said.partition(ONLY_WHILE_KEPT)[0]
        print(f"  {job.customer}/{job.timestamp}: {error}")
    resumed = _resumes(api)
    print("\nresumed after kill -9")
    for line in resumed:
        print(f"  {line}")
    bad_reads = sum(seen.failed + seen.mixed for seen in reads.values())
    for name, seen in reads.items():
        if seen.last_error:
            print(f"  {name}: {seen.last_error}", file=sys.stderr)
    whole = len(failed) == 1 and resumed and bad_reads == 0
    return ExitCode.OK if whole else ExitCode.FAILED


def _resumes(api: Deployments) -> list[str]:
    """Say of every interrupted load what was kept and what was still to do."""
    found = []
    for job in api.jobs():
        groups = api.job(job.id).tables
        fences = sorted({group.confirmed_fence for group in groups if group.confirmed_fence})
        if len(fences) < 2:
            continue
        last = fences[-1]
        kept = [group for group in groups if (group.confirmed_fence or last) < last or group.found]
        again = sum(group.starts > 1 and not group.found for group in kept)
        rows = sum(group.rows_confirmed for group in kept)
        found.append(
            f"{job.database}: {len(kept)} of {len(groups)} groups ({rows:,} rows) were kept, "
            f"{again} of them loaded again; the rest was loaded by run {last}"
        )
    return found
