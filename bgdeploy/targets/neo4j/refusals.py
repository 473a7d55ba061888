"""Refusals: what the server or the driver says, turned into what failed and what helps.

Codes as seen on Neo4j 5.26 and 2026.08 (docs/decisions/0005).
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from neo4j.exceptions import (
    AuthError,
    ConfigurationError,
    DriverError,
    Forbidden,
    IncompleteCommit,
    Neo4jError,
    ServiceUnavailable,
    SessionExpired,
)

from bgdeploy.errors import BgdeployError, ConfigError, TargetAway, TargetError, TargetFull

COMMUNITY = (
    "This server is Neo4j Community Edition, which has one database and no aliases: one snapshot can be "
    "loaded and verified there, and nothing be switched. Use Neo4j Enterprise, or target: ladybug, which needs no server"
)
_KEPT = "What is live stays live."
_LOOK = "See: bgdeploy doctor"
_LOGIN = "Set neo4j.user and neo4j.password (or neo4j.password_file, or the variable NEO4J_PASSWORD)."


class ServerRefused(TargetError):
    """The server refused a statement; ``said_code`` is its own code, such as ``Neo.ClientError.Statement.SyntaxError``."""

    said_code = ""


class NoSuchName(ServerRefused):
    """What a statement names does not exist."""


class EditionLacks(TargetError):
    """This server has no such command; ``said`` are its own words."""

    code = "edition"

    def __init__(self, doing: str, said: str) -> None:
        cure = "Use Neo4j Enterprise, or target: ladybug, which needs no server."
        super().__init__(f"{doing}: the server has no such command. {said}", kept=_KEPT, cure=cure)
        self.said = said


class RightMissing(TargetAway):
    """The server's user may not do that; whoever gives rights there is waited for, and no attempt is used."""


def explain(error: Exception, doing: str, uri: str) -> BgdeployError:
    """Return the error a user sees; it names the server without user and password."""
    where = place(uri)
    if isinstance(error, Forbidden):
        return _forbidden(error, doing)
    if isinstance(error, AuthError):
        return _unauthorized(error, where)
    if isinstance(error, Neo4jError):
        return _refused(error, doing)
    if isinstance(error, ConfigurationError | ValueError):
        what = f"The settings for the Neo4j server {where} cannot be used: {str(error).splitlines()[0]}"
        return ConfigError(what, kept="Nothing was asked of it.", cure="See docs/neo4j.md.")
    if isinstance(error, IncompleteCommit):
        what = f"{doing}: the connection to {where} broke before the server's answer."
        return TargetAway(what, kept="What it committed is found at the next try.", cure=_LOOK)
    return _unreachable(error, where)


def place(uri: str) -> str:
    """Host and port of a URI, for people."""
    parts = urlsplit(uri)
    try:
        port = parts.port
    except ValueError:
        port = None
    return f"{parts.hostname or 'nowhere'}:{port or 7687}"


def _line(error: BaseException) -> str:
    text = str(getattr(error, "message", None) or error) or type(error).__name__
    return f"{text.splitlines()[0].rstrip('.')}."


def _forbidden(error: Neo4jError, doing: str) -> BgdeployError:
    return RightMissing(
        f"{doing}: the server's user lacks a right. {_line(error)}",
        kept=_KEPT,
        cure="The rights bgdeploy needs are listed in docs/neo4j.md.",
    )


def _unauthorized(error: Neo4jError, where: str) -> BgdeployError:
    if "RateLimit" in (error.code or ""):
        what = f"The Neo4j server {where} takes no more logins for now: too many were wrong."
        return TargetAway(what, kept=_KEPT, cure=_LOGIN)
    if "CredentialsExpired" in (error.code or ""):
        what = f"The password for the Neo4j server {where} has expired and must be changed."
        return TargetAway(what, kept=_KEPT, cure=_LOGIN)
    return TargetAway(f"The Neo4j server {where} refused user or password.", kept=_KEPT, cure=_LOGIN)


