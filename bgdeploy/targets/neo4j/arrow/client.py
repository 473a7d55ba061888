"""Client: GDS's Arrow Flight protocol, version 1; only what an import of a database needs.

The official client brings pandas and more, and takes no notice of a stream that the server ended.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
from neo4j.exceptions import ClientError
from pyarrow import flight

from bgdeploy.actions import page
from bgdeploy.clock import monotonic
from bgdeploy.errors import BgdeployError, ConfigError, NameTaken, TargetAway, TargetError, TargetFull
from bgdeploy.snapshots.source import Kind
from bgdeploy.targets.neo4j.access import Access, RightMissing, Server
from bgdeploy.targets.neo4j.databases import show

# Refusals: what the Arrow endpoint or gRPC says, turned into what failed and what helps.

FAILURES = (pa.ArrowException, OSError)  # whatever the server or the wire may raise
_LOGIN = "Set neo4j.user and neo4j.password (or neo4j.password_file, or the variable NEO4J_PASSWORD)."
_ANEW = "What was sent is thrown away; what is live stays live."
# gRPC and pyarrow add what only they understand.
_NOISE = re.compile(r"\.? (?:Detail: |gRPC client debug context: |Client context: ).*", re.DOTALL)
_PREFIX = re.compile(r"^Flight returned \w+ error, with message: ")


def explain(error: Exception, doing: str, address: Address) -> BgdeployError:
    """Return the error a user sees."""
    said = _said(error)
    if isinstance(error, flight.FlightUnauthenticatedError):
        what = f"The Arrow endpoint {address.shown} refused user or password: {said}"
        return TargetAway(what, kept=_ANEW, cure=_LOGIN)
    if isinstance(error, flight.FlightUnauthorizedError):
        what = f"{doing}: the server's user lacks a right. {said}"
        return RightMissing(
            what, kept=_ANEW, cure=f"The rights bgdeploy needs are listed in {page('neo4j.md')}."
        )
    if isinstance(error, flight.FlightTimedOutError):
        return TargetAway(f"{doing}: the Arrow endpoint {address.shown} has stopped answering.", kept=_ANEW)
    if isinstance(error, flight.FlightUnavailableError | flight.FlightCancelledError):
        return _unreachable(said, doing, address)
    return _refused(said, doing)


def _said(error: Exception) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    line = _NOISE.sub("", _PREFIX.sub("", text)).strip().splitlines() or [type(error).__name__]
    return f"{line[0].rstrip('.')}."


def _unreachable(said: str, doing: str, address: Address) -> BgdeployError:
    low = said.lower()
    if "ssl" in low or "certificate" in low or "tsi_" in low:
        what = f"The Arrow endpoint {address.shown} does not speak TLS as asked for: {said}"
        cure = "Give the endpoint TLS (Neo4j's ssl policy for Arrow), and its authority as neo4j.ca_file; plain text is not tried."
        return TargetAway(what, kept=KEPT, cure=cure)
    if "refused" in low or "lookup" in low or "resolv" in low:
        what = f"Nothing listens at {address.shown} for Arrow: {said} The server says that it listens at {address.told}."
        return TargetAway(
            what, kept=KEPT, cure="Set neo4j.arrow_port, and gds.arrow.listen_address at the server."
        )
    if not address.tls and ("closed" in low or "reset" in low or "frame" in low or "connect" in low):
        what = f"{doing}: what listens at {address.shown} broke the connection off: {said}"
        cure = "Is it the Arrow port, and does it want TLS (bolt+s://, neo4j+s://)?"
        return TargetAway(what, kept=_ANEW, cure=cure)
    return TargetAway(f"{doing}: the connection to {address.shown} broke: {said}", kept=_ANEW)


def _refused(said: str, doing: str) -> BgdeployError:
    low = said.lower()
    if "no space left" in low or "disk is full" in low or "disk space" in low:
        cure = "Make room there; the load then begins anew by itself."
        return TargetFull(f"{doing}: the server's disk is full. {said}", kept=_ANEW, cure=cure)
    if "already exist" in low or "already in progress" in low:
        kept = "It was left as it is; the load goes on under another name."
        return NameTaken(f"{doing}: the name is taken at the server. {said}", kept=kept)
    return TargetError(f"{doing}: the server refused. {said}", kept=_ANEW)


# Login: the password once, then the token that the server answers with, for as long as it is good.

_TOKEN = 300.0  # seconds a token is used; the official client holds on to it for 600
_HEADER = "authorization"


class Login:
    """What a call says of who makes it; may be used from several threads."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._token: str | None = None
        self._since = 0.0

    def header(self) -> tuple[bytes, bytes]:
        """The token while it is fresh, else user and password as they are now; raises ConfigError."""
        with self._lock:
            if self._token is not None and monotonic() - self._since < _TOKEN:
                return _HEADER.encode(), f"Bearer {self._token}".encode()
        pair = f"{self._access.user}:{self._access.secret()}".encode()
        return _HEADER.encode(), b"Basic " + base64.b64encode(pair)

    def forget(self) -> None:
        """Show the password again at the next call."""
        with self._lock:
            self._token = None

    def hear(self, headers: Mapping[str, Sequence[str]]) -> None:
        """Keep the token that an answer may bring."""
        for value in headers.get(_HEADER, ()):
            kind, _, token = value.partition(" ")
            if kind == "Bearer" and token:
                with self._lock:
                    self._token, self._since = token, monotonic()


