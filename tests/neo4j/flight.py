"""GDS's Arrow endpoint, strict: what the manual tells of its protocol, and an offline import at the end.

What it was sent becomes Parquet, ``neo4j-admin database import full`` makes a store of that, and a
real Community process serves it as the database. Faults are told to it as ``told["arrow_faults"]``.
"""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import flight
from pyarrow import types as is_

from bgdeploy.targets.neo4j.names import quote
from tests.neo4j.rules import Dbms
from tests.neo4j.servers import Community

SILENCE = 600.0  # seconds without a command or batch after which an import is given up
_IDS = {"INTEGER": pa.int64(), "STRING": pa.string()}
_KEYS = {"node": ("nodeId",), "relationship": ("sourceNodeId", "targetNodeId")}
_MARKS = {"node": "labels", "relationship": "relationshipType"}


@dataclass
class Import:
    """One database on its way in: its phase, what has come, and when it was last heard of."""

    name: str
    id_type: str
    id_property: str
    folder: Path
    phase: str = "node"
    heard: float = field(default_factory=time.monotonic)
    ids: set[Any] = field(default_factory=set)
    rows: dict[str, int] = field(default_factory=lambda: {"node": 0, "relationship": 0})
    files: dict[str, list[Path]] = field(default_factory=lambda: {"node": [], "relationship": []})
    open: int = 0  # streams that are not at their end
    gone: bool = False
    empty: dict[str, list[Any]] = field(default_factory=dict)  # property -> ids of nodes whose list is empty


