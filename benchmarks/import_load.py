"""Time the import loader against calling Neo4j's import tool by hand on the same files, interleaved.

    python benchmarks/import_load.py                     # 4 M nodes, 8 M relationships, three rounds
    NODES=200000 ROUNDS=1 python benchmarks/import_load.py

Both ways end with a whole store; that the server mounts it, and the keys, come after both. Needs
Java 17 or newer and Maven, which fetches the tool once. Also prints the store's size per row and
the most memory that the tool's process had.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent.parent))

from bgdeploy.targets.groups import keep_plan
from bgdeploy.targets.neo4j.offline import sources, store
from bgdeploy.targets.neo4j.offline.load import GROUP_ROWS, REPORT, _options, store_bytes
from bgdeploy.targets.neo4j.offline.sources import lay_out, spaces_of
from bgdeploy.targets.neo4j.offline.store import Place
from bgdeploy.targets.neo4j.offline.tool import Tool, check_version, read_report, run
from tests.neo4j.loading import Loading, Memory, loading_of
from tests.neo4j.servers import LTS, Community

NODES = int(os.environ.get("NODES", "4000000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
MEMORY_MB = int(os.environ.get("MEMORY_MB", "2048"))
FILE_ROWS = 1_000_000
ESTIMATES: set[str] = set()  # what the tool says beforehand of its memory and the store


def make(folder: Path) -> Loading:
    """Nodes with three properties, and twice as many relationships from any to any."""
    files = {}
    for start in range(0, NODES, FILE_ROWS):
        ids = range(start, min(start + FILE_ROWS, NODES))
        rows = {"id": list(ids), "name": [f"name {i}" for i in ids], "value": [i * 0.5 for i in ids]}
        files[f"nodes/Thing/{start:09}.parquet"] = pa.table(rows)
    for start in range(0, 2 * NODES, FILE_ROWS):
        ids = range(start, min(start + FILE_ROWS, 2 * NODES))
        ends = {"source": [i * 7919 % NODES for i in ids], "target": [i * 104_729 % NODES for i in ids]}
        files[f"relationships/JOINS/{start:09}.parquet"] = pa.table({**ends, "weight": list(ids)})
    return loading_of(folder, "bolt://none", files)


def place_of(folder: Path) -> Place:
    return Place(folder / "data/databases", folder / "data/transactions", "", "", ())


def ours(work: Loading, tool: Path, folder: Path) -> None:
    """Everything the loader does until the store is whole."""
    mine, place, ledger = Tool(str(tool), MEMORY_MB), place_of(folder), Memory()
    place.stores.mkdir(parents=True)
    check_version(mine, LTS)
    build = folder / "build"
    build.mkdir()
    groups = keep_plan(work.snapshot, ledger, GROUP_ROWS, build)
    given = lay_out(work.snapshot, groups, build)
    sources.keep(build, given.empties)
    note = store.open_note(build, place, "bench")
    run(
        mine,
        [*_options(mine, place, "bench", work.snapshot, build), *given.words],
        build,
        note.mark,
        ledger.note,
    )
    assert not read_report(build / REPORT, spaces_of(work.snapshot))
    store.move_on(build, note, "imported")


def by_hand(work: Loading, tool: Path, folder: Path) -> None:
    """What somebody would type."""
    folder.mkdir(exist_ok=True)
    heads = {"nodes.csv": ["id:ID(t),name,value", "id,name,value"]}
    heads["joins.csv"] = [":START_ID(t),:END_ID(t),weight", "source,target,weight"]
    for name, lines in heads.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    conf = folder / "tool.conf"
    conf.write_text(f"server.directories.data={folder / 'data'}\n")
    nodes = ",".join(map(str, sorted(work.snapshot.path.glob("nodes/*/*.parquet"))))
    joins = ",".join(map(str, sorted(work.snapshot.path.glob("relationships/*/*.parquet"))))
    words = [
        "--input-type=parquet", "--id-type=integer", f"--max-off-heap-memory={MEMORY_MB}m",
        f"--additional-config={conf}", f"--nodes=Thing={folder / 'nodes.csv'},{nodes}",
        f"--relationships=JOINS={folder / 'joins.csv'},{joins}",
    ]  # fmt: skip
    command = [str(tool), "database", "import", "full", "bench", *words]
    with open(folder / "said", "wb") as said:
        subprocess.run(command, cwd=folder, check=True, stdout=said)
    ESTIMATES.update(
        line.strip()
        for line in (folder / "said").read_text().splitlines()
        if "Estimated required" in line or "disk space usage" in line
    )


def timed(way: Callable[[Loading, Path, Path], None], work: Loading, tool: Path, folder: Path) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    began = time.perf_counter()
    way(work, tool, folder)
    return time.perf_counter() - began


class Watch(threading.Thread):
    """The most memory that any Java process below this one had, in MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = 0, threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self.over.wait(0.2):
            for child in me.children(recursive=True):
                try:
                    if child.name() == "java":
                        self.most = max(self.most, child.memory_info().rss >> 20)
                except psutil.Error:
                    continue


def size_of(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        work, tool = make(root / "work"), Community(root, LTS).write_tool(root / "neo4j-admin")
        watch = Watch()
        watch.start()
        rounds = []
        for number in range(ROUNDS):
            order = (by_hand, ours) if number % 2 else (ours, by_hand)
            took = {way.__name__: timed(way, work, tool, root / "trial") for way in order}
            rounds.append(took)
            print({way: round(seconds, 1) for way, seconds in took.items()}, flush=True)
        watch.over.set()
        rows = work.snapshot.rows
        size = size_of(root / "trial/data/databases")
        ratio = statistics.median(one["ours"] / one["by_hand"] for one in rounds)
        mean = statistics.median(one["ours"] for one in rounds)
        print(
            f"{NODES:,} nodes, {2 * NODES:,} relationships, Neo4j {LTS}: {mean:.1f} s, {ratio:.2f} x by hand"
        )
        print(
            f"{rows / mean:,.0f} rows/s, store {size >> 20:,} MiB ({size / rows:.0f} B a row), reckoned with {store_bytes(work.snapshot) >> 20:,} MiB"
        )
        print("; ".join(sorted(ESTIMATES)))
        print(f"tool at most {watch.most:,} MiB resident, allowed {MEMORY_MB:,} MiB beside its heap")


if __name__ == "__main__":
    main()
