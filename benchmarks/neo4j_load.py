"""Time the Bolt loader on a real Neo4j Community server: against a naive one, and without fence and checkpoint.

    python benchmarks/neo4j_load.py            # ratios, ROUNDS=3 rounds, interleaved
    python benchmarks/neo4j_load.py memory     # the loading process at 0.4 M and at 4 M rows
    python benchmarks/neo4j_load.py proof      # the proof of every value against the load before it

Needs Java 17 or newer and Maven, which fetches the server once.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent))

from bgdeploy.targets.neo4j.bolt import batches
from bgdeploy.targets.neo4j.names import CYPHER
from tests.neo4j.loading import Loading, Memory, loading_of
from tests.neo4j.servers import Community, community

NODES, RELATIONSHIPS, ROUNDS = 200_000, 160_000, int(os.environ.get("ROUNDS", "3"))
SMALL, LARGE = 400_000, 4_000_000
Way = Callable[[Community, Loading], None]
LOAD = "import sys; sys.path.insert(0, sys.argv[1]); from benchmarks.neo4j_load import child; child(*sys.argv[2:])"


def make(folder: Path, uri: str, nodes: int, relationships: int) -> Loading:
    """Nodes with three properties, and relationships from any to any, as files of 100,000 rows."""
    files: dict[str, Any] = {}
    for start in range(0, nodes, 100_000):
        ids = range(start, min(start + 100_000, nodes))
        rows = {"id": list(ids), "name": [f"name {i}" for i in ids], "value": [i * 0.5 for i in ids]}
        files[f"nodes/Thing/{start:09}.parquet"] = pa.table(rows)
    for start in range(0, relationships, 100_000):
        ids = range(start, min(start + 100_000, relationships))
        ends = {"source": [i * 7919 % nodes for i in ids], "target": [i * 104_729 % nodes for i in ids]}
        files[f"relationships/JOINS/{start:09}.parquet"] = pa.table({**ends, "weight": list(ids)})
    return loading_of(folder, uri, files, batch_rows=int(os.environ.get("BATCH", "5000")), concurrency=2)


def naive(server: Community, work: Loading) -> None:
    """One session, the constraint first, maps of 1,000 rows merged."""
    with server.driver() as driver, driver.session(database="neo4j") as session:
        session.run("CREATE CONSTRAINT FOR (n:Thing) REQUIRE n.id IS UNIQUE").consume()
        nodes = "UNWIND $rows AS r MERGE (n:Thing {id: r.id}) SET n += r"
        joins = (
            "UNWIND $rows AS r MATCH (a:Thing {id: r.source}) MATCH (b:Thing {id: r.target}) "
            "MERGE (a)-[j:JOINS {weight: r.weight}]->(b)"
        )
        for part, text in (("nodes", nodes), ("relationships", joins)):
            for path in sorted((work.snapshot.path / part).rglob("*.parquet")):
                for batch in pq.ParquetFile(path).iter_batches(1000):
                    session.execute_write(send, text, batch.to_pylist())


def send(tx: Any, text: str, rows: list[dict[str, Any]]) -> None:
    tx.run(text, rows=rows).consume()


def fenced(server: Community, work: Loading) -> None:
    """The loader as it is."""
    Loading(work.folder, work.uri, work.snapshot, Memory(), work.options).load()


def unfenced(server: Community, work: Loading) -> None:
    """The same without a look at its node in each batch."""
    write = batches._write

    def bare(session: Any, parts: Any, move: Any) -> None:
        with session.begin_transaction() as tx:
            for part in parts:
                tx.run(CYPHER + part.statement, part.params).consume()
            tx.commit()

    batches._write = bare
    try:
        fenced(server, work)
    finally:
        batches._write = write


def timed(server: Community, work: Loading, way: Way) -> tuple[float, float]:
    """Seconds it took, and seconds of processor that server and loader took together."""
    server.empty()
    began, used = time.perf_counter(), processor(server)
    way(server, work)
    took, used = time.perf_counter() - began, processor(server) - used
    with server.driver() as driver:
        rows = driver.execute_query("MATCH (n) RETURN count(*) AS n", database_="neo4j").records[0]["n"]
        assert rows == NODES, rows
    return took, used


def processor(server: Community) -> float:
    assert server.process is not None
    both = [psutil.Process(server.process.pid).cpu_times(), psutil.Process().cpu_times()]
    return sum(float(one.user + one.system) for one in both)


def compare(server: Community, folder: Path) -> None:
    work = make(folder, server.uri, NODES, RELATIONSHIPS)
    ways = (naive, fenced, unfenced)
    for way in (*ways, *ways):  # until Java has compiled what it will
        timed(server, work, way)
    # By turns in another order, so that none always comes after the same one.
    orders = [[ways[(turn + place) % 3] for place in range(3)] for turn in range(ROUNDS)]
    rounds = [{way: timed(server, work, way) for way in order} for order in orders]
    print(
        f"{NODES:,} nodes, {RELATIONSHIPS:,} relationships, Neo4j {server.version}, {ROUNDS} rounds, medians"
    )
    for number, what in enumerate(("s", "s of processor")):
        plain, ours, bare = (statistics.median(one[way][number] for one in rounds) for way in ways)
        ratio = statistics.median(one[naive][number] / one[fenced][number] for one in rounds)
        cost = statistics.median(one[fenced][number] / one[unfenced][number] for one in rounds)
        print(f"naive {plain:.1f} {what}, bolt loader {ours:.1f} {what}: {ratio:.2f} x as fast")
        print(f"without fence and checkpoint {bare:.1f} {what}: they cost {100 * (cost - 1):+.1f} %")


def child(uri: str, folder: str, rows: str) -> None:
    """What a loading process does; prints the most memory it had, in MiB."""
    from tests.neo4j.loading import TIMESTAMP, _open

    path = Path(folder) / "data/acme" / str(TIMESTAMP)
    Loading(Path(folder), uri, _open(path), options={"batch_rows": 5_000, "concurrency": 2}).load()
    # Not getrusage: its figure remembers the process this one was forked from.
    most = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(int(most.split()[1]) >> 10)


def memory(server: Community, folder: Path) -> None:
    for rows in (SMALL, LARGE):
        server.empty()
        make(folder / str(rows), server.uri, rows // 2, rows // 2)
        root = str(Path(__file__).parent.parent)
        command = [sys.executable, "-c", LOAD, root, server.uri, str(folder / str(rows)), str(rows)]
        most = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
        print(f"{rows:>10,} rows: loading process {most} MiB")


def proof(server: Community, folder: Path) -> None:
    work = make(folder, server.uri, NODES, RELATIONSHIPS)
    found = []
    for _ in range(ROUNDS + 1):
        server.empty()
        one = Loading(work.folder, work.uri, work.snapshot, Memory(), work.options)
        began = time.perf_counter()
        one.load()
        loaded = time.perf_counter()
        one.verify()
        found.append((time.perf_counter() - loaded, loaded - began))
    took, loads = (
        statistics.median(column) for column in zip(*found[1:], strict=True)
    )  # not the first: Java compiles
    ratio = statistics.median(one / other for one, other in found[1:])
    print(
        f"{NODES:,} nodes, {RELATIONSHIPS:,} relationships: proof {took:.1f} s, load {loads:.1f} s: {ratio:.2f} x (goal 0.60)"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        settings = {"server.memory.pagecache.size": "512m"}
        with community(Path(name) / "server", **settings) as one:
            one.kill()
            one.heap, one.flags = "2g", ()
            one.start()
            one.wait()
            {"memory": memory, "proof": proof}.get("".join(sys.argv[1:]), compare)(one, Path(name))
