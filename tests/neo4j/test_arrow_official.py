"""What goes over the wire, ours beside the official client's: one endpoint that writes everything down."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.targets.groups import plan_groups
from bgdeploy.targets.neo4j.access import Access
from bgdeploy.targets.neo4j.arrow.client import Address, Client
from bgdeploy.targets.neo4j.arrow.load import Work, _send
from bgdeploy.targets.neo4j.arrow.wire import find_identity
from tests.neo4j.loading import Memory
from tests.neo4j.servers import PASSWORD, free_port
from tests.snapshots.folders import write

official = pytest.importorskip(
    "graphdatascience",
    reason="the official client is not installed: pip install graphdatascience (dependency group bench)",
)
NAMES = {"id": "nodeId", "source": "sourceNodeId", "target": "targetNodeId"}
NODES = {"id": [1, 2, 3], "name": ["a", None, "c"], "score": [0.5, 1.5, None], "tags": [["x"], [], None]}
JOINS = {"source": [1, 2], "target": [3, 3], "weight": [7, None]}


@dataclass
class Recorded:
    """Every call in order, each with the kind of its login and its other headers."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    headers: set[str] = field(default_factory=set)


class Recorder(flight.FlightServerBase):  # type: ignore[misc]
    def __init__(self, port: int, into: Recorded) -> None:
        self.into = into
        super().__init__(f"grpc://127.0.0.1:{port}", middleware={"who": Who(into)})

    def do_action(self, context: Any, action: Any) -> list[Any]:
        body = json.loads(action.body.to_pybytes())
        self.into.calls.append(("action", action.type, body))
        counts = {
            "v1/NODE_LOAD_DONE": {"node_count": 3},
            "v1/RELATIONSHIP_LOAD_DONE": {"relationship_count": 2},
        }
        told = {"name": body["name"], **counts.get(action.type, {})}
        return [flight.Result(json.dumps(told).encode())]

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        rows: list[dict[str, Any]] = []
        schema = reader.schema
        for chunk in reader:
            rows += chunk.data.to_pylist()
            writer.write(b"{}")
        columns = {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
        kind = descriptor.descriptor_type
        self.into.calls.append(("put", kind, json.loads(descriptor.command), columns, rows))


class Who(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    def __init__(self, into: Recorded) -> None:
        super().__init__()
        self.into = into

    def start_call(self, info: Any, headers: dict[str, list[str]]) -> Any:
        self.into.logins.append((str(info.method), headers["authorization"][0]))
        self.into.headers |= set(headers)
        return Answer()


class Answer(flight.ServerMiddleware):  # type: ignore[misc]
    def sending_headers(self) -> dict[str, str]:
        return {"authorization": "Bearer the-token"}


def record(run: Callable[[int, Path], None], folder: Path) -> Recorded:
    into, port = Recorded(), free_port()
    server = Recorder(port, into)
    try:
        run(port, folder)
    finally:
        server.shutdown()
    return into


def theirs(port: int, folder: Path) -> None:
    from graphdatascience.arrow_client.arrow_authentication import UsernamePasswordAuthentication
    from graphdatascience.arrow_client.authenticated_flight_client import AuthenticatedArrowClient
    from graphdatascience.arrow_client.v1.gds_arrow_client import GdsArrowClient

    login = UsernamePasswordAuthentication("neo4j", PASSWORD)
    with GdsArrowClient(AuthenticatedArrowClient(("127.0.0.1", port), login)) as client:
        client.create_database("db", id_type="INTEGER", id_property="id", concurrency=1)
        nodes = pa.table({NAMES.get(name, name): values for name, values in NODES.items()})
        client.upload_nodes("db", nodes.append_column("labels", pa.array(["Thing"] * 3)))
        assert client.node_load_done("db").node_count == 3
        joins = pa.table({NAMES.get(name, name): values for name, values in JOINS.items()})
        client.upload_relationships("db", joins.append_column("relationshipType", pa.array(["JOINS"] * 2)))
        assert client.relationship_load_done("db").relationship_count == 2
        client.abort("db")


def ours(port: int, folder: Path) -> None:
    files = {"nodes/Thing/a.parquet": NODES, "relationships/JOINS/a.parquet": JOINS}
    snapshot = open_snapshot("acme", 1, write(folder, files), {}, "print", lambda kind, _: None)
    access = Access("bolt://127.0.0.1:1", "neo4j", PASSWORD)
    client = Client(access, Address("127.0.0.1", port, False, True, None, ""))
    identity = find_identity(snapshot)
    work = Work(client, "db", snapshot, folder, identity, Memory(), 1)
    groups = plan_groups(snapshot, lambda *_: 10**9, folder)
    client.create("db", {"id_type": identity.type, "id_property": identity.property, "concurrency": 1})
    work.told = float("inf")  # no progress to tell
    _send(work, "node", groups)
    assert client.end_nodes("db") == 3
    _send(work, "relationship", groups)
    assert client.end_relationships("db") == 2
    client.abort("db")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorded, Recorded]:
    return record(theirs, tmp_path_factory.mktemp("theirs")), record(ours, tmp_path_factory.mktemp("ours"))


def test_actions_bodies_descriptors_schemas_and_rows_are_the_same(both: tuple[Recorded, Recorded]) -> None:
    their, our = both
    assert [call[:3] for call in our.calls] == [call[:3] for call in their.calls]
    for one, other in zip(our.calls, their.calls, strict=True):
        if one[0] == "put":
            assert plain(one[3]) == plain(other[3])
            assert one[4] == other[4]


def plain(columns: dict[str, str]) -> dict[str, str]:
    """Without the name of a list's items, which says nothing: the reader of Parquet and Arrow itself differ in it."""
    return {name: kind.replace("element: ", "").replace("item: ", "") for name, kind in columns.items()}


def test_the_login_is_the_same_the_password_once_and_then_the_token(both: tuple[Recorded, Recorded]) -> None:
    their, our = both
    assert our.logins == their.logins
    assert [login.partition(" ")[0] for _, login in our.logins] == ["Basic", *["Bearer"] * 5]


def test_headers_differ_by_what_names_the_official_client_only(both: tuple[Recorded, Recorded]) -> None:
    their, our = both
    assert their.headers - our.headers == {"x-gds-user-agent"}
    assert our.headers <= their.headers