class Listening(flight.ClientMiddlewareFactory):  # type: ignore[misc]
    """Lets a login hear what comes back from each call."""

    def __init__(self, login: Login) -> None:
        super().__init__()
        self._login = login

    def start_call(self, info: Any) -> _Ear:
        """One for each call."""
        return _Ear(self._login)


class _Ear(flight.ClientMiddleware):  # type: ignore[misc]
    def __init__(self, login: Login) -> None:
        super().__init__()
        self._login = login

    def sending_headers(self) -> dict[str, str]:
        return {}

    def received_headers(self, headers: Mapping[str, Sequence[str]]) -> None:
        self._login.hear(headers)


# Address: where the server's Arrow endpoint is, whether it runs, and how it is to be spoken to.

DEBUG = "CALL gds.debug.arrow() YIELD listenAddress, enabled, running, versions"
VERSION = "v1"
DEFAULT_PORT = 8491
KEPT = "Nothing was sent; what is live stays live."
OVER_BOLT = "or set neo4j.loader: bolt"


@dataclass(frozen=True)
class Address:
    """Host and port of the endpoint; ``roots`` are certificates in PEM, None for the system's own.

    ``told`` is where the server says that it listens.
    """

    host: str
    port: int
    tls: bool
    verified: bool
    roots: bytes | None
    told: str

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.host}:{self.port}"


def find_address(server: Server) -> Address:
    """Ask over Bolt for the endpoint; raises ConfigError where there is none to be used."""
    rows = show(server)
    if len({row["address"] for row in rows}) > 1:
        what = "loader: arrow creates a database on one server only, and this is a cluster."
        raise ConfigError(what, kept=KEPT, cure="Set neo4j.loader: bolt.")
    told = _ask(server, next((str(row["name"]) for row in rows if row["default"]), None))
    _check(told)
    access = server.access
    host = urlsplit(access.uri).hostname or "localhost"
    port = access.arrow_port or _port_of(str(told["listenAddress"]))
    return Address(host, port, *tls_of(access), told=str(told["listenAddress"]))


def _ask(server: Server, database: str | None) -> Mapping[str, Any]:
    doing = "Asking for GDS's Arrow server"
    with server.asking(doing) as driver, driver.session(database=database) as session:
        try:
            return session.run(DEBUG).data()[0]
        except ClientError as error:
            if "ProcedureNotFound" not in (error.code or ""):
                raise
            what = (
                "loader: arrow needs Neo4j Graph Data Science (Enterprise), which this server does not have."
            )
            raise ConfigError(what, kept=KEPT, cure=f"Install it there, {OVER_BOLT}.") from error


def _check(told: Mapping[str, Any]) -> None:
    if not told["enabled"] or not told["running"]:
        state = "is switched off" if not told["enabled"] else "is switched on and does not run"
        cure = f"Set gds.arrow.enabled=true in its neo4j.conf and restart it, {OVER_BOLT}."
        raise ConfigError(f"The server's Arrow endpoint {state}.", kept=KEPT, cure=cure)
    versions = [str(one).lower() for one in told.get("versions") or ()]
    if versions and VERSION not in versions:
        what = f"The server's Arrow endpoint speaks {', '.join(versions)}, and bgdeploy {VERSION}."
        raise ConfigError(what, kept=KEPT, cure="Set neo4j.loader: bolt.")


