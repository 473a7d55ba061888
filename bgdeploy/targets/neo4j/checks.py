"""What can be looked at on a Neo4j server: how it is reached, what it is, its figures, its databases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bgdeploy.actions import page
from bgdeploy.clock import iso, monotonic, wall
from bgdeploy.errors import ConfigError, TargetError
from bgdeploy.finding import Check, Finding, error, many, ok, shorten, unknown, warning
from bgdeploy.targets.base import Owned
from bgdeploy.targets.neo4j import aliases, databases, health, rights
from bgdeploy.targets.neo4j.access import COMMUNITY, Access, Server, place
from bgdeploy.targets.neo4j.databases import gather
from bgdeploy.targets.neo4j.health import HERE
from bgdeploy.targets.neo4j.offline.store import list_members

SUBJECT = "server"
_OLDEST = (5, 26)
_SKEW = 2.0  # seconds the server's clock may be off
_MEND = {
    "databases": "Lower keep_databases, or raise the server's dbms.max_databases.",
    "heap": "Loads and switches wait; raise server.memory.heap.max_size.",
}


def checks(server: Server, settings: Mapping[str, Any], owned: Owned, *, try_rights: bool) -> Sequence[Check]:
    """``server`` opens for those that ask it, ``target`` where bgdeploy can work on it."""
    reached, known = ("server",), ("server", "job table")
    return [
        Check(SUBJECT, "driver", find_driver),
        Check(SUBJECT, "TLS", lambda: [judge_tls(server.access)]),
        Check(SUBJECT, "connection", partial(find_server, server), opens="server", limit=45.0),
        Check(SUBJECT, "edition", partial(find_edition, server), needs=reached, opens="target", limit=30.0),
        Check(SUBJECT, "version", partial(find_version, server), needs=reached, limit=30.0),
        Check(SUBJECT, "clock", partial(find_clock, server), needs=reached, limit=30.0),
        Check(SUBJECT, "members", partial(find_members, server), needs=reached, limit=30.0),
        Check(SUBJECT, "loader", partial(find_loader, server, settings), needs=reached, limit=90.0),
        Check(SUBJECT, "figures", partial(find_figures, server, settings), needs=reached, limit=30.0),
        Check(SUBJECT, "states of databases", partial(find_unwell, server, owned), needs=known, limit=30.0),
        Check(SUBJECT, "standbys", partial(find_unprotected, settings)),
        *rights.checks(server, settings, tries=try_rights),
    ]


def find_driver() -> Iterator[Finding]:
    """Neo4j's driver, and whether its faster core is in place."""
    try:
        faster = f"with neo4j-rust-ext {version('neo4j-rust-ext')}"
    except PackageNotFoundError:
        faster = 'without its faster core (pip install "bgdeploy[neo4j-fast]")'
    yield ok(f"the driver is neo4j {version('neo4j')}, {faster}")


def judge_tls(access: Access) -> Finding:
    """Whether anybody between here and there can read along."""
    scheme, host = urlsplit(access.uri).scheme, urlsplit(access.uri).hostname
    if access.ca_file is not None:
        return ok(f"connections are encrypted, the certificate is checked against {access.ca_file}")
    if scheme.endswith("+ssc"):
        what = "connections are encrypted, but any certificate is taken, also that of somebody in between"
        return warning(what, "Give the server's authority as neo4j.ca_file, or use +s.")
    if scheme.endswith("+s"):
        return ok("connections are encrypted, and the certificate is checked")
    if host in HERE:
        return ok(f"connections are not encrypted, and do not leave this machine ({host})")
    what = f"connections to {host} are not encrypted: password and data can be read on the way"
    return warning(what, f"neo4j.uri: {scheme}+s://...")


def find_server(server: Server) -> Iterator[Finding]:
    """It answers, as the user that is configured."""
    began, where = monotonic(), place(server.access.uri)
    try:
        identity = server.identity()
    except (TargetError, ConfigError) as failure:
        yield error(failure.what, failure.cure or "Does it run, and is neo4j.uri right?")
        return
    took = (monotonic() - began) * 1000
    yield ok(f"{where} answers {server.access.user!r} in {took:.0f} ms; its id is {identity}")


