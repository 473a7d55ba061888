"""Access: how the server is reached, and as whom; the only place that sees the password.

Codes as seen on Neo4j 5.26 and 2026.08 (docs/decisions/0005).
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import neo4j
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

from bgdeploy.actions import Hint, do, page
from bgdeploy.clock import monotonic
from bgdeploy.errors import BgdeployError, ConfigError, TargetAway, TargetError, TargetFull, other_place
from bgdeploy.targets.base import Rows

# Refusals: what the server or the driver says, turned into what failed and what helps.

COMMUNITY = (
    "This server is Neo4j Community Edition, which has one database and no aliases: one snapshot can be "
    "loaded and verified there, and nothing be switched. Use Neo4j Enterprise, or target: ladybug, which needs no server"
)
_KEPT = "What is live stays live."
_LOOK = Hint("See: ", do("doctor"))
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
        return ConfigError(what, kept="Nothing was asked of it.", cure=f"See {page('neo4j.md')}.")
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
        cure=f"The rights bgdeploy needs are listed in {page('neo4j.md')}.",
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
        return TargetAway(busy, kept=_KEPT, cure=Hint("Try again in a moment; see: ", do("doctor")))
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


# Access: how the server is reached, and as whom; the only place that sees the password.

# What the driver logs is in our errors too; without a handler Python prints it bare on stderr.
logging.getLogger("neo4j").addHandler(logging.NullHandler())

_CONNECT = 10.0  # seconds to wait for a connection
_RETRY = 20.0  # seconds the driver repeats what it calls retryable
_PAUSE = 0.2  # seconds before a refused statement is sent again
_SYSTEM = "system"
_TRUST = 60.0  # seconds before the server is asked again whether it is the one that is meant
Answer = TypeVar("Answer")
IDENTITY = "CALL dbms.info() YIELD id RETURN id"


@dataclass(frozen=True)
class Access:
    """Where the server is and who asks; ``password_file`` is read anew at each login.

    ``import_tool`` is the server's ``neo4j-admin`` where it runs on this host, ``import_memory_mb`` what it may take,
    ``seed_uri`` the folder of dumps for the other members of a cluster.
    """

    uri: str
    user: str
    password: str = field(default="", repr=False)
    password_file: str | None = None
    ca_file: str | None = None
    import_tool: str | None = None
    seed_uri: str | None = None
    import_memory_mb: int | None = None
    arrow_port: int | None = None  # None: the one that the server tells

    def secret(self) -> str:
        """The password as it is now; raises ConfigError when its file cannot be read."""
        if self.password_file is None:
            return self.password
        try:
            return Path(self.password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"neo4j.password_file {self.password_file} cannot be read: {type(error).__name__}.",
                kept="Nothing was asked of the server.",
                cure="Give bgdeploy the right to read it, or set neo4j.password.",
            ) from error


class FreshLogin(neo4j.auth_management.AuthManager):
    """Reads the password for every connection that is used, so that a rotated one needs no restart."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def get_auth(self) -> neo4j.Auth:
        """User and password as they are now."""
        return neo4j.basic_auth(self._access.user, self._access.secret())

    def handle_security_exception(self, auth: Any, error: Neo4jError) -> bool:
        """Nothing is remembered, so nothing has to be forgotten."""
        return False