def _port_of(address: str) -> int:
    port = address.rpartition(":")[2]
    return int(port) if port.isdigit() else DEFAULT_PORT


def tls_of(access: Access) -> tuple[bool, bool, bytes | None]:
    """Whether to encrypt, whether to look at the certificate, and whom to trust: as over Bolt, never less."""
    scheme = urlsplit(access.uri).scheme
    if access.ca_file is not None:
        return True, True, _read(access.ca_file)
    if scheme.endswith("+ssc"):
        return True, False, None
    return scheme.endswith("+s"), True, _system_roots() if scheme.endswith("+s") else None


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        what = f"neo4j.ca_file {file} cannot be read: {type(error).__name__}."
        raise ConfigError(what, kept=KEPT) from error


def _system_roots() -> bytes | None:
    """The authorities that Python trusts, which are those of the driver; gRPC brings others."""
    file = ssl.get_default_verify_paths().cafile
    return Path(file).read_bytes() if file is not None and Path(file).exists() else None


# Client: GDS's Arrow Flight protocol, version 1; only what an import of a database needs.

_ANSWER = 60.0  # seconds an action may take that only begins or ends something
_WORK = 24 * 3600.0  # and one that has the server work on all that was sent
_STALL = 300.0  # seconds without an acknowledgement; the server gives an import up after 600 without a batch
RENEW = 60.0  # seconds after which a stream is ended and another begun, so that a call may have a deadline
_AHEAD = 4  # batches sent and not yet acknowledged
# A peer that has gone is noticed though nothing is sent; Java's servers take more frequent questions amiss.
_OPTIONS = [
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.enable_http_proxy", 0),  # Bolt asks no proxy either
]
Answer = TypeVar("Answer")


class Client:
    """One endpoint and one user; may be used from several threads. What fails becomes a sentence."""

    def __init__(self, access: Access, address: Address) -> None:
        self.address, self._login = address, Login(access)
        scheme = "grpc+tls" if address.tls else "grpc"
        trust = {"disable_server_verification": True} if address.tls and not address.verified else {}
        self._flight = flight.FlightClient(
            f"{scheme}://{address.host}:{address.port}",
            tls_root_certs=address.roots,
            middleware=[Listening(self._login)],
            generic_options=_OPTIONS,
            **trust,
        )

    def close(self) -> None:
        """Hang up."""
        self._flight.close()

    def create(self, database: str, settings: Mapping[str, Any]) -> None:
        """Begin the import of a new database."""
        safely = {"force": False, "high_io": False, "use_bad_collector": False}
        body = {"name": database, **settings, **safely}
        self._act("CREATE_DATABASE", body, f"Beginning the Arrow import of {database}", _ANSWER)

    def end_nodes(self, database: str) -> int:
        """Say that all nodes were sent; return how many the server has."""
        doing = f"Ending the nodes of {database}"
        return int(self._act("NODE_LOAD_DONE", {"name": database}, doing, _WORK).get("node_count", -1))

    def end_relationships(self, database: str) -> int:
        """Say that all relationships were sent, which makes the database; return how many the server has."""
        doing = f"Ending the relationships of {database}"
        told = self._act("RELATIONSHIP_LOAD_DONE", {"name": database}, doing, _WORK)
        return int(told.get("relationship_count", -1))

    def abort(self, database: str) -> bool:
        """Have the server forget an import; False where it says that there is none to forget.

        Raises where the server cannot be asked, or not by this user.
        """
        doing = f"Aborting the Arrow import of {database}"
        try:
            self._called(lambda options: self._ask("ABORT", {"name": database}, options), _ANSWER)
        except (
            flight.FlightUnavailableError,
            flight.FlightTimedOutError,
            flight.FlightCancelledError,
        ) as error:
            raise explain(error, doing, self.address) from error
        except (flight.FlightUnauthenticatedError, flight.FlightUnauthorizedError) as error:
            raise explain(error, doing, self.address) from error
        except FAILURES:
            return False
        return True

    def _act(self, action: str, body: Mapping[str, Any], doing: str, seconds: float) -> dict[str, Any]:
        try:
            return self._called(lambda options: self._ask(action, body, options), seconds)
        except FAILURES as error:
            raise explain(error, doing, self.address) from error

    def _ask(self, action: str, body: Mapping[str, Any], options: Any) -> dict[str, Any]:
        asked = flight.Action(f"{VERSION}/{action}", json.dumps(body).encode())
        rows = [json.loads(result.body.to_pybytes()) for result in self._flight.do_action(asked, options)]
        return dict(rows[0]) if rows else {}

    def _called(self, call: Callable[[Any], Answer], seconds: float) -> Answer:
        """Make a call, once more with a new login where the token had expired meanwhile."""
        try:
            return call(self.options(seconds))
        except flight.FlightUnauthenticatedError:
            self.forget()
            return call(self.options(seconds))

    def options(self, seconds: float) -> Any:
        """Deadline and login of a call."""
        return flight.FlightCallOptions(timeout=seconds, headers=[self._login.header()])

    def forget(self) -> None:
        """Log in anew at the next call."""
        self._login.forget()

    def put(self, database: str, kind: Kind, schema: pa.Schema, doing: str) -> Put:
        """Open a stream of batches with this schema."""
        return Put(self, self._flight, descriptor(database, kind), schema, doing)