class Imports:
    """Every import there is; shared by the plain endpoint and the one with TLS."""

    def __init__(self, dbms: Dbms) -> None:
        self.dbms = dbms
        self.running: dict[str, Import] = {}
        self.tokens: dict[str, int] = {}  # token -> calls made with it
        self.lock = threading.RLock()
        self.numbers = itertools.count(1)
        self.batches = 0
        self.over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def fault(self, name: str) -> Any:
        return self.dbms.told.get("arrow_faults", {}).get(name)

    def _watch(self) -> None:
        """Give up what is not heard of any more."""
        while True:
            threading.Event().wait(0.1)
            limit = self.fault("silence") or SILENCE
            with self.lock:
                for one in list(self.running.values()):
                    if time.monotonic() - one.heard > limit:
                        self._forget(one)

    def _hang(self) -> None:
        """Answer nothing any more, until the test is over."""
        self.over.wait(3600)
        raise flight.FlightServerError("hung up")

    def _forget(self, one: Import) -> None:
        one.gone = True
        self.running.pop(one.name, None)
        self.dbms.imports.append(f"gone {one.name}")
        shutil.rmtree(one.folder, ignore_errors=True)

    # Who asks

    def admit(self, given: str) -> str | None:
        """The new token of a call with a password, None for one with a token that is good."""
        kind, _, secret = given.partition(" ")
        with self.lock:
            if kind == "Bearer" and secret in self.tokens:
                self.tokens[secret] += 1
                if self.tokens[secret] > (self.fault("token_calls") or 10**9):
                    raise flight.FlightUnauthenticatedError("The token has expired")
                return None
            if kind == "Basic":
                user, _, password = base64.b64decode(secret).decode().partition(":")
                known = self.dbms.users.get(user)
                if known is not None and known["password"] == password:
                    token = f"token-{next(self.numbers)}"
                    self.tokens[token] = 0
                    return token
        raise flight.FlightUnauthenticatedError("Invalid username or password")

    # What is asked

    def act(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        self.dbms.imports.append(f"{kind} {body.get('name')}")
        if kind == self.fault("hang_in"):
            self._hang()
        if kind == self.fault("refuse_in"):
            raise flight.FlightServerError(self.fault("saying"))
        match kind:
            case "v1/CREATE_DATABASE":
                return self._create(body)
            case "v1/NODE_LOAD_DONE":
                return self._end(body, "node", "relationship")
            case "v1/RELATIONSHIP_LOAD_DONE":
                return self._end(body, "relationship", "done")
            case "v1/ABORT":
                with self.lock:
                    self._forget(self._find(body["name"]))
                return {"name": body["name"]}
        raise flight.FlightServerError(f"Unknown action {kind}")

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["name"]
        known = {
            "name",
            "id_type",
            "id_property",
            "concurrency",
            "force",
            "high_io",
            "use_bad_collector",
            "db_format",
        }
        if set(body) - known:
            raise flight.FlightServerError(f"Unexpected configuration key(s): {sorted(set(body) - known)}")
        with self.lock:
            if name in self.running:
                raise flight.FlightServerError(f"An import process for {name} already exists")
            if name in self.dbms.databases and not body["force"]:
                raise flight.FlightServerError(f"Database {name} already exists")
            folder = self.dbms.root / f"import-{next(self.numbers)}"
            folder.mkdir()
            id_type = body.get("id_type", "INTEGER")
            self.running[name] = Import(name, id_type, body.get("id_property", "originalId"), folder)
        return {"name": name}

    def _find(self, name: str) -> Import:
        if name not in self.running:
            raise flight.FlightServerError(f"No import process for {name}")
        return self.running[name]

    def _end(self, body: dict[str, Any], phase: str, following: str) -> dict[str, Any]:
        with self.lock:
            one = self._find(body["name"])
            if one.phase != phase:
                raise flight.FlightServerError(
                    f"{body['name']} is not in its {phase} phase but in {one.phase}"
                )
            if one.open:
                raise flight.FlightServerError(f"{one.open} streams of {one.name} are not at their end")
            one.phase, one.heard = following, time.monotonic() + 3600
        if following == "done":
            self._build(one)
        one.heard = time.monotonic()
        return {"name": one.name, f"{phase}_count": one.rows[phase] + (self.fault(f"{phase}_count") or 0)}

    def _build(self, one: Import) -> None:
        """What came, imported offline, and served."""
        server = self.dbms.new_home()
        sources = [f"--nodes={path}" for path in one.files["node"]]
        sources += [f"--relationships={path}" for path in one.files["relationship"]]
        told = ["--input-type=parquet", f"--id-type={one.id_type.lower()}", "--overwrite-destination=true"]
        server.administer("database", "import", "full", "neo4j", *told, "--threads=2", *sources, heap="256m")
        with self.lock:
            self.running.pop(one.name, None)
        shutil.rmtree(one.folder)
        if not one.gone:
            self.dbms.adopt(one.name, server)
            _fill_in(one, server)

    # What comes

    def take(self, command: Mapping[str, Any], stream: Any, answer: Any) -> None:
        body = command["body"]
        if (command["name"], command["version"]) != ("PUT_COMMAND", "v1") or set(body) != {
            "name",
            "entity_type",
        }:
            raise flight.FlightServerError(f"Cannot parse the command {command}")
        kind = body["entity_type"]
        with self.lock:
            one = self._find(body["name"])
            if one.phase != kind:
                raise flight.FlightServerError(f"{kind}s for {one.name}, which is in its {one.phase} phase")
            schema = _renamed(one, kind, stream.schema)
            path = one.folder / f"{kind}-{len(one.files[kind])}.parquet"
            one.files[kind].append(path)
            one.open += 1
        try:
            with pq.ParquetWriter(path, schema) as writer:
                for chunk in stream:
                    self._take_batch(one, kind, chunk.data)
                    writer.write_batch(pa.RecordBatch.from_arrays(_stored(chunk.data), schema=schema))
                    answer.write(b"{}")
        finally:
            with self.lock:
                one.open -= 1

    def _take_batch(self, one: Import, kind: str, batch: pa.RecordBatch) -> None:
        if self.fault("hang_after") is not None and one.rows[kind] >= self.fault("hang_after"):
            self._hang()
        with self.lock:
            self.batches += 1
            if self.fault("die_after") is not None and one.rows[kind] >= self.fault("die_after"):
                raise flight.FlightServerError("The import failed: java.lang.OutOfMemoryError")
            if one.gone:
                raise flight.FlightServerError(f"The import process for {one.name} was aborted")
            one.heard = time.monotonic()
            one.rows[kind] += batch.num_rows
            for name in _KEYS[kind]:
                _check_ids(one, kind, batch.column(name).to_pylist())
            _note_empty(one, batch)


def _note_empty(one: Import, batch: pa.RecordBatch) -> None:
    """The tool makes an empty list in Parquet an array of bytes, so these are left out and set afterwards."""
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        if is_.is_list(values.type) and name != "labels":
            empty = pc.equal(pc.list_value_length(values), 0).fill_null(False)
            if pc.any(empty).as_py():
                one.empty.setdefault(name, []).extend(batch.column("nodeId").filter(empty).to_pylist())


def _fill_in(one: Import, server: Community) -> None:
    key = quote(one.id_property)
    with server.driver() as driver:
        for name, ids in one.empty.items():
            text = f"MATCH (n) WHERE n.{key} IN $ids SET n.{quote(name)} = []"
            driver.execute_query(text, ids=ids, database_="neo4j")  # type: ignore[arg-type]


def _check_ids(one: Import, kind: str, ids: Sequence[Any]) -> None:
    """Nulls and doubles are undefined at the server, so nobody may send them."""
    if None in ids:
        raise flight.FlightServerError("undefined: an id is null")
    if kind == "relationship":
        if lost := set(ids) - one.ids:
            raise flight.FlightServerError(f"undefined: no node has the id {lost.pop()!r}")
        return
    if len(set(ids)) < len(ids) or one.ids & set(ids):
        raise flight.FlightServerError("undefined: an id came twice")
    one.ids.update(ids)


def _renamed(one: Import, kind: str, schema: pa.Schema) -> pa.Schema:
    """The schema for the import tool; refuses every type and order that the manual does not name."""
    keys, mark = _KEYS[kind], _MARKS[kind]
    for name in (*keys, mark):
        if name not in schema.names:
            raise flight.FlightServerError(f"The schema lacks the column {name}")
    fields = []
    for name, found in zip(schema.names, schema.types, strict=True):
        if name in keys and found != _IDS[one.id_type]:
            raise flight.FlightServerError(f"{name} holds {found}, and the id type is {one.id_type}")
        if name == mark and not _is_mark(kind, found):
            raise flight.FlightServerError(f"{name} holds {found}")
        if name not in (*keys, mark) and not _is_property(found):
            raise flight.FlightServerError(f"The property {name} has the unsupported type {found}")
        fields.append((_tool_name(one, name), pa.string() if name == "labels" else found))
    return pa.schema(fields)


def _is_mark(kind: str, found: pa.DataType) -> bool:
    return bool(is_.is_string(found) or (kind == "node" and found == pa.list_(pa.string())))


def _is_property(kind: pa.DataType) -> bool:
    if is_.is_list(kind):
        return not is_.is_list(kind.value_type) and _is_property(kind.value_type)
    known = (is_.is_int64, is_.is_float64, is_.is_string, is_.is_boolean, is_.is_date32, is_.is_timestamp)
    return any(one(kind) for one in known)


def _tool_name(one: Import, name: str) -> str:
    special = {
        "nodeId": f"{one.id_property}:ID", "labels": ":LABEL", "sourceNodeId": ":START_ID",
        "targetNodeId": ":END_ID", "relationshipType": ":TYPE",
    }  # fmt: skip
    return special.get(name, name)


def _stored(batch: pa.RecordBatch) -> list[pa.Array]:
    """The tool takes a node's labels as one text."""
    stored = []
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        several = name == "labels" and is_.is_list(values.type)
        if several:
            values = pa.array([";".join(one) for one in values.to_pylist()])
        elif is_.is_list(values.type):
            values = pa.array([one or None for one in values.to_pylist()], values.type)
        stored.append(values)
    return stored


class Keeper(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Looks at who calls, and hands out tokens."""

    def __init__(self, imports: Imports) -> None:
        super().__init__()
        self.imports = imports

    def start_call(self, info: Any, headers: dict[str, list[str]]) -> Token | None:
        token = self.imports.admit(next(iter(headers.get("authorization", [""]))))
        return None if token is None else Token(token)


class Token(flight.ServerMiddleware):  # type: ignore[misc]
    def __init__(self, token: str) -> None:
        super().__init__()
        self.token = token

    def sending_headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


class NoHandshake(flight.ServerAuthHandler):  # type: ignore[misc]
    """The password stands in a header, which the keeper has looked at."""

    def authenticate(self, outgoing: Any, incoming: Any) -> None:
        return

    def is_valid(self, token: Any) -> bytes:
        return b""


class Endpoint(flight.FlightServerBase):  # type: ignore[misc]
    def __init__(self, imports: Imports, location: str, **options: Any) -> None:
        self.imports = imports
        super().__init__(
            location, auth_handler=NoHandshake(), middleware={"auth": Keeper(imports)}, **options
        )

    def do_action(self, context: Any, action: Any) -> list[Any]:
        told = self.imports.act(action.type, json.loads(action.body.to_pybytes()))
        return [flight.Result(json.dumps(told).encode())]

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        self.imports.take(json.loads(descriptor.command), reader, writer)


def listen(imports: Imports, port: int, pair: Sequence[str] = ()) -> Endpoint:
    """Serve on a port of this machine; ``pair`` are certificate and key for TLS."""
    if not pair:
        return Endpoint(imports, f"grpc://127.0.0.1:{port}")
    shown = [(Path(pair[0]).read_bytes(), Path(pair[1]).read_bytes())]
    return Endpoint(imports, f"grpc+tls://127.0.0.1:{port}", tls_certificates=shown)