class Server:
    """One server or cluster: connects at first use, and turns its errors into sentences.

    Sessions on one database share bookmarks, so that each command sees what the one before it did,
    whichever member of a cluster answers. May be used from several threads.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self.expected: str | None = None  # the id of the server the job table speaks of
        self._compared = -_TRUST  # when it was last seen to be that one
        self.lacks: list[str] | None = None  # what it said to commands that it has not; None: not asked yet
        self._first = threading.Lock()
        self._bookmarks: dict[str, neo4j.BookmarkManager] = {}

    @cached_property
    def _driver(self) -> neo4j.Driver:
        return self._open(self.access.uri)

    def _open(self, uri: str) -> neo4j.Driver:
        options: dict[str, Any] = {}
        if self.access.ca_file is not None:  # the driver takes an authority of one's own only without +s
            uri = uri.replace("+ssc://", "://").replace("+s://", "://")
            options = {"encrypted": True, "trusted_certificates": neo4j.TrustCustomCAs(self.access.ca_file)}
        login: Any = neo4j.basic_auth(self.access.user, self.access.password)
        if self.access.password_file is not None:
            login = FreshLogin(self.access)
        return neo4j.GraphDatabase.driver(
            uri,
            auth=login,
            connection_timeout=_CONNECT,
            connection_acquisition_timeout=2 * _CONNECT,
            max_transaction_retry_time=_RETRY,
            notifications_min_severity="OFF",
            user_agent="bgdeploy",
            **options,
        )

    @contextmanager
    def asking(self, doing: str) -> Iterator[neo4j.Driver]:
        """Lend the driver; what goes wrong in the block becomes an error that says what was being done."""
        try:
            with self._first:
                driver = self._driver
                self._check(driver)
            yield driver
        except BgdeployError:
            raise
        except (Neo4jError, DriverError, ConfigurationError, OSError, ValueError) as error:
            self._compared, self.lacks = -_TRUST, None  # another one may answer next time
            raise explain(self._find_cause(error), doing, self.access.uri) from error

    def session(self, driver: neo4j.Driver, database: str, access: str = neo4j.WRITE_ACCESS) -> neo4j.Session:
        """Open a session on a database by its own name, which sees all that this process did there."""
        marks = self._bookmarks.setdefault(database, neo4j.GraphDatabase.bookmark_manager())
        return driver.session(database=database, default_access_mode=access, bookmark_manager=marks)

    def _find_cause(self, error: Exception) -> Exception:
        """What keeps a cluster's routing from working, which the driver does not say."""
        if not isinstance(error, ServiceUnavailable) or not self.access.uri.startswith("neo4j"):
            return error
        try:
            with self._open(self.access.uri.replace("neo4j", "bolt", 1)) as direct:
                direct.verify_connectivity()
        except (Neo4jError, DriverError, ConfigurationError, OSError) as cause:
            return cause
        return error

    def _check(self, driver: neo4j.Driver) -> None:
        if self.expected is None or monotonic() - self._compared < _TRUST:
            return
        found = _read_id(driver)
        if found != self.expected:
            raise other_place(self.expected, found)
        self._compared = monotonic()

    def identity(self) -> str:
        """The id the server or cluster gave itself when it was set up."""
        with self.asking("Asking for the server's id") as driver:
            return _read_id(driver)

    def ask(self, cypher: str, doing: str, **params: Any) -> Rows:
        """Run one administration statement on ``system``, alone in its transaction, and return its rows."""

        def run(driver: neo4j.Driver) -> Rows:
            with self.session(driver, _SYSTEM) as session:
                return session.run(cast(Any, cypher), params).data()

        with self.asking(doing) as driver:
            return repeat(partial(run, driver))

    def read(self, database: str, cypher: str, doing: str, **params: Any) -> Rows:
        """Rows of a read-only query; repeated by the driver where the server asks for it."""
        with self.asking(doing) as driver, self.session(driver, database, neo4j.READ_ACCESS) as session:
            return session.execute_read(lambda tx: tx.run(cast(Any, cypher), params).data())

    def query(self, alias: str, cypher: str, doing: str, params: Mapping[str, Any]) -> Rows:
        """The same through an alias, which leads now here and now there, so that nothing is remembered of it."""
        access = neo4j.READ_ACCESS
        with (
            self.asking(doing) as driver,
            driver.session(database=alias, default_access_mode=access) as session,
        ):
            return session.execute_read(lambda tx: tx.run(cast(Any, cypher), dict(params)).data())

    def write(self, database: str, cypher: str, doing: str, **params: Any) -> Rows:
        """Rows of one writing statement in a transaction that may be repeated."""
        with self.asking(doing) as driver, self.session(driver, database) as session:
            return session.execute_write(lambda tx: tx.run(cast(Any, cypher), params).data())

    def change(self, database: str, cypher: str, doing: str, **params: Any) -> neo4j.ResultSummary:
        """Run one statement that changes a schema, or makes transactions of its own, alone in its transaction."""

        def run(driver: neo4j.Driver) -> neo4j.ResultSummary:
            with self.session(driver, database) as session:
                return session.run(cast(Any, cypher), params).consume()

        with self.asking(doing) as driver:
            return repeat(partial(run, driver))


def repeat(act: Callable[[], Answer]) -> Answer:
    """Do it again while the server refuses it for the moment, as a member does that leads no longer.

    The driver does so for transactions of its own, not for statements that stand alone. A broken
    connection is no refusal: what was done by then is for the caller to look at.
    """
    deadline = monotonic() + _RETRY
    while True:
        try:
            return act()
        except Neo4jError as error:
            if not error.is_retryable() or monotonic() > deadline:
                raise
        threading.Event().wait(_PAUSE)


def _read_id(driver: neo4j.Driver) -> str:
    with driver.session(database=_SYSTEM) as session:
        return str(repeat(lambda: session.run(IDENTITY).data())[0]["id"])


def open_server(access: Mapping[str, Any]) -> Server:
    """Make a server from the configuration's access part; nothing is connected yet."""
    return Server(Access(**access))
