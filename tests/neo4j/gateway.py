"""A gateway that speaks Bolt: administration by the rules, data by real Community processes.

One process of its own, so that a test's Python does not slow it down: ``python -m tests.neo4j.gateway
<port> <Arrow port> <folder> [<TLS port> <Arrow TLS port> <certificate> <key>]``. Prints ``ready`` when it takes
connections.
"""

from __future__ import annotations

import itertools
import signal
import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

from neo4j.exceptions import Neo4jError

from tests.neo4j import bolt, flight
from tests.neo4j.bolt import Closed, Wire, pack_message, unpack_message
from tests.neo4j.rules import Database, Dbms, Refusal
from tests.neo4j.servers import PASSWORD

_NUMBERS = itertools.count(1)
_MESSAGES = (bolt.SUCCESS, bolt.FAILURE, bolt.IGNORED)


class Client:
    """One driver's connection: where its transaction runs, and what is still to be fetched."""

    def __init__(self, dbms: Dbms, wire: Wire, address: str) -> None:
        self.dbms, self.wire, self.number, self.address = dbms, wire, next(_NUMBERS), address
        self.user = ""
        self.failed = False
        self.shown = ""  # the name the client used for its database
        self.database: Database | None = None  # where the open transaction runs; None: on system
        self.in_transaction = False
        self.behind: dict[int, Wire] = {}  # port of a process -> connection to it
        self.rows: list[list[Any]] = []

    def serve(self) -> None:
        try:
            if self._shake_hands():
                while self._answer(self.wire.receive()):
                    pass
        except Closed:
            pass
        finally:
            self._leave()
            for wire in [self.wire, *self.behind.values()]:
                wire.close()

    def _shake_hands(self) -> bool:
        if self.wire.read(4) != bolt.MAGIC:
            return False
        offers = self.wire.read(16)
        major, minor = bolt.VERSION
        for at in range(0, 16, 4):
            spread, least, kind = offers[at + 1], offers[at + 2], offers[at + 3]
            if kind == major and least - spread <= minor <= least:
                self.wire.socket.sendall(bytes([0, 0, minor, major]))
                return True
        self.wire.socket.sendall(bytes(4))
        return False

    def _answer(self, message: bytes) -> bool:
        kind = message[1]
        if kind == bolt.GOODBYE:
            return False
        if kind == bolt.RESET:
            self._reset(message)
        elif self.failed:
            self.wire.send(pack_message(bolt.IGNORED))
        else:
            try:
                self._handle(kind, message)
            except Refusal as refusal:
                self._fail(refusal.code, refusal.said)
            except Neo4jError as error:
                self._fail(error.code or "", error.message or "")
        return True

    def _fail(self, code: str, said: str) -> None:
        self.failed = True
        self._leave()
        self.wire.send(pack_message(bolt.FAILURE, {"code": code, "message": said}))

    def _success(self, **fields: Any) -> None:
        self.wire.send(pack_message(bolt.SUCCESS, fields))

    def _reset(self, message: bytes) -> None:
        self.failed, self.in_transaction = False, False
        self._leave()
        for port, wire in list(self.behind.items()):
            try:
                wire.send(message)
                while wire.receive()[1] not in _MESSAGES:
                    pass
            except Closed:
                self.behind.pop(port).close()
        self._success()

    def _handle(self, kind: int, message: bytes) -> None:
        match kind:
            case bolt.HELLO:
                self._success(
                    server=f"Neo4j/{self.dbms.version}", connection_id=f"bolt-{self.number}", hints={}
                )
            case bolt.LOGON:
                self._log_on(unpack_message(message)[1][0])
            case bolt.LOGOFF | bolt.TELEMETRY:
                self._success()
            case bolt.ROUTE:
                self._route(unpack_message(message)[1])
            case bolt.BEGIN:
                self._begin(unpack_message(message)[1][0])
            case bolt.RUN if self.in_transaction and self.database is not None:
                self._relay(message)
            case bolt.RUN:
                self._run(*unpack_message(message)[1])
            case bolt.PULL | bolt.DISCARD if self.database is None:
                self._pull(discard=kind == bolt.DISCARD)
            case bolt.COMMIT | bolt.ROLLBACK if self.database is None:
                self.in_transaction = False
                self._success(bookmark=f"system:{self.number}")
            case _:
                self._relay(message)
                if kind in (bolt.COMMIT, bolt.ROLLBACK) or (
                    not self.in_transaction and kind in (bolt.PULL, bolt.DISCARD)
                ):
                    self.in_transaction = False
                    self._leave()

    def _log_on(self, given: dict[str, Any]) -> None:
        user = given.get("principal", "")
        known = self.dbms.users.get(user)
        if known is None or known["password"] != given.get("credentials"):
            said = "The client is unauthorized due to authentication failure."
            raise Refusal("Neo.ClientError.Security.Unauthorized", said)
        self.user = user
        self._success()

    def _route(self, fields: list[Any]) -> None:
        name = (fields[2] or {}).get("db")
        if (name or "").lower() != "system":
            self.dbms.resolve(name)
        here = [self.address]
        servers = [{"addresses": here, "role": role} for role in ("ROUTE", "READ", "WRITE")]
        self._success(rt={"ttl": 1, "db": name or "neo4j", "servers": servers})

    def _enter(self, name: str | None) -> None:
        self.shown = name or "neo4j"
        self.database = None if self.shown.lower() == "system" else self.dbms.resolve(name)
        if self.database is not None:
            self.dbms.transactions[self.number] = (self.database.name, self.user)

    def _leave(self) -> None:
        self.dbms.transactions.pop(self.number, None)

    def _begin(self, extra: dict[str, Any]) -> None:
        self._enter(extra.get("db"))
        self.dbms.lead()
        self.in_transaction = True
        if self.database is None:
            self._success()
        else:
            self._relay(pack_message(bolt.BEGIN, self._rewritten(extra)))

    def _run(self, text: str, params: dict[str, Any], extra: dict[str, Any]) -> None:
        if not self.in_transaction:
            self._enter(extra.get("db"))
        if text.startswith(("CALL gds.", "CALL db.checkpoint")):
            self._leave()
            self.database = None  # answered here, whatever database it is asked of
        if self.database is None:
            columns, rows = self.dbms.administer(self.user, text, params)
            self.rows = [[row.get(name) for name in columns] for row in rows]
            self._success(fields=columns, t_first=0)
        else:
            self._relay(pack_message(bolt.RUN, text, params, self._rewritten(extra)))

    def _rewritten(self, extra: dict[str, Any]) -> dict[str, Any]:
        """The same for the process behind: its own database name, none of our bookmarks, its access."""
        kept = {key: value for key, value in extra.items() if key not in ("db", "bookmarks")}
        read_only = self.database is not None and self.database.access == "read-only"
        return {**kept, "db": "neo4j", **({"mode": "r"} if read_only else {})}

    def _pull(self, *, discard: bool) -> None:
        for row in [] if discard else self.rows:
            self.wire.send(pack_message(bolt.RECORD, row))
        self.rows = []
        self._success(type="r", db="system", bookmark=f"system:{self.number}")

    def _relay(self, message: bytes) -> None:
        """Hand a message on and the answer back; a process that dies takes this connection with it."""
        assert self.database is not None
        server = self.database.server
        if server is None:
            raise Refusal(
                "Neo.TransientError.General.DatabaseUnavailable", "There is nothing behind this database."
            )
        wire = self.behind.get(server.port)
        if wire is None:
            wire = self.behind[server.port] = bolt.connect(server.port, "neo4j", PASSWORD)
        wire.send(message)
        while True:
            answer = wire.receive()
            if answer[1] in _MESSAGES:
                self.wire.send(self._renamed(answer))
                return
            self.wire.send(answer)

    def _renamed(self, answer: bytes) -> bytes:
        kind, fields = unpack_message(answer)
        if kind == bolt.SUCCESS and fields and "db" in fields[0]:
            return pack_message(kind, {**fields[0], "db": self.shown})
        if kind == bolt.FAILURE:
            self._leave()
            if (
                self.database is not None
                and self.database.access == "read-only"
                and "AccessMode" in fields[0]["code"]
            ):
                code = "Neo.ClientError.General.WriteOnReadOnlyAccessDatabase"
                return pack_message(kind, {**fields[0], "code": code})
        return answer


