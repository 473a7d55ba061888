"""The Arrow client and the proof before it: no server of Neo4j's is needed, the endpoint is the strict stand-in."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from bgdeploy.errors import BadInput, BgdeployError, ConfigError, NameTaken, TargetAway, TargetError
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.groups import plan_groups
from bgdeploy.targets.neo4j.access import Access, open_server
from bgdeploy.targets.neo4j.arrow import client as address_module
from bgdeploy.targets.neo4j.arrow import client as client_module
from bgdeploy.targets.neo4j.arrow import load as load_module
from bgdeploy.targets.neo4j.arrow.client import Address, Client, tls_of
from bgdeploy.targets.neo4j.arrow.proof import find_spans, prove
from bgdeploy.targets.neo4j.arrow.wire import find_identity, shape_of, to_batches
from bgdeploy.targets.neo4j.bolt.batches import RowReader
from tests.neo4j.flight import Endpoint, Imports, listen
from tests.neo4j.loading import Memory
from tests.neo4j.proxy import proxy
from tests.neo4j.servers import PASSWORD, free_port
from tests.snapshots.folders import write

NODES = pa.record_batch({"nodeId": pa.array(range(100)), "labels": pa.array(["Thing"] * 100)})
NONE: dict[str, Any] = {"id_type": "INTEGER", "id_property": "id", "concurrency": 2}


@dataclass
class Told:
    """As much of the stand-in's rules as the endpoint asks for; nothing is imported in the end."""

    root: Path
    told: dict[str, Any] = field(default_factory=dict)
    imports: list[str] = field(default_factory=list)
    databases: dict[str, Any] = field(default_factory=dict)
    users: dict[str, Any] = field(default_factory=lambda: {"neo4j": {"password": PASSWORD, "denied": []}})


@dataclass
class Server:
    rules: Told
    port: int
    endpoint: Endpoint
    imports: Imports

    def fault(self, **faults: Any) -> None:
        self.rules.told["arrow_faults"] = faults

    def address(self, port: int | None = None, tls: bool = False, roots: bytes | None = None) -> Address:
        return Address("127.0.0.1", port or self.port, tls, True, roots, f"127.0.0.1:{self.port}")

    def client(self, password: str = PASSWORD, **where: Any) -> Client:
        return Client(Access("bolt://127.0.0.1:1", "neo4j", password), self.address(**where))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(Imports, "_build", lambda self, one: self.running.pop(one.name))
    (tmp_path / "endpoint").mkdir()
    rules = Told(tmp_path / "endpoint")
    imports, port = Imports(rules), free_port()  # type: ignore[arg-type]
    endpoint = listen(imports, port)
    yield Server(rules, port, endpoint, imports)
    imports.over.set()
    endpoint.shutdown()


def send(client: Client, *batches: pa.RecordBatch, name: str = "db", kind: Any = "node") -> None:
    with client.put(name, kind, batches[0].schema, f"Sending to {name}") as put:
        for batch in batches:
            put.send(batch)


def numbered(start: int) -> pa.RecordBatch:
    return pa.record_batch({"nodeId": pa.array(range(start, start + 100)), "labels": ["Thing"] * 100})


def test_a_whole_import_is_counted_by_the_server(server: Server) -> None:
    client = server.client()
    client.create("db", NONE)
    send(client, NODES.slice(0, 60), NODES.slice(60))
    assert client.end_nodes("db") == 100
    ends = {"sourceNodeId": [1, 2], "targetNodeId": [3, 3], "relationshipType": ["JOINS"] * 2}
    send(client, pa.record_batch(ends), kind="relationship")
    assert client.end_relationships("db") == 2
    assert server.rules.imports == [
        "v1/CREATE_DATABASE db", "v1/NODE_LOAD_DONE db", "v1/RELATIONSHIP_LOAD_DONE db",
    ]  # fmt: skip


def test_an_expired_token_is_renewed_at_every_call(server: Server) -> None:
    server.fault(token_calls=1)
    client = server.client()
    client.create("db", NONE)
    for start in range(0, 100, 20):
        send(client, *(NODES.slice(one, 2) for one in range(start, start + 20, 2)))
    assert client.end_nodes("db") == 100
    assert len(server.imports.tokens) >= 4


def test_a_wrong_password_is_said_once_and_without_it(server: Server) -> None:
    with pytest.raises(TargetAway, match="refused user or password") as caught:
        server.client("wrong-secret").create("db", NONE)
    assert "wrong-secret" not in str(caught.value)
    assert "NEO4J_PASSWORD" in caught.value.cure


