"""Address: where the server's Arrow endpoint is, whether it runs, and how it is to be spoken to."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from neo4j.exceptions import ClientError

from bgdeploy.errors import ConfigError
from bgdeploy.targets.neo4j.access import Access, Server
from bgdeploy.targets.neo4j.databases import show

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