def descriptor(database: str, kind: Kind) -> Any:
    """What a stream is for."""
    body = {"name": database, "entity_type": kind}
    command = {"name": "PUT_COMMAND", "version": VERSION, "body": body}
    return flight.FlightDescriptor.for_command(json.dumps(command).encode())


class Put:
    """A stream of batches, every one acknowledged; whatever ends it early is an error.

    Used as a context: it is over, and all of it acknowledged, when the block is left without an error.
    """

    def __init__(self, client: Client, wire: Any, what: Any, schema: pa.Schema, doing: str) -> None:
        self._client, self._wire, self._what, self._schema, self._doing = client, wire, what, schema, doing
        self._waiting: deque[pa.RecordBatch] = deque()
        self._proven = False  # the server took this login: it acknowledged a batch
        self._writer: Any = None
        self._reader: Any = None
        self.began = monotonic()

    def __enter__(self) -> Put:
        self._minding(self._open)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._minding(self._finish)
        elif self._writer is not None:
            with suppress(*FAILURES):
                self._writer.close()

    def send(self, batch: pa.RecordBatch) -> None:
        """Send a batch; returns while the last few are still on their way."""
        self._waiting.append(batch)
        self._minding(lambda: self._write(batch))

    def _open(self) -> None:
        options = self._client.options(RENEW + _STALL)
        self._writer, self._reader = self._wire.do_put(self._what, self._schema, options)
        for batch in self._waiting:
            self._writer.write_batch(batch)

    def _write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)
        if len(self._waiting) >= _AHEAD:
            self._acknowledge()

    def _acknowledge(self) -> None:
        if self._reader.read() is None:
            self._writer.close()  # says why
            raise flight.FlightInternalError("the stream was ended before all its batches were acknowledged")
        self._proven = True
        self._waiting.popleft()

    def _finish(self) -> None:
        self._writer.done_writing()
        while self._waiting:
            self._acknowledge()
        self._writer.close()

    def _minding(self, act: Callable[[], None]) -> None:
        try:
            try:
                act()
            except FAILURES as error:
                self._again(self._cause(error), act)
        except BgdeployError:
            raise
        except FAILURES as error:
            raise explain(error, self._doing, self._client.address) from error

    def _cause(self, error: Exception) -> Exception:
        """What the server said, where writing only tells that the stream is no more."""
        try:
            if self._writer is not None:
                self._writer.close()
        except FAILURES as cause:
            return cause
        return error

    def _again(self, error: Exception, act: Callable[[], None]) -> None:
        """Begin the stream once more where the token had expired before the server took anything."""
        if self._proven or not isinstance(error, flight.FlightUnauthenticatedError):
            raise error
        self._proven = True
        self._client.forget()
        self._open()
        if act == self._finish:
            self._finish()