def find_edition(server: Server) -> Iterator[Finding]:
    """Only Enterprise has databases and aliases, so on any other nothing ever goes live."""
    edition = health.edition(server)
    if edition == "community":
        yield error(f"{COMMUNITY}.", "Change neo4j.uri or target; for a trial load it does as it is.")
    elif lacks := health.find_lacks(server):
        yield error(f"{health.tell_lacks(edition, lacks)}.", "Change neo4j.uri or target.")
    elif edition == "enterprise":
        yield ok("it is Neo4j Enterprise")
    else:
        yield unknown(f"its edition is {edition!r}, which bgdeploy does not know")


def find_version(server: Server) -> Iterator[Finding]:
    """Old servers lack some of the statements."""
    found = health.version(server)
    numbers = tuple(int(part) for part in found.split("-")[0].split(".")[:2] if part.isdigit())
    if not numbers:
        yield unknown(f"its version is {found!r}")
    elif numbers < _OLDEST:
        yield warning(f"it is Neo4j {found}; bgdeploy is tested from 5.26 on", "Upgrade the server.")
    else:
        yield ok(f"it is Neo4j {found}")


def find_members(server: Server) -> Iterator[Finding]:
    """Commands reach a cluster's leaders only where the driver is let to look for them."""
    found = list_members(server)
    if len(found) < 2:
        return
    if server.access.uri.startswith("bolt"):
        what = (
            f"it is one of {len(found)} members of a cluster, and bolt:// asks this one alone, whoever leads"
        )
        yield warning(what, "neo4j.uri: neo4j://...")
    else:
        yield ok(f"it is a cluster of {len(found)} members, and the driver finds who leads")


def find_loader(server: Server, settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the import tool can be used, and the folder of its dumps, where somebody means to."""
    from bgdeploy.targets.neo4j.offline import load
    from bgdeploy.targets.neo4j.offline.load import check

    tool = server.access.import_tool
    if settings["loader"] != "import" and (settings["loader"] != "auto" or tool is None):
        return
    try:
        check(server)
        load.check_seed(server)
    except ConfigError as failure:
        yield error(failure.what, failure.cure)
        return
    yield ok(f"the import tool {tool} is of its release, and its data folder is here")


def find_clock(server: Server) -> Iterator[Finding]:
    """Both clocks, asked as close together as the connection allows."""
    before = wall()
    told = health.now(server)
    if told is None:
        yield unknown("it does not tell its time", "GRANT SHOW TRANSACTION (*) ON DATABASE * TO <role>")
        return
    off = told - min(max(told, before), wall())  # none where it lies between question and answer
    what = f"its clock is {off:+.2f} s off this machine's ({iso(told)})"
    yield ok(what) if abs(off) <= _SKEW else warning(what, "Set both clocks and keep them set (chrony).")


def find_figures(server: Server, settings: Mapping[str, Any]) -> Iterator[Finding]:
    """The figures that decide whether loads and switches may start, as the service judges them."""
    for figure in health.figures(server, settings):
        if figure.value is None and figure.most is not None:
            cure = f"See {page('neo4j.md')}; neo4j.health_unknown decides whether it is waited for."
            yield unknown(figure.text, cure)
        elif figure.verdict == "ok":
            yield ok(figure.text)
        else:
            yield warning(figure.text, _MEND[figure.what])


def find_unwell(server: Server, owned: Owned) -> Iterator[Finding]:
    """Databases of ours that the server does not have online everywhere."""
    ours = owned()
    there = [one for one in gather(databases.show(server)) if one.name in ours]
    cure = "If it stays so, an administrator has to look at it: SHOW DATABASES"
    found = [warning(f"{one.name} is {one.text}", cure) for one in there if one.verdict != "online"]
    yield from shorten(found, "SHOW DATABASES")
    if not found:
        yield ok(f"{many(len(there), 'database')} of bgdeploy's there, all online")


def find_unprotected(settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Databases that an alias left and that can still be written."""
    cure = f"It is tried again at each scan; the rights it takes are in {page('neo4j.md')}."
    owed = aliases.owed(Path(settings["state_dir"]) / "builds")
    found = [
        warning(f"{name} is no longer live and still not read-only: {said}", cure)
        for name, said in owed.items()
        if said
    ]
    yield from found or [ok("what an alias left is protected as configured")]
