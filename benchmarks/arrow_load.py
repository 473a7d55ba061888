"""Time the Arrow loader into an endpoint that discards, against the official client sending rows from memory.

    python benchmarks/arrow_load.py [rows]           # rows/s of both, five rounds, interleaved
    python benchmarks/arrow_load.py memory [rows]... # the loading process, at 2 M and 20 M rows unless told

The first needs the official client (pip install graphdatascience), which is given its rows as tables that are
in memory already; ours reads Parquet files, proves their ids, and has two streams. The endpoint is a process of
its own that counts rows and keeps none. Goals: >= 1.0 x, and <= 300 MB.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import flight

sys.path.insert(0, str(Path(__file__).parent.parent))

from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.targets.groups import plan_groups
from bgdeploy.targets.neo4j.access import Access
from bgdeploy.targets.neo4j.arrow.client import Address, Client
from bgdeploy.targets.neo4j.arrow.load import GROUP_ROWS, Work, _send_all
from bgdeploy.targets.neo4j.arrow.proof import prove
from bgdeploy.targets.neo4j.arrow.wire import find_identity
from tests.neo4j.loading import Memory

ROOT = Path(__file__).parent.parent
ROWS, ROUNDS, STREAMS = 2_000_000, 5, 2
SIZES = (2_000_000, 20_000_000)
FILE = 500_000
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from benchmarks.arrow_load import child; child(*sys.argv[2:])"
SERVER = "import sys; sys.path.insert(0, sys.argv[1]); from benchmarks.arrow_load import serve; serve()"


class Discard(flight.FlightServerBase):  # type: ignore[misc]
    """Counts rows, acknowledges batches, keeps nothing."""

    rows = 0

    def do_action(self, context: Any, action: Any) -> list[Any]:
        body = json.loads(action.body.to_pybytes())
        told = {"name": body["name"], "node_count": self.rows, "relationship_count": self.rows}
        self.rows = 0
        return [flight.Result(json.dumps(told).encode())]

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        rows = 0
        for chunk in reader:
            rows += chunk.data.num_rows
            writer.write(b"{}")
        self.rows += rows


class Bearer(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    def start_call(self, info: Any, headers: Any) -> Any:
        return Token()


class Token(flight.ServerMiddleware):  # type: ignore[misc]
    def sending_headers(self) -> dict[str, str]:
        return {"authorization": "Bearer token"}


def serve() -> None:
    server = Discard("grpc://127.0.0.1:0", middleware={"login": Bearer()})
    print(server.port, flush=True)
    sys.stdin.read()


@contextmanager
def endpoint() -> Iterator[int]:
    command = [sys.executable, "-c", SERVER, str(ROOT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def node_rows(start: int, stop: int) -> pa.Table:
    ids = range(start, stop)
    return pa.table({"id": list(ids), "name": [f"name {i}" for i in ids], "value": [i * 0.5 for i in ids]})


def join_rows(start: int, stop: int, nodes: int) -> pa.Table:
    ids = range(start, stop)
    ends = {"source": [i * 7919 % nodes for i in ids], "target": [i * 104_729 % nodes for i in ids]}
    return pa.table({**ends, "weight": list(ids)})


def write(folder: Path, rows: int) -> None:
    """Half nodes and half relationships, in files of half a million rows."""
    half = rows // 2
    for kind, make in (
        ("nodes/Thing", node_rows),
        ("relationships/JOINS", lambda a, b: join_rows(a, b, half)),
    ):
        (folder / kind).mkdir(parents=True)
        for start in range(0, half, FILE):
            pq.write_table(make(start, min(start + FILE, half)), folder / kind / f"{start:09}.parquet")


def ours(port: int, folder: Path, *, proven: bool = True) -> None:
    """Everything a load does but what goes over Bolt."""
    snapshot = open_snapshot("acme", 1, folder, {}, "print", lambda kind, _: None)
    client = Client(
        Access("bolt://127.0.0.1:1", "neo4j", "x"), Address("127.0.0.1", port, False, True, None, "")
    )
    build = folder.with_suffix(".build")
    build.mkdir(exist_ok=True)
    if proven:
        prove(snapshot, Memory(), build)
    work = Work(client, "db", snapshot, build, find_identity(snapshot), Quiet(), STREAMS)
    _send_all(work, plan_groups(snapshot, GROUP_ROWS, build))
    client.close()


class Quiet(Memory):
    def seen(self, group: int, rows: int) -> None:
        return


def theirs(port: int, nodes: pa.Table, joins: pa.Table) -> None:
    from graphdatascience.arrow_client.arrow_authentication import UsernamePasswordAuthentication
    from graphdatascience.arrow_client.authenticated_flight_client import AuthenticatedArrowClient
    from graphdatascience.arrow_client.v1.gds_arrow_client import GdsArrowClient

    login = UsernamePasswordAuthentication("neo4j", "x")
    with GdsArrowClient(AuthenticatedArrowClient(("127.0.0.1", port), login)) as client:
        client.create_database("db", id_type="INTEGER", id_property="id", concurrency=STREAMS)
        client.upload_nodes("db", nodes)
        assert client.node_load_done("db").node_count == nodes.num_rows
        client.upload_relationships("db", joins)
        assert client.relationship_load_done("db").relationship_count == joins.num_rows


def in_memory(folder: Path) -> tuple[pa.Table, pa.Table]:
    """The same rows as the protocol wants them."""
    nodes = pq.read_table(folder / "nodes/Thing").rename_columns(["nodeId", "name", "value"])
    joins = pq.read_table(folder / "relationships/JOINS").rename_columns(
        ["sourceNodeId", "targetNodeId", "weight"]
    )
    return (
        nodes.append_column("labels", pa.repeat("Thing", nodes.num_rows)),
        joins.append_column("relationshipType", pa.repeat("JOINS", joins.num_rows)),
    )


def timed(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def compare(folder: Path, rows: int) -> None:
    data = folder / "data"
    write(data, rows)
    nodes, joins = in_memory(data)
    ways: dict[str, Callable[[int], None]] = {
        "official client, from memory": lambda port: theirs(port, nodes, joins),
        "ours, from Parquet": lambda port: ours(port, data),
        "ours, without the proof of ids": lambda port: ours(port, data, proven=False),
    }
    with endpoint() as port:
        for way in ways.values():
            way(port)
        rounds = [[timed(lambda way=way: way(port)) for way in ways.values()] for _ in range(ROUNDS)]  # type: ignore[misc]
    for name, took in zip(ways, map(statistics.median, zip(*rounds, strict=True)), strict=True):
        print(f"{name:32} {took:6.2f} s  {rows / took:12,.0f} rows/s")
    print(f"ratio, median of {ROUNDS} rounds: {statistics.median(one[0] / one[1] for one in rounds):.2f} x")


def child(port: str, folder: str) -> None:
    ours(int(port), Path(folder))
    # Not getrusage: its figure remembers the process this one was forked from.
    most = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(int(most.split()[1]) >> 10)


def memory(folder: Path, sizes: tuple[int, ...]) -> None:
    for rows in sizes:
        data = folder / str(rows)
        write(data, rows)
        with endpoint() as port:
            command = [sys.executable, "-c", CHILD, str(ROOT), str(port), str(data)]
            most = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
        print(f"{rows:>12,} rows: loading process {most} MiB")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        if sys.argv[1:2] == ["memory"]:
            memory(Path(name), tuple(map(int, sys.argv[2:])) or SIZES)
        else:
            compare(Path(name), int(sys.argv[1]) if sys.argv[1:] else ROWS)
