"""Report: the bad rows that the tool lists, as text up to 5.26 and as JSON lines later; pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bgdeploy.snapshots.ends import Misfit
from bgdeploy.targets.neo4j.offline.sources import Spaces

TOLERATED = 20  # bad rows after which the tool ends; so many are in its report
_SHOWN = 3
_DOUBLE = re.compile(r"'(.*)' is defined more than once in group '(g\d+)'", re.DOTALL)
_LOST_OLD = re.compile(r"(.*) \((g\d+)\)-\[(.*)\]->(.*) \((g\d+)\) referring to missing node (.*)", re.DOTALL)
_LOST = re.compile(r"\((.*):(g\d+)\)-\[(.*)\]->\((.*):(g\d+)\) referring to missing node (.*)", re.DOTALL)


@dataclass(frozen=True)
class Bad:
    """One row that does not fit: an id that is there twice, or an end that no node has."""

    kind: str
    name: str
    text: str


def read_report(path: Path, spaces: Spaces) -> list[Bad]:
    """Every bad row the tool listed, in its order; none where there is no report."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return list(filter(None, (parse(line, spaces) for line in _messages(text))))


def _messages(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.startswith('{"'):
            yield str(json.loads(line).get("message", line))
        elif line.strip():
            yield line


def parse(said: str, spaces: Spaces) -> Bad | None:
    """What one message of the tool is about, in the words of the snapshot; None for one that is no bad row."""
    if double := _DOUBLE.search(said):
        label = spaces.label(double[2])
        return Bad("node", label, f"the id {double[1]!r} is there twice in nodes/{label}")
    if lost := _LOST.search(said) or _LOST_OLD.search(said):
        start, one, kind, end, two, missing = lost.groups()
        start = start.removeprefix("Invalid relationship in import data\n").removeprefix("(")
        labels = f"({spaces.label(one)} {start!r})-[{kind}]->({spaces.label(two)} {end!r})"
        return Bad("relationship", kind, f"{labels} in relationships/{kind}: there is no node {missing!r}")
    return None


def as_misfit(found: Sequence[Bad]) -> Misfit:
    """The first of them as what our own search in the files starts from."""
    shown = "; ".join(one.text for one in found[:_SHOWN])
    more = f" (and {len(found) - _SHOWN} more in its report)" if len(found) > _SHOWN else ""
    first = found[0]
    kind = "node" if first.kind == "node" else "relationship"
    return Misfit(kind, first.name, f"The import tool reports bad rows: {shown}{more}.")  # type: ignore[arg-type]