def main() -> None:
    port, arrow_port, root, tls = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    root.mkdir(parents=True, exist_ok=True)
    dbms = Dbms(root, f"127.0.0.1:{port}", arrow_address=f"127.0.0.1:{arrow_port}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        dbms.open()
        endpoint = flight.Imports(dbms)
        flight.listen(endpoint, arrow_port)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls[2:])
            threading.Thread(target=_listen, args=(dbms, int(tls[0]), context), daemon=True).start()
            flight.listen(endpoint, int(tls[1]), tls[2:])
        _listen(dbms, port, None, "ready")
    finally:
        dbms.close()


def _listen(dbms: Dbms, port: int, context: ssl.SSLContext | None, word: str = "") -> None:
    with socket.create_server(("127.0.0.1", port), backlog=64) as door:
        if word:
            print(word, flush=True)
        while True:
            connection, _ = door.accept()
            arguments = (dbms, connection, f"127.0.0.1:{port}", context)
            threading.Thread(target=_welcome, args=arguments, daemon=True).start()


def _welcome(dbms: Dbms, connection: socket.socket, address: str, context: ssl.SSLContext | None) -> None:
    try:
        wrapped = context.wrap_socket(connection, server_side=True) if context else connection
    except (ssl.SSLError, OSError):
        connection.close()
        return
    Client(dbms, Wire(wrapped), address).serve()


if __name__ == "__main__":
    main()