def test_a_rotated_password_is_read_at_the_next_login(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    client = Client(Access("bolt://x", "neo4j", "", str(file)), server.address())
    client.create("db", NONE)
    server.rules.users["neo4j"]["password"] = "another-password"
    server.imports.tokens.clear()
    file.write_text("another-password")
    send(client, NODES)
    assert client.end_nodes("db") == 100


def test_a_stream_that_the_server_ends_is_an_error_with_its_words(server: Server) -> None:
    server.fault(die_after=40)
    client = server.client()
    client.create("db", NONE)
    with pytest.raises(
        TargetError, match=r"Sending to db: the server refused. The import failed: java.lang.OutOfMemoryError"
    ):
        send(client, *(NODES.slice(one, 10) for one in range(0, 100, 10)))


def test_a_connection_that_breaks_in_the_middle_is_an_error(server: Server) -> None:
    with proxy(server.port) as between:
        client = server.client(port=between.port)
        client.create("db", NONE)
        between.cut_after = between.passed + 20_000
        with pytest.raises(TargetAway, match="db: "):
            send(client, *(numbered(start) for start in range(0, 20_000, 100)))


def test_a_server_that_stops_answering_is_noticed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RENEW", 0.5)
    monkeypatch.setattr(client_module, "_STALL", 0.5)
    server.fault(hang_after=20)
    client = server.client()
    client.create("db", NONE)
    with pytest.raises(
        TargetAway, match=r"Sending to db: the Arrow endpoint 127.0.0.1:.* has stopped answering"
    ):
        send(client, *(NODES.slice(one, 10) for one in range(0, 100, 10)))


@pytest.mark.parametrize(("action", "limit"), [("CREATE_DATABASE", "_ANSWER"), ("NODE_LOAD_DONE", "_WORK")])
def test_an_action_without_an_answer_is_noticed(
    server: Server, monkeypatch: pytest.MonkeyPatch, action: str, limit: str
) -> None:
    client = server.client()
    client.create("other", NONE)  # logs in
    monkeypatch.setattr(client_module, limit, 0.5)
    server.fault(hang_in=f"v1/{action}")
    with pytest.raises(TargetAway, match="has stopped answering"):
        client.create("db", NONE) if action == "CREATE_DATABASE" else client.end_nodes("other")


def test_a_port_nobody_listens_at_is_said_with_the_one_the_server_told(server: Server) -> None:
    port = free_port()
    with pytest.raises(
        TargetAway, match=f"Nothing listens at 127.0.0.1:{port} for Arrow.*listens at 127.0.0.1:{server.port}"
    ):
        server.client(port=port).create("db", NONE)


def test_an_import_left_by_a_dead_client_is_aborted_and_else_the_name_is_taken(server: Server) -> None:
    client = server.client()
    assert client.abort("db") is False
    client.create("db", NONE)
    with pytest.raises(NameTaken, match="An import process for db already exists"):
        client.create("db", NONE)
    assert client.abort("db") is True
    client.create("db", NONE)
    server.rules.databases["mine"] = object()
    with pytest.raises(NameTaken, match="Database mine already exists"):
        client.create("mine", NONE)


def test_abort_is_not_taken_as_done_where_nobody_was_asked(server: Server) -> None:
    with pytest.raises(TargetAway):
        server.client(port=free_port()).abort("db")
    with pytest.raises(TargetAway, match="refused user or password"):
        server.client("wrong").abort("db")


def test_an_import_that_the_server_gave_up_in_silence_is_an_error(server: Server) -> None:
    server.fault(silence=0.2)
    client = server.client()
    client.create("db", NONE)
    send(client, NODES.slice(0, 10))
    while not any(one.startswith("gone") for one in server.rules.imports):
        threading.Event().wait(0.02)
    with pytest.raises(TargetError, match="No import process for db"):
        send(client, NODES.slice(10, 10))


def test_a_full_disk_at_the_server_is_waited_for(server: Server) -> None:
    server.fault(refuse_in="v1/NODE_LOAD_DONE", saying="java.io.IOException: No space left on device")
    client = server.client()
    client.create("db", NONE)
    with pytest.raises(BgdeployError, match="disk is full") as caught:
        client.end_nodes("db")
    assert caught.value.code == "target-full"


# TLS


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """A certificate signed by itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bgdeploy tests"]
    where = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([openssl, *made, *where], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def tls(server: Server, pair: tuple[str, str]) -> Iterator[int]:
    port = free_port()
    endpoint = listen(server.imports, port, pair)
    yield port
    endpoint.shutdown()


def test_tls_with_an_authority_of_ones_own(server: Server, tls: int, pair: tuple[str, str]) -> None:
    client = server.client(port=tls, tls=True, roots=Path(pair[0]).read_bytes())
    client.create("db", NONE)
    send(client, NODES)
    assert client.end_nodes("db") == 100


def test_a_certificate_nobody_knows_is_refused_unless_told_to_take_any(server: Server, tls: int) -> None:
    with pytest.raises(TargetAway, match="does not speak TLS as asked for"):
        server.client(port=tls, tls=True).create("db", NONE)
    address = Address("127.0.0.1", tls, True, False, None, "")
    Client(Access("bolt://x", "neo4j", PASSWORD), address).create("db", NONE)


def test_tls_against_a_plain_port_is_refused_and_nothing_is_sent(server: Server) -> None:
    with pytest.raises(TargetAway, match=r"does not speak TLS as asked for.*plain text is not tried"):
        server.client(tls=True).create("db", NONE)
    assert server.rules.imports == []
    assert server.imports.tokens == {}


def test_plain_against_a_port_with_tls_says_what_may_be_wrong(server: Server, tls: int) -> None:
    with pytest.raises(TargetAway, match=r"broke the connection off.*does it want TLS"):
        server.client(port=tls).create("db", NONE)


@pytest.mark.parametrize(
    ("uri", "ca_file", "tls", "verified"),
    [
        ("neo4j://h", False, False, True), ("bolt+s://h", False, True, True), ("neo4j+ssc://h", False, True, False),
        ("neo4j://h", True, True, True), ("bolt+ssc://h", True, True, True),
    ],
)  # fmt: skip
def test_arrow_is_encrypted_where_bolt_is(
    tmp_path: Path, uri: str, ca_file: bool, tls: bool, verified: bool
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(b"mine")
    found = tls_of(Access(uri, "neo4j", "", None, str(file) if ca_file else None))
    assert found[:2] == (tls, verified)
    assert not ca_file or found[2] == b"mine"


def test_a_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": "neo4j", "default": True, "address": address} for address in ("a:7687", "b:7687")]
    monkeypatch.setattr(address_module, "show", lambda server: rows)
    with pytest.raises(ConfigError, match="on one server only, and this is a cluster"):
        address_module.find_address(open_server({"uri": "neo4j://h", "user": "u", "password": "p"}))


# What is proven of the ids before anything is sent


def open_(folder: Path, files: dict[str, Any]) -> Snapshot:
    return open_snapshot("acme", 1, write(folder / "data", files), {}, "print", lambda kind, _: None)


def check(folder: Path, files: dict[str, Any]) -> Snapshot:
    (folder / "build").mkdir()
    snapshot = open_(folder, files)
    prove(snapshot, Memory(), folder / "build")
    assert list((folder / "build").iterdir()) == []
    return snapshot


JOINS = "relationships/JOINS/from=A/to=A/a.parquet"
GOOD: list[tuple[str, dict[str, Any], bool]] = [
    ("dense", {"nodes/A/a.parquet": {"id": [5, 6, 7]}, JOINS: {"source": [5, 7], "target": [6, 6]}}, True),
    ("two files", {"nodes/A/a.parquet": {"id": [3, 4]}, "nodes/A/b.parquet": {"id": [1, 2]}, JOINS: {"source": [1], "target": [4]}}, True),
    ("gaps", {"nodes/A/a.parquet": {"id": [5, 6, 9]}, JOINS: {"source": [5, 9], "target": [6, 6]}}, True),
    ("no order", {"nodes/A/a.parquet": {"id": [6, 5, 9]}, JOINS: {"source": [5, 9], "target": [6, 6]}}, False),
    ("meeting", {"nodes/A/a.parquet": {"id": [1, 9]}, "nodes/B/a.parquet": {"id": [2, 3]}}, False),
    ("texts", {"nodes/A/a.parquet": {"id": ["a", "b"]}, JOINS: {"source": ["a"], "target": ["b"]}}, True),
    ("large", {"nodes/A/a.parquet": {"id": pa.array([1, 2**63 + 1], pa.uint64())}}, True),
]  # fmt: skip


@pytest.mark.parametrize(("files", "in_order"), [one[1:] for one in GOOD], ids=[one[0] for one in GOOD])
def test_good_ids_are_proven(tmp_path: Path, files: dict[str, Any], in_order: bool) -> None:
    assert (find_spans(check(tmp_path, files)) is not None) is in_order


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("double", {"nodes/A/a.parquet": {"id": [1, 2, 2]}}, "1 row of nodes/A .*a.parquet"),
    ("double over files", {"nodes/A/a.parquet": {"id": [1, 2]}, "nodes/A/b.parquet": {"id": [2, 3]}}, "1 row of nodes/A"),
    ("null", {"nodes/A/a.parquet": {"id": [1, None, 2]}}, "1 row of nodes/A has no id"),
    ("over labels", {"nodes/A/a.parquet": {"id": [1, 2]}, "nodes/B/a.parquet": {"id": [2, 3]}}, "Ids repeat across labels, for instance '2'"),
    ("dangling", {"nodes/A/a.parquet": {"id": [1, 2]}, JOINS: {"source": [1], "target": [3]}}, "1 row of relationships/JOINS"),
    ("in a gap", {"nodes/A/a.parquet": {"id": [1, 3]}, JOINS: {"source": [1], "target": [2]}}, "1 row of relationships/JOINS"),
    ("other label", {"nodes/A/a.parquet": {"id": [1]}, "nodes/B/a.parquet": {"id": [2]}, JOINS: {"source": [1], "target": [2]}}, "1 row of relationships/JOINS"),
    ("null end", {"nodes/A/a.parquet": {"id": [1, 2]}, JOINS: {"source": [1, 2], "target": [1, None]}}, "1 row of relationships/JOINS"),
    ("dangling text", {"nodes/A/a.parquet": {"id": ["a", "b"]}, JOINS: {"source": ["a"], "target": ["c"]}}, "1 row of relationships/JOINS"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "said"), [one[1:] for one in BAD], ids=[one[0] for one in BAD])
def test_bad_ids_are_refused_before_anything_is_sent(
    tmp_path: Path, files: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        check(tmp_path, files)
    assert "Nothing was sent" in caught.value.kept


# What is sent


def batches(folder: Path, files: dict[str, Any], rows: int = 1000) -> list[pa.RecordBatch]:
    snapshot = open_(folder, files)
    identity, found = find_identity(snapshot), []
    for group in plan_groups(snapshot, lambda *_: 10**9, folder):
        shape = shape_of(snapshot, group, identity)
        reader = RowReader(
            [(snapshot.path / f, shape.table.file(f)) for f in group.files], shape.read, (0, group.rows), 0
        )  # type: ignore[misc]
        while (some := reader.take(rows)) is not None:
            found += to_batches(shape, some)
    return found


def test_every_column_is_sent_as_the_widest_of_its_kind(tmp_path: Path) -> None:
    table = {
        "key": pa.array(["a", "b"], pa.large_string()), "small": pa.array([1, None], pa.int8()),
        "half": pa.array([1.5, None], pa.float16()), "coded": pa.array(["x", "x"]).dictionary_encode(),
        "few": pa.array([[1], None], pa.list_(pa.int16(), 1)), "nothing": pa.nulls(2), "truth": [True, None],
    }  # fmt: skip
    (batch,) = batches(tmp_path, {"nodes/A/a.parquet": {"id": table.pop("key"), **table}})
    assert {name: str(kind) for name, kind in zip(batch.schema.names, batch.schema.types, strict=True)} == {
        "nodeId": "string", "small": "int64", "half": "double", "coded": "string", "few": "list<element: int64>",
        "truth": "bool", "labels": "string",
    } | {"few": str(batch.schema.field("few").type)}  # fmt: skip
    assert batch.to_pydict()["small"] == [1, None]
    assert batch.schema.field("few").type.value_type == pa.int64()
    assert batch.to_pydict()["labels"] == ["A", "A"]


def test_labels_of_folder_and_column_are_sent_together(tmp_path: Path) -> None:
    files = {
        "nodes/A:B/a.parquet": {"id": [1, 2], "labels": ["A,C", None]},
        "nodes/D/a.parquet": {"id": [3], "labels": pa.array([[" E ", "D", ""]])},
        "nodes/F:G/a.parquet": {"id": [4]},
    }
    sent = {row["nodeId"]: row["labels"] for batch in batches(tmp_path, files) for row in batch.to_pylist()}
    assert sent == {1: ["A", "B", "C"], 2: ["A", "B"], 3: ["D", "E"], 4: ["F", "G"]}


def test_batches_are_cut_by_their_size(tmp_path: Path) -> None:
    wide = {"id": list(range(40)), "text": ["x" * 1_000_000] * 40}
    found = batches(tmp_path, {"nodes/A/a.parquet": wide})
    assert sum(batch.num_rows for batch in found) == 40
    assert max(batch.num_rows for batch in found) <= 9


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("decimal", {"nodes/A/a.parquet": {"id": [1], "p": pa.array([1], pa.decimal128(9, 2))}}, "'p' holds decimal128"),
    ("bytes", {"nodes/A/a.parquet": {"id": [1], "p": [b"x"]}}, "'p' holds binary"),
    ("time", {"nodes/A/a.parquet": {"id": [1], "p": pa.array([1], pa.time64("us"))}}, "'p' holds time64"),
    ("struct", {"nodes/A/a.parquet": {"id": [1], "p": [{"a": 1}]}}, "'p' holds struct"),
    ("deep", {"nodes/A/a.parquet": {"id": [1], "p": [[[1]]]}}, "'p' holds list"),
    ("unsigned", {"nodes/A/a.parquet": {"id": [1], "p": pa.array([2**64 - 1], pa.uint64())}}, "'p' holds a value that does not fit int64"),
    ("null in a list", {"nodes/A/a.parquet": {"id": [1], "p": [["a", None]]}}, "'p' holds a list with a null"),
    ("two id columns", {"nodes/A/a.parquet": {"id": [1]}, "nodes/B/a.parquet": {"nodeId": [2]}}, "'id' .A., 'nodeId' .B."),
    ("two kinds of id", {"nodes/A/a.parquet": {"id": [1]}, "nodes/B/a.parquet": {"id": ["2"]}}, "integers .A., strings .B."),
]  # fmt: skip


@pytest.mark.parametrize(("files", "said"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_what_cannot_be_sent_is_refused_with_its_column(
    tmp_path: Path, files: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        batches(tmp_path, files)


def test_a_property_with_a_name_of_the_protocol_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "data", {"nodes/A/a.parquet": {"key": [1], "nodeId": [7]}})
    snapshot = open_snapshot("acme", 1, path, {"id": ["key"]}, "print", lambda kind, _: None)
    with pytest.raises(BadInput, match="'nodeId' has a name that Arrow keeps for itself"):
        find_identity(snapshot)


def test_the_descriptor_is_json_of_one_line() -> None:
    from bgdeploy.targets.neo4j.arrow.client import descriptor

    command = json.loads(descriptor("db", "node").command)
    assert command == {"name": "PUT_COMMAND", "version": "v1", "body": {"name": "db", "entity_type": "node"}}


class Unminding(Memory):
    """A ledger that hears of rows on their way, and lets them pass."""

    def seen(self, group: int, rows: int) -> None:
        pass


@pytest.mark.parametrize(
    ("settings", "streams", "largest"),
    [({"arrow_streams": 3, "arrow_rows": 40}, 3, 40), ({}, 2, 100)],
    ids=["configured", "a job from before"],
)
def test_streams_and_rows_of_a_batch_are_those_of_the_job(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any, streams: int, largest: int
) -> None:
    sent: list[int] = []
    widths: list[int] = []
    bodies: list[Any] = []
    send, pool, create = client_module.Put.send, load_module.ThreadPoolExecutor, Client.create
    monkeypatch.setattr(load_module, "find_address", lambda _: server.address())
    monkeypatch.setattr(load_module, "_refuse_taken", lambda *_: None)
    monkeypatch.setattr(load_module, "ThreadPoolExecutor", lambda n: widths.append(n) or pool(n))  # type: ignore[func-returns-value]
    monkeypatch.setattr(Client, "create", lambda *a: bodies.append(a[-1]) or create(*a))  # type: ignore[func-returns-value]
    monkeypatch.setattr(
        client_module.Put, "send", lambda put, batch: sent.append(batch.num_rows) or send(put, batch)  # type: ignore[func-returns-value]
    )  # fmt: skip
    snapshot = open_(tmp_path, {"nodes/A/a.parquet": {"id": list(range(100))}})
    ticket = SimpleNamespace(database="db", settings={"concurrency": 2, **settings})
    place = SimpleNamespace(access=Access("bolt://127.0.0.1:1", "neo4j", PASSWORD))
    load_module._import(place, ticket, snapshot, Unminding(), tmp_path / "build")  # type: ignore[arg-type]
    assert (max(sent), sum(sent), set(widths)) == (largest, 100, {streams})
    assert bodies[0]["concurrency"] == 2  # the server's own part stays neo4j.concurrency