def _refused(error: Neo4jError, doing: str) -> BgdeployError:
    code = error.code or ""
    if "UnsupportedAdministrationCommand" in code or "NotSystemDatabaseError" in code:
        return EditionLacks(doing, _line(error))
    if "DatabaseLimitReached" in code:
        what = f"{doing}: the server has as many databases as it may hold. {_line(error)}"
        return TargetFull(what, kept=_KEPT, cure="Lower keep_databases, or raise the server's limit.")
    if is_memory(error):
        what = f"{doing}: the server has too little memory. {_line(error)}"
        return TargetError(what, kept=_KEPT, cure="Raise its heap or db.memory.transaction.max.")
    if _is_disk(error):
        what = f"{doing}: the server's disk is full, or fails. {_line(error)}"
        return TargetFull(what, kept=_KEPT, cure="Make room there, and restart the server if it says so.")
    if "needs to be restarted" in _line(error):
        what = f"{doing}: the server has stopped this database. {_line(error)}"
        return TargetAway(
            what, kept=_KEPT, cure="Look into its log, and restart it: often its disk was full."
        )
    if "does not exist" in _line(error):  # no code tells it: for roles the server has ArgumentError
        return _with_code(NoSuchName, error, doing)
    if error.is_retryable():
        busy = f"{doing}: the server is busy or starting. {_line(error)}"
        return TargetAway(busy, kept=_KEPT, cure="Try again in a moment; see: bgdeploy doctor")
    return _with_code(ServerRefused, error, doing)


def _with_code(kind: type[ServerRefused], error: Neo4jError, doing: str) -> ServerRefused:
    what = f"{doing}: the server refused. {_line(error)} ({error.code or 'no code'})"
    refused = kind(what, kept=_KEPT, cure=_LOOK)
    refused.said_code = error.code or ""
    return refused


def is_memory(error: BaseException) -> bool:
    """True when a transaction was too large for the server's memory."""
    return isinstance(error, Neo4jError) and ("Memory" in (error.code or "") or "OutOfMemory" in _line(error))


def _is_disk(error: Neo4jError) -> bool:
    if "TransactionLogError" in (error.code or ""):
        return True  # seen on 5.26.26 with a full disk, of which it says nothing
    low = _line(error).lower()
    return "no space left" in low or "disk is full" in low or "disk space" in low


def _unreachable(error: Exception, where: str) -> BgdeployError:
    causes = "; ".join(_line(one) for one in _chain(error))
    if any(isinstance(one, ssl.SSLError) for one in _chain(error)) or "SSL" in causes:
        what = f"The Neo4j server {where} does not speak TLS as asked for: {causes}"
        cure = "Use bolt+s:// or neo4j+s:// only where the server has a certificate, +ssc or ca_file for its own."
        return TargetAway(what, kept=_KEPT, cure=cure)
    if "handshake" in causes.lower() or "incomplete" in causes.lower() or "reset by peer" in causes.lower():
        what = f"What listens at {where} broke the connection off: {causes}"
        cure = "Is it the Bolt port, and does it want TLS (bolt+s://, neo4j+s://)?"
        return TargetAway(what, kept=_KEPT, cure=cure)
    if isinstance(error, ServiceUnavailable | SessionExpired | DriverError | OSError):
        what = f"The Neo4j server {where} cannot be reached: {_shortest(error)}."
        return TargetAway(what, kept=_KEPT, cure=_LOOK)
    what = f"The Neo4j server {where} answered with something unexpected: {causes}"
    return TargetError(what, kept=_KEPT, cure=_LOOK)


def _shortest(error: Exception) -> str:
    """What the system says of a connection, where it says anything; else what the driver says of it."""
    chain = _chain(error)
    system = [one.strerror for one in chain if isinstance(one, OSError) and one.strerror]
    if any(isinstance(one, TimeoutError) for one in chain):
        return "it does not answer"
    return (system[-1] if system else _line(chain[0])).rstrip(".").lower()


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
