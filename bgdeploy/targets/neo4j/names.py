"""Names in Cypher: labels, types and properties quoted so that any text is only a name."""

from __future__ import annotations

# Cypher 5 is named in each statement, since a server may have another default and quoting follows it.
CYPHER = "CYPHER 5 "
# The nodes that keep fence and position during a load. A server lists names of what was deleted for ever, so
# label and properties are few and begin alike: see docs/neo4j.md.
MARK = "__bgdeploy_"
STREAM = f"{MARK}stream"


def quote(name: str) -> str:
    """Return a name in backticks.

    A backslash is written as its code: Cypher 5 replaces codes such as ``\\u0060`` before it looks
    for backticks, so a name with that text in it would end early.
    """
    return "`" + name.replace("\\", "\\u005C").replace("`", "``") + "`"
