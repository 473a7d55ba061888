"""Empty texts: the tool takes them for none, so they are imported as a mark and made empty again afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from bgdeploy.durable import write_durably
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.names import CYPHER, quote
from bgdeploy.targets.neo4j.offline.forms import EMPTY

FILE = "empties.json"
_AT_ONCE = 10_000  # rows of one transaction


def keep(folder: Path, found: Iterable[tuple[str, str, str]]) -> None:
    """Remember where there are some: (node or relationship, label or type, property)."""
    write_durably(folder / FILE, json.dumps(list(found)))


def restore(server: Server, database: str, folder: Path) -> None:
    """Put the empty texts back, each where its mark stands; doing it again changes nothing."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return  # an earlier run came to its end
    for kind, name, column in found:
        server.change(database, _restore(kind, name, column), f"Restoring empty texts in {name}", mark=EMPTY)


def _restore(kind: str, name: str, column: str) -> str:
    match = f"(x:{quote(name)})" if kind == "node" else f"()-[x:{quote(name)}]->()"
    property_ = f"x.{quote(column)}"
    return (
        f"{CYPHER}MATCH {match} WHERE {property_} = $mark "
        f"CALL (x) {{ SET {property_} = '' }} IN TRANSACTIONS OF {_AT_ONCE} ROWS"
    )
