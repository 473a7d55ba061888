"""Client: GDS's Arrow Flight protocol, version 1; only what an import of a database needs.

The official client brings pandas and more, and takes no notice of a stream that the server ended.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import flight

from bgdeploy.clock import monotonic
from bgdeploy.errors import BgdeployError
from bgdeploy.snapshots.source import Kind
from bgdeploy.targets.neo4j.access import Access
from bgdeploy.targets.neo4j.arrow.address import VERSION, Address
from bgdeploy.targets.neo4j.arrow.login import Listening, Login
from bgdeploy.targets.neo4j.arrow.refusals import FAILURES, explain

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
