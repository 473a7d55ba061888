"""Imports without a job table: the real tool writes the store of a Community server, which then starts on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bgdeploy.targets.groups import keep_plan
from bgdeploy.targets.neo4j.access import open_server
from bgdeploy.targets.neo4j.offline import sources
from bgdeploy.targets.neo4j.offline.load import _options
from bgdeploy.targets.neo4j.offline.sources import lay_out
from bgdeploy.targets.neo4j.offline.store import Place
from bgdeploy.targets.neo4j.offline.tool import Tool, run
from bgdeploy.targets.neo4j.schema import create_keys
from tests.neo4j.loading import Loading, loading_of
from tests.neo4j.servers import PASSWORD, Community


@contextmanager
def imported(folder: Path, version: str, files: dict[str, Any]) -> Iterator[tuple[Loading, Community]]:
    """A running server on a store that holds these files, and the load that stands for them, ready to verify."""
    server = Community(folder / "home", version)
    server.prepare()
    one, work = loading_of(folder, server.uri, files), folder / "work"
    work.mkdir()
    groups = keep_plan(one.snapshot, one.ledger, lambda *_: 10**9, work)
    given = lay_out(one.snapshot, groups, work)
    place = Place(server.home / "data/databases", server.home / "data/transactions", "", "", ())
    tool = Tool(str(server.write_tool(folder / "neo4j-admin")), 512)
    words = [*_options(tool, place, "neo4j", one.snapshot, work), *given.words]
    run(tool, words, work, "a-mark-of-the-tests", lambda phase: None)
    sources.keep(work, given.empties)
    server.start()
    try:
        server.wait()
        login = {"user": "neo4j", "password": PASSWORD, "password_file": None, "ca_file": None}
        there = open_server({"uri": server.uri, **login})
        sources.restore(there, "neo4j", work)
        create_keys(there, "neo4j", one.snapshot)
        yield one, server
    finally:
        server.kill()
