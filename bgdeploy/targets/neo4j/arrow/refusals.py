"""Refusals: what the Arrow endpoint or gRPC says, turned into what failed and what helps."""

from __future__ import annotations

import re

import pyarrow as pa
from pyarrow import flight

from bgdeploy.errors import BgdeployError, NameTaken, TargetAway, TargetError, TargetFull
from bgdeploy.targets.neo4j.arrow.address import KEPT, Address
from bgdeploy.targets.neo4j.refusals import RightMissing

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
        return RightMissing(what, kept=_ANEW, cure="The rights bgdeploy needs are listed in docs/neo4j.md.")
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
